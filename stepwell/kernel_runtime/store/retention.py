"""Retention rules: limits on the number, age and total size of the stored versions of a key, or of all keys of a store.

If a store has no rules, nothing is dropped. If the rule of a key limits the number or the age of versions, this limit replaces the same limit
in the rule of the store. The limit of the store on the total size applies to all values together, in addition to the limits of keys. The rule
of a graph-backed asset or job also applies to the steps inside it. Some materializations are never dropped: those that are current in a notebook;
the newest one for each combination of key, notebook and partition; those of a run that is still running; and those that a kept acceptance needs
(the module `materializations` explains acceptances).

`ids_to_drop` chooses the materializations to delete; `housekeeping.collect` deletes them. The rules are rows of the catalog.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.declarations import seconds_of
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvalidInvocationError
from stepwell.kernel_runtime.records.maintenance import STORE, Rule
from stepwell.kernel_runtime.records.materializations import ACCEPTED, REVOKED
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.tables import rows_of

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


@dataclass(frozen=True, slots=True)
class Kept:
    """The fields of a materialization, and of its stored value, that the retention rules need. See `Materialization` and `StoredValue`."""

    id: str
    key: str
    notebook: str
    partition: str
    run_id: str
    created: float
    data_version: str
    digest: str
    size: int
    metadata: Mapping[str, Any]


def ids_to_drop(
    rows: Sequence[Kept],
    rules: Mapping[str, Rule],
    *,
    now: float,
    current: Collection[str],
    running: Collection[str],
) -> set[str]:
    """Return the ids of the materializations that the retention rules drop.

    Parameters
    ----------
    rows
        All materializations, oldest first.
    rules
        The rules by key; the rule of the whole store has the key `STORE`.
    now
        The present time in seconds since the epoch.
    current
        Ids of the materializations that are current in a notebook.
    running
        Ids of the runs that are still running.
    """
    if all(rule.empty for rule in rules.values()):
        return set()
    newest_first = list(reversed(rows))
    limits = {key: _rule_for(key, rules) for key in {row.key for row in rows}}
    fixed = {row.id for row in rows if row.id in current or row.run_id in running}
    seen: set[tuple[str, str, str]] = set()
    for row in newest_first:
        place = (row.key, row.notebook, row.partition)
        if place not in seen:
            seen.add(place)
            fixed.add(row.id)
    dropped_ids = {
        row.id
        for row in newest_first
        if (age := limits[row.key].age) is not None and now - row.created > age and row.id not in fixed
    }
    dropped_ids |= _beyond_count(newest_first, limits) - fixed
    own_bytes = {key for key in limits if (key_rule := _key_rule(key, rules)) is not None and key_rule.bytes is not None}
    for key in own_bytes:
        dropped_ids |= _beyond_bytes(
            [row for row in newest_first if row.key == key and row.id not in dropped_ids], limits[key], fixed
        )
    if STORE in rules:
        remaining = [row for row in newest_first if row.id not in dropped_ids]
        dropped_ids |= _beyond_bytes(remaining, rules[STORE], fixed)
    return dropped_ids - _referenced_ids(rows, dropped_ids)


def _key_rule(key: str, rules: Mapping[str, Rule]) -> Rule | None:
    """Return the rule of ``key``, or else the rule of the asset or job that contains the step ``key``; None if neither has a rule."""
    whole = re.split(r"[.:]", key, maxsplit=1)[0]
    return rules.get(key) or rules.get(whole)


def _rule_for(key: str, rules: Mapping[str, Rule]) -> Rule:
    """Return the limits that apply to ``key``.

    The limit on the number of versions is that of the key's rule or, if the key's rule has none, that of the store's rule. The same holds for
    the limit on their age. The limit on bytes is always that of the key's rule.
    """
    key_rule, store_rule = _key_rule(key, rules) or Rule(), rules.get(STORE, Rule())
    return Rule(
        key_rule.versions if key_rule.versions is not None else store_rule.versions,
        key_rule.age if key_rule.age is not None else store_rule.age,
        key_rule.bytes,
    )


def _beyond_count(newest_first: Iterable[Kept], limits: Mapping[str, Rule]) -> set[str]:
    """Return the ids of the materializations beyond the maximum number of versions for their key, notebook and partition.

    ``limits`` maps each key to the limits that apply to it. Consecutive materializations with the same data version count as one version.
    """
    counts: dict[tuple[str, str, str], int] = {}
    last: dict[tuple[str, str, str], str] = {}
    dropped_ids = set()
    for row in newest_first:
        limit = limits[row.key].versions
        if limit is None or REVOKED in row.metadata:
            continue
        place = (row.key, row.notebook, row.partition)
        version = row.data_version or row.id
        if last.get(place) != version:
            last[place] = version
            counts[place] = counts.get(place, 0) + 1
        if counts[place] > limit:
            dropped_ids.add(row.id)
    return dropped_ids


def _beyond_bytes(newest_first: Sequence[Kept], rule: Rule, fixed: Collection[str]) -> set[str]:
    """Choose the oldest materializations to drop, until the total size of the remaining values is at most ``rule.bytes``. Return their ids.

    Equal values are counted once. Materializations with an id in ``fixed`` are counted but never returned. If the rule has no limit on
    bytes, return an empty set.
    """
    if rule.bytes is None:
        return set()
    counted: set[str] = set()
    total = 0
    # Values that are never dropped are counted first.
    for row in newest_first:
        if row.id in fixed and row.digest and row.digest not in counted:
            counted.add(row.digest)
            total += row.size
    dropped_ids = set()
    full = False
    for row in newest_first:
        if row.id in fixed or not row.digest or row.digest in counted:
            continue
        if full or total + row.size > rule.bytes:
            full = True
            dropped_ids.add(row.id)
            continue
        counted.add(row.digest)
        total += row.size
    return dropped_ids


def _referenced_ids(rows: Sequence[Kept], dropped_ids: Collection[str]) -> set[str]:
    """Return the ids of the materializations that are needed by acceptances whose ids are not in ``dropped_ids``.

    An acceptance needs the materialization that the user accepted, and the rows that revoke the acceptance.
    """
    by_id = {row.id: row for row in rows}
    notes = {row.id: note for row in rows if isinstance(note := row.metadata.get(ACCEPTED), dict)}
    revoking: dict[str, list[str]] = {}
    for row in rows:
        if REVOKED in row.metadata:
            revoking.setdefault(str(row.metadata[REVOKED]), []).append(row.id)
    needed: set[str] = set()
    waiting = [id_ for id_ in notes if id_ not in dropped_ids]
    while waiting:
        accepted = waiting.pop()
        for other in (str(notes[accepted].get("of", "")), *revoking.get(by_id[accepted].run_id, ())):
            if other in by_id and other not in needed:
                needed.add(other)
                if other in notes:
                    waiting.append(other)
    return needed


# -- the rules in the catalog -----------------------------------------------------------------------------------------


def rules_of(store: ValueStore) -> dict[str, Rule]:
    """Return the retention rules of a store by key; the rule of the whole store has the key `STORE`, an empty string."""
    return store.catalog.ask(read_rules)


def keep(store: ValueStore, key: str, rule: Rule) -> None:
    """Set the retention rule of a key, or of the whole store if ``key`` is empty. A ``rule`` without limits removes the present rule."""
    store.catalog.change(write_rule, key, rule)


def read_rules(connection: Connection, name: str) -> dict[str, Rule]:
    """Return the retention rules in the catalog by key. The newest row of each key is in force; a key whose newest row has no limits is omitted."""
    rows = rows_of(
        connection,
        name,
        "SELECT key, versions, age, bytes FROM @retention QUALIFY row_number() OVER (PARTITION BY key ORDER BY rowid DESC) = 1 ORDER BY key",
    )
    rules = {key: Rule(versions, age, size) for key, versions, age, size in rows}
    return {key: rule for key, rule in rules.items() if not rule.empty}


def write_rule(connection: Connection, name: str, key: str, rule: Rule) -> None:
    """Append a row with the rule of a key to the catalog. A ``rule`` without limits means that the key has no rule from now on."""
    rows_of(
        connection,
        name,
        "INSERT INTO @retention (key, versions, age, bytes, changed) VALUES (?, ?, ?, ?, ?)",
        [key, rule.versions, rule.age, rule.bytes, time.time()],
    )


# -- limits given by the user ------------------------------------------------------------------------------------------

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def read_versions(value: int | str | None) -> int | None:
    """Convert ``value``, a number of versions or the text of a number, to an int; return None for None.

    Raise `InvalidInvocationError` if ``value`` is not a whole number above 0.
    """
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(value, bool | float):
        raise InvalidInvocationError(
            f"invalid number of versions {value!r}",
            remedy="give a whole number that is at least 1, for example versions=3; the newest version of each asset is always kept",
        )
    return number


def read_age(value: float | str | None) -> float | None:
    """Convert ``value`` to an age in seconds; return None for None. Raise `InvalidInvocationError` if ``value`` is not an age.

    ``value`` is a number of seconds, or a text like ``30m``, ``12h``, ``1d12h`` or ``4w``.
    """
    try:
        return seconds_of(value)
    except InvalidDefinitionError as error:
        raise InvalidInvocationError(
            f"invalid age {value!r}",
            remedy="give a number of seconds, or a text with units (s, m, h, d, w), for example age='30d'",
        ) from error


def read_bytes(value: int | str | None) -> int | None:
    """Convert ``value`` to a size in bytes; return None for None. Raise `InvalidInvocationError` if ``value`` is not a size.

    ``value`` is a number of bytes, or a text like ``10GB`` or ``512MiB``.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B|)\s*", str(value).upper())
        number = int(float(matched[1]) * _SIZES[matched[2]]) if matched and matched[2] in _SIZES else -1
    if number < 0:
        raise InvalidInvocationError(
            f"invalid size {value!r}",
            remedy="give a number of bytes, or a text with a unit (kB, MB, GB, TB, GiB), for example bytes='10GB'",
        )
    return number

"""Retention rules: limits on the number, age and total size of stored versions, for a key or for the whole store.

Without a rule nothing is dropped. A limit on number or age in the rule of a key overrides the same limit of the store. The rule of a
graph-backed asset or job applies to the steps inside it. Some materializations are never dropped: those that are current in a notebook, the
newest of each key, notebook and partition, those of a run that is still running, and those that are needed to show or revoke an acceptance.

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
    """The fields of a materialization that the rules use."""

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
    """Return the ids of the materializations that the rules drop.

    Parameters
    ----------
    rows
        All materializations, oldest first.
    rules
        The rules by key; the rule of the store has the key `STORE`.
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
    own_bytes = {
        key for key in limits if (key_rule := _key_rule(key, rules)) is not None and key_rule.bytes is not None
    }
    for key in own_bytes:
        dropped_ids |= _beyond_bytes(
            [row for row in newest_first if row.key == key and row.id not in dropped_ids], limits[key], fixed
        )
    if STORE in rules:
        remaining = [row for row in newest_first if row.id not in dropped_ids]
        dropped_ids |= _beyond_bytes(remaining, rules[STORE], fixed)
    return dropped_ids - _referenced_ids(rows, dropped_ids)


def _key_rule(key: str, rules: Mapping[str, Rule]) -> Rule | None:
    whole = re.split(r"[.:]", key, maxsplit=1)[0]
    return rules.get(key) or rules.get(whole)


def _rule_for(key: str, rules: Mapping[str, Rule]) -> Rule:
    key_rule, store_rule = _key_rule(key, rules) or Rule(), rules.get(STORE, Rule())
    return Rule(
        key_rule.versions if key_rule.versions is not None else store_rule.versions,
        key_rule.age if key_rule.age is not None else store_rule.age,
        key_rule.bytes,
    )


def _beyond_count(newest_first: Iterable[Kept], limits: Mapping[str, Rule]) -> set[str]:
    """Return the ids of rows that exceed the maximum number of versions of their key, notebook and partition.

    Consecutive rows with the same data version count as one version.
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
    """Return the ids of the oldest rows, which must be dropped so that the remaining distinct values fit into the bytes of the rule."""
    if rule.bytes is None:
        return set()
    counted: set[str] = set()
    total = 0
    # Rows that are never dropped are counted first.
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
    """Return the ids that a retained acceptance refers to: the accepted materialization and the revocations."""
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
    """Return the retention rules in force by key; the rule of the store has the empty key."""
    return store.catalog.ask(read_rules)


def keep(store: ValueStore, key: str, rule: Rule) -> None:
    """Set the retention rule of a key, or of the store if the key is empty. An empty rule removes the present rule."""
    store.catalog.change(write_rule, key, rule)


def read_rules(connection: Connection, name: str) -> dict[str, Rule]:
    """Read the retention rules in force by key. The newest row of a key is its rule."""
    rows = rows_of(
        connection,
        name,
        "SELECT key, versions, age, bytes FROM @retention QUALIFY row_number() OVER (PARTITION BY key ORDER BY rowid DESC) = 1 ORDER BY key",
    )
    rules = {key: Rule(versions, age, size) for key, versions, age, size in rows}
    return {key: rule for key, rule in rules.items() if not rule.empty}


def write_rule(connection: Connection, name: str, key: str, rule: Rule) -> None:
    """Append the rule of a key. An empty rule removes the present rule."""
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
    """Convert a number of versions, which is at least 1; raise `InvalidInvocationError` if the argument is invalid."""
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(value, bool | float):
        raise InvalidInvocationError(
            f"invalid number of versions {value!r}",
            remedy="give a whole number from 1, such as versions=3; the newest is always kept",
        )
    return number


def read_age(value: float | str | None) -> float | None:
    """Convert an age, such as ``30m``, ``12h``, ``1d12h`` or ``4w``, to seconds; raise `InvalidInvocationError` if it is invalid."""
    try:
        return seconds_of(value)
    except InvalidDefinitionError as error:
        raise InvalidInvocationError(
            f"invalid age {value!r}", remedy="give seconds, or a text such as age='30d' (units: s, m, h, d, w)"
        ) from error


def read_bytes(value: int | str | None) -> int | None:
    """Convert a size, such as ``10GB`` or ``512MiB``, to bytes; raise `InvalidInvocationError` if it is invalid."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B|)\s*", str(value).upper())
        number = int(float(matched[1]) * _SIZES[matched[2]]) if matched and matched[2] in _SIZES else -1
    if number < 0:
        raise InvalidInvocationError(
            f"invalid size {value!r}", remedy="give bytes, or a text such as bytes='10GB' (units: kB, MB, GB, TB, GiB)"
        )
    return number

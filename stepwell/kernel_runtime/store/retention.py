"""Which materializations are kept: rules by number of versions, by age, by bytes, for a key or for the whole store.

Without a rule nothing is dropped. A key's own rule comes before the store's, limit by limit; the rule of a graph-backed asset or job
holds for the steps inside it. Whatever the rules say, these stay: what is current in any notebook, the newest of
each key and notebook, what a run that is going on has made, and what an acceptance needs to be shown or taken back.

`dropped` is a function from rows to ids; `housekeeping.collect` applies it. The rules are rows of the catalog.
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
    """The fields of a materialization that the rules look at."""

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


def dropped(
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
        By key; the store's under `STORE`.
    current
        Ids that some notebook's pointer means.
    running
        Ids of runs that are going on.
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
    gone = {
        row.id
        for row in newest_first
        if (age := limits[row.key].age) is not None and now - row.created > age and row.id not in fixed
    }
    gone |= _too_many(newest_first, limits) - fixed
    own_bytes = {key for key in limits if (own := _own_rule(key, rules)) is not None and own.bytes is not None}
    for key in own_bytes:
        gone |= _too_large([row for row in newest_first if row.key == key and row.id not in gone], limits[key], fixed)
    if STORE in rules:
        left = [row for row in newest_first if row.id not in gone]
        gone |= _too_large(left, rules[STORE], fixed)
    return gone - _needed(rows, gone)


def _own_rule(key: str, rules: Mapping[str, Rule]) -> Rule | None:
    whole = re.split(r"[.:]", key, maxsplit=1)[0]
    return rules.get(key) or rules.get(whole)


def _rule_for(key: str, rules: Mapping[str, Rule]) -> Rule:
    own, store = _own_rule(key, rules) or Rule(), rules.get(STORE, Rule())
    return Rule(
        own.versions if own.versions is not None else store.versions,
        own.age if own.age is not None else store.age,
        own.bytes,
    )


def _too_many(newest_first: Iterable[Kept], limits: Mapping[str, Rule]) -> set[str]:
    """Return the ids beyond the newest N different values of each key, notebook and partition; equal neighbours are one."""
    counts: dict[tuple[str, str, str], int] = {}
    last: dict[tuple[str, str, str], str] = {}
    gone = set()
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
            gone.add(row.id)
    return gone


def _too_large(newest_first: Sequence[Kept], rule: Rule, fixed: Collection[str]) -> set[str]:
    """Return the ids of the oldest rows without which the different values take no more than the rule's bytes."""
    if rule.bytes is None:
        return set()
    counted: set[str] = set()
    total = 0
    # What stays in any case counts first.
    for row in newest_first:
        if row.id in fixed and row.digest and row.digest not in counted:
            counted.add(row.digest)
            total += row.size
    gone = set()
    full = False
    for row in newest_first:
        if row.id in fixed or not row.digest or row.digest in counted:
            continue
        if full or total + row.size > rule.bytes:
            full = True
            gone.add(row.id)
            continue
        counted.add(row.digest)
        total += row.size
    return gone


def _needed(rows: Sequence[Kept], gone: Collection[str]) -> set[str]:
    """Return those of the dropped that an acceptance which stays needs: what it was made of, and what takes it back."""
    by_id = {row.id: row for row in rows}
    notes = {row.id: note for row in rows if isinstance(note := row.metadata.get(ACCEPTED), dict)}
    revoking: dict[str, list[str]] = {}
    for row in rows:
        if REVOKED in row.metadata:
            revoking.setdefault(str(row.metadata[REVOKED]), []).append(row.id)
    needed: set[str] = set()
    waiting = [found for found in notes if found not in gone]
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
    """Return the retention rules that hold, by key; the store's own under the empty key."""
    return store.catalog.ask(read_rules)


def keep(store: ValueStore, key: str, rule: Rule) -> None:
    """Set what is kept of a key, or of the whole store where the key is empty; an empty rule takes a rule back."""
    store.catalog.change(write_rule, key, rule)


def read_rules(connection: Connection, name: str) -> dict[str, Rule]:
    """Read the retention rules that hold, by key; the newest row of a key is its rule."""
    rows = rows_of(
        connection,
        name,
        "SELECT key, versions, age, bytes FROM @retention QUALIFY row_number() OVER (PARTITION BY key ORDER BY rowid DESC) = 1 ORDER BY key",
    )
    rules = {key: Rule(versions, age, size) for key, versions, age, size in rows}
    return {key: rule for key, rule in rules.items() if not rule.empty}


def write_rule(connection: Connection, name: str, key: str, rule: Rule) -> None:
    """Append the rule of a key; an empty one takes it back."""
    rows_of(
        connection,
        name,
        "INSERT INTO @retention (key, versions, age, bytes, changed) VALUES (?, ?, ?, ?, ?)",
        [key, rule.versions, rule.age, rule.bytes, time.time()],
    )


# -- limits as people write them ---------------------------------------------------------------------------------------

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def read_versions(given: int | str | None) -> int | None:
    """Read a number of versions, one at least; an `InvalidInvocationError` for anything else."""
    if given is None:
        return None
    try:
        found = int(given)
    except (TypeError, ValueError):
        found = 0
    if found < 1 or isinstance(given, bool | float):
        raise InvalidInvocationError(
            f"{given!r} is no number of versions", remedy="for example: versions=3; the newest is always kept"
        )
    return found


def read_age(given: float | str | None) -> float | None:
    """Read an age in seconds, or as ``30m``, ``12h``, ``1d12h``, ``4w``; an `InvalidInvocationError` for anything else."""
    try:
        return seconds_of(given)
    except InvalidDefinitionError as error:
        raise InvalidInvocationError(f"{given!r} is no age", remedy="for example: age='30d' (s, m, h, d, w)") from error


def read_bytes(given: int | str | None) -> int | None:
    """Read a number of bytes, or a size such as ``10GB`` or ``512MiB``; an `InvalidInvocationError` for anything else."""
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        found = given
    else:
        matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B|)\s*", str(given).upper())
        found = int(float(matched[1]) * _SIZES[matched[2]]) if matched and matched[2] in _SIZES else -1
    if found < 0:
        raise InvalidInvocationError(f"{given!r} is no size", remedy="for example: bytes='10GB' (kB, MB, GB, TB, GiB)")
    return found

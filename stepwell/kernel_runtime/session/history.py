"""The versions of a key, and renaming: stored versions carried over to another key.

A version is a materialization. Neighbours with the same data version are one: the value was computed again, and was the same.
Which version is meant can be said by the beginning of its identifier, by a number counted from the newest (-1 is the newest, -2 the one before; 0, 1, ... from the
oldest), or by a time, which means what the newest was then.

*Carrying over* appends copies of the notebook's own rows under the new key, the steps inside a graph-backed asset included, and takes the old
key out of what is current; nothing is deleted, so that going back finds everything.

A copy has the memo key of the renamed definition: the new step key, and the same code version, in which an asset's own name does not
count. If more than the name changed, the state is stale, and ``%why`` says what. It does not matter whether the cell is edited before or
after the command.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from stepwell.kernel_runtime.errors import (
    InvalidInvocationError,
    InvariantViolationError,
    UnknownVersionError,
    ValueUnavailableError,
    unknown_key,
)
from stepwell.kernel_runtime.records.keys import AssetKey, listed, new_id
from stepwell.kernel_runtime.records.materializations import (
    Current,
    Materialization,
    StoredValue,
    Verify,
    acceptance,
    memo_key,
    revoked_run,
)
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord
from stepwell.kernel_runtime.store import housekeeping, signing
from stepwell.kernel_runtime.text import in_one_line, moment, size_text

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

WhichVersion: TypeAlias = "str | int | dt.datetime | dt.date"
_ALL = 1_000_000_000
_SHORT = 8


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key."""

    id: str
    """The identifier of its newest materialization."""
    number: int
    """Counted from the newest: -1, -2, ..."""
    created: float
    """Seconds since the epoch."""
    data_version: str
    code_version: str
    run_id: str
    notebook: str
    partition: str
    type_name: str
    summary: str
    size: int
    """Bytes of its stored form."""
    seconds: float
    """How long it took."""
    current: bool
    """Whether it is what some notebook's `load` means now."""
    available: bool
    """Whether its value is stored and its file is there."""
    times: int = 1
    """How often in a row this value was made; the identifier is the newest one's."""
    first: float = 0.0
    """When it was made first, of these."""
    accepted: bool = False
    """Whether it was not computed, but accepted for an edit."""

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        marks = [
            "current" if self.current else "",
            f"{self.times} times since {moment(self.first, exact=True)}" if self.times > 1 else "",
            "accepted" if self.accepted else "",
            "" if self.available else "value not available",
        ]
        facts = [
            moment(self.created, exact=True),
            self.summary or self.type_name or "no value",
            size_text(self.size),
            f"{self.seconds:.1f} s",
        ]
        place = f"{self.notebook}{f' [{self.partition}]' if self.partition else ''}"
        return in_one_line(
            f"{self.number:>4}  {self.id[: _SHORT * 2]}  {' · '.join([*facts, place, *filter(None, marks)])}"
        )


class Versions(tuple[Version, ...]):  # noqa: SLOT001 - it has attributes
    """The versions of a key, newest first; printed as a table."""

    key: str = ""
    collapsed: bool = True
    """Whether neighbours with one value are one version."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__


def read_versions(
    store: ValueStore, key: str, *, notebook: str | None = None, partition: str | None = None, collapse: bool = True
) -> Versions:
    """Return the versions of a key, newest first.

    Parameters
    ----------
    notebook, partition
        Only those of a notebook, of a partition.
    collapse
        Whether neighbours with one data version are one.

    Raises
    ------
    UnknownKeyError
        If nothing was ever stored for the key.
    """
    return _grouped(_items(store, key), store, key, notebook, partition=partition, collapse=collapse)


def _items(store: ValueStore, key: str) -> list[Materialization]:
    """Return every materialization of a key, newest first."""
    items = [item for item in store.history(key, limit=_ALL) if not revoked_run(item)]
    if not items:
        raise unknown_key("stored key", key, store.keys())
    return items


def _grouped(
    items: list[Materialization],
    store: ValueStore,
    key: str,
    notebook: str | None,
    *,
    partition: str | None = None,
    collapse: bool = True,
) -> Versions:
    current = {row.materialization.id for row in store.current(key)}
    groups: list[list[Materialization]] = []
    newest: dict[tuple[str, str], list[Materialization]] = {}
    for item in items:
        if (notebook is not None and item.notebook != notebook) or (
            partition is not None and item.partition != partition
        ):
            continue
        place = (item.notebook, item.partition)
        group = newest.get(place)
        if collapse and group is not None and item.data_version and group[0].data_version == item.data_version:
            group.append(item)
        else:
            group = newest[place] = [item]
            groups.append(group)
    found = Versions(_version(group, -at, current, store) for at, group in enumerate(groups, 1))
    found.key, found.collapsed = key, collapse
    return found


def _version(group: list[Materialization], number: int, current: set[str], store: ValueStore) -> Version:
    item, value = group[0], group[0].value
    return Version(
        item.id, number, item.created, item.data_version, item.code_version, item.run_id, item.notebook, item.partition,
        value.type_name if value is not None else "", value.summary if value is not None else "", value.size if value is not None else 0,
        item.seconds, any(each.id in current for each in group), value is not None and store.objects.holds(value),
        len(group), group[-1].created, acceptance(item) is not None,
    )  # fmt: skip


def find_version(store: ValueStore, key: str, which: WhichVersion, *, notebook: str | None = None) -> Materialization:
    """Return the materialization that a version means.

    Raises
    ------
    UnknownKeyError
        If nothing was ever stored for the key.
    UnknownVersionError
        If the key has no such version, or more than one whose identifier begins so.
    """
    items = _items(store, key)
    return _found(items, _grouped(items, store, key, notebook), key, which, notebook)


def _found(
    items: list[Materialization], versions: Versions, key: str, which: WhichVersion, notebook: str | None
) -> Materialization:
    every = [item for item in items if notebook is None or item.notebook == notebook]
    if not every:
        raise UnknownVersionError(f"{key!r} has no version of {notebook!r}", remedy=_see(key))
    chosen = _chosen(key, versions, which, every)
    return next(item for item in every if item.id == chosen)


def _chosen(key: str, found: Versions, which: WhichVersion, every: list[Materialization]) -> str:
    if isinstance(which, bool) or not isinstance(which, str | int | dt.date):
        raise InvalidInvocationError(
            f"a version is an identifier, a number or a time, not a {type(which).__name__}",
            remedy=f"for example: stepwell.load({key!r}, version=-2)",
        )
    if isinstance(which, str) and which.lstrip("-").isdecimal() and len(which) < 7:
        which = int(which)
    if isinstance(which, int):
        at = -which - 1 if which < 0 else len(found) - 1 - which
        if not 0 <= at < len(found):
            raise UnknownVersionError(
                f"{key!r} has {len(found)} versions: there is no {which}",
                remedy=f"-1 is the newest, -{len(found)} the oldest",
            )
        return found[at].id
    if isinstance(which, str):
        ids = [version.id for version in every if version.id.startswith(which)] if which else []
        if len(ids) == 1 or which in ids:
            return which if which in ids else ids[0]
        if ids:
            raise UnknownVersionError(
                f"{len(ids)} versions of {key!r} begin with {which!r}",
                where=", ".join(ids[:4]),
                remedy="give more of the identifier",
            )
    latest = _moment(which)
    if latest is None:
        raise UnknownVersionError(
            f"{key!r} has no version {which!r}", where="neither an identifier nor a time", remedy=_see(key)
        )
    then = next((version for version in every if version.created <= latest), None)
    if then is None:
        raise UnknownVersionError(
            f"{key!r} had no version at {which}",
            where=f"its oldest is of {moment(every[-1].created, exact=True)}",
            remedy=_see(key),
        )
    return then.id


def _moment(which: str | dt.date) -> float | None:
    """Return a time in seconds since the epoch; one without a zone is local, a day means its end."""
    if isinstance(which, str):
        try:
            which = dt.date.fromisoformat(which) if len(which) == 10 else dt.datetime.fromisoformat(which)
        except ValueError:
            return None
    if isinstance(which, dt.datetime):
        return which.timestamp()
    return dt.datetime.combine(which, dt.time.max).timestamp()


def two_versions(
    store: ValueStore, key: str, before: WhichVersion | None, after: WhichVersion | None, notebook: str | None
) -> tuple[Materialization, Materialization]:
    """Return the two versions that are to be compared: by default the newest two that differ.

    With one given, it is compared with the newest.

    Raises
    ------
    UnknownKeyError, UnknownVersionError
        As `find_version`; also where the key has one version only.
    """
    items = _items(store, key)
    found = _grouped(items, store, key, notebook)
    if before is None and len(found) == 1:
        raise UnknownVersionError(
            f"{key!r} has one version only: there is nothing to compare it with", remedy=_see(key)
        )
    return (
        _found(items, found, key, -2 if before is None else before, notebook),
        _found(items, found, key, -1 if after is None else after, notebook),
    )


def value_of(key: str, item: Materialization) -> StoredValue:
    """Return the stored value of a version; a `ValueUnavailableError` if it has none."""
    if item.value is None:
        raise ValueUnavailableError(
            f"version {item.id[: _SHORT * 2]} of {key!r} has no stored value",
            where=f"made {moment(item.created, exact=True)}",
            remedy="its output is Nothing, or could not be kept",
        )
    return item.value


def is_identifier(text: str) -> bool:
    """Tell whether a text can only be the beginning of a version's identifier."""
    return re.fullmatch(r"[0-9a-f]{7,}", text) is not None


def load_version(
    store: ValueStore, key: str, which: WhichVersion, notebook: str | None, *, verify: Verify = "signed"
) -> Any:
    """Return the value of a version; errors as in `find_version`, and a `ValueUnavailableError` where it cannot be loaded."""
    item = find_version(store, key, which, notebook=notebook)
    return store.get(value_of(key, item), key=key, verify=verify)


def _see(key: str) -> str:
    return f"stepwell.versions({key!r}) lists what there is"


_EVERY = 1_000_000_000


def carry_over(store: ValueStore, old: str, new: str, notebook: str) -> int:
    """Carry the versions of a key over to another; return how many.

    Parameters
    ----------
    notebook
        The one that renames: its own versions are carried over, or those of the only notebook that has any.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the old key.
    InvalidDefinitionError, InvalidInvocationError
        If the new one cannot be a key.
    InvariantViolationError
        If the new key has results, or the old one is one of several outputs of a step, or another notebook's.
    """
    AssetKey.from_user_string(new)
    if old == new:
        raise InvalidInvocationError(f"{old!r} is called so already", remedy="%stepwell rename OLD NEW")
    known = store.keys()
    if "." in old:
        raise InvalidInvocationError(
            f"{old!r} is a step: what is renamed is an asset", remedy="rename its asset, or the op in the cell"
        )
    mine = [key for key in known if key == old or key.startswith((f"{old}.", f"{old}:"))]
    if not mine:
        raise unknown_key("stored key", old, known)
    if any(key == new or key.startswith((f"{new}.", f"{new}:")) for key in known) or store.history(new, limit=1):
        raise InvariantViolationError(
            f"{new!r} has results of its own",
            remedy=f"choose another name, or give them up first: %stepwell forget {new}",
        )
    pointers = [row for key in mine for row in store.current(key)]
    owner = _owner(old, pointers, notebook)
    pointers = [row for row in pointers if row.notebook == owner]
    rows = [item for key in mine for item in reversed(store.history(key, limit=_EVERY)) if item.notebook == owner]
    ids = {item.id for item in rows}
    # What this notebook reuses may have been made by another.
    rows += [row.materialization for row in pointers if row.materialization.id not in ids]
    shared = next((item for item in rows if item.step_key != old and not item.step_key.startswith(f"{old}.")), None)
    if shared is not None:
        raise InvariantViolationError(
            f"{old!r} is one of several outputs of the step {shared.step_key!r}, whose name is made of theirs",
            remedy="an output of a multi-asset cannot be renamed without running the step again",
        )
    copies = _copies(store, rows, old, new)
    current = [
        Current(owner, _mapped(row.key, old, new), copies[row.materialization.id], row.partition)
        for row in reversed(pointers)
    ]
    steps = {item.step_key: _mapped(item.step_key, old, new) for item in rows}
    housekeeping.carry_over(store, list(copies.values()), current, steps=steps, removed=pointers)
    _record(store, owner, steps, rows, old)
    return sum(item.key == old for item in rows)


def _owner(old: str, pointers: list[Current], notebook: str) -> str:
    owners = list(dict.fromkeys(row.notebook for row in pointers))
    if notebook in owners:
        return notebook
    if len(owners) == 1:
        return owners[0]
    raise InvariantViolationError(
        f"{old!r} is not this notebook's: several others define it",
        where=listed(owners),
        remedy="rename it in the notebook that defines it",
    )


def _copies(store: ValueStore, rows: list[Materialization], old: str, new: str) -> dict[str, Materialization]:
    """Return the copies by the ids of what they are copies of; order edges between them follow."""
    ids = {item.id: new_id() for item in rows}
    found: dict[str, Materialization] = {}
    for item in rows:
        inputs = tuple(
            replace(
                given,
                key=_mapped(given.key, old, new),
                version=ids.get(given.version, given.version) if given.kind == "order" else given.version,
            )
            for given in item.inputs
        )
        step = _mapped(item.step_key, old, new)
        copy = replace(
            item, id=ids[item.id], key=_mapped(item.key, old, new), step_key=step, inputs=inputs,
            memo_key=memo_key(step, item.code_version, inputs) if item.memo_key else "",
        )  # fmt: skip
        found[item.id] = _signed(store, copy, item)
    return found


def _signed(store: ValueStore, copy: Materialization, item: Materialization) -> Materialization:
    """Return a copy of a record with a signature of its own, if a trusted key signed the record; its effects can be restored then."""
    if item.record_signature is None:
        return copy
    return replace(
        copy, record_signature=signing.sign_record(store.signer, copy) if signing.vouches(store.signer, item) else None
    )


def _mapped(key: str, old: str, new: str) -> str:
    return new + key[len(old) :] if key == old or key.startswith((f"{old}.", f"{old}:")) else key


def _record(store: ValueStore, notebook: str, steps: dict[str, str], rows: list[Materialization], old: str) -> None:
    """Record the renaming as a run: how long the steps took is known under their new keys, too."""
    run_id, now = new_id(), time.time()
    run = RunRecord(
        run_id, "assets", notebook, tuple(step for step in steps.values() if "." not in step), "running", now
    )
    store.begin_run(run)
    for before, after in steps.items():
        seconds = max((item for item in rows if item.step_key == before), key=lambda item: item.id).seconds
        store.record_step(StepRecord(run_id, after, "executed", now, seconds, reason=f"renamed from {old}"))
    store.finish_run(replace(run, status="success", ended=time.time())).wait()

"""The versions of a key, and renaming, which copies stored versions to another key.

A version is one or more consecutive materializations of a key, by one notebook and for one partition, with the same data version. It consists of
several if the value was computed again and did not change. A version is selected by the beginning of its identifier, by a number (-1 is the newest
version, -2 the second newest; 0, 1, ... count from the oldest version), or by a time, which selects the newest version at that time.

Renaming an asset copies its materializations, and those of the steps inside a graph-backed asset, to the new key. Afterwards, the notebook has
no current materialization of the old key. The old materializations are not deleted, so a renaming can be reversed.

A copy gets the memo key that the renamed definition will have. This works because the code version does not depend on the asset's name. If
the user changes more than the name, the asset is stale, and ``%why`` names the change. The user may edit the name in the cell before or after
``%stepwell rename``.
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
from stepwell.kernel_runtime.records.keys import AssetKey, keys_text, new_id
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
    """The identifier of the version's newest materialization."""
    number: int
    """-1 for the newest version, -2 for the second newest, and so on."""
    created: float
    """The time of the version's newest materialization, in seconds since the epoch."""
    data_version: str
    code_version: str
    run_id: str
    notebook: str
    partition: str
    type_name: str
    summary: str
    size: int
    """The size of the stored value in bytes; 0 if no value is stored."""
    seconds: float
    """The duration of the step that computed the value, in seconds."""
    current: bool
    """True if the version is the current value of the key in at least one notebook."""
    available: bool
    """True if the value is stored and its file exists."""
    times: int = 1
    """The number of consecutive materializations that the version consists of."""
    first: float = 0.0
    """The time of the version's oldest materialization, in seconds since the epoch."""
    accepted: bool = False
    """True if the version's newest materialization was not computed: the user accepted the stored value after an edit (``--accept``)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the version as JSON values."""
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
        return in_one_line(f"{self.number:>4}  {self.id[: _SHORT * 2]}  {' · '.join([*facts, place, *filter(None, marks)])}")


class Versions(tuple[Version, ...]):  # noqa: SLOT001 - instances have attributes
    """The versions of a key, newest first. ``str`` and ``repr`` return one line for each version."""

    key: str = ""
    collapsed: bool = True
    """True if consecutive materializations with the same data version form one version; False if each materialization is a version."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__


def read_versions(
    store: ValueStore, key: str, *, notebook: str | None = None, partition: str | None = None, collapse: bool = True
) -> Versions:
    """Return the versions of a key, newest first.

    Parameters
    ----------
    notebook
        Return only versions from this notebook; None for all notebooks.
    partition
        Return only versions of this partition; None for all partitions.
    collapse
        True to combine consecutive materializations with the same data version into one version; False to return each materialization as a version.

    Returns
    -------
    Versions
        The versions; empty if no version has this notebook and this partition.

    Raises
    ------
    UnknownKeyError
        If the store contains no materialization of the key.
    """
    return _grouped(_items(store, key), store, key, notebook, partition=partition, collapse=collapse)


def _items(store: ValueStore, key: str) -> list[Materialization]:
    """Return every materialization of a key except revocations, newest first; raise `UnknownKeyError` if there is none."""
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
        if (notebook is not None and item.notebook != notebook) or (partition is not None and item.partition != partition):
            continue
        place = (item.notebook, item.partition)
        group = newest.get(place)
        if collapse and group is not None and item.data_version and group[0].data_version == item.data_version:
            group.append(item)
        else:
            group = newest[place] = [item]
            groups.append(group)
    versions = Versions(_version(group, -number, current, store) for number, group in enumerate(groups, 1))
    versions.key, versions.collapsed = key, collapse
    return versions


def _version(group: list[Materialization], number: int, current: set[str], store: ValueStore) -> Version:
    item, value = group[0], group[0].value
    return Version(
        item.id, number, item.created, item.data_version, item.code_version, item.run_id, item.notebook, item.partition,
        value.type_name if value is not None else "", value.summary if value is not None else "", value.size if value is not None else 0,
        item.seconds, any(member.id in current for member in group), value is not None and store.objects.holds(value),
        len(group), group[-1].created, acceptance(item) is not None,
    )  # fmt: skip


def find_version(store: ValueStore, key: str, version: WhichVersion, *, notebook: str | None = None) -> Materialization:
    """Return the materialization of one version of a key.

    Parameters
    ----------
    version
        A version's number (-1 is the newest), the beginning of its identifier, or a time, which selects the newest version at that time.
    notebook
        Search only versions from this notebook; None for all notebooks.

    Returns
    -------
    Materialization
        For a number, the newest materialization of the version. For the beginning of an identifier, the materialization whose identifier begins
        with it. For a time, the newest materialization up to that time.

    Raises
    ------
    UnknownKeyError
        If the store contains no materialization of the key.
    UnknownVersionError
        If no version matches `version`, or if several identifiers begin with it.
    InvalidInvocationError
        If `version` is not a string, an integer, a date or a time.
    """
    items = _items(store, key)
    return _select(items, _grouped(items, store, key, notebook), key, version, notebook)


def _select(
    items: list[Materialization], versions: Versions, key: str, version: WhichVersion, notebook: str | None
) -> Materialization:
    candidates = [item for item in items if notebook is None or item.notebook == notebook]
    if not candidates:
        raise UnknownVersionError(f"{key!r} has no version from the notebook {notebook!r}", remedy=_see(key))
    version_id = _matching_id(key, versions, version, candidates)
    return next(item for item in candidates if item.id == version_id)


def _matching_id(key: str, versions: Versions, version: WhichVersion, items: list[Materialization]) -> str:
    if isinstance(version, bool) or not isinstance(version, str | int | dt.date):
        raise InvalidInvocationError(
            f"a version of {key!r} is selected by an identifier, a number or a time, not by a value of type {type(version).__name__}",
            remedy=f"for example: stepwell.load({key!r}, version=-2)",
        )
    if isinstance(version, str) and version.lstrip("-").isdecimal() and len(version) < 7:
        version = int(version)
    if isinstance(version, int):
        index = -version - 1 if version < 0 else len(versions) - 1 - version
        if not 0 <= index < len(versions):
            raise UnknownVersionError(
                f"{key!r} has no version number {version}: it has {len(versions)} version{'' if len(versions) == 1 else 's'}",
                remedy=f"choose a number from -1 (the newest version) to -{len(versions)} (the oldest)",
            )
        return versions[index].id
    if isinstance(version, str):
        ids = [item.id for item in items if item.id.startswith(version)] if version else []
        if len(ids) == 1 or version in ids:
            return version if version in ids else ids[0]
        if ids:
            raise UnknownVersionError(
                f"the identifiers of {len(ids)} versions of {key!r} begin with {version!r}",
                where=", ".join(ids[:4]),
                remedy="write more digits of the identifier",
            )
    latest = _epoch_seconds(version)
    if latest is None:
        raise UnknownVersionError(
            f"{key!r} has no version {version!r}",
            where=f"{version!r} is neither the beginning of an identifier nor a time",
            remedy=_see(key),
        )
    newest = next((item for item in items if item.created <= latest), None)
    if newest is None:
        raise UnknownVersionError(
            f"{key!r} had no version at {version}",
            where=f"the oldest version of {key!r} was computed at {moment(items[-1].created, exact=True)}",
            remedy=_see(key),
        )
    return newest.id


def _epoch_seconds(version: str | dt.date) -> float | None:
    """Convert a date or time to seconds since the epoch; return None for a string that is not in ISO 8601 format.

    A date means the end of that day. Dates, and times without a time zone, are in local time.
    """
    if isinstance(version, str):
        try:
            version = dt.date.fromisoformat(version) if len(version) == 10 else dt.datetime.fromisoformat(version)
        except ValueError:
            return None
    if isinstance(version, dt.datetime):
        return version.timestamp()
    return dt.datetime.combine(version, dt.time.max).timestamp()


def two_versions(
    store: ValueStore, key: str, before: WhichVersion | None, after: WhichVersion | None, notebook: str | None
) -> tuple[Materialization, Materialization]:
    """Return the materialization of the version `before`, and that of the version `after`.

    Parameters
    ----------
    before, after
        The versions, selected as in `find_version`. None selects the second newest version for `before` and the newest for `after`.
    notebook
        Search only versions from this notebook; None for all notebooks.

    Raises
    ------
    UnknownKeyError
        If the store contains no materialization of the key.
    UnknownVersionError
        If a version does not exist, or if `before` is None and the key has only one version.
    """
    items = _items(store, key)
    versions = _grouped(items, store, key, notebook)
    if before is None and len(versions) == 1:
        raise UnknownVersionError(f"{key!r} has only one version, so there are no two versions to compare", remedy=_see(key))
    return (
        _select(items, versions, key, -2 if before is None else before, notebook),
        _select(items, versions, key, -1 if after is None else after, notebook),
    )


def value_of(key: str, item: Materialization) -> StoredValue:
    """Return the stored value of a materialization; raise `ValueUnavailableError` if it has none.

    Parameters
    ----------
    key
        The key of the materialization, which the error message contains.
    """
    if item.value is None:
        raise ValueUnavailableError(
            f"version {item.id[: _SHORT * 2]} of {key!r} has no stored value: the output is Nothing or could not be stored",
            where=f"computed at {moment(item.created, exact=True)}",
        )
    return item.value


def is_identifier(text: str) -> bool:
    """Return True if a string is written like the beginning of an identifier: at least seven hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{7,}", text) is not None


def load_version(store: ValueStore, key: str, version: WhichVersion, notebook: str | None, *, verify: Verify = "signed") -> Any:
    """Load the value of one version of a key.

    Parameters
    ----------
    version, notebook
        The version, selected as in `find_version`.
    verify
        ``full`` to check every byte of the stored value. ``signed`` to check the bytes that loading could execute. With ``signed``, a whole value
        file is checked only at its first load after the machine has started, and at the first load after a change of the file.

    Raises
    ------
    UnknownKeyError, UnknownVersionError, InvalidInvocationError
        If `find_version` raises this error.
    ValueUnavailableError
        If the version has no stored value, or if the value cannot be loaded.
    """
    item = find_version(store, key, version, notebook=notebook)
    return store.get(value_of(key, item), key=key, verify=verify)


def _see(key: str) -> str:
    return f"run stepwell.versions({key!r}) to see the versions that exist"


def rename_key(store: ValueStore, old: str, new: str, notebook: str) -> int:
    """Copy the materializations of the asset `old`, and of the steps inside it, to the key `new`.

    Parameters
    ----------
    notebook
        The notebook whose materializations are copied. If it has no current materialization of `old` but exactly one other notebook has one, the
        materializations of the other notebook are copied instead.

    Returns
    -------
    int
        The number of copied materializations of the asset itself.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for `old`.
    InvalidDefinitionError
        If `new` is not a valid asset key.
    InvalidInvocationError
        If `new` equals `old`, or if `old` is the key of a step.
    InvariantViolationError
        If anything is stored for `new`, if `old` is one of several outputs of a step, or if `notebook` has no current materialization of
        `old` and several other notebooks have one.
    """
    AssetKey.from_user_string(new)
    if old == new:
        raise InvalidInvocationError(
            f"the new key equals the old key {old!r}", remedy="name two different keys: %stepwell rename OLD NEW"
        )
    stored_keys = store.keys()
    if "." in old:
        raise InvalidInvocationError(
            f"{old!r} is a step, and only assets can be renamed",
            remedy="rename the asset that contains the step, or rename the op in its cell",
        )
    renamed_keys = [key for key in stored_keys if key == old or key.startswith((f"{old}.", f"{old}:"))]
    if not renamed_keys:
        raise unknown_key("stored key", old, stored_keys)
    if any(key == new or key.startswith((f"{new}.", f"{new}:")) for key in stored_keys) or store.history(new, limit=1):
        raise InvariantViolationError(
            f"the new key {new!r} already has stored versions",
            remedy=f"choose another new key, or delete the versions of {new!r} first: %stepwell forget {new}",
        )
    pointers = [row for key in renamed_keys for row in store.current(key)]
    owner = _owner(old, pointers, notebook)
    pointers = [row for row in pointers if row.notebook == owner]
    rows = [item for key in renamed_keys for item in reversed(store.history(key, limit=_ALL)) if item.notebook == owner]
    ids = {item.id for item in rows}
    # The current materialization of a notebook may have been computed by another notebook.
    rows += [row.materialization for row in pointers if row.materialization.id not in ids]
    shared = next((item for item in rows if item.step_key != old and not item.step_key.startswith(f"{old}.")), None)
    if shared is not None:
        raise InvariantViolationError(
            f"{old!r} is one of several outputs of the step {shared.step_key!r}, and only an asset with its own step can be renamed",
            remedy="rename the output in the definition, and run the step again",
        )
    copies = _copies(store, rows, old, new)
    current = [
        Current(owner, _mapped(row.key, old, new), copies[row.materialization.id], row.partition) for row in reversed(pointers)
    ]
    steps = {item.step_key: _mapped(item.step_key, old, new) for item in rows}
    housekeeping.record_copies(store, list(copies.values()), current, steps=steps, removed=pointers)
    _record(store, owner, steps, rows, old)
    return sum(item.key == old for item in rows)


def _owner(old: str, pointers: list[Current], notebook: str) -> str:
    owners = list(dict.fromkeys(row.notebook for row in pointers))
    if notebook in owners:
        return notebook
    if len(owners) == 1:
        return owners[0]
    raise InvariantViolationError(
        f"this notebook has no current value of {old!r}, and several other notebooks have one",
        where=keys_text(owners),
        remedy=f"run the rename command in the notebook that defines {old!r}",
    )


def _copies(store: ValueStore, rows: list[Materialization], old: str, new: str) -> dict[str, Materialization]:
    """Return copies of materializations, with the key `new` in place of `old`. The dict maps the identifier of each original to its copy.

    An input of kind ``order`` contains the identifier of a materialization. If that materialization is copied too, the input gets the
    identifier of its copy.
    """
    ids = {item.id: new_id() for item in rows}
    copies: dict[str, Materialization] = {}
    for item in rows:
        inputs = tuple(
            replace(
                old_input,
                key=_mapped(old_input.key, old, new),
                version=ids.get(old_input.version, old_input.version) if old_input.kind == "order" else old_input.version,
            )
            for old_input in item.inputs
        )
        step = _mapped(item.step_key, old, new)
        copy = replace(
            item, id=ids[item.id], key=_mapped(item.key, old, new), step_key=step, inputs=inputs,
            memo_key=memo_key(step, item.code_version, inputs) if item.memo_key else "",
        )  # fmt: skip
        copies[item.id] = _with_signature(store, copy, item)
    return copies


def _with_signature(store: ValueStore, copy: Materialization, item: Materialization) -> Materialization:
    """Return the copy of a materialization with a new signature, because the signature of the original `item` does not match the copy.

    The copy is signed only if the original is signed with this user's key. Otherwise, the copy is returned without a
    signature; if the original is unsigned, the copy is returned unchanged. Effects are restored only from signed materializations.
    """
    if item.record_signature is None:
        return copy
    return replace(
        copy, record_signature=signing.sign_record(store.signer, copy) if signing.vouches(store.signer, item) else None
    )


def _mapped(key: str, old: str, new: str) -> str:
    return new + key[len(old) :] if key == old or key.startswith((f"{old}.", f"{old}:")) else key


def _record(store: ValueStore, notebook: str, steps: dict[str, str], rows: list[Materialization], old: str) -> None:
    """Record the renaming as a run with one step record for each new step key, so that the durations of the steps stay known.

    Each record contains the duration of the newest copied materialization of the step.

    Parameters
    ----------
    steps
        Maps each old step key to the new step key.
    rows
        The materializations that were copied.
    old
        The old key of the asset, for the reason in each record: ``renamed from KEY``.
    """
    run_id, now = new_id(), time.time()
    run = RunRecord(run_id, "assets", notebook, tuple(step for step in steps.values() if "." not in step), "running", now)
    store.begin_run(run)
    for before, after in steps.items():
        seconds = max((item for item in rows if item.step_key == before), key=lambda item: item.id).seconds
        store.record_step(StepRecord(run_id, after, "executed", now, seconds, reason=f"renamed from {old}"))
    store.finish_run(replace(run, status="success", ended=time.time())).wait()

"""``%stepwell rename old new``: what is stored for one key is carried over to another, and is not computed again.

*Carrying over* appends copies of the notebook's own rows under the new key, the steps inside a graph-backed asset included, and takes the old
key out of what is current; nothing is deleted, so that going back finds everything.

A copy is reused once it has the memo key of the renamed definition. That contains the step's key, which is known, and the code version, which
is not: the cell usually assigns the variable of the same name. So the rest, *settling*, is done whenever a plan meets a copy that is not
settled: if the code recorded for it and the code that is there now are the same but for that one name (`versions.renaming`), rows with
the new code version and memo key are appended. Otherwise the state is stale, and ``%why`` says what else changed. It does not matter
whether the cell is edited before or after the command.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from stepwell.kernel_runtime.errors import InvalidInvocationError, InvariantViolationError, unknown_key
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.records.code_versions import RENAMED, CodeVersion, renaming
from stepwell.kernel_runtime.records.effects import NOTEBOOK
from stepwell.kernel_runtime.records.keys import AssetKey, listed, new_id
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.memo_keys import memo_key
from stepwell.kernel_runtime.records.protocols import ValueStore
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord
from stepwell.kernel_runtime.versions.renaming import same_but_for_name

_ALL = 1_000_000_000


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
    rows = [item for key in mine for item in reversed(store.history(key, limit=_ALL)) if item.notebook == owner]
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
    store.carry_over(list(copies.values()), current, steps=steps, gone=pointers)
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
            metadata={**item.metadata, RENAMED: {"from": old, "of": item.id}},
        )  # fmt: skip
        found[item.id] = _signed(store, copy, item)
    return found


def _signed(store: ValueStore, copy: Materialization, item: Materialization) -> Materialization:
    """Return a copy of a record with a signature of its own, if a trusted key signed the record; its effects can be restored then."""
    if item.record_signature is None:
        return copy
    return replace(copy, record_signature=store.sign_record(copy) if store.vouches(item) else None)


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


class Settling:
    """Settles copies that plans meet; what could not be settled is not tried again in this process.

    Parameters
    ----------
    tried
        What was tried in vain, shared by all of a session.
    """

    def __init__(
        self, store: ValueStore, code_parts: Callable[[PlanStep], CodeVersion | None], tried: set[tuple[str, str]]
    ) -> None:
        self._store = store
        self._code_parts = code_parts
        self._tried = tried

    def __call__(self, step: PlanStep, current: Materialization) -> bool:
        """Record the copies of a step as its own, if its code is the same but for the name; tell whether it is."""
        note = renaming(current)
        if note is None or step.code is None or (current.id, step.code.digest) in self._tried:
            return False
        self._tried.add((current.id, step.code.digest))
        before, now = self._store.code(current.code_version), self._code_parts(step)
        old, new = (key.rpartition("/")[2] for key in (str(note.get("from", "")), step.key))
        if before is None or now is None or not same_but_for_name(before, now, old, new):
            return False
        copies = [
            item
            for key in (step.key, f"{step.address}:{NOTEBOOK}")
            for item in reversed(self._store.history(key, limit=_ALL))
            if item.code_version == current.code_version and renaming(item) is not None and item.memo_key
        ]
        settled = {
            item.id: _signed(self._store, replace(
                item, id=new_id(), code_version=step.code.digest, memo_key=memo_key(step.address, step.code.digest, item.inputs),
                metadata={**item.metadata, RENAMED: {**(renaming(item) or {}), "settled": True}},
            ), item)
            for item in copies
        }  # fmt: skip
        if current.id not in settled:
            return False
        # The current ones last: they are the newest. What a cell left follows its value, as when it was recorded.
        now_current = [item.id for item in copies if item.id == current.id or _is_left_by(item, current)]
        order = [*(key for key in settled if key not in now_current), *now_current]
        moved = [settled[key] for key in now_current]
        pointers = [Current(step.notebook, item.key, item, item.partition) for item in moved]
        self._store.carry_over([settled[key] for key in order], pointers, steps={}, code=now)
        return True


def _is_left_by(item: Materialization, result: Materialization) -> bool:
    """Return whether a record is of what the cell left in the notebook that gave a result."""
    return item.output == NOTEBOOK and (item.run_id, item.memo_key) == (result.run_id, result.memo_key)

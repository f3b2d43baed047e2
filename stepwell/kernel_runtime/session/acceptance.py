"""``%why KEY --accept``: the stored value is recorded as valid for the code, inputs and files of now; ``--revoke`` takes that back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stepwell.kernel_runtime.errors import InvariantViolationError, ValueUnavailableError
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.planning.states import StepState
from stepwell.kernel_runtime.reads import ReadRecorder
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import (
    ACCEPTED,
    REVOKED,
    CodeVersion,
    Current,
    Materialization,
    Read,
    acceptance,
    revoked_run,
)
from stepwell.kernel_runtime.records.runs import CapturedOutput, DefinitionsChanged, RunRecord, StepRecord
from stepwell.kernel_runtime.session.explanation import Explanation, explain
from stepwell.kernel_runtime.session.inspection import code_parts, users_digest
from stepwell.kernel_runtime.session.requests import AnyStore, Given
from stepwell.kernel_runtime.session.session import Session
from stepwell.kernel_runtime.store.signing import read_outputs
from stepwell.kernel_runtime.text import moment
from stepwell.kernel_runtime.versions.environment import ALL, Keyed, value_of, whole

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_MOST = 10_000


def accept(session: Session, key: str, *, definitions: Given = None, store: AnyStore = None) -> Explanation:
    """Mark the edits that make an asset or step stale as not mattering: the stored values are valid for the present code, inputs and files.

    Fresh steps stay as they are, so that a notebook that accepts can be run again. The acceptance is on the record and shown by `explain`;
    `revoke` takes it back.

    Raises
    ------
    UnknownKeyError
        If nothing has this key.
    ValueUnavailableError
        If nothing is stored.
    InvariantViolationError
        If something upstream must be decided first.
    """
    inspection = session.inspect(definitions, store=store)
    used = inspection.store
    read_anew = reader_of_now(users_digest(), lambda read: inspection.find(read, used))
    accepted: list[str] = []
    for step_key in inspection.steps_of(key):
        # What one step accepts decides the state of the next.
        plan = inspection.plan_of(key)
        known = inspection.known(plan)
        step, state = plan.step(step_key), inspection.states(plan, known)[step_key]
        if step is None or state.state == "fresh":
            continue
        check_acceptable(step, state)
        accept_step(
            step,
            state,
            used,
            code_parts(inspection.walk)(step),
            session.notebook,
            holds=known.holds,
            read_anew=read_anew,
        )
        accepted.append(step_key)
    if accepted:
        session.publish(DefinitionsChanged(tuple(accepted)))
    return explain(session, key, definitions=definitions, store=used)


def revoke(session: Session, key: str, *, definitions: Given = None, store: AnyStore = None) -> Explanation:
    """Take back the newest acceptance of an asset or step; errors as in `accept`."""
    inspection = session.inspect(definitions, store=store)
    used, plan = inspection.store, inspection.plan_of(key)
    states = inspection.states(plan)
    revoked = [
        step.key
        for step_key in inspection.steps_of(key)
        if (step := plan.step(step_key)) is not None and revoke_step(step, states[step_key], used, session.notebook)
    ]
    if not revoked:
        raise InvariantViolationError(
            f"nothing was accepted for {key!r}: there is nothing to revoke", remedy=f"%why {key} tells its state"
        )
    session.publish(DefinitionsChanged(tuple(revoked)))
    return explain(session, key, definitions=definitions, store=used)


def check_acceptable(step: PlanStep, state: StepState) -> None:
    """Check that what is stored for a step can be taken for its value of now.

    Raises
    ------
    ValueUnavailableError
        If nothing is stored.
    InvariantViolationError
        If no edit keeps it from being reused, or something upstream is to be decided first.
    """
    if not state.current or state.state == "missing":
        raise ValueUnavailableError(
            f"nothing is stored for {step.key!r}: there is no value to keep",
            where=step.where,
            remedy=f"%materialize {step.key.split('.', 1)[0]}",
        )
    if not step.memoised or step.op.volatile:
        raise InvariantViolationError(
            f"{step.key!r} runs every time: no edit makes it stale",
            where=step.where,
            remedy="take volatile or cache=False away",
        )
    if not state.memo_key:
        causes = "; ".join(reason.text for reason in state.reasons)
        raise InvariantViolationError(
            f"{step.key!r} cannot be accepted before what it follows: {causes}",
            where=step.where,
            remedy="materialize or accept what is upstream first",
        )
    if any(reason.kind == "age" for reason in state.reasons):
        raise InvariantViolationError(
            f"{step.key!r} is too old, which is no edit", where=step.where, remedy="give it a greater age, or run it"
        )


def accept_step(
    step: PlanStep,
    state: StepState,
    store: ValueStore,
    code: CodeVersion | None,
    notebook: str,
    *,
    holds: Callable[[Read], bool],
    read_anew: Callable[[Read], Read],
) -> None:
    """Record the stored values of a step as valid under its memo key of now.

    Parameters
    ----------
    notebook
        Who accepts.
    holds
        Tells whether a recorded read still holds.
    read_anew
        Returns a read as it is now.
    """
    now = time.time()
    run_id = new_id()
    note = {
        "on": moment(now),
        "of": state.current[0].id,
        "run_id": run_id,
        "causes": [reason.text for reason in state.reasons],
        "unverifiable": [f"{item.path}: {item.reason}" for item in step.code.unverifiable]
        if step.code is not None
        else [],
    }
    made = tuple(
        replace(
            old, id=new_id(), run_id=run_id, memo_key=state.memo_key, code_version=step.code.digest if step.code is not None else "",
            notebook=step.notebook, inputs=state.inputs or (), unverifiable=(),
            reads=tuple(read if holds(read) else read_anew(read) for read in old.reads),
            metadata={**old.metadata, ACCEPTED: {**note, "of": old.id}},
        )
        for old in state.current
    )  # fmt: skip
    old = state.current[0]
    record = StepRecord(
        run_id,
        step.address,
        "executed",
        now,
        old.seconds,
        state.memo_key,
        made,
        reason="accepted: " + "; ".join(note["causes"]),
    )
    current = [Current(step.notebook, item.key, item, item.partition) for item in made]
    run = RunRecord(run_id, "assets", notebook, (step.key,), "running", now)
    _record(
        store,
        run,
        record,
        current,
        code=code,
        shown=read_outputs(store.catalog, store.signer, old.run_id, old.step_key),
    )


def newest_acceptance(items: Sequence[Materialization]) -> Materialization | None:
    """Return the newest materialization by acceptance that was not taken back; items are given newest first."""
    gone = {run for item in items if (run := revoked_run(item))}
    return next(
        (item for item in items if acceptance(item) is not None and item.run_id not in gone and not revoked_run(item)),
        None,
    )


def revoke_step(step: PlanStep, state: StepState, store: ValueStore, notebook: str) -> bool:
    """Take back the newest acceptance of a step; tell whether there was one."""
    histories = {output.key: store.history(output.key, limit=_MOST) for output in step.outputs}
    accepted = next((found for items in histories.values() if (found := newest_acceptance(items)) is not None), None)
    if accepted is None:
        return False
    run_id = new_id()
    rows = [item for items in histories.values() for item in items if item.run_id == accepted.run_id]
    # A row of its own says so; the accepted one stays as it is, on the record.
    made = tuple(
        replace(item, id=new_id(), run_id=run_id, value=None, data_version="", metadata={REVOKED: accepted.run_id})
        for item in rows
    )
    before: Mapping[str, Materialization] = {item.id: item for items in histories.values() for item in items}
    shown = {item.id for item in state.current}
    back = [
        before[note["of"]]
        for item in rows
        if item.id in shown and (note := acceptance(item)) is not None and note["of"] in before
    ]
    record = StepRecord(
        run_id,
        step.address,
        "executed",
        time.time(),
        accepted.seconds,
        accepted.memo_key,
        made,
        reason=f"revoked: accepted in run {accepted.run_id}",
    )
    run = RunRecord(run_id, "assets", notebook, (step.key,), "running", record.started)
    _record(store, run, record, [Current(step.notebook, item.key, item, item.partition) for item in back])
    return True


def _record(
    store: ValueStore,
    run: RunRecord,
    record: StepRecord,
    current: Sequence[Current],
    *,
    code: CodeVersion | None = None,
    shown: Sequence[CapturedOutput] = (),
) -> None:
    commits = [store.begin_run(run), store.record_step(record, current=current, code=code, outputs=shown)]
    commits.append(store.finish_run(replace(run, status="success", ended=time.time())))
    for commit in commits:
        commit.wait()


def reader_of_now(keyed: Keyed, find: Callable[[Read], Materialization]) -> Callable[[Read], Read]:
    """Return a function that makes a recorded read again, as the world is now.

    Parameters
    ----------
    find
        Returns the current materialization of an asset that a step loaded.
    """

    def read_anew(read: Read) -> Read:
        if read.kind == "asset":
            item = find(read)
            return replace(read, digest=item.data_version or item.id)
        with ReadRecorder((), keyed) as recorder:
            if read.kind in {"file", "absent"}:
                recorder.opened(read.name, reads=True, writes=False)
            elif read.kind == "listing":
                recorder.listed(read.name)
            elif read.kind == "glob":
                recorder.path_read(read.name)
            elif read.kind == "state":
                recorder.state_read(read.name)
            elif read.name == ALL:
                recorder.all_read(whole())
            else:
                recorder.name_read(read.name, value_of(read.name))
        kind = {"absent": "file"}.get(read.kind, read.kind)
        return next(
            (found for found in recorder.reads if found.kind in {kind, "absent"} and found.name == read.name), read
        )

    return read_anew

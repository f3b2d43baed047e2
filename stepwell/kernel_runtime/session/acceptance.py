"""``%why KEY --accept`` records the stored value as valid for the current code, inputs and files; ``--revoke`` undoes it."""

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
from stepwell.kernel_runtime.versions.environment import ALL, Keyed, environment_copy, value_of

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_MOST = 10_000


def accept(session: Session, key: str, *, definitions: Given = None, store: AnyStore = None) -> Explanation:
    """Accept the edits that make an asset or step stale: its stored values become valid for the current code, inputs and files.

    Accepting a fresh step has no effect, so a notebook that contains the call can run repeatedly. The acceptance is recorded, and `explain` shows it; `revoke` undoes
    it.

    Parameters
    ----------
    key
        An asset or a step.
    definitions
        Definitions, or a module of definitions, that take precedence over registered ones.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Explanation
        The new states.

    Raises
    ------
    UnknownKeyError
        If no asset or step has this key.
    ValueUnavailableError
        If no value is stored.
    InvariantViolationError
        If an upstream step must be materialized or accepted first.
    """
    inspection = session.inspect(definitions, store=store)
    value_store = inspection.store
    reread = reader_of_now(users_digest(), lambda read: inspection.find(read, value_store))
    accepted: list[str] = []
    for step_key in inspection.steps_of(key):
        # The acceptance of one step changes the state of the next, so each step needs a new plan.
        plan = inspection.plan_of(key)
        facts = inspection.decision_facts(plan)
        step, state = plan.step(step_key), inspection.states(plan, facts)[step_key]
        if step is None or state.state == "fresh":
            continue
        check_acceptable(step, state)
        accept_step(
            step,
            state,
            value_store,
            code_parts(inspection.walk)(step),
            session.notebook,
            holds=facts.holds,
            reread=reread,
        )
        accepted.append(step_key)
    if accepted:
        session.publish(DefinitionsChanged(tuple(accepted)))
    return explain(session, key, definitions=definitions, store=value_store)


def revoke(session: Session, key: str, *, definitions: Given = None, store: AnyStore = None) -> Explanation:
    """Revoke the newest acceptance of an asset or step; parameters, result and errors are those of `accept`."""
    inspection = session.inspect(definitions, store=store)
    value_store, plan = inspection.store, inspection.plan_of(key)
    states = inspection.states(plan)
    revoked = [
        step.key
        for step_key in inspection.steps_of(key)
        if (step := plan.step(step_key)) is not None
        and revoke_step(step, states[step_key], value_store, session.notebook)
    ]
    if not revoked:
        raise InvariantViolationError(
            f"nothing was accepted for {key!r}: there is nothing to revoke", remedy=f"see its state: %why {key}"
        )
    session.publish(DefinitionsChanged(tuple(revoked)))
    return explain(session, key, definitions=definitions, store=value_store)


def check_acceptable(step: PlanStep, state: StepState) -> None:
    """Check that the stored value of a step can be accepted as its present value.

    Raises
    ------
    ValueUnavailableError
        If no value is stored.
    InvariantViolationError
        If no edit prevents the reuse of the value, or an upstream step must be materialized or accepted first.
    """
    if not state.current or state.state == "missing":
        raise ValueUnavailableError(
            f"nothing is stored for {step.key!r}: no value can be accepted",
            where=step.where,
            remedy=f"%materialize {step.key.split('.', 1)[0]}",
        )
    if not step.memoised or step.op.volatile:
        raise InvariantViolationError(
            f"{step.key!r} runs every time: no edit makes it stale",
            where=step.where,
            remedy="remove volatile or cache=False",
        )
    if not state.memo_key:
        causes = "; ".join(reason.text for reason in state.reasons)
        raise InvariantViolationError(
            f"{step.key!r} cannot be accepted before its upstream: {causes}",
            where=step.where,
            remedy="materialize or accept the upstream steps first",
        )
    if any(reason.kind == "age" for reason in state.reasons):
        raise InvariantViolationError(
            f"{step.key!r} is older than max_age, which cannot be accepted",
            where=step.where,
            remedy="increase max_age, or run the step",
        )


def accept_step(
    step: PlanStep,
    state: StepState,
    store: ValueStore,
    code: CodeVersion | None,
    notebook: str,
    *,
    holds: Callable[[Read], bool],
    reread: Callable[[Read], Read],
) -> None:
    """Record the stored values of a step as valid under its present memo key.

    Parameters
    ----------
    notebook
        The notebook in which the edit is accepted.
    holds
        Returns True if a recorded read still has the same result.
    reread
        Returns a read with its present result.
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
    materializations = tuple(
        replace(
            previous, id=new_id(), run_id=run_id, memo_key=state.memo_key, code_version=step.code.digest if step.code is not None else "",
            notebook=step.notebook, inputs=state.inputs or (), unverifiable=(),
            reads=tuple(read if holds(read) else reread(read) for read in previous.reads),
            metadata={**previous.metadata, ACCEPTED: {**note, "of": previous.id}},
        )
        for previous in state.current
    )  # fmt: skip
    previous = state.current[0]
    record = StepRecord(
        run_id,
        step.address,
        "executed",
        now,
        previous.seconds,
        state.memo_key,
        materializations,
        reason="accepted: " + "; ".join(note["causes"]),
    )
    current = [Current(step.notebook, item.key, item, item.partition) for item in materializations]
    run = RunRecord(run_id, "assets", notebook, (step.key,), "running", now)
    _record(
        store,
        run,
        record,
        current,
        code=code,
        outputs=read_outputs(store.catalog, store.signer, previous.run_id, previous.step_key),
    )


def newest_acceptance(items: Sequence[Materialization]) -> Materialization | None:
    """Return the newest acceptance that was not revoked; `items` are sorted from newest to oldest."""
    revoked = {run for item in items if (run := revoked_run(item))}
    return next(
        (
            item
            for item in items
            if acceptance(item) is not None and item.run_id not in revoked and not revoked_run(item)
        ),
        None,
    )


def revoke_step(step: PlanStep, state: StepState, store: ValueStore, notebook: str) -> bool:
    """Revoke the newest acceptance of a step; return False if there is none."""
    histories = {output.key: store.history(output.key, limit=_MOST) for output in step.outputs}
    accepted = next((newest for items in histories.values() if (newest := newest_acceptance(items)) is not None), None)
    if accepted is None:
        return False
    run_id = new_id()
    rows = [item for items in histories.values() for item in items if item.run_id == accepted.run_id]
    # The revocation is a separate row: the acceptance stays in the history.
    revocations = tuple(
        replace(item, id=new_id(), run_id=run_id, value=None, data_version="", metadata={REVOKED: accepted.run_id})
        for item in rows
    )
    before: Mapping[str, Materialization] = {item.id: item for items in histories.values() for item in items}
    shown = {item.id for item in state.current}
    restored = [
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
        revocations,
        reason=f"revoked: accepted in run {accepted.run_id}",
    )
    run = RunRecord(run_id, "assets", notebook, (step.key,), "running", record.started)
    _record(store, run, record, [Current(step.notebook, item.key, item, item.partition) for item in restored])
    return True


def _record(
    store: ValueStore,
    run: RunRecord,
    record: StepRecord,
    current: Sequence[Current],
    *,
    code: CodeVersion | None = None,
    outputs: Sequence[CapturedOutput] = (),
) -> None:
    commits = [store.begin_run(run), store.record_step(record, current=current, code=code, outputs=outputs)]
    commits.append(store.finish_run(replace(run, status="success", ended=time.time())))
    for commit in commits:
        commit.wait()


def reader_of_now(keyed: Keyed, find: Callable[[Read], Materialization]) -> Callable[[Read], Read]:
    """Return a function that repeats a recorded read and returns it with its present result.

    Parameters
    ----------
    keyed
        Digests data with the user's key.
    find
        Returns the current materialization of an asset that a step loaded.
    """

    def reread(read: Read) -> Read:
        if read.kind == "asset":
            item = find(read)
            return replace(read, digest=item.data_version or item.id)
        with ReadRecorder((), keyed) as recorder:
            if read.kind in {"file", "absent"}:
                recorder.file_opened(read.name, reads=True, writes=False)
            elif read.kind == "listing":
                recorder.folder_listed(read.name)
            elif read.kind == "glob":
                recorder.path_read(read.name)
            elif read.kind == "state":
                recorder.state_read(read.name)
            elif read.name == ALL:
                recorder.environment_read(environment_copy())
            else:
                recorder.name_read(read.name, value_of(read.name))
        kind = {"absent": "file"}.get(read.kind, read.kind)
        return next((new for new in recorder.reads if new.kind in {kind, "absent"} and new.name == read.name), read)

    return reread

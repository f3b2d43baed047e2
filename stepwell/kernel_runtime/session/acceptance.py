"""Acceptance of edits: ``%why KEY --accept`` makes a stored value valid for the present code, inputs and files; ``--revoke`` undoes this."""

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
    """Accept the edits that make an asset or step stale: its stored values become valid for the present code, inputs and files.

    For a fresh step nothing is recorded, so a notebook that contains the call can run repeatedly. `stepwell.why` shows the recorded acceptance,
    and `revoke` undoes it.

    Parameters
    ----------
    key
        The key of an asset, to accept the edits of all its steps, or the key of one step.
    definitions
        Definitions, or a module of definitions, that take precedence over registered definitions.
    store
        A store directory or an open store; None for the session's store.

    Returns
    -------
    Explanation
        The states of the steps after the acceptance.

    Raises
    ------
    UnknownKeyError
        If no asset or step has this key.
    ValueUnavailableError
        If a stale step has no stored value.
    InvariantViolationError
        If a step runs in every run, if its value is older than ``max_age``, or if an upstream step must be materialized or accepted first.
    """
    inspection = session.inspect(definitions, store=store)
    value_store = inspection.store
    reread = reader_of_now(users_digest(), lambda read: inspection.find(read, value_store))
    accepted: list[str] = []
    for step_key in inspection.steps_of(key):
        # Accepting a step changes the states of the steps downstream, so each step needs a new plan.
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
    """Revoke the newest acceptance of each step of an asset, or of one step, and return the new states.

    The parameters are those of `accept`.

    Raises
    ------
    UnknownKeyError
        If no asset or step has this key.
    InvariantViolationError
        If none of these steps has an acceptance that can be revoked.
    """
    inspection = session.inspect(definitions, store=store)
    value_store, plan = inspection.store, inspection.plan_of(key)
    states = inspection.states(plan)
    revoked = [
        step.key
        for step_key in inspection.steps_of(key)
        if (step := plan.step(step_key)) is not None and revoke_step(step, states[step_key], value_store, session.notebook)
    ]
    if not revoked:
        raise InvariantViolationError(
            f"no edit of {key!r} was accepted, so there is nothing to revoke",
            remedy=f"run %why {key} to see the state of {key!r}",
        )
    session.publish(DefinitionsChanged(tuple(revoked)))
    return explain(session, key, definitions=definitions, store=value_store)


def check_acceptable(step: PlanStep, state: StepState) -> None:
    """Check that the stored value of a step can be accepted as the value of its present code and inputs.

    Raises
    ------
    ValueUnavailableError
        If no value is stored.
    InvariantViolationError
        If the step runs in every run, if its value is older than ``max_age``, or if an upstream step must be materialized or accepted first.
    """
    if not state.current or state.state == "missing":
        raise ValueUnavailableError(
            f"no value is stored for {step.key!r}, so no value can be accepted",
            where=step.where,
            remedy=f"compute it: %materialize {step.key.split('.', 1)[0]}",
        )
    if not step.memoised or step.op.volatile:
        raise InvariantViolationError(
            f"the stored value of {step.key!r} cannot be accepted: the step runs in every run, because it has volatile=True or cache=False",
            where=step.where,
            remedy="remove volatile=True (--volatile) or cache=False (--no-cache) from the step's definition",
        )
    if not state.memo_key:
        causes = "; ".join(reason.text for reason in state.reasons)
        raise InvariantViolationError(
            f"the stored value of {step.key!r} cannot be accepted, because an upstream step is not up to date: {causes}",
            where=step.where,
            remedy="materialize the upstream steps first, or accept their stored values",
        )
    if any(reason.kind == "age" for reason in state.reasons):
        raise InvariantViolationError(
            f"the stored value of {step.key!r} cannot be accepted, because the value is older than the step's max_age",
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
    """Copy a step's current materializations, and record the copies with the step's present memo key, so that their values are reused.

    Parameters
    ----------
    code
        The present code version of the step, with its parts. It is stored in the catalog. None if the step has no code version.
    notebook
        The notebook in which the user accepts. The acceptance is recorded as a run of this notebook.
    holds
        Returns True if repeating a recorded read would give the recorded result.
    reread
        Repeats a recorded read and returns the read with its present result.
    """
    now = time.time()
    run_id = new_id()
    note = {
        "on": moment(now),
        "of": state.current[0].id,
        "run_id": run_id,
        "causes": [reason.text for reason in state.reasons],
        "unverifiable": [f"{item.path}: {item.reason}" for item in step.code.unverifiable] if step.code is not None else [],
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
    """Return the newest materialization that records an acceptance and was not revoked; None if there is none.

    Parameters
    ----------
    items
        Materializations of one key, newest first.
    """
    revoked = {run for item in items if (run := revoked_run(item))}
    return next(
        (item for item in items if acceptance(item) is not None and item.run_id not in revoked and not revoked_run(item)),
        None,
    )


def revoke_step(step: PlanStep, state: StepState, store: ValueStore, notebook: str) -> bool:
    """Revoke the newest acceptance of a step; return False if the step has none, or if all of its acceptances were revoked before."""
    histories = {output.key: store.history(output.key, limit=_MOST) for output in step.outputs}
    accepted = next((newest for items in histories.values() if (newest := newest_acceptance(items)) is not None), None)
    if accepted is None:
        return False
    run_id = new_id()
    rows = [item for items in histories.values() for item in items if item.run_id == accepted.run_id]
    # The revocation is a new materialization: the accepted one stays in the history.
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
    """Return a function that repeats a recorded read and returns the read with its present result.

    Parameters
    ----------
    keyed
        Digests the values of environment variables with the user's signing key.
    find
        Returns the current materialization of the asset that a read of kind ``asset`` loaded.
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

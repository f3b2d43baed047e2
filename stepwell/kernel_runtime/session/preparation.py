"""Before the first step of a run: plans of single steps (rerun, resume), the check of the values that a plan reads, and notices."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.errors import (
    DefinitionUnavailableError,
    InvariantViolationError,
    MissingUpstreamError,
    ValueNotKeptError,
    unknown_key,
)
from stepwell.kernel_runtime.planning.build import Definitions, build_job_plan, build_plan, step_owner, unknown_step
from stepwell.kernel_runtime.planning.decision import Known
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep, asset_steps, job_steps
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.runs import Notice, RunRecord, StepRecord, notice
from stepwell.kernel_runtime.session.inspection import Inspection
from stepwell.kernel_runtime.store import housekeeping

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore
    from stepwell.kernel_runtime.versions.walk import CodeWalk

LARGE = 10 << 30
"""Bytes of values above which a run says once what ``gc`` would free."""
FULL = 0.10
"""The part of the disk that is free below which it does."""


def plan_of_steps(keys: Sequence[str], found: Definitions, code: CodeWalk, store: ValueStore) -> Plan:
    """Return the plan of steps by their keys: a step's, an asset's for all of its steps, ``job.step`` for a job's.

    Raises
    ------
    UnknownKeyError
        If nothing is called so.
    DefinitionUnavailableError
        If the store knows the key but no code for it is here.
    """
    targets: dict[str, None] = {}
    steps: set[str] = set()
    jobs: dict[str, set[str]] = {}
    for key in keys:
        owner = found.asset(key)
        if isinstance(owner, AssetsDefinition):
            steps |= {step.key for step in asset_steps(owner)}
        elif (owner := step_owner(key, found)) is not None:
            steps |= {step.key for step in asset_steps(owner) if step.key == key} or {
                step.key for step in asset_steps(owner)
            }
        else:
            name, _, inner = key.partition(".")
            job = found.jobs.get(name)
            inner_steps = {step.key for step in job_steps(job)} if job is not None else set()
            if job is not None and not inner:
                jobs[name] = inner_steps
            elif inner in inner_steps:
                jobs.setdefault(name, set()).add(inner)
            else:
                known = job is not None or found.asset(name) is not None
                definer = "" if known else recorded_by(key, store)
                raise code_unavailable(key, definer) if definer else unknown_step(key, found)
            continue
        targets.update(dict.fromkeys(str(own) for own in owner.keys))
    if jobs and (targets or len(jobs) > 1):
        raise InvariantViolationError(
            "steps of a job and other steps cannot run in one run", remedy="re-run them one after the other"
        )
    for name, inner_keys in jobs.items():
        return build_job_plan(found.jobs[name], code, steps_only=inner_keys)
    return build_plan(list(targets), found, code, steps_only=steps)


def plan_to_resume(run: RunRecord, again: set[str], found: Definitions, code: CodeWalk, store: ValueStore) -> Plan:
    """Return the plan of those steps of a run that are to be executed again.

    Raises
    ------
    DefinitionUnavailableError
        If no code for what the run was asked for is here.
    """
    if run.kind == "job":
        job = found.jobs.get(run.targets[0])
        if job is None:
            raise code_unavailable(run.targets[0], recorded_by(run.targets[0], store) or run.notebook)
        plan = build_job_plan(job, code, steps_only={step.key for step in job_steps(job) if step.key in again})
    else:
        for key in run.targets:
            if not isinstance(found.asset(key), AssetsDefinition):
                raise code_unavailable(key, recorded_by(key, store) or run.notebook)
        plan = build_plan(run.targets, found, code, steps_only=again)
    lacking = again - {step.key for step in plan.steps}
    if lacking:
        key = min(lacking)
        raise code_unavailable(key, recorded_by(key, store) or run.notebook)
    plan.targets = run.targets
    return plan


def what_is_left(
    run: RunRecord, records: Iterable[StepRecord], store: ValueStore
) -> tuple[set[str], dict[str, Materialization], set[str]]:
    """Return which steps of a run are to be executed again, what the others gave, and which of them gave nothing.

    What a run that was itself resumed did not do again is known from the run that it continued.
    """
    records = list(records)
    again = {record.key for record in records if record.status in ("failed", "cancelled", "untouched")}
    ended: dict[str, StepRecord] = {}
    parent = run.parent_run_id
    while True:
        for record in records:
            if record.status in ("executed", "reused", "skipped") and record.key not in again:
                known = ended.get(record.key)
                # A step whose value was lost has two records in one run, the later one being true.
                if known is None or known.run_id == record.run_id:
                    ended[record.key] = record
        found = store.run(parent) if parent else None
        if found is None:
            break
        parent, records = found[0].parent_run_id, list(found[1])
    given = {item.key: item for record in ended.values() for item in record.materializations}
    return again, given, set(ended)


def not_produced(plan: Plan, ended: Collection[str], given: Collection[str], found: Definitions) -> frozenset[str]:
    """Return the value keys that a plan reads and that steps which ended did not produce: optional outputs."""
    absent = set()
    for key in plan.read:
        if key not in given:
            definition = found.asset(key)
            steps = (
                [step.key for step in asset_steps(definition) if any(output.key == key for output in step.outputs)]
                if isinstance(definition, AssetsDefinition)
                else [key.split(":", 1)[0]]
            )
            own = f"{plan.targets[0]}." if plan.kind == "job" else "\0"
            absent |= {key for step in steps if step in ended or step.removeprefix(own) in ended}
    return frozenset(absent)


def recorded_by(key: str, store: ValueStore) -> str:
    """Return the notebook or module that recorded a key, or anything of its asset or job; empty if none did."""
    whole = key.split(".", 1)[0]
    inside = (name for name in store.keys() if name.startswith(f"{whole}."))  # noqa: SIM118 - a store is no dict
    for name in dict.fromkeys((key, whole, *inside)):
        rows = store.current(name)
        if rows:
            return rows[0].notebook
    return ""


def code_unavailable(key: str, notebook: str) -> DefinitionUnavailableError:
    """Build the error for code that neither the argument nor the registry has."""
    return DefinitionUnavailableError(
        f"the code of {key!r} is not here: it is defined in {notebook or 'another process'}",
        remedy="run the cells that define it, or pass definitions=[...] or a module; code is never taken from the store",
    )


def check_reads(
    plan: Plan, known: Known, found: Definitions, stored: Callable[[], Iterable[str]], *, resumed: bool
) -> None:
    """Check that every value that the plan reads is there.

    Raises
    ------
    MissingUpstreamError
        If one is neither given, nor registered, nor stored.
    ValueNotKeptError
        If one could not be stored by the run that is resumed.
    """
    inside = f"{plan.targets[0]}." if plan.kind == "job" else "\0"
    for step in plan.steps:
        for given in step.inputs:
            for key in given.keys if given.carries_value else ():
                if key in plan.producers or key in plan.absent:
                    continue
                item = known.values.get(key)
                if item is None:
                    raise _missing(key, step, found, stored)
                if item.value is None and (resumed or key.startswith(inside)):
                    raise ValueNotKeptError(
                        f"step {step.key!r} needs the value of {item.step_key!r}, which could not be stored",
                        where=step.where,
                        remedy=f"run both: stepwell.rerun([{item.step_key!r}, {step.address!r}])",
                    )


def _missing(key: str, step: PlanStep, found: Definitions, stored: Callable[[], Iterable[str]]) -> MissingUpstreamError:
    if found.asset(key) is not None:
        return MissingUpstreamError(
            f"step {step.key!r} reads {key!r}, which is not materialized",
            where=step.where,
            remedy=f"%materialize {key}, or stepwell.materialize([{key!r}])",
        )
    own = {output.key for output in step.outputs}
    near = unknown_key("asset", key, [other for other in (*found.keys(), *stored()) if other not in own]).remedy
    return MissingUpstreamError(
        f"{step.key!r} reads the asset {key!r}, which is neither given, nor registered, nor stored",
        where=step.where,
        remedy=f"define it, or pass it too: stepwell.materialize([...]), definitions=its module; {near}",
    )


def foreign_notices(plan: Plan, known: Known) -> tuple[Notice, ...]:
    """Return a notice where another user's key signed values that the plan would reuse or read."""
    foreign = known.snapshot.foreign
    if not foreign:
        return ()
    keys = {*plan.read, *[output.key for step in plan.steps for output in step.outputs]}
    read = [known.values[key] for key in plan.read if key in known.values]
    kept = [
        item
        for groups in known.snapshot.by_memo_key.values()
        if all(any(item.id in foreign for item in group) for group in groups)
        for item in groups[0]
    ]
    found = {item.key: foreign[item.id] for item in (*read, *kept) if item.id in foreign and item.key in keys}
    if not found:
        return ()
    names = sorted(found)
    return (notice("foreign", names=tuple(names), signer=found[names[0]]),)


def read_notices(plan: Plan, known: Known, found: Definitions) -> tuple[Notice, ...]:
    """Return a notice for each value that is read from the store although nothing here defines it."""
    inside = f"{plan.targets[0]}." if plan.kind == "job" and plan.targets else "\0"
    items = [
        known.values[key]
        for key in plan.read
        if key in known.values
        and not key.startswith(inside)
        and found.asset(key) is None
        and step_owner(key.split(":", 1)[0], found) is None
    ]
    return tuple(notice("read", item.key, notebook=item.notebook, created=item.created) for item in items)


def stale_notices(plan: Plan, inspection: Inspection) -> tuple[Notice, ...]:
    """Return a notice for each value that the plan reads as it is stored although it is not fresh."""
    definitions = inspection.definitions
    owners = {key: definitions.asset(key) or step_owner(key.split(":", 1)[0], definitions) for key in plan.read}
    keys = [str(own) for owner in owners.values() if isinstance(owner, AssetsDefinition) for own in owner.keys]
    if not keys:
        return ()
    whole = build_plan(list(dict.fromkeys(keys)), definitions, inspection.walk)
    states = inspection.states(whole)
    notices = []
    for key in plan.read:
        state = states[whole.producers[key].key] if key in whole.producers else None
        if state is not None and state.state not in ("fresh", "missing"):
            cause = state.reasons[0].text if state.reasons else ""
            notices.append(notice("stale input", key, state=state.state, cause=cause))
    return tuple(notices)


def slow_notices(walk: CodeWalk) -> tuple[Notice, ...]:
    """Return a notice for each global that takes long to digest."""
    return tuple(notice("slow global", name, seconds=seconds) for name, seconds in walk.slow.items())


def size_notices(store: ValueStore) -> tuple[Notice, ...]:
    """Return one notice where the store is large or the disk almost full: what ``gc`` would free."""
    try:
        disk = shutil.disk_usage(store.directory)
    except OSError:
        return ()
    sizes = housekeeping.read_sizes(store.folder)
    if sizes is None:
        return ()
    held = sizes.object_bytes + sizes.catalog_bytes
    if held <= LARGE and disk.free >= FULL * disk.total:
        return ()
    return (
        notice(
            "large store",
            str(store.directory),
            held=held,
            free=disk.free / disk.total,
            garbage=sizes.garbage_bytes,
            older=sizes.older_bytes,
        ),
    )

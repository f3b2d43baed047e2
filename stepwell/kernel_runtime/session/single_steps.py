"""Plans of single steps, all else being read from the store: re-running a step, resuming a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.errors import DefinitionUnavailableError, InvariantViolationError
from stepwell.kernel_runtime.planning.build import Definitions, build_job_plan, build_plan, step_owner, unknown_step
from stepwell.kernel_runtime.planning.flatten import asset_steps, job_steps
from stepwell.kernel_runtime.planning.plan import Plan
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.protocols import CodeVersions, ValueStore
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord


def plan_of_steps(keys: Sequence[str], found: Definitions, code: CodeVersions, store: ValueStore) -> Plan:
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


def plan_to_resume(run: RunRecord, again: set[str], found: Definitions, code: CodeVersions, store: ValueStore) -> Plan:
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

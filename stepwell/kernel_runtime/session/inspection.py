"""`Inspection`: the definitions, code versions and store of one request.

An inspection also reads, from the store, the facts on which the decisions for a plan are based.

Every request creates an `Inspection`, whether it runs steps or only asks for states. An inspection memoises the digests of objects, so an
object that several steps use is digested once per request.

The module also prepares runs: it makes the plans for a rerun or a resumed run, checks before the first step that all values that a plan reads
exist, and makes the notices that can be made before the first step. These notices become part of the result of the run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import source_of
from stepwell.kernel_runtime.errors import (
    DefinitionUnavailableError,
    InvariantViolationError,
    MissingUpstreamError,
    StepwellError,
    StoreError,
    ValueNotKeptError,
    unknown_key,
)
from stepwell.kernel_runtime.execution.notebook import StoredCells
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.execution.world import HiddenState
from stepwell.kernel_runtime.planning.build import (
    Definitions,
    build_job_plan,
    build_plan,
    resolve_targets,
    step_extra,
    step_owner,
    unknown_step,
)
from stepwell.kernel_runtime.planning.decision import DecisionFacts
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep, asset_steps, job_steps
from stepwell.kernel_runtime.planning.states import StepState, lineage_of, plan_states
from stepwell.kernel_runtime.reads import read_holds
from stepwell.kernel_runtime.records.materializations import CodeVersion, Current, Materialization, Read
from stepwell.kernel_runtime.records.runs import Lineage, Notice, RunRecord, StepRecord, notice
from stepwell.kernel_runtime.session.reasons import ResultComparer
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.signing import Signer, vouches
from stepwell.kernel_runtime.versions.environment import Keyed, process_keyed
from stepwell.kernel_runtime.versions.secrets import environment_now, hidden_source
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


Choose: TypeAlias = "Callable[[str, list[Current], ValueStore], Materialization | None]"
Find: TypeAlias = "Callable[[Read, ValueStore], Materialization]"


class Inspection:
    """The definitions, code versions and store of one request.

    Parameters
    ----------
    new_walk
        Returns a new code walk, which computes the code versions of steps. It is called at the first use of `walk`.
    open_store
        Opens the store. It is called at the first use of `store`, so that a request that cannot be planned does not create a store.
    choose
        Takes a key and its current materializations, one for each notebook, and returns the one that this request uses (`requests.choose`).
    find
        Takes a recorded read of kind ``asset`` and a store, and returns the current materialization of the asset whose key is recorded in the read.
    timeline
        The timeline of the notebook; None outside of a notebook.
    """

    def __init__(
        self,
        definitions: Definitions,
        new_walk: Callable[[], CodeWalk],
        open_store: Callable[[], ValueStore],
        *,
        choose: Choose,
        find: Find,
        timeline: Timeline | None,
    ) -> None:
        self.definitions = definitions
        self.new_walk = new_walk
        self._open_store = open_store
        self._choose = choose
        self.find = find
        self._timeline = timeline

    @cached_property
    def walk(self) -> CodeWalk:
        """The code walk that computes the code versions for this request."""
        return self.new_walk()

    @cached_property
    def store(self) -> ValueStore:
        """The store of this request, opened at the first use."""
        return self._open_store()

    # -- plans

    def plan(self, words: Sequence[str] | None = None, *, upstream: bool = True) -> Plan:
        """Return a plan for the assets that `words` select.

        Parameters
        ----------
        words
            Keys and selection strings; None for all defined assets.
        upstream
            True to include the steps of upstream assets; False to read the values of upstream assets from the store.
        """
        return build_plan(resolve_targets(words, self.definitions), self.definitions, self.walk, upstream=upstream)

    def plan_of(self, key: str) -> Plan:
        """Return a plan for one asset and everything upstream of it. The asset is `key` or, if `key` is a step, the asset that contains it."""
        return build_plan([str(asset_key) for asset_key in self._owner(key).keys], self.definitions, self.walk)

    def steps_of(self, key: str) -> list[str]:
        """Return the step keys of the asset `key`, in the order of its definition; or only `key`, if it is the key of a step.

        Raises
        ------
        UnknownKeyError
            If no asset or step has this key.
        """
        steps = [step.key for step in asset_steps(self._owner(key))]
        return [key] if key in steps else steps

    def _owner(self, key: str) -> AssetsDefinition:
        owner = self.definitions.asset(key)
        if not isinstance(owner, AssetsDefinition):
            owner = step_owner(key, self.definitions)
        if owner is None:
            raise unknown_step(key, self.definitions, self.definitions.keys)
        return owner

    # -- facts of the store about a plan

    def decision_facts(self, plan: Plan, produced: Mapping[str, Materialization] | None = None) -> DecisionFacts:
        """Read from the store the facts on which the decisions about the steps of a plan are based.

        Parameters
        ----------
        produced
            If the plan resumes a run, maps the value keys of that run to its materializations. The plan reads the values of these materializations,
            not the current values. None for any other plan.
        """
        store = self.store
        keys = [output.key for step in plan.steps for output in step.outputs]
        codes = {step.code.digest for step in plan.steps if step.code is not None}
        snapshot = store.snapshot([*keys, *plan.read_keys], [step.address for step in plan.steps], codes)
        facts = DecisionFacts(
            snapshot,
            _still_holds(store, self.find),
            partial(vouches, store.signer),
            obstacle=lambda item: store.obstacle(item.value, key=item.key) if item.value is not None else "",
            snapshot_time=time.time(),
        )
        for key in plan.read_keys:
            if key in plan.absent:
                continue
            item = produced.get(key) if produced else None
            if item is None:
                rows = snapshot.current.get(key)
                item = self._choose(key, rows, store) if rows else None
            if item is not None:
                facts.values[key] = item
        if (timeline := self._timeline) is not None:
            facts.kind, facts.kernel_read_holds, facts.is_last_in_kernel = (
                timeline.kind,
                timeline.read_holds,
                timeline.has_brought,
            )
            facts.restore_obstacle = StoredCells(timeline, store, strict=bool(os.environ.get("STEPWELL_STRICT"))).obstacle
            facts.made_from = lambda step: timeline.made_from(step.key, step.op.body)
        return facts

    def states(self, plan: Plan, facts: DecisionFacts | None = None) -> dict[str, StepState]:
        """Return the state of each step of a plan by step key, in the order of the plan. No step runs.

        Parameters
        ----------
        facts
            The facts for the decisions; None to read them from the store.
        """
        facts = facts or self.decision_facts(plan)
        return plan_states(plan, facts, ResultComparer(self.store, facts, self.walk, code_parts(self.walk)))

    def lineage(self) -> Lineage:
        """Return the lineage of all defined assets and jobs: a card for each step, source asset and job, and the edges between the cards."""
        plan, definitions = self.plan(), self.definitions
        jobs = [(job, build_job_plan(job, self.walk)) for job in definitions.jobs.values()]
        environment, timeline = environment_now(), self._timeline
        return lineage_of(
            plan,
            self.states(plan),
            definitions,
            jobs,
            lambda body: hidden_source(source_of(body), environment),
            left_by=lambda step: timeline.left_by(step.key, step.op.body) if timeline is not None else (),
        )


def _still_holds(store: ValueStore, find: Find) -> Callable[[Read], bool]:
    """Return a function that takes a recorded read, and returns True if repeating the read now would give the recorded result.

    Parameters
    ----------
    find
        Takes a recorded read of kind ``asset`` and a store, and returns the current materialization of the asset whose key is recorded in the read.
    """
    signer = Signer()

    def holds(read: Read) -> bool:
        if read.kind != "asset":
            return read_holds(read, signer.keyed)
        try:
            item = find(read, store)
        except StepwellError:
            return False
        return (item.data_version or item.id) == read.digest

    return holds


def code_parts(source: CodeWalk | HiddenState) -> Callable[[PlanStep], CodeVersion | None]:
    """Return a function that takes a step and returns the step's code version, with its field `parts` filled in.

    For a step without a code version, the function returns None.

    Parameters
    ----------
    source
        The code walk that finds the parts; or the `HiddenState` of a run. The returned function then uses the code walk that the `HiddenState` has
        when the function is called.
    """

    def parts_of(step: PlanStep) -> CodeVersion | None:
        if step.code is None:
            return None
        walk = source.walk if isinstance(source, HiddenState) else source
        parts = walk.parts(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return CodeVersion(step.code.digest, parts, step.code.unverifiable, step.code.asset_names, step.code.mutable_globals)

    return parts_of


def users_digest() -> Keyed:
    """Return a function that digests data with the user's signing key, or with a random key of this process if that key cannot be used."""
    signer = Signer()

    def keyed(data: bytes) -> str:
        try:
            return signer.keyed(data)
        except StoreError:
            return process_keyed(data)

    return keyed


LARGE = 10 << 30
"""The size of a store in bytes above which a notice tells the user how much space ``gc`` would free."""
FULL = 0.10
"""The fraction of the store's disk that must be free. If less is free, a notice tells the user how much space ``gc`` would free."""


def plan_of_steps(keys: Sequence[str], definitions: Definitions, code: CodeWalk, store: ValueStore) -> Plan:
    """Return a plan that contains only the requested steps; all other values are read from the store.

    Parameters
    ----------
    keys
        Keys of steps (``JOB.STEP`` for a step of a job). The key of an asset or the name of a job stands for all of its steps.

    Raises
    ------
    UnknownKeyError
        If a key is neither defined nor stored.
    DefinitionUnavailableError
        If a key is stored but not defined in this process.
    InvariantViolationError
        If `keys` names steps of a job together with steps of assets or of another job.
    """
    targets: dict[str, None] = {}
    steps: set[str] = set()
    jobs: dict[str, set[str]] = {}
    for key in keys:
        owner = definitions.asset(key)
        if isinstance(owner, AssetsDefinition):
            steps |= {step.key for step in asset_steps(owner)}
        elif (owner := step_owner(key, definitions)) is not None:
            steps |= {step.key for step in asset_steps(owner) if step.key == key} or {step.key for step in asset_steps(owner)}
        else:
            name, _, inner = key.partition(".")
            job = definitions.jobs.get(name)
            inner_steps = {step.key for step in job_steps(job)} if job is not None else set()
            if job is not None and not inner:
                jobs[name] = inner_steps
            elif inner in inner_steps:
                jobs.setdefault(name, set()).add(inner)
            else:
                is_defined = job is not None or definitions.asset(name) is not None
                definer = "" if is_defined else recorded_by(key, store)
                raise code_unavailable(key, definer) if definer else unknown_step(key, definitions)
            continue
        targets.update(dict.fromkeys(str(asset_key) for asset_key in owner.keys))
    if jobs and (targets or len(jobs) > 1):
        raise InvariantViolationError(
            "steps of a job cannot run in the same run as steps of assets or of another job",
            remedy="start a separate run for each job, and one for the steps of assets",
        )
    for name, inner_keys in jobs.items():
        return build_job_plan(definitions.jobs[name], code, steps_only=inner_keys)
    return build_plan(list(targets), definitions, code, steps_only=steps)


def plan_to_resume(run: RunRecord, unfinished: set[str], definitions: Definitions, code: CodeWalk, store: ValueStore) -> Plan:
    """Return a plan that resumes a run: it contains only the unfinished steps.

    Parameters
    ----------
    run
        The run to resume.
    unfinished
        The keys of the steps that failed, were cancelled or never started in that run.

    Raises
    ------
    DefinitionUnavailableError
        If a target or step of the run is not defined in this process.
    """
    if run.kind == "job":
        job = definitions.jobs.get(run.targets[0])
        if job is None:
            raise code_unavailable(run.targets[0], recorded_by(run.targets[0], store) or run.notebook)
        plan = build_job_plan(job, code, steps_only={step.key for step in job_steps(job) if step.key in unfinished})
    else:
        for key in run.targets:
            if not isinstance(definitions.asset(key), AssetsDefinition):
                raise code_unavailable(key, recorded_by(key, store) or run.notebook)
        plan = build_plan(run.targets, definitions, code, steps_only=unfinished)
    lacking = unfinished - {step.key for step in plan.steps}
    if lacking:
        key = min(lacking)
        raise code_unavailable(key, recorded_by(key, store) or run.notebook)
    plan.targets = run.targets
    return plan


def unfinished_steps(
    run: RunRecord, records: Iterable[StepRecord], store: ValueStore
) -> tuple[set[str], dict[str, Materialization], set[str]]:
    """Return which steps of a run are unfinished and which are finished, for a plan that resumes the run.

    Parameters
    ----------
    run
        The run to resume. If it had itself resumed an earlier run, the steps that the earlier run had finished count as finished, and so on.
    records
        The records of the run's steps.

    Returns
    -------
    unfinished : set of str
        The keys of the steps that failed, were cancelled or never started.
    produced : dict
        The materializations of the finished steps by value key.
    finished : set of str
        The keys of the finished steps.
    """
    records = list(records)
    unfinished = {record.key for record in records if record.status in ("failed", "cancelled", "untouched")}
    finished_records: dict[str, StepRecord] = {}
    parent = run.parent_run_id
    while True:
        for record in records:
            if record.status in ("executed", "reused", "skipped") and record.key not in unfinished:
                finished_record = finished_records.get(record.key)
                # A step has two records in one run if it ran again because its value was lost. The later record is used.
                if finished_record is None or finished_record.run_id == record.run_id:
                    finished_records[record.key] = record
        resumed = store.run(parent) if parent else None
        if resumed is None:
            break
        parent, records = resumed[0].parent_run_id, list(resumed[1])
    produced = {item.key: item for record in finished_records.values() for item in record.materializations}
    return unfinished, produced, set(finished_records)


def not_produced(plan: Plan, ended: Collection[str], produced: Collection[str], definitions: Definitions) -> frozenset[str]:
    """Return the keys of the optional outputs that the finished steps of a run did not produce, although the plan that resumes the run reads them.

    Parameters
    ----------
    ended
        The keys of the finished steps of the run that is resumed.
    produced
        The value keys that these steps produced.
    """
    absent = set()
    for key in plan.read_keys:
        if key not in produced:
            definition = definitions.asset(key)
            steps = (
                [step.key for step in asset_steps(definition) if any(output.key == key for output in step.outputs)]
                if isinstance(definition, AssetsDefinition)
                else [key.split(":", 1)[0]]
            )
            job_prefix = f"{plan.targets[0]}." if plan.kind == "job" else "\0"
            absent |= {key for step in steps if step in ended or step.removeprefix(job_prefix) in ended}
    return frozenset(absent)


def recorded_by(key: str, store: ValueStore) -> str:
    """Return the name of the notebook or module that stored the current value of a key; empty if no value is found.

    If nothing is stored for `key` itself, the part of `key` before the first dot is used (the key of an asset or the name of a job). If nothing is
    stored for this either, any step inside the asset or job is used.
    """
    whole = key.split(".", 1)[0]
    inside = (name for name in store.keys() if name.startswith(f"{whole}."))  # noqa: SIM118 - a store is not a dict and cannot be iterated
    for name in dict.fromkeys((key, whole, *inside)):
        rows = store.current(name)
        if rows:
            return rows[0].notebook
    return ""


def code_unavailable(key: str, notebook: str) -> DefinitionUnavailableError:
    """Return the error for a key that is stored but not defined in this process.

    Parameters
    ----------
    notebook
        The notebook or module that stored a value for the key; empty if unknown.
    """
    return DefinitionUnavailableError(
        f"{key!r} is not defined in this process; {notebook or 'another process'} defined it",
        remedy=f"run the cells that define {key!r}, or pass its definition: definitions=[...] or a module; "
        "code is never loaded from the store",
    )


def check_reads(
    plan: Plan, facts: DecisionFacts, definitions: Definitions, stored: Callable[[], Iterable[str]], *, resumed: bool
) -> None:
    """Check that every value that a plan reads from the store is stored.

    Parameters
    ----------
    stored
        Returns the keys of the store. The message of the error suggests keys that are similar to the missing one.
    resumed
        True if the plan resumes a run.

    Raises
    ------
    MissingUpstreamError
        If a value that a step reads has no materialization.
    ValueNotKeptError
        If a value has a materialization but could not be stored, and comes from the run that is resumed or from an earlier run of the same job.
    """
    inside = f"{plan.targets[0]}." if plan.kind == "job" else "\0"
    for step in plan.steps:
        for step_input in step.inputs:
            for key in step_input.keys if step_input.carries_value else ():
                if key in plan.producers or key in plan.absent:
                    continue
                item = facts.values.get(key)
                if item is None:
                    raise _missing_upstream(key, step, definitions, stored)
                if item.value is None and (resumed or key.startswith(inside)):
                    raise ValueNotKeptError(
                        f"step {step.key!r} needs the value of {item.step_key!r}, which could not be stored",
                        where=step.where,
                        remedy=f"run both steps again in one run, which passes the value in memory: stepwell.rerun([{item.step_key!r}, {step.address!r}])",
                    )


def _missing_upstream(
    key: str, step: PlanStep, definitions: Definitions, stored: Callable[[], Iterable[str]]
) -> MissingUpstreamError:
    if definitions.asset(key) is not None:
        return MissingUpstreamError(
            f"step {step.key!r} reads {key!r}, which is not materialized",
            where=step.where,
            remedy=f"materialize {key!r} first: %materialize {key}, or stepwell.materialize([{key!r}])",
        )
    outputs = {output.key for output in step.outputs}
    near = unknown_key("asset", key, [other for other in (*definitions.keys(), *stored()) if other not in outputs]).remedy
    return MissingUpstreamError(
        f"step {step.key!r} reads the asset {key!r}, which is neither defined nor stored",
        where=step.where,
        remedy=f"run the cell that defines {key!r}, or pass its module: stepwell.materialize([...], definitions=module); {near}",
    )


def foreign_notices(plan: Plan, facts: DecisionFacts) -> tuple[Notice, ...]:
    """Return a notice about values that are signed with another user's key, if the plan would reuse or read such values.

    The notice names the values, which must not be loaded. The result is a tuple of one notice, or an empty tuple.
    """
    foreign = facts.snapshot.foreign
    if not foreign:
        return ()
    keys = {*plan.read_keys, *[output.key for step in plan.steps for output in step.outputs]}
    read = [facts.values[key] for key in plan.read_keys if key in facts.values]
    reusable = [
        item
        for executions in facts.snapshot.by_memo_key.values()
        if all(any(item.id in foreign for item in execution) for execution in executions)
        for item in executions[0]
    ]
    signers = {item.key: foreign[item.id] for item in (*read, *reusable) if item.id in foreign and item.key in keys}
    if not signers:
        return ()
    names = sorted(signers)
    return (notice("foreign", names=tuple(names), signer=signers[names[0]]),)


def read_notices(plan: Plan, facts: DecisionFacts, definitions: Definitions) -> tuple[Notice, ...]:
    """Return a notice for each value that the plan reads from the store and whose asset or step is not defined in this process."""
    inside = f"{plan.targets[0]}." if plan.kind == "job" and plan.targets else "\0"
    items = [
        facts.values[key]
        for key in plan.read_keys
        if key in facts.values
        and not key.startswith(inside)
        and definitions.asset(key) is None
        and step_owner(key.split(":", 1)[0], definitions) is None
    ]
    return tuple(notice("read", item.key, notebook=item.notebook, created=item.created) for item in items)


def stale_notices(plan: Plan, inspection: Inspection) -> tuple[Notice, ...]:
    """Return a notice for each stored value that the plan reads although the step that computes the value is not fresh."""
    definitions = inspection.definitions
    owners = {key: definitions.asset(key) or step_owner(key.split(":", 1)[0], definitions) for key in plan.read_keys}
    keys = [str(asset_key) for owner in owners.values() if isinstance(owner, AssetsDefinition) for asset_key in owner.keys]
    if not keys:
        return ()
    whole = build_plan(list(dict.fromkeys(keys)), definitions, inspection.walk)
    states = inspection.states(whole)
    notices = []
    for key in plan.read_keys:
        state = states[whole.producers[key].key] if key in whole.producers else None
        if state is not None and state.state not in ("fresh", "missing"):
            cause = state.reasons[0].text if state.reasons else ""
            notices.append(notice("stale input", key, state=state.state, cause=cause))
    return tuple(notices)


def slow_notices(walk: CodeWalk) -> tuple[Notice, ...]:
    """Return a notice for each global variable that took long to digest during the code walk."""
    return tuple(notice("slow global", name, seconds=seconds) for name, seconds in walk.slow.items())


def size_notices(store: ValueStore) -> tuple[Notice, ...]:
    """Return a tuple of one notice if the store is larger than `LARGE`, or if less than `FULL` of its disk is free; otherwise an empty tuple.

    The notice states the sizes and how much space ``gc`` would free. If the sizes are unknown, the tuple is empty.
    """
    try:
        disk = shutil.disk_usage(store.directory)
    except OSError:
        return ()
    sizes = housekeeping.read_sizes(store.folder)
    if sizes is None:
        return ()
    stored_bytes = sizes.object_bytes + sizes.catalog_bytes
    if stored_bytes <= LARGE and disk.free >= FULL * disk.total:
        return ()
    return (
        notice(
            "large store",
            str(store.directory),
            held=stored_bytes,
            free=disk.free / disk.total,
            garbage=sizes.garbage_bytes,
            older=sizes.older_bytes,
        ),
    )

"""What a plan reads from the store before its first step: one snapshot, its sources, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from stepwell.kernel_runtime.errors import MissingUpstreamError, StepwellError, ValueNotKeptError, unknown_key
from stepwell.kernel_runtime.planning.build import Definitions, step_owner
from stepwell.kernel_runtime.planning.memo import Known
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.reads import read_holds
from stepwell.kernel_runtime.records.code_versions import renaming
from stepwell.kernel_runtime.records.events import Notice, notice
from stepwell.kernel_runtime.records.materializations import Current, Materialization, Read
from stepwell.kernel_runtime.records.protocols import ValueStore
from stepwell.kernel_runtime.records.snapshot import Snapshot
from stepwell.kernel_runtime.store.signing import Signer

Choose = Callable[[str, list[Current], ValueStore], Materialization | None]
Find = Callable[[Read, ValueStore], Materialization]
Settle = Callable[[PlanStep, Materialization], bool]


def known_for(
    plan: Plan,
    store: ValueStore,
    choose: Choose,
    loaded: Find,
    given: Mapping[str, Materialization] | None = None,
    *,
    settle: Settle | None = None,
) -> Known:
    """Return what the store knows of a plan's steps, and the values that it reads.

    Parameters
    ----------
    loaded
        Finds what an asset that a step loaded is now.
    given
        Materializations that are to be taken for values that no step of the plan gives: those of the run that is resumed.
    settle
        Given a step and what was carried over to it from another key: records that it is the step's own, if it is.
    """
    keys = [output.key for step in plan.steps for output in step.outputs]
    codes = {step.code.digest for step in plan.steps if step.code is not None}
    asked = ([*keys, *plan.read], [step.address for step in plan.steps], codes)
    snapshot = store.snapshot(*asked)
    if settle is not None and any([settle(*each) for each in _carried_over(plan, snapshot)]):  # noqa: C419 - each of them
        snapshot = store.snapshot(*asked)
    known = Known(
        snapshot,
        _still_holds(store, loaded),
        store.vouches,
        obstacle=lambda item: store.obstacle(item.value, key=item.key) if item.value is not None else "",
    )
    for key in plan.read:
        if key in plan.absent:
            continue
        item = given.get(key) if given else None
        if item is None:
            rows = snapshot.current.get(key)
            item = choose(key, rows, store) if rows else None
        if item is not None:
            known.values[key] = item
    return known


def _carried_over(plan: Plan, snapshot: Snapshot) -> list[tuple[PlanStep, Materialization]]:
    """Return the steps whose current value was carried over from another key with another code version."""
    return [
        (step, row.materialization)
        for step in plan.steps
        for row in snapshot.current.get(step.key, ())
        if row.materialization.metadata
        and row.notebook == step.notebook
        and step.code is not None
        and row.materialization.code_version != step.code.digest
        and renaming(row.materialization) is not None
    ]


def _still_holds(store: ValueStore, loaded: Find) -> Callable[[Read], bool]:
    """Return what tells whether a step's read still holds."""
    signer = Signer()

    def holds(read: Read) -> bool:
        if read.kind != "asset":
            return read_holds(read, signer.keyed)
        try:
            item = loaded(read, store)
        except StepwellError:
            return False
        return (item.data_version or item.id) == read.digest

    return holds


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

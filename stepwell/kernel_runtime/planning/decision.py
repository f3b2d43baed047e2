"""The decision about a step, and its reason: the step is reused, runs, or is held back.

All decisions are made by `decide`. The engine acts on them; status, ``%why`` and the lineage show them before anything runs (`states`). In
both cases the decisions are based on the same facts (`DecisionFacts`): a snapshot of the store, the materializations of the step's inputs, and
checks of the reads that earlier executions recorded.

A step is decided after all steps before it, because its memo key contains the data versions of its inputs. The step is reused if the store
contains an execution with the same memo key, unchanged recorded reads, an age below the limit, and all outputs. Reasons are built only on
request, because this takes time (`refusal`, `reason_to_run`).

The scheduler and the rebuilder are separate: the engine orders the steps, and this module decides which of them must run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.reads import what_changed
from stepwell.kernel_runtime.records.bulk import quick_init
from stepwell.kernel_runtime.records.keys import keys_text
from stepwell.kernel_runtime.records.materializations import (
    LOCAL,
    Current,
    InputVersion,
    Materialization,
    Read,
    Unverifiable,
    acceptance,
    memo_key,
    revoked_run,
)
from stepwell.kernel_runtime.records.runs import Snapshot
from stepwell.kernel_runtime.text import age_text

Kind: TypeAlias = Literal["pull", "cell pull", "named", "cell", "forced"]
"""How a step is requested. The kind determines which changes in the notebook count.

``pull``: a downstream step needs the step. ``cell pull``: the same, and the downstream step is a cell that runs. ``named``: the request
names the step. ``cell``: the cell of the step runs. ``forced``: the step runs even if a stored result could be reused.
"""
PULLS: frozenset[Kind] = frozenset({"pull", "cell pull"})
"""The kinds of a step that the request does not name."""
Action: TypeAlias = Literal["reuse", "run", "wait", "skip", "untouched", "unavailable"]
"""``wait``: an upstream step is not decided yet. ``skip``: a required optional output of an upstream step was not produced. ``untouched``:
an upstream step failed. ``unavailable``: an input has no materialization.
"""
Cause: TypeAlias = Literal[
    "", "forced", "lost", "unrestorable", "failed", "cache", "volatile", "unverifiable", "changed"
]

_SKEW = 1.0
"""Seconds by which another process's clock may be ahead."""


@quick_init
@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one step."""

    action: Action
    cause: Cause = ""
    """The cause for a step that runs, or that waits and may run."""
    memo_key: str = ""
    """Empty where it is not known yet."""
    inputs: tuple[InputVersion, ...] | None = None
    """None where they are not known yet."""
    materializations: tuple[Materialization, ...] = ()
    """The execution that is reused; for the causes ``lost`` and ``unrestorable``, the execution that would otherwise be reused."""
    obstacle: str = ""
    """For the causes ``lost`` and ``unrestorable``, why the step must run although none of its dependencies has changed."""


@dataclass(slots=True)
class DecisionFacts:
    """The facts on which decisions are based, for one run or one request for states.

    Attributes
    ----------
    vouches
        Returns True if a trusted key signed a whole record. The effects in a record are not read before this check.
    values
        The materialization of each value key in this run: computed, reused, or read from the store.
    obstacle
        Returns why a stored value cannot be loaded; empty if no reason is known.
    snapshot_time
        The time of the snapshot, in seconds since the epoch. Ages are measured from this time.
    """

    snapshot: Snapshot
    read_holds: Callable[[Read], bool]
    vouches: Callable[[Materialization], bool]
    values: dict[str, Materialization] = field(default_factory=dict)
    obstacle: Callable[[Materialization], str] = field(default=lambda item: "")  # noqa: ARG005 - where all that is stored can be loaded
    snapshot_time: float = field(default_factory=time.time)
    kind: Callable[[str], Kind] = field(default=lambda key: "pull")  # noqa: ARG005 - outside notebooks all steps count alike
    """Returns the kind of request for a step, given its key."""
    kernel_read_holds: Callable[[Read, str, Materialization, Kind], bool] | None = None
    """Returns True if a read of the kernel's state still holds: variables named in strings, random streams. None outside notebooks."""
    is_last_in_kernel: Callable[[str, Materialization], bool] | None = None
    """Returns True for the last materialization of a step in this kernel; None outside notebooks."""
    restore_obstacle: Callable[[PlanStep, tuple[Materialization, ...], Kind], str] | None = None
    """Returns why a cell's effects cannot be restored in this kernel; empty if they can be restored. None outside notebooks."""
    made_from: Callable[[PlanStep], Mapping[str, str]] | None = None
    """Returns the variables that a step reads and that plain cells computed from assets, each with the key of the step or asset."""
    settle: Callable[[PlanStep], None] | None = None
    """Computes the code version of a step again if earlier steps may have changed objects that its code reaches."""
    steps_without_value: dict[str, Literal["wait", "untouched"]] = field(default_factory=dict)
    """Keys of the steps without a value: not decided yet, failed, cancelled or never started."""
    _read_results: dict[Read, bool] = field(default_factory=dict)

    def holds(
        self, read: Read, step: PlanStep | None = None, item: Materialization | None = None, kind: Kind | None = None
    ) -> bool:
        """Return True if a recorded read still holds. Reads of files, the environment and similar state are checked once per run."""
        if read.kind == "asset":
            # This run may materialize the asset. An asset of an explicitly named notebook or store can only be looked up by the session.
            item = None if read.names else self.values.get(read.name)
            return self.read_holds(read) if item is None else (item.data_version or item.id) == read.digest
        local = self.kernel_read_holds if step is not None and item is not None else None
        if read.kind not in LOCAL or local is None:
            holds = self._read_results.get(read)
            if holds is None:
                holds = self._read_results[read] = self.read_holds(read)
            if holds or local is None:
                return holds
        # Also for reads of files: the step, or a later one, may have changed them in this kernel.
        assert step is not None
        assert item is not None
        return local(read, step.key, item, kind or self.kind(step.key))

    def use_snapshot(self, later: Snapshot) -> None:
        """Use a later snapshot of some steps and keys, and check recorded reads again when they are needed."""
        self.snapshot.take(later)
        self._read_results.clear()

    def forget_checks(self) -> None:
        """Discard the results of checks, because effects of a step may have changed files or other state."""
        self._read_results.clear()

    def inputs(self, step: PlanStep) -> tuple[InputVersion, ...] | None:
        """Return the versions of a step's inputs, or None if one has no materialization."""
        values = self.values
        versions = []
        for step_input in step.inputs:
            if step_input.fan_in:
                members = [values[key] for key in step_input.keys if key in values]
                versions += [_version(f"{step_input.name}[]", item, step_input.carries_value) for item in members]
            else:
                for key in step_input.keys:
                    item = values.get(key)
                    if item is None:
                        if not step_input.carries_value:
                            continue
                        return None
                    versions.append(_version(step_input.name, item, step_input.carries_value))
        return tuple(versions)

    def key(self, step: PlanStep, inputs: Iterable[InputVersion]) -> str:
        """Return the memo key of a step; empty if the step is not memoised."""
        return memo_key(step.address, step.code.digest, inputs) if step.code is not None else ""

    def is_young(self, materializations: tuple[Materialization, ...], max_age: float) -> bool:
        """Return True if an execution is younger than `max_age` seconds at the time of the snapshot.

        False for an execution with a time in the future: a clock was set back, so the age is unknown.
        """
        latest = time.time() + _SKEW
        return all(self.snapshot_time - item.created < max_age and item.created <= latest for item in materializations)

    def is_newest(self, item: Materialization) -> bool:
        """Return True if no materialization of the key with any memo key was committed later; clocks do not count."""
        newest = next((row for row in self.snapshot.current.get(item.key, ()) if row.partition == item.partition), None)
        return newest is None or newest.materialization.id == item.id

    def value_obstacle(self, item: Materialization) -> str:
        """Return why the value of a materialization cannot be used; empty if no reason is known."""
        value = item.value
        if value is None:
            return ""
        if item.id in self.snapshot.foreign:
            return f"signed with another key ({self.snapshot.foreign[item.id]}): loading it could run any code"
        if value.object_name is not None and value.object_name in self.snapshot.missing_files:
            return "its file is gone from the store, or cut short"
        return self.obstacle(item)


def decide(step: PlanStep, plan: Plan, facts: DecisionFacts, kind: Kind) -> Decision:
    """Return the decision about a step for a kind of request.

    All steps before this one must be decided: each has its materializations in ``facts.values`` or its key in ``facts.steps_without_value``.
    """
    held = _blocked_action(step, plan, facts)
    if held is not None:
        return Decision(held, _cause(step, "", facts) if held == "wait" else "")
    if facts.settle is not None:
        facts.settle(step)
    inputs = facts.inputs(step)
    if inputs is None:
        return Decision("unavailable")
    return decide_keyed(step, plan, facts, kind, memo=facts.key(step, inputs), inputs=inputs)


def decide_keyed(
    step: PlanStep, plan: Plan, facts: DecisionFacts, kind: Kind, *, memo: str, inputs: tuple[InputVersion, ...]
) -> Decision:
    """Return the decision about a step that has a memo key and is not held back: the step is reused or runs."""
    if kind == "forced":
        return Decision("run", "forced", memo, inputs)
    materializations = _reusable(step, memo, facts, kind)
    if materializations is None:
        return Decision("run", _cause(step, memo, facts), memo, inputs)
    # For other steps the data version is enough; a lost value is computed again when a step needs it.
    lost = lost_value(materializations, facts) if step.key in plan.target_steps else None
    if lost is not None:
        return Decision("run", "lost", memo, inputs, materializations, f"{lost[0].key}: {lost[1]}")
    obstacle = facts.restore_obstacle(step, materializations, kind) if facts.restore_obstacle is not None else ""
    if obstacle:
        return Decision("run", "unrestorable", memo, inputs, materializations, obstacle)
    return Decision("reuse", "", memo, inputs, materializations)


def lost_value(
    materializations: tuple[Materialization, ...], facts: DecisionFacts
) -> tuple[Materialization, str] | None:
    """Return the first materialization of an execution whose value cannot be used, and the reason; None if there is none."""
    for item in materializations:
        why = facts.value_obstacle(item)
        if why:
            return item, why
    return None


def may_be_reused(step: PlanStep, executions: Iterable[tuple[Materialization, ...]], facts: DecisionFacts) -> bool:
    """Return True if one of a step's executions could be reused if the step had the same inputs as that execution."""
    if step.code is None or not step.memoised or step.op.volatile:
        return False
    kind, digest = facts.kind(step.key), step.code.digest
    return any(
        materializations[0].code_version == digest and _objection(step, materializations, facts, kind) is None
        for materializations in executions
    )


def _blocked_action(step: PlanStep, plan: Plan, facts: DecisionFacts) -> Action | None:
    """Return the action for a step that can neither be reused nor run: an upstream step has no value, or an optional output was not produced."""
    values, producers, valueless = facts.values, plan.producers, facts.steps_without_value
    if valueless:
        states = {valueless.get(producers[key].key) for key in step.input_keys if key in producers}
        if "untouched" in states:
            return "untouched"
        if "wait" in states:
            return "wait"
    for given in step.inputs:
        lacking = [key for key in given.keys if key not in values and (key in producers or key in plan.absent)]
        if lacking and (not given.fan_in or len(lacking) == len(given.keys)):
            return "skip"
    return None


def _cause(step: PlanStep, memo: str, facts: DecisionFacts) -> Cause:
    """Return the cause for which no execution with a memo key is reused, as far as it is known without a comparison."""
    failure = facts.snapshot.failures.get(step.address)
    if failure is not None and memo and failure.memo_key == memo:
        return "failed"
    if not step.memoised:
        return "cache"
    if step.op.volatile:
        return "volatile"
    return "unverifiable" if step.code is not None and step.code.unverifiable else "changed"


def _reusable(step: PlanStep, memo: str, facts: DecisionFacts, kind: Kind) -> tuple[Materialization, ...] | None:
    """Return the newest reusable execution with a memo key, or None.

    An execution signed with another user's key is chosen only if there is no other, because its value counts as missing.
    """
    if not step.memoised or step.op.volatile or not memo:
        return None
    executions = facts.snapshot.by_memo_key.get(memo)
    if not executions:
        return None
    revoked: set[str] = set()
    foreign: tuple[Materialization, ...] | None = None
    chosen: tuple[Materialization, ...] | None = None
    brought = facts.is_last_in_kernel if len(executions) > 1 else None
    for materializations in executions:
        taken_back = revoked_run(materializations[0])
        if taken_back:
            revoked.add(taken_back)
        if taken_back or materializations[0].run_id in revoked:
            continue
        if chosen is not None and brought is not None and not brought(step.key, materializations[0]):
            continue
        if _objection(step, materializations, facts, kind) is None:
            if facts.snapshot.foreign and any(item.id in facts.snapshot.foreign for item in materializations):
                foreign = foreign or materializations
            elif brought is None or brought(step.key, materializations[0]):
                return materializations
            else:
                # An older execution may be the one whose results this notebook has now.
                chosen = chosen or materializations
        if _has_acted(materializations):
            # This execution changed external state and overwrote the effects of older executions, so these are not considered.
            return chosen
    return chosen or foreign


def is_kept(step: PlanStep, materializations: tuple[Materialization, ...], facts: DecisionFacts, kind: Kind) -> bool:
    """Return True if a running cell needs a step whose last materialization in this kernel is from this execution.

    Then a read that cannot be compared does not make the step run again, as in a plain notebook.
    """
    return (
        kind == "cell pull"
        and facts.is_last_in_kernel is not None
        and facts.is_last_in_kernel(step.key, materializations[0])
    )


def _objection(
    step: PlanStep, materializations: tuple[Materialization, ...], facts: DecisionFacts, kind: Kind
) -> tuple[str, Any] | None:
    """Return why an execution with the step's memo key cannot be reused, as a key of `_TEXTS` and its argument; None if it can."""
    first = materializations[0]
    if not is_kept(step, materializations, facts, kind):
        unseen = step.code.unverifiable if step.code is not None else ()
        if unseen and not _accepts(first, unseen):
            return "no digest", f"{unseen[0].path} has no digest ({unseen[0].reason})"
        for item in materializations:
            if item.unverifiable:
                return "had no digest", item.unverifiable[0]
    max_age = step.op.max_age
    if max_age is not None and not facts.is_young(materializations, max_age):
        return "age", max_age
    for read in first.reads:
        if not facts.holds(read, step, first, kind):
            return "read", read
    lacking = _lacking(step, materializations)
    if lacking:
        return "lacking", lacking
    if _has_acted(materializations) and not all(
        facts.is_newest(item) for item in materializations if not item.data_version
    ):
        return "acted", None
    return None


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "no digest": str,
    "had no digest": lambda path: f"{path} had no digest",
    "age": lambda age: f"older than max_age ({age_text(age)})",
    "read": what_changed,
    "lacking": lambda keys: f"{keys_text(keys)} is no longer stored",
    "acted": lambda _: "another version of it has acted since",
}


def refusal(step: PlanStep, memo: str, facts: DecisionFacts) -> str:
    """Return why no execution with the step's memo key is reused; empty if there is no such execution."""
    if not step.memoised:
        return "cache=False: it runs in every run"
    if step.op.volatile:
        return "volatile: it runs in every run"
    if step.code is not None and step.code.unverifiable:
        item = step.code.unverifiable[0]
        return f"{item.path} has no digest ({item.reason})"
    executions = facts.snapshot.by_memo_key.get(memo)
    if not memo or not executions:
        return ""
    if revoked_run(executions[0][0]):
        return "what was accepted for it was revoked"
    objection = _objection(step, executions[0], facts, facts.kind(step.key))
    if objection is not None:
        return _TEXTS[objection[0]](objection[1])
    lost = lost_value(executions[0], facts)
    return lost[1] if lost is not None else ""


def reason_to_run(step: PlanStep, memo: str, inputs: tuple[InputVersion, ...], facts: DecisionFacts) -> str:
    """Return a reason to run that is not a change of code, config or stored inputs; empty if there is none."""
    return refusal(step, memo, facts) or _recomputed_input(step, inputs, facts)


def _recomputed_input(step: PlanStep, inputs: tuple[InputVersion, ...], facts: DecisionFacts) -> str:
    """Return a text that names the input without a stored value that was computed again since the step last ran; empty if there is none."""
    parameters = {version.name for version in step.inputs if version.carries_value}
    unstored = [
        version
        for version in inputs
        if version.name in parameters and version.key in facts.values and facts.values[version.key].value is None
    ]
    if not unstored:
        return ""
    earlier = facts.snapshot.current.get(step.outputs[0].key, ())
    before = {(version.name, version.version) for row in earlier[:1] for version in row.materialization.inputs}
    changed = [version.key for version in unstored if (version.name, version.version) not in before]
    return f"{changed[0]} is not stored and was computed again" if earlier and changed else ""


def _accepts(item: Materialization, unseen: tuple[Unverifiable, ...]) -> bool:
    """Return True if a materialization was accepted with exactly these objects without a digest."""
    note = acceptance(item)
    return note is not None and note.get("unverifiable") == [f"{each.path}: {each.reason}" for each in unseen]


def _has_acted(materializations: tuple[Materialization, ...]) -> bool:
    """Return True if an execution changed external state: one of its materializations has no value to compare."""
    return not all([item.data_version for item in materializations])  # noqa: C419 - a list is quicker for one or two


def _version(name: str, item: Materialization, carries_value: bool) -> InputVersion:
    if carries_value and item.data_version:
        return InputVersion(name, item.key, item.data_version, "value")
    return InputVersion(name, item.key, item.id, "order")


def _lacking(step: PlanStep, materializations: tuple[Materialization, ...]) -> list[str]:
    """Return the keys of the required outputs that an execution does not have."""
    if len(step.outputs) == 1 and materializations[0].key == step.outputs[0].key:
        return []
    made = {item.key for item in materializations}
    return [output.key for output in step.outputs if output.required and output.key not in made]


def choose_current(rows: list[Current], notebook: str) -> Materialization | None:
    """Return the current materialization of a key: that of the given notebook, else the newest one of other notebooks."""
    for row in rows:
        if row.notebook == notebook:
            return row.materialization
    return rows[0].materialization if rows else None

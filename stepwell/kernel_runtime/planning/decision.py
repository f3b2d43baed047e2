"""The decision about a step: its stored result is reused, the step runs, or it is held back; and the reason for the decision.

`decide` makes all decisions. The engine calls it and carries the decisions out; `states` calls it before anything runs, for ``status``,
``%why`` and the lineage. Both base the decisions on the same facts (`DecisionFacts`): a snapshot of the store, the materializations of the
step's inputs, and checks of recorded reads.

A *stored result* of a step is the tuple of the materializations (one per output) that one run of the step produced. In this module, it is
called `materializations`. A step can reuse a stored result if the result has the step's memo key and all required outputs, if it is younger than
``max_age``, if its recorded reads still hold, and if its effects can be restored. A step is never reused if it is volatile or not memoised
(`PlanStep.memoised`).

The memo key contains the data versions of the inputs, so a step is decided after all steps that come before it in the plan. The texts of
reasons are made only on request, because this takes time (`refusal`, `reason_to_run`).

Order and decision are separate: the engine takes the steps in the order of the plan, and this module decides which of them must run.
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
from stepwell.kernel_runtime.text import age_text, signer_text

Kind: TypeAlias = Literal["pull", "cell pull", "named", "cell", "forced"]
"""How a request includes a step. The kind determines which changes in the notebook make the step run again.

``pull``: a downstream step needs the value of the step. ``cell pull``: the same, and the downstream step is a cell that the user runs.
``named``: the request names the step. ``cell``: the user runs the cell of the step. ``forced``: the step runs even if a stored result could
be reused.
"""
PULLS: frozenset[Kind] = frozenset({"pull", "cell pull"})
"""The kinds of steps that are included only because a downstream step needs them."""
Action: TypeAlias = Literal["reuse", "run", "wait", "skip", "untouched", "unavailable"]
"""What happens to a step.

``reuse``: its stored result is reused. ``run``: the step runs. ``wait``: the decision depends on an upstream step that must run first.
``skip``: the step does not run, because an upstream step did not produce an optional output that the step needs. ``untouched``: the step does
not run, because an upstream step failed, was cancelled or never started. ``unavailable``: the step cannot run, because an input has no
materialization.
"""
Cause: TypeAlias = Literal["", "forced", "lost", "unrestorable", "failed", "cache", "volatile", "unverifiable", "changed"]
"""Why a step runs or, if it waits, why it may run; empty for the other actions.

``forced``: the request runs it even if a stored result could be reused. ``lost``: a stored value of the result cannot be loaded. ``unrestorable``:
the effects of the result cannot be restored. ``failed``: the last attempt with this memo key failed. ``cache``: the step is not memoised.
``volatile``: the definition says that it runs in every run. ``unverifiable``: its code reaches an object without a digest. ``changed``: none
of these.
"""

_SKEW = 1.0
"""The number of seconds by which the clock of another process may be ahead of this process's clock."""


@quick_init
@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one step."""

    action: Action
    cause: Cause = ""
    """Why the step runs or, for a step that waits, why it may run; empty for other actions."""
    memo_key: str = ""
    """The memo key of the step; empty if it is not known yet, and for a step without a code version."""
    inputs: tuple[InputVersion, ...] | None = None
    """The versions of the step's inputs; None if they are not known yet."""
    materializations: tuple[Materialization, ...] = ()
    """The stored result that is reused. For the causes ``lost`` and ``unrestorable``: the stored result that cannot be reused. Otherwise empty."""
    obstacle: str = ""
    """For the causes ``lost`` and ``unrestorable``, why the result in `materializations` cannot be reused; otherwise empty."""


@dataclass(slots=True)
class DecisionFacts:
    """The facts on which the decisions are based, for one run or one request for states.

    Attributes
    ----------
    snapshot
        The records of the store about the steps of the plan.
    read_holds
        Returns True if repeating a recorded read would give the recorded result.
    vouches
        Returns True if the record of a materialization is signed with this user's key. Only then may the effects in the record be used.
    values
        Maps the value key of each value that this run has computed, reused or read from the store to the materialization of the value.
    obstacle
        Returns why the stored value of a materialization cannot be loaded; empty if no reason is known.
    snapshot_time
        The time of the snapshot, in seconds since the epoch. The ages of stored results are measured from this time.
    """

    snapshot: Snapshot
    read_holds: Callable[[Read], bool]
    vouches: Callable[[Materialization], bool]
    values: dict[str, Materialization] = field(default_factory=dict)
    obstacle: Callable[[Materialization], str] = field(default=lambda item: "")  # noqa: ARG005 - by default, no obstacle is known
    snapshot_time: float = field(default_factory=time.time)
    kind: Callable[[str], Kind] = field(default=lambda key: "pull")  # noqa: ARG005 - outside notebooks, all steps have the same kind
    """Takes a step key; returns how the request includes the step. Outside notebooks, the result is always ``pull``."""
    kernel_read_holds: Callable[[Read, str, Materialization, Kind], bool] | None = None
    """Takes a read, the key of a step, the step's materialization in which the read is recorded, and how the request includes the step; returns
    True if the read still holds in this kernel. The function also checks what exists only in the memory of the kernel: random streams, and
    variables that the step read without naming them in its code. None outside notebooks.
    """
    is_last_in_kernel: Callable[[str, Materialization], bool] | None = None
    """Takes a step key and a materialization; returns True if this kernel last brought the step up to date with this materialization. None
    outside notebooks.
    """
    restore_obstacle: Callable[[PlanStep, tuple[Materialization, ...], Kind], str] | None = None
    """Takes a step, a stored result of the step, and how the request includes the step; returns why this kernel cannot restore the effects of the
    result, or an empty string if it can. None outside notebooks.
    """
    made_from: Callable[[PlanStep], Mapping[str, str]] | None = None
    """Takes a step; returns the steps and assets from which variables that the step's code reads were computed, for example by a plain cell. The
    result maps the key of each of these steps and assets to the name of one variable that was computed from it. None outside notebooks.
    """
    settle: Callable[[PlanStep], None] | None = None
    """Takes a step; computes its code version again if earlier steps of the run may have changed objects that the step's code reaches. None
    for a request that runs no steps.
    """
    steps_without_value: dict[str, Literal["wait", "untouched"]] = field(default_factory=dict)
    """Maps the key of each step that has no value to the reason. ``wait``: the step must run first. ``untouched``: the step failed, was cancelled or
    never started.
    """
    _read_results: dict[Read, bool] = field(default_factory=dict)
    """Maps each read that was checked to the result of `read_holds`. Emptied by `forget_checks` and `use_snapshot`."""

    def holds(
        self, read: Read, step: PlanStep | None = None, item: Materialization | None = None, kind: Kind | None = None
    ) -> bool:
        """Return True if repeating a recorded read would give the recorded result.

        The result for a read of a file, the environment or similar state is remembered until `forget_checks` or `use_snapshot` is called.

        Parameters
        ----------
        step, item
            The step, and its materialization that recorded the read. If both are passed, reads of the kernel's own state are checked, too.
        kind
            How the request includes the step; None to call `self.kind` for this.
        """
        if read.kind == "asset":
            # This run may have materialized the asset. If the read names a notebook or store, only the session can find the asset.
            item = None if read.names else self.values.get(read.name)
            return self.read_holds(read) if item is None else (item.data_version or item.id) == read.digest
        local = self.kernel_read_holds if step is not None and item is not None else None
        if read.kind not in LOCAL or local is None:
            holds = self._read_results.get(read)
            if holds is None:
                holds = self._read_results[read] = self.read_holds(read)
            if holds or local is None:
                return holds
        # `local` also checks reads of files, because the step, or a step after it, may have changed the files in this kernel.
        assert step is not None
        assert item is not None
        return local(read, step.key, item, kind or self.kind(step.key))

    def use_snapshot(self, later: Snapshot) -> None:
        """Add the records of a later snapshot to `self.snapshot`, and discard the remembered results of checked reads."""
        self.snapshot.take(later)
        self._read_results.clear()

    def forget_checks(self) -> None:
        """Discard the remembered results of checked reads. This must be called when a step may have changed files or other state."""
        self._read_results.clear()

    def inputs(self, step: PlanStep) -> tuple[InputVersion, ...] | None:
        """Return the versions of a step's inputs; None if an input that carries a value has no materialization.

        An input that collects several values (`fan_in`) consists of those values that have a materialization.
        """
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
        """Return the memo key of a step with these versions of its inputs; empty if the step has no code version."""
        return memo_key(step.address, step.code.digest, inputs) if step.code is not None else ""

    def is_young(self, materializations: tuple[Materialization, ...], max_age: float) -> bool:
        """Return True if a stored result was younger than `max_age` seconds at the time of the snapshot.

        Return False if the time of a materialization is in the future: a clock was wrong, so the age is unknown.

        Parameters
        ----------
        materializations
            The stored result: the materializations that one run of a step produced.
        """
        latest = time.time() + _SKEW
        return all(self.snapshot_time - item.created < max_age and item.created <= latest for item in materializations)

    def is_newest(self, item: Materialization) -> bool:
        """Return True if no materialization of the same key and partition was committed after `item`.

        The order of commits decides; memo keys and recorded times are not compared.
        """
        newest = next((row for row in self.snapshot.current.get(item.key, ()) if row.partition == item.partition), None)
        return newest is None or newest.materialization.id == item.id

    def value_obstacle(self, item: Materialization) -> str:
        """Return why the stored value of a materialization cannot be used; empty if no reason is known, or if no value is stored."""
        value = item.value
        if value is None:
            return ""
        if item.id in self.snapshot.foreign:
            return f"the value is {signer_text(self.snapshot.foreign[item.id])}, and loading it could run any code"
        if value.object_name is not None and value.object_name in self.snapshot.missing_files:
            return "the value file is missing or truncated"
        return self.obstacle(item)


def decide(step: PlanStep, plan: Plan, facts: DecisionFacts, kind: Kind) -> Decision:
    """Return the decision about a step.

    Parameters
    ----------
    facts
        The facts. All steps before `step` must have been decided: `facts.values` must contain their materializations, or
        `facts.steps_without_value` their keys.
    kind
        How the request includes the step.
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
    """Decide whether a step is reused or runs. Call this function only if the inputs of the step are known and no upstream step holds it back.

    Parameters
    ----------
    kind
        How the request includes the step.
    memo
        The memo key of the step; empty if the step has no code version.
    inputs
        The versions of the step's inputs.
    """
    if kind == "forced":
        return Decision("run", "forced", memo, inputs)
    materializations = _reusable(step, memo, facts, kind)
    if materializations is None:
        return Decision("run", _cause(step, memo, facts), memo, inputs)
    # Only the values of target steps must be loadable: downstream memo keys need only the data versions. A lost value of another step is computed
    # again when a step reads it.
    lost = lost_value(materializations, facts) if step.key in plan.target_steps else None
    if lost is not None:
        return Decision("run", "lost", memo, inputs, materializations, f"{lost[0].key}: {lost[1]}")
    obstacle = facts.restore_obstacle(step, materializations, kind) if facts.restore_obstacle is not None else ""
    if obstacle:
        return Decision("run", "unrestorable", memo, inputs, materializations, obstacle)
    return Decision("reuse", "", memo, inputs, materializations)


def lost_value(materializations: tuple[Materialization, ...], facts: DecisionFacts) -> tuple[Materialization, str] | None:
    """Of a stored result's materializations, return the first whose value cannot be used, and a text that says why.

    Return None if the stored values of all materializations can be used.
    """
    for item in materializations:
        why = facts.value_obstacle(item)
        if why:
            return item, why
    return None


def may_be_reused(step: PlanStep, executions: Iterable[tuple[Materialization, ...]], facts: DecisionFacts) -> bool:
    """Return True if the step has a stored result that it could reuse as soon as its inputs are those of that result again.

    Parameters
    ----------
    executions
        The stored results of the step: for each, the materializations that one run of the step produced.
    """
    if step.code is None or not step.memoised or step.op.volatile:
        return False
    kind, digest = facts.kind(step.key), step.code.digest
    return any(
        materializations[0].code_version == digest and _objection(step, materializations, facts, kind) is None
        for materializations in executions
    )


def _blocked_action(step: PlanStep, plan: Plan, facts: DecisionFacts) -> Action | None:
    """Return the action for a step that is held back because of an upstream step; None if no upstream step holds it back.

    ``untouched``: an upstream step failed, was cancelled or never started. ``wait``: the value of an upstream step is not known before that step
    runs. ``skip``: an upstream step has ended without producing an optional output that the step needs.
    """
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
    """Return the cause for which a step runs after no reusable result was found; ``changed`` if no other cause applies.

    Parameters
    ----------
    memo
        The memo key of the step; empty if it is not known yet.
    """
    failure = facts.snapshot.failures.get(step.address)
    if failure is not None and memo and failure.memo_key == memo:
        return "failed"
    if not step.memoised:
        return "cache"
    if step.op.volatile:
        return "volatile"
    return "unverifiable" if step.code is not None and step.code.unverifiable else "changed"


def _reusable(step: PlanStep, memo: str, facts: DecisionFacts, kind: Kind) -> tuple[Materialization, ...] | None:
    """Return the newest reusable result among a step's stored results with the memo key `memo`; None if there is none.

    If several can be reused, the result with which this kernel last brought the step up to date is preferred. A result in
    `Snapshot.foreign` is returned only if no other result can be reused: its value must not be loaded, but the user can be told who signed it.
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
                # Continue: this kernel may have last brought the step up to date with an older result.
                chosen = chosen or materializations
        if _has_acted(materializations):
            # The run that produced this result may have changed the external state that older runs left, so older results must not be reused.
            return chosen
    return chosen or foreign


def is_kept(step: PlanStep, materializations: tuple[Materialization, ...], facts: DecisionFacts, kind: Kind) -> bool:
    """Return True if the user runs a cell that needs this step, and this kernel last brought the step up to date with this stored result.

    If so, the step is reused even if its code reaches an object without a digest. A new run of the step would change the notebook's variables, but
    the cell that the user runs uses them as they are, as in a plain notebook.
    """
    return kind == "cell pull" and facts.is_last_in_kernel is not None and facts.is_last_in_kernel(step.key, materializations[0])


def _objection(
    step: PlanStep, materializations: tuple[Materialization, ...], facts: DecisionFacts, kind: Kind
) -> tuple[str, Any] | None:
    """Return why a stored result with the step's memo key cannot be reused; None if it can be reused.

    The reason is a tuple: a key of `_TEXTS`, and the argument for the function that is stored under this key.

    Parameters
    ----------
    materializations
        The stored result: the materializations that one run of the step produced.
    kind
        How the request includes the step.
    """
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
    if _has_acted(materializations) and not all(facts.is_newest(item) for item in materializations if not item.data_version):
        return "acted", None
    return None


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "no digest": str,
    "had no digest": lambda path: f"{path} had no digest when the value was computed",
    "age": lambda age: f"the value is older than max_age ({age_text(age)})",
    "read": what_changed,
    "lacking": lambda keys: f"{keys_text(keys)} is no longer stored",
    "acted": lambda _: "another version of the step has run since, and may have changed external state",
}
"""Maps a reason why a stored result cannot be reused to a function that returns the text of the reason."""


def refusal(step: PlanStep, memo: str, facts: DecisionFacts) -> str:
    """Return why the newest stored result with the step's memo key cannot be reused, or why no result of the step may be reused.

    The text is empty if there is no such reason.

    Parameters
    ----------
    memo
        The memo key of the step; empty if it is not known.
    """
    if not step.memoised:
        return "cache=False: the step runs in every run"
    if step.op.volatile:
        return "volatile: the step runs in every run"
    if step.code is not None and step.code.unverifiable:
        item = step.code.unverifiable[0]
        return f"{item.path} has no digest ({item.reason})"
    executions = facts.snapshot.by_memo_key.get(memo)
    if not memo or not executions:
        return ""
    if revoked_run(executions[0][0]):
        return "the acceptance of the stored value was revoked"
    objection = _objection(step, executions[0], facts, facts.kind(step.key))
    if objection is not None:
        return _TEXTS[objection[0]](objection[1])
    lost = lost_value(executions[0], facts)
    return lost[1] if lost is not None else ""


def reason_to_run(step: PlanStep, memo: str, inputs: tuple[InputVersion, ...], facts: DecisionFacts) -> str:
    """Return a text that says why a step must run although its code, its config and its stored input values are unchanged.

    The text is empty if there is no such reason.
    """
    return refusal(step, memo, facts) or _recomputed_input(step, inputs, facts)


def _recomputed_input(step: PlanStep, inputs: tuple[InputVersion, ...], facts: DecisionFacts) -> str:
    """Return the text of a reason to run a step: the value of an input is not stored, and was computed again since the last run of the step.

    The text names the first such input; it is empty if there is none.
    """
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
    return f"the value of {changed[0]} is not stored and was computed again" if earlier and changed else ""


def _accepts(item: Materialization, unseen: tuple[Unverifiable, ...]) -> bool:
    """Return True if `item` is an acceptance of exactly the objects without a digest that `unseen` lists."""
    note = acceptance(item)
    return note is not None and note.get("unverifiable") == [f"{each.path}: {each.reason}" for each in unseen]


def _has_acted(materializations: tuple[Materialization, ...]) -> bool:
    """Return True if the run that produced a stored result may have changed external state.

    This is assumed if one of the materializations has no data version: the output has no value (its type is `Nothing`) or could not be stored, so
    the step may have run only for its effects.
    """
    return not all([item.data_version for item in materializations])  # noqa: C419 - a list is quicker for one or two


def _version(name: str, item: Materialization, carries_value: bool) -> InputVersion:
    if carries_value and item.data_version:
        return InputVersion(name, item.key, item.data_version, "value")
    return InputVersion(name, item.key, item.id, "order")


def _lacking(step: PlanStep, materializations: tuple[Materialization, ...]) -> list[str]:
    """Return the keys of the step's required outputs that have no materialization in `materializations`, which is one stored result of the step."""
    if len(step.outputs) == 1 and materializations[0].key == step.outputs[0].key:
        return []
    made = {item.key for item in materializations}
    return [output.key for output in step.outputs if output.required and output.key not in made]


def choose_current(rows: list[Current], notebook: str) -> Materialization | None:
    """Return one of the current materializations of a key: that of `notebook` if there is one, else the newest.

    Parameters
    ----------
    rows
        The current materialization of the key in each notebook, newest first. If empty, the result is None.
    """
    for row in rows:
        if row.notebook == notebook:
            return row.materialization
    return rows[0].materialization if rows else None

"""The decision about a step: whether it is reused, runs, or is held back; and the reason for it.

`decide` is the only place that decides. The engine acts on its answer; status, ``%why`` and the lineage show it before anything runs
(`states`). Both give it the same facts (`Known`): a snapshot of the store, the materializations of the step's inputs, and checks of
what earlier executions had read.

A step can be decided when every step before it is: its memo key contains the data versions of its inputs. It is reused if the store has
an execution under that memo key to which nothing objects: everything that it read is unchanged, it is young enough, its outputs are
there. Reasons are texts and cost time, so they are made on request only (`refusal`, `reason_to_run`).

The scheduler and the rebuilder are separate things: the engine knows the order of the steps, this module knows which of them must run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.reads import what_changed
from stepwell.kernel_runtime.records.bulk import quick
from stepwell.kernel_runtime.records.keys import listed
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
"""How a step is requested; it decides which changes in the notebook count.

``pull``: a step further down needs it. ``cell pull``: the same, and the step further down is a cell that runs. ``named``: the request names it.
``cell``: its own cell runs. ``forced``: it runs whatever is stored.
"""
PULLS: frozenset[Kind] = frozenset({"pull", "cell pull"})
"""The kinds of a step that the request does not name."""
Action: TypeAlias = Literal["reuse", "run", "wait", "skip", "untouched", "unavailable"]
"""``wait``: a step before it is not decided. ``skip``: an optional output that it needs was not produced. ``untouched``: a step before it
failed. ``unavailable``: an input has no materialization.
"""
Cause: TypeAlias = Literal[
    "", "forced", "lost", "unrestorable", "failed", "cache", "volatile", "unverifiable", "changed"
]

_SKEW = 1.0
"""Seconds by which another process's clock may be ahead."""


@quick
@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one step."""

    action: Action
    cause: Cause = ""
    """Of a step that runs, or waits and may run."""
    memo_key: str = ""
    """Empty where it is not known yet."""
    inputs: tuple[InputVersion, ...] | None = None
    """None where they are not known yet."""
    group: tuple[Materialization, ...] = ()
    """The execution that is reused; for the causes ``lost`` and ``unrestorable``, the execution that would have been."""
    obstacle: str = ""
    """For these two causes, why the step must run although nothing that it depends on has changed."""


@dataclass(slots=True)
class Known:
    """The facts from which steps are decided, in one run or in one request for states.

    Attributes
    ----------
    vouches
        Returns True if a trusted key signed a whole record: its effects are not read before.
    values
        For each value key its materialization in this run: made, reused, or read from the store.
    obstacle
        Returns why a stored value cannot be loaded; empty if no reason is known.
    now
        When the snapshot was taken, in seconds since the epoch: ages are measured from it.
    """

    snapshot: Snapshot
    read_holds: Callable[[Read], bool]
    vouches: Callable[[Materialization], bool]
    values: dict[str, Materialization] = field(default_factory=dict)
    obstacle: Callable[[Materialization], str] = field(default=lambda item: "")  # noqa: ARG005 - where all that is stored can be loaded
    now: float = field(default_factory=time.time)
    kind: Callable[[str], Kind] = field(default=lambda key: "pull")  # noqa: ARG005 - outside notebooks all steps count alike
    """Returns how a step is requested."""
    local: Callable[[Read, str, Materialization, Kind], bool] | None = None
    """Returns True if a read from the kernel itself holds: variables that texts name, random streams; None outside notebooks."""
    brought: Callable[[str, Materialization], bool] | None = None
    """Returns True for the last materialization of a step in this kernel; None outside notebooks."""
    unrestorable: Callable[[PlanStep, tuple[Materialization, ...], Kind], str] | None = None
    """Returns why the effects of a cell's execution cannot be restored in this kernel, empty if they can; None outside notebooks."""
    made_from: Callable[[PlanStep], Mapping[str, str]] | None = None
    """Returns the variables made from assets in plain cells that a step reads, by the key of the step or asset."""
    settle: Callable[[PlanStep], None] | None = None
    """Computes the code version of a step again if earlier steps may have changed objects that its code reaches."""
    valueless: dict[str, Literal["wait", "untouched"]] = field(default_factory=dict)
    """Steps without a value: not decided yet, failed, cancelled or never started."""
    _checked: dict[Read, bool] = field(default_factory=dict)

    def holds(
        self, read: Read, step: PlanStep | None = None, item: Materialization | None = None, kind: Kind | None = None
    ) -> bool:
        """Return True if a recorded read still holds. Files, environment and the like are checked once per run."""
        if read.kind == "asset":
            # This run may materialize the asset. If a notebook or store was named, only the session can find it.
            item = None if read.names else self.values.get(read.name)
            return self.read_holds(read) if item is None else (item.data_version or item.id) == read.digest
        local = self.local if step is not None and item is not None else None
        if read.kind not in LOCAL or local is None:
            holds = self._checked.get(read)
            if holds is None:
                holds = self._checked[read] = self.read_holds(read)
            if holds or local is None:
                return holds
        # Files and the like, too: the step itself, or a later one, may have changed them in this kernel.
        assert step is not None
        assert item is not None
        return local(read, step.key, item, kind or self.kind(step.key))

    def look_again(self, later: Snapshot) -> None:
        """Take a later snapshot of some steps and keys, and check recorded reads again."""
        self.snapshot.take(later)
        self._checked.clear()

    def forget_checks(self) -> None:
        """Check recorded reads again: effects of a step have changed the world."""
        self._checked.clear()

    def inputs(self, step: PlanStep) -> tuple[InputVersion, ...] | None:
        """Return the versions of a step's inputs, or None if one has no materialization."""
        values = self.values
        versions = []
        for given in step.inputs:
            if given.fan_in:
                members = [values[key] for key in given.keys if key in values]
                versions += [_version(f"{given.name}[]", item, given.carries_value) for item in members]
            else:
                for key in given.keys:
                    item = values.get(key)
                    if item is None:
                        if not given.carries_value:
                            continue
                        return None
                    versions.append(_version(given.name, item, given.carries_value))
        return tuple(versions)

    def key(self, step: PlanStep, inputs: Iterable[InputVersion]) -> str:
        """Return the memo key of a step; empty for one that is not memoised."""
        return memo_key(step.address, step.code.digest, inputs) if step.code is not None else ""

    def is_young(self, group: tuple[Materialization, ...], max_age: float) -> bool:
        """Return True if an execution is younger than an age in seconds, as of the start of the run.

        One from the future was made before a clock was set back: its age cannot be known.
        """
        latest = time.time() + _SKEW
        return all(self.now - item.created < max_age and item.created <= latest for item in group)

    def is_newest(self, item: Materialization) -> bool:
        """Return True if no later materialization of the key is known, under any memo key. The order of commits counts, not a clock."""
        newest = next((row for row in self.snapshot.current.get(item.key, ()) if row.partition == item.partition), None)
        return newest is None or newest.materialization.id == item.id

    def lost(self, item: Materialization) -> str:
        """Return why the value of a materialization cannot be used; empty if no reason is known."""
        value = item.value
        if value is None:
            return ""
        if item.id in self.snapshot.foreign:
            return f"signed with another key ({self.snapshot.foreign[item.id]}): loading it could run any code"
        if value.object_name is not None and value.object_name in self.snapshot.missing_files:
            return "its file is gone from the store, or cut short"
        return self.obstacle(item)


def decide(step: PlanStep, plan: Plan, known: Known, kind: Kind) -> Decision:
    """Return the decision about a step for a kind of request.

    The steps before it must have been decided: their materializations are in ``known.values``, or they are in ``known.valueless``.
    """
    held = _held_back(step, plan, known)
    if held is not None:
        return Decision(held, _cause(step, "", known) if held == "wait" else "")
    if known.settle is not None:
        known.settle(step)
    inputs = known.inputs(step)
    if inputs is None:
        return Decision("unavailable")
    return decide_keyed(step, plan, known, kind, memo=known.key(step, inputs), inputs=inputs)


def decide_keyed(
    step: PlanStep, plan: Plan, known: Known, kind: Kind, *, memo: str, inputs: tuple[InputVersion, ...]
) -> Decision:
    """Return the decision about a step whose memo key is known and which nothing holds back: it is reused or runs."""
    if kind == "forced":
        return Decision("run", "forced", memo, inputs)
    group = _reusable(step, memo, known, kind)
    if group is None:
        return Decision("run", _cause(step, memo, known), memo, inputs)
    # For other steps the data version is enough; their value is computed again when a step needs it.
    lost = lost_value(group, known) if step.key in plan.target_steps else None
    if lost is not None:
        return Decision("run", "lost", memo, inputs, group, f"{lost[0].key}: {lost[1]}")
    obstacle = known.unrestorable(step, group, kind) if known.unrestorable is not None else ""
    if obstacle:
        return Decision("run", "unrestorable", memo, inputs, group, obstacle)
    return Decision("reuse", "", memo, inputs, group)


def lost_value(group: tuple[Materialization, ...], known: Known) -> tuple[Materialization, str] | None:
    """Return the first materialization of an execution whose value cannot be used, and the reason; None if there is none."""
    for item in group:
        why = known.lost(item)
        if why:
            return item, why
    return None


def may_be_reused(step: PlanStep, groups: Iterable[tuple[Materialization, ...]], known: Known) -> bool:
    """Return True if one of a step's executions could be reused if only the step's inputs became those that it had."""
    if step.code is None or not step.memoised or step.op.volatile:
        return False
    kind, digest = known.kind(step.key), step.code.digest
    return any(group[0].code_version == digest and _objection(step, group, known, kind) is None for group in groups)


def _held_back(step: PlanStep, plan: Plan, known: Known) -> Action | None:
    """Return the action for a step that can neither be reused nor run: an upstream step has no value, or an optional output was not produced."""
    values, producers, valueless = known.values, plan.producers, known.valueless
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


def _cause(step: PlanStep, memo: str, known: Known) -> Cause:
    """Return why no execution is reused under a memo key, as far as that is known without comparing anything."""
    failure = known.snapshot.failures.get(step.address)
    if failure is not None and memo and failure.memo_key == memo:
        return "failed"
    if not step.memoised:
        return "cache"
    if step.op.volatile:
        return "volatile"
    return "unverifiable" if step.code is not None and step.code.unverifiable else "changed"


def _reusable(step: PlanStep, memo: str, known: Known, kind: Kind) -> tuple[Materialization, ...] | None:
    """Return the newest execution under a memo key that can be reused, or None.

    An execution that another user's key signed is chosen last: its value counts as missing.
    """
    if not step.memoised or step.op.volatile or not memo:
        return None
    groups = known.snapshot.by_memo_key.get(memo)
    if not groups:
        return None
    revoked: set[str] = set()
    foreign: tuple[Materialization, ...] | None = None
    chosen: tuple[Materialization, ...] | None = None
    brought = known.brought if len(groups) > 1 else None
    for group in groups:
        taken_back = revoked_run(group[0])
        if taken_back:
            revoked.add(taken_back)
        if taken_back or group[0].run_id in revoked:
            continue
        if chosen is not None and brought is not None and not brought(step.key, group[0]):
            continue
        if _objection(step, group, known, kind) is None:
            if known.snapshot.foreign and any(item.id in known.snapshot.foreign for item in group):
                foreign = foreign or group
            elif brought is None or brought(step.key, group[0]):
                return group
            else:
                # An older one may have given what this kernel's notebook has now.
                chosen = chosen or group
        if _has_acted(group):
            # It changed external state: the effects of older executions are overwritten, so only the newest counts.
            return chosen
    return chosen or foreign


def is_kept(step: PlanStep, group: tuple[Materialization, ...], known: Known, kind: Kind) -> bool:
    """Return True if a running cell needs a step that gave this execution in this kernel.

    As in a plain notebook, it then does not run again because something cannot be compared.
    """
    return kind == "cell pull" and known.brought is not None and known.brought(step.key, group[0])


def _objection(step: PlanStep, group: tuple[Materialization, ...], known: Known, kind: Kind) -> tuple[str, Any] | None:
    """Return why an execution with the step's memo key cannot be reused, for `_TEXTS`; None if it can."""
    first = group[0]
    if not is_kept(step, group, known, kind):
        unseen = step.code.unverifiable if step.code is not None else ()
        if unseen and not _accepts(first, unseen):
            return "no digest", f"{unseen[0].path} has no digest ({unseen[0].reason})"
        for item in group:
            if item.unverifiable:
                return "had no digest", item.unverifiable[0]
    max_age = step.op.max_age
    if max_age is not None and not known.is_young(group, max_age):
        return "age", max_age
    for read in first.reads:
        if not known.holds(read, step, first, kind):
            return "read", read
    lacking = _lacking(step, group)
    if lacking:
        return "lacking", lacking
    if _has_acted(group) and not all(known.is_newest(item) for item in group if not item.data_version):
        return "acted", None
    return None


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "no digest": str,
    "had no digest": lambda path: f"{path} had no digest",
    "age": lambda age: f"older than max_age ({age_text(age)})",
    "read": what_changed,
    "lacking": lambda keys: f"{listed(keys)} is no longer stored",
    "acted": lambda _: "another version of it has acted since",
}


def refusal(step: PlanStep, memo: str, known: Known) -> str:
    """Return why no execution of a step is reused although one may have its memo key; empty if none has."""
    if not step.memoised:
        return "cache=False: it runs in every run"
    if step.op.volatile:
        return "volatile: it runs in every run"
    if step.code is not None and step.code.unverifiable:
        item = step.code.unverifiable[0]
        return f"{item.path} has no digest ({item.reason})"
    groups = known.snapshot.by_memo_key.get(memo)
    if not memo or not groups:
        return ""
    if revoked_run(groups[0][0]):
        return "what was accepted for it was revoked"
    objection = _objection(step, groups[0], known, known.kind(step.key))
    if objection is not None:
        return _TEXTS[objection[0]](objection[1])
    lost = lost_value(groups[0], known)
    return lost[1] if lost is not None else ""


def reason_to_run(step: PlanStep, memo: str, inputs: tuple[InputVersion, ...], known: Known) -> str:
    """Return why a step runs although nothing that its memo key contains was changed; empty if something was."""
    return refusal(step, memo, known) or _computed_again(step, inputs, known)


def _computed_again(step: PlanStep, inputs: tuple[InputVersion, ...], known: Known) -> str:
    """Return which input without a stored value was computed again since the step ran last; empty if none was."""
    parameters = {version.name for version in step.inputs if version.carries_value}
    unstored = [
        version
        for version in inputs
        if version.name in parameters and version.key in known.values and known.values[version.key].value is None
    ]
    if not unstored:
        return ""
    earlier = known.snapshot.current.get(step.outputs[0].key, ())
    before = {(version.name, version.version) for row in earlier[:1] for version in row.materialization.inputs}
    changed = [version.key for version in unstored if (version.name, version.version) not in before]
    return f"{changed[0]} is not stored and was computed again" if earlier and changed else ""


def _accepts(item: Materialization, unseen: tuple[Unverifiable, ...]) -> bool:
    """Return True if a materialization was accepted although exactly this could not be digested."""
    note = acceptance(item)
    return note is not None and note.get("unverifiable") == [f"{each.path}: {each.reason}" for each in unseen]


def _has_acted(group: tuple[Materialization, ...]) -> bool:
    """Return True if an execution changed external state: one of its materializations has no value to compare."""
    return not all([item.data_version for item in group])  # noqa: C419 - a list is quicker for one or two


def _version(name: str, item: Materialization, carries_value: bool) -> InputVersion:
    if carries_value and item.data_version:
        return InputVersion(name, item.key, item.data_version, "value")
    return InputVersion(name, item.key, item.id, "order")


def _lacking(step: PlanStep, group: tuple[Materialization, ...]) -> list[str]:
    """Return the keys of the required outputs that an execution does not have."""
    if len(step.outputs) == 1 and group[0].key == step.outputs[0].key:
        return []
    made = {item.key for item in group}
    return [output.key for output in step.outputs if output.required and output.key not in made]


def choose_current(rows: list[Current], notebook: str) -> Materialization | None:
    """Return the current materialization of a key for a notebook: its own if it has one, else the newest of other notebooks."""
    for row in rows:
        if row.notebook == notebook:
            return row.materialization
    return rows[0].materialization if rows else None

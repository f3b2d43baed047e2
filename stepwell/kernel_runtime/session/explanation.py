"""Why a step is in its state, and why it ran last: the smallest true causes, with the path that leads to each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.planning.build import step_extra
from stepwell.kernel_runtime.planning.decision import Known, refusal
from stepwell.kernel_runtime.planning.picture import describe
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.planning.states import Reason, StepState
from stepwell.kernel_runtime.reads import what_changed
from stepwell.kernel_runtime.records.keys import listed
from stepwell.kernel_runtime.records.materializations import (
    PYTHON,
    CodeVersion,
    InputVersion,
    Materialization,
    Unverifiable,
    renaming,
)
from stepwell.kernel_runtime.text import moment, printable
from stepwell.kernel_runtime.versions.code_differences import Change, explain
from stepwell.kernel_runtime.versions.code_differences import describe as describe_change
from stepwell.kernel_runtime.versions.encode import ATOMS
from stepwell.kernel_runtime.versions.graph import ARROW, MISSING
from stepwell.kernel_runtime.versions.left_out import name_in, scope_of, value_at
from stepwell.kernel_runtime.versions.renaming import under_new_name
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, slots=True)
class LastRun:
    """Why a step ran the last time that it ran."""

    run_id: str
    started: float
    """Seconds since the epoch."""
    status: str
    """``executed``, ``failed`` or ``cancelled``."""
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "run_id": self.run_id,
            "started": self.started,
            "status": self.status,
            "reasons": [reason.as_dict() for reason in self.reasons],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``%why`` says of a key."""

    key: str
    steps: tuple[StepState, ...]
    """The states of its steps; one for an asset computed by one op, none for what is only read from the store."""
    last_runs: Mapping[str, LastRun] = field(default_factory=dict)
    """By step key, the last run that did not reuse it."""
    stored: Materialization | None = None
    """What is stored for a key that nothing here defines."""

    @property
    def state(self) -> str:
        """The state of the key: the first of its steps that is not fresh, else fresh; ``stored`` for what nothing here defines."""
        if not self.steps:
            return "stored"
        return next((step.state for step in self.steps if step.state != "fresh"), "fresh")

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values: key, state, reasons with kind, path, detail and origins, and these for each step."""
        steps = [
            {
                "key": step.key,
                "state": step.state,
                "reasons": [reason.as_dict() for reason in step.reasons],
                "materialization": step.current[-1].id if step.current else None,
                "computed": step.current[-1].created if step.current else None,
                "seconds": step.current[-1].seconds if step.current else None,
                "last_run": self.last_runs[step.key].as_dict() if step.key in self.last_runs else None,
            }
            for step in self.steps
        ]
        found: dict[str, Any] = {
            "key": self.key,
            "state": self.state,
            "reasons": [reason.as_dict() for step in self.steps for reason in step.reasons],
            "steps": steps,
        }
        if self.stored is not None:
            found["materialization"] = self.stored.id
            found["last_run"] = next((run.as_dict() for run in self.last_runs.values()), None)
        return found

    def __str__(self) -> str:
        lines: list[str] = []
        if self.stored is not None:
            maker = f"stored by {self.stored.notebook or 'no notebook'}, not defined here"
            if not self.stored.memo_key:
                maker = "a step of a job, which runs whenever its job does"
            lines.append(f"{self.key}: {maker}{_facts(self.stored)}")
            for last in self.last_runs.values():
                lines += _last_lines(last)
        for step in self.steps:
            facts = _facts(step.current[-1]) if step.current and step.state == "fresh" else ""
            origins = [origin for reason in step.reasons for origin in reason.origins]
            if len(origins) == 1:
                facts += f", because {headline(origins[0])}"
            lines.append(f"{step.key}: {step.state}{facts}")
            for reason in step.reasons:
                lines += _reason_lines(reason, told=len(origins) == 1)
            run = self.last_runs.get(step.key)
            first = run is not None and all(reason.kind == "missing" for reason in run.reasons)
            # Of other states the reasons say what there is to say of the last run.
            if run is not None and (step.state == "fresh" or (step.state in ("stale", "may change") and not first)):
                lines += _last_lines(run)
        return printable("\n".join(lines))


def headline(reason: Reason) -> str:
    """Return a cause in one phrase: ``LIMIT 3 -> 4 in cell 5, three steps up: clean -> rep.f -> rep.g``."""
    text = reason.text.replace(": ", " ", 1) if reason.kind == "global" and ARROW in reason.text else reason.text
    place = f" in {reason.place}" if reason.place else ""
    count = len(reason.chain)
    if not count:
        return text + place
    steps = f"{_NUMBERS[count] if count < len(_NUMBERS) else count} step{'' if count == 1 else 's'} up"
    return f"{text}{place}, {steps}: {ARROW.join(reason.chain)}"


def _facts(shown: Materialization) -> str:
    return f" · {describe(shown)} · {moment(shown.created)} · {shown.seconds:.1f} s"


def _reason_lines(reason: Reason, *, told: bool = False) -> list[str]:
    """Return the lines of one reason.

    Parameters
    ----------
    told
        Whether the only origin was named above.
    """
    around = [part for part in (reason.path if reason.path not in reason.text else "", reason.place) if part]
    lines = [f"  {reason.text}" + (f"  ({', '.join(around)})" if around else "")]
    lines += [f"    {line}" for line in reason.detail.splitlines()]
    for origin in reason.origins:
        if not told:
            lines.append(f"    because {headline(origin)}")
        lines += [f"    {line}" for line in origin.detail.splitlines()]
    return lines


def _last_lines(run: LastRun) -> list[str]:
    """Return the lines about a step's last run, the first with its time."""
    causes = [origin for reason in run.reasons for origin in reason.origins or (reason,)]
    began = f"  last run {moment(run.started)}" + ("" if run.status == "executed" else f": {run.status}")
    if len(causes) == 1:
        return [f"{began}, because {headline(causes[0])}", *[f"    {line}" for line in causes[0].detail.splitlines()]]
    lines = [f"{began}, because"]
    for cause in causes:
        lines += [f"    {headline(cause)}", *[f"      {line}" for line in cause.detail.splitlines()]]
    return lines


class Explainer:
    """Compares what is stored for a step with what is there now."""

    def __init__(
        self,
        store: ValueStore,
        known: Known,
        walk: CodeWalk,
        code_parts: Callable[[PlanStep], CodeVersion | None],
    ) -> None:
        self.store = store
        self.known = known
        self.walk = walk
        self.code_parts = code_parts
        self._codes: dict[str, CodeVersion] = {}
        self._asked: set[str] = set()

    def __call__(
        self, step: PlanStep, stored: tuple[Materialization, ...], inputs: tuple[InputVersion, ...] | None
    ) -> tuple[Reason, ...]:
        """Return why what is stored cannot be reused; empty if no cause is in the step itself, its inputs or reads."""
        old = stored[0]
        if old.step_key != step.address and renaming(old) is None:
            return (Reason(f"it is computed by {step.address} now, no longer by {old.step_key}", kind="step"),)
        reasons: list[Reason] = []
        if step.code is not None and old.code_version != step.code.digest:
            reasons += self._code(step, old)
        if inputs is not None:
            reasons += input_reasons(old.inputs, inputs)
        reasons += [
            Reason(what_changed(read), kind=read.kind) for read in old.reads if not self.known.holds(read, step, old)
        ]
        if not reasons and inputs is not None and old.code_version == (step.code.digest if step.code else ""):
            if not old.memo_key:
                return (Reason("its last run failed after it had produced this value", kind="failure"),)
            lacking = [output.key for output in step.outputs if output.required]
            lacking = [key for key in lacking if key not in {item.key for item in stored}]
            if lacking:
                return (Reason(f"{listed(lacking)} is no longer stored", kind="missing"),)
            if old.unverifiable:
                return (Reason(f"it reached what has no digest: {old.unverifiable[0]}", kind="unverifiable"),)
            if old.memo_key == self.known.key(step, inputs) and (why := refusal(step, old.memo_key, self.known)):
                return (Reason(why, kind="refused"),)
            return (Reason(f"it was computed by another Python than {PYTHON}, or under another key", kind="python"),)
        return tuple(reasons)

    def unverifiable(self, step: PlanStep) -> tuple[Reason, ...]:
        """Return what cannot be digested, through which path, and how to leave out that object only."""
        found = step.code.unverifiable if step.code is not None else ()
        return tuple(Reason(item.reason, item.path, self._way_out(step, item), "unverifiable") for item in found)

    def _recorded(self, version: str) -> CodeVersion | None:
        """Return the parts of a recorded code version; the first call reads those of all steps that changed in one query."""
        if version not in self._asked:
            asked = {version, *self._changed()} - self._asked
            self._asked |= asked
            self._codes.update(self.store.codes(asked))
        return self._codes.get(version)

    def _changed(self) -> set[str]:
        """Return the code versions of what is current that are no step's now."""
        snapshot = self.known.snapshot
        current = {row.materialization.code_version for rows in snapshot.current.values() for row in rows}
        return current - {group[0].code_version for groups in snapshot.by_memo_key.values() for group in groups}

    def _code(self, step: PlanStep, old: Materialization) -> list[Reason]:
        before = self._recorded(old.code_version)
        now = self.code_parts(step)
        note = renaming(old)
        if note is not None and before is not None and now is not None:
            before = under_new_name(
                before, now, str(note.get("from", "")).rpartition("/")[2], step.key.rpartition("/")[2]
            )
        return code_reasons(before, now, step.key, lambda change: self._remedy(step, change))

    # -- remedies: each was tried before it is printed

    def _way_out(self, step: PlanStep, item: Unverifiable) -> str:
        name = self._ignorable(step, item.path, lambda ignore: item not in self._unverifiable_without(step, ignore))
        ways = [*_flags(step, name), *_opaque(step, item.path)]
        if ways:
            return f"to leave out that object only: {', or '.join(ways)}"
        return f"to keep what is stored all the same: %why {step.key} --accept"

    def _remedy(self, step: PlanStep, change: Change) -> str:
        """Return how a changed secret can be kept from counting; empty for anything else."""
        if not change.secret or change.what != "changed":
            return ""
        name = self._ignorable(step, change.path, lambda ignore: change.path not in self._paths_without(step, ignore))
        ways = _flags(step, name)
        value = value_at(step.op.body, name) if name else MISSING
        if value is MISSING or isinstance(value, str):
            ways.append(f"read it with stepwell.secret({_environment_name(value)})")
        else:
            ways += _opaque(step, change.path)
        return f"its value is not shown; to let it not count: {', or '.join(ways)}"

    def _ignorable(self, step: PlanStep, path: str, works: Callable[[tuple[str, ...]], bool]) -> str:
        """Return the name for ``--ignore`` that leaves out the least of what a path leads to; empty if none does."""
        last = path.rpartition(ARROW)[2]
        if ARROW not in path or "(" in last:
            return ""
        parts = name_in(last).split(".")
        names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        scope = scope_of(step.op.body, path)
        module = scope.get("__name__") if scope is not None else None
        for name in (*names, *(f"{module}.{name}" for name in names)):
            value = value_at(step.op.body, name)
            if isinstance(value, FunctionType | ModuleType | type) and name_in(last) != name:
                continue
            if all(part.isidentifier() for part in name.split(".")) and works((*step.op.ignore, name)):
                return name
        return ""

    def _unverifiable_without(self, step: PlanStep, ignore: tuple[str, ...]) -> tuple[Unverifiable, ...]:
        return self.walk.of(step.op.body, path=step.key, extra=step_extra(step), ignore=ignore).unverifiable

    def _paths_without(self, step: PlanStep, ignore: tuple[str, ...]) -> set[str]:
        parts = self.walk.parts(step.op.body, path=step.key, extra=step_extra(step), ignore=ignore)
        return {part.path for part in parts}


def _flags(step: PlanStep, name: str) -> list[str]:
    if not name:
        return []
    in_cell = isinstance(step.op.body, CellBody | SqlBody)
    return [f"--ignore {name}" + ("" if in_cell else f" (of a decorator: ignore=[{name!r}])")]


def _opaque(step: PlanStep, path: str) -> list[str]:
    """Return a call of `stepwell.opaque` for what a path leads to, if its own cell or module can write it down."""
    last = path.rpartition(ARROW)[2]
    root = value_at(step.op.body, name_in(last).split(".")[0])
    if (
        ARROW not in path
        or "(" in last
        or root is MISSING
        or scope_of(step.op.body, path) is not scope_of(step.op.body, "")
    ):
        return []
    value = value_at(step.op.body, last)
    if value is not MISSING and (type(value) in ATOMS or type(value) in {tuple, frozenset, range}):
        return []
    return [f'stepwell.opaque({last}, version="1")']


def _environment_name(value: object) -> str:
    return next((repr(name) for name, text in os.environ.items() if text and text == value), "...")


def code_reasons(
    before: CodeVersion | None,
    now: CodeVersion | None,
    key: str,
    remedy: Callable[[Change], str] = lambda change: "",  # noqa: ARG005 - of what is past nothing can be left out
) -> list[Reason]:
    """Return why two code versions of a step differ."""
    if before is None or now is None or not before.parts or not now.parts:
        return [Reason("its code changed", kind="body")]
    reasons = []
    for change in explain(before, now, key):
        text = describe_change(change)
        place = change.where if change.where and change.where not in text else ""
        reasons.append(Reason(text, change.path, change.diff or remedy(change), change.kind, place=place))
    return reasons or [Reason("its code changed", kind="body")]


def input_reasons(old: tuple[InputVersion, ...], new: tuple[InputVersion, ...]) -> list[Reason]:
    """Return how the inputs of a step differ from those of an earlier run of it."""
    before = {(item.name, item.key, item.kind): item.version for item in old}
    now = {(item.name, item.key, item.kind): item.version for item in new}
    found = []
    for (name, key, kind), version in now.items():
        reason = Reason("", key, kind="input" if kind == "value" else "order")
        if (name, key, kind) not in before:
            text = f"{key} is a new input" if kind == "value" else f"it now comes after {key}"
            found.append(replace(reason, text=text))
        elif before[name, key, kind] != version:
            text = f"the value of {key} changed" if kind == "value" else f"{key} was computed again"
            found.append(replace(reason, text=text, versions=(before[name, key, kind], version)))
    found += [
        Reason(f"{key} is no input any more", key, kind="input" if kind == "value" else "order")
        for (name, key, kind) in before
        if (name, key, kind) not in now
    ]
    return found

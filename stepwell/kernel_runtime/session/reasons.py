"""The causes of a state: the stored results of a step, compared with its present code, inputs and reads.

A cause names the smallest changed part, with the path that leads to it. A remedy is tried on the code before it is suggested.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.planning.build import step_extra
from stepwell.kernel_runtime.planning.decision import Known, refusal
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.planning.states import Reason
from stepwell.kernel_runtime.reads import what_changed
from stepwell.kernel_runtime.records.keys import listed
from stepwell.kernel_runtime.records.materializations import (
    PYTHON,
    CodeVersion,
    InputVersion,
    Materialization,
    Unverifiable,
)
from stepwell.kernel_runtime.versions.code_differences import Change, describe, explain
from stepwell.kernel_runtime.versions.encode import ATOMS
from stepwell.kernel_runtime.versions.graph import ARROW, MISSING
from stepwell.kernel_runtime.versions.left_out import name_in, scope_of, value_at
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


class Explainer:
    """Comparison of the stored results of a step with its present code, inputs and reads."""

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
        """Return why the stored results cannot be reused; empty if the step itself, its inputs and reads have no cause."""
        old = stored[0]
        if old.step_key != step.address:
            return (Reason(f"it is now computed by {step.address}, no longer by {old.step_key}", kind="step"),)
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
                return (Reason(f"it used an object without a digest: {old.unverifiable[0]}", kind="unverifiable"),)
            if old.memo_key == self.known.key(step, inputs) and (why := refusal(step, old.memo_key, self.known)):
                return (Reason(why, kind="refused"),)
            return (Reason(f"it was computed by another Python than {PYTHON}, or under another key", kind="python"),)
        return tuple(reasons)

    def unverifiable(self, step: PlanStep) -> tuple[Reason, ...]:
        """Return the objects that cannot be digested, with their paths and ways to exclude only these objects."""
        items = step.code.unverifiable if step.code is not None else ()
        return tuple(Reason(item.reason, item.path, self._way_out(step, item), "unverifiable") for item in items)

    def _recorded(self, version: str) -> CodeVersion | None:
        """Return the parts of a recorded code version; the first call reads those of all changed steps in one query."""
        if version not in self._asked:
            wanted = {version, *self._changed()} - self._asked
            self._asked |= wanted
            self._codes.update(self.store.codes(wanted))
        return self._codes.get(version)

    def _changed(self) -> set[str]:
        """Return the code versions of current materializations that no step of the plan has."""
        snapshot = self.known.snapshot
        current = {row.materialization.code_version for rows in snapshot.current.values() for row in rows}
        return current - {group[0].code_version for groups in snapshot.by_memo_key.values() for group in groups}

    def _code(self, step: PlanStep, old: Materialization) -> list[Reason]:
        before = self._recorded(old.code_version)
        now = self.code_parts(step)
        return code_reasons(before, now, step.key, lambda change: self._remedy(step, change))

    # -- remedies: each is tried before it is suggested

    def _way_out(self, step: PlanStep, item: Unverifiable) -> str:
        name = self._ignorable(step, item.path, lambda ignore: item not in self._unverifiable_without(step, ignore))
        ways = [*_flags(step, name), *_opaque(step, item.path)]
        if ways:
            return f"to exclude only that object: {', or '.join(ways)}"
        return f"to keep the stored value: %why {step.key} --accept"

    def _remedy(self, step: PlanStep, change: Change) -> str:
        """Return how to exclude a changed secret from the code version; empty for other changes."""
        if not change.secret or change.what != "changed":
            return ""
        name = self._ignorable(step, change.path, lambda ignore: change.path not in self._paths_without(step, ignore))
        ways = _flags(step, name)
        value = value_at(step.op.body, name) if name else MISSING
        if value is MISSING or isinstance(value, str):
            ways.append(f"read it with stepwell.secret({_environment_name(value)})")
        else:
            ways += _opaque(step, change.path)
        return f"its value is not shown; to exclude it: {', or '.join(ways)}"

    def _ignorable(self, step: PlanStep, path: str, works: Callable[[tuple[str, ...]], bool]) -> str:
        """Return the most specific name for ``--ignore`` that excludes the end of a path; empty if none does."""
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
    """Return a call of `stepwell.opaque` for the object at the end of a path, if the step's own cell or module names it."""
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
    remedy: Callable[[Change], str] = lambda change: "",  # noqa: ARG005 - past runs have no remedy
) -> list[Reason]:
    """Return why two code versions of a step differ."""
    if before is None or now is None or not before.parts or not now.parts:
        return [Reason("its code changed", kind="body")]
    reasons = []
    for change in explain(before, now, key):
        text = describe(change)
        place = change.where if change.where and change.where not in text else ""
        reasons.append(Reason(text, change.path, change.diff or remedy(change), change.kind, place=place))
    return reasons or [Reason("its code changed", kind="body")]


def input_reasons(old: tuple[InputVersion, ...], new: tuple[InputVersion, ...]) -> list[Reason]:
    """Return how the inputs of a step differ from those of an earlier run of it."""
    before = {(item.name, item.key, item.kind): item.version for item in old}
    now = {(item.name, item.key, item.kind): item.version for item in new}
    reasons = []
    for (name, key, kind), version in now.items():
        reason = Reason("", key, kind="input" if kind == "value" else "order")
        if (name, key, kind) not in before:
            text = f"{key} is a new input" if kind == "value" else f"it now comes after {key}"
            reasons.append(replace(reason, text=text))
        elif before[name, key, kind] != version:
            text = f"the value of {key} changed" if kind == "value" else f"{key} was computed again"
            reasons.append(replace(reason, text=text, versions=(before[name, key, kind], version)))
    reasons += [
        Reason(f"{key} is no longer an input", key, kind="input" if kind == "value" else "order")
        for (name, key, kind) in before
        if (name, key, kind) not in now
    ]
    return reasons

"""Why a step is in its state: the smallest true causes, with the path that leads to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.planning.memo import Known
from stepwell.kernel_runtime.planning.picture import describe
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.planning.states import Reason, StepState
from stepwell.kernel_runtime.records.code import CodeVersion
from stepwell.kernel_runtime.records.materializations import InputVersion, Materialization
from stepwell.kernel_runtime.records.memo import PYTHON
from stepwell.kernel_runtime.records.protocols import ValueStore
from stepwell.kernel_runtime.records.renaming import renaming
from stepwell.kernel_runtime.versions.explain import Change, explain
from stepwell.kernel_runtime.versions.explain import describe as describe_change
from stepwell.kernel_runtime.versions.reads import what_changed
from stepwell.kernel_runtime.versions.renaming import under_new_name
from stepwell.kernel_runtime.versions.secrets import looks_secret


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``%why`` says of a key."""

    key: str
    steps: tuple[StepState, ...]
    """The states of its steps; one for an asset computed by one op."""

    @property
    def state(self) -> str:
        """The state of the key: the first of its steps that is not fresh, else fresh."""
        return next((step.state for step in self.steps if step.state != "fresh"), "fresh")

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values: key, state, reasons with kind, path and detail, and these for each step."""
        steps = [
            {
                "key": step.key,
                "state": step.state,
                "reasons": [
                    {"kind": reason.kind, "text": reason.text, "path": reason.path, "detail": reason.detail}
                    for reason in step.reasons
                ],
                "materialization": step.current[-1].id if step.current else None,
                "computed": step.current[-1].created if step.current else None,
                "seconds": step.current[-1].seconds if step.current else None,
            }
            for step in self.steps
        ]
        return {
            "key": self.key,
            "state": self.state,
            "reasons": [reason for step in steps for reason in step["reasons"]],  # type: ignore[union-attr]
            "steps": steps,
        }

    def __str__(self) -> str:
        lines: list[str] = []
        for step in self.steps:
            shown = step.current[-1] if step.current else None
            facts = (
                f" · {describe(shown)} · {when(shown.created)} · {shown.seconds:.1f} s"
                if shown is not None and step.state == "fresh"
                else ""
            )
            lines.append(f"{step.key}: {step.state}{facts}")
            for reason in step.reasons:
                path = f"  ({reason.path})" if reason.path and reason.path not in reason.text else ""
                lines.append(f"  {reason.text}{path}")
                lines.extend(f"    {line}" for line in reason.detail.splitlines())
        return "\n".join(lines)


def when(seconds: float) -> str:
    """Return a time of the clock as ``2026-11-22 14:03``."""
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


class Explainer:
    """Compares what is stored for a step with what is there now."""

    def __init__(self, store: ValueStore, known: Known, code_parts: Callable[[PlanStep], CodeVersion | None]) -> None:
        self.store = store
        self.known = known
        self.code_parts = code_parts
        self._codes: dict[str, CodeVersion] = {}
        self._asked: set[str] = set()

    def __call__(
        self, step: PlanStep, stored: tuple[Materialization, ...], inputs: tuple[InputVersion, ...] | None
    ) -> tuple[Reason, ...]:
        """Return why what is stored cannot be reused; empty if no cause is in the step itself, its inputs or reads."""
        old = stored[0]
        reasons: list[Reason] = []
        if step.code is not None and old.code_version != step.code.digest:
            reasons += self._code(step, old)
        if inputs is not None:
            reasons += _inputs(old.inputs, inputs)
        reasons += [Reason(what_changed(read), kind=read.kind) for read in old.reads if not self.known.holds(read)]
        if not reasons and inputs is not None and old.code_version == (step.code.digest if step.code else ""):
            if not old.memo_key:
                return (Reason("its last run failed after it had produced this value", kind="failure"),)
            if old.unverifiable:
                return (Reason(f"it reached what has no digest: {old.unverifiable[0]}", kind="unverifiable"),)
            return (Reason(f"it was computed by another Python than {PYTHON}, or under another key", kind="python"),)
        return tuple(reasons)

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
        if before is None or now is None:
            return [Reason("its code changed", kind="body")]
        note = renaming(old)
        if note is not None:
            before = under_new_name(
                before, now, str(note.get("from", "")).rpartition("/")[2], step.key.rpartition("/")[2]
            )
        changes = explain(before, now)
        return [
            Reason(describe_change(change), change.path, change.diff or _remedy(change), change.kind)
            for change in changes
        ] or [Reason("its code changed", kind="body")]


def _remedy(change: Change) -> str:
    """Return how a changed secret can be kept from counting; empty for anything else."""
    name = change.path.rpartition(" -> ")[2]
    if change.kind != "global" or change.what != "changed" or not looks_secret(name):
        return ""
    return f"its value is not shown; to let it not count: --ignore {name}, or read it with stepwell.secret(...)"


_INPUT = {"value": "input", "order": "order"}


def _inputs(old: tuple[InputVersion, ...], new: tuple[InputVersion, ...]) -> list[Reason]:
    before = {(item.name, item.key, item.kind): item.version for item in old}
    now = {(item.name, item.key, item.kind): item.version for item in new}
    found = []
    for (name, key, kind), version in now.items():
        if (name, key, kind) not in before:
            found.append(
                Reason(
                    f"{key} is a new input" if kind == "value" else f"it now comes after {key}", key, kind=_INPUT[kind]
                )
            )
        elif before[name, key, kind] != version:
            found.append(
                Reason(
                    f"the value of {key} changed" if kind == "value" else f"{key} was computed again",
                    key,
                    kind=_INPUT[kind],
                )
            )
    found += [
        Reason(f"{key} is no input any more", key, kind=_INPUT[kind])
        for (name, key, kind) in before
        if (name, key, kind) not in now
    ]
    return found

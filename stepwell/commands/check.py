"""``check``: whether anything would be computed, and why, without running a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.planning.states import StepState
from stepwell.kernel_runtime.session.requests import AnyStore, Given, Targets
from stepwell.kernel_runtime.text import duration, in_one_line

OUTDATED = 1
_SURE = ("failed", "missing", "unverifiable", "stale")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of `check`: the states of all steps, in an order in which they could run."""

    states: tuple[StepState, ...]

    @property
    def outdated(self) -> tuple[StepState, ...]:
        """The steps that would run, or may."""
        return tuple(state for state in self.states if state.must_run or state.state == "may change")

    @property
    def exit_code(self) -> int:
        """0 if everything would be reused, else 1."""
        return OUTDATED if self.outdated else 0

    def as_dict(self) -> dict[str, Any]:
        """Return ``{"fresh", "steps": [{"key", "state", "seconds", "reasons"}]}``."""
        steps = [
            {
                "key": each.key,
                "state": each.state,
                "seconds": each.seconds,
                "reasons": [reason.as_dict() for reason in each.reasons],
            }
            for each in self.states
        ]
        return {"fresh": not self.outdated, "steps": steps}

    def __str__(self) -> str:
        if not self.states:
            return "nothing is defined"
        lines = []
        for each in self.outdated:
            why = next((reason.text for reason in each.reasons if reason.text), "")
            last = f"last {duration(each.seconds)}" if each.seconds else ""
            lines.append(in_one_line(f"{each.key}: {' · '.join(filter(None, [each.state, why, last]))}"))
        sure = sum(each.state in _SURE for each in self.outdated)
        seconds = sum(each.seconds or 0.0 for each in self.outdated)
        fresh = len(self.states) - len(self.outdated)
        if not lines:
            return f"fresh: {fresh} step{'' if fresh == 1 else 's'}, nothing would be computed"
        counts = [f"{sure} would be computed"] if sure else []
        counts += [f"{len(lines) - sure} may be computed"] if len(lines) > sure else []
        took = f", last {duration(seconds)}" if seconds else ""
        return "\n".join([*lines, f"{', '.join(counts)}, {fresh} fresh{took}"])


@command(
    options={"targets": Option(completes="assets")}, definitions="notebooks", exit_code=lambda found: found.exit_code
)
def check(targets: Targets = None, *, definitions: Given = None, store: AnyStore = None) -> Check:
    """Tell whether anything would be computed, and why, without running a step.

    Effects of reused steps are not applied: a step that depends on one may change.

    Parameters
    ----------
    targets
        Assets and selections; by default everything that is defined.
    definitions
        Definitions, or a module of them, that are looked up before those that are registered.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError, CycleError, MissingUpstreamError
        If the targets cannot be planned.
    """
    return Check(tuple(get_session().states(targets or None, definitions=definitions, store=store).values()))

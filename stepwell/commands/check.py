"""``check``: which steps would be computed, and why, without running them."""

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
    """The result of `check`: the states of all steps in execution order."""

    states: tuple[StepState, ...]

    @property
    def outdated(self) -> tuple[StepState, ...]:
        """The steps that would or may run."""
        return tuple(state for state in self.states if state.must_run or state.state == "may change")

    @property
    def exit_code(self) -> int:
        """0 if everything would be reused, else 1."""
        return OUTDATED if self.outdated else 0

    def as_dict(self) -> dict[str, Any]:
        """Return ``{"fresh", "steps": [{"key", "state", "seconds", "reasons"}]}``."""
        steps = [
            {
                "key": state.key,
                "state": state.state,
                "seconds": state.seconds,
                "reasons": [reason.as_dict() for reason in state.reasons],
            }
            for state in self.states
        ]
        return {"fresh": not self.outdated, "steps": steps}

    def __str__(self) -> str:
        if not self.states:
            return "nothing is defined"
        lines = []
        for state in self.outdated:
            why = next((reason.text for reason in state.reasons if reason.text), "")
            last = f"last {duration(state.seconds)}" if state.seconds else ""
            lines.append(in_one_line(f"{state.key}: {' · '.join(filter(None, [state.state, why, last]))}"))
        sure = sum(state.state in _SURE for state in self.outdated)
        seconds = sum(state.seconds or 0.0 for state in self.outdated)
        fresh = len(self.states) - len(self.outdated)
        if not lines:
            return f"fresh: {fresh} step{'' if fresh == 1 else 's'}, nothing would be computed"
        counts = [f"{sure} would be computed"] if sure else []
        counts += [f"{len(lines) - sure} may be computed"] if len(lines) > sure else []
        took = f", last {duration(seconds)}" if seconds else ""
        return "\n".join([*lines, f"{', '.join(counts)}, {fresh} fresh{took}"])


@command(
    options={"targets": Option(completes="assets")}, definitions="notebooks", exit_code=lambda result: result.exit_code
)
def check(targets: Targets = None, *, definitions: Given = None, store: AnyStore = None) -> Check:
    """Check whether anything would be computed, and why, without running a step.

    Effects of reused steps are not applied; steps that depend on such an effect are reported as *may change*.

    Parameters
    ----------
    targets
        Assets and selections; by default everything that is defined.
    definitions
        Definitions, or a module of definitions, that take precedence over registered ones.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError, CycleError, MissingUpstreamError
        If the targets cannot be planned.
    """
    return Check(tuple(get_session().states(targets or None, definitions=definitions, store=store).values()))

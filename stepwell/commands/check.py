"""The command ``check``, which predicts which steps a run would execute, and why. It runs no step."""

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
    """The result of `check`."""

    states: tuple[StepState, ...]
    """The states of all checked steps, in the order in which a run would reach them."""

    @property
    def outdated(self) -> tuple[StepState, ...]:
        """The states of the steps that a run would execute or may have to execute."""
        return tuple(state for state in self.states if state.must_run or state.state == "may change")

    @property
    def exit_code(self) -> int:
        """The exit code of ``stepwell check``: 0 if a run would reuse every step, else 1."""
        return OUTDATED if self.outdated else 0

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values: ``{"fresh", "steps": [{"key", "state", "seconds", "reasons"}]}``."""
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
        took = f"; last duration {duration(seconds)}" if seconds else ""
        return "\n".join([*lines, f"steps: {', '.join(counts)}, {fresh} fresh{took}"])


@command(options={"targets": Option(completes="assets")}, definitions="notebooks", exit_code=lambda result: result.exit_code)
def check(targets: Targets = None, *, definitions: Given = None, store: AnyStore = None) -> Check:
    """Show which steps a run would execute, and why, without running any step.

    Upstream steps are checked, too. A run would restore the effects of the steps that it reuses, such as changed variables and files, but a check
    does not. A step that reads such an effect can therefore be reported as *may change*.

    Parameters
    ----------
    targets
        Assets, and selections such as +report, raw*, group:daily; by default all defined assets.
    definitions
        Definitions to use in addition to the registered ones, or a module that contains them; by default none. They take precedence over registered
        definitions with the same keys.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Check
        The states of the steps. ``str`` returns a line for each step that is not fresh, and a line with the totals.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError, CycleError, MissingUpstreamError
        If no plan can be made for the targets.
    """
    return Check(tuple(get_session().states(targets or None, definitions=definitions, store=store).values()))

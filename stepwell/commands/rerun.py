"""``rerun``: single steps run again on stored inputs."""

from __future__ import annotations

from stepwell.commands.command import Option, command
from stepwell.commands.materialize import run_data, steps_text
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.session.requests import AnyStore, Given, Targets


@command(
    options={"steps": Option(completes="steps")},
    definitions="required",
    text=steps_text,
    data=run_data,
)
def rerun(
    steps: Targets, *, definitions: Given = None, store: AnyStore = None, raise_on_error: bool = True
) -> RunResult:
    """Run single steps again on the stored outputs of the others, even where these are stale.

    Parameters
    ----------
    steps
        Steps such as report.transform; or assets, for all of their steps.
    definitions
        Definitions, or a module of them, that are looked up before those that are registered.
    store
        A store directory or an open store; by default the session's.
    raise_on_error
        Whether an exception of a step is raised after the run is recorded.

    Raises
    ------
    UnknownKeyError, DefinitionUnavailableError
        If there is no such step, or its code is not here.
    """
    return get_session().rerun(steps, definitions=definitions, store=store, raise_on_error=raise_on_error)

"""``rerun``: runs of single steps on stored inputs."""

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
    """Run single steps again on the stored outputs of other steps, even stale ones.

    Parameters
    ----------
    steps
        Steps such as report.transform, or assets for all of their steps.
    definitions
        Definitions, or a module of definitions, that take precedence over registered ones.
    store
        A store directory or an open store; by default the session's.
    raise_on_error
        Raise an exception of a step after the run is recorded; otherwise the result has the errors.

    Returns
    -------
    RunResult
        The run, the records of its steps, and its notices.

    Raises
    ------
    UnknownKeyError
        If a step does not exist.
    DefinitionUnavailableError
        If the code of a step is not defined in this process.
    """
    return get_session().rerun(steps, definitions=definitions, store=store, raise_on_error=raise_on_error)

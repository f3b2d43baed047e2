"""The command ``rerun``, which runs single steps again on stored inputs."""

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
def rerun(steps: Targets, *, definitions: Given = None, store: AnyStore = None, raise_on_error: bool = True) -> RunResult:
    """Run single steps again; their inputs are the stored outputs of the other steps, even if these are stale.

    Parameters
    ----------
    steps
        Keys of steps, such as report.transform, or assets. For an asset, all its steps run.
    definitions
        Definitions to use in addition to the registered ones, or a module that contains them; by default none. They take precedence over registered
        definitions with the same keys.
    store
        A store directory or an open store; by default the session's store.
    raise_on_error
        Raise the exception of a failed step after the run has ended. If False, the exception is only stored in the result.

    Returns
    -------
    RunResult
        The run, the records of its steps, and its notices.

    Raises
    ------
    UnknownKeyError
        If one of the keys belongs to no step or asset.
    DefinitionUnavailableError
        If a step is recorded in the store but not defined in this process.
    MissingUpstreamError, ValueNotKeptError
        If an input of a step has no stored value.
    """
    return get_session().rerun(steps, definitions=definitions, store=store, raise_on_error=raise_on_error)

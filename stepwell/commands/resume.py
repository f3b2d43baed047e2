"""The command ``resume``, which runs the rest of a failed run."""

from __future__ import annotations

from stepwell.commands.command import command
from stepwell.commands.materialize import run_data, steps_text
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.session.requests import AnyStore, Given


@command(
    definitions="required",
    text=steps_text,
    data=run_data,
)
def resume(run: str, *, definitions: Given = None, store: AnyStore = None, raise_on_error: bool = True) -> RunResult:
    """Resume a failed run: run the steps that failed, were cancelled or never started, and use the stored outputs of the other steps.

    Parameters
    ----------
    run
        The identifier of the run, as the command stepwell runs prints it.
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
        The new run, the records of its steps, and its notices.

    Raises
    ------
    UnknownKeyError
        If no run in the store has the identifier.
    InvariantViolationError
        If the run succeeded, so that there is nothing to resume.
    DefinitionUnavailableError
        If a step is not defined in this process.
    ValueNotKeptError
        If a step of a job needs an output that could not be stored.
    """
    if not isinstance(run, str):
        raise InvalidInvocationError(
            f"resume takes the identifier of a run, which is a string, but got {type(run).__name__}",
            remedy="pass the identifier: stepwell.resume(stepwell.last_run().run_id)",
        )
    return get_session().resume(run, definitions=definitions, store=store, raise_on_error=raise_on_error)

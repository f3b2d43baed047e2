"""``resume``: the rest of a run that failed."""

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
    """Resume a failed run: run the steps that failed or never started, and load the outputs of the others.

    Parameters
    ----------
    run
        The run's identifier.
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
        If the run does not exist.
    InvariantViolationError
        If the run succeeded.
    DefinitionUnavailableError
        If the code of a step is not defined in this process.
    ValueNotKeptError
        If a value that a step needs could not be stored.
    """
    if not isinstance(run, str):
        raise InvalidInvocationError(
            f"a run is given by its identifier, a string, not by a {type(run).__name__}",
            remedy="for example: stepwell.resume(stepwell.last_run().run_id)",
        )
    return get_session().resume(run, definitions=definitions, store=store, raise_on_error=raise_on_error)

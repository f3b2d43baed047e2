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
    """Run exactly the steps of a run that failed or never started; outputs of the others are loaded.

    Parameters
    ----------
    run
        The run's identifier.
    definitions
        Definitions, or a module of them, that are looked up before those that are registered.
    store
        A store directory or an open store; by default the session's.
    raise_on_error
        Whether an exception of a step is raised after the run is recorded.

    Raises
    ------
    UnknownKeyError, InvariantViolationError, DefinitionUnavailableError, ValueNotKeptError
        If there is no such run, it succeeded, its code is not here, or a value that it needs was not kept.
    """
    if not isinstance(run, str):
        raise InvalidInvocationError(
            f"a run is named by its identifier, not by a {type(run).__name__}",
            remedy="for example: stepwell.resume(stepwell.last_run().run_id)",
        )
    return get_session().resume(run, definitions=definitions, store=store, raise_on_error=raise_on_error)

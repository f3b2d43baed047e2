"""The command ``materialize``, which brings assets up to date. Further functions return the result of a run as JSON values and as text."""

from __future__ import annotations

from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session, notice_text, result_lines, step_lines
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.session.requests import AnyStore, Given, Targets


def run_data(result: RunResult) -> dict[str, Any]:
    """Return the result of a run as JSON values: ``{"run_id", "status", "steps": [{"key", "status", "seconds"}], "notices"}``."""
    steps = [{"key": step.key, "status": step.status, "seconds": step.seconds} for step in result.steps]
    return {
        "run_id": result.run.run_id,
        "status": result.status,
        "steps": steps,
        "notices": [{"kind": notice.kind, "key": notice.key, **dict(notice.facts)} for notice in result.notices],
    }


def steps_text(result: RunResult) -> str:
    """Return the report that `rerun` and `resume` print: the notices of the run, then a line for each step."""
    return "\n".join([*map(notice_text, result.notices), *step_lines(result)])


@command(
    options={"targets": Option(completes="assets"), "force": Option("-f")},
    definitions="required",
    text=lambda result: "\n".join([*map(notice_text, result.notices), *result_lines(result)]),
    data=run_data,
)
def materialize(
    targets: Targets = None,
    *,
    store: AnyStore = None,
    definitions: Given = None,
    force: bool = False,
    upstream: bool = True,
    raise_on_error: bool = True,
) -> RunResult:
    """Bring assets and everything upstream of them up to date: execute the steps that cannot be reused.

    In a notebook, ``%materialize`` also binds the variables of the targets and of the asset cells upstream of them.

    Parameters
    ----------
    targets
        Assets, and selections such as +report, raw*, group:daily; by default all defined assets.
    store
        A store directory or an open store; by default the session's store. The session's store is the directory that the environment variable
        STEPWELL_STORE names. If the variable is not set, the session's store is ``.stepwell`` in the project's folder (in IPython) or a temporary
        store (in other Python processes).
    definitions
        Definitions to use in addition to the registered ones, or a module that contains them; by default none. They take precedence over registered
        definitions with the same keys.
    force
        Execute the steps of the targets even if they could be reused.
    upstream
        Bring upstream assets up to date, too. If False (--no-upstream), their stored values are used, and notices name the stale ones.
    raise_on_error
        Raise the exception of a failed step after the run has ended; a note on the exception names the run. If False, the exception is only
        stored in the result.

    Returns
    -------
    RunResult
        The run, the records of its steps, and its notices.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError, DuplicateKeyError, CycleError, MissingUpstreamError
        If no plan can be made for the targets; no step has run.
    """
    return get_session().materialize(
        targets or None,
        definitions=definitions,
        store=store,
        force=force,
        upstream=upstream,
        raise_on_error=raise_on_error,
    )

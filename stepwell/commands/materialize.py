"""``materialize``: runs that bring assets up to date."""

from __future__ import annotations

from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session, notice_text, result_lines, step_lines
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.session.requests import AnyStore, Given, Targets


def run_data(result: RunResult) -> dict[str, Any]:
    """Return the result of a run as JSON values."""
    steps = [{"key": step.key, "status": step.status, "seconds": step.seconds} for step in result.steps]
    return {
        "run_id": result.run.run_id,
        "status": result.status,
        "steps": steps,
        "notices": [{"kind": notice.kind, "key": notice.key, **dict(notice.facts)} for notice in result.notices],
    }


def steps_text(result: RunResult) -> str:
    """Return the report of a run of single steps: its notices, and a line for each step."""
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
    """Bring assets and their upstream up to date; only stale steps run.

    Parameters
    ----------
    targets
        Assets, and selections such as +report, raw*, group:daily; by default all defined assets.
    store
        A store directory or an open store; by default the session's: ``.stepwell`` of the project in IPython, a temporary
        one in a plain process.
    definitions
        More definitions, or a module of definitions, in which upstream assets are looked up before the registry.
    force
        Run the targets even if they could be reused.
    upstream
        Bring upstream assets up to date, too; otherwise their stored values are read, and notices name the stale ones.
    raise_on_error
        Raise an exception of a step after the run is recorded: the original exception, with a note that names the run. Otherwise the result has
        the errors.

    Returns
    -------
    RunResult
        The run, the records of its steps, and its notices.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError, DuplicateKeyError, CycleError, MissingUpstreamError
        If the targets cannot be planned; nothing has run then.
    """
    return get_session().materialize(
        targets or None,
        definitions=definitions,
        store=store,
        force=force,
        upstream=upstream,
        raise_on_error=raise_on_error,
    )

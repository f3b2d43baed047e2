"""``materialize``: assets brought up to date."""

from __future__ import annotations

from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session, notice_text, result_lines, step_lines
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.session.requests import AnyStore, Given, Targets


def run_data(result: RunResult) -> dict[str, Any]:
    """Return a run as JSON values."""
    steps = [{"key": step.key, "status": step.status, "seconds": step.seconds} for step in result.steps]
    return {
        "run_id": result.run.run_id,
        "status": result.status,
        "steps": steps,
        "notices": [{"kind": each.kind, "key": each.key, **dict(each.facts)} for each in result.notices],
    }


def steps_text(result: RunResult) -> str:
    """Return what a run of single steps did: its notices, and a line for each step."""
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
    """Bring assets up to date, with every upstream that they need; only stale steps run.

    Parameters
    ----------
    targets
        Assets, and selections such as +report, raw*, group:daily; by default everything that is defined.
    store
        A store directory or an open store; by default the session's: ``.stepwell`` of the project in IPython, a temporary
        one in a plain process.
    definitions
        More definitions, or a module of them, in which upstreams are looked up before the registry.
    force
        Run the targets even if they could be reused.
    upstream
        Whether upstream assets are brought up to date, too. If not, they are read as they are stored, and notices name stale ones.
    raise_on_error
        Whether an exception of a step is raised after the run is recorded: the user's own exception, with a note that names
        the run. Else the result says what failed.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError, DuplicateKeyError, CycleError, MissingUpstreamError
        Before anything runs.
    """
    return get_session().materialize(
        targets or None,
        definitions=definitions,
        store=store,
        force=force,
        upstream=upstream,
        raise_on_error=raise_on_error,
    )

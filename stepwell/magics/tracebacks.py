"""How an exception of the user's code is shown: its own traceback, without frames of the engine, under its asset and cell."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Any

from stepwell.kernel_runtime.errors import StepwellError
from stepwell.kernel_runtime.execution.failures import user_traceback
from stepwell.magics.face import Face


def present(face: Face, error: BaseException, *, shown_as: str = "") -> None:
    """Make IPython show an exception without our frames.

    IPython asks an exception for ``_render_traceback_``. The traceback is rendered now, since frames of ours are added again
    while the exception travels on; rendering also tells ``%debug`` where to begin: in the user's innermost frame.

    Parameters
    ----------
    shown_as
        Which step failed, in words; stands above the traceback.
    """
    if isinstance(error, StepwellError) or hasattr(error, "_render_traceback_"):
        return
    trace = _below_the_shell(user_traceback(error.__traceback__))
    try:
        lines = face.shell.InteractiveTB.structured_traceback(type(error), error, trace, tb_offset=0)
    except Exception:  # IPython falls back to its own rendering of the whole traceback
        return
    if shown_as:
        lines = [shown_as, *lines]
    # An exception class with slots takes no attribute: it is shown with all frames.
    with suppress(AttributeError, TypeError):
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]


def _below_the_shell(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames of IPython that led to the magic."""
    found = trace
    while found is not None and _is_shells(found):
        found = found.tb_next
    return user_traceback(found) if found is not trace and found is not None else (found or trace)


def _is_shells(trace: TracebackType) -> bool:
    name = trace.tb_frame.f_globals.get("__name__", "")
    return isinstance(name, str) and name.split(".")[0] in ("IPython", "ipykernel")


def failed_step(face: Face, result: Any) -> str:
    """Return which step of a run failed and where it is defined: ``raw failed (cell 4)``."""
    for step in getattr(result, "steps", ()) or ():
        if step.status in ("failed", "cancelled"):
            entry = face.session.registry.assets.get(step.key.split(".")[0]) or face.session.registry.jobs.get(
                step.key.split(".")[0]
            )
            where = getattr(entry.definition, "where", "") if entry is not None else ""
            verb = "failed" if step.status == "failed" else "was cancelled"
            return f"{step.key} {verb}" + (f" ({where})" if where else "")
    return ""

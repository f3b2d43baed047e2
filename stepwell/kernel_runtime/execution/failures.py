"""Exceptions of users' code, without our frames."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from stepwell.kernel_runtime.definitions.signatures import place
from stepwell.kernel_runtime.errors import UserObjectError
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.records.runs import ErrorRecord
from stepwell.kernel_runtime.store.values.structure import name_parts
from stepwell.kernel_runtime.versions.secrets import hidden_message

_TRACEBACK = BaseException.__dict__["__traceback__"].__get__
_PACKAGE = str(Path(__file__).resolve().parents[2])


def user_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from its first frame that is not ours; the whole one if all are."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        found = found.tb_next
    return found or trace


def is_interrupt(error: BaseException | None) -> bool:
    """Return whether an exception is a KeyboardInterrupt, whatever it says that it is."""
    return issubclass(type(error), KeyboardInterrupt)


def user_object_error(step: PlanStep, doing: str, error: BaseException) -> UserObjectError:
    """Return the error of a step with an object that raised while something was done with it."""
    return UserObjectError(
        f"step {step.key!r} failed: {doing} raised {name_parts(type(error))[1]}",
        where="\n".join(part for part in (step.where, _text(error)) if part),
        remedy="mend the special methods of its class (__repr__, __eq__, __reduce__, ...), or return plain data",
    )


def _text(error: BaseException) -> str:
    """Return the message of an exception; its class may raise anything when it is asked for it."""
    try:
        found = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "<its message cannot be read>"
    # A lone surrogate has no UTF-8, which is what the catalog keeps.
    return found[:10_000].encode("utf-8", "backslashreplace").decode()


def error_record(error: BaseException, look: Callable[[Callable[[], ErrorRecord]], ErrorRecord]) -> ErrorRecord:
    """Return what can be kept of an exception.

    Parameters
    ----------
    look
        Calls what looks at it, so that an interrupt ends what takes for ever.
    """
    try:
        return look(lambda: _record(error))
    except BaseException:
        # It shows itself by raising, or it was interrupted.
        name = name_parts(type(error))[1].encode("utf-8", "backslashreplace").decode()
        return ErrorRecord(name, "<its message cannot be read>", "", "")


def _record(error: BaseException) -> ErrorRecord:
    trace = user_traceback(_TRACEBACK(error))
    where = ""
    walk = trace
    while walk is not None:
        code = walk.tb_frame.f_code
        if not code.co_filename.startswith(_PACKAGE) and "site-packages" not in code.co_filename:
            where = place(code.co_filename, walk.tb_lineno)
        walk = walk.tb_next
    message = _text(error)
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))[:100_000]
    except KeyboardInterrupt:
        raise
    except BaseException:
        lines = ""
    lines = lines.encode("utf-8", "backslashreplace").decode()
    name = name_parts(type(error))[1].encode("utf-8", "backslashreplace").decode()
    return ErrorRecord(name, hidden_message(message), hidden_message(lines), where)

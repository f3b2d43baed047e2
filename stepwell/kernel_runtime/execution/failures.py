"""Exceptions of users' code, without our frames."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from stepwell.kernel_runtime.definitions.places import place
from stepwell.kernel_runtime.records.runs import ErrorRecord
from stepwell.kernel_runtime.versions.secrets import hidden_message

_PACKAGE = str(Path(__file__).resolve().parents[2])


def user_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from its first frame that is not ours; the whole one if all are."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        found = found.tb_next
    return found or trace


def error_record(error: BaseException) -> ErrorRecord:
    """Return what can be kept of an exception."""
    trace = user_traceback(error.__traceback__)
    where = ""
    walk = trace
    while walk is not None:
        code = walk.tb_frame.f_code
        if not code.co_filename.startswith(_PACKAGE) and "site-packages" not in code.co_filename:
            where = place(code.co_filename, walk.tb_lineno)
        walk = walk.tb_next
    try:
        message = str(error)
    except Exception:
        message = "<its message cannot be read>"
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except Exception:
        lines = ""
    return ErrorRecord(type(error).__name__, hidden_message(message[:10_000]), hidden_message(lines[:100_000]), where)

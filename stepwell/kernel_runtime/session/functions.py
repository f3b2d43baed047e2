"""Public functions that are no commands: `open_store` and `last_run`."""

from __future__ import annotations

import os

from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.records.protocols import ValueStore
from stepwell.kernel_runtime.session.kernel import get_session


def open_store(directory: str | os.PathLike[str]) -> ValueStore:
    """Open a store directory: the one with ``catalog.duckdb``; made if it is not there.

    Raises
    ------
    StoreError
        If it cannot be written, was written by a newer Stepwell, or is damaged.
    """
    return get_session().open(directory)


def last_run() -> RunResult | None:
    """Return the result of this process's newest run, also of one that failed; None before the first."""
    return get_session().last_run

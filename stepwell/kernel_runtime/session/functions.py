"""The public function `last_run`, and the session as definitions reach it: `job.execute()`, `asset.load()`, and the parser of SQL assets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.kernel_runtime.definitions.registry import Definition
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.session.kernel import Session, get_session
from stepwell.kernel_runtime.session.sql import read_select


def last_run() -> RunResult | None:
    """Return the result of this process's newest run, also of one that failed; None before the first."""
    return get_session().last_run


class SessionRunner:
    """The session's face towards definitions (`definitions.graphs.Runner`).

    Parameters
    ----------
    session
        Returns the session; called when a definition needs more than the parser.
    """

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run a job and return its result."""
        return self._session().execute_job(job, store=store, raise_on_error=raise_on_error)

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of a key."""
        return self._session().load(key, store=store)

    def register(self, definition: Definition) -> None:
        """Take note of a definition made in ``__main__``."""
        self._session().registry.register(definition)

    read_select = staticmethod(read_select)

"""The public function `last_run`, and the session as definitions reach it: `job.execute()` and `asset.load()`."""

from __future__ import annotations

from typing import Any

from stepwell.kernel_runtime.definitions.registry import Definition
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.session.kernel import get_session


def last_run() -> RunResult | None:
    """Return the result of this process's newest run, also of one that failed; None before the first."""
    return get_session().last_run


class SessionRunner:
    """The session's face towards definitions (`definitions.runner.Runner`)."""

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run a job and return its result."""
        return get_session().execute_job(job, store=store, raise_on_error=raise_on_error)

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of a key."""
        return get_session().load(key, store=store)

    def register(self, definition: Definition) -> None:
        """Take note of a definition made in ``__main__``."""
        get_session().registry.register(definition)

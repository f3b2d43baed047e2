"""The one upward reference: what can execute a definition or load a value, filled in by the session.

``job.execute()`` and ``asset.load()`` are methods of definitions, which know no session. The package fills `load_runner`
when it is imported, with a function that imports the session at first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stepwell.kernel_runtime.errors import InvariantViolationError


class Runner(Protocol):
    """What a definition asks of the session."""

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run a job and return its result."""

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of a key."""

    def register(self, definition: Any) -> None:
        """Take note of a definition made in ``__main__``."""


_loader: Callable[[], Runner] | None = None


def load_runner(loader: Callable[[], Runner]) -> None:
    """Say how the session is reached."""
    global _loader  # noqa: PLW0603 - one session per process
    _loader = loader


def runner() -> Runner:
    """Return the session's face towards definitions."""
    if _loader is None:
        raise InvariantViolationError("nothing can execute definitions here", remedy="import stepwell first")
    return _loader()

"""What other threads hand to the catalog thread: rows, gathered in groups, and questions; and how they wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.locks import Once

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Committing(Protocol):
    """What a group asks of its catalog."""

    mutex: threading.RLock

    def hurry(self) -> None:
        """Commit what is pending without gathering more."""


class Commit:
    """Rows that are committed together: all of them or none."""

    def __init__(self, catalog: Committing) -> None:
        self._catalog = catalog
        self._over = Once()
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[BaseException | None], None]] = []
        self.records: list[Any] = []
        self.since = monotonic()

    @property
    def over(self) -> bool:
        """Whether it was committed, or failed to be."""
        return self._over.over

    def wait(self) -> None:
        """Block until the group is committed; raise the `StoreError` that kept it from being committed."""
        if not self._over.over:
            self._catalog.hurry()
            self._over.wait()
        if self._error is not None:
            raise self._error

    def then(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call ``callback`` on the catalog thread after the commit, with the error if it failed; at once if over."""
        with self._catalog.mutex:
            if not self._over.over:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def disown(self, error: BaseException) -> None:
        """Let nobody wait for it in a forked child; the callbacks are the parent's."""
        self._error = error
        self._over.happen()

    def finish(self, error: BaseException | None) -> None:
        """Tell everybody; called by the catalog thread."""
        with self._catalog.mutex:
            self._error = error
            self._over.happen()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(error)
            except Exception:
                _log.exception("a callback after a commit failed")


class Question(Generic[T]):
    """Something that needs the attached catalog, asked from another thread."""

    def __init__(self, answer: Callable[[Connection, str], T], *, create: bool = True) -> None:
        self._answer = answer
        self.create = create
        self._over = Once()
        self._result: T | None = None
        self.error: BaseException | None = None

    def run(self, connection: Connection, name: str) -> None:
        """Ask the attached catalog, on the catalog thread; what is raised is kept for who waits."""
        self.error = None
        try:
            self._result = self._answer(connection, name)
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        """Let who waits go on."""
        self._over.happen()

    def fail(self, error: BaseException) -> None:
        """Let who waits go on with an error."""
        self.error = error
        self._over.happen()

    def wait(self) -> T:
        """Block until it was answered; return the answer, or raise what kept it from being given."""
        self._over.wait()
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # set together with the event

"""Who gets Ctrl-C during a run: inside the user's code it raises, inside the engine it sets a flag.

An interrupt while the engine keeps its records must not tear them; an interrupt while user code runs must end that code at
once. The handler is the main thread's own, so the flag and the code that it guards never run at the same time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class InterruptGuard:
    """Owns SIGINT for the duration of a run; a run on another thread than the main one leaves it alone.

    Attributes
    ----------
    interrupted
        Whether an interrupt came, of either kind, or `cancel` was called.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.cancelled = False
        """Whether `cancel` was called, and no Ctrl-C came."""
        self._in_user_code = False
        self._impatient = False
        self._previous: Any = None
        self._owns = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            if self._previous is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._handle)
                self._owns = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._owns:
            signal.signal(signal.SIGINT, self._previous if self._previous is not None else signal.default_int_handler)
            self._owns = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        again, self.interrupted = self.interrupted, True
        self.cancelled = False
        if self._in_user_code or (again and self._impatient):
            self._in_user_code = self._impatient = False
            raise KeyboardInterrupt

    def cancel(self) -> None:
        """Stop the run before its next step; the running one is not touched."""
        self.cancelled = not self.interrupted
        self.interrupted = True

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Wait for what is recorded: once interrupted, a second interrupt raises KeyboardInterrupt.

        The catalog may be another process's for long, if that was stopped. What is recorded is committed all the same when it is free.
        """
        self._impatient = True
        try:
            yield
        finally:
            self._impatient = False

    def look(self, function: Callable[[], T]) -> T:
        """Call what looks at the user's objects, which may take for ever; an interrupt meanwhile raises KeyboardInterrupt in it."""
        outer, self._in_user_code = self._in_user_code, True
        try:
            return function()
        finally:
            self._in_user_code = outer

    def call(self, function: Callable[[], Any]) -> Any:
        """Call user code, or wait for what can be given up; an interrupt raises KeyboardInterrupt in it."""
        try:
            self._in_user_code = True
            if self.interrupted:
                raise KeyboardInterrupt
            return function()
        finally:
            self._in_user_code = False

"""Handling of Ctrl-C during a run: in user code it raises KeyboardInterrupt, in the engine it sets a flag.

An interrupt must not leave the engine's records incomplete, and must end user code at once. The handler runs on the main thread, so it
never runs at the same time as the code that reads the flag.

`InterruptGuard.cancel` has the effect of Ctrl-C from another thread. Only a signal wakes the main thread from a C call that sleeps.
A signal must not arrive after its run has ended, because it would end whatever the main thread does next.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_BEHIND = 1.1
"""Seconds by which the reported start of a process may be too early, because Linux computes it from a boot time in whole seconds."""
_OURS = str(Path(__file__).parents[2]) + os.sep
_CALLS_BODIES = str(Path(__file__).with_name("in_process.py"))


class InterruptGuard:
    """Handles SIGINT for the duration of a run on the main thread; on any other thread, the handler is not installed.

    Attributes
    ----------
    interrupted
        True after Ctrl-C or a call of `cancel`.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.cancelled = False
        """True if `cancel` was called and Ctrl-C was not pressed."""
        self.stops_itself = False
        """True if `cancel` was called only on the run's own thread: the running step continues to its end."""
        self._calling = False
        """True while `call` is in user code."""
        self._began = 0.0
        """The time of the last call of `call`."""
        self._thrown = False
        """True if `cancel` has sent this thread an exception."""
        self._impatient = False
        self._previous: Any = None
        self._owns = False
        self._thread = 0
        self.run_id = ""
        """The identifier of the run; empty while the run is prepared."""
        self._pressing = False
        """True if the next signal comes from `cancel`, not from Ctrl-C."""
        self._heard = 0
        """The number of signals that the handler has received."""
        self._sending = allocate_lock()
        self._accepts_signals = False
        """True if signals can be sent; changes under `_sending`."""

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            if self._previous is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._handle)
                self._owns = True
        self._accepts_signals = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._sending:
            self._accepts_signals = False
        if self._owns:
            if hasattr(signal, "pthread_sigmask"):
                # The call returns after the handler has run for every signal that `cancel` sent to this thread.
                signal.pthread_sigmask(signal.SIG_BLOCK, ())
            signal.signal(signal.SIGINT, self._previous if self._previous is not None else signal.default_int_handler)
            self._owns = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number
        pressed, self._pressing = self._pressing, False
        must_repeat = self._interrupt(cancelled=pressed)
        if self._calling:
            # The first interrupt ends the called function. If user code catches the exception, a second interrupt must end that code,
            # but it must not end Stepwell's code that cleans up after the first interrupt.
            if frame is not None and frame.f_code is _CALL:
                # The called function has not begun, or has ended.
                self._calling = False
                raise KeyboardInterrupt
            if not must_repeat or _in_body(frame):
                raise KeyboardInterrupt
        elif must_repeat and self._impatient:
            self._impatient = False
            raise KeyboardInterrupt

    def _interrupt(self, *, cancelled: bool) -> bool:
        """Note an interrupt; return True unless it is the first."""
        self._heard += 1
        again, self.interrupted = self.interrupted, True
        self.cancelled = cancelled and (self.cancelled or not again)
        self.stops_itself = False
        return again

    def cancel(self) -> None:
        """End the running step and the run, as Ctrl-C does; return at once.

        May be called on any thread. A call on the run's own thread lets the running step end, and no other step begins. In a run
        outside the main thread no signal can be used: the step ends when it next runs Python code. After the run, a call does
        nothing.
        """
        if threading.get_ident() == self._thread:
            self.cancelled = self.stops_itself = not self.interrupted
            self.interrupted = True
        elif self._owns:
            start_new_thread(self._repeat_signal, ())
        else:
            with self._sending:
                if not self._accepts_signals:
                    return
                self.cancelled = self.cancelled or not self.interrupted
                self.interrupted = True
                if self._calling:
                    self._thrown = True
                    _raise_in(self._thread, KeyboardInterrupt)

    def _repeat_signal(self) -> None:
        """Send SIGINT until the handler has seen it, or the run has ended.

        One signal is not enough: it can come just before a call that blocks, and signals are ignored during `os.system`.
        """
        heard, pause = self._heard, _FIRST_PAUSE
        while True:
            with self._sending:
                if not self._accepts_signals or self._heard != heard:
                    return
                self._pressing = True
                if hasattr(signal, "pthread_kill"):
                    signal.pthread_kill(self._thread, signal.SIGINT)
                else:  # Windows has no such call; there, the signal wakes the main thread from any thread
                    signal.raise_signal(signal.SIGINT)
            if self._calling:
                _interrupt_children(self._began)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Let a second interrupt raise KeyboardInterrupt while the block waits for commits; the first one sets the flag.

        A stopped process may hold the lease of the catalog for a long time. The records are committed when the lease is free, even
        if the wait was interrupted.
        """
        self._impatient = True
        try:
            yield
        finally:
            self._impatient = False

    def look(self, function: Callable[[], T]) -> T:
        """Call a function that examines the user's objects and may never return; an interrupt raises KeyboardInterrupt in it."""
        if self._calling:
            return function()
        result: T = self.call(function, has_begun=True)
        return result

    def call(self, function: Callable[[], Any], *, has_begun: bool = False) -> Any:
        """Call user code, or a function that may be abandoned; an interrupt raises KeyboardInterrupt in it.

        Parameters
        ----------
        has_begun
            True if the function belongs to a step that has begun: the function is called even after an interrupt.
        """
        try:
            self._began = time.time()
            self._calling = True
            if self.interrupted and not has_begun:
                raise KeyboardInterrupt
            return function()
        finally:
            if self._owns:
                late, self._calling = self._pressing, False
            else:
                late = self._leave()
            if late:
                # The code returned before the cancellation reached it. Its result is discarded, because the cancellation may have
                # ended a program that the code waited for.
                if self._pressing:
                    self._pressing = False
                    self._interrupt(cancelled=True)
                raise KeyboardInterrupt

    def _leave(self) -> bool:
        """Leave user code; return True if `cancel` sent an exception that was not raised in this code."""
        late = False
        while self._calling:
            # An exception that is raised here is late, too.
            with suppress(KeyboardInterrupt), self._sending:
                if self._thrown:
                    late = not isinstance(sys.exc_info()[1], KeyboardInterrupt)
                    _raise_in(self._thread, None)
                    self._thrown = False
                self._calling = False
        return late


_CALL = InterruptGuard.call.__code__


def _in_body(frame: FrameType | None) -> bool:
    """Return True if `InterruptGuard.call` called the code of a frame with no code of Stepwell in between, except for the executor."""
    while frame is not None and frame.f_code is not _CALL:
        name = frame.f_code.co_filename
        if name.startswith(_OURS) and name != _CALLS_BODIES:
            return False
        frame = frame.f_back
    return frame is not None


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Make a thread raise an exception when it next runs Python code; None revokes an exception that was not raised yet."""
    import ctypes

    wanted = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), wanted)


def _interrupt_children(began: float) -> None:
    """Send SIGINT to the child processes of this process group that started after a time: a terminal's Ctrl-C reaches the whole group."""
    if not hasattr(os, "getpgid"):
        return
    import psutil

    with suppress(psutil.Error, OSError):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error, OSError):
                if child.create_time() > began - _BEHIND and os.getpgid(child.pid) == os.getpgid(0):
                    child.send_signal(signal.SIGINT)

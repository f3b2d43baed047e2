"""Handling of Ctrl-C during a run. Ctrl-C raises KeyboardInterrupt in code that may be ended at any point; in other code, it only sets a flag.

The code that may be ended is the code of the user, code that examines or stores objects of the user or loads inputs, and code that reads the
catalog. In other code, for example while recorded reads are checked or a reused step is restored, only the flag is set, and the run ends before the
next body or step. While a run waits for its commits, a second Ctrl-C also raises KeyboardInterrupt.

An interrupt must end user code at once, but it must not leave the records of the run incomplete. The signal handler runs on the main thread, so
it never runs at the same time as the code that reads the flag.

`InterruptGuard.cancel` has the effect of Ctrl-C, and can be called on another thread. It sends a signal to the main thread, because nothing else
ends a sleep or a blocking call in C. The signal must not arrive after the end of the run, because it would interrupt other code.
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
"""The number of seconds by which the reported start time of a process may be too early. Linux computes the start time from the boot time,
which it knows only in whole seconds."""
_OURS = str(Path(__file__).parents[2]) + os.sep
_CALLS_BODIES = str(Path(__file__).with_name("in_process.py"))


class InterruptGuard:
    """Handles Ctrl-C and `cancel` for one run, which takes place inside the ``with`` block.

    The handler for SIGINT is installed only if the run is on the main thread. On any other thread, only `cancel` has an effect.

    Attributes
    ----------
    interrupted
        True after Ctrl-C or a call of `cancel`.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.cancelled = False
        """True if the run was interrupted by `cancel` alone, without Ctrl-C."""
        self.stops_itself = False
        """True if the run was interrupted only by calls of `cancel` on the thread of the run. The running step then continues to its end."""
        self._calling = False
        """True while `call` executes user code."""
        self._began = 0.0
        """The time at which `call` last began to execute user code, in seconds since the epoch."""
        self._thrown = False
        """True if `cancel` has sent a KeyboardInterrupt to the thread of the run, and `_leave` has not dealt with it yet."""
        self._impatient = False
        """True inside the block of `committing`, in which a second interrupt raises KeyboardInterrupt."""
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
        """True while `cancel` may send signals. It changes only while the lock `_sending` is held."""

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            if self._previous is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._handle)
                self._owns = True
        self._accepts_signals = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
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
            # The first interrupt ends the called function. If user code catches the exception, a second interrupt must end this user code.
            # But a second interrupt must not end code of Stepwell that cleans up after the first one.
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
        """Record an interrupt; `cancelled` is True if it comes from `cancel`. Return True if the run had been interrupted before."""
        self._heard += 1
        again, self.interrupted = self.interrupted, True
        self.cancelled = cancelled and (self.cancelled or not again)
        self.stops_itself = False
        return again

    def cancel(self) -> None:
        """Interrupt the running step and end the run, as Ctrl-C does. The method returns at once.

        It may be called on any thread. If it is called on the thread of the run, the running step continues to its end, and no other step begins.
        If the run is not on the main thread, no signal can be used, and the step ends when it next executes Python code. After the run, a call has
        no effect.
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
        """Send SIGINT to the main thread until the handler has received a signal or the run has ended.

        One signal is not enough: it can come just before a call that blocks, and SIGINT is ignored during `os.system`.
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
        """Return a context manager for a block that waits until the records of the run are committed.

        The first interrupt of the run only sets the flag `interrupted`. Any later interrupt raises KeyboardInterrupt in the block, because the wait
        can be long: a process that is suspended may hold the lease of the catalog. The records are committed even if the wait is interrupted.
        """
        self._impatient = True
        try:
            yield
        finally:
            self._impatient = False

    def look(self, function: Callable[[], T]) -> T:
        """Call a function that examines objects of the user, and return its result. An interrupt raises KeyboardInterrupt in the function.

        If the interrupt only set a flag, an object's method that never returns would block the run for ever. The function is called even if the
        run was interrupted before.
        """
        if self._calling:
            return function()
        result: T = self.call(function, has_begun=True)
        return result

    def call(self, function: Callable[[], Any], *, has_begun: bool = False) -> Any:
        """Call user code, or another function that may be ended at any point. An interrupt raises KeyboardInterrupt in the function.

        Parameters
        ----------
        has_begun
            True if the function belongs to a step that has begun. The function is then called even if the run was interrupted before. If False
            and the run was interrupted before, the function is not called, and KeyboardInterrupt is raised.

        Returns
        -------
        object
            The result of the function.

        Raises
        ------
        KeyboardInterrupt
            If the run is interrupted while the function runs, or was interrupted before and `has_begun` is False.
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
                # The function returned before the interrupt by `cancel` reached it. The result is discarded, because `cancel` may have
                # ended a program for which the function waited.
                if self._pressing:
                    self._pressing = False
                    self._interrupt(cancelled=True)
                raise KeyboardInterrupt

    def _leave(self) -> bool:
        """Record that user code has ended. Return True if `cancel` sent a KeyboardInterrupt that came too late to be raised in this code."""
        late = False
        while self._calling:
            # An exception that is raised inside this loop is late, too.
            with suppress(KeyboardInterrupt), self._sending:
                if self._thrown:
                    late = not isinstance(sys.exc_info()[1], KeyboardInterrupt)
                    _raise_in(self._thread, None)
                    self._thrown = False
                self._calling = False
        return late


_CALL = InterruptGuard.call.__code__


def _in_body(frame: FrameType | None) -> bool:
    """Return True if a frame belongs to user code: between `InterruptGuard.call` and the frame there is no code of Stepwell except the executor."""
    while frame is not None and frame.f_code is not _CALL:
        name = frame.f_code.co_filename
        if name.startswith(_OURS) and name != _CALLS_BODIES:
            return False
        frame = frame.f_back
    return frame is not None


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Make a thread raise an exception of class `kind` when it next executes Python code; None revokes an exception that is not raised yet."""
    import ctypes

    wanted = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), wanted)


def _interrupt_children(began: float) -> None:
    """Send SIGINT to the child processes of this process, and to their child processes, if they started after the time `began`.

    Only processes in the process group of this process get the signal, as after Ctrl-C in a terminal.
    """
    if not hasattr(os, "getpgid"):
        return
    import psutil

    with suppress(psutil.Error, OSError):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error, OSError):
                if child.create_time() > began - _BEHIND and os.getpgid(child.pid) == os.getpgid(0):
                    child.send_signal(signal.SIGINT)

"""Something that happens once and that many threads may wait for, safe against interrupts.

``threading.Event`` is not: an interrupt while it takes its own lock again leaves as a RuntimeError, and one inside
``Thread.start`` leaves a thread that never ran. Here every waiter blocks on a lock of its own, which only the other side
releases, so an interrupted waiter leaves nothing behind that anybody needs.
"""

from __future__ import annotations

from _thread import LockType, allocate_lock
from contextlib import suppress


class Once:
    """An event that is never taken back."""

    def __init__(self) -> None:
        self.over = False
        self._waiters: list[LockType] = []

    def wait(self, seconds: float = -1) -> bool:
        """Block until it happened, or for some seconds; return whether it did."""
        if self.over:
            return True
        lock = allocate_lock()
        lock.acquire()
        self._waiters.append(lock)
        # It may have happened before the lock was in the list.
        if self.over or lock.acquire(True, seconds):
            return True
        with suppress(ValueError):  # it happens just now
            self._waiters.remove(lock)
        return self.over

    def happen(self) -> None:
        """Let everybody go on who waits, now or later."""
        self.over = True
        while self._waiters:
            self._waiters.pop().release()

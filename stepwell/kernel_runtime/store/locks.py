"""Exclusive locks on whole small files, and `Once`, an event for which many threads may wait.

``threading.Event`` is not safe against interrupts: an interrupt while it takes its lock again becomes a RuntimeError, and one inside
``Thread.start`` leaves a thread that never ran. Here every waiter blocks on its own lock, which only the other side
releases, so an interrupted waiter leaves nothing behind that another thread needs.

File locks are exclusive locks on whole small files, which every system has and frees when a process dies:
``flock`` on POSIX, because closing another descriptor of the file never drops it and a lock belongs to an open file, so that
two of one process keep each other away too; on Windows a locked byte far behind the contents, so that these stay readable.

The holder may remove a lock file. So a lock counts only if the name still is the file that was locked (`Folder.is_file`): a process that
opened the file just before it was removed has locked a file that no other process sees, and opens it again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from _thread import LockType, allocate_lock
from contextlib import suppress

from stepwell.kernel_runtime.store.folder import Folder


class Once:
    """An event that happens once and is never reset."""

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
        """End the waiting of all threads, now and later."""
        self.over = True
        while self._waiters:
            self._waiters.pop().release()


_BYTE = 1 << 30
"""The byte that is locked on Windows."""

if sys.platform == "win32":  # pragma: no cover - exercised on Windows only
    import msvcrt

    # An open file has one position, which every call below moves.
    _position = threading.Lock()

    def lock(descriptor: int, *, block: bool) -> bool:
        """Lock an open file; return whether it is ours now. An `OSError` where the file system has no locks."""
        while True:
            try:
                with _position:
                    os.lseek(descriptor, _BYTE, os.SEEK_SET)
                    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except PermissionError:
                if not block:
                    return False
                time.sleep(0.002)
            else:
                return True

    def unlock(descriptor: int) -> None:
        """Unlock an open file."""
        with _position:
            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def read_at_start(descriptor: int, size: int) -> bytes:
        """Read the first bytes of an open file, from any thread."""
        with _position:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return os.read(descriptor, size)

    def write_at_start(descriptor: int, data: bytes) -> None:
        """Write the first bytes of an open file."""
        with _position:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, data)

else:
    import fcntl

    def lock(descriptor: int, *, block: bool) -> bool:
        """Lock an open file; return whether it is ours now. An `OSError` where the file system has no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if block else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Unlock an open file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def read_at_start(descriptor: int, size: int) -> bytes:
        """Read the first bytes of an open file, from any thread."""
        return os.pread(descriptor, size, 0)

    def write_at_start(descriptor: int, data: bytes) -> None:
        """Write the first bytes of an open file."""
        os.pwrite(descriptor, data, 0)


def open_file(folder: Folder, name: str, *, create: bool = True, read_only: bool = False) -> int:
    """Open a lock file, made if it is not there; an `OSError` if that cannot be. One that is only read can be locked too."""
    if read_only:
        return folder.open(name)
    return folder.open(name, os.O_RDWR | os.O_CREAT if create else os.O_RDWR)


def remove_locked(folder: Folder, name: str, descriptor: int) -> None:
    """Remove a lock file that is ours and close it, which unlocks it.

    POSIX removes it while it is locked: whoever waits for it finds that the path is gone. Windows removes no open file; there it
    is removed after it was closed, and stays if somebody has opened it meanwhile, who then removes it.
    """
    try:
        if folder.is_file(name, descriptor):
            folder.unlink(name)
    except OSError:
        os.close(descriptor)
        try:
            folder.unlink(name)
        except OSError:
            return
    else:
        os.close(descriptor)

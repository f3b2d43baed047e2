"""Exclusive locks on whole files, and `Once`, an event for which many threads may wait.

``threading.Event`` is not safe against interrupts: an interrupt while it reacquires its lock becomes a RuntimeError, and an interrupt
inside ``Thread.start``, which waits for an event, leaves a thread that never ran. In `Once`, every waiting thread blocks on a separate lock,
which only `Once.happen` releases. So an interrupted thread holds nothing that another thread needs.

Every system has exclusive locks on whole files, and releases them when a process dies. On POSIX these are ``flock`` locks, which belong to
an open file. So closing another descriptor of the file does not release the lock, and two locks of one process exclude each other. On
Windows, a byte far behind the contents is locked, so that the contents stay readable.

The holder of a lock may remove the lock file. So a lock is valid only if the name still refers to the locked file (`Folder.is_file`). A
process that opened the file just before it was removed has locked a file that no other process can find, and must open the file again.
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
        self.is_over = False
        self._waiters: list[LockType] = []

    def wait(self, seconds: float = -1) -> bool:
        """Block until the event has happened or the time is over; return True if the event has happened.

        Parameters
        ----------
        seconds
            Maximum time to wait; negative for no limit.
        """
        if self.is_over:
            return True
        lock = allocate_lock()
        lock.acquire()
        self._waiters.append(lock)
        # The event may have happened before the lock was in the list.
        if self.is_over or lock.acquire(True, seconds):
            return True
        with suppress(ValueError):  # `happen` has just removed it
            self._waiters.remove(lock)
        return self.is_over

    def happen(self) -> None:
        """Mark the event as happened and wake all waiting threads."""
        self.is_over = True
        while self._waiters:
            self._waiters.pop().release()


_BYTE = 1 << 30
"""The offset of the byte that is locked on Windows."""

if sys.platform == "win32":  # pragma: no cover - exercised on Windows only
    import msvcrt

    # All functions below move the position of the open file, so they must not overlap.
    _position = threading.Lock()

    def lock(descriptor: int, *, block: bool) -> bool:
        """Lock an open file; return True if this process has the lock now. Raise `OSError` if the file system has no locks."""
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
        """Lock an open file; return True if this process has the lock now. Raise `OSError` if the file system has no locks."""
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
    """Open a lock file; raise `OSError` if this fails.

    Parameters
    ----------
    folder, name
        The store directory, and the name of the file.
    create
        True to create the file if it is missing.
    read_only
        True to open an existing file for reading only. Such a file can be locked, too.
    """
    if read_only:
        return folder.open(name)
    return folder.open(name, os.O_RDWR | os.O_CREAT if create else os.O_RDWR)


def remove_locked(folder: Folder, name: str, descriptor: int) -> None:
    """Remove a lock file that this process has locked, and close it, which releases the lock.

    On POSIX the file is removed while it is locked, so that a waiting process detects that the file was removed. Windows cannot remove an
    open file, so the file is closed first. If another process has opened the file by then, the file stays, and that process removes it.
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

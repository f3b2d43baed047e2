"""Exclusive locks on whole files, and `Once`, an event for which many threads may wait.

``threading.Event`` is not safe against interrupts (Ctrl-C). An interrupt while ``Event.wait`` reacquires its lock becomes a RuntimeError.
An interrupt inside ``Thread.start``, which waits for an event, leaves a thread that never ran. In `Once`, every waiting thread blocks on a
separate lock, which only `Once.happen` releases. So an interrupted thread holds no lock that another thread needs.

Every operating system has exclusive locks on whole files, and releases the locks of a process that dies. On POSIX these are ``flock`` locks.
Such a lock belongs to one call of ``open``, not to the process: if a process opens a file twice, only one of the two descriptors can have the
lock, and closing the other one does not release it. On Windows, a byte far behind the end of the file is locked, so that the contents stay
readable.

The process that holds a lock may remove the lock file. If another process has opened the file just before the removal, that process then locks
a removed file. This lock excludes nobody. So a process that has taken a lock checks that the file's name still refers to the locked file
(`Folder.is_file`). If not, the process opens the file again.
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
    """An event that happens once and is never reset. Unlike ``threading.Event``, this class is safe against interrupts."""

    def __init__(self) -> None:
        self.is_over = False
        self._waiters: list[LockType] = []

    def wait(self, seconds: float = -1) -> bool:
        """Block until the event has happened or ``seconds`` have passed; return True if the event has happened.

        If ``seconds`` is negative, wait without a limit.
        """
        if self.is_over:
            return True
        lock = allocate_lock()
        lock.acquire()
        self._waiters.append(lock)
        # The event may have happened before the lock was added to the list. Then nobody releases this lock.
        if self.is_over or lock.acquire(True, seconds):
            return True
        with suppress(ValueError):  # `happen` has just removed the lock
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

    # The functions below move the position of the open file, so two threads must not call them at the same time.
    _position = threading.Lock()

    def lock(descriptor: int, *, block: bool) -> bool:
        """Take the exclusive lock on an open file; return True if this call took it.

        If the lock is held through another descriptor of the file: wait for its release if ``block`` is true; return False if ``block`` is false.
        Raise `OSError` if the file system has no locks.
        """
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
        """Release the lock on an open file."""
        with _position:
            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def read_at_start(descriptor: int, size: int) -> bytes:
        """Return the first ``size`` bytes of an open file. Any thread may call this."""
        with _position:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return os.read(descriptor, size)

    def write_at_start(descriptor: int, data: bytes) -> None:
        """Overwrite the beginning of an open file with ``data``."""
        with _position:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, data)

else:
    import fcntl

    def lock(descriptor: int, *, block: bool) -> bool:
        """Take the exclusive lock on an open file; return True if this call took it.

        If the lock is held through another descriptor of the file: wait for its release if ``block`` is true; return False if ``block`` is false.
        Raise `OSError` if the file system has no locks.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if block else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Release the lock on an open file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def read_at_start(descriptor: int, size: int) -> bytes:
        """Return the first ``size`` bytes of an open file. Any thread may call this."""
        return os.pread(descriptor, size, 0)

    def write_at_start(descriptor: int, data: bytes) -> None:
        """Overwrite the beginning of an open file with ``data``."""
        os.pwrite(descriptor, data, 0)


def open_file(folder: Folder, name: str, *, create: bool = True, read_only: bool = False) -> int:
    """Open a lock file of the store and return its descriptor; raise `OSError` if the file cannot be opened.

    Parameters
    ----------
    folder, name
        The store directory, and the name of the lock file in it.
    create
        True to create the file if it is missing.
    read_only
        True to open the file for reading only, which suffices to lock it. The file must then exist, because ``create`` is ignored.
    """
    if read_only:
        return folder.open(name)
    return folder.open(name, os.O_RDWR | os.O_CREAT if create else os.O_RDWR)


def remove_locked(folder: Folder, name: str, descriptor: int) -> None:
    """Remove a lock file that this process has locked, and close ``descriptor``, which releases the lock.

    On POSIX, the file is removed before the lock is released, so that a process that gets the lock next can detect the removal. Windows
    cannot remove an open file, so the descriptor is closed first. If another process then has the file open, the file stays until that
    process removes it.
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

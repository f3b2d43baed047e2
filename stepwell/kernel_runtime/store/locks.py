"""Locks: exclusive locks on whole small files, claims of long steps, and `Once`, an event for which many threads may wait.

``threading.Event`` is not safe against interrupts: an interrupt while it takes its own lock again leaves as a RuntimeError, and one inside
``Thread.start`` leaves a thread that never ran. Here every waiter blocks on a lock of its own, which only the other side
releases, so an interrupted waiter leaves nothing behind that anybody needs.

File locks are exclusive locks on whole small files, which every system has and frees when a process dies:
``flock`` on POSIX, because closing another descriptor of the file never drops it and a lock belongs to an open file, so that
two of one process keep each other away too; on Windows a locked byte far behind the contents, so that these stay readable.

A lock file may be removed by who holds it. So a lock counts only if the name still is the file that was locked (`Folder.is_file`): who
opened the file just before it was removed has locked one that keeps nobody away, and opens it again.

A claim is an OS lock on ``claims/<memo key>`` for as long as a process computes a long step.

Another process that needs the same step finds the lock taken, waits, and reuses what was computed. The lock belongs to the open
file, so the system frees it the moment its process ends, however it ends; nothing has to expire, and no process is asked
whether another one lives. The contents, who computes and since when, are for showing only.

Who holds a claim removes its file when it lets go. What killed processes left behind is swept by the next process
that takes a claim in this store, each file under its own lock, so that none is removed that somebody computes under.

A claim only spares work. Where none can be had (a read-only or full disk, a file system without locks) everybody is told
that it is theirs, and two processes may compute the same.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from _thread import LockType, allocate_lock
from contextlib import suppress
from dataclasses import asdict
from time import monotonic

from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.folder import Folder


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


_BYTE = 1 << 30
"""Where Windows locks."""

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
        """Let the next one have it."""
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
        """Let the next one have it."""
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


FOLDER = "claims"
_LOOK = 0.01
"""Seconds for which what was seen of the folder is taken for what is there: a claim is made by who has computed for twenty times as long."""
_MOST = 4096
"""Bytes of a claim's file that are read."""
_TRIES = 100
"""How often a file that is removed just as it is opened is opened again."""

_held: dict[str, Claim] = {}
"""The claims of this process by the path of their files. On file systems that lock for whole processes, as NFS does, a second open of the file
would be given the lock, and closing it would drop the first one's: files of claims that are ours are never opened again."""
_mutex = threading.Lock()


class Claim:
    """A claim that is held until `release`."""

    def __init__(self, folder: Folder, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        # One element at most, and popping it is one operation: whoever gets the descriptor closes it.
        self._descriptors = [descriptor] if descriptor >= 0 else []

    def release(self) -> None:
        """Let the next one have it; from any thread, and a second time does nothing."""
        with suppress(IndexError, OSError):
            descriptor = self._descriptors.pop()
            try:
                remove_locked(self._folder, self._name, descriptor)
            finally:
                _held.pop(str(self._folder.path / self._name), None)

    def text(self) -> bytes:
        """Return the file's contents."""
        return read_at_start(self._descriptors[0], _MOST)

    def abandon(self) -> None:
        """Forget it in a forked child: the file stays, and closing does not unlock what the parent has open too."""
        with suppress(IndexError, OSError):
            os.close(self._descriptors.pop())


class Claims:
    """The claims in one store directory.

    Parameters
    ----------
    folder
        The store directory.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._swept = False
        self._looked = -1.0
        self._names: frozenset[str] = frozenset()

    def is_there(self, memo_key: str) -> bool:
        """Tell whether somebody may hold the claim of a memo key, as the folder was some milliseconds ago at most.

        Every step that runs asks, and each look at a file hands Python's lock to another thread.
        """
        now = monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            try:
                self._names = frozenset(self._folder.names(FOLDER))
            except OSError:
                self._names = frozenset()
        return memo_key in self._names

    def take(self, memo_key: str, claimant: Claimant) -> Claim | None:
        """Return the claim of a memo key, or None if somebody else holds it; never waits.

        Where the file system gives no locks the claim that is returned holds nothing.
        """
        folder, name = self._folder, f"{FOLDER}/{memo_key}"
        path = str(folder.path / name)
        with _mutex:
            if path in _held:
                return None
            try:
                descriptor = _locked(folder, name)
            except OSError:
                return Claim(folder, name, -1)
            if descriptor < 0:
                return None
            claim = _held[path] = Claim(folder, name, descriptor)
            # A full disk: the lock counts, not the text.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                write_at_start(descriptor, json.dumps(asdict(claimant)).encode())
            if not self._swept:
                self._swept = True
                _sweep(folder)
        return claim

    def claimant(self, memo_key: str) -> Claimant:
        """Return what the holder of a claim said of itself."""
        name = f"{FOLDER}/{memo_key}"
        held = _held.get(str(self._folder.path / name))
        try:
            found = json.loads(self._folder.read(name, _MOST) if held is None else held.text())
            return Claimant(str(found["notebook"]), int(found["pid"]), str(found["host"]), float(found["since"]))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            # Just taken and not written yet, or just let go.
            return Claimant()


def _locked(folder: Folder, name: str) -> int:
    """Open and lock a claim's file; return -1 if somebody else has it locked, an `OSError` if there are no locks."""
    for _ in range(_TRIES):
        try:
            descriptor = open_file(folder, name)
        except FileNotFoundError:
            folder.mkdir(FOLDER)
            descriptor = open_file(folder, name)
        try:
            ours = lock(descriptor, block=False)
            if ours and folder.is_file(name, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not ours:
            return -1
    raise OSError(f"{name} is another file each time it is looked at")


def _sweep(folder: Folder) -> None:
    """Remove the files that nobody holds."""
    with suppress(OSError):
        for each in folder.names(FOLDER):
            name = f"{FOLDER}/{each}"
            if str(folder.path / name) in _held:
                continue
            with suppress(OSError):
                descriptor = open_file(folder, name, create=False)
                try:
                    ours = lock(descriptor, block=False)
                except OSError:
                    ours = False
                if ours:
                    remove_locked(folder, name, descriptor)
                else:
                    os.close(descriptor)


def _after_fork_in_child() -> None:
    global _mutex  # noqa: PLW0603 - another thread of the parent may have held it
    _mutex = threading.Lock()
    for claim in list(_held.values()):
        claim.abandon()
    _held.clear()


def release_all() -> None:
    """Let every claim of this process go: at its end, so that no file stays behind."""
    for claim in list(_held.values()):
        claim.release()


atexit.register(release_all)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)

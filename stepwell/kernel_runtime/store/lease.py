"""The lease: our own exclusive lock around every open of the catalog, for reading too.

DuckDB does not re-read the header of a file after it got its own lock on it, so two processes that rely on that lock can
lose each other's commits. Whoever opens the catalog therefore holds an exclusive lock on ``catalog.lock`` from before
ATTACH until after DETACH. A process that waits for it holds ``want.lock`` meanwhile; the holder sees that by trying
``want.lock`` without blocking, and lets go soon. Only exclusive locks on whole small files, because every system has those:
``flock`` on POSIX (closing a descriptor elsewhere in the process never drops it), a locked byte far behind the
contents on Windows.

The contents of ``catalog.lock`` are a token that changes before a holder writes for the first time: who remembers the token
knows, without opening the catalog, whether anybody wrote since.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_TOKEN = 16
_BYTE = 1 << 30
"""Where Windows locks: beyond the token, so that reading the token is never refused."""

if sys.platform == "win32":  # pragma: no cover - exercised on Windows only
    import msvcrt

    def _lock(descriptor: int, *, block: bool) -> bool:
        while True:
            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError:
                if not block:
                    return False
                time.sleep(0.002)
            else:
                return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _read_token(descriptor: int) -> bytes:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, _TOKEN)

    def _write_token(descriptor: int, token: bytes) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, token)

else:
    import fcntl

    def _lock(descriptor: int, *, block: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if block else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _read_token(descriptor: int) -> bytes:
        return os.pread(descriptor, _TOKEN, 0)

    def _write_token(descriptor: int, token: bytes) -> None:
        os.pwrite(descriptor, token, 0)


class Lease:
    """The right of one process to have the catalog open. Used by one thread; `token` by any.

    Parameters
    ----------
    directory
        The store directory; ``catalog.lock`` and ``want.lock`` are created in it when first needed.
    """

    def __init__(self, directory: Path) -> None:
        self._catalog = directory / "catalog.lock"
        self._want = directory / "want.lock"
        self._catalog_descriptor = -1
        self._want_descriptor = -1
        self._marked = False
        self.held = False
        self.since = 0.0
        """When it was taken, on the monotonic clock."""

    def acquire(self) -> None:
        """Wait until no other process has the catalog open; an `OSError` if the lock files cannot be made."""
        while True:
            self._want_descriptor = _opened(self._want, self._want_descriptor)
            self._catalog_descriptor = _opened(self._catalog, self._catalog_descriptor)
            _lock(self._want_descriptor, block=True)
            try:
                _lock(self._catalog_descriptor, block=True)
            finally:
                _unlock(self._want_descriptor)
            if _is(self._catalog, self._catalog_descriptor):
                break
            # Somebody removed the file while we waited: a lock on it would keep nobody away.
            _unlock(self._catalog_descriptor)
        self._marked = False
        self.held = True
        self.since = time.monotonic()

    def release(self) -> None:
        """Let the next process have the catalog."""
        self.held = False
        _unlock(self._catalog_descriptor)

    def wanted(self) -> bool:
        """Return whether another process waits for the catalog."""
        if not _lock(self._want_descriptor, block=False):
            return True
        _unlock(self._want_descriptor)
        return False

    def mark(self) -> None:
        """Change the token, once per lease: called before anything is written."""
        if not self._marked:
            _write_token(self._catalog_descriptor, os.urandom(_TOKEN))
            self._marked = True

    def token(self) -> bytes:
        """Return the token as it is now; empty where there is none."""
        return _read_token(self._catalog_descriptor) if self._catalog_descriptor >= 0 else b""

    def remove_files(self) -> None:
        """Take the lock files away again while holding the lease: for a store that could not be opened."""
        for path in (self._catalog, self._want):
            path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Forget the descriptors in a forked child: closing does not unlock, because the parent has them open too."""
        for descriptor in (self._catalog_descriptor, self._want_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._catalog_descriptor = self._want_descriptor = -1
        self.held = False

    def __del__(self) -> None:
        self.abandon()


def _is(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _opened(path: Path, descriptor: int) -> int:
    if descriptor >= 0:
        if _is(path, descriptor):
            return descriptor
        os.close(descriptor)
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o666)

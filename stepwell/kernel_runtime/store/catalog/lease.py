"""The lease: our own exclusive lock around every open of the catalog, for reading too.

DuckDB does not re-read the header of a file after it got its own lock on it, so two processes that rely on that lock can
lose each other's commits. Whoever opens the catalog therefore holds an exclusive lock on ``catalog.lock`` from before
ATTACH until after DETACH. A process that waits for it holds ``want.lock`` meanwhile; the holder sees that by trying
``want.lock`` without blocking, and lets go soon. Only exclusive locks on whole small files (`locking`), because every system has those.

The contents of ``catalog.lock`` are a token that changes before a holder writes for the first time: who remembers the token
knows, without opening the catalog, whether anybody wrote since.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.locking import lock, open_file, read_at_start, unlock, write_at_start

_CATALOG, _WANT = "catalog.lock", "want.lock"
_TOKEN = 16


class Lease:
    """The right of one process to have the catalog open. Used by one thread; `token` by any.

    Parameters
    ----------
    folder
        The store directory; ``catalog.lock`` and ``want.lock`` are created in it when first needed.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._catalog_descriptor = -1
        self._want_descriptor = -1
        self._marked = False
        self._read_only = False
        self.gate = threading.RLock()
        """Who has it keeps the thread that waits for the lease from going on with it: for the moment of a fork."""
        self.held = False
        self.since = 0.0
        """When it was taken, on the monotonic clock."""

    def acquire(self, *, read_only: bool = False) -> None:
        """Wait until no other process has the catalog open; an `OSError` if the lock files cannot be made, or locked.

        Parameters
        ----------
        read_only
            Whether nothing will be written, so that the lock files need not be writable: an exclusive lock needs no more.
        """
        if read_only != self._read_only:
            self._catalog_descriptor = _closed(self._catalog_descriptor)
            self._want_descriptor = _closed(self._want_descriptor)
            self._read_only = read_only
        while True:
            self._open_files()
            lock(self._want_descriptor, block=True)
            try:
                lock(self._catalog_descriptor, block=True)
            finally:
                unlock(self._want_descriptor)
            if self._folder.is_file(_CATALOG, self._catalog_descriptor):
                break
            # Somebody removed the file while we waited: a lock on it would keep nobody away.
            unlock(self._catalog_descriptor)
        self._marked = False
        self.since = time.monotonic()
        with self.gate:
            self.held = True

    def _open_files(self) -> None:
        """Open the lock files that are not open yet, or are others now."""
        if self._want_descriptor < 0 or not self._folder.is_file(_WANT, self._want_descriptor):
            self._want_descriptor = _closed(self._want_descriptor)
            self._want_descriptor = open_file(self._folder, _WANT, read_only=self._read_only)
        if self._catalog_descriptor < 0 or not self._folder.is_file(_CATALOG, self._catalog_descriptor):
            self._catalog_descriptor = _closed(self._catalog_descriptor)
            self._catalog_descriptor = open_file(self._folder, _CATALOG, read_only=self._read_only)

    def release(self) -> None:
        """Let the next process have the catalog."""
        if self.held:
            self.held = False
            unlock(self._catalog_descriptor)

    def wanted(self) -> bool:
        """Return whether another process waits for the catalog, or may wait where we do not see it: the files were removed."""
        if not (
            self._folder.is_file(_WANT, self._want_descriptor)
            and self._folder.is_file(_CATALOG, self._catalog_descriptor)
        ):
            return True
        if not lock(self._want_descriptor, block=False):
            return True
        unlock(self._want_descriptor)
        return False

    def mark(self) -> None:
        """Change the token, once per lease: called before anything is written."""
        if not self._marked:
            write_at_start(self._catalog_descriptor, os.urandom(_TOKEN))
            self._marked = True

    def token(self) -> bytes:
        """Return the token as it is now; empty where there is none."""
        try:
            return read_at_start(self._catalog_descriptor, _TOKEN)
        except OSError:
            # Not opened yet, or the catalog thread opens it anew just now: whoever asks takes the catalog for changed.
            return b""

    def remove_files(self) -> None:
        """Take the lock files away again while holding the lease: for a store that could not be opened."""
        for name in (_CATALOG, _WANT):
            # Windows removes no open file: it stays, empty.
            with suppress(OSError):
                self._folder.unlink(name)

    def abandon(self) -> None:
        """Forget the descriptors in a forked child: closing does not unlock, because the parent has them open too."""
        self._catalog_descriptor = _closed(self._catalog_descriptor)
        self._want_descriptor = _closed(self._want_descriptor)
        self.gate = threading.RLock()
        self.held = False

    def __del__(self) -> None:
        self.abandon()


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1

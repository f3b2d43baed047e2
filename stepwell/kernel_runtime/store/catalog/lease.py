"""The lease, an exclusive lock that a process holds while it has the catalog open; and the seal, the number of acknowledged commits.

DuckDB does not re-read the header of a file after it locks the file, so two processes that rely on DuckDB's lock can lose each other's
commits. So every process that opens the catalog holds an exclusive lock on ``catalog.lock`` from before ATTACH until after DETACH. While a
process waits for this lock, it holds ``want.lock``. The holder of the lease notices a waiting process by trying to lock ``want.lock``
without blocking, and releases the lease soon. Only exclusive locks on whole files are used (`locks`), because every system has these.

``catalog.lock`` contains a token, which the holder of the lease changes before its first write. A process that remembers the token can
detect without opening the catalog that another process has written.

DuckDB replays its log up to the first incomplete entry and silently ignores the rest. It does not detect that a log was removed, or that
the catalog was replaced by an older copy. So each transaction increments ``meta.commits``; after the commit, and before the commit is
reported, this number is written to ``catalog.seal``. A catalog with *fewer* commits than its seal has lost acknowledged rows. A catalog
with one commit more is not damaged: a process died between the commit and the update of the seal. A seal that cannot be read, or that
belongs to another catalog, is ignored.

The seal is overwritten in place. It contains a magic number, the number of commits, a digest of the catalog's identity, and a digest of
these three.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.locks import lock, open_file, read_at_start, unlock, write_at_start

SEAL = "catalog.seal"
_FORM = struct.Struct("<8sQ16s16s")
_MAGIC = b"STEPSEAL"


@dataclass(frozen=True, slots=True)
class Seal:
    """The number of acknowledged commits of a catalog."""

    commits: int
    catalog: bytes
    """The digest of the catalog's identity."""

    def lost_commits(self, commits: int, store_id: str) -> int:
        """Return the number of acknowledged commits that are missing from a catalog with ``commits`` commits."""
        return max(0, self.commits - commits) if self.catalog == _identity(store_id) else 0


def read_seal(folder: Folder) -> Seal | None:
    """Return the seal of a store; None if it is missing or cannot be read."""
    try:
        data = folder.read(SEAL, _FORM.size + 1)
        magic, commits, catalog, check = _FORM.unpack(data)
    except (OSError, struct.error):
        return None
    return Seal(commits, catalog) if magic == _MAGIC and check == _check(data) else None


def write_seal(folder: Folder, commits: int, store_id: str) -> None:
    """Write the number of acknowledged commits, under the lease. If the write fails, the old seal, with a lower number, stays valid."""
    data = _FORM.pack(_MAGIC, commits, _identity(store_id), bytes(16))
    with contextlib.suppress(OSError):
        descriptor = folder.open(SEAL, os.O_WRONLY | os.O_CREAT)
        try:
            # One write in place needs no space on a full disk, and a kill cannot interrupt it.
            os.write(descriptor, data[:-16] + _check(data))
        finally:
            os.close(descriptor)


def _identity(store_id: str) -> bytes:
    return sha256(store_id.encode()).digest()[:16]


def _check(data: bytes) -> bytes:
    return sha256(data[:-16]).digest()[:16]


_CATALOG, _WANT = "catalog.lock", "want.lock"
_TOKEN = 16


class Lease:
    """The right of one process to have the catalog open. Only one thread may use the lease, but any thread may call `token`.

    Parameters
    ----------
    folder
        The store directory, in which ``catalog.lock`` and ``want.lock`` are created when they are first needed.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._catalog_descriptor = -1
        self._want_descriptor = -1
        self._is_marked = False
        self._is_read_only = False
        self.gate = threading.RLock()
        """A lock that prevents the lease from being taken during a fork: `acquire` does not return while another thread holds it."""
        self.is_held = False
        self.since = 0.0
        """The time when the lease was taken, on the monotonic clock."""

    def acquire(self, *, read_only: bool = False) -> None:
        """Wait until no other process has the catalog open. Raise `OSError` if the lock files cannot be created or locked.

        Parameters
        ----------
        read_only
            True if nothing will be written. The lock files are then opened for reading only, which suffices for an exclusive lock.
        """
        if read_only != self._is_read_only:
            self._catalog_descriptor = _close(self._catalog_descriptor)
            self._want_descriptor = _close(self._want_descriptor)
            self._is_read_only = read_only
        while True:
            self._open_files()
            lock(self._want_descriptor, block=True)
            try:
                lock(self._catalog_descriptor, block=True)
            finally:
                unlock(self._want_descriptor)
            if self._folder.is_file(_CATALOG, self._catalog_descriptor):
                break
            # The file was removed while we waited: a lock on it would not exclude other processes.
            unlock(self._catalog_descriptor)
        self._is_marked = False
        self.since = time.monotonic()
        with self.gate:
            self.is_held = True

    def _open_files(self) -> None:
        """Open the lock files that are not open yet, or that were replaced."""
        if self._want_descriptor < 0 or not self._folder.is_file(_WANT, self._want_descriptor):
            self._want_descriptor = _close(self._want_descriptor)
            self._want_descriptor = open_file(self._folder, _WANT, read_only=self._is_read_only)
        if self._catalog_descriptor < 0 or not self._folder.is_file(_CATALOG, self._catalog_descriptor):
            self._catalog_descriptor = _close(self._catalog_descriptor)
            self._catalog_descriptor = open_file(self._folder, _CATALOG, read_only=self._is_read_only)

    def release(self) -> None:
        """Release the lease, so that another process can take it."""
        if self.is_held:
            self.is_held = False
            unlock(self._catalog_descriptor)

    def is_requested(self) -> bool:
        """Return True if another process waits for the catalog, or could be waiting unnoticed because the lock files were replaced."""
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
        """Change the token before the first write; later calls during the same lease do nothing."""
        if not self._is_marked:
            write_at_start(self._catalog_descriptor, os.urandom(_TOKEN))
            self._is_marked = True

    def token(self) -> bytes:
        """Return the current token, or empty bytes if there is none."""
        try:
            return read_at_start(self._catalog_descriptor, _TOKEN)
        except OSError:
            # The file is not open, or another thread is reopening it. An empty token means that the catalog may have changed.
            return b""

    def remove_files(self) -> None:
        """Remove the lock files under the lease, because the store could not be opened."""
        for name in (_CATALOG, _WANT):
            # Windows cannot remove an open file, so an empty file stays.
            with suppress(OSError):
                self._folder.unlink(name)

    def abandon(self) -> None:
        """Close the descriptors in a forked child. The parent keeps the lock, because its descriptors stay open."""
        self._catalog_descriptor = _close(self._catalog_descriptor)
        self._want_descriptor = _close(self._want_descriptor)
        self.gate = threading.RLock()
        self.is_held = False

    def __del__(self) -> None:
        self.abandon()


def _close(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1

"""The lease, an exclusive lock on the catalog; and the seal, a file that contains the number of acknowledged commits.

A process that opens the catalog holds the *lease*, an exclusive lock on the file ``catalog.lock``, from before ATTACH until after DETACH.
DuckDB's lock alone does not suffice: DuckDB does not read the header of a file again after it has locked the file. If another process commits
between the reading and the locking, DuckDB does not notice the commit, so two processes could overwrite each other's commits. While a process
waits for the lease, it holds a lock on ``want.lock``. From time to time, the process that holds the lease tries to lock ``want.lock`` without
blocking; if this fails, another process is waiting, and the lease is released soon. Only exclusive locks on whole files are used (`locks`),
because every operating system has them.

The file ``catalog.lock`` contains a *token*, which the process that holds the lease changes before it first writes to the catalog. A process
that remembers the token can find out whether another process has changed the catalog, without opening the catalog.

DuckDB replays its log up to the first incomplete entry and silently ignores the rest. It does not detect that a log was removed, or that
the catalog was replaced by an older copy. So each transaction increments the number of commits in the table ``meta``. After the commit, this
number is written to the *seal*, the file ``catalog.seal``; only then is the commit acknowledged, that is, reported to the caller. A catalog
with *fewer* commits than its seal says has lost acknowledged rows. A catalog with one commit more is not damaged: a process died between the
commit and the update of the seal. A seal that cannot be read, or that belongs to another catalog, is ignored.

The seal is overwritten in place. It contains a magic number, the number of commits, a digest of the catalog's ``store_id``, and a digest of
these three fields.
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
    """The contents of the seal of a store."""

    commits: int
    """The number of acknowledged commits."""
    catalog: bytes
    """The digest of the ``store_id`` of the catalog to which the seal belongs."""

    def lost_commits(self, commits: int, store_id: str) -> int:
        """Return how many acknowledged commits are lost in a catalog with ``commits`` commits and the identifier ``store_id``.

        Return 0 if the seal belongs to another catalog.
        """
        return max(0, self.commits - commits) if self.catalog == _identity(store_id) else 0


def read_seal(folder: Folder) -> Seal | None:
    """Return the seal of the store ``folder``; None if the file is missing, cannot be read or has a wrong digest."""
    try:
        data = folder.read(SEAL, _FORM.size + 1)
        magic, commits, catalog, check = _FORM.unpack(data)
    except (OSError, struct.error):
        return None
    return Seal(commits, catalog) if magic == _MAGIC and check == _check(data) else None


def write_seal(folder: Folder, commits: int, store_id: str) -> None:
    """Write the seal of the store ``folder``. The caller holds the lease.

    If the write fails, the old seal, which contains a lower number of commits, stays valid.
    """
    data = _FORM.pack(_MAGIC, commits, _identity(store_id), bytes(16))
    with contextlib.suppress(OSError):
        descriptor = folder.open(SEAL, os.O_WRONLY | os.O_CREAT)
        try:
            # A single write in place needs no space on a full disk, and is never half done if the process is killed.
            os.write(descriptor, data[:-16] + _check(data))
        finally:
            os.close(descriptor)


def _identity(store_id: str) -> bytes:
    """Return the digest with which a seal identifies its catalog: a digest of the ``store_id``."""
    return sha256(store_id.encode()).digest()[:16]


def _check(data: bytes) -> bytes:
    """Return the digest of the contents of a seal, except for their last 16 bytes, which contain this digest."""
    return sha256(data[:-16]).digest()[:16]


_CATALOG, _WANT = "catalog.lock", "want.lock"
_TOKEN = 16


class Lease:
    """The right of one process to have the catalog of a store open. Only the catalog thread may use it, but any thread may call `token`.

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
        """A lock that the forking thread holds during a fork. Meanwhile `acquire` cannot return, so the catalog is not attached."""
        self.is_held = False
        self.since = 0.0
        """The time when the lease was last taken, on the clock of `time.monotonic`."""

    def acquire(self, *, read_only: bool = False) -> None:
        """Wait until no other process holds the lease, and take it. Raise `OSError` if the lock files cannot be created or locked.

        Parameters
        ----------
        read_only
            True if this user cannot write to the store. The lock files must then exist, and are opened for reading only, which suffices to
            lock them.
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
            # The lock file was removed during the wait, so other processes lock a new file, and a lock on the old file would not exclude them.
            unlock(self._catalog_descriptor)
        self._is_marked = False
        self.since = time.monotonic()
        with self.gate:
            self.is_held = True

    def _open_files(self) -> None:
        """Open each of the two lock files, unless it is open and its name still refers to the open file."""
        if self._want_descriptor < 0 or not self._folder.is_file(_WANT, self._want_descriptor):
            self._want_descriptor = _close(self._want_descriptor)
            self._want_descriptor = open_file(self._folder, _WANT, read_only=self._is_read_only)
        if self._catalog_descriptor < 0 or not self._folder.is_file(_CATALOG, self._catalog_descriptor):
            self._catalog_descriptor = _close(self._catalog_descriptor)
            self._catalog_descriptor = open_file(self._folder, _CATALOG, read_only=self._is_read_only)

    def release(self) -> None:
        """Release the lease, so that another process can take it. Do nothing if this process does not hold the lease."""
        if self.is_held:
            self.is_held = False
            unlock(self._catalog_descriptor)

    def is_requested(self) -> bool:
        """Return True if another process waits for the lease.

        Also return True if the lock files were replaced, because a process that waits for the new files cannot be noticed.
        """
        if not (self._folder.is_file(_WANT, self._want_descriptor) and self._folder.is_file(_CATALOG, self._catalog_descriptor)):
            return True
        if not lock(self._want_descriptor, block=False):
            return True
        unlock(self._want_descriptor)
        return False

    def mark(self) -> None:
        """Change the token, because this process is about to change the catalog. Only the first call after `acquire` has an effect."""
        if not self._is_marked:
            write_at_start(self._catalog_descriptor, os.urandom(_TOKEN))
            self._is_marked = True

    def token(self) -> bytes:
        """Return the current token. It is empty if no process has ever written to the catalog, or if ``catalog.lock`` is not open."""
        try:
            return read_at_start(self._catalog_descriptor, _TOKEN)
        except OSError:
            # The file is not open, or another thread is opening it again. The empty token differs from the remembered one,
            # so the caller assumes that the catalog has changed.
            return b""

    def remove_files(self) -> None:
        """Remove the lock files. Called, while the lease is held, if this process created them but then could not open the store."""
        for name in (_CATALOG, _WANT):
            # Windows cannot remove an open file, so an empty file stays.
            with suppress(OSError):
                self._folder.unlink(name)

    def abandon(self) -> None:
        """In a forked child, close the inherited descriptors. The parent keeps the lease, because its descriptors stay open."""
        self._catalog_descriptor = _close(self._catalog_descriptor)
        self._want_descriptor = _close(self._want_descriptor)
        self.gate = threading.RLock()
        self.is_held = False

    def __del__(self) -> None:
        self.abandon()


def _close(descriptor: int) -> int:
    """Close a descriptor, unless it is -1; return -1."""
    if descriptor >= 0:
        os.close(descriptor)
    return -1

"""The lease, our own exclusive lock around every open of the catalog; and the seal, the number of acknowledged commits.

DuckDB replays its log up to the first entry that is not whole and says nothing of what follows; a log that was removed, or an older
copy of the catalog in its place, is not noticed at all. So each commit counts itself in ``meta.commits``, inside its own
transaction, and after it, before anybody is told, the number is written to ``catalog.seal``. A catalog that has *fewer* commits
than its seal says has lost acknowledged rows. One more is no damage: its process died between the commit and the seal. So is
a seal that cannot be read, or one of another catalog: then nothing is known, and nothing claimed.

The file is some bytes, overwritten in place: magic, commits, the catalog's identity as a digest, and a digest of all three.

DuckDB does not re-read the header of a file after it got its own lock on it, so two processes that rely on that lock can
lose each other's commits. Whoever opens the catalog therefore holds an exclusive lock on ``catalog.lock`` from before
ATTACH until after DETACH. A process that waits for it holds ``want.lock`` meanwhile; the holder sees that by trying
``want.lock`` without blocking, and lets go soon. Only exclusive locks on whole small files (`locking`), because every system has those.

The contents of ``catalog.lock`` are a token that changes before a holder writes for the first time: who remembers the token
knows, without opening the catalog, whether anybody wrote since.
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
    """What was acknowledged of one catalog."""

    commits: int
    catalog: bytes
    """The digest of the identity of the catalog that it belongs to."""

    def lost(self, commits: int, store_id: str) -> int:
        """Return how many acknowledged commits a catalog lacks, given how many it has."""
        return max(0, self.commits - commits) if self.catalog == _identity(store_id) else 0


def read_seal(folder: Folder) -> Seal | None:
    """Return a store's seal; None where there is none that can be read."""
    try:
        data = folder.read(SEAL, _FORM.size + 1)
        magic, commits, catalog, check = _FORM.unpack(data)
    except (OSError, struct.error):
        return None
    return Seal(commits, catalog) if magic == _MAGIC and check == _check(data) else None


def write_seal(folder: Folder, commits: int, store_id: str) -> None:
    """Write what is acknowledged from now on, while holding the lease; a disk that refuses leaves the seal behind, which claims less."""
    data = _FORM.pack(_MAGIC, commits, _identity(store_id), bytes(16))
    with contextlib.suppress(OSError):
        descriptor = folder.open(SEAL, os.O_WRONLY | os.O_CREAT)
        try:
            # One write in place: it needs no room on a full disk, and a kill finds it done or not.
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

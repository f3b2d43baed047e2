"""The seal: how many commits of the catalog were acknowledged, kept beside it.

DuckDB replays its log up to the first entry that is not whole and says nothing of what follows; a log that was removed, or an older
copy of the catalog in its place, is not noticed at all. So each commit counts itself in ``meta.commits``, inside its own
transaction, and after it, before anybody is told, the number is written to ``catalog.seal``. A catalog that has *fewer* commits
than its seal says has lost acknowledged rows. One more is no damage: its process died between the commit and the seal. So is
a seal that cannot be read, or one of another catalog: then nothing is known, and nothing claimed.

The file is some bytes, overwritten in place: magic, commits, the catalog's identity as a digest, and a digest of all three.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from hashlib import sha256

from stepwell.kernel_runtime.store.folder import Folder

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

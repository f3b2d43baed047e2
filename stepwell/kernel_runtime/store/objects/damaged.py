"""Stored values that a plan cannot count on: files that are damaged or gone, values that do not load, values signed by another key.

A damaged file is set aside below ``damaged/``, so that it counts as missing and is written again. A value that is whole but does not load, or a
damaged one that lies in its row, gets a *mark* there: an empty file of its digest. Before a marked value is reused it is loaded once more;
if that fails it counts as missing. A mark is removed when the value loads, or is stored again. ``stepwell doctor --clean``
empties the folder.

`lacking` runs for every row of a snapshot, so it trusts a signature's own word about its key. The signature is verified when the value is
loaded.
"""

from __future__ import annotations

import contextlib
import re
from hashlib import sha256

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.records.runs import Snapshot
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.value_files import Objects, is_name
from stepwell.kernel_runtime.store.signing import Signer, fingerprint, key_name
from stepwell.kernel_runtime.store.values.codecs import PICKLE

DAMAGED = "damaged"
_MARK = ".failed"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def set_aside(folder: Folder, name: str) -> None:
    """Take a damaged value file out of ``objects/``, so that it counts as missing and is written again.

    The name comes from a row, which somebody else may have made: one that can be no value file's is left alone.
    """
    if not is_name(name):
        return
    with contextlib.suppress(OSError):
        folder.mkdir(DAMAGED)
        folder.rename(f"objects/{name}", f"{DAMAGED}/{name.rpartition('/')[2]}")


def _name(digest: str) -> str:
    # A damaged row may hold any text in place of the digest.
    return digest if _DIGEST.fullmatch(digest) else sha256(digest.encode("utf-8", "surrogatepass")).hexdigest()


class Marks:
    """The stored values of one store that were found not to load, by digest. Every method from any thread."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._found: set[str] | None = None

    def __contains__(self, digest: str) -> bool:
        return bool(self._all()) and _name(digest) in self._all()

    def add(self, digest: str) -> None:
        """Mark a value; where the store cannot be written, for this process."""
        digest = _name(digest)
        if digest in self._all():
            return
        self._all().add(digest)
        with contextlib.suppress(OSError):
            self._folder.mkdir(DAMAGED)
            self._folder.write(f"{DAMAGED}/{digest}{_MARK}", b"")

    def remove(self, digest: str) -> None:
        """Take a mark back."""
        if digest in self:
            self._all().discard(_name(digest))
            with contextlib.suppress(OSError):
                self._folder.unlink(f"{DAMAGED}/{_name(digest)}{_MARK}", missing_ok=True)

    def _all(self) -> set[str]:
        if self._found is None:
            try:
                names = self._folder.names(DAMAGED)
            except OSError:
                names = []
            self._found = {name.removesuffix(_MARK) for name in names if name.endswith(_MARK)}
        return self._found


def lacking(snapshot: Snapshot, objects: Objects, signer: Signer) -> tuple[frozenset[str], dict[str, str]]:
    """Return the names of files that are missing, and by id of a materialization the other key that signed its value."""
    missing: dict[str, bool] = {}
    foreign: dict[str, str] = {}
    own: bytes | None = None
    for item in snapshot.materializations():
        value = item.value
        if value is None:
            continue
        name = value.object_name
        if name is not None:
            if name not in missing:
                missing[name] = objects.missing(name, value.size)
            if missing[name]:
                continue
        if value.codec != PICKLE:
            continue
        if own is None:
            own = _own_name(signer)
        by = key_name(value.signature) if name is None else objects.signer_of(name, own)
        if by != own:
            foreign[item.id] = fingerprint(by) or "none"
    return frozenset(name for name, gone in missing.items() if gone), foreign


def _own_name(signer: Signer) -> bytes:
    try:
        return signer.name
    except StoreError:
        # Without a key nothing is one's own; what needs the key says why there is none.
        return b""

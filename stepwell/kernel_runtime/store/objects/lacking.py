"""Which stored values a plan cannot count on: their file is gone or is none, or another user's key signed them.

It is asked for every row of a snapshot, so it goes by a signature's own word about its key; whether the signature is
right is found out when the value is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.snapshot import Snapshot
from stepwell.kernel_runtime.store.objects.files import Objects
from stepwell.kernel_runtime.store.signing import Signer, fingerprint, key_name
from stepwell.kernel_runtime.store.values.codecs import PICKLE


def lacking(snapshot: Snapshot, objects: Objects, signer: Signer) -> tuple[frozenset[str], dict[str, str]]:
    """Return the names of files that are missing, and by id of a materialization the other key that signed its value."""
    missing: dict[str, bool] = {}
    foreign: dict[str, str] = {}
    own: bytes | None = None
    for item in _materializations(snapshot):
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


def _materializations(snapshot: Snapshot) -> Iterator[Materialization]:
    for executions in snapshot.by_memo_key.values():
        for made in executions:
            yield from made
    for pointers in snapshot.current.values():
        for each in pointers:
            yield each.materialization

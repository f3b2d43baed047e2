"""The bytes of value files: written in few calls, mapped copy-on-write."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Sequence

from stepwell.kernel_runtime.store.objects.header import aligned

MAP_FROM = 1 << 20
"""Bytes from which a file is mapped; below, reading is as quick and keeps no descriptor."""
_PIECE = 64 << 20
"""Bytes that one call writes at most: between two calls an interrupt can come through."""
_BATCH = 512
"""Parts that one call writes at most; every system takes so many."""


def write_parts(descriptor: int, parts: Sequence[bytes | memoryview], at: int) -> None:
    """Write parts one behind the other, each at the next aligned place; an `OSError` where that is not possible."""
    batch: list[bytes | memoryview] = []
    waiting = 0
    for part in parts:
        padding = aligned(at) - at
        if padding:
            batch.append(b"\0" * padding)
        view = memoryview(part)
        at += padding + len(view)
        for start in range(0, len(view), _PIECE):
            batch.append(view[start : start + _PIECE])
            waiting += len(batch[-1])
            if waiting >= _PIECE or len(batch) >= _BATCH:
                _write_all(descriptor, batch)
                batch, waiting = [], 0
    _write_all(descriptor, batch)


def _write_all(descriptor: int, batch: list[bytes | memoryview]) -> None:
    if not hasattr(os, "writev"):  # pragma: no cover - Windows
        batch = [b"".join(batch)] if len(batch) > 1 else batch
    while batch:
        done = os.writev(descriptor, batch) if hasattr(os, "writev") else os.write(descriptor, batch[0])
        # A full disk, a limit or an interrupt can end a write early.
        while batch and done >= len(batch[0]):
            done -= len(batch.pop(0))
        if batch and done:
            batch[0] = memoryview(batch[0])[done:]


def contents(descriptor: int) -> memoryview:
    """Return all of a file, mapped copy-on-write where it is large."""
    size = os.fstat(descriptor).st_size
    return _mapped(descriptor, size) if size >= MAP_FROM else _whole(descriptor, size)


def _whole(descriptor: int, size: int) -> memoryview:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        done = os.readv(descriptor, [view[at:]]) if hasattr(os, "readv") else _read_into(descriptor, view[at:])
        if not done:
            return view[:at]
        at += done
    return view


def _read_into(descriptor: int, view: memoryview) -> int:  # pragma: no cover - Windows
    found = os.read(descriptor, len(view))
    view[: len(found)] = found
    return len(found)


def _mapped(descriptor: int, size: int) -> memoryview:
    if sys.version_info >= (3, 13):
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY, trackfd=False))
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY))

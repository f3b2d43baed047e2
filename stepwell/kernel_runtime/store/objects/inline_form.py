"""The form of a small value in its row: as a file's, without a header.

Number of buffers, size and writability of each, the stream, the buffers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from stepwell.kernel_runtime.store.objects.digests import blake, combined
from stepwell.kernel_runtime.store.values.codecs import Encoded


def inline_digest(codec: str, stream: bytes | memoryview, buffers: Sequence[memoryview]) -> str:
    """Return the digest of a stored form that is kept in its row; that of a file is made with its header."""
    if not buffers:
        return blake(b"".join((codec.encode(), b" ", stream)))
    described = [(buffer.nbytes, blake(buffer), buffer.readonly) for buffer in buffers]
    return combined(codec, len(stream), blake(stream), described)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a file or an inline value holds, ready for `codecs.decode`."""

    stream: bytes | memoryview
    buffers: list[memoryview]
    unchecked: os.stat_result | None = None
    """Of a file whose structure is to be validated before it counts as checked: its status from before it was read."""


def pack(encoded: Encoded) -> bytes:
    """Return the inline form: number of buffers, size and writability of each, the stream, the buffers."""
    if not encoded.buffers:
        return b"\0\0" + encoded.stream
    head = struct.pack("<HI", len(encoded.buffers), len(encoded.stream))
    sizes = b"".join([struct.pack("<I?", buffer.nbytes, buffer.readonly) for buffer in encoded.buffers])
    return b"".join([head, sizes, encoded.stream, *encoded.buffers])


def unpack(data: bytes) -> Parts:
    """Read the inline form; every buffer that was writable is a fresh copy."""
    count = int.from_bytes(data[:2], "little")
    if not count:
        return Parts(data[2:], [])
    _, size = struct.unpack_from("<HI", data)
    at = 6 + 5 * count
    if at + size > len(data):
        raise ValueError("the sizes of an inline value do not add up")
    view = memoryview(data)
    stream = view[at : at + size]
    at += size
    buffers = []
    for index in range(count):
        length, readonly = struct.unpack_from("<I?", data, 6 + 5 * index)
        part = view[at : at + length]
        buffers.append(part if readonly else memoryview(bytearray(part)))
        at += length
    if at != len(data):
        raise ValueError("the sizes of an inline value do not add up")
    return Parts(stream, buffers)


def packs(encoded: Encoded) -> bool:
    """Return whether the inline form can hold so many buffers."""
    return len(encoded.buffers) < 1 << 16

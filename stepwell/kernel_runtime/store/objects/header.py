"""The header of a value file, and the place of each part.

::

    magic, version, length of the header, signature      64 bytes
    header (JSON)                                         codec, versions of libraries, sizes and digests, who wrote it first
    stream                                                executed when a pickle is loaded
    buffer, buffer, ...                                   data; each part begins at a multiple of 64 bytes

The header names the digest of every part. So a signature over the header covers everything that is executed, as long as the
stream's digest is checked too. Until then a header is text of another person, and is read as such.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell.kernel_runtime.store.objects.digests import combined
from stepwell.kernel_runtime.store.signing import SIGNATURE_SIZE

MAGIC = b"STEPWELL"
VERSION = 2
PREFIX = struct.Struct(f"<8sII{SIGNATURE_SIZE}s8x")
LONGEST = 1 << 30
"""Bytes of the longest header that is read."""
_ALIGN = 64
_UNKNOWN = "0" * 64


class HeaderError(ValueError):
    """A file that does not begin as a value file must."""


class OtherFormError(HeaderError):
    """A file that another version of Stepwell wrote: not damaged, only unreadable here."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a value file."""

    codec: str
    stream: tuple[int, str]
    """Size and digest."""
    buffers: tuple[tuple[int, str, bool], ...]
    """Size, digest, and whether it is read-only."""
    more: dict[str, Any] = field(default_factory=dict)
    """``python``, ``libraries``, ``classes``, ``key``, ``memo_key``: for a reader, and for making a lost catalog again."""

    @property
    def digest(self) -> str:
        """The digest of what the file holds, which is its name."""
        return combined(self.codec, *self.stream, self.buffers)

    @property
    def name(self) -> str:
        """Where the file belongs below ``objects/``."""
        return name_of(self.digest, self.codec)

    def packed(self) -> bytes:
        """Return the header's bytes."""
        told = {"codec": self.codec, "stream": self.stream, "buffers": self.buffers, **self.more}
        return json.dumps(told, separators=(",", ":")).encode()

    def places(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield where the stream and each buffer begin and end, below a header of so many bytes."""
        end = PREFIX.size + length
        for size in (self.stream[0], *[buffer[0] for buffer in self.buffers]):
            start = aligned(end)
            end = start + size
            yield start, end


def room_for(codec: str, stream: int, buffers: Sequence[tuple[int, bool]], more: dict[str, Any]) -> int:
    """Return where the stream will begin, before any digest is known: all of them are equally long."""
    blank = Header(codec, (stream, _UNKNOWN), tuple((size, _UNKNOWN, readonly) for size, readonly in buffers), more)
    return aligned(PREFIX.size + len(blank.packed()))


def name_of(digest: str, codec: str) -> str:
    """Return the name below ``objects/`` of the file with a digest."""
    return f"{digest[:2]}/{digest}.{codec}"


def aligned(at: int) -> int:
    """Return the next place at which a part may begin."""
    return -(-at // _ALIGN) * _ALIGN


def read_prefix(data: bytes | memoryview) -> tuple[int, bytes]:
    """Return the header's length and the signature from the first 64 bytes.

    Raises
    ------
    HeaderError
        If they are not those of a value file of this version.
    """
    if len(data) < PREFIX.size:
        raise HeaderError("it is cut short")
    magic, version, length, signature = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise HeaderError("it does not begin like a stored value")
    if version != VERSION:
        raise OtherFormError(f"it has the form {version} of another Stepwell, this one knows {VERSION}")
    if length > LONGEST:
        raise HeaderError("its header cannot be read")
    return length, signature


def read_header(data: bytes) -> Header:
    """Read the bytes of a header.

    Raises
    ------
    HeaderError
        If they are not those of a header.
    """
    try:
        found = json.loads(data)
        codec = found.pop("codec")
        size, digest = found.pop("stream")
        buffers = tuple((length, of, readonly) for length, of, readonly in found.pop("buffers"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HeaderError("its header cannot be read") from error
    parts = ((size, digest, False), *buffers)
    if not (
        isinstance(codec, str)
        and all(type(length) is int and length >= 0 for length, _, _ in parts)
        and all(isinstance(of, str) and len(of) == 64 for _, of, _ in parts)
        and all(isinstance(readonly, bool) for _, _, readonly in parts)
    ):
        raise HeaderError("its header cannot be read")
    return Header(codec, (size, digest), buffers, found)

"""The stored form of a value: digests of its parts, the header of a value file, and the inline form of a small value.

Writing and digesting both stream through the same memory, and neither holds the interpreter's lock. So the writer gets a
thread that digests while it writes; the name of a file, which is its digest, is known when the last byte is written.

A value file::

    magic, version, length of the header, signature      64 bytes
    header (JSON)                                         codec, versions of libraries, sizes and digests, who wrote it first
    stream                                                executed when a pickle is loaded
    buffer, buffer, ...                                   data; each part begins at a multiple of 64 bytes

The header names the digest of every part, so a signature over the header is one over everything that is executed, as long as the
stream's digest is checked too. A header is somebody else's text until then: it is read as such.

A small value is stored in its row, without a header: the number of buffers, size and writability of each, the stream, the buffers.

The header also describes the step that made the value, so that ``stepwell doctor --rebuild`` can make its row again. It is the materialization's own row without the value's columns, as one object of the file's header. What the step had read is part of it, so a
row that is made from it is reused under the same conditions as the lost one was. The header is written before the row is, and also
for what a step produced before it failed: that has no memo key, here as there.
"""

from __future__ import annotations

import json
import os
import struct
from _thread import start_new_thread
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stepwell.kernel_runtime.errors import StoreDamagedError
from stepwell.kernel_runtime.records.materializations import Materialization, StoredValue
from stepwell.kernel_runtime.store.catalog.schema import (
    LATEST,
    MATERIALIZATION_COLUMNS,
    materialization,
    materialization_row,
)
from stepwell.kernel_runtime.store.locks import Once
from stepwell.kernel_runtime.store.signing import SIGNATURE_SIZE
from stepwell.kernel_runtime.store.values.codecs import Encoded

_PARALLEL = 1 << 20
"""Bytes from which a digest uses several threads."""
_BESIDE = 4 << 20
"""Bytes from which a thread beside the writer is worth its start."""
_PIECE = 16 << 20
"""Bytes that are digested before looking whether anybody still wants to know."""


def blake(data: bytes | memoryview) -> str:
    """Return the digest of one part, 64 hexadecimal digits."""
    import blake3

    if len(data) < _PARALLEL:
        return blake3.blake3(data).hexdigest()
    return blake3.blake3(data, max_threads=blake3.blake3.AUTO).hexdigest()


def combined(codec: str, size: int, stream: str, buffers: Sequence[Sequence[Any]]) -> str:
    """Return the digest of a stored form from those of its parts: of each buffer size, digest and whether it is read-only."""
    described = f"{codec} {size} {stream}" + "".join(
        [f" {length} {found} {int(readonly)}" for length, found, readonly in buffers]
    )
    return blake(described.encode())


class Digesting:
    """The digests of some parts, taken in a thread of its own where they are large.

    Parameters
    ----------
    parts
        Contiguous buffers of bytes; nobody may change them before the result is there.
    """

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = parts
        self._found: list[str] = []
        self._error: BaseException | None = None
        self._over = Once()
        self._stopped = False
        self._beside = sum(map(len, parts)) >= _BESIDE
        if self._beside:
            start_new_thread(self._work, ())

    def result(self) -> list[str]:
        """Return the digest of each part, once all are known."""
        if not self._beside:
            return [blake(part) for part in self._parts]
        self._over.wait()
        if self._error is not None:
            raise self._error
        return self._found

    def stop(self) -> None:
        """Let the thread end soon: nobody waits for the result any more."""
        self._stopped = True

    def _work(self) -> None:
        try:
            self._found = [self._digest(part) for part in self._parts]
        except BaseException as error:
            self._error = error
        finally:
            self._parts = ()
            self._over.happen()

    def _digest(self, part: bytes | memoryview) -> str:
        import blake3

        if self._stopped:
            raise RuntimeError("nobody waits for this digest")
        if len(part) < _PARALLEL:
            return blake3.blake3(part).hexdigest()
        # One core is the writer's.
        digest = blake3.blake3(max_threads=max(1, min(8, (os.cpu_count() or 1) - 1)))
        view = memoryview(part)
        for at in range(0, len(view), _PIECE):
            if self._stopped:
                raise RuntimeError("nobody waits for this digest")
            digest.update(view[at : at + _PIECE])
        return digest.hexdigest()


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


REBUILT = "stepwell:rebuilt"
"""In the metadata of a materialization whose row was made from a file's header."""
_COLUMNS = tuple(MATERIALIZATION_COLUMNS.split(", "))
_OF_THE_VALUE = frozenset(
    ("codec", "digest", "size", "inline", "object_name", "signature", "type_name", "summary", "classes")
)
_TOLD = frozenset(_COLUMNS) - _OF_THE_VALUE - {"record_signature"}


def about(made: Materialization) -> dict[str, Any]:
    """Return what a value file says of its materialization; JSON values."""
    row = materialization_row(replace(made, value=None))
    return {name: value for name, value in zip(_COLUMNS, row, strict=True) if name not in _OF_THE_VALUE and value}


def _row(told: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple([(told.get(name, "") if name in _TOLD else None) for name in _COLUMNS])


def _is_possible(name: str, value: object) -> bool:
    if name in {"created", "seconds"}:
        return isinstance(value, float | int) and 0 <= value < LATEST
    return isinstance(value, str)


def rebuilt(told: Mapping[str, Any], value: StoredValue, *, key: str, id_: str, created: float) -> Materialization:
    """Return a materialization from what a file says of it.

    A file that does not say what its step had read gives a value that can be loaded and is never reused.

    Parameters
    ----------
    told
        What `about` gave; may be empty.
    created
        When the file was written, where it does not say so itself.
    """
    empty: dict[str, Any] = {"inputs": "[]", "reads": "[]", "unverifiable": "[]", "metadata": "{}"}
    empty |= {"created": created, "seconds": 0.0}
    # Whoever wrote the header may have said anything. A record that is made of it has a new name, so no signature is over it.
    if not all(_is_possible(name, told[name]) for name in _TOLD if name in told):
        told = {}
    try:
        found = materialization(_row({**empty, **told}))
    except StoreDamagedError:
        told = {}
        found = materialization(_row(empty))
    return replace(
        found,
        id=id_,
        key=found.key or key,
        step_key=found.step_key or key,
        output=found.output or "result",
        memo_key=found.memo_key if told else "",
        data_version=found.data_version or value.digest,
        value=value,
        metadata={**found.metadata, REBUILT: True},
    )

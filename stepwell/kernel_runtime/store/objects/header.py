"""The header of a value file: the size and digest of each part, and a description of the step that wrote the file.

The layout of a value file is::

    magic, format version, header length, signature      64 bytes
    header (JSON)                                         codec, library versions, sizes and digests, description of the step
    stream                                                for a pickle, the part that executes code when it is loaded
    buffer, buffer, ...                                   large blocks of memory

The stream and each buffer begin at a multiple of 64 bytes. The header contains their digests. So the signature of the header also protects
the stream, provided that the stream is compared with its digest. Until both the signature and this digest have been checked, the header is treated
as untrusted data.

The description of the step (`about`) is the catalog row of the materialization without the columns that describe the value. If the catalog is
lost, ``stepwell doctor --rebuild`` restores the row from this description (`rebuilt`). The description includes the reads of the step, so the
restored row is reused under the same conditions as the lost row. If a step fails, the outputs that it yielded before are stored, too. The
descriptions in their files have no memo key, so the restored rows are never reused.
"""

from __future__ import annotations

import json
import re
import struct
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
from stepwell.kernel_runtime.store.objects.digests import combined
from stepwell.kernel_runtime.store.signing import SIGNATURE_SIZE

MAGIC = b"STEPWELL"
VERSION = 2
PREFIX = struct.Struct(f"<8sII{SIGNATURE_SIZE}s8x")
LONGEST = 1 << 30
"""Maximum length in bytes of a header that this version reads."""
_ALIGN = 64
_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.[a-z][a-z0-9-]{0,31}")
_UNKNOWN = "0" * 64


class HeaderError(ValueError):
    """Raised if the header of a value file is invalid, or if the file's name or contents do not match the header."""


class OtherFormError(HeaderError):
    """Raised if a value file has the format of another version of Stepwell, which this version cannot read."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a value file."""

    codec: str
    stream: tuple[int, str]
    """The size of the stream in bytes, and its digest."""
    buffers: tuple[tuple[int, str, bool], ...]
    """For each buffer: its size in bytes, its digest, and True if the buffer is read-only."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Further fields by name, such as ``python`` (the version of Python), ``classes`` (the classes and libraries with their versions), ``key``,
    ``memo_key`` and ``about`` (the description of the step). Loads ignore these fields. They are for people who look into the file, and for the
    rebuild of a lost catalog."""

    @property
    def digest(self) -> str:
        """The digest of the stored value, which is part of the file's name."""
        return combined(self.codec, *self.stream, self.buffers)

    @property
    def name(self) -> str:
        """The name of the file below ``objects/``."""
        return name_of(self.digest, self.codec)

    def pack(self) -> bytes:
        """Return the header as it is written to the file: JSON, without the 64 bytes that precede it."""
        fields = {"codec": self.codec, "stream": self.stream, "buffers": self.buffers, **self.metadata}
        return json.dumps(fields, separators=(",", ":")).encode()

    def places(self, length: int) -> Iterator[tuple[int, int]]:
        """For the stream, and then for each buffer, yield the two positions in the file at which this part begins and ends.

        Parameters
        ----------
        length
            The length of the header in bytes.
        """
        end = PREFIX.size + length
        for size in (self.stream[0], *[buffer[0] for buffer in self.buffers]):
            start = aligned(end)
            end = start + size
            yield start, end


def room_for(codec: str, stream: int, buffers: Sequence[tuple[int, bool]], metadata: dict[str, Any]) -> int:
    """Return the position in a new value file at which the stream must begin, so that the header fits before the stream.

    The digests of the stream and the buffers need not be known yet, because all digests have the same length.

    Parameters
    ----------
    codec
        The codec of the value.
    stream
        The size of the stream in bytes.
    buffers
        For each buffer: its size in bytes, and True if the buffer is read-only.
    metadata
        The further fields of the header (`Header.metadata`).
    """
    blank = Header(codec, (stream, _UNKNOWN), tuple((size, _UNKNOWN, readonly) for size, readonly in buffers), metadata)
    return aligned(PREFIX.size + len(blank.pack()))


def name_of(digest: str, codec: str) -> str:
    """Return the name, relative to ``objects/``, of the file of a value with this digest and codec."""
    return f"{digest[:2]}/{digest}.{codec}"


def is_name(name: str) -> bool:
    """Return True if a string has the form of a value file's name relative to ``objects/``."""
    return _NAME.fullmatch(name) is not None and name[:2] == name[3:5]


def aligned(position: int) -> int:
    """Return the next position in a value file at which a stream or buffer may begin: ``position``, rounded up to a multiple of 64."""
    return -(-position // _ALIGN) * _ALIGN


def read_prefix(data: bytes | memoryview) -> tuple[int, bytes]:
    """Read the first 64 bytes of a value file. Return the length of the header in bytes, and the signature.

    Raises
    ------
    HeaderError
        If there are fewer than 64 bytes, or if they are not the beginning of a value file.
    OtherFormError
        If another version of Stepwell wrote the file in a format that this version cannot read.
    """
    if len(data) < PREFIX.size:
        raise HeaderError("the file is truncated: it is too short for a header")
    magic, version, length, signature = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise HeaderError("the file does not begin like a value file")
    if version != VERSION:
        raise OtherFormError(
            f"another version of Stepwell wrote the file (format {version}; this version reads format {VERSION})"
        )
    if length > LONGEST:
        raise HeaderError("the length of the file's header is invalid")
    return length, signature


def read_header(data: bytes) -> Header:
    """Decode the JSON bytes of a header.

    Raises
    ------
    HeaderError
        If the bytes are not a valid header.
    """
    try:
        fields = json.loads(data)
        codec = fields.pop("codec")
        size, digest = fields.pop("stream")
        buffers = tuple((length, digest_of_buffer, readonly) for length, digest_of_buffer, readonly in fields.pop("buffers"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HeaderError("the file's header is invalid") from error
    parts = ((size, digest, False), *buffers)
    if not (
        isinstance(codec, str)
        and all(type(length) is int and length >= 0 for length, _, _ in parts)
        and all(isinstance(digest_of_buffer, str) and len(digest_of_buffer) == 64 for _, digest_of_buffer, _ in parts)
        and all(isinstance(readonly, bool) for _, _, readonly in parts)
    ):
        raise HeaderError("the file's header is invalid")
    return Header(codec, (size, digest), buffers, fields)


REBUILT = "stepwell:rebuilt"
"""The name of an entry in the metadata of each materialization whose row was restored from the header of its value file."""
_COLUMNS = tuple(MATERIALIZATION_COLUMNS.split(", "))
_OF_THE_VALUE = frozenset(("codec", "digest", "size", "inline", "object_name", "signature", "type_name", "summary", "classes"))
_DESCRIBED = frozenset(_COLUMNS) - _OF_THE_VALUE - {"record_signature"}


def about(item: Materialization) -> dict[str, Any]:
    """Return the description of a materialization for the header of its value file, as a dict of JSON values.

    The dict contains the columns of the materialization's catalog row by name, except empty columns and those that describe the value.
    """
    row = materialization_row(replace(item, value=None))
    return {name: value for name, value in zip(_COLUMNS, row, strict=True) if name not in _OF_THE_VALUE and value}


def _row(description: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple([(description.get(name, "") if name in _DESCRIBED else None) for name in _COLUMNS])


def _is_possible(name: str, value: object) -> bool:
    if name in {"created", "seconds"}:
        return isinstance(value, float | int) and 0 <= value < LATEST
    return isinstance(value, str)


def rebuilt(description: Mapping[str, Any], value: StoredValue, *, key: str, id_: str, created: float) -> Materialization:
    """Restore a materialization from the header of its value file.

    If the description is empty or invalid, the value can be loaded, but is never reused, because the materialization has no memo key.

    Parameters
    ----------
    description
        The dict that `about` returned when the file was written; empty if the header contains none.
    value
        The stored value in the file.
    key
        The key that the materialization gets if the description contains no key.
    id_
        The id of the restored materialization.
    created
        The time of creation that the materialization gets if the description contains none, in seconds since the epoch.
    """
    empty: dict[str, Any] = {"inputs": "[]", "reads": "[]", "unverifiable": "[]", "metadata": "{}"}
    empty |= {"created": created, "seconds": 0.0}
    # Another person may have written the header, so each field is checked. No signature covers the restored row, because its id is new.
    if not all(_is_possible(name, description[name]) for name in _DESCRIBED if name in description):
        description = {}
    try:
        item = materialization(_row({**empty, **description}))
    except StoreDamagedError:
        description = {}
        item = materialization(_row(empty))
    return replace(
        item,
        id=id_,
        key=item.key or key,
        step_key=item.step_key or key,
        output=item.output or "result",
        memo_key=item.memo_key if description else "",
        data_version=item.data_version or value.digest,
        value=value,
        metadata={**item.metadata, REBUILT: True},
    )

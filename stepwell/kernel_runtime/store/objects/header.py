"""The header of a value file: the position of each part, and the step that wrote it.

::

    magic, version, length of the header, signature      64 bytes
    header (JSON)                                         codec, library versions, sizes and digests, the step that first wrote it
    stream                                                executed when a pickle is loaded
    buffer, buffer, ...                                   data; each part begins at a multiple of 64 bytes

The header contains the digest of every part. So a signature over the header covers everything that is executed, provided that the digest
of the stream is checked, too. Until these checks have succeeded, the header is treated as untrusted data.

The header also contains the row of the materialization without the columns of the value (`about`), from which ``stepwell doctor --rebuild``
creates the row again (`rebuilt`). The header includes the reads of the step, so the new row is reused under the same conditions as the
lost row. The header is written before the row, and also for the values of a step that fails afterwards; such a row has no memo key.
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
"""The maximum length of a header in bytes."""
_ALIGN = 64
_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.[a-z][a-z0-9-]{0,31}")
_UNKNOWN = "0" * 64


class HeaderError(ValueError):
    """Raised for a file that lacks the header of a value file, or whose contents differ from its header."""


class OtherFormError(HeaderError):
    """Raised for a file in the format of another version of Stepwell, which this version cannot read."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a value file."""

    codec: str
    stream: tuple[int, str]
    """The size and digest of the stream."""
    buffers: tuple[tuple[int, str, bool], ...]
    """The size and digest of each buffer, and True if the buffer is read-only."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The fields ``python``, ``classes`` (with library versions), ``key``, ``memo_key`` and ``about``, for people and for rebuilding a lost
    catalog."""

    @property
    def digest(self) -> str:
        """The digest of the stored form, which is part of the file's name."""
        return combined(self.codec, *self.stream, self.buffers)

    @property
    def name(self) -> str:
        """The name of the file below ``objects/``."""
        return name_of(self.digest, self.codec)

    def pack(self) -> bytes:
        """Return the bytes of the header."""
        fields = {"codec": self.codec, "stream": self.stream, "buffers": self.buffers, **self.metadata}
        return json.dumps(fields, separators=(",", ":")).encode()

    def places(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield the start and end of the stream and of each buffer in the file, given the length of the header in bytes."""
        end = PREFIX.size + length
        for size in (self.stream[0], *[buffer[0] for buffer in self.buffers]):
            start = aligned(end)
            end = start + size
            yield start, end


def room_for(codec: str, stream: int, buffers: Sequence[tuple[int, bool]], metadata: dict[str, Any]) -> int:
    """Return the position of the stream. The digests need not be known, because all digests have the same length."""
    blank = Header(codec, (stream, _UNKNOWN), tuple((size, _UNKNOWN, readonly) for size, readonly in buffers), metadata)
    return aligned(PREFIX.size + len(blank.pack()))


def name_of(digest: str, codec: str) -> str:
    """Return the name below ``objects/`` of the file with the given digest and codec."""
    return f"{digest[:2]}/{digest}.{codec}"


def is_name(name: str) -> bool:
    """Return True if a string is a valid name of a value file below ``objects/``."""
    return _NAME.fullmatch(name) is not None and name[:2] == name[3:5]


def aligned(position: int) -> int:
    """Return the next position at which a part may begin."""
    return -(-position // _ALIGN) * _ALIGN


def read_prefix(data: bytes | memoryview) -> tuple[int, bytes]:
    """Return the header's length and the signature from the first 64 bytes.

    Raises
    ------
    HeaderError
        If the bytes are not the start of a value file of this format.
    """
    if len(data) < PREFIX.size:
        raise HeaderError("it is cut short")
    magic, version, length, signature = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise HeaderError("it does not begin like a stored value")
    if version != VERSION:
        raise OtherFormError(
            f"another version of Stepwell wrote it (format {version}; this version reads format {VERSION})"
        )
    if length > LONGEST:
        raise HeaderError("its header cannot be read")
    return length, signature


def read_header(data: bytes) -> Header:
    """Decode the bytes of a header.

    Raises
    ------
    HeaderError
        If the bytes are not a valid header.
    """
    try:
        fields = json.loads(data)
        codec = fields.pop("codec")
        size, digest = fields.pop("stream")
        buffers = tuple(
            (length, digest_of_buffer, readonly) for length, digest_of_buffer, readonly in fields.pop("buffers")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HeaderError("its header cannot be read") from error
    parts = ((size, digest, False), *buffers)
    if not (
        isinstance(codec, str)
        and all(type(length) is int and length >= 0 for length, _, _ in parts)
        and all(isinstance(digest_of_buffer, str) and len(digest_of_buffer) == 64 for _, digest_of_buffer, _ in parts)
        and all(isinstance(readonly, bool) for _, _, readonly in parts)
    ):
        raise HeaderError("its header cannot be read")
    return Header(codec, (size, digest), buffers, fields)


REBUILT = "stepwell:rebuilt"
"""Metadata key of a materialization whose row was rebuilt from the header of a file."""
_COLUMNS = tuple(MATERIALIZATION_COLUMNS.split(", "))
_OF_THE_VALUE = frozenset(
    ("codec", "digest", "size", "inline", "object_name", "signature", "type_name", "summary", "classes")
)
_DESCRIBED = frozenset(_COLUMNS) - _OF_THE_VALUE - {"record_signature"}


def about(item: Materialization) -> dict[str, Any]:
    """Return the description of a materialization for the header of its value file, as JSON values."""
    row = materialization_row(replace(item, value=None))
    return {name: value for name, value in zip(_COLUMNS, row, strict=True) if name not in _OF_THE_VALUE and value}


def _row(description: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple([(description.get(name, "") if name in _DESCRIBED else None) for name in _COLUMNS])


def _is_possible(name: str, value: object) -> bool:
    if name in {"created", "seconds"}:
        return isinstance(value, float | int) and 0 <= value < LATEST
    return isinstance(value, str)


def rebuilt(
    description: Mapping[str, Any], value: StoredValue, *, key: str, id_: str, created: float
) -> Materialization:
    """Return a materialization from the description in a header.

    Without a description the value can be loaded, but is never reused.

    Parameters
    ----------
    description
        The result of `about`; may be empty.
    created
        The modification time of the file, which is used if the description contains no time.
    """
    empty: dict[str, Any] = {"inputs": "[]", "reads": "[]", "unverifiable": "[]", "metadata": "{}"}
    empty |= {"created": created, "seconds": 0.0}
    # The header may come from another person. The new row has a new id, so no signature covers the row.
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

"""The header of a value file: where each part is, and which step wrote it.

::

    magic, version, length of the header, signature      64 bytes
    header (JSON)                                         codec, versions of libraries, sizes and digests, the step that wrote it first
    stream                                                executed when a pickle is loaded
    buffer, buffer, ...                                   data; each part begins at a multiple of 64 bytes

The header names the digest of every part. So a signature over the header covers everything that is executed, as long as the
stream's digest is checked too. Until then a header is text of another person, and is read as such.

The header also has the row of the materialization, without the columns of the value (`about`): ``stepwell doctor --rebuild`` makes
the row of it again (`rebuilt`). The reads of the step are part of it, so the new row is reused under the same conditions as the lost one. The
header is written before the row, and also for values of a step that failed later: such a row has no memo key.
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
"""Bytes of the longest header that is read."""
_ALIGN = 64
_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.[a-z][a-z0-9-]{0,31}")
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
    """``python``, ``classes`` (with the versions of libraries), ``key``, ``memo_key``, ``about``: for a reader, and for rebuilding a lost catalog."""

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


def is_name(name: str) -> bool:
    """Return whether a text can be the name of a file below ``objects/``."""
    return _NAME.fullmatch(name) is not None and name[:2] == name[3:5]


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
        The result of `about`; may be empty.
    created
        When the file was written, where it does not say so itself.
    """
    empty: dict[str, Any] = {"inputs": "[]", "reads": "[]", "unverifiable": "[]", "metadata": "{}"}
    empty |= {"created": created, "seconds": 0.0}
    # The header may come from another person. A record that is made from it has a new id, so no signature covers it.
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

"""The inline form of a small value in its row, and what the header of a value file says of the step that made it.

A small value is stored without a header: the number of buffers, size and writability of each, the stream, the buffers. The header of a file
has the materialization's row without the columns of the value, enough for ``stepwell doctor --rebuild`` to make the row again. The reads of
the step are part of it, so a row that is made from it is reused under the same conditions as the lost one. The header is written before the
row, and also for values of a step that failed later: such a row has no memo key.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepwell.kernel_runtime.errors import StoreDamagedError
from stepwell.kernel_runtime.records.materializations import Materialization, StoredValue
from stepwell.kernel_runtime.store.catalog.schema import (
    LATEST,
    MATERIALIZATION_COLUMNS,
    materialization,
    materialization_row,
)
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

"""The value of record, chosen by exact type: it must come back the same.

===========  ==========================================  ==================================================
codec        for                                         stored form
===========  ==========================================  ==================================================
plain        None, bool, int, float, str, bytes          one tag byte and the value
arrow-...    pyarrow Table, RecordBatch, (Chunked)Array  an Arrow IPC stream, which holds no more than a slice shows
polars-...   polars DataFrame, Series                    polars' own IPC stream
pickle       everything else, pandas included            pickle protocol 5, large buffers beside the stream
===========  ==========================================  ==================================================

Only a pickle executes code when it is loaded; only a pickle is signed. A subclass of one of these types is something else and
is pickled.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.store import pickling
from stepwell.kernel_runtime.store.describing import type_name

PICKLE = "pickle"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value's stored form: a stream, and buffers that are data and nothing else."""

    codec: str
    stream: bytes
    buffers: Sequence[memoryview] = ()
    classes: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of stream and buffers."""
        return len(self.stream) + sum(buffer.nbytes for buffer in self.buffers)


def encode(value: Any, *, key: str, class_version: pickling.ClassVersion | None = None) -> Encoded:
    """Return the stored form of a value.

    Raises
    ------
    UnstorableValueError
        If no codec can bring it back.
    """
    kind = type(value)
    plain = _PLAIN.get(kind)
    if plain is not None:
        return Encoded("plain", plain(value))
    module = kind.__module__
    if module.startswith("pyarrow."):
        found = _arrow(value)
        if found is not None:
            return found
    elif module.startswith("polars."):
        found = _polars(value, key)
        if found is not None:
            return found
    stream, buffers, classes = pickling.dump(value, key=key, class_version=class_version)
    return Encoded(PICKLE, stream, buffers, classes)


def decode(codec: str, stream: bytes | memoryview, buffers: Sequence[Any], *, key: str) -> Any:
    """Return the value; a pickle must have been found trustworthy before.

    Raises
    ------
    ValueUnavailableError
        If the stored form is damaged, or names what is not here.
    """
    if codec == PICKLE:
        return pickling.load(stream, buffers, key=key)
    try:
        if codec == "plain":
            return _plain_value(bytes(stream))
        if codec.startswith("arrow-"):
            return _arrow_value(codec, buffers[0])
        if codec.startswith("polars-"):
            return _polars_value(codec, buffers[0])
    except Exception as error:
        raise ValueUnavailableError(
            f"the stored value of {key!r} is damaged",
            where=f"{type(error).__name__}: {error}",
            remedy=f"materialize {key!r} again",
        ) from error
    raise ValueUnavailableError(
        f"the stored value of {key!r} is in a form that this Stepwell does not know ({codec})",
        remedy=f"upgrade: pip install -U stepwell; or materialize {key!r} again",
    )


# -- plain scalars ---------------------------------------------------------------------------------------------------

_PLAIN: dict[type, Any] = {
    type(None): lambda value: b"N",  # noqa: ARG005 - one signature for all
    bool: lambda value: b"T" if value else b"F",
    # Hexadecimal: Python limits the length of decimal conversions only.
    int: lambda value: b"i%x" % value if value >= 0 else b"i-%x" % -value,
    float: lambda value: b"f" + struct.pack("<d", value),
    str: lambda value: b"s" + value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: b"b" + value,
}


def _plain_value(data: bytes) -> Any:
    tag, rest = data[:1], data[1:]
    if tag == b"s":
        return rest.decode("utf-8", "surrogatepass")
    if tag == b"i":
        return int(rest, 16)
    if tag == b"f":
        return struct.unpack("<d", rest)[0]
    if tag == b"b":
        return rest
    return {b"N": None, b"T": True, b"F": False}[data]


# -- pyarrow ---------------------------------------------------------------------------------------------------------


def _arrow(value: Any) -> Encoded | None:
    import pyarrow as pa

    kind = type(value)
    if kind is pa.Table:
        return Encoded("arrow-table", b"", [_arrow_stream(value.schema, value.to_batches())])
    if kind is pa.RecordBatch:
        return Encoded("arrow-batch", b"", [_arrow_stream(value.schema, [value])])
    if kind is pa.ChunkedArray:
        batches = [pa.RecordBatch.from_arrays([chunk], names=[""]) for chunk in value.chunks]
        return Encoded("arrow-chunked", b"", [_arrow_stream(pa.schema([("", value.type)]), batches)])
    if isinstance(value, pa.Array):
        batch = pa.RecordBatch.from_arrays([value], names=[""])
        return Encoded("arrow-array", b"", [_arrow_stream(batch.schema, [batch])])
    return None


def _arrow_stream(schema: Any, batches: Sequence[Any]) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _arrow_value(codec: str, data: Any) -> Any:
    import pyarrow as pa

    reader = pa.ipc.open_stream(pa.py_buffer(data))
    batches = list(reader)
    if codec == "arrow-table":
        return pa.Table.from_batches(batches, reader.schema)
    if codec == "arrow-batch":
        return batches[0]
    if codec == "arrow-array":
        return batches[0].column(0)
    return pa.chunked_array([batch.column(0) for batch in batches], type=reader.schema.field(0).type)


# -- polars ----------------------------------------------------------------------------------------------------------


def _polars(value: Any, key: str) -> Encoded | None:
    import polars as pl

    kind = type(value)
    if kind is pl.DataFrame:
        codec, frame = "polars-frame", value
    elif kind is pl.Series:
        codec, frame = "polars-series", value.to_frame()
    else:
        return None
    sink = io.BytesIO()
    try:
        if any(map(_has_objects, frame.dtypes)):
            # polars writes the addresses of the objects.
            raise TypeError("a column holds Python objects")  # noqa: TRY301 - explained below, like polars' own refusals
        frame.write_ipc_stream(sink, compression="uncompressed", compat_level=pl.CompatLevel.newest())
    except BaseException as error:
        # A panic of polars' engine is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UnstorableValueError(
            f"the value of {key!r} cannot be stored: polars cannot write this {type_name(value)}",
            where=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            remedy=pickling.POLARS_REMEDY,
        ) from error
    return Encoded(codec, b"", [sink.getbuffer()])


def _has_objects(dtype: Any) -> bool:
    inner = [getattr(dtype, "inner", None), *[field.dtype for field in getattr(dtype, "fields", ())]]
    return dtype.base_type().__name__ == "Object" or any(_has_objects(each) for each in inner if each is not None)


def _polars_value(codec: str, data: Any) -> Any:
    import polars as pl

    frame = pl.read_ipc_stream(io.BytesIO(data))
    return frame if codec == "polars-frame" else frame.to_series(0)

"""The value of record, chosen by exact type: it must come back the same.

===========  ==========================================  ==================================================
codec        for                                         stored form
===========  ==========================================  ==================================================
plain        None, bool, int, float, str, bytes          one tag byte and the value
pickle       a path                                      a frame with the path, the contents of the file beside it
arrow-...    pyarrow Table, RecordBatch, (Chunked)Array  an Arrow IPC stream, which holds no more than a slice shows
polars-...   polars DataFrame, Series                    polars' own IPC stream; which columns are known to be sorted;
                                                         with numbers of 128 bits, pickle
pickle       everything else, pandas included            pickle protocol 5, large buffers beside the stream; in a frame
                                                         with copies of the notebook's classes if it names any
===========  ==========================================  ==================================================

Only a pickle executes code when it is loaded; only a pickle is signed. A subclass of one of these types is something else and
is pickled.

A small value is stored in its row without a header (`pack`): number of buffers, size and writability of each, the stream, the buffers.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueDamagedError, ValueUnavailableError
from stepwell.kernel_runtime.path_contents import PATH
from stepwell.kernel_runtime.records.materializations import Linked
from stepwell.kernel_runtime.records.runs import Notice, notice
from stepwell.kernel_runtime.store.objects.digests import blake, combined
from stepwell.kernel_runtime.store.values import path_results, pickling, structure
from stepwell.kernel_runtime.store.values.loading import CodeReader, Loading, libraries_of, library_difference
from stepwell.kernel_runtime.store.values.structure import type_name

PICKLE = "pickle"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value's stored form: a stream, and buffers that are data and nothing else."""

    codec: str
    stream: bytes
    buffers: Sequence[memoryview] = ()
    classes: tuple[tuple[str, str], ...] = ()
    """Classes and functions of the notebook that it names, each with its code version; libraries that wrote it, each with its own."""
    notices: tuple[Notice, ...] = ()
    """Lines for who stored it."""
    kinds: tuple[type, ...] = ()
    """Types in it, apart from plain data: whether it comes back depends on them (`round_trip`)."""
    copies: bool = False
    """Whether it names classes or functions of the notebook."""

    @property
    def size(self) -> int:
        """Bytes of stream and buffers."""
        return len(self.stream) + sum(buffer.nbytes for buffer in self.buffers)


_NO_CODE = CodeReader()
_NOWHERE = Loading()


def encode(value: Any, *, key: str, code: CodeReader = _NO_CODE, portable: bool = False) -> Encoded:
    """Return the stored form of a value.

    Parameters
    ----------
    portable
        Whether pickle alone must be able to bring the value to another process.

    Raises
    ------
    UnstorableValueError
        If no codec can bring it back.
    """
    kind = type(value)
    link = None
    if kind is Linked:
        value, link = value.value, value.link
        kind = type(value)
    plain = _PLAIN.get(kind)
    if plain is not None:
        return Encoded("plain", plain(value))
    module = kind.__module__
    if module.startswith("pyarrow."):
        found = _arrow(value)
        if found is not None:
            return replace(found, classes=libraries_of(("pyarrow",), code.owner))
    elif module.startswith("polars."):
        found = _polars(value, key)
        if found is not None:
            return replace(found, classes=libraries_of(("polars",), code.owner))
    if kind is PATH:
        head, buffers, notices = path_results.dump(value, key=key)
        return Encoded(PICKLE, pickling.framed(pickling.Frame(head, b"", b"")), buffers, notices=notices)
    pickled = pickling.dump(value, key=key, code=code, link=link, portable=portable)
    advice = tuple(notice("class inside", key, name=name) for name in dict.fromkeys(pickled.inside))
    classes = (*pickled.named, *pickled.libraries)
    return Encoded(PICKLE, pickled.stream, pickled.buffers, classes, advice, pickled.kinds, bool(pickled.named))


def decode(
    codec: str, stream: bytes | memoryview, buffers: Sequence[Any], *, key: str, loading: Loading = _NOWHERE
) -> Any:
    """Return the value; a pickle must have been found trustworthy before.

    Raises
    ------
    ValueDamagedError
        If the stored form is damaged.
    ValueUnavailableError
        If it names what is not here.
    """
    if codec == PICKLE:
        return pickling.load(stream, buffers, key=key, loading=loading)
    try:
        if codec == "plain":
            return _plain_value(bytes(stream))
        if codec.startswith("arrow-"):
            return _arrow_value(codec, bytes(stream), buffers[0], check=loading.check)
        if codec.startswith("polars-"):
            return _polars_value(codec, bytes(stream), buffers[0], check=loading.check)
    except (KeyboardInterrupt, MemoryError):
        raise
    except ExtensionMissingError as error:
        raise ValueUnavailableError(
            f"the stored value of {key!r} needs the Arrow extension type {error}, which is not registered here",
            remedy=f"register it first (pyarrow.register_extension_type), or materialize {key!r} again",
        ) from error
    except BaseException as error:
        # A panic of polars' engine is no Exception.
        other = library_difference(loading.written, loading.code.owner)
        kind = ValueUnavailableError if other else ValueDamagedError
        raise kind(
            f"the stored value of {key!r} {f'cannot be loaded{other}' if other else 'is damaged'}",
            where=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            remedy=f"materialize {key!r} again",
        ) from error
    raise ValueUnavailableError(
        f"the stored value of {key!r} is in a form that this Stepwell does not know ({codec})",
        remedy=f"upgrade: pip install -U stepwell; or materialize {key!r} again",
    )


class ExtensionMissingError(Exception):
    """An extension type that the value has and that is not registered here."""


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
        return _arrow_stream("arrow-table", value.schema, value.to_batches())
    if kind is pa.RecordBatch:
        return _arrow_stream("arrow-batch", value.schema, [value])
    if kind is pa.ChunkedArray:
        batches = [pa.RecordBatch.from_arrays([chunk], names=[""]) for chunk in value.chunks]
        return _arrow_stream("arrow-chunked", pa.schema([("", value.type)]), batches)
    if isinstance(value, pa.Array):
        batch = pa.RecordBatch.from_arrays([value], names=[""])
        return _arrow_stream("arrow-array", batch.schema, [batch])
    return None


def _arrow_stream(codec: str, schema: Any, batches: Sequence[Any]) -> Encoded:
    import pyarrow as pa

    found = _extensions(schema.types)
    names = sorted({each.extension_name for each in found})
    if any(map(_has_views, schema.types)):
        batches = [
            pa.RecordBatch.from_arrays([_compacted(column) for column in batch.columns], schema=schema)
            for batch in batches
        ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    # Where a type of the user's is not registered, Arrow gives its storage in its place and says nothing.
    stream = "\n".join(names).encode()
    return Encoded(codec, stream, [memoryview(sink.getvalue())], kinds=tuple({type(each) for each in found}))


def _extensions(kinds: Iterable[Any]) -> list[Any]:
    """Return the extension types among some types and inside them."""
    import pyarrow as pa

    found = []
    for kind in kinds:
        inner = [kind.field(at).type for at in range(kind.num_fields)]
        if isinstance(kind, pa.BaseExtensionType):
            found.append(kind)
            inner.append(kind.storage_type)
        elif isinstance(kind, pa.DictionaryType):
            inner.append(kind.value_type)
        found += _extensions(inner)
    return found


def _has_views(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return True
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return True
    return any(_has_views(kind.field(at).type) for at in range(kind.num_fields))


def _compacted(array: Any) -> Any:
    """Return an array of views without what it does not show: Arrow writes all that a slice was cut from."""
    import pyarrow as pa

    # Lists are cut to what is shown by this, texts by becoming plain ones for a moment.
    cut = pa.concat_arrays([array, array.slice(0, 0)])
    try:
        whole = cut.cast(_without_views(array.type))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return cut
    return whole.cast(array.type) if whole.nbytes < cut.get_total_buffer_size() else cut


def _without_views(kind: Any) -> Any:
    import pyarrow as pa

    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    fields = [kind.field(at).with_type(_without_views(kind.field(at).type)) for at in range(kind.num_fields)]
    if types.is_struct(kind):
        return pa.struct(fields)
    if types.is_fixed_size_list(kind):
        return pa.list_(fields[0], kind.list_size)
    if types.is_list(kind):
        return pa.list_(fields[0])
    return pa.large_list(fields[0]) if types.is_large_list(kind) else kind


def _arrow_value(codec: str, extensions: bytes, data: Any, *, check: bool) -> Any:
    import pyarrow as pa

    if check:
        schema, batches = structure.arrow_batches(data)
    else:
        reader = pa.ipc.open_stream(pa.py_buffer(data))
        schema, batches = reader.schema, list(reader)
    if extensions:
        here = {each.extension_name for each in _extensions(schema.types)}
        missing = [name for name in extensions.decode().split("\n") if name not in here]
        if missing:
            raise ExtensionMissingError(", ".join(missing))
    if codec == "arrow-table":
        return pa.Table.from_batches(batches, schema)
    if codec == "arrow-batch":
        return batches[0]
    if codec == "arrow-array":
        return batches[0].column(0)
    return pa.chunked_array([batch.column(0) for batch in batches], type=schema.field(0).type)


# -- polars ----------------------------------------------------------------------------------------------------------


_MOST_HIDDEN = 1 << 16
"""Bytes that a slice may be stored larger than it is before that is looked into."""


def _polars(value: Any, key: str) -> Encoded | None:
    import polars as pl

    kind = type(value)
    if kind is pl.DataFrame:
        codec, frame = "polars-frame", value
    elif kind is pl.Series:
        codec, frame = "polars-series", value.to_frame()
    else:
        return None
    if any([_holds(dtype, _UNCHECKABLE) for dtype in frame.dtypes]):  # noqa: C419 - a list is quicker for a few
        return None
    try:
        if any([_holds(dtype, _OBJECTS) for dtype in frame.dtypes]):  # noqa: C419 - likewise
            # polars writes the addresses of the objects.
            raise TypeError("a column holds Python objects")  # noqa: TRY301 - explained below, like polars' own refusals
        data = _ipc(frame, pl.CompatLevel.newest())
        if len(data) > _MOST_HIDDEN + 4 * frame.estimated_size() and any(map(_is_nested, frame.dtypes)):
            # Texts in lists and structs are written with all that a slice was cut from; the older form has what is shown.
            small = pl.read_ipc_stream(io.BytesIO(_ipc(frame, pl.CompatLevel.oldest())))
            if small.schema == frame.schema and small.equals(frame, null_equal=True):
                data = _ipc(small, pl.CompatLevel.newest())
    except BaseException as error:
        # A panic of polars' engine is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UnstorableValueError(
            f"the value of {key!r} cannot be stored: polars cannot write this {type_name(value)}",
            where=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            remedy=pickling.POLARS_REMEDY,
        ) from error
    extension = getattr(pl, "BaseExtension", ())
    kinds = tuple({type(dtype) for dtype in frame.dtypes if isinstance(dtype, extension)})
    return Encoded(codec, _sorted_columns(frame), [data], kinds=kinds)


def _ipc(frame: Any, level: Any) -> memoryview:
    sink = io.BytesIO()
    frame.write_ipc_stream(sink, compression="uncompressed", compat_level=level)
    return sink.getbuffer()


def _sorted_columns(frame: Any) -> bytes:
    """Return a letter for each column: whether it is known to be sorted, and how; nothing if none is."""
    flags = [column.flags for column in frame.get_columns()]
    found = b"".join([b"a" if each["SORTED_ASC"] else b"d" if each["SORTED_DESC"] else b"-" for each in flags])
    return found if found.strip(b"-") else b""


def _is_nested(dtype: Any) -> bool:
    return bool(dtype.is_nested())


_OBJECTS = frozenset(("Object",))
_UNCHECKABLE = frozenset(("Int128", "UInt128"))
"""Types that pyarrow does not read, so that it cannot check the stream: their frames are pickled, and so signed."""


def _holds(dtype: Any, names: frozenset[str]) -> bool:
    """Return whether a type is, or is made of, one of some names."""
    inner = [getattr(dtype, "inner", None), *[field.dtype for field in getattr(dtype, "fields", ())]]
    return dtype.base_type().__name__ in names or any(_holds(each, names) for each in inner if each is not None)


def _is_sorted(column: Any, *, descending: bool) -> bool:
    try:
        return any(column.is_sorted(descending=descending, nulls_last=last) for last in (False, True))
    except Exception:
        # Without the mark the values are the same.
        return False


def _polars_value(codec: str, sorted_columns: bytes, data: Any, *, check: bool) -> Any:
    import polars as pl

    if check:
        structure.arrow_batches(data)
    frame = pl.read_ipc_stream(io.BytesIO(data))
    known = [
        column.set_sorted(descending=letter == "d")
        for column, letter in zip(frame.get_columns(), sorted_columns.decode("ascii"), strict=False)
        if letter != "-" and (not check or _is_sorted(column, descending=letter == "d"))
    ]
    if known:
        frame = frame.with_columns(known)
    return frame if codec == "polars-frame" else frame.to_series(0)


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

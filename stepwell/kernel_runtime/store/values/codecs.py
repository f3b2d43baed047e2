"""Encoding and decoding of values. The exact type of a value determines its codec. A loaded value must equal the original.

===========  ==========================================  ==================================================
codec        types                                       stored form
===========  ==========================================  ==================================================
plain        None, bool, int, float, str, bytes          one tag byte and the value
pickle       a path                                      a framed pickle (`pickling`) with the path, and the contents of
                                                         the file as a buffer (`path_results`)
arrow-...    pyarrow Table, RecordBatch, (Chunked)Array  an Arrow IPC stream; for a slice of a longer array, it
                                                         contains only the data of the slice
polars-...   polars DataFrame, Series                    polars' IPC stream, and a note of which columns are sorted
                                                         (values with 128-bit integers are pickled instead)
pickle       all others, including pandas                pickle protocol 5 with large buffers out of band; if the value
                                                         refers to classes or functions of the notebook, a framed
                                                         pickle that also contains copies of them
===========  ==========================================  ==================================================

Subclasses of the types in this table are pickled. A load executes code only if the stored form is a pickle, so only pickles are signed.

A small value is stored in its catalog row (`pack`), without the header that a value file has.
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
    """The stored form of a value: a stream, which the codec interprets, and buffers with the large blocks of memory."""

    codec: str
    stream: bytes
    buffers: Sequence[memoryview] = ()
    classes: tuple[tuple[str, str], ...] = ()
    """Two kinds of pairs. For each class and function of the notebook in the value: its name and its code version. For each library from which
    other objects in the value come: its top-level module and its version, such as ``("sklearn", "scikit-learn 1.9.1")``."""
    notices: tuple[Notice, ...] = ()
    """Notices for the user who stores the value."""
    kinds: tuple[type, ...] = ()
    """The types of the objects in the value, without the types of plain data. They decide whether the value needs a test load
    (`round_trip`)."""
    copies: bool = False
    """True if the value refers to classes or functions of the notebook."""

    @property
    def size(self) -> int:
        """Size of the stream and the buffers, in bytes."""
        return len(self.stream) + sum(buffer.nbytes for buffer in self.buffers)


_NO_CODE = CodeReader()
_NOWHERE = Loading()


def encode(value: Any, *, key: str, code: CodeReader = _NO_CODE, portable: bool = False) -> Encoded:
    """Return the stored form of a value.

    Parameters
    ----------
    value
        The value, or a `Linked` if some objects in the value are stored as links to objects of the notebook.
    key
        The asset's key, for messages.
    code
        Functions that compute the code versions of the notebook's classes and functions in the value, and recognize secrets.
    portable
        True to refuse exception objects that plain pickle cannot transfer to another process; False to store them, too.

    Returns
    -------
    Encoded
        The stored form.

    Raises
    ------
    UnstorableValueError
        If no codec can store the value.
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
        encoded = _arrow(value)
        if encoded is not None:
            return replace(encoded, classes=libraries_of(("pyarrow",), code.owner))
    elif module.startswith("polars."):
        encoded = _polars(value, key)
        if encoded is not None:
            return replace(encoded, classes=libraries_of(("polars",), code.owner))
    if kind is PATH:
        head, buffers, notices = path_results.dump(value, key=key)
        return Encoded(PICKLE, pickling.framed(pickling.Frame(head, b"", b"")), buffers, notices=notices)
    pickled = pickling.dump(value, key=key, code=code, link=link, portable=portable)
    advice = tuple(notice("class inside", key, name=name) for name in dict.fromkeys(pickled.inner_classes))
    classes = (*pickled.named_versions, *pickled.libraries)
    return Encoded(PICKLE, pickled.stream, pickled.buffers, classes, advice, pickled.kinds, bool(pickled.named_versions))


def decode(codec: str, stream: bytes | memoryview, buffers: Sequence[Any], *, key: str, loading: Loading = _NOWHERE) -> Any:
    """Return the value of a stored form.

    If the codec is ``pickle``, the caller must verify the signature first, because this function executes code in the stream.

    Parameters
    ----------
    codec, stream, buffers
        The fields of an `Encoded`.
    key
        The asset's key, for messages.
    loading
        What a load needs besides the stored form.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueDamagedError
        If the stored form is damaged.
    ValueUnavailableError
        If the codec is unknown, or if a class, module or library version that the stored form needs is not available. The stored form may be
        intact.
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
            f"the stored value of {key!r} needs Arrow extension types that are not registered in this process: {error}",
            remedy=f"register the types with pyarrow.register_extension_type, or materialize {key!r} again",
        ) from error
    except BaseException as error:
        # A panic in the engine of polars is a BaseException, but not an Exception.
        other = library_difference(loading.libraries, loading.code.owner)
        kind = ValueUnavailableError if other else ValueDamagedError
        raise kind(
            f"the stored value of {key!r} {f'cannot be loaded{other}' if other else 'is damaged'}",
            where=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            remedy=f"materialize {key!r} again",
        ) from error
    raise ValueUnavailableError(
        f"this version of Stepwell cannot load the stored value of {key!r}: its codec {codec!r} is unknown",
        remedy=f"upgrade: pip install -U stepwell; or materialize {key!r} again",
    )


class ExtensionMissingError(Exception):
    """Raised if a stored Arrow value needs extension types that are not registered in this process. The message consists of their names."""


# -- plain scalars ---------------------------------------------------------------------------------------------------

_PLAIN: dict[type, Any] = {
    type(None): lambda value: b"N",  # noqa: ARG005 - all entries have the same signature
    bool: lambda value: b"T" if value else b"F",
    # Integers are hexadecimal, because Python limits the length of decimal conversions.
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

    extensions = _extensions(schema.types)
    names = sorted({extension.extension_name for extension in extensions})
    if any(map(_has_views, schema.types)):
        batches = [
            pa.RecordBatch.from_arrays([_compacted(column) for column in batch.columns], schema=schema) for batch in batches
        ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    # When Arrow reads a type that is not registered, it silently returns the storage type. `decode` detects this with the stored names.
    stream = "\n".join(names).encode()
    return Encoded(codec, stream, [memoryview(sink.getvalue())], kinds=tuple({type(extension) for extension in extensions}))


def _extensions(kinds: Iterable[Any]) -> list[Any]:
    """Return the extension types among the Arrow types ``kinds``, including those that are nested in list, struct and dictionary types."""
    import pyarrow as pa

    extensions = []
    for kind in kinds:
        inner = [kind.field(number).type for number in range(kind.num_fields)]
        if isinstance(kind, pa.BaseExtensionType):
            extensions.append(kind)
            inner.append(kind.storage_type)
        elif isinstance(kind, pa.DictionaryType):
            inner.append(kind.value_type)
        extensions += _extensions(inner)
    return extensions


def _has_views(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return True
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return True
    return any(_has_views(kind.field(number).type) for number in range(kind.num_fields))


def _compacted(array: Any) -> Any:
    """Return an array that equals ``array``. If ``array`` is a slice of a longer array, omit the data outside of the slice.

    Of a slice with string, binary or list views, Arrow would otherwise write all data of the longer array.
    """
    import pyarrow as pa

    # concat_arrays omits list items outside of the slice; casting to a type without views and back omits strings outside of it.
    cut = pa.concat_arrays([array, array.slice(0, 0)])
    try:
        compacted = cut.cast(_without_views(array.type))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return cut
    return compacted.cast(array.type) if compacted.nbytes < cut.get_total_buffer_size() else cut


def _without_views(kind: Any) -> Any:
    import pyarrow as pa

    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    fields = [kind.field(number).with_type(_without_views(kind.field(number).type)) for number in range(kind.num_fields)]
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
        registered = {extension.extension_name for extension in _extensions(schema.types)}
        missing = [name for name in extensions.decode().split("\n") if name not in registered]
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


_MAX_EXCESS = 1 << 16
"""If the stream of a frame with nested types is longer than four times the frame's estimated size plus this number of bytes, `_polars` tries to
shrink the stream."""


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
            # polars would write the addresses of the objects instead of the objects.
            raise TypeError("a column contains Python objects")  # noqa: TRY301 - reported below with the errors of polars
        data = _ipc(frame, pl.CompatLevel.newest())
        if len(data) > _MAX_EXCESS + 4 * frame.estimated_size() and any(map(_is_nested, frame.dtypes)):
            # For strings in lists and structs of a slice, polars' newest format also writes the rows outside the slice. The oldest does not.
            small = pl.read_ipc_stream(io.BytesIO(_ipc(frame, pl.CompatLevel.oldest())))
            if small.schema == frame.schema and small.equals(frame, null_equal=True):
                data = _ipc(small, pl.CompatLevel.newest())
    except BaseException as error:
        # A panic in the engine of polars is a BaseException, but not an Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UnstorableValueError(
            f"the value of {key!r}",
            f"polars cannot write this {type_name(value)}",
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
    """Return one letter for each column of a polars frame; empty if polars has marked no column as sorted.

    The letter is ``a`` if polars has marked the column as sorted in ascending order, ``d`` for descending order, and ``-`` if the column has no
    such mark.
    """
    flags = [column.flags for column in frame.get_columns()]
    letters = b"".join([b"a" if flag["SORTED_ASC"] else b"d" if flag["SORTED_DESC"] else b"-" for flag in flags])
    return letters if letters.strip(b"-") else b""


def _is_nested(dtype: Any) -> bool:
    return bool(dtype.is_nested())


_OBJECTS = frozenset(("Object",))
_UNCHECKABLE = frozenset(("Int128", "UInt128"))
"""polars types that pyarrow cannot read, so that a load cannot validate them. Frames with these types are pickled and therefore signed."""


def _holds(dtype: Any, names: frozenset[str]) -> bool:
    """Return True if ``names`` contains the name of the polars type ``dtype`` or of a type nested in it."""
    inner = [getattr(dtype, "inner", None), *[field.dtype for field in getattr(dtype, "fields", ())]]
    return dtype.base_type().__name__ in names or any(
        _holds(dtype_inside, names) for dtype_inside in inner if dtype_inside is not None
    )


def _is_sorted(column: Any, *, descending: bool) -> bool:
    try:
        return any(column.is_sorted(descending=descending, nulls_last=last) for last in (False, True))
    except Exception:
        # Without the mark, polars only loses an optimization.
        return False


def _polars_value(codec: str, sorted_columns: bytes, data: Any, *, check: bool) -> Any:
    import polars as pl

    if check:
        structure.arrow_batches(data)
    frame = pl.read_ipc_stream(io.BytesIO(data))
    columns = [
        column.set_sorted(descending=letter == "d")
        for column, letter in zip(frame.get_columns(), sorted_columns.decode("ascii"), strict=False)
        if letter != "-" and (not check or _is_sorted(column, descending=letter == "d"))
    ]
    if columns:
        frame = frame.with_columns(columns)
    return frame if codec == "polars-frame" else frame.to_series(0)


def inline_digest(codec: str, stream: bytes | memoryview, buffers: Sequence[memoryview]) -> str:
    """Return the digest of an inline value. The digest of a value file is computed by `Header.digest` instead."""
    if not buffers:
        return blake(b"".join((codec.encode(), b" ", stream)))
    described = [(buffer.nbytes, blake(buffer), buffer.readonly) for buffer in buffers]
    return combined(codec, len(stream), blake(stream), described)


@dataclass(frozen=True, slots=True)
class Parts:
    """The stream and the buffers that were read from a value file or an inline value, as arguments for `decode`."""

    stream: bytes | memoryview
    buffers: list[memoryview]
    unchecked: os.stat_result | None = None
    """If the load must validate the structure of a value file: the status of the file, obtained before the file was read. Otherwise None. For an
    inline value, this is None, too, although its structure is always validated."""


def pack(encoded: Encoded) -> bytes:
    """Return the bytes that store a value in its catalog row.

    If the value has no buffers, the bytes are two zero bytes and the stream. Otherwise they are, in this order: the number of buffers, the size of
    the stream, the size and the read-only flag of each buffer, the stream, and the buffers.
    """
    if not encoded.buffers:
        return b"\0\0" + encoded.stream
    head = struct.pack("<HI", len(encoded.buffers), len(encoded.stream))
    sizes = b"".join([struct.pack("<I?", buffer.nbytes, buffer.readonly) for buffer in encoded.buffers])
    return b"".join([head, sizes, encoded.stream, *encoded.buffers])


def unpack(data: bytes) -> Parts:
    """Return the stream and the buffers from the bytes that `pack` returned; raise ValueError or struct.error if the bytes are damaged.

    Buffers that were writable when the value was stored are copied, so that the loaded value is writable, too.
    """
    count = int.from_bytes(data[:2], "little")
    if not count:
        return Parts(data[2:], [])
    _, size = struct.unpack_from("<HI", data)
    offset = 6 + 5 * count
    if offset + size > len(data):
        raise ValueError("the sizes in an inline value do not match its length")
    view = memoryview(data)
    stream = view[offset : offset + size]
    offset += size
    buffers = []
    for index in range(count):
        length, readonly = struct.unpack_from("<I?", data, 6 + 5 * index)
        part = view[offset : offset + length]
        buffers.append(part if readonly else memoryview(bytearray(part)))
        offset += length
    if offset != len(data):
        raise ValueError("the sizes in an inline value do not match its length")
    return Parts(stream, buffers)


def can_pack(encoded: Encoded) -> bool:
    """Return True if a value has fewer than 65,536 buffers, so that `pack` can store it in its catalog row."""
    return len(encoded.buffers) < 1 << 16

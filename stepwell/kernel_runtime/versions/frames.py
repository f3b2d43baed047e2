"""The canonical forms of arrays and frames of numpy, pandas, polars, pyarrow and scipy.

A form contains types, shapes, names, order and all values. It does not depend on the memory layout: strides, blocks and chunks. Several
threads digest a large buffer.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import Any

LEAF = b"\x85"
"""The first byte of a finished encoding, to which `encode` adds no parts. Such an encoding contains, for example, a type, a shape and the digest of
a buffer."""
_LARGE = 1 << 18
_BLOCK = 1 << 17
"""Number of values in a block. Each block is checked for NaN and then digested, while it is in the cache of the processor."""

_FEW = 1 << 13
"""Maximum number of floats that are checked for NaN with one dot product. For more floats, numpy uses several threads, which takes longer than
the check of single blocks."""


def buffer_digest(*buffers: Any) -> bytes:
    """Return a 32-byte digest of the contents and lengths of contiguous buffers."""
    from blake3 import blake3

    hasher = blake3()
    for buffer in buffers:
        view = memoryview(buffer)
        size = view.nbytes
        hasher.update(size.to_bytes(8, "little"))
        if size:
            view = view.cast("B")
            hasher.update(blake3(view, max_threads=blake3.AUTO if size >= _LARGE else 1).digest())
    return bytes(hasher.digest())


class _Stream:
    """Computes the digest of a buffer that arrives in pieces. The result is equal to `buffer_digest` of the whole buffer.

    Parameters
    ----------
    size
        The size of the whole buffer in bytes.
    """

    def __init__(self, size: int) -> None:
        from blake3 import blake3

        self._size = size
        self._hasher = blake3(max_threads=blake3.AUTO if size >= _LARGE else 1)

    def update(self, piece: Any) -> None:
        """Add the next piece, a contiguous array."""
        if piece.nbytes:
            self._hasher.update(memoryview(piece).cast("B"))

    def digest(self) -> bytes:
        """Return the 32-byte digest after the last piece."""
        from blake3 import blake3

        size = self._size.to_bytes(8, "little")
        return bytes(blake3(size + self._hasher.digest() if self._size else size).digest())


def structure(value: Any) -> bytes | tuple[str, tuple[Any, ...]] | None:
    """Return the canonical form of a value of numpy, pandas, polars, pyarrow or scipy.

    Returns
    -------
    bytes or tuple or None
        The finished encoding, or the name and the parts of a form that `encode` then encodes. None for any other value.
    """
    kind = type(value)
    module = kind.__module__
    # `__module__` of a type made by Cython may be a descriptor.
    top = module.partition(".")[0] if type(module) is str else ""
    if top == "numpy":
        return _numpy(value, kind)
    if top == "pandas":
        return _pandas(value, kind)
    if top == "polars":
        return _polars(value, kind)
    if top == "pyarrow":
        return _arrow(value, kind)
    if top == "scipy":
        return _scipy(value, kind)
    return None


def _leaf(name: str, *parts: Any) -> bytes:
    return LEAF + marshal.dumps((name, *parts), 2)


# -- numpy ----------------------------------------------------------------------------------------------------------

_EXTENDED = 10
"""Number of bytes that hold the value of a long double on x86. The long double occupies 12 or 16 bytes; the remaining bytes are arbitrary."""
_EXTENDED_MANTISSA = 63
"""Number of mantissa bits of such a long double."""


def _numpy(value: Any, kind: type) -> bytes | tuple[str, tuple[Any, ...]] | None:
    np = sys.modules["numpy"]
    if kind is np.ndarray:
        dtype = value.dtype
        if dtype.hasobject or dtype.kind == "T":
            return "ndarray", (str(dtype), value.shape, value.ravel(order="C").tolist())
        if dtype.names:
            # Padding between fields is arbitrary.
            return "ndarray", (_dtype(dtype), value.shape, *(np.ascontiguousarray(value[name]) for name in dtype.names))
        return _leaf("ndarray", _dtype(dtype), value.shape, _array_digest(np, value))
    if isinstance(value, np.generic):
        if value.dtype.names or value.dtype.hasobject:
            return "numpy scalar", (_dtype(value.dtype), value.item())
        return _leaf("numpy scalar", _dtype(value.dtype), bytes(_bytes_of(np, np.asarray(value))))
    if isinstance(value, np.dtype):
        return ("dtype", (str(value),)) if value.hasobject else _leaf("dtype", _dtype(value))
    if kind is np.ma.MaskedArray:
        # Code can read the values under the mask (``.data``) and the attribute ``hardmask``.
        return "masked array", (np.asarray(value.data), np.ma.getmaskarray(value), value.fill_value, value.hardmask)
    return None


def _dtype(dtype: Any) -> str:
    return repr(dtype.descr) + repr(dtype.metadata or "") if dtype.names else dtype.str


def _array_digest(np: Any, value: Any) -> bytes:
    """Return the digest of the values of an array in C order. Every NaN is digested like ``np.nan``, whatever its bits are."""
    if value.dtype.kind in "fc" and value.size > _FEW and value.real.dtype.itemsize in {4, 8} and value.dtype.isnative:
        flat = np.ascontiguousarray(value).reshape(-1)
        return _floats_digest(np, flat.view(flat.real.dtype))
    return buffer_digest(_bytes_of(np, value))


def _floats_digest(np: Any, flat: Any) -> bytes:
    """Return the 32-byte digest of a one-dimensional array of floats. Every NaN is digested like ``np.nan``, whatever its bits are.

    A block of the array is copied only if it contains a NaN whose bits differ from those of ``np.nan``.
    """
    from blake3 import blake3

    width = flat.dtype.itemsize
    nan = np.array([np.nan], flat.dtype).view(f"u{width}")[0]
    bits = flat.view(f"u{width}")

    def of(start: int) -> bytes:
        block = flat[start : start + _BLOCK]
        missing = np.isnan(block)
        count = np.count_nonzero(missing)
        if count and count != np.count_nonzero(bits[start : start + _BLOCK] == nan):
            block = block.copy()
            block[missing] = np.nan
        return bytes(blake3(memoryview(block).cast("B")).digest())

    starts = range(0, len(flat), _BLOCK)
    threads = min(len(starts) // 4, os.cpu_count() or 1)
    if threads > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            blocks = list(pool.map(of, starts))
    else:
        blocks = [of(start) for start in starts]
    return buffer_digest(b"".join(blocks))


def _bytes_of(np: Any, value: Any) -> Any:
    """Return the bytes of the values of an array in C order; ``b""`` for an empty array.

    Every NaN is first replaced by ``np.nan``, because different NaNs may have different bits.
    """
    flat = np.ascontiguousarray(value).reshape(-1)
    if flat.dtype.kind in "fc" and flat.size:
        flat = _canonical_nan(np, flat)
        if flat.real.dtype.itemsize > _EXTENDED and np.finfo(flat.real.dtype).nmant == _EXTENDED_MANTISSA:
            # The last bytes of each long double are padding, whose content is arbitrary.
            flat = flat.view(np.uint8).reshape(-1, flat.real.dtype.itemsize).copy()
            flat[:, _EXTENDED:] = 0
            return flat.reshape(-1)
    return flat.view(np.uint8) if flat.nbytes else b""


def _canonical_nan(np: Any, flat: Any) -> Any:
    if flat.dtype.kind == "c":
        return _canonical_nan(np, flat.view(flat.real.dtype)).view(flat.dtype)
    # A sum is fast to compute, and is NaN if any of the values is NaN.
    with np.errstate(all="ignore"):
        total = flat.dot(flat) if flat.dtype.itemsize in {4, 8} else flat.sum()
    if total == total:  # noqa: PLR0124 - NaN differs from itself
        return flat
    missing = np.isnan(flat)
    if not missing.any():
        return flat
    flat = flat.copy()
    flat[missing] = np.nan
    return flat


# -- scipy ----------------------------------------------------------------------------------------------------------


def _scipy(value: Any, kind: type) -> tuple[str, tuple[Any, ...]] | None:
    sparse = sys.modules.get("scipy.sparse")
    if sparse is None or not sparse.issparse(value):
        return None
    # In attributes ``_has_...``, scipy caches properties of the indices, such as their order. The other attributes determine these properties.
    state = {name: attribute for name, attribute in sorted(vars(value).items()) if not name.startswith("_has_")}
    return "scipy." + kind.__name__, (kind, state)


# -- pandas ---------------------------------------------------------------------------------------------------------


def _pandas(value: Any, kind: type) -> bytes | tuple[str, tuple[Any, ...]] | None:
    pd = sys.modules["pandas"]
    if kind is pd.DataFrame:
        columns = tuple(_column(value.iloc[:, i]) for i in range(value.shape[1]))
        return "pandas.DataFrame", (
            value.columns,
            value.index,
            dict(value.attrs),
            value.flags.allows_duplicate_labels,
            *columns,
        )
    if kind is pd.Series:
        return "pandas.Series", (
            value.name,
            value.index,
            dict(value.attrs),
            value.flags.allows_duplicate_labels,
            _column(value),
        )
    if kind is pd.RangeIndex:
        return "pandas.RangeIndex", (value.start, value.stop, value.step, value.name)
    if kind is pd.MultiIndex:
        return "pandas.MultiIndex", (
            tuple(value.names),
            *(value.get_level_values(i) for i in range(value.nlevels)),
        )
    if isinstance(value, pd.Index):
        freq = getattr(value, "freqstr", None)
        return "pandas." + kind.__name__, (tuple(value.names), freq, _column(value))
    if kind is pd.Categorical:
        count = len(value.categories)
        narrow = next((f"int{bits}" for bits in (8, 16, 32) if count < 1 << bits - 1), "int64")
        return "pandas.Categorical", (value.codes.astype(narrow, copy=False), value.categories, bool(value.ordered))
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return _extension(value)
    if kind is pd.Timestamp:
        return "pandas.Timestamp", (
            value.value,
            value.unit,
            str(value.tz) if value.tz is not None else None,
            value.fold,
        )
    if kind is pd.Timedelta:
        return "pandas.Timedelta", (value.value, value.unit)
    if value is pd.NaT or value is pd.NA:
        return _leaf("pandas." + str(value))
    if isinstance(value, pd.api.extensions.ExtensionDtype):
        return _leaf("pandas dtype", str(value), repr(value))
    return None


def _column(series: Any) -> Any:
    """Return the values of a series or index as a numpy array or an extension array."""
    values = series.array
    numpy = getattr(values, "_ndarray", None)
    if type(values).__name__ == "NumpyExtensionArray" and numpy is not None:
        return numpy
    return values


def _extension(value: Any) -> bytes | tuple[str, tuple[Any, ...]] | None:
    name = type(value).__name__
    dtype = str(value.dtype)
    arrow = getattr(value, "_pa_array", None)
    if arrow is not None:
        return "pandas." + name, (dtype, repr(value.dtype), arrow)
    if hasattr(value, "_mask") and hasattr(value, "_data"):
        data = value._data.copy()  # noqa: SLF001 - the public API does not expose the arbitrary values below the mask
        data[value._mask] = 0  # noqa: SLF001 - as above
        return "pandas." + name, (dtype, data, value._mask)  # noqa: SLF001 - as above
    if name in {"DatetimeArray", "TimedeltaArray", "PeriodArray"}:
        return "pandas." + name, (dtype, value.asi8)
    if name == "IntervalArray":
        return "pandas." + name, (dtype, value.left, value.right)
    if name == "SparseArray":
        return "pandas." + name, (dtype, value.to_dense())
    if name.startswith(("StringArray", "NumpyExtension", "ObjectStringArray")):
        return "pandas." + name, (dtype, repr(value.dtype), value.to_numpy(dtype=object))
    return None


# -- polars and pyarrow ---------------------------------------------------------------------------------------------


def _polars(value: Any, kind: type) -> bytes | tuple[str, tuple[Any, ...]] | None:
    pl = sys.modules["polars"]
    if kind is pl.DataFrame:
        return "polars.DataFrame", (value.height, *value.get_columns())
    if kind is pl.Series:
        if value.dtype == pl.Object:
            return "polars.Series", (value.name, "Object", value.to_list())
        if value.dtype in {pl.Int128, pl.UInt128}:
            # Arrow has no integers of 128 bits.
            return "polars.Series", (value.name, repr(value.dtype), value.cast(pl.String).to_arrow())
        return "polars.Series", (value.name, repr(value.dtype), value.to_arrow())
    return None


def _arrow(value: Any, kind: type) -> bytes | tuple[str, tuple[Any, ...]] | None:
    pa = sys.modules["pyarrow"]
    if kind is pa.Table or kind is pa.RecordBatch:
        schema = value.schema
        metadata = dict(schema.metadata) if schema.metadata else None
        fields = tuple(
            (field.name, str(field.type), field.nullable, dict(field.metadata) if field.metadata else None) for field in schema
        )
        return f"pyarrow.{kind.__name__}", (value.num_rows, fields, metadata, *value.columns)
    if isinstance(value, pa.ChunkedArray):
        # The division into chunks is not encoded: the encoding is the same as for one contiguous array.
        if _is_text(pa, value.type):
            return _leaf("pyarrow.ChunkedArray", _text(pa, value.chunks, value.type))
        return "pyarrow.ChunkedArray", (str(value.type), _without_offset(pa, value))
    if isinstance(value, pa.Array):
        return _array(pa, value)
    if isinstance(value, pa.Schema):
        return "pyarrow.Schema", (value.serialize().to_pybytes(),)
    if isinstance(value, pa.DataType):
        return _leaf("pyarrow type", str(value))
    if isinstance(value, pa.Scalar):
        return "pyarrow.Scalar", (str(value.type), value.as_py())
    return None


def _without_offset(pa: Any, value: Any) -> Any:
    if value.num_chunks == 1:
        return value.chunk(0)
    if value.num_chunks == 0:
        return pa.array([], type=value.type)
    return pa.concat_arrays(value.chunks)


def _array(pa: Any, value: Any) -> bytes | tuple[str, tuple[Any, ...]]:
    """Return the encoding of an Arrow array, or the name and the parts of a form that `encode` then encodes.

    The result states which items are null, and contains the values of the other items. It does not contain the bytes that Arrow keeps for null items.
    """
    types = pa.types
    kind = value.type
    valid = value.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False) if value.null_count else None
    name = "pyarrow.Array"
    if types.is_dictionary(kind):
        return name, (str(kind), len(value), valid, value.dictionary_decode())
    if types.is_null(kind):
        return name, (str(kind), len(value))
    if isinstance(value, pa.ExtensionArray):
        return name, (str(kind), value.storage)
    if _is_text(pa, kind):
        return _text(pa, [value], kind)
    if types.is_struct(kind):
        return name, (
            str(kind),
            len(value),
            valid,
            *(value.field(i) if not value.null_count else value.flatten()[i] for i in range(kind.num_fields)),
        )
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind) or types.is_fixed_size_list(kind):
        lengths = (
            value.value_lengths()
            if not types.is_map(kind)
            else pa.array([None if item is None else len(item) for item in value.to_pylist()])
        )
        if types.is_map(kind):
            return name, (str(kind), len(value), valid, lengths, value.to_pylist())
        return name, (str(kind), len(value), valid, lengths, value.flatten())
    if types.is_boolean(kind):
        return name, (
            str(kind),
            len(value),
            valid,
            value.fill_null(False).cast(pa.uint8()).to_numpy(zero_copy_only=False),
        )
    if types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        return _fixed(pa, value, str(kind), valid)
    return name, (str(kind), len(value), value.to_pylist())


def _fixed(pa: Any, value: Any, kind: str, valid: Any) -> bytes | tuple[str, tuple[Any, ...]]:
    np = __import__("numpy")
    width = value.type.bit_width // 8
    data = value.buffers()[1]
    raw = (
        np.frombuffer(data, np.uint8)[value.offset * width : (value.offset + len(value)) * width]
        if data is not None
        else np.zeros(0, np.uint8)
    )
    if valid is None and pa.types.is_floating(value.type) and width in {4, 8} and len(value) > _FEW:
        return _leaf("pyarrow.Array", kind, len(value), _floats_digest(np, raw.view(f"f{width}")), None)
    if pa.types.is_floating(value.type) and width in {2, 4, 8}:
        raw = _canonical_nan(np, raw.view(f"f{width}")).view(np.uint8)
    if valid is not None:
        raw = raw.copy().reshape(len(value), width)
        raw[valid == 0] = 0
        raw = raw.reshape(-1)
    return _leaf("pyarrow.Array", kind, len(value), buffer_digest(raw), None if valid is None else buffer_digest(valid))


def _is_text(pa: Any, kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
        or types.is_string_view(kind) or types.is_binary_view(kind)
    )  # fmt: skip


def _text(pa: Any, chunks: list[Any], kind: Any) -> bytes:
    """Return the encoding of the strings in `chunks`: the joined text, the place in it where each string ends, and which strings are null.

    The encoding is the same for every division of the strings into chunks.
    """
    np = __import__("numpy")
    valid = None
    if any(chunk.null_count for chunk in chunks):
        valid = buffer_digest(_as_bits(np, pa.concat_arrays([chunk.is_valid() for chunk in chunks])))
    chunks = [_without_hidden_text(pa, _wide(pa, chunk)) for chunk in chunks]
    ends = []
    texts = []
    for chunk in chunks:
        _, offsets, data = chunk.buffers()
        empty = offsets is None or not len(chunk)
        where = np.zeros(1, np.int64) if empty else np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        first, last = int(where[0]), int(where[-1])
        ends.append(where)
        texts.append(np.frombuffer(data, np.uint8)[first:last] if data is not None and last > first else np.zeros(0, np.uint8))
    count = sum(map(len, chunks))
    places = _Stream(8 * (count + 1))
    text = _Stream(sum(len(piece) for piece in texts))
    start = 0
    places.update(np.zeros(1, np.int64))
    for where, piece in zip(ends, texts, strict=True):
        moved = start - int(where[0])
        for begin in range(1, len(where), _BLOCK):
            block = where[begin : begin + _BLOCK]
            places.update(block + moved if moved else block)
        text.update(piece)
        start += len(piece)
    return _leaf("pyarrow.Array", str(kind), count, places.digest(), text.digest(), valid)


def _wide(pa: Any, value: Any) -> Any:
    types = pa.types
    kind = value.type
    wide = (
        pa.large_binary()
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
        else pa.large_string()
    )
    return value.cast(wide) if kind != wide else value


def _without_hidden_text(pa: Any, value: Any) -> Any:
    """Return `value`, an array of strings, without the text that its buffer may contain for nulls."""
    if not value.null_count:
        return value
    np = __import__("numpy")
    validity, offsets, _ = value.buffers()
    where = np.frombuffer(offsets, np.int64)[value.offset : value.offset + len(value) + 1]
    bits = np.frombuffer(validity, np.uint8)
    for start in range(0, len(value), _BLOCK):
        ends = where[start : start + _BLOCK + 1]
        before = (value.offset + start) % 8
        first = (value.offset + start) // 8
        valid = np.unpackbits(bits[first : first + _BLOCK // 8 + 1], bitorder="little")[before : before + len(ends) - 1]
        has_text = ends[1:] != ends[:-1]
        if (has_text.view(np.uint8) > valid).any():
            return value.fill_null(b"" if pa.types.is_large_binary(value.type) else "")
    return value


def _as_bits(np: Any, valid: Any) -> Any:
    """Return `valid`, an Arrow array of booleans without nulls, as bits, eight per byte. The unused bits of the last byte are zero."""
    if valid.offset:
        return np.packbits(valid.cast("uint8").to_numpy(zero_copy_only=False), bitorder="little")
    bits = np.frombuffer(valid.buffers()[1], np.uint8)[: (len(valid) + 7) // 8].copy()
    if len(valid) % 8:
        bits[-1] &= (1 << len(valid) % 8) - 1
    return bits

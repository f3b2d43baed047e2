"""The canonical forms of arrays and frames: what they hold, not how it lies in memory.

Strides, blocks and chunks do not count; types, shapes, names, order and every value do. A large buffer is digested by
several threads at once.
"""

from __future__ import annotations

import marshal
import sys
from typing import Any

_LARGE = 1 << 18


def buffer_digest(*buffers: Any) -> bytes:
    """Return 32 bytes over the contents of contiguous buffers, the length of each counted."""
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


def structure(value: Any) -> bytes | tuple[str, tuple[Any, ...]] | None:
    """Return the encoding of an array or frame, or its name and parts; None for anything else."""
    kind = type(value)
    module = kind.__module__
    # Types made by Cython may have a descriptor there.
    top = module.partition(".")[0] if type(module) is str else ""
    if top == "numpy":
        return _numpy(value, kind)
    if top == "pandas":
        return _pandas(value, kind)
    if top == "polars":
        return _polars(value, kind)
    if top == "pyarrow":
        return _arrow(value, kind)
    return None


def _leaf(name: str, *parts: Any) -> bytes:
    return b"\x85" + marshal.dumps((name, *parts), 2)


# -- numpy ----------------------------------------------------------------------------------------------------------


def _numpy(value: Any, kind: type) -> bytes | tuple[str, tuple[Any, ...]] | None:
    np = sys.modules["numpy"]
    if kind is np.ndarray:
        dtype = value.dtype
        if dtype.hasobject or dtype.kind == "T":
            return "ndarray", (str(dtype), value.shape, value.ravel(order="C").tolist())
        if dtype.names:
            # Padding between fields is arbitrary.
            return "ndarray", (_dtype(dtype), value.shape, *(np.ascontiguousarray(value[name]) for name in dtype.names))
        return _leaf("ndarray", _dtype(dtype), value.shape, buffer_digest(_bytes_of(np, value)))
    if isinstance(value, np.generic):
        if value.dtype.names or value.dtype.hasobject:
            return "numpy scalar", (_dtype(value.dtype), value.item())
        return _leaf("numpy scalar", _dtype(value.dtype), bytes(_bytes_of(np, np.asarray(value))))
    if isinstance(value, np.dtype):
        return ("dtype", (str(value),)) if value.hasobject else _leaf("dtype", _dtype(value))
    if kind is np.ma.MaskedArray:
        return "masked array", (np.asarray(value.filled()), np.ma.getmaskarray(value), value.fill_value)
    return None


def _dtype(dtype: Any) -> str:
    return repr(dtype.descr) + repr(dtype.metadata or "") if dtype.names else dtype.str


def _bytes_of(np: Any, value: Any) -> Any:
    """Return the values in C order as bytes, with every NaN the same."""
    flat = np.ascontiguousarray(value).reshape(-1)
    if flat.dtype.kind in "fc" and flat.size:
        flat = _canonical_nan(np, flat)
    return flat.view(np.uint8) if flat.nbytes else b""


def _canonical_nan(np: Any, flat: Any) -> Any:
    if flat.dtype.kind == "c":
        return _canonical_nan(np, flat.view(flat.real.dtype)).view(flat.dtype)
    # A sum is quick, and NaN if one of the values is.
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


# -- pandas ---------------------------------------------------------------------------------------------------------


def _pandas(value: Any, kind: type) -> bytes | tuple[str, tuple[Any, ...]] | None:
    pd = sys.modules["pandas"]
    if kind is pd.DataFrame:
        columns = tuple(_column(value.iloc[:, at]) for at in range(value.shape[1]))
        return "pandas.DataFrame", (value.columns, value.index, dict(value.attrs), value.flags.allows_duplicate_labels, *columns)
    if kind is pd.Series:
        return "pandas.Series", (value.name, value.index, dict(value.attrs), value.flags.allows_duplicate_labels, _column(value))
    if kind is pd.RangeIndex:
        return "pandas.RangeIndex", (value.start, value.stop, value.step, value.name)
    if kind is pd.MultiIndex:
        return "pandas.MultiIndex", (tuple(value.names), *(value.get_level_values(at) for at in range(value.nlevels)))
    if isinstance(value, pd.Index):
        freq = getattr(value, "freqstr", None)
        return "pandas." + kind.__name__, (tuple(value.names), freq, _column(value))
    if kind is pd.Categorical:
        return "pandas.Categorical", (value.codes.astype("int64"), value.categories, bool(value.ordered))
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return _extension(value)
    if kind is pd.Timestamp:
        return "pandas.Timestamp", (value.value, value.unit, str(value.tz) if value.tz is not None else None, value.fold)
    if kind is pd.Timedelta:
        return "pandas.Timedelta", (value.value, value.unit)
    if value is pd.NaT or value is pd.NA:
        return _leaf("pandas." + str(value))
    if isinstance(value, pd.api.extensions.ExtensionDtype):
        return _leaf("pandas dtype", str(value), repr(value))
    return None


def _column(series: Any) -> Any:
    """Return the values of a series or index as an array of numpy or an extension array."""
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
        data = value._data.copy()  # noqa: SLF001 - the values below the mask are arbitrary, and only here can they be left out
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
        return "polars.Series", (value.name, repr(value.dtype), value.to_arrow())
    return None


def _arrow(value: Any, kind: type) -> bytes | tuple[str, tuple[Any, ...]] | None:
    pa = sys.modules["pyarrow"]
    if kind is pa.Table or kind is pa.RecordBatch:
        schema = value.schema
        metadata = dict(schema.metadata) if schema.metadata else None
        fields = tuple((field.name, str(field.type), field.nullable, dict(field.metadata) if field.metadata else None) for field in schema)
        return f"pyarrow.{kind.__name__}", (value.num_rows, fields, metadata, *value.columns)
    if isinstance(value, pa.ChunkedArray):
        # Chunks do not count: one contiguous array has the same encoding.
        return "pyarrow.ChunkedArray", (str(value.type), _whole(pa, value))
    if isinstance(value, pa.Array):
        return _array(pa, value)
    if isinstance(value, pa.Schema):
        return "pyarrow.Schema", (value.serialize().to_pybytes(),)
    if isinstance(value, pa.DataType):
        return _leaf("pyarrow type", str(value))
    if isinstance(value, pa.Scalar):
        return "pyarrow.Scalar", (str(value.type), value.as_py())
    return None


def _whole(pa: Any, value: Any) -> Any:
    if value.num_chunks == 1:
        return value.chunk(0)
    if value.num_chunks == 0:
        return pa.array([], type=value.type)
    return pa.concat_arrays(value.chunks)


def _array(pa: Any, value: Any) -> bytes | tuple[str, tuple[Any, ...]]:
    """Return the form of one array: validity, and the values of the valid places."""
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
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind) or types.is_string_view(kind) or types.is_binary_view(kind):
        wide = pa.large_binary() if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind) else pa.large_string()
        return _text(pa, value.cast(wide) if kind != wide else value, str(kind), valid)
    if types.is_struct(kind):
        return name, (str(kind), len(value), valid, *(value.field(at) if not value.null_count else value.flatten()[at] for at in range(kind.num_fields)))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind) or types.is_fixed_size_list(kind):
        lengths = value.value_lengths() if not types.is_map(kind) else pa.array([None if item is None else len(item) for item in value.to_pylist()])
        if types.is_map(kind):
            return name, (str(kind), len(value), valid, lengths, value.to_pylist())
        return name, (str(kind), len(value), valid, lengths, value.flatten())
    if types.is_boolean(kind):
        return name, (str(kind), len(value), valid, value.fill_null(False).cast(pa.uint8()).to_numpy(zero_copy_only=False))
    if types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        return _fixed(pa, value, str(kind), valid)
    return name, (str(kind), len(value), value.to_pylist())


def _fixed(pa: Any, value: Any, kind: str, valid: Any) -> bytes | tuple[str, tuple[Any, ...]]:
    np = __import__("numpy")
    width = value.type.bit_width // 8
    data = value.buffers()[1]
    raw = np.frombuffer(data, np.uint8)[value.offset * width : (value.offset + len(value)) * width] if data is not None else np.zeros(0, np.uint8)
    if pa.types.is_floating(value.type) and width in {2, 4, 8}:
        raw = _canonical_nan(np, raw.view(f"f{width}")).view(np.uint8)
    if valid is not None:
        raw = raw.copy().reshape(len(value), width)
        raw[valid == 0] = 0
        raw = raw.reshape(-1)
    return _leaf("pyarrow.Array", kind, len(value), buffer_digest(raw), None if valid is None else buffer_digest(valid))


def _text(pa: Any, value: Any, kind: str, valid: Any) -> bytes | tuple[str, tuple[Any, ...]]:
    np = __import__("numpy")
    if valid is not None:
        # What lies below a missing place is arbitrary.
        value = value.fill_null(b"" if pa.types.is_large_binary(value.type) else "")
    _, offsets, data = value.buffers()
    where = np.frombuffer(offsets, np.int64)[value.offset : value.offset + len(value) + 1] if offsets is not None and len(value) else np.zeros(1, np.int64)
    first, last = int(where[0]), int(where[-1])
    text = np.frombuffer(data, np.uint8)[first:last] if data is not None and last > first else np.zeros(0, np.uint8)
    return _leaf("pyarrow.Array", kind, len(value), buffer_digest(where - first if first else where, text), None if valid is None else buffer_digest(valid))

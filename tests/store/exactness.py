"""Whether two values are the same in everything that a program could see: where they differ, if they do."""

import collections
import copyreg
import enum
import struct
import types

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import scipy.sparse as sp
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal


def differences(a, b):
    """Return the places where two values differ, as text."""
    found = []
    _compare(a, b, "value", found, {})
    return found


def _compare(a, b, at, found, seen):
    if type(a) is not type(b):
        found.append(f"{at}: {type(a).__name__} became {type(b).__name__}")
        return
    kind = type(a)
    if kind in (list, dict, set, bytearray) and not at.endswith((".attrs", ".names", "__dict__", "state")):
        if id(a) in seen:
            # What is shared, or holds itself, must be so in the other.
            if seen[id(a)][1] is not b:
                found.append(f"{at}: no longer the same object as before")
            return
        seen[id(a)] = (a, b)

    def check(same, what):
        if not same:
            found.append(f"{at}: {what}")

    def inner(x, y, name):
        _compare(x, y, f"{at}{name}", found, seen)

    if isinstance(a, float):
        check(struct.pack("<d", a) == struct.pack("<d", b), "other bits")
        if kind is not float:
            inner(getattr(a, "__dict__", None), getattr(b, "__dict__", None), ".__dict__")
    elif kind is complex:
        check(struct.pack("<dd", a.real, a.imag) == struct.pack("<dd", b.real, b.imag), "other bits")
    elif isinstance(a, (enum.Enum, type, np.ufunc)) or any(
        a is each for each in (None, True, False, ..., NotImplemented, pd.NA, pd.NaT, np.ma.masked)
    ):
        check(a is b, "another object")
    elif isinstance(a, types.BuiltinFunctionType):
        check(a.__qualname__ == b.__qualname__, "another function")
        if not isinstance(a.__self__, types.ModuleType):
            inner(a.__self__, b.__self__, ".__self__")
    elif isinstance(a, np.ma.MaskedArray):
        inner(a.data, b.data, ".data")
        check((a.mask is np.ma.nomask) == (b.mask is np.ma.nomask), "kind of mask")
        inner(np.asarray(a.mask), np.asarray(b.mask), ".mask")
        check(a.hardmask == b.hardmask, "hard mask")
        inner(a.fill_value, b.fill_value, ".fill_value")
        check((a._fill_value is None) == (b._fill_value is None), "fill_value set")
    elif isinstance(a, np.ndarray):
        _arrays(a, b, check, inner)
    elif isinstance(a, np.generic):
        _arrays(np.asarray(a), np.asarray(b), check, inner)
    elif isinstance(a, np.dtype):
        check(_dtypes(a, b), f"{a!r} became {b!r}")
    elif isinstance(a, (pd.DataFrame, pd.Series, pd.Index)):
        _pandas(a, b, check, inner)
    elif isinstance(a, pd.api.extensions.ExtensionArray):
        _pandas(pd.Series(a), pd.Series(b), check, inner)
        check(getattr(a, "freq", None) == getattr(b, "freq", None), "freq")
        check(getattr(a, "sp_index", None) is None or a.sp_index.equals(b.sp_index), "sparse index")
    elif isinstance(a, (pd.Timestamp, pd.Timedelta)):
        check(a == b and a.unit == b.unit and str(getattr(a, "tz", "")) == str(getattr(b, "tz", "")) and getattr(a, "fold", 0) == getattr(b, "fold", 0), f"{a!r} became {b!r}")  # fmt: skip
    elif kind is pl.DataFrame:
        check(a.schema == b.schema and a.shape == b.shape, "schema")
        for x, y in zip(a.get_columns(), b.get_columns(), strict=True):
            inner(x, y, f"[{x.name!r}]")
    elif kind is pl.Series:
        check((a.name, a.dtype, repr(a.dtype)) == (b.name, b.dtype, repr(b.dtype)), "name or dtype")
        check(a.equals(b, check_dtypes=True, check_names=True, null_equal=True), "values")
        flags = {name: value for name, value in a.flags.items() if name.startswith("SORTED")}
        check(all(b.flags[name] == value for name, value in flags.items()), f"flags {a.flags} became {b.flags}")
    elif kind.__module__.startswith("pyarrow"):
        _arrow(a, b, check, inner)
    elif sp.issparse(a):
        check((a.format, a.shape, a.dtype) == (b.format, b.shape, b.dtype), "format, shape or dtype")
        state = lambda value: {k: v for k, v in vars(value).items() if not k.startswith("_has") and k != "_dict"}
        inner(state(a), state(b), "")
        if a.format == "dok":
            inner(dict(a.items()), dict(b.items()), "")
        for name in ("has_canonical_format", "has_sorted_indices"):
            check(getattr(a, name, None) == getattr(b, name, None), name)
    elif isinstance(a, (dict, collections.ChainMap)):
        check(list(map(repr, a)) == list(map(repr, b)), "keys or their order")
        check(getattr(a, "default_factory", None) == getattr(b, "default_factory", None), "default_factory")
        for (x, left), (y, right) in zip(a.items(), b.items(), strict=False):
            inner(x, y, f"(key {x!r})")
            inner(left, right, f"[{x!r}]")
    elif isinstance(a, (list, tuple, collections.deque)):
        check(len(a) == len(b), "length")
        check(getattr(a, "maxlen", None) == getattr(b, "maxlen", None), "maxlen")
        for index, (x, y) in enumerate(zip(a, b, strict=False)):
            inner(x, y, f"[{index}]")
        inner(getattr(a, "__dict__", None), getattr(b, "__dict__", None), ".__dict__")
    elif isinstance(a, BaseException):
        inner((a.args, vars(a)), (b.args, vars(b)), "")
    elif isinstance(a, pl.Expr):
        check(a.meta.eq(b), "another expression")
    elif kind.__eq__ is not object.__eq__:
        check(bool(a == b), "value") if kind is int or isinstance(a, int) else check(
            bool(a == b), f"{str(a)[:60]} became {str(b)[:60]}"
        ) if not str(a).lower().startswith(("nan", "snan", "-nan")) else check(repr(a) == repr(b), "NaN")
        for name in ("fold", "tzinfo"):
            check(getattr(a, name, None) == getattr(b, name, None), name)
    else:
        inner(_state(a), _state(b), ".state")


def _state(value):
    reduce = copyreg.dispatch_table.get(type(value))
    found = reduce(value) if reduce is not None else value.__reduce_ex__(4)
    return found if isinstance(found, str) else tuple(list(part) if hasattr(part, "__next__") else part for part in found[1:])


def _dtypes(a, b):
    return (
        a == b
        and a.str == b.str
        and repr(a) == repr(b)
        and (a.metadata or {}) == (b.metadata or {})
        and a.isalignedstruct == b.isalignedstruct
    )


def _arrays(a, b, check, inner):
    check(_dtypes(a.dtype, b.dtype), f"dtype {a.dtype!r} became {b.dtype!r}")
    check(a.shape == b.shape, "shape")
    copy = np.array(a, order="K") if 0 not in a.strides else np.array(a, order="C")
    check((copy.flags.c_contiguous, copy.flags.f_contiguous) == (b.flags.c_contiguous, b.flags.f_contiguous), "order")
    if a.flags.c_contiguous or a.flags.f_contiguous:
        check(a.flags.writeable == b.flags.writeable, "writeable")
    if a.shape != b.shape:
        return
    if a.dtype.hasobject or a.dtype.kind == "T":
        inner(a.tolist(), b.tolist(), "")
    elif a.dtype.names:
        for name in a.dtype.names:
            inner(np.asarray(a[name]).copy(), np.asarray(b[name]).copy(), f"[{name!r}]")
    else:
        check(a.tobytes() == b.tobytes() if a.dtype.char not in "gG" else np.array_equal(a, b, equal_nan=True), "values")


def _pandas(a, b, check, inner):
    try:
        if isinstance(a, pd.DataFrame):
            assert_frame_equal(a, b, check_exact=True, check_freq=True, check_flags=True, check_column_type=True)
        elif isinstance(a, pd.Series):
            assert_series_equal(a, b, check_exact=True, check_freq=True, check_flags=True, check_category_order=True)
        else:
            assert_index_equal(a, b, exact=True, check_exact=True, check_order=True)
            check(a.identical(b), "not identical")
    except AssertionError as error:
        check(False, str(error).replace("\n", " ")[:200])
        return
    inner(getattr(a, "attrs", {}), getattr(b, "attrs", {}), ".attrs")
    for name in getattr(a, "_metadata", ()):
        if name not in {"_name", "name"}:
            inner(getattr(a, name, None), getattr(b, name, None), f".{name}")
    if isinstance(a, pd.DataFrame):
        check(list(map(repr, a.dtypes)) == list(map(repr, b.dtypes)), "dtypes")
        inner(a.index, b.index, ".index")
        inner(a.columns, b.columns, ".columns")
        for at in range(a.shape[1]):
            inner(a.iloc[:, at].array, b.iloc[:, at].array, f".iloc[:, {at}]") if a.iloc[:, at].dtype == object else None
    elif isinstance(a, pd.MultiIndex):
        inner(list(a.names), list(b.names), ".names")
        for x, y in zip(a.levels, b.levels, strict=True):
            inner(x, y, ".levels")
        check([c.tolist() for c in a.codes] == [c.tolist() for c in b.codes], "codes")
    else:
        check(repr(a.dtype) == repr(b.dtype), f"dtype {a.dtype!r} became {b.dtype!r}")
        check(getattr(a, "freq", None) == getattr(b, "freq", None) if isinstance(a, pd.Index) else True, "freq")
        if a.dtype == object:
            inner(a.to_numpy(), b.to_numpy(), ".values")
        if isinstance(a.dtype, pd.CategoricalDtype):
            inner(a.dtype.categories, b.dtype.categories, ".categories")
        if isinstance(a, pd.Series):
            inner(a.index, b.index, ".index")


def _arrow(a, b, check, inner):
    if isinstance(a, (pa.Table, pa.RecordBatch)):
        check(a.schema.equals(b.schema, check_metadata=True), "schema")
        check(a.num_rows == b.num_rows, "rows")
        for x, y in zip(a.columns, b.columns, strict=True):
            check(_same_arrow(x, y), f"column of {x.type}")
    elif isinstance(a, (pa.ChunkedArray, pa.Array)):
        check(a.type.equals(b.type, check_metadata=True), "type")
        check(_same_arrow(a, b), "values")
        b.validate(full=True)
    elif isinstance(a, (pa.Schema, pa.Field, pa.DataType)):
        check(a.equals(b, check_metadata=True), "metadata")
    elif isinstance(a, pa.Scalar):
        check(a.type.equals(b.type, check_metadata=True) and (a.equals(b)), "value")
    else:
        check(a.equals(b), "contents")


def _same_arrow(a, b):
    if a.equals(b):
        return True
    # Two arrays that hold NaN are not equal to Arrow.
    return a.type == b.type and len(a) == len(b) and repr(a.to_pylist()) == repr(b.to_pylist())

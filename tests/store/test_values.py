"""Every value comes back the same, for its consumer alone."""

import datetime as dt
import decimal
import enum
import fractions
import math
import pathlib
import struct
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from typing import NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal, assert_series_equal

from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.values.codecs import decode, encode, pack, unpack


def through(store, value, key="a"):
    return store.get(store.put(value, key=key, memo_key="m"), key=key)


def same(a, b):
    """Equal in value and exact type, NaN and -0.0 by their bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    return a == b


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.dates()
)
nested = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=5)
        | st.sets(st.integers() | st.text(max_size=5), max_size=5)
    ),
    max_leaves=20,
)


@given(nested)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nested_builtins_come_back_with_their_exact_types(store, value):
    assert same(through(store, value), value)


@given(st.binary(max_size=2000), st.lists(st.binary(max_size=500), max_size=5))
@settings(max_examples=50, deadline=None)
def test_the_inline_form_keeps_streams_and_buffers(stream, buffers):
    value = [stream, *[np.frombuffer(each, np.uint8) for each in buffers]]
    encoded = encode(value, key="a")
    parts = unpack(pack(encoded))
    back = decode(encoded.codec, parts.stream, parts.buffers, key="a")
    assert back[0] == stream
    assert [each.tobytes() for each in back[1:]] == buffers


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1


class Whole(int):
    pass


OTHERS = [
    10**5000, -(2**70), -0.0, math.inf, struct.unpack("<d", b"\x01\0\0\0\0\0\xf8\x7f")[0],
    "x" * 200_000, "\ud800 alone", b"\0" * 200_000, b"",
    [[]], {1: {2: (3,)}}, frozenset({1}), range(3), slice(1, 2), 1j, ..., NotImplemented,
    dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), dt.timedelta(1),
    decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=5), pathlib.PurePosixPath("a/b"),
    OrderedDict(a=1), Counter("aab"), defaultdict(list, a=[1]), deque([1], maxlen=3), Point(1, 2), Colour.RED, Whole(5), True, int, len,
]  # fmt: skip


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_other_plain_data_comes_back(store, value):
    assert same(through(store, value), value)


ARRAYS = {
    "scalar": np.float32(1.5),
    "empty": np.empty((0, 3)),
    "zero-dimensional": np.array(5),
    "large": np.arange(200_000.0),
    "fortran": np.asfortranarray(np.arange(100_000.0).reshape(100, 1000)),
    "strided": np.arange(100_000)[::3],
    "object": np.array([1, "a", None, [1, 2]], dtype=object),
    "strings": np.array(["a", "bcd"]),
    "structured": np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "dates": np.array(["2026-01-01", "NaT"], dtype="M8[D]"),
    "big endian": np.arange(5, dtype=">i4"),
    "masked": np.ma.array([1, 2, 3], mask=[0, 1, 0]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_arrays_come_back_with_dtype_order_and_writability(store, name):
    value = ARRAYS[name]
    back = through(store, value)
    assert type(back) is type(value)
    assert back.dtype == value.dtype
    np.testing.assert_array_equal(back, value)
    if isinstance(value, np.ndarray):
        assert back.flags.f_contiguous == np.copy(value, order="K").flags.f_contiguous
        assert back.flags.writeable == value.flags.writeable


def test_a_read_only_array_comes_back_read_only(store):
    for size in (10, 100_000):
        value = np.arange(size)
        value.flags.writeable = False
        assert not through(store, value).flags.writeable


FRAMES = {
    "numbers": pd.DataFrame({"a": [1, 2, 3], "b": [1.5, np.nan, -0.0]}),
    "strings of arrow": pd.DataFrame({"s": pd.array(["a", None, "ü"], dtype="str")}),
    "string[python]": pd.DataFrame({"s": pd.array(["a", None], dtype="string[python]")}),
    "objects": pd.DataFrame({"o": np.array([1, "a", None, {"x": [1]}], dtype=object)}),
    "categories": pd.DataFrame({"c": pd.Categorical(["b", "a", None], categories=["b", "a", "z"], ordered=True)}),
    "times": pd.DataFrame({"t": pd.to_datetime(["2026-01-01", None]).tz_localize("Europe/Vienna")}),
    "nullable": pd.DataFrame({"i": pd.array([1, None], dtype="Int8"), "b": pd.array([True, None], dtype="boolean")}),
    "arrow dtype": pd.DataFrame({"l": pd.array([[1, 2], None], dtype=pd.ArrowDtype(pa.list_(pa.int64())))}),
    "multiindex": pd.DataFrame({("x", 1): [1], ("x", 2): [2]}, index=pd.MultiIndex.from_tuples([("a", 1)], names=["i", "j"])),
    "periods, intervals": pd.DataFrame({"p": pd.period_range("2026", periods=2, freq="M"), "i": pd.interval_range(0, 2)}),
    "sparse": pd.DataFrame({"s": pd.arrays.SparseArray([0, 0, 1])}),
    "empty": pd.DataFrame(),
    "duplicate names": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "large": pd.DataFrame({"a": np.arange(50_000), "s": [f"row {i}" for i in range(50_000)]}),
    "slice": pd.DataFrame({"a": np.arange(50_000), "s": [f"row {i}" for i in range(50_000)]}).iloc[10:20],
}


@pytest.mark.parametrize("name", FRAMES)
def test_pandas_frames_come_back_exactly(store, name):
    value = FRAMES[name]
    value.attrs["source"] = "test"
    back = through(store, value)
    assert_frame_equal(back, value, check_exact=True, check_freq=True, check_flags=True)
    assert list(map(repr, back.dtypes)) == list(map(repr, value.dtypes))
    assert back.attrs == value.attrs


def test_a_pandas_series_and_index_come_back(store):
    series = pd.Series([1, 2], index=pd.date_range("2026", periods=2, freq="D"), name="n")
    assert_series_equal(through(store, series), series, check_freq=True)
    assert through(store, series.index).identical(series.index)


ARROW = {
    "table": pa.table({"a": [1, None], "s": ["x", "y"], "l": [[1], []]}),
    "metadata": pa.table({"a": [1]}, metadata={"k": "v"}),
    "no columns": pa.table({}),
    "no rows": pa.table({"a": pa.array([], pa.string())}),
    "chunks": pa.chunked_array([[1, 2], [], [3]]),
    "no chunks": pa.chunked_array([], type=pa.int8()),
    "array": pa.array([1, None, 3]),
    "nulls": pa.nulls(3),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "dictionaries": pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()]),
    "struct": pa.array([{"x": 1}, None]),
    "views": pa.array(["long enough to be no inline view", "b"], pa.string_view()),
    "batch": pa.record_batch({"a": [1, 2]}),
}


@pytest.mark.parametrize("name", ARROW)
def test_pyarrow_comes_back_of_the_same_type(store, name):
    value = ARROW[name]
    back = through(store, value)
    assert type(back) is type(value)
    assert back.equals(value, check_metadata=True) if hasattr(value, "schema") else back.equals(value)
    back.validate(full=True)


@pytest.mark.parametrize(
    "whole",
    [
        pa.table({"a": range(500_000), "s": [str(i) for i in range(500_000)]}),
        pa.array([str(i) for i in range(500_000)]),
        pa.chunked_array([range(500_000)]),
    ],
)
def test_a_slice_of_arrow_stores_what_it_shows(store, whole):
    part = whole.slice(1000, 10)
    stored = store.put(part, key="a", memo_key="m")
    assert stored.size < 3000
    assert store.get(stored, key="a").equals(part)


POLARS = {
    "frame": pl.DataFrame({"a": [1, None], "s": ["x", "y"], "l": [[1], []]}),
    "empty": pl.DataFrame(),
    "categories": pl.DataFrame({"c": ["a", "b"]}, schema={"c": pl.Categorical}),
    "enum": pl.DataFrame({"c": ["a", "b"]}, schema={"c": pl.Enum(["b", "a"])}),
    "types": pl.DataFrame(
        {"d": [dt.date(2026, 1, 1)], "t": [dt.time(1)], "x": [decimal.Decimal("1.5")], "i": [2**100]},
        schema_overrides={"i": pl.Int128},
    ),
    "series": pl.Series("named", [1.5, float("nan")]),
    "slice": pl.DataFrame({"a": range(100_000)}).slice(10, 5),
    "large": pl.DataFrame({"a": range(100_000)}),
}


@pytest.mark.parametrize("name", POLARS)
def test_polars_comes_back(store, name):
    value = POLARS[name]
    back = through(store, value)
    assert type(back) is type(value)
    assert back.equals(value, null_equal=True)
    if isinstance(value, pl.DataFrame):
        assert back.schema == value.schema
    else:
        assert (back.name, back.dtype) == (value.name, value.dtype)


def test_frames_inside_other_values_come_back(store):
    value = {"p": FRAMES["large"], "l": [POLARS["large"], ARROW["table"]], "n": np.arange(100_000)}
    back = through(store, value)
    assert_frame_equal(back["p"], value["p"])
    assert back["l"][0].equals(value["l"][0])
    assert back["l"][1].equals(value["l"][1])
    np.testing.assert_array_equal(back["n"], value["n"])


@pytest.mark.parametrize("size", [10, 20_000, 1_000_000])
def test_no_consumer_sees_what_another_changes(store, size):
    value = {"array": np.arange(size), "list": [1], "frame": pd.DataFrame({"a": np.arange(size)})}
    stored = store.put(value, key="a", memo_key="m")
    value["array"][0] = -1
    first = store.get(stored, key="a")
    assert first["array"][0] == 0
    first["array"][:] = 7
    first["list"].append(2)
    first["frame"].iloc[0, 0] = 9
    second = store.get(stored, key="a")
    assert second["array"][1] == 1
    assert second["list"] == [1]
    assert second["frame"].iloc[0, 0] == 0


def test_equal_values_are_one_file(store):
    one = store.put(np.arange(100_000), key="a", memo_key="m")
    two = store.put(np.arange(100_000), key="b", memo_key="n")
    assert one == two
    assert housekeeping.sizes(store)["objects"] == 1


def test_a_small_value_is_inline_and_a_large_one_a_file(store):
    small = store.put(np.zeros(1000), key="a", memo_key="m")
    large = store.put(np.zeros(10_000), key="a", memo_key="m")
    assert small.inline is not None
    assert small.object_name is None
    assert large.inline is None
    assert (store.directory / "objects" / large.object_name).stat().st_size >= large.size == large.size
    assert large.object_name == f"{large.digest[:2]}/{large.digest}.pickle"
    assert not list((store.directory / "tmp").iterdir())


@pytest.mark.parametrize(
    ("value", "name", "summary"),
    [
        (pd.DataFrame({"a": range(336776), "b": 1}), "pandas.DataFrame", "336,776 × 2"),
        (np.zeros((3, 4)), "numpy.ndarray", "3 × 4"),
        (pl.DataFrame({"a": [1]}), "polars.DataFrame", "1 × 1"),
        (pa.table({"a": [1]}), "pyarrow.Table", "1 × 1"),
        (5, "int", "5"),
        ("x" * 100, "str", "'" + "x" * 58 + "…"),
        ([1], "list", "1 item"),
    ],
)
def test_a_stored_value_says_what_it_is(store, value, name, summary):
    stored = store.put(value, key="a", memo_key="m")
    assert (stored.type_name, stored.summary) == (name, summary)

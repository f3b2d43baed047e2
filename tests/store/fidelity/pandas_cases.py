"""What is tried of pandas."""

import datetime as dt
import decimal
import functools
import math

import numpy as np
import pandas as pd
import pyarrow as pa

from .registered import case


class Tagged(pd.DataFrame):
    _metadata = ["tag"]

    @property
    def _constructor(self):
        return Tagged


class TaggedSeries(pd.Series):
    _metadata = [*pd.Series._metadata, "tag"]

    @property
    def _constructor(self):
        return TaggedSeries


def tagged():
    value = Tagged({"a": [1, 2]})
    value.tag = {"made": "here"}
    return value


def tagged_series():
    value = TaggedSeries([1, 2], name="s")
    value.tag = "t"
    return value


def with_attrs():
    value = pd.DataFrame({"a": [1]})
    value.attrs = {"source": {"nested": [1, 2]}, "n": 1}
    return value


def no_duplicates():
    return pd.DataFrame({"a": [1, 2]}).set_flags(allows_duplicate_labels=False)


def indexed(index):
    return lambda: pd.DataFrame({"v": np.arange(len(index()))}, index=index())


INDEXES = {
    "RangeIndex": lambda: pd.RangeIndex(5, 0, -2, name="r"), "Index of int64": lambda: pd.Index([3, 1, 2], name=("t", 1)), "Index of int8": lambda: pd.Index([3, 1], dtype="int8"), "Index of float": lambda: pd.Index([1.5, np.nan]),
    "Index of str": lambda: pd.Index(["b", "a", None]), "Index of objects": lambda: pd.Index(["a", 1, None, (1, 2)], dtype=object, tupleize_cols=False), "Index of bool": lambda: pd.Index([True, False]), "duplicates": lambda: pd.Index(["a", "a"]),
    "Int64 index": lambda: pd.Index(pd.array([1, None], dtype="Int64")), "Arrow index": lambda: pd.Index(pd.array([1, None], dtype="int64[pyarrow]")), "CategoricalIndex": lambda: pd.CategoricalIndex(["b", "a", "b"], categories=["c", "b", "a"], ordered=True, name="c"),
    "IntervalIndex": lambda: pd.IntervalIndex.from_tuples([(0, 1), (1.5, 2)], closed="both"), "IntervalIndex of times": lambda: pd.interval_range(pd.Timestamp("2026"), periods=2, freq="D"),
    "PeriodIndex": lambda: pd.period_range("2026", periods=3, freq="Q-FEB", name="p"), "PeriodIndex with NaT": lambda: pd.PeriodIndex(["2026-01", None], freq="M"), "DatetimeIndex with freq": lambda: pd.date_range("2026", periods=3, freq="2h"),
    "DatetimeIndex without freq": lambda: pd.DatetimeIndex(["2026-01-01", "2026-01-05", None]), "DatetimeIndex with zone": lambda: pd.date_range("2026-10-24", periods=3, freq="D", tz="Europe/Vienna"), "DatetimeIndex in s": lambda: pd.DatetimeIndex(["2026-01-01"]).as_unit("s"),
    "TimedeltaIndex": lambda: pd.timedelta_range("1h", periods=3, freq="30min"), "MultiIndex": lambda: pd.MultiIndex.from_product([["b", "a"], [1, 2]], names=["x", None]),
    "MultiIndex with unused levels": lambda: pd.MultiIndex.from_product([["b", "a"], [1, 2]])[:2], "MultiIndex of times and categories": lambda: pd.MultiIndex.from_arrays([pd.date_range("2026", periods=2, tz="UTC"), pd.Categorical(["a", "b"])], names=["t", "c"]),
    "MultiIndex with missing": lambda: pd.MultiIndex.from_tuples([("a", 1.0), (None, np.nan)]), "MultiIndex of duplicates, unsorted": lambda: pd.MultiIndex.from_tuples([("b", 1), ("a", 1), ("b", 1)]), "empty": lambda: pd.Index([], dtype="datetime64[ms]", name="e"),
    "empty MultiIndex": lambda: pd.MultiIndex.from_arrays([[], []], names=["a", "b"]),
}  # fmt: skip
for _name, _make in INDEXES.items():
    case("pandas", f"index: {_name}", _make)
    case("pandas", f"frame with index: {_name}", indexed(_make))

COLUMNS = {
    "int8": lambda: pd.array([1, 2], dtype=np.dtype("int8")), "float32 with NaN": lambda: np.array([1.5, np.nan], "f4"), "complex": lambda: np.array([1j, np.nan]), "bool": lambda: np.array([True, False]), "objects of all kinds": lambda: np.array([1, "a", None, math.nan, pd.NA, pd.NaT, {"x": [1]}, decimal.Decimal(1)], dtype=object),
    "Int8": lambda: pd.array([1, None], dtype="Int8"), "UInt64": lambda: pd.array([2**64 - 1, None], dtype="UInt64"), "Float32 with NaN and NA": lambda: pd.arrays.FloatingArray(np.array([1.0, np.nan, 0.0], "f4"), np.array([False, False, True])), "boolean": lambda: pd.array([True, None], dtype="boolean"),
    "str": lambda: pd.array(["a", None, "ü"], dtype="str"), "string": lambda: pd.array(["a", None], dtype="string"), "string[python]": lambda: pd.array(["a", None], dtype="string[python]"), "string[pyarrow]": lambda: pd.array(["a", None], dtype="string[pyarrow]"), "str of python": lambda: pd.array(["a", None], dtype=pd.StringDtype("python", na_value=np.nan)),
    "category": lambda: pd.Categorical(["b", "a", None], categories=["b", "a", "unused"]), "category, ordered": lambda: pd.Categorical(["b", "a"], categories=["z", "b", "a"], ordered=True), "category of numbers": lambda: pd.Categorical([1.5, 2.5, 1.5]), "category of times": lambda: pd.Categorical(pd.to_datetime(["2026-01-01", "2026-01-02"])), "category, empty": lambda: pd.Categorical([], categories=["a"]),
    **{f"datetime64[{unit}]": functools.partial(lambda unit: pd.array(pd.to_datetime(["2026-01-01 00:00:01", None]).as_unit(unit)), unit) for unit in ("s", "ms", "us", "ns")}, **{f"timedelta64[{unit}]": functools.partial(lambda unit: pd.array(pd.to_timedelta(["1s", None]).as_unit(unit)), unit) for unit in ("s", "ms", "us", "ns")},
    "times with zone": lambda: pd.array(pd.to_datetime(["2026-10-25 00:30", None]).tz_localize("UTC").tz_convert("Europe/Vienna")), "times with offset": lambda: pd.array(pd.to_datetime(["2026-01-01T00:00+01:00"])), "times in ms with UTC": lambda: pd.array(pd.to_datetime(["2026-01-01"]).tz_localize("UTC").as_unit("ms")),
    "period": lambda: pd.array(pd.PeriodIndex(["2026-01", None], freq="M")), "interval": lambda: pd.arrays.IntervalArray.from_tuples([(0, 1), (1, 2)], closed="left"), "interval with missing": lambda: pd.arrays.IntervalArray.from_tuples([(0.0, 1.0), None]), "sparse int": lambda: pd.arrays.SparseArray([0, 0, 1]), "sparse float": lambda: pd.arrays.SparseArray([np.nan, 1.5, np.nan]), "sparse with another fill value": lambda: pd.arrays.SparseArray([7, 7, 1], fill_value=7), "sparse, block": lambda: pd.arrays.SparseArray([0, 1, 1], kind="block"),
    "Arrow int": lambda: pd.array([1, None], dtype="int32[pyarrow]"), "Arrow list": lambda: pd.array([[1, 2], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))), "Arrow struct": lambda: pd.array([{"a": 1}, None], dtype=pd.ArrowDtype(pa.struct([("a", pa.int8())]))), "Arrow decimal": lambda: pd.array([decimal.Decimal("1.50"), None], dtype=pd.ArrowDtype(pa.decimal128(7, 2))), "Arrow time with zone": lambda: pd.array([pd.Timestamp("2026", tz="UTC")], dtype=pd.ArrowDtype(pa.timestamp("ms", "Europe/Vienna"))), "Arrow dictionary": lambda: pd.array(["a", "b", "a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))), "Arrow binary": lambda: pd.array([b"a", None], dtype=pd.ArrowDtype(pa.binary())), "Arrow date32": lambda: pd.array([dt.date(2026, 1, 1), None], dtype=pd.ArrowDtype(pa.date32())), "Arrow duration": lambda: pd.array([dt.timedelta(1), None], dtype=pd.ArrowDtype(pa.duration("s"))), "Arrow map": lambda: pd.array([[("k", 1)], None], dtype=pd.ArrowDtype(pa.map_(pa.string(), pa.int64()))),
}  # fmt: skip
for _name, _make in COLUMNS.items():
    case(
        "pandas",
        f"column: {_name}",
        functools.partial(lambda make: pd.DataFrame({"c": make(), "n": range(len(make()))}), _make),
    )
    case("pandas", f"array: {_name}", _make)

PANDAS = {
    "empty frame": pd.DataFrame, "frame without rows, with dtypes": lambda: pd.DataFrame({"a": pd.array([], "Int8"), "b": pd.Categorical([], categories=["x"]), "c": pd.array([], "datetime64[s, UTC]")}), "frame without columns": lambda: pd.DataFrame(index=pd.date_range("2026", periods=3)),
    "MultiIndex on both axes": lambda: pd.DataFrame([[1, 2.5], [3, 4.5]], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["i", "j"]), columns=pd.MultiIndex.from_tuples([("x", 1), ("x", 2)], names=["c", None])), "labels that are no strings": lambda: pd.DataFrame([[1, 2, 3, 4]], columns=[1, 1.5, (2, 3), None]), "duplicate labels": lambda: pd.DataFrame([[1, "x"]], columns=["a", "a"], index=["r"]),
    "column names with a name": lambda: pd.DataFrame([[1]], columns=pd.Index(["a"], name="cols")), "columns of times": lambda: pd.DataFrame([[1, 2]], columns=pd.date_range("2026", periods=2)), "attrs": with_attrs, "flags": no_duplicates, "subclass with _metadata": tagged, "Series subclass with _metadata": tagged_series,
    "Series": lambda: pd.Series([1, 2], index=pd.date_range("2026", periods=2, freq="D"), name=("n", 1)), "Series without name": lambda: pd.Series(["a", None]), "Series, sparse": lambda: pd.Series(pd.arrays.SparseArray([0, 1]), name="s"), "Series of a Series": lambda: pd.Series([pd.Series([1]), 2], dtype=object), "scattered blocks": lambda: pd.concat([pd.DataFrame({"a": [1], "b": [1.5]}), pd.DataFrame({"c": [2]})], axis=1), "a slice of rows": lambda: pd.DataFrame({"a": np.arange(1000), "s": [f"row {i}" for i in range(1000)]}).iloc[10:20], "a column of a frame": lambda: pd.DataFrame({"a": [1, 2], "b": [3, 4]})["b"],
    "large": lambda: pd.DataFrame({"a": np.arange(20_000), "f": np.linspace(0, 1, 20_000), "s": [f"row {i}" for i in range(20_000)]}), "Timestamp": lambda: pd.Timestamp(2026, 10, 25, 2, 30, fold=1, tz="Europe/Vienna"), "Timestamp in ns": lambda: pd.Timestamp(1, unit="ns"), "Timedelta": lambda: pd.Timedelta("1ns"), "Period": lambda: pd.Period("2026Q1", freq="Q"), "Interval": lambda: pd.Interval(0, 1.5, closed="neither"), "NA": lambda: pd.NA, "NaT": lambda: pd.NaT, "offset": lambda: pd.offsets.CustomBusinessDay(n=2, weekmask="Mon Tue"), "dtype": lambda: [pd.CategoricalDtype(["a", "b"], ordered=True), pd.Int8Dtype(), pd.ArrowDtype(pa.int8()), pd.DatetimeTZDtype("s", "UTC")], "dict of frames": lambda: {"x": pd.DataFrame({"a": [1]}), "y": pd.Series([2])},
}  # fmt: skip
for _name, _make in PANDAS.items():
    case("pandas", _name, _make)

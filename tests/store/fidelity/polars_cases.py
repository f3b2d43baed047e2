"""What is tried of polars."""

import datetime as dt
import decimal
import functools
import math

import polars as pl

from .registered import case

POLARS_COLUMNS = {
    **{str(dtype): functools.partial(lambda dtype: pl.Series("c", [1, None, 3], dtype=dtype), dtype) for dtype in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)}, "Float32": lambda: pl.Series("c", [1.5, None, math.nan, -0.0], dtype=pl.Float32), "Float64": lambda: pl.Series("c", [1.5, None, math.nan, math.inf]), "Boolean": lambda: pl.Series("c", [True, None]), "String": lambda: pl.Series("c", ["a", None, "a text that is too long to be inline"]), "Binary": lambda: pl.Series("c", [b"a", None, b"\0" * 50]), "Null": lambda: pl.Series("c", [None, None]),
    "Decimal": lambda: pl.Series("c", [decimal.Decimal("1.50"), None], dtype=pl.Decimal(20, 3)), "Date": lambda: pl.Series("c", [dt.date(2026, 1, 1), None]), "Time": lambda: pl.Series("c", [dt.time(1, 2, 3, 4), None]), **{f"Datetime({unit})": functools.partial(lambda unit: pl.Series("c", [dt.datetime(2026, 1, 1), None], dtype=pl.Datetime(unit)), unit) for unit in ("ms", "us", "ns")}, "Datetime with zone": lambda: pl.Series("c", [dt.datetime(2026, 1, 1), None], dtype=pl.Datetime("us")).dt.replace_time_zone("Europe/Vienna"), **{f"Duration({unit})": functools.partial(lambda unit: pl.Series("c", [dt.timedelta(1), None], dtype=pl.Duration(unit)), unit) for unit in ("ms", "us", "ns")},
    "Categorical": lambda: pl.Series("c", ["b", "a", None, "b"], dtype=pl.Categorical), "Enum": lambda: pl.Series("c", ["b", None], dtype=pl.Enum(["unused", "b", "a"])), "List": lambda: pl.Series("c", [[1], None, []], dtype=pl.List(pl.Int8)), "List of List": lambda: pl.Series("c", [[["a"], None], []]), "Array": lambda: pl.Series("c", [[1, 2], None], dtype=pl.Array(pl.Int16, 2)), "Array, 2-d": lambda: pl.Series("c", [[[1, 2], [3, 4]]], dtype=pl.Array(pl.Int8, (2, 2))), "Struct": lambda: pl.Series("c", [{"a": 1, "b": "x"}, None]), "Struct of lists of Enum": lambda: pl.Series("c", [{"a": ["x"]}], dtype=pl.Struct({"a": pl.List(pl.Enum(["x", "y"]))})), "List of Categorical": lambda: pl.Series("c", [["a", "b"], ["a"]], dtype=pl.List(pl.Categorical)),
    "sorted flag": lambda: pl.Series("c", [1, 2, 3]).set_sorted(), "without a name": lambda: pl.Series([1, 2]), "empty": lambda: pl.Series("c", [], dtype=pl.List(pl.Date)), "several chunks": lambda: pl.concat([pl.Series("c", [1]), pl.Series("c", [2, 3])], rechunk=False), "a slice": lambda: pl.Series("c", range(1000)).slice(10, 5),
}  # fmt: skip
for _name, _make in POLARS_COLUMNS.items():
    case("polars", f"Series: {_name}", _make)
    case("polars", f"frame: {_name}", functools.partial(lambda make: make().to_frame().with_columns(n=pl.lit(1)), _make))
POLARS = {
    "frame without columns": pl.DataFrame, "frame without rows": lambda: pl.DataFrame(schema={"a": pl.Int8, "b": pl.Enum(["x"])}), "large": lambda: pl.DataFrame({"a": range(20_000), "s": [str(i) for i in range(20_000)]}), "odd names": lambda: pl.DataFrame({"": [1], "ü \n": [2]}), "dtype": lambda: [pl.Int8(), pl.List(pl.Date), pl.Enum(["a"])], "schema": lambda: pl.Schema({"a": pl.Int8}), "expression": lambda: pl.col("a") + 1, "in a dict": lambda: {"a": pl.DataFrame({"x": [1]}), "b": pl.Series("s", ["y"])},
}  # fmt: skip
for _name, _make in POLARS.items():
    case("polars", _name, _make)

"""Which values are tables to SQL, and what becomes of their columns, types and missing values."""

import datetime as dt
import threading
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from stepwell.kernel_runtime.errors import InvalidInvocationError, NotTabularError, QueryError
from stepwell.kernel_runtime.session.sql import as_frame, frame_type
from stepwell.kernel_runtime.store.sql.select import Scope, run_select, stream_select


def read(value, text="FROM t"):
    return run_select(text, Scope({"t": value})).to_pydict()


@pytest.mark.parametrize(
    ("value", "columns"),
    [
        (pd.DataFrame({"a": [1, 2]}), {"a": [1, 2]}),
        (pd.DataFrame({"a": [1, 2]}, index=[7, 8]), {"a": [1, 2]}),
        (pd.DataFrame({"a": [1]}, index=pd.Index(["k"], name="key")), {"key": ["k"], "a": [1]}),
        (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)], names=["p", "q"])), {"p": [1], "q": [2], "a": [1]}),
        (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)], names=["p", None])), {"p": [1], "a": [1]}),
        (pd.DataFrame({"k": ["x"], "a": [1]}).set_index("k", drop=False), {"k": ["x"], "a": [1]}),
        (pd.DataFrame([[1, 2]]), {"0": [1], "1": [2]}),
        (pd.Series([1, 2], name="n"), {"n": [1, 2]}),
        (pd.Series([1]), {"value": [1]}),
        (pd.DataFrame({"g": ["u", "u"], "n": [1, 2]}).groupby("g").n.sum(), {"g": ["u"], "n": [3]}),
        (pl.DataFrame({"a": [1]}), {"a": [1]}),
        (pl.Series("s", [1]), {"s": [1]}),
        (pa.table({"a": [1]}), {"a": [1]}),
        (pa.record_batch({"a": [1]}), {"a": [1]}),
        (np.array([1, 2]), {"column0": [1, 2]}),
        (np.array([[1, 2], [3, 4]]), {"column0": [1, 3], "column1": [2, 4]}),
        (np.arange(12).reshape(3, 4)[::2, ::-3], {"column0": [3, 11], "column1": [0, 8]}),
        (np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), {"a": [1], "b": [2.5]}),
        (np.ma.masked_array([1, 2], mask=[False, True]), {"column0": [1, None]}),
        (np.array(["x", "y"]), {"column0": ["x", "y"]}),
        ([{"a": 1}, {"b": "x"}], {"a": [1, None], "b": [None, "x"]}),
        ({"a": [1, 2], "b": np.array([1.5, 2.5])}, {"a": [1, 2], "b": [1.5, 2.5]}),
    ],
)  # fmt: skip
def test_what_is_a_table(value, columns):
    assert read(value) == columns


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (5, "not a table: its type is int"),
        ("text", "its type is str"),
        (None, "its type is NoneType"),
        ([], "its type is list"),
        ([1, 2], "its type is list"),
        ([{"a": 1}, 2], "its type is list"),
        ({"a": 1}, "its values are not columns"),
        ({"a": [1], "b": [1, 2]}, "its columns do not form a table"),
        ({"a": "text"}, "its values are not columns"),
        (np.array(5), "with 0 dimensions"),
        (np.zeros((2, 2, 2)), "with 3 dimensions"),
        (threading.current_thread(), "its type is threading"),
        (pd.DataFrame(), "has no columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns 'a'"),
        (pd.DataFrame([[1, 2]], columns=["a", "A"]), "'a' and 'A'"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "two columns '1'"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("p", "q")])), "have 2 levels"),
        (pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]), "two columns 'a'"),
        (pl.DataFrame({"a": [1], "A": [2]}), "'a' and 'A'"),
        (pd.DataFrame({"when": pd.period_range("2026", periods=1)}), r"when \(period"),
        (pd.DataFrame({"z": [1j]}), r"z \(complex128\)"),
    ],
)
def test_what_is_no_table_is_named_with_its_type(value, says):
    with pytest.raises(NotTabularError, match=says) as caught:
        read(value)
    assert "'t'" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_types_survive_in_arrow_and_polars():
    when = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    table = pa.table(
        {
            "decimal": pa.array([Decimal("1.500"), None], pa.decimal128(30, 3)),
            "zoned": pa.array([when, None], pa.timestamp("us", tz="UTC")),
            "nanos": pa.array([1, None], pa.timestamp("ns")),
            "day": pa.array([dt.date(2026, 1, 2), None]),
            "floats": pa.array([float("nan"), None]),
            "large": pa.array([2**63 - 1, None]),
            "list": pa.array([[1, None], None]),
            "struct": pa.array([{"a": 1, "b": None}, None]),
            "bytes": pa.array([b"\0x", None]),
            "bool": pa.array([True, None]),
        }
    )
    found = run_select("FROM t", Scope({"t": table}))
    assert [str(field.type) for field in found.schema if field.name != "list"] == [
        str(field.type) for field in table.schema if field.name != "list"
    ]
    before, after = table.to_pydict(), found.to_pydict()
    assert np.isnan(after["floats"][0])
    assert after["floats"][1] is None
    for name in table.column_names:
        if name != "floats":
            assert after[name] == before[name], name
    assert as_frame(found, "polars").drop("floats").to_dict(as_series=False)["large"] == [2**63 - 1, None]
    frame = as_frame(found, "pandas")
    assert frame["large"].tolist()[0] == 2**63 - 1
    assert frame["large"].isna().tolist() == [False, True]
    assert (str(frame["large"].dtype), str(frame["bool"].dtype)) == ("Int64", "boolean")
    assert list(frame.columns) == table.column_names


def test_empty_results_keep_their_columns_and_names_that_occur_twice_are_numbered():
    table = pa.table({"id": [1], "id_1": [2]})
    empty = run_select("SELECT id, 'x' AS s FROM t WHERE false", Scope({"t": table}))
    assert (empty.num_rows, empty.column_names) == (0, ["id", "s"])
    for kind in ("pandas", "polars"):
        assert list(as_frame(empty, kind).columns) == ["id", "s"]
    twice = run_select("SELECT t.*, u.id FROM t, t AS u", Scope({"t": table}))
    assert twice.to_pydict() == {"id": [1], "id_1": [2], "id_2": [1]}
    assert stream_select("SELECT 1 AS a, 2 AS a", Scope({})).read_all().to_pydict() == {"a": [1], "a_1": [2]}


def test_a_stream_makes_rows_as_they_are_read_and_can_be_left():
    reader = stream_select("SELECT range AS n, md5(range::VARCHAR) AS m FROM range(1_000_000_000_000)", Scope({}))
    assert reader.read_next_batch().column("n")[0].as_py() == 0
    del reader
    with pytest.raises(QueryError, match="Could not convert"):
        stream_select("SELECT CAST(IF(range < 300000, '1', 'x') AS INT) AS n FROM range(400000)", Scope({})).read_all()
    assert run_select("SELECT 1 AS a", Scope({})).to_pydict() == {"a": [1]}


def test_a_large_table_is_not_copied_to_be_read():
    rows = 3_000_000
    table = pa.table({"x": np.arange(rows), "y": np.zeros(rows)})
    before = pa.total_allocated_bytes()
    for value in (table, table.to_pandas(), pl.DataFrame({"x": np.arange(rows)})):
        assert read(value, "SELECT max(x)::BIGINT AS m FROM t") == {"m": [rows - 1]}
    assert pa.total_allocated_bytes() - before < rows


def test_the_kinds_of_frames():
    assert frame_type("auto") == "pandas"
    with pytest.raises(InvalidInvocationError, match="pandas, polars, pyarrow, reader"):
        frame_type("panda")

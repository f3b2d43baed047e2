"""How two frames differ: by key or position, with every kind of column, and within a memory limit."""

import datetime as dt
import json
import threading

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.commands.diff import worded
from stepwell.kernel_runtime.errors import InvalidInvocationError, UnknownKeyError
from stepwell.kernel_runtime.session.differences import Side, compare


def diff(before, after, **more):
    sides = (Side("before", None, type(before).__name__, ""), Side("after", None, type(after).__name__, ""))
    return worded(compare("k", *sides, (lambda: before, lambda: after), **more))


BEFORE = {"id": [1, 2, 3, 4], "x": [1.0, float("nan"), 3.0, 4.0], "s": ["a", None, "c", "d"]}
AFTER = {"id": [4, 2, 3, 5], "x": [4.0, float("nan"), 3.5, 9.0], "s": ["d", None, None, "e"]}
MAKERS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}


@pytest.mark.parametrize("library", MAKERS)
def test_rows_are_matched_by_a_key_column_and_cells_compared(library):
    found = diff(MAKERS[library](BEFORE), MAKERS[library](AFTER))
    details = found.details
    assert details.matched_by == ("id",)
    assert (details.added, details.removed, details.changed) == (1, 1, 1)
    assert {column.name: column.count for column in details.columns} == {"x": 1, "s": 1}
    assert details.columns[0].examples[0] == ("3", "3.0", "3.5")
    changed = found.rows("changed")
    assert type(changed) is type(MAKERS[library](BEFORE))
    as_dict = (
        changed.to_pydict()
        if library == "pyarrow"
        else changed.to_dict("list")
        if library == "pandas"
        else changed.to_dict(as_series=False)
    )
    assert (as_dict["id"], as_dict["x (before)"], as_dict["x (after)"]) == ([3], [3.0], [3.5])
    assert [int(np.asarray(found.rows(kind)["id"])[0]) for kind in ("added", "removed")] == [5, 1]
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize("library", MAKERS)
def test_by_position_where_nothing_names_the_rows(library):
    before, after = ({name: column for name, column in each.items() if name != "id"} for each in (BEFORE, AFTER))
    found = diff(MAKERS[library](before), MAKERS[library](after)).details
    assert found.matched_by == ()
    assert (found.added, found.removed, found.changed) == (0, 0, 3)
    longer = diff(MAKERS[library]({"x": [1, 2, 3]}), MAKERS[library]({"x": [1]}))
    assert (longer.details.removed, longer.details.changed) == (2, 0)
    assert len(longer.rows("removed")) == 2
    assert len(longer.rows("added")) == 0


def test_null_and_nan_equal_themselves_only_where_the_library_tells_them_apart():
    one = pa.table({"x": [1.0, float("nan"), None]})
    assert diff(one, pa.table({"x": [1.0, float("nan"), None]})).details.changed == 0
    assert diff(one, pa.table({"x": [1.0, None, float("nan")]})).details.changed == 2


def test_a_unique_index_of_pandas_is_the_key():
    one = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"]))
    two = pd.DataFrame({"x": [2, 3]}, index=pd.Index(["b", "c"]))
    found = diff(one, two)
    assert (found.details.matched_by, found.details.added, found.details.removed, found.details.changed) == (
        ("index",),
        1,
        1,
        0,
    )
    levels = pd.MultiIndex.from_tuples([(1, "a"), (1, "b")], names=["n", "s"])
    found = diff(pd.DataFrame({"x": [1, 2]}, index=levels), pd.DataFrame({"x": [1, 5]}, index=levels))
    assert found.details.matched_by == ("n", "s")
    assert found.details.columns[0].examples == (("1, 'b'", "2", "5"),)
    assert diff(pd.Series([1, 2], index=[7, 8]), pd.Series([1, 3], index=[7, 8])).details.changed == 1


def test_a_level_that_only_one_index_has_leaves_no_key():
    one, two = (pd.MultiIndex.from_tuples([(1, "a"), (1, "b")], names=["n", last]) for last in ("s", "t"))
    found = diff(pd.DataFrame({"x": [1, 2]}, index=one), pd.DataFrame({"x": [1, 5]}, index=two)).details
    assert (found.matched_by, found.changed, found.added) == ((), 1, 0)


def test_rows_of_columns_with_one_name():
    one, two = (pa.table([[1, 2], [3, number]], names=["a", "a"]) for number in (4, 5))
    assert diff(one, two).rows().to_pydict() == {"a #2 (before)": [4], "a #2 (after)": [5]}


def test_an_index_that_repeats_is_no_key():
    one = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "a"]))
    found = diff(one, one.assign(x=[1, 3])).details
    assert (found.matched_by, found.changed) == ((), 1)


def test_keys_that_repeat_are_told_and_matched_in_their_order():
    found = diff(
        pa.table({"id": [1, 1, 2, None, None], "x": [1, 2, 3, 4, 5]}),
        pa.table({"id": [1, 1, 1, None], "x": [1, 7, 3, 4]}),
        on="id",
    ).details
    assert found.duplicates == (2, 1)
    assert (found.added, found.removed, found.changed) == (1, 2, 1)


def test_the_columns_to_match_by_can_be_given():
    before, after = (
        pa.table({"a": [1, 1], "b": ["x", "y"], "c": [1, 2]}),
        pa.table({"a": [1, 1], "b": ["y", "x"], "c": [2, 9]}),
    )
    found = diff(before, after, on=["a", "b"]).details
    assert (found.matched_by, found.changed) == (("a", "b"), 1)
    assert diff(before, after, on=[]).details.changed == 2
    with pytest.raises(UnknownKeyError, match="nix"):
        diff(before, after, on=["nix"])
    with pytest.raises(UnknownKeyError):
        diff(before, after, on=[3])
    with pytest.raises(InvalidInvocationError, match="frames"):
        diff(1, 2, on=["a"])


def test_columns_that_came_went_changed_their_type_or_perhaps_their_name():
    before = pd.DataFrame({"id": [1, 2], "gone": [1, 2], "old": ["x", "y"], "n": [1, 2], "t": [1, 2]})
    after = pd.DataFrame({"id": [1, 2], "new": ["x", "y"], "came": [5, 6], "n": [1.0, 2.5], "t": ["1", "3"]})
    schema = diff(before, after).details.schema
    assert {name for name, _ in schema.added} == {"new", "came"}
    assert {name for name, _ in schema.removed} == {"gone", "old"}
    assert schema.renamed == (("old", "new"),)
    assert [name for name, *_ in schema.retyped] == ["n", "t"]
    counts = {column.name: (column.count, column.how) for column in diff(before, after).details.columns}
    assert counts == {"n": (1, ""), "t": (1, "as text")}


CELLS = {
    "bool": ([True, False, None], [True, True, None], pa.bool_()),
    "uint64": ([2**64 - 1, 1], [2**64 - 2, 1], pa.uint64()),
    "duration ns": ([dt.timedelta(0)], [dt.timedelta(1)], pa.duration("ns")),
    "float16": ([np.float16(1), np.float16(2)], [np.float16(1), np.float16(3)], pa.float16()),
    "timestamp ns": ([1, 2], [1, 3], pa.timestamp("ns")),
    "timestamp ns with a zone": ([1, 2], [1, 3], pa.timestamp("ns", "Europe/Berlin")),
    "time ns": ([1, 2], [1, 3], pa.time64("ns")),
    "binary": ([b"a", b"\x00"], [b"a", b"\x01"], pa.binary()),
    "list": ([[1, None], [2]], [[1, None], [3]], pa.list_(pa.int64())),
    "nan in a list": ([[1.0], [float("nan")]], [[2.0], [float("nan")]], pa.list_(pa.float64())),
    "struct": (
        [{"a": 1, "b": [1]}, None],
        [{"a": 1, "b": [2]}, None],
        pa.struct({"a": pa.int64(), "b": pa.list_(pa.int64())}),
    ),
    "nanoseconds in a list": ([[1], [2]], [[1], [3]], pa.list_(pa.time64("ns"))),
    "map": ([[("a", 1)], []], [[("a", 2)], []], pa.map_(pa.string(), pa.int64())),
    "dictionary": (["a", "b"], ["a", "c"], pa.dictionary(pa.int8(), pa.string())),
    "decimal256": ([1, 2], [1, 3], pa.decimal256(50, 0)),
    "date": ([dt.date(2020, 1, 1)], [dt.date(2020, 1, 2)], pa.date32()),
    "interval": ([(1, 2, 3)], [(1, 2, 4)], pa.month_day_nano_interval()),
    "string view": (["a", "b"], ["a", "c"], pa.string_view()),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_change_of_one_cell_is_seen_in_every_type(name):
    before, after, kind = CELLS[name]
    one, two = pa.table({"x": pa.array(before, kind)}), pa.table({"x": pa.array(after, kind)})
    found = diff(one, two).details
    assert found.changed == 1
    assert not found.columns[0].how.startswith("not compared")
    assert diff(one, pa.table({"x": pa.array(before, kind)})).details.changed == 0


PANDAS = {
    "objects": ([1, "a", None, [1]], [True, "a", None, [1]]),
    "sets": ([{1, 2}, {3}], [{2, 1}, {4}]),
    "period": (pd.period_range("2020", periods=2, freq="D"), pd.PeriodIndex(["2020-01-01", "2020-01-03"], freq="D")),
    "interval": (pd.interval_range(0, 2), pd.IntervalIndex.from_tuples([(0, 1), (1, 3)])),
    "categorical": (pd.Categorical(["a", "b"]), pd.Categorical(["a", "c"])),
    "complex": ([1j, 2], [1j, 3]),
    "sparse": (pd.arrays.SparseArray([0, 1]), pd.arrays.SparseArray([0, 2])),
    "nullable": (pd.array([1, None], "Int64"), pd.array([2, None], "Int64")),
    "time zone": (pd.to_datetime([1, 2], utc=True), pd.to_datetime([1, 3], utc=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", PANDAS)
def test_a_change_of_one_cell_is_seen_in_every_kind_of_pandas_column(name):
    one, two = (pd.DataFrame({"x": column}) for column in PANDAS[name])
    assert diff(one, two).details.changed == 1
    assert diff(one, one.copy()).details.changed == 0


def test_a_column_without_a_digest_is_told_not_compared():
    one = pd.DataFrame({"x": [threading.Lock()], "y": [1]})
    found = diff(one, pd.DataFrame({"x": [threading.Lock()], "y": [2]}))
    assert found.details.changed == 1
    assert {column.name: column.how[:12] for column in found.details.columns} == {"x": "not compared", "y": ""}
    assert "1 column not compared" in found.summary


def test_labels_that_are_no_strings_or_repeat():
    one = pd.DataFrame([[1, 2, 3]], columns=[0, "a", "a"])
    two = pd.DataFrame([[1, 2, 4]], columns=[0, "a", "a"])
    found = diff(one, two)
    assert [(column.name, column.count) for column in found.details.columns] == [("a #2", 1)]
    assert found.rows().to_dict("list") == {"a #2 (before)": [3], "a #2 (after)": [4]}


def test_what_a_table_does_not_show_is_said():
    one = pd.DataFrame({"x": [1]})
    two = pd.DataFrame({"x": [1]})
    two.attrs["unit"] = "m"
    assert "order of columns, the index, the metadata or the representation differs" in diff(one, two).summary


def test_no_rows_and_no_columns():
    assert diff(pd.DataFrame(), pd.DataFrame({"x": [1]})).details.added == 1
    assert diff(pa.table({"x": pa.array([], pa.int64())}), pa.table({"x": [1]})).details.added == 1
    assert diff(pd.DataFrame(index=range(2)), pd.DataFrame(index=range(3))).details.added == 1


def test_names_of_columns_are_never_sql():
    name = 'x"; DROP TABLE a; --'
    found = diff(pa.table({name: [1]}), pa.table({name: [2]}), on=[])
    assert found.details.columns[0].name == name


def test_rows_of_another_kind_are_refused():
    found = diff(pa.table({"x": [1]}), pa.table({"x": [2]}))
    with pytest.raises(InvalidInvocationError, match="'added'"):
        found.rows("other")
    with pytest.raises(InvalidInvocationError, match="are no differing rows"):
        diff(1, 2).rows()
    with pytest.raises(InvalidInvocationError, match="memory limit"):
        diff(pa.table({"x": [1]}), pa.table({"x": [2]}), memory_limit="much")


def test_it_spills_below_the_memory_limit_and_leaves_nothing(tmp_path):
    count = 300_000
    one = pa.table({"id": np.arange(count), "s": [f"{number:0100d}" for number in range(count)]})
    two = pa.table({"id": np.arange(count)[::-1], "s": one["s"].take(np.arange(count)[::-1])})
    found = diff(one, two, memory_limit="60MB", folder=tmp_path)
    assert (found.details.matched_by, found.details.changed, found.details.added) == (("id",), 0, 0)
    assert not list(tmp_path.iterdir())


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    before=st.dictionaries(
        st.integers(0, 6), st.tuples(st.none() | st.integers(0, 2), st.sampled_from(["a", "b", None])), max_size=6
    ),
    after=st.dictionaries(
        st.integers(0, 6), st.tuples(st.none() | st.integers(0, 2), st.sampled_from(["a", "b", None])), max_size=6
    ),
    library=st.sampled_from(sorted(MAKERS)),
)
def test_a_keyed_difference_is_what_python_says(before, after, library):
    def frame(rows):
        columns = {
            "id": pa.array(list(rows), pa.int64()),
            "n": pa.array([row[0] for row in rows.values()], pa.int64()),
            "s": pa.array([row[1] for row in rows.values()], pa.string()),
        }
        table = pa.table(columns)
        return table if library == "pyarrow" else pl.from_arrow(table) if library == "polars" else table.to_pandas()

    found = diff(frame(before), frame(after), on=["id"])
    common = before.keys() & after.keys()
    assert found.details.added == len(after.keys() - before.keys())
    assert found.details.removed == len(before.keys() - after.keys())
    assert found.details.changed == sum(before[key] != after[key] for key in common)
    counts = {column.name: column.count for column in found.details.columns}
    assert counts.get("n", 0) == sum(before[key][0] != after[key][0] for key in common)
    assert counts.get("s", 0) == sum(before[key][1] != after[key][1] for key in common)
    assert len(found.rows("changed")) == found.details.changed
    assert {int(each) for each in np.asarray(found.rows("added")["id"])} == after.keys() - before.keys()

"""Two values have one data version exactly if they are equal with their types."""

import datetime as dt
import decimal
import enum
import math
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.encode import encode, refuse

atoms = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4) | st.complex_numbers()
)
keys = st.integers(-2, 2) | st.text(max_size=2) | st.booleans()
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(keys, max_size=3)
        | st.frozensets(keys, max_size=3)
    ),
    max_leaves=8,
)
small = st.recursive(
    st.sampled_from([0, 1, True, False, 0.0, -0.0, 1.0, math.nan, None, "", "1", b"", b"1", 1 + 0j]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from([0, 1, "a"]), inner, max_size=2)
        | st.frozensets(st.sampled_from([0, 1, "a", 1.0]), max_size=2)
    ),
    max_leaves=4,
)


def spelled(value):
    """An exact description: equal texts for equal values only."""
    kind = type(value)
    if kind is float:
        return "nan" if math.isnan(value) else value.hex()
    if kind is complex:
        return f"complex {spelled(value.real)} {spelled(value.imag)}"
    if kind in (list, tuple):
        return f"{kind.__name__} {[spelled(item) for item in value]}"
    if kind is dict:
        return f"dict {[(spelled(key), spelled(item)) for key, item in value.items()]}"
    if kind in (set, frozenset):
        return f"{kind.__name__} {sorted(map(spelled, value))}"
    return f"{kind.__name__} {value!r}"


@settings(max_examples=300, deadline=None)
@given(small, small)
def test_equal_versions_mean_equal_values(one, other):
    assert (data_version(one) == data_version(other)) == (spelled(one) == spelled(other))


@settings(max_examples=200, deadline=None)
@given(values)
def test_a_copy_has_the_same_version(value):
    import copy
    import pickle

    assert data_version(value) == data_version(copy.deepcopy(value)) == data_version(pickle.loads(pickle.dumps(value)))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: int
    y: object = None


class Loop:
    pass


def loop(value):
    made = Loop()
    made.me = [made, value]
    return made


def nested(depth, kind=list):
    value = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def cyclic(*items):
    made = list(items)
    made.append(made)
    return made


PAIRS = [
    (np.arange(4), np.arange(4).astype("int32")),
    (np.arange(4), np.arange(4).reshape(2, 2)),
    (np.zeros(3), -np.zeros(3)),
    (np.array(["a"], dtype=object), np.array(["b"], dtype=object)),
    (np.array([1], dtype="<i4"), np.array([1], dtype=">i4")),
    (np.float64(1), np.float32(1)),
    (np.float64(1), 1.0),
    (np.datetime64("2020-01-01"), np.datetime64("2020-01-02")),
    (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1.0]})),
    (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
    (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}, index=[5])),
    (pd.DataFrame({"a": [1]}).rename_axis("x"), pd.DataFrame({"a": [1]})),
    (pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"b": [2], "a": [1]})),
    (pd.Series([1], name="a"), pd.Series([1], name="b")),
    (pd.Series(["a", None]), pd.Series(["a", "None"])),
    (pd.Series(["a", "b"], dtype="category"), pd.Series(["a", "b"])),
    (pd.Series([1, None], dtype="Int64"), pd.Series([1, 0], dtype="Int64")),
    (pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01", tz="UTC")),
    (pd.date_range("2020", periods=2), pd.date_range("2020", periods=2, tz="UTC")),
    (pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]}, schema={"a": pl.Int32})),
    (pl.DataFrame({"a": ["x", None]}), pl.DataFrame({"a": ["x", ""]})),
    (pl.Series("a", [1]), pl.Series("b", [1])),
    (pa.table({"a": [1]}), pa.table({"a": pa.array([1], pa.int32())})),
    (pa.table({"a": [1, None]}), pa.table({"a": [1, 0]})),
    (pa.table({"a": [[1], [2, 3]]}), pa.table({"a": [[1, 2], [3]]})),
    (pa.array([True, False]), pa.array([True, None])),
    (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))),
    (dt.date(2020, 1, 1), dt.date(2020, 1, 2)),
    (dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, fold=1)),
    (dt.datetime(2020, 1, 1), dt.date(2020, 1, 1)),
    (dt.time(1, 2), dt.time(1, 2, tzinfo=dt.UTC)),
    (dt.timedelta(days=1), dt.timedelta(seconds=1)),
    ([dt.date(2020, 1, 1)], [dt.date(2020, 1, 2)]),
    (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    (Path("a"), Path("b")),
    (Path("a"), "a"),
    (Colour.RED, Colour.BLUE),
    (Point(1), Point(2)),
    (Point(1), Point(True)),
    (loop(1), loop(2)),
    (bytearray(b"a"), b"a"),
    (range(3), [0, 1, 2]),
    (nested(5000), nested(5001)),
    (nested(5000, dict), nested(5001, dict)),
    (cyclic(1), cyclic(2)),
    ({1, 2}, frozenset({1, 2})),
    (int, float),
    (len, max),
]


@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_values_that_differ_have_other_versions(place):
    one, other = PAIRS[place]
    assert data_version(one) is not None
    assert data_version(other) is not None
    assert data_version(one) != data_version(other)


def long_doubles(padding, kind=np.longdouble):
    """Return numbers of which the bytes that are not used have a value."""
    found = np.array([1, 2], kind)
    if np.finfo(np.longdouble).nmant == 63:
        found.view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)[:, 10:] = padding
    return found


frame = pd.DataFrame({"a": [1, 2, 3], "b": [1.5, np.nan, 2.5], "c": ["x", None, "z"], "d": pd.date_range("2020", periods=3)})
chunked = pa.chunked_array([["a", None], ["c"]])
LAYOUTS = [
    (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
    (np.arange(6)[::2], np.array([0, 2, 4])),
    (np.array([0.0, np.nan]), np.array([0.0, -np.float64(np.nan)])),
    (math.nan, -math.nan),
    ([math.nan, 1], [float("inf") - float("inf"), 1]),
    (frame, frame[["b", "a", "c", "d"]][["a", "b", "c", "d"]]),
    (frame, pd.concat([frame.iloc[:1], frame.iloc[1:]])),
    (frame, pd.DataFrame({name: frame[name].copy() for name in frame})),
    (pd.Series(["a", "b", "c"])[1:].reset_index(drop=True), pd.Series(["b", "c"])),
    (pd.Series([1, None], dtype="Int64"), pd.Series([7, None], dtype="Int64") // 7),
    (pa.table({"a": chunked}), pa.table({"a": chunked.combine_chunks()})),
    (pa.array(["a", "b", "c"]).slice(1), pa.array(["b", "c"])),
    (pa.array([1, None, 3]).slice(1), pa.array([None, 3])),
    (pa.array([[1], None, [2, 3]]).slice(1), pa.array([None, [2, 3]])),
    (pa.array([{"x": 1}, None, {"x": 2}]).slice(1), pa.array([None, {"x": 2}])),
    (
        pl.concat([pl.DataFrame({"a": ["x"]}), pl.DataFrame({"a": ["y"]})], rechunk=False),
        pl.DataFrame({"a": ["x", "y"]}),
    ),
    (pl.DataFrame({"a": [1, 2, 3]})[1:], pl.DataFrame({"a": [2, 3]})),
    (loop(1), loop(1)),
    (long_doubles(1), long_doubles(2)),
    (long_doubles(1, np.clongdouble), long_doubles(2, np.clongdouble)),
    (long_doubles(1)[0], long_doubles(2)[0]),
]


@pytest.mark.parametrize("place", range(len(LAYOUTS)))
def test_how_a_value_lies_in_memory_does_not_count(place):
    one, other = LAYOUTS[place]
    assert data_version(one) == data_version(other) is not None


def test_a_function_without_a_name_counts_by_its_code_and_closure():
    def adds(n):
        return lambda x: x + n

    assert data_version([adds(1)]) == data_version([adds(1)])
    assert data_version([adds(1)]) != data_version([adds(2)])


def test_values_that_code_can_tell_apart_have_other_versions():
    hard = np.ma.array([1, 2], mask=[0, 1], hard_mask=True)
    soft = np.ma.array([1, 2], mask=[0, 1])
    below = np.ma.array([1, 3], mask=[0, 1])
    assert len({data_version(each) for each in (hard, soft, below)}) == 3


def test_that_a_value_was_looked_at_does_not_count():
    error, matrix = ValueError("x"), sparse.csr_array(np.eye(3))
    before = data_version([error, matrix])
    assert vars(error) == {}
    assert matrix.has_canonical_format
    assert data_version([error, matrix]) == before


class Holder:
    x = 0


@pytest.mark.parametrize("make", [lambda: [1], lambda: {"a": 1}, set, lambda: bytearray(b"a"), Holder, lambda: np.arange(3)])
@pytest.mark.parametrize(
    "around", [lambda a, b: [a, b], lambda a, b: {"a": (a,), "b": [b]}, lambda a, b: [(a, b)] * 100, lambda a, b: [[a], {1}, b]]
)
def test_an_object_that_occurs_twice_is_not_two_equal_objects(make, around):
    one, other = make(), make()
    assert data_version(around(one, one)) != data_version(around(one, other))
    assert data_version(around(other, other)) == data_version(around(one, one))


def test_an_object_inside_a_large_value_is_not_an_equal_object_beside_it():
    rows = [[number] for number in range(100)]
    versions = {
        data_version((rows, rows[0])),
        data_version((rows, rows[99])),
        data_version((rows, [0])),
        data_version((rows, [99])),
    }
    assert len(versions) == 4
    assert data_version([[0]] * 100) != data_version([[0] for _ in range(100)])
    doubled = [1, []]
    for _ in range(60):
        doubled = [doubled, doubled]
    assert data_version(doubled) is not None


def test_immutable_objects_may_be_one_or_many():
    from datetime import date

    text, day, numbers = "ab", date(2020, 1, 1), (1, 2)
    assert data_version([text, text, day, day, numbers, numbers]) == data_version(
        ["ab", "ab", day, date(2020, 1, 1), (1, 2), (1, 2)]
    )


def test_a_value_without_a_canonical_digest_has_none():
    import threading

    assert data_version(threading.Lock()) is None
    lock = threading.Lock()
    assert data_version([lambda: lock]) is None
    tangle = (1, [])
    for _ in range(60):
        tangle = (tangle, tangle)
    assert data_version(tangle) is None


def test_versions_are_equal_in_processes_with_other_hash_seeds():
    program = (
        "from test_data_versions import *\n"
        "print([data_version(value) for pair in PAIRS + LAYOUTS for value in pair])\n"
        "print(data_version({'alpha', 'beta', ('a', 1), frozenset({'x', 'y'})}), data_version(Colour), data_version(Point(3, {'k': {'a', 'b'}})))\n"
    )
    here = Path(__file__).parent
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"}
        found.add(
            subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
        )
    assert len(found) == 1
    assert "None" not in found.pop()


def test_the_code_of_a_notebooks_class_counts():
    from edited_cells import run_cells

    first = run_cells("class P:\n    def f(self): return 1\n")["P"]
    second = run_cells("class P:\n    def f(self): return 2\n")["P"]
    assert data_version(first()) == data_version(first())
    assert data_version(first()) != data_version(second())


@pytest.mark.parametrize("count", [1, 9, 200, 140_000])
def test_text_below_a_missing_place_does_not_count_wherever_the_strings_begin(count):
    texts = [("a", "", "bcd")[at % 3] for at in range(count)]
    missing = np.array([at % 7 == 3 or at == count - 1 for at in range(count)])
    whole = pa.array(texts, pa.large_string())
    shown = pa.py_buffer(np.packbits(~missing, bitorder="little").tobytes())
    hiding = pa.Array.from_buffers(pa.large_string(), count, [shown, *whole.buffers()[1:]])
    plain = pa.array([None if gone else text for text, gone in zip(texts, missing, strict=True)], pa.large_string())
    for start in {0, 1 % count, 8 % count, count // 2}:
        anew = pa.array(plain.slice(start).to_pylist(), pa.large_string())
        assert data_version(hiding.slice(start)) == data_version(plain.slice(start)) == data_version(anew)
    if count > 1:
        assert data_version(hiding) != data_version(whole)


@settings(max_examples=200, deadline=None)
@given(values)
def test_a_container_that_is_written_as_a_whole_has_the_encoding_of_its_members(value):
    whole = [value, {"a": value, 2: (value,)}, *range(64)]
    # With anything set apart, members are looked at one by one.
    assert encode(whole, refuse) == encode(whole, refuse, separate_ids={-1})


def test_what_would_explode_when_it_is_written_out_ends():
    value, tangle = [1], (1, [])
    for _ in range(40):
        value = [value] * 4 + [0] * 60
        tangle = (tangle,) * 4 + (0,) * 60
    assert data_version(value) is not None
    assert data_version(tangle) is None
    cycle = [*range(64)]
    cycle.append({"self": cycle})
    assert data_version(cycle) is not None


class Forgets(dict):
    def __setstate__(self, state):
        # Whatever the instance was given besides its items is found out again.
        pass


def test_what_no_loaded_instance_has_does_not_count():
    value = Forgets(a=1)
    value.cache = {1: 2}
    assert data_version(value) == data_version(pickle.loads(pickle.dumps(value)))
    assert data_version(value) != data_version(Forgets(a=2))

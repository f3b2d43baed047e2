"""How arrays, objects and texts differ."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stepwell.commands.diff import worded
from stepwell.kernel_runtime.session.differences import Side, compare


def diff(before, after, **more):
    sides = (Side("before", None, type(before).__name__, ""), Side("after", None, type(after).__name__, ""))
    return worded(compare("k", *sides, (lambda: before, lambda: after), **more))


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_the_elements_that_differ_are_counted_and_shown():
    one = np.arange(6.0).reshape(2, 3)
    two = one.copy()
    two[1, 0] = -4
    two[0, 2] = np.nan
    found = diff(one, two)
    assert (found.kind, found.details.differing, found.details.greatest) == ("array", 2, 7.0)
    assert found.details.positions == ((0, 2), (1, 0))
    assert found.details.examples[1] == ("1, 0", "3.0", "-4.0")
    assert "2 of 6 elements differ" in found.summary


@pytest.mark.parametrize(
    ("one", "two", "count"),
    [
        (np.array([np.nan, 1]), np.array([np.nan, 2]), 1),
        (np.array(["NaT", "2020"], "M8[D]"), np.array(["NaT", "2021"], "M8[D]"), 1),
        (np.array([1, "a", [2]], object), np.array([1.0, "a", [2]], object), 1),
        (np.array([(1, np.nan), (2, 3.0)], "i4,f8"), np.array([(1, np.nan), (2, 4.0)], "i4,f8"), 1),
        (np.ma.array([1, 2, 3], mask=[0, 1, 0]), np.ma.array([1, 9, 3], mask=[0, 1, 1]), 1),
        (np.array(b"a"), np.array(b"b"), 1),
        (np.array(5), np.array(5), 0),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(6).reshape(2, 3), 0),
        (np.arange(10)[::2], np.arange(10)[1::2], 5),
        (np.array([1, 2], "u1"), np.array([255, 2], "u1"), 1),
        (np.array([], float), np.array([], float), 0),
        (np.array(["a", "b"]), np.array(["a", "cc"]), 1),
        (np.array([True, False]), np.array([True, True]), 1),
    ],
)
def test_arrays_of_every_kind(one, two, count):
    assert diff(one, two).details.differing == count


def test_other_shapes_and_types_are_said():
    assert "shape (2,) -> (3,)" in diff(np.zeros(2), np.zeros(3)).summary
    assert "dtype int64 -> float64" in diff(np.zeros(2, int), np.zeros(2)).summary
    assert diff(np.array([1, 255], "u1"), np.array([2, 1], "u1")).details.greatest == 254


def test_a_large_array_is_compared_in_parts():
    one = np.zeros((3, 1 << 20))
    two = one.T.copy().T
    two[2, -1] = 1
    assert diff(one, two).details.positions == ((2, (1 << 20) - 1),)


def test_sparse_arrays():
    one = sparse.csr_matrix(np.diag([1.0, np.nan, 3.0]))
    two = sparse.coo_matrix(np.diag([1.0, np.nan, 4.0]))
    found = diff(one, two).details
    assert (found.differing, found.positions, found.greatest) == (1, ((2, 2),), 1.0)
    assert diff(sparse.csc_array(np.eye(2)), sparse.csr_array(np.zeros((2, 2)))).details.differing == 2
    assert diff(one, one.tocsc()).details.differing == 0
    assert diff(one, sparse.eye(2)).details.differing is None


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=8))
def test_the_count_is_what_python_says(pairs):
    one, two = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    expected = sum(not (a == b or (np.isnan(a) and np.isnan(b))) for a, b in pairs)
    assert diff(one, two).details.differing == expected


# -- objects -----------------------------------------------------------------------------------------------------------


@dataclass
class Point:
    x: int
    y: object = None


class Plain:
    def __init__(self, **values):
        self.__dict__.update(values)


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (1, 2, [("", "1", "2")]),
        (1, True, [("", "1 (int)", "True (bool)")]),
        ({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3], "c": 0}, [("['b'][1]", "2", "3"), ("['c']", "", "0")]),
        ([1, 2, 3], [1], [("[1]", "2", ""), ("[2]", "3", "")]),
        ((1, (2,)), (1, (3,)), [("[1][0]", "2", "3")]),
        ({1, 2}, {2, 3}, [(" without", "1", ""), (" with", "", "3")]),
        (Point(1, {"k": 1}), Point(1, {"k": 2}), [(".y['k']", "1", "2")]),
        (Plain(a=1, b=2), Plain(a=1, c=3), [(".b", "2", ""), (".c", "", "3")]),
        (Pair(1, 2), Pair(1, 3), [(".right", "2", "3")]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, [(" order", "'a', 'b'", "'b', 'a'")]),
        (OrderedDict(a=1), OrderedDict(a=2), [("['a']", "1", "2")]),
        (float("nan"), 1.0, [("", "nan", "1.0")]),
        (
            {"df": pd.DataFrame({"x": [1]})},
            {"df": pd.DataFrame({"x": [2]})},
            [("['df']", "pandas.DataFrame 1 × 1", "pandas.DataFrame 1 × 1")],
        ),
    ],
)
def test_places_where_objects_differ(before, after, changes):
    assert list(diff(before, after).details.changes) == changes


def test_nan_equals_itself_and_zero_its_negative_does_not():
    assert diff([float("nan")], [float("nan")]).details.changes == ()
    assert diff([0.0], [-0.0]).details.changes == (("[0]", "0.0", "-0.0"),)


def test_the_search_is_bounded():
    found = diff(list(range(1000)), list(range(1, 1001)))
    assert (len(found.details.changes), found.details.more) == (100, True)
    assert "100 or more places" in found.summary
    assert len(str(found).splitlines()) < 20
    deep, other = [1], [2]
    for _ in range(5000):
        deep, other = [deep], [other]
    assert len(diff(deep, other).details.changes) == 1
    loop, again = [1], [2]
    loop.append(loop)
    again.append(again)
    assert diff(loop, again).details.changes == (("[0]", "1", "2"),)


def test_a_large_container_is_searched_in_bounded_steps():
    searched = set()

    class Item:
        def __init__(self, number):
            self.number = number

        def __getattribute__(self, name):
            number = object.__getattribute__(self, "number")
            searched.add(number)
            return number if name == "number" else object.__getattribute__(self, name)

    found = diff(*({number: Item(number) for number in range(110_000)} for _ in range(2)))
    assert (found.details.changes, found.details.more) == ((), True)
    assert "the value is too large" in found.summary
    assert max(searched) < 100_000


class Hostile:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        raise RuntimeError("compared")

    def __repr__(self):
        raise RuntimeError("shown")

    __hash__ = None


class HostileText(str):
    __slots__ = ()

    def __repr__(self):
        raise RuntimeError("shown")


class Names(dict):
    pass


def test_methods_of_a_users_class_neither_decide_nor_show():
    assert diff([Hostile(1)], [Hostile(2)]).details.changes == (("[0].x", "1", "2"),)
    ((_, before, after),) = diff([HostileText("a")], [HostileText("b")]).details.changes
    assert before == after == f"{__name__}.HostileText"
    assert diff(Names(a=1), Names(a=2)).details.changes == (("['a']", "1", "2"),)


def test_no_secret_is_shown():
    token = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0cD2fG5"
    texts = [
        diff({"password": "hunter22"}, {"password": "tiger333"}),
        diff(["x" * 70 + " " + token], ["y"]),
        diff(pd.DataFrame({"password": ["hunter22"]}), pd.DataFrame({"password": ["tiger333"]})),
        diff(f"a\n{token}\n", "a\n"),
        diff(np.array([token]), np.array(["y"])),
    ]
    assert [found.kind for found in texts] == ["object", "object", "frame", "text", "array"]
    for found in texts:
        for text in (str(found), json.dumps(found.as_dict())):
            assert not any(secret in text for secret in ("hunter22", "tiger333", token[:8])), text


def test_values_of_two_types():
    found = diff(np.zeros(2), [0, 0])
    assert found.kind == "object"
    assert found.details.changes == (("", "numpy.ndarray 2 (numpy.ndarray)", "list 2 items (list)"),) or "numpy.ndarray" in str(
        found
    )
    assert diff(pd.DataFrame({"x": [1]}), None).kind == "object"


# -- texts -------------------------------------------------------------------------------------------------------------


def test_texts_by_lines():
    found = diff("a\nb\nc\n", "a\nx\nc\nd\n")
    assert (found.kind, found.details.added, found.details.removed) == ("text", 2, 1)
    assert "-b" in found.details.lines
    assert "only line endings differ" in str(diff("a\n", "a"))


def test_long_texts_are_bounded():
    lines = [str(number) for number in range(50_000)]
    other = list(lines)
    other[25_000] = "changed"
    found = diff("\n".join(lines), "\n".join(other))
    assert (found.details.added, found.details.removed) == (1, 1)
    found = diff("\n".join(lines), "\n".join(reversed(lines)))
    assert len(str(found)) < 2_000


def test_bytes_and_figures_are_said_not_to_be_compared_further():
    assert "first different byte is at position 1" in diff(b"ab", b"ac").summary
    from matplotlib.figure import Figure

    assert diff(Figure(), Figure()).kind == "figure"

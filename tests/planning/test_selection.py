"""Selection strings."""

import pytest

from stepwell.kernel_runtime.errors import InvalidSelectionError, UnknownKeyError
from stepwell.kernel_runtime.planning.build import SelectionGraph, select

#  raw/a -> b -> c -> d -> e        x -> c        lone
GRAPH = SelectionGraph(
    {"raw/a": (), "b": ("raw/a",), "x": (), "c": ("b", "x"), "d": ("c",), "e": ("d",), "lone": ()},
    {"raw/a": "raw", "x": "raw", "b": "mid", "c": "mid", "d": "end", "e": "end", "lone": "default"},
    {"raw/a": "", "b": "sql", "x": "", "c": "", "d": "", "e": "", "lone": "sql"},
)
ALL = "raw/a b x c d e lone"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("c", "c"),
        ("raw/a", "raw/a"),
        ('key:"raw/*"', "raw/a"),
        ("key:c", "c"),
        ('"c"', "c"),
        ("+c", "b x c"),
        ("c+", "c d"),
        ("+c+", "b x c d"),
        ("++c", "raw/a b x c"),
        ("c++", "c d e"),
        ("1+key:c", "b x c"),
        ("2+key:c", "raw/a b x c"),
        ("key:c+1", "c d"),
        ("key:c+2", "c d e"),
        ("1+key:c+1", "b x c d"),
        ("*c", "raw/a b x c"),
        ("c*", "c d e"),
        ("*c*", "raw/a b x c d e"),
        ("*", ALL),
        ("group:raw", "raw/a x"),
        ("kind:sql", "b lone"),
        ("group:raw or lone", "raw/a x lone"),
        ("*e and group:mid", "b c"),
        ("not *e", "lone"),
        ("not (group:raw or group:mid)", "d e lone"),
        ("*e and not +c", "raw/a d e"),
        ("b or c and d", "b"),
        ("(b or c) and c", "c"),
        ("+(b or x)", "raw/a b x"),
        ("roots(*e)", "raw/a x"),
        ("sinks(*)", "e lone"),
        ("roots(group:mid)", "b"),
        ("  c  ", "c"),
        ("+c or lone", "b x c lone"),
    ],
)
def test_what_a_selection_means(text, keys):
    assert set(select(text, GRAPH)) == set(keys.split())


def test_the_order_is_that_of_the_graph():
    assert select(["lone", "e", "raw/a"], GRAPH) == ["raw/a", "e", "lone"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "a,b",
        "c,d",
        "1+c",
        "(c",
        "c)",
        "c or",
        "and c",
        "not",
        "key:",
        "c d",
        "roots(c",
        "c $",
        "tag:x",
        "owner:me",
        "+",
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_write(text):
    with pytest.raises(InvalidSelectionError) as caught:
        select(text, GRAPH)
    assert repr(text) in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("cc", "did you mean"),
        ("+lonee", "lone"),
        ("group:rw", "raw"),
        ('key:"z*"', "choose one of these: "),
        ("c or nothing", "choose one of these: "),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(text, near):
    with pytest.raises(UnknownKeyError) as caught:
        select(text, GRAPH)
    assert near in caught.value.remedy


def test_an_asset_may_be_called_like_a_word_of_the_grammar():
    graph = SelectionGraph({"and": (), "roots": (), "b": ("roots",)}, {}, {})
    assert select("and", graph) == ["and"]
    assert select("roots+", graph) == ["roots", "b"]

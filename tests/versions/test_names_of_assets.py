"""An asset's own name does not count in its code version, so that a renamed asset keeps its results; every other name does."""

from types import CodeType

import pytest

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.versions.bytecode import facts
from stepwell.kernel_runtime.versions.walk import CodeWalk


def version(name, source, notebook):
    return version_of(name, source, compile(source, "<cell>", "exec"), notebook)


def version_of(name, source, code, notebook):
    body = CellBody(name, source, "cell 1", code, None, (), (name,), frozenset(notebook) - {name}, notebook, variables=(name,))
    return CodeWalk(namespace=notebook).of(body, path=name).digest


def same(before, after):
    notebook = {"f": len, "g": sorted, "x": 1, "d": 2}
    return version("old", before, notebook) == version("new", after, notebook)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("old = f(1)\nold += 1", "new = f(1)\nnew += 1  # so"),
        ("old = 1\nif old:\n    del old\nelse:\n    old = x", "new = 1\nif new:\n    del new\nelse:\n    new = x"),
        ("old = x.old", "new = x.old"),
        ("old = f(old=1)", "new = f(old=1)"),
        ("def old():\n    '''Of old.'''\n    return 1", "def new():\n    '''Of new.'''\n    return 1"),
        ("def g():\n    return old\nold = 1", "def g():\n    return new\nnew = 1"),
        ("def g():\n    global old\n    old = 2\nold = 1", "def g():\n    global new\n    new = 2\nnew = 1"),
        ("old = 'gold'", "new = 'gold'"),
        ("class A:\n    old = 1\nold = A.old", "class A:\n    old = 1\nnew = A.old"),
        ("import old\nold = old.f", "import old as new\nnew = new.f"),
    ],
)
def test_a_consistent_renaming_is_the_same(before, after):
    assert same(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("old = 1", "new = 2"),
        ("old = 1", "old = 1\nnew = old"),
        ("old = 1", "old = 1"),
        ("new = 1\nold = new", "new = 1\nnew = new"),
        ("old = x.old", "new = x.new"),
        ("old = g(lambda old: old)", "new = g(lambda old: new)"),
        ("old = g(lambda old: old)", "new = g(lambda new: new)"),
        ("def g(old):\n    return old\nold = g(1)", "def g(old):\n    return new\nnew = g(1)"),
        ("class A:\n    old = 1\nold = A.old", "class A:\n    new = 1\nnew = A.old"),
        ("class A:\n    y = old\nold = A", "class A:\n    y = old\nnew = A"),
        ("import old\nold = old.f", "import old\nnew = new.f"),
        ("import x as old\nold = old.f", "import x as old\nnew = new.f"),
        ("old = d.query('a > @old')", "new = d.query('a > @old')"),
        ("def g():\n    global old\n    old = 2\nold = 1", "def g():\n    global old\n    new = 2\nnew = 1"),
        ("old = f'{old=}'", "new = f'{new=}'"),
        ("match x:\n    case old:\n        pass", "match x:\n    case old:\n        pass"),
        ("try:\n    f()\nexcept E as old:\n    old = old", "try:\n    f()\nexcept E as old:\n    new = new"),
        ("def helper():\n    return 1\nold = helper", "def other():\n    return 1\nnew = other"),
    ],
)
def test_whatever_could_mean_something_else_is_not(before, after):
    assert not same(before, after)


def test_the_version_does_not_depend_on_what_was_read_before():
    source = "def g():\n    return old\nold = g"
    code = compile(source, "<cell>", "exec")
    inner = next(each for each in code.co_consts if isinstance(each, CodeType))
    assert facts(code).blob != facts(code, "old").blob
    plain = facts(inner).blob
    assert version_of("old", source, code, {}) == version("old", source, {})
    assert facts(inner).blob == plain


def test_a_function_counts_by_its_name_where_it_is_used():
    def target(name):
        space = {}
        exec("def helper():\n    return 1\ndef target():\n    return helper.__name__", space)
        space["helper"].__name__ = name
        return CodeWalk().of(space["target"], path="t").digest

    assert target("helper") == target("helper") != target("other")


def test_the_function_of_an_asset_has_one_version_under_every_name():
    space = {"RATE": 2}
    exec("def old(n):\n    return n * RATE\ndef new(n):\n    return n * RATE", space)
    assert CodeWalk().of(space["old"], path="old").digest == CodeWalk().of(space["new"], path="new").digest

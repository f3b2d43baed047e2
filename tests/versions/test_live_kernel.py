"""In a live kernel what is known of unchanged code is kept, and every change is noticed."""

import gc
import time

import pytest
from edited_cells import run_cells

from stepwell.kernel_runtime.versions.encode import identity
from stepwell.kernel_runtime.versions.graph import known_nodes
from stepwell.kernel_runtime.versions.walk import CodeWalk

CHANGES = {
    "helper redefined": ("def h(): return 1\ndef target(): return h()\n", "def h(): return 2\n"),
    "helper of a helper redefined": (
        "def g(): return 1\ndef h(): return g()\ndef target(): return h()\n",
        "def g(): return 2\n",
    ),
    "code replaced": ("def h(): return 1\ndef target(): return h()\n", "h.__code__ = (lambda: 2).__code__\n"),
    "defaults replaced": ("def h(a=1): return a\ndef target(): return h()\n", "h.__defaults__ = (2,)\n"),
    "keyword default changed": ("def h(*, a=1): return a\ndef target(): return h()\n", "h.__kwdefaults__['a'] = 2\n"),
    "closure cell changed": (
        "def make():\n    k = 1\n    def h(): return k\n    return h\nh = make()\ndef target(): return h()\n",
        "h.__closure__[0].cell_contents = 2\n",
    ),
    "attribute added": ("def h(): return 1\ndef target(): return h.k\n", "h.k = 1\n"),
    "name bound anew": ("K = 1\ndef target(): return K\n", "K = 2\n"),
    "name bound to an equal value of another type": ("K = 1\ndef target(): return K\n", "K = True\n"),
    "name deleted": ("K = 1\ndef target(): return K\n", "del K\n"),
    "missing name defined": ("def target(): return K\n", "K = 1\n"),
    "builtin shadowed": ("def target(): return len(())\n", "def len(v): return 9\n"),
    "list changed in place": ("L = [1]\ndef h(): return L\ndef target(): return h()\n", "L.append(2)\n"),
    "dict in a default changed in place": (
        "def h(d={}): return d\ndef target(): return h()\n",
        "h.__defaults__[0]['a'] = 1\n",
    ),
    "method replaced": (
        "class A:\n    def f(self): return 1\ndef target(): return A().f()\n",
        "A.f = lambda self: 2\n",
    ),
    "class attribute added": ("class A: pass\ndef target(): return A()\n", "A.k = 1\n"),
    "attribute of a base class": ("class B:\n    k = 1\nclass A(B): pass\ndef target(): return A().k\n", "B.k = 2\n"),
    "list of a class changed in place": ("class A:\n    k = [1]\ndef target(): return A().k\n", "A.k.append(2)\n"),
    "instance changed": ("class A: pass\nX = A()\nX.k = 1\ndef target(): return X.k\n", "X.k = 2\n"),
    "class of an instance changed": (
        "class A:\n    def f(self): return 1\nX = A()\ndef target(): return X.f()\n",
        "A.f = lambda self: 2\n",
    ),
    "function of a library replaced": (
        "import textwrap\ndef target(): return textwrap.dedent('a')\n",
        "textwrap.dedent = lambda v: v\n",
    ),
    "array changed in place": ("import numpy as np\nA = np.zeros(2)\ndef target(): return A\n", "A[0] = 1\n"),
    "member of a recursion": (
        "def a(): return b()\ndef b(): return a()\ndef target(): return a()\n",
        "def b(): return a() + 1\n",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_and_its_withdrawal_too(name):
    cells, change = CHANGES[name]
    import textwrap

    dedent = textwrap.dedent
    try:
        space = run_cells(cells)

        def version():
            return CodeWalk(namespace=space).of(space["target"], path="target").digest

        before = version()
        assert version() == before
        run_cells(change, namespace=space)
        after = version()
        assert after != before
        assert version() == after
        fresh = run_cells(cells)
        run_cells(change, namespace=fresh)
        assert CodeWalk(namespace=fresh).of(fresh["target"], path="target").digest == after
    finally:
        textwrap.dedent = dedent


def test_a_name_that_becomes_an_asset_is_noticed():
    space = run_cells("clean = 1\ndef h(): return clean\ndef target(): return h()\n")
    plain = CodeWalk(namespace=space).of(space["target"], path="target")
    asset = CodeWalk(namespace=space, asset_names={"clean": "clean"}).of(space["target"], path="target")
    again = CodeWalk(namespace=space).of(space["target"], path="target")
    assert plain.digest == again.digest != asset.digest
    assert asset.asset_names
    assert not again.asset_names


def test_functions_that_are_gone_are_not_kept():
    space = run_cells("def h(): return 1\ndef target(): return h()\n")
    CodeWalk(namespace=space).of(space["target"], path="target")
    keys = [identity(space["h"]), identity(space["target"])]
    assert all(key in known_nodes for key in keys)
    space.clear()
    gc.collect()
    assert not any(key in known_nodes for key in keys)


def test_nothing_redefined_costs_a_fraction_of_a_first_walk():
    count = 400
    space = run_cells("RATE = 3\n" + "".join(f"def f{at}(x): return x * RATE + {at}\n" for at in range(count)))
    functions = [space[f"f{at}"] for at in range(count)]

    def seconds():
        walk = CodeWalk(namespace=space)
        start = time.thread_time()
        for function in functions:
            walk.of(function, path="f")
        return time.thread_time() - start

    first = seconds()
    assert min(seconds() for _ in range(5)) < first / 2

"""A code version changes with everything that can matter, and with nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from edited_cells import digest, run_cells, version

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.versions.bytecode import facts
from stepwell.kernel_runtime.versions.walk import CodeWalk

EDITS = {
    "constant": ("def target():\n    return 1\n", "def target():\n    return 2\n"),
    "constant of another type": ("def target():\n    return 1\n", "def target():\n    return 1.0\n"),
    "true is not one": ("def target():\n    return (1, 0)\n", "def target():\n    return (True, 0)\n"),
    "minus zero": ("def target():\n    return 0.0\n", "def target():\n    return -0.0\n"),
    "order of branches": (
        "def target(x):\n    if x:\n        return 1\n    return 2\n",
        "def target(x):\n    if not x:\n        return 1\n    return 2\n",
    ),
    "keyword name": ("def target():\n    return dict(a=1)\n", "def target():\n    return dict(b=1)\n"),
    "exception table": (
        "def target():\n    try:\n        a()\n        b()\n    except KeyError:\n        pass\n",
        "def target():\n    a()\n    try:\n        b()\n    except KeyError:\n        pass\n",
    ),
    "default": ("def target(n=1):\n    return n\n", "def target(n=2):\n    return n\n"),
    "keyword default": ("def target(*, n=1):\n    return n\n", "def target(*, n=2):\n    return n\n"),
    "generator": ("def target():\n    return [1]\n", "def target():\n    yield [1]\n"),
    "async": ("def target():\n    return 1\n", "async def target():\n    return 1\n"),
    "global in a comprehension": (
        "K = 1\ndef target():\n    return [K for _ in range(2)]\n",
        "K = 2\ndef target():\n    return [K for _ in range(2)]\n",
    ),
    "global in a nested class": (
        "K = 1\ndef target():\n    class A:\n        k = K\n    return A.k\n",
        "K = 2\ndef target():\n    class A:\n        k = K\n    return A.k\n",
    ),
    "helper of a helper": (
        "def g(): return 1\ndef h(): return g()\ndef target(): return h()\n",
        "def g(): return 2\ndef h(): return g()\ndef target(): return h()\n",
    ),
    "helper held by partial": (
        "from functools import partial\ndef g(v): return v\nh = partial(g, 1)\ndef target(): return h()\n",
        "from functools import partial\ndef g(v): return -v\nh = partial(g, 1)\ndef target(): return h()\n",
    ),
    "argument of partial": (
        "from functools import partial\ndef g(v): return v\nh = partial(g, 1)\ndef target(): return h()\n",
        "from functools import partial\ndef g(v): return v\nh = partial(g, 2)\ndef target(): return h()\n",
    ),
    "function held by frompyfunc": (
        "import numpy as np\ndef g(v): return v\nh = np.vectorize(g)\ndef target(): return h([1])\n",
        "import numpy as np\ndef g(v): return v + 1\nh = np.vectorize(g)\ndef target(): return h([1])\n",
    ),
    "set of functions": (
        "def g(): return 1\nS = {g}\ndef target(): return [f() for f in S]\n",
        "def g(): return 2\nS = {g}\ndef target(): return [f() for f in S]\n",
    ),
    "set inside a dict": (
        "def g(): return 1\nS = {'s': {g, 2}}\ndef target(): return S\n",
        "def g(): return 2\nS = {'s': {g, 2}}\ndef target(): return S\n",
    ),
    "method of a base class": (
        "class A:\n    def f(self): return 1\nclass B(A): pass\ndef target(): return B().f()\n",
        "class A:\n    def f(self): return 2\nclass B(A): pass\ndef target(): return B().f()\n",
    ),
    "super": (
        "class A:\n    def f(self): return 1\nclass B(A):\n    def f(self): return super().f()\ndef target(): return B().f()\n",
        "class A:\n    def f(self): return 2\nclass B(A):\n    def f(self): return super().f()\ndef target(): return B().f()\n",
    ),
    "metaclass": (
        "class M(type):\n    def f(cls): return 1\nclass A(metaclass=M): pass\ndef target(): return A.f()\n",
        "class M(type):\n    def f(cls): return 2\nclass A(metaclass=M): pass\ndef target(): return A.f()\n",
    ),
    "class annotation": (
        "class A:\n    x: int\ndef target(): return A\n",
        "class A:\n    x: str\ndef target(): return A\n",
    ),
    "class annotation in quotes": (
        "class A:\n    x: 'int'\ndef target(): return A\n",
        "class A:\n    x: 'str'\ndef target(): return A\n",
    ),
    "class annotation of the future": (
        "from __future__ import annotations\nclass A:\n    x: int\ndef target(): return A\n",
        "from __future__ import annotations\nclass A:\n    x: str\ndef target(): return A\n",
    ),
    "class in a class annotation": (
        "class B:\n    k = 1\nclass A:\n    x: list[B]\ndef target(): return A\n",
        "class B:\n    k = 2\nclass A:\n    x: list[B]\ndef target(): return A\n",
    ),
    "class annotation that is replaced": (
        "class A:\n    x: int\nA.__annotations__['x'] = str\ndef target(): return A\n",
        "class A:\n    x: int\nA.__annotations__\ndef target(): return A\n",
    ),
    "annotation of a nested class": (
        "def target():\n    class A:\n        x: int = 1\n    return A\n",
        "def target():\n    class A:\n        x: str = 1\n    return A\n",
    ),
    "annotation of a dataclass": (
        "from dataclasses import dataclass\n@dataclass(slots=True)\nclass A:\n    x: int\ndef target(): return A\n",
        "from dataclasses import dataclass\n@dataclass(slots=True)\nclass A:\n    x: str\ndef target(): return A\n",
    ),
    "annotation of a named tuple": (
        "from typing import NamedTuple\nclass A(NamedTuple):\n    x: int\ndef target(): return A\n",
        "from typing import NamedTuple\nclass A(NamedTuple):\n    x: str\ndef target(): return A\n",
    ),
    "super in a query": (
        "import pandas as pd\ncut = 1\nclass F(pd.DataFrame):\n    def of(self): return super().query('x > @cut')\ndef target(): return F\n",
        "import pandas as pd\ncut = 2\nclass F(pd.DataFrame):\n    def of(self): return super().query('x > @cut')\ndef target(): return F\n",
    ),
    "enum value": (
        "from enum import Enum\nclass E(Enum):\n    A = 1\ndef target(): return E.A\n",
        "from enum import Enum\nclass E(Enum):\n    A = 2\ndef target(): return E.A\n",
    ),
    "enum method": (
        "from enum import Enum\nclass E(Enum):\n    A = 1\n    def f(self): return 1\ndef target(): return E.A.f()\n",
        "from enum import Enum\nclass E(Enum):\n    A = 1\n    def f(self): return 2\ndef target(): return E.A.f()\n",
    ),
    "field of a made dataclass": (
        "from dataclasses import make_dataclass\nP = make_dataclass('P', [('a', int, 1)])\ndef target(): return P().a\n",
        "from dataclasses import make_dataclass\nP = make_dataclass('P', [('a', int, 2)])\ndef target(): return P().a\n",
    ),
    "default factory": (
        "from dataclasses import dataclass, field\n@dataclass\nclass P:\n    a: list = field(default_factory=lambda: [1])\ndef target(): return P().a\n",
        "from dataclasses import dataclass, field\n@dataclass\nclass P:\n    a: list = field(default_factory=lambda: [2])\ndef target(): return P().a\n",
    ),
    "frozen": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int = 1\ndef target(): return hash(P())\n",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n    a: int = 1\ndef target(): return hash(P())\n",
    ),
    "state of an instance": (
        "class C:\n    def __init__(self, a): self.a = a\nX = C({'k': [1]})\ndef target(): return X.a\n",
        "class C:\n    def __init__(self, a): self.a = a\nX = C({'k': [2]})\ndef target(): return X.a\n",
    ),
    "cycle through an instance": (
        "class C: pass\nX = C(); X.me = X; X.a = 1\ndef target(): return X.me.a\n",
        "class C: pass\nX = C(); X.me = X; X.a = 2\ndef target(): return X.me.a\n",
    ),
    "pattern": (
        "import re\nP = re.compile('a')\ndef target(s): return P.match(s)\n",
        "import re\nP = re.compile('b')\ndef target(s): return P.match(s)\n",
    ),
    "flags of a pattern": (
        "import re\nP = re.compile('a')\ndef target(s): return P.match(s)\n",
        "import re\nP = re.compile('a', re.I)\ndef target(s): return P.match(s)\n",
    ),
    "path": (
        "from pathlib import Path\nP = Path('a')\ndef target(): return P\n",
        "from pathlib import Path\nP = Path('b')\ndef target(): return P\n",
    ),
    "frame": (
        "import pandas as pd\nD = pd.DataFrame({'a': [1]})\ndef target(): return D\n",
        "import pandas as pd\nD = pd.DataFrame({'a': [1.0]})\ndef target(): return D\n",
    ),
    "function attribute": (
        "def h(): return h.k\nh.k = 1\ndef target(): return h()\n",
        "def h(): return h.k\nh.k = 2\ndef target(): return h()\n",
    ),
    "mutual recursion": (
        "def a(n): return b(n)\ndef b(n): return a(n) + 1\ndef target(): return a(1)\n",
        "def a(n): return b(n)\ndef b(n): return a(n) + 2\ndef target(): return a(1)\n",
    ),
    "members of a recursion swapped": (
        "def a(n): return b(n)\ndef b(n): return -a(n)\ndef target(): return a(1)\n",
        "def a(n): return b(n)\ndef b(n): return -a(n)\ndef target(): return b(1)\n",
    ),
    "wrapper of contextmanager": (
        "from contextlib import contextmanager\n@contextmanager\ndef c():\n    yield 1\ndef target():\n    with c() as v: return v\n",
        "from contextlib import contextmanager\n@contextmanager\ndef c():\n    yield 2\ndef target():\n    with c() as v: return v\n",
    ),
    "cached property": (
        "from functools import cached_property\nclass A:\n    @cached_property\n    def f(self): return 1\ndef target(): return A().f\n",
        "from functools import cached_property\nclass A:\n    @cached_property\n    def f(self): return 2\ndef target(): return A().f\n",
    ),
    "name in a query": (
        "cut = 1\ndef target(d): return d.query('x > @cut')\n",
        "cut = 2\ndef target(d): return d.query('x > @cut')\n",
    ),
    "name that was missing": ("def target(): return later\n", "later = 1\ndef target(): return later\n"),
    "shadowed builtin": ("def target(): return len([1])\n", "len = lambda v: 5\ndef target(): return len([1])\n"),
}

COSMETIC = {
    "comment": ("def target():\n    return 1\n", "# a\ndef target():\n    # b\n    return 1  # c\n"),
    "docstring": (
        "def target(x):\n    if x:\n        return None\n",
        'def target(x):\n    """Doc."""\n    if x:\n        return None\n',
    ),
    "docstring edited": (
        'def target(x):\n    """A."""\n    y = None\n    return (y, 3, "z")\n',
        'def target(x):\n    """B."""\n    y = None\n    return (y, 3, "z")\n',
    ),
    "docstring of a class": (
        'class A:\n    """A."""\n    def f(self): return 1\ndef target(): return A()\n',
        "class A:\n    def f(self):\n        'doc'\n        return 1\ndef target(): return A()\n",
    ),
    "annotations": (
        "def target(x, y=1):\n    z = x\n    return z\n",
        "def target(x: int, y: 'str' = 1) -> list[int]:\n    z: int = x\n    return z\n",
    ),
    "annotations of a helper": (
        "def h(x): return x\ndef target(): return h(1)\n",
        "def h(x: int) -> int: return x\ndef target(): return h(1)\n",
    ),
    "annotations of a class that were read before": (
        "class A:\n    x: int\ndef target(): return A\n",
        "class A:\n    x: int\nA.__annotations__\ndef target(): return A\n",
    ),
    "annotations of a method": (
        "class A:\n    def f(self, x: int) -> int: return x\ndef target(): return A\n",
        "class A:\n    def f(self, x: 'str'): return x\ndef target(): return A\n",
    ),
    "line of a nested class": (
        "def target():\n    class A:\n        def f(self): self.b = self.a = 1\n    return A\n",
        "\n\n# A comment.\ndef target():\n\n    class A:\n        def f(self): self.b = self.a = 1\n    return A\n",
    ),
    "line breaks": (
        "def target(x):\n    while True:\n        if x: break\n        x = f(x, 1)\n    return x\n",
        "def target(x):\n    while True:\n        if x:\n            break\n        x = f(\n            x,\n            1,\n        )\n    return x\n",
    ),
    "pass": (
        "def target(x):\n    for _ in x:\n        pass\n    return 1\n",
        "def target(x):\n    for _ in x: pass\n    return 1\n",
    ),
    "order of definition": (
        "def h(): return 1\nK = 2\ndef target(): return h() + K\n",
        "def target(): return h() + K\nK = 1 + 1\ndef h(): return 1\n",
    ),
    "order of methods": (
        "class A:\n    def f(self): return 1\n    def g(self): return 2\ndef target(): return A()\n",
        "class A:\n    def g(self): return 2\n    def f(self): return 1\ndef target(): return A()\n",
    ),
    "attribute named like a global": (
        "upper = 1\ndef target(): return 'a'.upper()\n",
        "upper = 2\ndef target(): return 'a'.upper()\n",
    ),
    "set order": ("S = {'a', 'b', 'c'}\ndef target(): return S\n", "S = {'c', 'b', 'a'}\ndef target(): return S\n"),
    "global it assigns first": (
        "def target():\n    global g\n    g = 1\n    return g\n",
        "g = 5\ndef target():\n    global g\n    g = 1\n    return g\n",
    ),
    "module alias": (
        "import numpy as np\ndef target(): return np.zeros(3)\n",
        "import os, numpy as np\ndef target(): return np.zeros(3)\n",
    ),
    "order of registration in a set": (
        "def g(): return 1\ndef h(): return 2\nS = {g, h}\ndef target(): return S\n",
        "def h(): return 2\ndef g(): return 1\nS = {h, g}\ndef target(): return S\n",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_that_can_matter_changes_the_version(name):
    before, after = EDITS[name]
    assert digest(before) != digest(after)


@pytest.mark.parametrize("name", [*EDITS, *COSMETIC])
def test_the_same_cells_have_the_same_version(name):
    before, _ = {**EDITS, **COSMETIC}[name]
    assert digest(before) == digest(before)


@pytest.mark.parametrize("name", COSMETIC)
def test_an_edit_that_cannot_matter_changes_nothing(name):
    before, after = COSMETIC[name]
    assert digest(before) == digest(after)


def test_versions_are_equal_in_processes_with_other_hash_seeds():
    program = "import json, sys\nfrom edited_cells import digest\nfrom test_code_versions import EDITS\nprint(json.dumps({name: digest(cells[0]) for name, cells in EDITS.items()}))\n"
    here = Path(__file__).parent
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{here}{os.pathsep}{here.parents[1]}"}
        found.append(
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
                ).stdout
            )
        )
    assert found[0] == found[1]
    assert found[0] == {name: digest(cells[0]) for name, cells in EDITS.items()}


def test_a_chain_of_ten_thousand_helpers():
    count = 10_000
    cells = [f"def h{at}(): return h{at + 1}()\n" for at in range(count)]
    first = run_cells("".join(cells), f"def h{count}(): return 1\n", "def target(): return h0()\n")
    walk = CodeWalk(namespace=first)
    before = walk.of(first["target"], path="target").digest
    run_cells(f"def h{count}(): return 2\n", namespace=first)
    after = CodeWalk(namespace=first).of(first["target"], path="target").digest
    assert before != after
    assert len(CodeWalk(namespace=first).parts(first["target"], path="target")) > 1000


def test_helpers_that_all_call_each_other_take_no_exponential_time():
    names = [f"f{at}" for at in range(40)]
    cell = "".join(f"def {name}(n): return ({', '.join(other + '(n)' for other in names)})\n" for name in names)
    assert digest(cell, "def target(): return f0(1)\n") == digest(cell, "def target(): return f0(1)\n")
    assert digest(cell, "def target(): return f0(1)\n") != digest(
        cell.replace("def f39(n): return (", "def f39(n): return (1, "), "def target(): return f0(1)\n"
    )


@pytest.mark.parametrize(
    ("cells", "path", "reason"),
    [
        (
            (
                "import sqlite3\nCONN = sqlite3.connect(':memory:')\n",
                "def helper(): return CONN\ndef target(): return helper()\n",
            ),
            "target -> helper -> CONN",
            "sqlite3.Connection",
        ),
        (
            (
                "import threading\nclass Client:\n    def __init__(self): self.lock = threading.Lock()\nAPI = Client()\n",
                "def target(): return API\n",
            ),
            "target -> API.lock",
            "_thread.lock",
        ),
        (("def target(): return eval('1')\n",), "target -> eval", "eval()"),
        (
            ("def helper(): return globals()\ndef target(): return helper()\n",),
            "target -> helper -> globals",
            "globals()",
        ),
        (("class A: pass\ndef target(): return A.__subclasses__()\n",), "target", "__subclasses__"),
        (("G = (i for i in [1])\ndef target(): return list(G)\n",), "target -> G", "generator"),
    ],
)
def test_what_has_no_digest_is_named_with_the_path_to_it(cells, path, reason):
    found = version(*cells).unverifiable
    assert [item.path for item in found] == [path]
    assert reason in found[0].reason


ORDINARY = {
    "logger": "import logging\nX = logging.getLogger('x')\n",
    "generator of random numbers": "import numpy as np\nX = np.random.default_rng(0)\n",
    "path and time": "import datetime as dt, decimal, uuid, zoneinfo\nfrom pathlib import Path\nX = (Path('x'), dt.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo('UTC')), decimal.Decimal(1), uuid.UUID(int=3))\n",
    "collections": "from collections import *\nN = namedtuple('N', 'a b')\nX = (N(1, 2), defaultdict(list, {1: [2]}), Counter('aab'), deque([1]), OrderedDict(a=1))\n",
    "slots": "from dataclasses import dataclass\n@dataclass(slots=True, frozen=True)\nclass P:\n    a: int = 1\nX = P(3)\n",
    "abstract class": "from abc import ABC, abstractmethod\nclass A(ABC):\n    @abstractmethod\n    def f(self): ...\nclass B(A):\n    def f(self): return 1\nX = B\n",
    "generic class": "from typing import Generic, TypeVar, TypedDict\nT = TypeVar('T')\nclass G(Generic[T]): pass\nclass D(TypedDict):\n    a: int\nX = (G, D, dict[str, int], int | None)\n",
    "flags": "import enum\nclass F(enum.Flag):\n    A = 1\n    B = 2\nX = F.A | F.B\n",
    "operator": "import operator\nX = (operator.itemgetter(1), operator.attrgetter('x'))\n",
    "odd frame": "import pandas as pd\nX = pd.DataFrame({'a': pd.Categorical(['x', 'y']), 'b': [[1], {'a': 2}], 'c': pd.array([1, None])}, index=pd.period_range('2020', periods=2, freq='D'))\n",
    "polars expression": "import polars as pl\nX = pl.col('a') + 1\n",
    "figure made inside": "import matplotlib.pyplot as X\n",
    "masked array": "import numpy as np\nX = (np.ma.array([1, 2], mask=[0, 1]), np.array([(1, 2.0)], dtype=[('a', 'i4'), ('b', 'f8')]))\n",
    "cached property": "import functools\nclass X:\n    @functools.cached_property\n    def c(self): return 1\n    @functools.singledispatchmethod\n    def s(self, x): return x\n",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_notebooks_ordinarily_hold_can_be_digested(name):
    cells = ORDINARY[name], "def target(): return X\n"
    found = version(*cells)
    assert found.unverifiable == ()
    assert found.digest == digest(*cells)


def test_a_global_named_like_an_asset_is_reported_and_not_digested():
    cells = "def helper(): return clean\ndef target(): return helper()\n"
    first = version("clean = 1\n", cells, asset_names={"clean": "raw/clean"})
    second = version("clean = [2]\n", cells, asset_names={"clean": "raw/clean"})
    assert first.digest == second.digest
    assert first.asset_names == (("clean", "target -> helper -> clean"),)
    assert first.mutable_globals == second.mutable_globals == ()
    assert version("clean = 1\n", cells, asset_names={"clean": "other"}).digest != first.digest


def test_globals_that_can_change_in_place_are_named():
    found = version(
        "L = [1]\nK = 1\nT = (1, 2)\n",
        "def helper():\n    global count\n    count = 1\n    return L, K, T\ndef target(): return helper()\n",
    )
    assert set(found.mutable_globals) == {"L", "count"}


def cell(source, globals_, reads, parameters=(), outputs=()):
    tree = compile(source, "/tmp/ipykernel_1/c.py", "exec")
    return CellBody(
        outputs[0] if outputs else "cell",
        source,
        "cell 1",
        tree,
        None,
        tuple(parameters),
        tuple(outputs),
        frozenset(reads),
        globals_,
    )


def test_a_cells_body_counts_with_the_names_that_it_reads():
    def of(source, space, **more):
        return CodeWalk(namespace=space).of(cell(source, space, **more), path="out").digest

    base = of("out = raw * K\n", {"K": 2, "raw": 1}, reads={"K"}, parameters=["raw"], outputs=["out"])
    assert base == of("# comment\nout = raw * K\n", {"K": 2, "raw": 5}, reads={"K"}, parameters=["raw"], outputs=["out"])
    assert base != of("out = raw * K\n", {"K": 3, "raw": 1}, reads={"K"}, parameters=["raw"], outputs=["out"])
    assert base != of("out = raw * K\n", {"K": 2, "raw": 1}, reads={"K"}, parameters=["raw"], outputs=["out", "raw"])
    helper = run_cells("def h(): return 1\n")["h"]
    other = run_cells("def h(): return 2\n")["h"]
    nested = "def f(): return h()\nout = f()\n"
    assert of(nested, {"h": helper}, reads={"h"}, outputs=["out"]) != of(nested, {"h": other}, reads={"h"}, outputs=["out"])


def test_a_select_counts_by_its_canonical_text_and_its_parameters():
    def of(canonical="select 1", frame="pandas", **space):
        body = SqlBody("daily", "SELECT 1 -- x", "cell 1", ("raw",), ("low",), space, frame, canonical)
        return CodeWalk(namespace=space).of(body, path="daily").digest

    assert of(low=1) == of(low=1)
    assert of(low=1) != of(low=2)
    assert of(low=1) != of("select 2", low=1)
    assert of(low=1) != of(frame="polars", low=1)


def test_extra_objects_count_by_name():
    space = run_cells("def target(): return 1\n")
    walk = CodeWalk(namespace=space)
    plain = walk.of(space["target"], path="t").digest
    wired = walk.of(space["target"], path="t", extra=[("wiring", "a -> b")]).digest
    assert (
        len(
            {
                plain,
                wired,
                walk.of(space["target"], path="t", extra=[("wiring", "b -> a")]).digest,
                walk.of(space["target"], path="t", extra=[("config", "a -> b")]).digest,
            }
        )
        == 4
    )


def test_a_definition_object_counts_by_its_body():
    prelude = "class Op:\n    def __init__(self, f):\n        import threading\n        self.__stepwell_body__ = f\n        self.lock = threading.Lock()\n"
    first = version(prelude, "def f(): return 1\nop = Op(f)\ndef target(): return op\n")
    second = version(prelude, "def f(): return 2\nop = Op(f)\ndef target(): return op\n")
    assert first.digest != second.digest
    assert first.unverifiable == ()


@pytest.mark.parametrize(
    ("source", "reads_all"),
    [
        ("a = '%(K)s' % vars()", True),
        ("a = '{K}'.format(**vars())", True),
        ("f = vars", True),
        ("a = list(map(vars, items))", True),
        ("def f():\n    return vars()", True),
        ("def f(items):\n    return map(vars, items)", True),
        ("a = vars(box)['x']", False),
        ("a = vars(made(1))", False),
        ("a = [vars(box) for box in boxes]", False),
        ("def f(box):\n    return vars(box)", False),
    ],
)
def test_vars_without_an_argument_reads_all_variables(source, reads_all):
    assert facts(compile(source, "<cell>", "exec")).bare_vars is reads_all

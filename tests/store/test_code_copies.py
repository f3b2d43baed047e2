"""Classes and functions of the notebook: by name while they are the same, by their copy otherwise."""

import asyncio
import sys
import textwrap
import threading
import types

import numpy as np
import pytest

from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values.loading import CodeReader
from stepwell.kernel_runtime.versions.data import class_version, data_version, hides


@pytest.fixture
def notebook(monkeypatch):
    """A ``__main__`` of our own: runs a cell in it, and returns it."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def run(cell):
        exec(textwrap.dedent(cell), main.__dict__)
        return main

    return run


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    store = open_store(
        tmp_path / "store",
        code=CodeReader(class_version, is_secret=hides),
        notify=lambda found: said.append(notice_text(found)),
    )
    yield store
    store.close()


def put(store, value):
    return store.put(value, key="a", memo_key="m")


def get(store, stored):
    return store.get(stored, key="a")


POINT = """
import dataclasses, enum

@dataclasses.dataclass
class Point:
    x: int
    def twice(self): return double(self.x)

def double(x): return 2 * x
"""


def test_while_it_is_the_same_the_notebooks_class_is_used(store, notebook, said):
    main = notebook(POINT)
    stored = put(store, {"deep": [main.Point(1), (main.Point(2), main.double)]})
    assert [name for name, _ in stored.classes] == ["__main__.Point", "__main__.double"]
    for cell in ("", POINT, POINT.replace("class Point:", "class Point:  # a comment")):
        notebook(cell)
        back = get(store, stored)["deep"]
        assert type(back[0]) is main.Point
        assert back == [main.Point(1), (main.Point(2), main.double)]
    assert said == []


def test_another_class_of_the_name_leaves_the_value_its_copy_and_says_so(store, notebook, said):
    stored = put(store, notebook(POINT).Point(3))
    main = notebook(POINT.replace("2 * x", "20 * x"))
    back = get(store, stored)
    assert type(back) is not main.Point
    assert (back.x, back.twice(), repr(back)) == (3, 6, "Point(x=3)")
    assert said == ["a: the stored copy of Point is used, because the notebook now defines another Point"]


def test_two_loads_of_a_copy_have_one_class(store, notebook):
    main = notebook(POINT)
    stored, other = put(store, main.Point(3)), put(store, [main.Point(3)])
    del main.Point, main.double
    assert type(get(store, stored)) is type(get(store, stored)) is type(get(store, other)[0])
    assert get(store, stored) == get(store, other)[0]


def test_a_copied_class_has_the_notebooks_own_base_if_that_is_the_same(store, notebook):
    main = notebook("class Base: pass\nclass Derived(Base):\n    def which(self): return type(self).__mro__[1], Base")
    stored = put(store, [main.Base(), main.Derived()])
    del main.Derived
    base, derived = get(store, stored)
    assert type(base) is main.Base
    assert isinstance(derived, main.Base)
    assert derived.which() == (main.Base, main.Base)


def test_classes_that_name_each_other_are_copied_together(store, notebook):
    main = notebook(
        """
        import abc
        class Tree(abc.ABC):
            def grow(self): return Leaf(self)
            @abc.abstractmethod
            def name(self): ...
        class Leaf(Tree):
            __slots__ = ("parent",)
            def __init__(self, parent=None):
                super().__init__()
                self.parent = parent
            def name(self): return __class__.__name__
        """
    )
    stored = put(store, main.Leaf())
    del main.Tree, main.Leaf
    leaf = get(store, stored)
    assert type(leaf.grow()) is type(leaf)
    assert leaf.grow().parent is leaf
    assert leaf.name() == "Leaf"


def test_members_of_the_same_enum_are_the_same_objects(store, notebook):
    main = notebook(POINT + "\nclass Colour(enum.Enum):\n    RED = 1\n    BLUE = 'b'")
    stored = put(store, {"c": main.Colour.RED, "all": list(main.Colour)})
    assert get(store, stored)["c"] is main.Colour.RED
    del main.Colour
    back = get(store, stored)
    assert back["c"] is back["all"][0]
    assert [each.value for each in back["all"]] == [1, "b"]


@pytest.mark.parametrize(
    ("cell", "call"),
    [
        ("value = lambda x: x + 1", (1, 2)),
        ("def outer(n):\n    def inner(x): return x * n\n    return inner\nvalue = outer(5)", (2, 10)),
        ("import math\nFACTOR = 10\ndef helper(x): return math.floor(x) * FACTOR\nvalue = lambda x: helper(x)", (1.5, 10)),
        ("def value(n): return 1 if n == 0 else n * value(n - 1)", (4, 24)),
        ("import functools\ndef add(a, b): return a + b\nvalue = functools.partial(add, 1)", (2, 3)),
    ],
    ids=["lambda", "closure", "helpers", "recursion", "partial"],
)  # fmt: skip
def test_functions_go_by_value_too(store, notebook, cell, call):
    stored = put(store, notebook(cell).value)
    notebook("\n".join(f"globals().pop({name!r}, None)" for name in ("value", "helper", "FACTOR", "outer", "add", "math")))
    assert get(store, stored)(call[0]) == call[1]


def test_a_closure_is_each_consumers_own(store, notebook):
    stored = put(store, notebook("def outer():\n    seen = []\n    def inner(x):\n        seen.append(x)\n        return len(seen)\n    return inner\nvalue = outer()").value)  # fmt: skip
    get(store, stored)(1)
    assert get(store, stored)(1) == 1


def test_a_class_defined_inside_the_step_goes_by_value_with_advice(store, notebook, said):
    notebook("")
    space = {"__name__": "__main__"}
    exec("class Row:\n    def __init__(self): self.a = 1", space)
    back = get(store, put(store, [space["Row"]()]))
    assert back[0].a == 1
    assert said == ["a: the class Row was defined inside the step and is stored by value: define it in a separate cell"]


def test_an_instance_of_a_class_that_was_defined_again_comes_back(store, notebook, said):
    old = notebook(POINT).Point(1)
    main = notebook(POINT)
    assert type(get(store, put(store, old))) is main.Point
    notebook(POINT.replace("self.x)", "self.x) + 1"))
    assert get(store, put(store, old)).twice() == 2


def test_versions_of_values_do_not_depend_on_whether_the_class_is_a_copy(store, notebook):
    main = notebook(POINT)
    value = [main.Point(1), {"f": main.double}]
    version = data_version(value)
    stored = put(store, value)
    del main.Point, main.double
    back = get(store, stored)
    assert type(back[0]) is not type(value[0])
    assert data_version(back) == version


def test_large_and_secret_globals_and_what_cannot_be_pickled_are_left_out(store, notebook, monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "value-of-the-environment")
    main = notebook(
        """
        import os, threading
        big = list(range(100_000))
        API_TOKEN = "do-not-keep-this"
        outside = os.environ["FROM_OUTSIDE"]
        lock = threading.Lock()
        small = {"k": 1}
        class Client:
            password = "nor-this-one"
            def ask(self, what): return eval(what) if what == "" else globals()[what] if False else {"big": lambda: big, "token": lambda: API_TOKEN, "outside": lambda: outside, "lock": lambda: lock, "small": lambda: small}[what]()
        """
    )  # fmt: skip
    stored = put(store, main.Client())
    assert stored.size < 10_000
    for text in (b"do-not-keep-this", b"nor-this-one", b"value-of-the-environment"):
        assert text not in stored.inline
    for name in list(vars(main)):
        if not name.startswith("__"):
            delattr(main, name)
    back = get(store, stored)
    assert back.ask("small") == {"k": 1}
    for name in ("big", "token", "outside", "lock"):
        with pytest.raises(NameError):
            back.ask(name)


def test_a_source_with_a_secret_in_it_has_no_copy(store, tmp_path, monkeypatch):
    # In a file, so that the source can be read.
    path = tmp_path / "cell.py"
    path.write_text("class Client:\n    def ask(self):\n        token = 'hidden-in-the-source'\n        return token\n")
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(path.read_text(), str(path), "exec"), main.__dict__)
    stored = put(store, main.Client())
    assert b"hidden-in-the-source" not in stored.inline
    assert type(get(store, stored)) is main.Client
    del main.Client
    with pytest.raises(ValueUnavailableError, match=r"needs Client, which is not defined in this process\n.*secret"):
        get(store, stored)


def test_what_a_class_holds_and_cannot_be_copied_is_found_by_name(store, notebook):
    main = notebook("import threading\nclass Guarded:\n    lock = threading.Lock()")
    stored = put(store, main.Guarded())
    assert type(get(store, stored)) is main.Guarded
    del main.Guarded
    with pytest.raises(ValueUnavailableError, match="run the cell that defines Guarded"):
        get(store, stored)


def test_a_copy_of_another_python_is_refused_with_its_version(store, notebook, monkeypatch):
    main = notebook(POINT)
    monkeypatch.setattr("stepwell.kernel_runtime.store.values.code_copies.PYTHON", "3.7")
    stored = put(store, main.Point(1))
    monkeypatch.undo()
    notebook("")
    with pytest.raises(ValueUnavailableError, match=r"Python 3\.7"):
        get(store, stored)


def test_a_copy_that_is_not_signed_is_not_executed(store, notebook, tmp_path, monkeypatch):
    main = notebook(POINT)
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "another key"))
    stored = open_store(store.directory).put(main.Point(1), key="a", memo_key="m")
    with pytest.raises(ValueUnavailableError, match="not written by you"):
        get(store, stored)


def test_copies_are_loaded_whole_by_several_threads_at_once(store, notebook):
    main = notebook(POINT)
    stored = [put(store, main.Point(at)) for at in range(8)]
    del main.Point, main.double
    found = []
    threads = [threading.Thread(target=lambda one=one: found.append(get(store, one).twice())) for one in stored]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_a_class_that_raises_when_it_is_looked_at_is_an_error_of_ours(store, notebook):
    main = notebook("class Odd:\n    def __reduce__(self): raise RuntimeError('no state')")
    with pytest.raises(UnstorableValueError, match="Odd"):
        put(store, main.Odd())


SHAPES = {
    "generic": "from typing import Generic, TypeVar\nT=TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self,v): self.v=v\nvalue=Box[int](3)",
    "namedtuple": "from typing import NamedTuple\nclass N(NamedTuple):\n    a: int = 3\nvalue=N()",
    "protocol": "from typing import Protocol\nclass P(Protocol):\n    def f(self): ...\nclass C(P):\n    def f(self): return 1\nvalue=C()",
    "slots": "import dataclasses\n@dataclasses.dataclass(slots=True, frozen=True, order=True)\nclass S:\n    a: int\n    b: list = dataclasses.field(default_factory=list)\nvalue=[S(1),S(2)]",
    "members": "import functools\nclass M:\n    k=[1]\n    @staticmethod\n    def s(): return 1\n    @classmethod\n    def c(cls): return cls.__name__\n    @property\n    def p(self): return 2\n    @functools.cached_property\n    def q(self): return 3\n    class In:\n        x=5\nvalue=[M(), M.In()]",
    "exception": "class E(ValueError):\n    def __init__(self,a,b): super().__init__(a,b); self.b=b\nvalue=E(1,2)",
    "dict": "class D(dict):\n    def f(self): return len(self)\nvalue=D(a=1)",
    "meta": "class Meta(type):\n    def hi(cls): return cls.__name__\nclass K(metaclass=Meta): pass\nvalue=K()",
    "frame": "import pandas as pd\nclass F(pd.DataFrame):\n    _metadata=['tag']\n    @property\n    def _constructor(self): return F\nvalue=F({'a':[1]}); value.tag='x'",
    "flag": "import enum\nclass Fl(enum.Flag):\n    A=1\n    B=2\nclass Se(str, enum.Enum):\n    X='x'\n    def up(self): return self.value.upper()\nvalue=[Fl.A|Fl.B, Se.X]",
    "self ref": "class Node:\n    all={}\n    def make(self): return Node()\nvalue=Node(); value.me=value",
    "sklearn": "import numpy as np\nfrom sklearn.base import BaseEstimator, TransformerMixin\nfrom sklearn.pipeline import make_pipeline\nfrom sklearn.linear_model import LinearRegression\nclass Tr(BaseEstimator, TransformerMixin):\n    def __init__(self,k=1): self.k=k\n    def fit(self,X,y=None): return self\n    def transform(self,X): return X*self.k\nvalue=make_pipeline(Tr(2),LinearRegression()).fit(np.array([[1.],[2.]]),[1,2])",
    "lru": "import functools\n@functools.lru_cache\ndef f(x): return x+1\nvalue=[f]",
    "async": "import asyncio\nasync def co(x): return x+1\nvalue=co",
    "gen": "def g(n):\n    yield from range(n)\nvalue=g",
    "deco": "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a)*2\n    return w\n@deco\ndef h(x): return x\nvalue=h",
    "bound": "class B:\n    def __init__(self): self.n=4\n    def get(self): return self.n\nvalue=B().get",
}
CHECKS = {
    "generic": lambda v: v.v == 3,
    "namedtuple": lambda v: v.a == 3 and v == (3,),
    "protocol": lambda v: v.f() == 1,
    "slots": lambda v: v[0] < v[1] and v[0].b == [],
    "members": lambda v: (v[0].s(), v[0].c(), v[0].p, v[0].q, v[1].x) == (1, "M", 2, 3, 5),
    "exception": lambda v: v.b == 2 and isinstance(v, ValueError),
    "dict": lambda v: v.f() == 1,
    "meta": lambda v: type(v).hi() == "K",
    "frame": lambda v: v.tag == "x" and type(v.head()) is type(v),
    "flag": lambda v: v[0].value == 3 and v[1].up() == "X" and v[1] == "x",
    "self ref": lambda v: v.me is v and type(v.make()) is type(v),
    "sklearn": lambda v: abs(v.predict(np.array([[3.0]]))[0] - 3) < 1e-9,
    "lru": lambda v: v[0](1) == 2,
    "async": lambda v: asyncio.run(v(1)) == 2,
    "gen": lambda v: list(v(2)) == [0, 1],
    "deco": lambda v: v(2) == 4,
    "bound": lambda v: v() == 4,
}


@pytest.mark.parametrize("name", SHAPES)
def test_code_of_every_shape_works_by_name_and_as_a_copy(store, notebook, said, name):
    main = notebook(SHAPES[name])
    stored = put(store, main.value)
    assert CHECKS[name](get(store, stored))
    assert said == []
    for each in list(vars(main)):
        delattr(main, each)
    assert CHECKS[name](get(store, stored))


SCRIPT = """
import dataclasses, sys
from stepwell.kernel_runtime.store.values.loading import CodeReader
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.versions.data import class_version
from stepwell.kernel_runtime.versions.data import data_version

store = open_store("kept", code=CodeReader(class_version))

def save(value):
    import pickle
    stored = store.put(value, key="a", memo_key="m")
    with open("row", "wb") as file:
        pickle.dump(stored, file)
    print(stored.digest, data_version(value))
"""
DEFINED = """
@dataclasses.dataclass
class Point:
    x: int
    names: frozenset = frozenset({"a", "b", "c"})
    def total(self): return self.x + len(self.names)
"""


def test_in_a_fresh_process_the_copy_is_loaded_and_stores_the_same(python, monkeypatch):
    makes = SCRIPT + DEFINED + 'save([Point(1), {"f": lambda p: p.total()}])'
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    first = python(makes)
    assert python(makes) == first
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert python("\n\n# moved down\n" + makes).split()[1] == first.split()[1]
    back = python(SCRIPT + "import pickle\nvalue = store.get(pickle.load(open('row', 'rb')), key='a')\nprint(value[1]['f'](value[0]))\nsave(value)")  # fmt: skip
    total, _, version = back.split()
    assert (total, version) == ("4", first.split()[1])


LARGE = """
import functools
import numpy as np
table = np.arange(40_000)
def helper(i): return int(table[i])
class Reader:
    def __init__(self, at): self.at = at
    def read(self, i): return helper(i + self.at)
def closed(data): return lambda i: int(data[i])
"""
FUNCTIONS = {
    "lambda": "lambda i: int(table[i])",
    "through a helper": "lambda i: helper(i)",
    "through a class": "lambda i: Reader(0).read(i)",
    "closure": "closed(np.arange(400_000))",
    "partial": "functools.partial(lambda table_at, i: helper(i + table_at), 0)",
    "bound method": "Reader(0).read",
    "in a dict": "{'f': lambda i: int(table[i])}['f']",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_reads_the_large_variables_of_the_notebook_that_loads_it(notebook, store, said, name):
    main = notebook(LARGE + f"f = {FUNCTIONS[name]}")
    stored, version = put(store, main.f), data_version(main.f)
    loaded = get(store, stored)
    assert loaded(7) == 7
    assert data_version(loaded) == version
    # A fresh kernel in which the cells above ran.
    vars(main).clear()
    main.__name__ = "__main__"
    notebook(LARGE)
    again = get(store, stored)
    assert again(9) == 9
    assert data_version(again) == version
    assert said == []


def test_the_variables_are_the_notebooks_live_ones_and_its_builtins_stay(notebook, store):
    main = notebook("import numpy as np\ntable = np.arange(40_000)\nf = lambda i: int(table[i])")
    before = main.__builtins__
    loaded = get(store, put(store, main.f))
    notebook("table = table * 2")
    assert loaded(3) == 6
    assert main.__builtins__ is before


def test_where_the_notebook_lacks_a_variable_or_has_another_function_the_stored_ones_are_used(notebook, store):
    main = notebook("K = 3\ndef helper(x): return x * K\nf = lambda x: helper(x) + K")
    stored = put(store, main.f)
    del main.K, main.helper
    assert get(store, stored)(2) == 9
    notebook("K = 3\ndef helper(x): return -x")
    assert get(store, stored)(2) == 9


def test_a_large_variable_that_only_the_step_has_goes_with_its_function(notebook, store):
    main = notebook("import numpy as np")
    space = {"__name__": "__main__", "np": main.np}
    exec("table = np.arange(800_000)\nf = lambda i: int(table[i])", space)
    stored = put(store, space["f"])
    assert get(store, stored)(700_000) == 700_000

"""The promise: delete the first line and the cell is a plain cell that computes the same value."""

import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SETUP = """
n = 3
words = ["b", "a", "c"]
def helper(x, by=2):
    return x * by + n
class Scale:
    factor = 10
    def __call__(self, x):
        return x * self.factor
async def slow(x):
    return x + 1
"""

BODIES = {
    "last expression": "sum(raw) + n",
    "assigned": "clean = [x * 2 for x in raw]",
    "assigned, another expression displayed": "clean = sorted(raw)\nlen(clean)",
    "assigned, expression silenced": "clean = sorted(raw)\nlen(clean);",
    "value silenced": "sorted(raw);",
    "comment and blank lines": "\n\n# first\n\nclean = 1  # one\n\n# last\n",
    "indented as a whole": "    clean = 1\n    clean += 1\n",
    "helper": "clean = helper(raw[0])",
    "class of the notebook": "clean = Scale()(raw[0])",
    "with": "import io\nwith io.StringIO('a') as f:\n    clean = f.read()",
    "for": "clean = 0\nfor x in raw:\n    clean += x",
    "for, the variable itself": "for clean in raw:\n    pass",
    "while": "clean = 1\nwhile clean < 100:\n    clean *= 2",
    "if": "if n > 2:\n    clean = 'many'\nelse:\n    clean = 'few'",
    "try": "try:\n    clean = raw[99]\nexcept IndexError as e:\n    clean = type(e).__name__\nfinally:\n    done = True",
    "match": "match raw:\n    case [first, *rest]:\n        clean = (first, rest)\n    case _:\n        clean = None",
    "walrus": "(clean := max(raw))",
    "walrus in a comprehension": "[clean := x for x in raw]",
    "augmented": "clean = []\nclean += raw",
    "unpacked": "first, *clean = raw",
    "chained": "other = clean = tuple(raw)",
    "annotated": "clean: list[int] = list(raw)",
    "import": "import math as m\nclean = m.sqrt(raw[-1])",
    "import from": "from math import floor, pi\nclean = floor(pi)",
    "import inside a function": "def f():\n    import math\n    return math.pi\nclean = f()",
    "recursion": "def fact(k):\n    return 1 if k < 2 else k * fact(k - 1)\nclean = fact(n)",
    "mutual recursion": "def even(k):\n    return k == 0 or odd(k - 1)\ndef odd(k):\n    return k != 0 and even(k - 1)\nclean = even(10)",
    "closure": "def adder(a):\n    def add(b):\n        return a + b + n\n    return add\nclean = adder(1)(2)",
    "nonlocal": "def counter():\n    c = 0\n    def step():\n        nonlocal c\n        c += 1\n        return c\n    step()\n    return step()\nclean = counter()",
    "global in a function": "def f():\n    global clean\n    clean = n + 1\nf()",
    "global counter": "count = 0\ndef f():\n    global count\n    count += 1\nf()\nf()\nclean = count",
    "class body": "class A:\n    n = n\n    twice = [n, n]\n    def get(self):\n        return self.n + n\nclean = (A().get(), A.twice)",
    "comprehension over its own name": "clean = [raw for raw in raw]",
    "nested comprehensions": "clean = {x: [y for y in raw if y > x] for x in raw}",
    "generator": "def gen():\n    for x in raw:\n        yield x * n\nclean = list(gen())",
    "lambda": "key = lambda w: (len(w), w)\nclean = sorted(words, key=key)",
    "lambda late": "get = lambda: later\nlater = 5\nclean = get()",
    "decorator": "import functools\n@functools.lru_cache\ndef f(x):\n    return x + n\nclean = [f(1), f(1)]",
    "dataclass": "from dataclasses import dataclass, asdict\n@dataclass\nclass P:\n    x: int\n    y: int = n\nclean = asdict(P(1))",
    "await": "clean = await slow(raw[0])",
    "await as the last expression": "await slow(raw[0])",
    "gather": "import asyncio\nclean = await asyncio.gather(*(slow(x) for x in raw))",
    "async comprehension": "async def agen():\n    for x in raw:\n        yield x\nclean = [x async for x in agen()]",
    "async with": "import contextlib\n@contextlib.asynccontextmanager\nasync def cm():\n    yield n\nasync with cm() as clean:\n    pass",
    "f-string": "f'{raw[0]:>{n}}|{words!r}'",
    "shadowed builtin": "sum = helper\nclean = sum(2)",
    "shadowed input": "raw = raw[::-1]\nclean = raw",
    "input changed in place": "raw.append(9)\nclean = raw",
    "del": "tmp = list(raw)\ndel tmp[0]\nclean = tmp\ndel tmp",
    "star-args": "def f(*a, **k):\n    return a, k\nclean = f(*raw, **{'x': n})",
    "several statements on a line": "a = 1; b = 2; clean = a + b",
    "backslash": "clean = 1 + \\\n    2",
    "string over lines": "clean = '''a\n%%time\n!ls\n'''",
    "percent": "clean = 7 % n",
    "time of an expression": "%time clean = helper(2)",
    "time of the last expression": "x = 2\n%time helper(x)",
    "assigned from time": "clean = %time helper(4)",
    "shell": "clean = !echo hello",
    "shell with names": "word = 'x'\nclean = !echo $word {n}",
    "shell with a variable of the notebook": "clean = !echo $n",
    "future annotations": "from __future__ import annotations\ndef f(x: Undefined) -> Unknown:\n    return x\nclean = f.__annotations__",
    "name and doc": "clean = __name__",
    "None": "clean = None",
    "name of a helper's asset": "def total():\n    return sum(raw)\nclean = total()",
    "exec-free introspection": "clean = sorted(k for k in {'a': 1, 'b': 2})",
    "nested with and for": "from contextlib import nullcontext\nclean = []\nfor i in range(2):\n    with nullcontext(i) as k:\n        clean.append(k)",
}


def plain_value(notebook, body):
    """Run a body as a plain cell; return its value and what it left in `raw`. The notebook's variables are as before afterwards."""
    before = dict(notebook.ns)
    kept = pickle.dumps([before["raw"], before["words"]])
    ran = notebook(body.rstrip(";"))  # `;` only keeps the shell from showing it
    value = notebook.ns.get("clean", ran.result.result)
    value = pickle.loads(pickle.dumps(value if not isinstance(value, list) else list(value)))
    left = list(notebook.ns["raw"]) if isinstance(notebook.ns["raw"], list) else notebook.ns["raw"]
    notebook.ns.clear()
    notebook.ns.update(before)
    notebook.ns["raw"][:], notebook.ns["words"][:] = pickle.loads(kept)
    return value, left


@pytest.fixture
def ready(notebook):
    notebook(SETUP)
    notebook("%%asset raw\n[3, 1, 2]")
    return notebook


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_the_cell_without_its_first_line_computes_the_same_value(ready, body):
    expected, left = plain_value(ready, body)
    ready("%%asset clean\n" + body)
    stored = ready.session.load("clean")
    assert type(stored) is type(expected) or isinstance(stored, list)
    assert list(stored) == expected if isinstance(stored, list) else stored == expected
    assert ready.ns["raw"] == left
    shown = ready.ns["clean"]
    assert shown == stored


ATOMS = st.sampled_from(
    [
        "raw[0]",
        "n",
        "x",
        "y",
        "clean0",
        "1",
        "helper(2)",
        "len(words)",
        "(lambda q: q + n)(1)",
        "sum(raw)",
        "[k for k in raw][-1]",
    ]
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*"]), inner)
        | st.builds("({} if {} > 1 else {})".format, inner, inner, inner)
    ),
    max_leaves=4,
)


def _indent(text):
    return "\n".join("    " + line for line in text.splitlines())


ASSIGNMENTS = st.builds("{} = {}".format, st.sampled_from(["x", "y", "clean0", "n", "clean"]), EXPRESSIONS) | st.builds(
    "{} += {}".format, st.sampled_from(["x", "y"]), EXPRESSIONS
)
STATEMENTS = st.recursive(
    ASSIGNMENTS,
    lambda inner: (
        st.builds(lambda c, a, b: f"if {c} > 2:\n{_indent(a)}\nelse:\n{_indent(b)}", EXPRESSIONS, inner, inner)
        | st.builds(lambda a: f"for x in raw:\n{_indent(a)}", inner)
        | st.builds(lambda a, e: f"def f(x):\n    y = x\n    return {e}\n{a}\ny = f(n)", inner, EXPRESSIONS)
        | st.builds(lambda a, b: f"{a}\n{b}", inner, inner)
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(before=STATEMENTS, last=EXPRESSIONS)
def test_generated_bodies_compute_what_the_plain_cell_computes(ready, before, last):
    body = f"x = 1\ny = 2\nclean0 = 3\nclean = 0\n{before}\n{last}"
    expected, _ = plain_value(ready, body)
    ready("%%asset -q clean\n" + body)
    assert ready.session.load("clean") == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(body=STATEMENTS, last=EXPRESSIONS)
def test_a_generated_body_depends_on_every_variable_that_it_reads(ready, body, last):
    """Where a variable is missing the plain cell fails; the asset then fails too, and never finds an older value."""
    ready.ns.pop("clean", None)
    text = f"{body}\nclean = {last}"
    before = dict(ready.ns)
    plain = ready.run(text)
    failed = plain.error
    value = ready.ns.get("clean")
    ready.ns.clear()
    ready.ns.update(before)
    made = ready.run("%%asset -q clean\n" + text)
    if failed is not None:
        assert made.error is not None
    else:
        assert made.error is None, made.text
        assert ready.session.load("clean") == value

"""One code has one version: however its lines break, on every Python, traced or warm."""

import ast
import dis
import json as json_module
import random
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest
from edited_cells import digest, run_cells

from stepwell.kernel_runtime.versions.bytecode import facts
from stepwell.kernel_runtime.versions.walk import CodeWalk

OURS = Path(__file__).parents[2] / "stepwell" / "kernel_runtime"
STANDARD = Path(json_module.__file__).parents[1]
SOURCES = [
    *(OURS / name for name in ("versions/opcodes.py", "versions/expand.py", "versions/loads.py", "execution/engine.py")),
    *(STANDARD / name for name in ("argparse.py", "json/decoder.py", "textwrap.py", "tarfile.py", "asyncio/tasks.py")),
]

AWKWARD = '''
def swaps(x, y, z):
    a, b, c = z, x, y
    _, _ = a, b
    first, (second, _), *_ = c
    return first, second, a, b
def conditions(a, b, c, d):
    if (a and b) or (c and not d):
        return 1
    x = a and b or c and (d or a)
    while a or b:
        if not (a and (b or c)): continue
        a = b if c and d else None
        if a is not None and b is None: break
    else: pass
    assert (a or b) and c, "neither a nor b, and not c, which is a message of some length"
    return [i for i in a if i and i > 1 or i < -1 if not i] or {k: v for k, v in b if k for _ in v}
def handled(path, mode, key):
    try:
        with open(path, mode) as f, open(path + ".1", mode) as g:
            found = f.read() or g.read()
            return found
    except (KeyError, ValueError) as error:
        if error.args: return None
        raise RuntimeError(path) from error
    else:
        key = found[key]; return key
    finally:
        found = key; print(found, key)
async def waits(a, b):
    async with a as x, b as y:
        async for i, j in x:
            yield i, await y(i, j)
    return
def matches(x):
    match x:
        case {"kind": "a", **rest} if rest: return rest
        case [1, 2, *others] | (3, others): return others
        case str() | bytes(): pass
        case _: return f"{x!r:>{10}} and {x:{x}}"
def nested(n: int, *, scale: float = 2.0):
    class Local:
        """Doc."""
        size: int = 3
        def method(self, value): self.value = value; return value, self.size, lambda: (n, scale)
    import os.path as paths, json; from collections import (OrderedDict as Ordered, deque)
    global counter
    counter = Local().method(n), paths, json, Ordered, deque
    del counter
'''


def read(code):
    """What is known of a code object and of all nested in it."""
    found, codes = [], [code]
    for each in codes:
        known = facts(each)
        if each.co_flags & 1 or each is not code:
            found.append((each.co_qualname, known.blob, known.loads, known.imports, known.attributes, known.stores))
        codes += [
            step.argval for step in dis.get_instructions(each) if step.opcode in dis.hasconst and type(step.argval) is CodeType
        ]
    return found


def compiled(tree):
    """Compile with one text for all docstrings of classes: formatters indent them again."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body[0].value.value = "doc"
    return compile(tree, "<layout>", "exec", dont_inherit=True)


def different(one, other):
    return [name for (name, *before), (_, *after) in zip(read(one), read(other), strict=True) if before != after]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Each source as it is, and as a formatter writes it in narrow and in wide lines."""
    texts = {"awkward.py": AWKWARD} | {path.name: path.read_text(encoding="utf-8") for path in SOURCES}
    found = {"as it is": texts}
    for width in (40, 200):
        folder = tmp_path_factory.mktemp(f"width{width}")
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--isolated", f"--line-length={width}", "-q", str(folder)],
            check=True,
        )
        found[width] = {name: (folder / name).read_text(encoding="utf-8") for name in texts}
    return found


@pytest.mark.parametrize("width", [40, 200])
def test_a_formatter_changes_no_version(sources, width):
    changed = 0
    for name, text in sources["as it is"].items():
        formatted = sources[width][name]
        changed += formatted != text
        assert different(compiled(ast.parse(text)), compiled(ast.parse(formatted))) == [], name
    assert changed >= len(SOURCES) - 2


def relaid(text, line_of):
    tree = ast.parse(text)
    for number, node in enumerate(ast.walk(tree)):
        if hasattr(node, "lineno"):
            node.lineno = node.end_lineno = line_of(number)
            node.col_offset = node.end_col_offset = 0
    return compiled(tree)


def test_no_layout_at_all_changes_a_version(sources):
    """Every expression on a line of its own, all of a file on one line, and lines at random: more than any formatter does."""
    draw = random.Random(5)
    for name, text in sources["as it is"].items():
        first = compiled(ast.parse(text))
        for line_of in (lambda number: 1, lambda number: number + 1, lambda number: draw.randint(1, 3)):
            assert different(first, relaid(text, line_of)) == [], name


RUNS = """
def helper(values):
    total = 0
    for at, value in enumerate(values):
        try:
            total += value if value % 3 else 10 // (value - 3)
        except ZeroDivisionError:
            total -= at
    return total
def target(count=4):
    pairs = {at: (at, at + 1) for at in range(count)}
    with open("/dev/null") as file:
        text = file.read()
    return [helper(pair) for pair in pairs.values() if pair and not text], sum(i for i in range(count))
"""


def monitored(call):
    """Run with every event of `sys.monitoring`: it rewrites the code that runs."""
    monitoring = sys.monitoring
    events = monitoring.events
    every = 0
    for name in dir(events):
        event = getattr(events, name)
        if not name.startswith("_") and event and name not in {"C_RAISE", "C_RETURN"}:
            every |= event
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "a test")
    try:
        for bit in range(20):
            if every >> bit & 1:
                monitoring.register_callback(monitoring.DEBUGGER_ID, 1 << bit, lambda *_: None)
        monitoring.set_events(monitoring.DEBUGGER_ID, every)
        return call()
    finally:
        monitoring.set_events(monitoring.DEBUGGER_ID, 0)
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)


def traced(call):
    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(before)


def profiled(call):
    sys.setprofile(lambda *_: None)
    try:
        return call()
    finally:
        sys.setprofile(None)


WATCHERS = {"traced": traced, "profiled": profiled} | ({"monitored": monitored} if sys.version_info >= (3, 12) else {})


@pytest.mark.parametrize("watch", [None, *WATCHERS])
@pytest.mark.parametrize("calls", [0, 1, 200])
def test_code_that_is_warm_or_watched_has_the_same_version(watch, calls):
    cold = digest(RUNS)
    space = run_cells(RUNS)

    def call():
        for _ in range(calls):
            space["target"]()
        return CodeWalk(namespace=space).of(space["target"], path="target").digest

    assert (WATCHERS[watch](call) if watch else call()) == cold
    # What the interpreter left in the code counts no more than what it did.
    again = run_cells(RUNS)
    again["target"].__code__, again["helper"].__code__ = (space[name].__code__.replace() for name in ("target", "helper"))
    assert CodeWalk(namespace=again).of(again["target"], path="target").digest == cold


def test_code_that_coverage_measures_has_the_same_version(tmp_path):
    program = tmp_path / "measured.py"
    program.write_text(
        RUNS + "for _ in range(50): target()\n"
        "from stepwell.kernel_runtime.versions.walk import CodeWalk\n"
        "print(CodeWalk(namespace=globals()).of(target, path='target').digest)\n"
    )
    plain, covered = (
        subprocess.run([sys.executable, *options, str(program)], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for options in ([], ["-m", "coverage", "run", "--branch"])
    )
    assert plain == covered != ""
    assert (tmp_path / ".coverage").exists()


LAZY = "lazy import lazily_imported as lazily\nlazy from lazily_imported import f\n"


def test_a_lazy_import_counts_as_the_import(tmp_path, monkeypatch):
    if sys.version_info < (3, 15):
        with pytest.raises(SyntaxError):
            compile(LAZY, "<lazy>", "exec")
        return
    module = tmp_path / "lazily_imported.py"
    module.write_text("K = 1\ndef f(): return K\nUNUSED = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lazily_imported", raising=False)
    target = "def target(): return lazily.f(), f()\n"
    lazily = digest(LAZY, target)
    assert lazily == digest(LAZY.replace("lazy ", ""), target)
    sys.modules["lazily_imported"].UNUSED = 2
    assert lazily == digest(LAZY, target)
    sys.modules["lazily_imported"].K = 2
    assert lazily != digest(LAZY, target)


UNTESTED = """
    import sys
    from IPython.core.interactiveshell import InteractiveShell
    from stepwell.kernel_runtime.versions import opcodes

    if sys.argv[1] == "untested":
        # As if this release had come before this Python.
        opcodes.TESTED -= {sys.version_info[:2]}
    shell = InteractiveShell.instance()
    shell.run_cell("%load_ext stepwell")
    for _ in range(2):
        shell.run_cell("%%asset a\\na = 1\\n")
        shell.run_cell("%%sql_asset b\\nselect 1 as x\\n")
    shell.run_cell("%materialize a b")
    shell.run_cell("%why a")
    shell.run_cell("%why b")
"""


def test_on_an_untested_python_nothing_is_reused_and_one_line_says_so(python, tmp_path):
    (tmp_path / "pyproject.toml").touch()
    tested, untested = (python(UNTESTED, how, wait=False).communicate()[0] for how in ("tested", "untested"))
    assert tested.count("a: executed") == 1
    assert "cannot read" not in tested
    lines = untested.splitlines()
    assert [line for line in lines if "every step runs" in line] == [
        (
            f"this version of stepwell cannot read the code of Python {sys.version_info[0]}.{sys.version_info[1]}: every step runs, and "
            "nothing is reused. Use another Python or a newer stepwell."
        )
    ]
    assert "reused ·" not in untested
    assert untested.count("a: executed") == 3
    assert untested.count("b: executed") == 3
    assert "a: unverifiable" in lines
    assert "b: unverifiable" in lines


CALLS = """
def use(z, *a, **k):
    one = np.exp(-z) + np.linalg.norm(z, ord=2)
    with np.errstate(all="ignore"):
        two = [np.log(x) for x in a if np.isfinite(x)]
    try:
        three = np.asarray(*a, **k).reshape(np.prod(z), -1)
    finally:
        np.seterr(*a)
    return one, two, three, np.cos(np.sin(z)), np, np.pi, lambda: np.abs(z), list(map(np.sqrt, a)), np(*a), np(z)
"""


def function_of(text):
    code = compile(text, "<cell>", "exec")
    return next(constant for constant in code.co_consts if type(constant) is CodeType and constant.co_name == "use")


@pytest.mark.parametrize("above", ["import numpy as np", "from lib import np", "import np.linalg", "np = None\nimport np"])
def test_where_a_module_is_imported_changes_no_version(above):
    # CPython loads an attribute of what its own text imports otherwise than a method.
    alone, below = function_of(CALLS), function_of(f"{above}\n{CALLS}")
    assert alone.co_code != below.co_code
    assert facts(alone).blob == facts(below).blob
    assert facts(alone).loads == facts(below).loads


def test_other_calls_have_another_version():
    bodies = [
        "f(x)", "f.x()", "f.x", "f(x)()", "f()(x)", "f(*x)", "f(**x)", "f(*x, **y)", "f(x, y)", "f(x)(y)", "f(x(y))", "(f, x)", "f, x()",
        "f.x(y)", "f.x.y()", "f.x().y", "f(x=y)", "f(y, x=y)", "f(*x)(**y)", "f(*x, y)", "vars", "vars()", "vars(x)", "f(vars)",
    ]  # fmt: skip
    found = [facts(function_of(f"def use(x, y):\n    return {body}")).blob for body in bodies]
    found += [facts(function_of(f"import f\ndef use(x, y):\n    return {body}")).blob for body in bodies]
    assert found[: len(bodies)] == found[len(bodies) :]
    assert len(set(found)) == len(bodies)

"""Modules that code imports itself: it depends on what it reads of them, and on nothing else of them."""

import importlib
import sys

import pytest
from edited_cells import digest, run_cells

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.versions.walk import CodeWalk

BEFORE = {
    "lmod_a": "import lmod_b\nK = 1\nT = [1]\nN = 0\ndef f(x): return (x, N)\n",
    "lmod_b": "K = 1\ndef f(x): return x\n",
    "lpkg/__init__": "K = 1\n",
    "lpkg/sub": "K = 1\ndef f(x): return (x, K)\n",
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Write local modules; another text of one is what a fresh process would import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/') if name != 'lpkg/__init__' else name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        for name in [name for name in sys.modules if name.startswith(("lmod_", "lpkg"))]:
            del sys.modules[name]
        importlib.invalidate_caches()

    write(**BEFORE)
    yield write
    for name in [name for name in sys.modules if name.startswith(("lmod_", "lpkg"))]:
        del sys.modules[name]


def edited(module, old, new):
    return {module: BEFORE[module].replace(old, new)}


DEPENDS = {
    "function": ("import lmod_a\n    return lmod_a.f(1)", edited("lmod_a", "return (x, N)", "return (N, x)")),
    "what that reads": ("import lmod_a\n    return lmod_a.f(1)", edited("lmod_a", "N = 0", "N = 1")),
    "constant": ("import lmod_a\n    return lmod_a.K", edited("lmod_a", "K = 1", "K = 2")),
    "alias": ("import lmod_a as m\n    return m.K", edited("lmod_a", "K = 1", "K = 2")),
    "nested function": ("import lmod_a\n    def g(): return lmod_a.K\n    return g()", edited("lmod_a", "K = 1", "K = 2")),
    "comprehension": ("import lmod_a\n    return [lmod_a.K for _ in '12']", edited("lmod_a", "K = 1", "K = 2")),
    "from": ("from lmod_a import f as g\n    return g(1)", edited("lmod_a", "N = 0", "N = 1")),
    "passed on": ("import lmod_a\n    return vars(lmod_a)['K']", edited("lmod_a", "K = 1", "K = 2")),
    "submodule": ("import lpkg.sub\n    return lpkg.sub.f(1)", edited("lpkg/sub", "K = 1", "K = 2")),
    "package of it": ("import lpkg.sub\n    return lpkg.K", edited("lpkg/__init__", "K = 1", "K = 2")),
    "submodule's alias": ("import lpkg.sub as s\n    return s.f(1)", edited("lpkg/sub", "K = 1", "K = 2")),
    "submodule from": ("from lpkg import sub\n    return sub.K", edited("lpkg/sub", "K = 1", "K = 2")),
    "submodule passed on": ("from lpkg import sub\n    return dir(sub)", edited("lpkg/sub", "K = 1", "K = 2")),
    "module through another": ("import lmod_a\n    return lmod_a.lmod_b.K", edited("lmod_b", "K = 1", "K = 2")),
    "in a branch": ("x = 1\n    if x:\n        import lmod_a\n        x = lmod_a.K\n    return x", edited("lmod_a", "K = 1", "K = 2")),
}  # fmt: skip

IS_FREE_OF = {
    "other attributes": ("import lmod_a\n    return lmod_a.f(1)", edited("lmod_a", "K = 1", "K = 2")),
    "an attribute that is read of something else": ("import lmod_a, lmod_b\n    return lmod_a.f(lmod_b.K)", edited("lmod_a", "K = 1", "K = 2")),
    "other names of a module that it takes from": ("from lmod_a import f\n    return f(1)", edited("lmod_a", "K = 1", "K = 2")),
    "other attributes of a submodule": ("from lpkg import sub\n    return sub.f", edited("lpkg/__init__", "K = 1", "K = 2")),
    "names of the package": ("import lpkg.sub as s\n    return s.f(1)", edited("lpkg/__init__", "K = 1", "K = 2")),
    "a module that it does not read": ("import lmod_a\n    return 1", edited("lmod_a", "K = 1", "K = 2")),
}  # fmt: skip


def target(code):
    return f"def target():\n    {code}\n"


@pytest.mark.parametrize("name", DEPENDS)
def test_code_depends_on_what_it_reads_of_a_module_that_it_imports(name, modules):
    code, texts = DEPENDS[name]
    before = digest(target(code))
    assert digest(target(code)) == before
    modules(**texts)
    assert digest(target(code)) != before


@pytest.mark.parametrize("name", IS_FREE_OF)
def test_code_does_not_depend_on_the_rest_of_a_module_that_it_imports(name, modules):
    code, texts = IS_FREE_OF[name]
    before = digest(target(code))
    modules(**texts)
    assert digest(target(code)) == before


def test_another_module_under_the_same_name_is_seen_in_a_live_kernel(modules):
    space = run_cells("def target():\n    import lmod_a\n    return lmod_a.K\n")
    before = CodeWalk(namespace=space).of(space["target"], path="target").digest
    modules(**edited("lmod_a", "K = 1", "K = 2"))
    assert CodeWalk(namespace=space).of(space["target"], path="target").digest != before


def test_a_reloaded_module_is_seen_in_a_live_kernel_as_far_as_it_is_read(modules, tmp_path):
    space = run_cells("def target():\n    import lmod_a, lmod_b\n    return lmod_a.f(lmod_b.K)\n")

    def now():
        return CodeWalk(namespace=space).of(space["target"], path="target").digest

    before = now()
    (tmp_path / "lmod_a.py").write_text(BEFORE["lmod_a"].replace("K = 1", "K = 22"))
    importlib.reload(sys.modules["lmod_a"])
    assert now() == before
    (tmp_path / "lmod_a.py").write_text(BEFORE["lmod_a"].replace("N = 0", "N = 22"))
    importlib.reload(sys.modules["lmod_a"])
    assert now() != before


def test_a_cell_reads_in_its_last_expression_what_it_imports_above(modules):
    def now():
        code, tail = compile("import lmod_a\n", "<cell>", "exec"), compile("lmod_a.f(1)", "<cell>", "eval")
        body = CellBody("out", "", "cell 1", code, tail, (), (), frozenset(), {"__name__": "__main__"})
        return CodeWalk(namespace=body.globals).of(body, path="out").digest

    before = now()
    modules(**edited("lmod_a", "K = 1", "K = 2"))
    assert now() == before
    modules(**edited("lmod_a", "N = 0", "N = 1"))
    assert now() != before


def test_a_closure_that_holds_a_module_depends_on_what_it_reads_of_it(modules):
    cells = "def made():\n    import lmod_a\n    def inner(): return lmod_a.f(1)\n    return inner\ntarget = made()\n"
    before = digest(cells)
    modules(**edited("lmod_a", "K = 1", "K = 2"))
    assert digest(cells) == before
    modules(**edited("lmod_a", "N = 0", "N = 1"))
    assert digest(cells) != before

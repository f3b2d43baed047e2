"""Random notebooks, edited at random: equal versions mean equal values, and a live kernel sees what a fresh one sees."""

import random

import pytest
from edited_cells import run_cells

from stepwell.kernel_runtime.versions.walk import CodeWalk

NAMES = [f"n{at}" for at in range(7)]


def reference(pick, at):
    """An expression that calls or reads what a later cell defines, so that nothing recurs for ever."""
    if at + 1 >= len(NAMES) or pick.random() < 0.3:
        return str(pick.randrange(3))
    return f"use({NAMES[pick.randrange(at + 1, len(NAMES))]})"


def cell(pick, at):
    name, one, two = NAMES[at], reference(pick, at), reference(pick, at)
    return pick.choice([
        f"def {name}(): return ({one}, {two})\n",
        f"def {name}(k={pick.randrange(3)}):\n    return [k for _ in range(2)] + [{one}]\n",
        f"{name} = {pick.randrange(3)}\n",
        f"{name} = [{pick.randrange(3)}, {{'a': {pick.randrange(2)}}}]\n",
        f"{name} = lambda: {one}\n",
        f"def make():\n    k = {pick.randrange(3)}\n    def inner(): return (k, {one})\n    return inner\n{name} = make()\n",
        f"class {name}:\n    K = {pick.randrange(3)}\n    def __call__(self): return (self.K, {one})\n",
        f"class {name}:\n    @classmethod\n    def f(cls): return {one}\n    @property\n    def p(self): return self.f()\n    def __call__(self): return self.p\n",
        f"from functools import partial\n{name} = partial(lambda a, b: (a, b, {one}), {pick.randrange(3)}, b={pick.randrange(2)})\n",
        f"class Held_{name}:\n    def __init__(self): self.k = {pick.randrange(3)}\n    def __call__(self): return (self.k, {one})\n{name} = Held_{name}()\n",
        f"{name} = {{'f': lambda: {one}, 's': {{{pick.randrange(3)}, 'x'}}}}\n",
        f"def {name}(n=2): return n and ({name}(n - 1), {two})\n",
    ])  # fmt: skip


USE = """
def use(v):
    if isinstance(v, type): v = v()
    if isinstance(v, dict): return [use(x) for x in v.values()]
    if isinstance(v, set): return sorted(map(str, v))
    return v() if callable(v) else v
"""
TARGET = "def target(): return (use(n0), use(n1))\n"


@pytest.mark.parametrize("seed", range(8))
def test_equal_versions_mean_equal_values_and_live_means_fresh(seed):
    pick = random.Random(seed)
    cells = [cell(pick, at) for at in range(len(NAMES))]
    live = run_cells(USE, *reversed(cells), TARGET)
    values = {}
    history = [list(cells)]
    for _ in range(30):
        if pick.random() < 0.15:
            wanted = pick.choice(history)
            changed = [at for at in range(len(cells)) if cells[at] != wanted[at]]
            cells = list(wanted)
        else:
            at = pick.randrange(len(cells))
            cells[at] = cell(pick, at)
            changed = [at]
        history.append(list(cells))
        run_cells(*(cells[at] for at in changed), namespace=live)
        fresh = run_cells(USE, *reversed(cells), TARGET)
        found = CodeWalk(namespace=live).of(live["target"], path="target")
        assert found.unverifiable == ()
        assert found.digest == CodeWalk(namespace=fresh).of(fresh["target"], path="target").digest
        value = repr(fresh["target"]())
        assert values.setdefault(found.digest, value) == value
        assert repr(live["target"]()) == value

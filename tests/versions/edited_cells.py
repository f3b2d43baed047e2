"""Cells executed as a notebook would, for tests of code versions."""

import linecache
from itertools import count

from stepwell.kernel_runtime.versions.walk import CodeWalk

_numbers = count()


def run_cells(*cells, namespace=None):
    """Execute cells in one namespace, each from a file of its own, and return the namespace."""
    namespace = namespace if namespace is not None else {"__name__": "__main__"}
    for cell in cells:
        name = f"/tmp/ipykernel_1/{next(_numbers)}.py"
        linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
        exec(compile(cell, name, "exec", dont_inherit=True), namespace)
    return namespace


def version(*cells, target="target", **walk):
    space = run_cells(*cells)
    return CodeWalk(namespace=space, **walk).of(space[target], path=target)


def digest(*cells):
    return version(*cells).digest

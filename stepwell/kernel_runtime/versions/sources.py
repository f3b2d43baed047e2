# ruff: noqa: PTH119 - plain strings: a thousand steps ask for sources in one run
"""Where code is defined and what its source is, for a reader.

``inspect.getsource`` parses the file to find where a block ends; here the lines that the compiler noted are enough: a
thousand steps ask for their sources in one run.
"""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Callable
from types import CodeType

_cell_name: Callable[[str], str | None] | None = None


def name_cells(namer: Callable[[str], str | None] | None) -> None:
    """Set what turns the file name of a notebook cell's code into ``cell 9``; None stands for no notebook.

    The front end knows how its cells are numbered; the runtime does not import it.
    """
    global _cell_name  # noqa: PLW0603 - one front end runs in a kernel
    _cell_name = namer


def where(code: CodeType) -> str:
    """Return where code is defined: ``cell 9`` or ``helpers.py:12``."""
    name = code.co_filename
    if _cell_name is not None:
        cell = _cell_name(name)
        if cell:
            return cell
    if name.startswith("<") or "ipykernel_" in name:
        return "a cell" if "ipykernel_" in name or name.startswith("<ipython-input") else ""
    return f"{os.path.basename(name)}:{code.co_firstlineno}"


def source(code: CodeType) -> str | None:
    """Return the source of code without its indentation; None where there is none."""
    lines = linecache.getlines(code.co_filename)
    first = code.co_firstlineno
    if not 0 < first <= len(lines):
        return None
    found = lines[first - 1 : _last_line(code)]
    head = found[0]
    margin = len(head) - len(head.lstrip())
    if margin:
        pad = head[:margin]
        found = [line[margin:] if line.startswith(pad) else line for line in found]
    return "".join(found)


_CLOSING = re.compile(r"^\s*[\])}]+[,:]?\s*$")


def _last_line(code: CodeType) -> int:
    last = code.co_firstlineno
    stack = [code]
    while stack:
        item = stack.pop()
        for _, _, line, *_ in ((*entry, 0) for entry in item.co_lines()):
            if line is not None and line > last:
                last = line
        for _, end, _, _ in item.co_positions():
            if end is not None and end > last:
                last = end
        stack.extend([constant for constant in item.co_consts if type(constant) is CodeType])
    return last

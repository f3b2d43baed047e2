"""Where code is defined and what its source is, for a reader.

``inspect.getsource`` parses the file to find where a block ends; here the lines that the compiler noted are enough: a
thousand steps ask for their sources in one run.
"""

from __future__ import annotations

import linecache
import re
from types import CodeType

from stepwell.kernel_runtime.definitions.places import place_of


def where(code: CodeType) -> str:
    """Return where code is defined: ``cell 9, line 1`` or ``helpers.py:12``; empty for generated code."""
    found = place_of(code)
    return "" if found.startswith("<") else found


def source(code: CodeType) -> str | None:
    """Return the source of code without its indentation; None where there is none."""
    lines = linecache.getlines(code.co_filename)
    first = code.co_firstlineno
    if not 0 < first <= len(lines):
        return None
    last = _last_line(code)
    # No instruction has the line of a bracket that closes the last call.
    while last < len(lines) and _CLOSING.match(lines[last]):
        last += 1
    found = lines[first - 1 : last]
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
        for _, end, _, _ in item.co_positions():
            if end is not None and end > last:
                last = end
        stack.extend([constant for constant in item.co_consts if type(constant) is CodeType])
    return last

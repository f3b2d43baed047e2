"""Where a definition is, in words: ``cell 9`` in a notebook, ``helpers.py:12`` in a module."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from types import CodeType
from typing import Any

_cells: Callable[[str], str | None] | None = None
_names: Callable[[str], str] | None = None


def set_cell_names(names: Callable[[str], str | None] | None) -> None:
    """Say how a notebook cell's file name is turned into words; the notebook's face knows."""
    global _cells  # noqa: PLW0603 - one per process, like the notebook
    _cells = names


def set_name_places(places: Callable[[str], str] | None) -> None:
    """Set what returns the cell that bound a variable of the notebook last, empty if none is known; the notebook's face knows."""
    global _names  # noqa: PLW0603 - one per process, like the notebook
    _names = places


def place_of_name(name: str) -> str:
    """Return the cell that bound a variable of the notebook last, ``cell 5``; empty if it is not known."""
    return _names(name) if _names is not None else ""


def place(filename: str, line: int) -> str:
    """Return a place in words."""
    cell = _cells(filename) if _cells is not None else None
    if cell is not None:
        return f"{cell}, line {line}"
    # No Path: it costs ten times as much, and a notebook may define thousands of steps.
    return filename if filename.startswith("<") else f"{filename.rpartition(os.sep)[2]}:{line}"


def place_of_function(function: Any) -> str:
    """Return where a function, or what it wraps, was written, in words; empty for a callable without code."""
    if hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    return place_of(getattr(function, "__code__", None))


def place_of(code: CodeType | None) -> str:
    """Return where a code object was written, in words."""
    return place(code.co_filename, code.co_firstlineno) if code is not None else ""

"""What a reader is told about a value: the name of its type and its size in a few words."""

from __future__ import annotations

import sys
from typing import Any

_LONGEST = 60


def type_name(value: Any) -> str:
    """Return the type's name as its users write it: ``pandas.DataFrame``, ``int``."""
    kind = type(value)
    module = kind.__module__
    if module == "builtins":
        return kind.__qualname__
    root = module.partition(".")[0].lstrip("_")
    if root != module and getattr(sys.modules.get(root), kind.__qualname__, None) is kind:
        return f"{root}.{kind.__qualname__}"
    return f"{module}.{kind.__qualname__}"


def summary(value: Any) -> str:
    """Return the shape of a frame or array (rows × columns), the number of items, or a short literal."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex):
        try:
            return _short(repr(value))
        except ValueError:  # an int of more digits than Python prints
            return f"{value.bit_length():,} bits"
    if kind is str or kind is bytes:
        return _short(repr(value[: _LONGEST + 1]))
    if kind in (list, tuple, set, frozenset, dict):
        return f"{len(value):,} item" + ("" if len(value) == 1 else "s")
    try:
        shape = value.shape
        if isinstance(shape, tuple) and all(isinstance(each, int) for each in shape):
            return " × ".join(f"{each:,}" for each in shape)
        if kind.__module__.startswith("pyarrow"):
            return f"{len(value):,}"
    except Exception:
        # A property of somebody's class: a summary is no reason to fail.
        return ""
    return ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

"""Figures among a step's values: taken from pyplot before they are stored, and kept with their picture.

A figure that pyplot still manages would open a window, or be shown in a notebook, wherever its stored form is loaded. (The pickler leaves that mark
out too, for figures inside other values.) The picture is part of what the step displayed, so that a hit shows it without loading the figure: cells
display theirs themselves, those of functions are rendered here.
"""

from __future__ import annotations

import base64
import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Any


def release_figures(values: Iterable[Any]) -> None:
    """Close those of the values that are matplotlib figures; they stay usable, only pyplot forgets them."""
    module, pyplot = sys.modules.get("matplotlib.figure"), sys.modules.get("matplotlib.pyplot")
    if module is None or pyplot is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            pyplot.close(value)


def pictures(values: Iterable[Any]) -> Iterator[dict[str, str]]:
    """Yield those of the values that are matplotlib figures as displays: a rendered picture and a line of text."""
    module = sys.modules.get("matplotlib.figure")
    if module is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            data = io.BytesIO()
            # A figure that cannot be drawn is a value all the same.
            with contextlib.suppress(Exception):
                value.savefig(data, format="png", bbox_inches="tight")
                yield {"image/png": base64.b64encode(data.getvalue()).decode("ascii"), "text/plain": repr(value)}

"""Figures among a step's values: taken from pyplot before they are stored.

A figure that pyplot still manages would open a window, or be shown in a notebook, wherever its stored form is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def release_figures(values: Iterable[Any]) -> None:
    """Close those of the values that are matplotlib figures; they stay usable, only pyplot forgets them."""
    module, pyplot = sys.modules.get("matplotlib.figure"), sys.modules.get("matplotlib.pyplot")
    if module is None or pyplot is None:
        return
    for value in values:
        if isinstance(value, module.Figure):
            pyplot.close(value)

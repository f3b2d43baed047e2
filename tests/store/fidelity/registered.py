"""The cases of every library: how to make a value, by library and name.

Each case makes its value anew. Two makings are equal, so that the version of one tells whether it depends on anything else.
"""

from collections.abc import Callable
from typing import Any

CASES: dict[str, dict[str, Callable[[], Any]]] = {
    library: {} for library in ("Python", "numpy", "pandas", "polars", "pyarrow", "scipy.sparse", "scikit-learn")
}
"""By library, then by name."""


def case(library: str, name: str, make: Callable[[], Any]) -> None:
    """Add one."""
    group = CASES[library]
    assert name not in group, name
    group[name] = make

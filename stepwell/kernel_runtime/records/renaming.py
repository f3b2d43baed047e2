"""A materialization that was carried over from another key: a row like any other, which names the one that it is a copy of."""

from __future__ import annotations

from typing import Any

from stepwell.kernel_runtime.records.materializations import Materialization

RENAMED = "stepwell:renamed"
"""``{"from": key, "of": id}``; with ``"settled": true`` where its code version is that of the renamed definition."""


def renaming(item: Materialization) -> dict[str, Any] | None:
    """Return what is said of the renaming that made a materialization; None for any other."""
    found = item.metadata.get(RENAMED) if item.metadata else None
    return found if isinstance(found, dict) else None

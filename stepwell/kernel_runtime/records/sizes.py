"""Numbers of bytes as people read them."""

from __future__ import annotations


def size_text(count: float) -> str:
    """Return a number of bytes: ``12 B``, ``41.0 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        # What would be shown as 1000.0 is one of the next unit.
        if count < 999.95:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

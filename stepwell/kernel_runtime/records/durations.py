"""How long something took, as a reader says it."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a duration as a reader says it: ``1.2 s``, ``18 min``, ``2.5 h``."""
    if seconds < 0.0995:
        return f"{max(round(seconds * 1000), 1)} ms" if seconds > 0 else "0 ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

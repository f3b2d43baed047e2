"""Comparing texts: a unified diff, bounded."""

from __future__ import annotations

import difflib
from itertools import islice

from stepwell.kernel_runtime.session.differences.result import TextDifference

_MOST = 200
_LINES = 5_000
"""Lines from which only the part between what both begin and end with is compared."""


def compare_texts(before: str, after: str) -> TextDifference:
    """Return how two texts differ, by lines."""
    old, new = before.splitlines(), after.splitlines()
    skip = 0
    if len(old) + len(new) > _LINES:
        old, new, skip = _middle(old, new)
    if len(old) + len(new) > 4 * _LINES:
        # A diff would take minutes; what is in the middle is another text.
        return TextDifference(len(new), len(old), (f"from line {skip + 1}: {len(old):,} lines became {len(new):,}",))
    lines = list(difflib.unified_diff(old, new, "before", "after", lineterm=""))
    added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    shown = tuple(islice(lines, _MOST))
    if not lines:
        shown = ("the lines are the same, their ends differ",)
    return TextDifference(added, removed, shown, max(0, len(lines) - _MOST))


def _middle(old: list[str], new: list[str]) -> tuple[list[str], list[str], int]:
    start = next(
        (at for at, (one, two) in enumerate(zip(old, new, strict=False)) if one != two), min(len(old), len(new))
    )
    old, new = old[start:], new[start:]
    end = next(
        (at for at, (one, two) in enumerate(zip(reversed(old), reversed(new), strict=False)) if one != two),
        min(len(old), len(new)),
    )
    return (old[:-end], new[:-end], start) if end else (old, new, start)

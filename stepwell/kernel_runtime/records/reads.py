"""Recorded reads: what a step read from the world while it ran, checked again before its value is reused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ReadKind: TypeAlias = Literal["file", "absent", "listing", "environment"]


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that a step read."""

    kind: ReadKind
    name: str
    """An absolute path, or a name in the environment."""
    digest: str = ""
    """Digest of the content when it was read; empty for an absent file."""
    stat: tuple[int, ...] = ()
    """``(size, mtime_ns, ctime_ns, inode)`` of a file: equal ones save reading the content again."""

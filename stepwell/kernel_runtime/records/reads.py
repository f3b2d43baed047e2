"""Recorded reads: what a step read from the world while it ran, checked again before its value is reused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ReadKind: TypeAlias = Literal[
    "file", "absent", "status", "listing", "glob", "environment", "asset", "name", "given", "stream", "state"
]
LOCAL: frozenset[str] = frozenset({"name", "given", "stream"})
"""Kinds of reads from the notebook's kernel: a variable that a text names, one that code in the value of an input reads, and the state of a
random stream."""


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that a step read."""

    kind: ReadKind
    name: str
    """An absolute path or pattern, a name in the environment (``*`` for all of it), what has the state that was read (``pandas``,
    ``working directory``), the key of an asset that was loaded, a variable of the notebook, or a random stream."""
    digest: str = ""
    """Digest of the content or of the names when it was read, keyed for the environment, an asset's data version; what a look at a path
    learned, in words; empty for what was not there."""
    stat: tuple[int, ...] = ()
    """``(size, mtime_ns, ctime_ns, inode)`` of a file: equal ones save reading the content again."""
    names: tuple[str, ...] = ()
    """What was listed or matched, where that is little: for explanations. Of an asset the notebook and the store, if they were named. What
    of a path was looked at: its kind, size, times, access."""
    own: tuple[str, ...] = ()
    """Names that do not count: those that the step itself made or set."""

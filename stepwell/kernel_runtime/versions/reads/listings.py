# ruff: noqa: PTH118, PTH207, PTH208 - plain strings, as in the other files of this folder
"""Listings: which names a folder has, which paths a pattern matches."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable

_CACHES = frozenset({"__pycache__", ".ipynb_checkpoints"})
_MOST_NAMES = 500


def folder_names(path: str) -> list[str] | None:
    """Return the names in a folder, sorted, caches left out; None if it cannot be listed."""
    try:
        return sorted(name for name in os.listdir(path) if name not in _CACHES)
    except (OSError, ValueError):
        return None


def has_magic(path: str) -> bool:
    """Tell whether a path is a pattern."""
    return glob.has_magic(path)


def matches(pattern: str) -> list[str]:
    """Return the files that an absolute pattern matches, sorted; ``**`` matches any depth."""
    return sorted(path for path in glob.iglob(pattern, recursive=True) if not os.path.isdir(path))  # noqa: PTH112 - as above


def below(folder: str) -> str:
    """Return the pattern of every file below a folder."""
    return os.path.join(glob.escape(folder), "**")


def names_digest(names: Iterable[str], without: Collection[str] = ()) -> str:
    """Return the digest of sorted names, 32 hexadecimal digits."""
    from blake3 import blake3

    left = set(without)
    return blake3("\0".join([name for name in names if name not in left]).encode("utf-8", "surrogateescape")).hexdigest(
        16
    )


def kept(names: Collection[str]) -> tuple[str, ...]:
    """Return the names that a record keeps for a reader: all of a folder of usual size, none of a big one."""
    return tuple(names) if len(names) <= _MOST_NAMES else ()

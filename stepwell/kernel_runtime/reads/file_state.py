# ruff: noqa: PTH118, PTH123 - plain strings: an audit hook runs inside every open()
# ruff: noqa: PTH118, PTH207, PTH208 - plain strings, as in the other files of this folder
"""The state of files, listings of folders and matches of patterns; and which files a child process has changed (`Tree`)."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Collection, Iterable

_stat = os.stat
UNSTABLE = "changed while the step ran"
"""In place of a digest: such a read never holds."""
# A file that changes again within one tick of the file system's clock keeps its time.
_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_000_000_000


def file_digest(path: str) -> str | None:
    """Return the digest of a file's content, 32 hexadecimal digits; None if it cannot be read."""
    from blake3 import blake3

    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
            if len(data) < 1 << 20:
                return blake3(data).hexdigest(16)
            hasher = blake3(data, max_threads=blake3.AUTO)
            while data := file.read(1 << 23):
                hasher.update(data)
            return hasher.hexdigest(16)
    except OSError:
        return None


def file_stat(path: str) -> tuple[int, ...] | None:
    """Return size, mtime_ns, ctime_ns and inode of a file; None if there is none."""
    try:
        found = _stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def too_recent(stat: tuple[int, ...]) -> bool:
    """Tell whether a file is so young that it could change without a change of its times."""
    newest = max(stat[1], stat[2])
    tick = _COARSE_TICK_NS if newest % 1_000_000_000 == 0 else _TICK_NS
    return time.time_ns() - newest < tick


_MOST_ENTRIES = 20_000
_MOST_DIGESTED = 2_000
"""Files whose content is digested before a child may change it: a hit changes a file only where it finds that again."""
_LARGEST_DIGESTED = 1 << 20
_MOST_BYTES = 1 << 26
_FOREIGN_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
_OF_EDITORS = (".ipynb", ".swp", ".swx", "~")


class Tree:
    """The files and folders below some folders, as they are now.

    Hidden folders, environments of Python and what editors save by themselves are left out. Of very many files the nearest count.

    Parameters
    ----------
    roots
        The folders.
    digests
        Whether the contents of small files are digested.
    """

    def __init__(self, roots: Iterable[str], *, digests: bool = False) -> None:
        self.roots = tuple(roots)
        self.files: dict[str, tuple[int, ...]] = {}
        """Size, time of change and inode of each."""
        self.folders: set[str] = set()
        self.digests: dict[str, str] = {}
        level = list(self.roots)
        while level and len(self.files) + len(self.folders) < _MOST_ENTRIES:
            level = [each for folder in level for each in self._entered(folder)]
        left = _MOST_BYTES
        for path, (size, *_) in self.files.items() if digests else ():
            if size <= min(_LARGEST_DIGESTED, left) and len(self.digests) < _MOST_DIGESTED:
                left -= size
                self.digests[path] = file_digest(path) or ""

    def _entered(self, folder: str) -> list[str]:
        inner = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not self._is_foreign(entry):
                            inner.append(entry.path)
                    elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(_OF_EDITORS):
                        stat = entry.stat(follow_symlinks=False)
                        self.files[entry.path] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        except OSError:
            return []
        self.folders.update(inner)
        return inner

    @staticmethod
    def _is_foreign(entry: os.DirEntry[str]) -> bool:
        return (
            entry.name.startswith(".")
            or entry.name in _FOREIGN_FOLDERS
            or os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))  # noqa: PTH110 - as above
        )


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

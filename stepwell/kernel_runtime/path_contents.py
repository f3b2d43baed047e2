"""What is at a path: the contents of a file or folder as one digest.

A step that returns the path of a file returns what is in it: the store keeps it, and the data version is that of the contents.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PATH: type = type(Path())
"""The exact type of a path on this platform."""


@dataclass(frozen=True, slots=True)
class PathContents:
    """The contents of a path at one moment."""

    kind: Literal["file", "folder", "nothing"]
    """``nothing`` also where there is a device or a pipe, which cannot be read twice."""
    size: int = 0
    """Bytes of all files."""
    digest: str = ""
    """Of a file its contents; of a folder the names and contents of everything below it. 32 hexadecimal digits."""


def contents_of(path: Path) -> PathContents:
    """Return what is at a path; links are followed, but not below a folder.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return PathContents("nothing")
    if stat.S_ISREG(found.st_mode):
        digest, size = _file(path)
        return PathContents("file", size, digest)
    if stat.S_ISDIR(found.st_mode):
        return _folder(path)
    return PathContents("nothing")


def _file(path: Path) -> tuple[str, int]:
    from blake3 import blake3

    with path.open("rb") as file:
        data = file.read(1 << 20)
        size = len(data)
        if size < 1 << 20:
            return blake3(data).hexdigest(16), size
        hasher = blake3(data, max_threads=blake3.AUTO)
        while data := file.read(1 << 23):
            size += len(data)
            hasher.update(data)
    return hasher.hexdigest(16), size


def _folder(path: Path) -> PathContents:
    from blake3 import blake3

    hasher = blake3()
    total = 0

    def unreadable(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(path, onerror=unreadable):
        folders.sort()
        inside = os.path.relpath(folder, path)
        for name in (*folders, *sorted(files)):
            each = Path(folder, name)
            digest, size = "", 0
            if each.is_symlink():
                digest = f"-> {each.readlink()}"
            elif each.is_file():
                digest, size = _file(each)
            total += size
            for text in (inside, name, digest):
                hasher.update(len(text).to_bytes(4, "little") + os.fsencode(text))
    return PathContents("folder", total, hasher.hexdigest(16))

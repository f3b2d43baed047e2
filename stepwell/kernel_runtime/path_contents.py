"""The contents of a file or folder as one digest.

If a step returns the path of a file, the store keeps the contents of the file, and the data version is computed from the contents.
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
    """``nothing`` if the path does not exist, or is a device or a pipe, which cannot be read twice."""
    size: int = 0
    """Total size of the file, or of all files below the folder, in bytes."""
    digest: str = ""
    """Digest of the file's contents, or of the names and contents of all entries below the folder, as 32 hexadecimal digits."""


def contents_of(path: Path) -> PathContents:
    """Return the kind, size and digest of the contents of a path. The path may be a link; links below a folder are not followed.

    Parameters
    ----------
    path
        A file or folder, which need not exist.

    Returns
    -------
    PathContents
        The contents at the time of the call.

    Raises
    ------
    OSError
        If the path, or an entry below it, cannot be read.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return PathContents("nothing")
    if stat.S_ISREG(status.st_mode):
        digest, size = _file(path)
        return PathContents("file", size, digest)
    if stat.S_ISDIR(status.st_mode):
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

    # os.walk skips folders that it cannot read, unless it has an error handler that raises.
    def unreadable(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(path, onerror=unreadable):
        folders.sort()
        inside = os.path.relpath(folder, path)
        for name in (*folders, *sorted(files)):
            entry = Path(folder, name)
            digest, size = "", 0
            if entry.is_symlink():
                digest = f"-> {entry.readlink()}"
            elif entry.is_file():
                digest, size = _file(entry)
            total += size
            for text in (inside, name, digest):
                hasher.update(len(text).to_bytes(4, "little") + os.fsencode(text))
    return PathContents("folder", total, hasher.hexdigest(16))

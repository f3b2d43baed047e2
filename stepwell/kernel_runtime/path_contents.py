"""One digest for the contents of a file or folder.

If a step returns a path, the data version of the returned value is computed from the contents of the file or folder at this path, not from the
path itself.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PATH: type = type(Path())
"""The exact type of path objects on this platform: ``PosixPath`` or ``WindowsPath``."""


@dataclass(frozen=True, slots=True)
class PathContents:
    """The kind, size and digest of the file or folder at a path, at the time when `contents_of` was called."""

    kind: Literal["file", "folder", "nothing"]
    """``nothing`` if the path does not exist, or if it is a device or a pipe, whose contents cannot be read twice."""
    size: int = 0
    """The size in bytes of the file, or of all files below the folder together."""
    digest: str = ""
    """The digest of the file's contents, or of the names and contents of everything below the folder: 32 hexadecimal digits. Empty for
    ``nothing``."""


def contents_of(path: Path) -> PathContents:
    """Return the kind, size and digest of the file or folder at a path.

    Parameters
    ----------
    path
        The path of a file or folder. It need not exist. A symbolic link at this path is followed; links inside a folder are not.

    Returns
    -------
    PathContents
        The kind, size and digest at the time of the call. The kind is ``nothing`` if the path does not exist, or if it is a device or a pipe.

    Raises
    ------
    OSError
        If the file, the folder, or anything below the folder cannot be read.
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

    # os.walk skips a folder that it cannot read, unless its error handler raises the error.
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

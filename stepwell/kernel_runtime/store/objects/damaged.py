"""Value files, those that are damaged, and stored values that were found not to load.

A damaged file is set aside below ``damaged/``, so that it counts as missing and is written again. A value that is whole but does not load, or a
damaged one that lies in its row, gets a *mark* there: an empty file of its digest. Before a marked value is reused it is loaded once more;
if that fails it counts as missing. A mark is removed when the value loads, or is stored again. ``stepwell doctor --clean``
empties the folder.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from stepwell.kernel_runtime.store.objects.files import is_name

DAMAGED = "damaged"
_MARK = ".failed"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def value_files(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name below ``objects/`` and the stat of every value file."""
    try:
        folders = sorted(os.scandir(directory / "objects"), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for folder in folders:
        if folder.is_dir(follow_symlinks=False):
            for entry in os.scandir(folder.path):
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        yield f"{folder.name}/{entry.name}", entry.stat(follow_symlinks=False)


def set_aside(directory: Path, name: str) -> None:
    """Take a damaged value file out of ``objects/``.

    The name comes from a row, which somebody else may have made: one that can be no value file's is left alone.
    """
    if not is_name(name):
        return
    path = directory / "objects" / name
    with contextlib.suppress(OSError):
        (directory / DAMAGED).mkdir(exist_ok=True)
        path.replace(directory / DAMAGED / path.name)


def _name(digest: str) -> str:
    # A damaged row may hold any text in place of the digest.
    return digest if _DIGEST.fullmatch(digest) else sha256(digest.encode("utf-8", "surrogatepass")).hexdigest()


class Marks:
    """The stored values of one store that were found not to load, by digest. Every method from any thread."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / DAMAGED
        self._found: set[str] | None = None

    def __contains__(self, digest: str) -> bool:
        return bool(self._all()) and _name(digest) in self._all()

    def add(self, digest: str) -> None:
        """Mark a value; where the store cannot be written, for this process."""
        digest = _name(digest)
        if digest in self._all():
            return
        self._all().add(digest)
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
            os.close(os.open(self._folder / (digest + _MARK), flags, 0o666))

    def remove(self, digest: str) -> None:
        """Take a mark back."""
        if digest in self:
            self._all().discard(_name(digest))
            with contextlib.suppress(OSError):
                (self._folder / (_name(digest) + _MARK)).unlink(missing_ok=True)

    def _all(self) -> set[str]:
        if self._found is None:
            try:
                names = os.listdir(self._folder)  # noqa: PTH208 - at every start of a process: a Path costs ten times that
            except OSError:
                names = []
            self._found = {name.removesuffix(_MARK) for name in names if name.endswith(_MARK)}
        return self._found

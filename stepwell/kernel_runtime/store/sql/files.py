# ruff: noqa: PTH100, PTH109, PTH110, PTH111, PTH112, PTH113, PTH117, PTH118, PTH120, PTH207 - strings: a Path would change what was written
"""Which files a SELECT may read: those below the project's folder, and of these none of a store and no key.

What counts is where a file really is, with every link followed. DuckDB gets the list of exactly these files, and compares real paths
itself when it opens one: a link that is changed in between opens nothing else.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import QueryError
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.sql.statements import FileSource

_MOST = 100_000
"""Files that one pattern may match."""


@dataclass(frozen=True, slots=True)
class FileAccess:
    """What a SELECT reads of the file system.

    Attributes
    ----------
    allowed
        Absolute paths and patterns that DuckDB may open.
    named
        Absolute paths and patterns as the statement names them: what is recorded as read.
    """

    allowed: tuple[str, ...]
    named: tuple[str, ...]


def file_access(
    sources: Iterable[FileSource], parameters: Mapping[str, Any], project: Path | None, secret: Collection[Path]
) -> FileAccess:
    """Return which files a statement reads, checked.

    Parameters
    ----------
    sources
        What the statement names, relative to the working directory.
    project
        The folder below which they must be; None where there is none.
    secret
        Files and folders that are never read: stores, keys.

    Raises
    ------
    QueryError
        If a file is elsewhere, not there, or of a store.
    """
    allowed: dict[str, None] = {}
    named: dict[str, None] = {}
    hidden = [os.path.realpath(path) for path in secret]
    for source in sources:
        for written in _names(source, parameters):
            path = _absolute(written)
            # First where it is, then whether it is there: nothing is told of what is elsewhere.
            _check(os.path.realpath(_fixed(path)), written, project, hidden)
            named.setdefault(path)
            allowed.setdefault(path)
            for file in _matches(path, written):
                real = os.path.realpath(file)
                _check(real, written, project, hidden)
                allowed.setdefault(file)
                allowed.setdefault(real)
    return FileAccess(tuple(allowed), tuple(named))


def _names(source: FileSource, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    if not source.parameter:
        return source.names
    value = parameters.get(source.parameter)
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(each, str) for each in values):
        raise QueryError(
            f"{source.shown} is given {type(value).__name__ if not isinstance(value, list | tuple) else 'a list'},"
            " which names no file",
            remedy="its value is a path or a list of paths, as strings",
        )
    return tuple(values)


def _absolute(written: str) -> str:
    path = written
    if path.startswith("file:"):
        path = "/" + path.removeprefix("file:").lstrip("/")
    if "://" in path or not path or "\0" in path:
        raise QueryError(
            f"{written!r} is not below the project",
            remedy="a SELECT opens no connection: fetch it in an asset of its own and read that",
        )
    return os.path.abspath(os.path.expanduser(path))


def _fixed(path: str) -> str:
    """Return the part of a path before its first pattern."""
    parts = path.split(os.sep)  # noqa: PTH206 - as above
    first = next((at for at, part in enumerate(parts) if glob.has_magic(part)), None)
    return path if first is None or os.path.exists(path) else os.sep.join(parts[:first]) or os.sep


def _matches(path: str, written: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        raise QueryError(f"{written!r} is a folder", remedy=f"name its files: '{written.rstrip('/')}/*.csv'")
    found = []
    if glob.has_magic(path):
        # DuckDB's patterns match names that begin with a dot too.
        for each in glob.iglob(path, recursive=True, include_hidden=True):
            if os.path.isfile(each):
                found.append(each)
                if len(found) > _MOST:
                    raise QueryError(f"{written!r} matches more than {_MOST:,} files", remedy="narrow the pattern")
    if not found:
        raise QueryError(
            f"no file is called {written!r}" if not glob.has_magic(path) else f"no file matches {written!r}",
            where=f"looked for in {os.getcwd()}" if not os.path.isabs(written) else "",
            remedy="a path is relative to the notebook's folder; a table's name has no ending such as .csv",
        )
    return sorted(found)


def _check(real: str, written: str, project: Path | None, hidden: list[str]) -> None:
    shown = f"{written!r}" if real.endswith(written.lstrip("./")) else f"{written!r} ({real})"
    root = os.path.realpath(project) if project is not None else ""
    if not root or not (_below(real, root) or (real == root and glob.has_magic(written))):
        raise QueryError(
            f"{shown} is not below the project",
            where=f"the project is {root}" if root else "there is no project: the home folder is none",
            remedy="read it in an asset of its own and name that in the SELECT",
        )
    if any(real == each or _below(real, each) for each in hidden) or _of_a_store(real, root):
        raise QueryError(
            f"{shown} belongs to a store",
            remedy="name the asset instead, or the views of the schema stepwell: FROM stepwell.runs",
        )


def _below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _of_a_store(real: str, root: str) -> bool:
    """Tell whether a folder between the project's and a file is a store: any one, not only that of the session."""
    folder = os.path.dirname(real)
    while len(folder) >= len(root):
        if os.path.exists(os.path.join(folder, CATALOG)):
            return True
        folder = os.path.dirname(folder)
    return False

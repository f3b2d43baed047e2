"""The location of the store, and the notebook or script that this process runs.

The store is ``.stepwell`` in the project's root: the nearest folder at or above the notebook's that has a ``pyproject.toml`` or ``.git``. The
search stops before the home directory and the file system's root; without a project, the store is in the notebook's folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STORE = ".stepwell"
_MARKS = ("pyproject.toml", ".git")


def in_ipython() -> bool:
    """Return True if an IPython shell runs in this process; IPython is not imported."""
    module = sys.modules.get("IPython")
    get = getattr(module, "get_ipython", None) if module is not None else None
    return get is not None and get() is not None


def notebook_path(namespace: Mapping[str, Any] | None = None) -> Path | None:
    """Return the path of the notebook or script that ``__main__`` is; None if it is unknown.

    The sources are, in this order: ``STEPWELL_NOTEBOOK`` (set by ``stepwell run``), ``JPY_SESSION_NAME`` (set by Jupyter),
    ``__vsc_ipynb_file__`` (set by VS Code), and the script's ``__file__``.
    """
    space = namespace if namespace is not None else vars(sys.modules["__main__"])
    for path in (
        os.environ.get("STEPWELL_NOTEBOOK"),
        os.environ.get("JPY_SESSION_NAME"),
        space.get("__vsc_ipynb_file__"),
    ):
        if path and str(path).endswith(".ipynb"):
            return Path(str(path)).absolute()
    if in_ipython():
        return None
    script = space.get("__file__")
    return Path(script).absolute() if isinstance(script, str) else None


def project_root(start: Path) -> Path:
    """Return the project's root for a folder: the nearest folder with a mark, else the folder itself."""
    home = Path.home()
    for folder in (start, *start.parents):
        if folder in (home, Path(folder.anchor)):
            break
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    return start


def store_directory(namespace: Mapping[str, Any] | None = None) -> tuple[Path, bool]:
    """Return the store directory of this process's notebook or script, and whether the user named it."""
    return named_or_found(None, _folder(namespace))


def project_directory(namespace: Mapping[str, Any] | None = None) -> Path:
    """Return the project's root for this process's notebook or script, independent of its store."""
    return project_root(_folder(namespace))


def _folder(namespace: Mapping[str, Any] | None) -> Path:
    path = notebook_path(namespace)
    return path.parent if path is not None and path.parent.is_dir() else Path.cwd()


def named_or_found(asked: str | None, folder: Path) -> tuple[Path, bool]:
    """Return a store directory, and whether the user named it.

    A directory named by argument or environment comes first, then the store of a folder's project. The difference matters for links:
    ``.stepwell`` in a project from elsewhere may be a link, and only the user can know whether it is intended.

    Parameters
    ----------
    asked
        The directory that the user named; None for none.
    folder
        The folder of the notebook or script.
    """
    named = asked or os.environ.get("STEPWELL_STORE")
    return (Path(named).expanduser().absolute(), True) if named else (project_root(folder) / STORE, False)


def notebook_name(store: Path, namespace: Mapping[str, Any] | None = None) -> str:
    """Return the name under which this process's definitions are recorded: the notebook's path, relative to the project if it is inside."""
    path = notebook_path(namespace)
    if path is None:
        return "__main__"
    try:
        return path.relative_to(store.parent).as_posix()
    except ValueError:
        return path.as_posix()


def notebook_exists(name: str, store: Path) -> bool:
    """Return True if a recorded notebook or script still exists, or is a module."""
    if name in ("", "__main__"):
        return False
    if name.endswith((".ipynb", ".py")):
        return (store.parent / name).exists()
    return True

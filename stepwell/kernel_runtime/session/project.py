"""Where the store is, and which notebook or script this process is (DESIGN, sections 1 and 5).

The store is ``.stepwell`` in the nearest folder upwards from the notebook's that has a ``pyproject.toml`` or ``.git``; the walk
stops before the home directory and the root. Without one it is in the notebook's folder.
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
    """Tell whether an IPython shell runs in this process, without importing it."""
    module = sys.modules.get("IPython")
    get = getattr(module, "get_ipython", None) if module is not None else None
    return get is not None and get() is not None


def notebook_path(namespace: Mapping[str, Any] | None = None) -> Path | None:
    """Return the notebook or script that ``__main__`` is, or None where nothing says so.

    Asked are, in this order: ``STEPWELL_NOTEBOOK`` (our batch runner's word), ``JPY_SESSION_NAME`` (Jupyter's), VS Code's
    ``__vsc_ipynb_file__``, and the script's own file.
    """
    space = namespace if namespace is not None else vars(sys.modules["__main__"])
    for found in (
        os.environ.get("STEPWELL_NOTEBOOK"),
        os.environ.get("JPY_SESSION_NAME"),
        space.get("__vsc_ipynb_file__"),
    ):
        if found and str(found).endswith(".ipynb"):
            return Path(str(found)).absolute()
    if in_ipython():
        return None
    script = space.get("__file__")
    return Path(script).absolute() if isinstance(script, str) else None


def project_root(start: Path) -> Path:
    """Return the project's root for a folder: the nearest with a mark, else the folder itself."""
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
    """Return the project's root for this process's notebook or script, wherever its store is."""
    return project_root(_folder(namespace))


def _folder(namespace: Mapping[str, Any] | None) -> Path:
    path = notebook_path(namespace)
    return path.parent if path is not None and path.parent.is_dir() else Path.cwd()


def named_or_found(asked: str | None, folder: Path) -> tuple[Path, bool]:
    """Return the store directory that is asked for, by argument or environment, else that of a folder's project.

    Also whether the user named it: ``.stepwell`` in a project that came from elsewhere may be a link, and only the user can know
    whether that is right.
    """
    named = asked or os.environ.get("STEPWELL_STORE")
    return (Path(named).expanduser().absolute(), True) if named else (project_root(folder) / STORE, False)


def notebook_name(store: Path, namespace: Mapping[str, Any] | None = None) -> str:
    """Return the name under which this process's definitions are recorded: its path, relative to the project if inside."""
    path = notebook_path(namespace)
    if path is None:
        return "__main__"
    try:
        return path.relative_to(store.parent).as_posix()
    except ValueError:
        return path.as_posix()


def notebook_exists(name: str, store: Path) -> bool:
    """Tell whether a recorded notebook or script still is there; a module always is."""
    if name in ("", "__main__"):
        return False
    if name.endswith((".ipynb", ".py")):
        return (store.parent / name).exists()
    return True

# ruff: noqa: PTH112, PTH118, PTH119, PTH120, PTH208 - plain strings: a walk asks for owners by the thousand
"""Owners of modules: the standard library, an installed distribution, or the user.

The content of the user's modules is digested; all other modules are identified by name and version. Reading the metadata of all distributions
would take 100 ms or more. So only the folder that contains a module is listed, once: the name of an entry such as ``numpy-2.1.0.dist-info``
contains the name and the version of a distribution. If no distribution has the name of the module, the lists of modules in these entries are read.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

STANDARD = "python"
OURS = "stepwell"

_owners: dict[str | None, str | None] = {None: STANDARD, "builtins": STANDARD, "__main__": None, OURS: OURS}
_folders: dict[str, dict[str, tuple[str, str]]] = {}
_provided: dict[str, dict[str, tuple[str, str]]] = {}
_stdlib = tuple(
    {os.path.join(os.path.realpath(path), "") for name in ("stdlib", "platstdlib") if (path := sysconfig.get_paths().get(name))}
    | {os.path.join(path, "") for name in ("stdlib", "platstdlib") if (path := sysconfig.get_paths().get(name))}
)
_local: dict[str, bool] = {"__main__": True, OURS: False}
_IN_LIBRARIES = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_INFO = re.compile(r"^(?P<name>.+?)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info$")


def owner(module_name: str | None) -> str | None:
    """Return the owner of a module.

    Parameters
    ----------
    module_name
        The name of the module. Only the part before the first dot is used. None is treated as a module of the standard library.

    Returns
    -------
    str or None
        ``python`` for the standard library, the name and version of an installed distribution (``numpy 2.1.0``), ``stepwell`` for Stepwell
        itself, or None for a module of the user.
    """
    try:
        return _owners[module_name]
    except KeyError:
        pass
    top = str(module_name).partition(".")[0]
    if top in _owners:
        result = _owners[module_name] = _owners[top]
        return result
    result = _find(top)
    # The owner of a module that is not imported may change, because the module may be created later.
    if result is not None or top in sys.modules:
        _owners[top] = result
    return result


def is_local(module_name: str) -> bool:
    """Return True for `__main__`, and for an imported module outside the folders of libraries and of the standard library.

    Unlike `owner`, this function reads no metadata of distributions. If no module with this name is imported, the result is False: the
    ``__module__`` of some objects from extension modules of libraries is the name of a module that does not exist.
    """
    top = module_name.partition(".")[0]
    result = _local.get(top)
    if result is None:
        module = sys.modules.get(top)
        if module is None:
            return False
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        result = _local[top] = isinstance(file, str) and not _IN_LIBRARIES.search(file) and not file.startswith(_stdlib)
    return result


def _find(top: str) -> str | None:
    module = sys.modules.get(top)
    origin = _origin(top, module)
    if top in sys.stdlib_module_names and (origin is None or origin.startswith(_stdlib)):
        return STANDARD
    if origin is None:
        return None
    folder = os.path.dirname(origin)
    if os.path.basename(origin).startswith("__init__.") or os.path.isdir(origin):
        folder = os.path.dirname(folder)
    entries = _listing(folder)
    if not entries:
        return None
    distribution = entries.get(_normal(top)) or _by_content(folder).get(top)
    return " ".join(distribution) if distribution else None


def _origin(top: str, module: ModuleType | None) -> str | None:
    if module is not None:
        origin = getattr(module, "__file__", None)
        if origin is None:
            for place in getattr(module, "__path__", ()):
                return os.path.join(place, "__init__.py")
        return origin
    from importlib.util import find_spec

    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin in {None, "built-in", "frozen", "namespace"}:
        for place in spec.submodule_search_locations or ():
            return os.path.join(place, "__init__.py")
        return None
    return spec.origin


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _listing(folder: str) -> dict[str, tuple[str, str]]:
    """Return the distributions whose metadata are in a folder: a dict from the normalised name to the name and version."""
    distributions = _folders.get(folder)
    if distributions is None:
        distributions = {}
        site = os.path.basename(folder) in {"site-packages", "dist-packages"}
        try:
            names = os.listdir(folder or ".")
        except OSError:
            names = []
        for name in names:
            # An ``.egg-info`` outside of site-packages belongs to a project under development, whose owner is the user.
            if name.endswith(".dist-info") or (site and name.endswith(".egg-info")):
                match = _INFO.match(name)
                if match:
                    distributions[_normal(match["name"])] = (match["name"].replace("_", "-"), match["version"])
        _folders[folder] = distributions
    return distributions


def _by_content(folder: str) -> dict[str, tuple[str, str]]:
    """Read the lists of top-level modules in the metadata in a folder. Return a dict from each module to its distribution's name and version."""
    distributions = _provided.get(folder)
    if distributions is None:
        distributions = {}
        for place in Path(folder).glob("*.*-info"):
            match = _INFO.match(place.name)
            if match is None:
                continue
            identity = (match["name"].replace("_", "-"), match["version"])
            try:
                if (place / "top_level.txt").is_file():
                    tops = (place / "top_level.txt").read_text().split()
                else:
                    tops = [
                        line.split(",")[0].split("/")[0].split(".")[0] for line in (place / "RECORD").read_text().splitlines()
                    ]
            except (OSError, UnicodeDecodeError):
                continue
            for top in tops:
                distributions.setdefault(top, identity)
        _provided[folder] = distributions
    return distributions


# -- files


def _excluded_folders() -> tuple[str, ...]:
    folders = {"/proc/", "/sys/", "/dev/"}
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        for path in (prefix, os.path.realpath(prefix)):
            # These folders also contain files of the user, so only their Python folders are excluded.
            if path in {"/usr", "/usr/local", "/"}:
                folders |= {os.path.join(path, lib, "") + f"python{sys.version_info[0]}" for lib in ("lib", "lib64")}
            else:
                folders.add(os.path.join(path, ""))
    # Modules of Stepwell are imported at first use, which may be in a step.
    folders.add(os.path.join(str(Path(__file__).parents[2]), ""))
    return tuple(sorted(folders))


EXCLUDED = _excluded_folders()
"""Beginnings of the paths of files in the Python installation, in ``/proc``, ``/sys`` and ``/dev``, and in Stepwell itself."""
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}", f"{os.sep}__pycache__{os.sep}")


def is_input_path(path: str) -> bool:
    """Return True if a file can be an input of a step; False if it belongs to the Python installation, the system or a bytecode cache."""
    return not (path.startswith(EXCLUDED) or path.endswith(".pyc") or any(part in path for part in _SITE))

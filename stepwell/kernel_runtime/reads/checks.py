# ruff: noqa: PTH118, PTH123, PTH207, PTH208 - strings are quicker than paths, and an audit hook runs inside every open()
"""The state of files and folders when a step reads them, and the check that a recorded read still holds.

A recorded state is the content of a file, the names in a folder, the files that match a pattern, or attributes that code reads without
opening a file. `read_holds` compares a recorded read with the present state; it does not compare reads of assets and of the kernel's memory. A `Tree`
lists the files of the project at one moment, so that the recorder can find the files that a child process changed later.

Python code that tests whether a path exists, or reads its size or times (``os.path.exists``, ``Path.is_file``, ``os.path.getmtime``), calls
``os.stat``, ``os.lstat`` or ``os.access``. `watch_statuses` replaces these functions of ``os`` by wrappers, once per process. Imports do not
call the wrappers. The caller determines which attributes are recorded: the kind for ``exists``, the size for ``getsize``, all attributes for
``Path.stat``. A call with a relative path is also recorded as a read of the working directory. Two sorts of calls are not recorded: those
that `environment.counts_here` excludes, such as calls during the import of an installed package, and those whose result does not reach the
user's code (``makedirs`` tests parent folders, ``resolve`` follows links, ``which`` searches the path).

An installed package that calls ``os.stat`` usually opens the file next, and depends only on the content. Therefore the times are not recorded for
such a call. Attributes are never recorded if they come from an entry of ``os.scandir`` or are read by native code.
"""

from __future__ import annotations

import builtins
import glob
import os
import stat as modes
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import update_wrapper
from types import FrameType
from typing import Any, Final, Literal, Protocol, TypeAlias

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.records.materializations import LOCAL, Read
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.environment import (
    ALL,
    Keyed,
    all_digest,
    counts_here,
    environment_copy,
    name_digest,
    process_keyed,
    value_of,
)
from stepwell.kernel_runtime.versions.library_state import FOLDER, state_digest
from stepwell.kernel_runtime.versions.ownership import is_input_path
from stepwell.kernel_runtime.versions.queries import IN_CONNECTION

_stat, _access = os.stat, os.access
UNSTABLE = "changed while the step ran"
"""This text is recorded instead of a digest if the thing that was read changed while the step ran, or has no digest. Such a read never holds."""
# A file that changes twice within one tick of the file system's clock has the same time after both changes.
_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_000_000_000


def file_digest(path: str, size: int | None = None) -> str | None:
    """Return the digest of a file's content as 32 hexadecimal digits; None if the file cannot be read.

    Parameters
    ----------
    size
        The number of bytes at the beginning of the file that are digested; None for the whole file.
    """
    from blake3 import blake3

    left = sys.maxsize if size is None else size
    try:
        with open(path, "rb") as file:
            data = file.read(min(left, 1 << 20))
            if len(data) < 1 << 20:
                return blake3(data).hexdigest(16)
            hasher = blake3(data, max_threads=blake3.AUTO)
            left -= len(data)
            while data := file.read(min(left, 1 << 23)):
                hasher.update(data)
                left -= len(data)
            return hasher.hexdigest(16)
    except OSError:
        return None


def file_stat(path: str) -> tuple[int, ...] | None:
    """Return the size, mtime_ns, ctime_ns and inode of a file or folder; None if the path does not exist or cannot be examined."""
    try:
        stat = _stat(path)
    except (OSError, ValueError):
        return None
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def too_recent(stat: tuple[int, ...]) -> bool:
    """Return True if a file changed so recently that a second change could give it the same times again and remain unnoticed.

    Parameters
    ----------
    stat
        The result of `file_stat` for the file.
    """
    newest = max(stat[1], stat[2])
    tick = _COARSE_TICK_NS if newest % 1_000_000_000 == 0 else _TICK_NS
    return time.time_ns() - newest < tick


_MOST_ENTRIES = 20_000
_MOST_DIGESTED = 2_000
"""The maximum number of files whose contents a `Tree` digests.

A reuse overwrites a file only if the file has its content from before or from after the step. For files that a child process of the step changed,
the digest of the content from before the step comes from a `Tree`.
"""
_LARGEST_DIGESTED = 1 << 20
_MOST_BYTES = 1 << 26
_FOREIGN_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
_OF_EDITORS = (".ipynb", ".swp", ".swx", "~")


class Tree:
    """The files and folders that were below some root folders when the object was created.

    Hidden folders, Python environments, caches, notebooks, and the swap and backup files of editors are left out. If there are more than
    `_MOST_ENTRIES` files and folders, only those nearest to the roots are included.

    Parameters
    ----------
    roots
        The root folders.
    digests
        True to digest the contents of small files. If False, the attribute `digests` is an empty dict.
    """

    def __init__(self, roots: Iterable[str], *, digests: bool = False) -> None:
        self.roots = tuple(roots)
        self.files: dict[str, tuple[int, ...]] = {}
        """Maps the path of each file to its size, modification time in nanoseconds and inode."""
        self.folders: set[str] = set()
        self.digests: dict[str, str] = {}
        """Maps the path of each small file to the digest of its content; an empty string if the file cannot be read."""
        level = list(self.roots)
        while level and len(self.files) + len(self.folders) < _MOST_ENTRIES:
            level = [inner for folder in level for inner in self._entered(folder)]
        remaining = _MOST_BYTES
        for path, (size, *_) in self.files.items() if digests else ():
            if size <= min(_LARGEST_DIGESTED, remaining) and len(self.digests) < _MOST_DIGESTED:
                remaining -= size
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
            entry.name.startswith(".") or entry.name in _FOREIGN_FOLDERS or os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))  # noqa: PTH110 - as above
        )


_CACHES = frozenset({"__pycache__", ".ipynb_checkpoints"})
_MOST_NAMES = 500


def folder_names(path: str) -> list[str] | None:
    """Return the sorted names of the entries of a folder, without cache folders; None if the folder cannot be listed."""
    try:
        return sorted(name for name in os.listdir(path) if name not in _CACHES)
    except (OSError, ValueError):
        return None


def has_magic(path: str) -> bool:
    """Return True if a path contains wildcards of `glob`, such as ``*``."""
    return glob.has_magic(path)


def matches(pattern: str) -> list[str]:
    """Return the sorted paths of the files that match an absolute `glob` pattern; ``**`` matches folders of any depth."""
    return sorted(path for path in glob.iglob(pattern, recursive=True) if not os.path.isdir(path))  # noqa: PTH112 - as above


def files_below(folder: str) -> str:
    """Return the `glob` pattern that matches every file below a folder."""
    return os.path.join(glob.escape(folder), "**")


def names_digest(names: Iterable[str], without: Collection[str] = ()) -> str:
    """Return one digest of all `names` except those in `without`, as 32 hexadecimal digits. `names` must be sorted."""
    from blake3 import blake3

    excluded = set(without)
    text = "\0".join([name for name in names if name not in excluded])
    return blake3(text.encode("utf-8", "surrogateescape")).hexdigest(16)


def recorded_names(names: Collection[str]) -> tuple[str, ...]:
    """Return the part of `names` that a recorded read stores: all of them, or none if there are more than `_MOST_NAMES`.

    From the stored names, a later message can say which names were added or removed.
    """
    return tuple(names) if len(names) <= _MOST_NAMES else ()


# -- attributes of a path that code reads without opening it

Aspect: TypeAlias = Literal["kind", "link", "size", "mtime", "ctime", "stat"]
"""Which attributes of a path a call reads.

``kind``: whether the path is a file, a folder or something else. ``link``: the same, without following a link. ``size``, ``mtime`` and
``ctime``: the kind, and the attribute of this name. ``stat``: the kind, the size and the modification time.
"""
ABSENT: Final = "absent"
"""The state of a path that does not exist."""

_THROUGH = frozenset({"os", "posixpath", "ntpath", "genericpath", "pathlib", "pathlib._local", "pathlib._abc", "glob", "shutil", "fnmatch"})  # fmt: skip
_LEARNS: Mapping[str, Aspect] = {
    "getsize": "size", "getmtime": "mtime", "getatime": "mtime", "getctime": "ctime", "stat": "stat", "lstat": "stat",
}  # fmt: skip
_LEARNS_NOTHING = frozenset({
    "makedirs", "mkdir", "realpath", "resolve", "which", "walk", "fwalk", "copytree", "rmtree", "unlink", "touch", "get_terminal_size",
    "removedirs", "disk_usage", "copy", "copy2", "copyfile", "copystat", "copymode", "move", "ismount",
})  # fmt: skip


class Watcher(Protocol):
    """The methods of `ReadRecorder` that the wrapped functions of ``os`` call."""

    def status_read(self, path: str, aspect: str, state: str) -> None:
        """Record that the step read the attributes of a path that `aspect` names; `state` has their values, as `status` returns them."""

    def knows_status(self, path: str, aspect: str) -> bool:
        """Return True if a read of the attributes of this path that `aspect` names has already been noted."""

    def state_read(self, name: str) -> None:
        """Record that the step read the state with this name, for example the working directory."""


def status(path: str, aspect: str) -> str:
    """Return a text for the present state of a path: ``absent``, or the kind of the path and the values of the attributes of `aspect`.

    For example ``folder``, or ``file 12 1700000000000000000`` with the size and the modification time in nanoseconds.

    Parameters
    ----------
    aspect
        An `Aspect`, or ``access`` and a mode, such as ``access 4``. For ``access 4``, the function returns the result of ``os.access`` for the
        mode 4 as text: ``True`` or ``False``.
    """
    if aspect.startswith("access "):
        return str(_access(path, int(aspect.removeprefix("access "))))
    try:
        return _attributes(_stat(path, follow_symlinks=aspect != "link"), aspect)
    except (OSError, ValueError):
        return ABSENT


_KINDS = {modes.S_IFREG: "file", modes.S_IFDIR: "folder", modes.S_IFLNK: "link"}


def _attributes(stat: os.stat_result, aspect: str) -> str:
    kind = _KINDS.get(modes.S_IFMT(stat.st_mode), "special")
    if aspect in ("kind", "link") or (kind == "folder" and aspect != "ctime"):
        # The size and times of a folder can change although the names in it stay the same, so only the kind is compared.
        return kind
    values = {
        "size": (stat.st_size,),
        "mtime": (stat.st_mtime_ns,),
        "ctime": (stat.st_ctime_ns,),
        "stat": (stat.st_size, stat.st_mtime_ns),
    }[aspect]
    return " ".join([kind, *map(str, values)])


def aspect_of(frame: FrameType | None) -> tuple[Aspect | None, FrameType | None]:
    """Return which attributes a call of ``os.stat`` reads for the code that uses ``os.path``, ``pathlib`` or a similar module, and the code's frame.

    Parameters
    ----------
    frame
        The frame that calls ``os.stat``; often a function of ``os.path`` or ``pathlib``.

    Returns
    -------
    aspect
        The attributes that reach the code outside of these modules. None if no attributes reach this code, for example because ``os.makedirs``
        tests parent folders and does not return the result.
    reader
        The nearest frame outside of these modules; None if there is no such frame. If `aspect` is None, the frame of the function that does not
        return the attributes, for example ``os.makedirs``.
    """
    name = ""
    while frame is not None and frame.f_globals.get("__name__") in _THROUGH:
        name = frame.f_code.co_name
        if name in _LEARNS_NOTHING:
            return None, frame
        frame = frame.f_back
    return ("stat" if not name else _LEARNS.get(name, "kind")), frame


# The wrapper is compiled from text, so that the module name in its globals is `os`. Pickle and the code walk then treat it as a function of `os`.
_SHIM = compile(
    """
def bound(original, active, observed):
    def look(*args, **kwargs):
        watcher = active()
        if watcher is None:
            return original(*args, **kwargs)
        return observed(watcher, args, kwargs)
    return look
""",
    "<look>",
    "exec",
)


def _note(watcher: Watcher, path: Any, result: os.stat_result | bool | None, *, follows: bool, mode: int | None = None) -> None:
    aspect, asker = aspect_of(sys._getframe(3))  # noqa: SLF001 - the frame of the caller determines what is recorded
    if aspect is None or isinstance(path, int):
        return
    written = os.fsdecode(path)
    name = os.path.abspath(written)  # noqa: PTH100 - as above
    if not os.path.isabs(written) and is_input_path(name) and counts_here(asker):  # noqa: PTH117 - as above
        watcher.state_read(FOLDER)
    if aspect == "stat" and asker is not None and not is_input_path(asker.f_code.co_filename):
        aspect = "size"
    recorded = f"access {mode}" if mode is not None else "link" if aspect == "kind" and not follows else aspect
    if not watcher.knows_status(name, recorded) and is_input_path(name) and counts_here(asker):
        state = ABSENT if result is None else str(result) if isinstance(result, bool) else _attributes(result, recorded)
        watcher.status_read(name, recorded, state)


Observed: TypeAlias = Callable[[Watcher, tuple[Any, ...], Mapping[str, Any]], Any]
"""Calls the original function of ``os`` with the positional and keyword arguments, reports to the watcher what the call read, and returns the
result of the call."""


def _observed_stat(original: Callable[..., os.stat_result], *, follows: bool) -> Observed:
    def observed(watcher: Watcher, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = None
        try:
            result = original(*args, **kwargs)
        finally:
            # If the arguments are invalid, the original function has raised an error, and errors below are ignored. A path that is relative to an
            # open folder (`dir_fd`) is not noted.
            if kwargs.get("dir_fd") is None:
                with suppress(Exception):
                    path = args[0] if args else kwargs["path"]
                    _note(watcher, path, result, follows=follows and kwargs.get("follow_symlinks", True))
        return result

    return observed


def _observed_access(watcher: Watcher, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    granted = _access(*args, **kwargs)
    if kwargs.get("dir_fd") is None:
        with suppress(Exception):
            arguments = {**dict(zip(("path", "mode"), args, strict=False)), **kwargs}
            _note(watcher, arguments["path"], granted, follows=True, mode=arguments["mode"])
    return granted


def _observed_folder(original: Callable[[], Any]) -> Observed:
    def observed(watcher: Watcher, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if counts_here(sys._getframe(2)):  # noqa: SLF001 - as above
            watcher.state_read(FOLDER)
        return original(*args, **kwargs)

    return observed


def watch_statuses(active: Callable[[], Watcher | None]) -> dict[int, tuple[Any, Any]]:
    """Wrap the functions of ``os`` that return the working directory or read attributes of paths, so that these reads are noted.

    Parameters
    ----------
    active
        Returns the watcher of the step in which the calling code runs; None outside steps.

    Returns
    -------
    dict
        One entry for each wrapped function. The key is the `id` of the original function; the value is the pair of the original function
        and its wrapper.
    """
    replaced: dict[int, tuple[Any, Any]] = {}
    for name, observed in (
        ("stat", _observed_stat(_stat, follows=True)),
        ("lstat", _observed_stat(os.lstat, follows=False)),
        ("access", _observed_access),
        ("getcwd", _observed_folder(os.getcwd)),
        ("getcwdb", _observed_folder(os.getcwdb)),
    ):
        original = getattr(os, name)
        space: dict[str, Any] = {"__name__": "os", "__builtins__": builtins}
        exec(_SHIM, space)  # noqa: S102 - a constant
        wrapper = update_wrapper(space["bound"](original, active, observed), original)
        wrapper.__module__ = "os"
        replaced[id(original)] = (original, wrapper)
        # Before a library passes `dir_fd`, a descriptor or `follow_symlinks` to a function, it tests whether the function is in the set for this argument.
        for capable in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
            if original in capable:
                capable.add(wrapper)
        setattr(os, name, wrapper)
    return replaced


def read_holds(read: Read, keyed: Keyed | None = None) -> bool:
    """Return True if what a step read (a file, an environment variable, ...) still has the recorded state.

    A file is compared by size, times and inode. If the size is equal but the times or the inode differ, the content is compared by digest. If
    the file changed just before the step read it, no size, times and inode were recorded (see `too_recent`), and only the content is compared.
    Everything else is compared by digest. The result is False for reads of assets and of the kernel's memory (`LOCAL`), because this
    function has neither the store nor the notebook.

    Parameters
    ----------
    keyed
        Digests the values of environment variables with the key that the recorder used. None to digest them with a key that only this process
        has.
    """
    if read.digest == UNSTABLE:
        return False
    if read.kind == "absent":
        return not os.path.exists(read.name)  # noqa: PTH110 - a string is quicker than a path
    if read.kind == "file":
        return _file_holds(read)
    if read.kind == "status":
        return status(read.name, read.names[0]) == read.digest
    if read.kind == "listing":
        names = folder_names(read.name)
        return names is not None and names_digest(names, read.own_names) == read.digest
    if read.kind == "glob":
        return names_digest(matches(read.name), read.own_names) == read.digest
    if read.kind == "state":
        return state_digest(read.name, data_version) == read.digest
    if read.kind in LOCAL:
        # `Timeline.read_holds` compares reads of these kinds.
        return False
    if read.kind == "environment":
        keyed = keyed or process_keyed
        try:
            if read.name == ALL:
                return all_digest(environment_copy(), keyed, read.own_names) == read.digest
            return name_digest(read.name, value_of(read.name), keyed) == read.digest
        except StoreError:
            return False
    return False


def _file_holds(read: Read) -> bool:
    now = file_stat(read.name)
    if now is None:
        return bool(read.own_names)
    if read.stat:
        if tuple(read.stat) == now:
            return True
        if read.stat[0] != now[0]:
            return False
    return file_digest(read.name) == read.digest


def what_changed(read: Read) -> str:
    """Return a clause that says how something that a step read has changed, for example ``data.csv is gone``.

    Call the function only for a read that no longer holds. The clause does not contain values of environment variables.
    """
    if read.kind == "environment":
        return _other_environment(read)
    if read.kind == "name":
        return f"the variable {read.name}, which a query or formula of the step reads, changed"
    if read.kind == "given":
        return f"the variable {read.name}, which code in the value of an input reads, changed"
    if read.kind == "stream":
        return (
            f"the random numbers of {read.name} start from a different state: a seed changed, or other code draws numbers first"
        )
    if read.digest == UNSTABLE:
        return f"{read.name} changed while the step ran"
    if read.kind == "absent":
        return f"{read.name} is there now"
    if read.kind == "file":
        return f"{read.name} changed" if os.path.exists(read.name) else f"{read.name} is gone"  # noqa: PTH110 - as above
    if read.kind == "status":
        return f"{read.name} {_other_status(read)}"
    if read.kind == "listing":
        names = folder_names(read.name)
        if names is None:
            return f"the folder {read.name} is gone"
        return f"the names in {read.name} changed" + _difference(read, names)
    if read.kind == "glob":
        return f"the files that match {read.name} changed" + _difference(read, matches(read.name))
    if read.kind == "state":
        return _other_state(read.name)
    return f"the value of {read.name}, which the step loads, changed"


def _other_environment(read: Read) -> str:
    if read.digest == UNSTABLE:
        return (
            "the environment variables that the step read cannot be compared: the user's key could not be read when the step ran"
        )
    if read.name == ALL:
        return "the environment, which the step reads as a whole, changed"
    now = "is set now" if not read.digest else "is no longer set" if value_of(read.name) is None else "changed"
    return f"the environment variable {read.name} {now}"


def _other_state(name: str) -> str:
    if name.startswith(IN_CONNECTION):
        return f"{name.removeprefix(IN_CONNECTION)} in duckdb's default connection changed"
    name = name.removesuffix(" text")
    return f"the {name} changed" if name in {FOLDER, "time zone", "locale"} else f"options of {name} changed"


def _other_status(read: Read) -> str:
    aspect = read.names[0]
    if aspect.startswith("access "):
        return "has different permissions"
    before, now = read.digest.split(), status(read.name, aspect).split()
    if now[0] != before[0]:
        return (
            "is gone" if now[0] == ABSENT else "is there now" if before[0] == ABSENT else f"is a {now[0]} now, not a {before[0]}"
        )
    if aspect == "size" or (aspect == "stat" and now[1] != before[1]):
        return f"has a different size: {int(now[1]):,} bytes, not {int(before[1]):,}"
    return "has a different modification time"


def _difference(read: Read, now: list[str]) -> str:
    if not read.names:
        return ""
    counted = {name for name in now if name not in read.own_names}
    added, removed = sorted(counted - set(read.names)), sorted(set(read.names) - counted)
    return ": " + "; ".join(f"{word} {_few_names(names)}" for word, names in (("new", added), ("gone", removed)) if names)


def _few_names(names: list[str]) -> str:
    shown = ", ".join(os.path.basename(name) for name in names[:3])  # noqa: PTH119 - as above
    return shown + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")

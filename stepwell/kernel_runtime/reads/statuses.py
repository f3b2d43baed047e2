"""What code learns of a path without opening it: whether it is there and what it is, its size, its times, who may read it.

The working directory is read by whoever asks for it, and by whoever looks at a relative path. Everything in Python that asks (``os.path.exists``, ``Path.is_file``, ``os.path.getmtime``) goes through three functions of ``os``, which
are wrapped once per process; the import system has its own. Which of the facts counts is told by who asks: ``exists`` learns the kind,
``getsize`` the size, ``stat`` itself all of them. What does not count is what `environment.counts_here` leaves out, and what learns nothing
for the code: ``makedirs`` looking for the folders above, ``resolve`` following links, ``which`` walking the search path.

An installed package that asks for all of them wants to know what it is about to open: its times do not count, or a file that is touched
would be another one. Not seen is what an entry of ``os.scandir`` knows already, and what native code looks up for itself.
"""

from __future__ import annotations

import builtins
import os
import stat as modes
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import update_wrapper
from types import FrameType
from typing import Any, Final, Literal, Protocol, TypeAlias

from stepwell.kernel_runtime.versions.library_state import FOLDER

Aspect: TypeAlias = Literal["kind", "link", "size", "mtime", "ctime", "stat"]
"""What is learned: the kind of a path, of the path itself where it is a link, one fact, or kind, size and time of change."""
ABSENT: Final = "absent"

_stat, _access = os.stat, os.access
_THROUGH = frozenset({"os", "posixpath", "ntpath", "genericpath", "pathlib", "pathlib._local", "pathlib._abc", "glob", "shutil", "fnmatch"})  # fmt: skip
_LEARNS: Mapping[str, Aspect] = {
    "getsize": "size", "getmtime": "mtime", "getatime": "mtime", "getctime": "ctime", "stat": "stat", "lstat": "stat",
}  # fmt: skip
_LEARNS_NOTHING = frozenset({
    "makedirs", "mkdir", "realpath", "resolve", "which", "walk", "fwalk", "copytree", "rmtree", "unlink", "touch", "get_terminal_size",
    "removedirs", "disk_usage", "copy", "copy2", "copyfile", "copystat", "copymode", "move", "ismount",
})  # fmt: skip


class Watcher(Protocol):
    """What is told of looks at paths."""

    def looked_at(self, path: str, aspect: str, found: str) -> None:
        """Note what was learned of a path."""

    def knows_look(self, path: str, aspect: str) -> bool:
        """Tell whether such a look was noted before."""

    def state_read(self, name: str) -> None:
        """Note that the working directory was read."""


def status(path: str, aspect: str) -> str:
    """Return in words what a look at a path learns now: ``absent``, ``file``, ``folder 12 1700000000``."""
    if aspect.startswith("access "):
        return str(_access(path, int(aspect.removeprefix("access "))))
    try:
        return _told(_stat(path, follow_symlinks=aspect != "link"), aspect)
    except (OSError, ValueError):
        return ABSENT


def _told(found: os.stat_result, aspect: str) -> str:
    mode = found.st_mode
    kind = (
        "file"
        if modes.S_ISREG(mode)
        else "folder"
        if modes.S_ISDIR(mode)
        else "link"
        if modes.S_ISLNK(mode)
        else "special"
    )
    if aspect in ("kind", "link") or (kind == "folder" and aspect != "ctime"):
        # The times of a folder are those of what is made in it: they say no more than its listing, and change for less.
        return kind
    facts = {
        "size": (found.st_size,),
        "mtime": (found.st_mtime_ns,),
        "ctime": (found.st_ctime_ns,),
        "stat": (found.st_size, found.st_mtime_ns),
    }[aspect]
    return " ".join([kind, *map(str, facts)])


def aspect_of(frame: FrameType | None) -> tuple[Aspect | None, FrameType | None]:
    """Return what a call of ``os.stat`` from a frame learns, None for nothing; and the frame of who asked."""
    name = ""
    while frame is not None and frame.f_globals.get("__name__") in _THROUGH:
        name = frame.f_code.co_name
        if name in _LEARNS_NOTHING:
            return None, frame
        frame = frame.f_back
    return ("stat" if not name else _LEARNS.get(name, "kind")), frame


# It must be a function of `os` to whoever looks at it: pickle, and the walk over code that took it from there.
_SHIM = compile(
    """
def bound(original, active, looked):
    def look(*args, **kwargs):
        watcher = active()
        if watcher is None:
            return original(*args, **kwargs)
        return looked(watcher, args, kwargs)
    return look
""",
    "<look>",
    "exec",
)


def watch_statuses(
    active: Callable[[], Watcher | None], counts: Callable[[str], bool], counts_here: Callable[[FrameType | None], bool]
) -> dict[int, tuple[Any, Any]]:
    """Wrap what looks at paths, so that the watcher that is active is told; return the originals, each with what stands for it."""

    def note(
        watcher: Watcher, path: Any, found: os.stat_result | bool | None, *, follows: bool, mode: int | None = None
    ) -> None:
        aspect, asker = aspect_of(sys._getframe(3))  # noqa: SLF001 - who asks decides
        if aspect is None or isinstance(path, int):
            return
        given = os.fsdecode(path)
        name = os.path.abspath(given)  # noqa: PTH100 - as above
        if not os.path.isabs(given) and counts(name) and counts_here(asker):  # noqa: PTH117 - as above
            watcher.state_read(FOLDER)
        if aspect == "stat" and asker is not None and not counts(asker.f_code.co_filename):
            aspect = "size"
        learned = f"access {mode}" if mode is not None else "link" if aspect == "kind" and not follows else aspect
        if not watcher.knows_look(name, learned) and counts(name) and counts_here(asker):
            told = ABSENT if found is None else str(found) if isinstance(found, bool) else _told(found, learned)
            watcher.looked_at(name, learned, told)

    def looks(original: Callable[..., os.stat_result], *, follows: bool) -> Callable[..., Any]:
        def looked(watcher: Watcher, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            found = None
            try:
                found = original(*args, **kwargs)
            finally:
                # What cannot be understood here is for the original to refuse; a path below a descriptor is no path.
                if kwargs.get("dir_fd") is None:
                    with suppress(Exception):
                        note(
                            watcher,
                            args[0] if args else kwargs["path"],
                            found,
                            follows=follows and kwargs.get("follow_symlinks", True),
                        )
            return found

        return looked

    def may(watcher: Watcher, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        granted = _access(*args, **kwargs)
        if kwargs.get("dir_fd") is None:
            with suppress(Exception):
                given = {**dict(zip(("path", "mode"), args, strict=False)), **kwargs}
                note(watcher, given["path"], granted, follows=True, mode=given["mode"])
        return granted

    def here(get: Callable[[], Any]) -> Callable[..., Any]:
        def looked(watcher: Watcher, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            if counts_here(sys._getframe(2)):  # noqa: SLF001 - who asks decides
                watcher.state_read(FOLDER)
            return get(*args, **kwargs)

        return looked

    replaced: dict[int, tuple[Any, Any]] = {}
    for name, looked in (
        ("stat", looks(_stat, follows=True)),
        ("lstat", looks(os.lstat, follows=False)),
        ("access", may),
        ("getcwd", here(os.getcwd)),
        ("getcwdb", here(os.getcwdb)),
    ):
        original = getattr(os, name)
        space: dict[str, Any] = {"__name__": "os", "__builtins__": builtins}
        exec(_SHIM, space)  # noqa: S102 - a constant
        made = update_wrapper(space["bound"](original, active, looked), original)
        made.__module__ = "os"
        replaced[id(original)] = (original, made)
        for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
            if original in able:
                able.add(made)
        setattr(os, name, made)
    return replaced

# ruff: noqa: SLF001 - the data of os.environ are read unrecorded, and frames show the caller
"""The environment: the reads of environment variables that count, and digests that do not reveal the values.

The class of ``os.environ`` is written in Python, so its methods can be wrapped; this is done once per process. Reads by code of the user or
of an installed package count, except:

- reads by Python and the notebook for their own use: imports, temporary folders, the search path of commands, the width of a terminal,
  proxies, the log of TLS keys;
- reads by a library for the formatting of a display;
- reads by an installed package during its import: in another process, the import may happen before the step.

A read of the whole environment (a copy, an iteration) is one read. It excludes variables that differ between sessions without a change by
the user: those of the shell, the terminal, Jupyter and Stepwell. The inheritance of the environment by a child process is not recorded.
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Callable, Collection, Iterator
from functools import wraps
from types import FrameType
from typing import Any, Protocol

from stepwell.kernel_runtime.versions.ownership import EXCLUDED

ALL = "*"
"""The name under which a read of the whole environment is recorded."""
Keyed = Callable[[bytes], str]
"""Digests bytes with the user's key."""

_PASSING = frozenset({
    "os", "_collections_abc", "collections.abc", "posixpath", "ntpath", "genericpath", "pathlib", "pathlib._local", "pathlib._abc",
})  # fmt: skip
"""Modules through which other code reads the environment. The module of the caller determines whether a read counts."""
_MACHINERY = frozenset({
    "importlib", "_frozen_importlib", "zipimport", "IPython", "ipykernel", "jupyter_client", "traitlets", "zmq", "tornado", "comm", "stepwell",
    "pytest", "_pytest", "tempfile", "subprocess", "asyncio", "multiprocessing", "concurrent", "threading", "warnings", "linecache", "site", "sysconfig",
    "urllib", "ssl",
})  # fmt: skip
_STARTERS = frozenset({
    "joblib", "loky", "multiprocess", "billiard", "dask", "distributed", "ray", "mpi4py", "pexpect", "ptyprocess", "sh", "plumbum", "invoke", "git",
})  # fmt: skip
"""Packages that copy the whole environment for the processes that they start."""
_SESSION = frozenset({
    "_", "PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "TERM", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID",
    "WINDOWID", "DISPLAY", "PAGER", "GIT_PAGER", "LESS", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "NO_COLOR", "LS_COLORS", "PS1", "PS2",
    "STY", "TMUX", "TMUX_PANE", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "INVOCATION_ID",
    "JOURNAL_STREAM", "MPLBACKEND", "PYDEVD_USE_FRAME_EVAL", "DBUS_SESSION_BUS_ADDRESS", "GPG_AGENT_INFO",
})  # fmt: skip
_SESSION_PREFIXES = ("JPY_", "JUPYTER", "STEPWELL_", "VSCODE_", "XDG_SESSION_", "IPYTHON", "PYTEST_", "KERNEL_")
_process_key = os.urandom(32)


class Reader(Protocol):
    """A recorder of reads of the environment."""

    def name_read(self, name: str, value: str | None) -> None:
        """Record that a name was read."""

    def knows_name(self, name: str) -> bool:
        """Return True if a read of this name need not be recorded."""

    def environment_read(self, environment: dict[str, str]) -> None:
        """Record that the whole environment was read."""

    def name_set(self, name: str) -> None:
        """Record that the step sets or removes a name."""


def of_session(name: str) -> bool:
    """Return True for a name whose value differs between sessions without a change by the user."""
    return name in _SESSION or name.startswith(_SESSION_PREFIXES)


def process_keyed(data: bytes) -> str:
    """Digest bytes with a key of this process; digests of different processes cannot be compared."""
    return hmac.digest(_process_key, data, "sha256").hex()[:32]


def name_digest(name: str, value: str | None, keyed: Keyed) -> str:
    """Return the keyed digest of a name's value; empty if the name is not set."""
    return "" if value is None else keyed(_bytes(name, value))


def all_digest(environment: dict[str, str], keyed: Keyed, without: Collection[str] = ()) -> str:
    """Return the keyed digest of an environment, without the names of the session and those in `without`."""
    rest = sorted((name, value) for name, value in environment.items() if name not in without and not of_session(name))
    return keyed(b"\0\0".join([_bytes(name, value) for name, value in rest]))


def _bytes(name: str, value: str) -> bytes:
    return os.fsencode(name) + b"\0" + os.fsencode(value)


def environment_copy() -> dict[str, str]:
    """Return a copy of the environment; the read is not recorded."""
    environ: Any = os.environ
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environ._data.items()}


def value_of(name: str) -> str | None:
    """Return the value of a name, None if it is not set; the read is not recorded."""
    environ: Any = os.environ
    value = environ._data.get(environ.encodekey(name))
    return None if value is None else os.fsdecode(value)


def set_variable(name: str, value: str | None) -> None:
    """Set a variable of the environment; None removes it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the nearest frame outside the modules that only pass on a read."""
    while frame is not None and frame.f_globals.get("__name__") in _PASSING:
        frame = frame.f_back
    return frame


def counts_here(frame: FrameType | None) -> bool:
    """Return True if a read from this frame counts: its module counts, and no installed package is being imported."""
    frame = _caller(frame)
    if frame is None:
        return True
    if (
        frame.f_globals.get("__name__", "").partition(".")[0] in _MACHINERY
        or frame.f_code.co_name == "get_terminal_size"
    ):
        return False
    imported = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name in {"importlib._bootstrap", "_frozen_importlib"} or frame.f_code.co_filename.startswith(
            "<frozen importlib"
        ):
            return not _installed(imported.f_code.co_filename)
        if name == "stepwell.kernel_runtime.execution.in_process":
            return True
        if name == "IPython.core.formatters":
            return False
        imported = frame
        frame = frame.f_back
    return True


def _copies_for_child(frame: FrameType | None, name: str = "") -> bool:
    """Return True if a package copies the environment, or one variable, for a process that the package is about to start.

    Reads of the package's own settings (``JOBLIB_MULTIPROCESSING``) count as usual.
    """
    frame = _caller(frame)
    package = "" if frame is None else str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package in _STARTERS and not name.startswith(package.upper())


def _installed(filename: str) -> bool:
    return filename.startswith((*EXCLUDED, "<frozen")) or f"{os.sep}site-packages{os.sep}" in filename


def _no_reader() -> Reader | None:
    return None


_active: Callable[[], Reader | None] = _no_reader


def note_name(name: str, value: str | None) -> None:
    """Report to the active reader that an environment variable was read by other means than ``os.environ``."""
    reader = _active()
    if reader is not None and not reader.knows_name(name):
        reader.name_read(name, value)


def watch_environment(active: Callable[[], Reader | None]) -> None:
    """Wrap the methods of ``os.environ``, so that they report to the active reader.

    Parameters
    ----------
    active
        Returns the active reader; None while no step runs.
    """
    global _active  # noqa: PLW0603 - a process has one environment, and one active reader
    _active = active
    kind: Any = type(os.environ)
    get, begin, put, drop, show = kind.__getitem__, kind.__iter__, kind.__setitem__, kind.__delitem__, kind.__repr__

    @wraps(get)
    def getitem(self: Any, key: Any) -> Any:
        reader = active()
        if reader is None:
            return get(self, key)
        name = os.fsdecode(key) if isinstance(key, (str, bytes)) else ""
        if (
            name
            and not reader.knows_name(name)
            and counts_here(frame := sys._getframe(1))
            and not _copies_for_child(frame, name)
        ):
            reader.name_read(name, value_of(name))
        return get(self, key)

    def record_all() -> None:
        reader = active()
        if reader is not None and not _copies_for_child(sys._getframe(2)) and counts_here(sys._getframe(2)):
            reader.environment_read(environment_copy())

    @wraps(begin)
    def iterate(self: Any) -> Iterator[Any]:
        record_all()
        names: Iterator[Any] = begin(self)
        return names

    @wraps(show)
    def shown(self: Any) -> str:
        record_all()
        return str(show(self))

    @wraps(put)
    def setitem(self: Any, key: Any, value: Any) -> None:
        put(self, key, value)
        reader = active()
        if reader is not None:
            reader.name_set(os.fsdecode(key))

    @wraps(drop)
    def delitem(self: Any, key: Any) -> None:
        drop(self, key)
        reader = active()
        if reader is not None:
            reader.name_set(os.fsdecode(key))

    kind.__getitem__, kind.__iter__, kind.__setitem__, kind.__delitem__, kind.__repr__ = (
        getitem,
        iterate,
        setitem,
        delitem,
        shown,
    )

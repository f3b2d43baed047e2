# ruff: noqa: SLF001 - the data of os.environ are read unrecorded, and frames show the caller
"""The environment: which reads of environment variables are recorded, and digests that do not reveal the values.

The class of ``os.environ`` is written in Python, so its methods can be wrapped; this is done once per process. Reads of environment variables
by code of the user or of an installed package are recorded, except:

- reads by the packages of Python, Jupyter and Stepwell in `_MACHINERY`, for example for imports, temporary folders or proxies, and reads by
  `shutil.get_terminal_size`;
- reads by a library while IPython formats a value for display;
- reads by an installed package while it is imported, because in another process, it may be imported before the step runs;
- reads by a package that copies variables for a process that it starts.

A read of all variables (a copy of the environment, an iteration over it) is recorded as one read. The digest of this read does not cover
variables that differ between sessions without a change by the user: those of the shell, the terminal, Jupyter and Stepwell. A child process
inherits the environment without a recorded read.
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
"""A function that digests bytes with a secret key, usually the user's."""

_PASSING = frozenset({
    "os", "_collections_abc", "collections.abc", "posixpath", "ntpath", "genericpath", "pathlib", "pathlib._local", "pathlib._abc",
})  # fmt: skip
"""Modules that read the environment for their callers. Whether such a read is recorded depends on the module of the caller."""
_MACHINERY = frozenset({
    "importlib", "_frozen_importlib", "zipimport", "IPython", "ipykernel", "jupyter_client", "traitlets", "zmq", "tornado", "comm", "stepwell",
    "pytest", "_pytest", "tempfile", "subprocess", "asyncio", "multiprocessing", "concurrent", "threading", "warnings", "linecache", "site", "sysconfig",
    "urllib", "ssl",
})  # fmt: skip
"""Packages of Python, Jupyter, Stepwell and pytest whose reads are not recorded."""
_STARTERS = frozenset({
    "joblib", "loky", "multiprocess", "billiard", "dask", "distributed", "ray", "mpi4py", "pexpect", "ptyprocess", "sh", "plumbum", "invoke", "git",
})  # fmt: skip
"""Packages that copy all environment variables for the processes that they start."""
_SESSION = frozenset({
    "_", "PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "TERM", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID",
    "WINDOWID", "DISPLAY", "PAGER", "GIT_PAGER", "LESS", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "NO_COLOR", "LS_COLORS", "PS1", "PS2",
    "STY", "TMUX", "TMUX_PANE", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "INVOCATION_ID",
    "JOURNAL_STREAM", "MPLBACKEND", "PYDEVD_USE_FRAME_EVAL", "DBUS_SESSION_BUS_ADDRESS", "GPG_AGENT_INFO",
})  # fmt: skip
_SESSION_PREFIXES = ("JPY_", "JUPYTER", "STEPWELL_", "VSCODE_", "XDG_SESSION_", "IPYTHON", "PYTEST_", "KERNEL_")
_process_key = os.urandom(32)


class Reader(Protocol):
    """Records how a step uses environment variables."""

    def name_read(self, name: str, value: str | None) -> None:
        """Record that the step read the variable `name`; `value` is None if the variable is not set."""

    def knows_name(self, name: str) -> bool:
        """Return True if a read of the variable `name` need not be recorded, for example because it is recorded already."""

    def environment_read(self, environment: dict[str, str]) -> None:
        """Record that the step read all environment variables, which had the names and values in `environment`."""

    def name_set(self, name: str) -> None:
        """Record that the step set or removed the variable `name`."""


def of_session(name: str) -> bool:
    """Return True for an environment variable that differs between sessions without a change by the user, such as ``TERM``."""
    return name in _SESSION or name.startswith(_SESSION_PREFIXES)


def process_keyed(data: bytes) -> str:
    """Return a digest of `data` that is made with a random key of this process, so that digests of different processes cannot be compared."""
    return hmac.digest(_process_key, data, "sha256").hex()[:32]


def name_digest(name: str, value: str | None, keyed: Keyed) -> str:
    """Return the keyed digest of the value of the environment variable `name`; empty if the value is None (not set)."""
    return "" if value is None else keyed(_bytes(name, value))


def all_digest(environment: dict[str, str], keyed: Keyed, without: Collection[str] = ()) -> str:
    """Return the keyed digest of all variables in `environment`, except those for which `of_session` is True and those in `without`."""
    rest = sorted((name, value) for name, value in environment.items() if name not in without and not of_session(name))
    return keyed(b"\0\0".join([_bytes(name, value) for name, value in rest]))


def _bytes(name: str, value: str) -> bytes:
    return os.fsencode(name) + b"\0" + os.fsencode(value)


def environment_copy() -> dict[str, str]:
    """Return all environment variables. This read is not recorded."""
    environ: Any = os.environ
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environ._data.items()}


def value_of(name: str) -> str | None:
    """Return the value of an environment variable; None if it is not set. This read is not recorded."""
    environ: Any = os.environ
    value = environ._data.get(environ.encodekey(name))
    return None if value is None else os.fsdecode(value)


def set_variable(name: str, value: str | None) -> None:
    """Set an environment variable, or remove it if `value` is None."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the first frame whose module is not in `_PASSING`: `frame` or one of its callers; None if there is none.

    The modules in `_PASSING`, such as ``os``, read the environment for their callers. So the code in the returned frame causes the read.
    """
    while frame is not None and frame.f_globals.get("__name__") in _PASSING:
        frame = frame.f_back
    return frame


def counts_here(frame: FrameType | None) -> bool:
    """Return True if a read of an environment variable or file by the code in `frame` is recorded.

    The module's docstring lists the reads that are not recorded. This function does not check the last rule of the list, for packages that start
    processes: see `_copies_for_child`.

    Parameters
    ----------
    frame
        The frame of the code that reads. For None, the result is True.
    """
    frame = _caller(frame)
    if frame is None:
        return True
    if frame.f_globals.get("__name__", "").partition(".")[0] in _MACHINERY or frame.f_code.co_name == "get_terminal_size":
        return False
    imported = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name in {"importlib._bootstrap", "_frozen_importlib"} or frame.f_code.co_filename.startswith("<frozen importlib"):
            return not _installed(imported.f_code.co_filename)
        if name == "stepwell.kernel_runtime.execution.in_process":
            return True
        if name == "IPython.core.formatters":
            return False
        imported = frame
        frame = frame.f_back
    return True


def _copies_for_child(frame: FrameType | None, name: str = "") -> bool:
    """Return True if the code in `frame` belongs to a package that copies the environment variables to the processes that it starts.

    The result is False if the package reads one of its own settings; for example, joblib reads ``JOBLIB_MULTIPROCESSING`` for itself.

    Parameters
    ----------
    frame
        The frame of the code that reads. For None, the result is False.
    name
        The variable that the package reads; empty if it reads all variables.
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
    """Record that the running step read the environment variable `name`; do nothing if no step runs.

    `stepwell.secret` calls this function if ``counts`` is True, because it reads the variable with `value_of`, which records nothing.

    Parameters
    ----------
    value
        The value of the variable; None if it is not set.
    """
    reader = _active()
    if reader is not None and not reader.knows_name(name):
        reader.name_read(name, value)


def watch_environment(active: Callable[[], Reader | None]) -> None:
    """Wrap the methods of ``os.environ``, so that they report reads and changes to the `Reader` of the running step.

    Parameters
    ----------
    active
        Returns the `Reader` of the running step; None while no step runs.
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
        if name and not reader.knows_name(name) and counts_here(frame := sys._getframe(1)) and not _copies_for_child(frame, name):
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

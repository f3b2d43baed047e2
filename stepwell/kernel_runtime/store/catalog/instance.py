"""The process's DuckDB instance: in memory, made once, and warm from then on.

Starting an instance costs 20 to 80 ms, attaching a file to a warm one about one. So one lives as long as the process, and every
store's catalog is attached to it. It can be started ahead of time, in a thread, while something else is done; the process then
neither ends nor forks beneath it. In a forked child it is left to the parent and never destroyed: its threads do not exist there,
and its destructor would write a checkpoint.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from _thread import start_new_thread
from typing import Any, TypeAlias

from stepwell.kernel_runtime.store.once import Once

Connection: TypeAlias = Any  # duckdb.DuckDBPyConnection; importing it here would start no instance, but costs 50 ms

_instance: Connection | None = None
_instance_lock = threading.Lock()
_held: list[threading.Lock] = []
_warming: list[Once] = []
"""What happens when the instance that `warm_up` began is there; once per process."""


def cursor() -> Connection:
    """Return an own connection to the process's warm instance."""
    global _instance  # noqa: PLW0603 - one instance per process is the point
    with _instance_lock:
        if _instance is None:
            import duckdb

            _instance = duckdb.connect(
                ":memory:",
                config={
                    # Questions are small: handing pieces of them to another thread costs more than it saves.
                    "threads": 1,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                    "python_enable_replacements": False,
                },
            )
        return _instance.cursor()


def warm_up() -> None:
    """Begin to start the process's instance, in a thread of its own; whoever needs it meanwhile waits for it."""
    if _instance is None and not _warming:
        made = Once()
        _warming.append(made)
        start_new_thread(_start, (made,))


def _start(made: Once) -> None:
    try:
        # Whoever needs the instance meets the same error, and tells it.
        with contextlib.suppress(Exception):
            cursor().close()
    finally:
        made.happen()


def _hold() -> None:
    """Let no instance be in the making while the process is forked."""
    _held.append(_instance_lock)
    _instance_lock.acquire()


def _let() -> None:
    while _held:
        _held.pop().release()


def _settle() -> None:
    """Wait for an instance that is in the making: the process must not end beneath it."""
    for made in _warming:
        made.wait()


def _let_in_child() -> None:
    _let()
    # Its thread is the parent's.
    _warming.clear()


def abandon_instance() -> None:
    """Leave the instance to the parent, in a forked child.

    Its threads do not exist here, and its destructor would write a checkpoint: it must never run.
    """
    global _instance, _instance_lock  # noqa: PLW0603 - as above
    _instance_lock = threading.Lock()
    if _instance is not None:
        leak(_instance)
        _instance = None


def leak(connection: Connection) -> None:
    """Keep a connection from ever being destroyed."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let, after_in_child=_let_in_child)
atexit.register(_settle)

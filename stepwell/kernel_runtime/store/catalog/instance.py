"""The process's DuckDB instance: in memory, made once, and warm from then on; and what happens to the catalogs when the process forks or ends.

Starting an instance costs 20 to 80 ms, attaching a file to a warm one about one. So one lives as long as the process, and every
store's catalog is attached to it. It can be started ahead of time, in a thread, while something else is done; the process then
neither ends nor forks beneath it. In a forked child it is left to the parent and never destroyed: its threads do not exist there,
and its destructor would write a checkpoint.

A question to DuckDB's own tables (``duckdb_views()`` and the like) looks through *every* attached file, also those of other stores, and DETACH
of a file that is just looked at returns without checkpoint and keeps the file open. So the two exclude each other: `alone`.

A commit that neither fails nor succeeds, because the disk refuses to take it back too, makes DuckDB refuse every statement of the whole instance from
then on. Such an instance is given up and another one is started: `give_up_if_dead`. It is destroyed, without a checkpoint, and so lets its files
go, when the last connection to it is closed: all are, those of other threads too, which ask again. A store that has nothing attached holds none.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from _thread import interrupt_main, start_new_thread
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.store.locks import Once

Connection: TypeAlias = Any  # duckdb.DuckDBPyConnection; importing it here would start no instance, but costs 50 ms

_instance: Connection | None = None
_instance_lock = threading.Lock()
_cursors: weakref.WeakSet[Connection] = weakref.WeakSet()
"""The connections to it."""
_PATIENCE = 2.0
"""Seconds that the end of a dead instance waits for what is executed by its connections."""
_attached = threading.RLock()
"""Held by `alone`."""
_held: list[threading.Lock] = []
_endings: list[Callable[[], None]] = []
_warming: list[Once] = []
"""What happens when the instance that `warm_up` began is there; once per process."""


def cursor() -> Connection:
    """Return an own connection to the process's warm instance."""
    global _instance  # noqa: PLW0603 - one instance per process is the point
    with _instance_lock:
        if _instance is None:
            import duckdb

            # DuckDB stops what runs as the process ends, and what was registered last comes first: so after it was imported.
            atexit.unregister(_end)
            atexit.register(_end)
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
        connection = _instance.cursor()
        _cursors.add(connection)
        return connection


def give_up_if_dead() -> None:
    """Forget the process's instance if a fatal error has made it useless."""
    global _instance
    with _instance_lock:
        if _instance is None:
            return
        import duckdb

        try:
            _instance.execute("SELECT 1")
        except duckdb.Error:
            dead, _instance = _instance, None
            # It keeps its files as long as there is a connection to it, and one that is being used cannot be closed.
            patience = time.monotonic() + _PATIENCE
            for connection in [*_cursors, dead]:
                while time.monotonic() < patience and not _is_closed(connection):
                    time.sleep(0.001)


def _is_closed(connection: Connection) -> bool:
    """Close a connection; return False if it is still being used."""
    import duckdb

    try:
        connection.interrupt()
        connection.close()
    except duckdb.ConnectionException:
        # It is closed.
        return True
    except duckdb.Error:
        return False
    return True


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep every other thread from looking through the attached files, and from detaching one."""
    with _attached:
        yield


def at_end(ending: Callable[[], None], *, last: bool = False) -> None:
    """Call a function as the process ends, while DuckDB still works: the one that was given last comes first.

    Parameters
    ----------
    last
        Whether it comes after all others instead.
    """
    _endings.insert(0 if last else len(_endings), ending)


def _end() -> None:
    for ending in reversed(_endings):
        ending()


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
    global _instance, _instance_lock, _attached, _cursors  # noqa: PLW0603 - as above
    _cursors = weakref.WeakSet()
    _instance_lock = threading.Lock()
    _attached = threading.RLock()
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


class Forking(Protocol):
    """What is asked of a catalog here."""

    def pause(self) -> None:
        """Let the catalog go, and keep it so until `resume`: before a fork."""

    def resume(self) -> None:
        """Go on after a fork, in the parent."""

    def abandon(self) -> None:
        """Start anew in a forked child."""

    def close(self) -> None:
        """Commit what is pending and let the catalog go."""


catalogs: weakref.WeakSet[Forking] = weakref.WeakSet()
"""Those of this process."""
_paused: list[Forking] = []
_interrupted = Once()


def _before_fork() -> None:
    global _interrupted  # noqa: PLW0603 - of this fork
    _interrupted = Once()
    _paused[:] = list(catalogs)
    for catalog in _paused:
        while True:
            try:
                catalog.pause()
            except KeyboardInterrupt:
                # Here it would be printed and forgotten, and the fork go on without the pause.
                _interrupted.happen()
            else:
                break


def _after_fork_in_parent() -> None:
    for catalog in _paused:
        catalog.resume()
    _paused.clear()
    if _interrupted.over:
        # From another thread: in here, too, it would be printed and forgotten.
        start_new_thread(interrupt_main, ())


def _after_fork_in_child() -> None:
    abandon_instance()
    for catalog in _paused:
        catalog.abandon()
    _paused.clear()


_exiting = False


def check_going_on() -> None:
    """Keep work away from a process that ends: Python ends threads inside DuckDB's code then, which aborts the process."""
    if not _exiting:
        return
    if threading.current_thread() is threading.main_thread():
        raise StoreError("the store is closed: this process is ending", remedy="record what matters before")
    # A daemon thread: it ends with the process.
    Once().wait()


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603 - of this process
    _exiting = True
    for catalog in list(catalogs):
        catalog.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
at_end(_at_exit)

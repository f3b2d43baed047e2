"""The DuckDB instance of the process, in memory and warm; and the handling of catalogs when the process forks or ends.

Starting an instance takes 20 to 80 ms; attaching a file to a warm one takes about 1 ms. So one instance lives as long as the process, and
the catalog of every store is attached to it. `warm_up` starts it early in a second thread; the process waits for it before it forks or
ends. A forked child leaves the instance to its parent and never destroys it: the threads of the instance do not exist in the child, and
its destructor would write a checkpoint.

A query of DuckDB's system tables (``duckdb_views()`` and the like) visits *every* attached file, also those of other stores. If a file is
visited at that moment, DETACH returns without a checkpoint and keeps the file open. So these statements exclude each other: `alone`.

If a commit fails and the disk also refuses to roll it back, DuckDB refuses every later statement of the instance. Such an instance is
abandoned and another one is started (`give_up_if_dead`). It closes its files, without a checkpoint, when the last connection to it is
closed. So all connections are closed, also those of other threads, which then try again. A store with nothing attached has no connection.
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

Connection: TypeAlias = Any  # duckdb.DuckDBPyConnection; importing duckdb here would cost 50 ms

_instance: Connection | None = None
_instance_lock = threading.Lock()
_cursors: weakref.WeakSet[Connection] = weakref.WeakSet()
"""The connections to the instance."""
_PATIENCE = 2.0
"""Seconds for which a dead instance waits for the statements of its connections."""
_attached = threading.RLock()
"""The lock of `alone`."""
_held: list[threading.Lock] = []
_endings: list[Callable[[], None]] = []
_warming: list[Once] = []
"""Empty, or one event that happens when the instance of `warm_up` has started."""


def cursor() -> Connection:
    """Return a new connection to the instance of the process; start the instance if necessary."""
    global _instance  # noqa: PLW0603 - one instance per process is the point
    with _instance_lock:
        if _instance is None:
            import duckdb

            # DuckDB stops its work at exit. Functions registered last run first, so ours is registered after the import.
            atexit.unregister(_end)
            atexit.register(_end)
            _instance = duckdb.connect(
                ":memory:",
                config={
                    # Queries are small: passing parts of them to another thread costs more than it saves.
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
    """Close all connections and forget the instance if a fatal error has made it unusable."""
    global _instance
    with _instance_lock:
        if _instance is None:
            return
        import duckdb

        try:
            _instance.execute("SELECT 1")
        except duckdb.Error:
            dead, _instance = _instance, None
            # It keeps its files open as long as it has a connection, and a connection in use cannot be closed.
            patience = time.monotonic() + _PATIENCE
            for connection in [*_cursors, dead]:
                while time.monotonic() < patience and not _is_closed(connection):
                    time.sleep(0.001)


def _is_closed(connection: Connection) -> bool:
    """Close a connection; return False if it is still in use."""
    import duckdb

    try:
        connection.interrupt()
        connection.close()
    except duckdb.ConnectionException:
        # It was closed already.
        return True
    except duckdb.Error:
        return False
    return True


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep every other thread from querying system tables and from detaching a file."""
    with _attached:
        yield


def at_end(ending: Callable[[], None], *, last: bool = False) -> None:
    """Call a function when the process ends, while DuckDB still works; functions registered last are called first.

    Parameters
    ----------
    ending
        The function.
    last
        True to call it after all others.
    """
    _endings.insert(0 if last else len(_endings), ending)


def _end() -> None:
    for ending in reversed(_endings):
        ending()


def warm_up() -> None:
    """Start the instance of the process in a second thread. A thread that needs it meanwhile waits for it."""
    if _instance is None and not _warming:
        started = Once()
        _warming.append(started)
        start_new_thread(_start, (started,))


def _start(started: Once) -> None:
    try:
        # The thread that needs the instance gets the same error, and reports it.
        with contextlib.suppress(Exception):
            cursor().close()
    finally:
        started.happen()


def _before_fork_lock() -> None:
    """Before a fork: wait until no instance is being started, and keep others from starting one."""
    _held.append(_instance_lock)
    _instance_lock.acquire()


def _unlock_after_fork() -> None:
    while _held:
        _held.pop().release()


def _wait_for_warm_up() -> None:
    """At exit: wait for an instance that is being started."""
    for started in _warming:
        started.wait()


def _unlock_in_child() -> None:
    _unlock_after_fork()
    # The thread that starts the instance exists in the parent only.
    _warming.clear()


def abandon_instance() -> None:
    """In a forked child, leave the instance to the parent.

    Its threads do not exist in the child, and its destructor must never run, because it would write a checkpoint.
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
    os.register_at_fork(before=_before_fork_lock, after_in_parent=_unlock_after_fork, after_in_child=_unlock_in_child)
atexit.register(_wait_for_warm_up)


class Forking(Protocol):
    """The methods of a catalog that are called at a fork and at exit."""

    def pause(self) -> None:
        """Before a fork: detach the catalog until `resume`."""

    def resume(self) -> None:
        """After a fork, in the parent: continue."""

    def abandon(self) -> None:
        """After a fork, in the child: forget the catalog's state."""

    def close(self) -> None:
        """Commit pending records and detach the catalog."""


catalogs: weakref.WeakSet[Forking] = weakref.WeakSet()
"""The catalogs of this process."""
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
                # An exception raised here is printed and dropped, and the fork would continue without the pause.
                _interrupted.happen()
            else:
                break


def _after_fork_in_parent() -> None:
    for catalog in _paused:
        catalog.resume()
    _paused.clear()
    if _interrupted.over:
        # Raised from another thread, because an exception raised here would be printed and dropped, too.
        start_new_thread(interrupt_main, ())


def _after_fork_in_child() -> None:
    abandon_instance()
    for catalog in _paused:
        catalog.abandon()
    _paused.clear()


_exiting = False


def check_going_on() -> None:
    """Refuse new work while the process ends: Python ends threads inside DuckDB's code then, which aborts the process.

    Raises
    ------
    StoreError
        In the main thread. Another thread never returns from this call.
    """
    if not _exiting:
        return
    if threading.current_thread() is threading.main_thread():
        raise StoreError(
            "the store is closed: this process is ending", remedy="use the store before the exit handlers run"
        )
    # A daemon thread ends with the process.
    Once().wait()


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603 - of this process
    _exiting = True
    for catalog in list(catalogs):
        catalog.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
at_end(_at_exit)

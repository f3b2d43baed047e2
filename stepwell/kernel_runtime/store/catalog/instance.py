"""The in-memory DuckDB instance of the process, and the handling of catalogs when the process forks or ends.

Starting an instance takes 20 to 80 ms; attaching a file to a running instance takes about 1 ms. So one instance lives as long as the
process, and the catalog of every store is attached to it. `warm_up` starts the instance early in a second thread; the process waits for
this thread before it forks or ends. A forked child abandons the instance without destroying it, because the instance's threads do not
exist in the child, and its destructor would write a checkpoint.

A query of DuckDB's system tables (such as ``duckdb_views()``) visits *every* attached file, including those of other stores. If DETACH
runs during such a query, it returns without a checkpoint and keeps the file open. So `exclusive_access` makes these statements exclude each other.

If a commit fails and the rollback fails, too (on a full disk, for example), DuckDB refuses every later statement of the instance.
`give_up_if_dead` abandons such an instance, and another one is started. An instance closes its files, without a checkpoint, only when its
last connection is closed. So all connections are closed, including those of other threads, which then try again.
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
"""The lock of `exclusive_access`."""
_locks_held: list[threading.Lock] = []
_endings: list[Callable[[], None]] = []
_warming: list[Once] = []
"""The event that happens when the instance of `warm_up` has started; empty if `warm_up` was not called."""


def cursor() -> Connection:
    """Return a new connection to the instance of the process; start the instance if necessary."""
    global _instance  # noqa: PLW0603 - one instance per process is the point
    with _instance_lock:
        if _instance is None:
            import duckdb

            # DuckDB stops working in its exit handler. Handlers run in reverse order, so `_end` is registered after the import.
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
            # The instance keeps its files open while it has a connection, and a connection in use cannot be closed.
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
        # The connection was already closed.
        return True
    except duckdb.Error:
        return False
    return True


@contextlib.contextmanager
def exclusive_access() -> Iterator[None]:
    """Keep every other thread from querying system tables and from detaching a file."""
    with _attached:
        yield


def at_end(ending: Callable[[], None], *, last: bool = False) -> None:
    """Register a function to be called at exit, while DuckDB still works. Functions are called in reverse order of registration.

    Parameters
    ----------
    ending
        The function.
    last
        True to call the function after all others.
    """
    _endings.insert(0 if last else len(_endings), ending)


def _end() -> None:
    for ending in reversed(_endings):
        ending()


def warm_up() -> None:
    """Start the instance of the process in a second thread. Threads that need the instance wait until it has started."""
    if _instance is None and not _warming:
        started = Once()
        _warming.append(started)
        start_new_thread(_start, (started,))


def _start(started: Once) -> None:
    try:
        # The next call of `cursor` raises the same error where it can be reported.
        with contextlib.suppress(Exception):
            cursor().close()
    finally:
        started.happen()


def _before_fork_lock() -> None:
    """Before a fork, wait until no instance is being started, and keep other threads from starting one."""
    _locks_held.append(_instance_lock)
    _instance_lock.acquire()


def _unlock_after_fork() -> None:
    while _locks_held:
        _locks_held.pop().release()


def _wait_for_warm_up() -> None:
    """At exit, wait for an instance that is being started."""
    for started in _warming:
        started.wait()


def _unlock_in_child() -> None:
    _unlock_after_fork()
    # The thread that starts the instance exists only in the parent.
    _warming.clear()


def abandon_instance() -> None:
    """In a forked child, forget the parent's instance without destroying it.

    The instance's threads do not exist in the child, and its destructor must never run, because it would write a checkpoint.
    """
    global _instance, _instance_lock, _attached, _cursors  # noqa: PLW0603 - as above
    _cursors = weakref.WeakSet()
    _instance_lock = threading.Lock()
    _attached = threading.RLock()
    if _instance is not None:
        leak(_instance)
        _instance = None


def leak(connection: Connection) -> None:
    """Prevent a connection from ever being destroyed."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork_lock, after_in_parent=_unlock_after_fork, after_in_child=_unlock_in_child)
atexit.register(_wait_for_warm_up)


class Forking(Protocol):
    """The methods of a catalog that are called at a fork and at exit."""

    def pause(self) -> None:
        """Detach the catalog until `resume`; called before a fork."""

    def resume(self) -> None:
        """Continue in the parent after a fork."""

    def abandon(self) -> None:
        """Forget the catalog's state in a forked child."""

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
                # Python would print and drop an exception raised here, and fork although the catalog was not paused.
                _interrupted.happen()
            else:
                break


def _after_fork_in_parent() -> None:
    for catalog in _paused:
        catalog.resume()
    _paused.clear()
    if _interrupted.is_over:
        # Another thread sends the interrupt, because Python would print and drop an exception raised here.
        start_new_thread(interrupt_main, ())


def _after_fork_in_child() -> None:
    abandon_instance()
    for catalog in _paused:
        catalog.abandon()
    _paused.clear()


_exiting = False


def check_going_on() -> None:
    """Refuse new work while the process ends, because Python would then end threads inside DuckDB's code, which aborts the process.

    Raises
    ------
    StoreError
        If the process is ending and this is the main thread. Any other thread never returns from this call.
    """
    if not _exiting:
        return
    if threading.current_thread() is threading.main_thread():
        raise StoreError(
            "the store is closed: this process is ending", remedy="use the store before the exit handlers run"
        )
    # Wait until the process ends, which ends this thread.
    Once().wait()


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603 - of this process
    _exiting = True
    for catalog in list(catalogs):
        catalog.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
at_end(_at_exit)

"""The in-memory DuckDB instance of the process, and what happens to it and to attached catalogs when the process forks or ends.

Starting an instance takes 20 to 80 ms; attaching a file to a running instance takes about 1 ms. So one instance lives as long as the process,
and the catalog of every store is attached to it. `warm_up` starts the instance early, in a second thread. If the process forks while this
thread is starting the instance, the fork waits until the instance is started. The end of the process waits until this thread no longer uses
DuckDB. A forked child abandons the instance without destroying it, because the threads of the instance do not exist in the child, and the
destructor of the instance would write a checkpoint.

A query of a system table of DuckDB (``duckdb_views()``, for example) visits *every* attached file, including those of other stores. A DETACH
that runs during such a query would return without a checkpoint and keep the file open. So every such query and every DETACH runs inside
`exclusive_access`, and no two of them run at the same time.

If a commit fails, and the rollback fails, too (on a full disk, for example), the instance is *dead*: DuckDB refuses every later statement.
`give_up_if_dead` abandons a dead instance, and the next call of `cursor` starts another one. A dead instance writes no checkpoint, and
closes its files only when its last connection is closed. So all connections are closed, even those of other threads, and the statements that
other threads are executing fail. If such a statement belongs to a question to a catalog (see `thread`), the question is asked again.
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
"""All connections to the instance."""
_PATIENCE = 2.0
"""Maximum time in seconds for which `give_up_if_dead` waits until running statements end and their connections can be closed."""
_attached = threading.RLock()
"""The lock of `exclusive_access`."""
_locks_held: list[threading.Lock] = []
"""The locks that the forking thread holds during a fork."""
_endings: list[Callable[[], None]] = []
"""The functions that `at_end` has registered; they are called in reverse order."""
_warming: list[Once] = []
"""Empty until `warm_up` starts its thread; then contains one event, which happens when this thread no longer uses DuckDB."""


def cursor() -> Connection:
    """Return a new connection to the DuckDB instance of the process; start the instance if there is none."""
    global _instance  # noqa: PLW0603 - one instance per process is the point
    with _instance_lock:
        if _instance is None:
            import duckdb

            # The exit handler of DuckDB stops DuckDB. Exit handlers run in reverse order, so `_end` is registered after the import of DuckDB.
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
    """If a fatal error has made the DuckDB instance unusable, close all its connections and forget it; otherwise do nothing."""
    global _instance
    with _instance_lock:
        if _instance is None:
            return
        import duckdb

        try:
            _instance.execute("SELECT 1")
        except duckdb.Error:
            dead, _instance = _instance, None
            # The instance keeps its files open as long as it has a connection, and a connection that executes a statement cannot be closed.
            patience = time.monotonic() + _PATIENCE
            for connection in [*_cursors, dead]:
                while time.monotonic() < patience and not _is_closed(connection):
                    time.sleep(0.001)


def _is_closed(connection: Connection) -> bool:
    """Interrupt and close a connection; return True if it is closed now, False if it still executes a statement."""
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
    """Wait until no other thread is inside a ``with`` block of `exclusive_access`, and keep other threads out during this block.

    Every query of DuckDB's system tables and every DETACH must be in such a block.
    """
    with _attached:
        yield


def at_end(ending: Callable[[], None], *, last: bool = False) -> None:
    """Register a function to be called when the process exits, before DuckDB's own exit handler makes DuckDB unusable.

    The registered functions are called in the reverse order of their registration.

    Parameters
    ----------
    ending
        The function, which is called without arguments.
    last
        True to call the function after all other registered functions.
    """
    _endings.insert(0 if last else len(_endings), ending)


def _end() -> None:
    for ending in reversed(_endings):
        ending()


def warm_up() -> None:
    """Start the DuckDB instance of the process in a second thread, unless it is running or being started.

    A thread that needs the instance earlier waits until it is running.
    """
    if _instance is None and not _warming:
        started = Once()
        _warming.append(started)
        start_new_thread(_start, (started,))


def _start(started: Once) -> None:
    try:
        # If this fails, the next call of `cursor` fails with the same error, which can be reported then.
        with contextlib.suppress(Exception):
            # If the process ended while a connection is being destroyed, the process would abort. The end of the process waits only until `started`
            # happens (`_wait_for_warm_up`), so no variable may keep this connection longer.
            cursor().close()
    finally:
        started.happen()


def _before_fork_lock() -> None:
    """Before a fork, wait until no other thread is starting an instance, and keep other threads from starting one until the fork is over."""
    _locks_held.append(_instance_lock)
    _instance_lock.acquire()


def _unlock_after_fork() -> None:
    while _locks_held:
        _locks_held.pop().release()


def _wait_for_warm_up() -> None:
    """When the process exits, wait until the thread of `warm_up` no longer uses DuckDB."""
    for started in _warming:
        started.wait()


def _unlock_in_child() -> None:
    _unlock_after_fork()
    # The thread that starts the instance exists only in the parent.
    _warming.clear()


def abandon_instance() -> None:
    """In a forked child, forget the parent's DuckDB instance without destroying it.

    The threads of the instance do not exist in the child. The destructor of the instance must never run in the child, because it would write
    a checkpoint.
    """
    global _instance, _instance_lock, _attached, _cursors  # noqa: PLW0603 - one instance per process is the point
    _cursors = weakref.WeakSet()
    _instance_lock = threading.Lock()
    _attached = threading.RLock()
    if _instance is not None:
        leak(_instance)
        _instance = None


def leak(connection: Connection) -> None:
    """Prevent the destruction of a connection, even when the process ends."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork_lock, after_in_parent=_unlock_after_fork, after_in_child=_unlock_in_child)
atexit.register(_wait_for_warm_up)


class Forking(Protocol):
    """The methods of a catalog that are called when the process forks or exits."""

    def pause(self) -> None:
        """Detach the catalog until `resume` is called. Called before a fork."""

    def resume(self) -> None:
        """Let the catalog be used again. Called in the parent after a fork."""

    def abandon(self) -> None:
        """Forget the state of the catalog, which belongs to the parent. Called in the child after a fork."""

    def close(self) -> None:
        """Commit pending records and detach the catalog. Called at exit."""


catalogs: weakref.WeakSet[Forking] = weakref.WeakSet()
"""The catalogs of this process; each `Catalog` adds itself."""
_paused: list[Forking] = []
"""The catalogs that were paused for the fork in progress."""
_interrupted = Once()
"""Happens if an interrupt (Ctrl-C) arrives during the fork in progress."""


def _before_fork() -> None:
    global _interrupted  # noqa: PLW0603 - one event for each fork
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
    """Prevent the caller from beginning new work for the catalog while the process ends; otherwise do nothing.

    While the process ends, a call on the main thread raises an error, and a call on any other thread blocks until the process has ended.
    Otherwise, Python would end a thread that is inside DuckDB's code, and this would abort the process.

    Raises
    ------
    StoreError
        If the process is ending, and this is the main thread.
    """
    if not _exiting:
        return
    if threading.current_thread() is threading.main_thread():
        raise StoreError(
            "the store can no longer be used, because this process is ending",
            remedy="use the store before the exit handlers of Python (atexit) run",
        )
    # Nothing makes this event happen: the thread waits until the process has ended.
    Once().wait()


def _at_exit() -> None:
    global _exiting  # noqa: PLW0603 - one flag per process
    _exiting = True
    for catalog in list(catalogs):
        catalog.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
at_end(_at_exit)

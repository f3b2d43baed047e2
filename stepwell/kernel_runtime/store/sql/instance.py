"""The DuckDB instance that runs SELECTs. It can access only registered tables, and its configuration is locked.

The instance is in memory and separate from the instance of the catalog. It cannot access Python variables, files or DuckDB extensions, and no
statement can change this configuration. When memory is short, DuckDB writes temporary data to a folder below the store's ``tmp``. All SELECTs
over the values of one store share an instance. Each SELECT has a separate connection, on which its tables are registered, so no other SELECT can
read these tables. A SELECT that reads files gets a private instance, which can open only these files.
"""

from __future__ import annotations

import atexit
import os
import threading
from _thread import start_new_thread
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.store.catalog.instance import Connection, leak
from stepwell.kernel_runtime.store.locks import Once
from stepwell.kernel_runtime.store.trouble import one_line

T = TypeVar("T")

_MAX_INSTANCES = 2
"""Maximum number of shared instances that stay open. Each store has its own instance. A kernel rarely uses more stores at once."""
_INTERRUPT_TRIES = 50
"""Maximum number of interrupts of a statement, one every 0.1 s. After them, `interruptible` stops waiting for the end of the statement."""

_instances: dict[str, Connection] = {}
_lock = threading.Lock()
_numbers = count(1)
_expected_store = ""


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's lock may be held by a thread that does not exist in the child
    _lock = threading.Lock()
    for instance in _instances.values():
        leak(instance)
    _instances.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def expect(store: Path) -> None:
    """Set the store directory that the next SELECTs will probably use.

    A SELECT is parsed before its store is known. Parsing needs an instance, too. If none is running, one is started for the store that was set
    here, so that the same instance can run the SELECT later.
    """
    global _expected_store  # noqa: PLW0603 - only a hint: with a wrong store, one more instance is started
    _expected_store = str(store)


def cursor(store: Path | None = None) -> Connection:
    """Return a new connection to the shared instance of a store, and start this instance if necessary. The caller must close the connection.

    Parameters
    ----------
    store
        The store directory, below which the instance writes temporary data. None for a statement that reads no tables and can use any instance.

    Raises
    ------
    StoreError
        If DuckDB cannot be started.
    """
    with _lock:
        if store is None and _instances:
            return next(reversed(_instances.values())).cursor()
        name = _expected_store if store is None else str(store)
        instance = _instances.pop(name, None)
        if instance is None:
            instance = _start(name)
        # The least recently used instance is the first in the dict.
        _instances[name] = instance
        connection = instance.cursor()
        while len(_instances) > _MAX_INSTANCES:
            # DuckDB keeps the instance until its last connection is closed, so running statements can finish.
            _instances.pop(next(iter(_instances))).close()
        return connection


def private_instance(store: Path | None, files: Collection[str]) -> Connection:
    """Start an instance for one SELECT that reads files, and return a connection to it. The caller must close the connection.

    Parameters
    ----------
    store
        The store directory, below which the instance writes temporary data; None if there is no store.
    files
        The paths and patterns that the instance can open.

    Raises
    ------
    StoreError
        If DuckDB cannot be started.
    """
    return _start("" if store is None else str(store), files)


def _start(store: str, files: Collection[str] = ()) -> Connection:
    import duckdb

    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "python_scan_all_frames": False,
        "memory_limit": os.environ.get("STEPWELL_SQL_MEMORY") or "50%",
    }
    if store:
        # DuckDB creates this folder when memory is first short, and deletes it with the instance.
        config["temp_directory"] = str(Path(store) / "tmp" / f"sql-{os.getpid()}-{next(_numbers)}")
    try:
        instance = duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise StoreError(
            "DuckDB could not be started to run a SELECT",
            where=one_line(error),
            remedy="set the environment variable STEPWELL_SQL_MEMORY to a size such as 4GB"
            if "STEPWELL_SQL_MEMORY" in os.environ
            else "",
        ) from error
    # The order matters: allowed_paths cannot be set after external access is disabled, and nothing can be set after the lock.
    if files:
        named = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        instance.execute(f"SET allowed_paths = [{named}]")
    # Without this setting, dates in results would depend on the time zone of the machine.
    instance.execute("SET GLOBAL TimeZone = 'UTC'")
    instance.execute("SET enable_external_access = false")
    instance.execute("SET lock_configuration = true")
    return instance


def interruptible(connection: Connection, work: Callable[[], T]) -> T:
    """Run a function that executes a DuckDB statement, so that Ctrl-C can interrupt the statement. The function runs on a separate thread.

    Parameters
    ----------
    connection
        The connection on which the function executes a statement.
    work
        The function.

    Returns
    -------
    object
        The result of the function.

    Raises
    ------
    BaseException
        Any exception that ``work`` raised. Also an exception that ended the wait for ``work``, such as KeyboardInterrupt. Then the statement is
        interrupted first, and the exception is raised when ``work`` has ended, at the latest after 5 s.
    """
    over = Once()
    results: list[T] = []
    errors: list[BaseException] = []
    given_up = False

    def run() -> None:
        try:
            if not given_up:
                results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            over.happen()

    try:
        # The thread is started inside the try block, because Ctrl-C may arrive as soon as it runs. `locks` explains why it is not a `Thread`.
        start_new_thread(run, ())
        # A wait without a timeout could not be interrupted on every platform.
        while not over.wait(0.5):
            pass
    except BaseException:
        given_up = True
        for _ in range(_INTERRUPT_TRIES):
            # Interrupt repeatedly, because DuckDB ignores an interrupt that arrives before the statement starts.
            connection.interrupt()
            if over.wait(0.1):
                break
        raise
    if errors:
        raise errors[0]
    return results[0]


def _at_exit() -> None:
    for instance in _instances.values():
        with suppress(Exception):
            instance.close()


atexit.register(_at_exit)

"""The DuckDB instance in which SELECTs run. It can access only registered tables, and its configuration is locked.

The instance is in memory and separate from the instance of the catalog. It cannot access variables of the caller, files or extensions, and
no statement can change this configuration. When memory is short, it writes to a separate folder below the store's ``tmp``. A SELECT that
reads files gets a private instance that can open only these files. Tables are registered on a connection, so they are invisible to other
calls.
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
"""Number of instances that stay open. A kernel rarely uses more stores at once."""
_INTERRUPT_TRIES = 50
"""Number of interrupts, a tenth of a second apart, after which a statement is no longer waited for."""

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
    """Set the store that the next SELECTs probably use.

    A statement is parsed before its store is known; with this hint the parser uses the same instance.
    """
    global _expected_store  # noqa: PLW0603 - a hint: a wrong store costs one more instance
    _expected_store = str(store)


def cursor(store: Path | None = None) -> Connection:
    """Return a new connection to the shared instance of a store; the caller closes it.

    Parameters
    ----------
    store
        The store directory, below which the instance writes temporary files. None for statements without tables, as for the parser.
    """
    with _lock:
        if store is None and _instances:
            return next(reversed(_instances.values())).cursor()
        name = _expected_store if store is None else str(store)
        instance = _instances.pop(name, None)
        if instance is None:
            instance = _start(name)
        # The dict is ordered from the least to the most recently used instance.
        _instances[name] = instance
        connection = instance.cursor()
        while len(_instances) > _MAX_INSTANCES:
            # The instance exists until its last connection is closed, so running statements can finish.
            _instances.pop(next(iter(_instances))).close()
        return connection


def private_instance(store: Path | None, files: Collection[str]) -> Connection:
    """Return a private instance that can open only the given files and patterns; the caller closes it."""
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
        # DuckDB creates the folder when it first spills, and deletes it with the instance.
        config["temp_directory"] = str(Path(store) / "tmp" / f"sql-{os.getpid()}-{next(_numbers)}")
    try:
        instance = duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise StoreError(
            "DuckDB cannot be started for this SELECT",
            where=one_line(error),
            remedy="set STEPWELL_SQL_MEMORY to a size such as 4GB" if "STEPWELL_SQL_MEMORY" in os.environ else "",
        ) from error
    # The order matters: allowed_paths cannot be set without external access, and nothing can be set after the lock.
    if files:
        named = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        instance.execute(f"SET allowed_paths = [{named}]")
    # Otherwise dates would depend on the time zone of the machine.
    instance.execute("SET GLOBAL TimeZone = 'UTC'")
    instance.execute("SET enable_external_access = false")
    instance.execute("SET lock_configuration = true")
    return instance


def interruptible(connection: Connection, work: Callable[[], T]) -> T:
    """Run a function that uses a connection on a separate thread, so that Ctrl-C in the calling thread stops the statement.

    Parameters
    ----------
    connection
        The connection that the function uses. Ctrl-C interrupts its statement.
    work
        The function.

    Returns
    -------
    object
        The result of the function.

    Raises
    ------
    BaseException
        The exception of the function, or the exception (such as KeyboardInterrupt) that ended the wait, after the statement has stopped.
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
        # Inside the try block, because an interrupt may arrive as soon as the thread runs. Not a `Thread`, for the reason given in `locks`.
        start_new_thread(run, ())
        # With a timeout the wait is interruptible on every platform.
        while not over.wait(0.5):
            pass
    except BaseException:
        given_up = True
        for _ in range(_INTERRUPT_TRIES):
            # Interrupt repeatedly, because an interrupt before the statement starts has no effect.
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

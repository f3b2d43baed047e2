"""The DuckDB instance in which SELECTs run: it knows nothing but what it is given, and cannot be told otherwise.

It is in memory, beside the catalog's: no variable of the caller's, no file, no extension, and no way to change that, since its
configuration is locked. It spills into a folder of its own below the store's ``tmp``. A SELECT that reads files gets an instance for
itself, which may open exactly those. Frames are registered on a connection, so what one call reads, no other sees.
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

_MOST = 2
"""Instances that are kept: kernels rarely use more stores than that at once."""
_PATIENCE = 50
"""Tenths of a second that an interrupted statement has to end."""

_instances: dict[str, Connection] = {}
_lock = threading.Lock()
_numbers = count(1)
_likely = ""


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that does not exist here
    _lock = threading.Lock()
    for instance in _instances.values():
        leak(instance)
    _instances.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def expect(store: Path) -> None:
    """Say which store SELECTs are likely to be about: a text is parsed before anybody says so, and one instance is enough."""
    global _likely  # noqa: PLW0603 - a guess that costs nothing if it is wrong
    _likely = str(store)


def cursor(store: Path | None = None) -> Connection:
    """Return a connection of its own to the shared instance; the caller closes it.

    Parameters
    ----------
    store
        The store directory, below which it spills; None where nothing can grow: for the parser.
    """
    with _lock:
        if store is None and _instances:
            return next(reversed(_instances.values())).cursor()
        name = _likely if store is None else str(store)
        found = _instances.pop(name, None)
        if found is None:
            found = _start(name)
        # The newest use stands last.
        _instances[name] = found
        made = found.cursor()
        while len(_instances) > _MOST:
            # A statement that runs in it keeps it until it ends.
            _instances.pop(next(iter(_instances))).close()
        return made


def own_instance(store: Path | None, files: Collection[str]) -> Connection:
    """Return an instance that may open some files, and patterns of them, and nothing else; the caller closes it."""
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
        # Made when something spills, and taken away with the instance.
        config["temp_directory"] = str(Path(store) / "tmp" / f"sql-{os.getpid()}-{next(_numbers)}")
    try:
        instance = duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise StoreError(
            "the instance for SQL cannot be started",
            where=one_line(error),
            remedy="STEPWELL_SQL_MEMORY is an amount such as 4GB" if "STEPWELL_SQL_MEMORY" in os.environ else "",
        ) from error
    # The order matters: what may be opened is settled, then the door is closed, then locked.
    if files:
        named = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        instance.execute(f"SET allowed_paths = [{named}]")
    # Else a date would depend on where the machine stands.
    instance.execute("SET GLOBAL TimeZone = 'UTC'")
    instance.execute("SET enable_external_access = false")
    instance.execute("SET lock_configuration = true")
    return instance


def interruptible(connection: Connection, work: Callable[[], T]) -> T:
    """Do what keeps a connection busy on a thread of its own, so that Ctrl-C reaches whoever waits for it and stops it.

    Raises
    ------
    BaseException
        What the work raised; or what ended the waiting (KeyboardInterrupt), when the statement has been stopped.
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
        # Inside: an interrupt may come as soon as the thread is there. No Thread object: see `once`.
        start_new_thread(run, ())
        # With a timeout the wait is interruptible on every platform.
        while not over.wait(0.5):
            pass
    except BaseException:
        given_up = True
        for _ in range(_PATIENCE):
            # Again and again: the statement may not have begun yet.
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

"""The command ``store``, which shows the session's store, and the public class `Store`, an open store with the commands as methods.

The methods of `Store` call the commands with this store as the argument ``store``: ``store.versions("daily")`` is
``stepwell.versions("daily", store=store)``. `Store.__getattr__` derives the methods from the commands.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, Self

from stepwell.commands import VERBS
from stepwell.commands.command import Command, command, find_command
from stepwell.commands.status import StoreFacts
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.store import housekeeping


@command(needs="nothing")
def store(path: str | None = None) -> StoreFacts:
    """Show the directory and size of the session's store, or switch to another store.

    Parameters
    ----------
    path
        The directory of another store; it is created if it does not exist.

    Returns
    -------
    StoreFacts
        The directory and sizes.

    Raises
    ------
    StoreError
        If the store cannot be used.
    """
    session = get_session()
    used = session.use(path) if path is not None else session.store
    return StoreFacts(str(used.directory), housekeeping.sizes(used))


class Store:
    """An open store directory.

    Every command that takes ``store`` is a method: `versions`, `diff`, `sql`, `load`, `status`, `runs`, `logs`, `keep`, `forget`, `gc`, `rename`,
    `pack`, `trust`, `doctor` and more.

    Parameters
    ----------
    directory
        The directory with ``catalog.duckdb``.
    create
        Create the store if it does not exist.

    Raises
    ------
    StoreError
        If the store does not exist and ``create`` is false, cannot be written, was written by a newer Stepwell, or is damaged.
    """

    def __init__(self, directory: str | os.PathLike[str], *, create: bool = True) -> None:
        self.values = get_session().open(directory, create=create)
        """The internal store; not part of the public interface."""

    @property
    def directory(self) -> Path:
        """The store directory."""
        return self.values.directory

    def close(self) -> None:
        """Commit pending changes and release the files; the next use opens the store again."""
        self.values.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({str(self.directory)!r})"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in VERBS if _takes_store(find_command(name)))})

    def __getattr__(self, name: str) -> Callable[..., Any]:
        command = None if name.startswith("_") else find_command(name)
        if command is None or not _takes_store(command):
            raise AttributeError(f"'Store' object has no attribute {name!r}")
        function = command.function

        @wraps(function)
        def method(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs, store=self.values)

        return method


def _takes_store(command: Command[Any, Any] | None) -> bool:
    return command is not None and "store" in signature(command.function).parameters


def open_store(directory: str | os.PathLike[str]) -> Store:
    """Open a store directory; it is created if it does not exist.

    Parameters
    ----------
    directory
        The directory with ``catalog.duckdb``.

    Returns
    -------
    Store
        The open store.

    Raises
    ------
    StoreError
        If the store cannot be written, was written by a newer Stepwell, or is damaged.
    """
    return Store(directory)

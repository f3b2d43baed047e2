"""The command ``store``, which shows the session's store; and the public class `Store`, an open store whose methods are the commands.

A method of `Store` calls the command of the same name with the open store as its argument ``store``: ``my_store.versions("daily")`` is
``stepwell.versions("daily", store=my_store)``. `Store.__getattr__` derives the methods from the commands.
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
    """Show the directory and size of the session's store, or switch the session to another store.

    Parameters
    ----------
    path
        The directory of the store to switch to; it is created if it does not exist. By default the session keeps its store.

    Returns
    -------
    StoreFacts
        The directory and size of the session's store.

    Raises
    ------
    StoreError
        If the store cannot be used.
    """
    session = get_session()
    used = session.use(path) if path is not None else session.store
    return StoreFacts(str(used.directory), housekeeping.sizes(used))


class Store:
    """An open store.

    Each command with a parameter ``store`` is also a method of this class: `versions`, `diff`, `sql`, `load`, `status`, `runs`, `logs`, `keep`,
    `forget`, `gc`, `rename`, `pack`, `trust`, `doctor` and more.

    Parameters
    ----------
    directory
        The store directory, which contains ``catalog.duckdb``.
    create
        Create the store if it does not exist.

    Raises
    ------
    StoreError
        If the store does not exist and `create` is False; or if the store was written by a newer version of Stepwell, is damaged, or cannot be
        used for another reason.
    """

    def __init__(self, directory: str | os.PathLike[str], *, create: bool = True) -> None:
        self.values = get_session().open(directory, create=create)
        """The internal store; not part of the public interface."""

    @property
    def directory(self) -> Path:
        """The store directory."""
        return self.values.directory

    def close(self) -> None:
        """Commit pending changes and close the catalog. The next use of the store opens the catalog again."""
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
    """Open a store. The store is created if it does not exist.

    Parameters
    ----------
    directory
        The store directory, which contains ``catalog.duckdb``.

    Returns
    -------
    Store
        The open store.

    Raises
    ------
    StoreError
        If the store was written by a newer version of Stepwell, is damaged, or cannot be used for another reason.
    """
    return Store(directory)

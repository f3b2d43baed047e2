"""The catalog, read as a whole: every column of every table, in portions, so that nobody waits long for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from stepwell.kernel_runtime.errors import StoreFullError
from stepwell.kernel_runtime.store.catalog.attachment import Attachment
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import rows_of
from stepwell.kernel_runtime.store.catalog.schema import TABLES
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.trouble import trouble

T = TypeVar("T")

PORTION = 50_000
"""Rows that are read under one lease."""


@dataclass(slots=True)
class CheckedCatalog:
    """What a catalog that can be read holds."""

    rows: dict[str, int] = field(default_factory=dict)
    """By table."""
    values: dict[str, int] = field(default_factory=dict)
    """Names of value files that rows refer to, with the size of the value."""
    keys: dict[str, str] = field(default_factory=dict)
    """For each of these names a key that it is the value of."""
    commits: int = 0


def check_catalog(folder: Folder) -> CheckedCatalog:
    """Read everything.

    Raises
    ------
    StoreError
        If it cannot be opened; a `StoreDamagedError` if a part of it cannot be read.
    """
    found = CheckedCatalog()
    attachment = Attachment(folder)
    for table in TABLES:
        begin, end = 0, 1
        while begin < end:
            rows, end = attended(attachment, partial(_read, table=table, begin=begin))
            found.rows[table] = found.rows.get(table, 0) + rows
            begin += PORTION
    begin, end = 0, 1
    while begin < end:
        values, end = attended(attachment, partial(_values, begin=begin))
        for name, size, key in values:
            found.values[name] = size
            found.keys[name] = key
        begin += PORTION
    found.commits = attachment.commits
    return found


def attended(attachment: Attachment, answer: Callable[[Connection, str], T]) -> T:
    """Attach the catalog, ask, and let it go; errors as of `check_catalog`."""
    attachment.attach(create=False)
    try:
        return answer(attachment.connection, attachment.name)
    except Exception as error:
        # Nothing is converted here but what rows hold: a time that is none.
        damage = attachment.damage(error, "Conversion Error")
        if damage is None:
            raise
        raise damage from error
    finally:
        _let_go(attachment)


def _let_go(attachment: Attachment) -> None:
    import duckdb

    try:
        attachment.discard()
    except duckdb.Error as error:
        # Without room for the checkpoint, what was committed stays in the log.
        if not isinstance(trouble(error, ""), StoreFullError):
            raise


def _read(connection: Connection, name: str, table: str, begin: int) -> tuple[int, int]:
    """Return the number of rows of a portion, and where all rows end; hashing makes DuckDB read, and check, each column."""
    rows, _, end = connection.execute(
        f"SELECT count(*), bit_xor(hash(t)), (SELECT coalesce(max(rowid) + 1, 0) FROM {name}.{table}) "  # noqa: S608 - our own tables
        f"FROM (SELECT * FROM {name}.{table} WHERE rowid >= ? AND rowid < ?) t",
        [begin, begin + PORTION],
    ).fetchone()
    return rows, end


def _values(connection: Connection, name: str, begin: int) -> tuple[list[tuple[Any, ...]], int]:
    rows = rows_of(
        connection,
        name,
        "SELECT object_name, size, key FROM @materializations WHERE object_name IS NOT NULL AND rowid >= ? AND rowid < ?",
        [begin, begin + PORTION],
    )
    ((end,),) = rows_of(connection, name, "SELECT coalesce(max(rowid) + 1, 0) FROM @materializations")
    return rows, end

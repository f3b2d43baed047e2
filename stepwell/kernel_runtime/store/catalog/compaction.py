"""Compaction: rewriting the catalog without the free space that deleted rows leave.

A DuckDB file never shrinks. So the catalog is compacted in three steps, while this process holds the lease:

1. Every table is copied to a new file below ``tmp/``. The order of the rows is kept, because ``rowid`` defines which row is the newest.
2. The new file is detached, which writes its checkpoint. Then the file is flushed to the disk.
3. The old file is detached, and the new file is renamed to ``catalog.duckdb``.

A complete catalog exists at all times: a process that is killed before the rename leaves the old catalog, and an unused file in ``tmp/``. No
other process has the catalog open, because only the process that holds the lease may open it. Another process that attaches the catalog
later opens the new file, and notices from the changed inode that its snapshot is out of date.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from stepwell.kernel_runtime.errors import StorePermissionError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG, Attachment, quoted
from stepwell.kernel_runtime.store.catalog.instance import Connection, exclusive_access
from stepwell.kernel_runtime.store.catalog.schema import TABLES
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import user_name
from stepwell.kernel_runtime.store.trouble import spare

WORTH = 16 << 20
"""Minimum number of free bytes in the catalog for which compaction is worth its time."""


def check_owner(catalog: Catalog) -> None:
    """Raise `StorePermissionError` if the catalog file would belong to another user after a compaction by this user."""
    catalog.ask(lambda *_: _check_owner(catalog.attachment))


def compact(catalog: Catalog, *, force: bool) -> int:
    """Rewrite the catalog without its free space, and return the number of bytes by which it shrank.

    Return 0 if the catalog is not rewritten (see ``force``).

    Parameters
    ----------
    catalog
        The catalog.
    force
        True to rewrite the catalog in any case. False to rewrite it only if its free space is more than half of it and at least `WORTH` bytes,
        and if the owner of the file would stay the same.

    Raises
    ------
    StorePermissionError
        If ``force`` is true and the owner of the catalog file would change.
    StoreError
        If the catalog cannot be rewritten. The old catalog then stays.
    """
    attachment = catalog.attachment

    def compacted(connection: Connection, name: str) -> int:
        import duckdb

        catalog.check_writable()
        if not _keeps_owner(attachment):
            return 0
        try:
            if not force:
                if not _is_large(attachment):
                    return 0
                connection.execute(f"CHECKPOINT {name}")
            return _rewrite(attachment) if force or _is_worthwhile(connection, name) else 0
        except (duckdb.Error, OSError) as error:
            failure = catalog.failure(error, "could not be compacted", "try again; nothing was lost")
            catalog.roll_back()
            raise failure from error

    def spared(connection: Connection, name: str) -> int:
        if force:
            _check_owner(attachment)
        with spare(attachment.folder):
            return compacted(connection, name)

    return catalog.ask(spared)


def _is_large(attachment: Attachment) -> bool:
    """Return True if the catalog has at least `WORTH` bytes. Unlike `_is_worthwhile`, this needs no checkpoint."""
    return attachment.folder.stat(CATALOG).st_size >= WORTH


def _is_worthwhile(connection: Connection, name: str) -> bool:
    """Return True if more than half of the catalog, and at least `WORTH` bytes, is free space."""
    with exclusive_access():
        rows = connection.execute(
            "SELECT block_size, total_blocks, free_blocks FROM pragma_database_size() WHERE database_name = ?", [name]
        ).fetchall()
    ((size, total, free),) = rows
    return bool(size * free >= WORTH and free * 2 > total)


def _keeps_owner(attachment: Attachment) -> bool:
    """Return True if rewriting the catalog would not change its owner: this user owns the catalog, or is root and can set the owner."""
    return sys.platform == "win32" or os.geteuid() in (0, attachment.folder.stat(CATALOG).st_uid)


def _check_owner(attachment: Attachment) -> None:
    """Raise `StorePermissionError` if rewriting the catalog would change its owner to this user."""
    if _keeps_owner(attachment):
        return
    owner = user_name(attachment.folder.stat(CATALOG).st_uid)
    raise StorePermissionError(
        f"the catalog of the store {attachment.directory} was not compacted, because its owner would change from {owner} to you",
        where="nothing was written",
        remedy=f"ask {owner} to run: stepwell gc --compact --store {attachment.directory}",
    )


def _rewrite(attachment: Attachment) -> int:
    """Rewrite the attached catalog; return the number of bytes by which it shrank. Called on the catalog thread, outside a transaction."""
    connection, name = attachment.connection, attachment.name
    folder = attachment.folder
    before = folder.stat(CATALOG).st_size
    making = f"tmp/{new_id()}.duckdb"
    copy = f"{name}_compact"
    attachment.lease.mark()
    try:
        with folder.database(making) as path:
            connection.execute(f"ATTACH '{quoted(path)}' AS {copy}")
        try:
            _copy_tables(connection, name, copy)
        finally:
            with exclusive_access():
                connection.execute(f"DETACH {copy}")
        folder.give(making, like=CATALOG)
        folder.sync(making)
        attachment.replace(making)
    finally:
        for leftover in (making, f"{making}.wal"):
            with contextlib.suppress(OSError):
                folder.unlink(leftover, missing_ok=True)
    attachment.epoch += 1
    return before - folder.stat(CATALOG).st_size


def _copy_tables(connection: Connection, name: str, copy: str) -> None:
    """Copy every table of the attached catalog ``name`` to the attached file ``copy``, in the order of the rows."""
    connection.begin()
    try:
        for table, definition in TABLES.items():
            columns = ", ".join(_stored_columns(connection, name, table))
            connection.execute(f"CREATE TABLE {copy}.{table} ({definition})")
            insert = f"INSERT INTO {copy}.{table} ({columns}) SELECT {columns} FROM {name}.{table} ORDER BY rowid"  # noqa: S608 - our own names
            connection.execute(insert)
        connection.commit()
    except BaseException:
        with contextlib.suppress(Exception):
            connection.rollback()
        raise


def _stored_columns(connection: Connection, name: str, table: str) -> list[str]:
    """Return the names of a table's columns, without the generated columns, into which no values can be inserted."""
    with exclusive_access():
        rows: list[tuple[Any, ...]] = connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND table_name = ? ORDER BY column_index",
            [name, table],
        ).fetchall()
    definition = TABLES[table]
    return [column for (column,) in rows if f"{column} TIMESTAMP GENERATED" not in definition]

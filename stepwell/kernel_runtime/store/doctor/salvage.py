"""What can be read of a damaged catalog, copied into a new one in the order of its rows.

It is attached read-only, with its log if that can be replayed and without it if not, so that nothing of it changes. A table that cannot be
read whole is read in halves, and halves of these, down to the portions in which DuckDB keeps rows; what cannot be read then is
given up. An error may make DuckDB refuse the attached file altogether: then it is attached again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from stepwell.kernel_runtime.errors import StoreFormatError
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG, quoted
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.schema import FORMAT, TABLES
from stepwell.kernel_runtime.store.catalog.seal import Seal
from stepwell.kernel_runtime.store.folder import Folder

_SMALLEST = 2048
"""Rows that DuckDB reads at once."""


@dataclass(slots=True)
class Salvaged:
    """What came of it."""

    opened: bool = False
    with_log: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    """By table, how many were read."""
    unread: dict[str, int] = field(default_factory=dict)
    """By table, how many could not be, at most."""
    commits: int = 0
    store_id: str = ""

    def complete(self, seal: Seal | None) -> bool:
        """Tell whether nothing is missing that was acknowledged, as far as can be known."""
        return (
            self.opened
            and self.with_log
            and not any(self.unread.values())
            and seal is not None
            and not seal.lost(self.commits, self.store_id)
        )


class Salvage:
    """Copies from one damaged catalog into the attached, empty catalog ``new``.

    Parameters
    ----------
    spare
        Where a copy of the catalog without its log may be made.
    """

    def __init__(self, connection: Connection, folder: Folder, spare: str) -> None:
        self._connection = connection
        self._folder = folder
        self._spare = spare
        self._source = CATALOG
        self.found = Salvaged()

    def run(self) -> Salvaged:
        """Copy what can be read.

        Raises
        ------
        StoreFormatError
            If a newer Stepwell wrote it.
        """
        import duckdb

        if not self._folder.exists(CATALOG):
            return self.found
        try:
            if not self._open():
                return self.found
            for table in TABLES:
                if table != "meta":
                    with contextlib.suppress(duckdb.Error):
                        self._table(table)
        finally:
            self._close()
            self._folder.unlink(self._spare, missing_ok=True)
        return self.found

    def _open(self) -> bool:
        found = self.found
        found.opened = found.with_log = self._attach()
        if not found.opened:
            # Under another name it has no log beside it.
            try:
                self._folder.link(CATALOG, self._spare)
            except OSError:
                self._folder.copy(CATALOG, self._spare)
            self._source = self._spare
            found.opened = self._attach()
        return found.opened

    def _attach(self) -> bool:
        import duckdb

        try:
            with self._folder.database(self._source) as path:
                self._connection.execute(f"ATTACH '{quoted(path)}' AS old (READ_ONLY)")
        except duckdb.Error:
            return False
        try:
            cursor = self._connection.execute("SELECT * FROM old.meta")
            row = cursor.fetchone()
            meta = dict(zip([column[0] for column in cursor.description], row or (), strict=bool(row)))
        except duckdb.Error:
            return True
        if meta.get("format", 0) > FORMAT:
            raise StoreFormatError(
                f"the catalog {self._folder.path / CATALOG} was written by a newer Stepwell (format {meta['format']}; this one knows {FORMAT})",
                remedy="upgrade: pip install -U stepwell",
            )
        self.found.commits = meta.get("commits") or 0
        self.found.store_id = meta.get("store_id") or ""
        return True

    def _close(self) -> None:
        import duckdb

        with contextlib.suppress(duckdb.Error):
            self._connection.execute("DETACH DATABASE IF EXISTS old")

    def _table(self, table: str) -> None:
        columns = self._columns(table)
        if not columns:
            return
        if self._copy(table, columns, ""):
            return
        count = self._count(table)
        portions = [(0, -(-count // _SMALLEST) * _SMALLEST)]
        while portions:
            begin, end = portions.pop()
            if self._copy(table, columns, f"WHERE rowid >= {begin} AND rowid < {end}"):
                continue
            if end - begin <= _SMALLEST:
                self.found.unread[table] = self.found.unread.get(table, 0) + min(end, count) - begin
            else:
                middle = begin + (end - begin) // _SMALLEST // 2 * _SMALLEST
                # The later half is put back first: rows keep their order.
                portions += [(middle, end), (begin, middle)]

    def _columns(self, table: str) -> list[str]:
        rows = self._connection.execute(
            "SELECT database_name, column_name FROM duckdb_columns() WHERE database_name IN ('old', 'new') AND table_name = ? ORDER BY column_index",
            [table],
        ).fetchall()
        there = {column for database, column in rows if database == "old"}
        return [
            column
            for database, column in rows
            if database == "new" and column in there and f"{column} TIMESTAMP GENERATED" not in TABLES[table]
        ]

    def _count(self, table: str) -> int:
        (count,) = self._connection.execute(
            "SELECT max(estimated_size) FROM duckdb_tables() WHERE database_name = 'old' AND table_name = ?", [table]
        ).fetchone()
        # Deleted rows leave their numbers unused.
        return int(count or 0) * 2 + _SMALLEST

    def _copy(self, table: str, columns: list[str], where: str) -> bool:
        import duckdb

        names = ", ".join(columns)
        connection = self._connection
        try:
            connection.begin()
            (count,) = connection.execute(
                f"INSERT INTO new.{table} ({names}) SELECT {names} FROM old.{table} {where} ORDER BY rowid"  # noqa: S608 - names of our own tables
            ).fetchone()
            connection.commit()
        except duckdb.Error:
            with contextlib.suppress(duckdb.Error):
                connection.rollback()
            self._close()
            self._attach()
            return False
        self.found.rows[table] = self.found.rows.get(table, 0) + count
        return True

"""Rebuilding a catalog that cannot be read, from what can be read of it and from the headers of the value files.

It is attached read-only, with its log if that can be replayed and without it if not, so that nothing of it changes. A table that cannot be
read whole is read in halves, and halves of these, down to the portions in which DuckDB keeps rows; what cannot be read then is
given up. An error may make DuckDB refuse the attached file altogether: then it is attached again.

A new catalog, of what can be read of a damaged one and of what the value files say in their headers.

Inline values, further materializations of a stored value and the history of runs are in the catalog only: where it cannot be read, they
are lost and computed again. What is brought back is reused under the same conditions as before, because a value file says
also what its step had read (`about`); one that does not say so can be loaded, and is never reused. If the catalog may lack its newest rows, three
kinds of older ones must not be trusted any more, since a lost row may have overtaken them: of steps that changed the world, of edits that
were accepted (the acceptance may have been taken back), and with them nothing else. They lose their memo keys.

All is made below ``tmp/`` and then put into place by one rename; the damaged catalog is kept beside it. A process killed before the
rename leaves the damaged catalog as it was. After it only the log of the damaged one may still be there, which DuckDB refuses beside another
catalog: then the same command finishes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stepwell.kernel_runtime.errors import StoreFormatError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import ACCEPTED, Current, Materialization, StoredValue
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG, LOG, quoted
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.lease import Lease, Seal, read_seal, write_seal
from stepwell.kernel_runtime.store.catalog.schema import (
    FORMAT,
    TABLES,
    create_statements,
    current_row,
    materialization_row,
)
from stepwell.kernel_runtime.store.doctor.checks import CheckedFile
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.header import Header, rebuilt

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


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild brought back."""

    salvaged: Salvaged
    complete: bool
    """Whether everything that was acknowledged could be read from the catalog itself."""
    from_files: int = 0
    """Materializations made from the headers of value files."""
    only_loadable: int = 0
    """Those of them whose files do not say what their steps had read."""
    distrusted: int = 0
    """Rows that lost their memo keys."""
    kept: list[Path] = field(default_factory=list)
    """Where the damaged catalog is now."""


def rebuild(folder: Folder, files: Iterable[CheckedFile]) -> Rebuilt:
    """Make a new catalog and put it into the place of the damaged one.

    Parameters
    ----------
    files
        The value files, checked.

    Raises
    ------
    StoreFormatError
        If a newer Stepwell wrote the catalog.
    OSError
        If the directory cannot be written.
    """
    import duckdb

    files = sorted(files, key=lambda each: (each.written, each.name))
    making, spare = f"tmp/{new_id()}.duckdb", f"tmp/{new_id()}.duckdb"
    folder.examine()
    folder.mkdir("tmp")
    lease = Lease(folder)
    lease.acquire()
    try:
        store_id = new_id()
        connection = duckdb.connect(":memory:")
        try:
            with folder.database(making) as path:
                connection.execute(f"ATTACH '{quoted(path)}' AS new")
            for statement in create_statements("new"):
                connection.execute(statement)
            salvaged = Salvage(connection, folder, spare).run()
            found = Rebuilt(salvaged, salvaged.complete(read_seal(folder)))
            if not found.complete:
                found.distrusted = _distrust(connection)
            _add_files(connection, files, found)
            _append(connection, "meta", [(FORMAT, store_id, time.time(), 1)])
            connection.execute("DETACH new")
        finally:
            connection.close()
        folder.give(making)
        folder.sync(making)
        lease.mark()
        found.kept = _put_in_place(folder, making)
        write_seal(folder, 1, store_id)
    finally:
        lease.release()
        for left in (making, f"{making}.wal", spare):
            folder.unlink(left, missing_ok=True)
    return found


def _distrust(connection: Connection) -> int:
    (count,) = connection.execute(
        "UPDATE new.materializations SET memo_key = '' WHERE memo_key <> '' AND (data_version = '' OR contains(metadata, ?))",
        [f'"{ACCEPTED}"'],
    ).fetchone()
    return int(count)


def _add_files(connection: Connection, files: list[CheckedFile], found: Rebuilt) -> None:
    """Add a row for each file that no salvaged row refers to; for a notebook and key without one, the newest is current."""
    known = {
        name
        for (name,) in connection.execute(
            "SELECT DISTINCT object_name FROM new.materializations WHERE object_name IS NOT NULL"
        ).fetchall()
    }
    pointed = set(connection.execute("SELECT DISTINCT notebook, key, partition FROM new.current").fetchall())
    made: list[Materialization] = []
    for file in files:
        if file.state == "whole" and file.header is not None and file.name not in known:
            item = _materialization(file, file.header)
            found.only_loadable += not item.memo_key and not file.header.more.get("about")
            made.append(item)
    found.from_files = len(made)
    made.sort(key=lambda item: item.created)
    _append(connection, "materializations", [materialization_row(item) for item in made])
    newest = {(item.notebook, item.key, item.partition): item for item in made}
    _append(
        connection,
        "current",
        [
            current_row(Current(item.notebook, item.key, item, item.partition), item.created)
            for place, item in newest.items()
            if place not in pointed
        ],
    )


def _materialization(file: CheckedFile, header: Header) -> Materialization:
    # A text that is no Unicode, which JSON can hold, cannot be put into a catalog.
    more = json.loads(json.dumps(header.more, ensure_ascii=False).encode("utf-8", "replace"))
    value = StoredValue(
        header.codec,
        header.digest,
        header.stream[0] + sum(size for size, _, _ in header.buffers),
        object_name=file.name,
        type_name=str(more.get("type_name", "")),
        summary=str(more.get("summary", "")),
        classes=_classes(more.get("classes")),
    )
    about = more.get("about")
    return rebuilt(
        about if isinstance(about, dict) else {},
        value,
        key=str(more.get("key", "")),
        id_=new_id(),
        created=file.written,
    )


def _classes(told: object) -> tuple[tuple[str, str], ...]:
    """Return what a header says of classes and libraries; nothing where it says something else."""
    if not isinstance(told, list) or not all(isinstance(each, list) and len(each) == 2 for each in told):
        return ()
    return tuple((str(name), str(version)) for name, version in told)


def _append(connection: Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        appender = connection.appender(f"new.{table}")
        appender.append_rows(rows)
        appender.flush()


def _put_in_place(folder: Folder, making: str) -> list[Path]:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    kept = f"catalog.damaged-{stamp}.duckdb"
    number = 1
    while folder.exists(kept):
        number += 1
        kept = f"catalog.damaged-{stamp}-{number}.duckdb"
    found = []
    if folder.exists(CATALOG):
        try:
            folder.link(CATALOG, kept)
        except OSError:
            folder.copy(CATALOG, kept)
        found.append(kept)
    folder.rename(making, CATALOG)
    if folder.exists(LOG) and folder.stat(LOG).st_size:
        folder.rename(LOG, f"{kept}.wal")
        found.append(f"{kept}.wal")
    return [folder.path / each for each in found]

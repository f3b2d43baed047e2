"""Rebuilding a catalog that cannot be read, or that lacks acknowledged commits, from the headers of the value files.

A value file says in its header which step wrote it and what that step had read (`header.about`). So what is brought back is reused under the same conditions as before;
a file that does not say so can be loaded, and is never reused. Inline values, further materializations of a stored value and the history of
runs are in the catalog only. Each table of the old catalog that can be read whole is copied: an older copy that was put in its place, a lost log or a damaged page
of one table do not cost the other tables. The old catalog is attached read-only, with its log if that can be replayed and without it if not, so that nothing of it changes.

If the old catalog may lack its newest rows, older rows must not be trusted that a lost row may have overtaken: of steps that changed
the world, and of edits that were accepted (the acceptance may have been revoked). They lose their memo keys.

The new catalog is made below ``tmp/`` and put into place by one rename; the damaged catalog is kept under another name. A process killed before the
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
from stepwell.kernel_runtime.records.code_versions import ACCEPTED
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Current, Materialization, StoredValue
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


@dataclass(slots=True)
class Salvaged:
    """What was read of the old catalog."""

    opened: bool = False
    with_log: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    """By table, how many."""
    unread: list[str] = field(default_factory=list)
    """Tables that cannot be read."""
    commits: int = 0
    store_id: str = ""

    def complete(self, seal: Seal | None) -> bool:
        """Return True if nothing is missing that was acknowledged, as far as can be known."""
        return (
            self.opened
            and self.with_log
            and not self.unread
            and seal is not None
            and not seal.lost(self.commits, self.store_id)
        )


def _copy_tables(connection: Connection, folder: Folder, spare: str) -> Salvaged:
    """Copy every table that can be read whole into the attached, empty catalog ``new``.

    Parameters
    ----------
    spare
        Where a copy of the catalog without its log may be made.

    Raises
    ------
    StoreFormatError
        If a newer Stepwell wrote it.
    """
    import duckdb

    found = Salvaged()
    if not folder.exists(CATALOG):
        return found
    try:
        source = CATALOG
        found.with_log = _attach_old(connection, folder, source)
        if not found.with_log:
            # Under another name it has no log beside it.
            try:
                folder.link(CATALOG, spare)
            except OSError:
                folder.copy(CATALOG, spare)
            source = spare
        if not (found.with_log or _attach_old(connection, folder, source)):
            return found
        found.opened = True
        with contextlib.suppress(duckdb.Error):
            _read_meta(connection, folder, found)
        for table in TABLES:
            if table == "meta":
                continue
            try:
                found.rows[table] = _copy_table(connection, table)
            except duckdb.Error:
                found.unread.append(table)
                # DuckDB may refuse the attached file after an error.
                with contextlib.suppress(duckdb.Error):
                    connection.rollback()
                _detach_old(connection)
                _attach_old(connection, folder, source)
    finally:
        _detach_old(connection)
        folder.unlink(spare, missing_ok=True)
    return found


def _attach_old(connection: Connection, folder: Folder, source: str) -> bool:
    import duckdb

    try:
        with folder.database(source) as path:
            connection.execute(f"ATTACH '{quoted(path)}' AS old (READ_ONLY)")
    except duckdb.Error:
        return False
    return True


def _detach_old(connection: Connection) -> None:
    import duckdb

    with contextlib.suppress(duckdb.Error):
        connection.execute("DETACH DATABASE IF EXISTS old")


def _read_meta(connection: Connection, folder: Folder, found: Salvaged) -> None:
    cursor = connection.execute("SELECT * FROM old.meta")
    row = cursor.fetchone()
    meta = dict(zip([column[0] for column in cursor.description], row or (), strict=bool(row)))
    if meta.get("format", 0) > FORMAT:
        raise StoreFormatError(
            f"the catalog {folder.path / CATALOG} was written by a newer Stepwell (format {meta['format']}; this one knows {FORMAT})",
            remedy="upgrade: pip install -U stepwell",
        )
    found.commits = meta.get("commits") or 0
    found.store_id = meta.get("store_id") or ""


def _copy_table(connection: Connection, table: str) -> int:
    """Copy the columns of a table that both catalogs have, in the order of the rows; return how many rows."""
    columns = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name IN ('old', 'new') AND table_name = ? "
        "GROUP BY column_name HAVING count(*) = 2 ORDER BY max(column_index)",
        [table],
    ).fetchall()
    names = ", ".join(column for (column,) in columns if f"{column} TIMESTAMP GENERATED" not in TABLES[table])
    if not names:
        return 0
    connection.begin()
    ((count,),) = connection.execute(
        f"INSERT INTO new.{table} ({names}) SELECT {names} FROM old.{table} ORDER BY rowid"  # noqa: S608 - names of our own tables
    ).fetchall()
    connection.commit()
    return int(count)


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
            salvaged = _copy_tables(connection, folder, spare)
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

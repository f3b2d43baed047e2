"""The contents of a store: full checks of value files and the catalog, removal of garbage, and the rebuild of a lost catalog.

Checks: value files are checked in parallel, a few at a time. The catalog is read in portions, and the lease is released after each portion,
so that other processes do not wait long. Garbage consists of leftovers of dead processes, value files to which no catalog row refers, and
damaged files that were moved to ``damaged/``.

Rebuild: if the catalog cannot be read, or lacks commits that were acknowledged, a new catalog is made from two sources.

- The tables of the old catalog. Each table that can be read completely is copied, so a damaged page in one table does not affect the others.
  The old catalog is attached read-only, so that it does not change, and with its log if DuckDB can replay the log. Inline values and the
  history of runs exist only in these tables. If several materializations share a value file, its header describes only one of them, so the
  others exist only in these tables, too.
- The headers of the value files. A header describes the step that wrote the file and the reads of this step (`header.about`), so a row that
  is restored from it is reused under the same conditions as the lost row. If a header contains no description, the value can be loaded but is
  never reused.

If the newest rows of the old catalog may be missing, one of the missing rows may have replaced an older row. This matters in two cases: for
materializations without a data version, such as those of steps that run only for their effects, because a later run may have changed these
effects; and for materializations that record an accepted edit (``%why --accept``), because the acceptance may have been revoked. The rows of these
materializations lose their memo keys, so that they are not reused.

The new catalog is written below ``tmp/`` and replaces the old catalog with one rename; the old catalog is kept under another name. If the
process is killed before the rename, the old catalog is unchanged. If the process is killed after the rename, the log of the old catalog may
remain, and DuckDB then refuses to open the new catalog. A second run of ``stepwell doctor --rebuild`` moves this log away.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from stepwell.kernel_runtime.errors import (
    StoreError,
    StoreFormatError,
    StoreFullError,
    UntrustedValueError,
    ValueDamagedError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import ACCEPTED, Current, Materialization, StoredValue
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG, LOG, Attachment, quoted
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.lease import Lease, Seal, read_seal, write_seal
from stepwell.kernel_runtime.store.catalog.schema import (
    FORMAT,
    TABLES,
    create_statements,
    current_row,
    materialization_row,
)
from stepwell.kernel_runtime.store.catalog.tables import rows_of
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.housekeeping import CONDEMNED, OBJECTS_AT_ONCE, delete_unneeded
from stepwell.kernel_runtime.store.objects.checked import DAMAGED
from stepwell.kernel_runtime.store.objects.header import Header, rebuilt
from stepwell.kernel_runtime.store.objects.value_files import Objects, value_files
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.trouble import trouble
from stepwell.kernel_runtime.text import printable

Status: TypeAlias = Literal["ok", "warning", "problem", "unusable"]
SIGNS: dict[Status, str] = {"ok": "✓", "warning": "!", "problem": "✗", "unusable": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    about: str
    """The subject of the check: ``versions``, ``mount``, ``permissions``, ``locks``, ``key``, ``disk``, ``rebuild``, ``catalog``, ``values``,
    ``missing`` (missing value files), ``orphans`` (value files without a catalog row) or ``leftovers``."""
    status: Status
    """``ok``; ``warning`` if no action is needed now; ``problem`` if a repair is needed; ``unusable`` if the store cannot be used."""
    text: str
    """The result, as a text for the user."""
    remedy: str = ""
    """What the user should do; empty if nothing."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The result as JSON values, such as counts, sizes in bytes and names of files."""

    def __str__(self) -> str:
        return printable(f"{SIGNS[self.status]} {self.about}: {self.text}" + (f"\n  {self.remedy}" if self.remedy else ""))

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a dict of JSON values."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> Status:
    """Return the most severe status among the findings (the last of ok, warning, problem, unusable); ``ok`` if there are no findings."""
    order: tuple[Status, ...] = ("ok", "warning", "problem", "unusable")
    return max((finding.status for finding in findings), key=order.index, default="ok")


def count_text(number: int, thing: str) -> str:
    """Return a number with the noun ``thing``, to which ``s`` is added for the plural: ``1 file`` or ``3 files``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


Progress: TypeAlias = Callable[[int, int, int], None]
"""A function with three arguments: the number of value files checked so far, the number of all value files, and the number of checked bytes."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """The result of the check of one value file."""

    name: str
    """The path of the file, relative to ``objects/``."""
    size: int
    modified: float
    """The modification time of the file, in seconds since the epoch."""
    state: Literal["whole", "damaged", "foreign", "unreadable"]
    """``whole`` if every byte is correct and the file, if it is a pickle, is signed with this user's key; ``foreign`` if the file is an
    undamaged pickle that is unsigned or signed with another key; ``damaged`` if the header is invalid or does not match the file;
    ``unreadable`` if another version of Stepwell wrote the file, if this user may not read it, or if it was deleted during the check or is too
    large for this machine."""
    reason: str = ""
    """What is wrong with a damaged file; empty if the state is not ``damaged``."""
    header: Header | None = None
    """The header of the file if its state is ``whole``; otherwise None."""


def check_files(folder: Folder, progress: Progress | None = None) -> Iterator[CheckedFile]:
    """Check every byte of every value file, and yield the result for each file as soon as it is known. No file is changed."""
    files = [(name, entry.st_size, entry.st_mtime) for name, entry in value_files(folder)]
    objects = Objects(folder, Signer())
    workers = min(4, os.cpu_count() or 1)
    checked_count = size = 0
    with ThreadPoolExecutor(workers) as pool:
        for checked in _few_at_a_time(pool, objects, files, 2 * workers):
            checked_count += 1
            size += checked.size
            if progress is not None:
                progress(checked_count, len(files), size)
            yield checked


def _few_at_a_time(
    pool: ThreadPoolExecutor, objects: Objects, files: Sequence[tuple[str, int, float]], limit: int
) -> Iterator[CheckedFile]:
    running: set[Future[CheckedFile]] = set()
    for file in files:
        running.add(pool.submit(_check_value_file, objects, *file))
        if len(running) >= limit:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
    yield from (future.result() for future in running)


def _check_value_file(objects: Objects, name: str, size: int, modified: float) -> CheckedFile:
    try:
        header = objects.verify(name)
        # `verify` has checked all bytes; `read` also checks the signature.
        objects.read(name, header.digest, header.codec, key=name)
        return CheckedFile(name, size, modified, "whole", header=header)
    except ValueDamagedError as error:
        return CheckedFile(name, size, modified, "damaged", error.what.partition(": ")[2])
    except UntrustedValueError:
        return CheckedFile(name, size, modified, "foreign")
    except (ValueUnavailableError, StoreError, OSError, MemoryError):
        return CheckedFile(name, size, modified, "unreadable")


T = TypeVar("T")

ROWS_AT_ONCE = 50_000
"""Maximum number of rows that are read at once. The lease is released after each of these portions."""


@dataclass(slots=True)
class CheckedCatalog:
    """The result of the check of a catalog that can be read completely."""

    rows: dict[str, int] = field(default_factory=dict)
    """Maps the name of each table to the number of its rows."""
    values: dict[str, int] = field(default_factory=dict)
    """Maps the names of the value files that have a catalog row to the sizes of their values in bytes."""
    keys: dict[str, str] = field(default_factory=dict)
    """Maps the name of each file in `values` to the key of its materialization; if there are several, to the key of one of them."""
    commits: int = 0
    """The number of commits that the catalog has recorded."""


def check_catalog(folder: Folder) -> CheckedCatalog:
    """Read all rows of all tables of the catalog, so that DuckDB checks every column.

    Raises
    ------
    StoreDamagedError
        If a part of the catalog cannot be read.
    StoreError
        If the catalog cannot be opened.
    """
    catalog = CheckedCatalog()
    attachment = Attachment(folder)
    for table in TABLES:
        begin, end = 0, 1
        while begin < end:
            rows, end = with_catalog(attachment, partial(_read_rows, table=table, begin=begin))
            catalog.rows[table] = catalog.rows.get(table, 0) + rows
            begin += ROWS_AT_ONCE
    begin, end = 0, 1
    while begin < end:
        values, end = with_catalog(attachment, partial(_values, begin=begin))
        for name, size, key in values:
            catalog.values[name] = size
            catalog.keys[name] = key
        begin += ROWS_AT_ONCE
    catalog.commits = attachment.commits
    return catalog


def with_catalog(attachment: Attachment, query: Callable[[Connection, str], T]) -> T:
    """Attach the catalog, call ``query``, and detach the catalog. Return the result of ``query``.

    ``query`` is called with two arguments: the connection, and the name under which the catalog is attached to it. If the catalog cannot be opened
    or read, the errors are those of `check_catalog`.
    """
    attachment.attach(create=False)
    try:
        return query(attachment.connection, attachment.name)
    except Exception as error:
        # Only stored times are converted by the queries (to ``TIMESTAMP``), so a conversion error means that a row contains an invalid time.
        damage = attachment.damage(error, "Conversion Error")
        if damage is None:
            raise
        raise damage from error
    finally:
        _detach(attachment)


def _detach(attachment: Attachment) -> None:
    import duckdb

    try:
        attachment.discard()
    except duckdb.Error as error:
        # On a full disk, DuckDB cannot write the checkpoint, but the committed rows stay in the log.
        if not isinstance(trouble(error, ""), StoreFullError):
            raise


def _read_rows(connection: Connection, name: str, table: str, begin: int) -> tuple[int, int]:
    """Read the rows of a table whose row ids are at least ``begin`` and less than ``begin`` + `ROWS_AT_ONCE`.

    Return the number of these rows, and the highest row id in the whole table plus one. The query computes a hash of the rows, so that DuckDB reads
    and checks every column. ``name`` is the name under which the catalog is attached.
    """
    rows, _, end = connection.execute(
        f"SELECT count(*), bit_xor(hash(t)), (SELECT coalesce(max(rowid) + 1, 0) FROM {name}.{table}) "  # noqa: S608 - constant names of tables
        f"FROM (SELECT * FROM {name}.{table} WHERE rowid >= ? AND rowid < ?) t",
        [begin, begin + ROWS_AT_ONCE],
    ).fetchone()
    return rows, end


def _values(connection: Connection, name: str, begin: int) -> tuple[list[tuple[Any, ...]], int]:
    rows = rows_of(
        connection,
        name,
        "SELECT object_name, size, key FROM @materializations WHERE object_name IS NOT NULL AND rowid >= ? AND rowid < ?",
        [begin, begin + ROWS_AT_ONCE],
    )
    ((end,),) = rows_of(connection, name, "SELECT coalesce(max(rowid) + 1, 0) FROM @materializations")
    return rows, end


OLD = 3600.0
"""Age in seconds above which a file in ``tmp/``, or a value file without a catalog row, is garbage. A younger file may be in use."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that is no longer needed, in ``tmp/`` or ``damaged/`` of a store."""

    name: str
    """The path of the file, relative to the store."""
    size: int
    """The size of the file in bytes."""


def leftovers(folder: Folder) -> list[Leftover]:
    """Return the files in ``tmp/`` that were last written more than an hour ago, and all files in ``damaged/``.

    Value files that ``gc`` has moved to ``tmp/`` are omitted, because ``gc`` may move them back.
    """
    now = time.time()
    old = [
        Leftover(f"tmp/{name}", status.st_size)
        for name, status in folder.entries("tmp")
        # A running gc may still move a condemned value file back to ``objects/``.
        if stat.S_ISREG(status.st_mode) and now - status.st_mtime > OLD and not name.endswith(CONDEMNED)
    ]
    damaged = [
        Leftover(f"{DAMAGED}/{name}", status.st_size) for name, status in folder.entries(DAMAGED) if stat.S_ISREG(status.st_mode)
    ]
    return [*old, *damaged]


def remove(folder: Folder, files: Iterable[Leftover]) -> tuple[int, int]:
    """Delete files of a store; return the number and the total size in bytes of the deleted files. Files that cannot be deleted stay."""
    count = size = 0
    for file in files:
        try:
            folder.unlink(file.name)
        except OSError:
            continue
        count += 1
        size += file.size
    return count, size


def remove_orphans(folder: Folder, names: Sequence[str]) -> tuple[int, int]:
    """Delete the value files ``names``, except those to which a catalog row refers or for which a running process is about to write a row.

    Return the number and the total size in bytes of the deleted files.
    """
    attachment = Attachment(folder)
    removed: dict[str, int] = {}
    for start in range(0, len(names), OBJECTS_AT_ONCE):
        portion = list(names[start : start + OBJECTS_AT_ONCE])
        removed |= with_catalog(attachment, partial(delete_unneeded, folder=folder, names=portion))
    return len(removed), sum(removed.values())


@dataclass(slots=True)
class Salvaged:
    """What a rebuild could read from the old catalog."""

    could_open: bool = False
    """True if DuckDB could open the old catalog, with or without its log."""
    with_log: bool = False
    """True if DuckDB could open the old catalog and replay its log."""
    rows: dict[str, int] = field(default_factory=dict)
    """Maps the name of each copied table to the number of the copied rows."""
    unread: list[str] = field(default_factory=list)
    """Names of the tables that could not be read completely and were not copied."""
    commits: int = 0
    """The number of commits that the old catalog has recorded; 0 if unknown."""
    store_id: str = ""
    """The id of the store in the old catalog; empty if unknown."""

    def complete(self, seal: Seal | None) -> bool:
        """Return True if all acknowledged rows were copied from the old catalog; False if rows were or may have been lost.

        ``seal`` is the seal of the store, which contains the number of acknowledged commits. If it is None, the result is False, because commits
        may have been lost unnoticed.
        """
        return (
            self.could_open
            and self.with_log
            and not self.unread
            and seal is not None
            and not seal.lost_commits(self.commits, self.store_id)
        )


def _copy_tables(connection: Connection, folder: Folder, spare: str) -> Salvaged:
    """Copy every table of the old catalog that can be read completely into the new, empty catalog.

    Parameters
    ----------
    connection
        A connection to which the new catalog is attached under the name ``new``.
    folder
        The store directory.
    spare
        An unused file name in the store, under which the old catalog is opened without its log if the log cannot be replayed.

    Raises
    ------
    StoreFormatError
        If a newer version of Stepwell wrote the old catalog.
    """
    import duckdb

    salvaged = Salvaged()
    if not folder.exists(CATALOG):
        return salvaged
    try:
        source = CATALOG
        salvaged.with_log = _attach_old(connection, folder, source)
        if not salvaged.with_log:
            # DuckDB finds the log by the file name of the catalog. Under another name, it opens the catalog without the log.
            try:
                folder.link(CATALOG, spare)
            except OSError:
                folder.copy(CATALOG, spare)
            source = spare
        if not (salvaged.with_log or _attach_old(connection, folder, source)):
            return salvaged
        salvaged.could_open = True
        with contextlib.suppress(duckdb.Error):
            _read_meta(connection, folder, salvaged)
        for table in TABLES:
            if table == "meta":
                continue
            try:
                salvaged.rows[table] = _copy_table(connection, table)
            except duckdb.Error:
                salvaged.unread.append(table)
                # DuckDB may refuse the attached file after an error.
                with contextlib.suppress(duckdb.Error):
                    connection.rollback()
                _detach_old(connection)
                _attach_old(connection, folder, source)
    finally:
        _detach_old(connection)
        folder.unlink(spare, missing_ok=True)
    return salvaged


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


def _read_meta(connection: Connection, folder: Folder, salvaged: Salvaged) -> None:
    cursor = connection.execute("SELECT * FROM old.meta")
    row = cursor.fetchone()
    meta = dict(zip([column[0] for column in cursor.description], row or (), strict=bool(row)))
    if meta.get("format", 0) > FORMAT:
        raise StoreFormatError(
            f"a newer version of Stepwell wrote the catalog {folder.path / CATALOG} (format {meta['format']}; this version reads format {FORMAT})",
            remedy="upgrade: pip install -U stepwell",
        )
    salvaged.commits = meta.get("commits") or 0
    salvaged.store_id = meta.get("store_id") or ""


def _copy_table(connection: Connection, table: str) -> int:
    """Copy the rows of a table from the old to the new catalog, in their order; return the number of rows.

    Only columns that exist in both catalogs are copied.
    """
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
        f"INSERT INTO new.{table} ({names}) SELECT {names} FROM old.{table} ORDER BY rowid"  # noqa: S608 - constant names of tables, and names of their columns
    ).fetchall()
    connection.commit()
    return int(count)


@dataclass(slots=True)
class Rebuilt:
    """The result of the rebuild of a catalog."""

    salvaged: Salvaged
    """What was copied from the old catalog."""
    complete: bool
    """True if all acknowledged rows were copied from the old catalog, so that nothing was lost."""
    from_files: int = 0
    """The number of materializations that were restored from the headers of value files."""
    only_loadable: int = 0
    """The number of those restored materializations whose headers do not describe the step. Their values can be loaded but are not reused."""
    distrusted: int = 0
    """The number of copied rows whose memo keys were removed, because a lost row may have replaced the copied row."""
    old_files: list[Path] = field(default_factory=list)
    """The paths under which the old catalog and its log are kept."""


def rebuild(folder: Folder, files: Iterable[CheckedFile]) -> Rebuilt:
    """Make a new catalog from the old catalog and the value files, and replace the old catalog with it.

    Parameters
    ----------
    folder
        The store directory.
    files
        The results of the check of all value files, as yielded by `check_files`.

    Returns
    -------
    Rebuilt
        The numbers of copied and restored rows, and the names under which the old catalog is kept.

    Raises
    ------
    StoreFormatError
        If a newer version of Stepwell wrote the old catalog.
    OSError
        If the store directory cannot be written.
    """
    import duckdb

    files = sorted(files, key=lambda file: (file.modified, file.name))
    new_catalog, spare = f"tmp/{new_id()}.duckdb", f"tmp/{new_id()}.duckdb"
    folder.examine()
    folder.mkdir("tmp")
    lease = Lease(folder)
    lease.acquire()
    try:
        store_id = new_id()
        connection = duckdb.connect(":memory:")
        try:
            with folder.database(new_catalog) as path:
                connection.execute(f"ATTACH '{quoted(path)}' AS new")
            for statement in create_statements("new"):
                connection.execute(statement)
            salvaged = _copy_tables(connection, folder, spare)
            result = Rebuilt(salvaged, salvaged.complete(read_seal(folder)))
            if not result.complete:
                result.distrusted = _distrust(connection)
            _add_files(connection, files, result)
            _append(connection, "meta", [(FORMAT, store_id, time.time(), 1)])
            connection.execute("DETACH new")
        finally:
            connection.close()
        folder.give(new_catalog)
        folder.sync(new_catalog)
        lease.mark()
        result.old_files = _put_in_place(folder, new_catalog)
        write_seal(folder, 1, store_id)
    finally:
        lease.release()
        for name in (new_catalog, f"{new_catalog}.wal", spare):
            folder.unlink(name, missing_ok=True)
    return result


def _distrust(connection: Connection) -> int:
    (count,) = connection.execute(
        "UPDATE new.materializations SET memo_key = '' WHERE memo_key <> '' AND (data_version = '' OR contains(metadata, ?))",
        [f'"{ACCEPTED}"'],
    ).fetchone()
    return int(count)


def _add_files(connection: Connection, files: list[CheckedFile], result: Rebuilt) -> None:
    """Add a row to the new catalog for each value file whose state is ``whole`` and to which no copied row refers, and count these rows in ``result``.

    If a notebook has no current materialization for a key and partition, the newest of the added materializations becomes current.
    """
    known = {
        name
        for (name,) in connection.execute(
            "SELECT DISTINCT object_name FROM new.materializations WHERE object_name IS NOT NULL"
        ).fetchall()
    }
    with_current = set(connection.execute("SELECT DISTINCT notebook, key, partition FROM new.current").fetchall())
    restored: list[Materialization] = []
    for file in files:
        if file.state == "whole" and file.header is not None and file.name not in known:
            row = _materialization(file, file.header)
            result.only_loadable += not row.memo_key and not file.header.metadata.get("about")
            restored.append(row)
    result.from_files = len(restored)
    restored.sort(key=lambda row: row.created)
    _append(connection, "materializations", [materialization_row(row) for row in restored])
    newest = {(row.notebook, row.key, row.partition): row for row in restored}
    _append(
        connection,
        "current",
        [
            current_row(Current(row.notebook, row.key, row, row.partition), row.created)
            for place, row in newest.items()
            if place not in with_current
        ],
    )


def _materialization(file: CheckedFile, header: Header) -> Materialization:
    # The JSON of a header can contain lone surrogates, which the catalog cannot store.
    fields = json.loads(json.dumps(header.metadata, ensure_ascii=False).encode("utf-8", "replace"))
    value = StoredValue(
        header.codec,
        header.digest,
        header.stream[0] + sum(size for size, _, _ in header.buffers),
        object_name=file.name,
        type_name=str(fields.get("type_name", "")),
        summary=str(fields.get("summary", "")),
        classes=_classes(fields.get("classes")),
    )
    about = fields.get("about")
    return rebuilt(
        about if isinstance(about, dict) else {},
        value,
        key=str(fields.get("key", "")),
        id_=new_id(),
        created=file.modified,
    )


def _classes(listed: object) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a name and a version in ``listed``, the field ``classes`` of a header; an empty tuple if ``listed`` is malformed."""
    if not isinstance(listed, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in listed):
        return ()
    return tuple((str(name), str(version)) for name, version in listed)


def _append(connection: Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        appender = connection.appender(f"new.{table}")
        appender.append_rows(rows)
        appender.flush()


def _put_in_place(folder: Folder, new_catalog: str) -> list[Path]:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    kept_name = f"catalog.damaged-{stamp}.duckdb"
    number = 1
    while folder.exists(kept_name):
        number += 1
        kept_name = f"catalog.damaged-{stamp}-{number}.duckdb"
    names = []
    if folder.exists(CATALOG):
        try:
            folder.link(CATALOG, kept_name)
        except OSError:
            folder.copy(CATALOG, kept_name)
        names.append(kept_name)
    folder.rename(new_catalog, CATALOG)
    if folder.exists(LOG) and folder.stat(LOG).st_size:
        folder.rename(LOG, f"{kept_name}.wal")
        names.append(f"{kept_name}.wal")
    return [folder.path / name for name in names]

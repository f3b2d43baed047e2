"""The contents of a store: full checks of value files and the catalog, removal of garbage, and the rebuild of a lost catalog.

Value files are checked in parallel, with a few files mapped at a time. The catalog is read in portions, so that other processes do not wait
long for the lease. Garbage consists of leftovers of dead processes, files without a row, and damaged files that were set aside.

A catalog that cannot be read, or that lacks acknowledged commits, is rebuilt from the headers of the value files. A header describes the
step that wrote the file and the reads of this step (`header.about`), so the new row is reused under the same conditions as the lost row.
A file whose header lacks this description can be loaded, but is never reused. Inline values, further materializations of a stored value,
and the history of runs exist only in the catalog. So each table of the old catalog that can be read completely is copied; a damaged page of
one table, a lost log or an outdated copy of the catalog does not affect the other rows. The old catalog is attached read-only, so that it
does not change. Its log is included if the log can be replayed.

If the old catalog may lack its newest rows, a lost row may have replaced some of the older rows. This matters for steps with effects, and
for accepted edits, because the acceptance may have been revoked. These rows lose their memo keys and are not reused.

The new catalog is written below ``tmp/`` and put into place by one rename; the damaged catalog is kept under another name. If the process
is killed before the rename, the damaged catalog is unchanged. If the process is killed after the rename, the log of the damaged catalog may
remain, and DuckDB refuses to open the new catalog with this log. Running the command again moves the log away.
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
    """The topic: ``locks``, ``mount``, ``permissions``, ``key``, ``disk``, ``versions``, ``catalog``, ``values``, ``missing``, ``orphans``, ``leftovers``, ..."""
    status: Status
    """``warning`` needs no action now, ``problem`` should be repaired, and ``unusable`` means that the store cannot be used."""
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """The facts stated in ``text`` as JSON values, such as counts, bytes and names."""

    def __str__(self) -> str:
        return printable(
            f"{SIGNS[self.status]} {self.about}: {self.text}" + (f"\n  {self.remedy}" if self.remedy else "")
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a dict of JSON values."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> Status:
    """Return the most severe status of the findings; ``ok`` if there are none."""
    order: tuple[Status, ...] = ("ok", "warning", "problem", "unusable")
    return max((finding.status for finding in findings), key=order.index, default="ok")


def count_text(number: int, thing: str) -> str:
    """Return a number with a noun in singular or plural, such as ``1 file`` or ``3 files``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


Progress: TypeAlias = Callable[[int, int, int], None]
"""Called with the number of checked files, the number of all files, and the checked bytes."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """The result of checking one value file."""

    name: str
    """The path of the file, relative to ``objects/``."""
    size: int
    modified: float
    """The modification time of the file, in seconds since the epoch."""
    state: Literal["whole", "damaged", "foreign", "unreadable"]
    """``foreign`` means undamaged, but unsigned or signed with another key. ``unreadable`` means written by another version of Stepwell,
    deleted during the check, or too large for this machine."""
    reason: str = ""
    header: Header | None = None
    """The header of a whole file, otherwise None."""


def check_files(folder: Folder, progress: Progress | None = None) -> Iterator[CheckedFile]:
    """Check every byte of every value file without changing the files."""
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
        # The bytes are verified at this point; reading also checks the signature.
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
"""Number of rows that are read under one lease."""


@dataclass(slots=True)
class CheckedCatalog:
    """Counts and value files of a readable catalog."""

    rows: dict[str, int] = field(default_factory=dict)
    """Number of rows by table."""
    values: dict[str, int] = field(default_factory=dict)
    """Maps the name of each value file to which a row refers to the size of the value in bytes."""
    keys: dict[str, str] = field(default_factory=dict)
    """Maps the name of each of these value files to a key of the value."""
    commits: int = 0


def check_catalog(folder: Folder) -> CheckedCatalog:
    """Read all rows of all tables.

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
    """Attach the catalog, call a function with the connection and the catalog's name, and detach the catalog.

    The errors are those of `check_catalog`.
    """
    attachment.attach(create=False)
    try:
        return query(attachment.connection, attachment.name)
    except Exception as error:
        # The queries convert only stored fields, so a conversion error means that a row contains an invalid time.
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
        # On a full disk, the checkpoint fails, but the committed rows stay in the log.
        if not isinstance(trouble(error, ""), StoreFullError):
            raise


def _read_rows(connection: Connection, name: str, table: str, begin: int) -> tuple[int, int]:
    """Return the number of rows in a portion, and the highest row id plus one. The hash makes DuckDB read and check every column."""
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
"""Age in seconds above which a file in ``tmp/``, or a value file without a row, is garbage. Younger files may be in use."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that is no longer needed."""

    name: str
    size: int


def leftovers(folder: Folder) -> list[Leftover]:
    """Return the files in ``tmp/`` that were last written more than an hour ago, and the damaged files that were set aside."""
    now = time.time()
    old = [
        Leftover(f"tmp/{name}", status.st_size)
        for name, status in folder.entries("tmp")
        # A running gc may still put a condemned value file back.
        if stat.S_ISREG(status.st_mode) and now - status.st_mtime > OLD and not name.endswith(CONDEMNED)
    ]
    damaged = [
        Leftover(f"{DAMAGED}/{name}", status.st_size)
        for name, status in folder.entries(DAMAGED)
        if stat.S_ISREG(status.st_mode)
    ]
    return [*old, *damaged]


def remove(folder: Folder, files: Iterable[Leftover]) -> tuple[int, int]:
    """Remove files; return the number and the bytes of the removed files."""
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
    """Remove those of the value files to which no row and no writer refers (`housekeeping`); return the number and bytes removed."""
    attachment = Attachment(folder)
    removed: dict[str, int] = {}
    for start in range(0, len(names), OBJECTS_AT_ONCE):
        portion = list(names[start : start + OBJECTS_AT_ONCE])
        removed |= with_catalog(attachment, partial(delete_unneeded, folder=folder, names=portion))
    return len(removed), sum(removed.values())


@dataclass(slots=True)
class Salvaged:
    """The readable part of the old catalog."""

    could_open: bool = False
    with_log: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    """Number of copied rows by table."""
    unread: list[str] = field(default_factory=list)
    """Names of tables that cannot be read."""
    commits: int = 0
    store_id: str = ""

    def complete(self, seal: Seal | None) -> bool:
        """Return True if no acknowledged row is missing, according to the seal."""
        return (
            self.could_open
            and self.with_log
            and not self.unread
            and seal is not None
            and not seal.lost_commits(self.commits, self.store_id)
        )


def _copy_tables(connection: Connection, folder: Folder, spare: str) -> Salvaged:
    """Copy every table that can be read completely into the attached, empty catalog ``new``.

    ``spare`` is an unused name for a copy of the catalog without its log. Raises `StoreFormatError` if a newer Stepwell wrote the catalog.
    """
    import duckdb

    salvaged = Salvaged()
    if not folder.exists(CATALOG):
        return salvaged
    try:
        source = CATALOG
        salvaged.with_log = _attach_old(connection, folder, source)
        if not salvaged.with_log:
            # DuckDB finds the log by the name of the catalog, so it opens the catalog under another name without the log.
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
            f"the catalog {folder.path / CATALOG} was written by a newer Stepwell (format {meta['format']}; this one knows {FORMAT})",
            remedy="upgrade: pip install -U stepwell",
        )
    salvaged.commits = meta.get("commits") or 0
    salvaged.store_id = meta.get("store_id") or ""


def _copy_table(connection: Connection, table: str) -> int:
    """Copy the columns of a table that exist in both catalogs, in row order; return the number of rows."""
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
    """The result of a rebuild."""

    salvaged: Salvaged
    complete: bool
    """True if all acknowledged rows could be read from the old catalog."""
    from_files: int = 0
    """Number of materializations restored from the headers of value files."""
    only_loadable: int = 0
    """Number of restored materializations that can be loaded but not reused, because their headers do not describe the step."""
    distrusted: int = 0
    """Number of copied rows that lost their memo keys."""
    old_files: list[Path] = field(default_factory=list)
    """New paths of the damaged catalog and its log."""


def rebuild(folder: Folder, files: Iterable[CheckedFile]) -> Rebuilt:
    """Write a new catalog and replace the damaged catalog with it.

    Parameters
    ----------
    folder
        The store.
    files
        All value files, as returned by `check_files`.

    Returns
    -------
    Rebuilt
        Counts of the rows that were read, restored and lost.

    Raises
    ------
    StoreFormatError
        If a newer Stepwell wrote the catalog.
    OSError
        If the directory cannot be written.
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
    """Add a row for each file to which no salvaged row refers.

    The newest new row of a notebook, key and partition becomes current if none is current.
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
    # JSON can contain lone surrogates, but a catalog cannot.
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
    """Return the classes and libraries that a header lists; an empty tuple if the list is malformed."""
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

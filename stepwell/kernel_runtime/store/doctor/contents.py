"""The contents of a store: value files and the catalog checked in full, garbage removed, and a lost catalog rebuilt.

Value files are checked in parallel, a few mapped at a time. The catalog is read in portions, so that no other process waits long for it.
Leftovers of dead processes, files that no row refers to, and damaged files that were set aside are garbage.

A catalog that cannot be read, or that lacks acknowledged commits, is rebuilt from the headers of the value files. A header says which step
wrote the file and what that step had read (`header.about`): the new row is reused under the same conditions as the lost one.
A file that does not say so can be loaded, and is never reused. Inline values, further materializations of a stored value and the history of
runs are in the catalog only. So each table of the old catalog that can be read whole is copied: an older copy of the catalog, a lost log or a
damaged page of one table does not cost the other tables. The old catalog is attached read-only, so that nothing of it changes: with its log
if that can be replayed, without it if not.

If the old catalog may lack its newest rows, older rows must not be trusted that a lost row may have overtaken: of steps that changed
the world, and of edits that were accepted (the acceptance may have been revoked). They lose their memo keys.

The new catalog is made below ``tmp/`` and put into place by one rename; the damaged catalog is kept under another name. A process killed before the
rename leaves the damaged catalog as it was. After it only the log of the damaged one may still be there, which DuckDB refuses beside another
catalog: then the same command finishes.
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
    """One thing that was looked at."""

    about: str
    """The topic: ``locks``, ``mount``, ``permissions``, ``key``, ``disk``, ``versions``, ``catalog``, ``values``, ``missing``, ``orphans``, ``leftovers``, ..."""
    status: Status
    """``warning``: good to know; ``problem``: should be repaired; ``unusable``: the store cannot be used."""
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same for machines: counts, bytes, names."""

    def __str__(self) -> str:
        return printable(
            f"{SIGNS[self.status]} {self.about}: {self.text}" + (f"\n  {self.remedy}" if self.remedy else "")
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> Status:
    """Return the gravest status of some findings."""
    order: tuple[Status, ...] = ("ok", "warning", "problem", "unusable")
    return max((each.status for each in findings), key=order.index, default="ok")


def counted(number: int, thing: str) -> str:
    """Return a number of things: ``1 file``, ``3 files``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


Progress: TypeAlias = Callable[[int, int, int], None]
"""Called with the files done, the files in all, and the bytes done."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One value file."""

    name: str
    """Below ``objects/``."""
    size: int
    written: float
    """The file system's time, in seconds since the epoch."""
    state: Literal["whole", "damaged", "foreign", "unreadable"]
    """``foreign``: whole, but signed by another key, or by none; ``unreadable``: of another version, gone meanwhile, or too large for this machine."""
    why: str = ""
    header: Header | None = None
    """Of a whole file."""


def check_files(folder: Folder, progress: Progress | None = None) -> Iterator[CheckedFile]:
    """Check every byte of every value file; nothing is changed."""
    found = [(name, entry.st_size, entry.st_mtime) for name, entry in value_files(folder)]
    objects = Objects(folder, Signer())
    workers = min(4, os.cpu_count() or 1)
    done = size = 0
    with ThreadPoolExecutor(workers) as pool:
        for checked in _few_at_a_time(pool, objects, found, 2 * workers):
            done += 1
            size += checked.size
            if progress is not None:
                progress(done, len(found), size)
            yield checked


def _few_at_a_time(
    pool: ThreadPoolExecutor, objects: Objects, found: Sequence[tuple[str, int, float]], limit: int
) -> Iterator[CheckedFile]:
    running: set[Future[CheckedFile]] = set()
    for each in found:
        running.add(pool.submit(_checked, objects, *each))
        if len(running) >= limit:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
    yield from (future.result() for future in running)


def _checked(objects: Objects, name: str, size: int, written: float) -> CheckedFile:
    try:
        header = objects.verify(name)
        # Whether it is whole is known; this asks who signed it.
        objects.read(name, header.digest, header.codec, key=name)
        return CheckedFile(name, size, written, "whole", header=header)
    except ValueDamagedError as error:
        return CheckedFile(name, size, written, "damaged", error.what.partition(": ")[2])
    except UntrustedValueError:
        return CheckedFile(name, size, written, "foreign")
    except (ValueUnavailableError, StoreError, OSError, MemoryError):
        return CheckedFile(name, size, written, "unreadable")


T = TypeVar("T")

ROWS_AT_ONCE = 50_000
"""Rows that are read under one lease."""


@dataclass(slots=True)
class CheckedCatalog:
    """The contents of a catalog that can be read."""

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
            begin += ROWS_AT_ONCE
    begin, end = 0, 1
    while begin < end:
        values, end = attended(attachment, partial(_values, begin=begin))
        for name, size, key in values:
            found.values[name] = size
            found.keys[name] = key
        begin += ROWS_AT_ONCE
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
"""Seconds for which a file without a row, or one in ``tmp/``, is left alone."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that is not needed any more."""

    name: str
    size: int


def leftovers(folder: Folder) -> list[Leftover]:
    """Return what dead processes left below ``tmp/`` and was not written for an hour, and what was set aside as damaged."""
    now = time.time()
    found = [
        Leftover(f"tmp/{name}", status.st_size)
        for name, status in folder.entries("tmp")
        # A condemned value file is a collector's, which may put it back.
        if stat.S_ISREG(status.st_mode) and now - status.st_mtime > OLD and not name.endswith(CONDEMNED)
    ]
    damaged = [
        Leftover(f"{DAMAGED}/{name}", status.st_size)
        for name, status in folder.entries(DAMAGED)
        if stat.S_ISREG(status.st_mode)
    ]
    return [*found, *damaged]


def remove(folder: Folder, found: Iterable[Leftover]) -> tuple[int, int]:
    """Remove files; return how many were, and their bytes."""
    count = size = 0
    for each in found:
        try:
            folder.unlink(each.name)
        except OSError:
            continue
        count += 1
        size += each.size
    return count, size


def remove_orphans(folder: Folder, names: Sequence[str]) -> tuple[int, int]:
    """Remove those value files that no row and no writer refers to (`housekeeping`); return how many, and their bytes."""
    attachment = Attachment(folder)
    removed: dict[str, int] = {}
    for at in range(0, len(names), OBJECTS_AT_ONCE):
        portion = list(names[at : at + OBJECTS_AT_ONCE])
        removed |= attended(attachment, partial(delete_unneeded, folder=folder, names=portion))
    return len(removed), sum(removed.values())


@dataclass(slots=True)
class Salvaged:
    """The part of the old catalog that could be read."""

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
            # Under another name DuckDB does not find the log.
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
    """The result of a rebuild."""

    salvaged: Salvaged
    complete: bool
    """True if everything that was acknowledged could be read from the catalog itself."""
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
    # JSON can hold halves of surrogates, which a catalog cannot.
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

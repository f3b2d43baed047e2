"""Checks of the doctor: its findings as data, value files checked in full, the catalog read as a whole, and the removal of garbage.

Value files are checked in parallel, a few mapped at a time. The catalog is read in portions, so that no other process waits long for it.
Removed are leftovers of dead processes, files that no row refers to, and damaged files that were set aside.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from stepwell.kernel_runtime.errors import (
    StoreError,
    StoreFullError,
    UntrustedValueError,
    ValueDamagedError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.store.catalog.attachment import Attachment
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.schema import TABLES
from stepwell.kernel_runtime.store.catalog.tables import rows_of
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.housekeeping import CONDEMNED, OBJECTS_AT_ONCE, delete_unneeded
from stepwell.kernel_runtime.store.objects.checked import DAMAGED
from stepwell.kernel_runtime.store.objects.header import Header
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
    """What: ``locks``, ``mount``, ``permissions``, ``key``, ``disk``, ``versions``, ``catalog``, ``values``, ``missing``, ``orphans``, ``leftovers``, ..."""
    status: Status
    """``warning``: good to know; ``problem``: to be mended; ``unusable``: the store cannot be used as it is."""
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
    """A file that nobody needs any more."""

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
    """Remove those of some value files that no row refers to and nobody is about to record (`collecting`); return how many, and their bytes."""
    attachment = Attachment(folder)
    removed: dict[str, int] = {}
    for at in range(0, len(names), OBJECTS_AT_ONCE):
        portion = list(names[at : at + OBJECTS_AT_ONCE])
        removed |= attended(attachment, partial(delete_unneeded, folder=folder, names=portion))
    return len(removed), sum(removed.values())

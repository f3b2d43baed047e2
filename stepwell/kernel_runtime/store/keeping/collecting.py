"""``gc``: deletes the rows that retention drops, value files that no row refers to, and dead files in ``tmp/``.

Rows go in one transaction, under the lease, from rules and rows as they are at that moment.

A file goes only if no committed row refers to it and nobody is about to commit one that does. Candidates are found without the lease: no
row names them, and they are older than `grace` (for workers, which write files that another process records). Then, some
at a time, under the lease: those that a row refers to by now are left; each other one is *moved away* (``tmp/<name>.condemned``); the lists of
what living processes have not recorded yet are read (`unrecorded` has the argument why in this order); what is on one is put back, the
rest is deleted. Commits need the lease, so that no row can appear in between; the lease is given back between portions, so that nobody waits
for long. A collector that is killed leaves condemned files behind; the next one treats them as candidates that are moved away already, and puts back
what a row refers to.

A row that a run in another process found before it was dropped here, and reuses after, is appended again with its pointer (`writing`); if its
file is gone by then, it is a missing value like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from stepwell.kernel_runtime.records.keeping import Collected, Rule
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import rows_of
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.keeping.housekeeping import fold, read_rules
from stepwell.kernel_runtime.store.keeping.retention import Kept, dropped
from stepwell.kernel_runtime.store.objects.unrecorded import unrecorded_names

GRACE = 3600.0
"""Seconds that a file without a row is left alone."""
DEAD = 86400.0
"""Seconds after which a file in ``tmp/`` that nobody writes to is nobody's."""
PORTION = 200
"""Files that are looked at under one lease."""
CONDEMNED = ".condemned"
"""What is moved away and not deleted yet is called so."""


def collect(
    catalog: Catalog, directory: Path, *, dry_run: bool = False, grace: float = GRACE, compact: bool | None = None
) -> Collected:
    """Free what nothing needs; return what was freed.

    Parameters
    ----------
    dry_run
        Only tell; nothing is changed.
    grace
        Seconds that a file without a row is left alone.
    compact
        Whether the catalog is rewritten; None where it is large and mostly free.
    """
    if dry_run:
        rules, gone = catalog.ask(lambda connection, name: _to_drop(connection, name, None))
        referenced = catalog.ask(lambda connection, name: _referenced(connection, name, gone))
    else:
        rules, gone = catalog.change(drop)
        referenced = catalog.ask(lambda connection, name: _referenced(connection, name, ()))
    now = time.time()
    orphans, young = _orphans(directory, referenced, now - grace)
    objects = bytes_ = 0
    if dry_run:
        listed = catalog.ask(lambda *_: unrecorded_names(directory))
        sizes = [size for each, size in orphans.items() if each not in listed]
        objects, bytes_ = len(sizes), sum(sizes)
    else:
        objects, bytes_ = delete_objects(catalog, directory, [*orphans, *_condemned(directory, now - grace)])
    temporary, temporary_bytes = _clear_temporary(directory, now - max(grace, DEAD), dry_run=dry_run)
    freed = 0
    if not dry_run:
        catalog.change(fold)
        freed = catalog.compact(force=bool(compact)) if compact is not False else 0
    return Collected(
        dry_run, len(gone), objects, bytes_, temporary, temporary_bytes, young, freed,
        sum(not rule.empty for rule in rules.values()),
    )  # fmt: skip


# -- rows --------------------------------------------------------------------------------------------------------------


def drop(connection: Connection, name: str) -> tuple[dict[str, Rule], set[str]]:
    """Delete what the rules drop, in the caller's transaction; return the rules and the ids."""
    rules, gone = _to_drop(connection, name, None)
    delete_rows(connection, name, gone)
    return rules, gone


def would_drop(connection: Connection, name: str, rules: dict[str, Rule]) -> set[str]:
    """Return the ids that other rules than the recorded ones would drop."""
    return _to_drop(connection, name, rules)[1]


def _to_drop(connection: Connection, name: str, rules: dict[str, Rule] | None) -> tuple[dict[str, Rule], set[str]]:
    rules = read_rules(connection, name) if rules is None else rules
    if all(rule.empty for rule in rules.values()):
        return rules, set()
    found = rows_of(
        connection,
        name,
        "SELECT id, key, notebook, partition, run_id, created, data_version, coalesce(digest, ''), coalesce(size, 0), "
        "CASE WHEN contains(metadata, 'stepwell:') THEN metadata ELSE '{}' END FROM @materializations ORDER BY rowid",
    )
    rows = [Kept(*[*row[:9], {} if row[9] == "{}" else json.loads(row[9])]) for row in found]
    current = {each for (each,) in rows_of(connection, name, _CURRENT)}
    running = {each for (each,) in rows_of(connection, name, "SELECT run_id FROM @runs WHERE status = 'running'")}
    return rules, dropped(rows, rules, now=time.time(), current=current, running=running)


_CURRENT = "SELECT arg_max(materialization, rowid) FROM @current GROUP BY notebook, key, partition"


def delete_rows(connection: Connection, name: str, ids: Collection[str]) -> None:
    """Delete materializations, and what was kept for them alone: captured outputs, code."""
    if not ids:
        return
    steps = rows_of(
        connection,
        name,
        "SELECT DISTINCT run_id, step_key FROM @materializations WHERE id IN (SELECT unnest(?::VARCHAR[]))",
        [list(ids)],
    )
    rows_of(connection, name, "DELETE FROM @materializations WHERE id IN (SELECT unnest(?::VARCHAR[]))", [list(ids)])
    rows_of(
        connection,
        name,
        "DELETE FROM @outputs WHERE (run_id, step_key) IN (SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])) "
        "AND (run_id, step_key) NOT IN (SELECT (run_id, step_key) FROM @materializations)",
        [[run_id for run_id, _ in steps], [step_key for _, step_key in steps]],
    )
    # Digests that other processes know to be recorded: they ask again when they see that somebody wrote.
    rows_of(
        connection,
        name,
        "DELETE FROM @code_versions WHERE digest NOT IN (SELECT code_version FROM @materializations)",
    )


def _referenced(connection: Connection, name: str, without: Collection[str]) -> set[str]:
    found = rows_of(
        connection,
        name,
        "SELECT DISTINCT object_name FROM @materializations WHERE object_name IS NOT NULL "
        "AND id NOT IN (SELECT unnest(?::VARCHAR[]))",
        [list(without)],
    )
    return {each for (each,) in found}


# -- files -------------------------------------------------------------------------------------------------------------


def _orphans(directory: Path, referenced: Collection[str], before: float) -> tuple[dict[str, int], int]:
    """Return the objects that no row refers to, with their sizes, and how many more are too new."""
    found: dict[str, int] = {}
    young = 0
    for folder in _folders(directory / "objects"):
        for entry in os.scandir(folder.path):
            name = f"{folder.name}/{entry.name}"
            if name in referenced:
                continue
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                if stat.st_mtime <= before:
                    found[name] = stat.st_size
                else:
                    young += 1
    return found, young


def _folders(path: Path) -> Iterator[os.DirEntry[str]]:
    if path.is_dir():
        yield from (entry for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))


def _condemned(directory: Path, before: float) -> list[str]:
    """Return the objects that a collector which was killed had moved away."""
    found = []
    for path in (directory / "tmp").glob(f"*{CONDEMNED}"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime <= before:
                found.append(f"{path.name[:2]}/{path.name.removesuffix(CONDEMNED)}")
    return found


def delete_objects(catalog: Catalog, directory: Path, names: Sequence[str]) -> tuple[int, int]:
    """Delete those of some objects that nobody needs, a portion under each lease; return how many and their bytes."""
    count = total = 0
    for at in range(0, len(names), PORTION):
        portion = list(names[at : at + PORTION])
        deleted = catalog.ask(lambda connection, name: delete_unneeded(connection, name, directory, portion))  # noqa: B023 - asked at once
        count += len(deleted)
        total += sum(deleted.values())
    return count, total


def delete_unneeded(connection: Connection, name: str, directory: Path, names: list[str]) -> dict[str, int]:
    """Delete those of some objects that nobody needs; the caller holds the lease. Return what was deleted, with sizes."""
    rows = rows_of(
        connection,
        name,
        "SELECT DISTINCT object_name FROM @materializations WHERE object_name IN (SELECT unnest(?::VARCHAR[]))",
        [names],
    )
    needed = {each for (each,) in rows}
    moved: dict[str, Path] = {}
    for each in names:
        there, away = directory / "objects" / each, directory / "tmp" / f"{each.rpartition('/')[2]}{CONDEMNED}"
        if each not in needed:
            # Gone already, or open in a program on Windows: the next collection sees to it.
            with contextlib.suppress(OSError):
                there.replace(away)
        if away.exists():
            moved[each] = away
    needed |= unrecorded_names(directory)
    deleted: dict[str, int] = {}
    for each, away in moved.items():
        there = directory / "objects" / each
        with contextlib.suppress(OSError):
            if each in needed and not there.exists():
                there.parent.mkdir(exist_ok=True)
                away.replace(there)
                continue
            size = away.stat().st_size
            away.unlink()
            if each not in needed:
                deleted[each] = size
    return deleted


def _clear_temporary(directory: Path, before: float, *, dry_run: bool) -> tuple[int, int]:
    """Delete what dead processes left in ``tmp/``; return how many and their bytes."""
    count = total = 0
    folder = directory / "tmp"
    for entry in os.scandir(folder) if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            if entry.stat(follow_symlinks=False).st_mtime > before or entry.name.endswith(CONDEMNED):
                continue
            if entry.is_dir(follow_symlinks=False):
                files = [path for path in Path(entry.path).rglob("*") if path.is_file()]
                if any(path.stat().st_mtime > before for path in files):
                    continue
                size = sum(path.stat().st_size for path in files)
                if not dry_run:
                    shutil.rmtree(entry.path)
            else:
                size = entry.stat(follow_symlinks=False).st_size
                if not dry_run:
                    Path(entry.path).unlink()
            count += 1
            total += size
    return count, total

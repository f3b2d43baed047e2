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
import stat
import time
from collections.abc import Collection, Sequence

from stepwell.kernel_runtime.errors import StoreFullError
from stepwell.kernel_runtime.records.retention import Collected, Rule
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import rows_of
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.keeping.housekeeping import fold, read_rules
from stepwell.kernel_runtime.store.keeping.retention import Kept, dropped
from stepwell.kernel_runtime.store.objects.files import value_files
from stepwell.kernel_runtime.store.objects.unrecorded import unrecorded_names

GRACE = 3600.0
"""Seconds that a file without a row is left alone."""
DEAD = 86400.0
"""Seconds after which a file in ``tmp/`` that nobody writes to is nobody's."""
GOING_ON = 7 * 86400.0
"""Seconds after its start in which a run without an end counts as going on: nobody writes the end of one that was killed. What a
longer one made is current in its notebook, and stays for that."""
PORTION = 200
"""Files that are looked at under one lease."""
CONDEMNED = ".condemned"
"""What is moved away and not deleted yet is called so."""


def collect(
    catalog: Catalog, folder: Folder, *, dry_run: bool = False, grace: float = GRACE, compact: bool | None = None
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
    if compact:
        catalog.check_owner()
    if dry_run:
        rules, gone = catalog.ask(lambda connection, name: _to_drop(connection, name, None))
        referenced = catalog.ask(lambda connection, name: _referenced(connection, name, gone))
    else:
        try:
            rules, gone = catalog.change(drop, frees=True)
        except StoreFullError:
            # Not even the reserve is there any more. Files without a row need no transaction.
            _delete_files(catalog, folder, grace)
            rules, gone = catalog.change(drop, frees=True)
        referenced = catalog.ask(lambda connection, name: _referenced(connection, name, ()))
    now = time.time()
    orphans, young = _orphans(folder, referenced, now - grace)
    objects = bytes_ = 0
    if dry_run:
        listed = catalog.ask(lambda *_: unrecorded_names(folder))
        sizes = [size for each, size in orphans.items() if each not in listed]
        objects, bytes_ = len(sizes), sum(sizes)
    else:
        objects, bytes_ = delete_objects(catalog, folder, [*orphans, *_condemned(folder, now - grace)])
    temporary, temporary_bytes = _clear_temporary(folder, now - max(grace, DEAD), dry_run=dry_run)
    freed = 0
    if not dry_run:
        catalog.change(fold, frees=True)
        freed = _compacted(catalog, compact)
    return Collected(
        dry_run, len(gone), objects, bytes_, temporary, temporary_bytes, young, freed,
        sum(not rule.empty for rule in rules.values()),
    )  # fmt: skip


def _delete_files(catalog: Catalog, folder: Folder, grace: float) -> None:
    referenced = catalog.ask(lambda connection, name: _referenced(connection, name, ()))
    now = time.time()
    _clear_temporary(folder, now - max(grace, DEAD), dry_run=False)
    orphans, _ = _orphans(folder, referenced, now - grace)
    delete_objects(catalog, folder, [*orphans, *_condemned(folder, now - grace)])


def _compacted(catalog: Catalog, compact: bool | None) -> int:
    """Compact the catalog where that is wanted; where nobody asked for it, it waits until there is room for the copy."""
    if compact is False:
        return 0
    try:
        return catalog.compact(force=bool(compact))
    except StoreFullError:
        if compact:
            raise
        return 0


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
    now = time.time()
    running = {each for (each,) in rows_of(connection, name, _RUNNING, [now - GOING_ON])}
    return rules, dropped(rows, rules, now=now, current=current, running=running)


_RUNNING = "SELECT run_id FROM @runs WHERE status = 'running' AND started > ?"
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


def _orphans(folder: Folder, referenced: Collection[str], before: float) -> tuple[dict[str, int], int]:
    """Return the objects that no row refers to, with their sizes, and how many more are too new."""
    found: dict[str, int] = {}
    young = 0
    for name, status in value_files(folder):
        if name in referenced:
            continue
        if status.st_mtime <= before:
            found[name] = status.st_size
        else:
            young += 1
    return found, young


def _condemned(folder: Folder, before: float) -> list[str]:
    """Return the objects that a collector which was killed had moved away."""
    return [
        f"{name[:2]}/{name.removesuffix(CONDEMNED)}"
        for name, status in folder.entries("tmp")
        if name.endswith(CONDEMNED) and status.st_mtime <= before
    ]


def delete_objects(catalog: Catalog, folder: Folder, names: Sequence[str]) -> tuple[int, int]:
    """Delete those of some objects that nobody needs, a portion under each lease; return how many and their bytes."""
    count = total = 0
    for at in range(0, len(names), PORTION):
        portion = list(names[at : at + PORTION])
        deleted = catalog.ask(lambda connection, name: delete_unneeded(connection, name, folder, portion))  # noqa: B023 - asked at once
        count += len(deleted)
        total += sum(deleted.values())
    return count, total


def delete_unneeded(connection: Connection, name: str, folder: Folder, names: list[str]) -> dict[str, int]:
    """Delete those of some objects that nobody needs; the caller holds the lease. Return what was deleted, with sizes."""
    rows = rows_of(
        connection,
        name,
        "SELECT DISTINCT object_name FROM @materializations WHERE object_name IN (SELECT unnest(?::VARCHAR[]))",
        [names],
    )
    needed = {each for (each,) in rows}
    moved: dict[str, str] = {}
    for each in names:
        there, away = f"objects/{each}", f"tmp/{each.rpartition('/')[2]}{CONDEMNED}"
        if each not in needed:
            # Gone already, or open in a program on Windows: the next collection sees to it.
            with contextlib.suppress(OSError):
                folder.rename(there, away)
        if folder.exists(away):
            moved[each] = away
    needed |= unrecorded_names(folder)
    deleted: dict[str, int] = {}
    for each, away in moved.items():
        there = f"objects/{each}"
        with contextlib.suppress(OSError):
            if each in needed and not folder.exists(there):
                folder.mkdir(f"objects/{each[:2]}")
                folder.rename(away, there)
                continue
            size = folder.stat(away).st_size
            folder.unlink(away)
            if each not in needed:
                deleted[each] = size
    return deleted


def _clear_temporary(folder: Folder, before: float, *, dry_run: bool) -> tuple[int, int]:
    """Delete what dead processes left in ``tmp/``; return how many and their bytes."""
    count = total = 0
    for each, status in folder.entries("tmp"):
        name = f"tmp/{each}"
        with contextlib.suppress(OSError):
            if status.st_mtime > before or each.endswith(CONDEMNED):
                continue
            if stat.S_ISDIR(status.st_mode):
                files = _files_below(folder, name)
                if any(one.st_mtime > before for one in files):
                    continue
                size = sum(one.st_size for one in files)
                if not dry_run:
                    folder.rmtree(name)
            else:
                size = status.st_size
                if not dry_run:
                    folder.unlink(name)
            count += 1
            total += size
    return count, total


def _files_below(folder: Folder, name: str) -> list[os.stat_result]:
    found: list[os.stat_result] = []
    for each, status in folder.entries(name):
        found += _files_below(folder, f"{name}/{each}") if stat.S_ISDIR(status.st_mode) else [status]
    return found

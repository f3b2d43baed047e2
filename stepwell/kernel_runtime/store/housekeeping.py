"""Housekeeping: what keeps a store small. Garbage collection, hourly folding of the catalog, sizes, forgetting a key, carrying rows to another key.

*Folding* deletes moves of pointers that later ones have overtaken, and, of
runs that succeeded, the rows of steps that were only reused, once there are more than `REUSED` of them. (Ten thousand steps that
are found fresh every minute make fourteen million such rows a day.) The newest runs keep theirs; so do runs
that failed, since a resumed run reads them. Rows of executed steps always stay.

The time of the last housekeeping, and the sizes that it found, are in ``housekeeping.json`` beside the catalog: one small file that every
process can look at without the lease.

``gc`` deletes the rows that retention drops, value files that no row refers to, and dead files in ``tmp/``.

Rows go in one transaction, under the lease, from rules and rows as they are at that moment.

A file goes only if no committed row refers to it and no process is about to commit one that does. Candidates are found without the lease: no
row names them, and they are older than `grace` (for workers, which write files that another process records). Then, some
at a time, under the lease: those that a row refers to by now are left; each other one is *moved away* (``tmp/<name>.condemned``); the lists of
what living processes have not recorded yet are read (`processes` says why in this order); what is on one is put back, the
rest is deleted. Commits need the lease, so that no row can appear in between; the lease is given back between portions, so that no process waits
for long. A collector that is killed leaves condemned files behind; the next one treats them as candidates that are moved away already, and puts back
what a row refers to.

A row that a run in another process found before it was dropped here, and reuses after, is appended again with its pointer (`tables`); if its
file is gone by then, it is a missing value like any other.

Forgetting a key removes its rows and the value files that nothing else refers to; it cannot be undone. Rows are carried over to another
key in one transaction, with the output of their steps and the pointers to what is current.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from stepwell.kernel_runtime.errors import StoreFullError, unknown_key
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.maintenance import STORE, Collected, Forgotten, KeySize, Rule, Sizes
from stepwell.kernel_runtime.records.materializations import CodeVersion, Current, Materialization
from stepwell.kernel_runtime.store.catalog import compaction
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.schema import code_row, current_row, materialization_row
from stepwell.kernel_runtime.store.catalog.tables import append, known_codes, read_counts, read_keys, rows_of
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.value_files import value_files
from stepwell.kernel_runtime.store.processes import unrecorded_names
from stepwell.kernel_runtime.store.retention import Kept, dropped, read_rules
from stepwell.kernel_runtime.store.trouble import named

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

EVERY = 3600.0
"""Seconds between two housekeepings of a store, by whichever processes."""
REUSED = 100_000
"""Rows of reused steps that are kept at least."""
_FILE = "housekeeping.json"
_MOST = 4096


def is_due(store: ValueStore) -> bool:
    """Return True if the last housekeeping is an hour ago, and the store can be written.

    A store that was never cleaned counts from its making. A clock that was set back makes housekeeping due.
    """
    if store.catalog.read_only or not store.folder.is_in_place():
        return False
    for name in (_FILE, "CACHEDIR.TAG"):
        with contextlib.suppress(OSError):
            age = time.time() - store.folder.glance(name).st_mtime
            return not 0 <= age < EVERY
    return True


def read_sizes(folder: Folder) -> Sizes | None:
    """Return what the last housekeeping found; None before the first."""
    try:
        return Sizes(**json.loads(folder.read(_FILE, _MOST)))
    except (OSError, ValueError, TypeError):
        return None


def write_sizes(folder: Folder, sizes: Sizes) -> None:
    """Record what a housekeeping found, and that it was now."""
    making = f"tmp/{new_id()}"
    with contextlib.suppress(OSError):
        folder.write(making, json.dumps(asdict(sizes)).encode())
        folder.rename(making, _FILE)


def fold(connection: Connection, name: str, reused: int = REUSED) -> tuple[int, int]:
    """Delete overtaken pointers, and reused steps of old runs; return how many of each. Runs in the caller's transaction."""
    ((pointers,),) = rows_of(
        connection,
        name,
        "DELETE FROM @current WHERE rowid NOT IN (SELECT max(rowid) FROM @current GROUP BY notebook, key, partition)",
    )
    ((count,),) = rows_of(connection, name, "SELECT count(*) FROM @steps WHERE status = 'reused'")
    if count <= reused:
        return pointers, 0
    # The newest runs whose rows together are few enough keep them.
    ((steps,),) = rows_of(
        connection,
        name,
        "DELETE FROM @steps WHERE status = 'reused' AND run_id IN ("
        "SELECT run_id FROM (SELECT run_id, sum(count(*)) OVER (ORDER BY max(rowid) DESC) AS total FROM @steps WHERE status = 'reused' GROUP BY run_id) "
        "WHERE total > ?) AND run_id IN (SELECT run_id FROM @runs WHERE status = 'success')",
        [reused // 2],
    )
    return pointers, steps


GRACE = 3600.0
"""Seconds that a file without a row is left alone."""
DEAD = 86400.0
"""Seconds after its last change for which a file in ``tmp/`` may belong to a living process."""
GOING_ON = 7 * 86400.0
"""Seconds after its start for which a run without an end counts as going on: the end of a killed run is never written. The results of a
longer run are current in its notebook, and stay for that reason."""
OBJECTS_AT_ONCE = 200
"""Files that are looked at under one lease."""
CONDEMNED = ".condemned"
"""The suffix of files that are moved away and not deleted yet."""


@named
def collect(
    store: ValueStore, *, dry_run: bool = False, grace: float = GRACE, compact: bool | None = None
) -> Collected:
    """Delete what retention drops, files without a row, and what dead processes left; return what was freed.

    Parameters
    ----------
    dry_run
        Only report; nothing is changed.
    grace
        Seconds that a file without a row is left alone.
    compact
        Whether the catalog is rewritten; None where it is large and mostly free.
    """
    catalog, folder = store.catalog, store.folder
    if compact:
        compaction.check_owner(catalog)
    if dry_run:
        rules, gone = catalog.ask(_to_drop)
        referenced = catalog.ask(_referenced, gone)
    else:
        try:
            rules, gone = catalog.change(drop, frees=True)
        except StoreFullError:
            # Not even the reserve is there any more. Files without a row need no transaction.
            _delete_files(catalog, folder, grace)
            rules, gone = catalog.change(drop, frees=True)
        referenced = catalog.ask(_referenced, ())
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
    referenced = catalog.ask(_referenced, ())
    now = time.time()
    _clear_temporary(folder, now - max(grace, DEAD), dry_run=False)
    orphans, _ = _orphans(folder, referenced, now - grace)
    delete_objects(catalog, folder, [*orphans, *_condemned(folder, now - grace)])


def _compacted(catalog: Catalog, compact: bool | None) -> int:
    """Compact the catalog. If that was not asked for and there is no room for the copy, do nothing."""
    if compact is False:
        return 0
    try:
        return compaction.compact(catalog, force=bool(compact))
    except StoreFullError:
        if compact:
            raise
        return 0


# -- rows --------------------------------------------------------------------------------------------------------------


def drop(connection: Connection, name: str) -> tuple[dict[str, Rule], set[str]]:
    """Delete what the rules drop, in the caller's transaction; return the rules and the ids."""
    rules, gone = _to_drop(connection, name)
    delete_rows(connection, name, gone)
    return rules, gone


def would_drop(connection: Connection, name: str, rules: dict[str, Rule]) -> set[str]:
    """Return the ids that other rules than the recorded ones would drop."""
    return _to_drop(connection, name, rules)[1]


def _to_drop(
    connection: Connection, name: str, rules: dict[str, Rule] | None = None
) -> tuple[dict[str, Rule], set[str]]:
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
    # Digests that other processes know to be recorded: they ask again when they see that another process wrote.
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
    """Delete those objects that no row and no writer refers to, a portion under each lease; return how many and their bytes."""
    count = total = 0
    for at in range(0, len(names), OBJECTS_AT_ONCE):
        portion = list(names[at : at + OBJECTS_AT_ONCE])
        deleted = catalog.ask(delete_unneeded, folder, portion)
        count += len(deleted)
        total += sum(deleted.values())
    return count, total


def delete_unneeded(connection: Connection, name: str, folder: Folder, names: list[str]) -> dict[str, int]:
    """Delete those objects that no row and no writer refers to; the caller holds the lease. Return the deleted names with their sizes."""
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


def read_key_sizes(connection: Connection, name: str) -> list[KeySize]:
    """Read what each key takes, the largest first."""
    rows = rows_of(
        connection,
        name,
        "SELECT key, sum(versions)::BIGINT, sum(size)::BIGINT AS total FROM ("
        "SELECT key, count(*) AS versions, coalesce(max(size), 0) AS size FROM @materializations GROUP BY key, digest) "
        "GROUP BY key ORDER BY total DESC, key",
    )
    return [KeySize(*row) for row in rows]


@named
def housekeep(store: ValueStore) -> bool:
    """Do what is due once an hour, if it is due; return whether it was.

    Where there are retention rules, they are applied and what they freed is collected; without one nothing but dead rows goes. A catalog that is
    large and mostly free room is rewritten.
    """
    if not is_due(store):
        return False
    # Before the work, so that no other process begins the same.
    write_sizes(store.folder, Sizes(time.time(), *_bytes(store)))
    if store.catalog.ask(read_rules):
        collect(store)
    else:
        store.catalog.change(fold)
        compaction.compact(store.catalog, force=False)
    write_sizes(store.folder, measure(store))
    return True


def measure(store: ValueStore) -> Sizes:
    """Return how large a store is, and what of it ``gc`` would free."""
    garbage = collect(store, dry_run=True)
    return Sizes(time.time(), *_bytes(store), garbage.bytes, store.catalog.ask(_older_bytes))


def _bytes(store: ValueStore) -> tuple[int, int]:
    """Return the bytes of all value files, and those of the catalog."""
    return store.objects.usage()[1], store.folder.stat(CATALOG).st_size


@named
def sizes(store: ValueStore) -> dict[str, int]:
    """Return ``materializations``, ``runs``, ``objects``, ``object_bytes`` and ``catalog_bytes``."""
    counts = store.catalog.ask(read_counts)
    files, total = store.objects.usage()
    return {**counts, "objects": files, "object_bytes": total, "catalog_bytes": store.folder.stat(CATALOG).st_size}


def _older_bytes(connection: Connection, name: str) -> int:
    """Return the bytes of value files that only older versions refer to."""
    gone = would_drop(connection, name, {STORE: Rule(versions=1)})
    if not gone:
        return 0
    ((found,),) = rows_of(
        connection,
        name,
        "SELECT coalesce(sum(size), 0)::BIGINT FROM (SELECT object_name, max(size) AS size FROM @materializations "
        "WHERE object_name IS NOT NULL GROUP BY object_name HAVING bool_and(id IN (SELECT unnest(?::VARCHAR[]))))",
        [list(gone)],
    )
    return int(found)


# A key, the steps inside it, and their outputs.
_MINE = "(key = $1 OR starts_with(key, $1 || '.') OR starts_with(key, $1 || ':'))"
_STEPS = f"SELECT DISTINCT step_key FROM @materializations WHERE {_MINE}"  # noqa: S608 - constants of our own
_ROWS = f"SELECT id, key, notebook, object_name, size FROM @materializations WHERE {_MINE}"  # noqa: S608 - as above
_POINTERS = f"SELECT count(*) FROM @current WHERE {_MINE}"  # noqa: S608 - as above
_SHARED = f"SELECT DISTINCT object_name FROM @materializations WHERE NOT {_MINE} AND object_name IN (SELECT unnest($2::VARCHAR[]))"  # noqa: S608 - as above
_DELETE = tuple(f"DELETE FROM @{table} WHERE {_MINE}" for table in ("current", "retention"))  # noqa: S608 - as above


@named
def forget(store: ValueStore, key: str, *, dry_run: bool = False) -> Forgotten:
    """Remove every version of a key, of all notebooks, with the steps inside it; return what that freed.

    Values are kept by their content: one that another key has too stays.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the key.
    """
    if dry_run:
        return store.catalog.ask(_found, key, True)[0]
    forgotten, names = store.catalog.change(_forget, key, frees=True)
    delete_objects(store.catalog, store.folder, names)
    return forgotten


def _forget(connection: Connection, name: str, key: str) -> tuple[Forgotten, list[str]]:
    forgotten, ids, names = _found(connection, name, key, False)
    steps = [step for (step,) in rows_of(connection, name, _STEPS, [key])]
    delete_rows(connection, name, ids)
    for text in _DELETE:
        rows_of(connection, name, text, [key])
    # What a multi-asset's step did is still the story of its other outputs.
    rows_of(
        connection,
        name,
        "DELETE FROM @steps WHERE key IN (SELECT unnest(?::VARCHAR[])) AND key NOT IN (SELECT step_key FROM @materializations)",
        [[*steps, key]],
    )
    return forgotten, names


def _found(connection: Connection, name: str, key: str, dry_run: bool) -> tuple[Forgotten, list[str], list[str]]:
    rows = rows_of(connection, name, _ROWS, [key])
    pointed = rows_of(connection, name, _POINTERS, [key])[0][0]
    if not rows and not pointed:
        raise unknown_key("stored key", key, read_keys(connection, name))
    sizes = {object_name: size for *_, object_name, size in rows if object_name is not None}
    shared = {each for (each,) in rows_of(connection, name, _SHARED, [key, list(sizes)])}
    alone = [each for each in sizes if each not in shared]
    inline = sum(size or 0 for *_, object_name, size in rows if object_name is None)
    forgotten = Forgotten(
        key, dry_run, tuple(sorted({row[1] for row in rows} | {key})), len(rows), len(alone),
        sum(sizes[each] for each in alone) + inline, len(shared), tuple(sorted({row[2] for row in rows if row[2]})),
    )  # fmt: skip
    return forgotten, [row[0] for row in rows], alone


def carry_over(
    store: ValueStore,
    made: Sequence[Materialization],
    current: Sequence[Current],
    *,
    steps: Mapping[str, str],
    gone: Sequence[Current] = (),
    code: CodeVersion | None = None,
) -> None:
    """Record materializations that are copies of others under another key, and what is current now, all or nothing.

    Parameters
    ----------
    made, current
        Oldest first.
    steps
        By the step that captured outputs were recorded for, the one that they are recorded for as well.
    gone
        What is not current any more.
    code
        The parts of the code version that they have.
    """

    def carried(connection: Connection, name: str) -> None:
        if code is not None and code.digest not in known_codes(connection, name, [code.digest]):
            append(connection, f"{name}.code_versions", [code_row(code)])
        append(connection, f"{name}.materializations", [materialization_row(item) for item in made])
        now = time.time()
        append(connection, f"{name}.current", [current_row(each, now) for each in current])
        for old, new in steps.items():
            rows_of(
                connection,
                name,
                "INSERT INTO @outputs (run_id, step_key, kind, stream, text, data, metadata) "
                "SELECT run_id, ?, kind, stream, text, data, metadata FROM @outputs WHERE step_key = ? "
                "AND run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY rowid",
                [new, old, list({item.run_id for item in made if item.step_key == new})],
            )
        for each in gone:
            rows_of(
                connection,
                name,
                "DELETE FROM @current WHERE notebook = ? AND key = ? AND partition = ?",
                [each.notebook, each.key, each.partition],
            )

    store.catalog.change(carried)

"""Work that keeps a store small: garbage collection, the hourly housekeeping, forgetting a key, and copying rows to another key.

A *pointer* is a catalog row that says which materialization is current for a notebook, key and partition. *Folding* deletes every pointer
that a newer pointer has replaced. The catalog also has a row for each step of each run. If more than `REUSED` of these rows record reused
steps, folding deletes the rows of reused steps of older successful runs. (For example, a check of ten thousand fresh steps every minute adds
fourteen million rows of reused steps a day.) The rows of failed runs are kept, because a resumed run reads them. The rows of executed steps
are always kept.

The time of the last housekeeping, and the sizes that it measured, are stored in the store directory, in ``housekeeping.json``. Every process
can read this small file without the lease.

``gc`` deletes the materializations that the retention rules drop, the value files to which no row refers, and abandoned files in ``tmp/``.
The rules are read and the rows are deleted in one transaction under the lease.

A value file is deleted only if no committed row refers to it and no process is about to commit a row that refers to it. Each process keeps a
list of the files whose rows are not committed yet, its *unrecorded* files (`processes`).

First, the collector lists the candidates: value files that are older than `GRACE` seconds and to which no row refers. This needs no lease. New
files are excluded, because one process may store a value whose row another process commits. If the first process ends before this commit, its
list no longer protects the file. Then, in portions and under the lease:

1. candidates to which a row now refers are skipped;
2. the other candidates are *condemned*: they are moved to ``tmp/<name>.condemned``;
3. the lists of unrecorded files of live processes are read (`processes` explains why this happens after the move);
4. condemned files that are on such a list are moved back, and the other condemned files are deleted.

A commit needs the lease, so no row can be committed between these steps. The lease is released between two portions, so that no process waits
long. If a collector is killed, condemned files stay in ``tmp/``. The next collector moves such a file back if a row or a list refers to it,
and deletes it otherwise.

A run in another process may read the row of a materialization just before the row is deleted here, and reuse the materialization. When that
run commits its pointer to the materialization, the row is appended again (see the module `tables`). If the value file has been deleted, the
value counts as missing.

Forgetting a key deletes the rows of the key, and the value files to which no row of another key refers. This cannot be undone.
`record_copies` adds copies of materializations under another key, with the captured outputs of their steps and the pointers to the copies.
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
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.store.catalog import compaction
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.schema import current_row, materialization_row
from stepwell.kernel_runtime.store.catalog.tables import append, read_counts, read_keys, rows_of
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.value_files import value_files
from stepwell.kernel_runtime.store.processes import unrecorded_names
from stepwell.kernel_runtime.store.retention import Kept, ids_to_drop, read_rules
from stepwell.kernel_runtime.store.trouble import with_store_errors

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

EVERY = 3600.0
"""Minimum number of seconds between two housekeepings of a store, even by different processes."""
REUSED = 100_000
"""Number of rows of reused steps in the catalog above which `fold` deletes some of these rows."""
_FILE = "housekeeping.json"
_MOST = 4096
"""Maximum number of bytes that are read from ``housekeeping.json``."""


def is_due(store: ValueStore) -> bool:
    """Return True if the last housekeeping of the store was at least `EVERY` seconds ago and this user can write to the store.

    The first housekeeping is due an hour after the creation of the store. If the clock was set back, housekeeping is due at once. Return
    False if the store directory was moved or removed after it was opened.
    """
    if store.catalog.is_read_only or not store.folder.is_in_place():
        return False
    for name in (_FILE, "CACHEDIR.TAG"):
        with contextlib.suppress(OSError):
            age = time.time() - store.folder.glance(name).st_mtime
            return not 0 <= age < EVERY
    return True


def read_sizes(folder: Folder) -> Sizes | None:
    """Return the sizes that the last housekeeping measured; None before the first housekeeping, or if ``housekeeping.json`` cannot be read."""
    try:
        return Sizes(**json.loads(folder.read(_FILE, _MOST)))
    except (OSError, ValueError, TypeError):
        return None


def write_sizes(folder: Folder, sizes: Sizes) -> None:
    """Write ``sizes`` to ``housekeeping.json``, whose modification time then records when the last housekeeping took place.

    An error of the operating system is ignored.
    """
    making = f"tmp/{new_id()}"
    with contextlib.suppress(OSError):
        folder.write(making, json.dumps(asdict(sizes)).encode())
        folder.rename(making, _FILE)


def fold(connection: Connection, name: str, reused: int = REUSED) -> tuple[int, int]:
    """Delete the pointers that newer pointers have replaced. If there are more than ``reused`` rows of reused steps, delete some of these, too.

    The caller has begun a transaction.

    Parameters
    ----------
    connection, name
        The connection, and the name of the attached catalog.
    reused
        If the catalog has more rows of reused steps than this number, the rows of reused steps of older successful runs are deleted.

    Returns
    -------
    tuple of int and int
        The number of deleted pointers, and the number of deleted rows of steps.
    """
    ((pointers,),) = rows_of(
        connection,
        name,
        "DELETE FROM @current WHERE rowid NOT IN (SELECT max(rowid) FROM @current GROUP BY notebook, key, partition)",
    )
    ((count,),) = rows_of(connection, name, "SELECT count(*) FROM @steps WHERE status = 'reused'")
    if count <= reused:
        return pointers, 0
    # The newest runs keep their rows of reused steps, up to half of the limit.
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
"""Age in seconds below which ``gc`` keeps a value file to which no row refers."""
DEAD = 86400.0
"""Age in seconds below which ``gc`` keeps a file in ``tmp/``, because a live process may use it. The age counts from the last change."""
GOING_ON = 7 * 86400.0
"""Age in seconds below which a run without a recorded end counts as running. The limit is needed because the end of a killed run is never
recorded. If a run takes longer, its results are still kept, because they are current in its notebook."""
OBJECTS_AT_ONCE = 200
"""Number of value files that ``gc`` checks and deletes before it releases the lease."""
CONDEMNED = ".condemned"
"""The suffix of value files that ``gc`` has moved to ``tmp/`` in order to delete them."""


@with_store_errors
def collect(store: ValueStore, *, dry_run: bool = False, grace: float = GRACE, compact: bool | None = None) -> Collected:
    """Delete the materializations that the retention rules drop, value files to which no row refers, and abandoned files in ``tmp/``.

    Parameters
    ----------
    store
        The store.
    dry_run
        True to report what would be deleted, without changing anything.
    grace
        Age in seconds below which a value file to which no row refers is kept.
    compact
        True to rewrite the catalog without its free space, False not to rewrite it, None to rewrite it if it is large and mostly free space.

    Returns
    -------
    Collected
        The numbers and sizes of the rows and files that were deleted or, in a dry run, would be deleted.
    """
    catalog, folder = store.catalog, store.folder
    if compact:
        compaction.check_owner(catalog)
    if dry_run:
        rules, ids = catalog.ask(_to_drop)
        referenced = catalog.ask(_referenced, ids)
    else:
        try:
            rules, ids = catalog.change(drop, frees=True)
        except StoreFullError:
            # The disk is so full that even the space of the reserve does not suffice for a transaction. Deleting files needs no transaction.
            _delete_files(catalog, folder, grace)
            rules, ids = catalog.change(drop, frees=True)
        referenced = catalog.ask(_referenced, ())
    now = time.time()
    orphans, young = _orphans(folder, referenced, now - grace)
    objects = bytes_ = 0
    if dry_run:
        listed = catalog.ask(lambda *_: unrecorded_names(folder))
        sizes = [size for name, size in orphans.items() if name not in listed]
        objects, bytes_ = len(sizes), sum(sizes)
    else:
        objects, bytes_ = delete_objects(catalog, folder, [*orphans, *_condemned(folder, now - grace)])
    temporary, temporary_bytes = _clear_temporary(folder, now - max(grace, DEAD), dry_run=dry_run)
    freed = 0
    if not dry_run:
        catalog.change(fold, frees=True)
        freed = _compacted(catalog, compact)
    return Collected(
        dry_run, len(ids), objects, bytes_, temporary, temporary_bytes, young, freed,
        sum(not rule.empty for rule in rules.values()),
    )  # fmt: skip


def _delete_files(catalog: Catalog, folder: Folder, grace: float) -> None:
    referenced = catalog.ask(_referenced, ())
    now = time.time()
    _clear_temporary(folder, now - max(grace, DEAD), dry_run=False)
    orphans, _ = _orphans(folder, referenced, now - grace)
    delete_objects(catalog, folder, [*orphans, *_condemned(folder, now - grace)])


def _compacted(catalog: Catalog, compact: bool | None) -> int:
    """Compact the catalog as the argument ``compact`` of `collect` says; return the number of bytes by which it shrank.

    If the disk is full, raise `StoreFullError` if ``compact`` is True, and return 0 if ``compact`` is None.
    """
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
    """Delete the materializations that the retention rules drop; return the rules by key, and the ids of the deleted materializations.

    The caller has begun a transaction.
    """
    rules, ids = _to_drop(connection, name)
    delete_rows(connection, name, ids)
    return rules, ids


def would_drop(connection: Connection, name: str, rules: dict[str, Rule]) -> set[str]:
    """Return the ids of the materializations that would be dropped if ``rules`` were the rules in the catalog. ``rules`` maps keys to rules."""
    return _to_drop(connection, name, rules)[1]


def _to_drop(connection: Connection, name: str, rules: dict[str, Rule] | None = None) -> tuple[dict[str, Rule], set[str]]:
    rules = read_rules(connection, name) if rules is None else rules
    if all(rule.empty for rule in rules.values()):
        return rules, set()
    records = rows_of(
        connection,
        name,
        "SELECT id, key, notebook, partition, run_id, created, data_version, coalesce(digest, ''), coalesce(size, 0), "
        "CASE WHEN contains(metadata, 'stepwell:') THEN metadata ELSE '{}' END FROM @materializations ORDER BY rowid",
    )
    rows = [Kept(*[*row[:9], {} if row[9] == "{}" else json.loads(row[9])]) for row in records]
    current = {value for (value,) in rows_of(connection, name, _CURRENT)}
    now = time.time()
    running = {value for (value,) in rows_of(connection, name, _RUNNING, [now - GOING_ON])}
    return rules, ids_to_drop(rows, rules, now=now, current=current, running=running)


_RUNNING = "SELECT run_id FROM @runs WHERE status = 'running' AND started > ?"
_CURRENT = "SELECT arg_max(materialization, rowid) FROM @current GROUP BY notebook, key, partition"


def delete_rows(connection: Connection, name: str, ids: Collection[str]) -> None:
    """Delete the materializations with the ids ``ids``, and the captured outputs and code versions that only these materializations needed."""
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
    # Other processes remember which code versions the catalog contains. They query the catalog again when they detect that this
    # process has written.
    rows_of(
        connection,
        name,
        "DELETE FROM @code_versions WHERE digest NOT IN (SELECT code_version FROM @materializations)",
    )


def _referenced(connection: Connection, name: str, without: Collection[str]) -> set[str]:
    """Return the names of the value files to which rows refer, not counting the materializations with the ids ``without``."""
    rows = rows_of(
        connection,
        name,
        "SELECT DISTINCT object_name FROM @materializations WHERE object_name IS NOT NULL "
        "AND id NOT IN (SELECT unnest(?::VARCHAR[]))",
        [list(without)],
    )
    return {object_name for (object_name,) in rows}


# -- files -------------------------------------------------------------------------------------------------------------


def _orphans(folder: Folder, referenced: Collection[str], before: float) -> tuple[dict[str, int], int]:
    """Find the *orphans*: the value files to which no row refers.

    Parameters
    ----------
    referenced
        The names of the value files to which rows refer.
    before
        A time in seconds since the epoch.

    Returns
    -------
    tuple of dict and int
        A dictionary that maps the name of each orphan to its size in bytes, without the orphans that were changed after ``before``; and the number
        of orphans that were changed after ``before``.
    """
    orphans: dict[str, int] = {}
    young = 0
    for name, status in value_files(folder):
        if name in referenced:
            continue
        if status.st_mtime <= before:
            orphans[name] = status.st_size
        else:
            young += 1
    return orphans, young


def _condemned(folder: Folder, before: float) -> list[str]:
    """Return the names of the value files that a killed collector has moved to ``tmp/`` and not deleted.

    Files that were changed after ``before``, a time in seconds since the epoch, are omitted.
    """
    return [
        f"{name[:2]}/{name.removesuffix(CONDEMNED)}"
        for name, status in folder.entries("tmp")
        if name.endswith(CONDEMNED) and status.st_mtime <= before
    ]


def delete_objects(catalog: Catalog, folder: Folder, names: Sequence[str]) -> tuple[int, int]:
    """Delete each of the value files ``names`` unless a row refers to it or a live process is about to commit such a row.

    The lease is released after each portion of `OBJECTS_AT_ONCE` files. Return the number of deleted files, and the sum of their sizes in bytes.
    """
    count = total = 0
    for start in range(0, len(names), OBJECTS_AT_ONCE):
        portion = list(names[start : start + OBJECTS_AT_ONCE])
        deleted = catalog.ask(delete_unneeded, folder, portion)
        count += len(deleted)
        total += sum(deleted.values())
    return count, total


def delete_unneeded(connection: Connection, name: str, folder: Folder, names: list[str]) -> dict[str, int]:
    """Delete each of the value files ``names`` unless a row refers to it or a live process is about to commit such a row.

    Return a dictionary that maps the name of each deleted file to its size in bytes. The caller holds the lease.
    """
    rows = rows_of(
        connection,
        name,
        "SELECT DISTINCT object_name FROM @materializations WHERE object_name IN (SELECT unnest(?::VARCHAR[]))",
        [names],
    )
    needed = {object_name for (object_name,) in rows}
    moved: dict[str, str] = {}
    for object_name in names:
        original, away = f"objects/{object_name}", f"tmp/{object_name.rpartition('/')[2]}{CONDEMNED}"
        if object_name not in needed:
            # A file that cannot be moved was deleted already, or is open in a program (on Windows). The next collection tries again.
            with contextlib.suppress(OSError):
                folder.rename(original, away)
        if folder.exists(away):
            moved[object_name] = away
    needed |= unrecorded_names(folder)
    deleted: dict[str, int] = {}
    for object_name, away in moved.items():
        original = f"objects/{object_name}"
        with contextlib.suppress(OSError):
            if object_name in needed and not folder.exists(original):
                folder.mkdir(f"objects/{object_name[:2]}")
                folder.rename(away, original)
                continue
            size = folder.stat(away).st_size
            folder.unlink(away)
            if object_name not in needed:
                deleted[object_name] = size
    return deleted


def _clear_temporary(folder: Folder, before: float, *, dry_run: bool) -> tuple[int, int]:
    """Delete abandoned files and folders in ``tmp/``: those that were not changed after ``before``, a time in seconds since the epoch.

    A folder is abandoned only if the files below it are unchanged, too. Value files that a collector has moved to ``tmp/`` are not abandoned.
    Return the number of abandoned files and folders, and the sum of their sizes in bytes. If ``dry_run`` is true, nothing is deleted.
    """
    count = total = 0
    for entry, status in folder.entries("tmp"):
        name = f"tmp/{entry}"
        with contextlib.suppress(OSError):
            if status.st_mtime > before or entry.endswith(CONDEMNED):
                continue
            if stat.S_ISDIR(status.st_mode):
                files = _files_below(folder, name)
                if any(status_of_file.st_mtime > before for status_of_file in files):
                    continue
                size = sum(status_of_file.st_size for status_of_file in files)
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
    """Return the status of each file in the folder ``name`` and in the folders below it."""
    files: list[os.stat_result] = []
    for entry, status in folder.entries(name):
        files += _files_below(folder, f"{name}/{entry}") if stat.S_ISDIR(status.st_mode) else [status]
    return files


def read_key_sizes(connection: Connection, name: str) -> list[KeySize]:
    """Return, for each key, its number of materializations and the total size of its distinct values, the largest total size first."""
    rows = rows_of(
        connection,
        name,
        "SELECT key, sum(versions)::BIGINT, sum(size)::BIGINT AS total FROM ("
        "SELECT key, count(*) AS versions, coalesce(max(size), 0) AS size FROM @materializations GROUP BY key, digest) "
        "GROUP BY key ORDER BY total DESC, key",
    )
    return [KeySize(*row) for row in rows]


@with_store_errors
def housekeep(store: ValueStore) -> bool:
    """Run the hourly housekeeping of a store if it is due; return True if it was due.

    If the store has retention rules, housekeeping is the same as ``gc``. Otherwise, the catalog is only folded (see `fold`). In both
    cases, a catalog that is large and mostly free space is rewritten.
    """
    if not is_due(store):
        return False
    # This also records the time, before the work begins, so that no other process starts the same work.
    write_sizes(store.folder, Sizes(time.time(), *_bytes(store)))
    if store.catalog.ask(read_rules):
        collect(store)
    else:
        store.catalog.change(fold)
        compaction.compact(store.catalog, force=False)
    write_sizes(store.folder, measure(store))
    return True


def measure(store: ValueStore) -> Sizes:
    """Measure the value files, the catalog and what ``gc`` would free, and return the result (see the fields of `Sizes`)."""
    garbage = collect(store, dry_run=True)
    return Sizes(time.time(), *_bytes(store), garbage.bytes, store.catalog.ask(_older_bytes))


def _bytes(store: ValueStore) -> tuple[int, int]:
    """Return two numbers of bytes: the total size of all value files, and the size of the catalog."""
    return store.objects.usage()[1], store.folder.stat(CATALOG).st_size


@with_store_errors
def sizes(store: ValueStore) -> dict[str, int]:
    """Return counts and sizes of a store as a dictionary.

    ``materializations``, ``runs`` and ``objects`` are the numbers of materializations, runs and value files. ``object_bytes`` is the total size
    of the value files in bytes, and ``catalog_bytes`` is the size of the catalog.
    """
    counts = store.catalog.ask(read_counts)
    files, total = store.objects.usage()
    return {**counts, "objects": files, "object_bytes": total, "catalog_bytes": store.folder.stat(CATALOG).st_size}


def _older_bytes(connection: Connection, name: str) -> int:
    """Return the total size of the value files that ``gc`` keeps now, but would delete if only the newest version of each key were kept."""
    ids = would_drop(connection, name, {STORE: Rule(versions=1)})
    if not ids:
        return 0
    ((total,),) = rows_of(
        connection,
        name,
        "SELECT coalesce(sum(size), 0)::BIGINT FROM (SELECT object_name, max(size) AS size FROM @materializations "
        "WHERE object_name IS NOT NULL GROUP BY object_name "
        "HAVING bool_and(id IN (SELECT unnest(?::VARCHAR[]))) AND NOT bool_and(id IN (SELECT unnest(?::VARCHAR[]))))",
        [list(ids), list(_to_drop(connection, name)[1])],
    )
    return int(total)


# This condition matches the key $1, the keys of the steps inside it, and the keys of their outputs.
_MINE = "(key = $1 OR starts_with(key, $1 || '.') OR starts_with(key, $1 || ':'))"
_STEPS = f"SELECT DISTINCT step_key FROM @materializations WHERE {_MINE}"  # noqa: S608 - constants of our own
_ROWS = f"SELECT id, key, notebook, object_name, size FROM @materializations WHERE {_MINE}"  # noqa: S608 - as above
_POINTERS = f"SELECT count(*) FROM @current WHERE {_MINE}"  # noqa: S608 - as above
_SHARED = (
    f"SELECT DISTINCT object_name FROM @materializations WHERE NOT {_MINE} AND object_name IN (SELECT unnest($2::VARCHAR[]))"  # noqa: S608 - as above
)
_DELETE = tuple(f"DELETE FROM @{table} WHERE {_MINE}" for table in ("current", "retention"))  # noqa: S608 - as above


@with_store_errors
def forget(store: ValueStore, key: str, *, dry_run: bool = False) -> Forgotten:
    """Delete all materializations of a key and of the steps inside it, in all notebooks.

    Equal values share one value file. If another key has the same value, the file is kept, and its size does not count as deleted.

    Parameters
    ----------
    store
        The store.
    key
        The key.
    dry_run
        True to report what would be deleted, without changing anything.

    Returns
    -------
    Forgotten
        The numbers and sizes of the rows and files that were deleted or, in a dry run, would be deleted.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the key.
    """
    if dry_run:
        return store.catalog.ask(_rows_to_forget, key, True)[0]
    forgotten, names = store.catalog.change(_forget, key, frees=True)
    delete_objects(store.catalog, store.folder, names)
    return forgotten


def _forget(connection: Connection, name: str, key: str) -> tuple[Forgotten, list[str]]:
    forgotten, ids, names = _rows_to_forget(connection, name, key, False)
    steps = [step for (step,) in rows_of(connection, name, _STEPS, [key])]
    delete_rows(connection, name, ids)
    for text in _DELETE:
        rows_of(connection, name, text, [key])
    # The step of a multi-asset keeps its rows while another output of the step is stored.
    rows_of(
        connection,
        name,
        "DELETE FROM @steps WHERE key IN (SELECT unnest(?::VARCHAR[])) AND key NOT IN (SELECT step_key FROM @materializations)",
        [[*steps, key]],
    )
    return forgotten, names


def _rows_to_forget(connection: Connection, name: str, key: str, dry_run: bool) -> tuple[Forgotten, list[str], list[str]]:
    """Return the result of `forget`, the ids of the materializations to delete, and the names of the value files to delete."""
    rows = rows_of(connection, name, _ROWS, [key])
    pointed = rows_of(connection, name, _POINTERS, [key])[0][0]
    if not rows and not pointed:
        raise unknown_key("stored key", key, read_keys(connection, name))
    sizes = {object_name: size for *_, object_name, size in rows if object_name is not None}
    shared = {file for (file,) in rows_of(connection, name, _SHARED, [key, list(sizes)])}
    unshared_files = [file for file in sizes if file not in shared]
    inline = sum(size or 0 for *_, object_name, size in rows if object_name is None)
    forgotten = Forgotten(
        key, dry_run, tuple(sorted({row[1] for row in rows} | {key})), len(rows), len(unshared_files),
        sum(sizes[file] for file in unshared_files) + inline, len(shared), tuple(sorted({row[2] for row in rows if row[2]})),
    )  # fmt: skip
    return forgotten, [row[0] for row in rows], unshared_files


def record_copies(
    store: ValueStore,
    copies: Sequence[Materialization],
    current: Sequence[Current],
    *,
    steps: Mapping[str, str],
    removed: Sequence[Current] = (),
) -> None:
    """Record copies of materializations under another key, with their pointers, in one transaction.

    Parameters
    ----------
    store
        The store.
    copies, current
        The copies, and pointers to those copies that become current. Both sequences begin with the oldest.
    steps
        Maps the old key of each step to its new key. The captured outputs of the old step are copied to the new step.
    removed
        Pointers to delete, for example those of the old key.
    """

    def record(connection: Connection, name: str) -> None:
        append(connection, f"{name}.materializations", [materialization_row(item) for item in copies])
        now = time.time()
        append(connection, f"{name}.current", [current_row(pointer, now) for pointer in current])
        for old, new in steps.items():
            rows_of(
                connection,
                name,
                "INSERT INTO @outputs (run_id, step_key, kind, stream, text, data, metadata) "
                "SELECT run_id, ?, kind, stream, text, data, metadata FROM @outputs WHERE step_key = ? "
                "AND run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY rowid",
                [new, old, list({item.run_id for item in copies if item.step_key == new})],
            )
        for pointer in removed:
            rows_of(
                connection,
                name,
                "DELETE FROM @current WHERE notebook = ? AND key = ? AND partition = ?",
                [pointer.notebook, pointer.key, pointer.partition],
            )

    store.catalog.change(record)

"""Forgetting a key: its rows, and the value files that nothing else refers to. Not to be undone."""

from __future__ import annotations

from stepwell.kernel_runtime.errors import unknown_key
from stepwell.kernel_runtime.records.retention import Forgotten
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import read_keys, rows_of
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.keeping.collecting import delete_objects, delete_rows

# A key, the steps inside it, and their outputs.
_MINE = "(key = $1 OR starts_with(key, $1 || '.') OR starts_with(key, $1 || ':'))"
_STEPS = f"SELECT DISTINCT step_key FROM @materializations WHERE {_MINE}"  # noqa: S608 - constants of our own
_ROWS = f"SELECT id, key, notebook, object_name, size FROM @materializations WHERE {_MINE}"  # noqa: S608 - as above
_POINTERS = f"SELECT count(*) FROM @current WHERE {_MINE}"  # noqa: S608 - as above
_SHARED = f"SELECT DISTINCT object_name FROM @materializations WHERE NOT {_MINE} AND object_name IN (SELECT unnest($2::VARCHAR[]))"  # noqa: S608 - as above
_DELETE = tuple(f"DELETE FROM @{table} WHERE {_MINE}" for table in ("current", "retention"))  # noqa: S608 - as above


def forget(catalog: Catalog, folder: Folder, key: str, *, dry_run: bool = False) -> Forgotten:
    """Remove every version of a key, of all notebooks, with the steps inside it; return what that freed.

    Values are kept by their content: one that another key has too stays.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the key.
    """
    if dry_run:
        return catalog.ask(lambda connection, name: _found(connection, name, key, dry_run=True))[0]
    forgotten, names = catalog.change(lambda connection, name: _forget(connection, name, key), frees=True)
    delete_objects(catalog, folder, names)
    return forgotten


def _forget(connection: Connection, name: str, key: str) -> tuple[Forgotten, list[str]]:
    forgotten, ids, names = _found(connection, name, key, dry_run=False)
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


def _found(connection: Connection, name: str, key: str, *, dry_run: bool) -> tuple[Forgotten, list[str], list[str]]:
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

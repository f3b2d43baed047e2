"""How large a store is, and what is done about it by itself: sizes by key, and the hourly housekeeping."""

from __future__ import annotations

import time

from stepwell.kernel_runtime.records.retention import STORE, KeySize, Rule, Sizes
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import rows_of
from stepwell.kernel_runtime.store.catalog.thread import Catalog
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.keeping.collecting import collect, would_drop
from stepwell.kernel_runtime.store.keeping.housekeeping import fold, is_due, read_rules, write_sizes
from stepwell.kernel_runtime.store.objects.files import Objects


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


def housekeep(catalog: Catalog, folder: Folder, objects: Objects) -> bool:
    """Do what is due once an hour, if it is due; tell whether it was.

    Where there are retention rules, they are applied and what they freed is collected; without one nothing but dead rows goes. A catalog that is
    large and mostly free room is rewritten.
    """
    if not is_due(folder):
        return False
    _, total = objects.usage()
    # Before the work: nobody else begins the same.
    write_sizes(folder, Sizes(time.time(), total, folder.stat(CATALOG).st_size))
    if catalog.ask(read_rules):
        collect(catalog, folder)
    else:
        catalog.change(fold)
        catalog.compact(force=False)
    write_sizes(folder, measure(catalog, folder, objects))
    return True


def measure(catalog: Catalog, folder: Folder, objects: Objects) -> Sizes:
    """Return how large a store is, and what of it ``gc`` would free."""
    _, total = objects.usage()
    garbage = collect(catalog, folder, dry_run=True)
    older = catalog.ask(_older_bytes)
    return Sizes(time.time(), total, folder.stat(CATALOG).st_size, garbage.bytes, older)


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

"""What keeps a store small by itself, and what is known of its size: at most once an hour, never while somebody waits for a run.

*Folding* takes nothing away that anybody can ask for but one thing: moves of pointers that were overtaken by later ones, and, of
runs that succeeded, the rows of steps that were merely reused, once there are more than `REUSED` of them. (Ten thousand steps that
are found fresh every minute are fourteen million such rows a day, which say nothing.) The newest runs keep theirs; so do runs
that failed, since a resumed run reads them; what was executed stays in any case.

The time of the last housekeeping, and the sizes that it found, are in ``housekeeping.json`` beside the catalog: one small file that every
process can look at without the lease.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict

from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.retention import Rule, Sizes
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import rows_of
from stepwell.kernel_runtime.store.folder import Folder

EVERY = 3600.0
"""Seconds between two housekeepings of a store, by whichever processes."""
REUSED = 100_000
"""Rows of reused steps that are kept at least."""
_FILE = "housekeeping.json"
_MOST = 4096


def is_due(folder: Folder, every: float = EVERY) -> bool:
    """Tell whether a store's last housekeeping, or its making, is that long ago; a clock that was set back makes it due."""
    for name in (_FILE, "CACHEDIR.TAG"):
        with contextlib.suppress(OSError):
            age = time.time() - folder.glance(name).st_mtime
            return not 0 <= age < every
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


def read_rules(connection: Connection, name: str) -> dict[str, Rule]:
    """Read the retention rules that hold, by key; the newest row of a key is its rule."""
    rows = rows_of(
        connection,
        name,
        "SELECT key, versions, age, bytes FROM @retention QUALIFY row_number() OVER (PARTITION BY key ORDER BY rowid DESC) = 1 ORDER BY key",
    )
    rules = {key: Rule(versions, age, size) for key, versions, age, size in rows}
    return {key: rule for key, rule in rules.items() if not rule.empty}


def write_rule(connection: Connection, name: str, key: str, rule: Rule) -> None:
    """Append the rule of a key; an empty one takes it back."""
    rows_of(
        connection,
        name,
        "INSERT INTO @retention (key, versions, age, bytes, changed) VALUES (?, ?, ?, ?, ?)",
        [key, rule.versions, rule.age, rule.bytes, time.time()],
    )


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

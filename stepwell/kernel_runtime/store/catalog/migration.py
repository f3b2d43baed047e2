"""From an older format of the catalog to this one: a copy is kept, then everything happens in one transaction.

A process killed in between leaves the older catalog, whole; the next one makes the copy again and begins anew.
"""

from __future__ import annotations

from typing import Any

from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.store.catalog.schema import FORMAT, MIGRATIONS
from stepwell.kernel_runtime.store.folder import Folder


def keep_copy(folder: Folder, number: int) -> None:
    """Copy a detached catalog of format ``number`` to ``catalog.format-N.duckdb``; an `OSError` where that is not possible."""
    making = f"tmp/{new_id()}.duckdb"
    folder.mkdir("tmp")
    try:
        folder.copy("catalog.duckdb", making)
        folder.sync(making)
        folder.rename(making, f"catalog.format-{number}.duckdb")
    finally:
        folder.unlink(making, missing_ok=True)


def migrate(connection: Any, name: str, number: int) -> None:
    """Bring the attached catalog ``name`` from format ``number`` to this one; DuckDB's error where that fails."""
    connection.begin()
    for older in range(number, FORMAT):
        for statement in MIGRATIONS[older]:
            connection.execute(statement.replace("@", f"{name}."))
    connection.execute("UPDATE @meta SET format = ?".replace("@", f"{name}."), [FORMAT])
    connection.commit()

"""From an older format of the catalog to this one: a copy is kept, then everything happens in one transaction.

A process killed in between leaves the older catalog, whole; the next one makes the copy again and begins anew.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.records.ids import new_id
from stepwell.kernel_runtime.store.catalog.schema import FORMAT, MIGRATIONS


def keep_copy(directory: Path, catalog: Path, number: int) -> None:
    """Copy a detached catalog of format ``number`` to ``catalog.format-N.duckdb``; an `OSError` where that is not possible."""
    making = directory / "tmp" / f"{new_id()}.duckdb"
    try:
        making.parent.mkdir(exist_ok=True)
        shutil.copyfile(catalog, making)
        with making.open("rb+") as file:
            os.fsync(file.fileno())
        making.replace(directory / f"catalog.format-{number}.duckdb")
    finally:
        making.unlink(missing_ok=True)


def migrate(connection: Any, name: str, number: int) -> None:
    """Bring the attached catalog ``name`` from format ``number`` to this one; DuckDB's error where that fails."""
    connection.begin()
    for older in range(number, FORMAT):
        for statement in MIGRATIONS[older]:
            connection.execute(statement.replace("@", f"{name}."))
    connection.execute("UPDATE @meta SET format = ?".replace("@", f"{name}."), [FORMAT])
    connection.commit()

"""What a catalog must not hold, because using it could then read or write elsewhere.

A store can come in an archive or a repository that somebody else made. A view in the place of one of our tables would read any file when we
ask for rows; a trigger would do so when we add some. Stepwell makes neither. What the directory must not hold: `Folder.examine`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import UntrustedStoreError
from stepwell.kernel_runtime.store.catalog.instance import alone

_EXTRA = """
    SELECT 'view', view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal
    UNION ALL SELECT 'trigger', trigger_name FROM duckdb_triggers() WHERE database_name = $1
"""


def vet_catalog(connection: Any, name: str, directory: Path) -> None:
    """Refuse an attached catalog that is more than tables.

    Raises
    ------
    UntrustedStoreError
        Naming what it is.
    """
    with alone():
        found = connection.execute(_EXTRA, [name]).fetchall()
    if found:
        kind, what = found[0]
        raise UntrustedStoreError(
            f"the catalog of the store {directory} has a {kind} in it ({what!r}), which Stepwell never makes",
            where="it could read and write files when the store is used",
            remedy="find out where the store comes from; choose another store directory",
        )

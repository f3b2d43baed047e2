"""What a store's directory must not hold, because opening it could then read or write elsewhere.

A store can come in an archive or a repository of somebody else's. A link in it would have us write through it; a view in the place of
one of our tables would read what it likes when we ask for rows; a trigger would do so when we add some. None of these is
ever made by Stepwell. A link *to* a store directory is its owner's choice. Who can write the directory at this
very moment can do no more than that: what is executed is signed, and checked as a copy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import UntrustedStoreError
from stepwell.kernel_runtime.store.catalog.instance import alone

_EXTRA = """
    SELECT 'view', view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal
    UNION ALL SELECT 'trigger', trigger_name FROM duckdb_triggers() WHERE database_name = $1
"""


def vet_links(directory: Path) -> None:
    """Refuse a store directory that has a link in it; one that is not there has none.

    Raises
    ------
    UntrustedStoreError
        Naming the link.
    """
    try:
        entries = os.scandir(directory)
    except OSError:
        return
    with entries:
        for entry in entries:
            if entry.is_symlink():
                raise UntrustedStoreError(
                    f"the store {directory} has a link in it: {entry.name!r}",
                    where="what is stored would be read and written elsewhere",
                    remedy="remove the link; to keep a store on another disk, let the directory itself be the link",
                )


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

"""A new catalog, of what can be read of a damaged one and of what the value files say in their headers.

Inline values, further materializations of a stored value and the history of runs are in the catalog only: where it cannot be read, they
are lost and computed again. What is brought back is reused under the same conditions as before, because a value file says
also what its step had read (`about`); one that does not say so can be loaded, and is never reused. If the catalog may lack its newest rows, three
kinds of older ones must not be trusted any more, since a lost row may have overtaken them: of steps that changed the world, of edits that
were accepted (the acceptance may have been taken back), and with them nothing else. They lose their memo keys.

All is made below ``tmp/`` and then put into place by one rename; the damaged catalog is kept beside it. A process killed before the
rename leaves the damaged catalog as it was. After it only the log of the damaged one may still be there, which DuckDB refuses beside another
catalog: then the same command finishes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stepwell.kernel_runtime.records.code_versions import ACCEPTED
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Current, Materialization, StoredValue
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG, LOG, quoted
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.lease import Lease
from stepwell.kernel_runtime.store.catalog.schema import FORMAT, create_statements, current_row, materialization_row
from stepwell.kernel_runtime.store.catalog.seal import read_seal, write_seal
from stepwell.kernel_runtime.store.doctor.files import CheckedFile
from stepwell.kernel_runtime.store.doctor.salvage import Salvage, Salvaged
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.about import rebuilt
from stepwell.kernel_runtime.store.objects.header import Header


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild brought back."""

    salvaged: Salvaged
    complete: bool
    """Whether everything that was acknowledged could be read from the catalog itself."""
    from_files: int = 0
    """Materializations made from the headers of value files."""
    only_loadable: int = 0
    """Those of them whose files do not say what their steps had read."""
    distrusted: int = 0
    """Rows that lost their memo keys."""
    kept: list[Path] = field(default_factory=list)
    """Where the damaged catalog is now."""


def rebuild(folder: Folder, files: Iterable[CheckedFile]) -> Rebuilt:
    """Make a new catalog and put it into the place of the damaged one.

    Parameters
    ----------
    files
        The value files, checked.

    Raises
    ------
    StoreFormatError
        If a newer Stepwell wrote the catalog.
    OSError
        If the directory cannot be written.
    """
    import duckdb

    files = sorted(files, key=lambda each: (each.written, each.name))
    making, spare = f"tmp/{new_id()}.duckdb", f"tmp/{new_id()}.duckdb"
    folder.examine()
    folder.mkdir("tmp")
    lease = Lease(folder)
    lease.acquire()
    try:
        store_id = new_id()
        connection = duckdb.connect(":memory:")
        try:
            with folder.database(making) as path:
                connection.execute(f"ATTACH '{quoted(path)}' AS new")
            for statement in create_statements("new"):
                connection.execute(statement)
            salvaged = Salvage(connection, folder, spare).run()
            found = Rebuilt(salvaged, salvaged.complete(read_seal(folder)))
            if not found.complete:
                found.distrusted = _distrust(connection)
            _add_files(connection, files, found)
            _append(connection, "meta", [(FORMAT, store_id, time.time(), 1)])
            connection.execute("DETACH new")
        finally:
            connection.close()
        folder.give(making)
        folder.sync(making)
        lease.mark()
        found.kept = _put_in_place(folder, making)
        write_seal(folder, 1, store_id)
    finally:
        lease.release()
        for left in (making, f"{making}.wal", spare):
            folder.unlink(left, missing_ok=True)
    return found


def _distrust(connection: Connection) -> int:
    (count,) = connection.execute(
        "UPDATE new.materializations SET memo_key = '' WHERE memo_key <> '' AND (data_version = '' OR contains(metadata, ?))",
        [f'"{ACCEPTED}"'],
    ).fetchone()
    return int(count)


def _add_files(connection: Connection, files: list[CheckedFile], found: Rebuilt) -> None:
    """Add a row for each file that no salvaged row refers to; for a notebook and key without one, the newest is current."""
    known = {
        name
        for (name,) in connection.execute(
            "SELECT DISTINCT object_name FROM new.materializations WHERE object_name IS NOT NULL"
        ).fetchall()
    }
    pointed = set(connection.execute("SELECT DISTINCT notebook, key, partition FROM new.current").fetchall())
    made: list[Materialization] = []
    for file in files:
        if file.state == "whole" and file.header is not None and file.name not in known:
            item = _materialization(file, file.header)
            found.only_loadable += not item.memo_key and not file.header.more.get("about")
            made.append(item)
    found.from_files = len(made)
    made.sort(key=lambda item: item.created)
    _append(connection, "materializations", [materialization_row(item) for item in made])
    newest = {(item.notebook, item.key, item.partition): item for item in made}
    _append(
        connection,
        "current",
        [
            current_row(Current(item.notebook, item.key, item, item.partition), item.created)
            for place, item in newest.items()
            if place not in pointed
        ],
    )


def _materialization(file: CheckedFile, header: Header) -> Materialization:
    # A text that is no Unicode, which JSON can hold, cannot be put into a catalog.
    more = json.loads(json.dumps(header.more, ensure_ascii=False).encode("utf-8", "replace"))
    value = StoredValue(
        header.codec,
        header.digest,
        header.stream[0] + sum(size for size, _, _ in header.buffers),
        object_name=file.name,
        type_name=str(more.get("type_name", "")),
        summary=str(more.get("summary", "")),
        classes=_classes(more.get("classes")),
    )
    about = more.get("about")
    return rebuilt(
        about if isinstance(about, dict) else {},
        value,
        key=str(more.get("key", "")),
        id_=new_id(),
        created=file.written,
    )


def _classes(told: object) -> tuple[tuple[str, str], ...]:
    """Return what a header says of classes and libraries; nothing where it says something else."""
    if not isinstance(told, list) or not all(isinstance(each, list) and len(each) == 2 for each in told):
        return ()
    return tuple((str(name), str(version)) for name, version in told)


def _append(connection: Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        appender = connection.appender(f"new.{table}")
        appender.append_rows(rows)
        appender.flush()


def _put_in_place(folder: Folder, making: str) -> list[Path]:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    kept = f"catalog.damaged-{stamp}.duckdb"
    number = 1
    while folder.exists(kept):
        number += 1
        kept = f"catalog.damaged-{stamp}-{number}.duckdb"
    found = []
    if folder.exists(CATALOG):
        try:
            folder.link(CATALOG, kept)
        except OSError:
            folder.copy(CATALOG, kept)
        found.append(kept)
    folder.rename(making, CATALOG)
    if folder.exists(LOG) and folder.stat(LOG).st_size:
        folder.rename(LOG, f"{kept}.wal")
        found.append(f"{kept}.wal")
    return [folder.path / each for each in found]

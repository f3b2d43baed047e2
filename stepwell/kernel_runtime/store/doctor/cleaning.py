"""Removing what is surely garbage: leftovers of dead processes, files that no row refers to, what was set aside as damaged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stepwell.kernel_runtime.store.attachment import Attachment, Connection
from stepwell.kernel_runtime.store.crashes import DAMAGED, value_files
from stepwell.kernel_runtime.store.doctor.catalog_check import attended
from stepwell.kernel_runtime.store.reading import rows_of

OLD = 3600.0
"""Seconds after which a file without a row is nobody's: no writer lets so much time pass between the two."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that nobody needs any more."""

    path: Path
    size: int


def old_files(folder: Path, *, now: float) -> Iterator[Leftover]:
    """Yield the files right below a folder that were not written for an hour."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(OSError):
                found = path.lstat()
                if not path.is_dir() and now - found.st_mtime > OLD:
                    yield Leftover(path, found.st_size)


def leftovers(directory: Path) -> list[Leftover]:
    """Return what dead processes left below ``tmp/`` and what was set aside as damaged."""
    now = time.time()
    damaged = [
        Leftover(each, each.stat().st_size) for each in sorted((directory / DAMAGED).glob("*")) if each.is_file()
    ]
    return [*old_files(directory / "tmp", now=now), *damaged]


def remove(found: Iterable[Leftover]) -> tuple[int, int]:
    """Remove files; return how many were, and their bytes."""
    count = size = 0
    for each in found:
        try:
            each.path.unlink()
        except OSError:
            continue
        count += 1
        size += each.size
    return count, size


def remove_orphans(directory: Path) -> tuple[int, int]:
    """Remove old value files that no row refers to, while holding the lease, so that no row can appear meanwhile."""
    attachment = Attachment(directory)
    oldest = time.time() - OLD

    def removed(connection: Connection, name: str) -> tuple[int, int]:
        rows = rows_of(
            connection, name, "SELECT DISTINCT object_name FROM @materializations WHERE object_name IS NOT NULL"
        )
        known = {row[0] for row in rows}
        return remove(
            Leftover(directory / "objects" / each, found.st_size)
            for each, found in value_files(directory)
            if found.st_mtime < oldest and each not in known
        )

    return attended(attachment, removed)

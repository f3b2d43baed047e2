"""Removing what is surely garbage: leftovers of dead processes, files that no row refers to, what was set aside as damaged."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from stepwell.kernel_runtime.store.catalog.attachment import Attachment
from stepwell.kernel_runtime.store.doctor.catalog_check import attended
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.keeping.collecting import CONDEMNED, PORTION, delete_unneeded
from stepwell.kernel_runtime.store.objects.damaged import DAMAGED

OLD = 3600.0
"""Seconds for which a file without a row, or one in ``tmp/``, is left alone."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that nobody needs any more."""

    name: str
    size: int


def leftovers(folder: Folder) -> list[Leftover]:
    """Return what dead processes left below ``tmp/`` and was not written for an hour, and what was set aside as damaged."""
    now = time.time()
    found = [
        Leftover(f"tmp/{name}", status.st_size)
        for name, status in folder.entries("tmp")
        # A condemned value file is a collector's, which may put it back.
        if stat.S_ISREG(status.st_mode) and now - status.st_mtime > OLD and not name.endswith(CONDEMNED)
    ]
    damaged = [
        Leftover(f"{DAMAGED}/{name}", status.st_size)
        for name, status in folder.entries(DAMAGED)
        if stat.S_ISREG(status.st_mode)
    ]
    return [*found, *damaged]


def remove(folder: Folder, found: Iterable[Leftover]) -> tuple[int, int]:
    """Remove files; return how many were, and their bytes."""
    count = size = 0
    for each in found:
        try:
            folder.unlink(each.name)
        except OSError:
            continue
        count += 1
        size += each.size
    return count, size


def remove_orphans(folder: Folder, names: Sequence[str]) -> tuple[int, int]:
    """Remove those of some value files that no row refers to and nobody is about to record (`collecting`); return how many, and their bytes."""
    attachment = Attachment(folder)
    removed: dict[str, int] = {}
    for at in range(0, len(names), PORTION):
        portion = list(names[at : at + PORTION])
        removed |= attended(attachment, partial(delete_unneeded, folder=folder, names=portion))
    return len(removed), sum(removed.values())

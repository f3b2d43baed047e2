"""Removing what is surely garbage: leftovers of dead processes, files that no row refers to, what was set aside as damaged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stepwell.kernel_runtime.store.catalog.attachment import Attachment
from stepwell.kernel_runtime.store.doctor.catalog_check import attended
from stepwell.kernel_runtime.store.keeping.collecting import CONDEMNED, PORTION, delete_unneeded
from stepwell.kernel_runtime.store.objects.damaged import DAMAGED

OLD = 3600.0
"""Seconds for which a file without a row, or one in ``tmp/``, is left alone."""


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
                # A condemned value file is a collector's, which may put it back.
                if not path.is_dir() and now - found.st_mtime > OLD and path.suffix != CONDEMNED:
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


def remove_orphans(directory: Path, names: Sequence[str]) -> tuple[int, int]:
    """Remove those of some value files that no row refers to and nobody is about to record (`collecting`); return how many, and their bytes."""
    attachment = Attachment(directory)
    removed: dict[str, int] = {}
    for at in range(0, len(names), PORTION):
        portion = list(names[at : at + PORTION])
        removed |= attended(attachment, partial(delete_unneeded, directory=directory, names=portion))
    return len(removed), sum(removed.values())

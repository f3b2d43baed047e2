"""The value files of a store, each checked in full: in parallel, a few mapped at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stepwell.kernel_runtime.errors import StoreError, UntrustedValueError, ValueDamagedError, ValueUnavailableError
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.files import Objects, value_files
from stepwell.kernel_runtime.store.objects.header import Header
from stepwell.kernel_runtime.store.signing import Signer

Progress: TypeAlias = Callable[[int, int, int], None]
"""Called with the files done, the files in all, and the bytes done."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One value file."""

    name: str
    """Below ``objects/``."""
    size: int
    written: float
    """The file system's time, in seconds since the epoch."""
    state: Literal["whole", "damaged", "foreign", "unreadable"]
    """``foreign``: whole, but signed by another key, or by none; ``unreadable``: of another version, gone meanwhile, or too large for this machine."""
    why: str = ""
    header: Header | None = None
    """Of a whole file."""


def check_files(folder: Folder, progress: Progress | None = None) -> Iterator[CheckedFile]:
    """Check every byte of every value file; nothing is changed."""
    found = [(name, entry.st_size, entry.st_mtime) for name, entry in value_files(folder)]
    objects = Objects(folder, Signer())
    workers = min(4, os.cpu_count() or 1)
    done = size = 0
    with ThreadPoolExecutor(workers) as pool:
        for checked in _few_at_a_time(pool, objects, found, 2 * workers):
            done += 1
            size += checked.size
            if progress is not None:
                progress(done, len(found), size)
            yield checked


def _few_at_a_time(
    pool: ThreadPoolExecutor, objects: Objects, found: Sequence[tuple[str, int, float]], limit: int
) -> Iterator[CheckedFile]:
    running: set[Future[CheckedFile]] = set()
    for each in found:
        running.add(pool.submit(_checked, objects, *each))
        if len(running) >= limit:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
    yield from (future.result() for future in running)


def _checked(objects: Objects, name: str, size: int, written: float) -> CheckedFile:
    try:
        header = objects.verify(name)
        # Whether it is whole is known; this asks who signed it.
        objects.read(name, header.digest, header.codec, key=name)
        return CheckedFile(name, size, written, "whole", header=header)
    except ValueDamagedError as error:
        return CheckedFile(name, size, written, "damaged", error.what.partition(": ")[2])
    except UntrustedValueError:
        return CheckedFile(name, size, written, "foreign")
    except (ValueUnavailableError, StoreError, OSError, MemoryError):
        return CheckedFile(name, size, written, "unreadable")

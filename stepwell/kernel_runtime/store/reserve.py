"""Room that is kept for a full disk: a file that ``gc``, ``forget`` and ``doctor`` give up while they write, and make again afterwards.

Freeing room needs some: a transaction goes to DuckDB's log before anything is deleted. Whoever fills the disk does not fill this file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TypeVar

from stepwell.kernel_runtime.errors import StoreFullError
from stepwell.kernel_runtime.store.folder import RESERVE, Folder

T = TypeVar("T")

SIZE = 1 << 20
"""Bytes that are kept: some commits, and the blocks of a checkpoint."""
AMPLE = 4 * SIZE
"""Bytes of free room below which nobody but who gave the reserve up makes it: it would take what the others need."""


def keep(folder: Folder) -> None:
    """Make the reserve where it is missing and there is ample room. Called under the lease; never an error."""
    with contextlib.suppress(OSError):
        if not _is_whole(folder) and shutil.disk_usage(folder.path).free >= AMPLE:
            _make(folder, SIZE)


@contextlib.contextmanager
def spare(folder: Folder) -> Iterator[None]:
    """Give the room of the reserve for some work, and keep afterwards as much of it as there is."""
    with contextlib.suppress(OSError):
        folder.unlink(RESERVE, missing_ok=True)
    try:
        yield
    finally:
        for part in (1, 2, 4, 8):
            if _make(folder, SIZE // part):
                break


def with_room(folder: Folder, work: Callable[[], T]) -> T:
    """Do something that changes nothing if it fails; where the disk is full, once more with the room of the reserve."""
    try:
        return work()
    except StoreFullError:
        with spare(folder):
            return work()


def _is_whole(folder: Folder) -> bool:
    try:
        return folder.stat(RESERVE).st_size >= SIZE
    except FileNotFoundError:
        return False


def _make(folder: Folder, size: int) -> bool:
    """Make the reserve of a size, its blocks allocated; return whether there was room. There is none, or a whole one, afterwards."""
    try:
        descriptor = folder.open(RESERVE, os.O_WRONLY | os.O_CREAT)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            else:
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(bytes(size))
        finally:
            os.close(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            folder.unlink(RESERVE, missing_ok=True)
        return False
    return True

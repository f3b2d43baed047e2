"""Trouble of the machine: one class of error for each kind, and the room that is kept for a full disk.

Python's `OSError` has a number; DuckDB has only a text that contains the system's words for that number. A full disk makes DuckDB refuse
the database until it is attached again ("database has been invalidated"), with the first error in the text: so `trouble` is asked
before a text is taken for damage.

Freeing room on a full disk needs some room: a transaction goes to DuckDB's log before anything is deleted. So a store keeps a file, the *reserve*, that ``gc``,
``forget`` and ``doctor`` give up while they write, and make again afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from stepwell.kernel_runtime.errors import (
    OtherDeviceError,
    StoreDiskError,
    StoreError,
    StoreFullError,
    StoreMemoryError,
    StoreNotWritableError,
    StorePermissionError,
    StoreQuotaError,
    StoreReadOnlyError,
    TooManyFilesError,
)
from stepwell.kernel_runtime.store.folder import RESERVE, Folder

P = ParamSpec("P")
T = TypeVar("T")


class _InDirectory(Protocol):
    @property
    def directory(self) -> Path: ...


S = TypeVar("S", bound=_InDirectory)

_PLACE = "choose a directory that you can write: store='DIR', or the environment variable STEPWELL_STORE"
_ROOM = "make room on its disk, then try again"
_NAMED: dict[int, tuple[type[StoreError], str, str]] = {
    errno.ENOSPC: (StoreFullError, "the disk is full", _ROOM),
    errno.EDQUOT: (StoreQuotaError, "your quota of the disk is used up", _ROOM),
    errno.EFBIG: (StoreFullError, "a file would exceed the largest size that is allowed", "raise the limit (ulimit -f), then try again"),
    errno.EMFILE: (TooManyFilesError, "this process has too many open files", "close some, or raise the limit (ulimit -n), then try again"),
    errno.ENFILE: (TooManyFilesError, "this machine has too many open files", "end programs that hold files open, then try again"),
    errno.ENOMEM: (StoreMemoryError, "there is not enough memory", "free some memory, or end other programs, then try again"),
    errno.EAGAIN: (StoreMemoryError, "the system gives no more memory or threads", "end other programs or threads, then try again"),
    errno.EACCES: (StorePermissionError, "you have no rights for it", f"{_PLACE}; stepwell doctor says who cannot write which files"),
    errno.EPERM: (StorePermissionError, "you have no rights for it", f"{_PLACE}; stepwell doctor says who cannot write which files"),
    errno.EROFS: (StoreReadOnlyError, "its file system is mounted read-only", _PLACE),
    errno.EXDEV: (OtherDeviceError, "a part of it is on another device", "move all of the store to one device: a store is one folder of one file system"),
    errno.EIO: (StoreDiskError, "the disk reports an input/output error", "check the disk and its cable or network, then try again"),
    errno.ESTALE: (StoreDiskError, "the network file system has lost it", "mount it again, then try again"),
    errno.ENOLCK: (StoreDiskError, "its file system gives no locks", "keep the store on a local disk: STEPWELL_STORE=DIR"),
}  # fmt: skip
"""By number: the class, what it is, and what to do."""
_MEMORY = ("Out of Memory", "std::bad_alloc", "failed to allocate", "Allocation failure", "could not allocate block")
_FLUSH = "fsync failed"
"""DuckDB's words for a disk that does not take what was written, which lack the system's words."""


def trouble(error: BaseException, what: str) -> StoreError | None:
    """Return our error for one by which the machine or the system refuses something, else None.

    Parameters
    ----------
    error
        An error of Python's or DuckDB's, or another with one of these as its cause.
    what
        What could not be done, naming the store: the beginning of the message.
    """
    seen: BaseException | None = error
    while seen is not None:
        number = _number(seen)
        if number is not None:
            kind, why, remedy = _NAMED[number]
            found = kind(f"{what}: {why}", where=one_line(seen), remedy=remedy)
            found.__cause__ = error
            return found
        seen = seen.__cause__
    return None


def refused(directory: Path, error: OSError | MemoryError, done: str = "used") -> StoreError:
    """Return the error of a directory in which something cannot be done."""
    what = f"the store {directory} cannot be {done}"
    return trouble(error, what) or StoreNotWritableError(what, where=one_line(error), remedy=_PLACE)


def named(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a method of a store raise our error where the machine refuses something."""

    @wraps(method)
    def called(store: S, *given: P.args, **options: P.kwargs) -> T:
        try:
            return method(store, *given, **options)
        except (OSError, MemoryError) as error:
            found = trouble(error, f"the store {store.directory} could not be used")
            if found is None:
                raise
            raise found from error

    return called  # type: ignore[return-value]  # the first parameter has another name


def _number(error: BaseException) -> int | None:
    """Return the number of a trouble, None where an error is something else."""
    if isinstance(error, OSError):
        return error.errno if error.errno in _NAMED else None
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    kind = type(error)
    text = str(error)
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return errno.EAGAIN
    if kind.__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
        return None
    for words, number in _words():
        if words in text:
            return number
    if _FLUSH in text:
        return errno.EIO
    return errno.ENOMEM if kind.__name__ == "OutOfMemoryException" or any(each in text for each in _MEMORY) else None


@cache
def _words() -> tuple[tuple[str, int], ...]:
    """Return the system's words for each number; the one that also means something else comes last."""
    return tuple((os.strerror(number), number) for number in _NAMED if number not in (errno.EPERM, errno.EAGAIN))


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


RESERVE_SIZE = 1 << 20
"""Bytes of the reserve: some commits, and the blocks of a checkpoint."""
_AMPLE = 4 * RESERVE_SIZE
"""Bytes of free room below which only the process that gave up the reserve makes it again: the room is needed for rows."""


def keep_reserve(folder: Folder) -> None:
    """Make the reserve where it is missing and there is ample room. Called under the lease; never an error."""
    with contextlib.suppress(OSError):
        if not _is_whole(folder) and shutil.disk_usage(folder.path).free >= _AMPLE:
            _make(folder, RESERVE_SIZE)


@contextlib.contextmanager
def spare(folder: Folder) -> Iterator[None]:
    """Give the room of the reserve for some work, and keep afterwards as much of it as there is."""
    with contextlib.suppress(OSError):
        folder.unlink(RESERVE, missing_ok=True)
    try:
        yield
    finally:
        for part in (1, 2, 4, 8):
            if _make(folder, RESERVE_SIZE // part):
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
        return folder.stat(RESERVE).st_size >= RESERVE_SIZE
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

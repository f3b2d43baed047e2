"""Errors of the operating system, with one class for each kind, and the reserve of disk space for a full disk.

Python's `OSError` has an error number; an error of DuckDB has only a message, which contains the system's text for the number. After an
error such as a full disk, DuckDB refuses the database until it is attached again ("database has been invalidated"); this message contains
the first error. So `trouble` is called before a message is interpreted as damage.

Freeing space on a full disk needs some space, because DuckDB writes a transaction to its log before it deletes anything. So a store
contains a file, the *reserve*. ``gc``, ``forget`` and ``doctor`` delete the reserve while they write, and create it again afterwards.
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
_ROOM = "free space on its disk, then try again"
_NAMED: dict[int, tuple[type[StoreError], str, str]] = {
    errno.ENOSPC: (StoreFullError, "the disk is full", _ROOM),
    errno.EDQUOT: (StoreQuotaError, "your quota of the disk is used up", _ROOM),
    errno.EFBIG: (StoreFullError, "a file would exceed the size limit", "raise the limit (ulimit -f), then try again"),
    errno.EMFILE: (TooManyFilesError, "this process has too many open files", "close some files, or raise the limit (ulimit -n), then try again"),
    errno.ENFILE: (TooManyFilesError, "this machine has too many open files", "end programs that hold files open, then try again"),
    errno.ENOMEM: (StoreMemoryError, "there is not enough memory", "free some memory, or end other programs, then try again"),
    errno.EAGAIN: (StoreMemoryError, "the system has no more memory or threads for it", "end other programs or threads, then try again"),
    errno.EACCES: (StorePermissionError, "you do not have permission", f"{_PLACE}; stepwell doctor lists the files that you cannot write"),
    errno.EPERM: (StorePermissionError, "you do not have permission", f"{_PLACE}; stepwell doctor lists the files that you cannot write"),
    errno.EROFS: (StoreReadOnlyError, "its file system is mounted read-only", _PLACE),
    errno.EXDEV: (OtherDeviceError, "a part of it is on another device", "move the whole store to one device"),
    errno.EIO: (StoreDiskError, "the disk reports an input/output error", "check the disk and its cable or network, then try again"),
    errno.ESTALE: (StoreDiskError, "the network file system has lost the file", "mount it again, then try again"),
    errno.ENOLCK: (StoreDiskError, "its file system does not support locks", "keep the store on a local disk: STEPWELL_STORE=DIR"),
}  # fmt: skip
"""Maps an error number to the class of the error, the description and the remedy."""
_MEMORY = ("Out of Memory", "std::bad_alloc", "failed to allocate", "Allocation failure", "could not allocate block")
_FLUSH = "fsync failed"
"""Part of DuckDB's message for a failed flush to the disk. This message does not contain the system's text."""


def trouble(error: BaseException, what: str) -> StoreError | None:
    """Return a `StoreError` for an error of the operating system; None for any other error.

    Parameters
    ----------
    error
        An error of Python or DuckDB, or an error whose cause is such an error.
    what
        The failed action, with the name of the store, as the beginning of the message.
    """
    seen: BaseException | None = error
    while seen is not None:
        number = _number(seen)
        if number is not None:
            kind, why, remedy = _NAMED[number]
            failure = kind(f"{what}: {why}", where=one_line(seen), remedy=remedy)
            failure.__cause__ = error
            return failure
        seen = seen.__cause__
    return None


def unusable_directory(directory: Path, error: OSError | MemoryError, verb: str = "used") -> StoreError:
    """Return the error for a store directory that cannot be used or written."""
    what = f"the store {directory} cannot be {verb}"
    return trouble(error, what) or StoreNotWritableError(what, where=one_line(error), remedy=_PLACE)


def with_store_errors(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Decorate a function of a store so that errors of the operating system become errors of the store."""

    @wraps(method)
    def wrapper(store: S, *arguments: P.args, **options: P.kwargs) -> T:
        try:
            return method(store, *arguments, **options)
        except (OSError, MemoryError) as error:
            failure = trouble(error, f"the store {store.directory} could not be used")
            if failure is None:
                raise
            raise failure from error

    return wrapper  # type: ignore[return-value]  # the first parameter has another name


def _number(error: BaseException) -> int | None:
    """Return the error number of the operating system to which an error corresponds; None for any other error."""
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
    for words, number in _system_texts():
        if words in text:
            return number
    if _FLUSH in text:
        return errno.EIO
    return errno.ENOMEM if kind.__name__ == "OutOfMemoryException" or any(sign in text for sign in _MEMORY) else None


@cache
def _system_texts() -> tuple[tuple[str, int], ...]:
    """Return the system's text for each error number. EPERM and EAGAIN are omitted, because their messages also occur for other errors."""
    return tuple((os.strerror(number), number) for number in _NAMED if number not in (errno.EPERM, errno.EAGAIN))


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


RESERVE_SIZE = 1 << 20
"""Size of the reserve in bytes, which suffices for some commits and the blocks of a checkpoint."""
_AMPLE = 4 * RESERVE_SIZE
"""Free disk space in bytes below which attaching does not create a missing reserve, because rows need the space."""


def keep_reserve(folder: Folder) -> None:
    """Create the reserve if it is missing and the disk has ample space. Called under the lease; never raises `OSError`."""
    with contextlib.suppress(OSError):
        if not _is_whole(folder) and shutil.disk_usage(folder.path).free >= _AMPLE:
            _make(folder, RESERVE_SIZE)


@contextlib.contextmanager
def spare(folder: Folder) -> Iterator[None]:
    """Delete the reserve for the duration of the block, then create it again, as large as the disk allows."""
    with contextlib.suppress(OSError):
        folder.unlink(RESERVE, missing_ok=True)
    try:
        yield
    finally:
        for part in (1, 2, 4, 8):
            if _make(folder, RESERVE_SIZE // part):
                break


def with_room(folder: Folder, work: Callable[[], T]) -> T:
    """Call a function that changes nothing if it fails; if the disk is full, call it again with the space of the reserve."""
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
    """Create the reserve with allocated blocks; return True if there was enough space, else leave no reserve."""
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

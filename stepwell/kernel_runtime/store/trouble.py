"""Conversion of errors of the operating system to errors of the store; and the reserve, a file that keeps some disk space free.

Each kind of error of the operating system (disk full, no permission, ...) has its own subclass of `StoreError`. Python's `OSError` has an error
number. An error of DuckDB has only a message, which contains the operating system's description of the error. After an error, for example
a full disk, DuckDB refuses every use of the database until it is attached again. The message of this refusal ("database has been
invalidated") looks like damage, but contains the description of the first error. So call `trouble` before you interpret an error of DuckDB
as damage.

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
    errno.EAGAIN: (StoreMemoryError, "the system cannot start another thread or reserve more memory", "end other programs or threads, then try again"),
    errno.EACCES: (StorePermissionError, "you do not have permission", f"{_PLACE}; stepwell doctor lists the files that you cannot write"),
    errno.EPERM: (StorePermissionError, "you do not have permission", f"{_PLACE}; stepwell doctor lists the files that you cannot write"),
    errno.EROFS: (StoreReadOnlyError, "its file system is mounted read-only", _PLACE),
    errno.EXDEV: (OtherDeviceError, "some files of the store are on another device", "move the whole store directory to one device"),
    errno.EIO: (StoreDiskError, "the disk reports an input/output error", "check the disk and its cable or network, then try again"),
    errno.ESTALE: (StoreDiskError, "the network file system has lost the file", "mount the file system again, then try again"),
    errno.ENOLCK: (StoreDiskError, "its file system does not support locks", "keep the store on a local disk: STEPWELL_STORE=DIR"),
}  # fmt: skip
"""Maps an error number of the operating system to the class of the converted error, its description and its remedy."""
_MEMORY = ("Out of Memory", "std::bad_alloc", "failed to allocate", "Allocation failure", "could not allocate block")
"""Parts of DuckDB's messages that mean that memory is exhausted."""
_FLUSH = "fsync failed"
"""Part of DuckDB's message for a failed flush to the disk. This message lacks the operating system's description of the error."""


def trouble(error: BaseException, what: str) -> StoreError | None:
    """Convert an error of the operating system to the `StoreError` for its kind. Return None for any other error.

    Parameters
    ----------
    error
        The error of Python or DuckDB. If it is not an error of the operating system, its ``__cause__`` is examined, and so on.
    what
        The beginning of the message: what failed, for example ``the store X could not be used``.
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
    """Return the `StoreError` for an error of the operating system, with the message ``the store DIRECTORY cannot be VERB: ...``.

    ``verb`` is a participle, for example ``used`` or ``written``.
    """
    what = f"the store {directory} cannot be {verb}"
    return trouble(error, what) or StoreNotWritableError(what, where=one_line(error), remedy=_PLACE)


def with_store_errors(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Decorate a function whose first argument is a store, so that it raises a `StoreError` instead of an error of the operating system."""

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
    """Return the operating system's error number for an error of Python or DuckDB; None if there is no number, or if `_NAMED` lacks the number."""
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
    """Return a pair for each error number in `_NAMED`: the operating system's description of the error, and the number.

    EPERM and EAGAIN are omitted, because messages of other errors also contain the descriptions of these two.
    """
    return tuple((os.strerror(number), number) for number in _NAMED if number not in (errno.EPERM, errno.EAGAIN))


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank; the name of the error's class if the message is blank."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


RESERVE_SIZE = 1 << 20
"""Size of the reserve in bytes. It suffices for some commits and a checkpoint."""
_AMPLE = 4 * RESERVE_SIZE
"""Free disk space in bytes below which `keep_reserve` does not create the reserve, because new rows need the space more."""


def keep_reserve(folder: Folder) -> None:
    """Create the reserve of the store ``folder`` if it is missing or too small. Create nothing if the disk has fewer than `_AMPLE` free bytes.

    The caller holds the lease. If the reserve cannot be created, this function does nothing.
    """
    with contextlib.suppress(OSError):
        if not _is_whole(folder) and shutil.disk_usage(folder.path).free >= _AMPLE:
            _make(folder, RESERVE_SIZE)


@contextlib.contextmanager
def spare(folder: Folder) -> Iterator[None]:
    """Delete the reserve of the store ``folder``, run the ``with`` block, and create the reserve again.

    If the disk then has less space than `RESERVE_SIZE`, create a smaller reserve, or none.
    """
    with contextlib.suppress(OSError):
        folder.unlink(RESERVE, missing_ok=True)
    try:
        yield
    finally:
        for part in (1, 2, 4, 8):
            if _make(folder, RESERVE_SIZE // part):
                break


def with_room(folder: Folder, work: Callable[[], T]) -> T:
    """Return ``work()``. If it raises `StoreFullError`, delete the reserve, call ``work`` again, and create the reserve again.

    A call of ``work`` that fails must change nothing.
    """
    try:
        return work()
    except StoreFullError:
        with spare(folder):
            return work()


def _is_whole(folder: Folder) -> bool:
    """Return True if the reserve exists and has its full size."""
    try:
        return folder.stat(RESERVE).st_size >= RESERVE_SIZE
    except FileNotFoundError:
        return False


def _make(folder: Folder, size: int) -> bool:
    """Create the reserve with ``size`` bytes that occupy disk space; return True if this succeeds. If it fails, there is no reserve."""
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

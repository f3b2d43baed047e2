"""Witnesses of value files that were checked since the machine booted, and marks of values that are damaged or do not load.

A value file is not flushed to the disk when it is written. A disk fault, or another user who can write to the store, can change it later.
So the first load of a file after each boot checks every byte and, for some codecs, the structure (`values/structure`). A successful check
is recorded as a *witness*: a keyed digest of the boot id and the file's name, device, inode, times and size. While the witness is valid, a
load maps the file without checking it. A change of the file invalidates the witness, because it changes the file's change time (ctime),
which no program can set. So does a crash, which could leave a file truncated or filled with zeros, because it is followed by another boot.
Classes that survive a round trip (`values/round_trip`) get a witness, too.

A large file gets its witness when it is written, because its digest was computed from the same memory. Smaller files are checked at their
first load, which takes less than a millisecond. File times may be too coarse to distinguish two changes within `_COARSE`, so a file that was
changed more recently gets no witness from a check.

Witnesses are lines of a file in the user's cache directory, one file per boot, to which all processes of the user append. They are keyed
with the user's signing key, so a witness cannot be forged without the key, and another person's store provides no witnesses. If the
directory cannot be used, each process remembers only the checks that it made itself.

A *damaged* file is moved to ``damaged/``, so that it counts as missing and is written again. A value that is intact but does not load, or a
damaged value in its row, gets a *mark*: an empty file in ``damaged/``, named after its digest. A marked value is loaded before it is
reused; if this fails, it counts as missing. The mark is removed when the value loads or is stored again. ``stepwell doctor --clean``
deletes the contents of the folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.header import is_name
from stepwell.kernel_runtime.store.processes import boot_id
from stepwell.kernel_runtime.store.signing import Signer

AT_ONCE = 4 << 20
"""Size in bytes from which a file gets its witness when it is written, without another check."""
_COARSE = 20_000_000
"""Nanoseconds within which two changes of a file may have the same timestamp."""
_LARGEST = 16 << 20
"""Maximum size of the list of witnesses in bytes; a longer list is emptied."""
_OLD = 30 * 86400.0
"""Seconds after which the list of another boot is removed. It is not removed earlier, because machines may share the directory."""


class Witnesses:
    """The witnesses of one user's key. Every method may be called from any thread.

    Parameters
    ----------
    signer
        The owner of the key. Without a usable key there are no witnesses.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def holds(self, *subject: object) -> bool:
        """Return True if a subject was checked since the machine booted."""
        line = self._line(subject)
        return line is not None and _list().has(line)

    def add(self, *subject: object) -> None:
        """Record that a subject was checked."""
        line = self._line(subject)
        if line is not None:
            _list().add(line)

    def file_holds(self, name: str, status: os.stat_result) -> bool:
        """Return True if a file was checked and has not changed since the check."""
        return self.holds(name, *_identity(status))

    def add_file(self, name: str, status: os.stat_result, *, was_written: bool = False) -> None:
        """Record that a file was checked.

        Parameters
        ----------
        status
            The file's status, obtained before the file was read or after this process wrote it.
        was_written
            True if this process has just written the file.
        """
        if was_written or time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _COARSE:
            self.add(name, *_identity(status))

    def _line(self, subject: tuple[object, ...]) -> bytes | None:
        try:
            return self._signer.keyed(repr((boot_id(), *subject)).encode("utf-8", "surrogatepass")).encode()
        except StoreError:
            return None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


class _List:
    """The file of witnesses for the current boot, and the lines that this process has read or added."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._entries: set[bytes] = set()
        self._read_size = 0
        self._descriptor = _open_list()

    def has(self, line: bytes) -> bool:
        with self._mutex:
            if line not in self._entries:
                self._read_new_lines()
            return line in self._entries

    def add(self, line: bytes) -> None:
        with self._mutex:
            self._entries.add(line)
            if self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    if os.fstat(self._descriptor).st_size > _LARGEST:
                        os.ftruncate(self._descriptor, 0)
                    os.write(self._descriptor, line + b"\n")

    def _read_new_lines(self) -> None:
        """Read the lines that other processes have appended."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            size = os.fstat(self._descriptor).st_size
            if size < self._read_size:
                self._read_size = 0
            while self._read_size < size:
                data = _read_at(self._descriptor, size - self._read_size, self._read_size)
                # Another process may still be writing the last line.
                whole = data.rfind(b"\n") + 1
                if not whole:
                    break
                self._entries.update(data[:whole].split())
                self._read_size += whole


def _read_at(descriptor: int, size: int, offset: int) -> bytes:
    if sys.platform != "win32":
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def _open_list() -> int:
    """Open the list for the current boot in a directory that only this user can write to; return -1 if this is not possible."""
    import platformdirs

    try:
        folder = Path(platformdirs.user_cache_dir("stepwell", appauthor=False)) / "checked"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(os.lstat(folder), stat.S_ISDIR):
            return -1
        path = folder / boot_id()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
            flags |= getattr(os, name, 0)
        descriptor = os.open(path, flags, 0o600)
        if not _is_private(os.fstat(descriptor), stat.S_ISREG):
            os.close(descriptor)
            return -1
    except (OSError, RuntimeError):
        return -1
    for other in folder.iterdir():
        with contextlib.suppress(OSError):
            if other.name != path.name and time.time() - other.lstat().st_mtime > _OLD:
                other.unlink()
    return descriptor


def _is_private(status: os.stat_result, is_kind: object) -> bool:
    if not callable(is_kind) or not is_kind(status.st_mode):
        return False
    return sys.platform == "win32" or (
        status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


_the_list: _List | None = None
_list_lock = threading.Lock()


def _list() -> _List:
    global _the_list  # noqa: PLW0603 - one per process
    if _the_list is None:
        with _list_lock:
            _the_list = _the_list or _List()
    return _the_list


def _after_fork_in_child() -> None:
    global _the_list, _list_lock
    _the_list, _list_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


DAMAGED = "damaged"
_MARK = ".failed"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def set_aside(folder: Folder, name: str) -> None:
    """Move a damaged value file out of ``objects/``, so that it counts as missing and is written again.

    A name that is not valid for a value file is ignored, because the name comes from a row that another person may have written.
    """
    if not is_name(name):
        return
    with contextlib.suppress(OSError):
        folder.mkdir(DAMAGED)
        folder.rename(f"objects/{name}", f"{DAMAGED}/{name.rpartition('/')[2]}")


def _name(digest: str) -> str:
    # A damaged row may contain any string instead of a digest.
    return digest if _DIGEST.fullmatch(digest) else sha256(digest.encode("utf-8", "surrogatepass")).hexdigest()


class Marks:
    """The digests of the values of one store that failed to load. Every method may be called from any thread."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._digests: set[str] | None = None

    def __contains__(self, digest: str) -> bool:
        return bool(self._all_marks()) and _name(digest) in self._all_marks()

    def add(self, digest: str) -> None:
        """Mark a value. If the store cannot be written, the mark is valid only in this process."""
        digest = _name(digest)
        if digest in self._all_marks():
            return
        self._all_marks().add(digest)
        with contextlib.suppress(OSError):
            self._folder.mkdir(DAMAGED)
            self._folder.write(f"{DAMAGED}/{digest}{_MARK}", b"")

    def remove(self, digest: str) -> None:
        """Remove a mark."""
        if digest in self:
            self._all_marks().discard(_name(digest))
            with contextlib.suppress(OSError):
                self._folder.unlink(f"{DAMAGED}/{_name(digest)}{_MARK}", missing_ok=True)

    def _all_marks(self) -> set[str]:
        if self._digests is None:
            try:
                names = self._folder.names(DAMAGED)
            except OSError:
                names = []
            self._digests = {name.removesuffix(_MARK) for name in names if name.endswith(_MARK)}
        return self._digests

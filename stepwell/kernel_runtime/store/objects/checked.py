"""Records of the value files that were checked since the machine booted (*witnesses*), and of the values that failed to load (*marks*).

The first load of a value file after each boot checks every byte of the file and, for some codecs, the structure of the data
(`values/structure`). These checks are necessary because a value file is not flushed to the disk when it is written. Also, a disk fault, or
another user who can write to the store, can change the file later. A successful check is recorded as a *witness*: a keyed digest of the
boot id and the file's name, device, inode, times and size. While a file has a valid witness, a load maps the file without checking it.

If the file is changed, the witness becomes invalid, because the change also changes the file's ctime, which no program can set. If the
machine crashes, which may leave a file truncated or filled with zeros, all witnesses become invalid, because the next boot has another id.
`values/round_trip` also records successful test loads as witnesses.

The file of a value of at least `AT_ONCE` bytes gets its witness when it is written, because its digest was computed from the memory that was
written. Smaller files are checked at their first load, which takes less than a millisecond. If a file was changed less than `_COARSE`
nanoseconds before a check, the check gives the file no witness, because another change soon afterwards might not change the file's times.

Witnesses are lines of a file in the user's cache directory. There is one such file per boot, to which all processes of the user append. The
digests are computed with the user's signing key. So nobody can forge a witness without this key, and a store from another person brings no
valid witnesses. If the cache directory cannot be used, each process remembers only the checks that it made itself.

A damaged value file is moved to ``damaged/`` (`set_aside`), so that the value counts as missing and is written again. A *mark* is an empty file
in ``damaged/`` that is named after the digest of a value. A value gets a mark if it does not load although its file is intact, or if it is a
damaged inline value. A marked value is reused only if a test load succeeds; otherwise it counts as missing. The mark is removed when the value
loads or is stored again. ``stepwell doctor --clean`` deletes the contents of ``damaged/``.
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
"""Minimum size in bytes of a value (its stream and buffers) whose file gets its witness when it is written, without a check."""
_COARSE = 20_000_000
"""Time in nanoseconds within which two changes of a file may leave the same timestamp."""
_LARGEST = 16 << 20
"""Maximum size in bytes of the file of witnesses. A longer file is emptied before the next witness is added."""
_OLD = 30 * 86400.0
"""Age in seconds above which the file of witnesses of another boot is removed. A younger file may belong to another machine that is running and
shares the user's cache directory."""


class Witnesses:
    """Records of successful checks since the machine booted. Every method may be called from any thread.

    The arguments ``subject`` of `holds` and `add` say what was checked, for example a file's name and status. They can be any objects whose
    ``repr`` is the same in every process.

    Parameters
    ----------
    signer
        Computes the keyed digests with this user's signing key. If the key cannot be used, nothing is recorded, and everything counts as
        unchecked.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def holds(self, *subject: object) -> bool:
        """Return True if a successful check of ``subject`` was recorded since the machine booted."""
        line = self._line(subject)
        return line is not None and _list().has(line)

    def add(self, *subject: object) -> None:
        """Record a successful check of ``subject``."""
        line = self._line(subject)
        if line is not None:
            _list().add(line)

    def file_holds(self, name: str, status: os.stat_result) -> bool:
        """Return True if a value file was checked since the machine booted and has not changed since the check.

        Parameters
        ----------
        name
            The name of the file below ``objects/``.
        status
            The present status of the file.
        """
        return self.holds(name, *_identity(status))

    def add_file(self, name: str, status: os.stat_result, *, was_written: bool = False) -> None:
        """Record a successful check of a value file, unless the file was changed so recently that its times may hide a later change.

        Parameters
        ----------
        name
            The name of the file below ``objects/``.
        status
            The file's status, obtained before the file was read or after this process wrote it.
        was_written
            True if this process has just written the file. The check is then recorded even though the file was changed recently.
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
    """The file of witnesses of the current boot, and the set of its lines that this process has read or added."""

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
        """Read the lines that were appended to the file of witnesses since the last call, and add them to the set of known lines."""
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
    """Open the file of witnesses of the current boot in the user's cache directory, and return its descriptor.

    Return -1 if the directory or the file cannot be used, for example because other users can write to one of them. Files of other boots are
    removed if they are older than `_OLD`.
    """
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
    return sys.platform == "win32" or (status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


_the_list: _List | None = None
_list_lock = threading.Lock()


def _list() -> _List:
    global _the_list  # noqa: PLW0603 - there is one list per process
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
    """Move a damaged value file from ``objects/`` to ``damaged/``, so that its value counts as missing and is computed again.

    The file stays where it is if it cannot be moved, or if ``name`` does not have the form of a value file's name. This form is checked because
    ``name`` comes from a catalog row, which another person may have written.
    """
    if not is_name(name):
        return
    with contextlib.suppress(OSError):
        folder.mkdir(DAMAGED)
        folder.rename(f"objects/{name}", f"{DAMAGED}/{name.rpartition('/')[2]}")


def _name(digest: str) -> str:
    # A damaged catalog row may contain any string instead of a digest.
    return digest if _DIGEST.fullmatch(digest) else sha256(digest.encode("utf-8", "surrogatepass")).hexdigest()


class Marks:
    """The marks of one store: the digests of the values that failed to load. ``digest in marks`` is True if the value with this digest has a mark.

    Every method may be called from any thread.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._digests: set[str] | None = None

    def __contains__(self, digest: str) -> bool:
        return bool(self._all_marks()) and _name(digest) in self._all_marks()

    def add(self, digest: str) -> None:
        """Mark the value with this digest, because it failed to load.

        If this user cannot write to the store, the mark exists only in this process.
        """
        digest = _name(digest)
        if digest in self._all_marks():
            return
        self._all_marks().add(digest)
        with contextlib.suppress(OSError):
            self._folder.mkdir(DAMAGED)
            self._folder.write(f"{DAMAGED}/{digest}{_MARK}", b"")

    def remove(self, digest: str) -> None:
        """Remove the mark of the value with this digest; do nothing if the value has no mark.

        Call this when the value has loaded or was stored again.
        """
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

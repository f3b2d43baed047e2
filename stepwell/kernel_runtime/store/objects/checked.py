"""Which value files were checked since the machine was started, and which values are damaged or do not load.

A value file is not flushed to the disk when it is written, and it can be changed later by a fault of the disk or by another user who can write
the store. So the first load of a file in each boot checks every byte and, where the codec needs it, the structure (`values/structure`). The
result is a *witness*: a keyed digest of the boot, the file's device, inode, times and size, and its name. While the witness holds, a load maps
the file and reads nothing. A changed file has another change time, which no program can set; a file that a crash left short, or with zeros
in it, was written in an earlier boot. Classes whose values come back (`values/round_trip`) get a witness, too.

A large file that this user writes gets its witness at once, because its digest was computed from the same memory. Smaller files
are checked at their first load: that takes less than a millisecond, and their times may be too coarse to tell a change in the same
instant. For the same reason no file is witnessed within `_COARSE` of its last change.

Witnesses are lines of a file in the user's cache directory, one file per boot, appended by all processes of the user. They are keyed with the user's
signing key, so a witness cannot be forged without the key, and a store of another person brings no witnesses. Where the
directory cannot be used, each process remembers its own checks.

A *damaged* file is moved to ``damaged/``, so that it counts as missing and is written again. A value that is whole but does not load, or a
damaged one in its row, gets a *mark* there: an empty file named after its digest. Before a marked value is reused it is loaded once more;
if that fails it counts as missing. A mark is removed when the value loads or is stored again. ``stepwell doctor --clean``
empties the folder.
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
"""Bytes from which a file that is written here is witnessed without another look."""
_COARSE = 20_000_000
"""Nanoseconds within which two changes of a file may have the same time."""
_LARGEST = 16 << 20
"""Bytes of the list of witnesses; a longer one is begun again."""
_OLD = 30 * 86400.0
"""Seconds after which another boot's list is removed: several machines may share the directory."""


class Witnesses:
    """The witnesses of one user's key. Every method from any thread.

    Parameters
    ----------
    signer
        Holds the key; without a usable one nothing is ever witnessed.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def holds(self, *what: object) -> bool:
        """Return whether exactly this was checked in this boot."""
        line = self._line(what)
        return line is not None and _list().has(line)

    def add(self, *what: object) -> None:
        """Note that this was checked."""
        line = self._line(what)
        if line is not None:
            _list().add(line)

    def file_holds(self, name: str, found: os.stat_result) -> bool:
        """Return whether a file was checked and has not changed since."""
        return self.holds(name, *_identity(found))

    def add_file(self, name: str, found: os.stat_result, *, written: bool = False) -> None:
        """Note that a file was checked.

        Parameters
        ----------
        found
            The file's status from before it was read, or from after this process had written it.
        written
            Whether this process wrote it just now.
        """
        if written or time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _COARSE:
            self.add(name, *_identity(found))

    def _line(self, what: tuple[object, ...]) -> bytes | None:
        try:
            return self._signer.keyed(repr((boot_id(), *what)).encode("utf-8", "surrogatepass")).encode()
        except StoreError:
            return None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


class _List:
    """The list of this boot: what this process knows of it, and the file."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._known: set[bytes] = set()
        self._read = 0
        self._descriptor = _open()

    def has(self, line: bytes) -> bool:
        with self._mutex:
            if line not in self._known:
                self._read_on()
            return line in self._known

    def add(self, line: bytes) -> None:
        with self._mutex:
            self._known.add(line)
            if self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    if os.fstat(self._descriptor).st_size > _LARGEST:
                        os.ftruncate(self._descriptor, 0)
                    os.write(self._descriptor, line + b"\n")

    def _read_on(self) -> None:
        """Take what other processes have appended."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            size = os.fstat(self._descriptor).st_size
            if size < self._read:
                self._read = 0
            while self._read < size:
                data = _read_at(self._descriptor, size - self._read, self._read)
                # The last line may still be being written.
                whole = data.rfind(b"\n") + 1
                if not whole:
                    break
                self._known.update(data[:whole].split())
                self._read += whole


def _read_at(descriptor: int, size: int, at: int) -> bytes:
    if sys.platform != "win32":
        return os.pread(descriptor, size, at)
    os.lseek(descriptor, at, os.SEEK_SET)
    return os.read(descriptor, size)


def _open() -> int:
    """Open this boot's list in a directory that only this user can write; return -1 if that is not possible."""
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


def _is_private(found: os.stat_result, is_kind: object) -> bool:
    if not callable(is_kind) or not is_kind(found.st_mode):
        return False
    return sys.platform == "win32" or (
        found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


_made: _List | None = None
_making = threading.Lock()


def _list() -> _List:
    global _made  # noqa: PLW0603 - one per process
    if _made is None:
        with _making:
            _made = _made or _List()
    return _made


def _after_fork_in_child() -> None:
    global _made, _making
    _made, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


DAMAGED = "damaged"
_MARK = ".failed"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def set_aside(folder: Folder, name: str) -> None:
    """Take a damaged value file out of ``objects/``, so that it counts as missing and is written again.

    The name comes from a row, which another person may have made: a name that no value file can have is ignored.
    """
    if not is_name(name):
        return
    with contextlib.suppress(OSError):
        folder.mkdir(DAMAGED)
        folder.rename(f"objects/{name}", f"{DAMAGED}/{name.rpartition('/')[2]}")


def _name(digest: str) -> str:
    # A damaged row may hold any text in place of the digest.
    return digest if _DIGEST.fullmatch(digest) else sha256(digest.encode("utf-8", "surrogatepass")).hexdigest()


class Marks:
    """The stored values of one store that were found not to load, by digest. Every method from any thread."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._found: set[str] | None = None

    def __contains__(self, digest: str) -> bool:
        return bool(self._all()) and _name(digest) in self._all()

    def add(self, digest: str) -> None:
        """Mark a value; where the store cannot be written, for this process."""
        digest = _name(digest)
        if digest in self._all():
            return
        self._all().add(digest)
        with contextlib.suppress(OSError):
            self._folder.mkdir(DAMAGED)
            self._folder.write(f"{DAMAGED}/{digest}{_MARK}", b"")

    def remove(self, digest: str) -> None:
        """Take a mark back."""
        if digest in self:
            self._all().discard(_name(digest))
            with contextlib.suppress(OSError):
                self._folder.unlink(f"{DAMAGED}/{_name(digest)}{_MARK}", missing_ok=True)

    def _all(self) -> set[str]:
        if self._found is None:
            try:
                names = self._folder.names(DAMAGED)
            except OSError:
                names = []
            self._found = {name.removesuffix(_MARK) for name in names if name.endswith(_MARK)}
        return self._found

"""What a crash leaves in doubt: value files that are checked in full when they are next loaded, once.

Value files are not flushed to the disk when they are written: that would cost more than writing them. A power loss may therefore leave
one short, or with zeros in it, although the row that refers to it was committed; a load sees the sizes, not every byte. So who writes
value files keeps a *mark*, a file below ``writers/`` that is flushed before the first of them and locked for as long as the process lives;
the last thing the process does is to write ``closed`` into it. Who opens the store next looks at the marks that nobody holds:

* not closed: its process was killed, or the machine went down;
* closed, but in an earlier boot of this machine: what was written shortly before may not have reached the disk;
* closed in this boot: removed when it is older than the time in which systems write everything back.

In the first two cases every value file that is not older than the mark is *doubtful*. Their names go to a list, ``writers/<mark>.doubts``, and
into the memory of whoever opens the store; a load of one of them checks every byte and takes the name off the list, or sets the file aside.
Without a crash there is no list, and a load asks an empty set. Only one comparison is made with a clock, that of a file's time with its
mark's, both set by the same file system; a process whose clock is set back begins a new mark.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stepwell.kernel_runtime.records.ids import new_id
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.locking import lock
from stepwell.kernel_runtime.store.objects.files import is_name, value_files

FOLDER = "writers"
DAMAGED = "damaged"
"""Where damaged value files are set aside; ``stepwell doctor --clean`` removes them."""
WRITTEN_BACK = 600.0
"""Seconds after which a system has surely written a closed file to the disk: ten times what they promise."""
_COARSE = 2.0
"""Seconds by which the times of files may be coarse."""
_CLOSED = b"closed\n"
_DOUBTS, _SETTLED = ".doubts", ".settled"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the file of a writer says of it."""

    path: Path
    since: float
    """The file system's time before its first value file, in seconds since the epoch."""
    host: str
    boot: str
    process: int
    closed: bool


@cache
def boot_id() -> str:
    """Return what is different after every start of this machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Elsewhere the time of the start, as good as it can be known: a clock that is set makes more doubtful, never less.
    return f"about {round((time.time() - time.monotonic()) / 60)}"


@cache
def host_name() -> str:
    """Return this machine's name."""
    import socket

    return socket.gethostname()


class Crashes:
    """The marks of one store's writers, and what is doubtful in it. Every method from any thread.

    Attributes
    ----------
    doubtful
        Names of value files whose next load checks every byte.
    """

    def __init__(self, folder: Folder) -> None:
        self._store = folder
        self._folder = folder.path / FOLDER
        self._mutex = threading.Lock()
        self._own = _Own()
        self.doubtful: set[str] = set()
        self._lists: dict[str, set[str]] = {}
        weakref.finalize(self, _end, self._own)
        with contextlib.suppress(OSError):
            folder.examine()
            self._look()

    def before_write(self) -> None:
        """See to it that this process has a mark; an `OSError` where none can be made."""
        own = self._own
        if own.process != os.getpid() or time.time() < own.begun:
            with self._mutex:
                if own.process != os.getpid():
                    own.forget()
                own.begin(self._store)

    def settle(self, name: str) -> None:
        """Take a file off the list: every byte of it was checked."""
        with self._mutex:
            self.doubtful.discard(name)
            for mark, names in self._lists.items():
                if name in names:
                    names.discard(name)
                    with contextlib.suppress(OSError):
                        _append(self._folder / (mark + _SETTLED), f"{name}\n".encode())

    def settle_all(self) -> None:
        """Forget every doubt: every file was checked."""
        with self._mutex:
            for mark in self._lists:
                for suffix in (_DOUBTS, _SETTLED):
                    with contextlib.suppress(OSError):
                        (self._folder / (mark + suffix)).unlink(missing_ok=True)
            self._lists.clear()
            self.doubtful.clear()

    def _look(self) -> None:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - at every start of a process: a Path costs ten times that
        except FileNotFoundError:
            return
        for name in sorted(names):
            if not name.endswith((_DOUBTS, _SETTLED)):
                with contextlib.suppress(OSError):
                    self._look_at(self._folder / name)
        for path in sorted(self._folder.glob(f"*{_DOUBTS}")):
            settled = path.with_suffix(_SETTLED)
            left = _lines(path) - _lines(settled)
            if left:
                self._lists[path.stem] = left
            else:
                path.unlink(missing_ok=True)
                settled.unlink(missing_ok=True)
        self.doubtful = set().union(*self._lists.values())

    def _look_at(self, path: Path) -> None:
        with unheld(path) as descriptor:
            if descriptor is None:
                return
            mark = read_mark(path)
            elsewhere = mark.host != host_name()
            here = not elsewhere and mark.boot == boot_id()
            if mark.closed and (here or elsewhere):
                if abs(time.time() - path.stat().st_mtime) > WRITTEN_BACK:
                    path.unlink()
                return
            self._doubt(mark)
            if here:
                # What is checked now is what the system remembers: if the machine goes down soon, it is doubtful once more.
                os.lseek(descriptor, 0, os.SEEK_END)
                os.write(descriptor, _CLOSED)
            else:
                path.unlink()

    def _doubt(self, mark: Mark) -> None:
        names = [name for name, found in value_files(self._store) if found.st_mtime >= mark.since]
        if names:
            making = self._store.path / "tmp" / new_id()
            with making.open("xb") as file:
                file.write("".join(f"{name}\n" for name in names).encode())
                file.flush()
                os.fsync(file.fileno())
            making.replace(self._folder / (mark.path.name + _DOUBTS))


class _Own:
    """The marks of this process: one, and another after each time that its clock was set back."""

    def __init__(self) -> None:
        self.process = -1
        self.begun = 0.0
        self._descriptors: list[int] = []

    def begin(self, folder: Folder) -> None:
        folder.mkdir(FOLDER)
        descriptor = folder.open(f"{FOLDER}/{new_id()}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        try:
            lock(descriptor, block=True)
            found = {
                "since": os.fstat(descriptor).st_mtime - _COARSE,
                "host": host_name(),
                "boot": boot_id(),
                "process": os.getpid(),
            }
            os.write(descriptor, json.dumps(found).encode() + b"\n")
            os.fsync(descriptor)
            _flush_folder(folder.path / FOLDER)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptors.append(descriptor)
        self.begun = time.time()
        self.process = os.getpid()

    def forget(self) -> None:
        """Close a parent's descriptors in a forked child, which does not unlock them."""
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors = []
        self.process = -1

    def close(self) -> None:
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.write(descriptor, _CLOSED)
        self.forget()


def _end(own: _Own) -> None:
    if own.process == os.getpid():
        own.close()


@contextlib.contextmanager
def unheld(path: Path) -> Iterator[int | None]:
    """Give the open descriptor of a lock file that nobody holds, locked meanwhile; None where somebody does."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        yield descriptor if lock(descriptor, block=False) else None
    finally:
        os.close(descriptor)


def read_mark(path: Path) -> Mark:
    """Read the file of a writer; one that says nothing was made when it was last written."""
    first, _, rest = path.read_bytes().partition(b"\n")
    try:
        said = json.loads(first)
        return Mark(path, float(said["since"]), said["host"], said["boot"], int(said["process"]), _CLOSED in rest)
    except (ValueError, KeyError, TypeError):
        return Mark(path, path.stat().st_mtime - _COARSE, "", "", 0, closed=False)


def set_aside(folder: Folder, name: str) -> None:
    """Take a damaged value file out of ``objects/``, so that it counts as missing and is written anew.

    The name comes from a row, which somebody else may have made: one that can be no value file's is left alone.
    """
    if not is_name(name):
        return
    with contextlib.suppress(OSError):
        folder.mkdir(DAMAGED)
        folder.rename(f"objects/{name}", f"{DAMAGED}/{name.rpartition('/')[2]}")


def _lines(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return set()


def _append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def _flush_folder(folder: Path) -> None:
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

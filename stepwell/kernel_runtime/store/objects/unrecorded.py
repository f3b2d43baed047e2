"""What this process has written, or found there, and not recorded yet: so that ``gc`` in another process lets it stand.

Between the moment when a value's file is there and the commit of the row that refers to it nothing in the catalog protects the file,
and that time has no bound: a step may store another output for minutes. So before a writer puts a file in its place (or takes one that is
there for its own) it appends the file's name to a list of its own, ``claims/<id>.unrecorded``, on which it holds an exclusive lock for as long
as it lives. The system frees the lock when the process dies, however it dies: a list that can be locked by somebody else is nobody's.

Two orders make it sound, with no clock in it. The writer *names, then places*. The collector, which holds the lease all the while, moves a file
away, *then reads the lists*, and puts back what is named. If the writer named it before the lists were read, it is put back, unless it is there
anew; if later, the writer places it after it was moved away. A name leaves the list after its row is committed, and a commit needs the
lease: whoever holds the lease and does not find the name sees the row.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from stepwell.kernel_runtime.records.ids import new_id
from stepwell.kernel_runtime.store.locking import is_file, lock, unlock

SUFFIX = ".unrecorded"


class Unrecorded:
    """The list of one process for one store. Every method from any thread.

    Parameters
    ----------
    directory
        The store directory.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / "claims"
        self._start()

    def _start(self) -> None:
        self._mutex = threading.Lock()
        self._process = os.getpid()
        self._descriptor = -1
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        """Name an object that is about to be put in its place."""
        if self._process != os.getpid():
            # The list is the parent's; closing our copy of its descriptor would not unlock it, and writing to it would.
            self._start()
        with self._mutex:
            if name in self._names:
                return
            if self._descriptor < 0:
                self._open()
            os.write(self._descriptor, f"{name}\n".encode())
            self._names.add(name)

    def recorded(self, names: Iterable[str]) -> None:
        """Take names off the list: rows that refer to them are committed."""
        if not self._names:
            return
        with self._mutex:
            self._names.difference_update(names)
            if not self._names and self._descriptor >= 0:
                os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Let the list go; what is on it is garbage now, unless it is recorded by somebody."""
        with self._mutex:
            if self._descriptor >= 0 and self._process == os.getpid() and not self._names:
                self._path.unlink(missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        while True:
            self._path = self._folder / f"{new_id()}{SUFFIX}"
            descriptor = os.open(self._path, flags | getattr(os, "O_BINARY", 0), 0o666)
            lock(descriptor, block=True)
            if is_file(self._path, descriptor):
                break
            # A collector found it before it was locked, and took it for a dead process's.
            os.close(descriptor)
        self._descriptor = descriptor


def unrecorded_names(directory: Path) -> set[str]:
    """Return what living processes have on their lists; lists of dead ones are removed. The caller holds the lease."""
    found: set[str] = set()
    for path in (directory / "claims").glob(f"*{SUFFIX}"):
        try:
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        except OSError:
            continue
        try:
            if lock(descriptor, block=False):
                path.unlink(missing_ok=True)
                unlock(descriptor)
            else:
                with path.open(encoding="utf-8") as lines:
                    found.update(line.rstrip("\n") for line in lines)
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return found

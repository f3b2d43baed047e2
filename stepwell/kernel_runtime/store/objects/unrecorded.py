"""What this process has written, or found there, and not recorded yet: so that ``gc`` in another process lets it stand.

Between the moment when a value's file is there and the commit of the row that refers to it nothing in the catalog protects the file,
and that time has no bound: a step may store another output for minutes. So before a writer puts a file in its place (or takes one that is
there for its own) it appends the file's name to a list of its own, ``writers/<id>``, on which it holds an exclusive lock for as long
as it lives. The system frees the lock when the process dies, however it dies: a list that can be locked by somebody else is nobody's.

Two orders make it sound, with no clock in it. The writer *names, then places*. The collector, which holds the lease all the while, moves a file
away, *then reads the lists*, and puts back what is named. If the writer named it before the lists were read, it is put back, unless it is there
anew; if later, the writer places it after it was moved away. A name leaves the list after its row is committed, and a commit needs the
lease: whoever holds the lease and does not find the name sees the row.

A name counts as often as it was added: of two steps with the same value, the row of the first does not take away what protects the second.
It leaves the list by a line of its own (``-name``), and the file is emptied when nothing is on the list: what was never recorded, because its
step failed, stays until the process ends, and keeps nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.locks import lock, unlock

FOLDER = "writers"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND


class Unrecorded:
    """The list of one process for one store. Every method from any thread.

    Parameters
    ----------
    folder
        The store directory.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._start()
        _lists.add(self)

    def _start(self) -> None:
        self._mutex = threading.Lock()
        self._process = os.getpid()
        self._descriptor = -1
        self._name = ""
        self._names: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Name an object that is about to be put in its place."""
        if self._process != os.getpid():
            # The list is the parent's; closing our copy of its descriptor would not unlock it, and writing to it would.
            self._start()
        with self._mutex:
            if self._descriptor < 0:
                self._open()
            if name not in self._names:
                # The line before it may have been cut off by a full disk.
                line = f"\n{name}\n".encode()
                if os.write(self._descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._names[name] += 1

    def recorded(self, names: Iterable[str]) -> None:
        """Take names off the list, each once: rows that refer to them are committed."""
        if not self._names or self._process != os.getpid():
            return
        with self._mutex:
            gone = []
            for name in names:
                if self._names[name] > 1:
                    self._names[name] -= 1
                elif self._names.pop(name, 0):
                    gone.append(f"\n-{name}\n")
            # The rows are committed: a disk that does not take this keeps what it names from being collected, as long as this process lives.
            with contextlib.suppress(OSError):
                if not self._names:
                    os.ftruncate(self._descriptor, 0)
                elif gone:
                    os.write(self._descriptor, "".join(gone).encode())

    def close(self) -> None:
        """Let the list go; what is on it is garbage now, unless it is recorded by somebody."""
        if self._process != os.getpid():
            return
        with self._mutex:
            if self._descriptor >= 0 and not self._names:
                # Where it cannot be removed any more it says nothing: it is empty.
                with contextlib.suppress(OSError):
                    self._folder.unlink(self._name, missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def is_own(self, path: Path) -> bool:
        """Tell whether a file is the list of this very process."""
        return self._process == os.getpid() and self._descriptor >= 0 and path == self._folder.path / self._name

    def names(self) -> set[str]:
        """Return what is on the list."""
        with self._mutex:
            return set(self._names)

    def _open(self) -> None:
        folder = self._folder
        while True:
            self._name = f"{FOLDER}/{new_id()}"
            try:
                descriptor = folder.open(self._name, _NEW)
            except FileNotFoundError:
                folder.mkdir(FOLDER)
                descriptor = folder.open(self._name, _NEW)
            lock(descriptor, block=True)
            if folder.is_file(self._name, descriptor):
                break
            # A collector found it before it was locked, and took it for a dead process's.
            os.close(descriptor)
        self._descriptor = descriptor


_lists: weakref.WeakSet[Unrecorded] = weakref.WeakSet()
"""The lists of this process: where the system locks for whole processes, as NFS does, a second open of one would be given its lock,
and closing it would drop it."""


def unrecorded_names(folder: Folder) -> set[str]:
    """Return what living processes have on their lists; lists of dead ones are removed. The caller holds the lease."""
    found: set[str] = set()
    for each in folder.names(FOLDER):
        name = f"{FOLDER}/{each}"
        own = next((one for one in list(_lists) if one.is_own(folder.path / name)), None)
        if own is not None:
            found |= own.names()
            continue
        try:
            descriptor = folder.open(name, os.O_RDWR)
        except OSError:
            continue
        try:
            if lock(descriptor, block=False):
                folder.unlink(name, missing_ok=True)
                unlock(descriptor)
            else:
                with os.fdopen(os.dup(descriptor), encoding="utf-8") as lines:
                    found |= _listed(lines)
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return found


def _listed(lines: Iterable[str]) -> set[str]:
    """Return what is on a list after all that was written to it; the end of a line that is just being written may be missing."""
    found: set[str] = set()
    for line in lines:
        name = line.rstrip("\n")
        if name.startswith("-"):
            found.discard(name[1:])
        elif name:
            found.add(name)
    return found

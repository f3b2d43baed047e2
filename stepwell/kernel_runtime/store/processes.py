"""What the living processes of a store say to each other: who computes a step, which value files have no row yet, and who is alive.

A *process* has a name that no other one has, also after a restart of the machine. A run whose process is gone was interrupted.

A *claim* is an OS lock on ``claims/<memo key>`` for as long as a process computes a long step. Another process that needs the same step
finds the lock taken, waits, and reuses the result. The system frees the lock when the process ends, however it ends:
nothing has to expire. The contents of the file, who computes and since when, are for showing only. The holder removes the file when it releases the claim.
Files that killed processes left behind are removed by the next process that takes a claim in the store, each under its lock. A claim only
saves work: where there are no locks (a read-only or full disk, some file systems), every process gets a claim, and two may compute the same step.

The *list of unrecorded files* keeps ``gc`` in another process from deleting a value file before its row is committed. The time between the two
has no bound: a step may store another output for minutes. So before a process puts a file in its place (or uses one that is already there),
it appends the file's name to its list, ``writers/<id>``, on which it holds an exclusive lock as long as it
lives. A list that another process can lock belongs to a dead process.

Two orders make this sound without a clock. The writer *names the file, then places it*. The collector, which holds the lease all the while, *moves a file
away, then reads the lists*, and puts back what is named. If the writer named it before the lists were read, it is put back (unless it has been
placed again); if later, the writer places it after it was moved away. A name leaves the list after its row is committed, and a commit needs the
lease: a collector that does not find the name sees the row.

A name counts as often as it was added: of two steps with the same value, the row of the first does not remove the protection of the second.
It leaves the list by a line of its own (``-name``), and the file is emptied when no name is on the list. A file that is never recorded, because its
step failed, stays on the list until the process ends.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import socket
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from time import monotonic

from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.locks import lock, open_file, read_at_start, remove_locked, write_at_start


@cache
def boot_id() -> str:
    """Return what is different after every start of this machine."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Elsewhere the time of the start, as good as it can be known: a clock that is set ends witnesses, never prolongs them.
    return f"about-{round((time.time() - time.monotonic()) / 60)}"


def this_process() -> str:
    """Return this process as ``host/boot/pid/start``: no other process has the same text, also after a restart of the machine."""
    return _text(os.getpid())


def is_gone(process: str) -> bool:
    """Return whether a process is known to have ended.

    Parameters
    ----------
    process
        The text of `this_process`, written by any process. Those of other machines are not known to have ended.
    """
    host, boot, pid, start = (process.split("/") + [""] * 3)[:4]
    if host != _host() or not pid.isdigit():
        return False
    return boot != boot_id() or start != _start(int(pid))


@cache
def _text(pid: int) -> str:
    return f"{_host()}/{boot_id()}/{pid}/{_start(pid)}"


@cache
def _host() -> str:
    return socket.gethostname().replace("/", "-")


def _start(pid: int) -> str:
    """Return when a process started, empty if there is none or it has ended."""
    with suppress(OSError, IndexError):
        # Linux counts from the start of the machine: the clock may be set while the process runs.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return ""


CLAIMS = "claims"
_LOOK = 0.01
"""Seconds for which what was seen of the folder is taken for what is there: a claim is made by who has computed for twenty times as long."""
_MOST = 4096
"""Bytes of a claim's file that are read."""
_TRIES = 100
"""How often a file is opened again if another process removed it just then."""

_held: dict[str, Claim] = {}
"""The claims of this process by the path of their files."""
_mutex = threading.Lock()


class Claim:
    """A claim that is held until `release`."""

    def __init__(self, folder: Folder, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        # One element at most. Popping it is one operation, so one thread gets the descriptor and closes it.
        self._descriptors = [descriptor] if descriptor >= 0 else []

    def release(self) -> None:
        """Release the claim, from any thread; a second call does nothing."""
        with suppress(IndexError, OSError):
            descriptor = self._descriptors.pop()
            try:
                remove_locked(self._folder, self._name, descriptor)
            finally:
                _held.pop(str(self._folder.path / self._name), None)

    def text(self) -> bytes:
        """Return the file's contents."""
        return read_at_start(self._descriptors[0], _MOST)

    def abandon(self) -> None:
        """Forget it in a forked child: the file stays, and closing does not unlock what the parent has open too."""
        with suppress(IndexError, OSError):
            os.close(self._descriptors.pop())


class Claims:
    """The claims in one store directory.

    Parameters
    ----------
    folder
        The store directory.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._swept = False
        self._looked = -1.0
        self._names: frozenset[str] = frozenset()

    def is_there(self, memo_key: str) -> bool:
        """Return True if a process may hold the claim of a memo key, as the folder was some milliseconds ago.

        Every step that runs asks, and each system call hands Python's lock to another thread.
        """
        now = monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            try:
                self._names = frozenset(self._folder.names(CLAIMS))
            except OSError:
                self._names = frozenset()
        return memo_key in self._names

    def take(self, memo_key: str, claimant: Claimant) -> Claim | None:
        """Return the claim of a memo key, or None if another holds it; never waits.

        Where the file system gives no locks the claim that is returned holds nothing.
        """
        folder, name = self._folder, f"{CLAIMS}/{memo_key}"
        path = str(folder.path / name)
        with _mutex:
            if path in _held:
                return None
            try:
                descriptor = _locked(folder, name)
            except OSError:
                return Claim(folder, name, -1)
            if descriptor < 0:
                return None
            claim = _held[path] = Claim(folder, name, descriptor)
            # A full disk: the lock counts, not the text.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                write_at_start(descriptor, json.dumps(asdict(claimant)).encode())
            if not self._swept:
                self._swept = True
                with suppress(OSError):
                    deque(_files_of_others(folder, CLAIMS, _held.__contains__), maxlen=0)
        return claim

    def claimant(self, memo_key: str) -> Claimant:
        """Return what the holder of a claim said of itself."""
        name = f"{CLAIMS}/{memo_key}"
        held = _held.get(str(self._folder.path / name))
        try:
            found = json.loads(self._folder.read(name, _MOST) if held is None else held.text())
            return Claimant(str(found["notebook"]), int(found["pid"]), str(found["host"]), float(found["since"]))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            # Just taken and not written yet, or just let go.
            return Claimant()


def _locked(folder: Folder, name: str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open and lock a file below a folder; return -1 if another process has it locked, an `OSError` if there are no locks."""
    for _ in range(_TRIES):
        try:
            descriptor = folder.open(name, flags)
        except FileNotFoundError:
            folder.mkdir(name.partition("/")[0])
            descriptor = folder.open(name, flags)
        try:
            ours = lock(descriptor, block=False)
            # Who found the file just before it was locked may have taken it for a dead process's, and removed it.
            if ours and folder.is_file(name, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not ours:
            return -1
    raise OSError(f"{name} is another file each time it is looked at")


def _files_of_others(folder: Folder, below: str, is_own: Callable[[str], bool]) -> Iterator[int]:
    """Yield the open files below a folder that other processes hold locked; remove those of dead processes.

    Parameters
    ----------
    is_own
        Tells whether this process holds the file at a path. It is not opened then: where the system locks for whole processes, as NFS
        does, a second open would be given the lock, and closing it would drop the first one's.
    """
    for each in folder.names(below):
        name = f"{below}/{each}"
        if is_own(str(folder.path / name)):
            continue
        with suppress(OSError):
            descriptor = open_file(folder, name, create=False)
            try:
                dead = lock(descriptor, block=False)
            except OSError:
                dead = False
            if dead:
                remove_locked(folder, name, descriptor)
                continue
            try:
                yield descriptor
            finally:
                os.close(descriptor)


def _after_fork_in_child() -> None:
    global _mutex  # noqa: PLW0603 - another thread of the parent may have held it
    _mutex = threading.Lock()
    for claim in list(_held.values()):
        claim.abandon()
    _held.clear()


def release_all() -> None:
    """Release every claim of this process, at its end."""
    for claim in list(_held.values()):
        claim.release()


atexit.register(release_all)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


LISTS = "writers"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND


class Unrecorded:
    """The list of one process for one store. Every method from any thread.

    Parameters
    ----------
    folder
        The store directory.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
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
            while self._descriptor < 0:
                # Where a collector takes the new list for a dead process's, it gets another name.
                self._name = f"{LISTS}/{new_id()}"
                self._descriptor = _locked(self.folder, self._name, _NEW)
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
            with suppress(OSError):
                if not self._names:
                    os.ftruncate(self._descriptor, 0)
                elif gone:
                    os.write(self._descriptor, "".join(gone).encode())

    def close(self) -> None:
        """Remove the list; files on it without a row are garbage now."""
        if self._process != os.getpid():
            return
        with self._mutex:
            if self._descriptor >= 0 and not self._names:
                # Where it cannot be removed any more it says nothing: it is empty.
                with suppress(OSError):
                    self.folder.unlink(self._name, missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def is_own(self, path: str) -> bool:
        """Return True for the path of the list of this very process."""
        return self._process == os.getpid() and self._descriptor >= 0 and path == str(self.folder.path / self._name)

    def names(self) -> set[str]:
        """Return what is on the list; nothing in a forked child, where the list is the parent's."""
        if self._process != os.getpid():
            return set()
        with self._mutex:
            return set(self._names)


_lists: weakref.WeakSet[Unrecorded] = weakref.WeakSet()
"""The lists of this process."""


def unrecorded_names(folder: Folder) -> set[str]:
    """Return what living processes have on their lists; lists of dead ones are removed. The caller holds the lease."""
    own = [one for one in list(_lists) if one.folder.path == folder.path]
    found = {name for one in own for name in one.names()}
    for descriptor in _files_of_others(folder, LISTS, lambda path: any(one.is_own(path) for one in own)):
        with suppress(OSError), os.fdopen(os.dup(descriptor), encoding="utf-8") as lines:
            found |= _listed(lines)
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

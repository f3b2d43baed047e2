"""Coordination of the processes that use a store: identity, claims of long steps, and lists of value files without a row yet.

The *identity* of a process is unique, even after a restart of the machine. A run whose process is gone was interrupted.

A *claim* is an OS lock on ``claims/<memo key>`` that a process holds while it computes a long step. Another process that needs the same
step sees the lock, waits, and reuses the result. The system releases the lock when the process ends for any reason, so a claim needs no
expiry time. The contents of the file (the process, and since when it computes) are for display only. The holder removes the file when it
releases the claim. The next process that takes a claim in the store removes the files of killed processes, each under its lock. A claim
only saves work: if locks are not available (a read-only or full disk, some file systems), every process gets a claim, and two processes may
compute the same step.

The *list of unrecorded files* keeps ``gc`` in another process from deleting a value file before its row is committed. The time in between
is not bounded: a step may store another output for minutes. So before a process places a file (or uses an existing one), it appends the
name of the file to its list ``writers/<id>``, on which it holds an exclusive lock as long as it lives. A list that another process can
lock belongs to a dead process.

Two orders make this correct without a clock. The writer *lists the file, then places it*. The collector, which holds the lease
throughout, *moves the file away, then reads the lists*, and puts listed files back. If the writer listed the file before the lists were
read, the collector puts it back (unless it has been placed again). If the writer listed it later, it also places it after it was moved
away. A name is removed from the list after its row is committed, and a commit needs the lease: a collector that does not read the name
sees the row.

Names are counted. If two steps store the same value, the row of the first step does not remove the protection of the second.
A line ``-name`` removes a name, and the file is truncated when the list is empty. A file that is never recorded because its step failed
stays on the list until the process ends.
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
    """Return an identifier that changes with every start of this machine."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Elsewhere an estimate of the start time. Setting the clock invalidates witnesses early; it never keeps them valid.
    return f"about-{round((time.time() - time.monotonic()) / 60)}"


def this_process() -> str:
    """Return the unique identity of this process, ``host/boot/pid/start``."""
    return _text(os.getpid())


def is_gone(process: str) -> bool:
    """Return True if a process is known to have ended.

    Parameters
    ----------
    process
        The identity that the process got from `this_process`. A process of another machine is never known to have ended.
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
    """Return the start time of a process; an empty text if it does not exist or has ended."""
    with suppress(OSError, IndexError):
        # On Linux this counts from the start of the machine, so it does not change if the clock is set.
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
"""Seconds for which a listing of the folder is reused. A step is claimed only after it has run for twenty times as long."""
_MOST = 4096
"""The greatest number of bytes that are read from the file of a claim."""
_TRIES = 100
"""The number of attempts to open a file that other processes remove at the same time."""

_held: dict[str, Claim] = {}
"""The claims of this process, by the path of their files."""
_mutex = threading.Lock()


class Claim:
    """A claim, held until `release`."""

    def __init__(self, folder: Folder, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        # At most one element. Popping it is atomic, so exactly one thread gets the descriptor and closes it.
        self._descriptors = [descriptor] if descriptor >= 0 else []

    def release(self) -> None:
        """Release the claim. Any thread may call it; a second call does nothing."""
        with suppress(IndexError, OSError):
            descriptor = self._descriptors.pop()
            try:
                remove_locked(self._folder, self._name, descriptor)
            finally:
                _held.pop(str(self._folder.path / self._name), None)

    def text(self) -> bytes:
        """Return the contents of the file."""
        return read_at_start(self._descriptors[0], _MOST)

    def abandon(self) -> None:
        """Drop the claim in a forked child. The file stays, and stays locked, because the parent has it open, too."""
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
        self._listed_at = -1.0
        self._names: frozenset[str] = frozenset()

    def is_there(self, memo_key: str) -> bool:
        """Return True if a process may hold the claim of a memo key. The answer may be some milliseconds old.

        Every step that runs calls this, and each system call hands Python's lock to another thread.
        """
        now = monotonic()
        if now - self._listed_at >= _LOOK:
            self._listed_at = now
            try:
                self._names = frozenset(self._folder.names(CLAIMS))
            except OSError:
                self._names = frozenset()
        return memo_key in self._names

    def take(self, memo_key: str, claimant: Claimant) -> Claim | None:
        """Return the claim of a memo key, or None if another holder has it; never wait.

        If the file system has no locks, the returned claim excludes no other process.
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
            # On a full disk the text is missing; only the lock matters.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                write_at_start(descriptor, json.dumps(asdict(claimant)).encode())
            if not self._swept:
                self._swept = True
                with suppress(OSError):
                    deque(_files_of_others(folder, CLAIMS, _held.__contains__), maxlen=0)
        return claim

    def claimant(self, memo_key: str) -> Claimant:
        """Return the claimant that the holder of a claim wrote; an empty one if it cannot be read."""
        name = f"{CLAIMS}/{memo_key}"
        held = _held.get(str(self._folder.path / name))
        try:
            fields = json.loads(self._folder.read(name, _MOST) if held is None else held.text())
            return Claimant(str(fields["notebook"]), int(fields["pid"]), str(fields["host"]), float(fields["since"]))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            # The claim has just been taken and is not written yet, or has just been released.
            return Claimant()


def _locked(folder: Folder, name: str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open and lock a file; return -1 if another process has locked it. Raise `OSError` if locks are not available."""
    for _ in range(_TRIES):
        try:
            descriptor = folder.open(name, flags)
        except FileNotFoundError:
            folder.mkdir(name.partition("/")[0])
            descriptor = folder.open(name, flags)
        try:
            ours = lock(descriptor, block=False)
            # Another process may have opened the file before it was locked, and removed it as the file of a dead process.
            if ours and folder.is_file(name, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not ours:
            return -1
    raise OSError(f"{name} is replaced again and again by other processes")


def _files_of_others(folder: Folder, below: str, is_own: Callable[[str], bool]) -> Iterator[int]:
    """Yield descriptors of the files of a folder that other processes have locked; remove the files of dead processes.

    Parameters
    ----------
    is_own
        Returns True if this process holds the file at a path. Such a file is not opened: if locks belong to processes, as on NFS, a
        second descriptor would get the lock, too, and closing it would release the lock of the first.
    """
    for file_name in folder.names(below):
        name = f"{below}/{file_name}"
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
    global _mutex  # noqa: PLW0603 - another thread of the parent may have held the lock
    _mutex = threading.Lock()
    for claim in list(_held.values()):
        claim.abandon()
    _held.clear()


def release_all() -> None:
    """Release every claim of this process; called at its end."""
    for claim in list(_held.values()):
        claim.release()


atexit.register(release_all)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


LISTS = "writers"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND


class Unrecorded:
    """The list of unrecorded files of one process in one store. Every method may be called from any thread.

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
        """List an object that is about to be placed."""
        if self._process != os.getpid():
            # The list belongs to the parent: the child must not write to it, and begins a new one.
            self._start()
        with self._mutex:
            while self._descriptor < 0:
                # If a collector locks the new list before we do, it removes it: try another name.
                self._name = f"{LISTS}/{new_id()}"
                self._descriptor = _locked(self.folder, self._name, _NEW)
            if name not in self._names:
                # It begins with a newline because a full disk may have cut off the previous line.
                line = f"\n{name}\n".encode()
                if os.write(self._descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._names[name] += 1

    def recorded(self, names: Iterable[str]) -> None:
        """Remove one entry of each name from the list: rows that refer to them are committed, or never will be."""
        if not self._names or self._process != os.getpid():
            return
        with self._mutex:
            removals = []
            for name in names:
                if self._names[name] > 1:
                    self._names[name] -= 1
                elif self._names.pop(name, 0):
                    removals.append(f"\n-{name}\n")
            # If the disk refuses the write, the files stay protected from collection until this process ends.
            with suppress(OSError):
                if not self._names:
                    os.ftruncate(self._descriptor, 0)
                elif removals:
                    os.write(self._descriptor, "".join(removals).encode())

    def close(self) -> None:
        """Remove the list if it is empty."""
        if self._process != os.getpid():
            return
        with self._mutex:
            if self._descriptor >= 0 and not self._names:
                # If it cannot be removed, it stays as an empty list.
                with suppress(OSError):
                    self.folder.unlink(self._name, missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def is_own(self, path: str) -> bool:
        """Return True if this is the list of this process at a path."""
        return self._process == os.getpid() and self._descriptor >= 0 and path == str(self.folder.path / self._name)

    def names(self) -> set[str]:
        """Return the names on the list; an empty set in a forked child, because the list belongs to the parent."""
        if self._process != os.getpid():
            return set()
        with self._mutex:
            return set(self._names)


_lists: weakref.WeakSet[Unrecorded] = weakref.WeakSet()
"""All lists of this process."""


def unrecorded_names(folder: Folder) -> set[str]:
    """Return the names on the lists of live processes, and remove the lists of dead ones. The caller holds the lease."""
    own_lists = [own_list for own_list in list(_lists) if own_list.folder.path == folder.path]
    names = {name for own_list in own_lists for name in own_list.names()}
    for descriptor in _files_of_others(
        folder, LISTS, lambda path: any(own_list.is_own(path) for own_list in own_lists)
    ):
        with suppress(OSError), os.fdopen(os.dup(descriptor), encoding="utf-8") as lines:
            names |= _listed(lines)
    return names


def _listed(lines: Iterable[str]) -> set[str]:
    """Return the names that the lines of a list leave on it. The last line may be incomplete while it is being written."""
    names: set[str] = set()
    for line in lines:
        name = line.rstrip("\n")
        if name.startswith("-"):
            names.discard(name[1:])
        elif name:
            names.add(name)
    return names

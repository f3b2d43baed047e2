"""Coordination of the processes that use a store: identity, claims of long steps, and lists of value files without a row yet.

The *identity* of a process is unique, even after a restart of the machine. A run without an end was interrupted if its process has ended.

A *claim* is an OS lock on ``claims/<memo key>`` that a process holds while it computes a long step. Another process that needs the same
step detects the lock, waits, and reuses the result. The system releases the lock when the process ends for any reason, so a claim needs no
expiry time. The contents of the file (the process, and the time when it started the step) are for display only. The holder removes the
file when it releases the claim. A process that takes its first claim in the store removes the files of killed processes, each under its
lock. Claims only save work: if locks are not available (on a read-only or full disk, or on some file systems), every process gets a claim,
and two processes may compute the same step.

The *list of unrecorded files* prevents ``gc`` in another process from deleting a value file before the row of the value is committed. This
can take minutes, while the step stores another output. So before a process places a file (or uses an existing one), it appends the name of
the file to its list ``writers/<id>``, on which it holds an exclusive lock as long as it lives. A list that another process can lock belongs
to a dead process.

This is correct without a clock because of the order of two operations on each side. The writer *lists the file, then places it*. The
collector, which holds the lease throughout, *moves the file away, then reads the lists*, and puts listed files back. If the writer lists
the file before the collector reads the lists, the collector puts the file back (unless the writer has placed it again). If the writer lists
the file later, it also places the file later, when the old one has already been moved away. A name is removed from the list only after
the row is committed, and a commit needs the lease. So a collector that does not find the name in the lists finds the row.

Names are counted: if two steps store the same value, the row of the first step does not remove the protection of the second.
A line ``-name`` removes a name, and the list is truncated when it contains no more names. A file that is never recorded because its step
failed stays on the list until the process ends.
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
    """Return an identifier that changes whenever this machine is started."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Other systems get an estimate of the start time. If the clock is set, the identifier changes without a restart, which is safe.
    return f"about-{round((time.time() - time.monotonic()) / 60)}"


def this_process() -> str:
    """Return the unique identity of this process, ``host/boot/pid/start``."""
    return _text(os.getpid())


def is_gone(process: str) -> bool:
    """Return True if a process is known to have ended.

    Parameters
    ----------
    process
        The identity of the process, as returned by `this_process`. A process of another machine is never known to have ended.
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
    """Return the start time of a process, or an empty string if the process does not exist or has ended."""
    with suppress(OSError, IndexError):
        # On Linux, the start time is relative to the start of the machine, so it does not change if the clock is set.
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
"""Seconds for which a listing of the folder is reused. A step is claimed only after it has run twenty times as long."""
_MOST = 4096
"""Maximum number of bytes that are read from the file of a claim."""
_TRIES = 100
"""The number of attempts to open a file that other processes remove at the same time."""

_claims_held: dict[str, Claim] = {}
"""Maps the path of a file to the claim on it that this process holds."""
_mutex = threading.Lock()


class Claim:
    """A claim, held until `release`."""

    def __init__(self, folder: Folder, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        # A list of at most one element: `pop` is atomic, so only one thread gets the descriptor and closes it.
        self._descriptors = [descriptor] if descriptor >= 0 else []

    def release(self) -> None:
        """Release the claim. Any thread may call this; a second call does nothing."""
        with suppress(IndexError, OSError):
            descriptor = self._descriptors.pop()
            try:
                remove_locked(self._folder, self._name, descriptor)
            finally:
                _claims_held.pop(str(self._folder.path / self._name), None)

    def text(self) -> bytes:
        """Return the contents of the claim's file."""
        return read_at_start(self._descriptors[0], _MOST)

    def abandon(self) -> None:
        """Drop the claim in a forked child. The parent keeps the claim, because its descriptor stays open."""
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
        self._listing_time = -1.0
        self._names: frozenset[str] = frozenset()

    def is_there(self, memo_key: str) -> bool:
        """Return True if a process may hold the claim of a memo key, according to a listing that may be some milliseconds old.

        The listing is reused because every step that runs calls this method, and each system call releases the GIL to another thread.
        """
        now = monotonic()
        if now - self._listing_time >= _LOOK:
            self._listing_time = now
            try:
                self._names = frozenset(self._folder.names(CLAIMS))
            except OSError:
                self._names = frozenset()
        return memo_key in self._names

    def take(self, memo_key: str, claimant: Claimant) -> Claim | None:
        """Take the claim of a memo key without waiting; return None if another process or thread holds it.

        If the file system has no locks, the returned claim excludes no other process.
        """
        folder, name = self._folder, f"{CLAIMS}/{memo_key}"
        path = str(folder.path / name)
        with _mutex:
            if path in _claims_held:
                return None
            try:
                descriptor = _locked(folder, name)
            except OSError:
                return Claim(folder, name, -1)
            if descriptor < 0:
                return None
            claim = _claims_held[path] = Claim(folder, name, descriptor)
            # On a full disk the file stays empty; only the lock matters.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                write_at_start(descriptor, json.dumps(asdict(claimant)).encode())
            if not self._swept:
                self._swept = True
                with suppress(OSError):
                    deque(_files_of_others(folder, CLAIMS, _claims_held.__contains__), maxlen=0)
        return claim

    def claimant(self, memo_key: str) -> Claimant:
        """Return the claimant from the file of a claim, or an empty `Claimant` if the file cannot be read."""
        name = f"{CLAIMS}/{memo_key}"
        held = _claims_held.get(str(self._folder.path / name))
        try:
            fields = json.loads(self._folder.read(name, _MOST) if held is None else held.text())
            return Claimant(str(fields["notebook"]), int(fields["pid"]), str(fields["host"]), float(fields["since"]))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            # The claim has just been taken and its file is not written yet, or the claim has just been released.
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
            is_ours = lock(descriptor, block=False)
            # Before this lock was taken, another process may have locked the file and removed it as the file of a dead process.
            if is_ours and folder.is_file(name, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not is_ours:
            return -1
    raise OSError(f"{name} is replaced again and again by other processes")


def _files_of_others(folder: Folder, folder_name: str, is_own: Callable[[str], bool]) -> Iterator[int]:
    """Yield a descriptor of each file in a folder that another process has locked; remove the files of dead processes.

    Parameters
    ----------
    folder, folder_name
        The store directory, and the name of the folder in it.
    is_own
        Returns True if this process has locked the file at a path. Such a file is not opened again: where locks belong to processes, as
        on NFS, a second descriptor would also get the lock, and closing it would release the lock of the first.
    """
    for file_name in folder.names(folder_name):
        name = f"{folder_name}/{file_name}"
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
    for claim in list(_claims_held.values()):
        claim.abandon()
    _claims_held.clear()


def release_all() -> None:
    """Release every claim of this process; called at exit."""
    for claim in list(_claims_held.values()):
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
        """Add the name of a value file that is about to be placed."""
        if self._process != os.getpid():
            # The list belongs to the parent, so the forked child starts a new one.
            self._start()
        with self._mutex:
            while self._descriptor < 0:
                # A collector that locks the new list first removes it. Then another name is tried.
                self._name = f"{LISTS}/{new_id()}"
                self._descriptor = _locked(self.folder, self._name, _NEW)
            if name not in self._names:
                # The entry begins with a newline because a full disk may have cut off the previous line.
                line = f"\n{name}\n".encode()
                if os.write(self._descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._names[name] += 1

    def remove_recorded(self, names: Iterable[str]) -> None:
        """Remove one entry of each name, when the row that refers to the file is committed or will never be written."""
        if not self._names or self._process != os.getpid():
            return
        with self._mutex:
            removals = []
            for name in names:
                if self._names[name] > 1:
                    self._names[name] -= 1
                elif self._names.pop(name, 0):
                    removals.append(f"\n-{name}\n")
            # If the write fails, the files stay protected from collection until this process ends.
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
                # If the file cannot be removed, it stays as an empty list.
                with suppress(OSError):
                    self.folder.unlink(self._name, missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def is_own(self, path: str) -> bool:
        """Return True if this list is stored at a path and belongs to this process."""
        return self._process == os.getpid() and self._descriptor >= 0 and path == str(self.folder.path / self._name)

    def names(self) -> set[str]:
        """Return the names on the list; in a forked child an empty set, because the list belongs to the parent."""
        if self._process != os.getpid():
            return set()
        with self._mutex:
            return set(self._names)


_lists: weakref.WeakSet[Unrecorded] = weakref.WeakSet()
"""The lists of this process for all stores."""


def unrecorded_names(folder: Folder) -> set[str]:
    """Return the names on the lists of live processes, and remove the lists of dead processes. The caller holds the lease."""
    own_lists = [own_list for own_list in list(_lists) if own_list.folder.path == folder.path]
    names = {name for own_list in own_lists for name in own_list.names()}
    for descriptor in _files_of_others(
        folder, LISTS, lambda path: any(own_list.is_own(path) for own_list in own_lists)
    ):
        with suppress(OSError), os.fdopen(os.dup(descriptor), encoding="utf-8") as lines:
            names |= _listed_names(lines)
    return names


def _listed_names(lines: Iterable[str]) -> set[str]:
    """Return the names that the lines of a list add and do not remove. The last line may be incomplete while it is being written."""
    names: set[str] = set()
    for line in lines:
        name = line.rstrip("\n")
        if name.startswith("-"):
            names.discard(name[1:])
        elif name:
            names.add(name)
    return names

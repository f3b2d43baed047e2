"""Coordination of the processes that use a store: identities, claims of long steps, and lists of unrecorded value files.

The *identity* of a process is a string that no other process ever has, even after a restart of the machine. It is stored with each run. If a
run has no recorded end and its process has ended, the run was interrupted.

A *claim* is an OS lock on ``claims/<memo key>`` that a process holds while it computes a long step. Another process that needs the same
step detects the lock, waits, and reuses the result. The system releases the lock when the process ends for any reason, so a claim needs no
expiry time. The contents of the lock file (the process, and the time when it started the step) are for display only. The process that
holds a claim removes the lock file when it releases the claim. When a process takes its first claim in a store, it also removes the lock
files of killed processes, each after locking it. Claims only save work: if the file system has no locks, or the disk is read-only or full,
every process gets a claim, and two processes may compute the same step.

A value file is *unrecorded* until the row that refers to it is committed. This can take minutes, for example while the step stores another
output, and ``gc`` in another process must not delete the file meanwhile. To *place* a value file is to move it below ``objects/``. Before a
process places a value file, or uses a value file that already exists, it appends the name of the file to its *list of unrecorded files*, the
file ``writers/<id>``. The process holds an exclusive lock on its list as long as it lives. So a list that another process can lock belongs
to a dead process.

This protocol needs no clock, because each side performs two operations in a fixed order. The writer *lists the file, then places it*. The
collector, which holds the lease throughout, *moves the file away, then reads the lists*, and moves listed files back. If the writer lists the
file before the collector reads the lists, the collector moves the file back (unless the writer has placed it again). If the writer lists the
file later, it also places the file later, so the collector, which has already moved the old file away, does not touch the placed file. The
writer removes a name from its list only after the row is committed, and a commit needs the lease. So if the collector does not find a name in
the lists, the row was committed before the collector took the lease, and the collector finds the row.

If two steps store the same value, the name of its file is counted twice, so that the file stays protected when the row of the first step is
committed. The line ``-name`` in a list removes ``name``, and a list without names is truncated. If a step fails, the names of its files stay
on the list until the process ends.
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
    """Return a string that identifies the current boot of this machine: it stays the same until the machine is restarted."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # On other systems, the identifier is an estimate of the start time of the machine. If the clock is set, the estimate changes without a
    # restart. Then `is_gone` regards processes that started before the change as ended.
    return f"about-{round((time.time() - time.monotonic()) / 60)}"


def this_process() -> str:
    """Return the identity of this process, ``host/boot/pid/start``, which no other process ever has."""
    return _text(os.getpid())


def is_gone(process: str) -> bool:
    """Return True if the process with the identity ``process`` has ended. `this_process` returns such an identity.

    Return False if the process is alive, if it belongs to another machine and therefore cannot be checked, or if ``process`` is not an
    identity.
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
    """Return the start time of the process ``pid`` as a string; an empty string if there is no such process or it has ended."""
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
_LOOK = 0.05
"""Seconds for which a listing of ``claims/`` is reused. This is short compared with the 0.2 s after which a running step is claimed."""
_MOST = 4096
"""Maximum number of bytes that are read from the lock file of a claim."""
_TRIES = 100
"""Maximum number of attempts to lock a file. An attempt fails if another process removes the file after it was opened."""

_claims_held: dict[str, Claim] = {}
"""The claims that this process holds, by the path of the lock file."""
_mutex = threading.Lock()


class Claim:
    """A claim of a memo key that this process holds until it calls `release`."""

    def __init__(self, folder: Folder, name: str, descriptor: int) -> None:
        self._folder = folder
        self._name = name
        # The list has at most one element. `pop` is atomic, so only one thread gets the descriptor and closes it.
        self._descriptors = [descriptor] if descriptor >= 0 else []

    def release(self) -> None:
        """Release the claim and remove its lock file. Any thread may call this; a second call does nothing."""
        with suppress(IndexError, OSError):
            descriptor = self._descriptors.pop()
            try:
                remove_locked(self._folder, self._name, descriptor)
            finally:
                _claims_held.pop(str(self._folder.path / self._name), None)

    def text(self) -> bytes:
        """Return the contents of the claim's lock file."""
        return read_at_start(self._descriptors[0], _MOST)

    def abandon(self) -> None:
        """In a forked child, close the inherited descriptor. The parent still holds the claim, because its descriptor stays open."""
        with suppress(IndexError, OSError):
            os.close(self._descriptors.pop())


class Claims:
    """The claims of memo keys in one store, whichever process holds them.

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
        """Return True if a process, this one or another, may hold the claim of a memo key.

        The answer comes from a listing of ``claims/`` that is less than `_LOOK` seconds old, so it can be out of date. The listing is reused
        because this method is called for every step that runs, and each system call would let another thread take the GIL.
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
        """Take the claim of a memo key without waiting; return None if another process or another thread holds the claim.

        ``claimant`` describes this process, and is written to the lock file for display. If the file system has no locks, or the lock file
        cannot be created, the result is a claim that does not exclude other processes.
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
            # On a full disk the lock file stays empty. This is harmless, because its contents are for display only.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                write_at_start(descriptor, json.dumps(asdict(claimant)).encode())
            if not self._swept:
                self._swept = True
                with suppress(OSError):
                    deque(_files_of_others(folder, CLAIMS, _claims_held.__contains__), maxlen=0)
        return claim

    def claimant(self, memo_key: str) -> Claimant:
        """Return the description of the process that holds the claim of a memo key; an empty `Claimant` if the lock file cannot be read."""
        name = f"{CLAIMS}/{memo_key}"
        held = _claims_held.get(str(self._folder.path / name))
        try:
            fields = json.loads(self._folder.read(name, _MOST) if held is None else held.text())
            return Claimant(str(fields["notebook"]), int(fields["pid"]), str(fields["host"]), float(fields["since"]))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            # The claim has just been taken and its lock file is not written yet, or the claim has just been released.
            return Claimant()


def _locked(folder: Folder, name: str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open a lock file with ``flags``, lock it without waiting, and return its descriptor; return -1 if another process has the lock.

    Raise `OSError` if the file system has no locks.
    """
    for _ in range(_TRIES):
        try:
            descriptor = folder.open(name, flags)
        except FileNotFoundError:
            folder.mkdir(name.partition("/")[0])
            descriptor = folder.open(name, flags)
        try:
            is_ours = lock(descriptor, block=False)
            # Another process may have removed the file between `open` and `lock`, because the file seemed to belong to a dead process.
            if is_ours and folder.is_file(name, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not is_ours:
            return -1
    raise OSError(f"{name} could not be locked in {_TRIES} attempts, because other processes kept removing it")


def _files_of_others(folder: Folder, folder_name: str, is_own: Callable[[str], bool]) -> Iterator[int]:
    """Yield an open descriptor of each lock file that another live process has locked, and remove the lock files of dead processes.

    The descriptor is closed when the next one is requested.

    Parameters
    ----------
    folder, folder_name
        The store directory, and the name of the folder in it that contains the lock files.
    is_own
        Returns True if this process has locked the file at an absolute path. Such a file is skipped and not opened. On NFS, where locks
        belong to processes, this process could lock the file a second time, and closing the second descriptor would release both locks.
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
    global _mutex  # noqa: PLW0603 - at the fork, another thread of the parent may have held the lock
    _mutex = threading.Lock()
    for claim in list(_claims_held.values()):
        claim.abandon()
    _claims_held.clear()


def release_all() -> None:
    """Release every claim that this process holds. Called when the process exits."""
    for claim in list(_claims_held.values()):
        claim.release()


atexit.register(release_all)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


LISTS = "writers"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND


class Unrecorded:
    """The list of the value files that this process places in one store and whose rows are not committed yet.

    The list protects these files from ``gc`` in other processes. Every method may be called from any thread.

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
        """Add the name of a value file to the list. Call this before this process places the file or, if it already exists, uses it."""
        if self._process != os.getpid():
            # The list belongs to the parent, so the forked child starts a new one.
            self._start()
        with self._mutex:
            while self._descriptor < 0:
                # If a collector locks the new list before this process does, the collector removes the list. Then another name is tried.
                self._name = f"{LISTS}/{new_id()}"
                self._descriptor = _locked(self.folder, self._name, _NEW)
            if name not in self._names:
                # The name is written after a newline, because a full disk may have cut off the end of the previous line.
                line = f"\n{name}\n".encode()
                if os.write(self._descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._names[name] += 1

    def remove_recorded(self, names: Iterable[str]) -> None:
        """Remove each of the names from the list once. Call this when the rows that refer to the files are committed or will never be written.

        If a name was added twice, it stays on the list until it is removed a second time.
        """
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
        """Delete the file of the list if the list contains no names."""
        if self._process != os.getpid():
            return
        with self._mutex:
            if self._descriptor >= 0 and not self._names:
                # A file that cannot be deleted is an empty list, which is harmless.
                with suppress(OSError):
                    self.folder.unlink(self._name, missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def is_own(self, path: str) -> bool:
        """Return True if ``path`` is the absolute path of this list's file, and the list was made by this process, not by its parent."""
        return self._process == os.getpid() and self._descriptor >= 0 and path == str(self.folder.path / self._name)

    def names(self) -> set[str]:
        """Return the names on the list; in a forked child an empty set, because the list belongs to the parent."""
        if self._process != os.getpid():
            return set()
        with self._mutex:
            return set(self._names)


_lists: weakref.WeakSet[Unrecorded] = weakref.WeakSet()
"""The lists of this process, one for each open store."""


def unrecorded_names(folder: Folder) -> set[str]:
    """Return the names of all unrecorded value files in a store: the names on the lists of this process and of other live processes.

    The lists of dead processes are removed. The caller holds the lease.
    """
    own_lists = [own_list for own_list in list(_lists) if own_list.folder.path == folder.path]
    names = {name for own_list in own_lists for name in own_list.names()}
    for descriptor in _files_of_others(folder, LISTS, lambda path: any(own_list.is_own(path) for own_list in own_lists)):
        with suppress(OSError), os.fdopen(os.dup(descriptor), encoding="utf-8") as lines:
            names |= _listed_names(lines)
    return names


def _listed_names(lines: Iterable[str]) -> set[str]:
    """Return the names on a list of unrecorded value files: those that a line of the list adds and no later line removes.

    The last line may be incomplete, because the process to which the list belongs may be writing it.
    """
    names: set[str] = set()
    for line in lines:
        name = line.rstrip("\n")
        if name.startswith("-"):
            names.discard(name[1:])
        elif name:
            names.add(name)
    return names

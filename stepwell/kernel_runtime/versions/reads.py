# ruff: noqa: PTH100, PTH110, PTH116, PTH118, PTH123 - plain strings: an audit hook runs inside every open()
"""Recorded reads: the files that a step opened while it ran, found again before its value is reused.

Python raises the audit event ``open`` before each file is opened, whoever opens it. One hook for the process looks whether the
opening belongs to a step: to its context, or to a thread that the step started. Opening a file that is not there is a
read as well: the step would do something else if it were. What the step wrote is no input of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from contextvars import ContextVar, Token
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepwell.kernel_runtime.records.reads import Read

_current: ContextVar[ReadRecorder | None] = ContextVar("stepwell_reads", default=None)
_threads: dict[int, ReadRecorder] = {}
_installed = False
_install_lock = threading.Lock()
_UNSTABLE = "changed while the step ran"
# A file that changes again within one tick of the file system's clock keeps its time.
_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_000_000_000
_WRITES = os.O_WRONLY | os.O_RDWR


def _excluded_folders() -> tuple[str, ...]:
    found = {"/proc/", "/sys/", "/dev/"}
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        for path in (prefix, os.path.realpath(prefix)):
            # A prefix of /usr holds more than Python.
            if path in {"/usr", "/usr/local", "/"}:
                found |= {os.path.join(path, lib, "") + f"python{sys.version_info[0]}" for lib in ("lib", "lib64")}
            else:
                found.add(os.path.join(path, ""))
    return tuple(sorted(found))


_EXCLUDED = _excluded_folders()
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}", f"{os.sep}__pycache__{os.sep}")


class ReadRecorder:
    """Records the files that the code inside the ``with`` block reads.

    Parameters
    ----------
    exclude
        Folders that do not count: the store's.
    """

    __slots__ = ("_exclude", "_result", "_seen", "_token", "_written")

    def __init__(self, exclude: tuple[Path, ...] = ()) -> None:
        self._exclude = exclude
        self._seen: dict[str, tuple[int, ...] | None] = {}
        self._written: set[str] = set()
        self._result: tuple[Read, ...] = ()
        self._token: Token[ReadRecorder | None] | None = None

    def __enter__(self) -> Self:
        if not _installed:
            _install()
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
        if self._seen:
            self._result = tuple(self._digested())

    @property
    def reads(self) -> tuple[Read, ...]:
        """What was read, by name; complete when the block has ended."""
        return self._result

    def opened(self, path: str, *, writes: bool) -> None:
        """Note that a file is about to be opened."""
        if writes:
            self._written.add(path)
        elif path not in self._seen and path not in self._written:
            self._seen[path] = _stat(path)

    def _digested(self) -> list[Read]:
        exclude = tuple(os.path.join(form, "") for path in self._exclude for form in {os.path.abspath(path), os.path.realpath(path)})
        found = []
        for path, before in sorted(self._seen.items()):
            if path in self._written or (exclude and path.startswith(exclude)) or (exclude and os.path.realpath(path).startswith(exclude)):
                continue
            now = _stat(path)
            if before is None and now is None:
                found.append(Read("absent", path))
                continue
            if before != now or now is None:
                found.append(Read("file", path, _UNSTABLE))
                continue
            digest = file_digest(path)
            if digest is not None:
                found.append(Read("file", path, digest, () if _too_recent(now) else now))
        return found


def read_holds(read: Read) -> bool:
    """Whether what a step read is still the same: by size, times and inode, by content where these differ or were too recent."""
    if read.kind == "absent":
        return not os.path.exists(read.name)
    if read.kind != "file":
        return False
    now = _stat(read.name)
    if now is None:
        return False
    if read.stat:
        if tuple(read.stat) == now:
            return True
        if read.stat[0] != now[0]:
            return False
    return file_digest(read.name) == read.digest


def file_digest(path: str) -> str | None:
    """Return the digest of a file's content, 32 hexadecimal digits; None if it cannot be read."""
    from blake3 import blake3

    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
            if len(data) < 1 << 20:
                return blake3(data).hexdigest(16)
            hasher = blake3(data, max_threads=blake3.AUTO)
            while data := file.read(1 << 23):
                hasher.update(data)
            return hasher.hexdigest(16)
    except OSError:
        return None


def _stat(path: str) -> tuple[int, ...] | None:
    """Return size, mtime_ns, ctime_ns and inode of a file; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _too_recent(stat: tuple[int, ...]) -> bool:
    newest = max(stat[1], stat[2])
    tick = _COARSE_TICK_NS if newest % 1_000_000_000 == 0 else _TICK_NS
    return time.time_ns() - newest < tick


def _install() -> None:
    global _installed  # noqa: PLW0603 - an audit hook cannot be removed, so there is one
    with _install_lock:
        if not _installed:
            sys.addaudithook(_hook)
            _watch_threads()
            _installed = True


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        recorder = _current.get()
        if recorder is None:
            if not _threads:
                return
            recorder = _threads.get(threading.get_ident())
            if recorder is None:
                return
        # An exception here would become the step's own failure to open the file.
        with suppress(Exception):
            _opened(recorder, *arguments)


def _watch_threads() -> None:
    """Look at each thread that is started: its context is empty, and no audit event tells which step it belongs to."""
    start = threading.Thread.start

    @wraps(start)
    def start_followed(thread: threading.Thread) -> None:
        recorder = _current.get() or _threads.get(threading.get_ident())
        if recorder is not None:
            _follow(thread, recorder)
        start(thread)

    threading.Thread.start = start_followed  # type: ignore[method-assign, assignment]


def _follow(thread: threading.Thread, recorder: ReadRecorder) -> None:
    """Let what a thread opens count for the step that starts it."""
    run = thread.run

    def recorded() -> None:
        ident = threading.get_ident()
        _threads[ident] = recorder
        try:
            run()
        finally:
            _threads.pop(ident, None)
            # A thread runs once; a reference to itself would keep it.
            vars(thread).pop("run", None)

    vars(thread)["run"] = recorded


def _opened(recorder: ReadRecorder, path: Any, mode: str | None, flags: int) -> None:
    if isinstance(path, int):
        return
    name = os.fsdecode(path)
    writes = bool(flags & _WRITES) if mode is None else any(letter in mode for letter in "wax+")
    if flags & getattr(os, "O_DIRECTORY", 0):
        return
    name = os.path.abspath(name)
    if name.startswith(_EXCLUDED) or name.endswith(".pyc") or any(part in name for part in _SITE):
        return
    recorder.opened(name, writes=writes)

# ruff: noqa: PTH100 - plain strings: an audit hook runs inside every open()
"""What tells a recorder of reads: Python's audit events, the wrapped environment and native readers, and the threads of a step.

Python raises an audit event before each file is opened, each folder listed, each address connected to, whoever does it in Python.
One hook for the process looks whether that belongs to a step: to its context, or to a thread that the step started.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import wraps
from pathlib import PurePath
from typing import Any

from stepwell.kernel_runtime.versions.library_state import FOLDER
from stepwell.kernel_runtime.versions.reads.children import command_run, forked, program_started
from stepwell.kernel_runtime.versions.reads.environment import counts_here, watch_environment
from stepwell.kernel_runtime.versions.reads.files import counts
from stepwell.kernel_runtime.versions.reads.native import rebind, watch_readers
from stepwell.kernel_runtime.versions.reads.recorder import ReadRecorder, active, threads
from stepwell.kernel_runtime.versions.reads.statuses import watch_statuses


def watch_process() -> None:
    """Begin to look, once per process: an audit hook cannot be removed."""
    sys.addaudithook(_hook)
    watch_environment(active)
    watch_readers(active)
    rebind(watch_statuses(active, counts, counts_here))
    _watch_threads()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    noted = _EVENTS.get(event)
    if noted is None:
        return
    recorder = active()
    if recorder is not None:
        # An exception here would become the step's own failure to open the file.
        with suppress(Exception):
            noted(recorder, *arguments)


def _opened(recorder: ReadRecorder, path: Any, mode: str | None, flags: int) -> None:
    if isinstance(path, int) or flags & getattr(os, "O_DIRECTORY", 0):
        return
    given = os.fsdecode(path)
    name = os.path.abspath(given)
    if not counts(name):
        return
    if not os.path.isabs(given):  # noqa: PTH117 - as above
        recorder.state_read(FOLDER)
    if mode is None:
        access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        writes = access != os.O_RDONLY
        reads = access == os.O_RDONLY or (access == os.O_RDWR and not flags & (os.O_TRUNC | os.O_EXCL))
    else:
        writes = any(letter in mode for letter in "wax+")
        reads = not any(letter in mode for letter in ("wx" if "+" in mode else "wax"))
    appends = not reads and (flags & os.O_APPEND != 0 if mode is None else "a" in mode)
    recorder.opened(name, reads=reads, writes=writes, appends=appends)


def _listed(recorder: ReadRecorder, path: Any = None) -> None:
    # A folder that is open already was opened by somebody who counts; `shutil.rmtree` goes through these.
    if not isinstance(path, int) and counts_here(sys._getframe(2)):  # noqa: SLF001 - who lists it
        given = os.fsdecode(path) if path is not None else "."
        if not os.path.isabs(given):  # noqa: PTH117 - as above
            recorder.state_read(FOLDER)
        recorder.listed(given)


def _moved(recorder: ReadRecorder, path: Any) -> None:
    if not isinstance(path, int) and not os.path.isabs(os.fsdecode(path)):  # noqa: PTH117 - as above
        recorder.state_read(FOLDER)
    recorder.state_set(FOLDER)


def _made(recorder: ReadRecorder, path: Any, *_: Any) -> None:
    if isinstance(path, (str, bytes, PurePath)):
        recorder.made(os.fsdecode(path))


def _renamed(recorder: ReadRecorder, source: Any, target: Any, *_: Any) -> None:
    _removed(recorder, source)
    if os.path.isdir(source):  # noqa: PTH112 - as above
        recorder.made(os.fsdecode(target))
    else:
        recorder.opened(os.path.abspath(os.fsdecode(target)), reads=False, writes=True)


def _removed(recorder: ReadRecorder, path: Any, *_: Any) -> None:
    if isinstance(path, (str, bytes, PurePath)):
        recorder.removed(os.fsdecode(path))


def _connected(recorder: ReadRecorder, _: Any, address: Any) -> None:
    # Of the internet's families only: a path is a socket on this machine.
    if isinstance(address, tuple) and address and isinstance(address[0], str):
        recorder.connected(address[0])


def _asked(recorder: ReadRecorder, host: Any, *_: Any) -> None:
    if host:
        recorder.host_asked(host.decode("ascii", "replace") if isinstance(host, bytes) else str(host))


def _database(recorder: ReadRecorder, database: Any) -> None:
    name = os.fsdecode(database)
    if name.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        parts = urlsplit(name)
        name = "" if "mode=memory" in parts.query else unquote(parts.path)
    if name not in ("", ":memory:") and counts(os.path.abspath(name)):
        recorder.database_opened(name, "-wal")


_EVENTS: dict[str, Callable[..., None]] = {
    "open": _opened,
    "os.listdir": _listed,
    "os.scandir": _listed,
    "os.chdir": _moved,
    "os.mkdir": _made,
    "os.remove": _removed,
    "os.rmdir": _removed,
    "shutil.rmtree": _removed,
    "os.rename": _renamed,
    "os.link": _renamed,
    "os.symlink": _renamed,
    "socket.connect": _connected,
    "socket.getaddrinfo": _asked,
    "socket.gethostbyname": _asked,
    "sqlite3.connect": _database,
    "subprocess.Popen": program_started,
    "os.posix_spawn": program_started,
    "os.system": command_run,
    "os.fork": forked,
    "os.forkpty": forked,
}


def _watch_threads() -> None:
    """Look at each thread that is started: its context is empty, and no audit event tells which step it belongs to."""
    start = threading.Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @wraps(start)
    def start_followed(thread: threading.Thread) -> None:
        recorder = active()
        if recorder is not None:
            _follow(thread, recorder)
        start(thread)

    @wraps(submit)
    def submit_followed(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        recorder = active()
        if recorder is not None:
            function = _followed(function, recorder)
        return submit(pool, function, *args, **kwargs)

    threading.Thread.start = start_followed  # type: ignore[method-assign, assignment]
    # A pool's threads outlive the step that first used it, so each piece of work brings its step.
    ThreadPoolExecutor.submit = submit_followed  # type: ignore[method-assign, assignment]


def _follow(thread: threading.Thread, recorder: ReadRecorder) -> None:
    """Let what a thread reads count for the step that starts it."""
    run = _followed(thread.run, recorder)

    def recorded() -> None:
        try:
            run()
        finally:
            # A thread runs once; a reference to itself would keep it.
            vars(thread).pop("run", None)

    vars(thread)["run"] = recorded


def _followed(function: Callable[..., Any], recorder: ReadRecorder) -> Callable[..., Any]:
    def followed(*args: Any, **kwargs: Any) -> Any:
        ident = threading.get_ident()
        before = threads.get(ident)
        threads[ident] = recorder
        try:
            return function(*args, **kwargs)
        finally:
            if before is None:
                threads.pop(ident, None)
            else:
                threads[ident] = before

    return followed

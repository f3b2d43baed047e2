# ruff: noqa: PTH100 - plain strings: an audit hook runs inside every open()
"""What tells a recorder of reads: Python's audit events, the wrapped environment, wrapped native readers, and the threads of a step.

Python raises an audit event before it opens a file, lists a folder or connects to an address. One hook per process decides whether the
event belongs to a step: to its context, or to a thread that the step started. Native readers of modules that are already imported are
wrapped when the first step of the process starts, those of later modules when their import ends. Names that a notebook or local module
took from a library before (``from polars import read_parquet``) are rebound to the wrapped function.
"""

from __future__ import annotations

import builtins
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import update_wrapper, wraps
from importlib.machinery import ModuleSpec
from pathlib import PurePath
from types import FrameType, ModuleType
from typing import Any

from stepwell.kernel_runtime.reads.checks import watch_statuses
from stepwell.kernel_runtime.reads.readers import (
    MODULES,
    Note,
    command_run,
    file_system_methods,
    forked,
    program_started,
    readers_of,
)
from stepwell.kernel_runtime.reads.recorder import ReadRecorder, active, threads
from stepwell.kernel_runtime.versions.environment import counts_here, watch_environment
from stepwell.kernel_runtime.versions.library_state import FOLDER
from stepwell.kernel_runtime.versions.ownership import OURS, is_input_path

Active = Callable[[], ReadRecorder | None]

# DuckDB looks for frames in the variables of its caller, and passes over frames of modules of its own name.
_SHIM = compile(
    """
def bound(original, note):
    def reader(*args, **kwargs):
        note(args, kwargs)
        return original(*args, **kwargs)
    return reader
""",
    "<reader>",
    "exec",
)


def watch_readers(active: Active) -> None:
    """Wrap the readers of every module of the table that is, or will be, imported."""
    replaced: dict[int, tuple[Any, Any]] = {}
    for name in sorted(MODULES):
        module = sys.modules.get(name)
        if module is not None:
            replaced.update(_wrap(module, active))
    if replaced:
        rebind(replaced)
    sys.meta_path.insert(0, _Finder(active))


def _wrap(module: ModuleType, active: Active) -> dict[int, tuple[Any, Any]]:
    """Wrap the readers of a module; return by identity the originals, each with what stands for it."""
    replaced: dict[int, tuple[Any, Any]] = {}
    for owner, name, note in readers_of(module):
        original = getattr(owner, name)
        if id(original) not in replaced:
            replaced[id(original)] = (original, _wrapped(original, note, active, module.__name__))
        wrapped = replaced[id(original)][1]
        # An extension type may be sealed.
        with suppress(TypeError, AttributeError):
            setattr(owner, name, wrapped)
        home = sys.modules.get(getattr(original, "__module__", None) or "")
        own_name = getattr(original, "__name__", "")
        # Pickling finds a function by the name of its module and its own.
        if isinstance(owner, ModuleType) and home is not None and vars(home).get(own_name) is original:
            setattr(home, own_name, wrapped)
    if module.__name__ == "pyarrow":
        replaced.update(_wrap_class(module, "OSFile", {"__new__": _os_file(active, module.OSFile)}))
    elif module.__name__ == "pyarrow.fs":
        original = module.LocalFileSystem
        methods = {
            name: _wrapped(getattr(original, name), note, active, original.__module__)
            for name, note in file_system_methods().items()
        }
        replaced.update(_wrap_class(module, "LocalFileSystem", methods))
    return replaced


def _wrapped(original: Any, note: Note, active: Active, module: str) -> Any:
    def noted(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        recorder = active()
        # The store's own statements outside of steps say nothing of the user's connections.
        if recorder is not None or (always and not _is_ours(sys._getframe(2))):  # noqa: SLF001 - who calls the reader
            # What cannot be understood here is the reader's to refuse.
            with suppress(Exception):
                note(recorder, args, kwargs)  # type: ignore[arg-type]  # one that is called always takes None

    always = getattr(note, "always", False)
    home = getattr(original, "__module__", None) or module
    # Of the extension module `_duckdb` no frame is passed over.
    home = home if home.partition(".")[0] == module.partition(".")[0] else module
    space: dict[str, Any] = {"__name__": home, "__builtins__": builtins}
    exec(_SHIM, space)  # noqa: S102 - a constant; the function must belong to that module
    wrapped = update_wrapper(space["bound"](original, noted), original)
    wrapped.__module__ = home
    return wrapped


def _is_ours(caller: FrameType) -> bool:
    name = caller.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(f"{OURS}.")


def _wrap_class(module: ModuleType, name: str, methods: Mapping[str, Any]) -> dict[int, tuple[Any, Any]]:
    """Put a class with other methods in the place of a sealed one; instances of either pass as both."""
    original = getattr(module, name)

    class Kind(type(original)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, original)

    made = Kind(name, (original,), {**methods, "__module__": module.__name__, "__doc__": original.__doc__})
    # Not in the extension module: others that are compiled take the type itself from there.
    setattr(module, name, made)
    return {id(original): (original, made)}


def _os_file(active: Active, original: Any) -> Callable[..., Any]:
    def new(cls: type, path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is not None and isinstance(path, str | os.PathLike):
            with suppress(Exception):
                if set(mode) & {"w", "a"}:
                    recorder.opened(os.path.abspath(os.fsdecode(path)), reads=False, writes=True)
                else:
                    recorder.path_read(os.fsdecode(path))
        # A plain call gives what the library gives; a class of the user's own that derives from it is made as usual.
        if cls.__name__ == "OSFile" and cls.__module__ == "pyarrow":
            return original(path, mode, *args, **kwargs)
        return original.__new__(cls, path, mode, *args, **kwargs)

    return new


def rebind(replaced: Mapping[int, tuple[Any, Any]]) -> None:
    """Bind names of the user's modules that were taken from a library before it was wrapped."""
    for module in list(sys.modules.values()):
        space = getattr(module, "__dict__", None)
        # Nothing is asked of the module itself: a lazy one would begin its import.
        if type(space) is not dict:
            continue
        file = space.get("__file__")
        if space.get("__name__") != "__main__" and not (isinstance(file, str) and is_input_path(file)):
            continue
        if str(space.get("__name__")).startswith("stepwell."):
            # Ours looks for itself.
            continue
        for name, value in list(space.items()):
            pair = replaced.get(id(value))
            if pair is not None and pair[0] is value:
                space[name] = pair[1]


class _Finder:
    """Stands before the other finders, finds nothing itself, and wraps a module of the table when its import has ended."""

    def __init__(self, active: Active) -> None:
        self._active = active

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in MODULES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                _wrap_when_executed(spec, self._active)
                return spec
        return None


def _wrap_when_executed(spec: ModuleSpec, active: Active) -> None:
    loader: Any = spec.loader
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def executed(module: ModuleType) -> None:
        execute(module)
        # A library of another version must not fail to import because of this.
        with suppress(Exception):
            _wrap(module, active)

    with suppress(AttributeError):
        loader.exec_module = executed


_watching = False
_watch_lock = threading.Lock()


def watch() -> None:
    """Begin to look at what steps read; once per process, and before the first code is walked: readers are wrapped in place."""
    global _watching  # noqa: PLW0603 - an audit hook cannot be removed, so there is one
    with _watch_lock:
        if not _watching:
            _watch_process()
            _watching = True


def _watch_process() -> None:
    sys.addaudithook(_hook)
    watch_environment(active)
    watch_readers(active)
    rebind(watch_statuses(active))
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
    if not is_input_path(name):
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
    if name not in ("", ":memory:") and is_input_path(os.path.abspath(name)):
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

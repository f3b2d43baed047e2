# ruff: noqa: PTH100, PTH112, PTH113, PTH118 - strings are quicker than paths, and an audit hook runs inside every open()
"""Hooks that report reads to the recorder of a step: audit events, the wrapped environment, wrapped native readers, and threads.

Python raises an audit event before it opens a file, lists a folder or connects to an address. One audit hook per process reports each event
to the recorder of the step that caused the event. In a thread that a step started, this is the recorder of that step.

A native reader opens files without an audit event, so it is replaced by a wrapper that reports each call. The readers of modules that are
imported already are wrapped by `watch`, and those of any other module at the end of its import. Names by which the notebook or a local module
already refers to a reader (``from polars import read_parquet``) are rebound to the wrapper.
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
from stepwell.kernel_runtime.reads.recorder import ReadRecorder, active, threads, watched_import
from stepwell.kernel_runtime.versions import references
from stepwell.kernel_runtime.versions.environment import counts_here, watch_environment
from stepwell.kernel_runtime.versions.library_state import FOLDER
from stepwell.kernel_runtime.versions.ownership import OURS, is_input_path

Active = Callable[[], ReadRecorder | None]
"""Returns the recorder of the step in which the calling code runs; None outside steps."""

# DuckDB looks up data frames in the variables of its caller, and skips callers whose module has DuckDB's name. The wrapper is compiled from text,
# so that its globals can have this name.
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
    """Wrap the native readers of all modules in `MODULES`.

    The readers of a module that is imported already are wrapped now, those of any other module at the end of its import.
    """
    replaced: dict[int, tuple[Any, Any]] = {}
    for name in sorted(MODULES):
        module = sys.modules.get(name)
        if module is not None:
            replaced.update(_wrap(module, active))
    if replaced:
        rebind(replaced)
    sys.meta_path.insert(0, _Finder(active))


def _wrap(module: ModuleType, active: Active) -> dict[int, tuple[Any, Any]]:
    """Wrap the native readers of a module: functions that open files without an audit event.

    Returns
    -------
    dict
        One entry for each reader. The key is the `id` of the original function or class; the value is the pair of the original and its
        wrapper.
    """
    replaced: dict[int, tuple[Any, Any]] = {}
    for owner, name, note in readers_of(module):
        original = getattr(owner, name)
        if id(original) not in replaced:
            replaced[id(original)] = (original, _wrapped(original, note, active, module.__name__))
        wrapped = replaced[id(original)][1]
        # The attributes of an extension type may be read-only.
        with suppress(TypeError, AttributeError):
            setattr(owner, name, wrapped)
        home = sys.modules.get(getattr(original, "__module__", None) or "")
        function_name = getattr(original, "__name__", "")
        # Pickle finds a function by its module and name, and must find the wrapper there.
        if isinstance(owner, ModuleType) and home is not None and vars(home).get(function_name) is original:
            setattr(home, function_name, wrapped)
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
        # Calls by Stepwell itself outside of steps are not noted, because they do not change the user's connections.
        if recorder is not None or (always and not _is_ours(sys._getframe(2))):  # noqa: SLF001 - the caller of the reader
            # An exception for invalid arguments is ignored here, because the reader raises its own.
            with suppress(Exception):
                note(recorder, args, kwargs)  # type: ignore[arg-type]  # a note with `always` accepts None

    always = getattr(note, "always", False)
    home = getattr(original, "__module__", None) or module
    # DuckDB does not skip callers whose module is its extension module `_duckdb`.
    home = home if home.partition(".")[0] == module.partition(".")[0] else module
    space: dict[str, Any] = {"__name__": home, "__builtins__": builtins}
    exec(_SHIM, space)  # noqa: S102 - constant code; the function must belong to that module
    wrapped = update_wrapper(space["bound"](original, noted), original)
    wrapped.__module__ = home
    return wrapped


def _is_ours(caller: FrameType) -> bool:
    name = caller.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(f"{OURS}.")


def _wrap_class(module: ModuleType, name: str, methods: Mapping[str, Any]) -> dict[int, tuple[Any, Any]]:
    """Replace a class of a module by a subclass that overrides `methods`.

    This is for classes whose attributes cannot be set. For `isinstance` and `issubclass`, the two classes are the same.

    Returns
    -------
    dict
        One entry: the key is the `id` of the class, the value is the pair of the class and its subclass.
    """
    original = getattr(module, name)

    class Kind(type(original)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, original)

    subclass = Kind(name, (original,), {**methods, "__module__": module.__name__, "__doc__": original.__doc__})
    # The extension module keeps the original class, because other compiled modules use that class as a type.
    setattr(module, name, subclass)
    return {id(original): (original, subclass)}


def _os_file(active: Active, original: Any) -> Callable[..., Any]:
    def new(cls: type, path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is not None and isinstance(path, str | os.PathLike):
            with suppress(Exception):
                if set(mode) & {"w", "a"}:
                    recorder.file_opened(os.path.abspath(os.fsdecode(path)), reads=False, writes=True)
                else:
                    recorder.path_read(os.fsdecode(path))
        # `pyarrow.OSFile(...)` returns an instance of the original class. A subclass defined by the user is instantiated as usual.
        if cls.__name__ == "OSFile" and cls.__module__ == "pyarrow":
            return original(path, mode, *args, **kwargs)
        return original.__new__(cls, path, mode, *args, **kwargs)

    return new


def rebind(replaced: Mapping[int, tuple[Any, Any]]) -> None:
    """Rebind names of the notebook and of local modules from original functions to their wrappers.

    Parameters
    ----------
    replaced
        Maps the `id` of each original function or class to the pair of the original and its wrapper.
    """
    for module in list(sys.modules.values()):
        space = getattr(module, "__dict__", None)
        # Attributes are read from the namespace, because `getattr` on a lazy module would import it.
        if type(space) is not dict:
            continue
        file = space.get("__file__")
        if space.get("__name__") != "__main__" and not (isinstance(file, str) and is_input_path(file)):
            continue
        if str(space.get("__name__")).startswith("stepwell."):
            # Modules of Stepwell keep the original functions.
            continue
        for name, value in list(space.items()):
            pair = replaced.get(id(value))
            if pair is not None and pair[0] is value:
                space[name] = pair[1]


class _Finder:
    """The first finder in ``sys.meta_path``. The other finders find the module; this one wraps the readers of the module after its import."""

    def __init__(self, active: Active) -> None:
        self._active = active

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
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
        # The import must succeed even if this version of the library does not have the readers in the table.
        with suppress(Exception):
            _wrap(module, active)

    with suppress(AttributeError):
        loader.exec_module = executed


_watching = False
_watch_lock = threading.Lock()


def watch() -> None:
    """Install the hooks of this process, if this has not been done yet.

    Call this function before each code walk. A code version is computed from the functions that the walk finds, so even the first walk must find
    the wrapped readers.
    """
    global _watching  # noqa: PLW0603 - an audit hook cannot be removed, so it is added only once
    with _watch_lock:
        if not _watching:
            _watch_process()
            _watching = True


def _watch_process() -> None:
    sys.addaudithook(_hook)
    watch_environment(active)
    references.watched_import = watched_import
    watch_readers(active)
    rebind(watch_statuses(active))
    _watch_threads()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    noted = _EVENTS.get(event)
    if noted is None:
        return
    recorder = active()
    if recorder is not None:
        # An exception in the hook would become an exception of the step.
        with suppress(Exception):
            noted(recorder, *arguments)


def _file_opened(recorder: ReadRecorder, path: Any, mode: str | None, flags: int) -> None:
    if isinstance(path, int) or flags & getattr(os, "O_DIRECTORY", 0):
        return
    path_as_written = os.fsdecode(path)
    name = os.path.abspath(path_as_written)
    if not is_input_path(name):
        return
    if not os.path.isabs(path_as_written):  # noqa: PTH117 - as above
        recorder.state_read(FOLDER)
    if mode is None:
        access = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        writes = access != os.O_RDONLY
        reads = access == os.O_RDONLY or (access == os.O_RDWR and not flags & (os.O_TRUNC | os.O_EXCL))
    else:
        writes = any(letter in mode for letter in "wax+")
        reads = not any(letter in mode for letter in ("wx" if "+" in mode else "wax"))
    appends = not reads and (flags & os.O_APPEND != 0 if mode is None else "a" in mode)
    recorder.file_opened(name, reads=reads, writes=writes, appends=appends)


def _folder_listed(recorder: ReadRecorder, path: Any = None) -> None:
    # A listing by descriptor is not noted, because `shutil.rmtree` makes such listings of the folders that it removes.
    if not isinstance(path, int) and counts_here(sys._getframe(2)):  # noqa: SLF001 - the caller that lists it
        path_as_written = os.fsdecode(path) if path is not None else "."
        if not os.path.isabs(path_as_written):  # noqa: PTH117 - as above
            recorder.state_read(FOLDER)
        recorder.folder_listed(path_as_written)


def _directory_changed(recorder: ReadRecorder, path: Any) -> None:
    if not isinstance(path, int) and not os.path.isabs(os.fsdecode(path)):  # noqa: PTH117 - as above
        recorder.state_read(FOLDER)
    recorder.state_set(FOLDER)


def _folder_created(recorder: ReadRecorder, path: Any, *_: Any) -> None:
    if isinstance(path, (str, bytes, PurePath)):
        recorder.folder_created(os.fsdecode(path))


def _path_renamed(recorder: ReadRecorder, source: Any, target: Any, *__: Any) -> None:
    """Report that a file or folder gets another path: its files are read at the old path and written at the new one."""
    source, target = os.fsdecode(source), os.fsdecode(target)
    moved = [(source, target)] if os.path.isfile(source) else []
    if os.path.isdir(target):
        # An empty folder is replaced.
        _path_removed(recorder, target)
    for folder, _, names in os.walk(source):
        new = os.path.normpath(os.path.join(target, os.path.relpath(folder, source)))
        recorder.folder_created(new)
        moved += [(os.path.join(folder, name), os.path.join(new, name)) for name in names]
    for before, after in moved:
        _file_opened(recorder, before, "r", 0)
        recorder.file_opened(os.path.abspath(after), reads=False, writes=True)
    _path_removed(recorder, source)


def _path_removed(recorder: ReadRecorder, path: Any, *_: Any) -> None:
    if isinstance(path, (str, bytes, PurePath)):
        recorder.path_removed(os.fsdecode(path))


def _connected(recorder: ReadRecorder, _: Any, address: Any) -> None:
    # Only internet addresses are tuples; the address of a local socket is a path.
    if isinstance(address, tuple) and address and isinstance(address[0], str):
        recorder.connected(address[0])


def _host_looked_up(recorder: ReadRecorder, host: Any, *_: Any) -> None:
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


def _class_found(recorder: ReadRecorder, module: Any, name: Any) -> None:
    """Report that pickle looks up a class or function by its name."""
    if module == "__main__":
        recorder.looked_up((str(name).partition(".")[0],))


_EVENTS: dict[str, Callable[..., None]] = {
    "open": _file_opened,
    "os.listdir": _folder_listed,
    "os.scandir": _folder_listed,
    "os.chdir": _directory_changed,
    "os.mkdir": _folder_created,
    "os.remove": _path_removed,
    "os.rmdir": _path_removed,
    "shutil.rmtree": _path_removed,
    "os.rename": _path_renamed,
    "os.link": _path_renamed,
    "os.symlink": _path_renamed,
    "socket.connect": _connected,
    "socket.getaddrinfo": _host_looked_up,
    "socket.gethostbyname": _host_looked_up,
    "sqlite3.connect": _database,
    "pickle.find_class": _class_found,
    "subprocess.Popen": program_started,
    "os.posix_spawn": program_started,
    "os.system": command_run,
    "os.fork": forked,
    "os.forkpty": forked,
}
"""Maps each audit event to the function that reports it to a recorder. The arguments of the function are the recorder and those of the event."""


def _watch_threads() -> None:
    """Wrap `Thread.start` and `ThreadPoolExecutor.submit`, so that reads in another thread are recorded for the step that started the work.

    The recorder of a step is the value of a context variable. A new thread does not have this value, and no audit event names a step. So without
    the wrappers, it would be unknown for which step a thread works.
    """
    start = threading.Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @wraps(start)
    def start_recorded(thread: threading.Thread) -> None:
        recorder = active()
        if recorder is not None:
            _record_thread(thread, recorder)
        start(thread)

    @wraps(submit)
    def submit_recorded(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        recorder = active()
        if recorder is not None:
            function = _with_recorder(function, recorder)
        return submit(pool, function, *args, **kwargs)

    threading.Thread.start = start_recorded  # type: ignore[method-assign, assignment]
    # A thread of a pool outlives the step that started it, so each submitted function is bound to the recorder of the step that submits it.
    ThreadPoolExecutor.submit = submit_recorded  # type: ignore[method-assign, assignment]


def _record_thread(thread: threading.Thread, recorder: ReadRecorder) -> None:
    """Let `recorder` record the reads of a thread that is about to start."""
    run = _with_recorder(thread.run, recorder)

    def run_once() -> None:
        try:
            run()
        finally:
            # The attribute `run` refers to the thread and would keep the thread alive.
            vars(thread).pop("run", None)

    vars(thread)["run"] = run_once


def _with_recorder(function: Callable[..., Any], recorder: ReadRecorder) -> Callable[..., Any]:
    def recorded(*args: Any, **kwargs: Any) -> Any:
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

    return recorded

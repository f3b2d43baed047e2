"""Native readers, wrapped: each tells the recorder of the step that calls it which files it is about to open.

What is imported already is wrapped when the first step of the process starts, what is imported later when its import ends. Names that a
notebook or a local module took from a library before (``from polars import read_parquet``) are bound to the wrapped function as well.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import update_wrapper
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

from stepwell.kernel_runtime.versions.ownership import OURS
from stepwell.kernel_runtime.versions.reads.files import counts
from stepwell.kernel_runtime.versions.reads.readers import MODULES, Note, file_system_methods, readers_of
from stepwell.kernel_runtime.versions.reads.recorder import ReadRecorder

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
                    recorder.opened(os.path.abspath(os.fsdecode(path)), reads=False, writes=True)  # noqa: PTH100 - a plain string, as the recorder has them
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
        if space.get("__name__") != "__main__" and not (isinstance(file, str) and counts(file)):
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

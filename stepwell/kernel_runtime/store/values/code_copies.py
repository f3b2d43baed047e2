"""Classes and functions of the notebook: stored by their name with a copy by value, and loaded as what the notebook has, or as the copy.

A value that holds an instance of a notebook's class is a pickle in which the class is a number; the stream's head has the names and code
versions of what is numbered, and a second pickle has all of it by value (cloudpickle). At load each name is looked up where the class was
defined: what is there is used if its code version is the stored one, otherwise the copy. Copies refer to each other, and to what is
there, by the same rule, so that a copied class has the notebook's own base class if that did not change. A class without a name that could be
looked up (of a function, of an asset's cell, a lambda) always is its copy. Copies of one version of a class are one class in a process.

A copied function of the notebook reads the notebook's own variables, as the original does, where the notebook has all that it reads: functions
and classes with the stored code versions, anything else under its name. Elsewhere a copy has what is stored with it: other functions and
classes, imported modules by name, plain values. Left out are variables of the notebook that are large, values that cannot be pickled, and what
is named like a secret or comes from the environment: a copied function that reads one raises NameError where the notebook has no such name.
Where a source itself has a secret written in it there is no copy, and the name has to be found. Copies hold bytecode: another
minor version of Python cannot use them.

When a value is loaded, copies are made in two steps, as cloudpickle writes them: an empty class or function, then what it holds, so that copies can refer to each other. Both
steps pass through here, and leave alone what the notebook has.
"""

from __future__ import annotations

import abc
import enum
import functools
import io
import os
import pickle
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from operator import getitem
from types import CellType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.errors import ValueUnavailableError
from stepwell.kernel_runtime.records.materializations import Link
from stepwell.kernel_runtime.records.runs import Notify, notice
from stepwell.kernel_runtime.store.values import structure
from stepwell.kernel_runtime.store.values.loading import UNKNOWN, CodeReader

MOST_OF_A_GLOBAL = 4 << 20
"""Bytes up to which the value of a variable of the notebook is part of a copy; a variable that only the step has is part whatever its size."""
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_HEAP_TYPE = 1 << 9
_KEPT = 32


Named = tuple[str, str]
"""Where a class or function was defined, ``__main__.Point``, and its code version."""


class NoCopyError(Exception):
    """What is in a value cannot be copied, or must not be."""


def name_of(found: Any) -> str:
    """Return module and qualified name of a class or function."""
    return f"{found.__module__}.{found.__qualname__}"


def goes_by_copy(found: Any) -> bool:
    """Whether a class or function has to go with a copy: it is the notebook's, or it is not what its name means.

    What a library made without a name is not ours to take apart unless it is written in Python.
    """
    module = found.__module__
    if module == "__main__":
        return True
    if type(module) is not str:
        return False
    if module == "builtins" or (isinstance(found, type) and not found.__flags__ & _HEAP_TYPE):
        return False
    return module in sys.modules and at_name(module, found.__qualname__) is not found


def parametrized(found: Any) -> tuple[Any, ...] | None:
    """Return what reduces a class that a generic model of pydantic made for some arguments (``Box[int]``): it makes it again. None for any other."""
    metadata = vars(found).get("__pydantic_generic_metadata__") if isinstance(found, type) else None
    if not metadata or not metadata.get("origin"):
        return None
    arguments = metadata["args"]
    return getitem, (metadata["origin"], arguments[0] if len(arguments) == 1 else tuple(arguments))


def at_name(module: str, qualname: str) -> Any:
    """Return what a module has under a qualified name, or None; nothing is imported."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


def notebook_object(number: int) -> Any:
    """Stand in a pickle for the class or function of a number; only what loads such a pickle knows which it is."""
    raise pickle.UnpicklingError(f"number {number} of a pickle that was taken out of its frame")


def copied(*parts: Any) -> Any:
    """Stand in a pickle of copies for the making of one, as `notebook_object`."""
    del parts
    raise pickle.UnpicklingError("a copy that was taken out of its frame")


def completed(*parts: Any) -> None:
    """Stand in a pickle of copies for the completing of one, as `notebook_object`."""
    del parts
    raise pickle.UnpicklingError("a copy that was taken out of its frame")


class Reduced:
    """Stands for an object while it is pickled, and says how it is reduced."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts


def new_cell() -> CellType:
    """Return a variable of a function that is bound to nothing yet."""
    return CellType()


def around(copy: FunctionType, *cells: CellType) -> FunctionType:
    """Return a function as a copy of it, with other variables around it."""
    made = FunctionType(copy.__code__, copy.__globals__, copy.__name__, copy.__defaults__, cells)
    made.__kwdefaults__ = copy.__kwdefaults__
    made.__qualname__, made.__module__ = copy.__qualname__, copy.__module__
    made.__doc__ = copy.__doc__
    made.__dict__.update(copy.__dict__)
    if hasattr(copy, "__annotate__"):
        made.__annotate__ = copy.__annotate__  # type: ignore[attr-defined]  # of 3.14
    else:
        made.__annotations__ = copy.__annotations__
    return made


def bound_around(function: FunctionType) -> tuple[tuple[int, Any], ...]:
    """Return what the variables around a function are bound to, each with its position."""
    found = []
    for position, cell in enumerate(function.__closure__ or ()):
        try:
            found.append((position, cell.cell_contents))
        except ValueError:
            continue  # it has no value yet
    return tuple(found)


def bind_around(function: FunctionType, bound: tuple[tuple[int, Any], ...]) -> None:
    """Bind the variables around a function, as `bound_around` found them."""
    cells = function.__closure__ or ()
    for position, value in bound:
        cells[position].cell_contents = value


_dumped: OrderedDict[tuple[Any, ...], tuple[bytes, tuple[Any, ...]]] = OrderedDict()
_dumped_lock = threading.Lock()


def dump_copies(found: Sequence[Any], names: Sequence[Named], code: CodeReader) -> bytes:
    """Return the pickle of copies of classes and functions; remembered as long as their code versions are the same.

    Raises
    ------
    NoCopyError
        If one cannot be copied or has a secret in its source.
    """
    key = tuple([(id(each), version) for each, (_, version) in zip(found, names, strict=True)])
    versioned = all(version and version != UNKNOWN for _, version in names)
    if versioned:
        with _dumped_lock:
            kept = _dumped.get(key)
            if kept is not None:
                _dumped.move_to_end(key)
                return kept[0]
    stream = io.BytesIO()
    try:
        _pickler(stream, code).dump(list(found))
    except NoCopyError:
        raise
    except Exception as error:
        raise NoCopyError(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from error
    if versioned:
        with _dumped_lock:
            _dumped[key] = stream.getvalue(), tuple(found)
            if len(_dumped) > _KEPT:
                _dumped.popitem(last=False)
    return stream.getvalue()


_PLAIN_KINDS = frozenset((type, abc.ABCMeta))


def _pickler(stream: io.BytesIO, code: CodeReader) -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Marks each class and function that goes by value with its name and code version."""

        def reducer_override(self, value: Any) -> Any:
            wrapped = rewrapped(value)
            if wrapped is not NotImplemented:
                return wrapped
            found = super().reducer_override(value)
            if type(found) is not tuple or len(found) != 6:
                return found
            if code.hides(value.__qualname__, value):
                raise NoCopyError(f"the source of {value.__qualname__} holds what looks like a secret")
            make, arguments, state, _, _, complete = found
            names: tuple[dict[str, str], ...] = ()
            if isinstance(value, type):
                # The identity that cloudpickle gives a class is drawn by chance; ours is its name and code version.
                arguments = tuple(None if _is_drawn(each) else each for each in arguments)
                kept, slots = state
                if isinstance(value, enum.EnumMeta):
                    # cloudpickle leaves out members with several names.
                    members: dict[str, Any] = {name: member.value for name, member in value.__members__.items()}  # type: ignore[var-annotated]
                    arguments = (*arguments[:3], members, *arguments[4:])
                    kept = {name: each for name, each in kept.items() if name not in members}
                elif "__slots__" in vars(value) and type(value) in _PLAIN_KINDS and not issubclass(value, tuple):
                    # cloudpickle would give the instances of the copy a dict as well.
                    arguments = (
                        *arguments[:3],
                        {**arguments[3], "__slots__": vars(value)["__slots__"]},
                        *arguments[4:],
                    )
                state = ({name: each for name, each in kept.items() if not _is_secret_text(code, name, each)}, slots)
            else:
                kept, slots = state
                home = _home(value)
                if home:
                    # Written in a module: there it finds its globals again.
                    arguments = (arguments[0], _GlobalsOf(home), *arguments[2:])
                    slots["__globals__"] = {}
                else:
                    arguments[1].pop("__file__", None)
                    seen = slots["__globals__"]
                    names = ({name: code.version_of(each) if _is_code(each) else "" for name, each in seen.items()},)
                    slots["__globals__"] = {name: each for name, each in seen.items() if _belongs(code, name, each)}
            named = (name_of(value), code.version_of(value))
            return copied, (*named, make, arguments, *names), (complete, state), None, None, completed

    return Pickler(stream, 5)


def rewrapped(value: Any) -> Any:
    """Return what reduces a wrapper of functools around the user's function, or NotImplemented for anything else.

    One keeps a lock, the other is found by its name only; both are made anew around the function, with nothing remembered.
    """
    kind = type(value)
    if kind is functools.cached_property:
        return cached_property_of, (value.func, value.attrname)
    if kind is _LRU and goes_by_copy(value):
        return lru_cache_of, (value.__wrapped__, *value.cache_parameters().values())
    return NotImplemented


_LRU = type(functools.lru_cache(len))


def cached_property_of(function: Callable[[Any], Any], name: str | None) -> Any:
    """Return a cached property that has been given its name."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def lru_cache_of(function: Callable[..., Any], most: int | None, typed: bool) -> Any:
    """Return a function that remembers its results, and has none yet."""
    return functools.lru_cache(most, typed)(function)


def _home(function: FunctionType) -> str:
    """Return the module, not the notebook, whose globals are those of a function; empty if it has others."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str and name != "__main__" else None
    return str(name) if module is not None and vars(module) is function.__globals__ else ""


class _GlobalsOf:
    """Stands in a pickle of copies for the globals of a module."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return globals_of, (self.module,)


def globals_of(module: str) -> dict[str, Any]:
    """Return the globals of a module, imported if need be."""
    return vars(import_module(module))


def _is_drawn(argument: Any) -> bool:
    return type(argument) is str and len(argument) == 32 and all(each in "0123456789abcdef" for each in argument)


def _is_secret_text(code: CodeReader, name: str, value: Any) -> bool:
    return type(value) in {str, bytes} and not name.startswith("__") and code.hides(name, value)


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | type) and goes_by_copy(value)


def _belongs(code: CodeReader, name: str, value: Any) -> bool:
    """Whether the value of a global is part of a copy."""
    if isinstance(value, ModuleType | FunctionType | type):
        return True
    if type(value).__module__.partition(".")[0] == "stepwell" or code.hides(name, value):
        return False
    try:
        size = len(pickle.dumps(value, 5))
        return size <= MOST_OF_A_GLOBAL or vars(sys.modules["__main__"]).get(name) is not value
    except Exception:
        # A connection, a lock: what cannot be pickled is made anew where the code runs.
        return False


_classes: weakref.WeakValueDictionary[Named, type] = weakref.WeakValueDictionary()
"""Copies of classes, so that two loads of a value give instances of one class."""
_loading = threading.RLock()


def _after_fork_in_child() -> None:
    global _loading  # noqa: PLW0603 - another thread of the parent may have held it
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Resolver:
    """Finds what the numbers of one pickle stand for.

    Parameters
    ----------
    names
        By number, what the stream's head says.
    copies
        The pickle of all of them; empty where there is none.
    python
        The version of Python that made the copies.
    inside
        Those names that nothing had when the value was stored.
    why
        Why there are no copies.
    tell
        Is given a line where a copy is used although the name means something else, or nothing.
    """

    def __init__(
        self,
        names: Sequence[Named],
        copies: bytes | memoryview,
        python: str,
        inside: Sequence[str],
        why: str,
        *,
        key: str,
        code: CodeReader,
        tell: Notify,
    ) -> None:
        self._names = [(name, version) for name, version in names]
        self._copies = copies
        self._python = python
        self._inside = frozenset(inside)
        self._why = why
        self._key = key
        self._code = code
        self._tell = tell
        self._loaded: list[Any] | None = None
        self._unfinished: dict[int, Any] = {}
        self._at_home: set[int] = set()

    def globals(self) -> dict[tuple[str, str], Any]:
        """Return what stands for the names of `code_copies` in the pickles."""
        here = __name__
        return {
            (here, notebook_object.__name__): self._object,
            (here, copied.__name__): self._copied,
            (here, completed.__name__): self._completed,
        }

    def _object(self, number: int) -> Any:
        name, version = self._names[number]
        found = self._live(name, version)
        if found is not None:
            return found
        module, short = _split(name)
        there = at_name(module, short)
        if not self._copies:
            self._refuse(short, there, f"no copy is kept: {self._why}")
        if self._python != PYTHON:
            self._refuse(short, there, f"its copy was made by Python {self._python}, and this is Python {PYTHON}")
        if name not in self._inside:
            self._tell(notice("copy used", self._key, name=short, module=module, exists=there is not None))
        if self._loaded is None:
            self._loaded = self._load_copies()
        return self._loaded[number]

    def _load_copies(self) -> list[Any]:
        with _loading:
            try:
                found: list[Any] = structure.Unpickler(self._copies, (), self.globals(), check=False).load()
            except BaseException:
                for named, cls in list(_classes.items()):
                    if id(cls) in self._unfinished:
                        del _classes[named]
                raise
        return found

    def _live(self, name: str, version: str) -> Any:
        if "<" in name or version == UNKNOWN:
            return None
        found = at_name(*_split(name))
        if not (isinstance(found, type | FunctionType)):
            return None
        return found if not version or self._code.version_of(found) == version else None

    def _refuse(self, short: str, there: Any, why: str) -> None:
        what = (
            f"was made with another {short} than the one defined now"
            if there is not None
            else f"needs {short}, which is not defined here"
        )
        raise ValueUnavailableError(
            f"the stored value of {self._key!r} {what}",
            where=why,
            remedy=f"run the cell that defines {short}{' as it was' if there is not None else ''}, or materialize {self._key!r} again",
        )

    def _copied(
        self,
        name: str,
        version: str,
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
        reads: Mapping[str, str] | None = None,
    ) -> Any:
        found = self._live(name, version)
        if found is None and version and version != UNKNOWN:
            found = _classes.get((name, version))
        if found is None:
            notebook = _notebook() if reads is not None and self._has_all(reads) else None
            if notebook is not None:
                code, _, *rest = arguments
                found = FunctionType(code, notebook, *rest)
                self._at_home.add(id(found))
            else:
                found = make(*arguments)
            self._unfinished[id(found)] = found
            if isinstance(found, type) and version and version != UNKNOWN:
                _classes[name, version] = found
                if self._code.made is not None:
                    self._code.made(found, version)
        return found

    def _has_all(self, reads: Mapping[str, str]) -> bool:
        """Whether the notebook has what a function reads: each name, with the code version of what is code."""
        notebook = _notebook()
        return all(
            name in notebook and (not version or self._code.version_of(notebook[name]) == version)
            for name, version in reads.items()
        )

    def _completed(self, found: Any, rest: tuple[Callable[[Any, Any], None], Any]) -> None:
        complete, state = rest
        if self._unfinished.pop(id(found), None) is None:
            return
        notebook = _notebook()
        if id(found) in self._at_home:
            # What is stored of the notebook's variables is not needed, and cloudpickle sets the builtins of any namespace.
            state[1]["__globals__"] = {}
            before = {name: notebook[name] for name in ("__builtins__",) if name in notebook}
            complete(found, state)
            notebook.update(before)
            return
        complete(found, state)
        if isinstance(found, FunctionType) and found.__globals__.get("__name__") == "__main__":
            own = found.__globals__
            for name in found.__code__.co_names:
                if name not in own and name in notebook:
                    own[name] = notebook[name]


def _notebook() -> dict[str, Any]:
    return vars(sys.modules["__main__"])


def load_with(
    resolver: Resolver, stream: bytes | memoryview, buffers: Sequence[Any], *, check: bool, link: Link | None = None
) -> Any:
    """Return the value of a pickle whose classes and functions of the notebook are numbers."""
    return structure.Unpickler(stream, buffers, resolver.globals(), check=check, link=link).load()


def _split(name: str) -> tuple[str, str]:
    """Return module and qualified name; modules are the longest part that is imported."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if module in sys.modules:
            return module, ".".join(parts[count:])
    return parts[0], ".".join(parts[1:])


def _where(module: str) -> str:
    return "the notebook" if module == "__main__" else module

"""Classes and functions of the notebook, which are stored by name with a copy, and loaded as the notebook's object or as the copy.

In the pickle of a value, classes and functions of the notebook are represented by numbers. The head of the stream contains their names and
code versions, and a second pickle contains copies of them (by value, with cloudpickle). A load looks up each name in the module that defined
the object. If the object with this name has the stored code version, it is used; otherwise the copy is used. Copies refer to each other by
the same rule, so a copied class has the notebook's base class if the base class did not change. An object that cannot be looked up by name
(a lambda, or a class or function inside a function or an asset's cell) is always loaded as its copy. In one process, all copies of one
version of a class are the same class.

Like the original, a copied function uses the notebook's variables if the notebook defines all names that the function reads, with the
stored code versions of functions and classes. Otherwise the copy uses the globals that are stored with it: functions, classes, imported
modules by name, and plain values. Large variables of the notebook, values that cannot be pickled, and variables with names of secrets or
values from the environment are not stored. A copied function that reads such a variable raises NameError if the notebook does not define
the variable. If the source of an object contains a secret, no copy is stored, and a load needs the object in the notebook. Copies contain
bytecode, so another minor version of Python cannot use them.

Like cloudpickle, a load creates a copy in two steps: first an empty class or function, then its contents, so that copies can refer to each
other. `Resolver` handles both steps, and does not change objects of the notebook.
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
"""Maximum size in bytes of a variable of the notebook that is stored with a copy. Variables that exist only in the step have no limit."""
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_HEAP_TYPE = 1 << 9
_MAX_DUMPED = 32


Named = tuple[str, str]
"""The module and qualified name of a class or function, such as ``__main__.Point``, and its code version."""


class NoCopyError(Exception):
    """Raised if a class or function in a value cannot be copied, or contains a secret."""


def name_of(item: Any) -> str:
    """Return the module and qualified name of a class or function."""
    return f"{item.__module__}.{item.__qualname__}"


def goes_by_copy(item: Any) -> bool:
    """Return True if a class or function is stored with a copy, because the notebook defines it or its name does not refer to it.

    Classes of extension modules have no copy, because only classes written in Python can be copied.
    """
    module = item.__module__
    if module == "__main__":
        return True
    if type(module) is not str:
        return False
    if module == "builtins" or (isinstance(item, type) and not item.__flags__ & _HEAP_TYPE):
        return False
    return module in sys.modules and at_name(module, item.__qualname__) is not item


def parametrized(item: Any) -> tuple[Any, ...] | None:
    """Return the reduction of a parametrized generic model of pydantic, such as ``Box[int]``; None for other objects."""
    metadata = vars(item).get("__pydantic_generic_metadata__") if isinstance(item, type) else None
    if not metadata or not metadata.get("origin"):
        return None
    arguments = metadata["args"]
    return getitem, (metadata["origin"], arguments[0] if len(arguments) == 1 else tuple(arguments))


def at_name(module: str, qualname: str) -> Any:
    """Return the object with a qualified name in a module, or None, without importing the module."""
    item: Any = sys.modules.get(module)
    for part in qualname.split("."):
        item = getattr(item, part, None)
        if item is None:
            return None
    return item


def notebook_object(number: int) -> Any:
    """Placeholder in a pickle for a class or function with a number, which `Resolver` returns instead."""
    raise pickle.UnpicklingError(f"class or function number {number} cannot be loaded without the frame of the pickle")


def copied(*parts: Any) -> Any:
    """Placeholder in a pickle of copies for the function of `Resolver` that creates a copy."""
    del parts
    raise pickle.UnpicklingError("a copy cannot be loaded without the frame of the pickle")


def completed(*parts: Any) -> None:
    """Placeholder in a pickle of copies for the function of `Resolver` that sets the contents of a copy."""
    del parts
    raise pickle.UnpicklingError("a copy cannot be loaded without the frame of the pickle")


class Reduced:
    """A reduction that replaces its object while a value is pickled."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts


def new_cell() -> CellType:
    """Return an empty closure cell."""
    return CellType()


def around(copy: FunctionType, *cells: CellType) -> FunctionType:
    """Return a function like ``copy``, with other closure cells."""
    function = FunctionType(copy.__code__, copy.__globals__, copy.__name__, copy.__defaults__, cells)
    function.__kwdefaults__ = copy.__kwdefaults__
    function.__qualname__, function.__module__ = copy.__qualname__, copy.__module__
    function.__doc__ = copy.__doc__
    function.__dict__.update(copy.__dict__)
    if hasattr(copy, "__annotate__"):
        function.__annotate__ = copy.__annotate__  # type: ignore[attr-defined]  # of 3.14
    else:
        function.__annotations__ = copy.__annotations__
    return function


def bound_around(function: FunctionType) -> tuple[tuple[int, Any], ...]:
    """Return the positions and contents of a function's closure cells, except empty cells."""
    contents = []
    for position, cell in enumerate(function.__closure__ or ()):
        try:
            contents.append((position, cell.cell_contents))
        except ValueError:
            continue  # the cell is empty
    return tuple(contents)


def bind_around(function: FunctionType, bound: tuple[tuple[int, Any], ...]) -> None:
    """Set the closure cells of a function to the contents that `bound_around` returned."""
    cells = function.__closure__ or ()
    for position, value in bound:
        cells[position].cell_contents = value


_dumped: OrderedDict[tuple[Any, ...], tuple[bytes, tuple[Any, ...]]] = OrderedDict()
_dumped_lock = threading.Lock()


def dump_copies(originals: Sequence[Any], names: Sequence[Named], code: CodeReader) -> bytes:
    """Return the pickle with copies of classes and functions. The last results are cached by object and code version.

    Parameters
    ----------
    originals
        The classes and functions.
    names
        Their names and code versions.
    code
        Functions that read code versions and recognize secrets.

    Returns
    -------
    bytes
        The pickle of the list of copies.

    Raises
    ------
    NoCopyError
        If a class or function cannot be copied, or its source contains a secret.
    """
    key = tuple([(id(original), version) for original, (_, version) in zip(originals, names, strict=True)])
    versioned = all(version and version != UNKNOWN for _, version in names)
    if versioned:
        with _dumped_lock:
            cached = _dumped.get(key)
            if cached is not None:
                _dumped.move_to_end(key)
                return cached[0]
    stream = io.BytesIO()
    try:
        _pickler(stream, code).dump(list(originals))
    except NoCopyError:
        raise
    except Exception as error:
        raise NoCopyError(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from error
    if versioned:
        with _dumped_lock:
            _dumped[key] = stream.getvalue(), tuple(originals)
            if len(_dumped) > _MAX_DUMPED:
                _dumped.popitem(last=False)
    return stream.getvalue()


_PLAIN_KINDS = frozenset((type, abc.ABCMeta))


def _pickler(stream: io.BytesIO, code: CodeReader) -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """A pickler that stores name and code version with each class and function that is pickled by value."""

        def reducer_override(self, value: Any) -> Any:
            wrapped = rewrapped(value)
            if wrapped is not NotImplemented:
                return wrapped
            reduction = super().reducer_override(value)
            if type(reduction) is not tuple or len(reduction) != 6:
                return reduction
            if code.hides(value.__qualname__, value):
                raise NoCopyError(f"the source of {value.__qualname__} contains text that looks like a secret")
            make, arguments, state, _, _, complete = reduction
            names: tuple[dict[str, str], ...] = ()
            if isinstance(value, type):
                # cloudpickle identifies a class by a random number, which would make equal values differ. The name and code version replace it.
                arguments = tuple(None if _is_random_id(item) else item for item in arguments)
                attributes, slots = state
                if isinstance(value, enum.EnumMeta):
                    # cloudpickle omits aliases of members.
                    members: dict[str, Any] = {name: member.value for name, member in value.__members__.items()}  # type: ignore[var-annotated]
                    arguments = (*arguments[:3], members, *arguments[4:])
                    attributes = {name: item for name, item in attributes.items() if name not in members}
                elif "__slots__" in vars(value) and type(value) in _PLAIN_KINDS and not issubclass(value, tuple):
                    # Without this, instances of the copy would have a __dict__, too.
                    arguments = (
                        *arguments[:3],
                        {**arguments[3], "__slots__": vars(value)["__slots__"]},
                        *arguments[4:],
                    )
                state = (
                    {name: item for name, item in attributes.items() if not _is_secret_text(code, name, item)},
                    slots,
                )
            else:
                attributes, slots = state
                module = _module_of_globals(value)
                if module:
                    # The function is defined in a module, whose globals exist where the value is loaded.
                    arguments = (arguments[0], _GlobalsOf(module), *arguments[2:])
                    slots["__globals__"] = {}
                else:
                    arguments[1].pop("__file__", None)
                    used_globals = slots["__globals__"]
                    names = (
                        {name: code.version_of(item) if _is_code(item) else "" for name, item in used_globals.items()},
                    )
                    slots["__globals__"] = {
                        name: item for name, item in used_globals.items() if _belongs(code, name, item)
                    }
            named = (name_of(value), code.version_of(value))
            return copied, (*named, make, arguments, *names), (complete, state), None, None, completed

    return Pickler(stream, 5)


def rewrapped(value: Any) -> Any:
    """Return the reduction of a ``cached_property`` or ``lru_cache`` around the user's function; NotImplemented for other objects.

    Pickle cannot store these objects: a ``cached_property`` may contain a lock, and an ``lru_cache`` is stored by name. A load creates
    them again with an empty cache.
    """
    kind = type(value)
    if kind is functools.cached_property:
        return cached_property_of, (value.func, value.attrname)
    if kind is _LRU and goes_by_copy(value):
        return lru_cache_of, (value.__wrapped__, *value.cache_parameters().values())
    return NotImplemented


_LRU = type(functools.lru_cache(len))


def cached_property_of(function: Callable[[Any], Any], name: str | None) -> Any:
    """Return a cached property with a name."""
    result = functools.cached_property(function)
    result.attrname = name
    return result


def lru_cache_of(function: Callable[..., Any], most: int | None, typed: bool) -> Any:
    """Return a function with an empty cache of results."""
    return functools.lru_cache(most, typed)(function)


def _module_of_globals(function: FunctionType) -> str:
    """Return the module whose globals a function uses; empty for functions of the notebook or with other globals."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str and name != "__main__" else None
    return str(name) if module is not None and vars(module) is function.__globals__ else ""


class _GlobalsOf:
    """Placeholder in a pickle of copies for the globals of a module."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return globals_of, (self.module,)


def globals_of(module: str) -> dict[str, Any]:
    """Return the globals of a module; import the module if necessary."""
    return vars(import_module(module))


def _is_random_id(argument: Any) -> bool:
    return (
        type(argument) is str and len(argument) == 32 and all(character in "0123456789abcdef" for character in argument)
    )


def _is_secret_text(code: CodeReader, name: str, value: Any) -> bool:
    return type(value) in {str, bytes} and not name.startswith("__") and code.hides(name, value)


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | type) and goes_by_copy(value)


def _belongs(code: CodeReader, name: str, value: Any) -> bool:
    """Return True if the value of a global variable is stored with a copy."""
    if isinstance(value, ModuleType | FunctionType | type):
        return True
    if type(value).__module__.partition(".")[0] == "stepwell" or code.hides(name, value):
        return False
    try:
        size = len(pickle.dumps(value, 5))
        return size <= MOST_OF_A_GLOBAL or vars(sys.modules["__main__"]).get(name) is not value
    except Exception:
        # Values that cannot be pickled, such as connections and locks, must be created where the code runs.
        return False


_classes: weakref.WeakValueDictionary[Named, type] = weakref.WeakValueDictionary()
"""Copies of classes, so that two loads of a value return instances of the same class."""
_loading = threading.RLock()


def _after_fork_in_child() -> None:
    global _loading  # noqa: PLW0603 - another thread of the parent may hold the lock
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Resolver:
    """Resolves the numbers of one pickle to classes and functions.

    Parameters
    ----------
    names
        Names and code versions by number, from the head of the stream.
    copies
        The pickle of the copies; empty if there are none.
    python
        The version of Python with which the copies were made.
    inside
        Names that could not be looked up when the value was stored.
    why
        The reason why there are no copies; empty if there are copies.
    key
        The asset's key, for messages.
    code
        Functions that read code versions.
    notify
        Receives a notice if a copy is used because the name refers to another object or to no object.
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
        notify: Notify,
    ) -> None:
        self._names = [(name, version) for name, version in names]
        self._copies = copies
        self._python = python
        self._inner_names = frozenset(inside)
        self._no_copy_reason = why
        self._key = key
        self._code = code
        self._notify = notify
        self._loaded_copies: list[Any] | None = None
        self._unfinished: dict[int, Any] = {}
        self._with_notebook_globals: set[int] = set()

    def globals(self) -> dict[tuple[str, str], Any]:
        """Return the replacements of the placeholders in the pickles."""
        here = __name__
        return {
            (here, notebook_object.__name__): self._object,
            (here, copied.__name__): self._copied,
            (here, completed.__name__): self._completed,
        }

    def _object(self, number: int) -> Any:
        name, version = self._names[number]
        item = self._in_notebook(name, version)
        if item is not None:
            return item
        module, short = _split(name)
        present = at_name(module, short)
        if not self._copies:
            self._refuse(short, present, f"no copy is stored: {self._no_copy_reason}")
        if self._python != PYTHON:
            self._refuse(short, present, f"its copy was made by Python {self._python}, and this is Python {PYTHON}")
        if name not in self._inner_names:
            self._notify(notice("copy used", self._key, name=short, module=module, exists=present is not None))
        if self._loaded_copies is None:
            self._loaded_copies = self._load_copies()
        return self._loaded_copies[number]

    def _load_copies(self) -> list[Any]:
        with _loading:
            try:
                copies: list[Any] = structure.Unpickler(self._copies, (), self.globals(), check=False).load()
            except BaseException:
                for named, cls in list(_classes.items()):
                    if id(cls) in self._unfinished:
                        del _classes[named]
                raise
        return copies

    def _in_notebook(self, name: str, version: str) -> Any:
        if "<" in name or version == UNKNOWN:
            return None
        item = at_name(*_split(name))
        if not (isinstance(item, type | FunctionType)):
            return None
        return item if not version or self._code.version_of(item) == version else None

    def _refuse(self, short: str, present: Any, why: str) -> None:
        problem = (
            f"needs another version of {short} than the one defined here"
            if present is not None
            else f"needs {short}, which is not defined here"
        )
        raise ValueUnavailableError(
            f"the stored value of {self._key!r} {problem}",
            where=why,
            remedy=f"run the cell that defines {short}{' in its former version' if present is not None else ''}, or materialize {self._key!r} again",
        )

    def _copied(
        self,
        name: str,
        version: str,
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
        reads: Mapping[str, str] | None = None,
    ) -> Any:
        item = self._in_notebook(name, version)
        if item is None and version and version != UNKNOWN:
            item = _classes.get((name, version))
        if item is None:
            notebook = _notebook() if reads is not None and self._has_all(reads) else None
            if notebook is not None:
                code, _, *rest = arguments
                item = FunctionType(code, notebook, *rest)
                self._with_notebook_globals.add(id(item))
            else:
                item = make(*arguments)
            self._unfinished[id(item)] = item
            if isinstance(item, type) and version and version != UNKNOWN:
                _classes[name, version] = item
                if self._code.on_copy is not None:
                    self._code.on_copy(item, version)
        return item

    def _has_all(self, reads: Mapping[str, str]) -> bool:
        """Return True if the notebook defines all names that a function reads, with the same code versions of functions and classes."""
        notebook = _notebook()
        return all(
            name in notebook and (not version or self._code.version_of(notebook[name]) == version)
            for name, version in reads.items()
        )

    def _completed(self, item: Any, completion: tuple[Callable[[Any, Any], None], Any]) -> None:
        complete, state = completion
        if self._unfinished.pop(id(item), None) is None:
            return
        notebook = _notebook()
        if id(item) in self._with_notebook_globals:
            # The function uses the notebook's globals, which neither stored globals nor cloudpickle's ``__builtins__`` may replace.
            state[1]["__globals__"] = {}
            before = {name: notebook[name] for name in ("__builtins__",) if name in notebook}
            complete(item, state)
            notebook.update(before)
            return
        complete(item, state)
        if isinstance(item, FunctionType) and item.__globals__.get("__name__") == "__main__":
            globals_ = item.__globals__
            for name in item.__code__.co_names:
                if name not in globals_ and name in notebook:
                    globals_[name] = notebook[name]


def _notebook() -> dict[str, Any]:
    return vars(sys.modules["__main__"])


def load_with(
    resolver: Resolver, stream: bytes | memoryview, buffers: Sequence[Any], *, check: bool, link: Link | None = None
) -> Any:
    """Return the value of a pickle in which classes and functions of the notebook are represented by numbers."""
    return structure.Unpickler(stream, buffers, resolver.globals(), check=check, link=link).load()


def _split(name: str) -> tuple[str, str]:
    """Split a name into module and qualified name. The module is the longest leading part that is an imported module."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if module in sys.modules:
            return module, ".".join(parts[count:])
    return parts[0], ".".join(parts[1:])

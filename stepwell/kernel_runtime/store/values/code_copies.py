"""Classes and functions of the notebook inside a value: they are stored by name, together with a copy of their code.

A value may refer to classes and functions of the notebook, for example as the class of an instance. In the pickle of such a value, a number
stands for each of these classes and functions. Their names and code versions are in the head of the stream, and copies of them are in a
second pickle (cloudpickle's pickle by value). `pickling` describes the stream.

A load looks up each name in the module that defined the class or function. If the object with this name has the stored code version, the
load uses this object; otherwise it creates the class or function from the copy. References between copies follow the same rule: for example,
a class that is created from a copy inherits from the notebook's base class if the base class did not change. A class or function that cannot
be looked up by name (a lambda, or a class or function that was defined inside a function or the cell of an op) is always created from its
copy. In one process, all loads of the same version of a class use the same class.

A function that is created from a copy uses the notebook's variables, like the original function, if the notebook defines all names that the
function reads, and if the functions and classes among them have the stored code versions. Otherwise the function uses the global variables that
are stored with the copy: functions, classes, imported modules (by name) and other values. Large variables of the notebook, values that cannot
be pickled, and secrets are not stored. (A variable counts as secret because of its name, because its text looks like a token or password, or
because it is the value of an environment variable.) If the function reads such a variable and the notebook does not define it, the function
raises NameError.

If the source of one of these classes and functions contains a secret, no copies at all are stored for the value. A load of the value then
needs all these classes and functions in the notebook. Copies contain bytecode, so they can be used only by the minor version of Python that
wrote them.

Like cloudpickle, a load creates a class or function from a copy in two steps: first it creates an empty object, then it sets the contents,
so that copies can refer to each other. `Resolver` carries out both steps, and never changes objects of the notebook.
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
"""A variable of the notebook is stored with a copied function only if the pickle of the variable has at most this number of bytes. Global variables
of the function that are not variables of the notebook are stored in any size."""
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_HEAP_TYPE = 1 << 9
"""The bit in ``__flags__`` of a type that CPython sets if the type was created at run time, for example by a class statement."""
_MAX_DUMPED = 32
"""Maximum number of pickles of copies that `dump_copies` caches."""


Named = tuple[str, str]
"""A pair: the name of a class or function, as `name_of` returns it (``__main__.Point``), and its code version."""


class NoCopyError(Exception):
    """Raised if a class or function in a value cannot be copied, or if its source contains a secret."""


def name_of(item: Any) -> str:
    """Return the name of the module and the qualified name of a class or function, joined with a dot, for example ``__main__.Point``."""
    return f"{item.__module__}.{item.__qualname__}"


def goes_by_copy(item: Any) -> bool:
    """Return True if a class or function must be stored with a copy of its code.

    This is the case if the class or function is defined in the notebook, or if a look-up of its qualified name in its module does not find this
    object. Classes of extension modules are never copied, because only classes that are written in Python can be copied.
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
    """Return the pickle reduction of a parametrized pydantic model such as ``Box[int]``; None for other objects.

    The reduction is a function and its arguments. For ``Box[int]``, these are `operator.getitem` and ``(Box, int)``.
    """
    metadata = vars(item).get("__pydantic_generic_metadata__") if isinstance(item, type) else None
    if not metadata or not metadata.get("origin"):
        return None
    arguments = metadata["args"]
    return getitem, (metadata["origin"], arguments[0] if len(arguments) == 1 else tuple(arguments))


def at_name(module: str, qualname: str) -> Any:
    """Return the object with a qualified name in an imported module; None if the module is not imported or has no such object."""
    item: Any = sys.modules.get(module)
    for part in qualname.split("."):
        item = getattr(item, part, None)
        if item is None:
            return None
    return item


def notebook_object(number: int) -> Any:
    """Raise UnpicklingError. In the stored pickle of a value, this function stands for a class or function of the notebook.

    The pickle contains a call of this function wherever the value refers to the class or function that has the number ``number``. When Stepwell
    loads the pickle, a method of `Resolver` is called instead of this function, and returns the class or function.
    """
    raise pickle.UnpicklingError(
        f"this pickle refers to a class or function of a notebook (number {number}), and only Stepwell can load such a pickle"
    )


def copied(*parts: Any) -> Any:
    """Raise UnpicklingError. A stored pickle of copies contains a call of this function for each class or function that must be created.

    When Stepwell loads the pickle, a method of `Resolver` is called instead of this function, with the arguments ``parts``. This method returns
    a class or function that is still empty.
    """
    del parts
    raise pickle.UnpicklingError("this pickle contains copies of classes or functions, which only Stepwell can load")


def completed(*parts: Any) -> None:
    """Raise UnpicklingError. A stored pickle of copies contains a call of this function for each class or function that must get its contents.

    When Stepwell loads the pickle, a method of `Resolver` is called instead of this function, with the arguments ``parts``. This method sets the
    contents of a class or function that was created empty.
    """
    del parts
    raise pickle.UnpicklingError("this pickle contains copies of classes or functions, which only Stepwell can load")


class Reduced:
    """Stands for an object in a value. Instead of reducing the object itself, the pickler writes the reduction ``parts``."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts


def new_cell() -> CellType:
    """Return an empty closure cell."""
    return CellType()


def around(copy: FunctionType, *cells: CellType) -> FunctionType:
    """Return a new function that has the code and all attributes of ``copy``, but the closure cells ``cells``.

    If two functions in a value share a closure cell, the load calls this function for both with the same cell. So the loaded functions share
    a cell, too. The cells may still be empty; `bind_around` sets their contents.
    """
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
    """Return the contents of the closure cells of a function, for `bind_around`.

    The result contains a pair for each cell that is not empty: the position of the cell in ``function.__closure__``, and the object in the cell.
    """
    contents = []
    for position, cell in enumerate(function.__closure__ or ()):
        try:
            contents.append((position, cell.cell_contents))
        except ValueError:
            continue  # the cell is empty
    return tuple(contents)


def bind_around(function: FunctionType, bound: tuple[tuple[int, Any], ...]) -> None:
    """Set the contents of closure cells of a function that `around` created.

    ``bound`` is the result of `bound_around` for the original function. Each pair in it consists of the position of a cell in
    ``function.__closure__`` and the object that this cell gets. Other cells stay empty.
    """
    cells = function.__closure__ or ()
    for position, value in bound:
        cells[position].cell_contents = value


_dumped: OrderedDict[tuple[Any, ...], tuple[bytes, tuple[Any, ...]]] = OrderedDict()
_dumped_lock = threading.Lock()


def dump_copies(originals: Sequence[Any], names: Sequence[Named], code: CodeReader) -> bytes:
    """Return a pickle that contains copies of classes and functions of the notebook.

    The most recent results are cached. A cached result is used for the same objects with the same code versions.

    Parameters
    ----------
    originals
        The classes and functions.
    names
        The name and code version of each of them, in the same order.
    code
        Functions that compute code versions and recognize secrets.

    Returns
    -------
    bytes
        The pickle of a list of the copies, in the order of ``originals``.

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
        """A pickler that writes a copy of each class and function of the notebook, with its name and code version."""

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
                # cloudpickle identifies a class by a random id, so equal values would have different pickles. Here its name and code version
                # identify the class.
                arguments = tuple(None if _is_random_id(item) else item for item in arguments)
                attributes, slots = state
                if isinstance(value, enum.EnumMeta):
                    # cloudpickle omits the aliases of an enum's members.
                    members: dict[str, Any] = {name: member.value for name, member in value.__members__.items()}  # type: ignore[var-annotated]
                    arguments = (*arguments[:3], members, *arguments[4:])
                    attributes = {name: item for name, item in attributes.items() if name not in members}
                elif "__slots__" in vars(value) and type(value) in _PLAIN_KINDS and not issubclass(value, tuple):
                    # Without __slots__ among the attributes, instances of the copied class would have a __dict__, too.
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
                    # The function uses the globals of a module. A load imports the module to get them.
                    arguments = (arguments[0], _GlobalsOf(module), *arguments[2:])
                    slots["__globals__"] = {}
                else:
                    arguments[1].pop("__file__", None)
                    used_globals = slots["__globals__"]
                    names = ({name: code.version_of(item) if _is_code(item) else "" for name, item in used_globals.items()},)
                    slots["__globals__"] = {name: item for name, item in used_globals.items() if _belongs(code, name, item)}
            named = (name_of(value), code.version_of(value))
            return copied, (*named, make, arguments, *names), (complete, state), None, None, completed

    return Pickler(stream, 5)


def rewrapped(value: Any) -> Any:
    """Return the pickle reduction of a ``cached_property``, or of a function of the notebook that is decorated with ``lru_cache``.

    For other objects, return NotImplemented. The object that a load makes from the reduction has an empty cache. Without this reduction, pickle
    would fail for a ``cached_property`` that contains a lock, and would store a function that is decorated with ``lru_cache`` by name only,
    without a copy.
    """
    kind = type(value)
    if kind is functools.cached_property:
        return cached_property_of, (value.func, value.attrname)
    if kind is _LRU and goes_by_copy(value):
        return lru_cache_of, (value.__wrapped__, *value.cache_parameters().values())
    return NotImplemented


_LRU = type(functools.lru_cache(len))


def cached_property_of(function: Callable[[Any], Any], name: str | None) -> Any:
    """Return a ``cached_property`` that computes its value with ``function`` and caches the value in the attribute called ``name``."""
    result = functools.cached_property(function)
    result.attrname = name
    return result


def lru_cache_of(function: Callable[..., Any], most: int | None, typed: bool) -> Any:
    """Return a function with an empty ``lru_cache`` around ``function``.

    ``most`` and ``typed`` are the parameters ``maxsize`` and ``typed`` of `functools.lru_cache`.
    """
    return functools.lru_cache(most, typed)(function)


def _module_of_globals(function: FunctionType) -> str:
    """Return the name of the imported module whose global variables a function uses.

    Return an empty string if the function uses the notebook's global variables, or a dict that is not the namespace of a module.
    """
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str and name != "__main__" else None
    return str(name) if module is not None and vars(module) is function.__globals__ else ""


class _GlobalsOf:
    """Stands for the global variables of a module in a pickle of copies. A load imports the module and uses its global variables."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return globals_of, (self.module,)


def globals_of(module: str) -> dict[str, Any]:
    """Return the global variables of a module; import the module if necessary."""
    return vars(import_module(module))


def _is_random_id(argument: Any) -> bool:
    return type(argument) is str and len(argument) == 32 and all(character in "0123456789abcdef" for character in argument)


def _is_secret_text(code: CodeReader, name: str, value: Any) -> bool:
    return type(value) in {str, bytes} and not name.startswith("__") and code.hides(name, value)


def _is_code(value: Any) -> bool:
    return isinstance(value, FunctionType | type) and goes_by_copy(value)


def _belongs(code: CodeReader, name: str, value: Any) -> bool:
    """Return True if a global variable that a copied function reads is stored with the copy of the function.

    ``name`` and ``value`` are the name and the value of the variable. Modules, functions and classes are always stored. Objects of Stepwell,
    secrets and values that cannot be pickled are not stored, nor are variables of the notebook above `MOST_OF_A_GLOBAL` bytes.
    """
    if isinstance(value, ModuleType | FunctionType | type):
        return True
    if type(value).__module__.partition(".")[0] == "stepwell" or code.hides(name, value):
        return False
    try:
        size = len(pickle.dumps(value, 5))
        return size <= MOST_OF_A_GLOBAL or vars(sys.modules["__main__"]).get(name) is not value
    except Exception:
        # A value that cannot be pickled, such as a connection or a lock, must exist in the notebook that calls the loaded function.
        return False


_classes: weakref.WeakValueDictionary[Named, type] = weakref.WeakValueDictionary()
"""Maps pairs of a name and a code version to the class that was created from a copy. So two loads of a value return instances of the same class."""
_loading = threading.RLock()


def _after_fork_in_child() -> None:
    global _loading  # noqa: PLW0603 - another thread of the parent may hold the lock
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Resolver:
    """Finds or creates the classes and functions for the numbers in the pickle of one value.

    Parameters
    ----------
    names
        A pair of name and code version for each class and function, from the head of the stream. A number in the pickle is a position in this
        list.
    copies
        The pickle of the copies; empty if no copies are stored.
    python
        The minor version of Python that wrote the copies, such as ``3.13``.
    inside
        The names of those classes and functions that could not be looked up by name when the value was stored, for example lambdas, and
        classes that were defined inside a function.
    why
        The reason why no copies are stored; empty if copies are stored.
    key
        The asset's key, for messages.
    code
        Functions that compute code versions.
    notify
        Receives a notice if a copy is used for a name that is not in ``inside``.
    defines
        True if the value binds variables of the notebook. Then its functions always use the notebook's variables, as they did when the value was
        stored, and there is no notice for a name that the notebook lacks.
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
        defines: bool = False,
    ) -> None:
        self._defines = defines
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
        """Return the methods that a load calls instead of `notebook_object`, `copied` and `completed`.

        Each key of the dict is a pair that names one of these functions: its module and its name. The value is the method that is called instead.
        """
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
            self._refuse(short, present, f"no copy of {short} is stored: {self._no_copy_reason}")
        if self._python != PYTHON:
            self._refuse(
                short,
                present,
                f"the stored copy of {short} needs Python {self._python}, but this process runs Python {PYTHON}",
            )
        if name not in self._inner_names and (present is not None or not self._defines):
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
            f"needs a version of {short} that differs from the version defined in this process"
            if present is not None
            else f"needs {short}, which is not defined in this process"
        )
        raise ValueUnavailableError(
            f"the stored value of {self._key!r} {problem}",
            where=why,
            remedy=f"{f'define {short} as it was when the value was stored' if present is not None else f'run the cell that defines {short}'}, "
            f"or materialize {self._key!r} again",
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
            notebook = _notebook() if reads is not None and (self._defines or self._has_all(reads)) else None
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
        """Return True if the notebook defines all global names that a copied function reads, with the stored code versions.

        ``reads`` maps each name to the stored code version of the function or class with this name. For any other variable, the code version
        is empty and is not compared.
        """
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
            # The function uses the notebook's globals. Neither the stored globals nor cloudpickle's ``__builtins__`` may overwrite them.
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
    """Load a pickle in which numbers stand for classes and functions of the notebook; return the value.

    ``resolver`` finds or creates the class or function for each number. ``check`` and ``link`` are described in `structure.loads`.
    """
    return structure.Unpickler(stream, buffers, resolver.globals(), check=check, link=link).load()


def _split(name: str) -> tuple[str, str]:
    """Split a dotted name into the name of a module and a qualified name.

    The module is the longest beginning of the dotted name that is the name of an imported module: ``a.b.C.D`` is split into ``a.b`` and ``C.D``
    if ``a.b`` is imported. If there is no such beginning, the module is the part before the first dot.
    """
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if module in sys.modules:
            return module, ".".join(parts[count:])
    return parts[0], ".".join(parts[1:])

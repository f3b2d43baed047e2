"""Patches: attributes that the user has set on classes and modules of libraries, such as methods, accessors and replaced functions.

A class of a library is identified by its name and the library's version. But ``pd.DataFrame.total = total`` adds code of the user to such a class, so
`table` lists the attributes that the user has set. Python has no event for setting an attribute of a class. Therefore `scan` is called after each
cell. It compares the numbers of entries in the namespaces of all imported libraries with those of the last scan, and reads each namespace that has
grown or is new. An attribute that the user replaces does not change the number of entries. It is found because the code of the cell, or of a function
that the cell calls, contains the name of the attribute.

Code depends on a patch if the code, or a library that it reaches, contains the name of the attribute (`counts_for`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any
from weakref import WeakKeyDictionary

from stepwell.kernel_runtime.records.bulk import no_collection
from stepwell.kernel_runtime.versions import opcodes
from stepwell.kernel_runtime.versions.bytecode import CodeFacts, facts
from stepwell.kernel_runtime.versions.encode import identity
from stepwell.kernel_runtime.versions.graph import known_nodes
from stepwell.kernel_runtime.versions.options import UNSET, Library, Unset, never_counts, of_user
from stepwell.kernel_runtime.versions.ownership import is_local
from stepwell.kernel_runtime.versions.references import bound_value

_LEFT_OUT = frozenset({
    "IPython", "ipykernel", "traitlets", "zmq", "tornado", "jupyter_client", "jupyter_core", "stepwell", "pytest", "_pytest", "pluggy", "py", "xdist",
    "execnet", "hypothesis", "debugpy", "pydevd", "comm", "prompt_toolkit", "jedi", "parso", "sys", "coverage", "__mp_main__", "site",
})  # fmt: skip
"""Modules that are not scanned, for example those of the kernel and of tests, and `sys`, whose streams are often replaced."""
_SETS_BY_NAME = re.compile(r"setattr|delattr|patch|regist|overrid|curse|inject|accessor", re.IGNORECASE)
"""Matches the names of functions that may set an attribute whose name is passed as a string."""
_SETS = re.compile(rf"\w\.\w+[^=\n]*=|{_SETS_BY_NAME.pattern}", re.IGNORECASE)
"""Matches source code that may set an attribute of an object."""
_ABSENT: Any = object()
_TEXTS = frozenset({str, tuple, CodeType})
"""Types of the constants that `texts_of` examines."""


@dataclass(frozen=True, slots=True)
class Patch:
    """An attribute that the user has set on a class or module of a library."""

    target: Any
    """The class or module whose attribute was set."""
    name: str
    """The name of the attribute."""

    @property
    def option(self) -> str:
        """The name of the patch: ``pandas.core.frame:DataFrame.total`` for an attribute of a class, ``numpy:.float`` for one of a module.

        It is the name of an option in the row `ROW` of the table of options.
        """
        if isinstance(self.target, ModuleType):
            return f"{self.target.__name__}:.{self.name}"
        return f"{self.target.__module__}:{self.target.__qualname__}.{self.name}"

    @property
    def top(self) -> str:
        """The name of the top-level package that contains `target`: ``pandas`` for the class ``pandas.DataFrame``."""
        module = self.target.__name__ if isinstance(self.target, ModuleType) else self.target.__module__
        return str(module).partition(".")[0]

    def value(self) -> Any:
        """Return the present value of the attribute; `_ABSENT` if it was deleted."""
        return vars(self.target).get(self.name, _ABSENT)


table: dict[str, Patch] = {}
"""The attributes that the user has set. The key of each is its `Patch.option`."""
_values: dict[str, Any] = {}
"""The value of each attribute in `table` at the last scan. The keys are those of `table`."""
_targets: list[Any] = []
"""The scanned modules and classes; all belong to libraries."""
_spaces: list[Mapping[str, Any]] = []
"""The namespaces of `_targets`."""
_sizes: list[int] = []
"""The numbers of entries in `_spaces` at the last scan."""
_seen_modules: set[str] = set()
_last_modules = (0, "")
"""The number of modules in ``sys.modules`` at the last scan, and the name of the module that was imported last."""
_seen_classes: set[int] = set()


def scan(codes: Iterable[CodeType] = (), namespace: Mapping[str, Any] | None = None) -> None:
    """Update `table` with the attributes that were set on classes and modules of libraries since the last scan.

    Parameters
    ----------
    codes
        Code objects that have run in the notebook since the last scan.
    namespace
        The globals of this code; None if `codes` is empty.
    """
    # The first scan creates so many objects that the garbage collector would take most of the time.
    with no_collection():
        _scan(codes, namespace or {})


def present() -> dict[str, Patch]:
    """Return `table`. If there was no scan in this process yet, scan first.

    The first scan is slow, so it is delayed until code can reach a library.
    """
    if not has_scanned():
        scan()
    return table


def has_scanned() -> bool:
    """Return True if there was a scan in this process."""
    return bool(_seen_modules)


def may_count(codes: Iterable[CodeType], code_facts: CodeFacts) -> bool:
    """Return True if there are patches and code may depend on one of them.

    Code depends on no patch if it reads no attribute and no global, imports nothing, and contains no string, tuple or nested function. If there was
    no scan in this process yet, return False for such code; for all other code, scan first.

    Parameters
    ----------
    codes
        The code objects of one function or cell.
    code_facts
        The facts about one of these code objects.
    """
    if has_scanned():
        return bool(table)
    if code_facts.attributes or code_facts.loads or code_facts.imports:
        return bool(present())
    for code in codes:
        if not _TEXTS.isdisjoint(map(type, code.co_consts)):
            return bool(present())
    return False


def _scan(codes: Iterable[CodeType], namespace: Mapping[str, Any]) -> None:
    before = {option: _values.get(option) for option in table}
    new, local = _imported()
    for module in new:
        _scan_namespace(module, vars(module))
    sizes = list(map(len, _spaces))
    if sizes != _sizes:
        for index, (size, last) in enumerate(zip(sizes, _sizes, strict=True)):
            if size > last:
                space = _spaces[index]
                for name in list(space)[last - size :]:
                    if _is_of_user(space[name]):
                        _add(Patch(_targets[index], name))
        _sizes[:] = sizes
    names: set[str] = set()
    for code in (*_called_code(codes, namespace), *local):
        for root, chain, name in facts(code).attribute_stores:
            names.add(name)
            target = _resolve(root, chain, namespace) if root else None
            if _is_of_library(target):
                _add(Patch(target, name))
        if any(map(_SETS_BY_NAME.search, code.co_names)):
            names |= texts_of(code)
    for name in names:
        for index, space in enumerate(_spaces):
            if name in space and _is_of_user(space[name]):
                _add(Patch(_targets[index], name))
    _update_values()
    if before.keys() != table.keys() or any(before[option] is not _values.get(option) for option in before):
        # The nodes of earlier code walks do not contain these changes.
        known_nodes.clear()


def _scan_namespace(target: Any, space: dict[str, Any] | MappingProxyType[str, Any]) -> None:
    """Add to `table` the attributes that the user has set on a module or class of a library. For a module, also scan its classes.

    Also keep the namespace, so that later scans compare its number of entries.

    Parameters
    ----------
    target
        The module or class.
    space
        The namespace of `target`.
    """
    _targets.append(target)
    _spaces.append(space)
    _sizes.append(len(space))
    is_module = isinstance(target, ModuleType)
    # The first scan reads tens of thousands of values, so the most frequent types are skipped without a call.
    for name, value in list(space.items()):
        kind = type(value)
        if kind in _instances_only:
            continue
        is_class = kind is type
        if is_class or kind is FunctionType:
            home = value.__module__
            is_known = type(home) is str and home in _library_modules
        else:
            is_known = False
            is_class = issubclass(kind, type)
        if not is_known and _is_of_user(value):
            _add(Patch(target, name))
        if is_class and is_module and (key := identity(value)) not in _seen_classes and _is_of_library(value):
            _seen_classes.add(key)
            _scan_namespace(value, vars(value))


def _add(patch: Patch) -> None:
    table.setdefault(patch.option, patch)


def _update_values() -> None:
    for option, patch in list(table.items()):
        value = patch.value()
        if value is _ABSENT or _is_original(patch, value):
            del table[option]
            _values.pop(option, None)
        else:
            _values[option] = value


def _is_original(patch: Patch, value: Any) -> bool:
    """Return True if the present value of a patched attribute is the library's original function or class."""
    qualname = getattr(value, "__qualname__", None)
    home = str(getattr(value, "__module__", ""))
    if qualname is None or of_user(value) or home.partition(".")[0] != patch.top:
        return False
    if isinstance(patch.target, ModuleType) and home != patch.target.__name__:
        # The module may have imported the object from another module of the library, but then it exports the object.
        return bool(qualname == patch.name) and patch.name in getattr(patch.target, "__all__", (patch.name,))
    wanted = patch.name if isinstance(patch.target, ModuleType) else f"{patch.target.__qualname__}.{patch.name}"
    return bool(qualname == wanted)


def _imported() -> tuple[list[Any], list[CodeType]]:
    """Return the modules of libraries, and the code of the user's modules, that were imported since the last scan.

    The first scan leaves out the code of all modules of the user. Later scans leave out only code that certainly sets no attribute.
    """
    global _last_modules  # noqa: PLW0603 - a fact about the process
    modules = sys.modules
    # A dict keeps the order of insertion, so a new module is the last one.
    if (len(modules), next(reversed(modules))) == _last_modules:
        return [], []
    _last_modules = (len(modules), next(reversed(modules)))
    # The first scan reads all namespaces completely, so it does not need the code of local modules.
    first = not _seen_modules
    libraries = []
    local = []
    for name, module in list(modules.items()):
        if name in _seen_modules:
            continue
        _seen_modules.add(name)
        space = getattr(module, "__dict__", None)
        if type(space) is not dict or name.partition(".")[0] in _LEFT_OUT or name == "__main__":
            continue
        if is_local(name):
            if not first and (code := _code_of(name, space.get("__loader__"))) is not None:
                local.append(code)
            continue
        libraries.append(module)
    return libraries, local


def _code_of(name: str, loader: Any) -> CodeType | None:
    """Return the code of a module of the user, or None if its source code certainly sets no attribute of an object.

    Also return None if the code cannot be read.

    Parameters
    ----------
    name, loader
        The name and the loader (``__loader__``) of the module.
    """
    try:
        source = loader.get_source(name)
        code = loader.get_code(name) if source is None or _SETS.search(source) else None
    except Exception:
        # The module has no source, or the file was changed or removed.
        return None
    return code if isinstance(code, CodeType) else None


def _is_of_library(target: Any) -> bool:
    if isinstance(target, ModuleType):
        name: Any = target.__name__
    elif isinstance(target, type):
        name = target.__module__
    else:
        return False
    return type(name) is str and not is_local(name) and name.partition(".")[0] not in _LEFT_OUT


def _is_of_user(value: Any) -> bool:
    """Return True for an object of the user, and for a descriptor of a library that contains an object of the user (a pandas accessor)."""
    kind = type(value)
    if kind in _instances_only:
        return False
    if kind is FunctionType or kind is type:
        return not _is_known(value) and _is_user_code(value)
    if kind is property:
        return not all(map(_is_known_code, (value.fget, value.fset, value.fdel))) and of_user(value)
    if kind is staticmethod or kind is classmethod:
        return not _is_known_code(value.__func__) and of_user(value)
    if issubclass(kind, (type, staticmethod, classmethod, property)):
        return of_user(value)
    if kind is cached_property:
        return of_user(value.func)
    if _is_descriptor(kind):
        held = [getattr(value, "__dict__", {}), {name: getattr(value, name, None) for name in _slots(kind)}]
        return of_user(value) or any(of_user(item) for part in held for item in part.values() if callable(item))
    if kind.__module__ in _library_modules:
        _instances_only.add(kind)
    return kind.__module__ == "__main__"


def _is_known(value: Any) -> bool:
    module = value.__module__
    return type(module) is str and module in _library_modules


def _is_known_code(value: Any) -> bool:
    return value is None or (type(value) is FunctionType and _is_known(value))


def _is_user_code(value: Any) -> bool:
    module = value.__module__
    if of_user(value):
        return True
    if type(module) is str and module.partition(".")[0] in sys.modules:
        _library_modules.add(module)
    return False


_library_modules: set[str] = set()
"""Names of modules of libraries. A function or class does not belong to the user if its ``__module__`` is one of them."""
_instances_only: set[type] = {
    BuiltinFunctionType, ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, WrapperDescriptorType,
}  # fmt: skip
"""Types whose instances cannot contain an object of the user: some builtin types, and types of libraries."""
_descriptors: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def _is_descriptor(kind: type) -> bool:
    result = _descriptors.get(kind)
    if result is None:
        result = _descriptors[kind] = _has_get(kind)
    return result


def _has_get(kind: type) -> bool:
    return bool(kind.__flags__ & 1 << 9) and any("__get__" in vars(base) for base in kind.__mro__)


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _resolve(root: str, chain: tuple[str, ...], namespace: Mapping[str, Any]) -> Any:
    current = bound_value(namespace, root)
    for name in chain:
        current = getattr(current, name, None) if isinstance(current, (ModuleType, type)) else None
    return current


def _called_code(codes: Iterable[CodeType], namespace: Mapping[str, Any]) -> list[CodeType]:
    """Return `codes`, and the code of the user's functions that `codes` may call directly or indirectly.

    Parameters
    ----------
    namespace
        The globals of `codes`.
    """
    reached: dict[int, CodeType] = {}
    stack: list[tuple[CodeType, Mapping[str, Any]]] = [(code, namespace) for code in codes]
    while stack:
        code, scope = stack.pop()
        if id(code) in reached:
            continue
        reached[id(code)] = code
        for root, chain in facts(code).loads:
            value = _resolve(root, chain[:1], scope) if isinstance(scope.get(root), ModuleType) else scope.get(root)
            functions = [value] if type(value) is FunctionType else []
            if isinstance(value, type) and of_user(value):
                functions += [function for function in vars(value).values() if type(function) is FunctionType]
            stack += [(function.__code__, function.__globals__) for function in functions if of_user(function)]
    return list(reached.values())


@lru_cache(maxsize=1024)
def texts_of(code: CodeType) -> frozenset[str]:
    """Return the identifiers in the string constants of code, and the names of its nested functions and classes.

    A string such as ``"pandas.DataFrame.total"`` contains three identifiers.
    """
    names: set[str] = set()
    stack = [code]
    while stack:
        current = stack.pop()
        constants = list(current.co_consts)
        for constant in constants:
            if isinstance(constant, CodeType):
                stack.append(constant)
                names.add(constant.co_name)
            elif isinstance(constant, tuple):
                constants += constant
            elif type(constant) is str and len(constant) < 200:
                names |= {part for part in constant.split(".") if part.isidentifier()}
    return frozenset(names)


# -- dependencies of code


def counts_for(code: CodeType, tops: Collection[str]) -> list[Patch]:
    """Return the patches in `table` on which code depends.

    Parameters
    ----------
    code
        The code of a function or cell.
    tops
        The names of the top-level packages of the libraries that the code uses.
    """
    if opcodes.untested():
        return list(table.values())
    attributes = facts(code).attributes
    result = []
    for patch in table.values():
        name = patch.name
        if name in attributes or name in texts_of(code) or (patch.top in tops and is_used_by(patch.top, name)):
            result.append(patch)
    return result


def reached_in(tops: Iterable[str]) -> list[Patch]:
    """Return the patches of some libraries that may have an effect although the user's code does not name the patched attribute (`is_used_by`).

    All code that receives an object of these libraries depends on the returned patches.

    Parameters
    ----------
    tops
        The names of the top-level packages of these libraries.
    """
    wanted = frozenset(tops)
    return [patch for patch in table.values() if patch.top in wanted and is_used_by(patch.top, patch.name)]


def is_used_by(top: str, name: str) -> bool:
    """Return True if a library may use the attribute `name` of its classes and modules although the user's code does not name it.

    This is so if the code of the library contains the name, or if Python looks the attribute up by itself, as it does for ``__add__``.

    Parameters
    ----------
    top
        The name of the library's top-level package.
    """
    if name.startswith("__") and name.endswith("__"):
        return True
    loaded = sum(1 for module in list(sys.modules) if module.partition(".")[0] == top)
    return name in _names_in(top, loaded)


@lru_cache(maxsize=32)
def _names_in(top: str, loaded: int) -> frozenset[str]:
    """Return the names, and the strings that are identifiers, in the functions of a library.

    Parameters
    ----------
    top
        The name of the library's top-level package.
    loaded
        The number of imported modules of the library. It is only a part of the cache key, so that modules imported later are read, too.
    """
    del loaded
    names: set[str] = set()
    codes: dict[int, CodeType] = {}
    for target, space in zip(_targets, _spaces, strict=True):
        if Patch(target, "").top != top:
            continue
        for value in list(space.values()):
            for function in _functions_of(value):
                codes[id(function.__code__)] = function.__code__
    for code in codes.values():
        stack = [code]
        while stack:
            current = stack.pop()
            names.update(current.co_names)
            for constant in current.co_consts:
                if isinstance(constant, CodeType):
                    stack.append(constant)
                elif type(constant) is str and constant.isidentifier():
                    names.add(constant)
    return frozenset(names)


def _functions_of(value: Any) -> Iterator[FunctionType]:
    for candidate in (value, getattr(value, "__func__", None), getattr(value, "fget", None), getattr(value, "func", None)) if not isinstance(value, ModuleType) else ():  # fmt: skip
        function = candidate
        while type(function) is FunctionType:
            yield function
            function = getattr(function, "__wrapped__", None)


# -- the row of the table of options


def _read_patches(_: Any) -> dict[str, Any]:
    return {option: patch.value() for option, patch in present().items()}


def _write(_: Any, option: str, value: Any) -> None:
    module, _, path = option.partition(":")
    target: Any = import_module(module)
    *outer, name = path.lstrip(".").split(".")
    for part in outer:
        target = getattr(target, part)
    if value is not UNSET:
        setattr(target, name, value)
        _add(Patch(target, name))
    elif name in vars(target):
        delattr(target, name)
    _update_values()
    known_nodes.clear()


ROW = Library("patches", _read_patches, _write, defaults=lambda _: Unset(), counts=never_counts)
"""The row of the table of options that restores the attributes that a step has set on classes and modules of libraries."""

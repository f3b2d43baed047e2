"""References: the bytes that stand for an object in the node of another object that refers to it.

An atom (such as a number, a string or None) is written inline, and an asset as its key. Builtins and the functions, classes and modules of libraries
are written as their name and the library's version. Any other object gets a node, and the node that refers to it contains a placeholder. A function
or class that a library *created* for the user (a wrapper with a closure, a class from a factory) is not an attribute of the library's module, so it
gets a node, as the user's functions do.

Code that reads attributes of a module depends only on these attributes: code with ``lmod.sub.CONST`` depends only on this constant. If a
function imports a local module, the code walk imports the module, too, because the function can reach everything in the module. An installed
module is not imported, because its version is enough. Nor is a local module that a cell imports after other statements, if its import reads state
that these statements may set (``os.environ``).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple

from stepwell.kernel_runtime.versions.bytecode import Chains, Imported
from stepwell.kernel_runtime.versions.encode import ATOMS, Tag, atom, atoms_only
from stepwell.kernel_runtime.versions.environment import Keyed, process_keyed
from stepwell.kernel_runtime.versions.graph import ASSET, MISSING, Node
from stepwell.kernel_runtime.versions.left_out import NOTHING, OPAQUE, Ignored
from stepwell.kernel_runtime.versions.ownership import owner
from stepwell.kernel_runtime.versions.secrets import Environment, looks_secret

_SMALL = 1 << 16


class Writer:
    """Writes references to objects into nodes.

    Parameters
    ----------
    assets
        Names of registered assets, each with its asset key.
    namespace
        The notebook's globals. Only in code with these globals, the names in `assets` refer to assets. None without a notebook.
    ignored
        Variables and attributes that are left out of code versions.
    keyed
        Digests the values of secrets with the user's key. If None, a value is not treated as a secret because of its name, so that versions are
        the same for all users. `Secret` objects and code parts are then digested with a key that only this process has.
    """

    def __init__(
        self,
        assets: Mapping[str, str],
        namespace: dict[str, Any] | None,
        ignored: Ignored = NOTHING,
        keyed: Keyed | None = None,
    ) -> None:
        self.ignored = ignored
        self.keyed = keyed or process_keyed
        self.hides = keyed is not None
        self.environment: Environment | None = None
        """Values of environment variables, which must not be shown in code parts. None until the first part is made."""
        self.part_digest: Callable[[bytes], str] | None = None
        """Digests code parts. None until the first part is made."""
        self.slow: dict[int, float] = {}
        """The digests that took long: maps the ``id`` of a value's node to the time in seconds."""
        self.assets = assets
        self.namespace = namespace
        self.trace: list[tuple[str, Any, bytes | None]] | None = None
        """If this is a list, a tuple is added for each written reference: the label, the object, and the reference's encoding (None if the object
        gets a node)."""

    def refer(self, node: Node, label: str, item: Any) -> None:
        """Write a reference to an object into a node.

        An atom, or an object that is identified by its name, is written inline. For any other object, a placeholder is written, and the
        object is added to `node.pending`, so that it gets a node.

        Parameters
        ----------
        node
            The node of the object that refers to `item`.
        label
            The label of the reference, as in `Edge`.
        """
        kind = type(item)
        if kind is LAZY:
            item = resolve_lazy(item)
            kind = type(item)
        content = node.content
        if kind in ATOMS:
            encoding = atom(item)
            if self.hides and kind is not bool and item is not None and _names_secret(label):
                # A plain digest could reveal a short secret, so the value is digested with the user's key.
                encoding = Tag.KEYED + self.keyed(encoding).encode()
            if len(encoding) > _SMALL:
                # A guard would keep this large value alive, so there is no guard, and later code walks do not use this node.
                node.stable = False
        elif kind is tuple and atoms_only(item) and len(item) < 1000:
            encoding = atom(item)
        else:
            reference = None if OPAQUE and id(item) in OPAQUE else token(item, kind)
            if reference is None:
                content.append(mark(item, kind))
                node.pending.append((label, item))
                if self.trace is not None:
                    self.trace.append((label, item, None))
                return
            encoding = reference
        if self.trace is None:
            content.append(encoding)
        else:
            if not label or label[0] == "(":
                content.append(encoding)
            # Any other reference is not added to the content: it is a separate code part, whose digest shows changes of the reference.
            self.trace.append((label, item, encoding))

    def asset(self, node: Node, name: str) -> None:
        """Write the key of the asset `name` into a node. The data version is not written, because the asset is an input of the step."""
        key = self.assets[name]
        node.assets += ((name, key),)
        node.flags |= ASSET
        node.content.append(Tag.ASSET + atom(key))

    def is_ignored(self, scope: Mapping[str, Any], name: str) -> bool:
        """Return True if the global `name` of the namespace `scope` is left out of code versions."""
        places = self.ignored.globals
        return bool(places) and (id(scope), name) in places


def mark(item: Any, kind: type) -> bytes:
    """Return the placeholder for an object that gets a node.

    The placeholder for a function contains the function's name. The function's node does not contain the name, so that the version of an asset's
    body does not change if the user renames the function.
    """
    return Tag.FOREIGN + atom(item.__name__) if kind is FunctionType else Tag.FOREIGN


@lru_cache(maxsize=4096)
def _names_secret(label: str) -> bool:
    return looks_secret(label)


# -- objects that are identified by their names

LAZY: type = getattr(types, "LazyImportType", type(MISSING))
"""The type of the object to which ``lazy import`` of Python 3.15 binds a name until the first use. In older versions, ``object``."""
_C_DESCRIPTORS = (
    WrapperDescriptorType,
    MethodDescriptorType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
)
_HEAP_TYPE = 1 << 9
_names: dict[tuple[str | None, str, str], bytes] = {}


def token(item: Any, kind: type) -> bytes | None:
    """Return the encoding of an object that is identified by its name: a builtin, or a function, class or module of a library.

    Return None for any other object.
    """
    if kind is BuiltinFunctionType:
        holder = item.__self__
        # A builtin that is bound to an object other than a module is a method of this object.
        if holder is None or type(holder) is ModuleType:
            return named_encoding(item.__module__, item.__qualname__, owner(item.__module__) or "")
        return None
    if kind is FunctionType:
        module = item.__globals__.get("__name__")
        library = owner(module) if type(module) is str else None
        return named_encoding(module, item.__qualname__, library) if library is not None and is_original(item, module) else None
    # Use the real type, because an object's `__class__` may be wrong or raise an exception.
    if issubclass(kind, type):
        module = item.__module__
        library = owner(module) if type(module) is str else None
        return named_encoding(module, item.__qualname__, library) if library is not None and is_module_attribute(item) else None
    if issubclass(kind, ModuleType):
        library = owner(item.__name__)
        return named_encoding(item.__name__, "", library) if library is not None else None
    if issubclass(kind, _C_DESCRIPTORS):
        holder = item.__objclass__
        library = owner(holder.__module__)
        return named_encoding(holder.__module__, item.__qualname__, library) if library is not None else atom(item.__name__)
    if kind.__name__ == "cython_function_or_method":
        library = owner(item.__module__)
        return named_encoding(item.__module__, item.__qualname__, library) if library is not None else None
    return None


def bound_value(scope: Mapping[str, Any], name: str) -> Any:
    """Return the value of the global `name` in the namespace `scope`, or `MISSING` if there is no such global. A lazy import is resolved."""
    value = scope.get(name, MISSING)
    return resolve_lazy(value) if type(value) is LAZY else value


def resolve_lazy(value: Any) -> Any:
    """Return the object that a lazy import stands for; `MISSING` if the import fails or `value` is not a lazy import."""
    if value is MISSING:
        return MISSING
    try:
        return value.resolve()
    except Exception:
        # The import runs arbitrary code, which may raise any exception.
        return MISSING


def getattr_static(item: Any, name: str) -> Any:
    """Return an attribute of an object or of its class without calling `__getattr__`; None if neither has the attribute."""
    for cls in type(item).__mro__:
        if name in vars(cls):
            return getattr(item, name, None)
    held = getattr(type(item), "__dict__", {}).get("__dict__")
    if held is not None:
        try:
            return vars(item).get(name)
        except TypeError:
            return None
    return None


def is_module_attribute(cls: type) -> bool:
    """Return True if a class is an attribute of its module under its name. A class that a library created for the user is not."""
    if not cls.__flags__ & _HEAP_TYPE:
        return True
    current: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        current = getattr(current, part, None)
    return current is cls


def named_encoding(module: str | None, name: str, owner_name: str) -> bytes:
    """Return the encoding of an object that is identified by its name.

    Parameters
    ----------
    module
        The name of the module that contains the object; None if the object does not name its module.
    name
        The object's name in the module; empty for the module itself.
    owner_name
        The owner of the module, from `owner`; empty for a module of the user.
    """
    key = (module, name, owner_name)
    encoding = _names.get(key)
    if encoding is None:
        encoding = _names[key] = Tag.NAMED + atom(key)
    return encoding


def is_original(function: FunctionType, module: str) -> bool:
    """Return True if the name of a library's function and the library's version identify the function.

    This is not so for a function that the library created for the user, because it depends on the user's values.

    Parameters
    ----------
    module
        The name of the module whose globals the function uses.
    """
    holder = sys.modules.get(module)
    if function.__closure__ is None and not function.__dict__ and getattr(holder, "__dict__", None) is function.__globals__:
        # The defaults of a function that is defined in another function may be values of the user.
        return "<locals>" not in function.__qualname__ or not function.__defaults__
    if function.__module__ != module:
        return False
    current: Any = holder
    for part in function.__qualname__.split("."):
        current = getattr(current, part, None)
        if current is None:
            return False
    return current is function or getattr(current, "__func__", None) is function


# -- attributes of modules, and imports


def from_module(to: Writer, node: Node, label: str, module: ModuleType, chain: tuple[str, ...]) -> None:
    """Follow a chain of attributes, and write a reference to the first object that is not a module, such as the constant in ``module.sub.CONST``.

    If all objects on the chain are modules, or the chain is empty, write a reference to the last module as a whole.

    Parameters
    ----------
    node
        The node of the code that reads the attributes.
    label
        The name by which the code refers to `module`.
    chain
        The names of the attributes.
    """
    value: Any = module
    for name in chain:
        namespace = vars(value)
        if (id(namespace), name) in to.ignored.globals:
            node.content.append(Tag.IGNORED)
            return
        member = bound_value(namespace, name)
        node.mappings += ((namespace, name, member),)
        library = owner(value.__name__)
        label += "." + name
        if member is MISSING:
            # The attribute does not exist, or the module's `__getattr__` creates it at first use. In a library, the name identifies it.
            node.content.append(
                named_encoding(value.__name__, name, library)
                if library is not None
                else named_encoding(value.__name__, name, "") + Tag.UNBOUND
            )
            if library is None and "__getattr__" in namespace:
                to.refer(node, label, namespace["__getattr__"])
            return
        if issubclass(type(member), ModuleType):
            value = member
            continue
        if library is None:
            to.refer(node, label, member)
        else:
            _library(to, node, label, value, named_encoding(value.__name__, name, library))
            _replaced_value(to, node, label, member)
        _blind(node, label, value, name)
        return
    to.refer(node, label, value)


def _library(to: Writer, node: Node, label: str, item: Any, encoding: bytes) -> None:
    if to.trace is None:
        node.content.append(encoding)
    else:
        to.trace.append((label, item, encoding))


def _replaced_value(to: Writer, node: Node, label: str, value: Any) -> None:
    """Write the value of an attribute of a library's module into `node`, if the user may have assigned it.

    This is possible if the value is an atom, or a function or class of the user.
    """
    kind = type(value)
    if kind is FunctionType:
        module = value.__globals__.get("__name__")
        if type(module) is not str or owner(module) is None:
            to.refer(node, label, value)
    elif issubclass(type(value), type):
        if owner(value.__module__) is None:
            to.refer(node, label, value)
    elif kind in ATOMS:
        node.content.append(atom(value))


def _blind(node: Node, label: str, module: ModuleType, name: str) -> None:
    if module is sys and name in {"_getframe", "modules"}:
        node.unverifiable(label, f"sys.{name} gives access to objects that the code does not name")


def imports(
    to: Writer, node: Node, statements: Iterable[Imported], scope: Mapping[str, Any], late: Collection[str] = frozenset()
) -> None:
    """Write references to the modules, or to the attributes of modules, that code reaches through its import statements.

    Parameters
    ----------
    node
        The node of the code.
    statements
        The names that the import statements bind.
    scope
        The globals of the code, for relative imports.
    late
        The modules that the code imports after statements that may change the state that an import reads.
    """
    for statement in statements:
        name = _absolute(statement.module, statement.level, scope) if statement.level else statement.module
        library = owner(name)
        if library is not None:
            _from_library(to, node, name, statement.item, library)
            continue
        is_late = bool(late) and statement.module in late
        module = _imported(name, is_late)
        node.mappings += ((sys.modules, name, module if module is not None else MISSING),)
        if module is None:
            # The module may exist later, which no guard detects. If the step imports it, the module's file is a read of the step.
            node.stable = False
            if postponed.get(name):
                node.unverifiable(name, "an import of the module draws random numbers")
            node.content.append(Tag.NO_MODULE)
        elif statement.item == "*":
            to.refer(node, name, module)
        elif statement.item:
            _item(to, node, name, module, statement, is_late=is_late)
        elif statement.outermost:
            top = name.partition(".")[0]
            of_module(to, node, top, sys.modules[top], statement.chains)
        else:
            of_module(to, node, name, module, statement.chains)


def _from_library(to: Writer, node: Node, name: str, item: str, library: str) -> None:
    module = sys.modules.get(name)
    _library(to, node, name, module or name, named_encoding(name, item, library))
    if module is not None and item in vars(module):
        held = vars(module)[item]
        node.mappings += ((vars(module), item, held),)
        _replaced_value(to, node, f"{name}.{item}", held)


def _item(to: Writer, node: Node, label: str, module: ModuleType, statement: Imported, *, is_late: bool) -> None:
    """Write a reference to the object that ``from module import item`` binds."""
    namespace = vars(module)
    if (id(namespace), statement.item) in to.ignored.globals:
        node.content.append(Tag.IGNORED)
        return
    value = bound_value(namespace, statement.item)
    node.content.append(atom(statement.item))
    if value is MISSING:
        value = _imported(f"{label}.{statement.item}", is_late) or MISSING
    if issubclass(type(value), ModuleType):
        node.mappings += ((namespace, statement.item, namespace.get(statement.item, MISSING)),)
        of_module(to, node, f"{label}.{statement.item}", value, statement.chains)
    else:
        from_module(to, node, label, module, (statement.item,))


def of_module(to: Writer, node: Node, label: str, module: ModuleType, chains: Chains) -> None:
    """Write references to those attributes of a module that code reads, or to the whole module if `chains` is None."""
    if chains is None:
        to.refer(node, label, module)
        return
    for chain in chains:
        from_module(to, node, label, module, chain)


def _absolute(name: str, level: int, scope: Mapping[str, Any]) -> str:
    """Return the absolute name of a module that a relative import names.

    Parameters
    ----------
    level
        The number of leading dots.
    scope
        The globals of the code that contains the import.
    """
    package = scope.get("__package__") or str(scope.get("__name__", "")).rpartition(".")[0]
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


class ImportReads(NamedTuple):
    """The kinds of state that the import of a module reads."""

    state: bool
    """True if it reads environment variables, options of libraries, or other state that a statement before the import can set."""
    draws: bool
    """True if it draws random numbers."""


def _unwatched(name: str) -> ImportReads:
    import_module(name)
    return ImportReads(state=False, draws=False)


watched_import: Callable[[str], ImportReads] = _unwatched
"""Imports a module and returns what the import read. The package `reads` replaces this function."""
postponed: dict[str, bool] = {}
"""The local modules that a step must import itself, because the import reads state that the step may set before. True for a module whose import
draws random numbers."""


def _imported(name: str, is_late: bool) -> ModuleType | None:
    """Import a local module, so that its content can be digested, and return the module.

    The result is None if the import fails. It is also None if the code imports the module after other statements and the import reads state that
    these statements may set: then the modules that were imported are removed again, so that the step imports them itself.
    """
    module = sys.modules.get(name)
    if module is not None:
        return module
    if is_late and name in postponed:
        return None
    known = len(sys.modules)
    try:
        if not is_late:
            return import_module(name)
        reads = watched_import(name)
    except Exception:
        return None
    if not any(reads):
        return sys.modules[name]
    postponed[name] = reads.draws
    for new in [*sys.modules][known:]:
        if owner(new) is None:
            package, _, child = new.rpartition(".")
            vars(sys.modules.get(package, sys)).pop(child, None) if package else None
            del sys.modules[new]
    return None

"""What code reaches through modules: only the attributes that it names, and what import statements inside it bind.

``lmod.sub.CONST`` depends on that constant. A local module that is imported inside a function is imported here already,
because nothing but its content tells what the function would reach; an installed one is not, its version is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.versions.atoms import ATOMS, atom
from stepwell.kernel_runtime.versions.graph import MISSING, Node
from stepwell.kernel_runtime.versions.imported import Chains, Imported
from stepwell.kernel_runtime.versions.naming import bound, named
from stepwell.kernel_runtime.versions.ownership import owner

if TYPE_CHECKING:
    from stepwell.kernel_runtime.versions.expand import Expander


def attribute(to: Expander, node: Node, label: str, module: ModuleType, chain: tuple[str, ...]) -> None:
    """Write what a chain of attributes from a module reaches: ``module.sub.CONST`` is that constant only."""
    value: Any = module
    for name in chain:
        namespace = vars(value)
        if (id(namespace), name) in to.ignored.globals:
            node.own.append(b"\xeb")
            return
        found = bound(namespace, name)
        node.mappings += ((namespace, name, found),)
        who = owner(value.__name__)
        label += "." + name
        if found is MISSING:
            # Made at first use by the module's __getattr__, or not there. Of a library it counts as when it is made.
            node.own.append(
                named(value.__name__, name, who) if who is not None else named(value.__name__, name, "") + b"\xd6"
            )
            if who is None and "__getattr__" in namespace:
                to.refer(node, label, namespace["__getattr__"])
            return
        if issubclass(type(found), ModuleType):
            value = found
            continue
        if who is None:
            to.refer(node, label, found)
        else:
            _library(to, node, label, value, named(value.__name__, name, who))
            _replaced(to, node, label, found)
        _blind(node, label, value, name)
        return
    to.refer(node, label, value)


def _library(to: Expander, node: Node, label: str, item: Any, written: bytes) -> None:
    if to.trace is None:
        node.own.append(written)
    else:
        to.trace.append((label, item, written))


def _replaced(to: Expander, node: Node, label: str, found: Any) -> None:
    """Write what a library's attribute is where that is not the library's own: somebody has replaced it."""
    kind = type(found)
    if kind is FunctionType:
        module = found.__globals__.get("__name__")
        if type(module) is not str or owner(module) is None:
            to.refer(node, label, found)
    elif issubclass(type(found), type):
        if owner(found.__module__) is None:
            to.refer(node, label, found)
    elif kind in ATOMS:
        node.own.append(atom(found))


def _blind(node: Node, label: str, module: ModuleType, name: str) -> None:
    if module is sys and name in {"_getframe", "modules"}:
        node.unverifiable(label, f"sys.{name} looks up what cannot be seen here")


def imports(to: Expander, node: Node, found: Iterable[Imported], scope: Mapping[str, Any]) -> None:
    """Write what import statements inside the code reach."""
    for each in found:
        name = _absolute(each.module, each.level, scope) if each.level else each.module
        who = owner(name)
        if who is not None:
            _from_library(to, node, name, each.item, who)
            continue
        module = _imported(name)
        node.mappings += ((sys.modules, name, module if module is not None else MISSING),)
        if module is None:
            # It may be there next time.
            node.stable = False
            node.own.append(b"\xd8")
        elif each.item == "*":
            to.refer(node, name, module)
        elif each.item:
            _item(to, node, name, module, each)
        elif each.outermost:
            top = name.partition(".")[0]
            read_of(to, node, top, sys.modules[top], each.chains)
        else:
            read_of(to, node, name, module, each.chains)


def _from_library(to: Expander, node: Node, name: str, item: str, who: str) -> None:
    module = sys.modules.get(name)
    _library(to, node, name, module or name, named(name, item, who))
    if module is not None and item in vars(module):
        held = vars(module)[item]
        node.mappings += ((vars(module), item, held),)
        _replaced(to, node, f"{name}.{item}", held)


def _item(to: Expander, node: Node, label: str, module: ModuleType, each: Imported) -> None:
    """Write what ``from module import item`` binds."""
    namespace = vars(module)
    if (id(namespace), each.item) in to.ignored.globals:
        node.own.append(b"\xeb")
        return
    found = bound(namespace, each.item)
    node.own.append(atom(each.item))
    if found is MISSING:
        found = _imported(f"{label}.{each.item}") or MISSING
    if issubclass(type(found), ModuleType):
        node.mappings += ((namespace, each.item, namespace.get(each.item, MISSING)),)
        read_of(to, node, f"{label}.{each.item}", found, each.chains)
    else:
        attribute(to, node, label, module, (each.item,))


def read_of(to: Expander, node: Node, label: str, module: ModuleType, chains: Chains) -> None:
    """Write what is read of a module: attributes, or all of it."""
    if chains is None:
        to.refer(node, label, module)
        return
    for chain in chains:
        attribute(to, node, label, module, chain)


def _absolute(name: str, level: int, scope: Mapping[str, Any]) -> str:
    """Return the full name of what a relative import names."""
    package = scope.get("__package__") or str(scope.get("__name__", "")).rpartition(".")[0]
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def _imported(name: str) -> ModuleType | None:
    """Return a local module, imported if it is not yet: only its content tells what an import inside a function reaches."""
    from importlib import import_module

    try:
        return import_module(name)
    except Exception:
        return None

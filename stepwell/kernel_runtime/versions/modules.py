"""What code reaches through modules: only the attributes that it names, and what import statements inside it bind.

``lmod.sub.CONST`` depends on that constant. A local module that is imported inside a function is imported here already,
because nothing but its content tells what the function would reach; an installed one is not, its version is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.versions.atoms import ATOMS, atom
from stepwell.kernel_runtime.versions.bytecode import CodeFacts
from stepwell.kernel_runtime.versions.graph import MISSING, Node
from stepwell.kernel_runtime.versions.naming import named
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
        found = namespace.get(name, MISSING)
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
        if isinstance(found, ModuleType):
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
    elif isinstance(found, type):
        if owner(found.__module__) is None:
            to.refer(node, label, found)
    elif kind in ATOMS:
        node.own.append(atom(found))


def _blind(node: Node, label: str, module: ModuleType, name: str) -> None:
    if module is sys and name in {"_getframe", "modules"}:
        node.unverifiable(label, f"sys.{name} looks up what cannot be seen here")


def imports(to: Expander, node: Node, known: CodeFacts, scope: Mapping[str, Any]) -> None:
    """Write what import statements inside the code reach."""
    for name, level, wanted in known.imports:
        if level:
            name = _absolute(name, level, scope)  # noqa: PLW2901 - the same module by its full name
        who = owner(name)
        if who is None:
            module = _imported(name)
            if module is None:
                # It may be there next time.
                node.stable = False
                node.own.append(b"\xd8")
            elif wanted == ("*",) or (not wanted and known.bare_imports):
                to.refer(node, name, sys.modules[name])
            else:
                _from_local(to, node, name, module, wanted or tuple(sorted(known.attributes)), complete=bool(wanted))
            continue
        _library(to, node, name, sys.modules.get(name) or name, named(name, ",".join(wanted), who))
        module = sys.modules.get(name)
        if module is not None:
            for item in wanted:
                if item in vars(module):
                    node.mappings += ((vars(module), item, vars(module)[item]),)
                    _replaced(to, node, f"{name}.{item}", vars(module)[item])


def _from_local(
    to: Expander, node: Node, label: str, module: ModuleType, names: tuple[str, ...], *, complete: bool
) -> None:
    # `import a.b` binds a; its submodules are reached by attributes.
    chain = [module]
    if not complete:
        for part in label.split(".")[1:]:
            inner = vars(chain[-1]).get(part)
            if not isinstance(inner, ModuleType):
                break
            chain.append(inner)
    else:
        for part in label.split(".")[1:]:
            inner = vars(chain[-1]).get(part) or sys.modules.get(f"{chain[-1].__name__}.{part}")
            if not isinstance(inner, ModuleType):
                break
            chain = [inner]
    for place in chain:
        namespace = vars(place)
        for name in names:
            if (id(namespace), name) in to.ignored.globals:
                continue
            found = namespace.get(name, MISSING)
            if found is MISSING:
                found = sys.modules.get(f"{place.__name__}.{name}", MISSING)
                if found is MISSING:
                    continue
            if isinstance(found, ModuleType) and not complete and found in chain:
                continue
            node.mappings += ((namespace, name, namespace.get(name, MISSING)),)
            node.own.append(atom(name))
            to.refer(node, f"{place.__name__}.{name}", found)


def _absolute(name: str, level: int, scope: Mapping[str, Any]) -> str:
    """Return the full name of what a relative import names."""
    package = scope.get("__package__") or str(scope.get("__name__", "")).rpartition(".")[0]
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def _imported(name: str) -> ModuleType | None:
    """Return a local module, imported if it is not yet: only its content tells what an import inside a function reaches."""
    from importlib import import_module

    try:
        import_module(name)
    except Exception:
        return None
    return sys.modules.get(name.partition(".")[0])

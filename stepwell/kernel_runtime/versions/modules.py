"""What code reaches through modules: only the attributes that it names, and what import statements inside it bind.

``lmod.sub.CONST`` depends on that constant. ``import lmod`` inside a function binds a local, so no global shows what is reached. The
instructions are followed instead: the names that an import statement binds, and the attributes read from these names, in the code and in
the functions nested in it. A name that is used in any other way (passed on, assigned) stands for its whole module. A local module that
is imported inside a function is imported here, because only its content tells what the function would reach. An installed module is not
imported; its version is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Protocol, TypeAlias

from stepwell.kernel_runtime.versions import opcodes
from stepwell.kernel_runtime.versions.encode import ATOMS, Tag, atom
from stepwell.kernel_runtime.versions.graph import MISSING, Node, bound, named
from stepwell.kernel_runtime.versions.left_out import Ignored
from stepwell.kernel_runtime.versions.opcodes import Instruction
from stepwell.kernel_runtime.versions.ownership import owner

Chains: TypeAlias = tuple[tuple[str, ...], ...] | None
"""Attributes that are read at once from a name: ``lmod.sub.f`` and ``lmod.K`` are ``(("sub", "f"), ("K",))``. None where the name is used otherwise."""


@dataclass(frozen=True, slots=True)
class Imported:
    """One name that an import statement binds."""

    module: str
    """The module as the statement names it; with a level, relative to the package."""
    level: int
    item: str
    """What of the module is bound: ``f`` of ``from lmod import f``, ``*`` for everything; empty for the module itself."""
    outermost: bool
    """Whether the outermost package is bound: ``import a.b`` binds ``a``."""
    chains: Chains


@lru_cache(maxsize=1024)
def imported(*codes: CodeType) -> tuple[Imported, ...]:
    """Return what import statements bind in codes that share their names: those of a function, or of the parts of a cell."""
    bound: dict[str, list[tuple[str, int, str, bool]]] = {}
    scopes = [(code, _instructions(code)) for code in _nested(codes)]
    for _, instructions in scopes:
        for name, what in _bindings(instructions):
            bound.setdefault(name, []).append(what)
    return tuple(
        Imported(*what, _chains(scopes, name)) for name, several in bound.items() for what in dict.fromkeys(several)
    )


@lru_cache(maxsize=1024)
def chains_read(code: CodeType, name: str) -> Chains:
    """Return the attributes that a function reads of a module that its closure holds under a name."""
    return _chains([(each, _instructions(each)) for each in _nested((code,))], name)


def _chains(scopes: list[tuple[CodeType, list[Instruction]]], name: str) -> Chains:
    chains: dict[tuple[str, ...], None] = {}
    for code, instructions in scopes:
        for read, chain in _reads(code, instructions):
            if read == name:
                if not chain:
                    return None
                chains[chain] = None
    return tuple(chains)


def _nested(codes: tuple[CodeType, ...]) -> list[CodeType]:
    found = list(codes)
    for code in found:
        found.extend([constant for constant in code.co_consts if type(constant) is CodeType])
    return found


def _instructions(code: CodeType) -> list[Instruction]:
    """Return the instructions of a code object, each with the name of its variable where it is of one."""
    if opcodes.untested():
        return []
    inner = [name for name in code.co_cellvars if name not in code.co_varnames]
    variables = (*code.co_varnames, *inner, *code.co_freevars)
    return [
        (op, 0, variables[argument]) if op in opcodes.VARIABLES else (op, argument, value)
        for op, argument, value in opcodes.decode(code).instructions
    ]


def _bindings(steps: list[Instruction]) -> Iterator[tuple[str, tuple[str, int, str, bool]]]:
    """Yield each name that an import statement binds, and to what."""
    for at, (op, _, module) in enumerate(steps):
        if op != opcodes.IMPORT_NAME:
            continue
        level, wanted = steps[at - 2][2], steps[at - 1][2]
        if wanted == ("*",):
            yield "*", (module, level, "*", False)
        elif wanted:
            following = at
            for _ in wanted:
                following = _next(steps, following + 1, opcodes.IMPORT_FROM)
                yield str(steps[following + 1][2]), (module, level, steps[following][2], False)
        else:
            # ``import a.b as c`` takes the submodule from the package before it stores it.
            stored = at + 1
            while steps[stored][0] not in opcodes.STORES:
                stored += 1
            yield str(steps[stored][2]), (module, level, "", stored == at + 1)


def _next(steps: list[Instruction], at: int, wanted: int) -> int:
    while steps[at][0] != wanted:
        at += 1
    return at


def _reads(code: CodeType, steps: list[Instruction]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each name that is read, with the attributes that are read from it at once; an empty chain if none is."""
    shared = {*code.co_cellvars, *code.co_freevars}
    for at, (op, _, name) in enumerate(steps):
        # The cell itself is loaded for the closure of a nested function, which is looked at by itself.
        if op in opcodes.LOADS and not (op in opcodes.CLOSURE_LOADS and name in shared):
            yield name, opcodes.chain(steps, at)


class Writer(Protocol):
    """The `Expander`, which writes what objects are."""

    ignored: Ignored
    trace: list[tuple[str, Any, bytes | None]] | None

    def refer(self, node: Node, label: str, item: Any) -> None:
        """Write a reference to an object."""


def attribute(to: Writer, node: Node, label: str, module: ModuleType, chain: tuple[str, ...]) -> None:
    """Write what a chain of attributes from a module reaches: ``module.sub.CONST`` is that constant only."""
    value: Any = module
    for name in chain:
        namespace = vars(value)
        if (id(namespace), name) in to.ignored.globals:
            node.own.append(Tag.IGNORED)
            return
        found = bound(namespace, name)
        node.mappings += ((namespace, name, found),)
        who = owner(value.__name__)
        label += "." + name
        if found is MISSING:
            # Made at first use by the module's __getattr__, or not there. Of a library it counts as when it is made.
            node.own.append(
                named(value.__name__, name, who) if who is not None else named(value.__name__, name, "") + Tag.UNBOUND
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


def _library(to: Writer, node: Node, label: str, item: Any, written: bytes) -> None:
    if to.trace is None:
        node.own.append(written)
    else:
        to.trace.append((label, item, written))


def _replaced(to: Writer, node: Node, label: str, found: Any) -> None:
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


def imports(to: Writer, node: Node, found: Iterable[Imported], scope: Mapping[str, Any]) -> None:
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
            node.own.append(Tag.NO_MODULE)
        elif each.item == "*":
            to.refer(node, name, module)
        elif each.item:
            _item(to, node, name, module, each)
        elif each.outermost:
            top = name.partition(".")[0]
            read_of(to, node, top, sys.modules[top], each.chains)
        else:
            read_of(to, node, name, module, each.chains)


def _from_library(to: Writer, node: Node, name: str, item: str, who: str) -> None:
    module = sys.modules.get(name)
    _library(to, node, name, module or name, named(name, item, who))
    if module is not None and item in vars(module):
        held = vars(module)[item]
        node.mappings += ((vars(module), item, held),)
        _replaced(to, node, f"{name}.{item}", held)


def _item(to: Writer, node: Node, label: str, module: ModuleType, each: Imported) -> None:
    """Write what ``from module import item`` binds."""
    namespace = vars(module)
    if (id(namespace), each.item) in to.ignored.globals:
        node.own.append(Tag.IGNORED)
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


def read_of(to: Writer, node: Node, label: str, module: ModuleType, chains: Chains) -> None:
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

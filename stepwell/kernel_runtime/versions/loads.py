"""The content of the nodes of functions, cells and SELECTs: their code, and references to the objects that the code names.

These objects are the values of the globals that the code loads, the attributes that the code reads from modules, the objects that the code
imports, and the defaults, closure and attributes of a function. If the code can reach the options of a library, the node of the function, cell
or SELECT also contains those options that differ from their defaults.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.versions import library_state, patches
from stepwell.kernel_runtime.versions.bytecode import (
    DOC_ATTRIBUTES,
    CodeFacts,
    chains_read,
    facts,
    imported,
    is_reader,
    late_imports,
)
from stepwell.kernel_runtime.versions.encode import ATOMS, Tag, atom, identity
from stepwell.kernel_runtime.versions.graph import MISSING, MUTABLE, READS_DOCS, Node
from stepwell.kernel_runtime.versions.ownership import STANDARD, owner
from stepwell.kernel_runtime.versions.references import (
    Writer,
    bound_value,
    from_module,
    imports,
    named_encoding,
    of_module,
)

_BUILTINS = builtins.__dict__
_WRAPPING = frozenset(("functools", "reprlib"))
"""Modules whose wrappers keep caches and locks in closure variables (`_PRIVATE_CELLS`) and in attributes (`_PRIVATE_ATTRIBUTES`)."""
_PRIVATE_CELLS = frozenset(("dispatch_cache", "cache_token", "lock", "cache", "cache_get", "root", "stats", "repr_running"))
_PRIVATE_ATTRIBUTES = frozenset(("registry", "cache_clear", "_clear_cache", "dispatch", "register"))
_NO_NAMES: Mapping[str, Any] = {}
_LOOK_UP = "may read names that do not appear in the code"
_BLIND: dict[int, str] = {
    identity(getattr(builtins, name)): f"{name}() {_LOOK_UP}"
    for name in ("eval", "exec", "globals", "locals", "vars", "compile", "__import__")
}
_PLAIN_BUILTINS = frozenset((
    "abs", "all", "any", "bool", "chr", "complex", "dict", "divmod", "enumerate", "float", "frozenset", "len", "list", "max", "min", "ord", "pow",
    "range", "reversed", "round", "set", "slice", "sorted", "sum", "tuple", "type", "zip", "isinstance", "True", "False", "None",
    "ValueError", "TypeError", "KeyError", "IndexError", "Exception", "AssertionError", "ZeroDivisionError", "RuntimeError",
))  # fmt: skip


# -- functions


def function_node(to: Writer, node: Node, function: FunctionType) -> None:
    """Write a function into its node: its code, and references to its globals, defaults, closure and attributes."""
    code = function.__code__
    defaults = function.__defaults__
    keyword_defaults = function.__kwdefaults__
    scope = function.__globals__
    content = node.content
    cell_contents: tuple[tuple[CellType, Any], ...] = ()
    module = scope.get("__name__")
    library = owner(module) if type(module) is str else None
    if library is not None and getattr(sys.modules.get(str(module)), "__dict__", None) is scope:
        # A library created this function for the user. Its closure and defaults are digested, and its code is identified by name and version.
        content.append(named_encoding(module, code.co_qualname, library))
        if library != STANDARD and function.__closure__:
            # The library may have read annotations and documentation when it wrapped the user's function.
            node.flags |= READS_DOCS
    else:
        library = None
        code_facts = facts(code)
        content.append(Tag.FUNCTION + code_facts.blob)
        _loads(to, node, code_facts, (code,), scope)
    if defaults:
        content.append(Tag.DEFAULTS + len(defaults).to_bytes(2, "little"))
        names = code.co_varnames[: code.co_argcount][-len(defaults) :]
        for name, value in zip(names, defaults, strict=True):
            to.refer(node, f"({name}=)", value)
    if keyword_defaults:
        content.append(Tag.KEYWORD_DEFAULTS)
        for name in sorted(keyword_defaults):
            content.append(atom(name))
            to.refer(node, f"({name}=)", keyword_defaults[name])
        node.mappings += tuple((keyword_defaults, name, value) for name, value in keyword_defaults.items())
        node.lengths += ((keyword_defaults, len(keyword_defaults)),)
    private = library is not None and module in _WRAPPING
    closure = function.__closure__
    if closure:
        cell_contents = _closure(to, node, code, closure, library=library is not None, private=private)
    attributes = function.__dict__
    node.shape = (code, defaults, keyword_defaults, cell_contents, len(attributes))
    if attributes:
        content.append(Tag.ATTRIBUTES)
        for name in sorted(attributes):
            value = attributes[name]
            if name == "__wrapped__" and any(value is item for _, item in cell_contents):
                continue
            if private and name in _PRIVATE_ATTRIBUTES:
                continue
            content.append(atom(name))
            to.refer(node, "." + name, value)
            node.mappings += ((attributes, name, value),)


def _closure(
    to: Writer, node: Node, code: CodeType, closure: tuple[CellType, ...], *, library: bool, private: bool
) -> tuple[tuple[CellType, Any], ...]:
    """Write references to the contents of a function's closure into its node.

    Return the closure cells, each with its content: `MISSING` for an empty cell.

    Parameters
    ----------
    code
        The code of the function.
    library
        True if the code belongs to a library.
    private
        True to leave out the contents of the variables in `_PRIVATE_CELLS`. In wrappers made by a module in `_WRAPPING`, these are caches and locks.
    """
    content = node.content
    cell_contents = []
    content.append(Tag.CLOSURE)
    for name, cell in zip(code.co_freevars, closure, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            value = MISSING
        cell_contents.append((cell, value))
        content.append(atom(name))
        if value is MISSING or (private and name in _PRIVATE_CELLS) or id(cell) in to.ignored.cells:
            content.append(Tag.EMPTY)
        elif issubclass(type(value), ModuleType):
            of_module(to, node, name, value, chains_read(code, name))
            if not library:
                _settings(to, node, facts(code), value)
        else:
            to.refer(node, name, value)
            if not library and type(value) not in ATOMS:
                _settings(to, node, facts(code), value)
    return tuple(cell_contents)


# -- cells and SQL


def cell_node(to: Writer, node: Node, body: CellBody) -> None:
    """Write the body of a cell into its node: its code, and references to the objects that the code reaches.

    If the code has a variable with the asset's name, this name is left out, so that the cell keeps its results if the user renames the asset.
    """
    node.stable = False
    content = node.content
    variable = body.variables[0] if len(body.variables) == 1 else ""
    outputs = tuple("" if name == variable else name for name in body.outputs)
    content.append(Tag.CELL + atom((body.parameters, outputs, body.is_async)))
    inputs = frozenset(body.parameters)
    seen: set[str] = set()
    codes = tuple(code for code in (body.code, body.tail) if code is not None)
    assigned = frozenset().union(*(facts(code, variable).assigned for code in codes))
    for code in (body.code, body.tail):
        if code is None:
            content.append(Tag.EMPTY)
            continue
        code_facts = facts(code, variable)
        content.append(code_facts.blob)
        if variable in code_facts.names_in_text:
            # A query text names this variable. If the user renames the asset, the same text reads another variable.
            content.append(atom(variable))
        seen.update(name for name, _ in code_facts.loads)
        seen.update(code_facts.names_in_text)
        skip = inputs | (assigned - body.reads)
        _loads(to, node, code_facts, codes, body.globals, only=body.reads, skip=skip, earlier=body.earlier())
    for reason in body.unseen:
        node.unverifiable("", reason)
    for name in sorted(body.reads - seen - inputs):
        if name in to.assets:
            to.asset(node, name)
        elif to.is_ignored(body.globals, name):
            content.append(Tag.IGNORED)
        elif name in body.globals:
            content.append(atom(name))
            to.refer(node, name, body.globals[name])


def select_node(to: Writer, node: Node, body: SqlBody) -> None:
    """Write a SELECT into its node: its canonical text, and references to the values of its parameters."""
    node.stable = False
    node.content.append(Tag.SELECT + atom((body.canonical or body.text, body.frame, body.inputs, body.parameters)))
    for name in body.parameters:
        if name in to.assets:
            to.asset(node, name)
        elif to.is_ignored(body.globals, name):
            node.content.append(Tag.IGNORED)
        elif name in body.globals:
            to.refer(node, name, body.globals[name])
        else:
            node.content.append(Tag.UNBOUND)


# -- loaded names


def _loads(
    to: Writer,
    node: Node,
    code_facts: CodeFacts,
    codes: tuple[CodeType, ...],
    scope: Mapping[str, Any],
    *,
    only: frozenset[str] | None = None,
    skip: frozenset[str] = frozenset(),
    earlier: Mapping[str, Any] = _NO_NAMES,
) -> None:
    """Write references to the globals that code loads, and to everything else that the code can reach.

    Parameters
    ----------
    node
        The node of the function or cell that contains the code.
    code_facts
        The facts about the code.
    codes
        The code objects that share their variables: the code of a function, or the two code objects of a cell.
    scope
        The globals of the code.
    only
        The names in `scope` that are visible to the code; None for all names.
    skip
        Names that are left out: inputs, and variables that the cell assigns before it reads them.
    earlier
        Names that the cell bound in its last run in this kernel, with the values that they had before that run. These values replace those in
        `scope`.
    """
    content = node.content
    names: list[tuple[str, Any]] = list(node.names)
    assets = to.assets if scope is to.namespace else _NO_NAMES
    leaves_out, leaves_data = bool(to.ignored.globals), to.ignored.data
    for name, chain in code_facts.loads:
        if skip and name in skip:
            continue
        seen = only is None or name in only
        if seen and name in assets:
            to.asset(node, name)
            continue
        if leaves_out and to.is_ignored(scope, name):
            content.append(Tag.IGNORED)
            continue
        if seen and name in earlier:
            value = earlier[name]
        elif seen:
            value = bound_value(scope, name)
            names.append((name, value))
        else:
            value = MISSING
        if value is MISSING:
            value = _BUILTINS.get(name, MISSING)
            if value is MISSING:
                content.append(Tag.UNBOUND)
                continue
            node.mappings += ((_BUILTINS, name, value),)
            reason = _BLIND.get(identity(value))
            if reason is not None and (name != "vars" or code_facts.bare_vars):
                node.unverifiable(name, reason)
        if leaves_data and not callable(value) and not issubclass(type(value), ModuleType):
            content.append(Tag.IGNORED)
        elif type(value) in ATOMS:
            to.refer(node, name, value)
        elif issubclass(type(value), ModuleType):
            from_module(to, node, name, value, chain)
            _settings(to, node, code_facts, value)
        else:
            to.refer(node, name, value)
            if is_reader(value):
                node.flags |= READS_DOCS
            _settings(to, node, code_facts, value)
        if chain and chain[-1] in DOC_ATTRIBUTES:
            _documentation(to, node, name, value, chain)
    _beyond_names(to, node, code_facts, codes, scope, names=names, skip=skip)


def _beyond_names(
    to: Writer,
    node: Node,
    code_facts: CodeFacts,
    codes: tuple[CodeType, ...],
    scope: Mapping[str, Any],
    *,
    names: list[tuple[str, Any]],
    skip: frozenset[str],
) -> None:
    """Write the dependencies that code has in addition to the globals that it loads.

    These are imports, options, attributes that the user has set on classes and modules of libraries, and variables that query strings name.

    Parameters
    ----------
    names
        The globals that the code loads, with their values. The variables that query strings name are added to the list.
    """
    if code_facts.imports:
        imports(to, node, imported(*codes), scope, late_imports(*codes))
        for name, _, _ in code_facts.imports:
            module = sys.modules.get(name)
            if module is not None:
                _settings(to, node, code_facts, module)
    if not library_state.PLOTTING.isdisjoint(code_facts.attributes):
        _options(to, node, code_facts, "matplotlib")
    if not to.ignored.data:
        limits = library_state.state.get(library_state.LIMITS)
        if limits and _calls(code_facts, names):
            to.refer(node, library_state.LIMITS, limits)
        if patches.may_count(codes, code_facts):
            _patched(to, node, codes, [value for _, value in names])
    if code_facts.suspects:
        for reason in code_facts.suspects:
            node.unverifiable("", reason)
    if code_facts.reads_docs:
        node.flags |= READS_DOCS
    if code_facts.names_in_text:
        _texts(to, node, code_facts, scope, names=names, skip=skip)
    if names:
        node.names = tuple(names)
        _aliases(node, names)
    if code_facts.stores:
        node.rebinds = tuple(sorted(code_facts.stores))
        node.flags |= MUTABLE


_NO_ALIASES = ATOMS | {FunctionType, BuiltinFunctionType, ModuleType, type}
"""Types of values that code does not change in place, or whose nodes show the change; a quick test for the most frequent values."""


def _aliases(node: Node, names: list[tuple[str, Any]]) -> None:
    """Write the groups of names that are bound to the same value, or to arrays in the same memory, into `node`.

    Code that changes one value of a group changes the others.

    Parameters
    ----------
    names
        The globals that the code loads, with their values.
    """
    values = [(name, value) for name, value in names if type(value) not in _NO_ALIASES and value is not MISSING]
    if len(values) < 2:
        return
    groups: dict[int, list[tuple[Any, ...]]] = {}
    for name, value in dict(values).items():
        if not callable(value) and not issubclass(type(value), ModuleType):
            memory, *place = _memory(value)
            groups.setdefault(identity(memory), []).append((name, *place))
    for group in groups.values():
        if len(group) > 1:
            node.content.append(Tag.SHARED + atom(tuple(sorted(group))))


def _memory(value: Any) -> tuple[Any, ...]:
    """Return the object that holds the memory of an array, and where the array begins there; for any other object, the object itself."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return (value,)
    root = value
    while type(root.base) is numpy.ndarray:
        root = root.base
    return root, value.__array_interface__["data"][0] - root.__array_interface__["data"][0], value.strides


def _texts(
    to: Writer,
    node: Node,
    code_facts: CodeFacts,
    scope: Mapping[str, Any],
    *,
    names: list[tuple[str, Any]],
    skip: frozenset[str],
) -> None:
    """Write references to the variables that code reads through query strings, and add these variables to `names`."""
    content = node.content
    assets = to.assets if scope is to.namespace else _NO_NAMES
    for name in code_facts.names_in_text:
        if name in skip or any(name == loaded for loaded, _ in code_facts.loads):
            continue
        if name in assets:
            to.asset(node, name)
            continue
        if to.is_ignored(scope, name):
            continue
        value = bound_value(scope, name)
        names.append((name, value))
        if value is MISSING or issubclass(type(value), (ModuleType, FunctionType, type)):
            continue
        content.append(atom(name))
        to.refer(node, name, value)


def _patched(to: Writer, node: Node, codes: tuple[CodeType, ...], values: list[Any]) -> None:
    """Write references to the attributes that the user has set on classes and modules of libraries, if code can reach these attributes.

    Parameters
    ----------
    values
        The values of the globals that the code loads.
    """
    tops = {library_state.module_of(value).partition(".")[0] for value in values if type(value) not in ATOMS}
    tops |= {name.partition(".")[0] for code in codes for name, _, _ in facts(code).imports}
    for code in codes:
        for patch in patches.counts_for(code, tops):
            node.content.append(atom(patch.option))
            to.refer(node, patch.option, patch.value())


def _calls(code_facts: CodeFacts, names: list[tuple[str, Any]]) -> bool:
    """Return True if code may call the user's functions or format text.

    The result is False if the code reads no attributes, imports nothing and formats no text, and all names that it loads are plain values
    (`library_state.is_plain`) or builtins in `_PLAIN_BUILTINS`.

    Parameters
    ----------
    names
        The globals that the code loads, with their values.
    """
    if code_facts.formats or code_facts.attributes or code_facts.imports:
        return True
    values_by_name = dict(names)
    return not all(
        library_state.is_plain(values_by_name[name]) or (values_by_name[name] is MISSING and name in _PLAIN_BUILTINS)
        for name, _ in code_facts.loads
        if name in values_by_name
    )


def _settings(to: Writer, node: Node, code_facts: CodeFacts, value: Any) -> None:
    """Write into `node` the options of the library of `value` that differ from their defaults.

    Nothing is written if `value` belongs to no library with options.
    """
    for library in library_state.library_of(value):
        _options(to, node, code_facts, library)


def _options(to: Writer, node: Node, code_facts: CodeFacts, library: str) -> None:
    if to.ignored.data:
        return
    for name, text, objects in library_state.options_of(library, text=library_state.renders(code_facts)):
        guard = (library_state.state, name, text)
        if guard in node.mappings:
            continue
        node.mappings += (guard,)
        if text:
            to.refer(node, name, text)
        for option, value in objects:
            # No guard detects that this value changes in place, or that another value that cannot be written as JSON replaces it.
            node.stable = False
            to.refer(node, f"{name} {option}", value)


def _documentation(to: Writer, node: Node, label: str, value: Any, chain: tuple[str, ...]) -> None:
    """Write a reference to the documentation or annotations that code reads from an object.

    Parameters
    ----------
    label, value
        The name and the value of the global from which the code reads.
    chain
        The attributes that the code reads, the last of which is ``__doc__`` or ``__annotations__``.
    """
    for name in chain[:-1]:
        if not issubclass(type(value), (ModuleType, type)):
            break
        value = vars(value).get(name)
        label += "." + name
    if issubclass(type(value), (FunctionType, type, ModuleType)):
        # No guard detects an assignment to this attribute.
        node.stable = False
        to.refer(node, f"{label}.{chain[-1]}", getattr(value, chain[-1], None))
    else:
        node.flags |= READS_DOCS

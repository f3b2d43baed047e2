"""What one object means by itself, and what it refers to: a node of the walk's graph.

What the user owns (notebook, local modules) is taken apart; the standard library and installed distributions count by name and
version. Each kind of object has one method here. `Expander.trace`, where it is a list, also notes everything that is
referred to, small values and packages included, for the list of parts.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable, Mapping
from time import thread_time
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.versions import library_state, modules, patches
from stepwell.kernel_runtime.versions.atoms import ATOMS, atom, atoms_only
from stepwell.kernel_runtime.versions.bytecode import SPOKEN, CodeFacts, facts, is_reader
from stepwell.kernel_runtime.versions.classes import class_parts, is_data, version_of_copy
from stepwell.kernel_runtime.versions.encode import FOREIGN, Form, SetHasForeign, Undigestible, encode, refuse
from stepwell.kernel_runtime.versions.environment import Keyed, process_keyed
from stepwell.kernel_runtime.versions.graph import (
    ASSET,
    LAZY,
    MISSING,
    MUTABLE,
    SPEAKS,
    VALUE,
    Node,
    bound,
    getattr_static,
    identity,
    keyed_ref,
    named,
    resolved,
    token,
)
from stepwell.kernel_runtime.versions.left_out import NOTHING, OPAQUE, Ignored, Secret
from stepwell.kernel_runtime.versions.ownership import STANDARD, owner
from stepwell.kernel_runtime.versions.reduction import first_line, reduced
from stepwell.kernel_runtime.versions.secrets import Environment, hidden_text, looks_secret

_BUILTINS = builtins.__dict__
_SMALL = 1 << 16
SLOW = 0.2
"""Seconds of processor time for digesting one value above which a line advises to make it an asset."""
# What these keep in the closures of their wrappers: caches, locks.
_WRAPPING = frozenset(("functools", "reprlib"))
_PRIVATE_CELLS = frozenset(
    ("dispatch_cache", "cache_token", "lock", "cache", "cache_get", "root", "stats", "repr_running")
)
_NO_ASSETS: Mapping[str, str] = {}
_LOOK_UP = "looks names up in ways that cannot be seen"
_BLIND: dict[int, str] = {
    identity(getattr(builtins, name)): f"{name}() {_LOOK_UP}"
    for name in ("eval", "exec", "globals", "locals", "vars", "compile", "__import__")
}
_PLAIN_BUILTINS = frozenset((
    "abs", "all", "any", "bool", "chr", "complex", "dict", "divmod", "enumerate", "float", "frozenset", "len", "list", "max", "min", "ord", "pow",
    "range", "reversed", "round", "set", "slice", "sorted", "sum", "tuple", "type", "zip", "isinstance", "True", "False", "None",
    "ValueError", "TypeError", "KeyError", "IndexError", "Exception", "AssertionError", "ZeroDivisionError", "RuntimeError",
))  # fmt: skip
_LRU = type(functools.lru_cache(len))


class Expander:
    """Takes objects apart.

    Parameters
    ----------
    assets
        Names of registered assets with their keys.
    namespace
        The notebook's globals, in which these names mean assets.
    ignored
        Variables that do not count.
    keyed
        Digests secrets with the user's key; None where the version is to be the same for all users.
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
        """What of the environment must not be shown; looked at once per walk."""
        self.part_digest: Callable[[bytes], str] | None = None
        """Digests parts of code versions; made with the first."""
        self.slow: dict[int, float] = {}
        """By the identity of a node, the seconds that its value took to digest where these were many."""
        self.assets = assets
        self.namespace = namespace
        self.trace: list[tuple[str, Any, bytes | None]] | None = None

    def node(self, item: Any) -> Node:
        """Return the node of an object, with what it refers to pending."""
        kind = type(item)
        if kind is FunctionType and not OPAQUE:
            node = Node(keyed_ref(item, identity(item)))
            self._function(node, item)
            return node
        weakly = kind is FunctionType or issubclass(type(item), type)
        node = Node(keyed_ref(item, identity(item)) if weakly else lambda: item)
        if OPAQUE and id(item) in OPAQUE:
            node.stable = False
            node.own.append(b"\xea" + atom(OPAQUE[id(item)][1]))
        elif kind is FunctionType:
            self._function(node, item)
        elif kind is CellBody:
            self._cell(node, item)
        elif kind is SqlBody:
            self._sql(node, item)
        elif issubclass(type(item), type):
            self._class(node, item)
        elif issubclass(type(item), ModuleType):
            self._module(node, item)
        else:
            node.stable = False
            try:
                self._object(node, item, kind)
            except Undigestible as error:
                node.unverifiable(error.path, error.reason)
                node.own.append(b"\xe0" + kind.__qualname__.encode())
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                # An object may raise anything when it is looked at; the step has to run then.
                node.unverifiable(
                    "",
                    f"{kind.__qualname__} cannot be digested: {type(error).__name__}: {hidden_text(first_line(error))}",
                )
                node.own.append(b"\xe0" + kind.__qualname__.encode())
        return node

    # -- references

    def refer(self, node: Node, label: str, item: Any) -> None:
        """Write a reference into a node: an atom or a name inline, anything else as a node of its own."""
        kind = type(item)
        if kind is LAZY:
            item = resolved(item)
            kind = type(item)
        own = node.own
        if kind in ATOMS:
            written = atom(item)
            if self.hides and kind is not bool and item is not None and _names_secret(label):
                # A short secret could be guessed from a code version, as from any plain digest.
                written = b"\xed" + self.keyed(written).encode()
            if len(written) > _SMALL:
                # A guard would keep it alive.
                node.stable = False
        elif kind is tuple and atoms_only(item) and len(item) < 1000:
            written = atom(item)
        else:
            found = None if OPAQUE and id(item) in OPAQUE else token(item, kind)
            if found is None:
                own.append(FOREIGN)
                node.pending.append((label, item))
                if self.trace is not None:
                    self.trace.append((label, item, None))
                return
            written = found
        if self.trace is None:
            own.append(written)
        else:
            if not label or label[0] == "(":
                own.append(written)
            # It has a part of its own, which tells when it changed.
            self.trace.append((label, item, written))

    # -- functions

    def _function(self, node: Node, function: FunctionType) -> None:  # noqa: PLR0915 - everything that a function holds, in one order
        code = function.__code__
        defaults = function.__defaults__
        keyword_defaults = function.__kwdefaults__
        scope = function.__globals__
        own = node.own
        held: tuple[tuple[CellType, Any], ...] = ()
        module = scope.get("__name__")
        who = owner(module) if type(module) is str else None
        if who is not None and getattr(sys.modules.get(str(module)), "__dict__", None) is scope:
            # Made by a library for the user: what it holds counts, the library's code does not.
            own.append(named(module, code.co_qualname, who))
            if who != STANDARD and function.__closure__:
                # What it wraps was there to be read when the wrapper was made.
                node.flags |= SPEAKS
        else:
            who = None
            known = facts(code)
            own.append(b"\xd0" + known.blob)
            name = function.__name__
            if name != known.name:
                own.append(atom(name))
            self._loads(node, known, (code,), scope)
        if defaults:
            own.append(b"\xd1" + len(defaults).to_bytes(2, "little"))
            names = code.co_varnames[: code.co_argcount][-len(defaults) :]
            for name, value in zip(names, defaults, strict=True):
                self.refer(node, f"({name}=)", value)
        if keyword_defaults:
            own.append(b"\xd2")
            for name in sorted(keyword_defaults):
                own.append(atom(name))
                self.refer(node, f"({name}=)", keyword_defaults[name])
            node.mappings += tuple((keyword_defaults, name, value) for name, value in keyword_defaults.items())
            node.lengths += ((keyword_defaults, len(keyword_defaults)),)
        closure = function.__closure__
        if closure:
            cells = []
            own.append(b"\xd3")
            for name, cell in zip(code.co_freevars, closure, strict=True):
                try:
                    value = cell.cell_contents
                except ValueError:
                    value = MISSING
                cells.append((cell, value))
                own.append(atom(name))
                if (
                    value is MISSING
                    or (who is not None and module in _WRAPPING and name in _PRIVATE_CELLS)
                    or id(cell) in self.ignored.cells
                ):
                    own.append(b"\xd4")
                elif issubclass(type(value), ModuleType):
                    modules.read_of(self, node, name, value, modules.chains_read(code, name))
                    if who is None:
                        self._settings(node, facts(code), value)
                else:
                    self.refer(node, name, value)
                    if who is None and type(value) not in ATOMS:
                        self._settings(node, facts(code), value)
            held = tuple(cells)
        attributes = function.__dict__
        node.shape = (code, defaults, keyword_defaults, held, len(attributes))
        if attributes:
            own.append(b"\xd5")
            for name in sorted(attributes):
                value = attributes[name]
                if name == "__wrapped__" and any(value is item for _, item in held):
                    continue
                if (
                    who is not None
                    and module in _WRAPPING
                    and name in {"registry", "cache_clear", "_clear_cache", "dispatch", "register"}
                ):
                    continue
                own.append(atom(name))
                self.refer(node, "." + name, value)
                node.mappings += ((attributes, name, value),)

    def _loads(  # noqa: PLR0915 - everything that code reads, in one order
        self,
        node: Node,
        known: CodeFacts,
        codes: tuple[CodeType, ...],
        scope: Mapping[str, Any],
        *,
        only: frozenset[str] | None = None,
        skip: frozenset[str] = frozenset(),
        earlier: Mapping[str, Any] = _NO_ASSETS,
    ) -> None:
        """Write what code loads as globals, and what it imports; `codes` are all that share its names, and `earlier` has names as they were."""
        own = node.own
        names: list[tuple[str, Any]] = list(node.names)
        assets = self.assets if scope is self.namespace else _NO_ASSETS
        leaves_out, leaves_data = bool(self.ignored.globals), self.ignored.data
        for name, chain in known.loads:
            if skip and name in skip:
                continue
            seen = only is None or name in only
            if seen and name in assets:
                self._asset(node, name)
                continue
            if leaves_out and self._is_ignored(scope, name):
                own.append(b"\xeb")
                continue
            if seen and name in earlier:
                value = earlier[name]
            elif seen:
                value = bound(scope, name)
                names.append((name, value))
            else:
                value = MISSING
            if value is MISSING:
                value = _BUILTINS.get(name, MISSING)
                if value is MISSING:
                    own.append(b"\xd6")
                    continue
                node.mappings += ((_BUILTINS, name, value),)
                reason = _BLIND.get(identity(value))
                if reason is not None and (name != "vars" or known.bare_vars):
                    node.unverifiable(name, reason)
            if leaves_data and not callable(value) and not issubclass(type(value), ModuleType):
                own.append(b"\xeb")
            elif type(value) in ATOMS:
                self.refer(node, name, value)
            elif issubclass(type(value), ModuleType):
                modules.attribute(self, node, name, value, chain)
                self._settings(node, known, value)
            else:
                self.refer(node, name, value)
                if is_reader(value):
                    node.flags |= SPEAKS
                self._settings(node, known, value)
            if chain and chain[-1] in SPOKEN:
                self._spoken(node, name, value, chain)
        if known.imports:
            modules.imports(self, node, modules.imported(*codes), scope)
            for name, _, _ in known.imports:
                module = sys.modules.get(name)
                if module is not None:
                    self._settings(node, known, module)
        if not library_state.PLOTTING.isdisjoint(known.attributes):
            self._state(node, known, "matplotlib")
        limits = library_state.state.get(library_state.LIMITS)
        if limits and not leaves_data and self._calls(known, names):
            self.refer(node, library_state.LIMITS, limits)
        if not leaves_data and patches.may_count(codes, known):
            self._patched(node, codes, [value for _, value in names])
        if known.suspects:
            for reason in known.suspects:
                node.unverifiable("", reason)
        if known.speaks:
            node.flags |= SPEAKS
        if known.names_in_text:
            self._texts(node, known, scope, skip, names)
        if names:
            node.names = tuple(names)
        if known.stores:
            node.rebinds = tuple(sorted(known.stores))
            node.flags |= MUTABLE

    def _is_ignored(self, scope: Mapping[str, Any], name: str) -> bool:
        places = self.ignored.globals
        return bool(places) and (id(scope), name) in places

    def _texts(
        self, node: Node, known: CodeFacts, scope: Mapping[str, Any], skip: frozenset[str], names: list[tuple[str, Any]]
    ) -> None:
        """Write what code reads through the texts of queries."""
        own = node.own
        assets = self.assets if scope is self.namespace else {}
        for name in known.names_in_text:
            if name in skip or any(name == loaded for loaded, _ in known.loads):
                continue
            if name in assets:
                self._asset(node, name)
                continue
            if self._is_ignored(scope, name):
                continue
            value = bound(scope, name)
            names.append((name, value))
            if value is MISSING or issubclass(type(value), (ModuleType, FunctionType, type)):
                continue
            own.append(atom(name))
            self.refer(node, name, value)

    def _patched(self, node: Node, codes: tuple[CodeType, ...], values: list[Any]) -> None:
        """Write what the user has set on classes of libraries, as far as code can reach it."""
        tops = {library_state.module_of(value).partition(".")[0] for value in values if type(value) not in ATOMS}
        tops |= {name.partition(".")[0] for code in codes for name, _, _ in facts(code).imports}
        for code in codes:
            for patch in patches.counts_for(code, tops):
                node.own.append(atom(patch.option))
                self.refer(node, patch.option, patch.value())

    @staticmethod
    def _calls(known: CodeFacts, names: list[tuple[str, Any]]) -> bool:
        """Whether code may call something of the user's or make text: else all that it loads are plain values, and builtins that do neither."""
        if known.formats or known.attributes or known.imports:
            return True
        held = dict(names)
        return not all(
            library_state.is_plain(held[name]) or (held[name] is MISSING and name in _PLAIN_BUILTINS)
            for name, _ in known.loads
            if name in held
        )

    def _settings(self, node: Node, known: CodeFacts, value: Any) -> None:
        """Write the options of the library that a value belongs to, where they are not the defaults."""
        for library in library_state.library_of(value):
            self._state(node, known, library)

    def _state(self, node: Node, known: CodeFacts, library: str) -> None:
        if self.ignored.data:
            return
        for name, text in library_state.told(library, text=library_state.renders(known)):
            guard = (library_state.state, name, text)
            if guard in node.mappings:
                continue
            node.mappings += (guard,)
            if text:
                self.refer(node, name, text)

    def _spoken(self, node: Node, label: str, value: Any, chain: tuple[str, ...]) -> None:
        """Write documentation or annotations that code reads: they are left out elsewhere."""
        for name in chain[:-1]:
            if not issubclass(type(value), (ModuleType, type)):
                break
            value = vars(value).get(name)
            label += "." + name
        if issubclass(type(value), (FunctionType, type, ModuleType)):
            # It may be set at any time, and no guard sees that.
            node.stable = False
            self.refer(node, f"{label}.{chain[-1]}", getattr(value, chain[-1], None))
        else:
            node.flags |= SPEAKS

    def _asset(self, node: Node, name: str) -> None:
        key = self.assets[name]
        node.assets += ((name, key),)
        node.flags |= ASSET
        node.own.append(b"\xd7" + atom(key))

    # -- cells and SQL

    def _cell(self, node: Node, body: CellBody) -> None:
        node.stable = False
        own = node.own
        own.append(b"\xd9" + atom((body.parameters, body.outputs, body.is_async)))
        inputs = frozenset(body.parameters)
        seen: set[str] = set()
        codes = tuple(code for code in (body.code, body.tail) if code is not None)
        assigned = frozenset().union(*(facts(code).assigned for code in codes))
        for code in (body.code, body.tail):
            if code is None:
                own.append(b"\xd4")
                continue
            known = facts(code)
            own.append(known.blob)
            seen.update(name for name, _ in known.loads)
            seen.update(known.names_in_text)
            self._loads(
                node,
                known,
                codes,
                body.globals,
                only=body.reads,
                skip=inputs | (assigned - body.reads),
                earlier=body.earlier(),
            )
        for reason in body.unseen:
            node.unverifiable("", reason)
        for name in sorted(body.reads - seen - inputs):
            if name in self.assets:
                self._asset(node, name)
            elif self._is_ignored(body.globals, name):
                own.append(b"\xeb")
            elif name in body.globals:
                own.append(atom(name))
                self.refer(node, name, body.globals[name])

    def _sql(self, node: Node, body: SqlBody) -> None:
        node.stable = False
        node.own.append(b"\xda" + atom((body.canonical or body.text, body.frame, body.inputs, body.parameters)))
        for name in body.parameters:
            if name in self.assets:
                self._asset(node, name)
            elif self._is_ignored(body.globals, name):
                node.own.append(b"\xeb")
            elif name in body.globals:
                self.refer(node, name, body.globals[name])
            else:
                node.own.append(b"\xd6")

    # -- classes and modules

    def _class(self, node: Node, cls: type) -> None:
        node.shape = (type(cls), cls.__bases__)
        written = token(cls, type(cls))
        if written is not None:
            node.own.append(written)
            return
        version = version_of_copy(cls)
        if version is not None:
            node.digest = bytes.fromhex(version)
            return
        own = node.own
        namespace = vars(cls)
        own.append(b"\xdb" + atom(cls.__name__))
        self.refer(node, "(metaclass)", type(cls))
        own.append(len(cls.__bases__).to_bytes(2, "little"))
        for base in cls.__bases__:
            self.refer(node, "" if base.__module__ == "builtins" else base.__name__, base)
        for name, value in class_parts(cls):
            if self.ignored.data and is_data(cls, name, value):
                continue
            own.append(b"\xdc" + atom(name))
            if (id(cls), name) in self.ignored.attributes:
                own.append(b"\xeb")
                continue
            self.refer(node, "." + name, value)
        node.mappings += tuple((namespace, name, value) for name, value in namespace.items())
        node.lengths += ((namespace, len(namespace)),)

    def _module(self, node: Node, module: ModuleType) -> None:
        """A local module that is used as a whole."""
        node.stable = False
        written = token(module, type(module))
        if written is not None:
            node.own.append(written)
            return
        node.own.append(b"\xdd" + atom(module.__name__))
        for name, value in sorted(vars(module).items()):
            if name.startswith("__") and name.endswith("__"):
                continue
            node.own.append(atom(name))
            self.refer(node, "." + name, value)

    # -- everything else

    def _object(self, node: Node, item: Any, kind: type) -> None:
        inner = getattr_static(item, "__stepwell_body__")
        if inner is not None:
            node.own.append(b"\xde")
            self.refer(node, "", inner)
        elif kind is MethodType:
            node.own.append(b"\xdf")
            self.refer(node, "", item.__func__)
            self.refer(node, ".__self__", item.__self__)
        elif kind is functools.partial:
            node.own.append(b"\xe1")
            self.refer(node, "", item.func)
            self.refer(node, "(args)", item.args)
            self.refer(node, "(keywords)", item.keywords)
            if item.__dict__:
                self.refer(node, "(attributes)", item.__dict__)
        elif kind is _LRU:
            node.own.append(b"\xe2")
            self.refer(node, "", item.__wrapped__)
            self.refer(
                node,
                "(parameters)",
                tuple(item.cache_parameters().items()) if hasattr(item, "cache_parameters") else (),
            )
        elif kind in {staticmethod, classmethod}:
            node.own.append(b"\xe3" + kind.__name__.encode())
            self.refer(node, "", item.__func__)
        elif kind is functools.cached_property:
            # It holds a lock beside the function.
            node.own.append(b"\xe9" + atom(item.attrname))
            self.refer(node, "", item.func)
        elif kind is property:
            node.own.append(b"\xe4")
            for label, function in (("", item.fget), (".setter", item.fset), (".deleter", item.fdel)):
                self.refer(node, label, function)
        elif kind is BuiltinFunctionType or kind is MethodWrapperType:
            node.own.append(b"\xe5" + atom(item.__name__))
            self.refer(node, ".__self__", item.__self__)
        elif kind is Secret:
            node.own.append(b"\xec" + atom((item.name, self.keyed(str(item).encode()) if item.counts else "")))
        elif kind is CellType:
            node.own.append(b"\xe6")
            self.refer(node, "", item.cell_contents)
        elif kind in {set, frozenset} and _has_foreign(item):
            node.unordered = True
            node.flags |= MUTABLE if kind is set else 0
            node.own.append(b"\xe7" + kind.__name__.encode())
            for member in item:
                # Each is a node of its own, even if it is an atom, so that the digests can be sorted.
                node.own.append(b"\xe7")
                node.pending.append(("[...]", (member,)))
        else:
            self._value(node, item)

    def _value(self, node: Node, item: Any) -> None:
        """A container, an array, a frame or an instance."""
        node.shape = VALUE
        node.flags |= MUTABLE
        if type(item) in {tuple, frozenset}:
            node.flags &= ~MUTABLE
        entered = False

        def foreign(found: Any, path: Callable[[], str]) -> bytes | Form:
            nonlocal entered
            if found is item and not entered:
                entered = True
                return self._without_ignored(found, reduced(found))
            kind = type(found)
            written = None if OPAQUE and id(found) in OPAQUE else token(found, kind)
            if written is not None:
                return written
            node.pending.append((path(), found))
            if self.trace is not None:
                self.trace.append((path(), found, None))
            return FOREIGN

        started = thread_time()
        node.own.append(b"\xe8" + encode(item, foreign, sets_apart=True, apart=OPAQUE))
        seconds = thread_time() - started
        if seconds > SLOW:
            self.slow[id(node)] = seconds

    def _without_ignored(self, item: Any, form: Form) -> Form:
        """Return an instance's form without the attributes that do not count."""
        names = [name for owner, name in self.ignored.attributes if owner == id(item)]
        if not names or form.name != "instance":
            return form
        state = form.parts[3]
        # An object with slots has its state in the second of two dictionaries.
        held = state if type(state) is tuple else (state,)
        kept = tuple(
            {name: value for name, value in each.items() if name not in names} if type(each) is dict else each
            for each in held
        )
        return Form(form.name, (*form.parts[:3], kept if type(state) is tuple else kept[0], *form.parts[4:]))


@functools.lru_cache(maxsize=4096)
def _names_secret(label: str) -> bool:
    return looks_secret(label)


def _has_foreign(items: Any) -> bool:
    try:
        for item in items:
            if type(item) not in ATOMS:
                encode(item, refuse, sets_apart=True, apart=OPAQUE)
    except (SetHasForeign, Undigestible):
        return True
    return False

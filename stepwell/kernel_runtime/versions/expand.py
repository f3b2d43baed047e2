"""The creation of nodes. Each node gets the encoding of an object, and references to other objects.

Objects of the user (notebook, local modules) get nodes; objects of the standard library and of installed distributions are identified by
name and version. `loads` writes the nodes of functions, cells and SELECTs. This module writes the nodes of classes, modules, wrappers of
functions, and values. To make the list of code parts, `inventory` sets `Expander.trace` to a list. Then every reference is added to this list,
including references to small values and packages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import thread_time
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.versions.classes import (
    MOCK,
    class_parts,
    first_line,
    is_data,
    is_of_a_mock,
    reduced,
    version_of_copy,
)
from stepwell.kernel_runtime.versions.encode import (
    ATOMS,
    Form,
    SetHasForeign,
    Tag,
    Undigestible,
    atom,
    encode,
    identity,
    refuse,
)
from stepwell.kernel_runtime.versions.graph import MUTABLE, VALUE, Node, keyed_ref
from stepwell.kernel_runtime.versions.left_out import OPAQUE, Secret
from stepwell.kernel_runtime.versions.loads import cell_node, function_node, select_node
from stepwell.kernel_runtime.versions.references import Writer, getattr_static, mark, token
from stepwell.kernel_runtime.versions.secrets import hidden_text

SLOW = 0.2
"""If the digest of one global takes more seconds of processor time than this, Stepwell advises the user to make the value an asset."""
_LRU = type(functools.lru_cache(len))


class Expander(Writer):
    """Creates the nodes of objects. The parameters are those of `Writer`."""

    def node(self, item: Any) -> Node:
        """Create and return the node of an object. The objects to which it refers get no nodes yet: they are listed in `Node.pending`."""
        kind = type(item)
        if kind is FunctionType and not OPAQUE:
            node = Node(keyed_ref(item, identity(item)))
            function_node(self, node, item)
            return node
        weakly = kind is FunctionType or issubclass(type(item), type)
        node = Node(keyed_ref(item, identity(item)) if weakly else lambda: item)
        if OPAQUE and id(item) in OPAQUE:
            node.stable = False
            node.content.append(Tag.OPAQUE + atom(OPAQUE[id(item)][1]))
        elif kind is FunctionType:
            function_node(self, node, item)
        elif kind is CellBody:
            cell_node(self, node, item)
        elif kind is SqlBody:
            select_node(self, node, item)
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
                node.content.append(Tag.UNDIGESTIBLE + kind.__qualname__.encode())
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                # Reading an object may raise any exception. Then the object has no digest, and the step must run.
                node.unverifiable(
                    "",
                    f"{kind.__qualname__} cannot be digested: {type(error).__name__}: {hidden_text(first_line(error))}",
                )
                node.content.append(Tag.UNDIGESTIBLE + kind.__qualname__.encode())
        return node

    # -- classes and modules

    def _class(self, node: Node, cls: type) -> None:
        node.shape = (type(cls), cls.__bases__)
        written = token(cls, type(cls))
        if written is not None:
            node.content.append(written)
            return
        version = version_of_copy(cls)
        if version is not None:
            node.digest = bytes.fromhex(version)
            return
        content = node.content
        namespace = vars(cls)
        if is_of_a_mock(cls):
            node.unverifiable("", MOCK.format(cls.__name__))
            content.append(Tag.UNDIGESTIBLE + cls.__qualname__.encode())
            return
        content.append(Tag.CLASS + atom(cls.__name__))
        self.refer(node, "(metaclass)", type(cls))
        content.append(len(cls.__bases__).to_bytes(2, "little"))
        for base in cls.__bases__:
            self.refer(node, "" if base.__module__ == "builtins" else base.__name__, base)
        for name, value in class_parts(cls):
            if self.ignored.data and is_data(cls, name, value):
                continue
            content.append(Tag.CLASS_ENTRY + atom(name))
            if (id(cls), name) in self.ignored.attributes:
                content.append(Tag.IGNORED)
                continue
            self.refer(node, "." + name, value)
        node.mappings += tuple((namespace, name, value) for name, value in namespace.items())
        node.lengths += ((namespace, len(namespace)),)

    def _module(self, node: Node, module: ModuleType) -> None:
        """Write the content of a module into its node, for code that uses the module as a whole.

        For a local module, the content is references to all its variables, except those with names such as ``__name__``.
        """
        node.stable = False
        written = token(module, type(module))
        if written is not None:
            node.content.append(written)
            return
        node.content.append(Tag.MODULE + atom(module.__name__))
        for name, value in sorted(vars(module).items()):
            if name.startswith("__") and name.endswith("__"):
                continue
            node.content.append(atom(name))
            self.refer(node, "." + name, value)

    # -- other objects

    def _object(self, node: Node, item: Any, kind: type) -> None:
        inner = getattr_static(item, "__stepwell_body__")
        if inner is not None:
            node.content.append(Tag.DEFINITION)
            self.refer(node, "", inner)
        elif kind is MethodType:
            node.content.append(Tag.METHOD)
            self.refer(node, "", item.__func__)
            self.refer(node, ".__self__", item.__self__)
        elif kind is functools.partial:
            node.content.append(Tag.PARTIAL)
            self.refer(node, "", item.func)
            self.refer(node, "(args)", item.args)
            self.refer(node, "(keywords)", item.keywords)
            if item.__dict__:
                self.refer(node, "(attributes)", item.__dict__)
        elif kind is _LRU:
            node.content.append(Tag.CACHED_FUNCTION)
            self.refer(node, "", item.__wrapped__)
            self.refer(
                node,
                "(parameters)",
                tuple(item.cache_parameters().items()) if hasattr(item, "cache_parameters") else (),
            )
        elif kind in {staticmethod, classmethod}:
            node.content.append(Tag.STATIC + kind.__name__.encode())
            self.refer(node, "", item.__func__)
        elif kind is functools.cached_property:
            # The lock of the property is not digested.
            node.content.append(Tag.CACHED_PROPERTY + atom(item.attrname))
            self.refer(node, "", item.func)
        elif kind is property:
            node.content.append(Tag.PROPERTY)
            for label, function in (("", item.fget), (".setter", item.fset), (".deleter", item.fdel)):
                self.refer(node, label, function)
        elif kind is BuiltinFunctionType or kind is MethodWrapperType:
            node.content.append(Tag.BUILTIN_METHOD + atom(item.__name__))
            self.refer(node, ".__self__", item.__self__)
        elif kind is Secret:
            node.content.append(Tag.SECRET + atom((item.name, self.keyed(str(item).encode()) if item.counts else "")))
        elif kind is CellType:
            node.content.append(Tag.CELL_VARIABLE)
            self.refer(node, "", item.cell_contents)
        elif kind in {set, frozenset} and _has_foreign(item):
            node.unordered = True
            node.flags |= MUTABLE if kind is set else 0
            node.content.append(Tag.SET_OF_OBJECTS + kind.__name__.encode())
            for member in item:
                # Every member is a separate node, even an atom, so that the digests can be sorted.
                node.content.append(Tag.SET_OF_OBJECTS)
                node.pending.append(("[...]", (member,)))
        else:
            self._value(node, item)

    def _value(self, node: Node, item: Any) -> None:
        """Write the content of a container, an array, a frame or an instance into its node."""
        node.shape = VALUE
        node.flags |= MUTABLE
        if type(item) in {tuple, frozenset}:
            node.flags &= ~MUTABLE
        entered = False

        def foreign(member: Any, path: Callable[[], str]) -> bytes | Form:
            nonlocal entered
            if member is item and not entered:
                entered = True
                return self._without_ignored(member, reduced(member))
            kind = type(member)
            written = None if OPAQUE and id(member) in OPAQUE else token(member, kind)
            if written is not None:
                return written
            node.pending.append((path(), member))
            if self.trace is not None:
                self.trace.append((path(), member, None))
            return mark(member, kind)

        started = thread_time()
        node.content.append(Tag.VALUE + encode(item, foreign, sets_apart=True, separate_ids=OPAQUE))
        seconds = thread_time() - started
        if seconds > SLOW:
            self.slow[id(node)] = seconds

    def _without_ignored(self, item: Any, form: Form) -> Form:
        """Return the form of an instance without the attributes that the option ``ignore`` names."""
        names = [name for owner, name in self.ignored.attributes if owner == id(item)]
        if not names or form.name != "instance":
            return form
        state = form.parts[3]
        # The state of an object with slots is a pair of dicts; the second one is for the slots.
        held = state if type(state) is tuple else (state,)
        counted = tuple(
            {name: value for name, value in part.items() if name not in names} if type(part) is dict else part for part in held
        )
        return Form(form.name, (*form.parts[:3], counted if type(state) is tuple else counted[0], *form.parts[4:]))


def _has_foreign(items: Any) -> bool:
    try:
        for item in items:
            if type(item) not in ATOMS:
                encode(item, refuse, sets_apart=True, separate_ids=OPAQUE)
    except (SetHasForeign, Undigestible):
        return True
    return False

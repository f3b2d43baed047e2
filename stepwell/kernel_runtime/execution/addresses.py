"""The objects of the notebook that are reached from its names, their addresses and their contents.

An address is a path from a name to an object, through items, attributes, the closure of a function, or the object and arguments bound in a
method or a partial call. An address is stored in place of an object that exists in the notebook, and is resolved in another kernel.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

from stepwell.kernel_runtime.execution import contents
from stepwell.kernel_runtime.execution.contents import Address
from stepwell.kernel_runtime.versions.bytecode import facts
from stepwell.kernel_runtime.versions.classes import is_data
from stepwell.kernel_runtime.versions.data import Budget, data_version
from stepwell.kernel_runtime.versions.encode import ATOMS, hexdigest
from stepwell.kernel_runtime.versions.ownership import owner

_MISSING: Any = object()
_MOST_INSTANCES = 20_000
"""The maximum number of library instances whose state is digested below one object; an object with more counts as one leaf."""


@dataclass(slots=True)
class ObjectState:
    """An object that a step may change, with its content before the body ran."""

    root: str
    """The name of the notebook through which the object is reached."""
    address: Address
    """The path from this name to the object."""
    item: Any
    content: tuple[Any, ...] | None
    """The content of a container; None for a leaf."""
    digest: str | None
    """The digest of a leaf; None for a container, and for a leaf that cannot be digested."""


class Inventory:
    """The present objects that are reached from some names of the notebook.

    Parameters
    ----------
    names
        Names whose objects may be changed.
    digests
        True if leaves are digested; otherwise only the addresses of objects are recorded.
    """

    def __init__(self, namespace: dict[str, Any], names: Iterable[str], *, digests: bool = True) -> None:
        self._namespace = namespace
        self._digests = digests
        self.objects: dict[int, ObjectState] = {}
        """The objects by `id`. Each entry keeps its object alive, so that the key stays unique."""
        for name in sorted(names):
            value = namespace.get(name, _MISSING)
            if value is not _MISSING:
                self._enter(name, value)

    def _enter(self, root: str, value: Any) -> None:
        stack: list[tuple[Address, Any]] = [((), value)]
        first = len(self.objects)
        budget = Budget(_MOST_INSTANCES)
        while stack:
            address, item = stack.pop()
            kind = type(item)
            if kind in ATOMS or id(item) in self.objects:
                continue
            if issubclass(type(item), type):
                if item.__module__ == "__main__":
                    self._note(root, address, item, content_of(item), None)
                    stack += [((*address, ("class", name)), member) for name, member in class_data(item).items()]
                continue
            if kind is FunctionType:
                if item.__globals__ is self._namespace:
                    self._note(root, address, item, content_of(item), None)
                    stack += [((*address, step), member) for step, member in _held_by(item)]
                continue
            if kind in CALLS:
                stack += [((*address, step), member) for step, member in _held_by(item)]
                continue
            if kind is ModuleType:
                if owner(item.__name__) is None:
                    self._note(root, address, item, content_of(item), None)
                    stack += [((*address, ("class", name)), member) for name, member in module_data(item).items()]
                continue
            if kind is not tuple and (not contents.has_content(item) or contents.is_inert(item)):
                continue
            if len(self.objects) - first > contents.MOST_CONTAINERS or budget.items_left < 0:
                # There are too many objects to record each. The root is compared by its digest, and replaced as far as its type allows.
                self.objects = {key: seen for key, seen in self.objects.items() if seen.root != root}
                self._note(root, (), value, None, self._digest(value, Budget(_MOST_INSTANCES)))
                return
            if kind is tuple:
                self._note(root, address, item, (), None)
            elif contents.is_entangled(item) or contents.is_leaf(item):
                self._note(root, address, item, None, self._digest(item, budget))
                continue
            else:
                self._note(root, address, item, contents.content(item), None)
                if kind.__module__ == "__main__" and self._namespace.get(kind.__qualname__) is kind:
                    # A method may change an attribute of its class.
                    self._enter(kind.__qualname__, kind)
            stack += [
                ((*address, step), member) for step, member in contents.members(item) if type(member) not in ATOMS
            ]

    def _digest(self, item: Any, budget: Budget) -> str | None:
        """Return the digest by which a leaf is compared; None if it has no digest, or too many instances would have to be digested."""
        if not self._digests:
            return None
        if contents.is_entangled(item):
            try:
                return hexdigest(pickle.dumps(item, 5))
            except Exception:
                # Objects attached to a figure may not be picklable.
                return None
        if type(item).__module__ in {"sqlite3", "_duckdb"}:
            return contents.database_state(item)
        if type(item) is ContextVar:
            return data_version(contents.leaf_state(item), budget)
        return data_version(item, budget)

    def _note(
        self, root: str, address: Address, item: Any, content: tuple[Any, ...] | None, digest: str | None
    ) -> None:
        self.objects[id(item)] = ObjectState(root, address, item, content, digest)

    def changed_objects(self, suspects: Collection[str] | None = None) -> list[ObjectState]:
        """Return the objects whose content has changed.

        Parameters
        ----------
        suspects
            Names that code may have changed: their objects count as changed if they have no digest; None for all names.
        """
        changed = []
        for seen in self.objects.values():
            if seen.content is None:
                if seen.digest is None:
                    # Reading an iterator changes it.
                    suspect = suspects is None or seen.root in suspects or contents.is_iterator(seen.item)
                    if suspect and not (contents.is_handle(seen.item) and self._is_log(seen)):
                        changed.append(seen)
                elif self._digest(seen.item, Budget(_MOST_INSTANCES)) != seen.digest:
                    changed.append(seen)
            elif type(seen.item) is not tuple and not contents.same_content(seen.content, content_of(seen.item)):
                changed.append(seen)
        return changed

    def _is_log(self, seen: ObjectState) -> bool:
        """Return True for a standard stream and for the stream of a logger: data written to them is output."""
        name = contents.attribute(seen.item, "name")
        if (
            (type(name) is str and name in {"<stdout>", "<stderr>"})
            or seen.item is sys.stdout
            or seen.item is sys.stderr
        ):
            return True
        names = [type(self._namespace.get(seen.root)).__module__]
        for end in range(1, len(seen.address)):
            with suppress(LookupError, AttributeError, TypeError, ValueError):
                names.append(type(resolve(self._namespace, seen.root, seen.address[:end])).__module__)
        return any(name.partition(".")[0] == "logging" for name in names)


def class_data(cls: type) -> dict[str, Any]:
    """Return the attributes of a class that hold data, as opposed to methods."""
    return {name: value for name, value in vars(cls).items() if is_data(cls, name, value)}


def module_data(module: ModuleType) -> dict[str, Any]:
    """Return the attributes of a local module that hold data."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("__") and not issubclass(type(value), (type, ModuleType)) and not callable(value)
    }


CALLS = frozenset({FunctionType, MethodType, BuiltinMethodType, partial})
"""Types of callables that may hold objects which a call changes."""


def _held_by(function: Any) -> Iterable[tuple[tuple[str, Any], Any]]:
    """Yield the objects that a function, a method or a partial call holds, each after the step of the address that leads to it."""
    if type(function) in {MethodType, BuiltinMethodType}:
        yield ("self", None), function.__self__
        return
    if type(function) is partial:
        yield ("func", None), function.func
        for position, value in enumerate(function.args):
            yield ("arg", position), value
        for name, value in function.keywords.items():
            yield ("keyword", name), value
        return
    for position, value in enumerate(function.__defaults__ or ()):
        yield ("default", position), value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield ("kwdefault", name), value
    for position, cell in enumerate(function.__closure__ or ()):
        with suppress(ValueError):
            yield ("closure", position), cell.cell_contents
    for name, value in vars(function).items():
        yield ("attr", name), value


def content_of(item: Any) -> tuple[Any, ...]:
    """Return the content of a container, class or local module; the content of a function is its attributes and closure cells."""
    if type(item) is FunctionType:
        return (
            ("attributes", tuple(vars(item).items())),
            ("cells", tuple([_bound_in(cell) for cell in item.__closure__ or ()])),
        )
    if type(item) is ModuleType:
        return (("class", tuple(module_data(item).items())),)
    if issubclass(type(item), type):
        return (("class", tuple(class_data(item).items())),)
    return contents.content(item)


def _bound_in(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def resolve(namespace: Mapping[str, Any], root: str, address: Address) -> Any:
    """Return the object at an address; raises LookupError, AttributeError, TypeError or ValueError if there is none."""
    item: Any = namespace[root]
    for step in address:
        kind, name = step
        if kind == "class" or (kind == "attr" and issubclass(type(item), FunctionType)):
            item = vars(item)[name]
        elif kind == "default":
            item = item.__defaults__[name]
        elif kind == "kwdefault":
            item = item.__kwdefaults__[name]
        elif kind == "closure":
            item = item.__closure__[name].cell_contents
        elif kind == "self":
            item = item.__self__
        elif kind == "func":
            item = item.func
        elif kind == "arg":
            item = item.args[name]
        elif kind == "keyword":
            item = item.keywords[name]
        else:
            item = contents.member(item, step)
    return item


def replace_content(item: Any, method: str, value: Any) -> None:
    """Replace the content of an object in place; raises `NotRestorableError`."""
    if method == "leaf":
        contents.put_leaf(item, value)
    elif type(item) is FunctionType:
        vars(item).clear()
        vars(item).update(value[0][1])
        for cell, bound in zip(item.__closure__ or (), value[1][1], strict=True):
            if bound:
                cell.cell_contents = bound[0]
            elif _bound_in(cell):
                del cell.cell_contents
    elif issubclass(type(item), (type, ModuleType)):
        entries = dict(value[0][1])
        now = class_data(item) if issubclass(type(item), type) else module_data(item)
        for name, each in entries.items():
            if now.get(name, _MISSING) is not each:
                setattr(item, name, each)
        for name in now.keys() - entries.keys():
            delattr(item, name)
    else:
        contents.put_content(item, value)


# -- walks ---------------------------------------------------------------------------------------------------------


def objects_in(values: Iterable[Any], stop: Collection[int] = ()) -> dict[int, Any]:
    """Return the mutable objects in some values, by `id`.

    Parameters
    ----------
    stop
        The `id` of each object whose members are not searched.
    """
    return {key: item for key, item in _walked(values, stop).items() if type(item) not in _HOLDERS}


def code_in(values: Iterable[Any]) -> list[Any]:
    """Return the callables in some values, and the instances of classes of the notebook."""
    return [item for item in _walked(values, ()).values() if type(item) in CALLS or type(item).__module__ == "__main__"]


def outdated_class(values: Iterable[Any], namespace: Mapping[str, Any]) -> bool:
    """Return True if some values contain an instance of a class of the notebook that was defined again since."""
    kinds = {item if isinstance(item, type) else type(item) for item in code_in(values)}
    return any(
        kind.__module__ == "__main__" and isinstance(now := namespace.get(kind.__qualname__), type) and now is not kind
        for kind in kinds
    )


def _walked(values: Iterable[Any], stop: Collection[int]) -> dict[int, Any]:
    objects: dict[int, Any] = {}
    stack = list(values)
    while stack and len(objects) < contents.MOST_CONTAINERS:
        item = stack.pop()
        kind = type(item)
        if id(item) in objects or not (kind in _HOLDERS or contents.has_content(item) or kind.__module__ == "__main__"):
            continue
        objects[id(item)] = item
        if id(item) in stop:
            continue
        if kind in CALLS and (kind is not FunctionType or item.__module__ == "__main__"):
            stack += [*[member for _, member in _held_by(item)], *(getattr(item, "__closure__", None) or ())]
        elif kind is frozenset:
            stack += item
        elif kind is FunctionType:
            continue
        elif not contents.is_leaf(item):
            stack += [member for _, member in contents.members(item)]
    return objects


_HOLDERS = frozenset({tuple, frozenset, FunctionType, MethodType, BuiltinMethodType})
"""Types of immutable objects that may hold mutable ones."""


def places(namespace: dict[str, Any], names: Iterable[str], stop: Collection[int]) -> dict[int, ObjectState]:
    """Return the addresses of the objects in variables that are reached only through plain containers and instances of the notebook's classes.

    Parameters
    ----------
    stop
        The `id` of each object whose members are not searched.
    """
    objects: dict[int, ObjectState] = {}
    for name in names:
        stack: list[tuple[Address, Any]] = [((), namespace[name])]
        while stack and len(objects) < contents.MOST_CONTAINERS:
            address, item = stack.pop()
            kind = type(item)
            if kind in ATOMS or id(item) in objects or not (kind is tuple or contents.has_content(item)):
                continue
            objects[id(item)] = ObjectState(name, address, item, None, None)
            if id(item) in stop or kind.__module__ not in {"builtins", "collections", "__main__"}:
                continue
            if not contents.is_leaf(item):
                stack += [((*address, step), member) for step, member in contents.members(item)]
    return objects


def reached_names(
    namespace: Mapping[str, Any],
    names: Iterable[str],
    items: Iterable[Any] = (),
    *,
    ends_at: Callable[[str], bool] = lambda name: False,  # noqa: ARG005 - by default all are followed
) -> set[str]:
    """Return names of the notebook, and all names that the functions and classes behind these names or in `items` read, even indirectly.

    Parameters
    ----------
    ends_at
        Takes a name; returns True if the object behind the name is not searched.
    """
    reached: set[str] = set()
    pending = list(names)
    stack = list(items)
    while stack or pending:
        if not stack:
            name = pending.pop()
            if name in reached:
                continue
            reached.add(name)
            stack = [] if ends_at(name) else [namespace.get(name)]
        seen: set[int] = set()
        while stack:
            item = stack.pop()
            if id(item) in seen:
                continue
            seen.add(id(item))
            if issubclass(type(item), FunctionType) and item.__globals__ is namespace:
                pending.extend([loaded for loaded, _ in facts(item.__code__).loads])
                pending.extend(facts(item.__code__).stores)
            stack += _code_behind(item)
    return reached


def _code_behind(item: Any) -> Iterable[Any]:
    """Return the objects whose code an object may run when it is used: its wrapped, bound or contained objects."""
    kind = type(item)
    if issubclass(kind, FunctionType):
        functions = [contents.attribute(item, "__wrapped__")]
        for cell in item.__closure__ or ():
            with suppress(ValueError):
                functions.append(cell.cell_contents)
        return functions
    if issubclass(kind, type):
        return [*vars(item).values(), *item.__bases__] if item.__module__ == "__main__" else ()
    if issubclass(kind, (staticmethod, classmethod)):
        return (item.__func__,)
    if issubclass(kind, MethodType):
        return item.__func__, item.__self__
    if issubclass(kind, property):
        return item.fget, item.fset
    if issubclass(kind, partial):
        return item.func, *item.args, *item.keywords.values()
    if kind.__module__ == "__main__":
        return (kind,)
    return (contents.attribute(item, "__wrapped__"),) if item is not None and hasattr(kind, "__wrapped__") else ()

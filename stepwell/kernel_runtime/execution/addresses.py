"""The addresses of the notebook's objects, and the objects that code of the notebook can reach.

An address is a path that leads from a variable of the notebook to an object. A path can lead through items and attributes, through the
defaults and the closure of a function, from a method to its object, and from a ``functools.partial`` to its arguments. If a stored value refers to
an object of the notebook, the store keeps the address instead of the object. When the step is reused, the path is followed again in the present
notebook, and the loaded value refers to the object that is found there.
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
"""The maximum number of instances of library classes that are digested inside the value of one variable. A value that contains more is compared as a
whole, by one digest."""


@dataclass(slots=True)
class ObjectState:
    """An object that a step may change, with its content from before the body ran."""

    root: str
    """The variable of the notebook from which the address leads to the object."""
    address: Address
    """The path from this variable to the object."""
    item: Any
    """The object itself."""
    content: tuple[Any, ...] | None
    """The result of `content_of` for a container; None for a leaf (an object that is compared by digest, such as an array)."""
    digest: str | None
    """The digest of a leaf; None for a container, and for a leaf without a digest."""


class Inventory:
    """The objects that can be reached from some variables of the notebook, with their contents when the inventory was made.

    Parameters
    ----------
    namespace
        The notebook's namespace.
    names
        The names of the variables. Names that are not bound are ignored.
    first
        Those of `names` that the code itself reads. If an object can be reached from several variables, its address begins with one of these.
    digests
        True if objects that are not containers, such as arrays, are digested, so that `changed_objects` can compare them; False if only the
        addresses are needed.
    """

    def __init__(
        self, namespace: dict[str, Any], names: Iterable[str], first: Collection[str] = (), *, digests: bool = True
    ) -> None:
        self._namespace = namespace
        self._digests = digests
        self.objects: dict[int, ObjectState] = {}
        """The objects by `id`. Each entry keeps its object alive, so that no other object gets the same `id`."""
        for name in sorted(names, key=lambda name: (name not in first, name)):
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
                    stack += [((*address, access), member) for access, member in _held_by(item)]
                continue
            if kind in CALLS:
                stack += [((*address, access), member) for access, member in _held_by(item)]
                continue
            if kind is ModuleType:
                if owner(item.__name__) is None:
                    self._note(root, address, item, content_of(item), None)
                    stack += [((*address, ("class", name)), member) for name, member in module_data(item).items()]
                continue
            if kind is not tuple and (not contents.has_content(item) or contents.is_inert(item)):
                continue
            if len(self.objects) - first > contents.MOST_CONTAINERS or budget.items_left < 0:
                # There are too many objects to record each one. The value of the variable is treated as one leaf.
                self.objects = {key: seen for key, seen in self.objects.items() if seen.root != root}
                self._note(root, (), value, None, self._digest(value, Budget(_MOST_INSTANCES)))
                return
            if kind is tuple:
                self._note(root, address, item, (), None)
            elif contents.is_entangled(item) or contents.is_leaf(item):
                self._note(root, address, item, None, self._digest(item, budget))
                stack += [((*address, access), member) for access, member in contents.cells(item)]
                continue
            else:
                self._note(root, address, item, contents.content(item), None)
                if kind.__module__ == "__main__" and self._namespace.get(kind.__qualname__) is kind:
                    # A method may change an attribute of its class, so the class is recorded, too.
                    self._enter(kind.__qualname__, kind)
            stack += [((*address, access), member) for access, member in contents.members(item) if type(member) not in ATOMS]

    def _digest(self, item: Any, budget: Budget) -> str | None:
        """Return the digest by which a leaf is compared.

        Return None if the leaf has no digest, if it contains more instances of library classes than `budget` allows, or if the inventory was
        made without digests.
        """
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

    def _note(self, root: str, address: Address, item: Any, content: tuple[Any, ...] | None, digest: str | None) -> None:
        self.objects[id(item)] = ObjectState(root, address, item, content, digest)

    def changed_objects(self, suspects: Collection[str] | None = None) -> list[ObjectState]:
        """Return the objects whose content has changed since the inventory was made.

        Parameters
        ----------
        suspects
            The variables whose values may have been changed by the code that ran since; None for all variables. An object without a digest
            counts as changed if it is reached from one of these variables. An iterator always counts as changed. Standard streams and streams
            of loggers never count as changed.
        """
        changed = []
        for seen in self.objects.values():
            if seen.content is None:
                if seen.digest is None:
                    # Even code that only reads an iterator changes it.
                    suspect = suspects is None or seen.root in suspects or contents.is_iterator(seen.item)
                    if suspect and not (contents.is_handle(seen.item) and self._is_log(seen)):
                        changed.append(seen)
                elif self._digest(seen.item, Budget(_MOST_INSTANCES)) != seen.digest:
                    changed.append(seen)
            elif type(seen.item) is not tuple and not contents.same_content(seen.content, content_of(seen.item)):
                changed.append(seen)
        return changed

    def _is_log(self, seen: ObjectState) -> bool:
        """Return True if the object is a standard stream or the stream of a logger: text written to it is output, not a change of the object."""
        name = contents.attribute(seen.item, "name")
        if (type(name) is str and name in {"<stdout>", "<stderr>"}) or seen.item is sys.stdout or seen.item is sys.stderr:
            return True
        names = [type(self._namespace.get(seen.root)).__module__]
        for end in range(1, len(seen.address)):
            with suppress(LookupError, AttributeError, TypeError, ValueError):
                names.append(type(resolve(self._namespace, seen.root, seen.address[:end])).__module__)
        return any(name.partition(".")[0] == "logging" for name in names)


def class_data(cls: type) -> dict[str, Any]:
    """Return the attributes of a class that hold data, and the functions and classes that code outside of the class has set as attributes."""
    return {name: value for name, value in vars(cls).items() if is_data(cls, name, value) or _is_set(cls, name, value)}


def _is_set(owner: type | ModuleType, name: str, value: Any) -> bool:
    """Return True for a function or class of the notebook that was defined outside of the class or module `owner` and set as its attribute `name`.

    The result is also True for a property, static method or class method that was made from such a function.
    """
    if name.startswith("__"):
        return False
    inner: Any = (
        value.fget if type(value) is property else value.__func__ if type(value) in {staticmethod, classmethod} else value
    )
    if type(inner) is not FunctionType and not issubclass(type(inner), type):
        return False
    is_part = not issubclass(type(owner), ModuleType) and inner.__qualname__ == f"{owner.__qualname__}.{name}"
    return inner.__module__ == "__main__" and not is_part


def module_data(module: ModuleType) -> dict[str, Any]:
    """Return the attributes of a local module (a module of the user) that hold data, and the functions and classes that the notebook has set."""
    return {
        name: value
        for name, value in vars(module).items()
        if (not name.startswith("__") and not issubclass(type(value), (type, ModuleType)) and not callable(value))
        or _is_set(module, name, value)
    }


CALLS = frozenset({FunctionType, MethodType, BuiltinMethodType, partial})
"""Types of callables that can hold other objects, for example in a closure; a call may change these objects."""


def _held_by(function: Any) -> Iterable[tuple[tuple[str, Any], Any]]:
    """Yield a pair for each object that a function, method or `partial` holds: the `contents.Access` that leads to the object, and the object."""
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
    """Return the shallow content of an object (its members, not what is inside them), for `contents.same_content` and `replace_content`.

    The members of a class or a local module are those that `class_data` and `module_data` return. The members of a function are its attributes and
    closure cells.
    """
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
    """Return the object to which an address leads from the variable `root`.

    Raises
    ------
    LookupError, AttributeError, TypeError, ValueError
        If the address does not lead to an object in this namespace.
    """
    item: Any = namespace[root]
    for access in address:
        kind, name = access
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
            item = contents.member(item, access)
    return item


def replace_content(item: Any, method: str, value: Any) -> None:
    """Replace the content of an object in place.

    Parameters
    ----------
    method
        How the content is replaced: ``leaf`` for an object that is replaced as a whole, such as an array; ``content`` for any other object.
    value
        The new content: for ``leaf`` a result of `contents.leaf_state`, for ``content`` a result of `content_of`.

    Raises
    ------
    NotRestorableError
        If a leaf or container does not accept the content. For a function, class or module, the exception of the assignment is raised instead.
    """
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
            # A method that the notebook has replaced since is not data that the step removed.
            if not _is_set(item, name, now[name]):
                delattr(item, name)
    else:
        contents.put_content(item, value)


# -- walks ---------------------------------------------------------------------------------------------------------


def objects_in(values: Iterable[Any], stop: Collection[int] = ()) -> dict[int, Any]:
    """Return the mutable objects among `values` and inside them, by `id`.

    Parameters
    ----------
    stop
        The `id` of each object whose members are not searched.
    """
    return {key: item for key, item in _walked(values, stop).items() if type(item) not in _HOLDERS}


def code_in(values: Iterable[Any]) -> list[Any]:
    """Return the callables, and the instances of the notebook's classes, among `values` and inside them."""
    return [item for item in _walked(values, ()).values() if type(item) in CALLS or type(item).__module__ == "__main__"]


def outdated_code(values: Iterable[Any], namespace: Mapping[str, Any]) -> bool:
    """Return True if `values` contain an outdated function of the notebook, or an instance of an outdated class.

    A function or class is outdated if its name in the notebook is now bound to another one. If the name of a class cannot be assigned, as that of
    the pydantic model ``Box[int]``, the first of its base classes counts whose name can be.
    """
    for item in code_in(values):
        code = item if isinstance(item, (type, FunctionType)) else type(item)
        if code.__module__ != "__main__":
            continue
        if isinstance(code, type):
            code = next(base for base in code.__mro__ if base.__qualname__.isidentifier())
        now = namespace.get(code.__qualname__, code)
        if now is not code and isinstance(now, type if isinstance(code, type) else FunctionType):
            return True
    return False


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
        else:
            stack += [member for _, member in (contents.cells if contents.is_leaf(item) else contents.members)(item)]
    return objects


_HOLDERS = frozenset({tuple, frozenset, FunctionType, MethodType, BuiltinMethodType})
"""Types of immutable objects that may hold mutable ones."""


def places(namespace: dict[str, Any], names: Iterable[str], stop: Collection[int]) -> dict[int, ObjectState]:
    """Return the objects among the values of the variables `names` and inside these values, each as an `ObjectState` with its address, by `id`.

    Objects inside instances of library classes are left out. The states have neither contents nor digests.

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
                stack += [((*address, access), member) for access, member in contents.members(item)]
    return objects


def reached_names(
    namespace: Mapping[str, Any],
    names: Iterable[str],
    items: Iterable[Any] = (),
    *,
    ends_at: Callable[[str], bool] = lambda name: False,  # noqa: ARG005 - by default all objects are searched
) -> set[str]:
    """Return `names`, and all names of the notebook that `names` and `items` use, directly or indirectly.

    A function or class uses the names that its code loads or binds. A name that is bound to a function or class uses the same names as this object.
    `items` are objects, such as functions, that use names in the same way.

    Parameters
    ----------
    ends_at
        Takes a name; returns True if the object that is bound to this name is not searched for further names. By default, all objects are searched.
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
    """Return the objects whose code may run when `item` is used, for example a wrapped function or the methods of a class."""
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
        return item.fget, item.fset, item.fdel
    if issubclass(kind, partial):
        return item.func, *item.args, *item.keywords.values()
    if kind.__module__ == "__main__":
        return (kind,)
    return (contents.attribute(item, "__wrapped__"),) if item is not None and hasattr(kind, "__wrapped__") else ()

"""Exceptions from code versions: the names of ``ignore``, `opaque` objects, and secrets.

A name of ``ignore`` refers to one variable, not to others with the same name. ``CONN`` is the global of the body's notebook or module, or
else the variable of an enclosing function, in the closure of the body or of the nearest helper function. ``module.CONN`` is a variable of
``module``, and ``client.cookies`` an attribute of the object ``client``. An `opaque` object is represented in code versions by a version
that the user sets (``CLIENT = stepwell.opaque(connect(), version="prod")``). The object is recognised by identity, with a weak reference if
its type allows one. A secret (``stepwell.secret("API_TOKEN")``) is a string from the environment; the store keeps only the secret's name.
"""

from __future__ import annotations

import inspect
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import CellType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any, Self, TypeVar

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.errors import InvalidInvocationError, SecretNotSetError
from stepwell.kernel_runtime.versions import graph
from stepwell.kernel_runtime.versions.encode import ATOMS
from stepwell.kernel_runtime.versions.environment import note_name, value_of
from stepwell.kernel_runtime.versions.graph import ARROW, MISSING

_SUFFIX = re.compile(r"[\[(]")
_MOST_FUNCTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Ignored:
    """Variables and attributes that do not count."""

    globals: frozenset[tuple[int, str]] = frozenset()
    """Global variables: identities of namespaces, each with a name in the namespace."""
    cells: frozenset[int] = frozenset()
    """Variables of closures: identities of closure cells."""
    attributes: frozenset[tuple[int, str]] = frozenset()
    """Identities of objects and classes, each with the name of an attribute."""
    data: bool = False
    """True if only code counts: not attributes of classes and globals that hold data, nor options of libraries. All of these may change at
    any time."""


NOTHING = Ignored()
DATA = Ignored(data=True)


def ignored_places(body: object, names: Iterable[str]) -> Ignored:
    """Return the variables and attributes to which the names of ``ignore`` refer in a body."""
    function = _function(body)
    scope = _scope(body, function)
    places: set[tuple[int, str]] = set()
    cells: set[int] = set()
    attributes: set[tuple[int, str]] = set()
    for name in names:
        owner_name, _, last = name.rpartition(".")
        if owner_name:
            owner = value_at(body, owner_name)
            if isinstance(owner, ModuleType):
                places.add((id(vars(owner)), last))
            elif owner is not MISSING:
                attributes.add((id(owner), last))
            continue
        if scope is not None:
            places.add((id(scope), name))
        cell = _cell(function, name) if function is not None else None
        if cell is not None:
            cells.add(id(cell))
    return Ignored(frozenset(places), frozenset(cells), frozenset(attributes))


def value_at(body: object, name: str) -> Any:
    """Return the value of ``CONN``, ``module.CONN`` or ``client.cookies`` in the scope of a body; `graph.MISSING` if there is none."""
    function = _function(body)
    first, *rest = name.split(".")
    value = (_scope(body, function) or {}).get(first, MISSING)
    cell = _cell(function, first) if value is MISSING and function is not None else None
    if cell is not None:
        value = _contents(cell)
    value = _attribute_at(value, rest)
    if value is MISSING:
        value = sys.modules.get(name, MISSING)
    return _attribute_at(sys.modules.get(first, MISSING), rest) if value is MISSING else value


def _attribute_at(start: Any, path: Sequence[str]) -> Any:
    """Return the object that a path of attributes reaches, without running code of the user; `graph.MISSING` if there is none."""
    current = start
    for name in path:
        if current is MISSING:
            break
        held = inspect.getattr_static(current, name, MISSING)
        if isinstance(held, MemberDescriptorType):
            held = getattr(current, name, MISSING)
        current = MISSING if isinstance(held, property) else held
    return current


def scope_of(body: object, path: str) -> dict[str, Any] | None:
    """Return the namespace in which the last part of a path is a variable: ``model -> helper -> client.cookies``."""
    scope = _scope(body, _function(body))
    for part in path.split(ARROW)[1:-1]:
        first, *rest = name_in(part).split(".")
        value = _attribute_at((scope or {}).get(first, MISSING), rest)
        function = _function(value)
        if function is not None:
            scope = function.__globals__
        elif isinstance(value, type) and value.__module__ in sys.modules:
            scope = vars(sys.modules[value.__module__])
    return scope


def name_in(part: str) -> str:
    """Return the name at the beginning of a part of a path: ``client.cookies`` of ``client.cookies['a']``."""
    return _SUFFIX.split(part, maxsplit=1)[0]


def _scope(body: object, function: FunctionType | None) -> dict[str, Any] | None:
    if isinstance(body, CellBody | SqlBody):
        return body.globals
    return function.__globals__ if function is not None else None


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _function(body: object) -> FunctionType | None:
    current: Any = getattr(body, "__stepwell_body__", body)
    while hasattr(current, "__wrapped__"):
        current = current.__wrapped__
    current = getattr(current, "func", current)
    current = getattr(current, "__func__", current)
    if not isinstance(current, FunctionType):
        current = vars(type(current)).get("__call__")
    return current if isinstance(current, FunctionType) else None


def _cell(function: FunctionType, name: str) -> CellType | None:
    """Return the closure cell of a name, from the closure of a function or else of the nearest function in that closure."""
    queue = [function]
    seen = {id(function)}
    for current in queue:
        if len(queue) > _MOST_FUNCTIONS:
            break
        for variable, cell in zip(current.__code__.co_freevars, current.__closure__ or (), strict=True):
            if variable == name:
                return cell
            try:
                held = _function(cell.cell_contents)
            except ValueError:
                continue
            if held is not None and id(held) not in seen:
                seen.add(id(held))
                queue.append(held)
    return None


T = TypeVar("T")

OPAQUE: dict[int, tuple[Callable[[], Any], str]] = {}
"""Opaque objects by identity: a function that returns the object, and the object's version."""


def opaque(obj: T, version: str = "") -> T:
    """Represent an object in code versions by a version that you set, not by its content.

    Parameters
    ----------
    obj
        A connection, a client, a lock, a large constant: any object that is not shared with equal values.
    version
        The version of the object. Another version makes the steps that reach the object stale.

    Returns
    -------
    object
        The same object.

    Raises
    ------
    InvalidInvocationError
        If the object is a number, string or tuple, because equal ones may be the same object, or if the version is not a string.

    Examples
    --------
    >>> CLIENT = stepwell.opaque(connect(), version="prod")
    """
    kind: type = type(obj)
    if kind in ATOMS or kind in {tuple, frozenset, range}:
        raise InvalidInvocationError(
            f"a {kind.__name__} cannot be opaque: equal values may be the same object",
            remedy="ignore its name instead: --ignore NAME, or ignore=[NAME]",
        )
    if not isinstance(version, str):
        raise InvalidInvocationError(
            f"the version of an opaque object must be a text, not a {type(version).__name__}",
            remedy=f"opaque(obj, version={str(version)!r})",
        )
    key = id(obj)
    ref: Callable[[], Any]
    try:
        ref = weakref.ref(obj, lambda dead: _drop(key, dead))
    except TypeError:
        ref = lambda: obj  # noqa: E731 - the type does not support weak references
    OPAQUE[key] = (ref, version)
    # Known nodes may contain the content of the object.
    graph.known_nodes.clear()
    return obj


def _drop(key: int, dead: Any) -> None:
    entry = OPAQUE.get(key)
    if entry is not None and entry[0] is dead:
        del OPAQUE[key]


class Secret(str):
    """A secret string: ``repr`` shows and pickle stores only its name in the environment.

    Attributes
    ----------
    name
        The name in the environment.
    counts
        True if another value of the secret makes the steps that reach it stale.
    """

    __slots__ = ("counts", "name")
    name: str
    counts: bool

    def __new__(cls, text: str, name: str, *, counts: bool) -> Self:
        """Create a secret from its value and its name."""
        self = super().__new__(cls, text)
        self.name = name
        self.counts = counts
        return self

    def __repr__(self) -> str:
        return f"secret({self.name!r}{', counts=True' if self.counts else ''})"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _again, (self.name, self.counts)


# Pickles of secrets contain the name of this function, so it must not change.
def _again(name: str, counts: bool) -> Secret:
    return secret(name, counts=counts)


def secret(name: str, *, counts: bool = False) -> Secret:
    """Read a secret from the environment; it is never stored or shown as text.

    Parameters
    ----------
    name
        The name in the environment.
    counts
        True if another value of the secret makes the steps that reach it stale. Values are compared by digests with the user's key.

    Returns
    -------
    Secret
        The value, which can be used like any string.

    Raises
    ------
    SecretNotSetError
        If the name is not set.
    """
    text = value_of(name)
    if counts:
        note_name(name, text)
    if text is None:
        raise SecretNotSetError(
            f"the secret {name!r} is not set in the environment",
            remedy=f"set {name} before the kernel starts, or in a cell: import getpass, os; os.environ[{name!r}] = getpass.getpass()",
        )
    return Secret(text, name, counts=counts)

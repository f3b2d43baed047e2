"""Objects whose content is left out of code versions: variables in the option ``ignore``, `opaque` objects, and secrets.

*Ignored variables.* A name in the option ``ignore`` of a step refers to certain variables or attributes, not to all that have this name. For
example, ``CONN`` refers to the global ``CONN`` of the notebook or module that contains the step's body. It also refers to the variable ``CONN``
of an enclosing function, if the body or a helper function in its closure uses this variable. ``module.CONN`` refers to a global of ``module``,
and ``client.cookies`` to an attribute of the object ``client``.

*Opaque objects.* In code versions, an opaque object is represented by a version that the user sets
(``CLIENT = stepwell.opaque(connect(), version="prod")``). The object is recognised by its identity.

*Secrets.* A secret (``stepwell.secret("API_TOKEN")``) is a string from an environment variable. The store keeps only the name of the variable
and, for a secret with ``counts=True``, a digest of the value, made with the user's key.
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
    """Variables and attributes that are left out of code versions, so that a change of their values does not make a step stale."""

    globals: frozenset[tuple[int, str]] = frozenset()
    """Globals, each as a pair: the ``id`` of a namespace, and the name of a variable in this namespace."""
    cells: frozenset[int] = frozenset()
    """Variables of closures: the ``id`` of each closure cell."""
    attributes: frozenset[tuple[int, str]] = frozenset()
    """Attributes, each as a pair: the ``id`` of an object or class, and the name of an attribute."""
    data: bool = False
    """True to leave out everything except code. Left out are globals that hold data, class attributes that hold data, and options of libraries.
    The values of all of these may change at any time."""


NOTHING = Ignored()
"""No variable or attribute is left out."""
DATA = Ignored(data=True)
"""All data are left out, and only code remains."""


def ignored_places(body: object, names: Iterable[str]) -> Ignored:
    """Return the variables and attributes to which the names in the option ``ignore`` of a step refer.

    Parameters
    ----------
    body
        The body of the step, in whose scope the names are looked up.
    """
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
    """Return the value of a name in the scope of a step's body; `graph.MISSING` if there is none.

    Parameters
    ----------
    name
        A variable, or an attribute of a variable or module, for example ``CONN``, ``client.cookies`` or ``module.CONN``.
    """
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
    """Return the object to which a sequence of attributes leads, without running properties or `__getattr__`.

    Return `graph.MISSING` if there is no such object.

    Parameters
    ----------
    path
        The names of the attributes; the first is an attribute of `start`.
    """
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
    """Return the namespace in which the last name of a path is looked up; None if the body of the step has no namespace.

    For ``model -> helper -> client.cookies``, the result is the globals of the function ``helper``, which contain ``client``.

    Parameters
    ----------
    body
        The body of the step at which the path begins.
    """
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
    """Return the name at the beginning of one part of a path, for example ``client.cookies`` for ``client.cookies['a']``."""
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
    """Return the closure cell of the variable `name`; None if there is none.

    The closure of `function` is searched first, then the closures of the functions that this closure contains, and so on.
    """
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
"""Maps the ``id`` of each opaque object to a function that returns the object, and to the version that the user set."""


def opaque(obj: T, version: str = "") -> T:
    """Represent an object in code versions by a version that you set, instead of by the object's content.

    Parameters
    ----------
    obj
        The object, for example a connection, a client or a large list. It must not be a number, string, bytes, tuple, frozenset, range or None.
    version
        The version of the object. If you change it, the steps that reach the object become stale.

    Returns
    -------
    object
        The object `obj` itself.

    Raises
    ------
    InvalidInvocationError
        If `obj` has one of the excluded types, because two equal objects of such a type may be one object; or if `version` is not a string.

    Examples
    --------
    >>> CLIENT = stepwell.opaque(connect(), version="prod")
    """
    kind: type = type(obj)
    if kind in ATOMS or kind in {tuple, frozenset, range}:
        raise InvalidInvocationError(
            f"stepwell.opaque does not accept an object of type {kind.__name__}: two equal objects of this type may be one object",
            remedy="ignore the variable instead: --ignore NAME, or ignore='NAME'",
        )
    if not isinstance(version, str):
        raise InvalidInvocationError(
            f"the version of an opaque object must be a string, but its type is {type(version).__name__}",
            remedy=f"write opaque(obj, version={str(version)!r})",
        )
    key = id(obj)
    ref: Callable[[], Any]
    try:
        ref = weakref.ref(obj, lambda dead: _drop(key, dead))
    except TypeError:
        ref = lambda: obj  # noqa: E731 - the type does not support weak references
    OPAQUE[key] = (ref, version)
    # The nodes of earlier code walks may contain the content of the object.
    graph.known_nodes.clear()
    return obj


def _drop(key: int, dead: Any) -> None:
    entry = OPAQUE.get(key)
    if entry is not None and entry[0] is dead:
        del OPAQUE[key]


class Secret(str):
    """A string from an environment variable that must remain secret: ``repr`` shows only the variable's name, and pickle stores only this name.

    Attributes
    ----------
    name
        The name of the environment variable.
    counts
        True if the steps that reach the secret become stale when its value changes.
    """

    __slots__ = ("counts", "name")
    name: str
    counts: bool

    def __new__(cls, text: str, name: str, *, counts: bool) -> Self:
        """Create a secret from its value and the name of its environment variable."""
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
    """Return a secret from an environment variable. Its value is never stored or shown as text.

    Parameters
    ----------
    name
        The name of the environment variable.
    counts
        True to make the steps that reach the secret stale when its value changes. Stepwell then stores a digest of the value, made with your key.

    Returns
    -------
    Secret
        The value of the environment variable, which can be used like any string.

    Raises
    ------
    SecretNotSetError
        If the environment variable is not set.
    """
    text = value_of(name)
    if counts:
        note_name(name, text)
    if text is None:
        raise SecretNotSetError(
            f"the secret {name!r} is not set: there is no environment variable with this name",
            remedy=f"set {name} before the kernel starts, or in a cell: import getpass, os; os.environ[{name!r}] = getpass.getpass()",
        )
    return Secret(text, name, counts=counts)

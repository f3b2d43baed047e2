"""Which place a name means that a definition leaves out: that one variable, and no other of the same name.

``CONN`` is the global of the body's own notebook or module, or the variable of an enclosing function that the body, else the nearest
of its helpers, holds; ``module.CONN`` is that module's; ``client.cookies`` is that attribute of the object that the variable holds.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import CellType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.versions.graph import MISSING
from stepwell.kernel_runtime.versions.paths import ARROW

_SUFFIX = re.compile(r"[\[(]")
_MOST_FUNCTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Ignored:
    """Places that do not count."""

    globals: frozenset[tuple[int, str]] = frozenset()
    """The identity of a namespace, and a name in it."""
    cells: frozenset[int] = frozenset()
    """Identities of closure cells."""
    attributes: frozenset[tuple[int, str]] = frozenset()
    """The identity of an object or class, and the name of an attribute of it."""
    data: bool = False
    """True if only code counts. Attributes of classes and globals that hold data do not, nor do options of libraries: they may change at any time."""


NOTHING = Ignored()
DATA = Ignored(data=True)


def ignored_places(body: object, names: Iterable[str]) -> Ignored:
    """Return the places that names mean for a body."""
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
    """Return the value of ``CONN``, ``module.CONN`` or ``client.cookies`` as a body knows it; `graph.MISSING` if there is none."""
    function = _function(body)
    first, *rest = name.split(".")
    found = (_scope(body, function) or {}).get(first, MISSING)
    cell = _cell(function, first) if found is MISSING and function is not None else None
    if cell is not None:
        found = _contents(cell)
    found = _inside(found, rest)
    if found is MISSING:
        found = sys.modules.get(name, MISSING)
    return _inside(sys.modules.get(first, MISSING), rest) if found is MISSING else found


def _inside(start: Any, path: Sequence[str]) -> Any:
    """Return what is reached from an object through attributes; no code of the user's runs."""
    found = start
    for name in path:
        if found is MISSING:
            break
        held = inspect.getattr_static(found, name, MISSING)
        if isinstance(held, MemberDescriptorType):
            held = getattr(found, name, MISSING)
        found = MISSING if isinstance(held, property) else held
    return found


def scope_of(body: object, path: str) -> dict[str, Any] | None:
    """Return the namespace in which the last part of a path is a variable: ``model -> helper -> client.cookies``."""
    scope = _scope(body, _function(body))
    for part in path.split(ARROW)[1:-1]:
        first, *rest = name_in(part).split(".")
        found = _inside((scope or {}).get(first, MISSING), rest)
        function = _function(found)
        if function is not None:
            scope = function.__globals__
        elif isinstance(found, type) and found.__module__ in sys.modules:
            scope = vars(sys.modules[found.__module__])
    return scope


def name_in(part: str) -> str:
    """Return the name with which a part of a path begins, without items and arguments: ``client.cookies`` of ``client.cookies['a']``."""
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
    found: Any = getattr(body, "__stepwell_body__", body)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    found = getattr(found, "func", found)
    found = getattr(found, "__func__", found)
    if not isinstance(found, FunctionType):
        found = vars(type(found)).get("__call__")
    return found if isinstance(found, FunctionType) else None


def _cell(function: FunctionType, name: str) -> CellType | None:
    """Return the nearest closure cell of a name, the function's own first."""
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

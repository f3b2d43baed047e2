"""Which place a name means that a definition leaves out: that one variable, and no other of the same name.

``CONN`` is the global of the body's own notebook or module, or the variable of an enclosing function that the body, else the nearest
of its helpers, holds; ``module.CONN`` is that module's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import CellType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody

_MOST_FUNCTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Ignored:
    """Places that do not count."""

    globals: frozenset[tuple[int, str]] = frozenset()
    """The identity of a namespace, and a name in it."""
    cells: frozenset[int] = frozenset()
    """Identities of closure cells."""


NOTHING = Ignored()


def ignored_places(body: object, names: Iterable[str]) -> Ignored:
    """Return the places that names mean for a body."""
    function = _function(body)
    scope: dict[str, Any] | None = (
        body.globals if isinstance(body, CellBody | SqlBody) else function.__globals__ if function is not None else None
    )
    places: set[tuple[int, str]] = set()
    cells: set[int] = set()
    for name in names:
        first, *rest = name.split(".")
        if rest:
            module: Any = (scope or {}).get(first) or sys.modules.get(first)
            for part in rest[:-1]:
                module = vars(module).get(part) if isinstance(module, ModuleType) else None
            if not isinstance(module, ModuleType):
                module = sys.modules.get(".".join([first, *rest[:-1]]))
            if isinstance(module, ModuleType):
                places.add((id(vars(module)), rest[-1]))
            continue
        if scope is not None:
            places.add((id(scope), name))
        cell = _cell(function, name) if function is not None else None
        if cell is not None:
            cells.add(id(cell))
    return Ignored(frozenset(places), frozenset(cells))


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

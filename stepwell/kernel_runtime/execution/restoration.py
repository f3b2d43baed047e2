"""Puts back into the notebook what a step left there: definitions, variables, and the contents of objects, in place."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib import import_module
from types import ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, Definition
from stepwell.kernel_runtime.execution.addresses import put, resolve
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.execution.views import view_of
from stepwell.kernel_runtime.records.effects import RESULT, Effects


class Restoration:
    """Puts a step's effects back into the notebook.

    Parameters
    ----------
    names
        Names that may be bound; None for all.
    """

    def __init__(
        self, timeline: Timeline, body: CellBody, effects: Effects, names: Collection[str] | None = None
    ) -> None:
        self._space = timeline.namespace
        self._body = body
        self.effects = effects
        self._names = names
        self._before = dict(timeline.namespace)
        self._views: dict[int, Any] = {}
        """Arrays over memory of others that were made, by the number of their link."""

    def may(self, name: str) -> bool:
        """Return True if a name may be bound."""
        return self._names is None or name in self._names

    def define(self) -> list[Definition]:
        """Execute imports, functions and classes again, in order; return those that wait for variables.

        Raises
        ------
        Exception
            Whatever an import or a decorator raises.
        """
        waiting = []
        for number in self.effects.definitions:
            if number >= len(self._body.definitions):
                continue
            definition = self._body.definitions[number]
            names = definition.names
            if not any(self.may(name) for name in names) if names else self._names is not None:
                continue
            if names and definition.is_import and all(isinstance(self._space.get(name), ModuleType) for name in names):
                continue
            try:
                exec(definition.code, self._space)  # noqa: S102 - the user's own cell
            except NameError:
                waiting.append(definition)
        return waiting

    def link(self, found: Any) -> Any:
        """Return the object that a link means."""
        kind, name, address = found
        if kind == "view":
            number = address[0]
            if number not in self._views:
                self._views[number] = view_of(name, address)
            return self._views[number]
        if kind == "module":
            return sys.modules.get(name) or import_module(name)
        return resolve(self._before if kind == "was" else self._space, name, address)

    def apply(self, plain: tuple[Any, ...], *, skip_objects: bool) -> list[str]:
        """Bind variables and put contents back; return the names that were bound.

        Raises
        ------
        NotRestorableError
            If an object takes no such content.
        """
        values, changes = plain[1:3]
        bound = []
        for name, value in values.items():
            if name != RESULT and self.may(name):
                self._space[name] = value
                bound.append(name)
        for item, how, value in () if skip_objects else changes:
            put(item, how, value)
        return bound

    def delete(self) -> list[str]:
        """Remove the names that the step deleted; return them."""
        names = [name for name in self.effects.deleted if self.may(name)]
        for name in names:
            self._space.pop(name, None)
        return names

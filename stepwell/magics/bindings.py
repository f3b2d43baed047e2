"""The variables that are bound to assets.

A name stays bound to its asset: when the asset gets a new value the variable is bound again, if it still is the object that
was bound. No second strong reference is kept, so that ``del`` frees the value; where a type takes no weak reference, a
strong one is dropped at the end of the first cell after which the name is no longer bound to it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.errors import StepwellError


@dataclass(slots=True)
class _Bound:
    key: str
    materialization: str
    ref: Callable[[], Any] | None
    strong: Any = None

    def value(self) -> Any:
        return self.ref() if self.ref is not None else self.strong


_GONE = object()


class Bindings:
    """Variables of a notebook that are values of assets.

    Parameters
    ----------
    namespace
        The notebook's variables.
    load
        Returns the current value of a key, an own copy.
    """

    def __init__(self, namespace: dict[str, Any], load: Callable[[str], Any]) -> None:
        self._namespace = namespace
        self._load = load
        self._bound: dict[str, _Bound] = {}
        self._waiting: dict[str, str] = {}
        """Keys with a new materialization that their variables do not have yet."""
        self._lock = threading.Lock()

    def bind(self, name: str, key: str, materialization: str, value: Any) -> None:
        """Bind a variable to a value of an asset."""
        try:
            ref: Callable[[], Any] | None = weakref.ref(value)
            strong = None
        except TypeError:
            ref, strong = None, value
        self._namespace[name] = value
        self._bound[name] = _Bound(key, materialization, ref, strong)
        with self._lock:
            self._waiting.pop(key, None)

    def holds(self, name: str, key: str, materialization: str) -> bool:
        """Whether a variable already is this materialization's value."""
        bound = self._bound.get(name)
        return (
            bound is not None and bound.key == key and bound.materialization == materialization and self.is_ours(name)
        )

    def is_ours(self, name: str) -> bool:
        """Whether a variable still is the object that was bound."""
        bound = self._bound.get(name)
        if bound is None:
            return False
        value = self._namespace.get(name, _GONE)
        if value is _GONE:
            return False
        return value is bound.value() and (bound.ref is None or value is not None)

    def key_of(self, name: str) -> str | None:
        """Return the key that a variable is bound to, or None."""
        bound = self._bound.get(name)
        return bound.key if bound is not None and self.is_ours(name) else None

    def materialized(self, key: str, materialization: str) -> None:
        """Take note of a new current value; the variable is bound again by `refresh`. May be called from any thread."""
        with self._lock:
            self._waiting[key] = materialization

    def refresh(self) -> None:
        """Bind the variables of assets that have new values."""
        if not self._waiting:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for name, bound in list(self._bound.items()):
            new = waiting.get(bound.key)
            if new is None or new == bound.materialization or not self.is_ours(name):
                continue
            try:
                self.bind(name, bound.key, new, self._load(bound.key))
            except StepwellError:
                # What cannot be loaded says so where it is asked for; the variable keeps the value it has.
                continue

    def withdraw(self, key: str) -> None:
        """Remove our variables of an asset that is no longer defined."""
        for name, bound in list(self._bound.items()):
            if bound.key == key:
                if self.is_ours(name):
                    del self._namespace[name]
                del self._bound[name]

    def after_cell(self) -> None:
        """Forget variables that the user has deleted or bound to something else."""
        for name, bound in list(self._bound.items()):
            if bound.ref is None and not self.is_ours(name):
                # Kept as a name that was ours, so that the next cell that reads it can say so.
                bound.strong = _GONE

    def was_ours(self, name: str) -> bool:
        """Whether a variable was bound to an asset and is now something else."""
        return name in self._bound and name in self._namespace and not self.is_ours(name)

    def clear(self) -> None:
        """Forget every binding; the variables stay."""
        self._bound.clear()

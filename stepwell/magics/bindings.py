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
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.versions.data import data_version

_MOST_COMPARED = 16_000_000
"""Bytes of a stored value up to which it is worth finding out whether the variable was changed in place."""


@dataclass(slots=True)
class _Bound:
    key: str
    materialization: str
    data_version: str
    size: int
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
        self._waiting: dict[str, Materialization] = {}
        """By key, new materializations that their variables do not have yet."""
        self._lock = threading.Lock()

    def bind(self, name: str, key: str, item: Materialization, value: Any) -> None:
        """Bind a variable to a value of an asset."""
        try:
            ref: Callable[[], Any] | None = weakref.ref(value)
            strong = None
        except TypeError:
            ref, strong = None, value
        self._namespace[name] = value
        size = item.value.size if item.value is not None else 0
        self._bound[name] = _Bound(key, item.id, item.data_version, size, ref, strong)
        with self._lock:
            self._waiting.pop(key, None)

    def is_ours(self, name: str) -> bool:
        """Whether a variable still is the object that was bound."""
        bound = self._bound.get(name)
        if bound is None:
            return False
        value = self._namespace.get(name, _GONE)
        if value is _GONE:
            return False
        return value is bound.value() and (bound.ref is None or value is not None)

    def key_of(self, name: str) -> str:
        """Return the key whose value a variable is bound to; empty for a variable of the user's own."""
        return self._bound[name].key if self.is_ours(name) else ""

    def is_as_stored(self, name: str) -> bool:
        """Whether a variable still is the object that was bound and, as far as can be told quickly, was not changed in place."""
        if not self.is_ours(name):
            return False
        bound = self._bound[name]
        if bound.size > _MOST_COMPARED:
            return True
        return data_version(self._namespace[name]) in (None, bound.data_version)

    def materialized(self, item: Materialization) -> None:
        """Take note of a new current value; the variable is bound again by `refresh`. May be called from any thread."""
        with self._lock:
            self._waiting[item.key] = item

    def refresh(self) -> None:
        """Bind the variables of assets that have new values."""
        if not self._waiting:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for name, bound in list(self._bound.items()):
            new = waiting.get(bound.key)
            if new is None or new.id == bound.materialization or not self.is_ours(name):
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
        """Let go of values whose variables the user has deleted or bound to something else."""
        for name, bound in list(self._bound.items()):
            if bound.ref is None and not self.is_ours(name):
                del self._bound[name]

    def clear(self) -> None:
        """Forget every binding; the variables stay."""
        self._bound.clear()

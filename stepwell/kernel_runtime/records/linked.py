"""A value that refers to objects which exist where it is loaded: these are stored as links, not as copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Link: TypeAlias = Callable[[Any], Any]
"""When storing: returns what identifies an object, or None to store it by value. When loading: returns the object."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A value for the store, and what tells which objects in it are links."""

    value: Any
    link: Link

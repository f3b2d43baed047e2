"""Objects that count only by a version that the user gives: ``CLIENT = stepwell.opaque(connect(), version="prod")``.

They are known by their identity, weakly where their type allows it; nothing else is left out of a code version.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.versions import graph
from stepwell.kernel_runtime.versions.atoms import ATOMS

T = TypeVar("T")

OPAQUE: dict[int, tuple[Callable[[], Any], str]] = {}
"""By identity: a way to the object, and its version."""


def opaque(obj: T, version: str = "") -> T:
    """Let an object count in code versions only by a version; return the object itself.

    Parameters
    ----------
    obj
        A connection, a client, a lock, a large constant: anything with an identity of its own.
    version
        What its users depend on; another text makes what reaches it stale.

    Raises
    ------
    InvalidInvocationError
        For numbers, texts and tuples: equal ones can be one object.
    """
    kind: type = type(obj)
    if kind in ATOMS or kind in {tuple, frozenset, range}:
        raise InvalidInvocationError(
            f"a {kind.__name__} cannot be opaque: equal ones can be one object",
            remedy="leave its name out instead: --ignore NAME, or ignore=[NAME]",
        )
    if not isinstance(version, str):
        raise InvalidInvocationError(
            f"the version of an opaque object is a text, not a {type(version).__name__}",
            remedy=f"opaque(obj, version={str(version)!r})",
        )
    key = id(obj)
    ref: Callable[[], Any]
    try:
        ref = weakref.ref(obj, lambda dead: _gone(key, dead))
    except TypeError:
        ref = lambda: obj  # noqa: E731 - a type without weak references
    OPAQUE[key] = (ref, version)
    # What was learned of code that reaches it no longer holds.
    graph.known.clear()
    return obj


def _gone(key: int, dead: Any) -> None:
    found = OPAQUE.get(key)
    if found is not None and found[0] is dead:
        del OPAQUE[key]

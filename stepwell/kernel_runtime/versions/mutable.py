"""What a step reaches that it could change: values in place, and globals that its code assigns.

Taken down before a body runs, compared after it: the digests of the walk before are those of the values before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeAlias

from stepwell.kernel_runtime.versions.atoms import ATOMS
from stepwell.kernel_runtime.versions.graph import MISSING, MUTABLE, VALUE, Node, digest_of
from stepwell.kernel_runtime.versions.paths import reached

Roots: TypeAlias = Sequence[tuple[Node, str]]
"""Nodes of a step's body and of what else counts, each with its path."""


class Watched:
    """The mutable things below some nodes, as they were when these were made."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._assigned: list[tuple[str, Mapping[str, Any], str, Any]] = []
        for node, where in _below(roots):
            item = node.ref()
            if node.rebinds and type(item) is FunctionType:
                scope = item.__globals__
                self._assigned += [
                    (reached(where, name), scope, name, scope.get(name, MISSING)) for name in node.rebinds
                ]

    def changed(self, roots: Roots) -> tuple[str, ...]:
        """Return the paths of what is another value now, given the nodes of a new walk over the same things."""
        found = {
            path: None for path, scope, name, value in self._assigned if not _same(value, scope.get(name, MISSING))
        }
        before = dict(_values(self.roots))
        for path, digest in _values(roots):
            if before.get(path, digest) != digest:
                found[path] = None
        return tuple(found)


def is_mutable(roots: Roots) -> bool:
    """Whether anything below the nodes can change in place, or is a global that the code assigns."""
    return any([node.flags & MUTABLE for node, _ in roots])  # noqa: C419 - a list is quicker for one or two


def _same(before: Any, after: Any) -> bool:
    return before is after or (type(before) is type(after) and type(before) in ATOMS and bool(before == after))


def _below(roots: Roots) -> Iterable[tuple[Node, str]]:
    queue = [root for root in roots if root[0].flags & MUTABLE]
    seen = {id(node) for node, _ in queue}
    for node, where in queue:
        yield node, where
        for label, child in node.edges:
            if child.flags & MUTABLE and id(child) not in seen:
                seen.add(id(child))
                queue.append((child, reached(where, label)))


def _values(roots: Roots) -> Iterable[tuple[str, bytes]]:
    return ((path, digest_of(node)) for node, path in _below(roots) if node.shape == VALUE)

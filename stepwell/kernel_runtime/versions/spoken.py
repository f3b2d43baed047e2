"""Annotations and documentation, which count only where something that is reached reads them.

An edit of them changes nothing, until code asks: ``inspect.signature(f)``, ``get_type_hints(f)``, ``f.__doc__``. Which function it asks about
is known only when it runs. So a step that reaches such code depends on the annotations and the documentation of everything of the user's that it
reaches. A library that wraps a function of the user's may have read them when it did: its wrapper is taken for such code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from stepwell.kernel_runtime.definitions.signatures import annotations_of
from stepwell.kernel_runtime.versions.atoms import atom, digest
from stepwell.kernel_runtime.versions.graph import Node, digest_of

READERS = frozenset((
    "signature", "getfullargspec", "get_type_hints", "get_annotations", "getdoc", "__doc__", "__annotations__", "__annotate__", "__signature__",
))  # fmt: skip
"""Functions and attributes that read annotations or documentation."""
_HOMES = frozenset(("inspect", "typing", "typing_extensions", "annotationlib", "pydoc"))


def is_reader(value: Any) -> bool:
    """Tell whether a value is a function that reads annotations or documentation, under whatever name."""
    return type(value) is FunctionType and value.__name__ in READERS and value.__module__ in _HOMES


def spoken_of(item: Any) -> tuple[Any, str | None] | None:
    """Return annotations and documentation of a function or class; None if it has neither. The annotations of classes count anyway."""
    if type(item) is FunctionType:
        annotations = annotations_of(item)
    elif issubclass(type(item), type):
        annotations = None
    else:
        return None
    doc = item.__doc__
    return (annotations, doc) if annotations or doc else None


def spoken_digest(root: Node, node_of: Callable[[Any], Node]) -> bytes:
    """Return the digest of the annotations and the documentation of everything that is reached from a node.

    Parameters
    ----------
    node_of
        Digests an object.
    """
    pieces = []
    for node in _below(root):
        told = spoken_of(node.ref())
        if told is not None:
            annotations, doc = told
            below = digest_of(node_of(annotations)) if annotations else b""
            pieces.append(digest_of(node) + below + atom(doc))
    return digest(b"".join(sorted(pieces)))


def _below(root: Node) -> Iterable[Node]:
    found = [root]
    seen = {id(root)}
    for node in found:
        for _, child in node.edges:
            if id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found

"""The graph of objects that code reaches, and its digests.

Each function, class, instance and container of a global is a node: its encoding, with a mark for each other node
that it refers to. The digest of a node covers its bytes and the digests of the nodes that it refers to. Nodes that reach
each other (mutual recursion, a class whose methods name it) form a group, found with Tarjan's algorithm; the digest of a member
is that of the whole group, written from this member on, with references by position. So a digest depends only on the reachable
objects: not on names of files, the order of definition, or the node at which the walk started. The stack is
explicit, because chains of helpers may be deep.

A path says how an object is reached: ``target -> helper -> CONN``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from stepwell.kernel_runtime.records.materializations import CodeVersion
from stepwell.kernel_runtime.versions.encode import Tag, digest
from stepwell.kernel_runtime.versions.secrets import hidden_text

ARROW = " -> "
IGNORED = "(ignore)"
"""The end of the path of the part that lists the names of ``ignore``."""
_MOST_STEPS = 12


def reached(path: str, label: str) -> str:
    """Return the path of the object with a label in the object at `path`.

    A name is a separate step; an attribute, an item or a default is a suffix of the step before. The middle of a
    long path is left out.
    """
    if not label:
        return path
    if label[0] in ".[(":
        # The key of a mapping may be a token.
        return path + (hidden_text(label) if label[0] == "[" else label)
    if path.count(ARROW) >= _MOST_STEPS:
        steps = path.split(ARROW)
        path = ARROW.join([*steps[:4], "..", *steps[-5:]])
    return path + ARROW + label


_FREED: Any = ()
"""Replaces the bytes of a node that has its digest, to free memory: a run has thousands of nodes."""

Edge: TypeAlias = tuple[str, "Node"]
"""The label of an object in the node that refers to it, and its node. Labels of globals are names; others begin with ``.``, ``[`` or ``(``."""

UNVERIFIABLE, ASSET, MUTABLE, READS_DOCS = 1, 2, 4, 8
VALUE = ("value",)
"""The shape of nodes that hold data."""
MISSING: Any = object()
"""The value of a name that is not bound."""


known: dict[int, Node] = {}
"""Nodes that outlive a run, by the identity of their object."""


class KeyedRef(weakref.ref[Any]):
    """A weak reference with the identity of its object, which is still known after the object was deleted."""

    __slots__ = ("key",)
    key: int


def keyed_ref(item: object, key: int) -> KeyedRef:
    """Return a reference to an object with an identity; the object's node leaves `known` when the object is deleted."""
    ref = KeyedRef(item, _drop)
    ref.key = key
    return ref


def _drop(ref: KeyedRef, table: dict[int, Node] = known) -> None:
    """Drop the node of a deleted object. The table is a default because globals are cleared before the process ends."""
    node = table.get(ref.key)
    if node is not None and node.ref is ref:
        del table[ref.key]


class Node:
    """One object that code reaches."""

    __slots__ = (
        "assets", "content", "digest", "edges", "flags", "group", "index", "issues", "lengths", "low", "mappings", "names", "pending",
        "rebinds", "ref", "shape", "stable", "stamp", "unordered", "version",
    )  # fmt: skip

    ref: Callable[[], Any]
    """Returns the object, None after it was deleted."""
    content: list[bytes]
    """Its encoding, without the nodes that it refers to."""
    pending: list[tuple[str, Any]]
    """Labels and objects that it refers to, until their nodes exist."""
    edges: Sequence[Edge]
    digest: bytes | None
    flags: int
    """UNVERIFIABLE, ASSET, MUTABLE, READS_DOCS (annotations or documentation): set if the node or one below it is of this kind."""
    issues: tuple[tuple[str, str], ...]
    """Labels of objects that cannot be digested, with the reasons."""
    assets: tuple[tuple[str, str], ...]
    """Labels and keys of the assets that it reads as globals."""
    stable: bool
    """True if a guard detects every change of the node and of those below it."""
    rebinds: tuple[str, ...]
    """Globals that the code assigns."""
    names: Sequence[tuple[str, Any]]
    """Guard: the global names with their values."""
    mappings: tuple[tuple[Mapping[str, Any], str, Any], ...]
    """Guard: names in modules and classes with their values."""
    lengths: tuple[tuple[Any, int], ...]
    """Guard: namespaces with the number of their entries."""
    shape: tuple[Any, ...]
    """Guard: a function's code, defaults and so on."""
    unordered: bool
    """True if the order of the edges does not count (a set)."""

    def __init__(self, ref: Callable[[], Any]) -> None:
        self.ref = ref
        self.content = []
        self.pending = []
        # Most of these stay empty: the empty tuple costs neither memory nor time of the garbage collector.
        self.edges = ()
        self.digest = None
        self.flags = 0
        self.issues = ()
        self.assets = ()
        self.stable = True
        self.names = ()
        self.mappings = ()
        self.lengths = ()
        self.shape = ()
        self.rebinds = ()
        self.unordered = False
        self.group: list[Node] | None = None
        self.index = -1
        self.low = -1
        self.stamp: object = None
        self.version: CodeVersion | None = None

    def unverifiable(self, label: str, reason: str) -> None:
        """Record a reference to an object that cannot be digested."""
        self.issues = (*self.issues, (label, reason))
        self.flags |= UNVERIFIABLE


def finish(root: Node, find: Callable[[Any], Node | None], expand: Callable[[Any], Node]) -> None:
    """Expand and digest all nodes that a node reaches.

    Parameters
    ----------
    root
        A node with pending references; one without needs only `close_leaf`.
    find
        Returns the known node of an object, None if there is none.
    expand
        Makes the node of an object.
    """
    counter = 1
    root.index = root.low = 0
    edges: list[Edge] = []
    root.edges = edges
    work = [(root, iter(root.pending), edges)]
    open_nodes = [root]
    while work:
        node, pending, edges = work[-1]
        for label, item in pending:
            child = find(item)
            if child is None:
                child = expand(item)
                edges.append((label, child))
                if not child.pending:
                    close_leaf(child)
                    continue
                child.index = child.low = counter
                counter += 1
                open_nodes.append(child)
                inner: list[Edge] = []
                child.edges = inner
                work.append((child, iter(child.pending), inner))
                break
            edges.append((label, child))
            if child.digest is None and child.group is None and child.index < node.low:
                node.low = child.index
        else:
            work.pop()
            if work and node.low < work[-1][0].low:
                work[-1][0].low = node.low
            if node.low == node.index:
                members = []
                while True:
                    member = open_nodes.pop()
                    members.append(member)
                    if member is node:
                        break
                _close(members)


def close_leaf(node: Node) -> None:
    """Digest a node without references."""
    content = node.content
    if node.digest is None:
        node.digest = digest(content[0] if len(content) == 1 else b"".join(content))
    node.content = node.pending = _FREED


def _close(members: list[Node]) -> None:
    """Digest a node, or make a group of nodes that reach each other; combine their flags with those of the nodes below."""
    flags = 0
    stable = True
    for node in members:
        node.pending = _FREED
        flags |= node.flags
        stable = stable and node.stable
    alone = len(members) == 1
    for node in members:
        for _, child in node.edges:
            if child.digest is None and child.group is None:
                alone = alone and child is not node
                continue
            flags |= child.flags
            stable = stable and child.stable
    for node in members:
        node.flags |= flags
        node.stable = stable
    if _is_copy(members):
        return
    if not alone:
        for node in members:
            node.group = members
        return
    node = members[0]
    below = [digest_of(child) for _, child in node.edges]
    if node.unordered:
        below.sort()
    node.digest = digest(b"".join(node.content + below))
    node.content = _FREED


def _is_copy(members: list[Node]) -> bool:
    """Give nodes the digests of equal nodes, if a group that they refer to has some.

    A recursive function that was kept under another name, and whose cell was executed again, refers to the new function.
    It is equal to the new function, though it is not a member of that group.
    """
    identities = {id(node) for node in members}
    tried: set[int] = set()
    for node in members:
        for _, child in node.edges:
            group = child.group
            if group is None or id(child) in identities or id(group) in tried:
                continue
            tried.add(id(group))
            for other in group:
                if other.content == node.content:
                    pairs = _equal_pairs(node, other, identities)
                    if pairs is not None:
                        for member, like in pairs:
                            member.digest = digest_of(like)
                        return True
    return False


def _equal_pairs(node: Node, other: Node, identities: set[int]) -> list[tuple[Node, Node]] | None:
    """Return pairs of equal nodes, beginning with the first two; None if these are not equal.

    Parameters
    ----------
    identities
        Identities of the nodes that have no digest yet.
    """
    pairs = [(node, other)]
    paired = {id(node): other}
    for member, like in pairs:
        if member.content != like.content or len(member.edges) != len(like.edges) or member.unordered:
            return None
        for (_, below), (_, below_like) in zip(member.edges, like.edges, strict=True):
            if below is below_like:
                continue
            if id(below) not in identities:
                if digest_of(below) != digest_of(below_like):
                    return None
            elif id(below) not in paired:
                paired[id(below)] = below_like
                pairs.append((below, below_like))
            elif paired[id(below)] is not below_like:
                return None
    return pairs


def digest_of(node: Node) -> bytes:
    """Return the digest of a node. All nodes below it must be finished."""
    if node.digest is None:
        node.digest = _group_digest(node)
    return node.digest


def _group_digest(start: Node) -> bytes:
    """Return the digest of a group, written from one of its members on."""
    group = start.group
    assert group is not None
    places = {id(start): 0}
    queue = [start]
    out: list[bytes] = [Tag.GROUP]
    for node in queue:
        out += node.content
        below: list[bytes] = []
        for _, child in node.edges:
            if child.group is group:
                place = places.get(id(child))
                if place is None:
                    place = places[id(child)] = len(queue)
                    queue.append(child)
                below.append(Tag.MEMBER + place.to_bytes(4, "little"))
            else:
                below.append(digest_of(child))
        if node.unordered:
            below.sort()
        out += below
    return digest(b"".join(out))

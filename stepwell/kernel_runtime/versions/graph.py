"""The graph of objects that code reaches, and its digests.

Each function, class, instance and container that code reaches is a node. A node consists of an encoding with a mark for each reference to
another node. The digest of a node covers the encoding and the digests of the referenced nodes. Nodes that reach each other (mutual
recursion, a class whose methods name the class) form a group, found with Tarjan's algorithm. The digest of a member is the digest of the
whole group, written from this member on, with references by position. So a digest depends only on the reachable objects, not on file names,
the order of definitions, or the node at which the walk started. The stack is explicit, because chains of helper functions may be deep.

A path shows how the code reaches an object: ``target -> helper -> CONN``.
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
"""The last step of the path of the part that lists the names of ``ignore``."""
_MOST_STEPS = 12


def extended_path(path: str, label: str) -> str:
    """Return the path of an object, given the path of the referring object and the label of the reference.

    A name is a separate step. An attribute, an item or a default is a suffix of the previous step. The middle of a long path is left out.
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
"""Replaces the encoding of a node after its digest is known, to free memory: a run has thousands of nodes."""

Edge: TypeAlias = tuple[str, "Node"]
"""A reference: its label, and the node of the referenced object. Labels of globals are names; others begin with ``.``, ``[`` or ``(``."""

UNVERIFIABLE, ASSET, MUTABLE, READS_DOCS = 1, 2, 4, 8
VALUE = ("value",)
"""The shape of nodes that hold data."""
MISSING: Any = object()
"""The value of a name that is not bound."""


known_nodes: dict[int, Node] = {}
"""Nodes that outlive a run, by the identity of their object."""


class KeyedRef(weakref.ref[Any]):
    """A weak reference that keeps the identity of its object after the object is deleted."""

    __slots__ = ("key",)
    key: int


def keyed_ref(item: object, key: int) -> KeyedRef:
    """Return a weak reference to an object. When the object is deleted, its node is removed from `known_nodes`."""
    ref = KeyedRef(item, _drop)
    ref.key = key
    return ref


def _drop(ref: KeyedRef, table: dict[int, Node] = known_nodes) -> None:
    """Drop the node of a deleted object. The table is a default argument, because globals are cleared before the process ends."""
    node = table.get(ref.key)
    if node is not None and node.ref is ref:
        del table[ref.key]


class Node:
    """The node of one object that code reaches."""

    __slots__ = (
        "assets", "content", "digest", "edges", "flags", "group", "index", "issues", "lengths", "low", "mappings", "names", "pending",
        "rebinds", "ref", "shape", "stable", "stamp", "unordered", "version",
    )  # fmt: skip

    ref: Callable[[], Any]
    """Returns the object, or None after the object was deleted."""
    content: list[bytes]
    """The encoding of the object, without the referenced nodes."""
    pending: list[tuple[str, Any]]
    """References whose nodes do not exist yet: labels and objects."""
    edges: Sequence[Edge]
    digest: bytes | None
    flags: int
    """UNVERIFIABLE, ASSET, MUTABLE, READS_DOCS (reads annotations or documentation): set if they apply to the node or to a node below
    it."""
    issues: tuple[tuple[str, str], ...]
    """Labels of objects that cannot be digested, with the reasons."""
    assets: tuple[tuple[str, str], ...]
    """Labels and keys of the assets that the code reads as globals."""
    stable: bool
    """True if guards detect every change of the node and of the nodes below it."""
    rebinds: tuple[str, ...]
    """Globals that the code assigns."""
    names: Sequence[tuple[str, Any]]
    """Guard: global names with their values."""
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
        # Most of these stay empty. The empty tuple costs neither memory nor time of the garbage collector.
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
    """Expand and digest a node and all nodes that it reaches.

    Parameters
    ----------
    root
        A node with pending references; for a node without references, `close_leaf` is enough.
    find
        Returns the known node of an object, or None.
    expand
        Creates the node of an object.
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
    """Digest one node, or a group of nodes that reach each other. Their flags are combined with those of the nodes below."""
    flags = 0
    stable = True
    for node in members:
        node.pending = _FREED
        flags |= node.flags
        stable = stable and node.stable
    is_single = len(members) == 1
    for node in members:
        for _, child in node.edges:
            if child.digest is None and child.group is None:
                is_single = is_single and child is not node
                continue
            flags |= child.flags
            stable = stable and child.stable
    for node in members:
        node.flags |= flags
        node.stable = stable
    if _is_copy(members):
        return
    if not is_single:
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
    """Take over the digests of equal nodes from a group to which the nodes refer; return True if there is such a group.

    Example: a recursive function is kept under another name, and its cell is executed again. The old function then calls the new one, so it
    is not in the group of the new function, but it is equal to that function.
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
    """Return all pairs of nodes that correspond below two nodes, beginning with these two; None if the two are not equal.

    Parameters
    ----------
    identities
        Identities of the nodes without a digest.
    """
    pairs = [(node, other)]
    paired = {id(node): other}
    for member, like in pairs:
        if member.content != like.content or len(member.edges) != len(like.edges) or member.unordered:
            return None
        for (_, child), (_, child_like) in zip(member.edges, like.edges, strict=True):
            if child is child_like:
                continue
            if id(child) not in identities:
                if digest_of(child) != digest_of(child_like):
                    return None
            elif id(child) not in paired:
                paired[id(child)] = child_like
                pairs.append((child, child_like))
            elif paired[id(child)] is not child_like:
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
        child_digests: list[bytes] = []
        for _, child in node.edges:
            if child.group is group:
                place = places.get(id(child))
                if place is None:
                    place = places[id(child)] = len(queue)
                    queue.append(child)
                child_digests.append(Tag.MEMBER + place.to_bytes(4, "little"))
            else:
                child_digests.append(digest_of(child))
        if node.unordered:
            child_digests.sort()
        out += child_digests
    return digest(b"".join(out))

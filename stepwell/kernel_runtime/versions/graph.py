"""The graph of objects that code reaches, and its digests.

Each function, class, instance and container that code reaches has a node. A node contains the encoding of its object, with a placeholder for
each reference to another node. The digest of a node covers this encoding and the digests of the referenced nodes.

Nodes that reach each other (mutual recursion, a class whose methods name the class) form a group, found with Tarjan's algorithm. To digest a
node of a group, the whole group is written, beginning with this node, and a reference inside the group is written as a position. So a digest
depends only on the reachable objects, not on file names, the order of definitions, or the node at which the walk started. The algorithm has
an explicit stack, because a chain of helper functions may be longer than Python's recursion limit.

The *guards* of a node are the values on which its digest depends, as they were when the node was made. `walk` compares the guards with the
present values to decide whether a later code walk can use the node again.

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
"""The end of the path of the code part (`CodePart`) that lists the names in the option ``ignore``."""
_MOST_STEPS = 12


def extended_path(path: str, label: str) -> str:
    """Return the path of an object to which another object refers.

    The middle of a long path is left out.

    Parameters
    ----------
    path
        The path of the referring object.
    label
        The label of the reference (`Edge`). A name is added after an arrow; the label of an attribute, an item or a default is added directly. An
        empty label adds nothing.
    """
    if not label:
        return path
    if label[0] in ".[(":
        # The key of a mapping may be a secret.
        return path + (hidden_text(label) if label[0] == "[" else label)
    if path.count(ARROW) >= _MOST_STEPS:
        steps = path.split(ARROW)
        path = ARROW.join([*steps[:4], "..", *steps[-5:]])
    return path + ARROW + label


_FREED: Any = ()
"""Replaces the content and the pending references of a node when they are no longer needed. This frees memory: a code walk has thousands of nodes."""

Edge: TypeAlias = tuple[str, "Node"]
"""A reference from one node to another: its label, and the node of the referenced object. The label of a variable is its name. The label of an
attribute, an item or a default begins with ``.``, ``[`` or ``(``. The label of the function inside a wrapper is empty."""

UNVERIFIABLE, ASSET, MUTABLE, READS_DOCS = 1, 2, 4, 8
VALUE = ("value",)
"""The `Node.shape` of data: a container, an array, a frame or an instance."""
MISSING: Any = object()
"""Stands for the value of a name that is not bound."""


known_nodes: dict[int, Node] = {}
"""Nodes of functions and classes that later code walks may use again. The key of a node is the identity of its object or, if the node contains
code only and no data, the complement (``~``) of this identity."""


class KeyedRef(weakref.ref[Any]):
    """A weak reference that keeps the identity of its object after the object is deleted."""

    __slots__ = ("key",)
    key: int
    """The identity of the object, from `encode.identity`."""


def keyed_ref(item: object, key: int) -> KeyedRef:
    """Return a weak reference to an object whose identity is `key`. When the object is deleted, `_drop` is called."""
    ref = KeyedRef(item, _drop)
    ref.key = key
    return ref


def _drop(ref: KeyedRef, table: dict[int, Node] = known_nodes) -> None:
    """Remove the node of a deleted object from `known_nodes`. If the object has a second node, with code only, that one remains, but is never used.

    `table` is `known_nodes`. It is a default argument, because Python clears the globals of modules before the process ends.
    """
    node = table.get(ref.key)
    if node is not None and node.ref is ref:
        del table[ref.key]


class Node:
    """One object that code reaches, as a node of the graph of a code walk, with its encoding and its references to other nodes."""

    __slots__ = (
        "assets", "content", "digest", "edges", "flags", "group", "index", "issues", "lengths", "low", "mappings", "names", "pending",
        "rebinds", "ref", "shape", "stable", "stamp", "unordered", "version",
    )  # fmt: skip

    ref: Callable[[], Any]
    """Returns the object, or None after the object was deleted."""
    content: list[bytes]
    """The encoding of the object in pieces, with a placeholder for each reference to another node."""
    pending: list[tuple[str, Any]]
    """References to objects whose nodes do not exist yet, each as its label and the object."""
    edges: Sequence[Edge]
    digest: bytes | None
    """The digest. None before the node is finished, and for a node of a group until `digest_of` is called."""
    flags: int
    """UNVERIFIABLE (an object has no digest), ASSET (code reads an asset as a global), MUTABLE (a value can change in place, or code assigns
    a global) and READS_DOCS (code reads annotations or documentation). A flag is set if it applies to this node or to a node that it reaches."""
    issues: tuple[tuple[str, str], ...]
    """Referenced objects that cannot be digested, each as the label of the reference and the reason."""
    assets: tuple[tuple[str, str], ...]
    """Assets that the code reads as globals, each as its name and its asset key."""
    stable: bool
    """True if the guards of this node and of the nodes that it reaches detect every change of their objects."""
    rebinds: tuple[str, ...]
    """Globals that the code assigns or deletes."""
    names: Sequence[tuple[str, Any]]
    """Guard: the globals that the code loads, with their values."""
    mappings: tuple[tuple[Mapping[str, Any], str, Any], ...]
    """Guard: entries of mappings, such as the namespaces of modules and classes, each as the mapping, the name and the value."""
    lengths: tuple[tuple[Any, int], ...]
    """Guard: mappings, each with the number of its entries."""
    shape: tuple[Any, ...]
    """Guard: for a function, its code, defaults, keyword defaults, closure and number of attributes; for a class, its type and bases; `VALUE`
    for data; else empty."""
    unordered: bool
    """True if the object is a set. The digests of the nodes to which it refers are then sorted."""

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
        """Record that an object cannot be digested.

        Parameters
        ----------
        label
            The label of the reference from this node to the object; empty if it is the object of this node itself.
        reason
            Why the object cannot be digested, for the user.
        """
        self.issues = (*self.issues, (label, reason))
        self.flags |= UNVERIFIABLE


def finish(root: Node, find: Callable[[Any], Node | None], expand: Callable[[Any], Node]) -> None:
    """Create the nodes of all objects that `root` reaches, and digest `root` and these nodes.

    Parameters
    ----------
    root
        A new node with pending references; for a node without references, `close_leaf` is enough.
    find
        Returns the existing node of an object; None if the object has none yet.
    expand
        Creates the node of an object, with its references in `Node.pending`.
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
    """Digest one node, or record several nodes as a group, whose digests `digest_of` computes later.

    The nodes also get the flags of the nodes that they reach.

    Parameters
    ----------
    members
        One node, or all nodes that reach each other.
    """
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
    """Return True if `members` are a copy of a group: they refer to a node of the group, and each of them is equal to a node of the group.

    If so, copy the digests of the nodes of the group to the members.

    Example: the user keeps a recursive function under another name and executes the function's cell again. The old function then calls the
    new one, but not the reverse, so the two do not reach each other. Nevertheless, they are equal.
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
    """Return the pairs of corresponding nodes that `node` and `other` reach, beginning with these two; None if they are not equal.

    Parameters
    ----------
    identities
        The ``id`` of each node that `node` reaches and that has no digest yet.
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
    """Return the digest of a finished node. The digest of a node in a group is computed at the first call."""
    if node.digest is None:
        node.digest = _group_digest(node)
    return node.digest


def _group_digest(start: Node) -> bytes:
    """Return the digest of a node in a group: the whole group is written, beginning with this node."""
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

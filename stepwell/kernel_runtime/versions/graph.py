"""The graph of objects that code reaches, and its digests.

Each function, class, instance and container of a global is a node: the bytes that it means by itself, with a mark for each other node
that it refers to. The digest of a node is that of its bytes and of the digests of what it refers to. Nodes that reach
each other (mutual recursion, a class whose methods name it) form a group, found with Tarjan's algorithm; there the digest of a node
is that of the group written down from this node on, each member by its place. So a digest depends on nothing but what
can be reached: not on names of files, the order of definition, or the node that the walk happened to enter by. The stack is
explicit: chains of helpers get deep.

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
"""Ends the path of the part that lists the names which do not count."""
_MOST_STEPS = 12


def reached(path: str, label: str) -> str:
    """Return the path of what is called `label` in the thing at `path`.

    A name is a step of its own; an attribute, an item or a default belongs to the thing that has it. The middle of a
    long path is left out.
    """
    if not label:
        return path
    if label[0] in ".[(":
        # A key of a mapping may be anything, a token too.
        return path + (hidden_text(label) if label[0] == "[" else label)
    if path.count(ARROW) >= _MOST_STEPS:
        steps = path.split(ARROW)
        path = ARROW.join([*steps[:4], "..", *steps[-5:]])
    return path + ARROW + label


_WRITTEN: Any = ()
"""In place of what a node was made of, once its digest is all that is asked of it: a run has thousands of them."""

Edge: TypeAlias = tuple[str, "Node"]
"""How the object is called there, and its node. Labels of globals are names; others begin with ``.``, ``[`` or ``(``."""

UNVERIFIABLE, ASSET, MUTABLE, SPEAKS = 1, 2, 4, 8
VALUE = ("value",)
"""The shape of nodes that hold data."""
MISSING: Any = object()
"""What a name is bound to that is not bound."""


known: dict[int, Node] = {}
"""Nodes that outlive a run, by the identity of their object."""


class KeyedRef(weakref.ref[Any]):
    """A weak reference that knows the identity of what it referred to."""

    __slots__ = ("key",)
    key: int


def keyed_ref(item: object, key: int) -> KeyedRef:
    """Return a reference to an object, of that identity, whose node is dropped when the object is gone."""
    made = KeyedRef(item, gone)
    made.key = key
    return made


def gone(ref: KeyedRef, table: dict[int, Node] = known) -> None:
    """Drop the node of an object that is no more; the table is bound early because modules empty before the process ends."""
    node = table.get(ref.key)
    if node is not None and node.ref is ref:
        del table[ref.key]


class Node:
    """One object that code reaches."""

    __slots__ = (
        "assets", "digest", "edges", "flags", "group", "index", "issues", "lengths", "low", "mappings", "names", "own", "pending",
        "rebinds", "ref", "shape", "stable", "stamp", "unordered", "version",
    )  # fmt: skip

    ref: Callable[[], Any]
    """The object, or None when it is gone."""
    own: list[bytes]
    """What it means by itself."""
    pending: list[tuple[str, Any]]
    """What it refers to, until the nodes of these are known."""
    edges: Sequence[Edge]
    digest: bytes | None
    flags: int
    """UNVERIFIABLE, ASSET, MUTABLE, SPEAKS (reads annotations or documentation): whether such a thing is in it or below it."""
    issues: tuple[tuple[str, str], ...]
    """Labels and reasons of what it reaches and cannot be digested."""
    assets: tuple[tuple[str, str], ...]
    """Labels and keys of the assets that it reads as globals."""
    stable: bool
    """Whether nothing in it and below it can change without one of the guards noticing."""
    rebinds: tuple[str, ...]
    """Globals that the code assigns."""
    names: Sequence[tuple[str, Any]]
    """Guard: what each global name was bound to."""
    mappings: tuple[tuple[Mapping[str, Any], str, Any], ...]
    """Guard: what a name in a module or class was bound to."""
    lengths: tuple[tuple[Any, int], ...]
    """Guard: how many entries a namespace had."""
    shape: tuple[Any, ...]
    """Guard: a function's code, defaults and so on."""
    unordered: bool
    """Whether the order of the edges means nothing (a set)."""

    def __init__(self, ref: Callable[[], Any]) -> None:
        self.ref = ref
        self.own = []
        self.pending = []
        # Most nodes have few of these: an empty tuple is no object for the garbage collector.
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
        """Record that something that cannot be digested is reached here."""
        self.issues = (*self.issues, (label, reason))
        self.flags |= UNVERIFIABLE


def finish(root: Node, find: Callable[[Any], Node | None], expand: Callable[[Any], Node]) -> None:
    """Expand everything that is reached from a node, and digest it.

    Parameters
    ----------
    root
        A node with what it refers to still pending: something, or `close_leaf` is all that it needs.
    find
        Returns the node of an object that is known already.
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
    """Digest a node that refers to no other."""
    own = node.own
    if node.digest is None:
        node.digest = digest(own[0] if len(own) == 1 else b"".join(own))
    node.own = node.pending = _WRITTEN


def _close(members: list[Node]) -> None:
    """Digest a node, or note the nodes that reach each other; pass on what is known of them."""
    flags = 0
    stable = True
    for node in members:
        node.pending = _WRITTEN
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
    node.digest = digest(b"".join(node.own + below))
    node.own = _WRITTEN


def _is_copy(members: list[Node]) -> bool:
    """Give nodes the digests of others that mean the same, if there are such in a group that they refer to.

    A function that calls itself by name, kept under another name when its cell is executed again, refers to the new one.
    It means what the new one means, though it is no member of that group.
    """
    own = {id(node) for node in members}
    tried: set[int] = set()
    for node in members:
        for _, child in node.edges:
            group = child.group
            if group is None or id(child) in own or id(group) in tried:
                continue
            tried.add(id(group))
            for other in group:
                if other.own == node.own:
                    pairs = _same(node, other, own)
                    if pairs is not None:
                        for member, like in pairs:
                            member.digest = digest_of(like)
                        return True
    return False


def _same(node: Node, other: Node, own: set[int]) -> list[tuple[Node, Node]] | None:
    """Return nodes paired with those that mean the same, if the first two do; None if not.

    Parameters
    ----------
    own
        Identities of the nodes that have no digest yet.
    """
    pairs = [(node, other)]
    paired = {id(node): other}
    for one, like in pairs:
        if one.own != like.own or len(one.edges) != len(like.edges) or one.unordered:
            return None
        for (_, below), (_, below_like) in zip(one.edges, like.edges, strict=True):
            if below is below_like:
                continue
            if id(below) not in own:
                if digest_of(below) != digest_of(below_like):
                    return None
            elif id(below) not in paired:
                paired[id(below)] = below_like
                pairs.append((below, below_like))
            elif paired[id(below)] is not below_like:
                return None
    return pairs


def digest_of(node: Node) -> bytes:
    """Return the digest of a node of which everything below is known."""
    if node.digest is None:
        node.digest = _written_from(node)
    return node.digest


def _written_from(start: Node) -> bytes:
    """Return the digest of a group as seen from one of its members."""
    group = start.group
    assert group is not None
    places = {id(start): 0}
    queue = [start]
    out: list[bytes] = [Tag.GROUP]
    for node in queue:
        out += node.own
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

"""The code version of a step: one canonical walk from its body over everything that its result can depend on.

`CodeWalk.of` returns the version quickly. `CodeWalk.parts` returns the parts of the version, with sources, for a step that is about to
execute or is explained. A walk is used for one run. The nodes of functions and classes are reused in later runs of the process while guards
confirm that nothing changed: the same code, defaults and closure, and each name bound to the same object. Values that can change in place
are digested again in each run. `Watched` compares these values before and after a body runs, and the globals that the body assigns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any, TypeAlias

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.records.materializations import CodePart, CodeVersion, Unverifiable
from stepwell.kernel_runtime.versions import inventory, library_state, opcodes
from stepwell.kernel_runtime.versions.bytecode import documentation_digest
from stepwell.kernel_runtime.versions.encode import ATOMS, digest, identity
from stepwell.kernel_runtime.versions.environment import Keyed
from stepwell.kernel_runtime.versions.expand import Expander
from stepwell.kernel_runtime.versions.graph import (
    ASSET,
    MISSING,
    MUTABLE,
    READS_DOCS,
    UNVERIFIABLE,
    VALUE,
    KeyedRef,
    Node,
    close_leaf,
    digest_of,
    extended_path,
    finish,
    known_nodes,
)
from stepwell.kernel_runtime.versions.left_out import DATA, NOTHING, Ignored, ignored_places

Roots: TypeAlias = Sequence[tuple[Node, str]]
"""Nodes of a step's body and of its other dependencies, each with its path."""


class Watched:
    """The state of the mutable values below some nodes, as of the creation of the nodes."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._assigned: list[tuple[str, Mapping[str, Any], str, Any]] = []
        for node, where in _mutable_nodes(roots):
            item = node.ref()
            if node.rebinds and type(item) is FunctionType:
                scope = item.__globals__
                self._assigned += [
                    (extended_path(where, name), scope, name, scope.get(name, MISSING)) for name in node.rebinds
                ]

    def changed_paths(self, roots: Roots) -> tuple[str, ...]:
        """Return the paths of values that have changed, given the nodes of a new walk over the same objects."""
        paths = {
            path: None for path, scope, name, value in self._assigned if not _is_same(value, scope.get(name, MISSING))
        }
        before = dict(_values(self.roots))
        for path, now in _values(roots):
            if before.get(path, now) != now:
                paths[path] = None
        return tuple(paths)


def is_mutable(roots: Roots) -> bool:
    """Return True if a value below the nodes can change in place, or is a global that the code assigns."""
    return any([node.flags & MUTABLE for node, _ in roots])  # noqa: C419 - a list is quicker for one or two


def _is_same(before: Any, after: Any) -> bool:
    return before is after or (type(before) is type(after) and type(before) in ATOMS and bool(before == after))


def _mutable_nodes(roots: Roots) -> Iterable[tuple[Node, str]]:
    queue = [root for root in roots if root[0].flags & MUTABLE]
    seen = {id(node) for node, _ in queue}
    for node, where in queue:
        yield node, where
        for label, child in node.edges:
            if child.flags & MUTABLE and id(child) not in seen:
                seen.add(id(child))
                queue.append((child, extended_path(where, label)))


def _values(roots: Roots) -> Iterable[tuple[str, bytes]]:
    return ((path, digest_of(node)) for node, path in _mutable_nodes(roots) if node.shape == VALUE)


Pin: TypeAlias = Callable[[str, CellBody, CodeVersion], CodeVersion]
"""A function of a step's key, its body and its present code version that returns the version that counts."""

_MOST_KNOWN = 100_000
_NO_ASSETS: Mapping[str, str] = {}


def _cells_unchanged(cells: Iterable[tuple[CellType, Any]]) -> bool:
    """Return True if the cells of a closure still hold the same objects."""
    for cell, held in cells:
        try:
            if cell.cell_contents is not held:
                return False
        except ValueError:
            if held is not MISSING:
                return False
    return True


class CodeWalk:
    """Code versions of the steps of one run.

    Parameters
    ----------
    asset_names
        Names of the notebook's registered assets, each with its key. Code that reads such a name as a global of `namespace`
        depends on the asset's data version, which is reported in `CodeVersion.asset_names`, not on the value bound to the name.
    namespace
        The notebook's globals; None without a notebook.
    ignored
        Variables that do not count. Nodes without such a variable's value are not kept for later runs.
    keyed
        Digests bytes with the user's key, for values that a plain digest could reveal: parts, and values with a secret's name. If None,
        versions are the same for all users, and digests of parts are valid in this process only.
    pin
        Decides which code version counts for a cell that was brought up to date before in this kernel.
    """

    def __init__(
        self,
        *,
        asset_names: Mapping[str, str] | None = None,
        namespace: dict[str, Any] | None = None,
        ignored: Ignored = NOTHING,
        keyed: Keyed | None = None,
        pin: Pin | None = None,
    ) -> None:
        self._pin = pin
        self._assets = dict(asset_names or {})
        self._namespace = namespace
        self._keyed = keyed
        self._expander = Expander(self._assets, namespace, ignored, keyed)
        self._remembers = ignored is NOTHING or ignored is DATA
        self._ignoring: dict[Ignored, CodeWalk] = {}
        self._nodes: dict[int, Node] = {}
        self._alive: list[object] = []
        self._doubted: set[int] = set()
        self._stamp = object()
        self._is_refreshed = False
        self.slow: dict[str, float] = {}
        """The paths of values whose digest took long, each with the time in seconds."""

    def of(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> CodeVersion:
        """Return the code version of a step's body, without its parts.

        Parameters
        ----------
        body
            A function of any kind, a class, a callable instance, a `CellBody` or a `SqlBody`.
        path
            The step's key, with which paths begin.
        extra
            Further objects that count, each with a name: the objects of a definition other than its body.
        ignore
            Names of variables that do not count, as the body refers to them.
        """
        walk = self._without(body, ignore) if ignore else self
        version = walk._version(body, path, extra)  # noqa: SLF001 - a walk of the same class
        if self._pin is not None and type(body) is CellBody and body.runs_in_notebook:
            return self._pin(path, body, version)
        return version

    def _version(self, body: object, path: str, extra: Iterable[tuple[str, object]]) -> CodeVersion:
        if opcodes.untested():
            return self._unread(body, path, extra)
        if not self._is_refreshed:
            self._is_refreshed = True
            library_state.refresh()
        node = self.node(body)
        extra_nodes = [(name, self.node(item)) for name, item in extra] if extra else ()
        if not extra_nodes:
            if node.version is not None:
                return node.version
            code = (node.digest or digest_of(node)).hex()
            if not node.flags:
                # This version depends only on the node, so the node keeps it. Most steps end here.
                version = node.version = CodeVersion.without_parts(code)
                return version
        else:
            text = b"".join(name.encode() + b"\0" + digest_of(child) for name, child in extra_nodes)
            code = digest(digest_of(node) + text).hex()
        # Annotations and documentation count if the step reaches code that reads them, as `bytecode` explains.
        readers = [child for child in (node, *(child for _, child in extra_nodes)) if child.flags & READS_DOCS]
        if readers:
            code = digest(
                bytes.fromhex(code) + b"".join(documentation_digest(child, self.node) for child in readers)
            ).hex()
        unverifiable: dict[tuple[str, str], None] = {}
        assets: dict[str, str] = {}
        mutable: dict[str, None] = {}
        for start, label in [(node, path), *((child, f"{path}({name})") for name, child in extra_nodes)]:
            if start.flags:
                self._collect(start, label, unverifiable, assets, mutable)
        return CodeVersion(
            code,
            unverifiable=tuple(Unverifiable(where, reason) for where, reason in unverifiable),
            asset_names=tuple(assets.items()),
            mutable_globals=tuple(mutable),
        )

    def _unread(self, body: object, path: str, extra: Iterable[tuple[str, object]]) -> CodeVersion:
        """Return the code version of a step on a version of Python whose bytecode cannot be read; it is always unverifiable."""
        nodes = [self.node(body), *(self.node(item) for _, item in extra)]
        code = digest(b"".join(map(digest_of, nodes))).hex()
        return CodeVersion(code, unverifiable=(Unverifiable(path, opcodes.untested()),))

    def parts(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> tuple[CodePart, ...]:
        """Return the parts of the code version of a step's body, with their sources.

        Parameters are those of `of`. Long values, and values whose names look secret, have no text.
        """
        walk = self._without(body, ignore) if ignore else self
        extra = tuple(extra)
        documented = any(walk.node(item).flags & READS_DOCS for item in (body, *(item for _, item in extra)))
        expander, digested = walk._expander, walk._digested  # noqa: SLF001 - a walk of the same class
        return inventory.parts(expander, body, path, extra, digested=digested, documented=documented, ignore=ignore)

    def roots(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> Roots:
        """Return the nodes of a step's body and of its other dependencies, each with its path; parameters are those of `of`."""
        walk = self._without(body, ignore) if ignore else self
        return [(walk.node(body), path), *((walk.node(item), f"{path}({name})") for name, item in extra)]

    def watched(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> Watched | None:
        """Return the present values that a step could change; None if there are none. Parameters are those of `of`."""
        roots = self.roots(body, path=path, extra=extra, ignore=ignore)
        return Watched(roots) if is_mutable(roots) else None

    def node(self, item: object) -> Node:
        """Return the digested node of an object."""
        node = self._find(item)
        if node is None:
            try:
                node = self._expand(item)
                if node.pending:
                    finish(node, self._find, self._expand)
                else:
                    close_leaf(node)
            except BaseException:
                # An interrupt or an error leaves nodes without digests.
                self._nodes.clear()
                raise
            self._remember(node)
        return node

    def _without(self, body: object, names: tuple[str, ...]) -> CodeWalk:
        ignored = ignored_places(body, names)
        walk = self._ignoring.get(ignored)
        if walk is None:
            walk = self._ignoring[ignored] = CodeWalk(
                asset_names=self._assets, namespace=self._namespace, ignored=ignored, keyed=self._keyed
            )
        return walk

    # -- known nodes

    def _digested(self, item: Any) -> Node | None:
        return self._nodes.get(identity(item))

    def _find(self, item: Any) -> Node | None:
        key = identity(item)
        node = self._nodes.get(key)
        if node is not None:
            return node
        if not self._remembers:
            return None
        node = known_nodes.get(self._known_key(key))
        if node is None or key in self._doubted or node.ref() is not item or not self._is_valid(node):
            return None
        self._nodes[key] = node
        self._alive.append(item)
        return node

    def _known_key(self, key: int) -> int:
        """Return the key of a node in `known`. An object can have two nodes, one of them for its code without data."""
        return ~key if self._expander.ignored is DATA else key

    def _expand(self, item: Any) -> Node:
        node = self._expander.node(item)
        self._nodes[identity(item)] = node
        self._alive.append(item)
        return node

    def _remember(self, root: Node) -> None:
        """Keep a node and the nodes below it for later runs, if guards detect each change."""
        if not self._remembers:
            return
        if len(known_nodes) > _MOST_KNOWN:
            known_nodes.clear()
        if not root.edges:
            # Most steps have no edges: this path must be short.
            root.stamp = self._stamp
            if root.stable and type(ref := root.ref) is KeyedRef:
                known_nodes[self._known_key(ref.key)] = root
            return
        stack = [root]
        while stack:
            node = stack.pop()
            if node.stamp is self._stamp:
                continue
            node.stamp = self._stamp
            if node.stable and type(ref := node.ref) is KeyedRef:
                known_nodes[self._known_key(ref.key)] = node
            if node.edges:
                stack.extend([child for _, child in node.edges])

    def _is_valid(self, root: Node) -> bool:
        """Return True if a node of an earlier run and all nodes below it are unchanged."""
        stamp = self._stamp
        if root.stamp is stamp:
            return True
        stack = [root]
        seen: list[Node] = []
        while stack:
            node = stack.pop()
            if node.stamp is stamp:
                continue
            item = node.ref()
            if item is None or not self._unchanged(node, item):
                # All these nodes are expanded again once in this run, so that a long chain takes linear time.
                for doubted in (*seen, node):
                    doubted.stamp = None
                    self._doubted.add(identity(doubted.ref()))
                return False
            node.stamp = stamp
            seen.append(node)
            if node.edges:
                stack.extend([child for _, child in node.edges])
        return True

    def _unchanged(self, node: Node, item: Any) -> bool:
        shape = node.shape
        if type(item) is FunctionType:
            if (
                item.__code__ is not shape[0]
                or item.__defaults__ is not shape[1]
                or item.__kwdefaults__ is not shape[2]
                or len(item.__dict__) != shape[4]
            ):
                return False
            if shape[3] and not _cells_unchanged(shape[3]):
                return False
            scope = item.__globals__
            assets = self._assets if scope is self._namespace else _NO_ASSETS
            for name, bound in node.names:
                if scope.get(name, MISSING) is not bound or name in assets:
                    return False
            for name, key in node.assets:
                if assets.get(name) != key:
                    return False
        elif type(item) is not shape[0] or item.__bases__ != shape[1]:
            return False
        for mapping, name, bound in node.mappings:
            if mapping.get(name, MISSING) is not bound:
                return False
        return not node.lengths or all([len(mapping) == count for mapping, count in node.lengths])  # noqa: C419 - a list is quicker for one or two

    def _collect(
        self,
        root: Node,
        path: str,
        unverifiable: dict[tuple[str, str], None],
        assets: dict[str, str],
        mutable: dict[str, None],
    ) -> None:
        """Collect unverifiable objects, assets and mutable globals below a node, each with the shortest path."""
        seen = {id(root)}
        slow = self._expander.slow
        queue: list[tuple[Node, str]] = [(root, path)]
        for node, where in queue:
            for label, reason in node.issues:
                unverifiable[(extended_path(where, label), reason)] = None
            for name in node.rebinds:
                mutable[name] = None
            for name, _ in node.assets:
                assets.setdefault(name, extended_path(where, name))
            for label, child in node.edges:
                if not child.flags:
                    continue
                if slow and id(child) in slow:
                    self.slow[extended_path(where, label).rpartition(" -> ")[2]] = slow[id(child)]
                if child.flags & MUTABLE and child.shape == VALUE and label and label[0] not in ".[(":
                    mutable[label] = None
                if id(child) not in seen and child.flags & (UNVERIFIABLE | ASSET | MUTABLE):
                    seen.add(id(child))
                    queue.append((child, extended_path(where, label)))

"""The code version of a step: the result of a code walk from the step's body over everything that its code can reach.

`CodeWalk.of` returns the code version quickly. `CodeWalk.parts` returns its parts, with source code, for a step that is about to run or that is
explained. A `CodeWalk` serves at most one request: a run, or a question such as ``%why``.

Later code walks in the process use the nodes of functions and classes again while their guards confirm that nothing changed: the code,
defaults and closure are the same, and each name is bound to the same object. Values that can change in place are digested again in each walk.
`Watched` finds out which of these values a step has changed, and which globals the step's code has assigned.
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
"""The nodes of a step's body and of the other objects that belong to the step (`extra` in `CodeWalk.of`), each with its path."""


class Watched:
    """The mutable values that a step can reach, and the globals that its code assigns, as they were when the nodes in `roots` were created.

    Parameters
    ----------
    roots
        The nodes of the step, from `CodeWalk.roots`.
    """

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._assigned: list[tuple[str, Mapping[str, Any], str, Any]] = []
        for node, where in _mutable_nodes(roots):
            item = node.ref()
            if node.rebinds and type(item) is FunctionType:
                scope = item.__globals__
                self._assigned += [(extended_path(where, name), scope, name, scope.get(name, MISSING)) for name in node.rebinds]

    def changed_paths(self, roots: Roots) -> tuple[str, ...]:
        """Return the paths of the values that have changed since this `Watched` was created.

        Parameters
        ----------
        roots
            The nodes of the same step, created by a new walk.
        """
        paths = {path: None for path, scope, name, value in self._assigned if not _is_same(value, scope.get(name, MISSING))}
        before = dict(_values(self.roots))
        for path, now in _values(roots):
            if before.get(path, now) != now:
                paths[path] = None
        return tuple(paths)


def is_mutable(roots: Roots) -> bool:
    """Return True if the step can reach a value that can change in place, or if its code assigns a global."""
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
"""A function that decides which code version a live cell gets. Its arguments are the step's key, the cell's body, and the code version that
was computed from the present objects."""

_MOST_KNOWN = 100_000
_NO_ASSETS: Mapping[str, str] = {}


def _cells_unchanged(cells: Iterable[tuple[CellType, Any]]) -> bool:
    """Return True if each closure cell still contains the object with which it is paired."""
    for cell, held in cells:
        try:
            if cell.cell_contents is not held:
                return False
        except ValueError:
            if held is not MISSING:
                return False
    return True


class CodeWalk:
    """Computes the code versions of steps for one request, such as a run.

    Each object is digested once, so a later change of an object is not noticed.

    Parameters
    ----------
    asset_names
        Names of the notebook's registered assets, each with its asset key. Code that reads such a name as a global of `namespace` depends on
        the data version of the asset, not on the object to which the name is bound. `CodeVersion.asset_names` lists the names that a step reads
        in this way.
    earlier_names
        Names that referred to assets earlier, each with its asset key.
    namespace
        The notebook's globals; None without a notebook.
    ignored
        Variables and attributes that are left out of code versions. If any are named, later code walks do not use the nodes of this one.
    keyed
        Digests bytes with the user's key. Used where a plain digest could reveal a value: for code parts, and for values whose names are names
        of secrets. If None, code versions are the same for all users, and the digests of parts are valid in this process only.
    pin
        Decides which code version a live cell gets. If None, it gets the version computed from the present objects.
    """

    def __init__(
        self,
        *,
        asset_names: Mapping[str, str] | None = None,
        earlier_names: Mapping[str, str] | None = None,
        namespace: dict[str, Any] | None = None,
        ignored: Ignored = NOTHING,
        keyed: Keyed | None = None,
        pin: Pin | None = None,
    ) -> None:
        self._pin = pin
        self._assets = dict(asset_names or {})
        self._earlier_names = dict(earlier_names or {})
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
        """The globals whose digest took more than `expand.SLOW` seconds: maps the name of a global to the time in seconds."""

    @property
    def asset_keys(self) -> Mapping[str, str]:
        """The names that refer to assets (`asset_names`) or did so earlier (`earlier_names`, for pinned versions), each with its asset key."""
        return {**self._earlier_names, **self._assets}

    def of(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> CodeVersion:
        """Return the code version of a step. It contains no parts; `parts` returns them.

        Parameters
        ----------
        body
            The step's body: a function of any kind, a class, a callable instance, a `CellBody` or a `SqlBody`.
        path
            The step's key. In the result, the paths of unverifiable objects and of assets begin with it.
        extra
            Other objects of the step that are part of the code version (config, defaults of inputs, declared reads), as pairs of a name and the
            object.
        ignore
            The names in the option ``ignore``: variables and attributes that are left out, as they are written in the body.
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
                # This version depends only on the node, so it is kept in the node. Most steps return here.
                version = node.version = CodeVersion.without_parts(code)
                return version
        else:
            text = b"".join(name.encode() + b"\0" + digest_of(child) for name, child in extra_nodes)
            code = digest(digest_of(node) + text).hex()
        # If the step reaches code that reads annotations or documentation, these texts are digested, too (see the docstring of `bytecode`).
        readers = [child for child in (node, *(child for _, child in extra_nodes)) if child.flags & READS_DOCS]
        if readers:
            code = digest(bytes.fromhex(code) + b"".join(documentation_digest(child, self.node) for child in readers)).hex()
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
        """Return the code version for a version of Python whose bytecode cannot be read. The step is then unverifiable."""
        nodes = [self.node(body), *(self.node(item) for _, item in extra)]
        code = digest(b"".join(map(digest_of, nodes))).hex()
        return CodeVersion(code, unverifiable=(Unverifiable(path, opcodes.untested()),))

    def parts(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> tuple[CodePart, ...]:
        """Return the parts of the code version of a step, each with its text: the source code, or the value as text.

        The text of a long value is None, and the text of a secret is ``<hidden>``. The parameters are the same as in `of`.
        """
        walk = self._without(body, ignore) if ignore else self
        extra = tuple(extra)
        documented = any([walk.node(item).flags & READS_DOCS for item in (body, *[item for _, item in extra])])  # noqa: C419 - a list is quicker for one or two
        expander, digested = walk._expander, walk._digested  # noqa: SLF001 - a walk of the same class
        return inventory.parts(expander, body, path, extra, digested=digested, documented=documented, ignore=ignore)

    def roots(self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()) -> Roots:
        """Return the nodes of the body of a step and of the objects in `extra`, each with its path. The parameters are those of `of`."""
        walk = self._without(body, ignore) if ignore else self
        return [(walk.node(body), path), *[(walk.node(item), f"{path}({name})") for name, item in extra]]

    def watched(
        self, body: object, *, path: str, extra: Iterable[tuple[str, object]] = (), ignore: tuple[str, ...] = ()
    ) -> Watched | None:
        """Return the present state of the values that a step could change; None if there are none. The parameters are those of `of`."""
        roots = self.roots(body, path=path, extra=extra, ignore=ignore)
        return Watched(roots) if is_mutable(roots) else None

    def node(self, item: object) -> Node:
        """Return the digested node of an object. If the object has no node, create nodes for it and for all objects that it reaches."""
        node = self._find(item)
        if node is None:
            try:
                node = self._expand(item)
                if node.pending:
                    finish(node, self._find, self._expand)
                else:
                    close_leaf(node)
            except BaseException:
                # An interrupt or an error leaves nodes without digests, which must not be used.
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
            walk.slow = self.slow
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
        """Return the key in `known_nodes` for the node of an object. `key` is the identity of the object.

        An object can have two nodes in this dict: one for code and data, and one for code only.
        """
        return ~key if self._expander.ignored is DATA else key

    def _expand(self, item: Any) -> Node:
        node = self._expander.node(item)
        self._nodes[identity(item)] = node
        self._alive.append(item)
        return node

    def _remember(self, root: Node) -> None:
        """Put a node and the nodes that it reaches into `known_nodes` for later code walks.

        Nodes whose guards cannot detect every change are left out.
        """
        if not self._remembers:
            return
        if len(known_nodes) > _MOST_KNOWN:
            known_nodes.clear()
        if not root.edges:
            # The nodes of most steps have no edges, so this case must be fast.
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
        """Return True if the guards of a node from an earlier code walk, and of all nodes that it reaches, confirm that nothing has changed."""
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
                # All these nodes are created again in this walk, without another check. So a long chain of nodes takes linear time.
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
        """Enter into three dicts the unverifiable objects, the assets and the mutable globals that `root` reaches.

        Also add the globals that took long to digest to `self.slow`.

        Parameters
        ----------
        path
            The path of `root`.
        unverifiable
            Receives a key for each unverifiable object: its path and the reason. The values are None.
        assets
            Receives a key for each asset that code reads as a global: the name of the asset. The value is the shortest path to this name.
        mutable
            Receives a key for each global that the code could change in place or assign: the name of the global. The values are None.
        """
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

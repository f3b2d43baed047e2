"""The names that a cell's body may read from outside, found without running it; and the assets that are its inputs.

The body is walked in the order in which it runs. Of every name it is known whether it has been assigned on every path so
far, or on some path. A name that is read before it was assigned on every path may come from outside. The names that a
function reads count where the function is first used (or at the end, where it is the value), since it may be written above
what it reads.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import keyword
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.errors import CellError, InvalidDefinitionError, UnknownKeyError, unknown_key
from stepwell.kernel_runtime.records.keys import AssetKey, as_asset_key, check_name
from stepwell.magics.cell_changes import changed_names
from stepwell.magics.cell_reads import Paths, Reads, join, looks_up, names_in_strings
from stepwell.magics.face import Face


def key_from(written: str, prefix: str | None, where: str) -> AssetKey:
    """Read an asset's key as typed on a magic's line: its last part becomes a variable.

    Raises
    ------
    CellError
        If a part cannot be a name.
    """
    if "." in written:
        raise CellError(
            f"{written!r} is the name of a step, not of an asset",
            where=where,
            remedy="a key with a prefix is written with '/': " + written.replace(".", "/"),
        )
    parts = (*(prefix.split("/") if prefix else ()), *written.split("/"))
    for part in parts:
        try:
            check_name("an asset", part, where=where)
        except InvalidDefinitionError as error:
            raise CellError(error.what, where=where, remedy=error.remedy) from None
    name = parts[-1]
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CellError(
            f"{name!r} cannot be the name of an asset: it becomes a variable",
            where=where,
            remedy=f"use a Python name, such as {'_' + name if not keyword.iskeyword(name) else name + '_'}",
        )
    return AssetKey(parts)


def given_inputs(given: Sequence[str], where: str) -> dict[str, AssetKey]:
    """Read ``--in NAME=KEY``.

    Raises
    ------
    CellError
        If it has another form.
    """
    found = {}
    for text in given:
        name, sign, key = text.partition("=")
        if not sign or not name.isidentifier() or not key:
            raise CellError(
                f"--in {text} cannot be read",
                where=where,
                remedy="write --in NAME=KEY, such as --in flights=raw/flights",
            )
        found[name] = as_asset_key(key)
    return found


def given_deps(face: Face, given: Sequence[str], own: Sequence[AssetKey], where: str) -> list[AssetKey]:
    """Read ``-d KEY``.

    Raises
    ------
    UnknownKeyError
        If no such asset is registered or stored: an order after nothing would be no order.
    """
    found = [as_asset_key(text) for text in given]
    registered = face.session.registry.assets
    missing = [key for key in found if str(key) not in registered]
    stored = set(face.session.store.keys()) if missing else set()
    for key in missing:
        if str(key) not in stored:
            mine = {str(each) for each in own}
            assets = [each for each in stored if not is_inner(each)]
            raise UnknownKeyError(
                f"{own[0].name!r} is to come after the asset {str(key)!r}, which is neither registered nor stored",
                where=where,
                remedy=unknown_key("asset", str(key), {*registered, *assets} - mine).remedy,
            )
    return found


def check_own_name(
    names: Names, own: Sequence[AssetKey], variables: Sequence[str], inputs: Mapping[str, AssetKey], where: str
) -> None:
    """Raise `CellError` if a body reads the name of its asset before assigning it.

    A variable of another name may be read first: ``%%asset clean -> df`` over ``df = df.dropna()`` reads what `df` was before.
    """
    for key, variable in zip(own, variables, strict=True):
        if variable in names.early and variable == key.name and variable not in inputs:
            raise CellError(
                f"the cell of {key.name!r} reads {key.name!r} before it assigns it: the asset would depend on itself",
                where=where, remedy=f"give the asset a key of its own and keep the variable: %%asset {key.name}_2 -> {key.name}",
            )  # fmt: skip


def inputs_of(
    face: Face,
    names: Iterable[str],
    own: Sequence[AssetKey],
    given: Mapping[str, AssetKey],
    where: str,
    *,
    origin: str = "",
) -> tuple[dict[str, AssetKey], tuple[tuple[str, str], ...]]:
    """Return which of the names that a body reads are assets.

    A variable that Stepwell bound means its asset as long as no plain cell changes it. A name that is no variable is an input if
    it is the last part of a registered asset's key, or of a key of this notebook in the store.

    Parameters
    ----------
    origin
        Identifies the cell: run again, it keeps the assets that it read, unless another cell has bound the name since.

    Returns
    -------
    inputs
        By name, the asset's key.
    changed
        Names that were assets and are read by value, because plain cells changed them, each with the label of the last such cell.

    Raises
    ------
    CellError
        If two assets share the name.
    """
    found = dict(given)
    changed: list[tuple[str, str]] = []
    registered = _by_name(face.session.registry.assets)
    mine = {str(key) for key in own}
    before = face.read_before.get(origin, {})
    timeline = face.timeline
    unknown = []
    for name in sorted(set(names) - set(found)):
        if face.is_definition(name):
            continue
        earlier = before.get(name)
        bound = timeline.bound_to(name)
        if earlier is not None and str(earlier) not in mine and (bound is None or bound.key != str(earlier)):
            binder = timeline.binder(name)
            if binder is not None and binder.kind == "step" and _comes_after(face, binder.id, mine):
                found[name] = earlier
                continue
        if bound is not None and is_inner(bound.key):
            continue
        if bound is not None:
            if bound.key in mine:
                continue
            sharing = registered.get(name, ())
            if len(sharing) > 1 and bound.key in sharing:
                _only(name, sharing, where)
            if timeline.asset_of(name) is not None:
                found[name] = as_asset_key(bound.key)
            else:
                changed.append((name, bound.changed_by))
            continue
        keys = [key for key in registered.get(name, ()) if key not in mine]
        value = face.namespace.get(name)
        if name in face.namespace and not hasattr(type(value), "__stepwell_asset_key__"):
            label = timeline.changed_by(name)
            if label:
                changed.append((name, label))
        elif keys:
            found[name] = _only(name, keys, where)
        elif name not in mine and name not in face.namespace and not hasattr(builtins, name):
            unknown.append(name)
    if unknown:
        known = face.session.store.keys()
        stored = _by_name(key for key in known if not is_inner(key))
        for name in unknown:
            if name in stored:
                found[name] = _only(name, stored[name], where)
    return found, tuple(changed)


def _comes_after(face: Face, step_key: str, own: Collection[str]) -> bool:
    """Return True if a step is one of a cell's own assets, or depends on one of them."""
    registered = face.session.registry.assets
    pending = [step_key]
    seen: set[str] = set()
    while pending:
        key = pending.pop()
        if key in own:
            return True
        entry = registered.get(key)
        if key in seen or entry is None:
            continue
        seen.add(key)
        pending += [str(each) for each in getattr(entry.definition, "upstream_keys", ())]
    return False


_WITH_VALUE = frozenset("-g --group -k --key-prefix -d --dep --in --ignore --max-age --reads --keep --drop".split())
"""Flags whose value is the next word."""


def cell_origin(info: Any) -> str:
    """Return what identifies a cell: its id; where the front end sends none, its magic's line or its text."""
    given = getattr(info, "cell_id", None)
    if given:
        return f"cell:{given}"
    text = (info.raw_cell or "").strip()
    if text.startswith("%%"):
        words = iter(text.splitlines()[0].split())
        kept: list[str] = []
        for word in words:
            if word in ("-k", "--key-prefix"):
                # The prefix is part of the key: raw/flights and other/flights are two cells.
                kept.append(f"-k {next(words, '')}")
            elif word in _WITH_VALUE:
                next(words, "")
            elif not word.startswith("-") or word == "->":
                kept.append(word)
        return f"magic:{' '.join(kept)}"
    return f"text:{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=12).hexdigest()}"


def is_inner(key: str) -> bool:
    """Whether a key is that of a step's value inside a graph or job, not that of an asset."""
    return "." in key or ":" in key


def _by_name(keys: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(key.rpartition("/")[2], []).append(key)
    return found


def _only(name: str, keys: Sequence[str], where: str) -> AssetKey:
    if len(keys) > 1:
        raise CellError(
            f"{name!r} could be {' or '.join(sorted(keys))}",
            where=where,
            remedy=f"say which: --in {name}={min(keys)}",
        )
    return as_asset_key(keys[0])


@dataclass(frozen=True, slots=True)
class Names:
    """What analysis found of a body."""

    reads: frozenset[str]
    """Names that some path reads before the body assigns them; builtins among them."""
    early: frozenset[str]
    """Those of `reads` that no path has assigned before: the body cannot mean its own variable."""
    assigned: frozenset[str]
    """Names that the body binds at its top level, anywhere."""
    imported: frozenset[str]
    """Those of `assigned` that an import binds."""
    looks_up: bool = False
    """Whether the body looks names up in ways that cannot be seen."""
    sure: frozenset[str] = frozenset()
    """Those of `assigned` that every path assigns."""
    changes: frozenset[str] | None = None
    """Names whose objects the body may change in place; None if that cannot be seen."""


def names_of(tree: ast.Module) -> Names:
    """Analyse a body.

    Parameters
    ----------
    tree
        The parsed body, after IPython's transformations.
    """
    walker = _Walker()
    walker.statements(tree.body)
    walker.use(walker.pending)
    spoken = names_in_strings(tree) - walker.assigned
    changed, _, everything = changed_names(tree)
    return Names(
        frozenset(walker.reads | spoken),
        frozenset(walker.early),
        frozenset(walker.assigned),
        frozenset(walker.imported),
        looks_up(tree),
        frozenset(walker.now.sure & walker.assigned),
        None if everything else changed,
    )


class _Walker(Reads, ast.NodeVisitor):
    def __init__(self) -> None:
        super().__init__()
        self._loops: list[list[Paths]] = []
        """For the loops that are being walked, what holds where they are left by `break`."""

    # -- simple statements

    def visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if (
            isinstance(node.value, ast.Lambda)
            and len(node.targets) == 1
            and isinstance(target, ast.Name)
            and not self.class_names
        ):
            for default in (*node.value.args.defaults, *node.value.args.kw_defaults):
                if default is not None:
                    self.visit(default)
            self.later(target.id, self.deferred(node.value), at_once=False)
            return
        self.visit(node.value)
        for each in node.targets:
            self.visit(each)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.read(node.target.id)
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)
        elif not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.split(".", maxsplit=1)[0]
            self.bind(name)
            if not self.class_names:
                self.imported.add(name)

    visit_Import = _import  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_ImportFrom = _import  # noqa: N815 - the name that ast.NodeVisitor calls

    def _leave(self, node: ast.AST) -> None:
        self.generic_visit(node)
        self.now.dead = True

    visit_Raise = _leave  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_Return = _leave  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Break(self, node: ast.Break) -> None:
        del node
        if self._loops:
            self._loops[-1].append(self.now.copy())
        self.now.dead = True

    def visit_Continue(self, node: ast.Continue) -> None:
        del node
        self.now.dead = True

    # -- compound statements

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        start = self.now
        ends = []
        for branch in (node.body, node.orelse):
            self.now = start.copy()
            self.statements(branch)
            ends.append(self.now)
        self.now = join(ends)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        endless = False
        if isinstance(node, ast.While):
            self.visit(node.test)
            endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        else:
            self.visit(node.iter)
        start = self.now.copy()
        if not self.class_names:
            # On a second turn the loop may read what it assigned in the first.
            again = {
                item.id
                for part in node.body
                for item in ast.walk(part)
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
            }
            self.now.maybe |= again
        if not isinstance(node, ast.While):
            self.visit(node.target)
        self._loops.append([])
        self.statements(node.body)
        breaks = self._loops.pop()
        start.maybe |= self.now.maybe
        start.dead = start.dead or endless
        self.now = start
        self.statements(node.orelse)
        self.now = join([self.now, *breaks])

    visit_For = _loop  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_AsyncFor = _loop  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_While = _loop  # noqa: N815 - the name that ast.NodeVisitor calls

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.visit(item.optional_vars)
        self.statements(node.body)

    visit_With = _with  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_AsyncWith = _with  # noqa: N815 - the name that ast.NodeVisitor calls

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        start = self.now.copy()
        self.statements(node.body)
        failed = start.copy()
        failed.maybe |= self.now.maybe
        self.statements(node.orelse)
        ends = [self.now]
        for handler in node.handlers:
            self.now = failed.copy()
            if handler.type is not None:
                self.visit(handler.type)
            if handler.name is not None:
                self.bind(handler.name)
            self.statements(handler.body)
            if handler.name is not None:
                self.now.sure.discard(handler.name)
            ends.append(self.now)
        after = join(ends)
        if node.finalbody:
            self.now = failed.copy()
            self.now.maybe |= after.maybe
            self.statements(node.finalbody)
            after.sure |= self.now.sure
            after.maybe |= self.now.maybe
            after.dead = after.dead or self.now.dead
        self.now = after

    visit_Try = _try  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_TryStar = _try  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        start = self.now
        ends = []
        for case in node.cases:
            self.now = start.copy()
            self._pattern(case.pattern)
            if case.guard is not None:
                self.visit(case.guard)
            self.statements(case.body)
            ends.append(self.now)
        last = node.cases[-1]
        catches_all = last.guard is None and isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        self.now = join(ends if catches_all else [*ends, start])

    def _pattern(self, pattern: ast.pattern) -> None:
        for part in ast.walk(pattern):
            if isinstance(part, ast.MatchValue):
                self.visit(part.value)
            elif isinstance(part, ast.MatchClass):
                self.visit(part.cls)
            elif isinstance(part, ast.MatchAs | ast.MatchStar) and part.name is not None:
                self.bind(part.name)
            elif isinstance(part, ast.MatchMapping) and part.rest is not None:
                self.bind(part.rest)

"""Which names a cell's body may read from outside, found without running it.

The body is walked in the order in which it runs. Of every name it is known whether it has been assigned on every path so
far, or on some path. A name that is read before it was assigned on every path may come from outside. The names that a
function reads count where the function is first used (or at the end, where it is the value), since it may be written above
what it reads.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from stepwell.magics.cell_changes import changed_names
from stepwell.magics.cell_reads import Paths, Reads, join, looks_up, names_in_strings


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

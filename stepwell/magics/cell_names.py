"""Which names a cell's body may read from outside, found without running it.

The body is walked in the order in which it runs. Of every name it is known whether it has been assigned on every path so
far, or on some path. A name that is read before it was assigned on every path may come from outside. The names that a
function reads count where the function is first used (or at the end, where it is the value), since it may be written above
what it reads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stepwell.magics.cell_paths import Paths, function_globals, join


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
    return Names(
        frozenset(walker.reads), frozenset(walker.early), frozenset(walker.assigned), frozenset(walker.imported)
    )


class _Walker(ast.NodeVisitor):
    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.early: set[str] = set()
        self.assigned: set[str] = set()
        self.imported: set[str] = set()
        self.pending: dict[str, set[str]] = {}
        """For a name bound to functions or classes, the globals that these read when they are called."""
        self._using: set[str] = set()
        """Functions whose reads are being counted: they may call each other."""
        self._now = Paths()
        self._class: list[set[str]] = []
        """Names bound so far in the class bodies that are being walked."""
        self._local: list[set[str]] = []
        """Names bound by the comprehensions that are being walked."""
        self._loops: list[list[Paths]] = []

    # -- names

    def read(self, name: str) -> None:
        if any(name in scope for scope in self._local) or (self._class and name in self._class[-1]):
            return
        if name not in self._now.sure:
            self.reads.add(name)
            if name not in self._now.maybe:
                self.early.add(name)
        if name in self.pending:
            self.use([name])

    def use(self, names: Iterable[str]) -> None:
        """Count what functions read, now that they may be called."""
        for name in list(names):
            if name in self._using:
                continue
            self._using.add(name)
            for found in self.pending.get(name, ()):
                self.read(found)
            self._using.discard(name)

    def bind(self, name: str) -> None:
        if self._local and name in self._local[-1]:
            return
        if self._class:
            self._class[-1].add(name)
            return
        self._now.sure.add(name)
        self._now.maybe.add(name)
        self.assigned.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif not self._class:
            self.read(node.id)
            self._now.sure.discard(node.id)

    # -- functions and classes

    def _deferred(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
        """Return the globals that a function reads when it is called; what it assigns to globals may be assigned from now on."""
        reads, assigns = function_globals(node)
        self.assigned |= assigns
        self._now.maybe |= assigns
        return reads

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        arguments = node.args
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        for argument in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            arguments.vararg,
            arguments.kwarg,
        ):
            if argument is not None and argument.annotation is not None:
                self.visit(argument.annotation)
        if node.returns is not None:
            self.visit(node.returns)
        reads = self._deferred(node)
        self._later(node.name, reads, at_once=bool(node.decorator_list))

    def _later(self, name: str, reads: set[str], *, at_once: bool) -> None:
        """Bind a name to something that reads globals when it is called."""
        inside_class = bool(self._class)
        owner = self._owner if inside_class else name
        self.bind(name)
        if at_once:
            for found in reads - {name}:
                self.read(found)
        else:
            self.pending.setdefault(owner, set()).update(reads)

    _owner = ""

    visit_FunctionDef = _function  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_AsyncFunctionDef = _function  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for found in self._deferred(node):
            self.read(found)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        outer, self._owner = self._owner, self._owner if self._class else node.name
        self._class.append({"__module__", "__qualname__"})
        self.statements(node.body)
        self._class.pop()
        owner, self._owner = self._owner, outer
        self.bind(node.name)
        if node.decorator_list or node.bases or node.keywords:
            # A metaclass, __init_subclass__ or a decorator may call its methods at once.
            self.use([owner])

    # -- expressions

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.visit(node.generators[0].iter)
        targets = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        self._local.append(targets)
        with self._branch():
            for position, generator in enumerate(node.generators):
                if position:
                    self.visit(generator.iter)
                self.visit(generator.target)
                for condition in generator.ifs:
                    self.visit(condition)
            if isinstance(node, ast.DictComp):
                self.visit(node.key)
                self.visit(node.value)
            else:
                self.visit(node.elt)
        self._local.pop()

    visit_ListComp = _comprehension  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_SetComp = _comprehension  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_GeneratorExp = _comprehension  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_DictComp = _comprehension  # noqa: N815 - the name that ast.NodeVisitor calls

    @contextmanager
    def _branch(self) -> Iterator[None]:
        """Walk what may not run: what it assigns is assigned on some path only."""
        before = self._now.copy()
        try:
            yield
        finally:
            before.maybe |= self._now.maybe
            self._now = before

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        with self._branch():
            for value in node.values[1:]:
                self.visit(value)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        start = self._now
        ends = []
        for value in (node.body, node.orelse):
            self._now = start.copy()
            self.visit(value)
            ends.append(self._now)
        self._now = join(ends)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                self.visit(key)
            self.visit(value)

    # -- simple statements

    def visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if (
            isinstance(node.value, ast.Lambda)
            and len(node.targets) == 1
            and isinstance(target, ast.Name)
            and not self._class
        ):
            for default in (*node.value.args.defaults, *node.value.args.kw_defaults):
                if default is not None:
                    self.visit(default)
            self._later(target.id, self._deferred(node.value), at_once=False)
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
            if not self._class:
                self.imported.add(name)

    visit_Import = _import  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_ImportFrom = _import  # noqa: N815 - the name that ast.NodeVisitor calls

    def _leave(self, node: ast.AST) -> None:
        self.generic_visit(node)
        self._now.dead = True

    visit_Raise = _leave  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_Return = _leave  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Break(self, node: ast.Break) -> None:
        del node
        if self._loops:
            self._loops[-1].append(self._now.copy())
        self._now.dead = True

    def visit_Continue(self, node: ast.Continue) -> None:
        del node
        self._now.dead = True

    # -- compound statements

    def statements(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        start = self._now
        ends = []
        for branch in (node.body, node.orelse):
            self._now = start.copy()
            self.statements(branch)
            ends.append(self._now)
        self._now = join(ends)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        endless = False
        if isinstance(node, ast.While):
            self.visit(node.test)
            endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        else:
            self.visit(node.iter)
        start = self._now.copy()
        if not self._class:
            # On a second turn the loop may read what it assigned in the first.
            again = {
                item.id
                for part in node.body
                for item in ast.walk(part)
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
            }
            self._now.maybe |= again
        if not isinstance(node, ast.While):
            self.visit(node.target)
        self._loops.append([])
        self.statements(node.body)
        breaks = self._loops.pop()
        start.maybe |= self._now.maybe
        start.dead = start.dead or endless
        self._now = start
        self.statements(node.orelse)
        self._now = join([self._now, *breaks])

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
        start = self._now.copy()
        self.statements(node.body)
        failed = start.copy()
        failed.maybe |= self._now.maybe
        self.statements(node.orelse)
        ends = [self._now]
        for handler in node.handlers:
            self._now = failed.copy()
            if handler.type is not None:
                self.visit(handler.type)
            if handler.name is not None:
                self.bind(handler.name)
            self.statements(handler.body)
            if handler.name is not None:
                self._now.sure.discard(handler.name)
            ends.append(self._now)
        after = join(ends)
        if node.finalbody:
            self._now = failed.copy()
            self._now.maybe |= after.maybe
            self.statements(node.finalbody)
            after.sure |= self._now.sure
            after.maybe |= self._now.maybe
            after.dead = after.dead or self._now.dead
        self._now = after

    visit_Try = _try  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_TryStar = _try  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        start = self._now
        ends = []
        for case in node.cases:
            self._now = start.copy()
            self._pattern(case.pattern)
            if case.guard is not None:
                self.visit(case.guard)
            self.statements(case.body)
            ends.append(self._now)
        last = node.cases[-1]
        catches_all = last.guard is None and isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        self._now = join(ends if catches_all else [*ends, start])

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

"""Static analysis that finds the names that the body of a cell may read from the notebook.

The walker (`_Walker`) visits the body in execution order. At each point of the body, it knows which names are assigned on every path to this
point, and which are assigned on some path. A name that is read at a point where not every path has assigned it may come from the notebook. A
function may be defined above the assignments that it needs. The names that the function reads are therefore recorded where the function is first
used, or at the end of the body if it is never used.

Some calls read names through strings: ``frame.query("x > @cutoff")``, ``duckdb.sql("from raw")``, ``pd.eval("a + b")``, and calls of functions of
patsy and statsmodels that take a formula. If the body contains such a call, the names in all string constants of the body are in the result. The
result may therefore contain names that the body does not read. A name in the result that is neither an asset nor a variable of the notebook has no
effect. A name that occurs only in a string that is computed at run time is not found.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stepwell.kernel_runtime.versions.queries import names_in_texts
from stepwell.magics.cell_changes import changed_names


@dataclass(frozen=True, slots=True)
class Names:
    """The names in the body of a cell, grouped by how the body uses them."""

    reads: frozenset[str]
    """The names that the body may read before it assigns them, so that they may come from the notebook. Names of builtins are included."""
    read_first: frozenset[str]
    """The names in `reads` that the body reads at a point where no path has assigned them, so that they must come from the notebook or be builtins."""
    assigned: frozenset[str]
    """The names that the body may bind, except the local names of functions, classes and comprehensions."""
    imported: frozenset[str]
    """The names in `assigned` that an import binds."""
    looks_up: bool = False
    """True if the body may read names that are only known when it runs, for example with ``eval``."""
    always_assigned: frozenset[str] = frozenset()
    """The names in `assigned` that every path through the body assigns."""
    changes: frozenset[str] | None = None
    """The names whose objects the body may change in place; None if these names are unknown."""


def names_of(tree: ast.Module) -> Names:
    """Return the names in the body of a cell.

    Parameters
    ----------
    tree
        The body after IPython's transformations, parsed.
    """
    walker = _Walker()
    walker.statements(tree.body)
    walker.use(walker.pending)
    spoken = names_in_strings(tree) - walker.assigned
    changed, _, everything = changed_names(tree)
    return Names(
        frozenset(walker.reads | spoken),
        frozenset(walker.read_first),
        frozenset(walker.assigned),
        frozenset(walker.imported),
        looks_up(tree),
        frozenset(walker.paths.on_every_path & walker.assigned),
        None if everything else changed,
    )


@dataclass(slots=True)
class Paths:
    """The names that the paths to one point of the body assign."""

    on_every_path: set[str] = field(default_factory=set)
    """The names that are assigned on every path through the body to this point."""
    on_some_path: set[str] = field(default_factory=set)
    """The names that are assigned on at least one path to this point."""
    is_unreachable: bool = False
    """True if no path leads to this point, for example after ``raise``."""

    def copy(self) -> Paths:
        """Return a copy of these names. The walk of a branch can change the copy without changing the original."""
        return Paths(set(self.on_every_path), set(self.on_some_path), self.is_unreachable)


def join(paths: Iterable[Paths]) -> Paths:
    """Return the names that are assigned at the point where several branches meet, given the names that are assigned at the end of each branch."""
    every = list(paths)
    alive = [path for path in every if not path.is_unreachable]
    maybe = set().union(*(path.on_some_path for path in every))
    if not alive:
        return Paths(set(every[0].on_every_path) if every else set(), maybe, is_unreachable=True)
    return Paths(set.intersection(*(path.on_every_path for path in alive)), maybe)


def function_globals(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> tuple[set[str], set[str]]:
    """Return two sets of names: the globals that a call of the function `node` may read, and those that it may assign. Nested functions count, too."""
    if isinstance(node, ast.Lambda):
        node = ast.FunctionDef(name="lambda_", args=node.args, body=[ast.Return(node.body)], decorator_list=[])
    reads: set[str] = set()
    assigns: set[str] = set()
    # Decorators, defaults, annotations and type parameters are evaluated when the function is defined, and are in other symbol tables.
    outermost = symtable.symtable(ast.unparse(ast.fix_missing_locations(node)), "<cell>", "exec")
    while outermost.get_type() != "function":
        outermost = next(table for table in outermost.get_children() if table.get_name() == node.name)
    tables = [outermost]
    while tables:
        table = tables.pop()
        tables.extend(table.get_children())
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                reads.add(symbol.get_name())
            if symbol.is_declared_global() and symbol.is_assigned():
                assigns.add(symbol.get_name())
    return reads, assigns


_WORD = re.compile(r"[^\W\d]\w*")
_FORMULA = frozenset(
    "ols wls gls glm rlm logit probit poisson mnlogit quantreg mixedlm gee phreg negativebinomial dmatrix dmatrices from_formula".split()
)
"""The names, in lower case, of functions of patsy and statsmodels that take a formula."""
_LOOK_UP = frozenset(("globals", "locals", "vars", "eval", "exec"))
"""Builtins that access a whole namespace or run code."""
_FRAME_MODULES = frozenset(("pd", "pandas"))


def names_in_strings(tree: ast.AST) -> frozenset[str]:
    """Return the names that the code in `tree` may read through its string constants, such as names in SQL or in ``frame.query``."""
    calls = {name for node in ast.walk(tree) if isinstance(node, ast.Call) and (name := _called_name(node.func))}
    if not calls:
        return frozenset()
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    names = set(names_in_texts(texts, list(calls)))
    if any(name.lower() in _FORMULA for name in calls):
        names.update(word for text in texts if "~" in text for word in _WORD.findall(text))
    if _evaluates(tree):
        names.update(name for text in texts for name in _expression_names(text))
    return frozenset(names)


def _called_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _evaluates(tree: ast.AST) -> bool:
    """Return True if the code in `tree` calls ``eval``, ``exec`` or ``pd.eval``, which run the code in a string."""
    return any(isinstance(node, ast.Call) and _is_eval(node.func) for node in ast.walk(tree))


def _is_eval(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr == "eval" and function.value.id in _FRAME_MODULES
    return isinstance(function, ast.Name) and function.id in ("eval", "exec")


def _expression_names(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text.replace("@", ""))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id


def looks_up(tree: ast.AST) -> bool:
    """Return True if the code in `tree` uses a builtin that accesses a whole namespace or runs code, so that it may read any name."""
    return any(isinstance(node, ast.Name) and node.id in _LOOK_UP for node in ast.walk(tree))


class _Walker(ast.NodeVisitor):
    """Visits the statements of a body in execution order, and records the names that the statements read and bind."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.read_first: set[str] = set()
        self.assigned: set[str] = set()
        self.imported: set[str] = set()
        self.pending: dict[str, set[str]] = {}
        """Maps the name of each function or class to the globals that a call of it may read. At each use of this name, these globals count as read."""
        self._using: set[str] = set()
        """The functions in `pending` whose reads are being recorded. Prevents endless recursion if functions call each other."""
        self.paths = Paths()
        """The names that the paths to the present point of the walk assign."""
        self.class_names: list[set[str]] = []
        """For each class whose body is being walked, outermost first, the names that the body has bound so far."""
        self._local: list[set[str]] = []
        """For each comprehension that is being walked, outermost first, the names that it binds."""
        self._owner = ""
        """The name of the outermost class whose body is being walked, else empty. The reads of its methods are recorded where the class is used."""
        self._loops: list[list[Paths]] = []
        """For each loop that is being walked, outermost first, the names that are assigned at each of its ``break`` statements."""

    # -- names

    def record_read(self, name: str) -> None:
        """Record that `name` is read at the present point of the walk."""
        if any(name in scope for scope in self._local) or (self.class_names and name in self.class_names[-1]):
            return
        if name not in self.paths.on_every_path:
            self.reads.add(name)
            if name not in self.paths.on_some_path:
                self.read_first.add(name)
        if name in self.pending:
            self.use([name])

    def use(self, names: Iterable[str]) -> None:
        """Record that the functions and classes with the names in `names` may be called at the present point of the walk.

        The globals that these calls may read (`pending`) are recorded as read at this point.
        """
        for name in list(names):
            if name in self._using:
                continue
            self._using.add(name)
            for used in self.pending.get(name, ()):
                self.record_read(used)
            self._using.discard(name)

    def bind(self, name: str) -> None:
        """Record that `name` is assigned at the present point of the walk."""
        if self._local and name in self._local[-1]:
            return
        if self.class_names:
            self.class_names[-1].add(name)
            return
        self.paths.on_every_path.add(name)
        self.paths.on_some_path.add(name)
        self.assigned.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        """Record that a name is read, assigned or deleted."""
        if isinstance(node.ctx, ast.Load):
            self.record_read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif not self.class_names:
            self.record_read(node.id)
            self.paths.on_every_path.discard(node.id)

    # -- functions and classes

    def deferred(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
        """Return the globals that a call of the function `node` may read. Record the globals that a call may assign as assigned on some path."""
        reads, assigns = function_globals(node)
        self.assigned |= assigns
        self.paths.on_some_path |= assigns
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
        reads = self.deferred(node)
        self.bind_function(node.name, reads, at_once=bool(node.decorator_list))

    def bind_function(self, name: str, reads: set[str], *, at_once: bool) -> None:
        """Record that `name` is assigned a function, and that a call of the function may read the globals `reads`.

        Parameters
        ----------
        at_once
            True if the function may be called immediately, for example by a decorator: the globals are recorded as read at this point. False if they
            are recorded where `name` is used.
        """
        inside_class = bool(self.class_names)
        owner = self._owner if inside_class else name
        self.bind(name)
        if at_once:
            for used in reads - {name}:
                self.record_read(used)
        else:
            self.pending.setdefault(owner, set()).update(reads)

    visit_FunctionDef = _function  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_AsyncFunctionDef = _function  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Record reads of the globals of the lambda at this point, because the lambda may be called immediately."""
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for used in self.deferred(node):
            self.record_read(used)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Walk the body of a class, which runs immediately and in a separate namespace.

        The globals that its methods read are recorded where the class is first used, because the methods run later.
        """
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        outer, self._owner = self._owner, self._owner if self.class_names else node.name
        self.class_names.append({"__module__", "__qualname__"})
        self.statements(node.body)
        self.class_names.pop()
        owner, self._owner = self._owner, outer
        self.bind(node.name)
        if node.decorator_list or node.bases or node.keywords:
            # A metaclass, __init_subclass__ or a decorator may call methods of the class immediately.
            self.use([owner])

    # -- expressions

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.visit(node.generators[0].iter)
        targets = {name.id for generator in node.generators for name in ast.walk(generator.target) if isinstance(name, ast.Name)}
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
        """Return a context manager for the visit of code that may be skipped.

        At the end of the ``with`` block, assignments that the code makes count as made on some path, not on every path.
        """
        before = self.paths.copy()
        try:
            yield
        finally:
            before.on_some_path |= self.paths.on_some_path
            self.paths = before

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        """Visit the value before the name, because the value is evaluated first."""
        self.visit(node.value)
        self.visit(node.target)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Visit the operands. When the code runs, the operands after the first may remain unevaluated."""
        self.visit(node.values[0])
        with self._branch():
            for value in node.values[1:]:
                self.visit(value)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Visit the test and both branches. Only one of the branches runs."""
        self.visit(node.test)
        start = self.paths
        ends = []
        for value in (node.body, node.orelse):
            self.paths = start.copy()
            self.visit(value)
            ends.append(self.paths)
        self.paths = join(ends)

    def visit_Dict(self, node: ast.Dict) -> None:
        """Visit each key before its value."""
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                self.visit(key)
            self.visit(value)

    def statements(self, body: Iterable[ast.stmt]) -> None:
        """Visit statements in order."""
        for statement in body:
            self.visit(statement)

    # -- simple statements

    def visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if (
            isinstance(node.value, (ast.Lambda, ast.Dict, ast.List, ast.Tuple))
            and len(node.targets) == 1
            and isinstance(target, ast.Name)
            and not self.class_names
        ):
            self.bind_function(target.id, self._held(node.value), at_once=False)
            return
        self.visit(node.value)
        for assignment_target in node.targets:
            self.visit(assignment_target)

    def _held(self, node: ast.expr) -> set[str]:
        """Visit an expression, and return the globals that the lambdas in it may read. Lambdas outside of lists, tuples and dicts are visited."""
        if isinstance(node, ast.Lambda):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self.visit(default)
            return self.deferred(node)
        if isinstance(node, ast.Dict):
            parts = [part for pair in zip(node.keys, node.values, strict=True) for part in pair if part is not None]
        elif isinstance(node, (ast.List, ast.Tuple)):
            parts = node.elts
        else:
            self.visit(node)
            return set()
        return set().union(*map(self._held, parts))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.record_read(node.target.id)
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
        self.paths.is_unreachable = True

    visit_Raise = _leave  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_Return = _leave  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Break(self, node: ast.Break) -> None:
        del node
        if self._loops:
            self._loops[-1].append(self.paths.copy())
        self.paths.is_unreachable = True

    def visit_Continue(self, node: ast.Continue) -> None:
        del node
        self.paths.is_unreachable = True

    # -- compound statements

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        start = self.paths
        ends = []
        for branch in (node.body, node.orelse):
            self.paths = start.copy()
            self.statements(branch)
            ends.append(self.paths)
        self.paths = join(ends)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        endless = False
        if isinstance(node, ast.While):
            self.visit(node.test)
            endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        else:
            self.visit(node.iter)
        start = self.paths.copy()
        if not self.class_names:
            # A later iteration may read names that an earlier iteration assigned.
            assigned_in_loop = {
                item.id
                for part in node.body
                for item in ast.walk(part)
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
            }
            self.paths.on_some_path |= assigned_in_loop
        if not isinstance(node, ast.While):
            self.visit(node.target)
        self._loops.append([])
        self.statements(node.body)
        breaks = self._loops.pop()
        start.on_some_path |= self.paths.on_some_path
        start.is_unreachable = start.is_unreachable or endless
        self.paths = start
        self.statements(node.orelse)
        self.paths = join([self.paths, *breaks])

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
        start = self.paths.copy()
        self.statements(node.body)
        failed = start.copy()
        failed.on_some_path |= self.paths.on_some_path
        self.statements(node.orelse)
        ends = [self.paths]
        for handler in node.handlers:
            self.paths = failed.copy()
            if handler.type is not None:
                self.visit(handler.type)
            if handler.name is not None:
                self.bind(handler.name)
            self.statements(handler.body)
            if handler.name is not None:
                self.paths.on_every_path.discard(handler.name)
            ends.append(self.paths)
        after = join(ends)
        if node.finalbody:
            self.paths = failed.copy()
            self.paths.on_some_path |= after.on_some_path
            self.statements(node.finalbody)
            after.on_every_path |= self.paths.on_every_path
            after.on_some_path |= self.paths.on_some_path
            after.is_unreachable = after.is_unreachable or self.paths.is_unreachable
        self.paths = after

    visit_Try = _try  # noqa: N815 - the name that ast.NodeVisitor calls
    visit_TryStar = _try  # noqa: N815 - the name that ast.NodeVisitor calls

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        start = self.paths
        ends = []
        for case in node.cases:
            self.paths = start.copy()
            self._pattern(case.pattern)
            if case.guard is not None:
                self.visit(case.guard)
            self.statements(case.body)
            ends.append(self.paths)
        last = node.cases[-1]
        catches_all = last.guard is None and isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
        self.paths = join(ends if catches_all else [*ends, start])

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

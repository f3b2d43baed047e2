"""What expressions, functions and classes of a body read and bind, in the order in which they run; and names that strings refer to.

``frame.query("x > @cutoff")``, ``duckdb.sql("from raw")``, ``pd.eval`` and formulas read names through strings. The result may contain too many
names, never too few: every string constant of the body counts if the body calls something that looks names up. A name that is
neither an asset nor a variable of the notebook means nothing.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stepwell.kernel_runtime.versions.queries import names_in_texts


@dataclass(slots=True)
class Paths:
    """Names that are assigned at a point: on every path that reaches it, and on some path."""

    sure: set[str] = field(default_factory=set)
    maybe: set[str] = field(default_factory=set)
    dead: bool = False
    """No path reaches this point."""

    def copy(self) -> Paths:
        """Return the same for another branch."""
        return Paths(set(self.sure), set(self.maybe), self.dead)


def join(paths: Iterable[Paths]) -> Paths:
    """Return what holds where several paths meet."""
    every = list(paths)
    alive = [path for path in every if not path.dead]
    maybe = set().union(*(path.maybe for path in every))
    if not alive:
        return Paths(set(every[0].sure) if every else set(), maybe, dead=True)
    return Paths(set.intersection(*(path.sure for path in alive)), maybe)


def function_globals(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> tuple[set[str], set[str]]:
    """Return the globals that a function reads, and those that it assigns, when it is called; functions inside it included."""
    reads: set[str] = set()
    assigns: set[str] = set()
    tables = list(symtable.symtable(ast.unparse(_bare(node)), "<cell>", "exec").get_children())
    while tables:
        table = tables.pop()
        tables.extend(table.get_children())
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                reads.add(symbol.get_name())
            if symbol.is_declared_global() and symbol.is_assigned():
                assigns.add(symbol.get_name())
    return reads, assigns


def _bare(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> ast.AST:
    """Return a function without what is evaluated where it is defined."""
    if isinstance(node, ast.Lambda):
        return ast.Expr(ast.Lambda(_bare_arguments(node.args), node.body))
    made = type(node)(name=node.name, args=_bare_arguments(node.args), body=node.body, decorator_list=[], returns=None)
    return ast.fix_missing_locations(made)


def _bare_arguments(given: ast.arguments) -> ast.arguments:
    def bare(argument: ast.arg) -> ast.arg:
        return ast.arg(argument.arg)

    return ast.arguments(
        posonlyargs=[bare(each) for each in given.posonlyargs], args=[bare(each) for each in given.args], kwonlyargs=[bare(each) for each in given.kwonlyargs],
        vararg=bare(given.vararg) if given.vararg else None, kwarg=bare(given.kwarg) if given.kwarg else None, defaults=[], kw_defaults=[None for _ in given.kwonlyargs],
    )  # fmt: skip


_WORD = re.compile(r"[^\W\d]\w*")
_FORMULA = frozenset(
    (
        "ols",
        "wls",
        "gls",
        "glm",
        "rlm",
        "logit",
        "probit",
        "poisson",
        "mnlogit",
        "quantreg",
        "mixedlm",
        "gee",
        "phreg",
        "negativebinomial",
        "dmatrix",
        "dmatrices",
        "from_formula",
    )
)
"""Functions of patsy and statsmodels that take a formula, in small letters."""
_LOOK_UP = frozenset(("globals", "locals", "vars", "eval", "exec"))
_FRAME_MODULES = frozenset(("pd", "pandas"))


def names_in_strings(tree: ast.AST) -> frozenset[str]:
    """Return the names that the string constants of a body may read."""
    calls = {name for node in ast.walk(tree) if isinstance(node, ast.Call) and (name := _called(node.func))}
    if not calls:
        return frozenset()
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found = set(names_in_texts(texts, list(calls)))
    if any(name.lower() in _FORMULA for name in calls):
        found.update(word for text in texts if "~" in text for word in _WORD.findall(text))
    if _evaluates(tree):
        found.update(name for text in texts for name in _expression_names(text))
    return frozenset(found)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _evaluates(tree: ast.AST) -> bool:
    """Tell whether the body calls ``eval`` or ``pd.eval``, whose text is an expression of names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in ("eval", "exec"):
                return True
            if (
                isinstance(function, ast.Attribute)
                and function.attr == "eval"
                and isinstance(function.value, ast.Name)
                and function.value.id in _FRAME_MODULES
            ):
                return True
    return False


def _expression_names(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text.replace("@", ""))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id


def looks_up(tree: ast.AST) -> bool:
    """Tell whether a body looks names up in ways that cannot be seen: a builtin that reads or runs a whole namespace."""
    return any(isinstance(node, ast.Name) and node.id in _LOOK_UP for node in ast.walk(tree))


class Reads(ast.NodeVisitor):
    """Walks expressions, functions and classes; what statements do to the paths is its subclass's."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.early: set[str] = set()
        self.assigned: set[str] = set()
        self.imported: set[str] = set()
        self.pending: dict[str, set[str]] = {}
        """For a name bound to functions or classes, the globals that these read when they are called."""
        self._using: set[str] = set()
        """Functions whose reads are being counted: they may call each other."""
        self.now = Paths()
        self.class_names: list[set[str]] = []
        """Names bound so far in the class bodies that are being walked."""
        self._local: list[set[str]] = []
        """Names bound by the comprehensions that are being walked."""

    # -- names

    def read(self, name: str) -> None:
        """Take note that a name is read here."""
        if any(name in scope for scope in self._local) or (self.class_names and name in self.class_names[-1]):
            return
        if name not in self.now.sure:
            self.reads.add(name)
            if name not in self.now.maybe:
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
        """Take note that a name is assigned here."""
        if self._local and name in self._local[-1]:
            return
        if self.class_names:
            self.class_names[-1].add(name)
            return
        self.now.sure.add(name)
        self.now.maybe.add(name)
        self.assigned.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        """A name is read, assigned or deleted."""
        if isinstance(node.ctx, ast.Load):
            self.read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif not self.class_names:
            self.read(node.id)
            self.now.sure.discard(node.id)

    # -- functions and classes

    def deferred(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
        """Return the globals that a function reads when it is called; what it assigns to globals may be assigned from now on."""
        reads, assigns = function_globals(node)
        self.assigned |= assigns
        self.now.maybe |= assigns
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
        self.later(node.name, reads, at_once=bool(node.decorator_list))

    def later(self, name: str, reads: set[str], *, at_once: bool) -> None:
        """Bind a name to something that reads globals when it is called."""
        inside_class = bool(self.class_names)
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
        """A lambda may be called at once."""
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for found in self.deferred(node):
            self.read(found)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """The body of a class runs at once, in names of its own; its methods later."""
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        outer, self._owner = self._owner, self._owner if self.class_names else node.name
        self.class_names.append({"__module__", "__qualname__"})
        self.statements(node.body)
        self.class_names.pop()
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
        before = self.now.copy()
        try:
            yield
        finally:
            before.maybe |= self.now.maybe
            self.now = before

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        """The value comes before the name."""
        self.visit(node.value)
        self.visit(node.target)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """All but the first operand may not run."""
        self.visit(node.values[0])
        with self._branch():
            for value in node.values[1:]:
                self.visit(value)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """One of two branches runs."""
        self.visit(node.test)
        start = self.now
        ends = []
        for value in (node.body, node.orelse):
            self.now = start.copy()
            self.visit(value)
            ends.append(self.now)
        self.now = join(ends)

    def visit_Dict(self, node: ast.Dict) -> None:
        """Each key comes before its value."""
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                self.visit(key)
            self.visit(value)

    def statements(self, body: Iterable[ast.stmt]) -> None:
        """Walk statements in order."""
        for statement in body:
            self.visit(statement)

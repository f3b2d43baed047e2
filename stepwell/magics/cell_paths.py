"""What is known of names at a point of a body, and what a function reads when it is called."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable
from dataclasses import dataclass, field


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

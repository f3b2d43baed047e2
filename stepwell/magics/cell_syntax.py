"""What IPython adds to Python, inside a cell's body: commands, magics, ``%time``; and what a body cannot hold.

IPython's transformer has turned these into calls of ``get_ipython()``; here they are found again in the syntax tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from stepwell.magics.cell_names import Names

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SET_UP = ("matplotlib", "config", "load_ext", "reload_ext", "autoreload")
"""Magics that set the kernel up and compute nothing: a body may hold them as statements, and after a hit they are executed again, as imports are."""


# -- what a body cannot hold


def refused(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield what has no meaning in a body: the line, what it is, and the remedy."""
    for node in _outside_functions(tree):
        if isinstance(node, ast.Return):
            yield (
                node.lineno,
                "has `return` outside a function",
                "assign the value, or end the cell with it: a cell is not a function",
            )
        elif isinstance(node, ast.Yield | ast.YieldFrom):
            yield (
                node.lineno,
                "has `yield` outside a function",
                "collect the values in a list: a cell is not a generator",
            )
    set_up = {id(node.value) for node in tree.body if isinstance(node, ast.Expr) and is_set_up(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield (
                node.lineno,
                f"imports * from {node.module or '.'}",
                "import the names that it uses: what a cell depends on must be seen",
            )
        magic = _shell_call(node)
        if (
            isinstance(node, ast.Call)
            and magic is not None
            and magic[0] in ("run_line_magic", "run_cell_magic")
            and not (magic[0] == "run_line_magic" and magic[1] == "time")
            and id(node) not in set_up
        ):
            sign = "%%" if magic[0] == "run_cell_magic" else "%"
            shown = f"{sign}{magic[1]}"
            yield (
                node.lineno,
                f"uses the magic {shown}" if magic[1] not in ("pinfo", "pinfo2") else "asks for help with ?",
                "move it to a cell of its own",
            )


def is_set_up(node: ast.stmt) -> bool:
    """Return True for a statement that is a magic which sets the kernel up, such as ``%matplotlib inline``."""
    call = _shell_call(node.value) if isinstance(node, ast.Expr) else None
    return call is not None and call[0] == "run_line_magic" and call[1] in _SET_UP


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _FUNCTIONS):
            yield child
            yield from _outside_functions(child)


def _shell_call(node: ast.AST) -> tuple[str, str, str] | None:
    """Return method, first and second argument of a call that IPython's transformer writes, or None."""
    if not (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call)
    ):
        return None
    inner = node.func.value.func
    if not (isinstance(inner, ast.Name) and inner.id == "get_ipython"):
        return None
    given = [each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else "" for each in node.args]
    return node.func.attr, *([*given, "", ""][:2])  # type: ignore[return-value]


_SHELL_NAME = re.compile(r"\$\$?([A-Za-z_]\w*)|\{([^{}]*)\}")


def with_shell(tree: ast.Module, names: Names) -> tuple[ast.Module, Names, tuple[str, ...]]:
    """Count the names that ``!cmd $name {expression}`` takes from the cell, and reach the shell without a name of the notebook.

    Returned as well is what the cell does with the shell, in words: what a command does cannot be digested. The shell is imported by the cell
    itself, since taken from the notebook it would be taken apart as any of its variables.
    """
    found: set[str] = set()
    does: dict[str, None] = {}
    calls = [(node, call) for node in ast.walk(tree) if (call := _shell_call(node)) is not None]
    for _, (method, command, _) in calls:
        if method not in ("system", "getoutput"):
            continue
        does[
            f"!{_program(command)} runs a program, and what that reads and does is not seen: declare --reads, --max-age or --volatile"
        ] = None
        for name, expression in _SHELL_NAME.findall(command):
            if name:
                found.add(name)
                continue
            try:
                inner = ast.parse(expression.strip(), mode="eval")
            except SyntaxError:
                continue  # braces of the shell's own
            found |= {each.id for each in ast.walk(inner) if isinstance(each, ast.Name)}
    reads = names.reads | (found - names.assigned)
    if "get_ipython" in names.early:
        uses = sum(isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(tree))
        if not does and uses > sum(map(is_set_up, tree.body)):
            does[
                "get_ipython() is the notebook's shell, and what it does is not seen: declare --reads, --max-age or --volatile"
            ] = None
        reads -= {"get_ipython"}
        at = sum(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        tree.body.insert(at, _import_of_the_shell(tree.body[0]))
    return tree, replace(names, reads=reads), tuple(does)


def _program(command: str) -> str:
    words = command.split()
    return words[0] if words else ""


def _import_of_the_shell(place: ast.stmt) -> ast.stmt:
    made = ast.parse("from IPython import get_ipython").body[0]
    for each in ast.walk(made):
        ast.copy_location(each, place)
    return made


# -- %time


class Timed(ast.NodeTransformer):
    """``%time EXPR`` becomes EXPR itself with a clock around it, in plain Python: its names are seen, its value is the cell's."""

    def _expanded(self, line: str, node: ast.stmt) -> tuple[list[ast.stmt], list[ast.stmt], list[ast.stmt]]:
        inner = ast.parse(line).body
        before = ast.parse("import time as _time_\n_started_ = _time_.perf_counter()").body
        after = ast.parse("print(f'Wall time: {_time_.perf_counter() - _started_:.3g} s')").body
        for statement in (*before, *inner, *after):
            for each in ast.walk(statement):
                if isinstance(each, ast.stmt | ast.expr):
                    each.lineno = each.end_lineno = node.lineno
        return before, inner, after

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Rewrite ``%time EXPR`` on a line of its own."""
        call = _shell_call(node.value)
        if call is None or call[:2] != ("run_line_magic", "time"):
            return self.generic_visit(node)
        before, inner, after = self._expanded(call[2], node)
        if inner and isinstance(inner[-1], ast.Expr):
            value = inner[-1].value
            kept = ast.copy_location(ast.Assign([ast.Name("_timed_", ast.Store())], value), node)
            return [
                *before,
                *inner[:-1],
                kept,
                *after,
                ast.copy_location(ast.Expr(ast.Name("_timed_", ast.Load())), node),
            ]
        return [*before, *inner, *after]

    def visit_Assign(self, node: ast.Assign) -> Any:
        """Rewrite ``name = %time EXPR``."""
        call = _shell_call(node.value)
        if call is None or call[:2] != ("run_line_magic", "time"):
            return self.generic_visit(node)
        before, inner, after = self._expanded(call[2], node)
        if not inner or not isinstance(inner[-1], ast.Expr):
            return [*before, *inner, *after]
        kept = ast.copy_location(ast.Assign(node.targets, inner[-1].value), node)
        return [*before, *inner[:-1], kept, *after]

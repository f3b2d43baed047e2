"""The compilation of the body of a cell: IPython's transformer, parsing, checks, and code objects with the line numbers of the cell.

The body is compiled as a module under the filename that the kernel assigned to the whole cell. `linecache` contains the source of the cell
under this filename, so that tracebacks, `inspect.getsource` and the breakpoints of a front end show the lines as typed. IPython's transformer
turns shell commands and magics, including ``%time``, into calls of methods of ``get_ipython()``; this module recognizes these calls in the
syntax tree.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

from IPython.core.displayhook import DisplayHook

from stepwell.kernel_runtime.definitions.bodies import Definition
from stepwell.kernel_runtime.errors import CellError, CellSyntaxError
from stepwell.magics.cell_changes import shell_call
from stepwell.magics.cell_names import Names, names_of

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SET_UP = ("matplotlib", "config", "load_ext", "reload_ext", "autoreload")
"""Magics that configure the kernel. A body may contain them as statements. Like imports, they are executed again when the cell is reused."""


# -- syntax that a body must not contain


def forbidden_constructs(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield a tuple for each construct in `tree` that the body of a cell must not contain: its line number, the problem, and the remedy.

    The problem is a verb phrase that follows the name of the cell in a message, such as ``uses the magic %%bash``.
    """
    for node in _outside_functions(tree):
        if isinstance(node, ast.Return):
            yield (
                node.lineno,
                "has `return` outside a function",
                "assign the value to a variable, or write it as the last line of the cell",
            )
        elif isinstance(node, ast.Yield | ast.YieldFrom):
            yield (
                node.lineno,
                "has `yield` outside a function",
                "collect the values in a list, and end the cell with the list",
            )
    set_up = {id(node.value) for node in tree.body if isinstance(node, ast.Expr) and is_set_up(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield (
                node.lineno,
                f"imports * from {node.module or '.'}",
                "import each name that the cell uses, so that Stepwell can find what the cell depends on",
            )
        magic = shell_call(node)
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
                "move this line to a separate cell",
            )


def is_set_up(node: ast.stmt) -> bool:
    """Return True if a statement is a magic that configures the kernel, such as ``%matplotlib inline``."""
    call = shell_call(node.value) if isinstance(node, ast.Expr) else None
    return call is not None and call[0] == "run_line_magic" and call[1] in _SET_UP


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _FUNCTIONS):
            yield child
            yield from _outside_functions(child)


_SHELL_NAME = re.compile(r"\$\$?([A-Za-z_]\w*)|\{([^{}]*)\}")


def with_shell(tree: ast.Module, names: Names) -> tuple[ast.Module, Names, tuple[str, ...]]:
    """Add the names in shell commands to the names of a body. If the body uses ``get_ipython``, add an import of it to the body.

    Without the import, the body would read ``get_ipython`` from the notebook, and its code version would cover the whole shell object.

    Parameters
    ----------
    tree
        The syntax tree of the body. It may be changed.
    names
        The names of the body. Names that only shell commands read, as in ``!cmd $name {expression}``, are still missing.

    Returns
    -------
    tree
        The syntax tree, with the import if it is needed.
    names
        `names` with the names that shell commands read, and without ``get_ipython``.
    warnings
        The reasons why the step is unverifiable. If shell commands of the body run programs, there is one reason for each program. Otherwise, there
        is one reason if the body uses ``get_ipython()`` for anything but configuring the kernel. Else the tuple is empty.
    """
    names_in_commands: set[str] = set()
    does: dict[str, None] = {}
    calls = [(node, call) for node in ast.walk(tree) if (call := shell_call(node)) is not None]
    for _, (method, command, _) in calls:
        if method not in ("system", "getoutput"):
            continue
        program = (command.split() or [""])[0]
        does[
            f"!{program} runs a program, and Stepwell cannot record what the program reads and changes: declare --reads, --max-age or --volatile"
        ] = None
        for name, expression in _SHELL_NAME.findall(command):
            if name:
                names_in_commands.add(name)
                continue
            try:
                inner = ast.parse(expression.strip(), mode="eval")
            except SyntaxError:
                continue  # the braces are syntax of the shell, such as {a,b}
            names_in_commands |= {name_node.id for name_node in ast.walk(inner) if isinstance(name_node, ast.Name)}
    reads = names.reads | (names_in_commands - names.assigned)
    if "get_ipython" in names.read_first:
        uses = sum(isinstance(node, ast.Name) and node.id == "get_ipython" for node in ast.walk(tree))
        if not does and uses > sum(map(is_set_up, tree.body)):
            does[
                "the cell uses get_ipython(), and Stepwell cannot record what it reads and changes: declare --reads, --max-age or --volatile"
            ] = None
        reads -= {"get_ipython"}
        position = sum(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        tree.body.insert(position, _import_of_the_shell(tree.body[0]))
    return tree, replace(names, reads=reads), tuple(does)


def _import_of_the_shell(place: ast.stmt) -> ast.stmt:
    statement = ast.parse("from IPython import get_ipython").body[0]
    for child in ast.walk(statement):
        ast.copy_location(child, place)
    return statement


# -- %time


class Timed(ast.NodeTransformer):
    """Replaces ``%time EXPR`` in a syntax tree by EXPR with a timer around it.

    The names in EXPR are then analysed like those of other code, and the value of EXPR can be the value of the cell.
    """

    def _expanded(self, line: str, node: ast.stmt) -> tuple[list[ast.stmt], list[ast.stmt], list[ast.stmt]]:
        inner = ast.parse(line).body
        before = ast.parse("import time as _time_\n_started_ = _time_.perf_counter()").body
        after = ast.parse("print(f'Wall time: {_time_.perf_counter() - _started_:.3g} s')").body
        for statement in (*before, *inner, *after):
            for child in ast.walk(statement):
                if isinstance(child, ast.stmt | ast.expr):
                    child.lineno = child.end_lineno = node.lineno
        return before, inner, after

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Replace a statement ``%time EXPR`` by EXPR with a timer around it."""
        call = shell_call(node.value)
        if call is None or call[:2] != ("run_line_magic", "time"):
            return self.generic_visit(node)
        before, inner, after = self._expanded(call[2], node)
        if inner and isinstance(inner[-1], ast.Expr):
            value = inner[-1].value
            timed = ast.copy_location(ast.Assign([ast.Name("_timed_", ast.Store())], value), node)
            return [
                *before,
                *inner[:-1],
                timed,
                *after,
                ast.copy_location(ast.Expr(ast.Name("_timed_", ast.Load())), node),
            ]
        return [*before, *inner, *after]

    def visit_Assign(self, node: ast.Assign) -> Any:
        """Replace ``name = %time EXPR`` by ``name = EXPR`` with a timer around it."""
        call = shell_call(node.value)
        if call is None or call[:2] != ("run_line_magic", "time"):
            return self.generic_visit(node)
        before, inner, after = self._expanded(call[2], node)
        if not inner or not isinstance(inner[-1], ast.Expr):
            return [*before, *inner, *after]
        timed = ast.copy_location(ast.Assign(node.targets, inner[-1].value), node)
        return [*before, *inner[:-1], timed, *after]


_MOST_TRANSFORMS = 500


@dataclass(frozen=True, slots=True)
class CellText:
    """The text, as typed, of a cell that contains a cell magic."""

    body: str
    """The lines below the line with the magic."""
    cell: str
    """The whole text of the cell."""
    lines_above: int
    """The number of lines of the cell above `body`."""
    filename: str
    """The filename under which the code of the cell is compiled."""
    where: str
    """The label of the cell for messages: ``cell 9``."""


@dataclass(frozen=True, slots=True)
class CellSource:
    """The compiled and analysed body of a cell."""

    text: CellText
    names: Names
    statements: CodeType | None
    """The statements before the last expression, compiled as a module; None if there are none."""
    tail: CodeType | None
    """The last expression, compiled for evaluation; None if the body ends in a statement."""
    quiet: bool
    """True if the last expression is followed by ``;``, so that its value is not displayed."""
    is_async: bool
    """True if the body contains a top-level ``await``."""
    may_have_value: bool = True
    """False if the body calls nothing and ends with an assignment of a variable. Then the cell has no value unless it assigns the asset's variable."""
    ends_in_assignment: bool = False
    """True if the body ends with an assignment of a variable. If such a body does not assign the asset's variable, the value of the cell can only be
    a figure that the body opened."""
    definitions: tuple[Definition, ...] = ()
    """The statements that are executed again when the cell is reused, such as imports and functions, in the order of the body."""
    assigned_values: frozenset[str] = frozenset()
    """The names that the body binds by statements other than those in `definitions`. A name to which the body assigns the result of a call, as in
    ``P = namedtuple("P", "x y")``, is included even if the assignment is in `definitions`."""
    last_name: str = ""
    """The variable that is the last expression; empty if the last expression is anything else, or if the body has none."""
    shell: tuple[str, ...] = ()
    """The reasons why the uses of the shell make the step unverifiable; empty if the body does not use the shell."""


def cell_text(shell: Any, info: Any, magic: str, line: str, body: str) -> CellText:
    """Return the text of the cell that contains a cell magic, with the position of the body and the filename for the code.

    If the running cell does not contain the magic, for example because code called ``run_cell_magic``, the text is made from `magic`, `line` and
    `body`.

    Parameters
    ----------
    shell
        IPython's shell.
    info
        IPython's record of the running cell; None if no cell is running.
    magic, line
        The name of the magic, and the rest of its line.
    body
        The lines below the magic, which IPython passed to the magic.
    """
    full = (info.raw_cell if info is not None else "") or ""
    if full.rstrip().endswith(body.rstrip()) and f"%%{magic}" in full:
        lines_above = full.rstrip().count("\n") - body.rstrip().count("\n")
        filename, number = _running_name(shell, info)
    else:
        full, lines_above = f"%%{magic} {line}".rstrip() + f"\n{body}", 1
        filename, number = "", shell.execution_count
    filename = filename or shell.compile.cache(full, number, raw_code=full)
    linecache.cache[filename] = (len(full), None, [text_line + "\n" for text_line in full.splitlines()], filename)
    return CellText(body, full, lines_above, filename, f"cell {number}")


def _running_name(shell: Any, info: Any) -> tuple[str, int]:
    """Return the filename under which IPython compiled the running cell, and the number of the cell; the filename is empty if it is unknown.

    IPython may have increased its cell counter for the running cell already, or not yet, so two numbers are tried: the counter, and one less.
    """
    transformed_cell = getattr(info, "transformed_cell", None) or shell.transform_cell(info.raw_cell)
    for number in (shell.execution_count - 1, shell.execution_count):
        name = shell.compile.get_code_name(info.raw_cell, transformed_cell, number)
        if shell.compile.format_code_name(name) == ("Cell", f"In[{number}]"):
            return name, number
    return "", shell.execution_count


def read_cell(shell: Any, text: CellText, name: str) -> CellSource:
    """Parse, check, analyse and compile the body of a cell.

    Parameters
    ----------
    shell
        IPython's shell.
    name
        The names of what the cell defines, separated by spaces, for messages.

    Raises
    ------
    CellSyntaxError
        If the body is not valid Python, or contains syntax that a body must not contain.
    CellError
        If the body is empty.
    """
    source, tree = parse(shell, text, name)
    if not tree.body:
        raise CellError(
            f"the cell of {name!r} is empty",
            where=text.where,
            remedy=f"write the code that computes {name} below the first line",
        )
    names = names_of(tree)
    tree, names, of_shell = with_shell(tree, names)
    ast.increment_lineno(tree, text.lines_above)
    ends_in_semicolon: Callable[[str], bool] = DisplayHook.semicolon_at_end_of_expression
    last = tree.body[-1]
    statements, tail = (tree.body[:-1], last) if isinstance(last, ast.Expr) and not is_set_up(last) else (tree.body, None)
    quiet = tail is not None and ends_in_semicolon(source)
    flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = _compile(ast.Module(statements, tree.type_ignores), "exec", flags, text, name) if statements else None
    if code is not None:
        flags |= code.co_flags & _future_flags()
    end = _compile(ast.Expression(tail.value), "eval", flags, text, name) if tail is not None else None
    is_async = any(part is not None and part.co_flags & inspect.CO_COROUTINE for part in (code, end))
    definitions, stored = _definitions(tree, flags, text, name)
    assigns = _assigns_a_name(last)
    draws = any(isinstance(node, ast.Call) for node in ast.walk(tree))
    return CellSource(
        text, names, code, end, quiet, is_async, draws or not assigns, assigns,
        definitions, stored, tail.value.id if tail is not None and isinstance(tail.value, ast.Name) else "", of_shell,
    )  # fmt: skip


def _assigns_a_name(last: ast.stmt) -> bool:
    """Return True if `last`, the last statement of a body, assigns a variable."""
    if isinstance(last, ast.Assign):
        return any(isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) for node in ast.walk(last))
    return isinstance(last, ast.AugAssign | ast.AnnAssign) and isinstance(last.target, ast.Name)


def _definitions(tree: ast.Module, flags: int, text: CellText, name: str) -> tuple[tuple[Definition, ...], frozenset[str]]:
    """Return the values of the attributes `CellSource.definitions` and `CellSource.assigned_values`. The bodies of functions are not searched."""
    definitions: list[Definition] = []
    stored: set[str] = set()
    pending: list[ast.AST] = list(reversed(tree.body))
    top = {id(node) for node in tree.body}
    while pending:
        node = pending.pop()
        names: tuple[str, ...] = ()
        is_call = False
        always = id(node) in top
        if isinstance(node, ast.stmt) and is_set_up(node):
            code = _compile(ast.Module([node], []), "exec", flags, text, name)
            definitions.append(Definition((), code, node.lineno, node.end_lineno or node.lineno, is_import=True, always=always))
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = tuple(alias.asname or alias.name.split(".", maxsplit=1)[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = (node.name,)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            targets = [target for target in node.targets if isinstance(target, ast.Name)]
            names = tuple(target.id for target in targets) if len(targets) == len(node.targets) else ()
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            names = tuple(target.id for target in node.targets if isinstance(target, ast.Name))
            is_call = len(names) == len(node.targets) == 1
            names = names if is_call else ()
        if names:
            assert isinstance(node, ast.stmt)
            first = min([node.lineno, *[decorator.lineno for decorator in getattr(node, "decorator_list", ())]])
            code = _compile(ast.Module([node], []), "exec", flags, text, name)
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            definitions.append(
                Definition(names, code, first, node.end_lineno or first, is_import, always, _sources_of(node), is_call)
            )
            if not is_call:
                continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            stored.add(node.id)
        if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name is not None:
            stored.add(node.name)
        if not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            pending.extend(reversed(list(ast.iter_child_nodes(node))))
    return tuple(definitions), frozenset(stored)


def _sources_of(node: ast.stmt) -> tuple[tuple[str, str], ...]:
    """Return a pair for each name that the import `node` binds: a module, and the attribute of the module to which the name is bound.

    The attribute is an empty string if the name is bound to the module itself. Return an empty tuple if `node` is a relative import or no import.
    """
    if isinstance(node, ast.Import):
        return tuple((alias.name if alias.asname else alias.name.partition(".")[0], "") for alias in node.names)
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        return tuple((node.module, alias.name) for alias in node.names)
    return ()


def _future_flags() -> int:
    import __future__

    flags = 0
    for feature in __future__.all_feature_names:
        flags |= getattr(__future__, feature).compiler_flag
    return flags


def _compile(tree: ast.Module | ast.Expression, mode: str, flags: int, text: CellText, name: str) -> CodeType:
    try:
        code: CodeType = compile(tree, text.filename, mode, flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise _syntax_error(error, text, name, shift=0) from error
    return code


def parse(shell: Any, text: CellText, name: str) -> tuple[str, ast.Module]:
    """Return the body of a cell after IPython's transformations, and its syntax tree. Line numbers are relative to the start of the body.

    Parameters
    ----------
    name
        The names of what the cell defines, separated by spaces, for messages.

    Raises
    ------
    CellSyntaxError
        If the body is not valid Python, or contains syntax that a body must not contain (`forbidden_constructs`).
    """
    try:
        source = transformed(shell.input_transformer_manager, text.body)
        tree = shell.compile.ast_parse(source, filename=text.filename)
    except SyntaxError as error:
        raise _syntax_error(error, text, name, shift=text.lines_above) from error
    assert isinstance(tree, ast.Module)
    for line, problem, remedy in forbidden_constructs(tree):
        raise CellSyntaxError(
            f"the cell of {name!r} {problem}",
            where=f"{text.where}, line {line + text.lines_above}: {_line(text, line + text.lines_above)}",
            remedy=remedy,
        )
    try:
        return source, ast.fix_missing_locations(Timed().visit(tree))
    except SyntaxError as error:
        raise _syntax_error(error, text, name, shift=text.lines_above) from error


def transformed(manager: Any, body: str) -> str:
    """Return `body` after IPython's transformations, with every statement on the line where it was typed.

    Parameters
    ----------
    manager
        IPython's transformer manager.
    """
    lines = (body if body.endswith("\n") else body + "\n").splitlines(keepends=True)
    blank = 0
    while blank < len(lines) and lines[blank].isspace():
        blank += 1
    for transform in (*manager.cleanup_transforms, *manager.line_transforms):
        lines = transform(lines)
    for _ in range(_MOST_TRANSFORMS):
        before = lines
        changed, lines = manager.do_one_token_transform(before)
        if not changed:
            break
        # The transformer writes a command that spans several lines on one line. Blank lines keep the statements below on their lines.
        removed_lines = len(before) - len(lines)
        if removed_lines > 0:
            changed_line = next(
                (i for i, (old, new) in enumerate(zip(before, lines, strict=False)) if old != new), len(lines) - 1
            )
            lines = [*lines[: changed_line + 1], *["\n"] * removed_lines, *lines[changed_line + 1 :]]
    return "\n" * blank + "".join(lines)


def _line(text: CellText, number: int) -> str:
    lines = text.cell.splitlines()
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def _syntax_error(error: Exception, text: CellText, name: str, *, shift: int) -> CellSyntaxError:
    line = (getattr(error, "lineno", None) or 0) + shift
    message = getattr(error, "msg", None) or str(error)
    where = f"{text.where}, line {line}: {_line(text, line)}" if line > shift else text.where
    return CellSyntaxError(
        f"the cell of {name!r} is not valid Python: {message}",
        where=where,
        remedy="correct the line and run the cell again; nothing was registered",
    )

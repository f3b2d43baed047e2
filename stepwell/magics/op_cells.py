"""``%%op``: a cell becomes an op; its first line is the op's signature."""

from __future__ import annotations

import ast
import keyword
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.definitions.declarations import UNSET, In, Out
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import CellError, CellSyntaxError, CellValueError
from stepwell.kernel_runtime.records.keys import check_name
from stepwell.magics.asset_cells import cell_body, is_declared
from stepwell.magics.cell_inputs import inputs_of
from stepwell.magics.cell_source import cell_text, read_cell
from stepwell.magics.face import Face
from stepwell.magics.flags import outside_brackets


@dataclass(frozen=True, slots=True)
class Header:
    """What stands after ``%%op`` or ``%%graph``."""

    name: str
    ins: dict[str, In]
    defaults: dict[str, Any]
    config: dict[str, Any]
    """Keyword-only parameters with their defaults."""
    outputs: tuple[str, ...]
    """Names after ``->``."""


def read_header(line: str, magic: str, namespace: dict[str, Any], where: str) -> Header:
    """Read ``transform(data, *, top=10) -> out``.

    Parameters
    ----------
    namespace
        Where defaults and annotations are evaluated.

    Raises
    ------
    CellSyntaxError
        If the line is no signature.
    """
    usage = f"write %%{magic} name(inputs{', *, option=1) -> out' if magic == 'op' else ')'}"
    arrow = next((place for place in outside_brackets(line) if line.startswith("->", place)), None)
    left, right = (line.strip(), "") if arrow is None else (line[:arrow].strip(), line[arrow + 2 :])
    if left and "(" not in left:
        left += "()"
    try:
        # Compiled too: that refuses two parameters of one name.
        compile(f"def {left}: pass", "<line>", "exec")
        parsed = ast.parse(f"def {left}: pass").body
        function = parsed[0]
        outputs = _outputs(right) if arrow is not None else ()
    except (SyntaxError, ValueError, IndexError):
        raise CellSyntaxError(f"%%{magic} {line} cannot be read", where=where, remedy=usage) from None
    if len(parsed) != 1 or not isinstance(function, ast.FunctionDef) or function.args.vararg or function.args.kwarg:
        raise CellSyntaxError(f"%%{magic} {line} cannot be read: each input has a name", where=where, remedy=usage)

    def evaluated(node: ast.expr) -> Any:
        try:
            return eval(compile(ast.Expression(node), f"<%%{magic} {function.name}>", "eval"), namespace)  # noqa: S307 - the user's own default
        except Exception as error:
            raise CellError(
                f"in %%{magic} {function.name}: {ast.unparse(node)} cannot be evaluated: {error}",
                where=where,
                remedy="run the cell that defines what it uses first",
            ) from error

    check_name("an op" if magic == "op" else "a graph", function.name, where=where)
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    if positional and positional[0].arg == "context":
        raise CellError(
            f"in %%{magic} {function.name}: a cell is not given a context",
            where=where,
            remedy="take it out; an op that needs one is written with @op in a plain cell",
        )
    ins = {each.arg: In(evaluated(each.annotation) if each.annotation is not None else UNSET) for each in positional}
    for name in ins:
        check_name("an input", name, where=where)
    with_default = positional[len(positional) - len(given.defaults) :] if given.defaults else []
    defaults = {each.arg: evaluated(value) for each, value in zip(with_default, given.defaults, strict=True)}
    config = {
        each.arg: evaluated(value) if value is not None else UNSET
        for each, value in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    }
    return Header(function.name, ins, defaults, config, outputs)


def _outputs(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.strip().strip("()").split(",") if part.strip())
    if (
        not names
        or any(not name.isidentifier() or keyword.iskeyword(name) for name in names)
        or len(set(names)) < len(names)
    ):
        raise ValueError(text)
    return names


def op_of(face: Face, arguments: Namespace, signature: str, line: str, body: str) -> OpDefinition:
    """Make the op of a ``%%op`` cell.

    Parameters
    ----------
    arguments
        Its flags.
    signature
        The line without them.
    line, body
        The rest of the magic's line as it was typed, and what is below it.

    Raises
    ------
    CellError
        If the cell cannot become an op; nothing is bound then.
    """
    text = cell_text(face.shell, face.running, "op", line, body)
    header = read_header(signature, "op", face.namespace, text.where)
    source = read_cell(face.shell, text, header.name)
    assigned = source.names.assigned
    outputs = header.outputs or ((header.name,) if header.name in assigned else ())
    for name in outputs:
        if name not in assigned and name not in header.ins:
            raise CellValueError(
                f"the cell of {header.name!r} never assigns {name!r}",
                where=text.where,
                remedy=f"assign {name}, or take `-> {name}` out of the first line",
            )
    if not outputs and source.tail is None:
        raise CellValueError(
            f"the cell of {header.name!r} has no value",
            where=text.where,
            remedy=f"assign {header.name}, name the output (-> out), or end the cell with an expression",
        )
    if arguments.cache and arguments.no_cache:
        raise CellError(
            f"the op {header.name!r} is given --cache and --no-cache",
            where=text.where,
            remedy="take one of them out",
        )
    parameters = (*header.ins, *header.config)
    assets, _ = inputs_of(face, source.names.reads - set(parameters), (), {}, text.where)
    if assets:
        name, key = next(iter(assets.items()))
        raise CellError(
            f"the op {header.name!r} reads the asset {key}",
            where=text.where,
            remedy=f"ops are given what they read: write {name} in the parentheses, and pass the asset where the op is called",
        )
    made = cell_body(
        face, source, header.name, parameters=parameters, outputs=outputs, assets=set(), declared=is_declared(arguments)
    )
    return OpDefinition(
        header.name, made, ins=header.ins, outs={name: Out() for name in outputs} if len(outputs) > 1 else {"result": Out()},
        config=header.config, where=text.where, defaults=header.defaults,
        cache=True if arguments.cache else False if arguments.no_cache else None, volatile=arguments.volatile, max_age=arguments.max_age,
        ignore=",".join(arguments.ignore), reads=arguments.reads,
    )  # fmt: skip

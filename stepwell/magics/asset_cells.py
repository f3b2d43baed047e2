"""``%%asset``, ``%%multi_asset``, ``%%op`` and ``%%sql_asset``: each of these magics makes a definition from its cell."""

from __future__ import annotations

import ast
import difflib
import keyword
import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetKind, AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.declarations import UNSET, In, Out
from stepwell.kernel_runtime.definitions.decorators import select_asset
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import CellError, CellNameError, CellSyntaxError, CellValueError
from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.records.keys import AssetKey, as_asset_key, check_name, keys_text
from stepwell.kernel_runtime.session.sql import read_select
from stepwell.kernel_runtime.store.sql.statements import folded
from stepwell.magics.cell_inputs import cell_origin, check_self_reference, inputs_of, key_from, read_deps, read_inputs
from stepwell.magics.cell_names import Names
from stepwell.magics.cell_source import CellSource, CellText, cell_text, read_cell
from stepwell.magics.face import Face, say, value_or_figure
from stepwell.magics.flags import outside_brackets
from stepwell.magics.running import compute_unstored, leave_result, names_of_inputs


def asset_of(face: Face, arguments: Namespace, line: str, body: str) -> tuple[AssetsDefinition, bool]:
    """Return the definition of an ``%%asset`` cell, and False.

    The bool says whether the caller must display the value after the run. It is always False, because the body displays the value while it runs.

    Parameters
    ----------
    arguments
        The parsed flags, the name of the asset, and the variable after ``->``.
    line, body
        The rest of the magic's line, and the lines below it.

    Raises
    ------
    CellError, InvalidDefinitionError, UnknownKeyError
        If the cell cannot become an asset, or ``-d`` names an unknown asset. Nothing is registered.
    UpstreamBudgetError
        In interactive use, if a variable that the cell needs was not stored, and the last run that computed the variable took longer than
        ``Stepwell.upstream_budget``.
    """
    text = cell_text(face.shell, face.running, "asset", line, body)
    key = key_from(arguments.name, arguments.key_prefix, text.where)
    variable = variable_from(arguments.variable, key, text.where)
    source = read_cell(face.shell, text, variable)
    assigned = variable in source.names.assigned
    if not assigned and (arguments.variable or not source.may_have_value):
        arrow = "" if arguments.variable else f"name the variable (%%asset {key} -> variable), "
        raise CellValueError(
            f"the cell of {key.name!r} has no value",
            where=text.where,
            remedy=f"assign {variable}, {arrow}or end the cell with the expression that is its value",
        )
    outputs = (variable,) if assigned else ()
    return _definition(face, arguments, source, "asset", (key,), variables=(variable,), outputs=outputs), False


def variable_from(name: str | None, key: AssetKey, where: str) -> str:
    """Return the variable to which the value of the asset `key` is bound: `name` or, if this is None, the last part of the key.

    Parameters
    ----------
    name
        The text after ``->`` in the first line of the cell; None if the line has no arrow.

    Raises
    ------
    CellError
        If `name` is not a valid variable name.
    """
    if name is None:
        return key.name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CellError(
            f"{name!r} is not a valid variable name",
            where=where,
            remedy=f"write a variable name after the arrow, such as %%asset {key} -> df",
        )
    return name


def multi_asset_of(face: Face, arguments: Namespace, line: str, body: str) -> tuple[AssetsDefinition, bool]:
    """Return the definition of a ``%%multi_asset`` cell, and False.

    The bool says whether the caller must display the values after the run. It is always False: the values of a multi-asset are not displayed.

    Parameters
    ----------
    arguments
        The parsed flags and the names of the assets.
    line, body
        The rest of the magic's line, and the lines below it.

    Raises
    ------
    CellError
        If the cell cannot become a multi-asset. Nothing is registered.
    """
    text = cell_text(face.shell, face.running, "multi_asset", line, body)
    keys = tuple(key_from(name, arguments.key_prefix, text.where) for name in arguments.names)
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise CellError(
                f"the first line of the cell contains the asset {name!r} twice",
                where=text.where,
                remedy="write each asset once",
            )
    source = read_cell(face.shell, text, " ".join(names))
    missing = [name for name in names if name not in source.names.assigned]
    if missing:
        raise CellValueError(
            f"the cell of {' '.join(names)!r} never assigns {missing[0]!r}",
            where=text.where,
            remedy=f"assign {missing[0]} in the cell, or remove {missing[0]} from its first line",
        )
    assigned_names = tuple(names)
    return _definition(face, arguments, source, "multi_asset", keys, variables=assigned_names, outputs=assigned_names), False


def _definition(
    face: Face,
    arguments: Namespace,
    source: CellSource,
    kind: AssetKind,
    keys: tuple[AssetKey, ...],
    *,
    variables: tuple[str, ...],
    outputs: tuple[str, ...],
) -> AssetsDefinition:
    where = source.text.where
    explicit_inputs = read_inputs(arguments.inputs, where)
    origin = cell_origin(face.running) if face.running is not None else ""
    inputs_by_name = names_of_inputs(face).union(explicit_inputs)
    needed = source.names.reads - inputs_by_name
    through = reached_names(face.namespace, needed) - needed - inputs_by_name
    compute_unstored(face, needed, source.names.assigned, source.names.reads, through=through)
    inputs, changed = inputs_of(face, source.names.reads, keys, explicit_inputs, where, origin=origin)
    check_self_reference(source.names, keys, variables, inputs, where)
    face.earlier_reads[origin] = dict(inputs)
    step_key = str(keys[0]) if len(keys) == 1 else "/".join((*keys[0].path[:-1], "_".join(key.name for key in keys)))
    body = cell_body(
        face,
        source,
        keys[0].name,
        parameters=tuple(inputs),
        outputs=outputs,
        assets=set(variables),
        declared=is_declared(arguments),
        variables=variables,
        changed=changed,
        earlier=partial(face.timeline.earlier, step_key),
    )
    always_stored, dropped = (_flagged_variables(arguments, flag, source, variables, keys[0].name) for flag in ("keep", "drop"))
    body = replace(body, kept_variables=always_stored, dropped_variables=dropped, must_be_stored=arguments.stored)
    several = len(keys) > 1 or kind == "multi_asset"
    outs = {key.name: Out() for key in keys} if several else {"result": Out()}
    name = "_".join(key.name for key in keys) if several else "__".join(keys[0].path)
    op = OpDefinition(
        name,
        body,
        ins={name: In() for name in inputs},
        outs=outs,
        cache=False if arguments.no_cache else None,
        volatile=arguments.volatile,
        max_age=arguments.max_age,
        ignore=",".join(arguments.ignore),
        reads=arguments.reads,
        where=where,
    )
    return AssetsDefinition(
        op, kind=kind, keys_by_input=inputs, keys_by_output=dict(zip(outs, keys, strict=True)), deps=read_deps(face, arguments.deps, keys, where),
        group_names=dict.fromkeys(keys, arguments.group) if arguments.group else None, where=where, module="__main__",
    )  # fmt: skip


def _flagged_variables(
    arguments: Namespace, flag: str, source: CellSource, variables: tuple[str, ...], name: str
) -> frozenset[str]:
    """Return the variables that the flag ``--keep`` or ``--drop`` names.

    Parameters
    ----------
    flag
        ``keep`` or ``drop``.
    variables
        The variables that hold the values of the assets. The flag must not name them.
    name
        The name of the asset, for messages.

    Raises
    ------
    CellNameError
        If the flag names a variable that the cell does not assign, or that is in `variables`.
    """
    names = frozenset(part.strip() for text in getattr(arguments, flag) for part in text.split(",") if part.strip())
    unknown = sorted(names - (source.assigned_values - set(variables)))
    if unknown:
        raise CellNameError(
            f"invalid flag --{flag} {unknown[0]}: {f'{unknown[0]} holds the value of an asset' if unknown[0] in variables else f'the cell of {name!r} assigns no variable {unknown[0]}'}",
            where=source.text.where,
            remedy=f"name another variable that the cell assigns; these variables hold the values of assets and need no flag: {keys_text(variables)}",
        )
    return names


def is_declared(arguments: Namespace) -> bool:
    """Return True if the flag ``--reads``, ``--max-age`` or ``--volatile`` says when the step must be executed again."""
    return bool(arguments.reads or arguments.max_age or arguments.volatile)


def cell_body(
    face: Face,
    source: CellSource,
    name: str,
    *,
    parameters: tuple[str, ...],
    outputs: tuple[str, ...],
    assets: set[str],
    declared: bool,
    variables: tuple[str, ...] = (),
    changed: tuple[tuple[str, str], ...] = (),
    earlier: Callable[[], Mapping[str, Any]] = dict,
) -> CellBody:
    """Return the body of an ``%%asset``, ``%%multi_asset`` or ``%%op`` cell.

    Parameters
    ----------
    name
        The name of the asset or op that the cell defines. If the cell defines several assets, the name of the first one.
    parameters
        The names in the body that stand for inputs and, in an op, for config.
    outputs
        The variables that hold the results of the cell. Empty if the value of the last expression is the result.
    assets
        The variables of the assets that the cell defines; empty for an op.
    declared
        True if a flag says when the step must be executed again (`is_declared`). Then uses of the shell do not make the step unverifiable.
    variables
        The members of `assets`, in the order of the assets. If there are any, the cell runs in the namespace of the notebook.
    changed
        The value of the attribute `CellBody.changed_variables`.
    earlier
        The value of the attribute `CellBody.earlier`.
    """
    text = source.text
    live = bool(variables)
    result = None if source.tail is None or source.quiet or not live else source.last_name if outputs else variables[0]
    return CellBody(
        name, text.body, text.where, source.statements, source.tail, parameters, outputs,
        reads=source.names.reads - set(parameters) - (set() if live else assets), globals=face.namespace, sees_all=source.names.looks_up,
        is_async=source.is_async, display=None if source.quiet or not (assets or outputs) else face.figures.show,
        finish=lambda value, has_tail: value_or_figure(value, face.figures, say, name, must=live and source.ends_in_assignment and not has_tail),
        settle=face.figures.settle, explain_name_error=None if live else _explainer(face, source.names, name, text),
        runs_in_notebook=live, variables=variables, definitions=source.definitions, always_assigned=source.names.always_assigned, assigned_values=source.assigned_values,
        changes=source.names.changes, changed_variables=changed, result=result, unseen=() if declared else source.shell,
        earlier=earlier,
    )  # fmt: skip


_NOT_DEFINED = re.compile(r"(?:name|local variable) '(\w+)' is not defined")


def _explainer(face: Face, names: Names, name: str, text: CellText) -> Callable[[NameError], BaseException | None]:
    def explain(error: NameError) -> BaseException | None:
        # pandas also raises a NameError for `@name` in a query.
        match = _NOT_DEFINED.fullmatch(str(error))
        if match is None or match[1] in names.assigned or match[1] not in face.namespace:
            return (
                None  # an unknown name, a variable that the cell assigns later, or another NameError: the traceback says enough
            )
        missing = match[1]
        return CellNameError(
            f"the cell of the op {name!r} reads the notebook's variable {missing!r} without naming it, for example in a query",
            where=text.where, remedy=f"write the name in the cell, for example on a separate line ({missing}): an op gets only the variables that its code names",
        )  # fmt: skip

    return explain


def run_as_plain_cell(face: Face, source: CellSource) -> Any:
    """Run the body of a cell with ``--plain`` like a plain cell, in the namespace of the notebook; return the value of its last expression.

    Nothing is defined or stored.
    """
    from stepwell.kernel_runtime.execution.in_process import evaluate

    value = None
    for code in (source.statements, source.tail):
        if code is None:
            continue
        value = evaluate(code, face.namespace)
    if source.tail is not None and not source.quiet and value is not None:
        face.figures.show(value)
        leave_result(face, value)
    return value


@dataclass(frozen=True, slots=True)
class Header:
    """The signature in the first line of a ``%%op`` or ``%%graph`` cell."""

    name: str
    ins: dict[str, In]
    defaults: dict[str, Any]
    """The inputs that have a default: maps the name to the default."""
    config: dict[str, Any]
    """Maps the name of each keyword-only parameter to its default, or to `UNSET` if it has no default."""
    outputs: tuple[str, ...]
    """The names after ``->``; empty if there is no arrow."""


def read_header(line: str, magic: str, namespace: dict[str, Any], where: str) -> Header:
    """Parse the signature in the first line of a cell, such as ``transform(data, *, top=10) -> out``.

    Parameters
    ----------
    line
        The line without the magic and its flags.
    magic
        The name of the magic: ``op`` or ``graph``.
    namespace
        The namespace in which defaults and annotations are evaluated.

    Raises
    ------
    CellSyntaxError
        If `line` is not a signature.
    CellError
        If a default or annotation cannot be evaluated, or the first parameter is ``context``.
    InvalidDefinitionError
        If the name of the op, the graph or an input is not valid.
    """
    usage = f"write %%{magic} name(inputs{', *, option=1) -> out' if magic == 'op' else ')'}"
    arrow = next((place for place in outside_brackets(line) if line.startswith("->", place)), None)
    signature, right = (line.strip(), "") if arrow is None else (line[:arrow].strip(), line[arrow + 2 :])
    if signature and "(" not in signature:
        signature += "()"
    try:
        # compile() rejects two parameters of the same name; parse() accepts them.
        compile(f"def {signature}: pass", "<line>", "exec")
        parsed = ast.parse(f"def {signature}: pass").body
        function = parsed[0]
        outputs = _outputs(right) if arrow is not None else ()
    except (SyntaxError, ValueError, IndexError):
        raise CellSyntaxError(f"the first line %%{magic} {line} is not a signature", where=where, remedy=usage) from None
    if len(parsed) != 1 or not isinstance(function, ast.FunctionDef) or function.args.vararg or function.args.kwarg:
        raise CellSyntaxError(
            f"the signature in %%{magic} {line} contains parameters with * or **, but each input must have a name",
            where=where,
            remedy=usage,
        )

    def evaluated(node: ast.expr) -> Any:
        try:
            return eval(compile(ast.Expression(node), f"<%%{magic} {function.name}>", "eval"), namespace)  # noqa: S307 - the user's own default
        except Exception as error:
            raise CellError(
                f"in %%{magic} {function.name}: the default or annotation {ast.unparse(node)} cannot be evaluated: {error}",
                where=where,
                remedy=f"first run the cell that defines the names in {ast.unparse(node)}, or correct it",
            ) from error

    check_name("an op" if magic == "op" else "a graph", function.name, where=where)
    parameters = function.args
    positional = [*parameters.posonlyargs, *parameters.args]
    if positional and positional[0].arg == "context":
        raise CellError(
            f"the first input of %%{magic} {function.name} is `context`, but only functions get a context, not cells",
            where=where,
            remedy="remove `context`, or define the op with the decorator @op in a plain cell",
        )
    ins = {
        parameter.arg: In(evaluated(parameter.annotation) if parameter.annotation is not None else UNSET)
        for parameter in positional
    }
    for name in ins:
        check_name("an input", name, where=where)
    with_default = positional[len(positional) - len(parameters.defaults) :] if parameters.defaults else []
    defaults = {parameter.arg: evaluated(value) for parameter, value in zip(with_default, parameters.defaults, strict=True)}
    config = {
        parameter.arg: evaluated(value) if value is not None else UNSET
        for parameter, value in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
    }
    return Header(function.name, ins, defaults, config, outputs)


def _outputs(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.strip().strip("()").split(",") if part.strip())
    if not names or any(not name.isidentifier() or keyword.iskeyword(name) for name in names) or len(set(names)) < len(names):
        raise ValueError(text)
    return names


def op_of(face: Face, arguments: Namespace, signature: str, line: str, body: str) -> OpDefinition:
    """Return the op of a ``%%op`` cell.

    Parameters
    ----------
    arguments
        The parsed flags.
    signature
        The signature in the magic's line, such as ``transform(data) -> out``.
    line, body
        The rest of the magic's line as typed, and the lines below it.

    Raises
    ------
    CellError
        If the cell cannot become an op. No op is defined then.
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
                remedy=f"assign {name}, or remove `-> {name}` from the first line",
            )
    if not outputs and source.tail is None:
        raise CellValueError(
            f"the cell of {header.name!r} has no value",
            where=text.where,
            remedy=f"assign {header.name}, name the variable of the output (-> out), or end the cell with the expression that is its value",
        )
    if arguments.cache and arguments.no_cache:
        raise CellError(
            f"the op {header.name!r} has both flags --cache and --no-cache, which contradict each other",
            where=text.where,
            remedy="remove one of the two flags",
        )
    parameters = (*header.ins, *header.config)
    assets, _ = inputs_of(face, source.names.reads - set(parameters), (), {}, text.where)
    if assets:
        name, key = next(iter(assets.items()))
        raise CellError(
            f"the op {header.name!r} reads the asset {key}, but an op can only get assets through its inputs",
            where=text.where,
            remedy=f"write {name} in the parentheses of the first line, and pass the asset in each call of the op",
        )
    cell = cell_body(
        face, source, header.name, parameters=parameters, outputs=outputs, assets=set(), declared=is_declared(arguments)
    )
    return OpDefinition(
        header.name, cell, ins=header.ins, outs={name: Out() for name in outputs} if len(outputs) > 1 else {"result": Out()},
        config=header.config, where=text.where, defaults=header.defaults,
        cache=True if arguments.cache else False if arguments.no_cache else None, volatile=arguments.volatile, max_age=arguments.max_age,
        ignore=",".join(arguments.ignore), reads=arguments.reads,
    )  # fmt: skip


def sql_asset_of(face: Face, arguments: Namespace, line: str, body: str) -> tuple[AssetsDefinition, bool]:
    """Return the definition of a ``%%sql_asset`` cell, and True.

    The bool says whether the caller must display the value after the run. It is always True, because a SELECT does not display its rows.

    Parameters
    ----------
    arguments
        The parsed flags and the name of the asset.
    line, body
        The rest of the magic's line, and the SELECT below it.

    Raises
    ------
    CellError
        If the cell cannot become an asset. Nothing is registered.
    """
    text = cell_text(face.shell, face.running, "sql_asset", line, body)
    key = key_from(arguments.name, arguments.key_prefix, text.where)
    if not body.strip():
        raise CellError(f"the cell of {key.name!r} is empty", where=text.where, remedy="write one SELECT below the first line")
    select = read_select(
        key.name, body, face.namespace, what=f"the cell of {key.name!r}", frame=face.settings.frame, where=text.where
    )
    tables = select.inputs
    explicit_inputs = read_inputs(arguments.inputs, text.where)
    if (key.name in tables and key.name not in explicit_inputs) or str(key) in tables:
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}, so the asset would depend on itself",
            where=text.where,
            remedy="give the asset a name that differs from the names of the tables that the SELECT reads",
        )
    inputs = _inputs(face, tables, key, explicit_inputs, text.where)
    for name in select.parameters:
        if name not in face.namespace:
            raise CellNameError(
                f"the SELECT of {key.name!r} uses the parameter ${name}, but the notebook has no variable {name!r}",
                where=text.where,
                remedy=f"run the cell that assigns {name} first",
            )
    definition = select_asset(
        key, select, inputs, deps=read_deps(face, arguments.deps, (key,), text.where), group_name=arguments.group or None,
        cache=False if arguments.no_cache else None, volatile=arguments.volatile, max_age=arguments.max_age,
        ignore=",".join(arguments.ignore), where=text.where, module="__main__",
    )  # fmt: skip
    return definition, True


def _inputs(
    face: Face, tables: tuple[str, ...], key: AssetKey, explicit_inputs: dict[str, AssetKey], where: str
) -> dict[str, AssetKey]:
    inputs, _ = inputs_of(face, (name for name in tables if name.isidentifier()), (key,), explicit_inputs, where)
    for name in tables:
        if name in inputs:
            continue
        upstream = _whole_key(face, name, where)
        if upstream is None:
            variable = (
                f"to make the variable {name} an asset, write %%asset {name} above the cell that assigns it"
                if name in face.namespace
                else _remedy(face, name)
            )
            raise CellNameError(
                f"the SELECT of {key.name!r} reads the table {name!r}, which is not an asset",
                where=where,
                remedy=variable,
            )
        inputs[name] = upstream
    return {name: inputs[name] for name in tables}


def _whole_key(face: Face, name: str, where: str) -> AssetKey | None:
    """Return the key of the registered or stored asset to which the table `name` in a SELECT refers; return None if there is no such asset.

    `name` is a key or the last part of a key. Differences between upper and lower case are ignored unless `name` is exactly the key of an asset.

    Raises
    ------
    CellNameError
        If `name` could refer to several assets.
    """
    stored: list[str] = face.session.store.keys()
    known = [
        *face.session.registry.assets,
        *(stored_key for stored_key in stored if "." not in stored_key and ":" not in stored_key),
    ]
    if name in known:
        return as_asset_key(name)
    # Names in SQL are case-insensitive.
    near = sorted({key for key in known if folded(name) in (folded(key), folded(key.rpartition("/")[2]))})
    if len(near) > 1:
        raise CellNameError(
            f"the table {name!r} could refer to {len(near)} assets: {keys_text(near)}",
            where=where,
            remedy=f'write the whole key in quotes, such as "{near[0]}"',
        )
    return as_asset_key(near[0]) if near else None


def _remedy(face: Face, name: str) -> str:
    known = sorted({*face.session.registry.assets, *face.session.store.keys()})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    last = name.rpartition("/")[2]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"first run the cell that defines {name}, or add a flag that names an asset: --in {last}=KEY"

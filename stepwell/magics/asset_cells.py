"""``%%asset`` and ``%%multi_asset``: a cell becomes the definition of one asset, or of several."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetKind, AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.declarations import In, Out
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import CellError, CellNameError, CellValueError
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.magics.cell_inputs import check_own_name, given_deps, given_inputs, inputs_of, key_from
from stepwell.magics.cell_names import Names
from stepwell.magics.cell_source import CellSource, CellText, cell_text, read_cell
from stepwell.magics.displays import value_or_figure
from stepwell.magics.face import Face
from stepwell.magics.lines import say


def asset_of(face: Face, arguments: Namespace, line: str, body: str) -> AssetsDefinition:
    """Make the definition of a ``%%asset`` cell.

    Raises
    ------
    CellError
        If the cell cannot become an asset; nothing is registered then.
    """
    text = cell_text(face.shell, face.running, "asset", line, body)
    key = key_from(arguments.name, arguments.key_prefix, text.where)
    source = read_cell(face.shell, text, key.name)
    assigned = key.name in source.names.assigned
    if not assigned and source.tail is None:
        raise CellValueError(
            f"the cell of {key.name!r} has no value",
            where=text.where,
            remedy=f"assign {key.name}, or end the cell with the expression that is its value",
        )
    return _definition(face, arguments, source, "asset", (key,), outputs=(key.name,) if assigned else ())


def multi_asset_of(face: Face, arguments: Namespace, line: str, body: str) -> AssetsDefinition:
    """Make the definition of a ``%%multi_asset`` cell: one variable per name.

    Raises
    ------
    CellError
        If the cell cannot become a multi-asset; nothing is registered then.
    """
    text = cell_text(face.shell, face.running, "multi_asset", line, body)
    keys = tuple(key_from(name, arguments.key_prefix, text.where) for name in arguments.names)
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise CellError(f"{name!r} is named twice", where=text.where, remedy="name each asset once")
    source = read_cell(face.shell, text, " ".join(names))
    missing = [name for name in names if name not in source.names.assigned]
    if missing:
        raise CellValueError(
            f"the cell of {' '.join(names)!r} never assigns {missing[0]!r}",
            where=text.where,
            remedy=f"assign {missing[0]}: a multi-asset is one variable per name",
        )
    return _definition(face, arguments, source, "multi_asset", keys, outputs=tuple(names))


def _definition(
    face: Face,
    arguments: Namespace,
    source: CellSource,
    kind: AssetKind,
    keys: tuple[AssetKey, ...],
    *,
    outputs: tuple[str, ...],
) -> AssetsDefinition:
    where = source.text.where
    given = given_inputs(arguments.inputs, where)
    check_own_name(source.names, keys, given, where)
    own_names = {key.name for key in keys}
    inputs = inputs_of(face, source.names.reads - (own_names - set(given)), keys, given, where)
    body = cell_body(
        face,
        source,
        keys[0].name,
        parameters=tuple(inputs),
        outputs=outputs,
        assets=own_names,
        declared=is_declared(arguments),
    )
    several = len(keys) > 1 or kind == "multi_asset"
    outs = {key.name: Out() for key in keys} if several else {"result": Out()}
    name = "_".join(key.name for key in keys) if several else "__".join(keys[0].path)
    op = OpDefinition(
        name,
        body,
        ins={each: In() for each in inputs},
        outs=outs,
        cache=False if arguments.no_cache else None,
        volatile=arguments.volatile,
        max_age=arguments.max_age,
        ignore=",".join(arguments.ignore),
        reads=arguments.reads,
        where=where,
    )
    return AssetsDefinition(
        op, kind=kind, keys_by_input=inputs, keys_by_output=dict(zip(outs, keys, strict=True)), deps=given_deps(face, arguments.deps, keys, where),
        group_names=dict.fromkeys(keys, arguments.group) if arguments.group else None, where=where, module="__main__",
    )  # fmt: skip


def is_declared(arguments: Namespace) -> bool:
    """Whether flags say when a step is to run again whatever can be seen of it."""
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
) -> CellBody:
    """Make what runs when the step of a cell runs.

    Parameters
    ----------
    parameters
        Names that are bound to inputs.
    outputs
        Variables that are the value; empty where the last expression is.
    assets
        Names that the cell's definition itself has; empty for an op, whose value is displayed by what it is part of.
    declared
        Whether a flag says when what commands of the shell do is to be looked at again.
    """
    text = source.text
    _remember_inside(face, source.names, name, exclude=assets)
    return CellBody(
        name, text.body, text.where, source.statements, source.tail, parameters, outputs,
        reads=source.names.reads - set(parameters) - assets, globals=face.namespace, sees_all=source.names.looks_up, is_async=source.is_async,
        display=None if source.quiet or not (assets or outputs) else face.figures.show,
        finish=lambda value, _: value_or_figure(value, face.figures, say, name),
        settle=face.figures.settle, missing=_explainer(face, source.names, name, text),
        unseen=() if declared else source.shell,
    )  # fmt: skip


def _remember_inside(face: Face, names: Names, name: str, *, exclude: set[str]) -> None:
    for each in names.assigned - exclude:
        face.inside[each] = (
            f"imported inside asset `{name}`; import it in a cell of its own"
            if each in names.imported
            else f"assigned inside asset `{name}`; assign it in a cell of its own, or make it an asset"
        )


_NOT_DEFINED = re.compile(r"(?:name|local variable) '(\w+)' is not defined")


def _explainer(face: Face, names: Names, name: str, text: CellText) -> Callable[[NameError], BaseException | None]:
    def explain(error: NameError) -> BaseException | None:
        # pandas raises a NameError of its own for `@name` in a query.
        said = _NOT_DEFINED.fullmatch(str(error))
        if said is None:
            return None
        missing = said[1]
        if missing in names.assigned:
            return None  # the cell's own variable, read before it has a value: the traceback shows where
        if missing in face.namespace:
            return CellNameError(
                f"the cell of {name!r} uses {missing!r}, which its text does not show",
                where=text.where, remedy=f"a cell runs with the names that its text reads: read {missing} in the cell (for an asset: --in {missing}=KEY)",
            )  # fmt: skip
        if missing in face.inside:
            return CellNameError(
                f"name {missing!r} is not defined in the cell of {name!r}",
                where=text.where,
                remedy=f"`{missing}` was {face.inside[missing]}",
            )
        return None

    return explain


def run_plain(face: Face, source: CellSource) -> Any:
    """Run a body as an ordinary cell, in the notebook's namespace, and store nothing."""
    from stepwell.kernel_runtime.execution.in_process import evaluate

    value = None
    for code in (source.statements, source.tail):
        if code is None:
            continue
        value = evaluate(code, face.namespace)
    if source.tail is not None and not source.quiet and value is not None:
        face.figures.show(value)
    return value

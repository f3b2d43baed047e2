"""``%%graph_asset``, ``%%graph`` and ``%%job``: a cell that calls ops on assets by name becomes a composition."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.composition import AssetRead, NodeOutput
from stepwell.kernel_runtime.definitions.declarations import AssetIn
from stepwell.kernel_runtime.definitions.decorators import graph_backed
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, build_graph
from stepwell.kernel_runtime.definitions.jobs import JobDefinition
from stepwell.kernel_runtime.errors import CellError, CellSyntaxError, CellValueError
from stepwell.kernel_runtime.records.keys import AssetKey, check_name
from stepwell.magics.cell_inputs import check_own_name, given_inputs, inputs_of, key_from
from stepwell.magics.cell_source import CellSource, CellText, cell_text, read_cell
from stepwell.magics.face import Face
from stepwell.magics.op_cells import read_header


def graph_asset_of(face: Face, arguments: Namespace, line: str, body: str) -> tuple[AssetsDefinition, bool]:
    """Make the definition of a ``%%graph_asset`` cell; also whether its value is to be displayed.

    Raises
    ------
    CellError
        If the cell cannot become a graph-backed asset; nothing is registered then.
    """
    text = cell_text(face.shell, face.running, "graph_asset", line, body)
    key = key_from(arguments.name, arguments.key_prefix, text.where)
    source = _composition(face, text, key.name)
    assigned = key.name in source.names.assigned
    if not assigned and source.tail is None:
        raise CellValueError(
            f"the cell of {key.name!r} has no value",
            where=text.where,
            remedy=f"assign {key.name}, or end the cell with the call that ends the computation",
        )
    given = given_inputs(arguments.inputs, text.where)
    check_own_name(source.names, (key,), (key.name,), given, text.where)
    inputs, _ = inputs_of(face, source.names.reads - {key.name}, (key,), given, text.where)
    made = _body(face, source, key.name, tuple(inputs), (key.name,) if assigned else ())
    graph = build_graph(
        "__".join(key.path),
        _composed(face, made, {}),
        tuple(inputs),
        kind="graph-backed asset",
        where=text.where,
        source=made,
    )
    definition = graph_backed(
        graph,
        key,
        ins={name: AssetIn(key=upstream) for name, upstream in inputs.items()},
        group_name=arguments.group,
        where=text.where,
        module="__main__",
    )
    return definition, source.tail is not None and not source.quiet


def graph_of_cell(face: Face, line: str, body: str) -> GraphDefinition:
    """Make the graph of a ``%%graph`` cell; assets by name are read, never materialised.

    Raises
    ------
    CellError
        If the cell cannot become a graph.
    """
    text = cell_text(face.shell, face.running, "graph", line, body)
    header = read_header(line, "graph", face.namespace, text.where)
    if header.config or header.defaults:
        raise CellError(
            f"the graph {header.name!r} has more than inputs in its parentheses",
            where=text.where,
            remedy="config belongs to ops: give their keyword-only parameters constants where they are called",
        )
    source = _composition(face, text, header.name)
    inputs = tuple(header.ins)
    outputs = header.outputs or ((header.name,) if header.name in source.names.assigned else ())
    if not outputs and source.tail is None:
        raise CellValueError(
            f"the cell of {header.name!r} has no value",
            where=text.where,
            remedy="end the cell with the call, or the dict of calls, that it gives",
        )
    reads, _ = inputs_of(face, source.names.reads - set(inputs), (), {}, text.where)
    made = _body(face, source, header.name, (*inputs, *reads), outputs)
    return build_graph(
        header.name,
        _composed(face, made, reads),
        inputs,
        kind="graph",
        declared=outputs if len(outputs) > 1 else None,
        where=text.where,
        source=made,
    )


def job_of(face: Face, line: str, body: str) -> JobDefinition:
    """Make the job of a ``%%job`` cell; assets by name are read, never materialised.

    Raises
    ------
    CellError
        If the cell cannot become a job; nothing is registered then.
    """
    text = cell_text(face.shell, face.running, "job", line, body)
    name = line.strip().removesuffix("()")
    if not name.isidentifier():
        raise CellSyntaxError(
            f"%%job {line} cannot be read",
            where=text.where,
            remedy="write %%job name; a job has no inputs: it reads assets by their names",
        )
    check_name("a job", name, where=text.where)
    source = _composition(face, text, name)
    reads, _ = inputs_of(face, source.names.reads, (), {}, text.where)
    made = _body(face, source, name, tuple(reads), (name,) if name in source.names.assigned else ())
    graph = build_graph(name, _composed(face, made, reads, effects=True), (), kind="job", where=text.where, source=made)
    job = JobDefinition(graph)
    job.module = "__main__"
    return job


def _composition(face: Face, text: CellText, name: str) -> CellSource:
    source = read_cell(face.shell, text, name)
    if source.is_async:
        raise CellError(
            f"the cell of {name!r} awaits while it composes steps",
            where=text.where,
            remedy="await inside an op: here calls only say what follows what",
        )
    return source


def _body(face: Face, source: CellSource, name: str, parameters: tuple[str, ...], outputs: tuple[str, ...]) -> CellBody:
    text = source.text
    return CellBody(
        name, text.body, text.where, source.statements, source.tail, parameters, outputs,
        reads=source.names.reads - set(parameters) - set(outputs), globals=face.namespace,
    )  # fmt: skip


def _composed(face: Face, body: CellBody, inputs: Mapping[str, AssetKey], *, effects: bool = False) -> _Composed:
    found = _Composed(body, inputs=inputs, effects=effects)
    face.composed[id(body)] = found
    return found


class _Composed:
    """Calls a cell's body with handles instead of values.

    Parameters
    ----------
    inputs
        Assets that are read as they are stored.
    effects
        Whether the body is run for its effects: what it ends in need not be a handle.
    """

    def __init__(self, body: CellBody, *, inputs: Mapping[str, AssetKey], effects: bool = False) -> None:
        self._body = body
        self._reads = {name: AssetRead(key) for name, key in inputs.items()}
        self._effects = effects

    def __call__(self, **handles: Any) -> Any:
        space = self._body.namespace({**self._reads, **handles})
        if self._body.code is not None:
            eval(self._body.code, space)  # noqa: S307 - the user's own cell
        tail = eval(self._body.tail, space) if self._body.tail is not None else None  # noqa: S307 - the user's own cell
        found = self._body.value(space, tail)
        if self._effects and not isinstance(found, NodeOutput | dict):
            return None
        return found

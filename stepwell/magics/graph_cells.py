"""``%%graph_asset``, ``%%graph`` and ``%%job``: cells whose bodies compose graphs by calling ops on assets.

A graph is composed when its cell runs, from the ops to which the names in the cell refer at that time. If a later cell binds one of these names
to another object, for example because the user has edited an op or a constant, the graph is composed again at the end of the later cell. A graph
therefore always uses the current ops of the notebook, just as a function calls what its global names refer to at the time of the call.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.composition import AssetRead, NodeOutput
from stepwell.kernel_runtime.definitions.declarations import AssetIn
from stepwell.kernel_runtime.definitions.decorators import graph_backed
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, JobDefinition, build_graph
from stepwell.kernel_runtime.errors import CellError, CellSyntaxError, CellValueError
from stepwell.kernel_runtime.records.keys import AssetKey, check_name
from stepwell.magics.asset_cells import read_header
from stepwell.magics.cell_inputs import check_self_reference, inputs_of, key_from, read_inputs
from stepwell.magics.cell_source import CellSource, CellText, cell_text, read_cell
from stepwell.magics.face import Face


def graph_asset_of(face: Face, arguments: Namespace, line: str, body: str) -> tuple[AssetsDefinition, bool]:
    """Return the definition of a ``%%graph_asset`` cell, and whether the value is displayed after the run.

    The value is displayed if the cell ends in an expression without a semicolon after it.

    Parameters
    ----------
    arguments
        The parsed flags and the name of the asset.
    line, body
        The rest of the magic's line, and the lines below it.

    Raises
    ------
    CellError
        If the cell cannot become a graph-backed asset. Nothing is registered.
    """
    text = cell_text(face.shell, face.running, "graph_asset", line, body)
    key = key_from(arguments.name, arguments.key_prefix, text.where)
    source = _composition(face, text, key.name)
    assigned = key.name in source.names.assigned
    if not assigned and source.tail is None:
        raise CellValueError(
            f"the cell of {key.name!r} has no value",
            where=text.where,
            remedy=f"assign {key.name}, or end the cell with the call whose result is the value",
        )
    explicit_inputs = read_inputs(arguments.inputs, text.where)
    check_self_reference(source.names, (key,), (key.name,), explicit_inputs, text.where)
    inputs, _ = inputs_of(face, source.names.reads - {key.name}, (key,), explicit_inputs, text.where)
    cell = _body(face, source, key.name, tuple(inputs), (key.name,) if assigned else ())
    graph = build_graph(
        "__".join(key.path),
        _composed(face, cell, {}),
        tuple(inputs),
        kind="graph-backed asset",
        where=text.where,
        source=cell,
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
    """Return the graph of a ``%%graph`` cell. If the cell names an asset, the graph reads the asset's stored value and never materializes the asset.

    Parameters
    ----------
    line, body
        The rest of the magic's line, and the lines below it.

    Raises
    ------
    CellError
        If the cell cannot become a graph.
    """
    text = cell_text(face.shell, face.running, "graph", line, body)
    header = read_header(line, "graph", face.namespace, text.where)
    if header.config or header.defaults:
        raise CellError(
            f"the first line of the graph {header.name!r} declares config or defaults, but a graph has only inputs",
            where=text.where,
            remedy="remove them from the first line, and pass constants to the keyword-only parameters of ops in the calls below",
        )
    source = _composition(face, text, header.name)
    inputs = tuple(header.ins)
    outputs = header.outputs or ((header.name,) if header.name in source.names.assigned else ())
    if not outputs and source.tail is None:
        raise CellValueError(
            f"the cell of {header.name!r} has no value",
            where=text.where,
            remedy="end the cell with the call whose result is the value, or with a dict of such calls by output name",
        )
    reads, _ = inputs_of(face, source.names.reads - set(inputs), (), {}, text.where)
    cell = _body(face, source, header.name, (*inputs, *reads), outputs)
    return build_graph(
        header.name,
        _composed(face, cell, reads),
        inputs,
        kind="graph",
        declared=outputs if len(outputs) > 1 else None,
        where=text.where,
        source=cell,
    )


def job_of(face: Face, line: str, body: str) -> JobDefinition:
    """Return the job of a ``%%job`` cell. If the cell names an asset, the job reads the asset's stored value and never materializes the asset.

    Parameters
    ----------
    line, body
        The rest of the magic's line, and the lines below it.

    Raises
    ------
    CellError
        If the cell cannot become a job. Nothing is registered.
    """
    text = cell_text(face.shell, face.running, "job", line, body)
    name = line.strip().removesuffix("()")
    if not name.isidentifier():
        raise CellSyntaxError(
            f"invalid first line %%job {line}: a job has only a name, no inputs",
            where=text.where,
            remedy="write %%job name, and use the names of assets in the cell to read the assets",
        )
    check_name("a job", name, where=text.where)
    source = _composition(face, text, name)
    reads, _ = inputs_of(face, source.names.reads, (), {}, text.where)
    cell = _body(face, source, name, tuple(reads), (name,) if name in source.names.assigned else ())
    graph = build_graph(name, _composed(face, cell, reads, effects=True), (), kind="job", where=text.where, source=cell)
    job = JobDefinition(graph)
    job.module = "__main__"
    return job


def _composition(face: Face, text: CellText, name: str) -> CellSource:
    source = read_cell(face.shell, text, name)
    if source.is_async:
        raise CellError(
            f"the cell of {name!r} contains await, but a cell of a graph or job only connects steps and has no values to wait for",
            where=text.where,
            remedy="move the await into an op",
        )
    return source


def _body(face: Face, source: CellSource, name: str, parameters: tuple[str, ...], outputs: tuple[str, ...]) -> CellBody:
    text = source.text
    return CellBody(
        name, text.body, text.where, source.statements, source.tail, parameters, outputs,
        reads=source.names.reads - set(parameters) - set(outputs), globals=face.namespace,
    )  # fmt: skip


def _composed(face: Face, body: CellBody, inputs: Mapping[str, AssetKey], *, effects: bool = False) -> _Composed:
    composed = _Composed(body, inputs=inputs, effects=effects)
    face.composed[id(body)] = composed
    return composed


class _Composed:
    """A function that composes a graph: it runs the body of a cell with handles, which stand for values of later runs, and returns the body's result.

    Parameters
    ----------
    inputs
        The names in the body that refer to assets, each with its asset key. The graph reads the stored value of the asset.
    effects
        True for a job. A job needs no value, so a result that is neither a handle nor a dict is ignored.
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
        composition = self._body.value(space, tail)
        if self._effects and not isinstance(composition, NodeOutput | dict):
            return None
        return composition


_ABSENT: Any = object()
_MOST_ROUNDS = 20
"""The greatest number of rounds in one `Recomposition.refresh`. Each round composes one more level of nested graphs."""

Replace = Callable[[GraphDefinition], None]


class Recomposition:
    """Composes a graph of the notebook again when a name in the body of the graph refers to another object."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._meanings_by_graph: dict[int, tuple[GraphDefinition, dict[str, Any]]] = {}
        """The key of an item is the `id` of a graph. The item is the graph, and a dict from each name in the body of the graph to the object to which
        the name referred at the last check."""

    def refresh(self) -> None:
        """Compose each graph again if a name in its body now refers to another object. Called after each cell.

        For a graph that is new since the last call, only note the objects to which its names refer.
        """
        live: set[int] = set()
        for _ in range(_MOST_ROUNDS):
            changed = False
            live = set()
            for graph, kind, replace in list(self._live_graphs()):
                live.add(id(graph))
                now = self._meanings(graph)
                known = self._meanings_by_graph.get(id(graph))
                if known is None or all(known[1].get(name, _ABSENT) is value for name, value in now.items()):
                    self._meanings_by_graph[id(graph)] = graph, now
                    continue
                self._meanings_by_graph[id(graph)] = graph, now
                composed = self._compose_again(graph, kind)
                if composed is not None:
                    replace(composed)
                    changed = True
            if not changed:
                break
        for old_id in self._meanings_by_graph.keys() - live:
            del self._meanings_by_graph[old_id]
        sources = {id(graph.source) for graph, _ in self._meanings_by_graph.values()}
        for old_id in self._face.composed.keys() - sources:
            del self._face.composed[old_id]

    def _live_graphs(self) -> Iterator[tuple[GraphDefinition, str, Replace]]:
        registry, namespace = self._face.session.registry, self._face.namespace
        for name, value in list(namespace.items()):
            if isinstance(value, GraphDefinition):
                yield value, "graph", _setter(namespace, name)
        for entry in list(registry.assets.values()):
            owner = entry.definition
            if isinstance(owner, AssetsDefinition) and isinstance(owner.node, GraphDefinition):
                yield owner.node, "graph-backed asset", self._replace_asset(entry)
        for entry in list(registry.jobs.values()):
            yield entry.definition.graph, "job", self._replace_job(entry)

    def _meanings(self, graph: GraphDefinition) -> dict[str, Any]:
        source, namespace = graph.source, self._face.namespace
        if isinstance(source, CellBody):
            names = source.reads
        elif isinstance(source, FunctionType) and source.__globals__ is namespace:
            names = frozenset(_global_names(source.__code__))
        else:
            return {}
        return {name: namespace.get(name, _ABSENT) for name in names}

    def _compose_again(self, graph: GraphDefinition, kind: str) -> GraphDefinition | None:
        compose = self._face.composed.get(id(graph.source), graph.source)
        try:
            return build_graph(
                graph.name,
                compose,  # type: ignore[arg-type]
                tuple(graph.ins),
                kind=kind,
                declared=tuple(graph.outputs) if len(graph.outputs) > 1 else None,
                description=graph.description,
                where=graph.where,
                source=graph.source,
            )
        except Exception as error:
            message = str(error).splitlines()[0] if str(error) else ""
            self._face.say(
                f"the graph {graph.name} could not be composed again after a change ({type(error).__name__}: {message}): run its cell again"
            )
            return None

    def _replace_asset(self, entry: Any) -> Replace:
        def replace(graph: GraphDefinition) -> None:
            old = entry.definition
            definition = AssetsDefinition(
                graph,
                kind=old.kind,
                keys_by_input=old.keys_by_input,
                keys_by_output=dict(zip(graph.outputs, old.keys, strict=True)),
                deps=old.deps,
                group_names=old.group_names,
                descriptions=old.descriptions,
                where=old.where,
                module=old.module,
                isolate=old.isolate,
            )
            self._replace_definition(entry, definition, tuple(str(key) for key in old.keys))

        return replace

    def _replace_job(self, entry: Any) -> Replace:
        def replace(graph: GraphDefinition) -> None:
            old = entry.definition
            definition = JobDefinition(graph, tags=old.tags)
            definition.module = old.module
            self._replace_definition(entry, definition, (old.name,))

        return replace

    def _replace_definition(self, entry: Any, new: Any, names: tuple[str, ...]) -> None:
        old, entry.definition = entry.definition, new
        new.notebook = old.notebook
        namespace, registry = self._face.namespace, self._face.session.registry
        for name, value in list(namespace.items()):
            if value is old:
                namespace[name] = new
        if registry.on_change is not None:
            registry.on_change(names)


def _setter(namespace: dict[str, Any], name: str) -> Replace:
    def replace(graph: GraphDefinition) -> None:
        namespace[name] = graph

    return replace


def _global_names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names

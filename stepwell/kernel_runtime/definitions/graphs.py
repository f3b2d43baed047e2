"""Graphs: ops wired by composition."""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, overload

from stepwell.kernel_runtime.definitions.composition import (
    AssetRead,
    Composition,
    GraphInput,
    Node,
    NodeOutput,
    compose,
    composing,
    output_mapping,
)
from stepwell.kernel_runtime.definitions.declarations import GraphOut, In
from stepwell.kernel_runtime.definitions.ops import Alias
from stepwell.kernel_runtime.definitions.signatures import place_of, read_signature
from stepwell.kernel_runtime.errors import CycleError, InvariantViolationError
from stepwell.kernel_runtime.records.keys import AssetKey, check_name, listed


class GraphDefinition:
    """Nodes and their connections, with inputs and outputs of its own.

    Attributes
    ----------
    nodes
        By name, in the order of their calls.
    ins
        Inputs by name, in order.
    outputs
        For each output of the graph the node's output that it is.
    """

    config: Mapping[str, Any]

    def __init__(
        self,
        name: str,
        *,
        nodes: Mapping[str, Node],
        ins: Mapping[str, In],
        outputs: Mapping[str, NodeOutput],
        description: str | None = None,
        where: str = "",
        source: object = None,
    ) -> None:
        self.name = name
        self.nodes = dict(nodes)
        self.ins = dict(ins)
        self.outputs = dict(outputs)
        self.config = {}
        self.description = description
        self.where = where
        self.source = source
        """The function or cell that composed it: for showing its code."""
        check_cycles(self)

    @property
    def outs(self) -> dict[str, NodeOutput]:
        """The graph's outputs by name."""
        return self.outputs

    @property
    def __stepwell_body__(self) -> object:
        """What its code version is made from."""
        return self.source

    def alias(self, name: str) -> Alias:
        """Return this graph under another name, to be called inside a graph."""
        return Alias(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Become a node of the graph that is being composed."""
        composition = composing()
        if composition is None:
            raise InvariantViolationError(
                f"the graph {self.name!r} is called outside a composition",
                where=self.where,
                remedy="call it inside @graph, @job or @graph_asset; a job is run by .execute()",
            )
        return composition.add(self, None, args, kwargs)

    def __repr__(self) -> str:
        return f"<graph {self.name}({', '.join(self.ins)}): {', '.join(self.nodes)}>"


def asset_reads(graph: GraphDefinition) -> Iterator[AssetKey]:
    """Yield the keys of assets that ops inside a graph are given as they are."""
    for node in graph.nodes.values():
        for connection in node.connections.values():
            yield from (source.key for source in connection.sources if isinstance(source, AssetRead))
        if isinstance(node.definition, GraphDefinition):
            yield from asset_reads(node.definition)


def check_cycles(graph: GraphDefinition) -> None:
    """Raise `CycleError` if nodes wait for each other."""
    waits = {
        node.name: {
            source.node
            for connection in node.connections.values()
            for source in connection.sources
            if isinstance(source, NodeOutput)
        }
        for node in graph.nodes.values()
    }
    try:
        graphlib.TopologicalSorter(waits).prepare()
    except graphlib.CycleError as error:
        raise CycleError(
            f"in graph {graph.name!r}: steps wait for each other: {listed(error.args[1])}", where=graph.where
        ) from None


def build_graph(
    name: str,
    body: Callable[..., Any],
    inputs: tuple[str, ...],
    *,
    kind: str = "graph",
    declared: tuple[str, ...] | None = None,
    description: str | None = None,
    where: str = "",
    source: object = None,
    bound: Mapping[str, Any] | None = None,
) -> GraphDefinition:
    """Compose a graph by calling its body with handles.

    Parameters
    ----------
    inputs
        Names of the graph's inputs; the body is called with one handle each, by keyword.
    declared
        Names of the outputs, or None where the body decides.
    bound
        More keyword arguments of the body: handles of assets that it reads.

    Raises
    ------
    InvalidDefinitionError
        See SEMANTICS, section 1, composition.
    """
    check_name(f"a {kind}", name, where=where)
    composition = Composition(name, kind, where)
    handles = {key: GraphInput(key) for key in inputs}
    returned = compose(composition, lambda: body(**handles, **(bound or {})))
    outputs = output_mapping(composition, returned, declared)
    unused = composition.unused_inputs(inputs, list(outputs.values()))
    if unused:
        raise composition.fail(f"the input {unused[0]!r} is not used", remedy="pass it to an op, or take it out")
    return GraphDefinition(
        name,
        nodes=composition.nodes,
        ins={key: In() for key in inputs},
        outputs=outputs,
        description=description,
        where=where,
        source=source or body,
    )


def graph_of(
    function: Callable[..., Any],
    *,
    name: str | None,
    kind: str,
    declared: tuple[str, ...] | None,
    description: str | None,
) -> GraphDefinition:
    """Compose a graph from a decorated function: its parameters are the inputs."""
    where = place_of(getattr(function, "__code__", None))
    signature = read_signature(function, where=where)
    return build_graph(
        name or function.__name__,
        function,
        tuple(p.name for p in signature.parameters),
        kind=kind,
        declared=declared,
        description=description or function.__doc__,
        where=where,
        source=function,
    )


@overload
def graph(compose_fn: Callable[..., Any]) -> GraphDefinition: ...
@overload
def graph(
    compose_fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    out: GraphOut | Mapping[str, GraphOut] | None = None,
) -> Callable[[Callable[..., Any]], GraphDefinition]: ...
def graph(
    compose_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    out: GraphOut | Mapping[str, GraphOut] | None = None,
) -> GraphDefinition | Callable[[Callable[..., Any]], GraphDefinition]:
    """Make a graph of a function that calls ops and graphs on handles.

    Parameters
    ----------
    name
        By default the function's.
    out
        The outputs: a `GraphOut` for one, a dict of them for several; by default what the body returns.

    Raises
    ------
    InvalidDefinitionError
        See SEMANTICS, section 1, composition.
    """
    declared = tuple(out) if isinstance(out, Mapping) else (("result",) if out is not None else None)

    def decorate(function: Callable[..., Any]) -> GraphDefinition:
        return graph_of(function, name=name, kind="graph", declared=declared, description=description)

    return decorate(compose_fn) if compose_fn is not None else decorate

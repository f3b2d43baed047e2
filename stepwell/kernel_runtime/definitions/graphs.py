"""Graphs, which connect ops by composition, and jobs, which are graphs that run for their effects.

``job.execute()`` and ``asset.load()`` need the session, which definitions must not import. They call it through `Runner`: when the package
is imported, it passes `load_runner` a function that imports the session at first use.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, overload

from stepwell.kernel_runtime.definitions.bodies import SqlBody, place_of, read_signature
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
from stepwell.kernel_runtime.errors import CycleError, InvariantViolationError
from stepwell.kernel_runtime.records.keys import AssetKey, check_name, keys_text


class GraphDefinition:
    """The nodes of a graph, their connections, and the inputs and outputs of the graph.

    Attributes
    ----------
    nodes
        Nodes by name, in the order of their calls.
    ins
        Inputs by name, in order.
    outputs
        For each output of the graph, the output of a node that supplies it.
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
        """The function or cell that composed the graph; its code is shown as the graph's source."""
        check_cycles(self)

    @property
    def outs(self) -> dict[str, NodeOutput]:
        """The graph's outputs by name."""
        return self.outputs

    @property
    def __stepwell_body__(self) -> object:
        """The object whose code version counts."""
        return self.source

    def alias(self, name: str) -> Alias:
        """Return this graph under another name, for a call inside a graph."""
        return Alias(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a node to the graph that is being composed."""
        composition = composing()
        if composition is None:
            raise InvariantViolationError(
                f"the graph {self.name!r} is called outside a composition",
                where=self.where,
                remedy="call it inside @graph, @job or @graph_asset; run a job with .execute()",
            )
        return composition.add(self, None, args, kwargs)

    def __repr__(self) -> str:
        return f"<graph {self.name}({', '.join(self.ins)}): {', '.join(self.nodes)}>"


def asset_reads(graph: GraphDefinition) -> Iterator[AssetKey]:
    """Yield the keys of assets that the body of a graph passes to ops directly, not through an input."""
    for node in graph.nodes.values():
        for connection in node.connections.values():
            yield from (source.key for source in connection.sources if isinstance(source, AssetRead))
        if isinstance(node.definition, GraphDefinition):
            yield from asset_reads(node.definition)


def check_cycles(graph: GraphDefinition) -> None:
    """Raise `CycleError` if the nodes of a graph depend on each other in a circle."""
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
            f"in graph {graph.name!r}: steps wait for each other: {keys_text(error.args[1])}", where=graph.where
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
) -> GraphDefinition:
    """Compose a graph by calling its body with handles.

    Parameters
    ----------
    inputs
        Names of the graph's inputs; the body is called with a handle for each, by keyword.
    declared
        Names of the outputs. If None, the return value of the body determines them.

    Raises
    ------
    InvalidDefinitionError
        If the body breaks a rule of composition.
    """
    check_name(f"a {kind}", name, where=where)
    composition = Composition(name, kind, where)
    handles = {key: GraphInput(key) for key in inputs}
    returned = compose(composition, lambda: body(**handles))
    outputs = output_mapping(composition, returned, declared)
    unused = composition.unused_inputs(inputs, list(outputs.values()))
    if unused:
        raise composition.fail(f"the input {unused[0]!r} is not used", remedy="pass it to an op, or remove it")
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
    """Compose a graph from a decorated function, whose parameters are the inputs."""
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
    """Define a graph by a function that calls ops and other graphs.

    The function is called once, when it is decorated. Its parameters are handles of the graph's inputs; it returns a handle, or a dict of
    handles. The graph becomes a node when another graph or a job calls it.

    Parameters
    ----------
    compose_fn
        The function to decorate; not given when the decorator has arguments.
    name
        The name of the graph; by default the name of the function.
    description
        The description of the graph; by default the docstring of the function.
    out
        A `GraphOut` for one output, or a dict of `GraphOut` by name for several; by default the return value determines the outputs.

    Returns
    -------
    GraphDefinition
        The definition; without a function to decorate, the decorator.

    Raises
    ------
    InvalidDefinitionError
        If the function breaks a rule of composition, such as an input that is not used.
    """
    declared = tuple(out) if isinstance(out, Mapping) else (("result",) if out is not None else None)

    def decorate(function: Callable[..., Any]) -> GraphDefinition:
        return graph_of(function, name=name, kind="graph", declared=declared, description=description)

    return decorate(compose_fn) if compose_fn is not None else decorate


class Runner(Protocol):
    """The part of the session that definitions use."""

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run a job and return its result."""

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of a key."""

    def register(self, definition: Any) -> None:
        """Register a definition made in ``__main__``."""

    def read_select(
        self, name: str, text: str, variables: dict[str, Any], *, what: str, frame: str, where: str
    ) -> SqlBody:
        """Parse the SELECT of a SQL asset."""


_loader: Callable[[], Runner] | None = None


def load_runner(loader: Callable[[], Runner]) -> None:
    """Set the function that returns the session."""
    global _loader  # noqa: PLW0603 - one session per process
    _loader = loader


def runner() -> Runner:
    """Return the session as a `Runner`."""
    if _loader is None:
        raise InvariantViolationError("nothing can execute definitions here", remedy="import stepwell first")
    return _loader()


def module_of(function: Callable[..., Any]) -> str:
    """Return the name of the module that defines a function; empty if it is unknown."""
    return getattr(function, "__module__", "") or ""


class JobDefinition:
    """A graph that can be executed.

    Attributes
    ----------
    graph
        The graph that the job runs.
    """

    def __init__(self, graph: GraphDefinition, *, tags: Mapping[str, str] | None = None) -> None:
        self.graph = graph
        self.name = graph.name
        self.description = graph.description
        self.where = graph.where
        self.tags = dict(tags or {})
        self.notebook = ""
        """The notebook or module that defined the job, set by the registry."""
        self.module = ""

    @property
    def __stepwell_body__(self) -> object:
        """The object whose code version counts."""
        return self.graph.source

    def execute(self, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run the job in this process.

        Parameters
        ----------
        store
            A store directory or an open store; by default the session's.
        raise_on_error
            True to raise the exception of a failed step after the run is recorded.

        Returns
        -------
        RunResult
            The result of the run, with the values of its steps.

        Raises
        ------
        Exception
            The exception that a step raised, if `raise_on_error` is true.
        """
        return runner().execute_job(self, store=store, raise_on_error=raise_on_error)

    execute_in_process = execute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `InvariantViolationError`: a job is executed, not called."""
        del args, kwargs
        raise InvariantViolationError(
            f"the job {self.name!r} cannot be called", where=self.where, remedy=f"run it with {self.name}.execute()"
        )

    def __repr__(self) -> str:
        return f"<job {self.name}: {', '.join(self.graph.nodes)}>"


@overload
def job(compose_fn: Callable[..., Any]) -> JobDefinition: ...
@overload
def job(
    compose_fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], JobDefinition]: ...
def job(
    compose_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> JobDefinition | Callable[[Callable[..., Any]], JobDefinition]:
    """Define a job by a function that calls ops and graphs. An asset passed to one of them is read from the store.

    The function is called once, when it is decorated. ``execute()`` runs the job.

    Parameters
    ----------
    compose_fn
        The function to decorate; not given when the decorator has arguments.
    name
        The name of the job; by default the name of the function.
    description
        The description of the job; by default the docstring of the function.
    tags
        Tags of the job.

    Returns
    -------
    JobDefinition
        The definition; without a function to decorate, the decorator.

    Raises
    ------
    InvalidDefinitionError
        If the function breaks a rule of composition, such as a constant passed as an input.
    """

    def decorate(function: Callable[..., Any]) -> JobDefinition:
        composed = graph_of(function, name=name, kind="job", declared=None, description=description)
        definition = JobDefinition(composed, tags=tags)
        definition.module = module_of(function)
        if definition.module == "__main__":
            runner().register(definition)
        return definition

    return decorate(compose_fn) if compose_fn is not None else decorate

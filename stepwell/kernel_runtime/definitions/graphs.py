"""Graphs, which connect ops by composition, and jobs, which are graphs that run for their side effects.

The methods ``job.execute()`` and ``asset.load()`` need the session, but the modules in `definitions` must not import the session. So
`execute` and `load` call the methods of a `Runner`, which the function `runner` returns. ``stepwell/__init__.py`` gives `load_runner`
a function that imports the session and returns this `Runner`.
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
from stepwell.kernel_runtime.records.keys import AssetKey, check_name


class GraphDefinition:
    """A graph: nodes (calls of ops and other graphs), the connections between the nodes, and the inputs and outputs of the graph.

    Attributes
    ----------
    nodes
        The nodes by name, in the order of the calls in the body of the graph. A node contains its connections.
    ins
        The inputs of the graph by name, in order.
    outputs
        Maps the name of each output of the graph to the node output that supplies its value.
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
        """The function or cell that is the body of the graph. Its source code is shown as the code of the graph."""
        check_cycles(self)

    @property
    def outs(self) -> dict[str, NodeOutput]:
        """The outputs of the graph by name: the same as `outputs`."""
        return self.outputs

    @property
    def __stepwell_body__(self) -> object:
        """The body of the graph. If the code of a step refers to this definition, the step's code version covers the body."""
        return self.source

    def alias(self, name: str) -> Alias:
        """Return an `Alias` of this graph: a call of the alias in the body of another graph adds a node with the name `name`."""
        return Alias(self, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add this graph as a node to the graph that is being composed, and return the handles of the node.

        Raises
        ------
        InvariantViolationError
            If no graph is being composed.
        """
        composition = composing()
        if composition is None:
            raise InvariantViolationError(
                f"the graph {self.name!r} can only be called in the body of a graph, a job or a graph-backed asset",
                where=self.where,
                remedy="call it in a function with @graph, @job or @graph_asset, or in a %%graph, %%job or %%graph_asset cell",
            )
        return composition.add(self, None, args, kwargs)

    def __repr__(self) -> str:
        return f"<graph {self.name}({', '.join(self.ins)}): {', '.join(self.nodes)}>"


def asset_reads(graph: GraphDefinition) -> Iterator[AssetKey]:
    """Yield the keys of the assets whose definitions are passed directly to ops in the body of `graph`, or in the body of a graph inside it."""
    for node in graph.nodes.values():
        for connection in node.connections.values():
            yield from (source.key for source in connection.sources if isinstance(source, AssetRead))
        if isinstance(node.definition, GraphDefinition):
            yield from asset_reads(node.definition)


def check_cycles(graph: GraphDefinition) -> None:
    """Raise `CycleError` if nodes of `graph` depend on each other in a cycle."""
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
            f"in graph {graph.name!r}: steps depend on each other in a cycle: {' -> '.join(error.args[1])}",
            where=graph.where,
            remedy="remove one of the connections between these steps",
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
    """Compose a graph: call `body` with a handle for each input, and return the graph whose nodes are the calls that `body` makes.

    Parameters
    ----------
    name
        The name of the graph.
    inputs
        The names of the inputs of the graph. `body` gets their handles as keyword arguments.
    kind
        What messages call the definition: ``graph``, ``job`` or ``graph-backed asset``.
    declared
        The names of the outputs of the graph. If None, the return value of `body` determines the names.
    source
        The function or cell whose source code is shown as the code of the graph; by default `body`.

    Raises
    ------
    InvalidDefinitionError
        If `name` is not a valid name, or if `body` breaks a rule of composition, for example if it does not use an input.
    """
    check_name(f"a {kind}", name, where=where)
    composition = Composition(name, kind, where)
    handles = {key: GraphInput(key) for key in inputs}
    returned = compose(composition, lambda: body(**handles))
    outputs = output_mapping(composition, returned, declared)
    unused = composition.unused_inputs(inputs, list(outputs.values()))
    if unused:
        raise composition.fail(f"the input {unused[0]!r} is not used", remedy=f"pass {unused[0]} to an op, or remove this input")
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
    """Compose a graph whose body is `function`, and whose inputs are the parameters of `function`.

    `name` and `description` are by default the name and the docstring of `function`. `kind` and `declared` are the same as in `build_graph`.
    """
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

    The function is called once, when it is defined. For each input of the graph, the function gets a handle: an object that stands for the later
    value. The function returns the handle of the output, or a dict of handles by output name. A call of the graph in the body of another graph or of
    a job adds the graph as a node.

    Parameters
    ----------
    compose_fn
        The function to decorate; None if the decorator is used with arguments.
    name
        The name of the graph; by default the name of the function.
    description
        The description of the graph; by default the docstring of the function.
    out
        The declaration of the only output, or of each output by its name. By default, the return value of the function determines the outputs.

    Returns
    -------
    GraphDefinition
        The definition of the graph; if `compose_fn` is None, a decorator that returns the definition.

    Raises
    ------
    InvalidDefinitionError
        If the function breaks a rule of composition, for example if it does not use an input.
    """
    declared = tuple(out) if isinstance(out, Mapping) else (("result",) if out is not None else None)

    def decorate(function: Callable[..., Any]) -> GraphDefinition:
        return graph_of(function, name=name, kind="graph", declared=declared, description=description)

    return decorate(compose_fn) if compose_fn is not None else decorate


class Runner(Protocol):
    """The methods that definitions call on the session, which implements them."""

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run a job and return the result of the run."""

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of the asset `key`."""

    def register(self, definition: Any) -> None:
        """Add `definition`, which the notebook or script itself (``__main__``) made, to the registry."""

    def read_select(self, name: str, text: str, variables: dict[str, Any], *, what: str, frame: str, where: str) -> SqlBody:
        """Parse `text`, the SELECT of the SQL asset `name`, and return the body of the asset.

        Parameters
        ----------
        variables
            The namespace in which the values of the parameters ``$name`` are looked up when the SELECT runs.
        what
            What error messages call the text, for example ``the cell of 'daily'``.
        frame
            The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto``.
        where
            The source location of the text, for error messages.
        """


_loader: Callable[[], Runner] | None = None


def load_runner(loader: Callable[[], Runner]) -> None:
    """Set the function whose result `runner` returns."""
    global _loader  # noqa: PLW0603 - one session per process
    _loader = loader


def runner() -> Runner:
    """Return the object through which definitions call the session.

    Raises
    ------
    InvariantViolationError
        If the package ``stepwell`` has not been imported completely.
    """
    if _loader is None:
        raise InvariantViolationError(
            "definitions cannot reach the session, because the package stepwell is not imported",
            remedy="write import stepwell before the definitions",
        )
    return _loader()


def module_of(function: Callable[..., Any]) -> str:
    """Return the name of the module that defines `function`; return an empty string if the module is unknown."""
    return getattr(function, "__module__", "") or ""


class JobDefinition:
    """A job: a graph without inputs that `execute` runs for its side effects.

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
        """The path of the notebook, or the name of the module, that defined the job. Empty until the registry sets it."""
        self.module = ""

    @property
    def __stepwell_body__(self) -> object:
        """The body of the job. If the code of a step refers to this definition, the step's code version covers the body."""
        return self.graph.source

    def execute(self, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run the job in this process.

        Parameters
        ----------
        store
            A store directory or an open store; by default the store of the session.
        raise_on_error
            What to do if a step fails: True to raise the exception of the step, False to return the result. The run is recorded in both cases.

        Returns
        -------
        RunResult
            The result of the run, with the values of its steps.

        Raises
        ------
        Exception
            The exception that a step raised, if `raise_on_error` is True.
        """
        return runner().execute_job(self, store=store, raise_on_error=raise_on_error)

    execute_in_process = execute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `InvariantViolationError`, because a job cannot be called: `execute` runs it."""
        del args, kwargs
        raise InvariantViolationError(
            f"the job {self.name!r} cannot be called like a function",
            where=self.where,
            remedy=f"run the job with {self.name}.execute()",
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
    """Define a job by a function that calls ops and graphs.

    The function is called once, when it is defined, to compose the graph of the job. The method ``execute()`` of the definition runs the job. If the
    function passes an asset to an op, the op gets the stored value of the asset; the job never materializes the asset.

    Parameters
    ----------
    compose_fn
        The function to decorate; None if the decorator is used with arguments.
    name
        The name of the job; by default the name of the function.
    description
        The description of the job; by default the docstring of the function.
    tags
        Arbitrary strings by name. Stepwell does not use them.

    Returns
    -------
    JobDefinition
        The definition of the job; if `compose_fn` is None, a decorator that returns the definition.

    Raises
    ------
    InvalidDefinitionError
        If the function breaks a rule of composition, for example if it passes a constant to an input of an op.
    """

    def decorate(function: Callable[..., Any]) -> JobDefinition:
        composed = graph_of(function, name=name, kind="job", declared=None, description=description)
        definition = JobDefinition(composed, tags=tags)
        definition.module = module_of(function)
        if definition.module == "__main__":
            runner().register(definition)
        return definition

    return decorate(compose_fn) if compose_fn is not None else decorate

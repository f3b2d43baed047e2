"""The composition of a graph: the body of the graph runs once, when the graph is defined, and each call of an op or graph in it adds a node.

No op runs during the composition, so there are no values yet. A call returns handles, which are objects that stand for the later values of
outputs: one handle if the called op or graph has one output, and a named tuple of handles if it has several outputs. The body can pass a handle
to another call, alone or in a list (fan-in), or can return the handle. The rules of composition and the kinds of errors are Dagster's.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias

from stepwell.kernel_runtime.definitions.declarations import UNSET
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvariantViolationError
from stepwell.kernel_runtime.records.keys import AssetKey, check_name


class Composable(Protocol):
    """A definition that the body of a graph can call: an op or a graph."""

    name: str

    @property
    def ins(self) -> Mapping[str, Any]:
        """The inputs by name, in order."""

    @property
    def outs(self) -> Mapping[str, Any]:
        """The outputs by name, in order."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The default of each config parameter, by name; `UNSET` for a config parameter without a default."""


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """The handle of one output of a node: a call in the body of a graph returns it in place of the value."""

    node: str
    output: str

    def __iter__(self) -> NoReturn:
        raise InvariantViolationError(
            f"the output {self.output!r} of {self.node!r} cannot be unpacked or iterated while a graph is being composed: it has no value yet",
            remedy="declare several outputs with out={...}, or unpack the value inside an op",
        )


@dataclass(frozen=True, slots=True)
class GraphInput:
    """The handle of an input of the graph that is being composed. The body of the graph receives the handle in place of the value."""

    name: str


@dataclass(frozen=True, slots=True)
class AssetRead:
    """The handle of an asset that the body of a graph passes to an op. The op gets the stored value; the graph never materializes the asset."""

    key: AssetKey


Source: TypeAlias = NodeOutput | GraphInput | AssetRead


@dataclass(frozen=True, slots=True)
class Connection:
    """The handles (`sources`) that the body of a graph passes to one input of a node."""

    sources: tuple[Source, ...]
    fan_in: bool
    """True if the input receives a list with one value for each handle; False if there is one handle, and the input receives its value."""


@dataclass(frozen=True, slots=True)
class Node:
    """One call of an op or graph in the body of a graph."""

    name: str
    definition: Composable
    connections: Mapping[str, Connection]
    config: Mapping[str, Any]


class Composition:
    """A graph while its body runs: the nodes that the calls in the body have added so far."""

    def __init__(self, name: str, kind: str, where: str) -> None:
        self.name = name
        self.kind = kind
        self.where = where
        self.nodes: dict[str, Node] = {}
        self.aliased: set[str] = set()

    def fail(self, what: str, remedy: str = "") -> InvalidDefinitionError:
        """Return, without raising it, an error whose message is the kind and name of the graph, followed by `what`."""
        return InvalidDefinitionError(f"in {self.kind} {self.name!r}: {what}", where=self.where, remedy=remedy)

    def add(
        self,
        definition: Composable,
        alias: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Add a node for a call of `definition` with `args` and `kwargs`, and return what the call returns.

        Parameters
        ----------
        alias
            The name of the node. None means the name of `definition`, with a number appended if another node has this name already.

        Returns
        -------
        object
            The handle of the node's output; a named tuple of handles if the node has several outputs; None if the node has no output.

        Raises
        ------
        InvalidDefinitionError
            If the call breaks a rule of composition, for example passes a value in place of a handle.
        """
        name = self._node_name(definition, alias)
        config = {}
        names = list(definition.ins)
        if len(args) > len(names):
            raise self.fail(
                f"{name!r} got too many positional arguments: {len(args)} instead of at most {len(names)}",
                remedy=f"pass only its inputs by position: {', '.join(names)}" if names else "pass no argument by position",
            )
        inputs: dict[str, Any] = dict(zip(names, args, strict=False))
        for key, value in kwargs.items():
            if key in inputs:
                raise self.fail(
                    f"{name!r} got the input {key!r} twice: by position and by keyword",
                    remedy=f"remove the argument {key}=...",
                )
            if key in definition.config:
                config[key] = self._constant(name, key, value)
            elif key in definition.ins:
                inputs[key] = value
            else:
                known = ", ".join([*names, *definition.config])
                raise self.fail(
                    f"{name!r} has no parameter {key!r}",
                    remedy=f"use a parameter of {name}: {known}" if known else f"call {name} without arguments",
                )
        for key, default in definition.config.items():
            if key not in config and default is UNSET:
                raise self.fail(
                    f"the config parameter {key!r} of {name!r} has no default, and the call does not set it",
                    remedy=f"pass a constant: {name}(..., {key}=...)",
                )
        connections = {key: self._connect(name, key, value) for key, value in inputs.items()}
        self.nodes[name] = Node(name, definition, connections, config)
        outputs = [NodeOutput(name, output) for output in definition.outs]
        if not outputs:
            return None
        if len(outputs) == 1:
            return outputs[0]
        # An output whose name is not a valid field name, such as ``class``, is only accessible by position.
        return namedtuple(f"_{name}_outputs", list(definition.outs), rename=True)(*outputs)  # noqa: PYI024 - the fields are known only here

    def _node_name(self, definition: Composable, alias: str | None) -> str:
        if alias is not None:
            if alias in self.nodes:
                raise self.fail(f"two nodes have the name {alias!r}", remedy="give each call a different alias")
            self.aliased.add(alias)
            return alias
        name, number = definition.name, 1
        while name in self.nodes:
            other = self.nodes[name].definition
            if number == 1 and name not in self.aliased and other is not definition:
                raise self.fail(
                    f"two different definitions have the name {name!r}",
                    remedy=f"call one of them under another name: {name}.alias('another_name')(...)",
                )
            number += 1
            name = f"{definition.name}_{number}"
        return name

    def _connect(self, node: str, parameter: str, value: Any) -> Connection:
        if isinstance(value, list | tuple) and not isinstance(value, NodeOutput) and not hasattr(value, "_fields"):
            return Connection(tuple(self._source(node, parameter, member) for member in value), fan_in=True)
        return Connection((self._source(node, parameter, value),), fan_in=False)

    def _source(self, node: str, parameter: str, value: Any) -> Source:
        if isinstance(value, NodeOutput | GraphInput | AssetRead):
            return value
        key = getattr(value, "__stepwell_asset_key__", None)
        if key is not None:
            return AssetRead(key() if callable(key) else key)
        if hasattr(value, "_fields") and isinstance(value, tuple):
            raise self.fail(
                f"the input {parameter!r} of {node!r} got all outputs of another node instead of one output",
                remedy="pass one of the outputs by its name, for example outputs.train",
            )
        if hasattr(value, "__stepwell_body__"):
            raise self.fail(
                f"the input {parameter!r} of {node!r} got an op or graph instead of its result",
                remedy="call the op or graph, and pass what the call returns",
            )
        raise self.fail(
            f"the input {parameter!r} of {node!r} got a value of type {type(value).__name__}; in a graph, an input gets the result of another call, an input of the graph, or an asset",
            remedy=f"to pass a constant, make {parameter!r} a keyword-only parameter of the op (def {node}(..., *, {parameter})); to read an asset, pass SourceAsset('key')",
        )

    def _constant(self, node: str, parameter: str, value: Any) -> Any:
        if isinstance(value, NodeOutput | GraphInput | AssetRead) or hasattr(value, "__stepwell_asset_key__"):
            raise self.fail(
                f"the config parameter {parameter!r} of {node!r} got the result of a step or an asset, but config must be a constant",
                remedy=f"in the op, move {parameter!r} before the *, which makes it an input",
            )
        return value

    def unused_inputs(self, inputs: Iterable[str], returned: list[Source]) -> list[str]:
        """Return those of `inputs` that the body of the graph does not use: inputs whose handles the body neither passed to a call nor returned.

        Parameters
        ----------
        inputs
            The names of the inputs of the graph.
        returned
            The handles that the body of the graph returned.
        """
        used = {
            source.name
            for node in self.nodes.values()
            for connection in node.connections.values()
            for source in connection.sources
            if isinstance(source, GraphInput)
        }
        used |= {source.name for source in returned if isinstance(source, GraphInput)}
        return [name for name in inputs if name not in used]


_stack: list[Composition] = []


def composing() -> Composition | None:
    """Return the graph that is being composed, or None if no body of a graph is running."""
    return _stack[-1] if _stack else None


def compose(composition: Composition, body: Callable[[], Any]) -> Any:
    """Run `body`, the body of a graph, so that its calls add nodes to `composition`; return the result of `body`."""
    _stack.append(composition)
    try:
        return body()
    finally:
        _stack.pop()


def output_mapping(composition: Composition, returned: Any, declared: tuple[str, ...] | None) -> dict[str, NodeOutput]:
    """Return a dict that maps the name of each output of the graph to the handle of the node output that supplies its value.

    Parameters
    ----------
    returned
        The result of the body of the graph: a handle, a dict of handles, a tuple of handles, or None if the graph has no outputs.
    declared
        The names of the outputs of the graph. If None, `returned` determines the names: for one handle, ``result``; for a dict, its keys; for the
        named tuple that a call returned, the names of the outputs of the called op or graph.

    Raises
    ------
    InvalidDefinitionError
        If `returned` contains something other than handles of nodes, does not match the names in `declared`, or does not determine valid names.
    """
    if returned is None:
        outputs: dict[str, Any] = {}
    elif isinstance(returned, dict):
        outputs = returned
    elif isinstance(returned, tuple) and not isinstance(returned, NodeOutput):
        names = declared or (tuple(handle.output for handle in returned) if hasattr(returned, "_fields") else ())
        if len(names) != len(returned):
            raise composition.fail(
                f"the number of returned outputs is {len(returned)}, but the number of declared outputs is {len(names)}",
                remedy="declare each output with out={...}, and return a dict of handles by output name",
            )
        outputs = dict(zip(names, returned, strict=True))
    elif declared is not None and len(declared) > 1:
        raise composition.fail(
            f"one output is returned, but {len(declared)} are declared",
            remedy=f"return a dict with a handle for each output: {', '.join(declared)}",
        )
    else:
        outputs = {declared[0] if declared else "result": returned}
    for name, handle in outputs.items():
        if not isinstance(handle, NodeOutput):
            kind = "an input of the graph itself" if isinstance(handle, GraphInput) else f"of type {type(handle).__name__}"
            raise composition.fail(
                f"the output {name!r} is {kind}, not the result of a call",
                remedy="return the result of an op or graph that the body calls",
            )
        if name != "result":
            check_name("an output", name, where=composition.where)
    for name in declared or ():
        if name not in outputs:
            raise composition.fail(
                f"the output {name!r} is declared but not returned",
                remedy=f"return a handle for {name!r}, or remove {name!r} from out={{...}}",
            )
    if declared is not None:
        for name in outputs:
            if name not in declared:
                raise composition.fail(
                    f"the output {name!r} is returned but not declared",
                    remedy=f"add it to out={{...}}, or return only the declared outputs: {', '.join(declared)}",
                )
    return outputs

"""Composition: while the body of a graph runs, each call of an op or graph adds a node, and handles stand for values.

The body of a decorated function runs once, when it is decorated. A call in the body returns one handle if the node has one output, or a
named tuple of handles if it has several. The body can pass a handle to another call, alone or in a list (fan-in), or return it. The rules
and errors are Dagster's.
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
    """An op or a graph, which the body of a graph can call."""

    name: str

    @property
    def ins(self) -> Mapping[str, Any]:
        """The inputs by name."""

    @property
    def outs(self) -> Mapping[str, Any]:
        """The outputs by name."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The defaults of the config values by name."""


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """The handle of one output of a node."""

    node: str
    output: str

    def __iter__(self) -> NoReturn:
        raise InvariantViolationError(
            f"the output {self.output!r} of {self.node!r} is a single handle and cannot be unpacked while a graph is composed",
            remedy="declare several outputs with out={...}, or unpack the value inside an op",
        )


@dataclass(frozen=True, slots=True)
class GraphInput:
    """The handle of an input of the graph that is being composed."""

    name: str


@dataclass(frozen=True, slots=True)
class AssetRead:
    """The handle of an asset whose stored value is read; the asset is never materialized."""

    key: AssetKey


Source: TypeAlias = NodeOutput | GraphInput | AssetRead


@dataclass(frozen=True, slots=True)
class Connection:
    """The sources of one input of a node."""

    sources: tuple[Source, ...]
    fan_in: bool


@dataclass(frozen=True, slots=True)
class Node:
    """One use of an op or graph inside a graph."""

    name: str
    definition: Composable
    connections: Mapping[str, Connection]
    config: Mapping[str, Any]


class Composition:
    """The graph that is being composed."""

    def __init__(self, name: str, kind: str, where: str) -> None:
        self.name = name
        self.kind = kind
        self.where = where
        self.nodes: dict[str, Node] = {}
        self.aliased: set[str] = set()

    def fail(self, what: str, remedy: str = "") -> InvalidDefinitionError:
        """Return an error that names the graph."""
        return InvalidDefinitionError(f"in {self.kind} {self.name!r}: {what}", where=self.where, remedy=remedy)

    def add(
        self,
        definition: Composable,
        alias: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Add a node for a call and return the handles of its outputs."""
        name = self._node_name(definition, alias)
        config = {}
        names = list(definition.ins)
        if len(args) > len(names):
            raise self.fail(f"{name!r} takes {len(names)} inputs but got {len(args)}")
        inputs: dict[str, Any] = dict(zip(names, args, strict=False))
        for key, value in kwargs.items():
            if key in inputs:
                raise self.fail(f"{name!r} got the input {key!r} twice")
            if key in definition.config:
                config[key] = self._constant(name, key, value)
            elif key in definition.ins:
                inputs[key] = value
            else:
                known = ", ".join([*names, *definition.config]) or "none"
                raise self.fail(f"{name!r} has no input {key!r}", remedy=f"its inputs are: {known}")
        for key, default in definition.config.items():
            if key not in config and default is UNSET:
                raise self.fail(
                    f"the config {key!r} of {name!r} has no default and is not set",
                    remedy=f"write {name}(..., {key}=...)",
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
                raise self.fail(f"two nodes are called {alias!r}", remedy="give each use a different alias")
            self.aliased.add(alias)
            return alias
        name, number = definition.name, 1
        while name in self.nodes:
            other = self.nodes[name].definition
            if number == 1 and name not in self.aliased and other is not definition:
                raise self.fail(
                    f"two different definitions are called {name!r}", remedy=f"use {name}.alias('another_name')"
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
                f"the input {parameter!r} of {node!r} got all outputs of another node",
                remedy="pass one output by its name",
            )
        if hasattr(value, "__stepwell_body__"):
            raise self.fail(
                f"the input {parameter!r} of {node!r} got a definition that was not called",
                remedy="call the definition and pass its result",
            )
        raise self.fail(
            f"the input {parameter!r} of {node!r} got a value of type {type(value).__name__}, but a graph is composed of handles, not values",
            remedy=f"to pass a constant, make {parameter!r} a keyword-only parameter of the op (def {node}(..., *, {parameter})); to read an asset, pass SourceAsset('key')",
        )

    def _constant(self, node: str, parameter: str, value: Any) -> Any:
        if isinstance(value, NodeOutput | GraphInput | AssetRead) or hasattr(value, "__stepwell_asset_key__"):
            raise self.fail(
                f"{parameter!r} of {node!r} is config and takes a constant, not the result of a step",
                remedy=f"make {parameter!r} a parameter that is not keyword-only",
            )
        return value

    def unused_inputs(self, inputs: Iterable[str], returned: list[Source]) -> list[str]:
        """Return the inputs of the graph that are neither connected to a node nor returned."""
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
    """Return the graph that is being composed, or None."""
    return _stack[-1] if _stack else None


def compose(composition: Composition, body: Callable[[], Any]) -> Any:
    """Run the body of a graph and return its result."""
    _stack.append(composition)
    try:
        return body()
    finally:
        _stack.pop()


def output_mapping(composition: Composition, returned: Any, declared: tuple[str, ...] | None) -> dict[str, NodeOutput]:
    """Return the node's output that supplies each output of the graph.

    Parameters
    ----------
    returned
        The result of the body: None, a handle, a dict of handles, or a tuple with a handle per declared output.
    declared
        The names of the graph's outputs. If None, the result determines them: ``result``, or the keys of a dict.

    Raises
    ------
    InvalidDefinitionError
        If the result has another form, or does not match the declared names.
    """
    if returned is None:
        outputs: dict[str, Any] = {}
    elif isinstance(returned, dict):
        outputs = returned
    elif isinstance(returned, tuple) and not isinstance(returned, NodeOutput):
        names = declared or (tuple(handle.output for handle in returned) if hasattr(returned, "_fields") else ())
        if len(names) != len(returned):
            raise composition.fail(
                f"{len(returned)} outputs are returned but {len(names)} are declared",
                remedy="declare them with out={...} and return a dict of handles",
            )
        outputs = dict(zip(names, returned, strict=True))
    elif declared is not None and len(declared) > 1:
        raise composition.fail(
            f"one output is returned but {len(declared)} are declared", remedy="return a dict of handles"
        )
    else:
        outputs = {declared[0] if declared else "result": returned}
    for name, handle in outputs.items():
        if not isinstance(handle, NodeOutput):
            kind = "an input of the graph itself" if isinstance(handle, GraphInput) else f"a {type(handle).__name__}"
            raise composition.fail(
                f"the output {name!r} is {kind}, not the result of a step",
                remedy="return the result of an op that the body calls",
            )
        if name != "result":
            check_name("an output", name, where=composition.where)
    for name in declared or ():
        if name not in outputs:
            raise composition.fail(f"the declared output {name!r} is not returned")
    if declared is not None:
        for name in outputs:
            if name not in declared:
                raise composition.fail(
                    f"the output {name!r} is returned but not declared",
                    remedy=f"declare it, or return only the declared outputs: {', '.join(declared)}",
                )
    return outputs

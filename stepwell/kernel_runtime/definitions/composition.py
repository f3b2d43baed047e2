"""Composition: when the body of a graph is called, every call of an op or graph becomes a node and every value a handle.

The body runs once, at decoration. Inside it a call returns handles: one for a node with one output, a named tuple of them
for several. A handle can be passed to another call, alone or in a list (fan-in), and returned. The rules and the errors
are those of SEMANTICS, section 1.
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
    """An op or a graph: what a graph's body calls."""

    name: str

    @property
    def ins(self) -> Mapping[str, Any]:
        """Its inputs by name."""

    @property
    def outs(self) -> Mapping[str, Any]:
        """Its outputs by name."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config values by name, each with its default."""


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """The handle of one output of a node."""

    node: str
    output: str

    def __iter__(self) -> NoReturn:
        raise InvariantViolationError(
            f"the output {self.output!r} of {self.node!r} is one handle and cannot be unpacked while a graph is composed",
            remedy="declare several outputs with out={...}, or unpack the value inside an op",
        )


@dataclass(frozen=True, slots=True)
class GraphInput:
    """The handle of an input of the graph that is being composed."""

    name: str


@dataclass(frozen=True, slots=True)
class AssetRead:
    """The handle of an asset whose stored value is read; it is never materialised."""

    key: AssetKey


Source: TypeAlias = NodeOutput | GraphInput | AssetRead


@dataclass(frozen=True, slots=True)
class Connection:
    """The sources of an input of a node."""

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
        """Build an error that names the graph."""
        return InvalidDefinitionError(f"in {self.kind} {self.name!r}: {what}", where=self.where, remedy=remedy)

    def add(
        self,
        definition: Composable,
        alias: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Add a call as a node and return its handles."""
        name = self._node_name(definition, alias)
        config = {}
        given: dict[str, Any] = {}
        names = list(definition.ins)
        if len(args) > len(names):
            raise self.fail(f"{name!r} takes {len(names)} inputs but is given {len(args)}")
        given.update(zip(names, args, strict=False))
        for key, value in kwargs.items():
            if key in given:
                raise self.fail(f"{name!r} is given the input {key!r} twice")
            if key in definition.config:
                config[key] = self._constant(name, key, value)
            elif key in definition.ins:
                given[key] = value
            else:
                known = ", ".join([*names, *definition.config]) or "none"
                raise self.fail(f"{name!r} has no input {key!r}", remedy=f"its inputs are: {known}")
        for key, default in definition.config.items():
            if key not in config and default is UNSET:
                raise self.fail(
                    f"the config {key!r} of {name!r} has no default and is not set",
                    remedy=f"write {name}(..., {key}=...)",
                )
        connections = {key: self._connect(name, key, value) for key, value in given.items()}
        self.nodes[name] = Node(name, definition, connections, config)
        outputs = [NodeOutput(name, output) for output in definition.outs]
        if not outputs:
            return None
        if len(outputs) == 1:
            return outputs[0]
        # An output may be called what no field can be (``class``): it is reached by its position then.
        return namedtuple(f"_{name}_outputs", list(definition.outs), rename=True)(*outputs)  # noqa: PYI024 - the fields are known only here

    def _node_name(self, definition: Composable, alias: str | None) -> str:
        if alias is not None:
            if alias in self.nodes:
                raise self.fail(f"two nodes are called {alias!r}", remedy="give each use its own alias")
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
                f"the input {parameter!r} of {node!r} is given all outputs of another node",
                remedy="pass one of them by its name",
            )
        if hasattr(value, "__stepwell_body__"):
            raise self.fail(
                f"the input {parameter!r} of {node!r} is given a definition that was not called",
                remedy="call it: its result is what can be passed",
            )
        raise self.fail(
            f"the input {parameter!r} of {node!r} is given a value of type {type(value).__name__}; while a graph is composed there are no values yet",
            remedy=f"a constant is config: make {parameter!r} a keyword-only parameter of the op (def {node}(..., *, {parameter})); an asset is read as SourceAsset('key')",
        )

    def _constant(self, node: str, parameter: str, value: Any) -> Any:
        if isinstance(value, NodeOutput | GraphInput | AssetRead) or hasattr(value, "__stepwell_asset_key__"):
            raise self.fail(
                f"{parameter!r} of {node!r} is config and takes a constant, not the result of a step",
                remedy=f"make {parameter!r} an ordinary parameter to connect it",
            )
        return value

    def unused_inputs(self, inputs: Iterable[str], returned: list[Source]) -> list[str]:
        """Return the graph's inputs that nothing uses."""
        used = {
            source.name
            for node in self.nodes.values()
            for c in node.connections.values()
            for source in c.sources
            if isinstance(source, GraphInput)
        }
        used |= {source.name for source in returned if isinstance(source, GraphInput)}
        return [name for name in inputs if name not in used]


_stack: list[Composition] = []


def composing() -> Composition | None:
    """Return the graph that is being composed, or None."""
    return _stack[-1] if _stack else None


def compose(composition: Composition, body: Callable[[], Any]) -> Any:
    """Run the body of a graph and return what it returned."""
    _stack.append(composition)
    try:
        return body()
    finally:
        _stack.pop()


def output_mapping(composition: Composition, returned: Any, declared: tuple[str, ...] | None) -> dict[str, NodeOutput]:
    """Return which node's output each output of the graph is.

    Parameters
    ----------
    returned
        What the body returned: None, a handle, a dict of handles, or one handle per declared output in a tuple.
    declared
        The names of the graph's outputs; None where the body decides (``result``, or the keys of its dict).

    Raises
    ------
    InvalidDefinitionError
        If something else is returned, or not what is declared.
    """
    if returned is None:
        found: dict[str, Any] = {}
    elif isinstance(returned, dict):
        found = returned
    elif isinstance(returned, tuple) and not isinstance(returned, NodeOutput):
        names = declared or (tuple(handle.output for handle in returned) if hasattr(returned, "_fields") else ())
        if len(names) != len(returned):
            raise composition.fail(
                f"{len(returned)} outputs are returned but {len(names)} are declared",
                remedy="declare them with out={...} and return a dict of handles",
            )
        found = dict(zip(names, returned, strict=True))
    elif declared is not None and len(declared) > 1:
        raise composition.fail(
            f"one output is returned but {len(declared)} are declared", remedy="return a dict of handles"
        )
    else:
        found = {declared[0] if declared else "result": returned}
    for name, handle in found.items():
        if not isinstance(handle, NodeOutput):
            kind = "an input of the graph itself" if isinstance(handle, GraphInput) else f"a {type(handle).__name__}"
            raise composition.fail(
                f"the output {name!r} is {kind}, not the result of a step",
                remedy="return what an op called in the body returned",
            )
        if name != "result":
            check_name("an output", name, where=composition.where)
    for name in declared or ():
        if name not in found:
            raise composition.fail(f"the declared output {name!r} is not returned")
    if declared is not None:
        for name in found:
            if name not in declared:
                raise composition.fail(
                    f"the output {name!r} is returned but not declared", remedy=f"declared are: {', '.join(declared)}"
                )
    return found

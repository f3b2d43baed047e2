"""The plan as data: steps with their inputs and outputs, in an order in which they can run; and the steps of a definition.

Every value is identified by a string, its *value key*: for the value of an asset, the asset key; for any other value, the address of the step that
computes it, followed by ``:output`` if that step has several outputs. Each input of a step lists the value keys that it reads. In a plan, the steps
that compute these values come before the step; values that no step of the plan computes are read from the store.

An op that is used as an asset is one step. A graph has one step per op, and the key of such a step contains the path to the op in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.composition import AssetRead, Connection, GraphInput, NodeOutput
from stepwell.kernel_runtime.definitions.declarations import UNSET, is_nothing
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, JobDefinition
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import InvalidDefinitionError
from stepwell.kernel_runtime.records.bulk import quick_init
from stepwell.kernel_runtime.records.keys import AssetKey, join_step
from stepwell.kernel_runtime.records.materializations import CodeVersion
from stepwell.kernel_runtime.records.runs import RunKind


@quick_init
@dataclass(frozen=True, slots=True)
class PlanInput:
    """One input of a step."""

    name: str
    """The name of the parameter; empty for an input that only determines the order of steps."""
    keys: tuple[str, ...]
    """The value keys that the input reads: several only if `fan_in` is True, none if the parameter's default is used."""
    fan_in: bool = False
    """True if the parameter receives a list of values."""
    carries_value: bool = True
    """False for an input that only determines the order of steps."""
    default: Any = UNSET
    """The default of the parameter, if the input uses it; otherwise `UNSET`."""
    is_declared: bool = True
    """False if the input is an asset that the code of the step, for example a helper function, reads through a global variable. Only the code
    walk finds such an input.
    """


@quick_init
@dataclass(frozen=True, slots=True)
class PlanOutput:
    """One output of a step."""

    name: str
    """The name that the op declares for the output."""
    key: str
    """The value key of the output."""
    asset_key: AssetKey | None
    """The key of the asset whose value the output is; None for a value inside a graph or job."""
    has_value: bool
    """True if the output has a value to store; False if its type is `Nothing`."""
    required: bool
    """False if the step may end without producing the output."""


@dataclass(slots=True, eq=False)
class PlanStep:
    """One step of a plan: an op, or the body of an asset, with its inputs and outputs."""

    key: str
    """The step key, which is unique in the plan. For a step of a job, it does not contain the name of the job."""
    op: OpDefinition
    inputs: tuple[PlanInput, ...]
    outputs: tuple[PlanOutput, ...]
    config: dict[str, Any]
    """The values of the op's config parameters by name."""
    memoised: bool
    """True if stored results of the step may be reused."""
    notebook: str
    """The notebook or module that defines the step."""
    where: str = ""
    """The cell, or the file and line, that defines the step."""
    group_name: str = "default"
    """The group of the asset that the step computes; ``default`` for a step of a job."""
    isolate: bool = True
    """True if each downstream step receives a separate copy of the step's values; False if all of them share one object."""
    code: CodeVersion | None = None
    """The code version of the step; None before the code walk, and for a step that belongs to a job and is not memoised."""
    address: str = ""
    """The step's key in the store: for a step of a job, the name of the job and `key` (``JOB.KEY``); for any other step, `key`."""

    input_keys: tuple[str, ...] = field(init=False)
    """The value keys of all inputs, including those of inputs that only determine the order of steps."""

    def __post_init__(self) -> None:
        inputs = self.inputs
        self.input_keys = inputs[0].keys if len(inputs) == 1 else tuple([key for given in inputs for key in given.keys])

    def add_inputs(self, inputs: tuple[PlanInput, ...]) -> None:
        """Add inputs to this step, for example the assets that the code walk found."""
        self.inputs = (*self.inputs, *inputs)
        self.input_keys = tuple(key for given in self.inputs for key in given.keys)

    def copy(self, notebook: str) -> PlanStep:
        """Return a copy of this step for another plan. The copy has no code version yet.

        Parameters
        ----------
        notebook
            The notebook or module that defines the step.
        """
        new = object.__new__(PlanStep)
        new.key, new.op, new.inputs, new.outputs, new.config = self.key, self.op, self.inputs, self.outputs, self.config
        new.memoised, new.notebook, new.where, new.group_name = self.memoised, notebook, self.where, self.group_name
        new.isolate, new.code, new.address, new.input_keys = self.isolate, None, self.address, self.input_keys
        return new


@dataclass(slots=True)
class Plan:
    """Steps in an order in which they can run."""

    kind: RunKind
    targets: tuple[str, ...]
    """The requested asset keys, or the name of the job."""
    steps: tuple[PlanStep, ...]
    producers: dict[str, PlanStep] = field(default_factory=dict)
    """Maps the key of each value that the plan computes to the step that computes the value."""
    read_keys: tuple[str, ...] = ()
    """The value keys that steps read and that no step of the plan computes: their values are read from the store."""
    absent: frozenset[str] = frozenset()
    """In a resumed run: those `read_keys` that belong to optional outputs which a finished step of the original run did not produce. Steps that
    need one of them are skipped.
    """
    target_steps: frozenset[str] = frozenset()
    """The keys of the requested steps; all other steps are upstream of these."""

    def step(self, key: str) -> PlanStep | None:
        """Return the step whose key is `key`; None if the plan does not contain such a step."""
        return next((step for step in self.steps if step.key == key), None)


def _can_run(steps: list[PlanStep], producers: dict[str, PlanStep]) -> bool:
    """Return True if the steps can run in their present order: each step comes after the steps that compute its inputs."""
    supplied_keys: set[str] = set()
    for step in steps:
        for key in step.input_keys:
            if key not in supplied_keys and key in producers:
                return False
        for output in step.outputs:
            supplied_keys.add(output.key)
    return True


def order_steps(steps: list[PlanStep]) -> tuple[list[PlanStep], list[str]]:
    """Return the steps in an order in which each step comes after the steps that compute its inputs.

    Apart from this, the steps keep their order. The time is linear in the number of steps and inputs.

    Returns
    -------
    ordered : list of PlanStep
        The steps in order; empty if steps depend on each other in a cycle.
    cycle : list of str
        The step keys of a cycle, of which the first and the last are equal; empty if there is no cycle.
    """
    producers = {output.key: step for step in steps for output in step.outputs}
    if _can_run(steps, producers):
        return steps, []
    ordered: list[PlanStep] = []
    state: dict[str, int] = {}
    for first in steps:
        if first.key in state:
            continue
        path: list[tuple[PlanStep, int]] = [(first, 0)]
        needs: dict[str, list[PlanStep]] = {}
        state[first.key] = 1
        while path:
            step, position = path.pop()
            upstream = needs.get(step.key)
            if upstream is None:
                upstream = needs[step.key] = [producers[key] for key in step.input_keys if key in producers]
            if position < len(upstream):
                path.append((step, position + 1))
                other = upstream[position]
                seen = state.get(other.key, 0)
                if seen == 1:
                    cycle = [entry.key for entry, _ in path]
                    return [], [*cycle[cycle.index(other.key) :], other.key]
                if seen == 0:
                    state[other.key] = 1
                    path.append((other, 0))
            else:
                state[step.key] = 2
                ordered.append(step)
    return ordered, []


@dataclass(frozen=True, slots=True)
class _Bound:
    """The value keys to which an input of an op or graph is connected."""

    keys: tuple[str, ...]
    fan_in: bool
    """True if the input receives a list of values."""


def asset_steps(definition: AssetsDefinition) -> list[PlanStep]:
    """Return new step objects for the steps that compute the assets of a definition. The caller may change them."""
    steps: list[PlanStep] | None = definition.planned_steps
    if steps is None:
        steps = definition.planned_steps = _asset_steps(definition)
    notebook = definition.notebook or definition.module
    return [step.copy(notebook) for step in steps]


def _asset_steps(definition: AssetsDefinition) -> list[PlanStep]:
    key = definition.step_key
    group_name = definition.group_name(definition.keys[0])
    # Lists are faster than generators for so few items.
    order = tuple([PlanInput("", (str(dep),), carries_value=False) for dep in definition.deps])
    if isinstance(definition.node, OpDefinition):
        op = definition.node
        upstream = definition.keys_by_input
        inputs = tuple(
            [
                PlanInput(name, (str(upstream[name]),)) if name in upstream else PlanInput("", (), carries_value=False)
                for name in op.parameters
            ]
        )
        outputs = tuple(
            [
                _output(op, name, written, own)
                for (name, own), written in zip(definition.keys_by_output.items(), definition.written_keys, strict=True)
            ]
        )
        defaults = {name: default for name, default in op.config.items() if default is not UNSET}
        return [
            PlanStep(
                key,
                op,
                (*inputs, *order) if order else inputs,
                outputs,
                config=defaults,
                memoised=op.cache is not False,
                notebook=definition.notebook or definition.module,
                where=definition.where,
                group_name=group_name,
                isolate=definition.isolate,
                address=key,
            )
        ]
    bound = {name: _Bound((str(upstream),), fan_in=False) for name, upstream in definition.keys_by_input.items()}
    finals = {
        _final(definition.node, handle): own
        for (name, own) in definition.keys_by_output.items()
        for handle in [definition.node.outputs[name]]
    }
    steps = list(
        _flatten(
            definition.node,
            key,
            bound,
            lambda node, output: finals.get((node, output)),
            default_cache=True,
            notebook=definition.notebook or definition.module,
            address=key,
        )
    )
    for step in steps:
        step.group_name = group_name
        step.isolate = definition.isolate
        if order:
            step.add_inputs(order)
    return steps


def job_steps(job: JobDefinition) -> list[PlanStep]:
    """Return new step objects for the steps of a job. The `address` of each step contains the name of the job; its `key` does not."""
    return list(
        _flatten(
            job.graph,
            "",
            {},
            _no_asset,
            default_cache=False,
            notebook=job.notebook or job.module,
            address=job.name,
        )
    )


def _no_asset(node: tuple[str, ...], output: str) -> None:
    del node, output


def _final(graph: GraphDefinition, handle: NodeOutput, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], str]:
    """Return the path of the op that computes an output of a node of a graph, and the name that the op declares for this output.

    Parameters
    ----------
    handle
        The node, which may be a graph itself, and the name of its output.
    path
        The path of `graph` in the outermost graph.
    """
    node = graph.nodes[handle.node]
    if isinstance(node.definition, GraphDefinition):
        return _final(node.definition, node.definition.outputs[handle.output], (*path, handle.node))
    return (*path, handle.node), handle.output


def _flatten(
    graph: GraphDefinition,
    key: str,
    bound: Mapping[str, _Bound],
    asset_of: Callable[[tuple[str, ...], str], AssetKey | None],
    *,
    default_cache: bool,
    notebook: str,
    address: str,
    path: tuple[str, ...] = (),
    root: GraphDefinition | None = None,
) -> Iterator[PlanStep]:
    top = root or graph

    def value_key(node_path: tuple[str, ...], op: OpDefinition, output: str) -> str:
        own = asset_of(node_path, output)
        if own is not None:
            return str(own)
        base = ".".join((address, *node_path))
        return base if len(op.outs) == 1 else f"{base}:{output}"

    def resolve(connection: Connection) -> _Bound:
        keys: list[str] = []
        fan_in = connection.fan_in
        for source in connection.sources:
            if isinstance(source, AssetRead):
                keys.append(str(source.key))
            elif isinstance(source, GraphInput):
                bound_input = bound.get(source.name)
                if bound_input is not None:
                    keys.extend(bound_input.keys)
                    fan_in = fan_in or bound_input.fan_in
            else:
                final, output = _final(graph, source, path)
                keys.append(value_key(final, _op_at(top, final), output))
        return _Bound(tuple(keys), fan_in)

    for node in graph.nodes.values():
        node_path = (*path, node.name)
        connections = {name: resolve(connection) for name, connection in node.connections.items()}
        connections = {name: bound_input for name, bound_input in connections.items() if bound_input.keys or bound_input.fan_in}
        if isinstance(node.definition, GraphDefinition):
            yield from _flatten(
                node.definition,
                join_step(key, node.name),
                connections,
                asset_of,
                default_cache=default_cache,
                notebook=notebook,
                address=address,
                path=node_path,
                root=top,
            )
            continue
        op = node.definition
        assert isinstance(op, OpDefinition)
        outputs = tuple(_output(op, name, value_key(node_path, op, name), asset_of(node_path, name)) for name in op.outs)
        yield PlanStep(
            join_step(key, node.name),
            op,
            tuple(_inputs(op, connections, join_step(key, node.name))),
            outputs,
            config=_config(op, node.config),
            memoised=op.cache if op.cache is not None else default_cache,
            notebook=notebook,
            where=op.where,
            address=".".join((address, *node_path)),
        )


def _op_at(graph: GraphDefinition, path: tuple[str, ...]) -> OpDefinition:
    for name in path[:-1]:
        inner = graph.nodes[name].definition
        if isinstance(inner, GraphDefinition):
            graph = inner
    definition = graph.nodes[path[-1]].definition
    if not isinstance(definition, OpDefinition):
        raise InvalidDefinitionError(f"{'.'.join(path)} is a graph, and only the outputs of an op can be connected to an input")
    return definition


def _inputs(op: OpDefinition, connections: Mapping[str, _Bound], key: str) -> Iterator[PlanInput]:
    for name, declared in op.ins.items():
        carries = not is_nothing(declared.dagster_type)
        given = connections.get(name)
        if given is not None:
            yield PlanInput(name if carries else "", given.keys, given.fan_in, carries)
        elif not carries:
            continue
        elif name in op.defaults:
            yield PlanInput(name, (), default=op.defaults[name])
        else:
            raise InvalidDefinitionError(
                f"step {key!r}: the input {name!r} is not connected and has no default",
                where=op.where,
                remedy=f"pass {name!r} where {op.name!r} is called, or give this parameter a default",
            )


def _config(op: OpDefinition, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values.get(name, default) for name, default in op.config.items()}


def _output(op: OpDefinition, name: str, key: str, asset_key: AssetKey | None) -> PlanOutput:
    declared = op.outs[name]
    return PlanOutput(name, key, asset_key, has_value=not is_nothing(declared.dagster_type), required=declared.is_required)

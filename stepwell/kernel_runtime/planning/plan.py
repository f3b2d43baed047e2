"""The plan as data: steps in an order in which they can run, and what each takes and gives.

A value is known by one string everywhere, its *value key*: the asset key for what is an asset, else the step key (with
``:output`` where a step has several). An input names value keys; whichever step of the plan gives them must come first, and
what no step gives is read from the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stepwell.kernel_runtime.definitions.declarations import UNSET
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.records.bulk import quick
from stepwell.kernel_runtime.records.code_versions import CodeVersion
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.records.runs import RunKind


@quick
@dataclass(frozen=True, slots=True)
class PlanInput:
    """One input of a step."""

    name: str
    """The parameter; empty for an input that only orders."""
    keys: tuple[str, ...]
    """Value keys; several only in a fan-in. Empty where the default is taken."""
    fan_in: bool = False
    carries_value: bool = True
    default: Any = UNSET
    declared: bool = True
    """False for an asset that a helper reads by its name."""


@quick
@dataclass(frozen=True, slots=True)
class PlanOutput:
    """One output of a step."""

    name: str
    key: str
    """The value key."""
    asset_key: AssetKey | None
    stored: bool
    """Whether a value passes; not for `Nothing`."""
    required: bool


@dataclass(slots=True, eq=False)
class PlanStep:
    """One executable node."""

    key: str
    """Unique in the plan, and for steps of assets in the store."""
    op: OpDefinition
    inputs: tuple[PlanInput, ...]
    outputs: tuple[PlanOutput, ...]
    config: dict[str, Any]
    memoised: bool
    notebook: str
    """The notebook or module that defined it."""
    where: str = ""
    group: str = "default"
    isolate: bool = True
    code: CodeVersion | None = None
    """None for a step that is not memoised."""
    address: str = ""
    """Its key in the store: with the job's name before it for a job's step."""

    input_keys: tuple[str, ...] = field(init=False)
    """Value keys of everything that must come first."""

    def __post_init__(self) -> None:
        inputs = self.inputs
        self.input_keys = inputs[0].keys if len(inputs) == 1 else tuple([key for given in inputs for key in given.keys])

    def add_inputs(self, inputs: tuple[PlanInput, ...]) -> None:
        """Add inputs that were found later than the others."""
        self.inputs = (*self.inputs, *inputs)
        self.input_keys = tuple(key for given in self.inputs for key in given.keys)

    def copy(self, notebook: str) -> PlanStep:
        """Return a step of its own for another plan."""
        new = object.__new__(PlanStep)
        new.key, new.op, new.inputs, new.outputs, new.config = self.key, self.op, self.inputs, self.outputs, self.config
        new.memoised, new.notebook, new.where, new.group = self.memoised, notebook, self.where, self.group
        new.isolate, new.code, new.address, new.input_keys = self.isolate, None, self.address, self.input_keys
        return new


@dataclass(slots=True)
class Plan:
    """Steps in an order in which they can run."""

    kind: RunKind
    targets: tuple[str, ...]
    """What was asked for: keys as written, or the job's name."""
    steps: tuple[PlanStep, ...]
    producers: dict[str, PlanStep] = field(default_factory=dict)
    """For each value key the step that gives it."""
    read: tuple[str, ...] = ()
    """Value keys that are read from the store."""
    absent: frozenset[str] = frozenset()
    """Value keys among them that are known not to have been produced: what takes them is skipped."""
    target_steps: frozenset[str] = frozenset()
    """Keys of the steps that were asked for; the others are their upstream."""

    def step(self, key: str) -> PlanStep | None:
        """Return a step by its key."""
        return next((step for step in self.steps if step.key == key), None)


def _can_run(steps: list[PlanStep], producers: dict[str, PlanStep]) -> bool:
    """Tell whether each step comes after every step whose values it takes, as notebooks are mostly written."""
    given: set[str] = set()
    for step in steps:
        for key in step.input_keys:
            if key not in given and key in producers:
                return False
        for output in step.outputs:
            given.add(output.key)
    return True


def order_steps(steps: list[PlanStep]) -> tuple[list[PlanStep], list[str]]:
    """Return the steps in an order in which they can run, and the keys of a cycle if there is one.

    Independent steps keep their order; linear in steps and inputs, and without recursion.
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

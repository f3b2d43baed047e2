"""What a body returned or yielded, to the outputs that its op declared (SEMANTICS, section 2, Step outcomes)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.declarations import Output
from stepwell.kernel_runtime.errors import InvariantViolationError, StepOutputNotFoundError, TypeCheckError
from stepwell.kernel_runtime.planning.plan import PlanOutput, PlanStep


@dataclass(slots=True)
class Produced:
    """One output that a body produced."""

    output: PlanOutput
    value: Any
    metadata: dict[str, Any] = field(default_factory=dict)


class Collector:
    """Takes outputs as they come and checks them against the declaration.

    Attributes
    ----------
    produced
        By output name; also after a failure, since what was yielded before stays.
    """

    def __init__(self, step: PlanStep) -> None:
        self.step = step
        self.declared = {output.name: output for output in step.outputs}
        self.produced: dict[str, Produced] = {}

    def add(self, name: str, value: Any, metadata: dict[str, Any] | None = None) -> None:
        """Take one output.

        Raises
        ------
        InvariantViolationError
            For an output that is not declared or comes twice.
        TypeCheckError
            For a value that is not of the output's type.
        """
        step = self.step
        output = self.declared.get(name)
        if output is None:
            raise InvariantViolationError(
                f"step {step.key!r} produced the output {name!r}, which it does not declare",
                where=step.where,
                remedy=f"declared are: {', '.join(self.declared) or 'none'}",
            )
        if name in self.produced:
            raise InvariantViolationError(f"step {step.key!r} produced the output {name!r} twice", where=step.where)
        if output.stored:
            step.op.check_output(name, value, step.key)
        elif value is not None:
            raise TypeCheckError(
                f"step {step.key!r}: the output {name!r} is Nothing but has a {type(value).__name__}",
                where=step.where,
                remedy="return None, or declare a type",
            )
        self.produced[name] = Produced(output, value, metadata or {})

    def returned(self, value: Any) -> None:
        """Take what a body returned.

        Raises
        ------
        InvariantViolationError
            If it is not one value per output.
        """
        step, names = self.step, list(self.declared)
        if isinstance(value, Output):
            self._output(value)
        elif not names:
            if value is not None:
                raise InvariantViolationError(
                    f"step {step.key!r} has no outputs but returned a {type(value).__name__}", where=step.where
                )
        elif len(names) == 1:
            self.add(names[0], value)
        elif isinstance(value, tuple) and len(value) == len(names):
            for name, member in zip(names, value, strict=True):
                if isinstance(member, Output):
                    self.add(name, member.value, dict(member.metadata))
                else:
                    self.add(name, member)
        elif value is not None or isinstance(step.op.body, CellBody):
            shown = f"{len(value)} values" if isinstance(value, tuple) else f"a {type(value).__name__}"
            raise InvariantViolationError(
                f"step {step.key!r} returned {shown} for its {len(names)} outputs",
                where=step.where,
                remedy=f"return a tuple of {len(names)}: {', '.join(names)}",
            )

    def _output(self, value: Output[Any]) -> None:
        name = value.output_name
        if name == "result" and name not in self.declared and len(self.declared) == 1:
            name = next(iter(self.declared))
        self.add(name, value.value, dict(value.metadata))

    def yielded(self, value: Any) -> None:
        """Take one thing that a generator yielded.

        Raises
        ------
        InvariantViolationError
            For something that is no `Output`.
        """
        if not isinstance(value, Output):
            raise InvariantViolationError(
                f"step {self.step.key!r} yielded a {type(value).__name__}",
                where=self.step.where,
                remedy="yield Output(value, output_name=...); a generator that is returned counts as one that yields: return list(...) of it to keep its items",
            )
        self._output(value)

    def finish(self) -> None:
        """Check that every required output is there; one that carries no value is produced for the body.

        Raises
        ------
        StepOutputNotFoundError
            If a required output was not produced.
        """
        for name, output in self.declared.items():
            if name in self.produced or not output.required:
                continue
            if not output.stored:
                self.produced[name] = Produced(output, None)
                continue
            raise StepOutputNotFoundError(
                f"step {self.step.key!r} did not produce its output {name!r}",
                where=self.step.where,
                remedy="produce it on every path, or declare it with is_required=False",
            )

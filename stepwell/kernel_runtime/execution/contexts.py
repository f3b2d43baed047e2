"""What a step's body sees of its run (``context``), and how its returned or yielded values become its declared outputs (SEMANTICS, section 2, Step outcomes)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.declarations import Output
from stepwell.kernel_runtime.errors import (
    InvariantViolationError,
    StepOutputNotFoundError,
    StepwellError,
    TypeCheckError,
)
from stepwell.kernel_runtime.execution.result import user_object_error
from stepwell.kernel_runtime.planning.plan import PlanOutput, PlanStep
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.records.runs import LogRecord
from stepwell.kernel_runtime.store.values.structure import type_name


class _Handler(logging.Handler):
    def __init__(self, emit: Callable[[LogRecord], None], run_id: str, step_key: str) -> None:
        super().__init__()
        self._emit = emit
        self._run_id = run_id
        self._step_key = step_key

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        self._emit(LogRecord(self._run_id, self._step_key, time.time(), record.levelname, message))


class OpExecutionContext:
    """What an op's function is given as its parameter ``context``."""

    __stepwell_context__ = True

    def __init__(self, step: PlanStep, run_id: str, job_name: str, emit: Callable[[LogRecord], None]) -> None:
        self._step = step
        self._emit = emit
        self._log: logging.Logger | None = None
        self.run_id = run_id
        self.job_name = job_name
        self.retry_number = 0
        self.output_metadata: dict[str, dict[str, Any]] = {}

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines are kept with the run: ``%stepwell logs`` shows them."""
        if self._log is None:
            # Not registered by name: thousands of steps would fill logging's table.
            logger = logging.Logger(f"stepwell.{self._step.key}", logging.DEBUG)  # noqa: LOG001 - see above
            logger.addHandler(_Handler(self._emit, self.run_id, self._step.key))
            self._log = logger
        return self._log

    @property
    def step_key(self) -> str:
        """The key of the step that runs."""
        return self._step.key

    @property
    def op_name(self) -> str:
        """The name of the op."""
        return self._step.op.name

    @property
    def op(self) -> Any:
        """The op's definition."""
        return self._step.op

    @property
    def op_config(self) -> dict[str, Any]:
        """The op's config with its defaults."""
        return dict(self._step.config)

    @property
    def selected_output_names(self) -> set[str]:
        """Names of the outputs that are asked for: all of them."""
        return {output.name for output in self._step.outputs}

    def add_output_metadata(self, metadata: Mapping[str, Any], output_name: str | None = None) -> None:
        """Attach JSON values to the materialization of an output; the only one if there is one.

        Raises
        ------
        InvariantViolationError
            If the step has no such output, or several and none is named.
        """
        names = [output.name for output in self._step.outputs]
        if output_name is None and len(names) == 1:
            output_name = names[0]
        if output_name not in names:
            raise InvariantViolationError(
                f"step {self._step.key!r} adds metadata to {output_name or 'an output without a name'}",
                where=self._step.where,
                remedy=f"output_name= is one of: {', '.join(names) or 'none'}",
            )
        self.output_metadata.setdefault(output_name, {}).update(metadata)


class AssetExecutionContext(OpExecutionContext):
    """What an asset's function is given as its parameter ``context``."""

    @property
    def asset_key(self) -> AssetKey:
        """The key of the asset; the first of several."""
        return next(output.asset_key for output in self._step.outputs if output.asset_key is not None)

    @property
    def selected_asset_keys(self) -> set[AssetKey]:
        """Keys of the assets that are asked for."""
        return {output.asset_key for output in self._step.outputs if output.asset_key is not None}

    def asset_key_for_output(self, output_name: str = "result") -> AssetKey | None:
        """Return the key of the asset that an output is, or None."""
        return next((output.asset_key for output in self._step.outputs if output.name == output_name), None)

    add_asset_metadata = OpExecutionContext.add_output_metadata


def context_for(step: PlanStep, run_id: str, job_name: str, emit: Callable[[LogRecord], None]) -> OpExecutionContext:
    """Return the context of a step: an asset's or an op's."""
    kind = (
        AssetExecutionContext
        if any(output.asset_key is not None for output in step.outputs) and not job_name
        else OpExecutionContext
    )
    return kind(step, run_id, job_name or "__ephemeral_asset_job__", emit)


T = TypeVar("T")


def plain_metadata(step: PlanStep, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON values; what is none is kept as its text, and what is too much is cut off, with a mark.

    Raises
    ------
    UserObjectError
        If one of them raises when it is asked for its text.
    """
    left = _MOST

    def bounded(text: str) -> str:
        nonlocal left
        room, left = max(left, 0), left - len(text)
        return text if len(text) <= room else f"{text[:room]}… ({len(text):,} characters)"

    def text(value: Any) -> str:
        found = str(value)
        return found if type(found) is str else str.__str__(found)

    def while_room(members: Iterator[T]) -> Iterator[T]:
        for member in members:
            yield member
            if left < 0:
                return

    def plain(value: Any, depth: int = 0) -> Any:
        nonlocal left
        kind = type(value)
        left -= 1
        if left < 0:
            return "…"
        if value is None or kind in {bool, float}:
            return value
        if issubclass(kind, str):
            return bounded(str.__str__(value))
        if issubclass(kind, int):
            number = int.__int__(value)
            # Python prints, and JSON keeps, no number of any length.
            return number if number.bit_length() <= _MOST_BITS else f"an integer of {number.bit_length():,} bits"
        if issubclass(kind, float):
            return float.__float__(value)
        if depth < _DEEPEST and issubclass(kind, Mapping):
            return dict(while_room((bounded(text(key)), plain(member, depth + 1)) for key, member in value.items()))
        if depth < _DEEPEST and issubclass(kind, list | tuple | set | frozenset):
            return list(while_room(plain(member, depth + 1) for member in value))
        return bounded(text(value))

    found = {}
    for name, value in metadata.items():
        try:
            found[text(name)[:_LONGEST_NAME]] = plain(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            shown = name if type(name) is str else type_name(name)
            raise user_object_error(step, f"its metadata {shown!r}", error) from error
    return found


_DEEPEST = 50
"""Levels of metadata that are kept as JSON; it may hold itself."""
_MOST = 1 << 18
"""Characters and members of a step's metadata that are kept: all are searched for secrets."""
_LONGEST_NAME = 1000
_MOST_BITS = 10_000


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
        self.last: Any = None
        """The value of a cell's last expression, if the shell keeps it and the expression is not just a variable."""

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
            try:
                step.op.check_output(name, value, step.key)
            except (StepwellError, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise user_object_error(step, f"the check of the output {name!r}", error) from error
        elif value is not None:
            raise TypeCheckError(
                f"step {step.key!r}: the output {name!r} is Nothing but has a {type_name(value)}",
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
        if issubclass(type(value), Output):
            self._output(value)
        elif not names:
            if value is not None:
                raise InvariantViolationError(
                    f"step {step.key!r} has no outputs but returned a {type_name(value)}", where=step.where
                )
        elif len(names) == 1:
            self.add(names[0], value)
        elif issubclass(type(value), tuple) and len(value) == len(names):
            for name, member in zip(names, value, strict=True):
                if issubclass(type(member), Output):
                    self.add(name, member.value, dict(member.metadata))
                else:
                    self.add(name, member)
        elif value is not None or isinstance(step.op.body, CellBody):
            shown = f"{len(value)} values" if issubclass(type(value), tuple) else f"a {type_name(value)}"
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
        if not issubclass(type(value), Output):
            raise InvariantViolationError(
                f"step {self.step.key!r} yielded a {type_name(value)}",
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

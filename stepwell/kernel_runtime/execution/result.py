"""The outputs of a step, the result of a run, and tracebacks without Stepwell's frames.

`Collector` receives the values that a body returns or yields, and checks that they are the declared outputs. `RunResult` is what
``materialize`` and the other functions that run steps return.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from stepwell.kernel_runtime.definitions.bodies import CellBody, place
from stepwell.kernel_runtime.definitions.declarations import Output
from stepwell.kernel_runtime.errors import (
    InvariantViolationError,
    StepOutputNotFoundError,
    StepwellError,
    TypeCheckError,
    UnknownKeyError,
    UserObjectError,
    ValueUnavailableError,
    unknown_key,
)
from stepwell.kernel_runtime.planning.plan import PlanOutput, PlanStep
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.runs import ErrorRecord, Notice, RunRecord, StepRecord
from stepwell.kernel_runtime.store.values.structure import name_parts, type_name
from stepwell.kernel_runtime.versions.secrets import hidden_message

T = TypeVar("T")


def plain_metadata(step: PlanStep, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an output as JSON values.

    Values of other types are converted with `str`. Long metadata is shortened, and an ellipsis shows where.

    Raises
    ------
    UserObjectError
        If the conversion of a name or value raises an exception.
    """
    plain = _PlainMetadata()
    plain_values = {}
    for name, value in metadata.items():
        try:
            plain_values[_own_text(name)[:_LONGEST_NAME]] = plain.value(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            shown = name if type(name) is str else type_name(name)
            raise user_object_error(step, f"the metadata {shown!r}", error) from error
    return plain_values


_DEEPEST = 50
"""The maximum depth to which containers in metadata are kept as JSON. Without a limit, a container that contains itself would never end."""
_MOST = 1 << 18
"""The maximum number of characters and members that are kept of an output's metadata. All that is kept is searched for secrets, which takes time."""
_LONGEST_NAME = 1000
_MOST_BITS = 10_000


class _PlainMetadata:
    """Converts the values of one output's metadata to JSON values, up to `_MOST` characters and members in total."""

    def __init__(self) -> None:
        self.items_left = _MOST

    def value(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        self.items_left -= 1
        if self.items_left < 0:
            return "…"
        if value is None or kind in {bool, float}:
            return value
        if issubclass(kind, str):
            return self._bounded(str.__str__(value))
        if issubclass(kind, int):
            number = int.__int__(value)
            # Python raises an error if an integer with too many digits is converted to a string.
            return number if number.bit_length() <= _MOST_BITS else f"an integer of {number.bit_length():,} bits"
        if issubclass(kind, float):
            return float.__float__(value)
        if depth < _DEEPEST and issubclass(kind, Mapping):
            return {
                self._bounded(_own_text(key)): self.value(member, depth + 1) for key, member in self._while_room(value.items())
            }
        if depth < _DEEPEST and issubclass(kind, list | tuple | set | frozenset):
            return [self.value(member, depth + 1) for member in self._while_room(value)]
        return self._bounded(_own_text(value))

    def _bounded(self, text: str) -> str:
        room, self.items_left = max(self.items_left, 0), self.items_left - len(text)
        return text if len(text) <= room else f"{text[:room]}… ({len(text):,} characters)"

    def _while_room(self, members: Iterable[T]) -> Iterator[T]:
        """Yield the members of a container until the metadata exceeds the limit `_MOST`."""
        for member in members:
            yield member
            if self.items_left < 0:
                return


def _own_text(value: Any) -> str:
    """Return the string form of an object as a plain `str`, even if its ``__str__`` returns an instance of a subclass of `str`."""
    text = str(value)
    return text if type(text) is str else str.__str__(text)


@dataclass(slots=True)
class Produced:
    """One output that a body produced."""

    output: PlanOutput
    value: Any
    metadata: dict[str, Any] = field(default_factory=dict)


class Collector:
    """Receives the outputs of a step's body, and checks that the step declares them.

    Attributes
    ----------
    declared_outputs
        The outputs that the step declares, by name.
    produced
        The outputs that the body has produced so far, by name.
    """

    def __init__(self, step: PlanStep) -> None:
        self.step = step
        self.declared_outputs = {output.name: output for output in step.outputs}
        self.produced: dict[str, Produced] = {}
        self.last_value: Any = None
        """The value of a cell's last expression, if the shell keeps this value in ``Out``. None if ``Out`` gets the value of a variable instead, or
        nothing."""

    def add(self, name: str, value: Any, metadata: dict[str, Any] | None = None) -> None:
        """Add one output that the body produced.

        Raises
        ------
        InvariantViolationError
            If the step does not declare an output of this name, or if the body has already produced this output.
        TypeCheckError
            If the value does not have the declared type of the output.
        UserObjectError
            If the type check runs code of the user, and this code raises an exception.
        """
        step = self.step
        output = self.declared_outputs.get(name)
        if output is None:
            raise InvariantViolationError(
                f"step {step.key!r} produced the output {name!r}, which is not declared",
                where=step.where,
                remedy=f"declare the output, or produce only declared outputs ({', '.join(self.declared_outputs) or 'the step has none'})",
            )
        if name in self.produced:
            raise InvariantViolationError(
                f"step {step.key!r} produced the output {name!r} twice",
                where=step.where,
                remedy="produce each output once",
            )
        if output.has_value:
            try:
                step.op.check_output(name, value, step.key)
            except (StepwellError, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise user_object_error(step, f"the type check of the output {name!r}", error) from error
        elif value is not None:
            raise TypeCheckError(
                f"step {step.key!r} produced a value of type {type_name(value)} for the output {name!r}, whose type is Nothing",
                where=step.where,
                remedy="return None, or declare the type of the value",
            )
        self.produced[name] = Produced(output, value, metadata or {})

    def add_returned(self, value: Any) -> None:
        """Add the outputs that a body returned: the value of the only output, an `Output`, or a tuple with one value for each output.

        Raises
        ------
        InvariantViolationError
            If the return value does not have one value for each output. A function with several outputs may return None; this adds no output.
        """
        step, names = self.step, list(self.declared_outputs)
        if issubclass(type(value), Output):
            self._output(value)
        elif not names:
            if value is not None:
                raise InvariantViolationError(
                    f"step {step.key!r} returned a value of type {type_name(value)}, but it declares no outputs",
                    where=step.where,
                    remedy="return None, or declare an output",
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
            shown = f"{len(value)} values" if issubclass(type(value), tuple) else f"a value of type {type_name(value)}"
            raise InvariantViolationError(
                f"step {step.key!r} returned {shown}, but it declares {len(names)} outputs",
                where=step.where,
                remedy=f"return a tuple with a value for each output: {', '.join(names)}",
            )

    def _output(self, value: Output[Any]) -> None:
        name = value.output_name
        if name == "result" and name not in self.declared_outputs and len(self.declared_outputs) == 1:
            name = next(iter(self.declared_outputs))
        self.add(name, value.value, dict(value.metadata))

    def yielded(self, value: Any) -> None:
        """Add an output that a generator yielded.

        Raises
        ------
        InvariantViolationError
            If the yielded object is not an `Output`.
        """
        if not issubclass(type(value), Output):
            raise InvariantViolationError(
                f"step {self.step.key!r} yielded a value of type {type_name(value)}, not an Output",
                where=self.step.where,
                remedy="yield Output(value, output_name=...); to store the items of a generator as a list, return list(generator)",
            )
        self._output(value)

    def finish(self) -> None:
        """Check that the body has produced every required output. An output of type Nothing need not be produced; it is added here.

        Raises
        ------
        StepOutputNotFoundError
            If the body has not produced a required output.
        """
        for name, output in self.declared_outputs.items():
            if name in self.produced or not output.required:
                continue
            if not output.has_value:
                self.produced[name] = Produced(output, None)
                continue
            raise StepOutputNotFoundError(
                f"step {self.step.key!r} did not produce its output {name!r}",
                where=self.step.where,
                remedy=f"produce {name!r} on every path, or declare this output with is_required=False",
            )


_TRACEBACK = BaseException.__dict__["__traceback__"].__get__
_PACKAGE = str(Path(__file__).resolve().parents[2])


def user_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without Stepwell's frames at its beginning; the whole traceback if all frames are Stepwell's."""
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.tb_next
    return frame or trace


def is_interrupt(error: BaseException | None) -> bool:
    """Return True if the type of an exception is KeyboardInterrupt or a subclass, whatever its ``__class__`` says; False for None."""
    return issubclass(type(error), KeyboardInterrupt)


def user_object_error(step: PlanStep, doing: str, error: BaseException) -> UserObjectError:
    """Return the error for a step that fails because an object of the user raised an exception outside the step's body.

    Parameters
    ----------
    doing
        The object or the operation that raised the exception; the subject of the message.
    """
    return UserObjectError(
        f"step {step.key!r} failed: {doing} raised {name_parts(type(error))[1]}",
        where="\n".join(part for part in (step.where, _text(error)) if part),
        remedy="correct the special methods of the class of this object (__repr__, __eq__, __reduce__, ...), or return plain data",
    )


def _text(error: BaseException) -> str:
    """Return the message of an exception; if its ``__str__`` fails, return a note that says so."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "<the message of the exception cannot be read>"
    # A lone surrogate cannot be encoded in UTF-8 for the catalog.
    return text[:10_000].encode("utf-8", "backslashreplace").decode()


def error_record(error: BaseException, look: Callable[[Callable[[], ErrorRecord]], ErrorRecord]) -> ErrorRecord:
    """Return the record of an exception.

    Parameters
    ----------
    look
        Calls a function that examines the exception, and returns its result. An interrupt can end the call.
    """
    try:
        return look(lambda: _record(error))
    except BaseException:
        # The exception cannot be converted to a string, or the conversion was interrupted.
        name = name_parts(type(error))[1].encode("utf-8", "backslashreplace").decode()
        return ErrorRecord(name, "<the message of the exception cannot be read>", "", "")


def _record(error: BaseException) -> ErrorRecord:
    trace = user_traceback(_TRACEBACK(error))
    where = ""
    walk = trace
    while walk is not None:
        code = walk.tb_frame.f_code
        if not code.co_filename.startswith(_PACKAGE) and "site-packages" not in code.co_filename:
            where = place(code.co_filename, walk.tb_lineno)
        walk = walk.tb_next
    message = _text(error)
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))[:100_000]
    except KeyboardInterrupt:
        raise
    except BaseException:
        lines = ""
    lines = lines.encode("utf-8", "backslashreplace").decode()
    name = name_parts(type(error))[1].encode("utf-8", "backslashreplace").decode()
    return ErrorRecord(name, hidden_message(message), hidden_message(lines), where)


def _not_in_run(kind: str, key: str, known: Iterable[str]) -> UnknownKeyError:
    return UnknownKeyError(f"this run has no {kind} {key!r}", remedy=unknown_key(kind, key, known).remedy)


class RunResult:
    """One run: its record, its steps, and the values that it computed or reused.

    Attributes
    ----------
    run
        The run's record.
    steps
        The records of the steps, in execution order. Each has a ``key`` and a ``status``.
    error
        The first exception of a step; None if no step failed.
    interrupt
        The KeyboardInterrupt that ended a step; None if no step was interrupted.
    notices
        The notices of the run for the user.
    """

    def __init__(
        self,
        run: RunRecord,
        steps: tuple[StepRecord, ...],
        *,
        error: BaseException | None,
        interrupt: BaseException | None = None,
        load: Callable[[Materialization], Any],
        values: dict[str, Materialization],
        memory: dict[str, Any],
        notices: tuple[Notice, ...] = (),
    ) -> None:
        self.run = run
        self.steps = steps
        self.error = error
        self.interrupt = interrupt
        self.notices = notices
        self._load = load
        self._values = values
        self._memory = memory

    @property
    def run_id(self) -> str:
        """The identifier of the run. `stepwell.resume` accepts it."""
        return self.run.run_id

    @property
    def status(self) -> str:
        """The status of the run: ``success``, ``failure`` or ``cancelled``."""
        return self.run.status

    @property
    def success(self) -> bool:
        """True if the run ended with every step executed, reused or skipped."""
        return self.run.status == "success"

    def step(self, key: str) -> StepRecord:
        """Return the record of a step.

        Parameters
        ----------
        key
            The key of the step. In the run of a job, the name of the job may precede it: ``job.step``.

        Raises
        ------
        UnknownKeyError
            If the run has no step with this key.
        """
        job = f"{self.run.targets[0]}." if self.run.kind == "job" else ""
        for step in self.steps:
            if key in {step.key, f"{job}{step.key}"}:
                return step
        raise _not_in_run("step", key, [step.key for step in self.steps])

    def materialization(self, key: str) -> Materialization:
        """Return a materialization that the run made or reused.

        Parameters
        ----------
        key
            The key of an asset, of a value inside a graph or job, or of a step with only one output.

        Raises
        ------
        UnknownKeyError
            If the run neither made nor reused a materialization of this key.
        """
        item = self._values.get(key)
        if item is None:
            for step in self.steps:
                if (
                    key in (step.key, f"{self.run.targets[0]}.{step.key}" if self.run.kind == "job" else step.key)
                    and len(step.materializations) == 1
                ):
                    return step.materializations[0]
            raise _not_in_run("value", key, self._values)
        return item

    def value(self, key: str) -> Any:
        """Return a value that the run computed or reused.

        The result is a new object, loaded from the store. In the run of a job it may be the object that the step returned.

        Parameters
        ----------
        key
            The key of an asset, of a value inside a graph or job, or of a step with only one output.

        Raises
        ------
        UnknownKeyError
            If the run has no value with this key.
        ValueUnavailableError
            If the value is not stored, or cannot be loaded.
        """
        if self.run.kind == "job":
            for name in (key, f"{self.run.targets[0]}.{key}"):
                if name in self._memory:
                    return self._memory[name]
        item = self.materialization(key)
        if item.value is None:
            raise ValueUnavailableError(f"{key!r} has no stored value: the output is Nothing or could not be stored")
        return self._load(item)

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for step in self.steps:
            counts[step.status] = counts.get(step.status, 0) + 1
        # The identifier of a successful run is omitted, so that repeated executions of a notebook have equal outputs.
        name = "run" if self.success else f"run {self.run_id}"
        return f"<{name}: {self.status}; {', '.join(f'{n} {status}' for status, n in counts.items()) or 'no steps'}>"

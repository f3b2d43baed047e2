"""The result of a run; and exceptions of the user's code, without frames of Stepwell."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import place
from stepwell.kernel_runtime.errors import UserObjectError, ValueUnavailableError, unknown_key
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.records.events import Notice
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.runs import ErrorRecord, RunRecord, StepRecord
from stepwell.kernel_runtime.store.values.structure import name_parts
from stepwell.kernel_runtime.versions.secrets import hidden_message

_TRACEBACK = BaseException.__dict__["__traceback__"].__get__
_PACKAGE = str(Path(__file__).resolve().parents[2])


def user_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from its first frame that is not ours; the whole one if all are."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        found = found.tb_next
    return found or trace


def is_interrupt(error: BaseException | None) -> bool:
    """Return whether an exception is a KeyboardInterrupt, whatever it says that it is."""
    return issubclass(type(error), KeyboardInterrupt)


def user_object_error(step: PlanStep, doing: str, error: BaseException) -> UserObjectError:
    """Return the error of a step with an object that raised while something was done with it."""
    return UserObjectError(
        f"step {step.key!r} failed: {doing} raised {name_parts(type(error))[1]}",
        where="\n".join(part for part in (step.where, _text(error)) if part),
        remedy="mend the special methods of its class (__repr__, __eq__, __reduce__, ...), or return plain data",
    )


def _text(error: BaseException) -> str:
    """Return the message of an exception; its class may raise anything when it is asked for it."""
    try:
        found = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "<its message cannot be read>"
    # A lone surrogate has no UTF-8, which is what the catalog keeps.
    return found[:10_000].encode("utf-8", "backslashreplace").decode()


def error_record(error: BaseException, look: Callable[[Callable[[], ErrorRecord]], ErrorRecord]) -> ErrorRecord:
    """Return what can be kept of an exception.

    Parameters
    ----------
    look
        Calls what looks at it, so that an interrupt ends what takes for ever.
    """
    try:
        return look(lambda: _record(error))
    except BaseException:
        # It shows itself by raising, or it was interrupted.
        name = name_parts(type(error))[1].encode("utf-8", "backslashreplace").decode()
        return ErrorRecord(name, "<its message cannot be read>", "", "")


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


class RunResult:
    """One run: its record, its steps and the values that it made or reused.

    Attributes
    ----------
    run
        The run's record.
    steps
        One record per step of the plan, in the order in which they could run; ``.key`` and ``.status``.
    error
        The first exception of the user's code, or None.
    interrupt
        The KeyboardInterrupt that ended a step, with its traceback, or None.
    notices
        Lines for a reader: what was read from the store.
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
        """The run's identifier: what `stepwell.resume` takes."""
        return self.run.run_id

    @property
    def status(self) -> str:
        """``success``, ``failure`` or ``cancelled``."""
        return self.run.status

    @property
    def success(self) -> bool:
        """Whether every step was executed, reused or skipped."""
        return self.run.status == "success"

    def step(self, key: str) -> StepRecord:
        """Return a step's record.

        Raises
        ------
        UnknownKeyError
            If the run had no such step.
        """
        for step in self.steps:
            if step.key == key or f"{self.run.targets[0]}.{step.key}" == key:
                return step
        raise unknown_key("step of this run", key, [step.key for step in self.steps])

    def materialization(self, key: str) -> Materialization:
        """Return the materialization that a key has in this run: an asset's, or a step's only output.

        Raises
        ------
        UnknownKeyError
            If the run has none.
        """
        found = self._values.get(key)
        if found is None:
            for step in self.steps:
                if (
                    key in (step.key, f"{self.run.targets[0]}.{step.key}" if self.run.kind == "job" else step.key)
                    and len(step.materializations) == 1
                ):
                    return step.materializations[0]
            raise unknown_key("value of this run", key, self._values)
        return found

    def value(self, key: str) -> Any:
        """Return a value that the run made or reused: for an asset an own copy, for a job's step the object itself.

        Raises
        ------
        UnknownKeyError
            If the run has no such value.
        ValueUnavailableError
            If it cannot be loaded.
        """
        if self.run.kind == "job":
            for name in (key, f"{self.run.targets[0]}.{key}"):
                if name in self._memory:
                    return self._memory[name]
        found = self.materialization(key)
        if found.value is None:
            raise ValueUnavailableError(
                f"{key!r} has no stored value", remedy="its output is Nothing, or could not be kept"
            )
        return self._load(found)

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for step in self.steps:
            counts[step.status] = counts.get(step.status, 0) + 1
        # Without the identifier of a run that succeeded, so that executed notebooks differ in nothing.
        name = "run" if self.success else f"run {self.run_id}"
        return f"<{name}: {self.status}; {', '.join(f'{n} {status}' for status, n in counts.items()) or 'no steps'}>"

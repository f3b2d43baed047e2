"""What a run gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.kernel_runtime.errors import ValueUnavailableError, unknown_key
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord


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
    notes
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
        notes: tuple[str, ...] = (),
    ) -> None:
        self.run = run
        self.steps = steps
        self.error = error
        self.interrupt = interrupt
        self.notes = notes
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

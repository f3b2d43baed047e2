"""The records of one run: built as steps end, handed to the store, published when committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.execution.in_process import Outcome
from stepwell.kernel_runtime.execution.result import error_record
from stepwell.kernel_runtime.planning.memo import Known
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.records.code_versions import CodeVersion
from stepwell.kernel_runtime.records.effects import ELSEWHERE, Effects
from stepwell.kernel_runtime.records.events import (
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
    StepLogged,
    StepStarted,
    StepWaiting,
)
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Current, InputVersion, Materialization, StoredValue
from stepwell.kernel_runtime.records.protocols import Commit, ValueStore
from stepwell.kernel_runtime.records.runs import Claimant, ErrorRecord, LogRecord, RunRecord, RunStatus, StepRecord
from stepwell.kernel_runtime.store.locks import Once
from stepwell.kernel_runtime.versions.secrets import hidden_message, hidden_values

Publish = Callable[[Event], None]


class Bookkeeping:
    """Keeps the records of one run.

    Attributes
    ----------
    steps
        One record per step that ended, by key.
    """

    def __init__(self, run: RunRecord, store: ValueStore, publish: Publish, known: Known) -> None:
        self.run = run
        self.store = store
        self.publish = publish
        self.known = known
        self.steps: dict[str, StepRecord] = {}
        self._commits: list[Commit] = []
        self._logs: list[LogRecord] = []
        self._failure: BaseException | None = None
        self._shown: tuple[BaseException, ErrorRecord] | None = None
        self.look: Callable[[Callable[[], ErrorRecord]], ErrorRecord] = lambda function: function()

    def _error_record(self, error: BaseException) -> ErrorRecord:
        """Return what is kept of an exception; it is asked once only."""
        if self._shown is None or self._shown[0] is not error:
            self._shown = error, error_record(error, self.look)
        return self._shown[1]

    def begin(self, steps: Sequence[PlanStep]) -> None:
        """Record that the run starts."""
        self._commits.append(self.store.begin_run(self.run))
        self.publish(RunStarted(self.run, tuple(step.key for step in steps)))

    def log(self, record: LogRecord) -> None:
        """Take a line that a step logged."""
        record = replace(record, message=hidden_message(record.message))
        self._logs.append(record)
        self.publish(StepLogged(record))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back, on any thread, when everything recorded so far is committed or has failed to be."""
        self._commits[-1].then(lambda _: callback())

    def waiting(self, step: PlanStep, position: int, total: int, claimant: Claimant) -> None:
        """Tell that a step waits for another process that computes the same."""
        seconds = self.known.snapshot.seconds.get(step.address)
        self.publish(StepWaiting(self.run.run_id, step.key, position, total, claimant, seconds))

    def started(self, step: PlanStep, position: int, total: int) -> None:
        """Tell that a step's body begins."""
        self.publish(
            StepStarted(self.run.run_id, step.key, position, total, self.known.snapshot.seconds.get(step.address))
        )

    def executed(
        self,
        step: PlanStep,
        outcome: Outcome,
        memo: str,
        inputs: tuple[InputVersion, ...],
        stored: Mapping[str, tuple[StoredValue | None, str]],
        *,
        started: float,
        code: CodeVersion | None,
        not_kept: tuple[str, ...] = (),
        effects: Effects | None = None,
        reason: str = "",
    ) -> tuple[Materialization, ...]:
        """Record a step that ran to its end.

        Parameters
        ----------
        stored
            By output name, where the value is (None where none passes, or it was not kept) and its data version.
        code
            The code version with its parts; None for a step that is not memoised.
        effects
            What a cell did beside giving its values: recorded with the last output.
        reason
            Why it ran, where no difference to an earlier run tells.
        """
        made = self._materializations(step, outcome, memo=memo, inputs=inputs, stored=stored, code=code)
        if effects:
            last = replace(made[-1], effects=effects.as_text())
            last = replace(last, record_signature=self.store.sign_record(last))
            # Where that record is missing, as in a pack of the value alone, the value must not be reused for the step.
            made = (*[replace(item, effects=ELSEWHERE) for item in made[:-1]], last)
        record = StepRecord(
            self.run.run_id,
            step.key,
            "executed",
            started,
            outcome.seconds,
            memo,
            made,
            reason=reason,
            not_kept=not_kept,
        )
        self._record(record, step, made, code=code, outputs=outcome.outputs)
        return made

    def failed(
        self,
        step: PlanStep,
        error: BaseException,
        memo: str,
        inputs: tuple[InputVersion, ...] = (),
        *,
        started: float,
        outcome: Outcome | None = None,
        stored: Mapping[str, tuple[StoredValue | None, str]] | None = None,
        code: CodeVersion | None = None,
        cancelled: bool = False,
    ) -> None:
        """Record a step that failed or was interrupted; what it yielded before stays, under no memo key."""
        made = (
            self._materializations(step, outcome, memo="", inputs=inputs, stored=stored, code=code)
            if outcome is not None and stored
            else ()
        )
        record = StepRecord(
            self.run.run_id,
            step.key,
            "cancelled" if cancelled else "failed",
            started,
            outcome.seconds if outcome is not None else 0.0,
            memo,
            made,
            error=None if cancelled else self._error_record(error),
        )
        self._record(record, step, made, code=code, outputs=outcome.outputs if outcome is not None else ())

    def reused(self, step: PlanStep, memo: str, group: tuple[Materialization, ...]) -> None:
        """Record a step whose outputs were found; what is current moves to them."""
        moved = [item for item in group if not self._is_current(step, item)]
        record = StepRecord(self.run.run_id, step.key, "reused", 0.0, 0.0, memo, group)
        self._record(record, step, moved)

    def not_run(self, step: PlanStep, *, skipped: bool) -> None:
        """Record a step that did not run: skipped by an optional output, or never started."""
        self._record(StepRecord(self.run.run_id, step.key, "skipped" if skipped else "untouched", 0.0), step, ())

    def finish(
        self,
        status: RunStatus,
        error: BaseException | None,
        steps: Sequence[PlanStep],
        *,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> tuple[RunRecord, tuple[StepRecord, ...]]:
        """Record the end of the run and wait until everything is committed.

        Parameters
        ----------
        waiting
            What is entered while it waits.

        Raises
        ------
        StoreError
            If something could not be committed: the run's steps have failed then.
        """
        run = replace(
            self.run,
            status=status,
            ended=time.time(),
            error=self._error_record(error) if error is not None and status == "failure" else None,
        )
        last = self.store.finish_run(run)
        records = tuple(self.steps[step.key] for step in steps if step.key in self.steps)
        # Commits end in their order, and what is called after each likewise: after the last every step is published.
        published = Once()
        last.then(lambda _: published.happen())
        with waiting():
            for commit in {id(each): each for each in (*self._commits, last)}.values():
                commit.wait()
            published.wait()
        if self._failure is not None:
            raise StoreError(f"the run {run.run_id} could not be recorded: {self._failure}") from self._failure
        self.publish(RunFinished(run, records))
        return run, records

    def sketch(
        self,
        step: PlanStep,
        outcome: Outcome,
        name: str,
        *,
        version: str,
        memo: str,
        inputs: tuple[InputVersion, ...],
        code: CodeVersion | None,
        effects: Effects,
    ) -> Materialization:
        """Return what will be recorded of one output, except for where its value is."""
        stored: dict[str, tuple[StoredValue | None, str]] = {name: (None, version)}
        made = self._materializations(step, outcome, memo=memo, inputs=inputs, stored=stored, code=code)[0]
        return replace(made, effects=ELSEWHERE) if effects else made

    def _is_current(self, step: PlanStep, item: Materialization) -> bool:
        for row in self.known.snapshot.current.get(item.key, ()):
            if row.notebook == step.notebook and row.materialization.id == item.id:
                return True
        return False

    def _materializations(
        self,
        step: PlanStep,
        outcome: Outcome,
        *,
        memo: str,
        inputs: tuple[InputVersion, ...],
        stored: Mapping[str, tuple[StoredValue | None, str]] | None,
        code: CodeVersion | None,
    ) -> tuple[Materialization, ...]:
        created = time.time()
        unverifiable: tuple[str, ...] = ()
        if code is not None and code.unverifiable:
            unverifiable = tuple([f"{item.path}: {item.reason}" for item in code.unverifiable])
        found = []
        for name, (value, version) in (stored or {}).items():
            produced = outcome.produced[name]
            found.append(
                Materialization(
                    new_id(),
                    self.run.run_id,
                    produced.output.key,
                    step.address,
                    name,
                    step.notebook,
                    memo,
                    code.digest if code is not None else "",
                    version,
                    value,
                    created,
                    outcome.seconds,
                    "",
                    inputs,
                    outcome.reads,
                    unverifiable,
                    hidden_values(produced.metadata) if produced.metadata else produced.metadata,
                )
            )
        return tuple(found)

    def _record(
        self,
        record: StepRecord,
        step: PlanStep,
        current: Sequence[Materialization],
        *,
        code: CodeVersion | None = None,
        outputs: Sequence[Any] = (),
    ) -> None:
        self.steps[step.key] = record
        logs, self._logs = self._logs, []
        # In the store a step is known by its address, which names its job.
        stored = record if step.address == step.key else replace(record, key=step.address)
        commit = self.store.record_step(
            stored,
            current=[Current(step.notebook, item.key, item, item.partition) for item in current],
            # One without parts is explained already, by what an earlier run recorded.
            code=code if code is not None and code.parts else None,
            outputs=outputs,
            logs=logs,
        )
        if not self._commits or self._commits[-1] is not commit:
            self._commits.append(commit)
        commit.then(partial(self._published, record))

    def _published(self, record: StepRecord, error: BaseException | None) -> None:
        if error is None:
            self.publish(StepFinished(record))
        elif self._failure is None:
            self._failure = error

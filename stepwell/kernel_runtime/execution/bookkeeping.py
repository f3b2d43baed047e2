"""The records of one run, and the claims that keep two processes from computing the same step at the same time.

When a step ends, `Bookkeeping` makes its records and gives them to the store, which commits them. `Bookkeeping` also publishes the events of the run.

`Claiming` takes the claims. If a step took long in an earlier run, its memo key is claimed before its body begins. Any other step is claimed by
a separate thread once the body has run for `LONG` seconds. A claim is released when the records of the step are committed, so the next process
that takes the claim finds these records in the catalog. Shorter steps are not claimed, and two processes may compute them at the same time.

If another process has claimed a step, the run waits until the claim is free, and then reads the catalog again. If the wait takes long, the run
publishes which process holds the claim. A claim is an OS lock, so the wait ends at once if the other process dies. Forced steps never wait. A
step that cannot be reused (a volatile step, or a step whose code has no digest) is not claimed.

No deadlock is possible:

1. A run waits for at most one claim at a time, in `Claiming.claim_step`, on the thread that runs its steps.
2. While a run waits, it holds no claim of a step whose body has not ended. Steps run one after the other, so there is at most one such
   step, and its claim is taken at the end of `claim_step`, after the wait. If an input of a claimed step is lost, `Engine._run_producer`
   runs the step that computes this input before the body of the claimed step. To do so, it releases the claim (`drop`). The claimed step
   takes the claim again only if the claim is free (`computing` never waits).
3. So a waiting run holds only claims of steps that have ended and whose records are not committed yet. The catalog thread releases these
   claims and waits only for the lease of the catalog. No process holds the lease while it waits for a claim.

Hence a waiting process delays other processes by at most one commit, and processes cannot wait for each other in a circle. The only
exception is a body that starts a process and waits for it, if that process needs the step that the body computes.
"""

from __future__ import annotations

import os
import platform
import time
from _thread import start_new_thread
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.execution.in_process import Outcome
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.result import error_record
from stepwell.kernel_runtime.planning.decision import DecisionFacts
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import (
    ELSEWHERE,
    CodeVersion,
    Current,
    Effects,
    InputVersion,
    Materialization,
    StoredValue,
)
from stepwell.kernel_runtime.records.runs import (
    Claimant,
    ErrorRecord,
    Event,
    LogRecord,
    RunFinished,
    RunRecord,
    RunStarted,
    RunStatus,
    StepFinished,
    StepLogged,
    StepRecord,
    StepStarted,
    StepStatus,
    StepWaiting,
)
from stepwell.kernel_runtime.store.locks import Once
from stepwell.kernel_runtime.store.processes import this_process
from stepwell.kernel_runtime.store.signing import sign_record
from stepwell.kernel_runtime.versions.secrets import hidden_message, hidden_values

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.catalog.thread import Commit
    from stepwell.kernel_runtime.store.processes import Claim
    from stepwell.kernel_runtime.store.store import ValueStore

Publish = Callable[[Event], None]

_NO_EFFECTS = Effects()
_WITHOUT_VALUE = frozenset(("failed", "cancelled", "untouched"))


@dataclass(slots=True)
class Execution:
    """The data about one execution of a step's body, from which its records are made."""

    step: PlanStep
    memo: str = ""
    inputs: tuple[InputVersion, ...] = ()
    code: CodeVersion | None = None
    """The code version of the step; None for a job's step that is not memoised. The code version includes its parts (the digest of each function and
    global that it covers), unless an earlier run has stored them. From the parts, a later request can find out what changed in the code."""
    started: float = field(default_factory=time.time)
    reason: str = ""
    """The reason why the step runs, for example that it was forced. Empty for a step of a job, and if the step runs only because its code, config or
    stored input values are new or have changed."""
    outcome: Outcome | None = None
    """The outcome of the body; None if the body did not begin."""
    stored_outputs: dict[str, tuple[StoredValue | None, str]] = field(default_factory=dict)
    """Maps the name of each output to its stored value and its data version. The stored value is None if the output has no value or could not be
    stored."""
    not_kept: list[str] = field(default_factory=list)
    """The outputs that could not be stored, each as ``name: reason``."""
    effects: Effects = _NO_EFFECTS
    """The changes that the body of a cell made to the notebook, besides computing values. They are recorded with the last output of the step."""


def new_run(run_id: str, plan: Plan, notebook: str, *, batch: str, parent: RunRecord | None = None) -> RunRecord:
    """Return the record of a run that is about to start.

    `parent` is the earlier run that this run resumes; None if it resumes no run.
    """
    return RunRecord(
        run_id,
        plan.kind,
        notebook,
        plan.targets,
        "running",
        time.time(),
        batch=batch,
        parent_run_id=parent.run_id if parent else "",
        root_run_id=(parent.root_run_id or parent.run_id) if parent else "",
        process=this_process(),
    )


class Bookkeeping:
    """Makes the records of one run, gives them to the store, and publishes the events of the run.

    Attributes
    ----------
    steps
        The records of the steps that have ended, by step key.
    """

    def __init__(self, run: RunRecord, store: ValueStore, publish: Publish, facts: DecisionFacts) -> None:
        self.run = run
        self.store = store
        self.publish = publish
        self.facts = facts
        self.steps: dict[str, StepRecord] = {}
        self._commits: list[Commit] = []
        self._logs: list[LogRecord] = []
        self._failure: BaseException | None = None
        self._shown_error: tuple[BaseException, ErrorRecord] | None = None
        self._recorded_codes: set[str] | None = None
        """The digests of the code versions whose parts are stored already, because an earlier run recorded them; None until they are needed."""
        self.look: Callable[[Callable[[], ErrorRecord]], ErrorRecord] = lambda function: function()
        """Calls a function that examines an exception, so that an interrupt can end the call (`InterruptGuard.look`)."""
        self.code_parts: Callable[[PlanStep], CodeVersion | None] = lambda step: step.code
        """Returns a step's code version with its parts (the digests of the functions and globals that it covers); None if the step has none."""

    def _error_record(self, error: BaseException) -> ErrorRecord:
        """Return the record of an exception. A second call with the same exception returns the same record."""
        if self._shown_error is None or self._shown_error[0] is not error:
            self._shown_error = error, error_record(error, self.look)
        return self._shown_error[1]

    def begin(self, steps: Sequence[PlanStep]) -> None:
        """Record and publish the start of the run."""
        self._commits.append(self.store.begin_run(self.run))
        self.publish(RunStarted(self.run, tuple(step.key for step in steps)))

    def log(self, record: LogRecord) -> None:
        """Record and publish a line that a step logged. Secrets in the line are removed first."""
        record = replace(record, message=hidden_message(record.message))
        self._logs.append(record)
        self.publish(StepLogged(record))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the commits of all records so far have ended, even if a commit failed. The callback may run on another thread."""
        self._commits[-1].then(lambda _: callback())

    def waiting(self, step: PlanStep, position: int, total: int, claimant: Claimant) -> None:
        """Publish that a step, number `position` of `total`, waits because the process `claimant` computes the same step."""
        seconds = self.facts.snapshot.seconds.get(step.address)
        self.publish(StepWaiting(self.run.run_id, step.key, position, total, claimant, seconds))

    def step_started(self, step: PlanStep, position: int, total: int) -> None:
        """Publish that the body of a step, number `position` of `total`, begins."""
        self.publish(StepStarted(self.run.run_id, step.key, position, total, self.facts.snapshot.seconds.get(step.address)))

    def explained_code(self, step: PlanStep) -> CodeVersion | None:
        """Return a step's code version; None if the step has none.

        The code version includes its parts (the digests of the functions and globals in it), from which a later request can tell what changed.
        Parts that an earlier run has stored are left out.
        """
        if self._recorded_codes is None:
            by_memo_key = self.facts.snapshot.by_memo_key
            self._recorded_codes = {execution[0].code_version for executions in by_memo_key.values() for execution in executions}
        if step.code is not None and step.code.digest in self._recorded_codes:
            return step.code
        return self.code_parts(step)

    def executed(self, execution: Execution) -> tuple[Materialization, ...]:
        """Record that a step ran to its end, and return its materializations."""
        materializations = self._materializations(execution, execution.memo)
        if execution.effects:
            last = replace(materializations[-1], effects=execution.effects.as_text())
            last = replace(last, record_signature=sign_record(self.store.signer, last))
            # The other records only say that effects exist: if the record with the effects is missing, as in a pack with only the value, the step
            # must not be reused.
            materializations = (*[replace(item, effects=ELSEWHERE) for item in materializations[:-1]], last)
        self._record_execution(execution, "executed", materializations)
        return materializations

    def step_failed(self, execution: Execution, error: BaseException, *, cancelled: bool = False) -> None:
        """Record a step that failed or, if `cancelled`, was interrupted. Outputs that it yielded before are recorded without a memo key."""
        made = self._materializations(execution, "")
        error_record = None if cancelled else self._error_record(error)
        self._record_execution(execution, "cancelled" if cancelled else "failed", made, error_record)

    def _record_execution(
        self,
        execution: Execution,
        status: StepStatus,
        materializations: tuple[Materialization, ...],
        error: ErrorRecord | None = None,
    ) -> None:
        outcome = execution.outcome
        record = StepRecord(
            self.run.run_id,
            execution.step.key,
            status,
            execution.started,
            outcome.seconds if outcome is not None else 0.0,
            execution.memo,
            materializations,
            error=error,
            reason=execution.reason if status == "executed" else "",
            not_kept=tuple(execution.not_kept) if status == "executed" else (),
        )
        outputs = outcome.outputs if outcome is not None else ()
        self._record(record, execution.step, materializations, code=execution.code, outputs=outputs)

    def step_reused(self, step: PlanStep, memo: str, materializations: tuple[Materialization, ...]) -> None:
        """Record that a step was reused. The `materializations` become the current ones of their keys."""
        moved = [item for item in materializations if not self._is_current(step, item)]
        record = StepRecord(self.run.run_id, step.key, "reused", 0.0, 0.0, memo, materializations)
        self._record(record, step, moved)

    def not_run(self, step: PlanStep, *, skipped: bool) -> None:
        """Record a step that did not run: ``skipped`` if an optional input was not produced, otherwise ``untouched``."""
        self._record(StepRecord(self.run.run_id, step.key, "skipped" if skipped else "untouched", 0.0), step, ())

    def finish(
        self,
        status: RunStatus,
        error: BaseException | None,
        steps: Sequence[PlanStep],
        *,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> tuple[RunRecord, tuple[StepRecord, ...]]:
        """Record the end of the run, wait until all records are committed, and publish the end.

        Parameters
        ----------
        error
            The first exception of a step; None if no step failed.
        steps
            The steps of the plan, in order.
        waiting
            Returns a context manager. This method waits for the commits inside its block.

        Returns
        -------
        run, steps
            The record of the run, and the records of its steps.

        Raises
        ------
        StoreError
            If a record could not be committed.
        """
        run = replace(
            self.run,
            status=status,
            ended=time.time(),
            error=self._error_record(error) if error is not None and status == "failure" else None,
        )
        last = self.store.finish_run(run)
        records = tuple(self.steps[step.key] for step in steps if step.key in self.steps)
        # Commits end in order, and so do their callbacks: every step is published before this callback.
        published = Once()
        last.then(lambda _: published.happen())
        with waiting():
            for commit in {id(pending): pending for pending in (*self._commits, last)}.values():
                commit.wait()
            published.wait()
        if self._failure is not None:
            raise StoreError(f"the run {run.run_id} could not be recorded: {self._failure}") from self._failure
        self.publish(RunFinished(run, records))
        return run, records

    def put_output(self, execution: Execution, name: str, value: Any, *, version: str, portable: bool) -> StoredValue:
        """Store the value of one output. If the value is stored in a file, the header of the file also contains the output's materialization.

        The location of the value is left out of this materialization.

        Parameters
        ----------
        version
            The data version of the value; empty if it has none.
        portable
            True to refuse a value that contains an exception object which plain pickle cannot transfer to another process.

        Raises
        ------
        UnstorableValueError
            If the value cannot be stored.
        """
        assert execution.outcome is not None
        produced = execution.outcome.produced[name]
        # Outputs that a body yielded before it failed have no memo key.
        memo = execution.memo if execution.outcome.error is None else ""

        def about() -> Materialization:
            made = self._materialization(execution, memo, time.time(), name, (None, version))
            return replace(made, effects=ELSEWHERE) if execution.effects else made

        return self.store.put(value, key=produced.output.key, memo_key=memo, about=about, portable=portable)

    def _is_current(self, step: PlanStep, item: Materialization) -> bool:
        for row in self.facts.snapshot.current.get(item.key, ()):
            if row.notebook == step.notebook and row.materialization.id == item.id:
                return True
        return False

    def _materializations(self, execution: Execution, memo: str) -> tuple[Materialization, ...]:
        created, stored = time.time(), execution.stored_outputs.items()
        return tuple([self._materialization(execution, memo, created, name, place) for name, place in stored])

    def _materialization(
        self, execution: Execution, memo: str, created: float, name: str, place: tuple[StoredValue | None, str]
    ) -> Materialization:
        step, outcome, code = execution.step, execution.outcome, execution.code
        assert outcome is not None
        produced = outcome.produced[name]
        value, version = place
        return Materialization(
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
            execution.inputs,
            outcome.reads,
            tuple([f"{item.path}: {item.reason}" for item in code.unverifiable])
            if code is not None and code.unverifiable
            else (),
            hidden_values(produced.metadata) if produced.metadata else produced.metadata,
        )

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
        if record.status in _WITHOUT_VALUE:
            self.facts.steps_without_value[step.key] = "untouched"
        logs, self._logs = self._logs, []
        # The store identifies a step by its address. For a step of a job, the address is the key with the name of the job before it.
        stored = record if step.address == step.key else replace(record, key=step.address)
        commit = self.store.record_step(
            stored,
            current=[Current(step.notebook, item.key, item, item.partition) for item in current],
            # If the code version has no parts here, an earlier run has recorded them.
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


LONG = 0.2
"""A step takes long if it runs for at least this number of seconds. After this time, a running step is claimed, and a wait for another process is
published."""
_SHORTEST, _LONGEST = 0.02, 0.1
"""The minimum and maximum number of seconds between two attempts to take a claim that another process holds."""


@dataclass(slots=True, eq=False)
class _Watched:
    """The running body of a step whose memo key was not claimed before the body began."""

    memo: str
    since: float
    """The time at which the body began, as `time.monotonic` returned it."""
    claim: Claim | None = None
    """The claim that the thread of `Claiming` has taken since; None if it has taken none yet."""


class Claiming:
    """Takes and releases the claims of one run."""

    def __init__(self, store: ValueStore, facts: DecisionFacts, books: Bookkeeping, guard: InterruptGuard, total: int) -> None:
        self._store = store
        self._claims = store.claims
        self._facts = facts
        self._books = books
        self._guard = guard
        self._total = total
        self._claim: Claim | None = None
        self._watched: _Watched | None = None
        self._watching = False
        self._end = Once()

    def claim_step(self, step: PlanStep, memo: str, position: int) -> bool:
        """Claim a step if it took at least `LONG` seconds in an earlier run, or if another process is computing it.

        The method waits while another process has the claim.

        Returns
        -------
        bool
            True if the catalog was read again, so that the caller must decide again whether to reuse the step. False if the catalog was not
            read again, because this was not necessary or because of an interrupt.
        """
        if not _can_be_reused(step, memo) or not (self._takes_long(step) or self._claims.is_there(memo)):
            return False
        self._claim = self._take(memo)
        waited = self._claim is None
        if waited:
            self._claim = self._wait(step, memo, position)
            if self._claim is None:
                return False
        elif self._store.is_newest(self._facts.snapshot):
            return False
        codes = [step.code.digest] if step.code is not None else []
        keys = [output.key for output in step.outputs]
        try:
            snapshot = self._guard.call(lambda: self._store.snapshot(keys, [step.address], codes, remember=False))
        except KeyboardInterrupt:
            return False
        self._facts.use_snapshot(snapshot)
        return True

    def computing(self, step: PlanStep, memo: str) -> None:
        """Record that the body of a step begins.

        A step that took long in an earlier run is claimed now, if the claim is free. Any other step is claimed once it has run for `LONG` seconds.
        """
        if self._claim is not None or not _can_be_reused(step, memo):
            return
        if self._takes_long(step):
            self._claim = self._take(memo)
        if self._claim is None:
            self._watched = _Watched(memo, time.monotonic())
            if not self._watching:
                self._watching = True
                start_new_thread(self._watch, ())

    def step_ended(self) -> None:
        """Record that a step ended or will not run. Its claim, if there is one, is released when the records so far are committed."""
        watched, self._watched = self._watched, None
        claim, self._claim = self._claim, None
        for held in (claim, watched.claim if watched is not None else None):
            if held is not None:
                self._books.after_commit(held.release)

    def drop(self) -> None:
        """Release the claim of a step whose body has not begun, because another step must run before it."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def close(self) -> None:
        """Stop the thread that claims running steps."""
        self._end.happen()

    def _takes_long(self, step: PlanStep) -> bool:
        return self._facts.snapshot.seconds.get(step.address, 0.0) >= LONG

    def _take(self, memo: str) -> Claim | None:
        return self._claims.take(memo, Claimant(self._books.run.notebook, os.getpid(), platform.node(), time.time()))

    def _wait(self, step: PlanStep, memo: str, position: int) -> Claim | None:
        """Wait until the claim of a memo key is free, take the claim and return it. Return None after an interrupt."""
        began, pause = time.monotonic(), _SHORTEST
        published_claimant: Claimant | None = None
        while not self._guard.interrupted:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST)
            claim = self._take(memo)
            if claim is not None:
                return claim
            waited = time.monotonic() - began
            if waited >= LONG:
                claimant = self._claims.claimant(memo)
                # A process that has just taken the claim may not have written its process number yet.
                if claimant != published_claimant and (claimant.pid or waited >= 5 * LONG):
                    published_claimant = claimant
                    self._books.waiting(step, position, self._total, claimant)
        return None

    def _watch(self) -> None:
        while not self._end.wait(LONG / 2):
            watched = self._watched
            if watched is None or watched.claim is not None or time.monotonic() - watched.since < LONG:
                continue
            watched.claim = self._take(watched.memo)
            if watched.claim is not None and self._watched is not watched:
                # The step ended while this thread took the claim, and `step_ended` may not have seen the claim.
                watched.claim.release()


def _can_be_reused(step: PlanStep, memo: str) -> bool:
    unverifiable = step.code is not None and step.code.unverifiable
    return bool(memo) and step.memoised and not step.op.volatile and not unverifiable

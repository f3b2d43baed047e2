"""The engine goes through a plan once and carries out the decision about each step.

`decide` returns the decision: to reuse the step, to run it, to skip it, to leave it untouched because an upstream step failed, or to let it fail
because the value of an input is unavailable. The executor (`InProcess`) runs the bodies. A stored value is loaded only when a step that runs needs
the value, or when the reuse of an asset cell binds it in the notebook.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.errors import StepwellError, StoreError, UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.execution.bookkeeping import Bookkeeping, Claiming, Execution
from stepwell.kernel_runtime.execution.in_process import InProcess, OpExecutionContext, Outcome, context_for, proxied
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.live_cells import LiveRun
from stepwell.kernel_runtime.execution.notebook import NotebookCells, effects_output
from stepwell.kernel_runtime.execution.result import (
    Produced,
    RunResult,
    is_interrupt,
    plain_metadata,
    user_object_error,
)
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.execution.world import HiddenState, Seeds
from stepwell.kernel_runtime.planning.decision import Decision, DecisionFacts, decide, decide_keyed, reason_to_run
from stepwell.kernel_runtime.planning.plan import Plan, PlanInput, PlanStep
from stepwell.kernel_runtime.records.bulk import no_collection
from stepwell.kernel_runtime.records.materializations import (
    NOTEBOOK,
    CodeVersion,
    Materialization,
    StoredValue,
    provenance,
)
from stepwell.kernel_runtime.records.runs import FORCED, Notice, RunRecord, StepRecord, notice
from stepwell.kernel_runtime.store.values.structure import name_parts
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.encode import ATOMS

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def _is_immutable(value: Any) -> bool:
    """Return True for an immutable value, which all steps that read it can share. Any other value is loaded separately for each step."""
    kind = type(value)
    # `kind in ATOMS` computes the hash of the class. If the class has a metaclass, this may be code of the user that never ends.
    return type(kind) is type and kind in ATOMS


@dataclass(slots=True)
class EngineOptions:
    """The settings of one run, apart from its plan."""

    forced_steps: frozenset[str] = frozenset()
    """The keys of the steps that run even if they could be reused."""
    display_steps: frozenset[str] = frozenset()
    """The keys of the steps whose displays (figures, tables) appear in the output of the present cell while they run."""
    code_parts: Callable[[PlanStep], CodeVersion | None] = field(default=lambda step: step.code)
    """Returns a step's code version with its parts (the digests of the functions and globals that it covers); None if the step has none."""
    notices: tuple[Notice, ...] = ()
    """The notices from the preparation of the run; the result of the run includes them."""
    hidden_state: HiddenState | None = None
    """Finds the globals that bodies change, and computes code versions again; None if the code versions in the plan stay valid."""
    seed_steps: bool = True
    """True if the global random generators are seeded before each body runs."""
    timeline: Timeline | None = None
    """The timeline of the notebook; None outside notebooks."""
    published_notices: set[Notice] = field(default_factory=set)
    """All notices that this session has published. A notice about network connections that is in this set is not repeated; the run
    adds its own notices of this kind to the set."""
    run_notices: list[Notice] = field(default_factory=list)
    """The notices that the session receives during the run, for example from the store; the result of the run includes them."""
    strict: bool = False
    """True if every live cell fails when its value cannot be stored; False if only live cells with the flag ``--stored`` do. All other steps fail in
    both cases, except the steps of a job that are not memoised."""


class _ValueLostError(Exception):
    """Raised if a value is lost and the step that produces the value was run again without success.

    Parameters
    ----------
    status
        The status of the step that was run again: ``failed``, ``cancelled`` or ``untouched``.
    """

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Engine:
    """Executes one plan."""

    def __init__(
        self,
        *,
        plan: Plan,
        facts: DecisionFacts,
        store: ValueStore,
        executor: InProcess,
        guard: InterruptGuard,
        books: Bookkeeping,
        options: EngineOptions,
    ) -> None:
        self.plan = plan
        self.facts = facts
        self.store = store
        self.executor = executor
        self.guard = guard
        self.books = books
        books.look = guard.look
        books.code_parts = options.code_parts
        self.options = options
        self.memory: dict[str, Any] = {}
        """Values that stay in memory for later steps, by value key: immutable values, values of job steps that are not memoised, and values that all
        later steps share as one object (`isolate` is False)."""
        self.error: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.notices = list(options.notices)
        self.seeds = Seeds(enabled=options.seed_steps)
        if options.hidden_state is not None:
            facts.settle = self._settle
        self.claiming = Claiming(store, facts, books, guard, len(plan.steps))
        self.collection = no_collection()
        self.cells = (
            NotebookCells(options.timeline, store, self.seeds, self.notices.append, guard.look, strict=options.strict)
            if options.timeline is not None
            else None
        )
        if self.cells is not None:
            facts.restore_obstacle = self.cells.stored_cells.obstacle
        self._reruns = 0

    def run(self) -> RunResult:
        """Carry out the steps of the plan in order, until the last step or an interrupt.

        Exceptions of user code are not raised: the result contains the first one.
        """
        # The garbage collector is enabled again after the last commit. Before, it would examine all new records, and free none of them.
        with self.collection:
            run, records = self._run_steps()
        return RunResult(
            run,
            records,
            error=self.error,
            interrupt=self.interrupt,
            load=self._load_stored,
            values=self.facts.values,
            memory=self.memory,
            notices=(*self.notices, *self.options.run_notices),
        )

    def _run_steps(self) -> tuple[RunRecord, tuple[StepRecord, ...]]:
        """Carry out the steps, wait until all records are committed, and return the record of the run and those of its steps."""
        steps = self.plan.steps
        self.books.begin(steps)
        interrupted = False
        try:
            with proxied():
                for position, step in enumerate(steps, 1):
                    if self.guard.interrupted:
                        interrupted = True
                        break
                    if self._step(step, position) == "cancelled":
                        interrupted = True
                        break
        finally:
            self.seeds.restore()
            self.claiming.close()
            # `facts` may exist longer than the run, and must not call the engine after the run.
            self.facts.settle = self.facts.restore_obstacle = None
        for step in steps:
            if step.key not in self.books.steps:
                self.books.not_run(step, skipped=False)
        failed = any(record.status == "failed" for record in self.books.steps.values())
        return self.books.finish(
            "cancelled" if interrupted else "failure" if failed else "success",
            self.error,
            steps,
            waiting=self.guard.committing,
        )

    # -- one step

    def _step(self, step: PlanStep, position: int) -> str:
        """Carry out one step, and return its status. If an object of the user raises an exception outside the body, the step is recorded as failed."""
        try:
            return self._step_or_raise(step, position)
        except StoreError:
            raise
        except BaseException as error:
            if step.key in self.books.steps:
                raise
            if self._is_users_interrupt(error):
                self.interrupt = error
                self.books.step_failed(Execution(step, code=step.code), error, cancelled=True)
                return "cancelled"
            if not issubclass(type(error), StepwellError | MemoryError):
                error = user_object_error(step, "an object in its code, inputs or outputs", error)
            return self._fail(Execution(step, code=step.code), error)

    def _step_or_raise(self, step: PlanStep, position: int) -> str:
        kind = "forced" if step.key in self.options.forced_steps else self.facts.kind(step.key)
        decision = decide(step, self.plan, self.facts, kind)
        if decision.action in {"skip", "untouched"}:
            self.books.not_run(step, skipped=decision.action == "skip")
            return decision.action
        if decision.inputs is None:
            missing = next(key for key in step.input_keys if key not in self.facts.values)
            error = ValueUnavailableError(
                f"step {step.key!r} needs the value of {missing!r}, which has not been computed",
                where=step.where,
                remedy=f"materialize {missing!r} first",
            )
            return self._fail(Execution(step, code=step.code), error)
        memo, inputs = decision.memo_key, decision.inputs
        decision = self._reuse(step, decision)
        if decision.action == "reuse":
            return "reused"
        try:
            if kind != "forced" and self.claiming.claim_step(step, memo, position):
                # Another process may have computed the step meanwhile.
                decision = decide_keyed(step, self.plan, self.facts, kind, memo=memo, inputs=inputs)
                decision = self._reuse(step, decision)
                if decision.action == "reuse":
                    return "reused"
            # The run may have been interrupted while it waited for another process.
            return "cancelled" if self.guard.interrupted else self._execute(step, decision, position)
        finally:
            self.claiming.step_ended()

    def _reuse(self, step: PlanStep, decision: Decision) -> Decision:
        """Reuse a step if `decision` says so. Return `decision`, or a decision to run the step if its effects could not be restored."""
        if decision.action != "reuse":
            return decision
        materializations = decision.materializations
        if self.cells is not None and self.cells.is_live(step):
            self.collection.resume()
            try:
                obstacle = self.cells.reuse(step)
            finally:
                self.collection.suspend()
            if obstacle:
                return replace(decision, action="run", cause="unrestorable", obstacle=obstacle)
            if len(materializations) > len(step.outputs):
                self._rekey()
            before, now = self.cells.changed_since(step)
            if before:
                self.notices.append(notice("changed later", step.key, before=before, now=now))
        self._take(step, decision)
        return decision

    def _take(self, step: PlanStep, decision: Decision) -> None:
        for item in decision.materializations:
            self.facts.values[item.key] = item
        self.books.step_reused(step, decision.memo_key, decision.materializations)

    def _rekey(self) -> None:
        """Discard earlier checks of reads, and the code versions of the following steps, because the effects of a step may have made them wrong."""
        self.facts.forget_checks()
        if self.options.hidden_state is not None:
            self.options.hidden_state.mark_outdated()

    def _tell_lost(self, step: PlanStep, decision: Decision) -> None:
        """Add a notice that a step runs again because its stored value is lost."""
        note = notice("computed again", step.key, why=decision.obstacle)
        # Values that are signed with another key get no notice here, because one notice of the run names all of them.
        if note not in self.notices and self.facts.snapshot.foreign.keys().isdisjoint(
            [item.id for item in decision.materializations]
        ):
            self.notices.append(note)

    def _execute(self, step: PlanStep, decision: Decision, position: int) -> str:
        execution = Execution(step, decision.memo_key, decision.inputs or (), step.code)
        # The reason is computed before the body runs, because the body may change the state on which the reason depends.
        execution.reason = self._reason(step, decision)
        if decision.cause == "lost" and decision.obstacle:
            self._tell_lost(step, decision)
        self.books.step_started(step, position, len(self.plan.steps))
        before = self._reruns
        live = self.cells is not None and self.cells.is_live(step)
        try:
            if self.cells is not None and live:
                self.cells.check(step)
            arguments, hidden = self.guard.look(lambda: (self._arguments(step), {} if live else self._hidden_assets(step)))
        except _ValueLostError as lost:
            if lost.status == "cancelled":
                return "cancelled"
            self.books.not_run(step, skipped=False)
            return "untouched"
        except (StepwellError, MemoryError) as error:
            return self._fail(execution, error)
        if self._reruns != before:
            # The step that ran again may have produced a value that differs from the lost one, so the memo key may differ.
            execution.inputs = self.facts.inputs(step) or execution.inputs
            execution.memo = self.facts.key(step, execution.inputs)
        self._take_present_names(execution)
        run = self._run_body(execution, arguments, hidden, live=live)
        del arguments
        return self._keep(execution, run)

    def _run_body(self, execution: Execution, arguments: dict[str, Any], hidden: dict[str, Any], *, live: bool) -> LiveRun | None:
        """Run the body of `execution.step`, and set `execution.outcome` to the outcome of the body.

        Parameters
        ----------
        arguments
            The arguments of the body, by name.
        hidden
            The values of the assets that helper functions read as globals, by name.
        live
            True if the step is a live cell.

        Returns
        -------
        LiveRun or None
            The `LiveRun` of a live cell; None for any other step.
        """
        step, cells = execution.step, self.cells
        state = None if live else self.options.hidden_state
        # The parts that explain a code version are read before the body can change them.
        watched, execution.code = self.guard.look(
            lambda: (state.watch(step) if state is not None else None, self.books.explained_code(step))
        )
        self.seeds.seed(step.key, live=live)
        run: LiveRun | None = None
        if cells is not None and live:
            run = self.guard.look(partial(cells.begin, step, arguments, self.facts.values))
        self.claiming.computing(step, execution.memo)
        self.collection.resume()
        outcome = self.executor.run(step, arguments, hidden, show_displays=step.key in self.options.display_steps)
        self.collection.suspend()
        execution.outcome = outcome
        if state is not None and (watched is not None or step.code is None):
            self._tell_changes(step, self.guard.look(lambda: state.changed_names(step, watched)))
        self._tell_unchecked(step, outcome)
        context = arguments.get(step.op.context) if step.op.context is not None else None
        if isinstance(context, OpExecutionContext):
            for name, metadata in context.output_metadata.items():
                if name in outcome.produced:
                    outcome.produced[name].metadata.update(metadata)
        return run

    def _tell_unchecked(self, step: PlanStep, outcome: Outcome) -> None:
        """Add notices about reads that no later run can check: later runs reuse the step even if the data behind these reads has changed."""
        if step.op.volatile or step.op.max_age is not None or not step.memoised:
            return
        if outcome.network:
            used = notice("network", step.key, hosts=outcome.network[:3])
            if used not in self.options.published_notices:
                self.options.published_notices.add(used)
                self.notices.append(used)
        if outcome.unseen_reads:
            reader, _, what = outcome.unseen_reads[0].partition(": ")
            self.notices.append(notice("unseen read", step.key, reader=reader, what=what))
        if outcome.children and not step.op.reads:
            self.notices.append(notice("processes", step.key, programs=outcome.children[:3]))

    def _take_present_names(self, execution: Execution) -> None:
        """Compute the memo key of a live cell again just before it runs, if the decision was not made with the present values of variables.

        The decision may have used the values that the cell read when it last ran, but the cell will now read the present values.
        """
        step, state, cells = execution.step, self.options.hidden_state, self.cells
        if state is not None and cells is not None and cells.is_live(step) and cells.is_renamed(step):
            state.mark_outdated()
            self._settle(step)
            execution.memo = self.facts.key(step, execution.inputs)

    def _reason(self, step: PlanStep, decision: Decision) -> str:
        """Return the reason why a step runs, such as a changed file.

        Return an empty string for a step of a job, and if the step runs only because its code, config or stored input values are new or have changed.
        """
        if decision.cause == "unrestorable":
            return decision.obstacle
        if self.plan.kind == "job":
            return ""
        if decision.cause == "forced":
            return FORCED
        return reason_to_run(step, decision.memo_key, decision.inputs or (), self.facts)

    def _settle(self, step: PlanStep) -> None:
        """Compute the code version of a step again if earlier steps of the run may have changed objects that its code reaches."""
        state = self.options.hidden_state
        if state is None or state.is_settled(step):
            return
        if self.guard.look(lambda: state.settle(step)) and step.code is not None:
            address, digest = step.address, step.code.digest
            # After an interrupt here the run ends, before this step begins.
            with suppress(KeyboardInterrupt):
                snapshot = self.guard.call(lambda: self.store.snapshot([], [address], [digest], remember=False))
                self.facts.snapshot.take(snapshot)

    def _tell_changes(self, step: PlanStep, names: tuple[str, ...]) -> None:
        if names:
            self.notices.append(notice("global changed", step.key, names=tuple(names)))

    def _keep(self, execution: Execution, run: LiveRun | None) -> str:
        """Store the outputs of a body that has run, record the end of the step, and return the status of the step."""
        step, outcome, cells = execution.step, execution.outcome, self.cells
        assert outcome is not None
        error = outcome.error
        if error is not None and cells is not None:
            cells.name_writers(outcome)
        try:
            self._store(execution, outcome, run)
        except BaseException as broken:
            if error is None:
                error = broken
                if not issubclass(type(broken), StepwellError | MemoryError) and not self._is_users_interrupt(broken):
                    error = user_object_error(step, "storing its outputs", broken)
                produced = outcome.produced
                execution.stored_outputs = {
                    name: value for name, value in execution.stored_outputs.items() if not produced[name].output.has_value
                }
        if error is None:
            made = self.books.executed(execution)
            self.facts.values.update([(item.key, item) for item in made])
            if run is not None and cells is not None:
                cells.step_executed(step, run, outcome, {item.output: item for item in made}, execution.effects)
                if execution.effects:
                    self._rekey()
            return "executed"
        if run is not None and cells is not None:
            cells.step_failed(step, run)
            self._rekey()
        if is_interrupt(error):
            self.interrupt = error
            self.books.step_failed(execution, error, cancelled=True)
            return "cancelled"
        return self._fail(execution, error)

    def _store(self, execution: Execution, outcome: Outcome, run: LiveRun | None) -> None:
        """Store the outputs of a step and, for a live cell, its effects on the notebook."""
        step, cells = execution.step, self.cells
        for produced in outcome.produced.values():
            if produced.metadata:
                # If the conversion of the metadata fails, the output is recorded without metadata.
                given, produced.metadata = produced.metadata, {}
                produced.metadata = self.guard.look(partial(plain_metadata, step, given))
        outputs = list(outcome.produced.items())
        effects_value: StoredValue | None = None
        if run is not None and cells is not None and outcome.error is None:
            execution.effects, effects_value = cells.keep(step, run, outcome, execution.memo)
        unstored = [name for name, produced in outputs if not self._store_output(execution, name, produced, run)]
        if unstored and run is not None and cells is not None:
            execution.effects = cells.lacking(step, execution.effects, unstored)
            if execution.code is None or not execution.code.unverifiable:
                for name in unstored:
                    execution.stored_outputs[name] = (None, provenance(execution.memo, outcome.reads, name))
        if execution.effects:
            outcome.produced[NOTEBOOK] = Produced(effects_output(step), None)
            execution.stored_outputs[NOTEBOOK] = (
                effects_value,
                effects_value.digest if effects_value is not None else "none",
            )

    def _store_output(self, execution: Execution, name: str, produced: Produced, run: LiveRun | None) -> bool:
        """Store one output, and return True. If the value cannot be stored but the step may succeed without it, return False.

        Raises
        ------
        UnstorableValueError
            If the value cannot be stored, and the step must fail because of this.
        """
        step, value = execution.step, produced.value
        if not produced.output.has_value:
            execution.stored_outputs[name] = (None, "")
            return True
        is_job = self.plan.kind == "job" and not step.memoised
        is_immutable = _is_immutable(value)

        def put() -> tuple[StoredValue, str]:
            version = "" if is_job else data_version(value) or ""
            stored_value = self.books.put_output(execution, name, value, version=version, portable=run is None)
            return stored_value, version or stored_value.digest

        is_stored = True
        try:
            # Storing an immutable value runs no code of the user, so it cannot block the run for ever.
            execution.stored_outputs[name] = put() if is_immutable else self.guard.look(put)
        except UnstorableValueError as unstorable:
            if not is_job and (run is None or self.cells is None or self.cells.stored_cells.must_be_stored(step)):
                raise
            # In a kernel, the value stays available through the variable of the cell.
            execution.not_kept.append(f"{name}: {unstorable.reason if run is not None else name_parts(type(value))[1]}")
            execution.stored_outputs[name] = (None, "")
            is_stored = False
        if is_job or is_immutable or not step.isolate:
            self.memory[produced.output.key] = value
        return is_stored

    def _is_users_interrupt(self, error: BaseException) -> bool:
        """Return True if an exception is a KeyboardInterrupt that Ctrl-C or a cancellation caused; False if user code raised it by itself."""
        return is_interrupt(error) and self.guard.interrupted

    def _fail(self, execution: Execution, error: BaseException) -> str:
        self.books.step_failed(execution, error)
        if self.error is None:
            self.error = error
        return "failed"

    # -- values

    def _arguments(self, step: PlanStep) -> dict[str, Any]:
        """Return the arguments of a step's body by name: the config values, the inputs, and the execution context if the body has a parameter for it.

        The inputs are loaded, and their types are checked. Inputs for which `_is_bound` returns True are left out. Assets that the code of a live cell
        reads as globals are included if their variables have older values.
        """
        op = step.op
        arguments: dict[str, Any] = dict(step.config)
        for step_input in step.inputs:
            if not step_input.carries_value or not (step_input.is_declared or self._is_older(step, step_input)):
                continue
            if not step_input.keys and not step_input.fan_in:
                arguments[step_input.name] = step_input.default
                continue
            if self._is_bound(step, step_input):
                continue
            if step_input.fan_in:
                value: Any = [self._value(key, step) for key in step_input.keys if key in self.facts.values]
            else:
                value = self._value(step_input.keys[0], step)
            if step_input.name in op.input_checks:
                op.check_input(step_input.name, value, step.key)
            arguments[step_input.name] = value
        if op.context is not None and not isinstance(op.body, CellBody):
            job = self.plan.targets[0] if self.plan.kind == "job" else ""
            arguments[op.context] = context_for(step, self.books.run.run_id, job, self.books.log)
        return arguments

    def _is_bound(self, step: PlanStep, step_input: PlanInput) -> bool:
        """Return True if the input of a live cell need not be loaded, because the notebook's variable of the same name already has its value."""
        if self.cells is None or step_input.fan_in or not self.cells.is_live(step):
            return False
        item = self.facts.values.get(step_input.keys[0])
        return item is not None and self.cells.has_input(step_input.name, item)

    def _is_older(self, step: PlanStep, step_input: PlanInput) -> bool:
        """Return True if the notebook's variable for the input of a live cell has the value of an older materialization of the asset."""
        if self.cells is None or not self.cells.is_live(step):
            return False
        item = self.facts.values.get(step_input.keys[0])
        return item is not None and self.cells.has_older(step_input.name, item)

    def _value(self, key: str, step: PlanStep) -> Any:
        """Return the value with the value key `key` for `step`, which reads the value. If the value is lost, it is computed again first.

        Raises
        ------
        ValueUnavailableError
            If the value was never stored and no live cell of the plan produces it, or if it is lost and no reused step of the plan produces it.
        _ValueLostError
            If the step that produces the value was run again without success.
        """
        if key in self.memory:
            return self.memory[key]
        item = self.facts.values[key]
        if item.value is None and self.cells is not None:
            producer = self.plan.producers.get(key)
            if producer is not None and self.cells.is_live(producer):
                if not self.cells.has_value(key, item):
                    self._run_producer(producer)
                return self.cells.value(key)
        if item.value is None:
            raise ValueUnavailableError(
                f"step {step.key!r} needs the value of {key!r}, which is not stored: the output is Nothing or could not be stored",
                where=step.where,
                remedy=f"declare deps=[{key!r}] instead of an input if only the order matters, else return a value from {key} that can be stored",
            )
        producer = self.plan.producers.get(key)
        try:
            value = self._load_stored(item)
        except ValueUnavailableError as error:
            if producer is None or not producer.memoised or self.books.steps[producer.key].status != "reused":
                raise
            self.notices.append(notice("computed again", step.key, why=error.what))
            self._run_producer(producer)
            return self._value(key, step)
        if _is_immutable(value) or (producer is not None and not producer.isolate):
            self.memory[key] = value
        return value

    def _run_producer(self, producer: PlanStep) -> None:
        """Run a step again because its value is lost, or reuse the result that another process has computed meanwhile.

        A stored value is lost if it cannot be loaded. A value that could not be stored is lost if it exists neither in the notebook nor in the run.

        Raises
        ------
        _ValueLostError
            If the step does not end successfully.
        """
        facts = self.facts
        inputs = facts.inputs(producer) or ()
        decision = Decision("run", "lost", facts.key(producer, inputs), inputs)
        position = self.plan.steps.index(producer) + 1
        self._reruns += 1
        self.claiming.drop()
        try:
            if self.claiming.claim_step(producer, decision.memo_key, position):
                kind = facts.kind(producer.key)
                new = decide_keyed(producer, self.plan, facts, kind, memo=decision.memo_key, inputs=inputs)
                if new.action == "reuse" and new.materializations[0].id not in {item.id for item in facts.values.values()}:
                    self._take(producer, new)
                    return
            status = "cancelled" if self.guard.interrupted else self._execute(producer, decision, position)
        finally:
            self.claiming.step_ended()
        if status != "executed":
            raise _ValueLostError(status)

    def _load_stored(self, item: Materialization) -> Any:
        if item.value is None:
            raise ValueUnavailableError(f"{item.key!r} has no stored value")
        return self.store.get(item.value, key=item.key)

    def _hidden_assets(self, step: PlanStep) -> dict[str, Any]:
        """Return the values of the assets that a helper function of the step reads as globals, by name; empty outside notebooks."""
        if self.executor.namespace is None:
            return {}
        return {given.name: self._value(given.keys[0], step) for given in step.inputs if not given.is_declared}

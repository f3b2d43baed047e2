"""The engine: walks a plan once and decides for each step whether it is reused, run, skipped or never started.

It knows the order (the plan), asks `Known` whether a step must run, has an executor run it, and keeps the records. Values
are loaded only when a step that runs needs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import call
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.errors import StepwellError, StoreError, UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.execution.bookkeeping import Bookkeeping, Claiming
from stepwell.kernel_runtime.execution.capture import proxied
from stepwell.kernel_runtime.execution.contexts import OpExecutionContext, context_for, plain_metadata
from stepwell.kernel_runtime.execution.in_process import InProcess, Outcome
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.live_cells import LiveRun
from stepwell.kernel_runtime.execution.notebook import NotebookCells
from stepwell.kernel_runtime.execution.result import RunResult, is_interrupt, user_object_error
from stepwell.kernel_runtime.execution.seeds import HiddenState, Seeds
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.planning.memo import Known
from stepwell.kernel_runtime.planning.plan import Plan, PlanInput, PlanStep
from stepwell.kernel_runtime.records.bulk import no_collection
from stepwell.kernel_runtime.records.events import Notice, notice
from stepwell.kernel_runtime.records.materializations import (
    NOTEBOOK,
    CodeVersion,
    Effects,
    InputVersion,
    Materialization,
    StoredValue,
    provenance,
)
from stepwell.kernel_runtime.records.runs import FORCED, RunRecord
from stepwell.kernel_runtime.store.processes import this_process
from stepwell.kernel_runtime.store.values.structure import name_parts
from stepwell.kernel_runtime.versions.data import data_version

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_IMMUTABLE = frozenset({int, float, str, bytes, bool, type(None), complex})
"""Exact types whose values are shared between consumers instead of being loaded for each."""


def _is_immutable(value: Any) -> bool:
    kind = type(value)
    # The hash of a class with another metaclass is the user's code, which may never end.
    return type(kind) is type and kind in _IMMUTABLE


@dataclass(slots=True)
class Request:
    """What is asked of the engine beside the plan."""

    forced: frozenset[str] = frozenset()
    """Keys of steps that run even if they could be reused."""
    shown: frozenset[str] = frozenset()
    """Keys of steps whose displays appear while they run."""
    namespace: dict[str, Any] | None = None
    """The notebook's namespace, for helpers that read assets by name."""
    code_parts: Callable[[PlanStep], CodeVersion | None] = field(default=lambda step: step.code)
    """Returns a step's code version with the parts that explain it."""
    notices: tuple[Notice, ...] = ()
    hidden: HiddenState | None = None
    """Watches what bodies change; None where code versions are given and final."""
    seed_steps: bool = True
    """Whether the global random generators are seeded before each body."""
    timeline: Timeline | None = None
    """What happened to the names of the notebook; None where there is no notebook."""
    said: set[Notice] = field(default_factory=set)
    """Notices that are given once per session, and were."""
    told: list[Notice] = field(default_factory=list)
    """Notices of the store while the run goes on."""
    strict: bool = False
    """Whether a value of an asset cell that cannot be stored is a failure, as everywhere else."""


_AS_IT_IS = nullcontext()
_WITHOUT_VALUE = frozenset(("failed", "cancelled", "untouched"))


class _ValueLostError(Exception):
    """A stored value could not be loaded, and the step that gives it was run again in vain."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Engine:
    """Runs one plan."""

    def __init__(
        self,
        *,
        plan: Plan,
        known: Known,
        store: ValueStore,
        executor: InProcess,
        guard: InterruptGuard,
        books: Bookkeeping,
        request: Request,
    ) -> None:
        self.plan = plan
        self.known = known
        self.store = store
        self.executor = executor
        self.guard = guard
        self.books = books
        books.look = guard.look
        self.request = request
        self.memory: dict[str, Any] = {}
        """Values by value key: of jobs the objects themselves, else exact immutables and what is not isolated."""
        self.error: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.notices = list(request.notices)
        self.seeds = Seeds(enabled=request.seed_steps)
        self.claiming = Claiming(store, known, books, guard, len(plan.steps))
        self.collection = no_collection()
        self.cells = (
            NotebookCells(request.timeline, store, self.seeds, self.notices.append, strict=request.strict)
            if request.timeline is not None
            else None
        )
        self._run_again = 0
        self._obstacles: dict[str, str] = {}
        """By step, why what the store has of it cannot be restored in the notebook."""
        self._kept_codes: set[str] | None = None
        """Code versions that some materialization of an earlier run has; they are written together with it."""

    def run(self) -> RunResult:
        """Run the plan to its end, or to an interrupt; return what happened. Exceptions of user code are in the result."""
        steps = self.plan.steps
        self.books.begin(steps)
        interrupted = False
        try:
            with proxied(), self.collection:
                for position, step in enumerate(steps, 1):
                    if self.guard.interrupted:
                        interrupted = True
                        break
                    if self._decided(step, position) == "cancelled":
                        interrupted = True
                        break
        finally:
            self.seeds.restore()
            self.claiming.close()
        for step in steps:
            if step.key not in self.books.steps:
                self.books.not_run(step, skipped=False)
        failed = any(record.status == "failed" for record in self.books.steps.values())
        run, records = self.books.finish(
            "cancelled" if interrupted else "failure" if failed else "success",
            self.error,
            steps,
            waiting=self.guard.committing,
        )
        return RunResult(
            run,
            records,
            error=self.error,
            interrupt=self.interrupt,
            load=self._load_stored,
            values=self.known.values,
            memory=self.memory,
            notices=(*self.notices, *self.request.told),
        )

    # -- one step

    def _decided(self, step: PlanStep, position: int) -> str:
        """Decide a step; whatever its objects do, it ends with a record and the steps that do not need it go on."""
        try:
            return self._decide(step, position)
        except StoreError:
            raise
        except BaseException as error:
            if step.key in self.books.steps:
                raise
            if self._is_users_interrupt(error):
                self.interrupt = error
                self.books.failed(step, error, "", started=time.time(), code=step.code, cancelled=True)
                return "cancelled"
            if not issubclass(type(error), StepwellError | MemoryError):
                error = user_object_error(step, "an object that it reaches, takes or gives", error)
            return self._fail(step, error, "", ())

    def _decide(self, step: PlanStep, position: int) -> str:
        held = self._held_back(step)
        if held is not None:
            if held == "skipped":
                self.books.not_run(step, skipped=True)
            return held
        inputs = self.known.inputs(step)
        if inputs is None:
            missing = next(key for key in step.input_keys if key not in self.known.values)
            return self._fail(
                step,
                ValueUnavailableError(f"step {step.key!r} needs {missing!r}, which has no value", where=step.where),
                "",
                (),
            )
        self._settle(step)
        memo = self.known.key(step, inputs)
        forced = step.key in self.request.forced
        if not forced and self._reuse_found(step, memo):
            return "reused"
        try:
            if not forced and self.claiming.before(step, memo, position) and self._reuse_found(step, memo):
                return "reused"
            # The interrupt may have come while another process was waited for.
            return "cancelled" if self.guard.interrupted else self._execute(step, memo, inputs, position, forced=forced)
        finally:
            self.claiming.ended()

    def _reuse_found(self, step: PlanStep, memo: str) -> bool:
        """Reuse what the store has of a step, if there is such a result and its effects can be restored."""
        group = self._found(step, memo)
        if group is None:
            return False
        if self.cells is not None and self.cells.is_live(step):
            self.collection.let()
            try:
                obstacle = self.cells.reuse(step, group)
            finally:
                self.collection.hold()
            if obstacle:
                self._obstacles[step.key] = obstacle
                return False
            if len(group) > len(step.outputs):
                self._rekey()
            again = self.cells.later_changes_text(step)
            if again:
                self.notices.append(notice("changed later", step.key, changes=again))
        self._reuse(step, memo, group)
        return True

    def _rekey(self) -> None:
        """Have the steps that follow keyed again: effects were applied."""
        self.known.forget_checks()
        if self.request.hidden is not None:
            self.request.hidden.changed()

    def _found(self, step: PlanStep, memo: str) -> tuple[Materialization, ...] | None:
        """Return what the store has of a step; a target's value must be there, too."""
        group = self.known.hit(step, memo)
        if group is not None and step.key in self.plan.target_steps:
            lost = next((f"{item.key}: {why}" for item in group if (why := self.known.lost(item))), "")
            if lost:
                note = notice("computed again", step.key, why=lost)
                # Of values that another key signed the run says one line for all.
                if note not in self.notices and not any(item.id in self.known.snapshot.foreign for item in group):
                    self.notices.append(note)
                return None
        return group

    def _reuse(self, step: PlanStep, memo: str, group: tuple[Materialization, ...]) -> str:
        for item in group:
            self.known.values[item.key] = item
        self.books.reused(step, memo, group)
        return "reused"

    def _held_back(self, step: PlanStep) -> str | None:
        """Tell whether something upstream keeps a step from running: ``untouched``, ``skipped`` or None."""
        values, producers, done = self.known.values, self.plan.producers, self.books.steps
        skipped = False
        for given in step.inputs:
            if len(given.keys) == 1 and given.keys[0] in values:
                producer = producers.get(given.keys[0])
                record = done.get(producer.key) if producer is not None else None
                if producer is None or (record is not None and record.status not in _WITHOUT_VALUE):
                    continue
            lacking = [key for key in given.keys if key not in values and (key in producers or key in self.plan.absent)]
            for key in given.keys:
                producer = producers.get(key)
                if producer is not None:
                    record = done.get(producer.key)
                    if record is None or record.status in _WITHOUT_VALUE:
                        return "untouched"
            if lacking and (not given.fan_in or len(lacking) == len(given.keys)):
                skipped = True
        return "skipped" if skipped else None

    def _execute(
        self, step: PlanStep, memo: str, inputs: tuple[InputVersion, ...], position: int, *, forced: bool = False
    ) -> str:
        started = time.time()
        # Told now: afterwards the world is as the step leaves it.
        reason = FORCED if forced and self.plan.kind != "job" else self._reason(step, memo, inputs)
        self.books.started(step, position, len(self.plan.steps))
        before = self._run_again
        live = self.cells is not None and self.cells.is_live(step)
        run: LiveRun | None = None
        try:
            if self.cells is not None and live:
                self.cells.check(step)
            arguments, hidden = self.guard.look(lambda: (self._arguments(step), {} if live else self._hidden(step)))
        except _ValueLostError as lost:
            if lost.status == "cancelled":
                return "cancelled"
            self.books.not_run(step, skipped=False)
            return "untouched"
        except (StepwellError, MemoryError) as error:
            return self._fail(step, error, memo, inputs, started=started)
        if self._run_again != before:
            # What was run again may have another value than the one that was lost.
            inputs = self.known.inputs(step) or inputs
            memo = self.known.key(step, inputs)
        state = None if live else self.request.hidden
        memo = self._with_present_names(step, memo, inputs)
        # What explains a code version is read before the body can change it.
        watched, code = self.guard.look(
            lambda: (state.before(step) if state is not None else None, self._explained(step))
        )
        self.seeds.seed(step.key, live=live)
        cells = self.cells
        if cells is not None and live:
            run = self.guard.look(partial(cells.begin, step, arguments, self._coded(step)))
        self.claiming.computing(step, memo)
        self.collection.let()
        with self._asset_names(hidden) if hidden else _AS_IT_IS:
            outcome = self.executor.run(step, arguments, show_displays=step.key in self.request.shown)
        self.collection.hold()
        if state is not None and (watched is not None or step.code is None):
            self._tell_changes(step, self.guard.look(lambda: state.after(step, watched)))
        expires = step.op.volatile or step.op.max_age is not None or not step.memoised
        if outcome.network and not expires:
            used = notice("network", step.key, hosts=outcome.network[:3])
            if used not in self.request.said:
                self.request.said.add(used)
                self.notices.append(used)
        if outcome.unseen and not expires:
            reader, _, what = outcome.unseen[0].partition(": ")
            self.notices.append(notice("unseen read", step.key, reader=reader, what=what))
        if outcome.children and not expires and not step.op.reads:
            self.notices.append(notice("processes", step.key, programs=outcome.children[:3]))
        context = arguments.get(step.op.context) if step.op.context is not None else None
        if isinstance(context, OpExecutionContext):
            for name, metadata in context.output_metadata.items():
                if name in outcome.produced:
                    outcome.produced[name].metadata.update(metadata)
        del arguments
        return self._keep(step, outcome, memo, inputs, started=started, code=code, reason=reason, run=run)

    def _with_present_names(self, step: PlanStep, memo: str, inputs: tuple[InputVersion, ...]) -> str:
        """Return the memo key of an asset cell that is about to run: it reads the notebook as it is now."""
        state = self.request.hidden
        cells = self.cells
        if state is None or cells is None or not cells.is_live(step) or not cells.is_renamed(step):
            return memo
        state.changed()
        self._settle(step)
        return self.known.key(step, inputs)

    def _reason(self, step: PlanStep, memo: str, inputs: tuple[InputVersion, ...]) -> str:
        """Return why a step runs although nothing that its memo key has was changed; empty if something was."""
        obstacle = self._obstacles.pop(step.key, "")
        if obstacle or self.plan.kind == "job":
            return obstacle
        return self.known.refusal(step, memo) or self._made_again(step, inputs)

    def _made_again(self, step: PlanStep, inputs: tuple[InputVersion, ...]) -> str:
        """Return which input without a stored value was computed again since the step ran last; empty if none was."""
        given = {each.name for each in step.inputs if each.carries_value}
        lacking = [
            each
            for each in inputs
            if each.name in given and each.key in self.known.values and self.known.values[each.key].value is None
        ]
        if not lacking:
            return ""
        earlier = self.known.snapshot.current.get(step.outputs[0].key, ())
        before = {(each.name, each.version) for row in earlier[:1] for each in row.materialization.inputs}
        changed = [each.key for each in lacking if (each.name, each.version) not in before]
        return f"{changed[0]} is not stored and was computed again" if earlier and changed else ""

    def _coded(self, step: PlanStep) -> set[str]:
        """Return the inputs of a step whose values may hold functions of the notebook, or instances of its classes."""
        found = set()
        for given in step.inputs:
            values = [self.known.values[key].value for key in given.keys if key in self.known.values]
            if any(each is None or any(name.startswith("__main__.") for name, _ in each.classes) for each in values):
                found.add(given.name)
        return found

    def _explained(self, step: PlanStep) -> CodeVersion | None:
        """Return a step's code version, with the parts that explain it unless the store has them from an earlier run."""
        if self._kept_codes is None:
            found = self.known.snapshot.by_memo_key.values()
            self._kept_codes = {group[0].code_version for groups in found for group in groups}
        if step.code is not None and step.code.digest in self._kept_codes:
            return step.code
        return self.request.code_parts(step)

    def _settle(self, step: PlanStep) -> None:
        """Key a step anew if one before it has changed what its code reaches."""
        state = self.request.hidden
        if state is not None and self.guard.look(lambda: state.settle(step)) and step.code is not None:
            address, digest = step.address, step.code.digest
            # An interrupt while it waits ends the run before this step begins.
            with suppress(KeyboardInterrupt):
                found = self.guard.call(lambda: self.store.snapshot([], [address], [digest], remember=False))
                self.known.snapshot.take(found)

    def _tell_changes(self, step: PlanStep, names: tuple[str, ...]) -> None:
        if names:
            self.notices.append(notice("global changed", step.key, names=tuple(names)))

    def _keep(  # noqa: PLR0915 - everything that becomes of an outcome, in one order
        self,
        step: PlanStep,
        outcome: Outcome,
        memo: str,
        inputs: tuple[InputVersion, ...],
        *,
        started: float,
        code: CodeVersion | None,
        reason: str,
        run: LiveRun | None = None,
    ) -> str:
        """Store what a body produced, and record how it ended."""
        error = outcome.error
        if error is not None and self.cells is not None:
            self.cells.name_writers(outcome)
        effects, kept_value = Effects(), None
        stored: dict[str, tuple[StoredValue | None, str]] = {}
        not_kept: list[str] = []
        unstored: list[str] = []
        is_job = self.plan.kind == "job" and not step.memoised
        try:
            for produced in outcome.produced.values():
                if produced.metadata:
                    # What is recorded of it must be plain, also where this fails.
                    given, produced.metadata = produced.metadata, {}
                    produced.metadata = self.guard.look(partial(plain_metadata, step, given))
            results = list(outcome.produced.items())
            if run is not None and self.cells is not None and error is None:
                effects, kept_value = self.cells.keep(step, run, outcome, memo)
            for name, produced in results:
                key = produced.output.key
                if not produced.output.stored:
                    stored[name] = (None, "")
                    continue
                # Plain values have no code that could take for ever.
                look = call if _is_immutable(produced.value) else self.guard.look
                version = "" if is_job else look(partial(data_version, produced.value)) or ""
                kept = memo if error is None else ""
                try:
                    about = partial(
                        self.books.sketch, step, outcome, name, version=version, memo=kept, inputs=inputs, code=code,
                        effects=effects,
                    )  # fmt: skip
                    value = look(
                        partial(
                            self.store.put, produced.value, key=key, memo_key=kept, about=about, portable=run is None
                        )
                    )
                except UnstorableValueError as unstorable:
                    if not is_job and (run is None or self._must_be_stored(step)):
                        raise
                    # In a kernel the value lives on, under the variable that it is bound to.
                    held = unstorable.what.partition(" cannot be stored: ")[2] if run is not None else ""
                    not_kept.append(f"{name}: {held or name_parts(type(produced.value))[1]}")
                    stored[name] = (None, "")
                    unstored.append(name)
                else:
                    stored[name] = (value, version or value.digest)
                if is_job or _is_immutable(produced.value) or not step.isolate:
                    self.memory[key] = produced.value
            if unstored and run is not None and self.cells is not None:
                effects = self.cells.lacking(step, effects, unstored)
                if code is None or not code.unverifiable:
                    stored.update([(name, (None, provenance(memo, outcome.reads, name))) for name in unstored])
            if effects:
                stored[NOTEBOOK] = (kept_value, kept_value.digest if kept_value is not None else "none")
        except BaseException as broken:
            if error is None:
                error = broken
                if not issubclass(type(broken), StepwellError | MemoryError) and not self._is_users_interrupt(broken):
                    error = user_object_error(step, "storing what it gave", broken)
                stored = {name: each for name, each in stored.items() if outcome.produced[name].output.stored is False}
        if error is None:
            made = self.books.executed(
                step,
                outcome,
                memo,
                inputs,
                stored,
                started=started,
                code=code,
                not_kept=tuple(not_kept),
                reason=reason,
                effects=effects,
            )
            self.known.values.update([(item.key, item) for item in made])
            if run is not None and self.cells is not None:
                self.cells.executed(step, run, outcome, {item.output: item for item in made}, effects)
                if effects:
                    self._rekey()
            return "executed"
        if run is not None and self.cells is not None:
            self.cells.failed(step, run)
            self._rekey()
        cancelled = is_interrupt(error)
        self.books.failed(
            step, error, memo, inputs, started=started, outcome=outcome, stored=stored, code=code, cancelled=cancelled
        )
        if cancelled:
            self.interrupt = error
        elif self.error is None:
            self.error = error
        return "cancelled" if cancelled else "failed"

    def _must_be_stored(self, step: PlanStep) -> bool:
        body = step.op.body
        return self.cells is not None and isinstance(body, CellBody) and self.cells.must_be_stored(body)

    def _is_users_interrupt(self, error: BaseException) -> bool:
        """Return whether an exception is Ctrl-C, and not a KeyboardInterrupt that an object raised."""
        return is_interrupt(error) and self.guard.interrupted

    def _fail(
        self, step: PlanStep, error: BaseException, memo: str, inputs: tuple[InputVersion, ...], *, started: float = 0.0
    ) -> str:
        self.books.failed(step, error, memo, inputs, started=started or time.time(), code=step.code)
        if self.error is None:
            self.error = error
        return "failed"

    # -- values

    def _arguments(self, step: PlanStep) -> dict[str, Any]:
        """Load a step's inputs, check their types, and add config and context."""
        op = step.op
        arguments: dict[str, Any] = dict(step.config)
        for given in step.inputs:
            if not given.carries_value or not given.declared:
                continue
            if not given.keys and not given.fan_in:
                arguments[given.name] = given.default
                continue
            if self._is_bound(step, given):
                continue
            if given.fan_in:
                value: Any = [self._value(key, step) for key in given.keys if key in self.known.values]
            else:
                value = self._value(given.keys[0], step)
            if given.name in op.input_checks:
                op.check_input(given.name, value, step.key)
            arguments[given.name] = value
        if op.context is not None and not isinstance(op.body, CellBody):
            job = self.plan.targets[0] if self.plan.kind == "job" else ""
            arguments[op.context] = context_for(step, self.books.run.run_id, job, self.books.log)
        return arguments

    def _is_bound(self, step: PlanStep, given: PlanInput) -> bool:
        """Return True if the notebook has the value of a cell's input under its name."""
        if self.cells is None or given.fan_in or not self.cells.is_live(step):
            return False
        item = self.known.values.get(given.keys[0])
        return item is not None and self.cells.has_input(given.name, item)

    def _value(self, key: str, step: PlanStep) -> Any:
        """Return a value for one consumer; compute it again if its file is gone and the plan can."""
        if key in self.memory:
            return self.memory[key]
        item = self.known.values[key]
        if item.value is None and self.cells is not None:
            producer = self.plan.producers.get(key)
            if producer is not None and self.cells.is_live(producer):
                if not self.cells.has_value(key, item):
                    self._again(producer)
                return self.cells.value(key)
        if item.value is None:
            raise ValueUnavailableError(
                f"step {step.key!r} takes the value of {key!r}, which has none stored",
                where=step.where,
                remedy=f"{key} returns None by its annotation, or could not be kept: use deps=[{key!r}] to only come after it",
            )
        producer = self.plan.producers.get(key)
        try:
            value = self._load_stored(item)
        except ValueUnavailableError as error:
            if producer is None or not producer.memoised or self.books.steps[producer.key].status != "reused":
                raise
            self.notices.append(notice("computed again", step.key, why=error.what))
            self._again(producer)
            return self._value(key, step)
        if _is_immutable(value) or (producer is not None and not producer.isolate):
            self.memory[key] = value
        return value

    def _again(self, producer: PlanStep) -> None:
        """Run a step again whose stored value cannot be loaded, or take what another process has made of it meanwhile."""
        inputs = self.known.inputs(producer) or ()
        memo = self.known.key(producer, inputs)
        position = self.plan.steps.index(producer) + 1
        self._run_again += 1
        self.claiming.drop()
        try:
            if self.claiming.before(producer, memo, position):
                group = self._found(producer, memo)
                if group is not None and group[0].id not in {item.id for item in self.known.values.values()}:
                    self._reuse(producer, memo, group)
                    return
            status = "cancelled" if self.guard.interrupted else self._execute(producer, memo, inputs, position)
        finally:
            self.claiming.ended()
        if status != "executed":
            raise _ValueLostError(status)

    def _load_stored(self, item: Materialization) -> Any:
        if item.value is None:
            raise ValueUnavailableError(f"{item.key!r} has no stored value")
        return self.store.get(item.value, key=item.key)

    def _hidden(self, step: PlanStep) -> dict[str, Any]:
        """Return the values of assets that a helper reads by their global names."""
        if self.request.namespace is None:
            return {}
        return {given.name: self._value(given.keys[0], step) for given in step.inputs if not given.declared}

    @contextmanager
    def _asset_names(self, hidden: Mapping[str, Any]) -> Iterator[None]:
        """Let a helper find the stored value of an asset under its global name while a step runs."""
        space = self.request.namespace
        if space is None:
            yield
            return
        absent = object()
        before: Mapping[str, Any] = {name: space.get(name, absent) for name in hidden}
        try:
            space.update(hidden)
            yield
        finally:
            for name, value in before.items():
                if value is absent:
                    space.pop(name, None)
                else:
                    space[name] = value


def new_run(run_id: str, plan: Plan, notebook: str, *, batch: str, parent: RunRecord | None = None) -> RunRecord:
    """Return the record of a run that is about to start."""
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

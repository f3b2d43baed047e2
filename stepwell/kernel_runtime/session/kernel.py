"""`Session`: what the faces and the public functions use. One per process, made at first use."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import source_of
from stepwell.kernel_runtime.definitions.jobs import JobDefinition
from stepwell.kernel_runtime.definitions.registry import REGISTRY, Registry
from stepwell.kernel_runtime.errors import (
    InvalidInvocationError,
    InvariantViolationError,
    StoreError,
    ValueUnavailableError,
    unknown_key,
)
from stepwell.kernel_runtime.execution.bookkeeping import Bookkeeping
from stepwell.kernel_runtime.execution.engine import Engine, Request, new_run
from stepwell.kernel_runtime.execution.hidden_state import HiddenState
from stepwell.kernel_runtime.execution.in_process import InProcess
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.planning.build import (
    Definitions,
    build_job_plan,
    build_plan,
    resolve_targets,
    step_extra,
    step_owner,
    unknown_step,
)
from stepwell.kernel_runtime.planning.flatten import asset_steps
from stepwell.kernel_runtime.planning.memo import Known
from stepwell.kernel_runtime.planning.picture import picture
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.planning.states import StepState, plan_states
from stepwell.kernel_runtime.records.code import CodeVersion
from stepwell.kernel_runtime.records.events import DefinitionsChanged, Event, Subscriber
from stepwell.kernel_runtime.records.ids import new_id
from stepwell.kernel_runtime.records.lineage import Lineage
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.outputs import CapturedOutput
from stepwell.kernel_runtime.records.protocols import ValueStore
from stepwell.kernel_runtime.records.reads import Read
from stepwell.kernel_runtime.records.runs import RunRecord
from stepwell.kernel_runtime.session.acceptance import accept_step, check_acceptable, reader_of_now, revoke_step
from stepwell.kernel_runtime.session.currents import choose
from stepwell.kernel_runtime.session.explanation import Explainer, Explanation
from stepwell.kernel_runtime.session.preparation import check_reads, known_for, read_notes
from stepwell.kernel_runtime.session.project import in_ipython, notebook_name, store_directory
from stepwell.kernel_runtime.session.requests import Given, Targets, lookup, read_targets
from stepwell.kernel_runtime.session.single_steps import not_produced, plan_of_steps, plan_to_resume, what_is_left
from stepwell.kernel_runtime.session.sql import run_sql
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.versions.classes import class_version
from stepwell.kernel_runtime.versions.reads import active, watch
from stepwell.kernel_runtime.versions.reads.environment import Keyed, process_keyed
from stepwell.kernel_runtime.versions.secrets import hidden_source
from stepwell.kernel_runtime.versions.walk import CodeWalk


class Session:
    """The registry, the store and the runs of one kernel or process.

    Attributes
    ----------
    registry
        What is defined.
    namespace
        The notebook's namespace; None where there is no notebook.
    last_run
        The result of the newest run, also of one that failed; None before the first.
    after_run
        Called with the result of every run: a face says what is to be said of it.
    before_raising
        Called with an exception of a step before it is raised again: a face says how it is to be shown.
    seed_steps
        Whether the global random generators are seeded from the step's key before each body.
    """

    def __init__(self, registry: Registry = REGISTRY) -> None:
        self.registry = registry
        self.namespace: dict[str, Any] | None = None
        self.last_run: RunResult | None = None
        self.after_run: Callable[[RunResult], None] | None = None
        self.before_raising: Callable[[BaseException, RunResult], None] | None = None
        self.seed_steps = True
        self._store: ValueStore | None = None
        self._stores: dict[Path, ValueStore] = {}
        self._subscribers: list[Subscriber] = []
        self._advised: set[str] = set()
        self._running = threading.Lock()
        self._guard: InterruptGuard | None = None
        self._run_store: ValueStore | None = None
        registry.notebook = lambda: self.notebook
        registry.changed = lambda keys: self.publish(DefinitionsChanged(keys))

    # -- what it holds

    @property
    def store(self) -> ValueStore:
        """The session's store, opened at first use: the project's in IPython, a throw-away one in a plain process."""
        if self._store is None:
            if in_ipython() or self.namespace is not None or os.environ.get("STEPWELL_STORE"):
                self._store = self.open(store_directory(self.namespace))
            else:
                folder = tempfile.mkdtemp(prefix="stepwell-")
                atexit.register(shutil.rmtree, folder, ignore_errors=True)
                self._store = self.open(Path(folder) / "store")
        return self._store

    def open(self, path: str | os.PathLike[str], *, create: bool = True) -> ValueStore:
        """Return the open store of a directory; one per directory and process."""
        from stepwell.kernel_runtime.store.store import open_store

        directory = Path(path).absolute()
        found = self._stores.get(directory)
        if found is None:
            found = self._stores[directory] = open_store(directory, create=create, class_version=class_version)
        return found

    def use(self, path: str | os.PathLike[str]) -> ValueStore:
        """Switch the session to another store and return it."""
        self._store = self.open(path)
        # Every state is another one now.
        self.publish(DefinitionsChanged(()))
        return self._store

    def chosen(self, store: ValueStore | str | os.PathLike[str] | None, *, create: bool = False) -> ValueStore:
        """Return a store given as a directory or open, or the session's; a directory is made only where `create` says so."""
        if store is None:
            return self.store
        return self.open(store, create=create) if isinstance(store, str | os.PathLike) else store

    @property
    def notebook(self) -> str:
        """The name under which definitions of ``__main__`` are recorded."""
        base = self._store.directory if self._store is not None else store_directory(self.namespace)
        return notebook_name(base, self.namespace)

    def attach(self, namespace: dict[str, Any] | None) -> None:
        """Say which namespace is the notebook's."""
        self.namespace = namespace

    def close(self) -> None:
        """Commit what is pending and let every store go."""
        for store in self._stores.values():
            store.close()

    # -- events

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with every event; return what ends that. A step's end may come from the catalog's thread."""
        self._subscribers.append(subscriber)

        def end() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return end

    def publish(self, event: Event) -> None:
        """Hand an event to every subscriber; one that fails does not keep the others from it."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:
                print(f"stepwell: {getattr(subscriber, '__qualname__', subscriber)} failed: {error!r}", file=sys.stderr)  # noqa: T201 - the run must go on, and this must be seen

    # -- runs

    def materialize(
        self,
        targets: Targets = None,
        *,
        definitions: Given = None,
        store: ValueStore | str | os.PathLike[str] | None = None,
        force: bool = False,
        upstream: bool = True,
        raise_on_error: bool = True,
        show: Collection[str] = (),
    ) -> RunResult:
        """Bring assets and every upstream that they need up to date.

        Parameters
        ----------
        targets
            Definitions, keys, step keys or selection strings; None for everything registered.
        definitions
            Where upstreams are looked up first: definitions or a module.
        force
            Whether the targets run even if they could be reused.
        upstream
            Whether upstream assets are brought up to date too; else they are read from the store.
        raise_on_error
            Whether an exception of the user's code is raised again after the run is recorded.
        show
            Keys of steps whose displays appear while they run.

        Raises
        ------
        UnknownKeyError, InvalidSelectionError, DuplicateKeyError, CycleError, MissingUpstreamError
            Before anything is run or recorded.
        """
        given, words = read_targets(targets)
        found = lookup(self.registry, definitions, given)
        walk = self._walk(found)
        plan = build_plan(resolve_targets(words, found), found, walk, upstream=upstream)
        used = self.chosen(store, create=True)
        return self._run(
            plan,
            walk,
            found,
            used,
            forced=plan.target_steps if force else frozenset(),
            shown=frozenset(show),
            raise_on_error=raise_on_error,
            notes=() if upstream else self._stale_notes(plan, found, walk, used),
        )

    def execute_job(self, job: JobDefinition, *, store: Any = None, raise_on_error: bool = True) -> RunResult:
        """Run a job; its ops are never skipped, assets that it reads are read as they are stored."""
        found = lookup(self.registry, [job])
        walk = self._walk(found)
        plan = build_job_plan(job, walk)
        used = self.chosen(store, create=True)
        notes = self._stale_notes(plan, found, walk, used)
        return self._run(plan, walk, found, used, shown=plan.target_steps, raise_on_error=raise_on_error, notes=notes)

    def rerun(
        self,
        keys: Targets,
        *,
        definitions: Given = None,
        store: Any = None,
        raise_on_error: bool = True,
        show: Collection[str] = (),
    ) -> RunResult:
        """Run single steps on the stored outputs of the others, even where these are stale.

        Parameters
        ----------
        keys
            Step keys (``report.transform``, or ``job.step`` for a job's), or asset keys or assets for all of their steps.

        Raises
        ------
        UnknownKeyError
            If no step is called so.
        DefinitionUnavailableError
            If the store knows the key but no code is given or registered.
        """
        given, wanted = read_targets(keys)
        if not wanted:
            raise InvalidInvocationError(
                "no step to run again is named", remedy="for example: stepwell.rerun(['report.transform'])"
            )
        found = lookup(self.registry, definitions, given)
        used = self.chosen(store)
        walk = self._walk(found)
        plan = plan_of_steps(wanted, found, walk, used)
        return self._run(
            plan,
            walk,
            found,
            used,
            forced=frozenset(step.key for step in plan.steps),
            shown=frozenset(show),
            raise_on_error=raise_on_error,
            notes=self._stale_notes(plan, found, walk, used),
        )

    def resume(
        self, run_id: str, *, definitions: Given = None, store: Any = None, raise_on_error: bool = True
    ) -> RunResult:
        """Execute again exactly the steps of a run that failed or never started; the others' outputs are loaded.

        Raises
        ------
        UnknownKeyError
            If there is no such run.
        InvariantViolationError
            If the run neither failed nor was cancelled.
        DefinitionUnavailableError
            If no code for it is given or registered.
        ValueNotKeptError
            If a job's step needs a value that could not be stored.
        """
        used = self.chosen(store)
        parent = used.run(run_id)
        if parent is None:
            raise unknown_key("run", run_id, [run.run_id for run in used.runs(limit=50)])
        run, records = parent
        if run.status == "success":
            raise InvariantViolationError(
                f"the run {run_id} succeeded: there is nothing to resume",
                remedy=f"to run it again: stepwell.materialize({list(run.targets)!r})",
            )
        found = lookup(self.registry, definitions)
        walk = self._walk(found)
        again, given, ended = what_is_left(run, records, used)
        plan = plan_to_resume(run, again, found, walk, used)
        plan.absent = not_produced(plan, ended, given, found)
        return self._run(
            plan,
            walk,
            found,
            used,
            shown=plan.target_steps,
            raise_on_error=raise_on_error,
            parent=run,
            given=given,
        )

    def cancel(self) -> None:
        """Stop the run that is going on before its next step."""
        if self._guard is not None:
            self._guard.cancel()

    # -- looking

    def states(self, targets: Targets = None, *, definitions: Given = None, store: Any = None) -> dict[str, StepState]:
        """Return the state of the steps of assets and of everything upstream of them, in an order in which they could run."""
        given, words = read_targets(targets)
        found = lookup(self.registry, definitions, given)
        walk = self._walk(found)
        return self._states(build_plan(resolve_targets(words, found), found, walk), walk, self.chosen(store))

    def code_versions(self) -> dict[str, str]:
        """Return the code version of each step of what is registered, by the step's key."""
        found = lookup(self.registry)
        plan = build_plan(resolve_targets(None, found), found, self._walk(found))
        return {step.key: step.code.digest for step in plan.steps if step.code is not None}

    def accept(self, key: str, *, definitions: Given = None, store: Any = None) -> Explanation:
        """Mark the edits that make an asset or step stale as not mattering: what is stored is valid for what is there now.

        What is fresh stays as it is, so that a notebook that accepts can be run again. It is on the record and shown by `why`; `revoke` takes it back.

        Raises
        ------
        UnknownKeyError
            If nothing is called so.
        ValueUnavailableError
            If nothing is stored.
        InvariantViolationError
            If something upstream is to be decided first.
        """
        steps = self._own_steps(key, definitions)
        used = self.chosen(store)
        accepted: list[str] = []
        for step_key in steps:
            # What one step accepts decides the state of the next.
            plan, walk, known, states = self._looked_at(key, definitions, used)
            step, state = plan.step(step_key), states[step_key]
            if step is None or state.state == "fresh":
                continue
            check_acceptable(step, state)
            read_anew = reader_of_now(users_digest(), lambda read: _version_of(self._loaded(read, used)))
            accept_step(step, state, used, code_parts(walk)(step), self.notebook, holds=known.holds, read_anew=read_anew)
            accepted.append(step_key)
        if accepted:
            self.publish(DefinitionsChanged(tuple(accepted)))
        return self.why(key, definitions=definitions, store=used)

    def revoke(self, key: str, *, definitions: Given = None, store: Any = None) -> Explanation:
        """Take back the newest acceptance of an asset or step; errors as in `accept`."""
        steps = self._own_steps(key, definitions)
        used = self.chosen(store)
        plan, _, _, states = self._looked_at(key, definitions, used)
        taken = [
            step.key
            for step_key in steps
            if (step := plan.step(step_key)) is not None and revoke_step(step, states[step_key], used, self.notebook)
        ]
        if not taken:
            raise InvariantViolationError(
                f"nothing was accepted for {key!r}: there is nothing to revoke", remedy=f"%why {key} tells its state"
            )
        self.publish(DefinitionsChanged(tuple(taken)))
        return self.why(key, definitions=definitions, store=used)

    def why(self, key: str, *, definitions: Given = None, store: Any = None) -> Explanation:
        """Return why an asset or step is in its state.

        Raises
        ------
        UnknownKeyError
            If nothing is called so.
        """
        steps = self._own_steps(key, definitions)
        *_, states = self._looked_at(key, definitions, self.chosen(store))
        return Explanation(key, tuple(states[step] for step in steps))

    def _owner(self, key: str, found: Definitions) -> AssetsDefinition:
        owner = found.asset(key)
        if not isinstance(owner, AssetsDefinition):
            owner = step_owner(key, found)
        if owner is None:
            raise unknown_step(key, found, found.keys)
        return owner

    def _own_steps(self, key: str, definitions: Given) -> list[str]:
        """Return the keys of the steps that a key means, in the order of the definition."""
        steps = [step.key for step in asset_steps(self._owner(key, lookup(self.registry, definitions)))]
        return [key] if key in steps else steps

    def _looked_at(
        self, key: str, definitions: Given, store: ValueStore
    ) -> tuple[Plan, CodeWalk, Known, dict[str, StepState]]:
        found = lookup(self.registry, definitions)
        walk = self._walk(found)
        plan = build_plan([str(own) for own in self._owner(key, found).keys], found, walk)
        known = known_for(plan, store, self._choose, self._loaded)
        return plan, walk, known, plan_states(plan, known, Explainer(store, known, code_parts(walk)))

    def lineage(self) -> Lineage:
        """Return everything that is registered as cards and edges."""
        found = lookup(self.registry)
        walk = self._walk(found)
        plan = build_plan(resolve_targets(None, found), found, walk)
        jobs = [(job, build_job_plan(job, walk)) for job in found.jobs.values()]
        return picture(plan, self._states(plan, walk, self.store), found, jobs, lambda body: hidden_source(source_of(body)))

    def load(self, key: str, *, notebook: str | None = None, store: Any = None) -> Any:
        """Return the current value of an asset, or of a step inside a graph-backed asset or job.

        Parameters
        ----------
        notebook
            Whose value is meant, where several notebooks define the key.

        Raises
        ------
        ValueUnavailableError
            If there is none, or it cannot be loaded.
        AmbiguousKeyError
            If several notebooks define the key, still exist, and their current values differ.
        """
        step = active()
        # Inside a step what is meant is the store of its run.
        used = self._run_store if step is not None and store is None and self._run_store is not None else self.chosen(store)
        if step is not None:
            # What the store does for it is no read of the step.
            with step.looks():
                item = self.current(key, used, notebook=notebook)
            where = (notebook or "", "" if store is None else str(used.directory)) if notebook or store is not None else ()
            step.asset_loaded(key, item.data_version or item.id, where)
        else:
            item = self.current(key, used, notebook=notebook)
        if item.value is None:
            raise ValueUnavailableError(
                f"{key!r} has no stored value", remedy="its output is Nothing, or could not be kept"
            )
        return used.get(item.value, key=key)

    def current(self, key: str, store: ValueStore | None = None, *, notebook: str | None = None) -> Materialization:
        """Return the current materialization of a key, or of the only output of a step; errors as in `load`."""
        used = store or self.store
        rows = used.current(key)
        if not rows:
            owned = self._outputs_of_step(key)
            rows = used.current(owned[0]) if len(owned) == 1 else []
        if not rows:
            known = [*used.keys(), *self.registry.assets]
            remedy = (
                f"%materialize {key}, or stepwell.materialize([{key!r}])"
                if key in self.registry.assets
                else unknown_key("key", key, known).remedy
            )
            raise ValueUnavailableError(f"nothing is stored for {key!r}", where=str(used.directory), remedy=remedy)
        if notebook is not None:
            rows = [row for row in rows if row.notebook == notebook]
        item = self._choose(key, rows, used)
        if item is None:
            raise ValueUnavailableError(f"nothing is stored for {key!r}")
        return item

    def inputs(self, step_key: str) -> dict[str, Any]:
        """Return a step's stored inputs by the names of its parameters: for looking into a step that failed.

        Raises
        ------
        UnknownKeyError
            If no step is called so.
        ValueUnavailableError
            If an input has no stored value.
        """
        found = lookup(self.registry)
        plan = plan_of_steps([step_key], found, self._walk(found), self.store)
        values: dict[str, Any] = {}
        for step in plan.steps:
            for given in step.inputs:
                if given.carries_value and given.keys:
                    loaded = [self.load(key) for key in given.keys]
                    values[given.name] = loaded if given.fan_in else loaded[0]
                elif given.name and not given.keys:
                    values[given.name] = given.default
            values.update(step.config)
        return values

    def outputs(self, item: Materialization) -> tuple[CapturedOutput, ...]:
        """Return what the step printed and displayed when it made a materialization."""
        return self.store.outputs(item.run_id, item.step_key)

    # -- how

    def _loaded(self, read: Read, store: ValueStore) -> Materialization:
        """Return what an asset that a step loaded is now."""
        notebook, directory = read.names or ("", "")
        return self.current(read.name, self.open(directory, create=False) if directory else store, notebook=notebook or None)

    def _walk(self, found: Definitions) -> CodeWalk:
        watch()
        return CodeWalk(asset_names=found.names(), namespace=self.namespace, keyed=users_digest())

    def _choose(self, key: str, rows: list[Current], store: ValueStore) -> Materialization | None:
        entry = self.registry.assets.get(key)
        mine = getattr(entry.definition, "notebook", "") if entry is not None else ""
        return choose(key, rows, (mine, self.notebook), store.directory)

    def _states(self, plan: Plan, walk: CodeWalk, store: ValueStore) -> dict[str, StepState]:
        known = known_for(plan, store, self._choose, self._loaded)
        return plan_states(plan, known, Explainer(store, known, code_parts(walk)))

    def _run(
        self,
        plan: Plan,
        walk: CodeWalk,
        found: Definitions,
        store: ValueStore,
        *,
        forced: frozenset[str] = frozenset(),
        shown: frozenset[str] = frozenset(),
        raise_on_error: bool,
        parent: RunRecord | None = None,
        given: Mapping[str, Materialization] | None = None,
        notes: tuple[str, ...] = (),
    ) -> RunResult:
        guard = InterruptGuard()
        # The guard is there before the lock is taken and until it is free again: an interrupt never leaves it taken.
        with guard:
            if not self._running.acquire(blocking=False):
                raise InvariantViolationError(
                    "a run is going on in this session",
                    remedy="a step cannot start another run; load what it needs as an input",
                )
            try:
                known = known_for(plan, store, self._choose, self._loaded, given)
                check_reads(plan, known, found, store.keys, resumed=given is not None)
                notes = (*read_notes(plan, known, found), *notes)
                self._guard = guard
                self._run_store = store
                run = new_run(new_id(), plan, self.notebook, batch=os.environ.get("STEPWELL_BATCH", ""), parent=parent)
                books = Bookkeeping(run, store, self.publish, known)
                executor = InProcess(guard, run_sql, (store.directory,), Signer().keyed)
                names = found.names()
                keyed = users_digest()
                hidden = HiddenState(walk, lambda: CodeWalk(asset_names=names, namespace=self.namespace, keyed=keyed))
                request = Request(
                    forced, shown, self.namespace, code_parts(hidden), (*notes, *self._advice(walk)), hidden, self.seed_steps, self._advised
                )
                result = Engine(
                    plan=plan, known=known, store=store, executor=executor, guard=guard, books=books, request=request
                ).run()
                self.last_run = result
            finally:
                self._guard = None
                self._run_store = None
                self._running.release()
        if self.after_run is not None:
            self.after_run(result)
        if (guard.interrupted or result.status == "cancelled") and not guard.cancelled:
            interrupt = result.interrupt or KeyboardInterrupt()
            if self.before_raising is not None:
                self.before_raising(interrupt, result)
            raise interrupt
        if result.error is not None and raise_on_error:
            error = _with_note(result.error, result)
            if self.before_raising is not None:
                self.before_raising(error, result)
            raise error
        return result

    def _advice(self, walk: CodeWalk) -> tuple[str, ...]:
        """Return a line, once per session, for each global that takes long to digest."""
        found = {name: seconds for name, seconds in walk.slow.items() if name not in self._advised}
        self._advised.update(found)
        return tuple(
            f"the global {name} takes {seconds:.1f} s to digest in every run: make it an asset"
            for name, seconds in found.items()
        )

    def _stale_notes(self, plan: Plan, found: Definitions, walk: CodeWalk, store: ValueStore) -> tuple[str, ...]:
        """Return a line for each value that the plan reads as it is stored although it is not fresh."""
        owners = {key: found.asset(key) or step_owner(key.split(":", 1)[0], found) for key in plan.read}
        keys = [str(own) for owner in owners.values() if isinstance(owner, AssetsDefinition) for own in owner.keys]
        if not keys:
            return ()
        whole = build_plan(list(dict.fromkeys(keys)), found, walk)
        states = self._states(whole, walk, store)
        notes = []
        for key in plan.read:
            state = states[whole.producers[key].key] if key in whole.producers else None
            if state is not None and state.state not in ("fresh", "missing"):
                cause = state.reasons[0].text if state.reasons else ""
                notes.append(f"{key} is {state.state}{f' ({cause})' if cause else ''}: its stored value is used")
        return tuple(notes)

    def store_keys(self) -> list[str]:
        """Return the keys that the session's store has; empty if it was not opened."""
        return self._store.keys() if self._store is not None else []

    def _outputs_of_step(self, key: str) -> list[str]:
        found = lookup(self.registry)
        owner = step_owner(key, found)
        return (
            [output.key for step in asset_steps(owner) if step.key == key for output in step.outputs]
            if owner is not None
            else []
        )


def _version_of(item: Materialization) -> str:
    return item.data_version or item.id


def users_digest() -> Keyed:
    """Return what digests with this user's key; with a key of this process where there is none."""
    signer = Signer()

    def keyed(data: bytes) -> str:
        try:
            return signer.keyed(data)
        except StoreError:
            return process_keyed(data)

    return keyed


def code_parts(source: CodeWalk | HiddenState) -> Callable[[PlanStep], CodeVersion | None]:
    """Return a function that gives a step's code version with the parts that explain it."""

    def found(step: PlanStep) -> CodeVersion | None:
        if step.code is None:
            return None
        walk = source.walk if isinstance(source, HiddenState) else source
        parts = walk.parts(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return CodeVersion(
            step.code.digest, parts, step.code.unverifiable, step.code.asset_names, step.code.mutable_globals
        )

    return found


def _with_note(error: BaseException, result: RunResult) -> BaseException:
    failed = next((step.key for step in result.steps if step.status == "failed"), "")
    note = f"step {failed!r} failed in run {result.run_id}; continue from here with stepwell.resume({result.run_id!r})"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


_session: Session | None = None
_session_lock = threading.Lock()


def get_session() -> Session:
    """Return this process's session, made at first use."""
    global _session  # noqa: PLW0603 - one per process
    with _session_lock:
        if _session is None:
            _session = Session()
            if in_ipython():
                _session.attach(vars(sys.modules["__main__"]))
            atexit.register(_session.close)
        return _session

"""`Session`: the registry, the stores and the runs of one kernel or process, used by commands, magics and widgets.

The session turns a request into an `Inspection`, which has the definitions, their code versions and a store. The inspection makes a plan, and
the engine runs the plan. Only one run is active at a time. The session publishes progress and changes as events to its subscribers.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import JobDefinition
from stepwell.kernel_runtime.definitions.registry import REGISTRY, Definition, Registry
from stepwell.kernel_runtime.errors import (
    DefinitionsOnlyError,
    InvalidInvocationError,
    InvariantViolationError,
    StepwellError,
    UserObjectError,
    ValueUnavailableError,
    unknown_key,
)
from stepwell.kernel_runtime.execution.bookkeeping import Bookkeeping, new_run
from stepwell.kernel_runtime.execution.engine import Engine, EngineOptions
from stepwell.kernel_runtime.execution.in_process import InProcess
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.execution.world import HiddenState
from stepwell.kernel_runtime.planning.build import Definitions, build_job_plan
from stepwell.kernel_runtime.planning.plan import Plan
from stepwell.kernel_runtime.planning.states import StepState
from stepwell.kernel_runtime.reads import active, watch
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Materialization, Read, Verify
from stepwell.kernel_runtime.records.runs import (
    DefinitionsChanged,
    Event,
    Notice,
    RunEnded,
    RunRecord,
    Subscriber,
    notice,
)
from stepwell.kernel_runtime.session.history import WhichVersion, is_identifier, load_version
from stepwell.kernel_runtime.session.inspection import (
    Inspection,
    check_reads,
    code_parts,
    foreign_notices,
    not_produced,
    plan_of_steps,
    plan_to_resume,
    read_notices,
    size_notices,
    slow_notices,
    stale_notices,
    unfinished_steps,
    users_digest,
)
from stepwell.kernel_runtime.session.requests import (
    AnyStore,
    Given,
    Targets,
    choose,
    current,
    in_ipython,
    lookup,
    notebook_name,
    project_directory,
    read_targets,
    requesting,
    store_directory,
)
from stepwell.kernel_runtime.session.sql import read_select, run_sql_body, surroundings
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.catalog.instance import at_end, warm_up
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.values.structure import name_parts
from stepwell.kernel_runtime.versions.classes import remember_copy
from stepwell.kernel_runtime.versions.data import data_version, definition_version, hides
from stepwell.kernel_runtime.versions.opcodes import untested
from stepwell.kernel_runtime.versions.ownership import owner
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

DEFINE = "STEPWELL_DEFINE"
"""The environment variable that is set in a kernel that registers the definitions of a notebook and must not run any step."""
_ONCE_BY_KEY = ("slow global", "large store")
"""Kinds of notices that are published only once per session for each key, even if other facts of the notice change."""


@dataclass(slots=True)
class _ActiveRun:
    """The run that the session executes now."""

    guard: InterruptGuard
    store: ValueStore
    thread: int
    """The identifier of the thread that executes the run."""
    notices: list[Notice] | None = None
    """The notices that were published during the run; they become part of its result. None until all checks before the first step have passed:
    until then, notices go to the subscribers.
    """


class Session:
    """The registry, the stores and the runs of one kernel or process.

    Parameters
    ----------
    registry
        The registry of the session's definitions; None for a new registry. A registry reports its changes to a single session, so only
        the session of the process (`get_session`) uses the registry to which the decorators add definitions.

    Attributes
    ----------
    namespace
        The notebook's namespace; None outside of a notebook.
    timeline
        The record of which cells and steps bound the notebook's variables; None outside of a notebook.
    last_run
        The result of the newest run, successful or failed; None before the first run.
    seed_steps
        True to seed the global random generators before each step, with a seed that is derived from the step's key.
    face
        The front end that prints notices: ``python`` or ``notebook``; empty if no front end prints them yet.
    stores
        The open stores by directory.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = Registry() if registry is None else registry
        self.namespace: dict[str, Any] | None = None
        self.timeline: Timeline | None = None
        self.last_run: RunResult | None = None
        self.seed_steps = True
        self.face = ""
        self.stores: dict[Path, ValueStore] = {}
        self._store: ValueStore | None = None
        self._opening = threading.RLock()
        self._subscribers: list[Subscriber] = []
        self._published_notices: set[Notice] = set()
        self._noticed_keys: set[tuple[str, str]] = set()
        self._running = threading.Lock()
        self._active_run: _ActiveRun | None = None
        self.registry.notebook = lambda: self.notebook
        self.registry.on_change = lambda keys: self.publish(DefinitionsChanged(keys))

    # -- stores and the notebook

    @property
    def location(self) -> tuple[Path, bool]:
        """The directory of the session's store; and True if the store is open already or the user named the directory, otherwise False.

        If the second value is False, the directory must not be a link.
        """
        return (self._store.directory, True) if self._store is not None else store_directory(self.namespace)

    @property
    def notebook(self) -> str:
        """The name of the notebook or script that runs as ``__main__``, as the store records it for definitions and values."""
        return notebook_name(self.location[0], self.namespace)

    @property
    def store(self) -> ValueStore:
        """The session's store, opened at first use.

        If the process runs IPython, the session has a notebook, or ``STEPWELL_STORE`` is set, this is the store at `location`. Otherwise, it is a
        temporary store that is deleted at exit.
        """
        if self._store is not None:
            return self._store
        with self._opening:
            if self._store is not None:
                # Another thread opened the store while this thread waited for the lock.
                return self._store
            if in_ipython() or self.namespace is not None or os.environ.get("STEPWELL_STORE"):
                directory, named = self.location
                self._store = self._open_directory(directory, follow=named)
            else:
                folder = tempfile.mkdtemp(prefix="stepwell-")
                at_end(partial(shutil.rmtree, folder, ignore_errors=True), last=True)
                self._store = self._open_directory(Path(folder) / "store")
        return self._store

    def open(self, store: AnyStore = None, *, create: bool = True) -> ValueStore:
        """Open the store of a directory, or return the store if it is open already.

        Parameters
        ----------
        store
            A store directory, or an open store, which is returned. None means the session's store or, inside a step, the store of the run.
        create
            True to create the store if it does not exist; False to raise `StoreError`.

        Returns
        -------
        ValueStore
            The open store.

        Raises
        ------
        StoreError
            If the store cannot be used.
        """
        if store is None:
            run = self._active_run if active() is not None else None
            return self.store if run is None else run.store
        if isinstance(store, str | os.PathLike):
            return self._open_directory(Path(store).absolute(), create=create)
        # The public `Store` wraps the internal store.
        values: Any = getattr(store, "values", store)
        opened: ValueStore = values
        return opened

    def _open_directory(self, directory: Path, *, create: bool = True, follow: bool = True) -> ValueStore:
        """Open the store of a directory, or return the store if it is open already.

        Parameters
        ----------
        create
            True to create the store if it does not exist; False to raise `StoreError`.
        follow
            True if the user named the directory, so that it may be a link; False to refuse a link.
        """
        from stepwell.kernel_runtime.store.sql import instance as sql_instance
        from stepwell.kernel_runtime.store.store import open_store
        from stepwell.kernel_runtime.store.values.loading import CodeReader

        sql_instance.expect(directory)
        with self._opening:
            if directory not in self.stores:
                code = CodeReader(definition_version, owner, hides, remember_copy, data_version)
                self.stores[directory] = open_store(directory, create=create, follow=follow, code=code, notify=self.publish)
            return self.stores[directory]

    def use(self, path: str | os.PathLike[str]) -> ValueStore:
        """Open the store in the directory `path`, make it the session's store, and return it. Create the store if it does not exist."""
        self._store = self.open(path)
        # All steps may have other states in the new store.
        self.publish(DefinitionsChanged(()))
        return self._store

    def attach(self, namespace: dict[str, Any] | None) -> None:
        """Set the namespace of the session's notebook; None means that the session has no notebook."""
        if namespace is not None:
            # Plain cells can seed random generators before the first step runs, and the hooks must record this.
            watch()
        if namespace is not self.namespace or self.timeline is None:
            self.timeline = None
            if namespace is not None:
                self.timeline = Timeline(
                    namespace, lambda key, item: self.load(key, version=item.id), project_directory(namespace)
                )
        self.namespace = namespace

    def close(self) -> None:
        """Commit all pending changes, and close all stores.

        If there was a run in this session, the hourly housekeeping of each store is done first, if it is due. A closed store opens again when
        it is used.
        """
        for store in self.stores.values():
            if self.last_run is not None and housekeeping.is_due(store):
                try:
                    housekeeping.housekeep(store)
                except (StepwellError, OSError) as error:
                    print(f"stepwell: the hourly housekeeping of {store.directory} failed: {error}", file=sys.stderr)  # noqa: T201 - at exit, no front end shows errors
        for store in self.stores.values():
            store.close()

    # -- events

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every event that is published from now on, and return a function that ends these calls.

        `subscriber` is called on the thread that publishes the event. For the end of a step, this may be the catalog's thread.
        """
        self._subscribers.append(subscriber)

        def end() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return end

    def publish(self, event: Event) -> None:
        """Pass an event to every subscriber. If a subscriber raises an error, print the error and continue with the next subscriber.

        A notice that was published before in this session is ignored. During a run, a new notice is not passed to the subscribers: it becomes
        part of the result of the run.
        """
        if isinstance(event, Notice):
            if not self._new_notices((event,)):
                return
            if self._active_run is not None and self._active_run.notices is not None:
                self._active_run.notices.append(event)
                return
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:
                print(f"stepwell: {getattr(subscriber, '__qualname__', subscriber)} failed: {error!r}", file=sys.stderr)  # noqa: T201 - an error in a subscriber must be visible and must not stop the run

    def _new_notices(self, notices: Iterable[Notice]) -> tuple[Notice, ...]:
        """Return the notices that were not published before in this session, and remember them as published."""
        new = []
        for item in notices:
            if item in self._published_notices or (item.kind, item.key) in self._noticed_keys:
                continue
            self._published_notices.add(item)
            if item.kind in _ONCE_BY_KEY:
                self._noticed_keys.add((item.kind, item.key))
            new.append(item)
        return tuple(new)

    # -- states and values: no user code runs

    def inspect(
        self,
        definitions: Given = None,
        targets: Iterable[AssetsDefinition | SourceAsset] = (),
        *,
        store: AnyStore = None,
        create: bool = False,
    ) -> Inspection:
        """Return a new `Inspection` for one request: the present definitions, their code versions and a store.

        Parameters
        ----------
        definitions, targets
            Definitions, or a module of definitions, that take precedence over the registered definitions.
        store
            A store directory or an open store; None for the session's store.
        create
            True to create the store at its first use if it does not exist.

        Returns
        -------
        Inspection
            The definitions and the store, which is opened at its first use.

        Raises
        ------
        DuplicateKeyError
            If two passed definitions have the same key.
        InvalidInvocationError
            If a passed object is not a definition.
        """
        request_definitions = lookup(self.registry, definitions, targets)
        return Inspection(
            request_definitions,
            partial(self._new_code_walk, request_definitions),
            partial(self.open, store, create=create),
            choose=partial(choose, self.registry, self.notebook),
            find=self._find,
            timeline=self.timeline,
        )

    def states(self, targets: Targets = None, *, definitions: Given = None, store: AnyStore = None) -> dict[str, StepState]:
        """Return the states of the steps of `targets` and of all steps upstream, by step key and in execution order. No step runs.

        Parameters
        ----------
        targets
            Definitions, keys or selection strings; None for all registered assets.
        definitions
            Definitions, or a module of definitions, that take precedence over registered definitions.
        store
            A store directory or an open store; None for the session's store.
        """
        passed, words = read_targets(targets)
        inspection = self.inspect(definitions, passed, store=store)
        return inspection.states(inspection.plan(words))

    def load(
        self,
        key: str,
        *,
        notebook: str | None = None,
        version: WhichVersion | None = None,
        verify: Verify = "signed",
        store: AnyStore = None,
    ) -> Any:
        """Carry out `stepwell.load`, which documents the parameters, the result and the errors.

        Inside a step, the load is recorded as a read of the asset, unless `version` selects the value.
        """
        if verify not in get_args(Verify):
            raise InvalidInvocationError(
                f"verify={verify!r} is invalid",
                remedy="use verify='signed', the default, or verify='full', which checks every byte of the value file",
            )
        step = active()
        used = self.open(store, create=False)

        # The store opens files, which must not be recorded as reads of the running step.
        unobserved: Callable[[], AbstractContextManager[object]] = nullcontext if step is None else step.paused
        if version is not None:
            if step is not None and not (isinstance(version, str) and is_identifier(version)):
                # In a later run, a number or a time may select another version, but the step would not become stale.
                raise InvalidInvocationError(
                    f"inside a step, a version of {key!r} must be selected by its identifier, not by {version!r}",
                    remedy=f"run stepwell.versions({key!r}) to see the identifiers, and write one of them",
                )
            with unobserved():
                return load_version(used, key, version, notebook, verify=verify)
        with unobserved():
            item = self.current(key, used, notebook=notebook)
        if step is not None:
            names = (notebook or "", "" if store is None else str(used.directory))
            step.asset_loaded(key, item.data_version or item.id, names if notebook or store is not None else ())
        if item.value is None:
            raise ValueUnavailableError(f"{key!r} has no stored value: the output is Nothing or could not be stored")
        with unobserved():
            return used.get(item.value, key=key, verify=verify)

    def current(self, key: str, store: ValueStore | None = None, *, notebook: str | None = None) -> Materialization:
        """Return the current materialization of the value key `key`. If `key` is the key of a step with only one output, use this output.

        Parameters
        ----------
        store
            The open store; None for the session's store.
        notebook
            The notebook whose materialization is returned; None to choose the notebook as `requests.choose` does.

        Raises
        ------
        ValueUnavailableError
            If the key has no current materialization.
        AmbiguousKeyError
            If several notebooks define the key and their current values differ.
        """
        return current(key, store or self.store, self.registry, self.notebook, notebook=notebook)

    def _find(self, read: Read, store: ValueStore) -> Materialization:
        """Return the current materialization of the asset whose key is recorded in `read`, a read of kind ``asset``.

        Parameters
        ----------
        store
            The store to search if the read names no store.
        """
        notebook, directory = read.names or ("", "")
        return self.current(read.name, self.open(directory, create=False) if directory else store, notebook=notebook or None)

    def _new_code_walk(self, definitions: Definitions) -> CodeWalk:
        watch()
        # Start DuckDB in the background, so that it is ready when the code walk ends.
        warm_up()
        if reason := untested():
            self.publish(notice("untested python", reason=reason))
        names, timeline = definitions.names(), self.timeline
        if timeline is None:
            return CodeWalk(asset_names=names, namespace=self.namespace, keyed=users_digest())
        return CodeWalk(
            asset_names=timeline.names(names),
            earlier_names={**names, **timeline.earlier_names()},
            namespace=self.namespace,
            keyed=users_digest(),
            pin=timeline.pin,
        )

    # -- runs

    def materialize(
        self,
        targets: Targets = None,
        *,
        definitions: Given = None,
        store: AnyStore = None,
        force: bool = False,
        upstream: bool = True,
        raise_on_error: bool = True,
        show: Collection[str] = (),
    ) -> RunResult:
        """Carry out `stepwell.materialize`, which documents the other parameters, the result and the errors.

        Parameters
        ----------
        show
            The keys of the steps whose rich outputs, such as figures, appear in the notebook while the step runs. Those of other steps are only
            stored.
        """
        passed, words = read_targets(targets)
        inspection = self.inspect(definitions, passed, store=store, create=True)
        named = [item for word in words or () if (item := inspection.definitions.asset(word)) is not None]
        with requesting(self.timeline, (*passed, *named)):
            plan = inspection.plan(words, upstream=upstream)
            return self._execute(
                plan,
                inspection,
                forced=plan.target_steps if force else frozenset(),
                display_steps=frozenset(show),
                raise_on_error=raise_on_error,
                notices=() if upstream else stale_notices(plan, inspection),
            )

    def execute_job(self, job: JobDefinition, *, store: AnyStore = None, raise_on_error: bool = True) -> RunResult:
        """Run all ops of a job. The values of assets that the job reads are loaded from the store.

        Parameters
        ----------
        store
            A store directory or an open store; None for the session's store.
        raise_on_error
            True to raise the exception of a failed step after the run is recorded; False to return it in the result.

        Returns
        -------
        RunResult
            The run, the records of its steps, and its notices.
        """
        inspection = self.inspect([job], store=store, create=True)
        plan = build_job_plan(job, inspection.walk)
        return self._execute(
            plan,
            inspection,
            display_steps=plan.target_steps,
            raise_on_error=raise_on_error,
            notices=stale_notices(plan, inspection),
        )

    def rerun(
        self,
        keys: Targets,
        *,
        definitions: Given = None,
        store: AnyStore = None,
        raise_on_error: bool = True,
        show: Collection[str] = (),
    ) -> RunResult:
        """Carry out `stepwell.rerun`, which documents the other parameters, the result and the errors.

        Parameters
        ----------
        keys
            Keys of steps (``report.transform``, or ``JOB.STEP`` for a step of a job). A definition or key of an asset stands for all of its steps.
        show
            The keys of the steps whose rich outputs, such as figures, appear in the notebook while the step runs. Those of other steps are only
            stored.
        """
        passed, keys_to_rerun = read_targets(keys)
        if not keys_to_rerun:
            raise InvalidInvocationError(
                "no step was named, so nothing can be run again",
                remedy="name a step: stepwell.rerun(['report.transform'])",
            )
        inspection = self.inspect(definitions, passed, store=store)
        plan = plan_of_steps(keys_to_rerun, inspection.definitions, inspection.walk, inspection.store)
        return self._execute(
            plan,
            inspection,
            forced=frozenset(step.key for step in plan.steps),
            display_steps=frozenset(show),
            raise_on_error=raise_on_error,
            notices=stale_notices(plan, inspection),
        )

    def resume(self, run_id: str, *, definitions: Given = None, store: AnyStore = None, raise_on_error: bool = True) -> RunResult:
        """Carry out `stepwell.resume`, which documents the parameters, the result and the errors. `run_id` is its argument `run`."""
        used = self.open(store, create=False)
        parent = used.run(run_id)
        if parent is None:
            raise unknown_key("run", run_id, [run.run_id for run in used.runs(limit=50)])
        run, records = parent
        if run.status == "success":
            raise InvariantViolationError(
                f"the run {run_id} succeeded, so there is nothing to resume",
                remedy=f"to run the job again, call {run.targets[0]}.execute()"
                if run.kind == "job"
                else f"to bring its targets up to date, use stepwell.materialize({list(run.targets)!r})",
            )
        inspection = self.inspect(definitions, store=used)
        unfinished, produced, ended = unfinished_steps(run, records, used)
        plan = plan_to_resume(run, unfinished, inspection.definitions, inspection.walk, used)
        plan.absent = not_produced(plan, ended, produced, inspection.definitions)
        return self._execute(
            plan,
            inspection,
            display_steps=plan.target_steps,
            raise_on_error=raise_on_error,
            parent=run,
            produced=produced,
        )

    def cancel(self, run_id: str | None = None) -> None:
        """Cancel the active run and interrupt its running step. Return immediately, even if no run is active.

        The method may be called on any thread. If a step calls it, that step continues to its end, but no further step starts.

        Parameters
        ----------
        run_id
            Cancel the active run only if it has this identifier. None to cancel it in any case.
        """
        run = self._active_run
        if run is not None and run_id in {None, run.guard.run_id}:
            run.guard.cancel()

    def _execute(
        self,
        plan: Plan,
        inspection: Inspection,
        *,
        forced: frozenset[str] = frozenset(),
        display_steps: frozenset[str] = frozenset(),
        raise_on_error: bool,
        parent: RunRecord | None = None,
        produced: Mapping[str, Materialization] | None = None,
        notices: tuple[Notice, ...] = (),
    ) -> RunResult:
        """Run a plan and publish the end of the run; then raise the error or interrupt that ended the run, or return its result.

        Parameters
        ----------
        forced
            The keys of the steps that run even if a stored result could be reused.
        display_steps
            The keys of the steps whose rich outputs, such as figures, appear in the notebook while the step runs.
        raise_on_error
            True to raise the exception of a failed step; False to return it in the result.
        parent
            The earlier run that this run resumes; None if it resumes none.
        produced
            Maps the value keys of the earlier run to its materializations. This run loads its inputs from them. None if there is no earlier run.
        notices
            Notices to add to the result of the run.
        """
        if os.environ.get(DEFINE):
            raise DefinitionsOnlyError("nothing was run, because this kernel only registers the notebook's definitions")
        # This opens the store, or creates it. A new store is not deleted if one of the checks below refuses the run.
        guard, store = InterruptGuard(), inspection.store
        # The guard handles interrupts from before the lock is acquired until after its release, so no interrupt leaves the lock acquired.
        with guard:
            if not self._running.acquire(blocking=False):
                raise InvariantViolationError(
                    "another run is active in this session",
                    remedy="wait until that run has ended, or cancel it; inside a step, load values with stepwell.load and do not start a run",
                )
            try:
                self._active_run = run = _ActiveRun(guard, store, threading.get_ident())
                # Reading the catalog may wait for another process that holds it. No step has started, so an interrupt may end this wait.
                facts = guard.call(lambda: inspection.decision_facts(plan, produced))
                check_reads(plan, facts, inspection.definitions, store.keys, resumed=produced is not None)
                foreign = self._new_notices(foreign_notices(plan, facts))
                notices = (*read_notices(plan, facts, inspection.definitions), *foreign, *notices)
                run.notices = []
                record = new_run(new_id(), plan, self.notebook, batch=os.environ.get("STEPWELL_BATCH", ""), parent=parent)
                guard.run_id = record.run_id
                sql = partial(run_sql_body, file_surroundings=surroundings(store.directory, self.namespace))
                hidden = HiddenState(inspection.walk, inspection.new_walk)
                options = EngineOptions(
                    forced,
                    display_steps,
                    code_parts(hidden),
                    (*notices, *self._new_notices((*slow_notices(inspection.walk), *size_notices(store)))),
                    hidden,
                    self.seed_steps,
                    self.timeline,
                    self._published_notices,
                    run.notices,
                    strict=bool(os.environ.get("STEPWELL_STRICT")),
                )
                result = self.last_run = Engine(
                    plan=plan,
                    facts=facts,
                    store=store,
                    executor=InProcess(guard, sql, (store.directory,), Signer().keyed, self.namespace),
                    guard=guard,
                    books=Bookkeeping(record, store, self.publish, facts),
                    options=options,
                ).run()
            finally:
                self._active_run = None
                self._running.release()
        error: BaseException | None = None
        # A cancellation that arrives after the last step has no effect: then the status is not "cancelled".
        if (guard.interrupted and not guard.cancelled) or (result.status == "cancelled" and not guard.stops_itself):
            error = result.interrupt or KeyboardInterrupt()
        elif result.error is not None and raise_on_error:
            error = _with_note(result.error, result)
        self.publish(RunEnded(result, error))
        if error is not None:
            raise error
        return result

    def forget_other_threads(self) -> None:
        """In a forked child process, discard the active run if a thread other than the forking thread executes it.

        Only the forking thread exists in the child.
        """
        self._opening = threading.RLock()
        if self._running.locked() and (self._active_run is None or self._active_run.thread != threading.get_ident()):
            self._running = threading.Lock()
            self._active_run = None


def _with_note(error: BaseException, result: RunResult) -> BaseException:
    failed = next((step.key for step in result.steps if step.status == "failed"), "")
    note = (
        f"step {failed!r} failed in run {result.run_id}; to continue the run from this step: stepwell.resume({result.run_id!r})"
    )
    try:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    except BaseException:
        # The exception's class does not accept notes, so a new exception carries the note.
        broken = UserObjectError(
            f"step {failed!r} raised an exception of class {name_parts(type(error))[1]}, which fails when it is shown"
        )
        broken.__cause__ = error
        broken.add_note(note)
        return broken
    return error


# -- the session of the process

_session: Session | None = None
_session_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _session_lock  # noqa: PLW0603 - in the parent, another thread may have held the old lock
    _session_lock = threading.Lock()
    if _session is not None:
        _session.forget_other_threads()


if hasattr(os, "register_at_fork"):  # missing on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def get_session() -> Session:
    """Return the session of this process; the first call creates it."""
    global _session  # noqa: PLW0603 - there is one session per process
    with _session_lock:
        if _session is None:
            _session = Session(REGISTRY)
            if in_ipython():
                _session.attach(vars(sys.modules["__main__"]))
            # Exit functions run in reverse order of registration, and the session must close while its catalogs still accept work.
            import_module("stepwell.kernel_runtime.store.catalog.instance")
            at_end(_session.close)
        return _session


def last_run() -> RunResult | None:
    """Return the result of the newest run in this process, successful or failed; None before the first run."""
    return get_session().last_run


class SessionRunner:
    """Carries out operations of a session for code in the folder `definitions`, which cannot import this module.

    The class implements the protocol `definitions.graphs.Runner`.

    Parameters
    ----------
    session
        A function that returns the session. `read_select` does not call this function, so that parsing a SQL asset does not create a session.
    """

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Carry out `Session.execute_job`."""
        return self._session().execute_job(job, store=store, raise_on_error=raise_on_error)

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of an asset or step, loaded with `Session.load`."""
        return self._session().load(key, store=store)

    def register(self, definition: Definition) -> None:
        """Add a definition to the session's registry. The definition belongs to the notebook or script that runs as ``__main__``."""
        self._session().registry.register(definition)

    read_select = staticmethod(read_select)

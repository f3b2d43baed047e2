"""`Session`: the registry, the stores and the runs of one kernel or process, used by commands, magics and widgets.

A request becomes an `Inspection` (definitions with their code versions, and a store). The inspection makes a plan, and the engine runs it. Only
one run is active at a time. Progress and changes are published as events. Functions over a session are in the other modules of this folder.
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
"""The environment variable that is set in a kernel which only registers a notebook's definitions and runs nothing."""
_ONCE_BY_KEY = ("slow global", "large store")
"""Kinds of notices that are published once per session and key, even if their facts change."""


@dataclass(slots=True)
class _ActiveRun:
    """The active run."""

    guard: InterruptGuard
    store: ValueStore
    thread: int
    notices: list[Notice] | None = None
    """Notices for the result of the run; None until its first step is prepared."""


class Session:
    """The registry, the stores and the runs of one kernel or process.

    Parameters
    ----------
    registry
        The definitions; by default a new registry. A registry reports its changes to one session, so only the process's session uses the
        registry of the decorators.

    Attributes
    ----------
    namespace
        The notebook's namespace; None outside of a notebook.
    timeline
        The history of the notebook's names; None outside of a notebook.
    last_run
        The result of the newest run, successful or failed; None before the first.
    seed_steps
        True if the global random generators are seeded from the step's key before each step.
    face
        The front end that shows notices: ``python`` or ``notebook``; empty if there is none yet.
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
        """The directory of the open store, else of the project's store; and True if the user named the directory."""
        return (self._store.directory, True) if self._store is not None else store_directory(self.namespace)

    @property
    def notebook(self) -> str:
        """The name under which definitions of ``__main__`` are recorded."""
        return notebook_name(self.location[0], self.namespace)

    @property
    def store(self) -> ValueStore:
        """The session's store, opened at first use: the project's store in IPython, a temporary store in a plain process."""
        if self._store is not None:
            return self._store
        with self._opening:
            if self._store is not None:
                # Another thread opened the store meanwhile.
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
        """Return the open store of a directory; a process opens each directory once.

        Parameters
        ----------
        store
            A directory or an open store. None is the session's store; inside a step, the store of the run.
        create
            Create the store if it does not exist.

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
        """Open the store of a directory.

        Parameters
        ----------
        follow
            True if the directory may be a link, because the user named this path.
        """
        from stepwell.kernel_runtime.store.sql import instance as sql_instance
        from stepwell.kernel_runtime.store.store import open_store
        from stepwell.kernel_runtime.store.values.loading import CodeReader

        sql_instance.expect(directory)
        with self._opening:
            if directory not in self.stores:
                code = CodeReader(definition_version, owner, hides, remember_copy, data_version)
                self.stores[directory] = open_store(
                    directory, create=create, follow=follow, code=code, notify=self.publish
                )
            return self.stores[directory]

    def use(self, path: str | os.PathLike[str]) -> ValueStore:
        """Switch the session to another store and return it."""
        self._store = self.open(path)
        # The states of all steps may differ in the new store.
        self.publish(DefinitionsChanged(()))
        return self._store

    def attach(self, namespace: dict[str, Any] | None) -> None:
        """Set the namespace of the notebook; None detaches the notebook."""
        if namespace is not None:
            # Observe the seeding of random generators from now on, in plain cells, too.
            watch()
        if namespace is not self.namespace or self.timeline is None:
            self.timeline = (
                Timeline(namespace, self.load, project_directory(namespace)) if namespace is not None else None
            )
        self.namespace = namespace

    def close(self) -> None:
        """Run housekeeping if it is due, commit pending changes, and close every store; the next use opens a store again."""
        for store in self.stores.values():
            if self.last_run is not None and housekeeping.is_due(store):
                try:
                    housekeeping.housekeep(store)
                except (StepwellError, OSError) as error:
                    print(f"stepwell: the hourly housekeeping failed: {error}", file=sys.stderr)  # noqa: T201 - at exit, no face shows errors
        for store in self.stores.values():
            store.close()

    # -- events

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with every event, and return a function that ends the subscription.

        The end of a step may be published on the catalog's thread.
        """
        self._subscribers.append(subscriber)

        def end() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return end

    def publish(self, event: Event) -> None:
        """Pass an event to every subscriber; an error in one does not affect the others.

        A notice is published once per session. Notices during a run go to the run's result.
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
                print(f"stepwell: {getattr(subscriber, '__qualname__', subscriber)} failed: {error!r}", file=sys.stderr)  # noqa: T201 - the run must continue, and the error must be visible

    def _new_notices(self, notices: Iterable[Notice]) -> tuple[Notice, ...]:
        """Return the notices that are new in this session."""
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
        """Return the present definitions, their code versions and a store, for one request.

        Parameters
        ----------
        definitions, targets
            Definitions, or a module of definitions, that take precedence over the registry.
        store
            As in `open`.
        create
            Create the store if it does not exist.

        Returns
        -------
        Inspection
            The view of the request.

        Raises
        ------
        DuplicateKeyError, InvalidInvocationError
            If two passed definitions have the same key, or a passed object is not a definition.
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

    def states(
        self, targets: Targets = None, *, definitions: Given = None, store: AnyStore = None
    ) -> dict[str, StepState]:
        """Return the states of the steps of assets and of everything upstream, in execution order."""
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
        """Return the current value of an asset, or of a step inside a graph-backed asset or job.

        Parameters
        ----------
        notebook
            The notebook whose value is loaded, if several notebooks define the key.
        version
            The version to load: the beginning of its identifier, a number (-1 is the newest, -2 the one before), or a time.
        verify
            ``full`` checks every byte of the value's file; ``signed`` checks only the sizes and the parts that would be executed.

        Returns
        -------
        object
            The value; a copy if its type is mutable.

        Raises
        ------
        ValueUnavailableError
            If no value is stored, or the value cannot be loaded.
        AmbiguousKeyError
            If several notebooks define the key, still exist, and their current values differ.
        UnknownVersionError
            If the key has no such version.
        """
        if verify not in get_args(Verify):
            raise InvalidInvocationError(
                f"invalid verify={verify!r}", remedy='use "signed", or "full" to check every byte'
            )
        step = active()
        used = self.open(store, create=False)

        # Files that the store opens must not be recorded as reads of the step.
        unobserved: Callable[[], AbstractContextManager[object]] = nullcontext if step is None else step.paused
        if version is not None:
            if step is not None and not (isinstance(version, str) and is_identifier(version)):
                # A number or a time may select another version in the next run, and no state would show it.
                raise InvalidInvocationError(
                    f"inside a step, a version of {key!r} must be given by its identifier",
                    remedy=f"choose one: stepwell.versions({key!r})",
                )
            with unobserved():
                return load_version(used, key, version, notebook, verify=verify)
        with unobserved():
            item = self.current(key, used, notebook=notebook)
        if step is not None:
            names = (notebook or "", "" if store is None else str(used.directory))
            step.asset_loaded(key, item.data_version or item.id, names if notebook or store is not None else ())
        if item.value is None:
            raise ValueUnavailableError(f"{key!r} has no stored value: its output is Nothing or could not be stored")
        with unobserved():
            return used.get(item.value, key=key, verify=verify)

    def current(self, key: str, store: ValueStore | None = None, *, notebook: str | None = None) -> Materialization:
        """Return the current materialization of a key, or of the only output of a step; raises the errors of `load`."""
        return current(key, store or self.store, self.registry, self.notebook, notebook=notebook)

    def _find(self, read: Read, store: ValueStore) -> Materialization:
        """Return the current materialization of an asset that a step loaded."""
        notebook, directory = read.names or ("", "")
        return self.current(
            read.name, self.open(directory, create=False) if directory else store, notebook=notebook or None
        )

    def _new_code_walk(self, definitions: Definitions) -> CodeWalk:
        watch()
        # DuckDB starts in the background during the code walk.
        warm_up()
        if reason := untested():
            self.publish(notice("untested python", reason=reason))
        names, timeline = definitions.names(), self.timeline
        if timeline is None:
            return CodeWalk(asset_names=names, namespace=self.namespace, keyed=users_digest())
        return CodeWalk(
            asset_names=timeline.names(names), namespace=self.namespace, keyed=users_digest(), pin=timeline.pin
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
        """Bring assets and their upstream up to date.

        Parameters
        ----------
        targets
            Definitions, keys, step keys or selection strings; None for everything registered.
        definitions
            Definitions, or a module of definitions, that take precedence over the registry.
        store
            As in `open`.
        force
            Run the targets even if they could be reused.
        upstream
            Bring upstream assets up to date, too; otherwise their stored values are read.
        raise_on_error
            Raise an exception of the user's code again after the run is recorded.
        show
            Keys of steps whose displays appear while they run.

        Returns
        -------
        RunResult
            The run, the records of its steps, and its notices.

        Raises
        ------
        UnknownKeyError, InvalidSelectionError, DuplicateKeyError, CycleError, MissingUpstreamError
            If the targets cannot be planned; no step has run.
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
        """Run a job. Its ops always run, and the values of assets are read from the store.

        Parameters
        ----------
        job
            The job.
        store, raise_on_error
            As in `materialize`.

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
        """Run single steps on the stored outputs of other steps, even stale ones.

        Parameters
        ----------
        keys
            Keys of steps (``report.transform``, or ``job.step`` in a job), or assets and their keys for all of their steps.
        definitions, store, raise_on_error, show
            As in `materialize`.

        Returns
        -------
        RunResult
            The run, the records of its steps, and its notices.

        Raises
        ------
        UnknownKeyError
            If a key is unknown.
        DefinitionUnavailableError
            If a key is stored but not defined in this process.
        """
        passed, keys_to_rerun = read_targets(keys)
        if not keys_to_rerun:
            raise InvalidInvocationError(
                "no step to run again was given", remedy="for example: stepwell.rerun(['report.transform'])"
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

    def resume(
        self, run_id: str, *, definitions: Given = None, store: AnyStore = None, raise_on_error: bool = True
    ) -> RunResult:
        """Run the steps of an earlier run that failed or never started; the outputs of the other steps are loaded.

        Parameters
        ----------
        run_id
            The run's identifier.
        definitions, store, raise_on_error
            As in `materialize`.

        Returns
        -------
        RunResult
            The new run, the records of its steps, and its notices.

        Raises
        ------
        UnknownKeyError
            If the run does not exist.
        InvariantViolationError
            If the run succeeded.
        DefinitionUnavailableError
            If a step is not defined in this process.
        ValueNotKeptError
            If a job's step needs a value that could not be stored.
        """
        used = self.open(store, create=False)
        parent = used.run(run_id)
        if parent is None:
            raise unknown_key("run", run_id, [run.run_id for run in used.runs(limit=50)])
        run, records = parent
        if run.status == "success":
            raise InvariantViolationError(
                f"the run {run_id} succeeded: there is nothing to resume",
                remedy=f"run it again: stepwell.materialize({list(run.targets)!r})",
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
        """Cancel the active run and its running step, as an interrupt does; return immediately.

        May be called on any thread. A step that calls it continues to its end, but no further step starts.

        Parameters
        ----------
        run_id
            Only cancel the run with this identifier; None for any run.
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
        """Run a plan, publish its end, and raise the error or interrupt that ended it."""
        if os.environ.get(DEFINE):
            raise DefinitionsOnlyError("nothing was run: this kernel only registers the notebook's definitions")
        # The store is opened before the run begins; a new store stays even if the run is refused.
        guard, store = InterruptGuard(), inspection.store
        # The guard is active before the lock is acquired and until the lock is released, so an interrupt never leaves the lock acquired.
        with guard:
            if not self._running.acquire(blocking=False):
                raise InvariantViolationError(
                    "another run is active in this session; a step cannot start another run",
                    remedy="wait until the run has ended; in a step, load what it needs as an input",
                )
            try:
                self._active_run = run = _ActiveRun(guard, store, threading.get_ident())
                # No step has begun, so an interrupt may end the wait for another process that holds the catalog.
                facts = guard.call(lambda: inspection.decision_facts(plan, produced))
                check_reads(plan, facts, inspection.definitions, store.keys, resumed=produced is not None)
                foreign = self._new_notices(foreign_notices(plan, facts))
                notices = (*read_notices(plan, facts, inspection.definitions), *foreign, *notices)
                run.notices = []
                record = new_run(
                    new_id(), plan, self.notebook, batch=os.environ.get("STEPWELL_BATCH", ""), parent=parent
                )
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
        # A cancellation after the last step has no effect.
        if (guard.interrupted and not guard.cancelled) or (result.status == "cancelled" and not guard.stops_itself):
            error = result.interrupt or KeyboardInterrupt()
        elif result.error is not None and raise_on_error:
            error = _with_note(result.error, result)
        self.publish(RunEnded(result, error))
        if error is not None:
            raise error
        return result

    def forget_other_threads(self) -> None:
        """Discard, in a forked child, a run on another thread, because the run continues only in the parent."""
        self._opening = threading.RLock()
        if self._running.locked() and (self._active_run is None or self._active_run.thread != threading.get_ident()):
            self._running = threading.Lock()
            self._active_run = None


def _with_note(error: BaseException, result: RunResult) -> BaseException:
    failed = next((step.key for step in result.steps if step.status == "failed"), "")
    note = f"step {failed!r} failed in run {result.run_id}; continue from here with stepwell.resume({result.run_id!r})"
    try:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    except BaseException:
        # The exception's class does not accept notes, so a new exception names the step.
        broken = UserObjectError(f"step {failed!r} raised {name_parts(type(error))[1]}, which cannot be shown")
        broken.__cause__ = error
        broken.add_note(note)
        return broken
    return error


# -- the session of the process

_session: Session | None = None
_session_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _session_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _session_lock = threading.Lock()
    if _session is not None:
        _session.forget_other_threads()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def get_session() -> Session:
    """Return this process's session, which is created at first use."""
    global _session  # noqa: PLW0603 - one per process
    with _session_lock:
        if _session is None:
            _session = Session(REGISTRY)
            if in_ipython():
                _session.attach(vars(sys.modules["__main__"]))
            # Exit functions run in reverse order: the session must close while its catalogs still accept work.
            import_module("stepwell.kernel_runtime.store.catalog.instance")
            at_end(_session.close)
        return _session


def last_run() -> RunResult | None:
    """Return the result of this process's newest run, successful or failed; None before the first."""
    return get_session().last_run


class SessionRunner:
    """The session for definitions (implements `definitions.graphs.Runner`).

    Parameters
    ----------
    session
        Returns the session; called only if a definition needs more than the parser of SQL assets.
    """

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session

    def execute_job(self, job: Any, *, store: Any = None, raise_on_error: bool = True) -> Any:
        """Run a job and return its result; see `Session.execute_job`."""
        return self._session().execute_job(job, store=store, raise_on_error=raise_on_error)

    def load(self, key: str, *, store: Any = None) -> Any:
        """Return the current value of a key; see `Session.load`."""
        return self._session().load(key, store=store)

    def register(self, definition: Definition) -> None:
        """Register a definition from ``__main__``."""
        self._session().registry.register(definition)

    read_select = staticmethod(read_select)

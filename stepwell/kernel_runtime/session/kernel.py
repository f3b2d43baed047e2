"""`Session`: what the faces and the public functions use. One per process, made at first use."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.graphs import JobDefinition
from stepwell.kernel_runtime.definitions.registry import REGISTRY
from stepwell.kernel_runtime.errors import (
    DefinitionsOnlyError,
    InvalidInvocationError,
    InvariantViolationError,
    UserObjectError,
    unknown_key,
)
from stepwell.kernel_runtime.execution.bookkeeping import Bookkeeping, new_run
from stepwell.kernel_runtime.execution.engine import Engine, Request
from stepwell.kernel_runtime.execution.in_process import InProcess
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.execution.world import HiddenState
from stepwell.kernel_runtime.planning.build import (
    Definitions,
    build_job_plan,
    build_plan,
    resolve_targets,
)
from stepwell.kernel_runtime.planning.plan import Plan
from stepwell.kernel_runtime.records.events import Notice, RunEnded, notice
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.runs import RunRecord
from stepwell.kernel_runtime.session.looking import code_parts
from stepwell.kernel_runtime.session.past import Past
from stepwell.kernel_runtime.session.preparation import (
    check_reads,
    foreign_notices,
    known_for,
    not_produced,
    plan_of_steps,
    plan_to_resume,
    read_notices,
    what_is_left,
)
from stepwell.kernel_runtime.session.project import in_ipython
from stepwell.kernel_runtime.session.querying import Querying
from stepwell.kernel_runtime.session.requests import Given, Targets, lookup, read_targets
from stepwell.kernel_runtime.session.sql import run_sql, surroundings
from stepwell.kernel_runtime.store.catalog.instance import at_end
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.values.structure import name_parts
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

DEFINE = "STEPWELL_DEFINE"
"""Set in the environment of a kernel in which a notebook's definitions are only registered."""


class Session(Past, Querying):
    """The registry, the store and the runs of one kernel or process; attributes are those of `Holding`."""

    def materialize(
        self,
        targets: Targets = None,
        *,
        definitions: Given = None,
        store: Any = None,
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
        named = [*given, *[item for word in words or () if (item := found.asset(word)) is not None]]
        with self.requesting(named):
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
                notices=() if upstream else self._stale_notices(plan, found, walk, used),
            )

    def execute_job(self, job: JobDefinition, *, store: Any = None, raise_on_error: bool = True) -> RunResult:
        """Run a job; its ops are never skipped, assets that it reads are read as they are stored."""
        found = lookup(self.registry, [job])
        walk = self._walk(found)
        plan = build_job_plan(job, walk)
        used = self.chosen(store, create=True)
        notices = self._stale_notices(plan, found, walk, used)
        return self._run(
            plan, walk, found, used, shown=plan.target_steps, raise_on_error=raise_on_error, notices=notices
        )

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
            notices=self._stale_notices(plan, found, walk, used),
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

    def cancel(self, run_id: str | None = None) -> None:
        """End the run that is going on, and its running step, as an interrupt does; return at once.

        May be called on any thread. A step that calls it is not ended itself, but no other one begins.

        Parameters
        ----------
        run_id
            Nothing happens if another run is going on; None for whichever it is.
        """
        guard = self._guard
        if guard is not None and run_id in {None, guard.run_id}:
            guard.cancel()

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
        notices: tuple[Notice, ...] = (),
    ) -> RunResult:
        if os.environ.get(DEFINE):
            raise DefinitionsOnlyError("nothing was run: the notebook's definitions are only registered here")
        guard = InterruptGuard()
        # The guard is there before the lock is taken and until it is free again: an interrupt never leaves it taken.
        with guard:
            if not self._running.acquire(blocking=False):
                raise InvariantViolationError(
                    "a run is going on in this session",
                    remedy="a step cannot start another run; load what it needs as an input",
                )
            try:
                self._guard = guard
                self._run_thread = threading.get_ident()
                # Nothing has begun: an interrupt while another process has the catalog needs no care.
                settle = self._settling(store, walk)
                known = guard.call(lambda: known_for(plan, store, self._choose, self._loaded, given, settle=settle))
                self._in_kernel(known)
                check_reads(plan, known, found, store.keys, resumed=given is not None)
                notices = (*read_notices(plan, known, found), *self._once(foreign_notices(plan, known)), *notices)
                self._run_store = store
                told = self._pending = []
                run = new_run(new_id(), plan, self.notebook, batch=os.environ.get("STEPWELL_BATCH", ""), parent=parent)
                guard.run_id = run.run_id
                books = Bookkeeping(run, store, self.publish, known)
                sql = partial(run_sql, around=surroundings(store.directory, self.namespace))
                executor = InProcess(guard, sql, (store.directory,), Signer().keyed, self.namespace)
                hidden = HiddenState(walk, lambda: self._walk(found))
                request = Request(
                    forced,
                    shown,
                    code_parts(hidden),
                    (*notices, *self._advice(walk), *self._size_advice(store)),
                    hidden,
                    self.seed_steps,
                    self.timeline,
                    self._noticed,
                    told,
                    strict=bool(os.environ.get("STEPWELL_STRICT")),
                )
                result = Engine(
                    plan=plan, known=known, store=store, executor=executor, guard=guard, books=books, request=request
                ).run()
                self.last_run = result
            finally:
                self._guard = None
                self._run_store = None
                self._pending = None
                self._running.release()
        error: BaseException | None = None
        # A cancel that came after the last step ends nothing any more.
        if (guard.interrupted and not guard.cancelled) or (result.status == "cancelled" and not guard.stops_itself):
            error = result.interrupt or KeyboardInterrupt()
        elif result.error is not None and raise_on_error:
            error = _with_note(result.error, result)
        self.publish(RunEnded(result, error))
        if error is not None:
            raise error
        return result

    def _once(self, notices: tuple[Notice, ...]) -> tuple[Notice, ...]:
        """Return those of some notices that were not given in this session."""
        found = tuple(each for each in notices if each not in self._noticed)
        self._noticed.update(found)
        return found

    def _advice(self, walk: CodeWalk) -> tuple[Notice, ...]:
        """Return a notice, once per session, for each global that takes long to digest."""
        found = {name: seconds for name, seconds in walk.slow.items() if name not in self._slow}
        self._slow.update(found)
        return tuple(notice("slow global", name, seconds=seconds) for name, seconds in found.items())


def _with_note(error: BaseException, result: RunResult) -> BaseException:
    failed = next((step.key for step in result.steps if step.status == "failed"), "")
    note = f"step {failed!r} failed in run {result.run_id}; continue from here with stepwell.resume({result.run_id!r})"
    try:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    except BaseException:
        # Its class hides its notes: the message says which step it was.
        broken = UserObjectError(f"step {failed!r} raised {name_parts(type(error))[1]}, which cannot be shown")
        broken.__cause__ = error
        broken.add_note(note)
        return broken
    return error


_session: Session | None = None
_session_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _session_lock  # noqa: PLW0603 - another thread of the parent may have held it
    _session_lock = threading.Lock()
    if _session is not None:
        _session.leave_others_run()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def get_session() -> Session:
    """Return this process's session, made at first use."""
    global _session  # noqa: PLW0603 - one per process
    with _session_lock:
        if _session is None:
            _session = Session(REGISTRY)
            if in_ipython():
                _session.attach(vars(sys.modules["__main__"]))
            # What is given last comes first: a session closes while its catalogs still take work.
            import_module("stepwell.kernel_runtime.store.catalog.instance")
            at_end(_session.close)
        return _session

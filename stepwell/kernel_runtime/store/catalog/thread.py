"""The catalog thread: the only thread of the process that uses a store's DuckDB catalog.

Other threads pass it records and questions. Records are gathered in a `Commit`, which becomes one transaction. The transaction is committed
when its first record has waited 50 ms, or at once when another thread waits for it. Pending records are always committed before a question
is answered, so that every thread reads the records that it wrote. Without work, the thread keeps the catalog attached for a short time
unless another process waits for it, then detaches it. After some seconds without work the thread ends; the next call starts it again.

An interrupt (Ctrl-C) is raised in the main thread only, which does nothing here but wait for an event (`Once`). So an interrupt never
reaches the catalog thread or a transaction.
"""

from __future__ import annotations

import logging
import threading
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Generic, TypeVar, TypeVarTuple

from stepwell.kernel_runtime.errors import StepwellError, StoreError
from stepwell.kernel_runtime.records.runs import Notify
from stepwell.kernel_runtime.store.catalog.attachment import Attachment
from stepwell.kernel_runtime.store.catalog.instance import Connection, catalogs, check_going_on
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.locks import Once
from stepwell.kernel_runtime.store.trouble import one_line, spare, trouble, with_room

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GATHER = 0.050
"""Maximum time in seconds that a record waits for others to share its transaction."""
HOLD = 0.020
"""Minimum time in seconds for which the lease is held."""
BUSY = 0.080
"""Seconds after which the lease is released if another process waits, even while work arrives. Releasing and taking the lease costs about
as much as two commits, so with `HOLD` as the limit most of the time would go into handing over the lease."""
QUIET = 0.005
"""Seconds without work after which the lease is released if another process waits."""
IDLE = 0.250
"""Seconds without work after which the lease is released."""
FORK = 10.0
"""Maximum time in seconds that a fork waits for the catalog thread to finish its work."""
LINGER = 5.0
"""Seconds without work after which the thread ends."""

_log = logging.getLogger(__name__)


class Commit:
    """Records that are committed together, in one transaction."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._end = Once()
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[BaseException | None], None]] = []
        self.records: list[Any] = []
        self.since = monotonic()

    @property
    def is_over(self) -> bool:
        """True after the commit has succeeded or failed."""
        return self._end.is_over

    def wait(self) -> None:
        """Block until the commit has succeeded or failed; raise `StoreError` if it failed."""
        if not self._end.is_over:
            self._catalog.hurry()
            self._end.wait()
        if self._error is not None:
            raise self._error

    def then(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call ``callback`` with the error or None, on the catalog thread after the commit, or at once if the commit is over."""
        with self._catalog.mutex:
            if not self._end.is_over:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def disown(self, error: BaseException) -> None:
        """In a forked child, make `wait` raise an error. The callbacks run only in the parent."""
        self._error = error
        self._end.happen()

    def finish(self, error: BaseException | None) -> None:
        """Wake waiting threads and call the callbacks; called on the catalog thread."""
        with self._catalog.mutex:
            self._error = error
            self._end.happen()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(error)
            except Exception:
                _log.exception("a callback after a commit failed")


class Question(Generic[T]):
    """A function that needs the attached catalog, passed from another thread."""

    def __init__(self, answer: Callable[[Connection, str], T], *, create: bool = True) -> None:
        self._answer = answer
        self.create = create
        self._end = Once()
        self._result: T | None = None
        self.error: BaseException | None = None

    def run(self, connection: Connection, name: str) -> None:
        """Call the function on the catalog thread; keep its result or error for the waiting thread."""
        self.error = None
        try:
            self._result = self._answer(connection, name)
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """Wake the waiting thread."""
        self._end.happen()

    def fail(self, error: BaseException) -> None:
        """Wake the waiting thread with an error."""
        self.error = error
        self._end.happen()

    def wait(self) -> T:
        """Block until the function has run; return its result or raise its error."""
        self._end.wait()
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # set together with the event


class Catalog:
    """The rows of one store, written and read by one thread.

    Parameters
    ----------
    folder
        The store directory.
    write
        Appends the rows of a commit. Called inside a transaction with the connection, the name of the catalog, a string that changes when
        another process has written, and the records.
    after_commit
        Called on the catalog thread after each commit, with its records and the error or None.
    """

    def __init__(
        self,
        folder: Folder,
        write: Callable[[Connection, str, str, list[Any]], None],
        after_commit: Callable[[list[Any], BaseException | None], None],
    ) -> None:
        self.attachment = Attachment(folder)
        self._write = write
        self._after_commit = after_commit
        self.notify: Notify = lambda _: None
        """Called with notices for the user of the store."""
        self._reset()
        catalogs.add(self)

    def _reset(self) -> None:
        # Threads lock the mutex directly: `Condition.__enter__` is Python code, and an interrupt inside it could leave the mutex locked.
        self.mutex = threading.RLock()
        self._condition = threading.Condition(self.mutex)
        self._clear()

    def _clear(self) -> None:
        self._group: Commit | None = None
        self._writing: Commit | None = None
        self._questions: deque[Question[Any]] = deque()
        self._thread: int | None = None
        self._closers: list[tuple[Once, Commit | None]] = []
        """For each thread that waits in `close`, its event and the commit that was pending when it called."""
        self._urgent = False
        self._closing = False
        self._pausing = False

    # -- called from any thread --------------------------------------------------------------------------------------

    def open(self, *, create: bool) -> None:
        """Attach the catalog once, so that the error of an unusable store is raised at this point."""
        question: Question[None] = Question(lambda *_: None, create=create)
        self._add_question(question)
        question.wait()
        self._pass_notices()

    def add(self, record: Any) -> Commit:
        """Add a record to the commit that is being gathered, and return the commit."""
        check_going_on()
        self.check_writable()
        with self.mutex:
            group = self._group
            if group is None:
                self._wake()
                group = self._group = Commit(self)
            group.records.append(record)
            return group

    def ask(self, answer: Callable[[Connection, str, *Ts], T], *arguments: *Ts) -> T:
        """Commit all pending records, then return ``answer(connection, name, *arguments)``, called on the catalog thread."""
        question = Question(lambda connection, name: answer(connection, name, *arguments))
        if get_ident() == self._thread:
            # Called from a callback after a commit: this thread cannot wait for itself.
            self._serve([question], None)
        else:
            self._add_question(question)
        result = question.wait()
        self._pass_notices()
        return result

    def _pass_notices(self) -> None:
        """Pass the notices of the attachment to `notify`, in the calling thread."""
        while self.attachment.notices:
            with suppress(IndexError):
                self.notify(self.attachment.notices.pop(0))

    def change(self, answer: Callable[[Connection, str, *Ts], T], *arguments: *Ts, frees: bool = False) -> T:
        """Commit all pending records, then return ``answer(connection, name, *arguments)``, called in one transaction.

        Rows that are remembered in any process, including this one, are out of date afterwards.

        Parameters
        ----------
        answer, arguments
            The function and its arguments.
        frees
            True if the change frees disk space, so that it may use the reserve for a full disk.
        """

        def changed(connection: Connection, name: str) -> T:
            import duckdb

            self.check_writable()
            self.attachment.lease.mark()
            self.attachment.prepare_log()
            connection.begin()
            try:
                result = answer(connection, name, *arguments)
                self.attachment.count()
                connection.commit()
                self.attachment.acknowledge()
            except BaseException as error:
                try:
                    connection.rollback()
                except Exception:
                    self.roll_back()
                if isinstance(error, duckdb.Error):
                    raise self.failure(error, "could not be changed", "nothing was changed: try again") from error
                raise
            finally:
                self.attachment.epoch += 1
            return result

        def spared(connection: Connection, name: str) -> T:
            # The reserve is freed under the lease, so that rows of other processes cannot take its space.
            with spare(self.attachment.folder):
                return changed(connection, name)

        if not frees:
            return self.ask(changed)
        return with_room(self.attachment.folder, lambda: self.ask(spared))

    def check_writable(self) -> None:
        """Raise an error if the store was not writable when it was last attached."""
        if self.attachment.write_error is not None:
            raise self.attachment.write_error

    @property
    def is_read_only(self) -> bool:
        """True if the store was not writable for this user when it was last attached."""
        return self.attachment.write_error is not None

    def pending(self) -> Commit | None:
        """Return the newest commit that is not over, or None."""
        with self.mutex:
            return self._group or self._writing

    def unchanged(self) -> bool:
        """Return True if no other process has written since this process last attached the catalog."""
        return self.attachment.unchanged()

    @property
    def epoch(self) -> int:
        """A number that is incremented when another process has written the catalog, or rows were changed in place."""
        return self.attachment.epoch

    def hurry(self) -> None:
        """Commit the pending records without waiting for more."""
        with self.mutex:
            self._urgent = True
            self._wake()

    def flush(self) -> None:
        """Block until all pending records are committed."""
        with self.mutex:
            groups = (self._writing, self._group)
        for group in groups:
            if group is not None:
                group.wait()

    def close(self) -> None:
        """Commit pending records, detach the catalog and end the thread; a later call starts it again."""
        farewell = Once()
        with self.mutex:
            pending = self._group or self._writing
            # `_thread` is also None for a started thread that has not run yet, but then there is a commit or a question.
            if (self._thread is None and self._group is None and not self._questions) or self._thread == get_ident():
                return
            self._closers.append((farewell, pending))
            self._closing = True
            self._wake()
        farewell.wait()

    def pause(self) -> None:
        """Detach the catalog until `resume`; called before a fork.

        DuckDB keeps a list of attached files, which a child inherits. So this method waits until work in progress has ended; pending work is
        done after the fork. If the catalog thread is waiting for another process, nothing is attached, and `Lease.gate` stops the thread. If
        the work does not end (because a callback waits for the forking thread, for example), the child cannot use the catalog, and gets an
        error that explains this.
        """
        lease = self.attachment.lease
        until = monotonic() + FORK
        with self.mutex:
            self._pausing = True
            self._condition.notify_all()
        while True:
            lease.gate.acquire()
            if (
                not lease.is_held
                or self.attachment.is_stuck
                or self._thread in (None, get_ident())
                or monotonic() > until
            ):
                break
            lease.gate.release()
            sleep(0.002)
        self.mutex.acquire()

    def resume(self) -> None:
        """Continue in the parent after a fork."""
        self._pausing = False
        self._condition.notify_all()
        # If `pause` was interrupted, it may have acquired both locks several times. No other thread can hold them here.
        for taken in (self.mutex, self.attachment.lease.gate):
            with suppress(RuntimeError):
                while True:
                    taken.release()

    def abandon(self) -> None:
        """Forget all state in a forked child. The parent commits the pending records; the child cannot observe whether it succeeds."""
        failure = StoreError(
            f"this process was forked while its parent was recording results in {self.attachment.directory}, and cannot wait for them",
            remedy="wait for the results in the parent, or start worker processes with the method 'spawn'",
        )
        for group in (self._writing, self._group):
            if group is not None:
                group.disown(failure)
        for question in self._questions:
            question.fail(failure)
        self.attachment.abandon()
        self._reset()

    def _add_question(self, question: Question[Any]) -> None:
        check_going_on()
        with self.mutex:
            self._wake()
            self._questions.append(question)

    def _wake(self) -> None:
        if self._thread is None:
            # Not a `Thread`: an interrupt inside `Thread.start` could leave a thread that never runs. If several threads are started
            # before the first one runs, only the first one continues.
            start_new_thread(self._run, ())
        self._condition.notify_all()

    # -- the catalog thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self.mutex:
            if self._thread is not None:
                return
            self._thread = get_ident()
        try:
            self._work()
        except BaseException as error:
            # Other threads must not continue to wait for this one.
            _log.exception("the catalog thread of %s ended", self.attachment.directory)
            self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        failure = self.failure(error, "failed", "try again, and report this as a bug of Stepwell")
        with self.mutex:
            groups = [group for group in (self._writing, self._group) if group is not None]
            questions = list(self._questions)
            farewells = self._closers
            self._clear()
        for group in groups:
            group.finish(failure)
        for question in questions:
            question.fail(failure)
        for farewell, _ in farewells:
            farewell.happen()

    def _wake_closers(self) -> None:
        self._closing = False
        farewells, self._closers = self._closers, []
        for farewell, _ in farewells:
            farewell.happen()

    def _work(self) -> None:
        idle_since = monotonic()
        while True:
            with self.mutex:
                if self._closing and not self.attachment.is_open and self._is_ready() and self._are_done(self._closers):
                    # Other threads may go on recording; `close` waits only for the commits that were pending when it was called.
                    self._wake_closers()
                while self._pausing or not self._is_ready():
                    if self._pausing:
                        if self.attachment.is_open and not self.attachment.is_stuck:
                            break
                        self._condition.wait()
                        continue
                    now = monotonic()
                    idle = now - idle_since
                    if (
                        self.attachment.is_open
                        and not self.attachment.is_stuck
                        and (self._closing or self._may_release(now, idle))
                    ):
                        break
                    if (
                        (not self.attachment.is_open or self.attachment.is_stuck)
                        and (self._closing or idle > LINGER)
                        and self._group is None
                    ):
                        self._thread = None
                        self._wake_closers()
                        return
                    self._condition.wait(self._patience(now))
                ready = not self._pausing and self._is_ready()
                questions: list[Question[Any]] = []
                group = None
                if ready:
                    questions = list(self._questions)
                    self._questions.clear()
                    group, self._group = self._group, None
                    self._writing = group
                    self._urgent = False
            if ready:
                self._serve(questions, group)
                del questions, group
                idle_since = monotonic()
                if not self.attachment.is_open or self.attachment.is_stuck:
                    continue
                if not self._closing and not self._may_release(idle_since, 0.0):
                    continue
            self._release()

    def _are_done(self, farewells: list[tuple[Once, Commit | None]]) -> bool:
        return all(pending is None or pending.is_over for _, pending in farewells)

    def _is_ready(self) -> bool:
        if self._questions:
            return True
        group = self._group
        if group is None:
            return False
        return self._urgent or self._closing or monotonic() - group.since >= GATHER

    def _patience(self, now: float) -> float:
        """Return the maximum time in seconds that the thread waits to be woken."""
        if self._group is not None:
            return max(0.0, self._group.since + GATHER - now)
        if not self.attachment.is_open:
            return LINGER
        return max(QUIET, self.attachment.lease.since + HOLD - now)

    def _may_release(self, now: float, idle: float) -> bool:
        if idle >= IDLE:
            return True
        lease = self.attachment.lease
        held = now - lease.since
        return (held >= BUSY or (held >= HOLD and idle >= QUIET)) and lease.is_requested()

    def _serve(self, questions: list[Question[Any]], group: Commit | None) -> None:
        """Commit a group of records, then answer questions. Errors are raised in the waiting threads, never here."""
        create = all(question.create for question in questions)
        failure = self._attached(create=create)
        if group is not None:
            if failure is None:
                self._commit(group)
            else:
                self._end(group, failure)
        for question in questions:
            # A commit or question that failed has detached the catalog.
            failure = failure or self._attached(create=create)
            if failure is not None:
                question.fail(failure)
                continue
            question.run(self.attachment.connection, self.attachment.name)
            if question.error is not None and not self.attachment.is_usable():
                # A fatal error, perhaps of another store, has ended the instance. Nothing was committed, so the question is repeated.
                failure = self._attached(create=create)
                if failure is not None:
                    question.fail(failure)
                    continue
                question.run(self.attachment.connection, self.attachment.name)
            if question.error is not None:
                self._explain(question)
            question.finish()

    def _attached(self, *, create: bool) -> StoreError | None:
        """Attach the catalog if it is not attached; return the error if this fails, else None."""
        try:
            if not self.attachment.is_usable():
                # A fatal error of another store has ended the instance.
                self.roll_back()
            self.attachment.attach(create=create)
        except BaseException as error:
            if isinstance(error, StoreError):
                return error
            return self.failure(error, "cannot be opened", "check that its directory still exists")
        return None

    def _explain(self, question: Question[Any]) -> None:
        """Replace an error of the system or of DuckDB with a `StoreError`, and detach the catalog, which may be unusable."""
        error = question.error
        if error is None or isinstance(error, StepwellError):
            return
        failure = self.attachment.damage(error) or trouble(
            error, f"the store {self.attachment.directory} could not be used"
        )
        if failure is not None:
            failure.__cause__ = error
            question.error = failure
            self.roll_back()

    def _commit(self, group: Commit) -> None:
        connection = self.attachment.connection
        failure: StoreError | None = None
        try:
            self.check_writable()
            self.attachment.lease.mark()
            self.attachment.prepare_log()
            connection.begin()
            # `RowWriter` forgets its rows when this string changes, because another process may have deleted them.
            known = f"{self.attachment.store_id} {self.attachment.epoch}"
            self._write(connection, self.attachment.name, known, group.records)
            self.attachment.count()
            connection.commit()
            self.attachment.acknowledge()
        except BaseException as error:
            failure = self.failure(
                error,
                "could not record finished steps",
                "earlier records are safe: run the steps again",
            )
            self.roll_back()
        self._end(group, failure)

    def _end(self, group: Commit | None, failure: StoreError | None) -> None:
        if group is not None:
            self._after_commit(group.records, failure)
            self._writing = None
            group.finish(failure)

    def roll_back(self) -> None:
        """Detach the catalog, which ends an unfinished transaction."""
        try:
            self.attachment.discard()
        except Exception as error:
            _log.warning(
                "the catalog of %s was detached after an error: %s", self.attachment.directory, one_line(error)
            )

    def _release(self) -> None:
        try:
            self.attachment.detach()
        except Exception as error:
            # All committed rows are in the log, which the next process that opens the catalog replays.
            _log.warning("the catalog of %s was not checkpointed: %s", self.attachment.directory, one_line(error))

    def failure(self, error: BaseException, action: str, remedy: str) -> StoreError:
        """Return the error for an action on the catalog that failed; called on the catalog thread."""
        damage = self.attachment.damage(error)
        if damage is not None:
            damage.__cause__ = error
            return damage
        what = f"the store {self.attachment.directory} {action}"
        failure = trouble(error, what) or StoreError(what, where=one_line(error), remedy=remedy)
        failure.__cause__ = error
        return failure

"""The catalog thread of a store: the only thread of the process that uses the DuckDB catalog of this store.

Other threads give it *records* to commit, and *questions*: functions that it calls with the attached catalog. Records are gathered in a
`Commit`, which becomes one transaction. The transaction is committed when its first record has waited 50 ms, or at once when a thread waits
for the commit. Pending records are always committed before a question is answered, so that every thread reads the records that it added. When
the catalog thread has no work, it detaches the catalog: soon if another process waits for the lease, else after 250 ms. After some seconds
without work, the catalog thread ends; the next record or question starts another one.

Python raises an interrupt (Ctrl-C) only in the main thread. In this module, the main thread only waits for events (`Once`). So an interrupt
never reaches the catalog thread or breaks a transaction.
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
"""Maximum time in seconds for which a record waits for further records, to be committed with them in one transaction."""
HOLD = 0.020
"""Minimum time in seconds for which the lease is held, even if another process waits for it."""
BUSY = 0.080
"""Seconds after which the lease is released if another process waits for it, even if this process has more work. Releasing and taking the
lease takes about as long as two commits. So if the limit were `HOLD`, most of the time would be spent on handing over the lease."""
QUIET = 0.005
"""Seconds without work after which the lease is released if another process waits for it."""
IDLE = 0.250
"""Seconds without work after which the lease is released, even if no other process waits for it."""
FORK = 10.0
"""Maximum time in seconds for which a fork waits until the catalog thread has finished its work."""
LINGER = 5.0
"""Seconds without work after which the catalog thread ends."""

_log = logging.getLogger(__name__)


class Commit:
    """Records that are committed together, in one transaction. The threads that added the records can wait for the commit."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._end = Once()
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[BaseException | None], None]] = []
        self._has_called = False
        """True after the last callback has ended; a callback that is added later is called at once."""
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
        """Arrange that ``callback`` is called when the commit is over, with the error of the commit, or None if it succeeded.

        The callbacks run on the catalog thread, in the order in which they were added. If the commit is over and all earlier callbacks have
        ended, ``callback`` runs at once, on the calling thread.
        """
        with self._catalog.mutex:
            if not self._has_called:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def disown(self, error: BaseException) -> None:
        """In a forked child, make `wait` raise ``error``. The callbacks are not called in the child, because the parent calls them."""
        self._error = error
        self._has_called = True
        self._end.happen()

    def finish(self, error: BaseException | None) -> None:
        """End the commit: wake the threads that wait for it, and call the callbacks with ``error``. Called on the catalog thread."""
        with self._catalog.mutex:
            self._error = error
            self._end.happen()
        while True:
            with self._catalog.mutex:
                if not self._callbacks:
                    self._has_called = True
                    return
                callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                try:
                    callback(error)
                except Exception:
                    _log.exception("a callback after a commit failed")


class Question(Generic[T]):
    """A function that another thread passes to the catalog thread, because it needs the attached catalog.

    Parameters
    ----------
    answer
        The function. Its arguments are a connection and the name of the attached catalog.
    create
        True to create the catalog if it is missing.
    """

    def __init__(self, answer: Callable[[Connection, str], T], *, create: bool = True) -> None:
        self._answer = answer
        self.create = create
        self._end = Once()
        self._result: T | None = None
        self.error: BaseException | None = None

    def run(self, connection: Connection, name: str) -> None:
        """Call the function, and keep its result or its error for `wait`. Called on the catalog thread."""
        self.error = None
        try:
            self._result = self._answer(connection, name)
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """Wake the thread that waits for the result."""
        self._end.happen()

    def fail(self, error: BaseException) -> None:
        """Wake the thread that waits for the result; its call of `wait` raises ``error``."""
        self.error = error
        self._end.happen()

    def wait(self) -> T:
        """Block until the function has run; return its result or raise its error."""
        self._end.wait()
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # `run` sets the result before the event happens


class Catalog:
    """The catalog of one store, which one thread reads and writes for all other threads of the process.

    Parameters
    ----------
    folder
        The store directory.
    write
        Appends the rows of a commit. It is called inside a transaction. Its arguments are the connection, the name of the attached catalog, a
        string that changes when another process may have changed the catalog, and the records.
    after_commit
        Called on the catalog thread after each commit. Its first argument is the list of the records. The second one is the error of the
        commit, or None if the commit succeeded.
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
        """Called with each notice for the user about this store."""
        self._reset()
        catalogs.add(self)

    def _reset(self) -> None:
        # Threads lock the mutex directly, not through the condition: `Condition.__enter__` is Python code, and an interrupt inside it could
        # leave the mutex locked.
        self.mutex = threading.RLock()
        self._condition = threading.Condition(self.mutex)
        self._clear()

    def _clear(self) -> None:
        self._group: Commit | None = None
        """The commit that gathers records; None if no record is waiting."""
        self._writing: Commit | None = None
        """The commit that the catalog thread is writing; None if it writes none."""
        self._questions: deque[Question[Any]] = deque()
        self._thread: int | None = None
        """The identifier of the catalog thread; None if it is not running."""
        self._closers: list[tuple[Once, Commit | None]] = []
        """One pair for each thread that waits in `close`: the event for which the thread waits, and the newest commit that was pending when the
        thread called `close`. The second item is None if no commit was pending."""
        self._urgent = False
        """True if the records are to be committed without waiting for more."""
        self._closing = False
        """True if a thread waits in `close`."""
        self._pausing = False
        """True from `pause` to `resume`."""

    # -- called from any thread --------------------------------------------------------------------------------------

    def open(self, *, create: bool) -> None:
        """Attach the catalog once, so that an unusable catalog raises its error now.

        If ``create`` is true, a missing catalog is created.
        """
        question: Question[None] = Question(lambda *_: None, create=create)
        self._add_question(question)
        question.wait()
        self._pass_notices()

    def add(self, record: Any) -> Commit:
        """Add a record to the next commit, and return this commit."""
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
        """Commit all pending records, then call ``answer(connection, name, *arguments)`` on the catalog thread, and return its result.

        Parameters
        ----------
        answer
            A function that reads the catalog. Its first arguments are a connection and the name of the attached catalog.
        arguments
            The further arguments of the function.
        """
        question = Question(lambda connection, name: answer(connection, name, *arguments))
        if get_ident() == self._thread:
            # This call comes from a callback after a commit, on the catalog thread, which cannot wait for itself.
            self._serve([question], None)
        else:
            self._add_question(question)
        result = question.wait()
        self._pass_notices()
        return result

    def _pass_notices(self) -> None:
        """Call `notify` with the notices of the attachment, on the calling thread."""
        while self.attachment.notices:
            with suppress(IndexError):
                self.notify(self.attachment.notices.pop(0))

    def change(self, answer: Callable[[Connection, str, *Ts], T], *arguments: *Ts, frees: bool = False) -> T:
        """Commit all pending records, then call ``answer(connection, name, *arguments)`` in one transaction, and return its result.

        The function is called on the catalog thread. If it raises an error, the transaction is rolled back. After success and after an error,
        every process, including this one, treats the rows that it remembers as out of date.

        Parameters
        ----------
        answer
            A function that changes rows. Its first arguments are a connection and the name of the attached catalog.
        arguments
            The further arguments of the function.
        frees
            True if the change frees disk space. If the disk is full, the change is then tried again, with the disk space of the reserve (see
            `trouble`).
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
                    raise self.failure(error, "could not be changed", "try again; nothing was changed") from error
                raise
            finally:
                self.attachment.epoch += 1
            return result

        def spared(connection: Connection, name: str) -> T:
            # The reserve is deleted under the lease, so that other processes cannot use its disk space for rows.
            with spare(self.attachment.folder):
                return changed(connection, name)

        if not frees:
            return self.ask(changed)
        return with_room(self.attachment.folder, lambda: self.ask(spared))

    def check_writable(self) -> None:
        """Raise `StoreError` if this user could not write to the store when the catalog was last attached."""
        if self.attachment.write_error is not None:
            raise self.attachment.write_error

    @property
    def is_read_only(self) -> bool:
        """True if this user could not write to the store when the catalog was last attached."""
        return self.attachment.write_error is not None

    def pending(self) -> Commit | None:
        """Return the newest commit that is not over; None if there is none."""
        with self.mutex:
            return self._group or self._writing

    def unchanged(self) -> bool:
        """Return True if no other process has changed the catalog since this process last attached it."""
        return self.attachment.unchanged()

    @property
    def epoch(self) -> int:
        """A number that is incremented when another process has changed the catalog, or this process has changed or deleted rows.

        Rows that were read in an earlier epoch may be out of date.
        """
        return self.attachment.epoch

    def hurry(self) -> None:
        """Make the catalog thread commit the pending records now, without waiting for more records. Return at once."""
        with self.mutex:
            self._urgent = True
            self._wake()

    def flush(self) -> None:
        """Block until all pending records are committed; raise `StoreError` if a commit failed."""
        with self.mutex:
            groups = (self._writing, self._group)
        for group in groups:
            if group is not None:
                group.wait()

    def close(self) -> None:
        """Commit pending records, detach the catalog and end the catalog thread. A later record or question starts another one."""
        farewell = Once()
        with self.mutex:
            pending = self._group or self._writing
            # `_thread` is also None if the catalog thread was started but does not run yet; then there is a commit or a question.
            if (self._thread is None and self._group is None and not self._questions) or self._thread == get_ident():
                return
            self._closers.append((farewell, pending))
            self._closing = True
            self._wake()
        farewell.wait()

    def pause(self) -> None:
        """Detach the catalog until `resume` is called. Called before a fork.

        If the catalog were attached during the fork, DuckDB would regard it as attached in the child, too. So this method waits until the
        catalog thread has finished its present work and detached the catalog; pending work is done after the fork. If the catalog thread
        is waiting for the lease, the catalog is not attached, and `Lease.gate` prevents the thread from attaching it during the fork.

        If the work takes longer than `FORK` seconds (for example because a callback waits for the forking thread), this method returns
        nevertheless. If the child then uses the catalog, it gets an error that explains this.
        """
        lease = self.attachment.lease
        until = monotonic() + FORK
        with self.mutex:
            self._pausing = True
            self._condition.notify_all()
        while True:
            lease.gate.acquire()
            if not lease.is_held or self.attachment.is_stuck or self._thread in (None, get_ident()) or monotonic() > until:
                break
            lease.gate.release()
            sleep(0.002)
        self.mutex.acquire()

    def resume(self) -> None:
        """Let the catalog thread continue. Called in the parent after a fork."""
        self._pausing = False
        self._condition.notify_all()
        # If `pause` was interrupted and called again, this thread has acquired both locks several times. No other thread can hold them now.
        for taken in (self.mutex, self.attachment.lease.gate):
            with suppress(RuntimeError):
                while True:
                    taken.release()

    def abandon(self) -> None:
        """In a forked child, forget all state. Threads that wait for a commit or an answer get an error.

        The parent commits the pending records, but the child cannot find out whether this succeeds.
        """
        failure = StoreError(
            f"this process was forked while its parent was recording results in the store {self.attachment.directory},"
            " and cannot find out whether they were recorded",
            remedy="wait for the results in the parent process, or start worker processes with the method 'spawn'",
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
        """Start the catalog thread or, if it is running, wake it. The caller holds `mutex`."""
        if self._thread is None:
            # `threading.Thread` is not used, because an interrupt inside `Thread.start` could leave a thread that never runs. If several
            # threads are started before the first one runs, all others end at once.
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
            # Threads that wait for this thread would wait forever.
            _log.exception("the catalog thread of %s ended", self.attachment.directory)
            self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        """Make every commit and question fail, and every call of `close` return, because ``error`` has ended the catalog thread."""
        failure = self.failure(
            error,
            "could not be used, because of an error in Stepwell",
            "try again, and report this as a bug of Stepwell",
        )
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
        """Let every call of `close` return."""
        self._closing = False
        farewells, self._closers = self._closers, []
        for farewell, _ in farewells:
            farewell.happen()

    def _work(self) -> None:
        """Do the work of the catalog thread: commit records, answer questions and detach the catalog.

        Return when there has been no work for `LINGER` seconds, or when a thread has called `close` and the work is done.
        """
        idle_since = monotonic()
        while True:
            with self.mutex:
                if self._closing and not self.attachment.is_open and self._is_ready() and self._are_done(self._closers):
                    # Other threads may add records all the time, so `close` waits only for the commits that were pending when it was called.
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
        """Return True if every commit in ``farewells``, which has the form of `_closers`, is over."""
        return all(pending is None or pending.is_over for _, pending in farewells)

    def _is_ready(self) -> bool:
        """Return True if there is a question, or a commit that need not wait for more records."""
        if self._questions:
            return True
        group = self._group
        if group is None:
            return False
        return self._urgent or self._closing or monotonic() - group.since >= GATHER

    def _patience(self, now: float) -> float:
        """Return how many seconds the catalog thread may wait at most before it must look for work, even if no other thread wakes it."""
        if self._group is not None:
            return max(0.0, self._group.since + GATHER - now)
        if not self.attachment.is_open:
            return LINGER
        return max(QUIET, self.attachment.lease.since + HOLD - now)

    def _may_release(self, now: float, idle: float) -> bool:
        """Return True if the lease may be released.

        This is the case if there has been no work for `IDLE` seconds. It is also the case if another process waits for the lease, and the lease
        has been held long enough (`BUSY`; or `HOLD`, if there has been no work for `QUIET` seconds).

        ``idle`` is the number of seconds without work; ``now`` is the present time on the clock of `monotonic`.
        """
        if idle >= IDLE:
            return True
        lease = self.attachment.lease
        held = now - lease.since
        return (held >= BUSY or (held >= HOLD and idle >= QUIET)) and lease.is_requested()

    def _serve(self, questions: list[Question[Any]], group: Commit | None) -> None:
        """Commit the records of ``group``, unless it is None, then answer ``questions``.

        An error is passed to the thread that waits for the commit or the answer, and is not raised here.
        """
        create = all(question.create for question in questions)
        failure = self._attached(create=create)
        if group is not None:
            if failure is None:
                self._commit(group)
            else:
                self._end(group, failure)
        for number, question in enumerate(questions):
            if number or group is not None:
                # If the commit or the previous question has failed, the catalog may be detached.
                failure = failure or self._attached(create=create)
            if failure is not None:
                question.fail(failure)
                continue
            question.run(self.attachment.connection, self.attachment.name)
            if question.error is not None and not self.attachment.is_usable():
                # A fatal error, perhaps of another store, has ended the DuckDB instance. Nothing was committed, so the question is asked again.
                failure = self._attached(create=create)
                if failure is not None:
                    question.fail(failure)
                    continue
                question.run(self.attachment.connection, self.attachment.name)
            if question.error is not None:
                self._explain(question)
            question.finish()

    def _attached(self, *, create: bool) -> StoreError | None:
        """Attach the catalog unless it is attached; return the error if this fails, None if it succeeds.

        If ``create`` is true, a missing catalog is created.
        """
        try:
            if not self.attachment.is_usable():
                # A fatal error of another store has ended the DuckDB instance.
                self.roll_back()
            self.attachment.attach(create=create)
        except BaseException as error:
            if isinstance(error, StoreError):
                return error
            return self.failure(error, "cannot be opened", "check that its directory still exists")
        return None

    def _explain(self, question: Question[Any]) -> None:
        """If a question failed with an error of the operating system or of DuckDB, replace the error with the `StoreError` that explains it.

        The catalog, which may be unusable, is then detached.
        """
        error = question.error
        if error is None or isinstance(error, StepwellError):
            return
        failure = self.attachment.damage(error) or trouble(error, f"the store {self.attachment.directory} could not be used")
        if failure is not None:
            failure.__cause__ = error
            question.error = failure
            self.roll_back()

    def _commit(self, group: Commit) -> None:
        """Commit the records of ``group`` in one transaction, and report success or the error to the threads that wait for the commit."""
        connection = self.attachment.connection
        failure: StoreError | None = None
        try:
            self.check_writable()
            self.attachment.lease.mark()
            self.attachment.prepare_log()
            connection.begin()
            # When this string changes, another process may have deleted rows, so `RowWriter` forgets which code versions the catalog contains.
            known = f"{self.attachment.store_id} {self.attachment.epoch}"
            self._write(connection, self.attachment.name, known, group.records)
            self.attachment.count()
            connection.commit()
            self.attachment.acknowledge()
        except BaseException as error:
            failure = self.failure(
                error,
                "could not record finished steps",
                "run the steps again; steps that were recorded before are safe",
            )
            self.roll_back()
        self._end(group, failure)

    def _end(self, group: Commit | None, failure: StoreError | None) -> None:
        """Report the end of a commit: success if ``failure`` is None, else this error. If ``group`` is None, do nothing."""
        if group is not None:
            self._after_commit(group.records, failure)
            self._writing = None
            group.finish(failure)

    def roll_back(self) -> None:
        """Detach the catalog after an error, and so roll back an unfinished transaction. If this fails, the new error is only logged."""
        try:
            self.attachment.discard()
        except Exception as error:
            _log.warning(
                "the catalog of %s could not be detached after an error: %s",
                self.attachment.directory,
                one_line(error),
            )

    def _release(self) -> None:
        """Detach the catalog and release the lease. An error is only logged, because no committed row is lost."""
        try:
            self.attachment.detach()
        except Exception as error:
            # All committed rows are in the log of the catalog, which the next process that attaches the catalog replays.
            _log.warning("the catalog of %s was not checkpointed: %s", self.attachment.directory, one_line(error))

    def failure(self, error: BaseException, action: str, remedy: str) -> StoreError:
        """Return the `StoreError` that explains why an action on the catalog failed. Called on the catalog thread.

        Parameters
        ----------
        error
            The error that the action raised.
        action
            What could not be done, as the end of a sentence about the store, for example ``could not be changed``.
        remedy
            The remedy in the message. It is not used if ``error`` comes from the operating system or means that the catalog is damaged, because
            such errors have their own remedies.
        """
        damage = self.attachment.damage(error)
        if damage is not None:
            damage.__cause__ = error
            return damage
        what = f"the store {self.attachment.directory} {action}"
        failure = trouble(error, what) or StoreError(what, where=one_line(error), remedy=remedy)
        failure.__cause__ = error
        return failure

"""The catalog thread: the only thread of the process that talks to a store's DuckDB catalog.

Other threads hand it records and questions. Records are gathered in a `Commit`, which is one transaction. It is committed when its first
record has waited 50 ms, at once when another thread waits for it, and always before a question is answered, so that everybody
reads what they wrote. Between two pieces of work the thread keeps the catalog attached for a
short while, checks whether another process waits for it, and lets it go. With nothing to do for some seconds the thread ends; the
next call starts it again.

An interrupt (Ctrl-C) is raised in the main thread only, which at most waits here for an event (`Once`): no interrupt reaches
this thread or a transaction that has begun.
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
"""Seconds that a finished row waits at most for others to share its transaction."""
HOLD = 0.020
"""Seconds that a lease is held at least."""
BUSY = 0.080
"""Seconds that it is held while work comes in, though another process waits: letting go and coming back costs about as much as
two commits, so that turns of `HOLD` would spend most of everybody's time on taking turns."""
QUIET = 0.005
"""Seconds without work after which it is let go if another process waits."""
IDLE = 0.250
"""Seconds without work after which the lease is let go."""
FORK = 10.0
"""Seconds that a fork waits at most for what is done in the catalog."""
LINGER = 5.0
"""Seconds without work after which the thread ends."""

_log = logging.getLogger(__name__)


class Commit:
    """Rows that are committed together: all of them or none."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._over = Once()
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[BaseException | None], None]] = []
        self.records: list[Any] = []
        self.since = monotonic()

    @property
    def over(self) -> bool:
        """True once it was committed, or failed to be."""
        return self._over.over

    def wait(self) -> None:
        """Block until the group is committed; raise the `StoreError` that kept it from being committed."""
        if not self._over.over:
            self._catalog.hurry()
            self._over.wait()
        if self._error is not None:
            raise self._error

    def then(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call ``callback`` on the catalog thread after the commit, with the error if it failed; at once if over."""
        with self._catalog.mutex:
            if not self._over.over:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def disown(self, error: BaseException) -> None:
        """End the waiting in a forked child with an error; the callbacks are the parent's."""
        self._error = error
        self._over.happen()

    def finish(self, error: BaseException | None) -> None:
        """End the waiting and call the callbacks; called by the catalog thread."""
        with self._catalog.mutex:
            self._error = error
            self._over.happen()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(error)
            except Exception:
                _log.exception("a callback after a commit failed")


class Question(Generic[T]):
    """Something that needs the attached catalog, asked from another thread."""

    def __init__(self, answer: Callable[[Connection, str], T], *, create: bool = True) -> None:
        self._answer = answer
        self.create = create
        self._over = Once()
        self._result: T | None = None
        self.error: BaseException | None = None

    def run(self, connection: Connection, name: str) -> None:
        """Ask the attached catalog, on the catalog thread; an error is raised in the waiting thread."""
        self.error = None
        try:
            self._result = self._answer(connection, name)
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        """End the waiting."""
        self._over.happen()

    def fail(self, error: BaseException) -> None:
        """End the waiting with an error."""
        self.error = error
        self._over.happen()

    def wait(self) -> T:
        """Block until it was answered; return the answer, or raise what kept it from being given."""
        self._over.wait()
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
        Given a connection inside a transaction, the catalog's name, its identity (with a number that grows whenever somebody else wrote) and
        the records of a group: appends their rows.
    ended
        Called on the catalog thread with the records of a group after its commit, and the error if that failed.
    """

    def __init__(
        self,
        folder: Folder,
        write: Callable[[Connection, str, str, list[Any]], None],
        ended: Callable[[list[Any], BaseException | None], None],
    ) -> None:
        self.attachment = Attachment(folder)
        self._write = write
        self._ended = ended
        self.notify: Notify = lambda _: None
        """Is given lines for the person who uses the store."""
        self._reset()
        catalogs.add(self)

    def _reset(self) -> None:
        # Other threads take the mutex itself: entering a Condition is Python code, and an interrupt in it would keep the lock.
        self.mutex = threading.RLock()
        self._condition = threading.Condition(self.mutex)
        self._clear()

    def _clear(self) -> None:
        self._group: Commit | None = None
        self._writing: Commit | None = None
        self._questions: deque[Question[Any]] = deque()
        self._thread: int | None = None
        self._farewells: list[tuple[Once, Commit | None]] = []
        """For each thread that waits until the catalog is detached: its event, and the group that was the newest then."""
        self._urgent = False
        self._letting_go = False
        self._pausing = False

    # -- called from any thread --------------------------------------------------------------------------------------

    def open(self, *, create: bool) -> None:
        """Attach the catalog once, so that a store that cannot be used is an error now."""
        question: Question[None] = Question(lambda *_: None, create=create)
        self._put(question)
        question.wait()
        self._say()

    def add(self, record: Any) -> Commit:
        """Add a record to the group that is gathered now."""
        check_going_on()
        self.check_writable()
        with self.mutex:
            group = self._group
            if group is None:
                self._wake()
                group = self._group = Commit(self)
            group.records.append(record)
            return group

    def ask(self, answer: Callable[[Connection, str, *Ts], T], *given: *Ts) -> T:
        """Run ``answer(connection, name, *given)`` on the catalog thread after everything added so far was committed."""
        question = Question(lambda connection, name: answer(connection, name, *given))
        if get_ident() == self._thread:
            # A callback after a commit asks: waiting for ourselves would never end.
            self._serve([question], None)
        else:
            self._put(question)
        found = question.wait()
        self._say()
        return found

    def _say(self) -> None:
        """Pass on the notices of the attachment, in the thread that asked."""
        while self.attachment.notices:
            with suppress(IndexError):
                self.notify(self.attachment.notices.pop(0))

    def change(self, answer: Callable[[Connection, str, *Ts], T], *given: *Ts, frees: bool = False) -> T:
        """Run ``answer(connection, name, *given)`` in one transaction, after everything added so far was committed.

        What is remembered of the catalog is out of date afterwards, in this process too.

        Parameters
        ----------
        answer, given
            Does the work.
        frees
            Whether it is done to free room, so that it may use what is kept for a full disk.
        """

        def changed(connection: Connection, name: str) -> T:
            import duckdb

            self.check_writable()
            self.attachment.lease.mark()
            self.attachment.prepare_log()
            connection.begin()
            try:
                found = answer(connection, name, *given)
                self.attachment.count()
                connection.commit()
                self.attachment.acknowledge()
            except BaseException as error:
                try:
                    connection.rollback()
                except Exception:
                    self.roll_back()
                if isinstance(error, duckdb.Error):
                    raise self.failure(error, "could not be changed", "it is as it was before: try again") from error
                raise
            finally:
                self.attachment.epoch += 1
            return found

        def spared(connection: Connection, name: str) -> T:
            # Under the lease, so that rows of other processes do not take the room.
            with spare(self.attachment.folder):
                return changed(connection, name)

        if not frees:
            return self.ask(changed)
        return with_room(self.attachment.folder, lambda: self.ask(spared))

    def check_writable(self) -> None:
        """Raise why nothing can be written, if that is known: before anything is computed or written."""
        if self.attachment.read_only is not None:
            raise self.attachment.read_only

    @property
    def read_only(self) -> bool:
        """True if this user could not write the store when it was last attached."""
        return self.attachment.read_only is not None

    def pending(self) -> Commit | None:
        """Return the newest group that is not committed yet, or None."""
        with self.mutex:
            return self._group or self._writing

    def unchanged(self) -> bool:
        """Return True if no other process wrote since the catalog was last attached here."""
        return self.attachment.unchanged()

    @property
    def epoch(self) -> int:
        """Grows whenever the catalog turns out to have been written by others in between."""
        return self.attachment.epoch

    def hurry(self) -> None:
        """Commit what is pending without gathering more."""
        with self.mutex:
            self._urgent = True
            self._wake()

    def flush(self) -> None:
        """Block until everything added so far is committed."""
        with self.mutex:
            groups = (self._writing, self._group)
        for group in groups:
            if group is not None:
                group.wait()

    def close(self) -> None:
        """Commit what is pending, let the catalog go and end the thread; a later call starts it again."""
        farewell = Once()
        with self.mutex:
            pending = self._group or self._writing
            # A thread that was started but did not run yet has something to do: it is not missed here.
            if (self._thread is None and self._group is None and not self._questions) or self._thread == get_ident():
                return
            self._farewells.append((farewell, pending))
            self._letting_go = True
            self._wake()
        farewell.wait()

    def pause(self) -> None:
        """Let the catalog go, and keep it so until `resume`: before a fork.

        DuckDB remembers the files that are attached, and a child inherits that memory. So work that is going on is waited for; what is
        pending is done after the fork. A thread that waits for another process has nothing attached: it is kept from going on.
        Work that does not end (a callback that waits for the thread that forks) costs the child its catalog, which says so.
        """
        lease = self.attachment.lease
        until = monotonic() + FORK
        with self.mutex:
            self._pausing = True
            self._condition.notify_all()
        while True:
            lease.gate.acquire()
            if not lease.held or self.attachment.stuck or self._thread in (None, get_ident()) or monotonic() > until:
                break
            lease.gate.release()
            sleep(0.002)
        self.mutex.acquire()

    def resume(self) -> None:
        """Go on after a fork, in the parent."""
        self._pausing = False
        self._condition.notify_all()
        # More than once where `pause` was interrupted when it just had them; no other thread can have them here.
        for taken in (self.mutex, self.attachment.lease.gate):
            with suppress(RuntimeError):
                while True:
                    taken.release()

    def abandon(self) -> None:
        """Forget everything in a forked child: the parent commits pending rows, and the child cannot know whether it did."""
        failure = StoreError(
            f"what the parent of this process was recording in {self.attachment.directory} when it was forked is not known here",
            remedy="wait for it in the parent; or start worker processes with the method 'spawn'",
        )
        for group in (self._writing, self._group):
            if group is not None:
                group.disown(failure)
        for question in self._questions:
            question.fail(failure)
        self.attachment.abandon()
        self._reset()

    def _put(self, question: Question[Any]) -> None:
        check_going_on()
        with self.mutex:
            self._wake()
            self._questions.append(question)

    def _wake(self) -> None:
        if self._thread is None:
            # Not a Thread object: an interrupt while that waits for its start would leave one that never runs. Of several
            # that are started before the first one runs, the first stays.
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
            # No thread may wait for a thread that is gone.
            _log.exception("the catalog thread of %s ended", self.attachment.directory)
            self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        failure = self.failure(error, "failed", "try again, and report this: it is an error of Stepwell's own")
        with self.mutex:
            groups = [group for group in (self._writing, self._group) if group is not None]
            questions = list(self._questions)
            farewells = self._farewells
            self._clear()
        for group in groups:
            group.finish(failure)
        for question in questions:
            question.fail(failure)
        for farewell, _ in farewells:
            farewell.happen()

    def _say_farewell(self) -> None:
        self._letting_go = False
        farewells, self._farewells = self._farewells, []
        for farewell, _ in farewells:
            farewell.happen()

    def _work(self) -> None:
        idle_since = monotonic()
        while True:
            with self.mutex:
                if self._letting_go and not self.attachment.open and self._ready() and self._are_done(self._farewells):
                    # Others go on: who lets the catalog go waits for what there was, not for them.
                    self._say_farewell()
                while self._pausing or not self._ready():
                    if self._pausing:
                        if self.attachment.open and not self.attachment.stuck:
                            break
                        self._condition.wait()
                        continue
                    now = monotonic()
                    idle = now - idle_since
                    if (
                        self.attachment.open
                        and not self.attachment.stuck
                        and (self._letting_go or self._may_go(now, idle))
                    ):
                        break
                    if (
                        (not self.attachment.open or self.attachment.stuck)
                        and (self._letting_go or idle > LINGER)
                        and self._group is None
                    ):
                        self._thread = None
                        self._say_farewell()
                        return
                    self._condition.wait(self._patience(now))
                ready = not self._pausing and self._ready()
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
                if not self.attachment.open or self.attachment.stuck:
                    continue
                if not self._letting_go and not self._may_go(idle_since, 0.0):
                    continue
            self._release()

    def _are_done(self, farewells: list[tuple[Once, Commit | None]]) -> bool:
        return all(pending is None or pending.over for _, pending in farewells)

    def _ready(self) -> bool:
        if self._questions:
            return True
        group = self._group
        if group is None:
            return False
        return self._urgent or self._letting_go or monotonic() - group.since >= GATHER

    def _patience(self, now: float) -> float:
        """Seconds until something may have to be done without anybody waking us."""
        if self._group is not None:
            return max(0.0, self._group.since + GATHER - now)
        if not self.attachment.open:
            return LINGER
        return max(QUIET, self.attachment.lease.since + HOLD - now)

    def _may_go(self, now: float, idle: float) -> bool:
        if idle >= IDLE:
            return True
        lease = self.attachment.lease
        held = now - lease.since
        return (held >= BUSY or (held >= HOLD and idle >= QUIET)) and lease.wanted()

    def _serve(self, questions: list[Question[Any]], group: Commit | None) -> None:
        """Commit a group, then answer questions. Errors are raised in the waiting threads, never here."""
        create = all(question.create for question in questions)
        failure = self._attached(create=create)
        if group is not None:
            if failure is None:
                self._commit(group)
            else:
                self._end(group, failure)
        for question in questions:
            # A commit, or another question, that failed has let the catalog go.
            failure = failure or self._attached(create=create)
            if failure is not None:
                question.fail(failure)
                continue
            question.run(self.attachment.connection, self.attachment.name)
            if question.error is not None and not self.attachment.is_usable():
                # A fatal error, perhaps of another store, has ended the process's instance meanwhile. Nothing was changed: it cannot commit.
                failure = self._attached(create=create)
                if failure is not None:
                    question.fail(failure)
                    continue
                question.run(self.attachment.connection, self.attachment.name)
            if question.error is not None:
                self._explain(question)
            question.tell()

    def _attached(self, *, create: bool) -> StoreError | None:
        """Attach the catalog where it is not; return why that cannot be done."""
        try:
            if not self.attachment.is_usable():
                # A fatal error of another store has ended the process's instance.
                self.roll_back()
            self.attachment.attach(create=create)
        except BaseException as error:
            if isinstance(error, StoreError):
                return error
            return self.failure(error, "cannot be opened", "is its directory still there?")
        return None

    def _explain(self, question: Question[Any]) -> None:
        """Put our error in the place of one of the machine's or of DuckDB's, and let a catalog go that cannot be used any more."""
        error = question.error
        if error is None or isinstance(error, StepwellError):
            return
        found = self.attachment.damage(error) or trouble(
            error, f"the store {self.attachment.directory} could not be used"
        )
        if found is not None:
            found.__cause__ = error
            question.error = found
            self.roll_back()

    def _commit(self, group: Commit) -> None:
        connection = self.attachment.connection
        failure: StoreError | None = None
        try:
            self.check_writable()
            self.attachment.lease.mark()
            self.attachment.prepare_log()
            connection.begin()
            # Another process may have deleted rows that we believe exist.
            known = f"{self.attachment.store_id} {self.attachment.epoch}"
            self._write(connection, self.attachment.name, known, group.records)
            self.attachment.count()
            connection.commit()
            self.attachment.acknowledge()
        except BaseException as error:
            failure = self.failure(
                error,
                "could not record what finished",
                "what was recorded before is safe: run the steps again",
            )
            self.roll_back()
        self._end(group, failure)

    def _end(self, group: Commit | None, failure: StoreError | None) -> None:
        if group is not None:
            self._ended(group.records, failure)
            self._writing = None
            group.finish(failure)

    def roll_back(self) -> None:
        """End what is left of a transaction: a commit that failed has ended its own."""
        try:
            self.attachment.discard()
        except Exception as error:
            _log.warning("the catalog of %s was let go after an error: %s", self.attachment.directory, one_line(error))

    def _release(self) -> None:
        try:
            self.attachment.detach()
        except Exception as error:
            # Every row was committed: it is in the log, which the next process that opens the catalog reads.
            _log.warning("the catalog of %s was not checkpointed: %s", self.attachment.directory, one_line(error))

    def failure(self, error: BaseException, what: str, remedy: str) -> StoreError:
        """Return the error for something that could not be done to the catalog; called on the catalog thread."""
        damage = self.attachment.damage(error)
        if damage is not None:
            damage.__cause__ = error
            return damage
        what = f"the store {self.attachment.directory} {what}"
        failure = trouble(error, what) or StoreError(what, where=one_line(error), remedy=remedy)
        failure.__cause__ = error
        return failure

"""Two processes about to compute the same: the second waits for the first, and reuses what it made.

A run claims the memo key of a step that is known to take long before it begins with it, and one that turns out to
take long once it has run for `LONG` seconds, from a thread that does nothing else. A claim is let go when the step's rows are committed, so
whoever gets it next and asks the catalog finds them. Shorter steps are not claimed: they may run twice.

A run that misses a step which somebody has claimed waits, as long as it takes, says for whom, and looks again. It goes on at
once when the other process dies: the claim is an OS lock. Forced steps never wait; what cannot be reused (a volatile step, one whose code
has no digest) is not claimed.

No deadlock is possible:

1. A run waits for at most one claim at a time, in `before`, on the thread that runs its steps.
2. While it waits, it holds no claim of a step whose body has yet to run or to end. Steps run one after the other, so there is one such
   step at most, and its claim is taken at the end of `before`, after all waiting for it. The one place that begins with another
   step before that one's body is an input whose value was lost (`Engine._again`): it lets the claim go first (`drop`), and the outer
   step then takes its claim again only where it is free (`computing` never waits).
3. So what a waiting run still holds are claims of steps that ended and whose rows are not committed yet. These are let go by the catalog
   thread, which waits for the lease of the catalog and for nothing else; and the lease is never held while anybody waits for a claim.

Hence nobody who waits is waited for by another one for longer than a commit, and a circle of waiting has no beginning. What lies
outside: a body that itself starts a process which needs the very step that the body computes, and waits for it.
"""

from __future__ import annotations

import os
import platform
import time
from _thread import start_new_thread
from dataclasses import dataclass

from stepwell.kernel_runtime.execution.bookkeeping import Bookkeeping
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.planning.memo import Known
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.records.protocols import Claim, ValueStore
from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.locks import Once

LONG = 0.2
"""Seconds from which on a step is claimed, and a wait is shown."""
_SHORTEST, _LONGEST = 0.02, 0.1
"""Seconds between two looks at a claim that somebody else holds."""


@dataclass(slots=True, eq=False)
class _Watched:
    """A body that runs without a claim so far."""

    memo: str
    since: float
    claim: Claim | None = None


class Claiming:
    """The claims of one run."""

    def __init__(self, store: ValueStore, known: Known, books: Bookkeeping, guard: InterruptGuard, total: int) -> None:
        self._store = store
        self._claims = store.claims
        self._known = known
        self._books = books
        self._guard = guard
        self._total = total
        self._claim: Claim | None = None
        self._watched: _Watched | None = None
        self._watching = False
        self._over = Once()

    def before(self, step: PlanStep, memo: str, position: int) -> bool:
        """Wait while somebody else computes a step; claim it if it takes long. Nothing is claimed when it was interrupted.

        Returns
        -------
        bool
            Whether `Known` knows more than before, so that the step may be reused.
        """
        if not _can_be_reused(step, memo) or not (self._takes_long(step) or self._claims.is_there(memo)):
            return False
        self._claim = self._take(memo)
        waited = self._claim is None
        if waited:
            self._claim = self._wait(step, memo, position)
            if self._claim is None:
                return False
        elif self._store.is_newest(self._known.snapshot):
            return False
        codes = [step.code.digest] if step.code is not None else []
        keys = [output.key for output in step.outputs]
        try:
            found = self._guard.call(lambda: self._store.snapshot(keys, [step.address], codes, remember=False))
        except KeyboardInterrupt:
            return False
        self._known.look_again(found)
        return True

    def computing(self, step: PlanStep, memo: str) -> None:
        """Say that a body begins: it is claimed now if it is known to take long and nobody has it, or when it has taken long."""
        if self._claim is not None or not _can_be_reused(step, memo):
            return
        if self._takes_long(step):
            self._claim = self._take(memo)
        if self._claim is None:
            self._watched = _Watched(memo, time.monotonic())
            if not self._watching:
                self._watching = True
                start_new_thread(self._watch, ())

    def ended(self) -> None:
        """Say that a step ended or will not run: its claim is let go when what was recorded of it is committed."""
        watched, self._watched = self._watched, None
        claim, self._claim = self._claim, None
        for each in (claim, watched.claim if watched is not None else None):
            if each is not None:
                self._books.after_commit(each.release)

    def drop(self) -> None:
        """Let the claim of a step whose body has not begun go at once: another one comes first."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def close(self) -> None:
        """End with the run."""
        self._over.happen()

    def _takes_long(self, step: PlanStep) -> bool:
        return self._known.snapshot.seconds.get(step.address, 0.0) >= LONG

    def _take(self, memo: str) -> Claim | None:
        return self._claims.take(memo, Claimant(self._books.run.notebook, os.getpid(), platform.node(), time.time()))

    def _wait(self, step: PlanStep, memo: str, position: int) -> Claim | None:
        """Return the claim as soon as nobody else has it; None if the run is to stop."""
        began, pause = time.monotonic(), _SHORTEST
        shown: Claimant | None = None
        while not self._guard.interrupted:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST)
            claim = self._take(memo)
            if claim is not None:
                return claim
            waited = time.monotonic() - began
            if waited >= LONG:
                claimant = self._claims.claimant(memo)
                # Its holder may be about to write who it is; another one may have got it before us.
                if claimant != shown and (claimant.pid or waited >= 5 * LONG):
                    shown = claimant
                    self._books.waiting(step, position, self._total, claimant)
        return None

    def _watch(self) -> None:
        while not self._over.wait(LONG / 2):
            watched = self._watched
            if watched is None or watched.claim is not None or time.monotonic() - watched.since < LONG:
                continue
            watched.claim = self._take(watched.memo)
            if watched.claim is not None and self._watched is not watched:
                # It ended while we took the claim: one of us two has seen the other.
                watched.claim.release()


def _can_be_reused(step: PlanStep, memo: str) -> bool:
    unverifiable = step.code is not None and step.code.unverifiable
    return bool(memo) and step.memoised and not step.op.volatile and not unverifiable

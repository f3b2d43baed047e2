"""Hidden state: what a step's code reaches and its body has changed.

A step's code version is made before the first step runs, from the globals as they are then. A body that changes one of them makes
it wrong for the steps that follow: these are keyed anew before they start, and the change is told. What a step of a job that is
not memoised has changed is not known, for its code is not walked; what follows it is always keyed anew.
"""

from __future__ import annotations

from collections.abc import Callable

from stepwell.kernel_runtime.planning.build import step_extra
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.versions.walk import CodeWalk, Watched


class HiddenState:
    """Keeps the code versions of one run true.

    Parameters
    ----------
    walk
        The walk that the plan's code versions come from.
    new_walk
        Makes another one, which digests everything that can change anew.
    """

    def __init__(self, walk: CodeWalk, new_walk: Callable[[], CodeWalk]) -> None:
        self.walk = walk
        self._new_walk = new_walk
        self._changes = 0
        self._settled: dict[str, int] = {}

    def settle(self, step: PlanStep) -> bool:
        """Give a step that is about to be decided its code version of now; tell whether it is another one."""
        if not self._changes or step.code is None or self._settled.get(step.key) == self._changes:
            return False
        self._settled[step.key] = self._changes
        before = step.code.digest
        step.code = self.walk.of(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return step.code.digest != before

    def changed(self) -> None:
        """Have the steps that follow keyed again: a cell has changed the notebook."""
        self._changes += 1
        self.walk = self._new_walk()

    def before(self, step: PlanStep) -> Watched | None:
        """Take down what a step could change; None if it reaches nothing of that kind."""
        if step.code is None:
            return None
        return self.walk.watched(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)

    def after(self, step: PlanStep, watched: Watched | None) -> tuple[str, ...]:
        """Return the names of what a step has changed, as its code reaches them: ``CACHE``, ``helper(seen=)``."""
        if step.code is None:
            self._changes += 1
            self.walk = self._new_walk()
            return ()
        if watched is None:
            return ()
        walk = self._new_walk()
        roots = walk.roots(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        paths = watched.changed(roots)
        if not paths:
            return ()
        self._changes += 1
        self.walk = walk
        return tuple(dict.fromkeys(path.rpartition(" -> ")[2] for path in paths))

"""``stale now: clean, model``: the line that ends a plain cell which made assets stale.

What was computed or reused in this kernel is remembered with its code version. After a plain cell the code versions of now are made,
which is cheap where nothing changed; only if one is another are states asked for. A look that took much of the processor's time lets the
next cells be, and a line says so. The time of the clock does not count: on a loaded machine each look takes long.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.text import duration
from stepwell.magics.face import Face

BUDGET = 0.1
"""Seconds of this thread's processor time that looking at code may take after each cell."""
_REST = 20
"""How many times as long as a look beyond the budget took no other is taken."""
_OURS = ("%%asset", "%%multi_asset", "%%sql_asset", "%%graph_asset", "%%op", "%%graph", "%%job")


class Staleness:
    """Notices what plain cells make stale."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._computed: dict[str, str] = {}
        """By step key, the code version of its newest value in this kernel."""
        self._changed: dict[str, str] = {}
        self._said: frozenset[str] = frozenset()
        self._rest_until = 0.0
        self._reported = False
        self._ran = False

    def ran(self, steps: Iterable[StepRecord]) -> None:
        """Take note of the steps of a run."""
        self._ran = True
        for step in steps:
            if step.status in ("executed", "reused") and step.materializations:
                self._computed[step.key] = step.materializations[0].code_version

    def after_cell(self, text: str) -> None:
        """Say which assets the cell that ended has made stale; whatever goes wrong here is no error of the cell."""
        ran, self._ran = self._ran, False
        face = self._face
        if not face.settings.show_stale or not face.interactive or not self._computed:
            return
        if time.monotonic() < self._rest_until:
            return
        started = time.thread_time()
        try:
            named = self._stale()
        except Exception:
            # Definitions that contradict each other say so when they are run.
            return
        finally:
            seconds = time.thread_time() - started
            if seconds > BUDGET:
                self._rest(seconds)
        if named is None:
            return
        new = [key for key in named if key not in self._said]
        self._said = frozenset(named)
        if new and not ran and not text.lstrip().startswith(_OURS):
            face.say(f"stale now: {', '.join(new)}")

    def _rest(self, seconds: float) -> None:
        """Look no more for a while, and say so the first time."""
        self._rest_until = time.monotonic() + _REST * seconds
        if not self._reported:
            self._reported = True
            self._face.say(
                f"Looking for stale assets took {duration(seconds)}; it is done again after {duration(_REST * seconds)}, at the end of a cell. "
                "%config Stepwell.show_stale = False turns it off."
            )

    def _stale(self) -> list[str] | None:
        """Return the assets that are stale by an edit since they were computed; None if that is as it was."""
        session: Any = self._face.session
        versions: dict[str, str] = session.code_versions()
        changed = {key: version for key, version in versions.items() if self._computed.get(key, version) != version}
        if changed == self._changed:
            return None
        self._changed = changed
        if not changed:
            return []
        found: dict[str, None] = {}
        for key, state in session.states().items():
            if key in self._computed and (
                (key in changed and state.must_run)
                or (state.state == "may change" and any(reason.path in found for reason in state.reasons))
            ):
                found[key] = None
        return list(dict.fromkeys(key.split(".", 1)[0] for key in found))

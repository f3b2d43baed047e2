"""Plain cells: their changes to the names of the notebook go into the timeline, and ``stale now: clean, model`` names assets that they make stale.

`Staleness` remembers the code version of every step that was computed or reused in this kernel. After a plain cell it computes the code
versions again, which is cheap if nothing changed. It asks for states only if a version differs. After a check that took much processor time it
skips the next cells, and a line says so. The limit is in processor time because on a loaded machine every check takes long.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.execution.contents import can_change, is_iterator
from stepwell.kernel_runtime.execution.timeline import Unstored
from stepwell.kernel_runtime.execution.world import Writer
from stepwell.kernel_runtime.reads.readers import seedings
from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.text import duration
from stepwell.kernel_runtime.versions.patches import scan
from stepwell.magics.cell_changes import changed_names
from stepwell.magics.cell_inputs import cell_origin
from stepwell.magics.cell_names import names_of
from stepwell.magics.face import Face
from stepwell.magics.running import compute_unstored

BUDGET = 0.1
"""Seconds of processor time of this thread that the check after each cell may take."""
_REST = 20
"""The pause after a check that exceeded the budget, as a multiple of the time that it took."""
_OURS = ("%%asset", "%%multi_asset", "%%sql_asset", "%%graph_asset", "%%op", "%%graph", "%%job")


class Staleness:
    """Names the assets that plain cells make stale."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._computed: dict[str, str] = {}
        """By step key, the code version of the newest value in this kernel."""
        self._changed: dict[str, str] = {}
        self._said: frozenset[str] = frozenset()
        self._rest_until = 0.0
        self._reported = False
        self._ran = False

    def ran(self, steps: Iterable[StepRecord]) -> None:
        """Record the code versions of the steps of a run."""
        self._ran = True
        for step in steps:
            if step.status in ("executed", "reused") and step.materializations:
                self._computed[step.key] = step.materializations[0].code_version

    def after_cell(self, text: str) -> None:
        """Print the assets that the cell has made stale. An exception in the check is not an error of the cell."""
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
            # Contradicting definitions raise when they are run.
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
        """Pause the checks, and print a line the first time."""
        self._rest_until = time.monotonic() + _REST * seconds
        if not self._reported:
            self._reported = True
            self._face.say(
                f"The check for stale assets took {duration(seconds)}; the next one is at least {duration(_REST * seconds)} later. "
                "%config Stepwell.show_stale = False turns it off."
            )

    def _stale(self) -> list[str] | None:
        """Return the assets that an edit made stale since they were computed; None if no code version changed since the last check."""
        session: Session = self._face.session
        steps = session.inspect().plan().steps
        versions = {step.key: step.code.digest for step in steps if step.code is not None}
        changed = {key: version for key, version in versions.items() if self._computed.get(key, version) != version}
        if changed == self._changed:
            return None
        self._changed = changed
        if not changed:
            return []
        stale: dict[str, None] = {}
        for key, state in session.states().items():
            if key in self._computed and (
                (key in changed and state.must_run)
                or (state.state == "may change" and any(reason.path in stale for reason in state.reasons))
            ):
                stale[key] = None
        return list(dict.fromkeys(key.split(".", 1)[0] for key in stale))


_STEPS = ("%%asset", "%%multi_asset", "%%sql_asset", "%%graph_asset")
"""Cells that run as steps, which record their own changes."""
_LABEL = 40
"""The number of characters of a cell's first line that messages show."""


class CellWatch:
    """Notes which names each cell binds and may change."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._before: dict[str, int] | None = None
        self._seedings = 0

    def begin(self, info: Any) -> None:
        """Record the identities of all variables before a cell runs, and compute unstored values that the cell needs."""
        self._face.timeline.look_at_world()
        if (info.raw_cell or "").lstrip().startswith(_STEPS):
            self._before = None
            return
        if self._lacks_values() and (tree := self._tree(info)) is not None:
            names, space = names_of(tree), self._face.namespace
            direct, called, everything = changed_names(tree)
            changed = set(space) if everything else {*direct, *reached_names(space, called)}
            compute_unstored(self._face, reached_names(space, names.reads), names.assigned, changed)
        self._seedings = len(seedings)
        # Identities only: a reference would keep objects alive that the cell drops.
        self._before = {name: id(value) for name, value in self._face.namespace.items()}

    def _lacks_values(self) -> bool:
        """Return True if reused cells left variables or results that were not stored."""
        outputs = self._face.namespace.get("_oh")
        held = list(outputs.values()) if isinstance(outputs, dict) else []
        return bool(self._face.timeline.unstored) or any(type(output) is Unstored for output in held)

    def end(self, info: Any) -> None:
        """Record the names that a cell bound and may have changed."""
        before, self._before = self._before, None
        if before is None:
            # It is unknown which step of the cell made a change.
            self._face.timeline.look_at_world(replace(self._writer(info), kind="step"))
            return
        space = self._face.namespace
        tree = self._tree(info)
        scan(() if tree is None else (compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),), space)
        bound = {name for name, value in space.items() if before.get(name) != id(value) and not name.startswith("_")}
        if before.get("_") != id(space.get("_")):
            bound |= {"_", "__", "___"}
        if tree is None:
            changed = {name for name, value in space.items() if can_change(value)}
            reads = frozenset(space)
        else:
            names = names_of(tree)
            reads = names.reads
            # Names that steps of this cell bound belong to these steps.
            bound -= {name for name in bound if self._face.timeline.bound_to(name) is not None}
            bound |= {name for name in names.assigned if name in space}
            direct, called, everything = changed_names(tree)
            if everything:
                changed = {name for name, value in space.items() if can_change(value)}
            else:
                through = reached_names(space, called) - set(called)
                changed = {name for name in direct | through if name in space and can_change(space[name])}
                # Reading an iterator changes it.
                changed |= {name for name in reads if is_iterator(space.get(name))}
        writer = self._writer(info)
        # A deleted name counts as bound: a later binding is a different variable.
        bound |= {name for name in before if name not in space and not name.startswith("_")}
        self._face.timeline.note(writer, bound=bound, changed=changed - bound, read=reads)
        for stream in dict.fromkeys(seedings[self._seedings :]):
            self._face.timeline.seeded(stream, writer)
        self._face.timeline.look_at_world(writer)

    def _tree(self, info: Any) -> ast.Module | None:
        shell = self._face.shell
        try:
            text = getattr(info, "transformed_cell", None) or shell.transform_cell(info.raw_cell or "")
            return ast.parse(str(text))
        except (SyntaxError, ValueError):
            return None

    def _writer(self, info: Any) -> Writer:
        face = self._face
        lines = [line.strip() for line in (info.raw_cell or "").splitlines() if line.strip()]
        first = lines[0] if lines else ""
        shown = first if len(first) <= _LABEL else first[: _LABEL - 1] + "…"
        number = max(face.shell.execution_count - 1, 1)
        label = f"[{number}] ({shown})" if shown else f"[{number}]"
        terminal = getattr(face.shell, "kernel", None) is None and not getattr(info, "cell_id", None)
        # A terminal has no cells to return to: every new binding counts as an edit of the old one.
        return Writer("cell", "terminal" if terminal else cell_origin(info), label, f"cell {number}")

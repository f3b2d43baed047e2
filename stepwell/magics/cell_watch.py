"""Plain cells: the changes that each makes to the names of the notebook go into the timeline, and the line ``stale now: clean, model`` is printed.

The code version of everything that was computed or reused in this kernel is remembered. After a plain cell the present code versions are made,
which is cheap where nothing changed. States are asked for only if one of them differs. After a check that took much processor time the next
cells are not checked, and a line says so. Wall time does not count: on a loaded machine each check takes long.
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
        """Name the assets that the cell has made stale. An exception here is not an error of the cell."""
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
        session: Session = self._face.session
        steps = session.inspect().plan().steps
        versions = {step.key: step.code.digest for step in steps if step.code is not None}
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


_STEPS = ("%%asset", "%%multi_asset", "%%sql_asset", "%%graph_asset")
"""Cells that do what they do as steps, which note it themselves."""
_LABEL = 40
"""Characters of a cell's first line that messages show."""


class CellWatch:
    """Notes which names each cell binds and may change."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._before: dict[str, int] | None = None
        self._seedings = 0

    def begin(self, info: Any) -> None:
        """Note what names are bound to before a cell runs."""
        self._face.timeline.look_at_world()
        if (info.raw_cell or "").lstrip().startswith(_STEPS):
            self._before = None
            return
        if self._may_lack() and (tree := self._tree(info)) is not None:
            names, space = names_of(tree), self._face.namespace
            direct, called, everything = changed_names(tree)
            changed = set(space) if everything else {*direct, *reached_names(space, called)}
            compute_unstored(self._face, reached_names(space, names.reads), names.assigned, changed)
        self._seedings = len(seedings)
        # Identities only: a reference would keep what the cell lets go.
        self._before = {name: id(value) for name, value in self._face.namespace.items()}

    def _may_lack(self) -> bool:
        """Return True if reused cells left something that was not stored."""
        outputs = self._face.namespace.get("_oh")
        held = list(outputs.values()) if isinstance(outputs, dict) else []
        return bool(self._face.timeline.unstored) or any(type(each) is Unstored for each in held)

    def end(self, info: Any) -> None:
        """Note what a cell bound and may have changed."""
        before, self._before = self._before, None
        if before is None:
            # Which of its steps did it is not known.
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
            # What steps that it ran bound is theirs.
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
        # A name that it deleted is another one from then on, too.
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
        # In a terminal there is no cell to return to: every new binding counts as an edit of the old one.
        return Writer("cell", "terminal" if terminal else cell_origin(info), label, f"cell {number}")

"""What plain cells do to the names of the notebook: noted in the timeline before and after each."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.execution.contents import can_change, is_iterator
from stepwell.kernel_runtime.execution.notebook import Unstored
from stepwell.kernel_runtime.execution.world import Writer
from stepwell.kernel_runtime.reads.readers import seedings
from stepwell.kernel_runtime.versions.patches import look
from stepwell.magics.cell_changes import changed_names
from stepwell.magics.cell_inputs import cell_origin
from stepwell.magics.cell_names import names_of
from stepwell.magics.face import Face
from stepwell.magics.running import compute_unstored

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
        look(() if tree is None else (compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),), space)
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

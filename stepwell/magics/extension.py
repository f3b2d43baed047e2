"""``%load_ext stepwell``: everything that the extension installs in a shell, and its removal.

It installs magics, a completion matcher, wrappers of the display publisher, two callbacks around each cell, a subscription to the
session's events, and the names of cells in messages. Loading twice has no further effect; unloading leaves the shell as it was.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from stepwell.commands.wording import listen, notice_text
from stepwell.kernel_runtime.definitions.bodies import set_cell_names, set_name_places
from stepwell.kernel_runtime.errors import DuplicateKeyError, StoreError
from stepwell.kernel_runtime.execution.restoration import lost_file
from stepwell.kernel_runtime.reads.readers import seeded
from stepwell.kernel_runtime.records.runs import (
    DefinitionsChanged,
    Event,
    Notice,
    RunEnded,
    RunFinished,
    StepFinished,
    StepStarted,
    StepWaiting,
)
from stepwell.kernel_runtime.session import Session, get_session
from stepwell.magics.cell_inputs import cell_origin
from stepwell.magics.cell_watch import CellWatch, Staleness
from stepwell.magics.face import DisplayHook, Face, say, show_waiting
from stepwell.magics.flags import matcher_for
from stepwell.magics.graph_cells import Recomposition
from stepwell.magics.magics import Stepwell
from stepwell.magics.running import after_run, failed_step, present
from stepwell.widgets import differences as formatters


class Extension:
    """The installation in one shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        session: Session = get_session()
        session.attach(shell.user_ns)
        settings = Stepwell(shell=shell)
        self.face = Face(shell, session, settings, DisplayHook(shell))
        settings.face = self.face
        session.seed_steps = settings.seed_steps
        if _loaded is None and not _scanned:
            _scanned.append(True)
            for text in shell.user_ns.get("In", ()):
                seeded.update(stream for stream, pattern in _SEEDS.items() if re.search(pattern, text))
        self._recomposition = Recomposition(self.face)
        self._staleness = Staleness(self.face)
        self._watch = CellWatch(self.face)
        self._running: list[Any] = []
        self._shadowed: dict[str, dict[str, Any]] = {}
        self._end: list[Callable[[], None]] = []

    def install(self) -> None:
        """Install every part."""
        face, shell = self.face, self.shell
        # IPython has a %rerun for lines of the history. find_magic loads it now; loaded later, it would replace ours.
        self._shadowed = {
            kind: {
                name: shadowed
                for name in face.settings.magics[kind]
                if (shadowed := shell.find_magic(name, kind)) is not None
            }
            for kind in ("line", "cell")
        }
        shell.register_magics(face.settings)
        face.settings.ipython_rerun = self._shadowed["line"].get("rerun")
        self._end.append(self._remove_magics)
        face.displays.install()
        self._end.append(face.displays.remove)
        matcher = matcher_for(face)
        shell.Completer.custom_matchers.append(matcher)
        self._end.append(lambda: shell.Completer.custom_matchers.remove(matcher))
        for event, callback in (("pre_run_cell", self._before_cell), ("post_run_cell", self._after_cell)):
            shell.events.register(event, callback)
            self._end.append(partial(shell.events.unregister, event, callback))
        self._end.append(face.session.subscribe(self._on_event))
        registry = face.session.registry
        registry.replaced = self._replaced
        self._end.append(lambda: setattr(registry, "replaced", None))
        self.face.session.face = "notebook"
        self._end.append(self._no_notebook)
        formatters.install(shell)
        self._end.append(partial(formatters.remove, shell))
        set_cell_names(self._cell_name)
        self._end.append(lambda: set_cell_names(None))
        set_name_places(self.face.timeline.place)
        self._end.append(lambda: set_name_places(None))

    def remove(self) -> None:
        """Remove every part and close the session; variables stay."""
        while self._end:
            # A part that is already removed must not prevent the removal of the others.
            with suppress(ValueError, KeyError):
                self._end.pop()()
        self.face.timeline.clear()
        if "stepwell.widgets" in sys.modules:
            sys.modules["stepwell.widgets"].forget(self.face.session)
        self.face.session.close()

    def _no_notebook(self) -> None:
        self.face.session.face = ""
        listen(self.face.session)

    def _remove_magics(self) -> None:
        manager = self.shell.magics_manager
        mine = self.face.settings
        for kind in ("line", "cell"):
            for name in mine.magics[kind]:
                if getattr(manager.magics[kind].get(name), "__self__", None) is mine:
                    del manager.magics[kind][name]
            manager.magics[kind].update(self._shadowed[kind])
        manager.registry.pop(type(mine).__name__, None)
        if mine in self.shell.configurables:
            self.shell.configurables.remove(mine)

    # -- around cells

    def _before_cell(self, info: Any) -> None:
        self._running.append(info)
        if len(self._running) > 1:
            return  # a nested cell: its definitions belong to the outer cell
        self.face.running = info
        self.face.timeline.refresh()
        self._watch.begin(info)
        self.face.session.registry.begin_cell(cell_origin(info))

    def _after_cell(self, result: Any) -> None:
        info = result.info
        if info not in self._running:
            return  # the cell that loaded the extension, or an empty one
        first = info is self._running[0]
        del self._running[self._running.index(info) :]
        if not first:
            return
        # The watch ends first: when the registry drops an asset, its variables go too unless this cell bound them.
        self._watch.end(info)
        self.face.session.registry.end_cell(succeeded=bool(result.success))
        self._name_writer(result.error_in_exec)
        self._recomposition.refresh()
        self.face.timeline.after_cell()
        self.face.running = None
        self._staleness.after_cell(info.raw_cell or "")

    def _name_writer(self, error: BaseException | None) -> None:
        """Print which step wrote the missing file that made a plain cell fail."""
        if type(error) is not FileNotFoundError or hasattr(error, "__notes__") or type(error.filename) is not str:
            return
        timeline = self.face.timeline
        with suppress(StoreError):
            line = lost_file(
                str(Path(error.filename).absolute()), timeline.project, timeline.world.files, self.face.session.store
            )
            if line:
                say(line)

    def _cell_name(self, filename: str) -> str | None:
        formatted = self.shell.compile.format_code_name(filename)
        if formatted is None:
            return None
        number = formatted[1].removeprefix("In[").removesuffix("]")
        return f"cell {number}"

    def _replaced(self, key: str, old: str, new: str) -> None:
        both = " and ".join(place for place in (old, new) if place) or "two cells"
        if not self.face.interactive:
            raise DuplicateKeyError(
                f"the asset key {key} is defined by two cells", where=both, remedy="give one of them another name"
            )
        say(f"{key} is defined in {both}: the last one that ran wins")

    # -- events

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.face.say(notice_text(event))
        elif isinstance(event, StepWaiting):
            show_waiting(self.face, event)
        elif isinstance(event, RunEnded):
            after_run(self.face, event.result)
            if event.error is not None:
                present(self.face, event.error, shown_as=failed_step(self.face, event.result))
        elif isinstance(event, StepStarted):
            self.face.figures.begin()
        elif isinstance(event, StepFinished):
            # This may run in the catalog's thread: no value is loaded here.
            if event.step.status in ("executed", "reused"):
                for item in event.step.materializations:
                    self.face.timeline.materialized(item)
        elif isinstance(event, RunFinished):
            self.face.figures.end()
            self._staleness.ran(event.steps)
            if threading.current_thread() is threading.main_thread():
                self.face.timeline.refresh()
        elif isinstance(event, DefinitionsChanged):
            for key in event.keys:
                if key not in self.face.session.registry.assets:
                    self.face.timeline.withdraw(key)


_SEEDS = {"random": r"\bseed\s*\(", "numpy": r"\bseed\s*\(", "torch": r"\bmanual_seed\s*\("}
"""By random stream, the pattern of cells that seed it; such cells may have run before the extension was loaded."""


_scanned: list[bool] = []
"""Not empty once the cells that ran before the first load have been searched for seeds; later cells are watched."""
_loaded: Extension | None = None


def load(shell: Any) -> None:
    """Load the extension into a shell and print the store's directory; do nothing if it is already loaded."""
    global _loaded  # noqa: PLW0603 - one shell per process
    if _loaded is not None and _loaded.shell is shell:
        return
    if _loaded is not None:
        _loaded.remove()
    extension = Extension(shell)
    extension.install()
    _loaded = extension
    say(f"stepwell: store {extension.face.session.store.directory}")


def unload(shell: Any) -> None:
    """Remove the extension from a shell."""
    global _loaded  # noqa: PLW0603 - one shell per process
    if _loaded is not None and _loaded.shell is shell:
        _loaded.remove()
        _loaded = None

"""The installation of the extension in IPython's shell (``%load_ext stepwell``), and its removal.

The extension installs magics, a completion matcher, wrappers of the display publisher, callbacks before and after each cell, a subscription
to the session's events, and labels of cells for messages. Loading the extension a second time has no effect. Unloading restores the shell.

`CellWatch` tells the timeline which variables a plain cell bound, and which objects it may have changed.

`Staleness` keeps the code version of every step that was executed or reused in this kernel. After a cell, it computes the code versions
again, which is fast if nothing changed. If a code version differs, it computes the states of all steps and prints the assets that have become
stale: ``stale now: clean, model``. After a check that used more than 0.1 s of processor time (`BUDGET`), the checks pause for a while. A line is
printed about the first long pause. Processor time is measured, not elapsed time, because on a busy machine every check takes long.
"""

from __future__ import annotations

import ast
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from stepwell.commands.wording import listen, notice_text
from stepwell.kernel_runtime.definitions.bodies import set_cell_labels
from stepwell.kernel_runtime.errors import DuplicateKeyError, StoreError
from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.execution.contents import can_change, is_iterator
from stepwell.kernel_runtime.execution.restoration import lost_file
from stepwell.kernel_runtime.execution.timeline import Unstored
from stepwell.kernel_runtime.execution.world import Writer
from stepwell.kernel_runtime.reads.readers import seeded, seedings
from stepwell.kernel_runtime.records.runs import (
    DefinitionsChanged,
    Event,
    Notice,
    RunEnded,
    RunFinished,
    StepFinished,
    StepRecord,
    StepStarted,
    StepWaiting,
)
from stepwell.kernel_runtime.session import Session, get_session
from stepwell.kernel_runtime.text import duration
from stepwell.kernel_runtime.versions.patches import scan
from stepwell.magics.cell_changes import changed_names
from stepwell.magics.cell_inputs import cell_origin
from stepwell.magics.cell_names import names_of
from stepwell.magics.face import DisplayHook, Face, say, show_waiting
from stepwell.magics.flags import matcher_for
from stepwell.magics.graph_cells import Recomposition
from stepwell.magics.magics import Stepwell
from stepwell.magics.running import compute_unstored, failed_step, finish_run, present
from stepwell.widgets import differences as formatters


class Extension:
    """The parts of the extension that are installed in one shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        session: Session = get_session()
        session.attach(shell.user_ns)
        settings = Stepwell(shell=shell)
        self.face = Face(shell, session, settings, DisplayHook(shell))
        settings.face = self.face
        session.seed_steps = settings.seed_steps
        if _loaded_extension is None and not _scanned:
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
        """Install every part of the extension in the shell, and note how to remove it."""
        face, shell = self.face, self.shell
        # IPython has a magic %rerun, too, which it loads at first use. find_magic loads it here; loaded later, it would replace Stepwell's %rerun.
        self._shadowed = {
            kind: {
                name: shadowed for name in face.settings.magics[kind] if (shadowed := shell.find_magic(name, kind)) is not None
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
        registry.on_replacement = self._report_replacement
        self._end.append(lambda: setattr(registry, "on_replacement", None))
        self.face.session.face = "notebook"
        self._end.append(self._no_notebook)
        formatters.install(shell)
        self._end.append(partial(formatters.remove, shell))
        set_cell_labels(self._cell_name, self.face.timeline.place)
        self._end.append(set_cell_labels)

    def remove(self) -> None:
        """Remove every part of the extension from the shell, and close the session. The variables of assets stay bound."""
        while self._end:
            # If other code has removed a part already, the remaining parts must still be removed.
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
        settings = self.face.settings
        for kind in ("line", "cell"):
            for name in settings.magics[kind]:
                if getattr(manager.magics[kind].get(name), "__self__", None) is settings:
                    del manager.magics[kind][name]
            manager.magics[kind].update(self._shadowed[kind])
        manager.registry.pop(type(settings).__name__, None)
        if settings in self.shell.configurables:
            self.shell.configurables.remove(settings)

    # -- around cells

    def _before_cell(self, info: Any) -> None:
        self._running.append(info)
        if len(self._running) > 1:
            return  # a cell that runs inside another one, for example by run_cell(): its definitions belong to the outer cell
        self.face.running = info
        self.face.timeline.refresh()
        self._watch.begin(info)
        self.face.session.registry.begin_cell(cell_origin(info))

    def _after_cell(self, result: Any) -> None:
        info = result.info
        if info not in self._running:
            return  # the cell that loaded the extension, or an empty cell
        first = info is self._running[0]
        del self._running[self._running.index(info) :]
        if not first:
            return
        # End the watch before the registry withdraws assets, because the variables of a withdrawn asset are deleted unless this cell bound them.
        self._watch.end(info)
        self.face.session.registry.end_cell(succeeded=bool(result.success))
        self._name_writer(result.error_in_exec)
        self._recomposition.refresh()
        self.face.timeline.after_cell()
        self.face.running = None
        self._staleness.after_cell(info.raw_cell or "")

    def _name_writer(self, error: BaseException | None) -> None:
        """If `error`, the exception of a cell, says that a file does not exist, and a step once wrote this file, print a line that names the step."""
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

    def _report_replacement(self, key: str, old: str, new: str) -> None:
        both = " and ".join(place for place in (old, new) if place) or "two cells"
        if not self.face.interactive:
            raise DuplicateKeyError(
                f"two cells define the asset key {key}",
                where=both,
                remedy="give the asset in one of the cells another name",
            )
        say(f"{key} is defined in {both}: the definition of the cell that ran last is used")

    # -- events

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.face.say(notice_text(event))
        elif isinstance(event, StepWaiting):
            show_waiting(self.face, event)
        elif isinstance(event, RunEnded):
            finish_run(self.face, event.result)
            if event.error is not None:
                present(self.face, event.error, shown_as=failed_step(self.face, event.result))
        elif isinstance(event, StepStarted):
            self.face.figures.begin()
        elif isinstance(event, StepFinished):
            # This code may run on the catalog's thread, which must not load values.
            if event.step.status in ("executed", "reused"):
                for item in event.step.materializations:
                    self.face.timeline.materialized(item)
        elif isinstance(event, RunFinished):
            self.face.figures.end()
            self._staleness.note_steps(event.steps)
            if threading.current_thread() is threading.main_thread():
                self.face.timeline.refresh()
        elif isinstance(event, DefinitionsChanged):
            for key in event.keys:
                if key not in self.face.session.registry.assets:
                    self.face.timeline.withdraw(key)


_SEEDS = {"random": r"\bseed\s*\(", "numpy": r"\bseed\s*\(", "torch": r"\bmanual_seed\s*\("}
"""Maps the name of each random stream to a pattern: a cell whose text contains a match seeds the stream. The patterns are used for cells that ran
before the extension was loaded."""


_scanned: list[bool] = []
"""Empty until the extension is first loaded. The extension then searches the text of earlier cells for seeds, and adds True as the only item. Later
cells are watched while they run."""
_loaded_extension: Extension | None = None
"""The loaded extension; None if the extension is not loaded."""


def load(shell: Any) -> None:
    """Load the extension into a shell, and print the directory of the store; do nothing if the extension is already loaded into this shell."""
    global _loaded_extension  # noqa: PLW0603 - one shell per process
    if _loaded_extension is not None and _loaded_extension.shell is shell:
        return
    if _loaded_extension is not None:
        _loaded_extension.remove()
    extension = Extension(shell)
    extension.install()
    _loaded_extension = extension
    say(f"stepwell: store {extension.face.session.store.directory}")


def unload(shell: Any) -> None:
    """Remove the extension from a shell; do nothing if the extension is not loaded into this shell."""
    global _loaded_extension  # noqa: PLW0603 - one shell per process
    if _loaded_extension is not None and _loaded_extension.shell is shell:
        _loaded_extension.remove()
        _loaded_extension = None


BUDGET = 0.1
"""The processor time, in seconds, that the check for stale assets may use after a cell without being paused."""
_REST = 20
"""The pause after a check that exceeded `BUDGET`, as a multiple of the processor time of the check."""
_NOTICED = 10.0
"""The first pause of at least this many seconds is reported. During a shorter one, a user hardly misses a line about stale assets."""
_OURS = ("%%asset", "%%multi_asset", "%%sql_asset", "%%graph_asset", "%%op", "%%graph", "%%job")
"""After a cell that begins with one of these magics, no stale assets are printed."""


class Staleness:
    """Prints, after each plain cell, the assets that the cell has made stale."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._computed_versions: dict[str, str] = {}
        """Maps the key of each step to the code version with which the step was last executed or reused in this kernel."""
        self._changed_versions: dict[str, str] = {}
        """Maps the key of a step to its code version at the last check, if this version differed from the one in `_computed_versions`."""
        self._reported_keys: frozenset[str] = frozenset()
        """The keys of the assets that were stale at the last check."""
        self._rest_until = 0.0
        self._reported = False
        self._has_run = False
        """True if a run has ended since `after_cell` was last called."""

    def note_steps(self, steps: Iterable[StepRecord]) -> None:
        """Record the code versions of the steps of a run that has ended."""
        self._has_run = True
        for step in steps:
            if step.status in ("executed", "reused") and step.materializations:
                self._computed_versions[step.key] = step.materializations[0].code_version

    def after_cell(self, text: str) -> None:
        """After a cell with the source `text`, print the assets that have become stale since the last check.

        Nothing is printed if the cell ran steps or begins with a magic in `_OURS`. An exception in the check does not make the cell fail.
        """
        ran, self._has_run = self._has_run, False
        face = self._face
        if not face.settings.show_stale or not face.interactive or not self._computed_versions:
            return
        if time.monotonic() < self._rest_until:
            return
        started = time.thread_time()
        try:
            named = self._stale_assets()
        except Exception:
            # The check fails for contradictory definitions, which raise an error with a message when the user runs them.
            return
        finally:
            seconds = time.thread_time() - started
            if seconds > BUDGET:
                self._pause(seconds)
        if named is None:
            return
        new = [key for key in named if key not in self._reported_keys]
        self._reported_keys = frozenset(named)
        if new and not ran and not text.lstrip().startswith(_OURS):
            face.say(f"stale now: {', '.join(new)}")

    def _pause(self, seconds: float) -> None:
        """Pause the checks after a check that used `seconds` of processor time. Print a line about the first pause that a user would notice."""
        self._rest_until = time.monotonic() + _REST * seconds
        if not self._reported and _REST * seconds >= _NOTICED:
            self._reported = True
            self._face.say(
                f"The check for stale assets used {duration(seconds)} of processor time; the next check runs in {duration(_REST * seconds)} at the earliest. "
                "%config Stepwell.show_stale = False turns these checks off."
            )

    def _stale_assets(self) -> list[str] | None:
        """Return the keys of assets that were executed or reused in this kernel and are stale now, because their code or upstream code has changed.

        Return None if no code version has changed since the last check: the stale assets are then the same as before.
        """
        session: Session = self._face.session
        steps = session.inspect().plan().steps
        versions = {step.key: step.code.digest for step in steps if step.code is not None}
        changed = {key: version for key, version in versions.items() if self._computed_versions.get(key, version) != version}
        if changed == self._changed_versions:
            return None
        self._changed_versions = changed
        if not changed:
            return []
        stale: dict[str, None] = {}
        for key, state in session.states().items():
            if key in self._computed_versions and (
                (key in changed and state.must_run)
                or (state.state == "may change" and any(reason.path in stale for reason in state.reasons))
            ):
                stale[key] = None
        return list(dict.fromkeys(key.split(".", 1)[0] for key in stale))


_STEPS = ("%%asset", "%%multi_asset", "%%sql_asset", "%%graph_asset")
"""Magics whose cells run as steps, except with ``--plain``. The engine records what steps bind and change, so `CellWatch` ignores their cells."""
_LABEL = 40
"""Messages show at most this number of characters of the first line of a cell."""


def _runs_as_step(text: str) -> bool:
    """Return True if a cell with this text runs as a step: its first line is an asset magic without ``--plain``."""
    first = text.lstrip().partition("\n")[0]
    return first.startswith(_STEPS) and "--plain" not in first.split()


class CellWatch:
    """Records which variables each plain cell binds, and which variables refer to objects that the cell may change in place."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._numbers_before: dict[str, int] | None = None
        self._seedings = 0

    def begin(self, info: Any) -> None:
        """Before a plain cell runs, compute the values that it needs and that were not stored, and note to which object each variable refers.

        For a cell that runs as a step (`_runs_as_step`), do neither.

        Parameters
        ----------
        info
            IPython's record of the cell.
        """
        self._face.timeline.look_at_world()
        if _runs_as_step(info.raw_cell or ""):
            self._numbers_before = None
            return
        if self._lacks_values() and (tree := self._tree(info)) is not None:
            names, space = names_of(tree), self._face.namespace
            direct, called, everything = changed_names(tree)
            changed = set(space) if everything else {*direct, *reached_names(space, called)}
            compute_unstored(self._face, reached_names(space, names.reads), names.assigned, changed)
        self._seedings = len(seedings)
        # Keep only the `id` of each object: a reference would keep an object alive that the cell deletes.
        self._numbers_before = {name: id(value) for name, value in self._face.namespace.items()}

    def _lacks_values(self) -> bool:
        """Return True if some variables or results of reused cells were not stored. They must be computed before a cell that needs them runs."""
        outputs = self._face.namespace.get("_oh")
        held = list(outputs.values()) if isinstance(outputs, dict) else []
        return bool(self._face.timeline.unstored) or any(type(output) is Unstored for output in held)

    def end(self, info: Any) -> None:
        """After a plain cell has run, record the variables that it bound, and the variables whose objects it may have changed in place.

        After every cell, also record changes of files, the environment and other external state.

        Parameters
        ----------
        info
            IPython's record of the cell.
        """
        before, self._numbers_before = self._numbers_before, None
        if before is None:
            # An asset cell may run several steps, and it is unknown which of them made a change of a file or setting.
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
            # The cell may have run steps. What they bound was recorded as bound by the steps, not by the cell.
            bound -= {name for name in bound if self._face.timeline.bound_to(name) is not None}
            bound |= {name for name in names.assigned if name in space}
            direct, called, everything = changed_names(tree)
            if everything:
                changed = {name for name, value in space.items() if can_change(value)}
            else:
                through = reached_names(space, called) - set(called)
                changed = {name for name in direct | through if name in space and can_change(space[name])}
                # Code that reads an iterator changes it.
                changed |= {name for name in reads if is_iterator(space.get(name))}
        writer = self._writer(info)
        # A deleted name is recorded as bound: if another cell binds the name later, this is a different variable.
        bound |= {name for name in before if name not in space and not name.startswith("_")}
        self._face.timeline.note(writer, bound=bound, changed=changed - bound, read=reads)
        for stream in dict.fromkeys(seedings[self._seedings :]):
            self._face.timeline.seeded(stream, writer)
        self._face.timeline.look_at_world(writer)

    def _tree(self, info: Any) -> ast.Module | None:
        shell = self._face.shell
        raw = info.raw_cell or ""
        try:
            if raw.lstrip().startswith(_STEPS):
                # The transformed cell is only a call of the magic, with the body as a string.
                text = shell.transform_cell(raw.lstrip().partition("\n")[2])
            else:
                text = getattr(info, "transformed_cell", None) or shell.transform_cell(raw)
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
        # In a terminal no cell can be run again, so all input has one identifier: a new binding of a name counts as an edit of the same cell.
        return Writer("cell", "terminal" if terminal else cell_origin(info), label, f"cell {number}")

"""``%load_ext stepwell``: what is put into a shell, and taken out again.

Magics, a completion matcher, wrappers of the display publisher, two callbacks around each cell, a subscription to the session's
events, and the words for the places of cells. Loading twice does nothing the second time; unloading leaves the shell as it was.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from stepwell.kernel_runtime.definitions.places import set_cell_names, set_name_places
from stepwell.kernel_runtime.errors import DuplicateKeyError, StepwellError
from stepwell.kernel_runtime.records.events import DefinitionsChanged, Event, RunFinished, StepFinished, StepStarted
from stepwell.kernel_runtime.session import Session, get_session
from stepwell.kernel_runtime.session.waiting import log_waiting
from stepwell.magics.bindings import Bindings
from stepwell.magics.cell_names import names_of
from stepwell.magics.commands import Stepwell
from stepwell.magics.completion import matcher_for
from stepwell.magics.displays import DisplayHook
from stepwell.magics.face import Face
from stepwell.magics.lines import say
from stepwell.magics.progress import tell_waiting
from stepwell.magics.recomposition import Recomposition
from stepwell.magics.running import after_run
from stepwell.magics.staleness import Staleness
from stepwell.magics.tracebacks import failed_step, present
from stepwell.widgets import differences as formatters


class Extension:
    """What is installed in one shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        session: Session = get_session()
        session.attach(shell.user_ns)
        settings = Stepwell(shell=shell)
        self.face = Face(shell, session, settings, Bindings(shell.user_ns, session.load), DisplayHook(shell))
        settings.face = self.face
        session.seed_steps = settings.seed_steps
        self._recomposition = Recomposition(self.face)
        self._staleness = Staleness(self.face)
        self._places = NamePlaces(shell)
        self._running: list[Any] = []
        self._shadowed: dict[str, dict[str, Any]] = {}
        self._end: list[Callable[[], None]] = []

    def install(self) -> None:
        """Put everything in place."""
        face, shell = self.face, self.shell
        # IPython has a %rerun of its own, for lines of the history. Looked up, it is loaded: loaded later it would replace ours.
        self._shadowed = {
            kind: {
                name: found
                for name in face.settings.magics[kind]
                if (found := shell.find_magic(name, kind)) is not None
            }
            for kind in ("line", "cell")
        }
        shell.register_magics(face.settings)
        face.settings.own_rerun = self._shadowed["line"].get("rerun")
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
        self.face.session.after_run = partial(after_run, self.face)
        self.face.session.tell_waiting = partial(tell_waiting, self.face)
        self.face.session.say = self.face.say
        self.face.session.before_raising = lambda error, result: present(
            self.face, error, shown_as=failed_step(self.face, result)
        )
        self._end.append(self._no_presenting)
        formatters.install(shell)
        self._end.append(partial(formatters.remove, shell))
        set_cell_names(self._cell_name)
        self._end.append(lambda: set_cell_names(None))
        set_name_places(self._places)
        self._end.append(lambda: set_name_places(None))

    def remove(self) -> None:
        """Take everything away and let the store go; variables stay as they are."""
        while self._end:
            # One part that is gone already must not keep the others.
            with suppress(ValueError, KeyError):
                self._end.pop()()
        self.face.bindings.clear()
        if "stepwell.widgets" in sys.modules:
            sys.modules["stepwell.widgets"].forget(self.face.session)
        self.face.session.close()

    def _no_presenting(self) -> None:
        self.face.session.before_raising = None
        self.face.session.after_run = None
        self.face.session.tell_waiting = log_waiting
        self.face.session.say = None

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
            return  # a cell that runs another cell defines what that one defines
        self.face.running = info
        self.face.bindings.refresh()
        self.face.session.registry.begin_cell(cell_origin(info))

    def _after_cell(self, result: Any) -> None:
        info = result.info
        if info not in self._running:
            return  # the cell that loaded the extension, or an empty one
        first = info is self._running[0]
        del self._running[self._running.index(info) :]
        if not first:
            return
        self.face.session.registry.end_cell(succeeded=bool(result.success))
        self._recomposition.refresh()
        self.face.bindings.after_cell()
        self.face.running = None
        self._places.ran(info.raw_cell or "", result.execution_count)
        self._explain(result.error_in_exec)
        self._staleness.after_cell(info.raw_cell or "")

    def _explain(self, error: BaseException | None) -> None:
        """Say where a name is that a plain cell does not find because it lives inside an asset cell."""
        name = getattr(error, "name", None)
        if (
            isinstance(error, NameError)
            and not isinstance(error, StepwellError)
            and name in self.face.inside
            and name not in self.face.namespace
        ):
            say(f"`{name}` was {self.face.inside[name]}")

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
        if isinstance(event, StepStarted):
            self.face.figures.begin()
        elif isinstance(event, StepFinished):
            # May come from the catalog's thread: nothing is loaded here.
            if event.step.status in ("executed", "reused"):
                for item in event.step.materializations:
                    self.face.bindings.materialized(item)
        elif isinstance(event, RunFinished):
            self.face.figures.end()
            self._staleness.ran(event.steps)
            if threading.current_thread() is threading.main_thread():
                self.face.bindings.refresh()
        elif isinstance(event, DefinitionsChanged):
            for key in event.keys:
                if key not in self.face.session.registry.assets:
                    self.face.bindings.withdraw(key)


class NamePlaces:
    """Knows which plain cell bound a variable of the notebook last, or assigned an item or attribute of it."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._texts: list[tuple[str, str]] = []
        """Cells that were not read yet, each with its place: they are read when a place is asked for."""
        self._places: dict[str, str] = {}

    def ran(self, text: str, number: int | None) -> None:
        """Take note of a cell that ended."""
        if number is not None and text.strip() and not text.lstrip().startswith("%%"):
            self._texts.append((text, f"cell {number}"))

    def __call__(self, name: str) -> str:
        """Return the place, ``cell 5``; empty if no such cell ran."""
        texts, self._texts = self._texts, []
        for text, where in texts:
            with suppress(SyntaxError, ValueError, RecursionError):
                tree = ast.parse(self._shell.transform_cell(text))
                self._places.update(dict.fromkeys(names_of(tree).assigned | _changed_in_place(tree), where))
        return self._places.get(name, "")


def _changed_in_place(tree: ast.Module) -> set[str]:
    """Return the variables of which statements outside functions assign an item or attribute."""
    found = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            root: ast.AST = node
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            if isinstance(root, ast.Name):
                found.add(root.id)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))
    return found


_WITH_VALUE = frozenset(
    {"-g", "--group", "-k", "--key-prefix", "-d", "--dep", "--in", "--ignore", "--max-age", "--reads"}
)
"""Flags whose value is the next word."""


def cell_origin(info: Any) -> str:
    """Return what identifies a cell: its id; where the front end sends none, its magic's line or its text."""
    given = getattr(info, "cell_id", None)
    if given:
        return f"cell:{given}"
    text = (info.raw_cell or "").strip()
    if text.startswith("%%"):
        words = iter(text.splitlines()[0].split())
        kept: list[str] = []
        for word in words:
            if word in ("-k", "--key-prefix"):
                # The prefix is part of the key: raw/flights and other/flights are two cells.
                kept.append(f"-k {next(words, '')}")
            elif word in _WITH_VALUE:
                next(words, "")
            elif not word.startswith("-"):
                kept.append(word)
        return f"magic:{' '.join(kept)}"
    return f"text:{hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=12).hexdigest()}"


_loaded: Extension | None = None


def load(shell: Any) -> None:
    """Load the extension into a shell and say where the store is; does nothing the second time."""
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
    """Take the extension out of a shell."""
    global _loaded  # noqa: PLW0603 - one shell per process
    if _loaded is not None and _loaded.shell is shell:
        _loaded.remove()
        _loaded = None

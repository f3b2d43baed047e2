"""State outside of the notebook's variables and of a step's inputs: files, the environment, settings, random streams, globals that bodies change.

`World` knows who changed what the steps of a kernel have read. Nothing reports a change of a file or of the environment, so everything
that was read is examined before and after each cell. A change by the cell that gave the state which a step read is an edit, and so is
a change between cells. A change by a cell or step that comes after the step is as in a plain notebook: the step keeps what it read.

`Seeds` seeds the global generators of ``random`` and ``numpy.random`` from the step's key, so that an unseeded fit gives the same
result twice, and other steps get other numbers. Their state before the run's first body is restored after the run: saving it costs
more than seeding, and between two bodies of a run only the engine works.

`HiddenState` keeps code versions true. A code version is made before the first step runs, from the globals as they are then. A body that
changes one of them makes it wrong for the steps that follow: these are keyed again before they start, and a notice says so. The code of a
step of a job that is not memoised is not walked, so what it changes is not known; the steps after it are always keyed again.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from stepwell.kernel_runtime.planning.build import step_extra
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.reads.checks import UNSTABLE, file_digest, file_stat, read_holds
from stepwell.kernel_runtime.reads.readers import seeded
from stepwell.kernel_runtime.records.materializations import LOCAL, Read
from stepwell.kernel_runtime.versions import library_state
from stepwell.kernel_runtime.versions.environment import ALL, set_variable, value_of, whole
from stepwell.kernel_runtime.versions.walk import CodeWalk, Watched

_GONE: Any = object()
_MOST_WATCHED = 1000
"""The number of reads that are looked at before and after each cell."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A cell or a step that binds names, and changes objects, files and the like."""

    kind: str
    """``cell`` or ``step``; ``other`` for what happened between cells."""
    id: str
    """The identifier of the cell in its notebook, or the step's key. A step whose key is not known has that of its cell."""
    label: str = field(default="", compare=False)
    """How messages name it: ``[7]`` and its first line, or the key."""
    place: str = field(default="", compare=False)
    """Where it is: ``cell 7``; empty for a step."""


OTHER = Writer("other", "")


@dataclass(frozen=True, slots=True)
class _Seen:
    """The state of the world that a step read."""

    number: int
    """The number of events before the step was last brought up to date and everything was as it had read it."""
    glances: dict[Read, object]
    """The result of a look at each of its reads then."""


@dataclass(frozen=True, slots=True)
class SettingsOfStep:
    """The settings of libraries and of the process as they were before and after a step in this kernel."""

    before: library_state.Snapshot
    after: library_state.Snapshot
    environment: dict[str, tuple[str | None, str | None]]
    """Variables of the environment that it changed: their values before and after."""


class World:
    """The reads of steps from outside the variables of a kernel, and the cells and steps that changed them.

    Parameters
    ----------
    project
        The folder of the project.

    Attributes
    ----------
    files
        By path as effects have it, the digest of the state in which a step left a file, and the step's key.
    """

    def __init__(self, project: Path) -> None:
        self._project = os.path.realpath(project)
        self.files: dict[str, tuple[str, str]] = {}
        self._watched: dict[Read, object] = {}
        """Each read that is looked at, with the result of the last look."""
        self._changes: dict[tuple[str, str], list[tuple[int, Writer]]] = {}
        """The changes by kind and name of the read, each with the number of events before it."""
        self._first_run: dict[Writer, int] = {}
        """When each cell and step ran here for the first time."""
        self._seen: dict[str, _Seen] = {}
        self._settings: dict[str, SettingsOfStep] = {}

    @staticmethod
    def has(read: Read) -> bool:
        """Return True for a read from outside the kernel."""
        return read.kind not in LOCAL and read.kind != "asset"

    def ran(self, writer: Writer, number: int) -> None:
        """Note that a cell or step has run."""
        self._first_run.setdefault(writer, number)

    def look(self, number: int, writer: Writer = OTHER) -> None:
        """Note what was changed since the last look, and by whom."""
        self.ran(writer, number)
        for read, before in self._watched.items():
            now = _glance(read)
            if now != before:
                self._watched[read] = now
                self._changes.setdefault((read.kind, read.name), []).append((number, writer))

    def wrote(self, path: str, digest: str, step_key: str, number: int) -> None:
        """Note that a step wrote a file, and in which state it left it."""
        self.files[path] = (digest, step_key)
        name = os.path.normpath(Path(self._project, path))
        self._changes.setdefault(("file", name), []).append((number, Writer("step", step_key)))
        for read in self._watched:
            if read.kind == "file" and read.name == name:
                self._watched[read] = _glance(read)

    def seeded(self, stream: str, writer: Writer, number: int) -> None:
        """Note that a cell or step has seeded a random stream."""
        self._changes.setdefault(("stream", stream), []).append((number, writer))

    def was_seeded(self, stream: str, step_key: str, number: int, *, pulled: bool) -> bool:
        """Return True if a stream was seeded after a number of events, other than by the step and by what comes after it."""
        return not self._come_after(("stream", stream), step_key, number, pulled=pulled)

    def was_read(self, step_key: str, reads: Iterable[Read], number: int, *, same: bool) -> None:
        """Note the reads of a step that was brought up to date.

        Parameters
        ----------
        same
            Whether it has the values that it had before.
        """
        glances = {read: _glance(read) for read in reads if _can_be_watched(read)}
        own = Writer("step", step_key)
        for read, now in glances.items():
            if self._watched.get(read, now) != now:
                # Others are looked at when the cell ends.
                self._changes.setdefault((read.kind, read.name), []).append((number, own))
            if read in self._watched or len(self._watched) < _MOST_WATCHED:
                self._watched[read] = now
        self.ran(own, number)
        before = self._seen.get(step_key)
        kept = before is None or all(
            now == before.glances.get(read) or _has_content(read) for read, now in glances.items()
        )
        # Otherwise what the step read is the state before these changes.
        if kept or not same:
            self._seen[step_key] = _Seen(number, glances)

    def is_later_change(self, read: Read, step_key: str, *, pulled: bool) -> bool:
        """Return True if only the step itself, or cells and steps that come after it, have changed what it read.

        What comes after it ran here for the first time after it, and did not give the state that it read.

        Parameters
        ----------
        pulled
            Whether the request does not name the step: where its own cell runs, what cells changed counts.
        """
        left, by = self.files.get(os.path.relpath(read.name, self._project), ("", ""))
        if read.kind == "file" and by == step_key and file_digest(read.name) == left:
            return True
        seen = self._seen[step_key]
        name = (read.kind, read.name)
        now = _glance(read)
        if not any(number > seen.number for number, _ in self._changes.get(name, ())):
            # The step itself may have changed what it read: it is as the step left it.
            return read.digest != UNSTABLE and seen.glances.get(read, _GONE) == now
        if now != self._watched.get(read, _GONE):
            return False
        return self._come_after(name, step_key, seen.number, pulled=pulled)

    def was_written_before(self, path: str, step_key: str) -> bool:
        """Return True if a file, by its path as effects have it, was changed after a step was brought up to date by what comes before it."""
        name = ("file", os.path.normpath(Path(self._project, path)))
        return not self._come_after(name, step_key, self._seen[step_key].number, pulled=True)

    def _come_after(self, name: tuple[str, str], step_key: str, number: int, *, pulled: bool) -> bool:
        """Return True if whatever changed something after a number of events is the step, or comes after it and did not give the state that it read."""
        own = Writer("step", step_key)
        changes = self._changes.get(name, ())
        since = {writer for time, writer in changes if time > number}
        if not since:
            return True
        last = next((writer for time, writer in reversed(changes) if time <= number), None)
        first = self._first_run[own]
        return all(
            writer == own
            or (
                (writer.kind == "step" or (writer.kind == "cell" and pulled))
                and writer != last
                and self._first_run.get(writer, 0) > first
            )
            for writer in since
        )

    def note_settings(self, step_key: str, before: library_state.Snapshot, environment: Mapping[str, str]) -> None:
        """Note what a step has changed in the settings of libraries and in the environment, by their states before it."""
        after, now = library_state.snapshot(), whole()
        names = {name for name, _ in environment.items() ^ now.items()}
        changed = {name: (environment.get(name), now.get(name)) for name in names}
        if changed or library_state.changed(before, after):
            self._settings[step_key] = SettingsOfStep(before, after, changed)

    def has_settings(self, step_key: str) -> bool:
        """Return True if what a step set when it ran here last was not set back since."""
        return step_key in self._settings

    def undo_settings(self, step_key: str) -> None:
        """Set back what a step set when it ran here last, unless something else has set it since."""
        done = self._settings.pop(step_key, None)
        if done is None:
            return
        since = {name for name, _ in library_state.changed(done.after, library_state.snapshot())}
        entries = [entry for entry in library_state.changed(done.after, done.before) if entry[0] not in since]
        values = {name: library_state.value_in(done.before, name) for name, text in entries if text is None}
        library_state.apply(entries, values)
        for name, (before, after) in done.environment.items():
            if value_of(name) == after:
                set_variable(name, before)

    def changed_by_cells(self, step_key: str) -> dict[Read, str]:
        """Return what cells have changed since the step was last brought up to date, of what it read: the label of the cell that did so last."""
        seen = self._seen.get(step_key)
        changed: dict[Read, str] = {}
        if seen is None or not self._changes:
            return changed
        for read, before in seen.glances.items():
            by = [
                writer.label
                for number, writer in self._changes.get((read.kind, read.name), ())
                if number > seen.number and writer.kind == "cell"
            ]
            if by and self._watched.get(read, before) != before and not _has_content(read):
                changed[read] = by[-1]
        return changed


def _can_be_watched(read: Read) -> bool:
    """Return True for what can be looked at before and after each cell: not for matches in a large tree."""
    return World.has(read) and not (read.kind == "glob" and "**" in read.name and not read.names)


def _has_content(read: Read) -> bool:
    """Return True for a file with the content that was read, even if its time or inode differs."""
    return read.kind == "file" and read_holds(read)


def _glance(read: Read) -> object:
    """Return something that differs after a change of what was read."""
    if read.kind == "file":
        return file_stat(read.name)
    if read.kind == "environment":
        return whole() if read.name == ALL else value_of(read.name)
    return read_holds(read)


class HiddenState:
    """Keeps the code versions of one run true.

    Parameters
    ----------
    walk
        The walk that the plan's code versions come from.
    new_walk
        Makes another one, which digests all mutable objects again.
    """

    def __init__(self, walk: CodeWalk, new_walk: Callable[[], CodeWalk]) -> None:
        self.walk = walk
        self._new_walk = new_walk
        self._changes = 0
        self._settled: dict[str, int] = {}

    def is_settled(self, step: PlanStep) -> bool:
        """Return True for a step that has its code version of now."""
        return not self._changes or step.code is None or self._settled.get(step.key) == self._changes

    def settle(self, step: PlanStep) -> bool:
        """Give a step that is about to be decided its code version of now; return True if it is a different one."""
        if step.code is None or self.is_settled(step):
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


_NUMPY = "numpy.random"


class Seeds:
    """Seeds the global random number generators during one run.

    Parameters
    ----------
    enabled
        False leaves the generators alone.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._saved: dict[str, Any] = {}
        """By stream, the user's state of it; None for numpy where it was not imported."""
        self._watch: _Watch | None = None

    def seed(self, step_key: str, *, live: bool = False) -> None:
        """Seed the generators for one step; numpy's also if the body imports it first.

        Parameters
        ----------
        live
            True if the step is a cell that runs in the notebook: streams that the user seeded are not seeded again.
        """
        number = int.from_bytes(blake2b(step_key.encode("utf-8", "backslashreplace"), digest_size=4).digest(), "little")
        for stream in ("random", "numpy"):
            if live and stream in seeded:
                self._give_back(stream)
            elif self._enabled:
                self._save(stream)
                if stream == "random":
                    _RANDOM_SEED(number)
                else:
                    if self._watch is not None:
                        self._watch.number = number
                    _seed_numpy(number)

    def leave(self, stream: str) -> None:
        """Stop restoring a stream at the end of the run: a cell has seeded it, or a reuse has set it."""
        self._saved.pop(stream, None)
        if stream == "numpy" and self._watch is not None:
            self._watch.end()
            self._watch = None

    def restore(self) -> None:
        """Put the generators back as they were before the first step that was seeded."""
        for stream in tuple(self._saved):
            self._give_back(stream)

    def _save(self, stream: str) -> None:
        if stream in self._saved:
            return
        if stream == "random":
            self._saved[stream] = random.getstate()
            return
        self._saved[stream] = None
        module = sys.modules.get(_NUMPY)
        if module is None:
            self._watch = _Watch()
            sys.meta_path.insert(0, self._watch)
            return
        with suppress(Exception):
            self._saved[stream] = module.get_state()

    def _give_back(self, stream: str) -> None:
        if stream not in self._saved:
            return
        state = self._saved.pop(stream)
        if stream == "random":
            _RANDOM_SETSTATE(state)
            return
        if self._watch is not None:
            self._watch.end()
            self._watch = None
        module = sys.modules.get(_NUMPY)
        if module is not None:
            # A generator that the body has exchanged takes no such state.
            with suppress(Exception):
                if state is not None:
                    _plain(module.set_state)(state)
                else:
                    _plain(module.seed)()


def _seed_numpy(number: int) -> None:
    module = sys.modules.get(_NUMPY)
    seed: Callable[[int], None] | None = getattr(module, "seed", None)
    if seed is not None:
        # The user may have put another bit generator behind the functions.
        with suppress(Exception):
            _plain(seed)(number)


_RANDOM_SEED = random._inst.seed  # noqa: SLF001 - the functions of the module may be wrapped
_RANDOM_SETSTATE = random._inst.setstate  # noqa: SLF001 - as above


def _plain(function: Any) -> Any:
    """Return the library's own function: ours does not count as the user's seeding."""
    return getattr(function, "__wrapped__", function)


def stream_states() -> dict[str, Any]:
    """Return the states of the random streams that the user has seeded."""
    states: dict[str, Any] = {}
    if "random" in seeded:
        states["random"] = random.getstate()
    if "numpy" in seeded and (module := sys.modules.get(_NUMPY)) is not None:
        with suppress(Exception):
            states["numpy"] = module.get_state()
    if "torch" in seeded and (torch := sys.modules.get("torch")) is not None:
        with suppress(Exception):
            states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states


def set_stream(name: str, state: Any) -> None:
    """Set a random stream to a state; raises whatever the library, or its import, raises."""
    if name == "random":
        _RANDOM_SETSTATE(state)
    elif name == "numpy":
        # numpy imports the module of random numbers when it is asked for.
        _plain(import_module(_NUMPY).set_state)(state)
    else:
        torch = import_module("torch")
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


class _Watch:
    """Seeds numpy's generator right after a body has imported it."""

    def __init__(self) -> None:
        self.number = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find ``numpy.random`` as the import system would, and seed it when it is there."""
        if name != _NUMPY:
            return None
        self.end()
        # By the other finders: one of them notes that the user seeds it.
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec: ModuleSpec | None = next(
            (found for finder in others if (found := finder.find_spec(name, path, target))), None
        )
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            _seed_numpy(self.number)

        loader.exec_module = executed
        return spec

    def end(self) -> None:
        """Stop watching."""
        with suppress(ValueError):
            sys.meta_path.remove(self)

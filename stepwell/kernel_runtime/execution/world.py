"""State outside the notebook's variables and a step's inputs: files, the environment, settings, random streams, globals that bodies change.

`World` records which cells and steps changed the files, variables of the environment and other external state that the steps of a kernel
read. The operating system reports no such change to the kernel, so every read is examined before and after each cell. A change between
cells makes a step outdated, as does a change by the cell that last changed the state before the step read it. A change by a cell or step
that comes after the step is as in a plain notebook: the step stays up to date.

`Seeds` seeds the global generators of ``random`` and ``numpy.random`` from the step's key, so that an unseeded fit gives the same
result in each run, and other steps get other numbers. The state of the generators before the run's first body is restored after the
run, not after each body: saving a state costs more than seeding, and between two bodies of a run only the engine works.

`HiddenState` keeps code versions valid. All code versions are computed before the first step runs, from the globals at that time. A body
that changes a global makes the code versions of later steps wrong: their keys are computed again before they start, and a notice says so.
The code of a job's step that is not memoised is not walked, so its changes are not known; the keys of the steps after it are always
computed again.
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
from stepwell.kernel_runtime.versions.environment import ALL, environment_copy, set_variable, value_of
from stepwell.kernel_runtime.versions.walk import CodeWalk, Watched

_GONE: Any = object()
_MOST_WATCHED = 1000
"""The maximum number of reads that are examined before and after each cell."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A cell or step that binds names, and changes objects, files and other state."""

    kind: str
    """``cell`` or ``step``; ``other`` for changes between cells."""
    id: str
    """The identifier of the cell in its notebook, or the step's key; the identifier of the cell if the step's key is not known."""
    label: str = field(default="", compare=False)
    """The name in messages: ``[7]`` and the first line of the cell, or the step's key."""
    place: str = field(default="", compare=False)
    """The place in messages: ``cell 7``; empty for a step."""


OTHER = Writer("other", "")


@dataclass(frozen=True, slots=True)
class _LastRead:
    """The external state that a step read."""

    number: int
    """The number of events before the step was last brought up to date with this state."""
    glances: dict[Read, object]
    """The result of `_glance` for each read of the step at that time."""


@dataclass(frozen=True, slots=True)
class SettingsOfStep:
    """The settings of libraries and of the process before and after a step ran in this kernel."""

    before: library_state.Snapshot
    after: library_state.Snapshot
    environment: dict[str, tuple[str | None, str | None]]
    """The values before and after the step, by name, of the environment variables that the step changed."""


class World:
    """The external state that the steps of a kernel read, and the cells and steps that changed it.

    Parameters
    ----------
    project
        The folder of the project.

    Attributes
    ----------
    files
        For each file that a step wrote, the digest of its content after the step, and the step's key. Paths have the form of `FileEffect.path`.
    """

    def __init__(self, project: Path) -> None:
        self._project = os.path.realpath(project)
        self.files: dict[str, tuple[str, str]] = {}
        self._watched: dict[Read, object] = {}
        """The last result of `_glance` for each watched read."""
        self._changes: dict[tuple[str, str], list[tuple[int, Writer]]] = {}
        """The changes by kind and name of the read, each with the number of events before the change."""
        self._first_run: dict[Writer, int] = {}
        """The number of events before the first run of each cell and step in this kernel."""
        self._last_read: dict[str, _LastRead] = {}
        self._settings: dict[str, SettingsOfStep] = {}

    @staticmethod
    def has(read: Read) -> bool:
        """Return True for a read of state outside the kernel."""
        return read.kind not in LOCAL and read.kind != "asset"

    def note_run(self, writer: Writer, number: int) -> None:
        """Note that a cell or step has run."""
        self._first_run.setdefault(writer, number)

    def look(self, number: int, writer: Writer = OTHER) -> None:
        """Note the changes of watched reads since the last look as changes by a writer."""
        self.note_run(writer, number)
        for read, before in self._watched.items():
            now = _glance(read)
            if now != before:
                self._watched[read] = now
                self._changes.setdefault((read.kind, read.name), []).append((number, writer))

    def wrote(self, path: str, digest: str, step_key: str, number: int) -> None:
        """Note that a step wrote a file, and the digest of the file's content after the step."""
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
        """Return True if, after a number of events, a stream was seeded by anything except the step, and cells and steps that come after it."""
        return not self._come_after(("stream", stream), step_key, number, pulled=pulled)

    def was_read(self, step_key: str, reads: Iterable[Read], number: int, *, same: bool) -> None:
        """Note the reads of a step that was brought up to date.

        Parameters
        ----------
        same
            True if the step has the same values as before.
        """
        glances = {read: _glance(read) for read in reads if _can_be_watched(read)}
        own = Writer("step", step_key)
        for read, now in glances.items():
            if self._watched.get(read, now) != now:
                # Other watched reads are examined when the cell ends.
                self._changes.setdefault((read.kind, read.name), []).append((number, own))
            if read in self._watched or len(self._watched) < _MOST_WATCHED:
                self._watched[read] = now
        self.note_run(own, number)
        before = self._last_read.get(step_key)
        is_unchanged = before is None or all(
            now == before.glances.get(read) or _has_content(read) for read, now in glances.items()
        )
        # If the state changed but the step's values did not, the earlier state still counts as the state that the step read.
        if is_unchanged or not same:
            self._last_read[step_key] = _LastRead(number, glances)

    def is_later_change(self, read: Read, step_key: str, *, pulled: bool) -> bool:
        """Return True if only the step itself, or cells and steps that come after it, have changed the state that a read of the step names.

        A cell or step comes after this step if it first ran in this kernel after the step did, and did not make the state that the step read.

        Parameters
        ----------
        pulled
            True if the request does not name the step. If it does, a change by any cell makes the step outdated.
        """
        left, by = self.files.get(os.path.relpath(read.name, self._project), ("", ""))
        if read.kind == "file" and by == step_key and file_digest(read.name) == left:
            return True
        seen = self._last_read[step_key]
        name = (read.kind, read.name)
        now = _glance(read)
        if not any(number > seen.number for number, _ in self._changes.get(name, ())):
            # The step itself may have changed the state that it read: compare with the state after the step.
            return read.digest != UNSTABLE and seen.glances.get(read, _GONE) == now
        if now != self._watched.get(read, _GONE):
            return False
        return self._come_after(name, step_key, seen.number, pulled=pulled)

    def was_written_before(self, path: str, step_key: str) -> bool:
        """Return True if, since a step was brought up to date, anything that does not come after the step changed a file.

        The path has the form of `FileEffect.path`.
        """
        name = ("file", os.path.normpath(Path(self._project, path)))
        return not self._come_after(name, step_key, self._last_read[step_key].number, pulled=True)

    def _come_after(self, name: tuple[str, str], step_key: str, number: int, *, pulled: bool) -> bool:
        """Return True if each change after a number of events is by the step itself, or by a cell or step that comes after it.

        `is_later_change` defines which cells and steps come after a step.
        """
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
        """Note the settings of libraries and the environment variables that a step changed, given their states before the step."""
        after, now = library_state.snapshot(), environment_copy()
        names = {name for name, _ in environment.items() ^ now.items()}
        changed = {name: (environment.get(name), now.get(name)) for name in names}
        if changed or library_state.changed(before, after):
            self._settings[step_key] = SettingsOfStep(before, after, changed)

    def has_settings(self, step_key: str) -> bool:
        """Return True if the last run of a step in this kernel changed settings, and `undo_settings` was not called since."""
        return step_key in self._settings

    def undo_settings(self, step_key: str) -> None:
        """Restore the settings that the last run of a step in this kernel changed, except those that changed again since."""
        settings = self._settings.pop(step_key, None)
        if settings is None:
            return
        since = {name for name, _ in library_state.changed(settings.after, library_state.snapshot())}
        entries = [entry for entry in library_state.changed(settings.after, settings.before) if entry[0] not in since]
        values = {name: library_state.value_in(settings.before, name) for name, text in entries if text is None}
        library_state.apply(entries, values)
        for name, (before, after) in settings.environment.items():
            if value_of(name) == after:
                set_variable(name, before)

    def changed_by_cells(self, step_key: str) -> dict[Read, str]:
        """Return the reads of a step that cells have changed since the step was last brought up to date, each with the label of the last such cell."""
        seen = self._last_read.get(step_key)
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
    """Return True for a read of external state that can be examined before and after each cell; a recursive glob pattern would take too long."""
    return World.has(read) and not (read.kind == "glob" and "**" in read.name and not read.names)


def _has_content(read: Read) -> bool:
    """Return True if a file has the content that was read, even if its modification time or inode differs."""
    return read.kind == "file" and read_holds(read)


def _glance(read: Read) -> object:
    """Return an object that compares unequal after a change of the state that was read."""
    if read.kind == "file":
        return file_stat(read.name)
    if read.kind == "environment":
        return environment_copy() if read.name == ALL else value_of(read.name)
    return read_holds(read)


class HiddenState:
    """Keeps the code versions of one run valid.

    Parameters
    ----------
    walk
        The walk that computed the plan's code versions.
    new_walk
        Returns a new walk, which digests all mutable objects again.
    """

    def __init__(self, walk: CodeWalk, new_walk: Callable[[], CodeWalk]) -> None:
        self.walk = walk
        self._new_walk = new_walk
        self._changes = 0
        self._settled_steps: dict[str, int] = {}

    def is_settled(self, step: PlanStep) -> bool:
        """Return True if the code version of a step is valid for the present globals."""
        return not self._changes or step.code is None or self._settled_steps.get(step.key) == self._changes

    def settle(self, step: PlanStep) -> bool:
        """Compute a step's code version from the present globals; return True if the code version changed."""
        if step.code is None or self.is_settled(step):
            return False
        self._settled_steps[step.key] = self._changes
        before = step.code.digest
        step.code = self.walk.of(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return step.code.digest != before

    def mark_outdated(self) -> None:
        """Mark the code versions of the following steps as outdated, because a cell has changed the notebook."""
        self._changes += 1
        self.walk = self._new_walk()

    def watch(self, step: PlanStep) -> Watched | None:
        """Return a record of the mutable objects that a step could change, or None if its code reaches none."""
        if step.code is None:
            return None
        return self.walk.watched(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)

    def changed_names(self, step: PlanStep, watched: Watched | None) -> tuple[str, ...]:
        """Return the names of the objects that a step changed, as its code reaches them: ``CACHE``, ``helper(seen=)``."""
        if step.code is None:
            self._changes += 1
            self.walk = self._new_walk()
            return ()
        if watched is None:
            return ()
        walk = self._new_walk()
        roots = walk.roots(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        paths = watched.changed_paths(roots)
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
        If False, the generators are not seeded.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._saved_states: dict[str, Any] = {}
        """The user's states by stream; None for numpy if numpy was not imported."""
        self._watch: _Watch | None = None

    def seed(self, step_key: str, *, live: bool = False) -> None:
        """Seed the generators for one step; numpy's generator is seeded even if the body is the first to import numpy.

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
        """Exclude a stream from the restoration after the run, because a cell seeded the stream or a reuse set it."""
        self._saved_states.pop(stream, None)
        if stream == "numpy" and self._watch is not None:
            self._watch.end()
            self._watch = None

    def restore(self) -> None:
        """Restore the states of the generators before they were first seeded for a step."""
        for stream in tuple(self._saved_states):
            self._give_back(stream)

    def _save(self, stream: str) -> None:
        if stream in self._saved_states:
            return
        if stream == "random":
            self._saved_states[stream] = random.getstate()
            return
        self._saved_states[stream] = None
        module = sys.modules.get(_NUMPY)
        if module is None:
            self._watch = _Watch()
            sys.meta_path.insert(0, self._watch)
            return
        with suppress(Exception):
            self._saved_states[stream] = module.get_state()

    def _give_back(self, stream: str) -> None:
        if stream not in self._saved_states:
            return
        state = self._saved_states.pop(stream)
        if stream == "random":
            _RANDOM_SETSTATE(state)
            return
        if self._watch is not None:
            self._watch.end()
            self._watch = None
        module = sys.modules.get(_NUMPY)
        if module is not None:
            # A bit generator that the body has put in place may not accept the saved state.
            with suppress(Exception):
                if state is not None:
                    _unwrapped(module.set_state)(state)
                else:
                    _unwrapped(module.seed)()


def _seed_numpy(number: int) -> None:
    module = sys.modules.get(_NUMPY)
    seed: Callable[[int], None] | None = getattr(module, "seed", None)
    if seed is not None:
        # The user may have replaced the bit generator by one that cannot be seeded.
        with suppress(Exception):
            _unwrapped(seed)(number)


_RANDOM_SEED = random._inst.seed  # noqa: SLF001 - the functions of the module may be wrapped
_RANDOM_SETSTATE = random._inst.setstate  # noqa: SLF001 - as above


def _unwrapped(function: Any) -> Any:
    """Return the library's function without our wrapper, so that the call is not recorded as a seeding by the user."""
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
    """Set a random stream to a state; raises any exception of the library or of its import."""
    if name == "random":
        _RANDOM_SETSTATE(state)
    elif name == "numpy":
        # numpy imports numpy.random only on first use.
        _unwrapped(import_module(_NUMPY).set_state)(state)
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
        """Find ``numpy.random`` through the other finders, and seed the generator after the module is executed."""
        if name != _NUMPY:
            return None
        self.end()
        # The spec must come from the other finders, because one of them makes the module record seedings by the user.
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
        """Remove this finder from the import system."""
        with suppress(ValueError):
            sys.meta_path.remove(self)

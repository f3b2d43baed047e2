"""State apart from the inputs of steps: files, the environment, settings, random streams, and globals that bodies change.

`World` records which cells and steps changed the files, environment variables and other external state that the steps of a kernel read. The
operating system does not report such changes to the kernel, so the state behind the recorded reads (at most 1,000) is examined before and after
each cell. A step becomes stale if the state changes between two cells, or if the state is changed again by the cell that had made it. As in a plain notebook,
a step does not become stale if a cell or step that comes after it changes the state.

`Seeds` seeds the global generators of ``random`` and ``numpy.random`` from the key of each step, so that a step which does not seed them gets the
same numbers in each run, and different steps get different numbers. The states from before the run are restored after the run, not after each
body: saving a state takes longer than seeding, and between two bodies of a run only the engine works.

`HiddenState` keeps the code versions of one run valid. All code versions are computed before the first step runs, from the globals at that time.
If a body changes a global, the code versions of later steps may be wrong. They are computed again before these steps start, and a notice names
the global. The code of a step without a memo key is not walked, so it is not known what the body changes: after such a step, all code versions
are computed again.
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
"""The maximum number of reads whose state is examined before and after each cell."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A cell or step, as the cause of changes of variables, files and other state."""

    kind: str
    """``cell`` or ``step``; ``other`` for a change between two cells."""
    id: str
    """For a cell, its identifier in the notebook. For a step, its key, or the identifier of its cell if the key is not known."""
    label: str = field(default="", compare=False)
    """The name in messages: for a cell ``[7]`` and its first line, for a step its key."""
    place: str = field(default="", compare=False)
    """The location of a cell in messages, for example ``cell 7``; empty for a step."""


OTHER = Writer("other", "")
"""The unknown cause of a change between two cells."""


@dataclass(frozen=True, slots=True)
class _LastRead:
    """The external state that a step read when it was last brought up to date."""

    number: int
    """The number of the last event of the timeline before the step was brought up to date."""
    glances: dict[Read, object]
    """Maps each recorded read of the step to the result of `_glance` when the step was brought up to date."""


@dataclass(frozen=True, slots=True)
class SettingsOfStep:
    """The settings that a step changed in this kernel: those of libraries and of the process, and environment variables."""

    before: library_state.Snapshot
    """All settings of libraries and of the process before the step."""
    after: library_state.Snapshot
    """All settings of libraries and of the process after the step."""
    environment: dict[str, tuple[str | None, str | None]]
    """The environment variables that the step changed. Maps the name of each to a pair: the value before the step, and the value after the step. None
    means that the variable was not set."""


class World:
    """Records which cells and steps changed the external state that the steps of a kernel read.

    Parameters
    ----------
    project
        The folder of the project.

    Attributes
    ----------
    files
        The files that steps wrote. Maps the path of each file (in the form of `FileEffect.path`) to a pair: the digest of its content after the last
        step that wrote it, and the key of this step.
    """

    def __init__(self, project: Path) -> None:
        self._project = os.path.realpath(project)
        self.files: dict[str, tuple[str, str]] = {}
        self._watched: dict[Read, object] = {}
        """Maps each watched read to the last result of `_glance`."""
        self._changes: dict[tuple[str, str], list[tuple[int, Writer]]] = {}
        """Maps the kind and name of a read to the changes of the state behind this read. Each change is a pair: the number of the last event when the
        change was noted, and the cause of the change."""
        self._first_run: dict[Writer, int] = {}
        """Maps each cell and step to the number of the last event at the time when its first run in this kernel was recorded."""
        self._last_read: dict[str, _LastRead] = {}
        """Maps the key of each step to the external state that the step read."""
        self._settings: dict[str, SettingsOfStep] = {}
        """Maps the key of a step to the settings that the last run of the step changed."""

    @staticmethod
    def has(read: Read) -> bool:
        """Return True if `World` can examine the state behind a recorded read: the read is neither of the kernel's memory nor of an asset."""
        return read.kind not in LOCAL and read.kind != "asset"

    def note_run(self, writer: Writer, number: int) -> None:
        """Record that a cell or step has run. `number` is the number of the last event so far."""
        self._first_run.setdefault(writer, number)

    def look(self, number: int, writer: Writer = OTHER) -> None:
        """Examine the state behind all watched reads. Each change since the last call is recorded as made by `writer` after event `number`."""
        self.note_run(writer, number)
        for read, before in self._watched.items():
            now = _glance(read)
            if now != before:
                self._watched[read] = now
                self._changes.setdefault((read.kind, read.name), []).append((number, writer))

    def wrote(self, path: str, digest: str, step_key: str, number: int) -> None:
        """Record that a step wrote a file after event number `number`.

        `digest` is the digest of the content after the step; `path` has the form of `FileEffect.path`.
        """
        self.files[path] = (digest, step_key)
        name = os.path.normpath(Path(self._project, path))
        self._changes.setdefault(("file", name), []).append((number, Writer("step", step_key)))
        for read in self._watched:
            if read.kind == "file" and read.name == name:
                self._watched[read] = _glance(read)

    def seeded(self, stream: str, writer: Writer, number: int) -> None:
        """Record that a cell or step has seeded a random stream after event number `number`."""
        self._changes.setdefault(("stream", stream), []).append((number, writer))

    def was_seeded(self, stream: str, step_key: str, number: int, *, pulled: bool) -> bool:
        """Return True if a random stream was seeded after event number `number`.

        Seeding by the step `step_key` itself, and by cells and steps that come after this step, does not count (see `is_later_change`).
        """
        return not self._come_after(("stream", stream), step_key, number, pulled=pulled)

    def was_read(self, step_key: str, reads: Iterable[Read], number: int, *, same: bool) -> None:
        """Record the recorded reads of a step that was brought up to date after event number `number`.

        Parameters
        ----------
        same
            True if the step has the same materializations as when it was previously brought up to date. If the state behind a read has changed
            since that time, the materializations were made from the earlier state, so the record of the earlier state is kept.
        """
        glances = {read: _glance(read) for read in reads if _can_be_watched(read)}
        own = Writer("step", step_key)
        for read, now in glances.items():
            if self._watched.get(read, now) != now:
                # The other watched reads are examined when the cell ends.
                self._changes.setdefault((read.kind, read.name), []).append((number, own))
            if read in self._watched or len(self._watched) < _MOST_WATCHED:
                self._watched[read] = now
        self.note_run(own, number)
        before = self._last_read.get(step_key)
        is_unchanged = before is None or all(
            now == before.glances.get(read) or _has_content(read) for read, now in glances.items()
        )
        # If the state has changed but the materializations are the same, they were made from the earlier state, so its record is kept.
        if is_unchanged or not same:
            self._last_read[step_key] = _LastRead(number, glances)

    def is_later_change(self, read: Read, step_key: str, *, pulled: bool) -> bool:
        """Return True if only the step itself, or cells and steps that come after it, have changed the state behind a read of the step.

        A cell or other step comes after the step if its first run in this kernel was later than the first run of the step, and if it did not make
        the state that the step read.

        Parameters
        ----------
        pulled
            True if the request includes the step only because a later step needs it. Otherwise cells never count as coming after the step;
            other steps still can.
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

    def _come_after(self, name: tuple[str, str], step_key: str, number: int, *, pulled: bool) -> bool:
        """Return True if each change after event number `number` was made by the step itself, or by a cell or step that comes after it.

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
        """Record the settings of libraries and the environment variables that a step has just changed.

        Parameters
        ----------
        before
            The settings of libraries and of the process before the step.
        environment
            The environment variables before the step.
        """
        after, now = library_state.snapshot(), environment_copy()
        names = {name for name, _ in environment.items() ^ now.items()}
        changed = {name: (environment.get(name), now.get(name)) for name in names}
        if changed or library_state.changed(before, after):
            self._settings[step_key] = SettingsOfStep(before, after, changed)

    def has_settings(self, step_key: str) -> bool:
        """Return True if the last run of a step in this kernel changed settings, and `undo_settings` has not undone this."""
        return step_key in self._settings

    def undo_settings(self, step_key: str) -> None:
        """Undo the changes of settings by the last run of a step in this kernel. Settings that have changed again since then are left as they are."""
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
        """Return the recorded reads of a step for which cells have changed the state behind the read since the step was brought up to date.

        Each read is mapped to the label of the last cell that changed this state.
        """
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
    """Return True for a read of external state that can be examined before and after each cell.

    A recursive glob pattern with too many matches takes too long.
    """
    return World.has(read) and not (read.kind == "glob" and "**" in read.name and not read.names)


def _has_content(read: Read) -> bool:
    """Return True for a read of a file that still has the recorded content, even if its modification time or inode differs."""
    return read.kind == "file" and read_holds(read)


def _glance(read: Read) -> object:
    """Return an object that describes the present state behind a read.

    If two calls for the same read return unequal objects, the state has changed between the calls.
    """
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
        Returns a new walk, which knows no digests of mutable objects yet.
    """

    def __init__(self, walk: CodeWalk, new_walk: Callable[[], CodeWalk]) -> None:
        self.walk = walk
        self._new_walk = new_walk
        self._changes = 0
        self._settled_steps: dict[str, int] = {}

    def is_settled(self, step: PlanStep) -> bool:
        """Return True if no step can have changed a global since the code version of `step` was computed, or if the step has no code version."""
        return not self._changes or step.code is None or self._settled_steps.get(step.key) == self._changes

    def settle(self, step: PlanStep) -> bool:
        """Compute the code version of a step again if globals may have changed. Return True if the code version is different."""
        if step.code is None or self.is_settled(step):
            return False
        self._settled_steps[step.key] = self._changes
        before = step.code.digest
        step.code = self.walk.of(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return step.code.digest != before

    def mark_outdated(self) -> None:
        """Record that the code versions of the following steps must be computed again, because a step has changed the notebook."""
        self._changes += 1
        self.walk = self._new_walk()

    def watch(self, step: PlanStep) -> Watched | None:
        """Return a record, for `changed_names`, of the mutable objects that a step could change; None if its code reaches none or is not walked."""
        if step.code is None:
            return None
        return self.walk.watched(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)

    def changed_names(self, step: PlanStep, watched: Watched | None) -> tuple[str, ...]:
        """Return the names of the objects that the body of a step has changed.

        Examples: ``CACHE`` for a global, and ``helper(seen=)`` for the default of the parameter ``seen`` of the function ``helper``.

        If the body has changed any object, or if the code of the step was not walked, the code versions of the following steps are computed again.

        Parameters
        ----------
        watched
            The result of `watch`.
        """
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
        True if the generators are seeded before each body; if False, they are left as they are.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._saved_states: dict[str, Any] = {}
        """Maps the name of each stream to the state of its generator before this object first seeded the generator. The state of ``numpy`` is None if
        ``numpy.random`` was not imported at that time."""
        self._watch: _Watch | None = None
        """Seeds numpy's generator when a body imports numpy; None if this is not necessary."""

    def seed(self, step_key: str, *, live: bool = False) -> None:
        """Seed the generators for one step. If numpy is not imported yet, its generator is seeded when the body imports it.

        Parameters
        ----------
        live
            True for a live cell. Generators that the user has seeded are then not seeded for the step, and keep the state that the user gave them.
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
        """Let a random stream keep its state after the run, because a cell seeded the stream or a reuse set its state."""
        self._saved_states.pop(stream, None)
        if stream == "numpy" and self._watch is not None:
            self._watch.end()
            self._watch = None

    def restore(self) -> None:
        """Restore the states that the generators had before this object first seeded them."""
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
            # If the body has replaced the bit generator, the new one may not accept the saved state.
            with suppress(Exception):
                if state is not None:
                    _unwrapped(module.set_state)(state)
                else:
                    _unwrapped(module.seed)()


def _seed_numpy(number: int) -> None:
    module = sys.modules.get(_NUMPY)
    seed: Callable[[int], None] | None = getattr(module, "seed", None)
    if seed is not None:
        # If the user has replaced the bit generator, the new one may not accept a seed.
        with suppress(Exception):
            _unwrapped(seed)(number)


_RANDOM_SEED = random._inst.seed  # noqa: SLF001 - the functions of the module may be wrapped
_RANDOM_SETSTATE = random._inst.setstate  # noqa: SLF001 - as above


def _unwrapped(function: Any) -> Any:
    """Return the library's function behind Stepwell's wrapper, so that a call is not recorded as a seeding by the user."""
    return getattr(function, "__wrapped__", function)


def stream_states() -> dict[str, Any]:
    """Return the states of the random streams that the user's code has seeded or a reuse has set, by name."""
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
    """Set a random stream to a state from `stream_states`. Any exception of the library, or of its import, is raised."""
    if name == "random":
        _RANDOM_SETSTATE(state)
    elif name == "numpy":
        # numpy imports numpy.random only on first use.
        _unwrapped(import_module(_NUMPY).set_state)(state)
    else:
        torch = import_module("torch")
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


class _Watch:
    """A finder in ``sys.meta_path`` that seeds numpy's generator right after a body has imported ``numpy.random``."""

    def __init__(self) -> None:
        self.number = 0

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of ``numpy.random`` from the other finders, with a loader that seeds the generator; None for any other module."""
        if name != _NUMPY:
            return None
        self.end()
        # The finder of `reads.hooks` wraps the functions for seeding. It is one of the other finders, so the spec must come from these.
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec: ModuleSpec | None = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
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

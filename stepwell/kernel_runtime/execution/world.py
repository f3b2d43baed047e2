"""Changes of files, listings, the environment, options and random streams that steps of one kernel have read, and the cells that made them.

Nothing reports a change of a file or of the environment. What the steps of the kernel have read is therefore looked at before and after each
cell. A change by the cell that gave the state which a step read is an edit, and so is one that happened between cells. A change by what comes
after the step is as in a plain notebook: the step keeps what it read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.reads.checks import read_holds
from stepwell.kernel_runtime.reads.file_state import UNSTABLE, file_digest, file_stat
from stepwell.kernel_runtime.records.materializations import LOCAL, Read
from stepwell.kernel_runtime.versions.environment import ALL, value_of, whole

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
        since = {writer for at, writer in changes if at > number}
        if not since:
            return True
        last = next((writer for at, writer in reversed(changes) if at <= number), None)
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

    def changed_by_cells(self, step_key: str) -> dict[Read, str]:
        """Return what cells have changed since the step was last brought up to date, of what it read: the label of the cell that did so last."""
        seen = self._seen.get(step_key)
        found: dict[Read, str] = {}
        if seen is None or not self._changes:
            return found
        for read, before in seen.glances.items():
            by = [
                writer.label
                for number, writer in self._changes.get((read.kind, read.name), ())
                if number > seen.number and writer.kind == "cell"
            ]
            if by and self._watched.get(read, before) != before and not _has_content(read):
                found[read] = by[-1]
        return found


def _can_be_watched(read: Read) -> bool:
    """Return True for what can be looked at before and after each cell: not for matches in a large tree."""
    return World.has(read) and not (read.kind == "glob" and "**" in read.name and not read.names)


def _has_content(read: Read) -> bool:
    """Return True for a file that has the content that was read, whatever else differs."""
    return read.kind == "file" and read_holds(read)


def _glance(read: Read) -> object:
    """Return something that differs after a change of what was read."""
    if read.kind == "file":
        return file_stat(read.name)
    if read.kind == "environment":
        return whole() if read.name == ALL else value_of(read.name)
    return read_holds(read)

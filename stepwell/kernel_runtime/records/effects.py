"""What a step did to the notebook and the project beside giving its value. A hit restores it, so that reuse leaves the same state as the run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

NOTEBOOK = "notebook"
"""The name of the output that keeps what a cell left in the notebook."""

RESULT = "Out[]"
"""Among the variables of a step, what the shell keeps as the result of the cell: the value of its last expression."""

ELSEWHERE = "elsewhere"
"""In place of effects: another output of the same step has them."""


@dataclass(frozen=True, slots=True)
class FileEffect:
    """The state in which a step left a file or folder."""

    path: str
    """Absolute, or relative to the project's folder if it is inside it."""
    digest: str
    """Of the content; ``/`` for a folder, empty for a path that the step removed."""
    size: int = 0
    kept: bool = False
    """Whether the content is stored, so that a lost file can be restored."""
    before: str = ""
    """The digest of the content that the step found; empty if there was no file, or it was too large."""
    appended: bool = False
    """Whether the step appended to what it found."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a step did."""

    values: tuple[str, ...] = ()
    """Variables whose values are stored."""
    unstored: tuple[str, ...] = ()
    """Variables whose values are not stored."""
    definitions: tuple[int, ...] = ()
    """Which of the body's imports, functions and classes were executed, by their place in it."""
    deleted: tuple[str, ...] = ()
    """Names that the body deleted."""
    objects: tuple[str, ...] = ()
    """Names of the notebook whose objects were changed in place."""
    lost: tuple[str, ...] = ()
    """Names of objects that were changed and cannot be restored."""
    files: tuple[FileEffect, ...] = ()
    streams: dict[str, str] = field(default_factory=dict)
    """By random stream, the digest of the state in which the step left it."""
    state: tuple[tuple[str, Any], ...] = ()
    """Settings of libraries and of the process that the step changed, with their new values."""
    seeded: tuple[str, ...] = ()
    """Those random streams that the step seeded."""
    handles: tuple[str, ...] = ()
    """Those variables without a stored value that are open or closed files, connections and the like."""

    def __bool__(self) -> bool:
        """Return True if the step did anything."""
        return bool(
            self.values
            or self.unstored
            or self.definitions
            or self.deleted
            or self.objects
            or self.lost
            or self.files
            or self.streams
            or self.state
        )

    @property
    def acts(self) -> bool:
        """True if the step changed more than it bound: objects, random streams, files, settings, names that it deleted."""
        return bool(self.objects or self.streams or self.files or self.state or self.deleted)

    def as_json(self) -> dict[str, Any]:
        """Return the effects as JSON values; fields that are empty are left out."""
        found: dict[str, Any] = {}
        for name in ("values", "unstored", "definitions", "deleted", "objects", "lost", "streams", "seeded", "handles"):
            value = getattr(self, name)
            if value:
                found[name] = value
        if self.files:
            found["files"] = [
                [each.path, each.digest, each.size, each.kept, each.before, each.appended] for each in self.files
            ]
        if self.state:
            found["state"] = [list(each) for each in self.state]
        return found

    def as_text(self) -> str:
        """Return the effects as JSON."""
        return json.dumps(self.as_json(), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Effects:
        """Read what `as_text` wrote; no text means no effects.

        Raises
        ------
        ValueError
            If it is something else.
        """
        return cls.from_json(json.loads(text)) if text else cls()

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Effects:
        """Read what `as_json` wrote."""
        return cls(
            tuple(found.get("values", ())),
            tuple(found.get("unstored", ())),
            tuple(found.get("definitions", ())),
            tuple(found.get("deleted", ())),
            tuple(found.get("objects", ())),
            tuple(found.get("lost", ())),
            tuple(FileEffect(*each) for each in found.get("files", ())),
            dict(found.get("streams", {})),
            tuple((name, value) for name, value in found.get("state", ())),
            tuple(found.get("seeded", ())),
            tuple(found.get("handles", ())),
        )

"""The code version of a step: a digest, and the parts that went into it so that a difference can be explained.

A user can mark an edit as not mattering. The acceptance is a materialization like any other, with the value of the one before it under the
new memo key, and another row revokes it: nothing in the catalog is changed. Both carry metadata under names of Stepwell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick
from stepwell.kernel_runtime.records.materializations import Materialization

CodeKind: TypeAlias = Literal["body", "function", "class", "global", "module", "package", "sql", "graph", "name"]


@quick
@dataclass(frozen=True, slots=True)
class CodePart:
    """One thing that a step's result can depend on through its code."""

    path: str
    """How it is reached from the step: ``report.transform -> normalise``."""
    kind: CodeKind
    digest: str
    """Hexadecimal digest of this thing alone, without what it references."""
    text: str | None = None
    """Its source, a short value, or a version; None where that is unreadable, long or secret."""
    where: str = ""
    """Where it is defined, for a reader: ``cell 9`` or ``helpers.py:12``."""


@dataclass(frozen=True, slots=True)
class Unverifiable:
    """An object that a step reaches and that has no digest: the step is not silently reused."""

    path: str
    """How it is reached: ``target -> helper -> CONN``."""
    reason: str
    """What it is and why it has no digest: ``sqlite3.Connection cannot be digested``."""


@dataclass(frozen=True)
class CodeVersion:
    """The digest of the code that a step's result can depend on.

    It has no slots, so that what a plain version does not set is its class's.
    """

    digest: str
    """Hexadecimal; equal in every process and under every PYTHONHASHSEED if the code is equal."""
    parts: tuple[CodePart, ...] = ()
    unverifiable: tuple[Unverifiable, ...] = ()
    asset_names: tuple[tuple[str, str], ...] = ()
    """Names of assets that the code (a helper, mostly) reads as globals, each with the path that reaches it.

    They are inputs of the step: their data version counts, not the value that happens to be bound.
    """
    mutable_globals: tuple[str, ...] = ()
    """Names of reached globals that a step could change in place; digested again after a step ran."""

    @classmethod
    def plain(cls, digest: str) -> CodeVersion:
        """Return the version of code of which there is nothing else to tell: a run has thousands, each made in a third of the time."""
        made = object.__new__(cls)
        object.__setattr__(made, "digest", digest)
        return made


ACCEPTED = "stepwell:accepted"
"""``{"on": time as text, "of": id, "run_id": id, "causes": [texts], "unverifiable": [path: reason]}``."""
REVOKED = "stepwell:revoked"
"""The run of the acceptance that is taken back."""


def acceptance(item: Materialization) -> dict[str, Any] | None:
    """Return what is said of the acceptance that made a materialization; None for one that a step made."""
    found = item.metadata.get(ACCEPTED) if item.metadata else None
    return found if isinstance(found, dict) else None


def revoked_run(item: Materialization) -> str:
    """Return the run of the acceptance that a row takes back; empty for any other row."""
    return str(item.metadata.get(REVOKED, "")) if item.metadata else ""


RENAMED = "stepwell:renamed"
"""``{"from": key, "of": id}``; with ``"settled": true`` where its code version is that of the renamed definition."""


def renaming(item: Materialization) -> dict[str, Any] | None:
    """Return what is said of the renaming that made a materialization; None for any other."""
    found = item.metadata.get(RENAMED) if item.metadata else None
    return found if isinstance(found, dict) else None

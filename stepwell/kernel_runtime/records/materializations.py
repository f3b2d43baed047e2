"""Materializations: the records that a step produced values, or changed the world, for a key.

A materialization has the code version of its step, its inputs, its recorded reads and its effects. The code version is a digest with the
parts that went into it, so that a difference can be explained. The memo key is the digest of everything that a step's result can depend
on. Effects are what a step did to the notebook and the project besides producing its value; a hit restores them, so that reuse leaves the
same state as the run.

A user can mark an edit as not mattering. The acceptance is a materialization like any other, with the value of the one before it under the
new memo key, and another row revokes it: nothing in the catalog is changed. Both carry metadata under names of Stepwell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick

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
    """Its type, and why it has no digest: ``sqlite3.Connection cannot be digested``."""


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
        """Return a version that has only a digest, made in a third of the time: a run has thousands."""
        made = object.__new__(cls)
        object.__setattr__(made, "digest", digest)
        return made


ReadKind: TypeAlias = Literal[
    "file", "absent", "status", "listing", "glob", "environment", "asset", "name", "given", "stream", "state"
]
LOCAL: frozenset[str] = frozenset({"name", "given", "stream"})
"""Kinds of reads from the notebook's kernel: a variable that a text names, one that code in the value of an input reads, and the state of a
random stream."""


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that a step read."""

    kind: ReadKind
    name: str
    """An absolute path or pattern, a name in the environment (``*`` for all of it), what has the state that was read (``pandas``,
    ``working directory``), the key of an asset that was loaded, a variable of the notebook, or a random stream."""
    digest: str = ""
    """Digest of the content or of the names when it was read, keyed for the environment, an asset's data version; what a look at a path
    learned, in words; empty for what was not there."""
    stat: tuple[int, ...] = ()
    """``(size, mtime_ns, ctime_ns, inode)`` of a file: equal ones save reading the content again."""
    names: tuple[str, ...] = ()
    """For explanations: the names that were listed or matched, if they are few. For an asset, the notebook and the store, if they were
    named. For a path, the attributes that were read: its kind, size, times, access."""
    own: tuple[str, ...] = ()
    """Names that do not count: those that the step itself made or set."""


@quick
@dataclass(frozen=True, slots=True)
class StoredValue:
    """Where a value is and what is needed to load it. Values are immutable once stored."""

    codec: str
    """The name of the codec that wrote it."""
    digest: str
    """Digest of the stored form: executable stream and raw buffers."""
    size: int
    """Bytes of the stored form."""
    inline: bytes | None = None
    """The stored form itself where it is small."""
    object_name: str | None = None
    """Otherwise the file below ``objects/``: ``ab/<digest>.<codec>``."""
    signature: bytes | None = None
    """Over an inline stream that executes code when loaded; a file carries its own."""
    type_name: str = ""
    """For a reader: ``pandas.DataFrame``."""
    summary: str = ""
    """For a reader: ``336,776 × 19`` or ``'short repr'``."""
    classes: tuple[tuple[str, str], ...] = ()
    """Classes and functions of the notebook that it names, ``__main__.Point``, each with its code version when it was stored; and the
    libraries that wrote it: the module ``sklearn`` with ``scikit-learn 1.9.1``."""


Link: TypeAlias = Callable[[Any], Any]
"""When storing: returns what identifies an object, or None to store it by value. When loading: returns the object."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A value for the store in which some objects are stored as links."""

    value: Any
    link: Link


Verify: TypeAlias = Literal["signed", "full"]
"""The extent of the checks of a load: streams that would be executed, and sizes; or every byte."""

InputKind: TypeAlias = Literal["value", "order"]


@quick
@dataclass(frozen=True, slots=True)
class InputVersion:
    """The version that one input of a step had when the memo key of the step was made."""

    name: str
    """The parameter; empty for an order edge."""
    key: str
    """The upstream's key."""
    version: str
    """Its data version; for an order edge, or an upstream without a stored value, its materialization id."""
    kind: InputKind = "value"


@quick
@dataclass(frozen=True, slots=True)
class Materialization:
    """The record that a step produced one output."""

    id: str
    """Unique; sorts by time of creation within one process."""
    run_id: str
    key: str
    """The asset key as written; for an op's output inside a graph or job, ``step.key`` or ``step.key:output``."""
    step_key: str
    output: str
    """The name of the output, ``result`` by default."""
    notebook: str
    """The notebook or module that defined the key; no part of the memo key."""
    memo_key: str
    code_version: str
    data_version: str
    """Empty where nothing is stored (a Nothing output, a table dropped)."""
    value: StoredValue | None
    created: float
    """Seconds since the epoch."""
    seconds: float
    """How long the step's body ran."""
    partition: str = ""
    inputs: tuple[InputVersion, ...] = ()
    reads: tuple[Read, ...] = ()
    unverifiable: tuple[str, ...] = ()
    """Paths of what had no digest; a materialization that has any is never silently reused."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """JSON values that the step attached by ``Output(metadata=)`` or its context."""
    effects: str = ""
    """`Effects` as JSON. Only on the output that keeps what a cell left in the notebook."""
    record_signature: bytes | None = None
    """Signs the whole record where it has effects: they are restored only if a trusted key signed them."""


@quick
@dataclass(frozen=True, slots=True)
class Current:
    """The materialization that ``load``, source assets and SQL read for a key as one notebook defines it."""

    notebook: str
    key: str
    materialization: Materialization
    partition: str = ""


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
    """True if the content is stored, so that a lost file can be restored."""
    before: str = ""
    """The digest of the content that the step found; empty if there was no file, or it was too large."""
    appended: bool = False
    """True if the step appended to what it found."""


@dataclass(frozen=True, slots=True)
class Effects:
    """The effects of a step: its changes of the notebook and the project."""

    values: tuple[str, ...] = ()
    """Variables whose values are stored."""
    unstored: tuple[str, ...] = ()
    """Variables whose values are not stored."""
    definitions: tuple[int, ...] = ()
    """The imports, functions and classes of the body that were executed, by their place in it."""
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


PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


_PROVENANCE = "from:"


def provenance(memo: str, reads: Iterable[Read], output: str) -> str:
    """Return what stands for the data version of a value that cannot be stored: the digest of all that it was computed from."""
    text = repr((memo, sorted((read.kind, read.name, read.digest) for read in reads), output))
    return _PROVENANCE + blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def is_provenance(version: str) -> bool:
    """Return True for what `provenance` returned: it says where a value is from, and nothing of what it is now."""
    return version.startswith(_PROVENANCE)


def memo_key(step_key: str, code_version: str, inputs: Iterable[InputVersion]) -> str:
    """Return the memo key of a step as 32 hexadecimal digits (DESIGN, section 1).

    Parameters
    ----------
    inputs
        Values in the order of the parameters; order edges in any order, they are sorted by key here.
    """
    values: list[tuple[str, str]] = []
    order: list[tuple[str, str]] = []
    for item in inputs:
        if item.kind == "value":
            values.append((item.name, item.version))
        else:
            order.append((item.key, item.version))
    order.sort()
    # The text of a tuple of strings is different for different tuples.
    text = repr((step_key, code_version, values, order, PYTHON))
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

"""Materializations: records of the values and effects that steps produced for keys.

A materialization contains the step's code version, inputs, recorded reads and effects. The code version is a digest with the list of the
parts of the code that it covers, so that a difference can be explained. The memo key is a digest of the step's key, its code version, its
inputs and the Python version. Effects are the changes that a step made to the notebook and the project in addition to its value; a reuse
restores them, so that it leaves the same state as a run.

A user can accept an edit that does not change the result. An acceptance is an ordinary materialization with the previous value under the
new memo key. Rows of the catalog never change, so a second row revokes an acceptance. Both rows have metadata under reserved names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick_init

CodeKind: TypeAlias = Literal["body", "function", "class", "global", "module", "package", "sql", "graph", "name"]


@quick_init
@dataclass(frozen=True, slots=True)
class CodePart:
    """One part of the code on which the result of a step can depend."""

    path: str
    """The path from the step to the part: ``report.transform -> normalise``."""
    kind: CodeKind
    digest: str
    """Hexadecimal digest of this part alone, without the objects that the part references."""
    text: str | None = None
    """The source, a short value, or a version; None if this text is unreadable, long or secret."""
    where: str = ""
    """The source location of the definition, for messages: ``cell 9`` or ``helpers.py:12``."""


@dataclass(frozen=True, slots=True)
class Unverifiable:
    """An object that a step can reach but that has no digest, so that the step is not reused silently."""

    path: str
    """The path to the object: ``target -> helper -> CONN``."""
    reason: str
    """The type of the object, and why it has no digest: ``sqlite3.Connection cannot be digested``."""


@dataclass(frozen=True)
class CodeVersion:
    """The digest of the code on which the result of a step can depend.

    The class has no slots, so that `without_parts` can leave the other fields at their class defaults.
    """

    digest: str
    """Hexadecimal digest. The same code has the same digest in every process and with every PYTHONHASHSEED."""
    parts: tuple[CodePart, ...] = ()
    unverifiable: tuple[Unverifiable, ...] = ()
    asset_names: tuple[tuple[str, str], ...] = ()
    """Names of assets that the code, usually a helper, reads as globals, each with the path to the read.

    They are inputs of the step: the memo key contains the data version of the asset, not the object to which the name is bound.
    """
    mutable_globals: tuple[str, ...] = ()
    """Names of globals that a step could change in place; they are digested again after a run."""

    @classmethod
    def without_parts(cls, digest: str) -> CodeVersion:
        """Return a version with only a digest. A run makes thousands, and this takes a third of the constructor's time."""
        version = object.__new__(cls)
        object.__setattr__(version, "digest", digest)
        return version


ReadKind: TypeAlias = Literal[
    "file", "absent", "status", "listing", "glob", "environment", "asset", "name", "given", "stream", "state"
]
LOCAL: frozenset[str] = frozenset({"name", "given", "stream"})
"""Kinds of reads from the kernel's memory: ``name`` is a variable that a string names, ``given`` a variable that code in the value of an input
reads, and ``stream`` the state of a random stream."""


@dataclass(frozen=True, slots=True)
class Read:
    """One item that a step read in addition to its inputs."""

    kind: ReadKind
    name: str
    """The item, in a form that depends on the kind. For files: an absolute path or pattern. For the environment: a name, or ``*`` for all
    names. For state: its owner (``pandas``, ``working directory``). Otherwise: the key of an asset, a variable, or a random stream."""
    digest: str = ""
    """The state of the item when it was read: a digest of its content or names (a keyed digest for the environment), the data version of an
    asset, or the attributes of a path (``folder``). Empty for a missing item."""
    stat: tuple[int, ...] = ()
    """``(size, mtime_ns, ctime_ns, inode)`` of a file. While they are unchanged, the content is not read again."""
    names: tuple[str, ...] = ()
    """For a listing or pattern: the listed or matched names, if they are few, for explanations. For an asset: the notebook and the store
    that the step named. For the status of a path: the attribute that was read (kind, size, times or access)."""
    own_names: tuple[str, ...] = ()
    """Names that are ignored because the step itself created or set them."""


@quick_init
@dataclass(frozen=True, slots=True)
class StoredValue:
    """The location of a stored value, and the data needed to load it. Stored values are immutable."""

    codec: str
    """The name of the codec that wrote the value."""
    digest: str
    """Digest of the stored form, which consists of an executable stream and raw buffers."""
    size: int
    """Bytes of the stored form."""
    inline: bytes | None = None
    """The stored form itself if it is small, else None."""
    object_name: str | None = None
    """The file below ``objects/`` of a value that is not inline: ``ab/<digest>.<codec>``."""
    signature: bytes | None = None
    """The signature of an inline stream that executes code when it is loaded. A value file contains its signature itself."""
    type_name: str = ""
    """The type for display: ``pandas.DataFrame``."""
    summary: str = ""
    """A summary for display: ``336,776 × 19`` or ``'short repr'``."""
    classes: tuple[tuple[str, str], ...] = ()
    """Two kinds of pairs: classes and functions of the notebook to which the value refers (``__main__.Point``) with their code versions at the
    time of storing, and modules of the libraries that wrote the value with their versions (``sklearn``, ``scikit-learn 1.9.1``)."""


Link: TypeAlias = Callable[[Any], Any]
"""When a value is stored, returns an identifier for an object in it, or None to store the object by value. When the value is loaded, returns
the object of an identifier."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A value in which the store replaces some objects by links."""

    value: Any
    link: Link


Verify: TypeAlias = Literal["signed", "full"]
"""The extent of the checks before a load: ``signed`` checks sizes and streams that execute code, ``full`` every byte."""

InputKind: TypeAlias = Literal["value", "order"]


@quick_init
@dataclass(frozen=True, slots=True)
class InputVersion:
    """The version of one input of a step when the memo key was computed."""

    name: str
    """The name of the parameter; empty for a dependency that only orders the steps."""
    key: str
    """The key of the upstream value."""
    version: str
    """The data version of the upstream value, or the materialization id if no value is stored or the dependency only orders the steps."""
    kind: InputKind = "value"


@quick_init
@dataclass(frozen=True, slots=True)
class Materialization:
    """The record of one output of a step."""

    id: str
    """A unique identifier; sorts by time of creation within one process."""
    run_id: str
    key: str
    """The asset key in written form; for an op's output inside a graph or job, ``step.key`` or ``step.key:output``."""
    step_key: str
    output: str
    """The name of the output, ``result`` by default."""
    notebook: str
    """The notebook or module that defined the key. The memo key does not contain it."""
    memo_key: str
    code_version: str
    data_version: str
    """The digest of the value; empty if no value is stored (an output of type Nothing, a dropped table)."""
    value: StoredValue | None
    created: float
    """Time of creation in seconds since the epoch."""
    seconds: float
    """The duration of the step's body in seconds."""
    partition: str = ""
    inputs: tuple[InputVersion, ...] = ()
    reads: tuple[Read, ...] = ()
    unverifiable: tuple[str, ...] = ()
    """Paths of objects without a digest. A materialization with such objects is never reused silently."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """JSON values that the step added with ``Output(metadata=)`` or its context."""
    effects: str = ""
    """`Effects` as JSON; present only for the output that stores the effects of a cell."""
    record_signature: bytes | None = None
    """The signature of a record with effects. Effects are only restored if a trusted key signed the record."""


@quick_init
@dataclass(frozen=True, slots=True)
class Current:
    """The materialization that ``load``, source assets and SQL read for a key of one notebook."""

    notebook: str
    key: str
    materialization: Materialization
    partition: str = ""


ACCEPTED = "stepwell:accepted"
"""The metadata of an acceptance: ``{"on": time as a string, "of": id, "run_id": id, "causes": [strings], "unverifiable": [path: reason]}``."""
REVOKED = "stepwell:revoked"
"""The metadata of a row that revokes an acceptance: the run of the acceptance."""


def acceptance(item: Materialization) -> dict[str, Any] | None:
    """Return the details of the acceptance that made a materialization, or None if a step made it."""
    details = item.metadata.get(ACCEPTED) if item.metadata else None
    return details if isinstance(details, dict) else None


def revoked_run(item: Materialization) -> str:
    """Return the run of the acceptance that a row revokes; empty for any other row."""
    return str(item.metadata.get(REVOKED, "")) if item.metadata else ""


NOTEBOOK = "notebook"
"""The name of the output that stores the effects of a cell."""

RESULT = "Out[]"
"""The name under which the variables of a step include the cell's result in the shell, the value of the last expression."""

ELSEWHERE = "elsewhere"
"""Replaces the effects in the records of a step's outputs other than the one that stores the effects."""


@dataclass(frozen=True, slots=True)
class FileEffect:
    """The state of a file or folder at the end of the step that changed it."""

    path: str
    """The path: relative to the project's folder if it is inside the folder, else absolute."""
    digest: str
    """Digest of the content; ``/`` for a folder, empty for a path that the step removed."""
    size: int = 0
    is_stored: bool = False
    """True if the content is stored, so that the file can be restored."""
    digest_before: str = ""
    """Digest of the content before the step; empty if the file did not exist or was too large."""
    appended: bool = False
    """True if the step appended to the existing content."""


@dataclass(frozen=True, slots=True)
class Effects:
    """The effects of a step: its changes to the notebook and the project."""

    values: tuple[str, ...] = ()
    """Variables whose values are stored."""
    unstored: tuple[str, ...] = ()
    """Variables whose values are not stored."""
    definitions: tuple[int, ...] = ()
    """Indices of the imports, functions and classes of the body that were executed."""
    deleted: tuple[str, ...] = ()
    """Names that the body deleted."""
    objects: tuple[str, ...] = ()
    """Names of the notebook whose objects the step changed in place."""
    lost: tuple[str, ...] = ()
    """Names of changed objects that cannot be restored."""
    files: tuple[FileEffect, ...] = ()
    streams: dict[str, str] = field(default_factory=dict)
    """The digest of the final state of each random stream that the step used."""
    state: tuple[tuple[str, Any], ...] = ()
    """Settings of libraries and of the process that the step changed, each with its new value."""
    seeded: tuple[str, ...] = ()
    """Random streams that the step seeded."""
    handles: tuple[str, ...] = ()
    """Variables without a stored value that hold files, connections and similar objects."""

    def __bool__(self) -> bool:
        """Return True if the step had any effects."""
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
        """True if the step did more than bind names: it changed objects, random streams, files or settings, or deleted names."""
        return bool(self.objects or self.streams or self.files or self.state or self.deleted)

    def as_json(self) -> dict[str, Any]:
        """Return the effects as JSON values, without empty fields."""
        values: dict[str, Any] = {}
        for name in ("values", "unstored", "definitions", "deleted", "objects", "lost", "streams", "seeded", "handles"):
            value = getattr(self, name)
            if value:
                values[name] = value
        if self.files:
            values["files"] = [
                [file.path, file.digest, file.size, file.is_stored, file.digest_before, file.appended]
                for file in self.files
            ]
        if self.state:
            values["state"] = [list(setting) for setting in self.state]
        return values

    def as_text(self) -> str:
        """Return the effects as JSON."""
        return json.dumps(self.as_json(), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Effects:
        """Parse the result of `as_text`; an empty string means no effects.

        Raises
        ------
        ValueError
            If the string is not JSON.
        """
        return cls.from_json(json.loads(text)) if text else cls()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Effects:
        """Return the effects from the result of `as_json`."""
        return cls(
            tuple(values.get("values", ())),
            tuple(values.get("unstored", ())),
            tuple(values.get("definitions", ())),
            tuple(values.get("deleted", ())),
            tuple(values.get("objects", ())),
            tuple(values.get("lost", ())),
            tuple(FileEffect(*file) for file in values.get("files", ())),
            dict(values.get("streams", {})),
            tuple((name, value) for name, value in values.get("state", ())),
            tuple(values.get("seeded", ())),
            tuple(values.get("handles", ())),
        )


PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


_PROVENANCE = "from:"


def provenance(memo: str, reads: Iterable[Read], output: str) -> str:
    """Return the data version of a value that cannot be stored: a digest of everything from which the value was computed."""
    text = repr((memo, sorted((read.kind, read.name, read.digest) for read in reads), output))
    return _PROVENANCE + blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def is_provenance(version: str) -> bool:
    """Return True if a data version comes from `provenance`, so that it identifies the origin of a value, not the content."""
    return version.startswith(_PROVENANCE)


def memo_key(step_key: str, code_version: str, inputs: Iterable[InputVersion]) -> str:
    """Return the memo key of a step as 32 hexadecimal digits.

    Parameters
    ----------
    inputs
        The inputs with values in the order of the parameters, and inputs that only order the steps in any order.
    """
    values: list[tuple[str, str]] = []
    order: list[tuple[str, str]] = []
    for item in inputs:
        if item.kind == "value":
            values.append((item.name, item.version))
        else:
            order.append((item.key, item.version))
    order.sort()
    # `repr` is injective for tuples of strings.
    text = repr((step_key, code_version, values, order, PYTHON))
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

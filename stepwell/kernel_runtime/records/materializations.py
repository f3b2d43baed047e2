"""Materializations: records that a step produced a value or had effects for a key.

A materialization contains the code version of its step, its inputs, its recorded reads and its effects. The code version is a digest
together with the parts that it covers, so that a difference can be explained. The memo key is the digest of everything on which the result of
a step can depend. Effects are the changes that a step made to the notebook and the project in addition to its value. A reuse restores
them and so leaves the same state as a run.

A user can accept an edit that does not change the result. An acceptance is an ordinary materialization with the previous value under the
new memo key. Another row revokes it, so no row of the catalog is ever changed. Both rows carry metadata under reserved names.
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
    """One part of the code on which the result of a step can depend."""

    path: str
    """The path from the step to the part: ``report.transform -> normalise``."""
    kind: CodeKind
    digest: str
    """Hexadecimal digest of this part alone, without the objects that it references."""
    text: str | None = None
    """The source, a short value, or a version; None if it is unreadable, long or secret."""
    where: str = ""
    """The place of the definition for messages: ``cell 9`` or ``helpers.py:12``."""


@dataclass(frozen=True, slots=True)
class Unverifiable:
    """An object without a digest that a step can reach, so the step is not reused silently."""

    path: str
    """The path to the object: ``target -> helper -> CONN``."""
    reason: str
    """The type, and the reason why it has no digest: ``sqlite3.Connection cannot be digested``."""


@dataclass(frozen=True)
class CodeVersion:
    """The digest of the code on which the result of a step can depend.

    The class has no slots, so that `plain` can leave the other fields at their class defaults.
    """

    digest: str
    """Hexadecimal digest; the same in every process and for every PYTHONHASHSEED if the code is the same."""
    parts: tuple[CodePart, ...] = ()
    unverifiable: tuple[Unverifiable, ...] = ()
    asset_names: tuple[tuple[str, str], ...] = ()
    """Names of assets that the code, usually a helper, reads as globals, each with the path to the read.

    They are inputs of the step: the data version of the asset counts, not the object that the name is bound to.
    """
    mutable_globals: tuple[str, ...] = ()
    """Names of globals that a step could change in place; they are digested again after a run."""

    @classmethod
    def plain(cls, digest: str) -> CodeVersion:
        """Return a version with only a digest, in a third of the time of the constructor: a run makes thousands."""
        version = object.__new__(cls)
        object.__setattr__(version, "digest", digest)
        return version


ReadKind: TypeAlias = Literal[
    "file", "absent", "status", "listing", "glob", "environment", "asset", "name", "given", "stream", "state"
]
LOCAL: frozenset[str] = frozenset({"name", "given", "stream"})
"""Kinds of reads from the notebook's kernel: a variable named in a text, a variable read by code in the value of an input, and the state of
a random stream."""


@dataclass(frozen=True, slots=True)
class Read:
    """One item that a step read in addition to its inputs."""

    kind: ReadKind
    name: str
    """The item, according to its kind. A file: an absolute path or pattern. The environment: a name, or ``*`` for all names. State: its
    owner (``pandas``, ``working directory``). Otherwise the key of an asset, a variable of the notebook, or a random stream."""
    digest: str = ""
    """The state of the item when it was read: a digest of content or names, keyed for the environment; the data version of an asset; or the
    attributes of a path (``folder``). Empty for a missing item."""
    stat: tuple[int, ...] = ()
    """``(size, mtime_ns, ctime_ns, inode)`` of a file. If they are the same later, the content is not read again."""
    names: tuple[str, ...] = ()
    """For explanations, the listed or matched names, if they are few. For an asset, the notebook and the store that the step
    named. For a path, the attribute that was read: kind, size, times or access."""
    own: tuple[str, ...] = ()
    """Names that do not count, because the step itself created or set them."""


@quick
@dataclass(frozen=True, slots=True)
class StoredValue:
    """The location of a stored value and the data for loading it. Stored values are immutable."""

    codec: str
    """The name of the codec that wrote it."""
    digest: str
    """Digest of the stored form, which is an executable stream and raw buffers."""
    size: int
    """Bytes of the stored form."""
    inline: bytes | None = None
    """The stored form itself if it is small."""
    object_name: str | None = None
    """The file below ``objects/`` otherwise: ``ab/<digest>.<codec>``."""
    signature: bytes | None = None
    """Signature of an inline stream that executes code when loaded; a file contains its signature."""
    type_name: str = ""
    """The type for display: ``pandas.DataFrame``."""
    summary: str = ""
    """A summary for display: ``336,776 × 19`` or ``'short repr'``."""
    classes: tuple[tuple[str, str], ...] = ()
    """Classes and functions of the notebook to which the value refers (``__main__.Point``), each with its code version when it was stored;
    and the libraries that wrote it, as a module with a version (``sklearn``, ``scikit-learn 1.9.1``)."""


Link: TypeAlias = Callable[[Any], Any]
"""When a value is stored, returns an identifier for an object, or None to store it by value. When it is loaded, returns the object."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A value in which the store replaces some objects by links."""

    value: Any
    link: Link


Verify: TypeAlias = Literal["signed", "full"]
"""The checks of a load: ``signed`` for sizes and streams that execute code, ``full`` for every byte."""

InputKind: TypeAlias = Literal["value", "order"]


@quick
@dataclass(frozen=True, slots=True)
class InputVersion:
    """The version of one input of a step at the time of the memo key."""

    name: str
    """The name of the parameter; empty for an order edge."""
    key: str
    """The key of the upstream."""
    version: str
    """The data version of the upstream; for an order edge or an upstream without a stored value, its materialization id."""
    kind: InputKind = "value"


@quick
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
    """The notebook or module that defined the key; not part of the memo key."""
    memo_key: str
    code_version: str
    data_version: str
    """The digest of the value; empty if nothing is stored (an output of type Nothing, a dropped table)."""
    value: StoredValue | None
    created: float
    """Seconds since the epoch."""
    seconds: float
    """The duration of the step's body in seconds."""
    partition: str = ""
    inputs: tuple[InputVersion, ...] = ()
    reads: tuple[Read, ...] = ()
    unverifiable: tuple[str, ...] = ()
    """Paths of objects without a digest; a materialization with any is never reused silently."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """JSON values that the step added with ``Output(metadata=)`` or its context."""
    effects: str = ""
    """`Effects` as JSON; present only for the output that stores the effects of a cell."""
    record_signature: bytes | None = None
    """Signature of a record with effects, which are restored only if a trusted key signed them."""


@quick
@dataclass(frozen=True, slots=True)
class Current:
    """The materialization that ``load``, source assets and SQL read for a key of one notebook."""

    notebook: str
    key: str
    materialization: Materialization
    partition: str = ""


ACCEPTED = "stepwell:accepted"
"""``{"on": time as text, "of": id, "run_id": id, "causes": [texts], "unverifiable": [path: reason]}``."""
REVOKED = "stepwell:revoked"
"""The run of the revoked acceptance."""


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
"""The name, among the variables of a step, of the cell's result in the shell: the value of its last expression."""

ELSEWHERE = "elsewhere"
"""Stands in place of effects that another output of the same step has."""


@dataclass(frozen=True, slots=True)
class FileEffect:
    """The state of a file or folder at the end of the step that changed it."""

    path: str
    """The path, absolute or, inside the project's folder, relative to it."""
    digest: str
    """Digest of the content; ``/`` for a folder, empty for a path that the step removed."""
    size: int = 0
    kept: bool = False
    """True if the content is stored, so that the file can be restored."""
    before: str = ""
    """Digest of the content before the step; empty if there was no file or it was too large."""
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
    """Variables without a stored value that are files, connections and the like."""

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
                [file.path, file.digest, file.size, file.kept, file.before, file.appended] for file in self.files
            ]
        if self.state:
            values["state"] = [list(setting) for setting in self.state]
        return values

    def as_text(self) -> str:
        """Return the effects as JSON."""
        return json.dumps(self.as_json(), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Effects:
        """Parse the result of `as_text`; an empty text means no effects.

        Raises
        ------
        ValueError
            If the text is not JSON.
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
    """Return the data version of a value that cannot be stored: a digest of everything from which it was computed."""
    text = repr((memo, sorted((read.kind, read.name, read.digest) for read in reads), output))
    return _PROVENANCE + blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def is_provenance(version: str) -> bool:
    """Return True if a data version comes from `provenance`: it identifies the origin of a value, not its content."""
    return version.startswith(_PROVENANCE)


def memo_key(step_key: str, code_version: str, inputs: Iterable[InputVersion]) -> str:
    """Return the memo key of a step as 32 hexadecimal digits.

    Parameters
    ----------
    inputs
        Values in the order of the parameters, and order edges in any order.
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

"""Materializations: records of the outputs of steps.

A materialization contains the code version, the inputs, the reads and the effects of the step that made it. The code version is a digest of
the code that the step can reach; a list of the parts of this code is recorded with it, to explain differences. The memo key is a digest of
the step's key, its code version, the data versions of its inputs, and the minor version of Python. For an input that has no data version or only
orders the steps, the id of the input's materialization is used. Effects are the changes that a step made to
the notebook and the project besides its value. They are restored when the step is reused, so that a reuse leaves the same state as a run.

A user can *accept* an edit that does not change the result of a step (``%why --accept``). An acceptance is a materialization with the memo key
of the edited step and the value that was stored before the edit. Rows of materializations never change, so an acceptance is revoked by adding
another row. The metadata of an acceptance have an entry whose name is the constant `ACCEPTED`; the metadata of a row that revokes an
acceptance have an entry whose name is the constant `REVOKED`.
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
    """One part of a code version: an object that the code of a step can reach, for example a function or the value of a global."""

    path: str
    """The names by which the step's code reaches the part, for example ``report.transform -> normalise``."""
    kind: CodeKind
    digest: str
    """Hexadecimal digest of this part, not including the objects to which it refers."""
    text: str | None = None
    """The text to show for the part: source code, a value, or the version of a package. None if this text would be unreadable, long or secret."""
    where: str = ""
    """The source location of the part's definition, for messages (for example ``cell 9`` or ``helpers.py:12``)."""


@dataclass(frozen=True, slots=True)
class Unverifiable:
    """An object without a digest that the code of a step can reach.

    The step is then executed in every run, with two exceptions: the user has accepted the object (``%why --accept``), or the user runs a cell that
    needs the step, and this kernel has brought the step up to date before.
    """

    path: str
    """The names by which the step's code reaches the object, for example ``target -> helper -> CONN``."""
    reason: str
    """The type of the object and why the object has no digest, for example ``sqlite3.Connection cannot be digested``."""


@dataclass(frozen=True)
class CodeVersion:
    """The code version of a step: a digest of everything that the step's code can reach, with the parts that explain a difference.

    `without_parts` sets only the attribute ``digest`` of its instance. The other fields then have their default values, because the dataclass is
    declared without ``slots=True``: the default value of a field is an attribute of the class, which Python uses if the instance has none.
    """

    digest: str
    """Hexadecimal digest. Equal code has an equal digest in every process, with every value of PYTHONHASHSEED."""
    parts: tuple[CodePart, ...] = ()
    unverifiable: tuple[Unverifiable, ...] = ()
    asset_names: tuple[tuple[str, str], ...] = ()
    """The names of assets that the code reads as globals, usually in a helper. Each name is paired with the shortest path on which the code reaches
    it.

    These assets are inputs of the step: the memo key contains the data version of the asset, not a digest of the global's value.
    """
    mutable_globals: tuple[str, ...] = ()
    """Names of the globals that the step could assign or change in place."""

    @classmethod
    def without_parts(cls, digest: str) -> CodeVersion:
        """Return a code version with the digest ``digest`` and the default values of all other fields.

        This is three times as fast as the constructor, and a run calls it thousands of times.
        """
        version = object.__new__(cls)
        object.__setattr__(version, "digest", digest)
        return version


ReadKind: TypeAlias = Literal[
    "file", "absent", "status", "listing", "glob", "environment", "asset", "name", "given", "stream", "state"
]
LOCAL: frozenset[str] = frozenset({"name", "given", "stream"})
"""The kinds of reads that can only be checked in the kernel, because they read its memory. ``name`` is a variable whose name is in a text, for
example in a query; ``given`` is a variable that code in the value of an input reads; ``stream`` is the state of a random stream."""


@dataclass(frozen=True, slots=True)
class Read:
    """One item that a step read while it ran, besides its inputs: a file, an environment variable, an option or other state."""

    kind: ReadKind
    name: str
    """The name of the item. For files, folders and patterns: the absolute path. For the environment: the name of a variable, or ``*`` for all
    variables. For state: what the state belongs to, for example ``pandas`` or ``working directory``. For other kinds: the key of an asset, or the
    name of a variable or random stream."""
    digest: str = ""
    """What the step read. For the status of a path: the values of the attributes that ``names`` states, as text (``folder``). For an asset: its data
    version. For environment variables: a digest that is keyed with the user's key. Otherwise: the digest of the content or of the listed
    names. Empty if the item was missing."""
    stat: tuple[int, ...] = ()
    """For a file: ``(size, mtime_ns, ctime_ns, inode)`` when it was read. While these are unchanged, a check does not read the file again."""
    names: tuple[str, ...] = ()
    """Details of the read. For a listing or pattern: the listed names, for explanations, if they are few. For an asset: the notebook and the store
    from which the step loaded it. For the status of a path: one word that states which attributes the step read (``kind``, ``size``,
    ``mtime``, ...), or ``access`` and a mode (``access 4``)."""
    own_names: tuple[str, ...] = ()
    """For a listing, a pattern or all environment variables: names that a check ignores, because the step itself created or set them. For a file:
    its name if the step created the file because it was missing; otherwise empty."""


@quick_init
@dataclass(frozen=True, slots=True)
class StoredValue:
    """A reference to a stored value: where it is stored, and the data that are needed to load it. Stored values never change."""

    codec: str
    """The name of the codec that encoded the value."""
    digest: str
    """Digest of the stored form, which consists of a stream and raw buffers. The stream of a pickle is executed when the value is loaded."""
    size: int
    """Size of the stored form in bytes."""
    inline: bytes | None = None
    """The stored form itself, if it is small and therefore kept in the catalog row; None if the value is in a value file."""
    object_name: str | None = None
    """The name of the value file below ``objects/``: ``ab/<digest>.<codec>``. None if the value is inline."""
    signature: bytes | None = None
    """The signature of an inline value that executes code when it is loaded. None for other inline values, and for values in value files,
    which contain their signatures."""
    type_name: str = ""
    """The type of the value for display, for example ``pandas.DataFrame``."""
    summary: str = ""
    """A summary of the value for display: its shape (``336,776 × 19``), its length or its short `repr`."""
    classes: tuple[tuple[str, str], ...] = ()
    """The code that is needed to load the value, as pairs. For a class or function of the notebook: its name (``__main__.Point``), and its code
    version when the value was stored. For a library: its top module (``sklearn``), and the distribution with the version that
    wrote the value (``scikit-learn 1.9.1``)."""


Link: TypeAlias = Callable[[Any], Any]
"""A function for the links in a value. There is one function for storing and another one for loading. When a value is stored, the first one is
called with each object in the value: it returns an identifier, which is stored as a link, or None to store the object itself. When the value is
loaded, the second one is called with the identifier of each link, and returns the object to put there."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A value that is stored with links in place of some of its objects, for example objects that belong to other variables of the notebook."""

    value: Any
    link: Link
    """The function for storing (see `Link`): it returns the identifier of an object that a link replaces, and None for any other object."""


Verify: TypeAlias = Literal["signed", "full"]
"""How a stored value is checked before it is loaded. ``full`` checks every byte. ``signed`` checks the bytes that would be executed, and checks a
whole value file only at its first load after each start of the machine, and after each change of the file."""

InputKind: TypeAlias = Literal["value", "order"]


@quick_init
@dataclass(frozen=True, slots=True)
class InputVersion:
    """One input of a step, and the version of this input when the step's memo key was computed."""

    name: str
    """The name of the parameter; empty if the input only orders the steps and passes no value."""
    key: str
    """The key of the upstream value."""
    version: str
    """The data version of the upstream value. If the value has no data version, or the input only orders the steps: the id of the upstream
    materialization."""
    kind: InputKind = "value"


@quick_init
@dataclass(frozen=True, slots=True)
class Materialization:
    """The record of one output that a step produced."""

    id: str
    """A unique identifier. The identifiers that one process creates sort by time of creation."""
    run_id: str
    key: str
    """The key of the output. It is the asset key as text; for an output inside a graph or job, the step key, followed by ``:`` and the name of
    the output if the op has several outputs."""
    step_key: str
    output: str
    """The name of the output, ``result`` by default."""
    notebook: str
    """The notebook or module that defined the key. It is not part of the memo key, so notebooks can reuse each other's values."""
    memo_key: str
    code_version: str
    data_version: str
    """The digest of the value, or of its stored form if the value itself has no digest. For a value that cannot be stored: the result of
    `provenance`, or an empty string. Also empty for an output of the type Nothing, which has no value."""
    value: StoredValue | None
    created: float
    """Time of creation in seconds since the epoch."""
    seconds: float
    """The time in seconds that the step's body took."""
    partition: str = ""
    inputs: tuple[InputVersion, ...] = ()
    reads: tuple[Read, ...] = ()
    unverifiable: tuple[str, ...] = ()
    """The objects without a digest that the step's code could reach, each as a text ``path: reason``. The documentation of `Unverifiable` says
    when a materialization with such objects is reused."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """JSON values that the step added with ``Output(metadata=...)`` or ``context.add_output_metadata``."""
    effects: str = ""
    """The effects of the step as JSON (`Effects.as_text`), or `ELSEWHERE` if the record of another output contains them; empty if there are
    none."""
    record_signature: bytes | None = None
    """The signature of this record; None if the record contains no effects. The effects are restored only if the user's key signed the record."""


@quick_init
@dataclass(frozen=True, slots=True)
class Current:
    """A pointer, which makes one materialization of a key the current one in a notebook for a partition.

    ``load``, source assets and SQL read the current materialization.
    """

    notebook: str
    key: str
    materialization: Materialization
    partition: str = ""


ACCEPTED = "stepwell:accepted"
"""The name of an entry in the metadata of an acceptance. The value of the entry is ``{"on": time as a string, "of": id of the accepted
materialization, "run_id": run id of the acceptance, "causes": [texts of the accepted differences], "unverifiable": [texts "path: reason" of the
accepted objects without a digest]}``."""
REVOKED = "stepwell:revoked"
"""The name of an entry in the metadata of a row that revokes an acceptance. The value of the entry is the run id of the acceptance."""


def acceptance(item: Materialization) -> dict[str, Any] | None:
    """Return the details of an acceptance (see `ACCEPTED`); None if ``item`` is not an acceptance."""
    details = item.metadata.get(ACCEPTED) if item.metadata else None
    return details if isinstance(details, dict) else None


def revoked_run(item: Materialization) -> str:
    """Return the run id of the acceptance that ``item`` revokes; an empty string if ``item`` revokes none."""
    return str(item.metadata.get(REVOKED, "")) if item.metadata else ""


NOTEBOOK = "notebook"
"""The name of the output that contains the effects of a cell: its value consists of variables, changed objects, written files, random
streams and settings."""

RESULT = "Out[]"
"""In lists and dictionaries of a cell's variables, the name that stands for the value of the cell's last expression."""

ELSEWHERE = "elsewhere"
"""The content of `Materialization.effects` if the step has effects, but the record of another output of the step contains them."""


@dataclass(frozen=True, slots=True)
class FileEffect:
    """An effect on a file or folder: its state after the step that changed it."""

    path: str
    """The path of the file or folder, relative to the project's folder; absolute if it is outside this folder."""
    digest: str
    """Digest of the content after the step; ``/`` for a folder; empty if the step removed the file or folder."""
    size: int = 0
    is_stored: bool = False
    """True if the content of the file is stored, so that a reuse can restore the file."""
    digest_before: str = ""
    """Digest of the content before the step; empty if the file did not exist or was too large to digest."""
    appended: bool = False
    """True if the file existed before the step, and the step opened it for appending."""


@dataclass(frozen=True, slots=True)
class Effects:
    """The effects of a step: the changes that it made to the notebook and the project besides its value."""

    values: tuple[str, ...] = ()
    """Names of the variables that the step assigned and whose values are stored."""
    unstored: tuple[str, ...] = ()
    """Names of the variables that the step assigned and whose values are not stored."""
    definitions: tuple[int, ...] = ()
    """The imports and the function and class definitions that the body executed, as indices into `CellBody.definitions`. A reuse executes
    them again."""
    deleted: tuple[str, ...] = ()
    """Names of the variables that the step deleted."""
    objects: tuple[str, ...] = ()
    """Names of the notebook's variables whose objects the step changed in place."""
    lost: tuple[str, ...] = ()
    """Names of variables, settings, databases and other things that the step changed in a way that cannot be restored."""
    files: tuple[FileEffect, ...] = ()
    streams: dict[str, str] = field(default_factory=dict)
    """Maps the name of each random stream that the step used to the digest of the stream's state after the step."""
    state: tuple[tuple[str, Any], ...] = ()
    """Settings of libraries and of the process that the step changed: pairs of the name and the new value."""
    seeded: tuple[str, ...] = ()
    """Names of the random streams that the step seeded."""
    handles: tuple[str, ...] = ()
    """Names of the variables whose values are not stored because they are files, connections or similar objects."""
    closed: tuple[str, ...] = ()
    """Those of `handles` whose files or connections the step closed."""

    def __bool__(self) -> bool:
        """Return True if the step had effects."""
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
            or self.handles
        )

    @property
    def acts(self) -> bool:
        """True if the step did more than assign variables: it changed objects, random streams, files or settings, or deleted variables."""
        return bool(self.files) or self.changes_process

    @property
    def changes_process(self) -> bool:
        """True if the step changed objects, random streams or settings, or deleted variables, so that a second run would change them again."""
        return bool(self.objects or self.streams or self.state or self.deleted)

    def as_json(self) -> dict[str, Any]:
        """Return the effects as a dictionary of JSON values, without fields that are empty."""
        values: dict[str, Any] = {}
        for name in ("values", "unstored", "definitions", "deleted", "objects", "lost", "streams", "seeded", "handles", "closed"):
            value = getattr(self, name)
            if value:
                values[name] = value
        if self.files:
            values["files"] = [
                [file.path, file.digest, file.size, file.is_stored, file.digest_before, file.appended] for file in self.files
            ]
        if self.state:
            values["state"] = [list(setting) for setting in self.state]
        return values

    def as_text(self) -> str:
        """Return the effects as JSON text."""
        return json.dumps(self.as_json(), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Effects:
        """Return the effects whose `as_text` is ``text``; no effects if ``text`` is empty.

        Raises
        ------
        ValueError
            If ``text`` is not JSON.
        """
        return cls.from_json(json.loads(text)) if text else cls()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Effects:
        """Return the effects whose `as_json` is ``values``."""
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
            tuple(values.get("closed", ())),
        )


PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""The version of Python in memo keys, for example ``3.13``."""


_PROVENANCE = "from:"


def provenance(memo: str, reads: Iterable[Read], output: str) -> str:
    """Return the data version of a value that cannot be stored: a digest of the step's memo key, its reads and the name of the output."""
    text = repr((memo, sorted((read.kind, read.name, read.digest) for read in reads), output))
    return _PROVENANCE + blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def is_provenance(version: str) -> bool:
    """Return True if `provenance` made this data version, so that it identifies how the value was computed, not the content of the value."""
    return version.startswith(_PROVENANCE)


def memo_key(step_key: str, code_version: str, inputs: Iterable[InputVersion]) -> str:
    """Return the memo key of a step as 32 hexadecimal digits.

    Parameters
    ----------
    step_key
        The key of the step.
    code_version
        The digest of the step's code version.
    inputs
        The inputs of the step. Those that pass a value must be in the order of the parameters; the others may be in any order.
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

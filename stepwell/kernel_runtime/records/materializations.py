"""Materializations: the records that a step produced values, or changed the world, for a key; and what the step read besides its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick

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
    """What was listed or matched, where that is little: for explanations. Of an asset the notebook and the store, if they were named. What
    of a path was looked at: its kind, size, times, access."""
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


InputKind: TypeAlias = Literal["value", "order"]


@quick
@dataclass(frozen=True, slots=True)
class InputVersion:
    """What one input of a step was when the step's memo key was made."""

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
    """What the step attached by ``Output(metadata=)`` or its context: JSON values."""
    effects: str = ""
    """JSON of `Effects`: what the step did beside giving its values. Only on the output that keeps what a cell left in the notebook."""
    record_signature: bytes | None = None
    """Signs the whole record where it has effects: they are restored only if a trusted key signed them."""


@quick
@dataclass(frozen=True, slots=True)
class Current:
    """Which materialization ``load``, source assets and SQL mean for a key as defined by one notebook."""

    notebook: str
    key: str
    materialization: Materialization
    partition: str = ""

"""Records of the maintenance of a store: retention rules, results of garbage collections, and offers.

An `Offer` describes the values that ``stepwell trust`` asks the user to accept. Its keys, type names and summaries were written by the author of
the values, so they may be false or malicious. Therefore no value is loaded to make an offer, and every string is escaped before it is displayed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.kernel_runtime.text import in_one_line, size_text

STORE = ""
"""The key that stands for the whole store in the retention rules."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The retention rule of a key or of the whole store. A limit that is None does not apply."""

    versions: int | None = None
    """The number of newest versions to keep for each combination of key, notebook and partition. Consecutive equal values count as one version."""
    age: float | None = None
    """The age in seconds above which a version is dropped."""
    bytes: int | None = None
    """The maximum total size in bytes of the distinct values. If the values exceed it, the oldest are dropped."""

    @property
    def empty(self) -> bool:
        """True if the rule has no limits."""
        return self.versions is None and self.age is None and self.bytes is None

    def as_dict(self) -> dict[str, Any]:
        """Return the limits by name, as in the arguments of ``keep``: ``versions``, ``age`` in seconds, and ``bytes``."""
        return {"versions": self.versions, "age": self.age, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a garbage collection: what was deleted or, in a dry run, what would be deleted."""

    dry_run: bool
    """True for a dry run, in which nothing is deleted."""
    materializations: int = 0
    """Number of materializations that the retention rules drop."""
    objects: int = 0
    """Number of value files to which no remaining materialization refers."""
    object_bytes: int = 0
    """Total size of these value files."""
    temporary: int = 0
    """Number of abandoned files and folders in ``tmp/``."""
    temporary_bytes: int = 0
    """Total size of these files and folders."""
    young: int = 0
    """Number of value files that were kept because they are new, although no materialization refers to them."""
    catalog_bytes: int = 0
    """Number of bytes by which compaction shrank the catalog; 0 if the catalog was not compacted."""
    rules: int = 0
    """Number of retention rules of the store."""

    @property
    def bytes(self) -> int:
        """The total number of bytes that were freed or, in a dry run, would be freed."""
        return self.object_bytes + self.temporary_bytes + self.catalog_bytes

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "bytes": self.bytes}

    def __str__(self) -> str:
        parts = [
            f"{count:,} {word}{'' if count == 1 else 's'}"
            for count, word in (
                (self.materializations, "version"),
                (self.objects, "value file"),
                (self.temporary, "temporary file"),
            )
            if count
        ]
        if self.catalog_bytes:
            parts.append("the catalog compacted")
        rules = "" if self.rules else " (no rule drops versions: %stepwell keep --versions 3)"
        if not parts:
            return f"gc: nothing to free{rules}"
        return f"gc: {'would free' if self.dry_run else 'freed'} {size_text(self.bytes)}: {', '.join(parts)}{rules}"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The result of forgetting a key (``stepwell forget``): what was deleted or, in a dry run, what would be deleted."""

    key: str
    dry_run: bool
    """True for a dry run, in which nothing is deleted."""
    keys: tuple[str, ...]
    """All forgotten keys: the key in the field ``key``, and the keys of the steps inside it."""
    versions: int
    """Number of materializations of these keys."""
    objects: int
    """Number of value files to which only the forgotten keys refer."""
    bytes: int
    """Total size of these value files and of the inline values of the forgotten keys."""
    shared: int
    """Number of value files that are kept because another key refers to them."""
    notebooks: tuple[str, ...] = ()
    """The notebooks and modules that defined the keys."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        inside = len(self.keys) - 1
        steps = f" and {inside:,} step{'' if inside == 1 else 's'} inside it" if inside else ""
        shared = ""
        if self.shared == 1:
            shared = "; 1 value file is kept, because another key refers to it"
        elif self.shared:
            shared = f"; {self.shared:,} value files are kept, because other keys refer to them"
        verb = "would forget" if self.dry_run else "forgot"
        return in_one_line(
            f"{verb} {self.key}{steps}: {self.versions:,} version{'' if self.versions == 1 else 's'}, {size_text(self.bytes)}"
            f" ({', '.join(self.notebooks) or 'no notebook'}){shared}. This cannot be undone."
        )


@dataclass(frozen=True, slots=True)
class KeySize:
    """The space that the values of one key use in a store."""

    key: str
    versions: int
    """Number of materializations of the key."""
    bytes: int
    """Total size of the distinct values of the key. A value that two keys share is counted for both."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a store, as the last housekeeping measured them."""

    at: float = 0.0
    """The time of the measurement in seconds since the epoch."""
    object_bytes: int = 0
    """Total size of all value files."""
    catalog_bytes: int = 0
    """Size of the catalog."""
    garbage_bytes: int = 0
    """Number of bytes that ``gc`` would free."""
    older_bytes: int = 0
    """Number of bytes that ``gc`` would free in addition to ``garbage_bytes`` if only the newest version of each key were kept."""


_SHOWN = 20
"""Maximum number of values that the text of an `Offer` lists."""


@dataclass(frozen=True, slots=True)
class OfferedValue:
    """A description of one stored value that the user is asked to trust."""

    key: str
    notebook: str
    """The notebook or module that defined the key."""
    created: float
    """The time when the value was computed, in seconds since the epoch, according to its author."""
    type_name: str
    summary: str
    size: int
    """Size of the stored form in bytes."""
    executes: bool
    """True if the value is a pickle, so that loading the value can run code."""
    signer: str
    """The fingerprint of the key with which the value was signed; empty if the value has no signature."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Descriptions of those values of a pack or a store that the user is asked to trust."""

    source: str
    """The path of the pack, or the store directory."""
    signer: str
    """For a pack: the fingerprint of the key that signed the pack. For a store: the fingerprint of the key that signed the first of the values.
    Empty if there is no such signature."""
    own: bool
    """True if the user need not confirm anything. For a pack: this user's key signed the pack and all its pickles. For a store: the offer contains
    no values."""
    values: tuple[OfferedValue, ...]

    @property
    def size(self) -> int:
        """Total size of all values in bytes."""
        return sum(value.size for value in self.values)

    @property
    def executing(self) -> int:
        """Number of values that can run code when they are loaded, because they are pickles."""
        return sum(value.executes for value in self.values)

    @property
    def counted(self) -> str:
        """The number of values as a text, for example ``3 values``."""
        return f"{len(self.values)} value{'' if len(self.values) == 1 else 's'}"

    def as_dict(self) -> dict[str, Any]:
        """Return the offer as JSON values: ``{"source", "signer", "own", "bytes", "values": [{"key", "type_name", "size", "executes", ...}]}``."""
        return {
            "source": self.source,
            "signer": self.signer,
            "own": self.own,
            "bytes": self.size,
            "values": [asdict(value) for value in self.values],
        }

    def __str__(self) -> str:
        """Return lines of text that name the source, the signing key and the values, and state how many of the values can run code."""
        signed = f"signed with the key {self.signer}" if self.signer else "not signed"
        head = f"{self.source}: {self.counted}, {size_text(self.size)}, {signed}"
        rows = [(value.key, value.type_name, value.summary, size_text(value.size)) for value in self.values[:_SHOWN]]
        shown = [tuple(map(in_one_line, row)) for row in rows]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        rest = len(self.values) - _SHOWN
        return "\n".join(
            [
                in_one_line(head),
                *("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in shown),
                *([f"  and {rest} more"] if rest > 0 else []),
                f"loading {self.executing} of these values can run code that was stored with them",
            ]
        )

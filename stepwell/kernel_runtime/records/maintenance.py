"""Records of a store's maintenance: retention rules, results of garbage collections, and offers of values from packs and stores.

The keys, type names and summaries in an `Offer` come from its author and are not trusted: no value is loaded, and every string is escaped
before display.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.kernel_runtime.text import in_one_line, size_text

STORE = ""
"""The key under which the rule for the whole store is filed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The retention rule of a key; None means no limit."""

    versions: int | None = None
    """The number of distinct values to keep, newest first, per notebook and partition."""
    age: float | None = None
    """Seconds after which a version is dropped."""
    bytes: int | None = None
    """The limit for the total bytes of all distinct values; the newest stay."""

    @property
    def empty(self) -> bool:
        """True if the rule limits nothing."""
        return self.versions is None and self.age is None and self.bytes is None

    def as_dict(self) -> dict[str, Any]:
        """Return the limits by name."""
        return {"versions": self.versions, "age": self.age, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a garbage collection, or of its dry run."""

    dry_run: bool
    materializations: int = 0
    """Rows that retention drops."""
    objects: int = 0
    """Value files to which no remaining row refers."""
    object_bytes: int = 0
    temporary: int = 0
    """Unused files and folders in ``tmp/``."""
    temporary_bytes: int = 0
    young: int = 0
    """Files to which no row refers, but which stay because they are new."""
    catalog_bytes: int = 0
    """Bytes freed by compaction."""
    rules: int = 0
    """Number of retention rules."""

    @property
    def bytes(self) -> int:
        """The total of freed bytes."""
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
    """The result of forgetting a key, or of its dry run."""

    key: str
    dry_run: bool
    keys: tuple[str, ...]
    """The key, and the keys of the steps inside it."""
    versions: int
    objects: int
    """Value files to which only the forgotten keys refer."""
    bytes: int
    shared: int
    """Value files that stay because another key refers to them."""
    notebooks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        steps = f" and {len(self.keys) - 1} steps inside it" if len(self.keys) > 1 else ""
        shared = f"; {self.shared} value files stay, other keys share them" if self.shared else ""
        verb = "would forget" if self.dry_run else "forgot"
        return in_one_line(
            f"{verb} {self.key}{steps}: {self.versions:,} version{'' if self.versions == 1 else 's'}, {size_text(self.bytes)}"
            f" ({', '.join(self.notebooks) or 'no notebook'}){shared}. This cannot be undone."
        )


@dataclass(frozen=True, slots=True)
class KeySize:
    """The space used by one key in the store."""

    key: str
    versions: int
    """Number of materializations."""
    bytes: int
    """Bytes of the distinct values; a value that two keys share counts for both."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes measured by the last housekeeping."""

    at: float = 0.0
    object_bytes: int = 0
    """Bytes of all value files."""
    catalog_bytes: int = 0
    garbage_bytes: int = 0
    """Bytes that ``gc`` would free."""
    older_bytes: int = 0
    """Further bytes that ``gc`` would free if only the newest version of each key were kept."""


_SHOWN = 20
"""The greatest number of values that a text lists."""


@dataclass(frozen=True, slots=True)
class OfferedValue:
    """One stored value that the user is asked to trust."""

    key: str
    notebook: str
    """The notebook or module that defined the key."""
    created: float
    """Time of creation in seconds since the epoch, according to the author."""
    type_name: str
    summary: str
    size: int
    """Bytes of the stored form."""
    executes: bool
    """True if the value is a pickle, so that loading it can run code."""
    signer: str
    """The fingerprint of the key that signed the value; empty if the value needs no signature."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The values of a pack or a store that the user is asked to trust."""

    source: str
    """The path of the pack, or the store directory."""
    signer: str
    """The fingerprint of the key that signed the values, or of the first key if there are several; empty if no value is signed."""
    own: bool
    """True if this user's key signed all values, so that no confirmation is needed."""
    values: tuple[OfferedValue, ...]

    @property
    def size(self) -> int:
        """The bytes of all values."""
        return sum(value.size for value in self.values)

    @property
    def executing(self) -> int:
        """Number of values that can run code when they are loaded."""
        return sum(value.executes for value in self.values)

    @property
    def counted(self) -> str:
        """The number of values for messages: ``3 values``."""
        return f"{len(self.values)} value{'' if len(self.values) == 1 else 's'}"

    def as_dict(self) -> dict[str, Any]:
        """Return ``{"source", "signer", "own", "bytes", "values": [{"key", "type_name", "size", "executes", ...}]}``."""
        return {
            "source": self.source,
            "signer": self.signer,
            "own": self.own,
            "bytes": self.size,
            "values": [asdict(value) for value in self.values],
        }

    def __str__(self) -> str:
        """Return a few lines with the signer, the values, and the risk of loading them."""
        head = (
            f"{self.source}: {self.counted}, {size_text(self.size)}, signed with the key {self.signer or 'of nobody'}"
        )
        rows = [(value.key, value.type_name, value.summary, size_text(value.size)) for value in self.values[:_SHOWN]]
        shown = [tuple(map(in_one_line, row)) for row in rows]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        rest = len(self.values) - _SHOWN
        return "\n".join(
            [
                in_one_line(head),
                *(
                    "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
                    for row in shown
                ),
                *([f"  and {rest} more"] if rest > 0 else []),
                f"loading {self.executing} of them can run code that was stored with them",
            ]
        )

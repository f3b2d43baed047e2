"""The maintenance of a store as data: rules of what is kept, what a collection frees, and what a pack or another store offers.

Keys, names of types and summaries in an `Offer` were written by its author: nothing of it is loaded, and every text is shown as foreign.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.kernel_runtime.text import age_text, in_one_line, size_text

STORE = ""
"""The key of the rule for the whole store."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The retention rule of a key; None means no limit."""

    versions: int | None = None
    """How many of the newest different values, in each notebook and partition."""
    age: float | None = None
    """Seconds after which one is dropped."""
    bytes: int | None = None
    """Bytes of all values together, each different value counted once; the newest stay."""

    @property
    def empty(self) -> bool:
        """True if it limits nothing."""
        return self.versions is None and self.age is None and self.bytes is None

    def as_dict(self) -> dict[str, Any]:
        """Return the limits by name."""
        return {"versions": self.versions, "age": self.age, "bytes": self.bytes}

    def __str__(self) -> str:
        parts = []
        if self.versions is not None:
            parts.append(f"{self.versions} version{'' if self.versions == 1 else 's'}")
        if self.age is not None:
            parts.append(f"{age_text(self.age)} long")
        if self.bytes is not None:
            parts.append(f"at most {size_text(self.bytes)}")
        return ", ".join(parts) or "everything"


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a collection, or of its dry run."""

    dry_run: bool
    materializations: int = 0
    """Rows that retention drops."""
    objects: int = 0
    """Value files that no row refers to then."""
    object_bytes: int = 0
    temporary: int = 0
    """Dead files and folders in ``tmp/``."""
    temporary_bytes: int = 0
    young: int = 0
    """Files without a row that are left alone because they are new."""
    catalog_bytes: int = 0
    """Bytes that a compaction freed."""
    rules: int = 0
    """How many retention rules there are."""

    @property
    def bytes(self) -> int:
        """Bytes that are freed."""
        return self.object_bytes + self.temporary_bytes + self.catalog_bytes

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
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
    """The key, and those of the steps inside it."""
    versions: int
    objects: int
    """Value files that nothing else refers to."""
    bytes: int
    shared: int
    """Value files that stay because another key has the same value."""
    notebooks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
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
    """The space that one key takes in the store."""

    key: str
    versions: int
    """Materializations."""
    bytes: int
    """Bytes of its different values; a value that two keys share counts for both."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes that the last housekeeping measured."""

    at: float = 0.0
    object_bytes: int = 0
    """Bytes of all value files."""
    catalog_bytes: int = 0
    garbage_bytes: int = 0
    """Bytes that ``gc`` would free."""
    older_bytes: int = 0
    """Bytes that ``gc`` would free more if only the newest version of each key were kept."""


_SHOWN = 20
"""Values that a reader is shown."""


@dataclass(frozen=True, slots=True)
class OfferedValue:
    """One stored value that would be trusted."""

    key: str
    notebook: str
    """The notebook or module that defined it."""
    created: float
    """Seconds since the epoch, by the word of who made it."""
    type_name: str
    summary: str
    size: int
    """Bytes of its stored form."""
    executes: bool
    """True if loading it can run code that was stored with it: it is a pickle."""
    signer: str
    """The key that signed it, as people compare it; empty where it needs no signature."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The values of a pack or a store that would be trusted."""

    source: str
    """The file, or the store directory."""
    signer: str
    """The key that says that it made it; of several, the first; empty for none."""
    own: bool
    """True if this user's key signed all of it: then there is nothing to ask."""
    values: tuple[OfferedValue, ...]

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(value.size for value in self.values)

    @property
    def executing(self) -> int:
        """How many values can run code when they are loaded."""
        return sum(value.executes for value in self.values)

    @property
    def counted(self) -> str:
        """How many values there are, for a reader: ``3 values``."""
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
        """Return in a few lines who made it, what is in it, and what loading it can do."""
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

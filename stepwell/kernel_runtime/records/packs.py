"""What somebody else made and a user is asked to trust: plain facts, nothing of it loaded. Every text in it is somebody else's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.kernel_runtime.text import in_one_line, size_text

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
    """Whether loading it can run code that was stored with it: it is a pickle."""
    signer: str
    """The key that signed it, as people compare it; empty where it needs no signature."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a pack or a store holds that would be trusted."""

    source: str
    """The file, or the store directory."""
    signer: str
    """The key that says that it made it; of several, the first; empty for none."""
    own: bool
    """Whether this user's key signed all of it: then there is nothing to ask."""
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

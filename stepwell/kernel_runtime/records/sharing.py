"""What somebody else made and a user is asked to trust: plain facts, nothing of it loaded."""

from __future__ import annotations

from dataclasses import dataclass


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

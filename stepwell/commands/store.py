"""``store``: the session's store directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell.commands.command import command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.text import size_text


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The result of `store`."""

    directory: str
    sizes: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"store": self.directory, "sizes": self.sizes}

    def __str__(self) -> str:
        total = size_text(self.sizes["object_bytes"] + self.sizes["catalog_bytes"])
        return f"store: {self.directory} · {self.sizes['materializations']:,} materializations · {total}"


@command(needs="nothing")
def store(path: str | None = None) -> StoreFacts:
    """Show where the session's store is and how large; or switch to another one.

    Parameters
    ----------
    path
        The directory of another store, made if it is not there.

    Raises
    ------
    StoreError
        If the store cannot be used.
    """
    session = get_session()
    used = session.use(path) if path is not None else session.store
    return StoreFacts(str(used.directory), housekeeping.sizes(used))

"""``rename``: stored versions carried over to another key."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.runs import DefinitionsChanged
from stepwell.kernel_runtime.session.history import rename_key
from stepwell.kernel_runtime.session.requests import AnyStore, key_text


@dataclass(frozen=True, slots=True)
class Renamed:
    """The result of `rename`."""

    old: str
    new: str
    versions: int
    """The number of versions that were carried over."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        name = self.new.rpartition("/")[2]
        return (
            f"{self.old} -> {self.new}: {self.versions} version{'' if self.versions == 1 else 's'} carried over; "
            f"rename the variable in its cell to {name} as well; if nothing else changes, it is not computed again"
        )


@command(options={"old": Option(completes="assets"), "new": Option(completes="assets")})
def rename(old: str, new: str, *, store: AnyStore = None) -> Renamed:
    """Carry the stored versions of an asset over to another key.

    If the cell is renamed too, with its variable and nothing else, the asset is not computed again.

    Parameters
    ----------
    old
        The asset's key.
    new
        Its new key.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Renamed
        The keys and the number of versions.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the old key.
    InvalidDefinitionError, InvalidInvocationError
        If the new key is invalid or is the old one.
    InvariantViolationError
        If the new key has results, or the old one is an output of a multi-asset.
    """
    session, before, after = get_session(), key_text(old), key_text(new)
    count = rename_key(session.open(store, create=False), before, after, session.notebook)
    session.publish(DefinitionsChanged((before, after)))
    return Renamed(before, after, count)

"""The command ``rename``, which carries the stored versions of an asset over to another key."""

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
    """The old key."""
    new: str
    """The new key."""
    versions: int
    """The number of versions that the new key has now."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        name = self.new.rpartition("/")[2]
        return (
            f"{self.old} -> {self.new}: {self.versions} version{'' if self.versions == 1 else 's'} carried over; "
            f"rename the asset and its variable in the cell to {name}, too; if nothing else changes, the asset is not computed again"
        )


@command(options={"old": Option(completes="assets"), "new": Option(completes="assets")})
def rename(old: str, new: str, *, store: AnyStore = None) -> Renamed:
    """Carry the stored versions of an asset over to another key.

    This command does not edit the notebook: rename the asset and its variable in the cell, too. If nothing else in the cell changes, the asset is
    not computed again.

    Parameters
    ----------
    old
        The present key of the asset.
    new
        The new key of the asset.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Renamed
        Both keys, and the number of versions.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the old key.
    InvalidDefinitionError
        If the new key is not a valid asset key.
    InvalidInvocationError
        If the new key equals the old key, or if the old key is the key of a step.
    InvariantViolationError
        If results are stored for the new key, if the old key belongs to a multi-asset, or if several notebooks have a value of the old key but
        the present notebook has none.
    """
    session, before, after = get_session(), key_text(old), key_text(new)
    count = rename_key(session.open(store, create=False), before, after, session.notebook)
    session.publish(DefinitionsChanged((before, after)))
    return Renamed(before, after, count)

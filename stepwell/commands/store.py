"""``store``: the session's store directory."""

from __future__ import annotations

from stepwell.commands.command import command
from stepwell.commands.status import StoreFacts
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.store import housekeeping


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

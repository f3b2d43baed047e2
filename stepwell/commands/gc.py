"""The command ``gc``, which deletes data that a store no longer needs."""

from __future__ import annotations

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.maintenance import Collected
from stepwell.kernel_runtime.records.runs import DefinitionsChanged
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store import housekeeping


@command(options={"dry_run": Option("-n")})
def gc(*, dry_run: bool = False, compact: bool = False, store: AnyStore = None) -> Collected:
    """Delete versions that exceed the limits set with `keep`, value files that no version needs, and files of dead processes.

    Files younger than an hour stay, because another process may be about to record them in the catalog. If no limit is set, no version is deleted.

    Parameters
    ----------
    dry_run
        Only report what would be deleted.
    compact
        Rewrite the catalog file without its free space. By default the file is rewritten only if it is large and consists mostly of free space.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Collected
        The numbers of versions, files and bytes that were deleted or, with `dry_run`, would be deleted.
    """
    session = get_session()
    collected = housekeeping.collect(session.open(store, create=False), dry_run=dry_run, compact=True if compact else None)
    if collected.materializations and not dry_run:
        session.publish(DefinitionsChanged(()))
    return collected

"""``gc``: garbage collection of a store."""

from __future__ import annotations

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.maintenance import Collected
from stepwell.kernel_runtime.records.runs import DefinitionsChanged
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store import housekeeping


@command(options={"dry_run": Option("-n")})
def gc(*, dry_run: bool = False, compact: bool = False, store: AnyStore = None) -> Collected:
    """Delete versions that the rules of `keep` drop, value files that no row refers to, and leftovers of dead processes.

    Parameters
    ----------
    dry_run
        Only report what would be freed.
    compact
        Rewrite the catalog without its free space, even if that is little.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Collected
        The number of versions and bytes that were, or would be, freed.
    """
    session = get_session()
    collected = housekeeping.collect(
        session.open(store, create=False), dry_run=dry_run, compact=True if compact else None
    )
    if collected.materializations and not dry_run:
        session.publish(DefinitionsChanged(()))
    return collected

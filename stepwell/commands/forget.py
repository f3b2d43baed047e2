"""The command ``forget``, which removes all versions of an asset or step from the store."""

from __future__ import annotations

from stepwell.commands.command import USAGE, Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.maintenance import Forgotten
from stepwell.kernel_runtime.records.runs import DefinitionsChanged
from stepwell.kernel_runtime.session.requests import AnyStore, Target, key_text
from stepwell.kernel_runtime.store import housekeeping


def _text(forgotten: Forgotten) -> str:
    return f"{forgotten}\nnothing was removed; add --yes to remove these versions" if forgotten.dry_run else str(forgotten)


@command(
    options={"key": Option(completes="steps"), "yes": Option("-y")},
    text=_text,
    exit_code=lambda forgotten: USAGE if forgotten.dry_run else 0,
)
def forget(key: Target, *, yes: bool = False, store: AnyStore = None) -> Forgotten:
    """Remove every version of an asset or step from the store, for all notebooks. This cannot be undone.

    For a graph-backed asset, the versions of the steps inside it are removed, too. A value file stays if a version of another key has the same
    value.

    Parameters
    ----------
    key
        An asset or step.
    yes
        Remove the versions; by default, only report which would be removed.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Forgotten
        The keys and the number of versions that were removed or, without `yes`, would be removed.

    Raises
    ------
    UnknownKeyError
        If nothing is stored for the key.
    """
    session = get_session()
    forgotten = housekeeping.forget(session.open(store, create=False), key_text(key), dry_run=not yes)
    if yes:
        session.publish(DefinitionsChanged(forgotten.keys))
    return forgotten

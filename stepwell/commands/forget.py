"""``forget``: removal of a key."""

from __future__ import annotations

from stepwell.commands.command import USAGE, Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.maintenance import Forgotten
from stepwell.kernel_runtime.records.runs import DefinitionsChanged
from stepwell.kernel_runtime.session.requests import AnyStore, Target, key_text
from stepwell.kernel_runtime.store import housekeeping


def _text(forgotten: Forgotten) -> str:
    return f"{forgotten}\nnothing was removed; add --yes to remove it" if forgotten.dry_run else str(forgotten)


@command(
    options={"key": Option(completes="steps"), "yes": Option("-y")},
    text=_text,
    exit_code=lambda forgotten: USAGE if forgotten.dry_run else 0,
)
def forget(key: Target, *, yes: bool = False, store: AnyStore = None) -> Forgotten:
    """Remove every version of an asset or step and of the steps inside it, from all notebooks. This cannot be undone.

    Values that another key shares stay.

    Parameters
    ----------
    key
        An asset or a step.
    yes
        Remove them; by default, only list what would be removed.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Forgotten
        The keys and the number of versions that were, or would be, removed.

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

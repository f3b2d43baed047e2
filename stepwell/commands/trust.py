"""``trust``: values that were signed with another key, shown and accepted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import InvalidInvocationError, StepwellWarning, TrustNeededError
from stepwell.kernel_runtime.records.maintenance import Offer
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.trust import adopt, foreign_values, import_pack, inspect_pack


def _text(offer: Offer) -> str:
    return f"trusted from now on: {offer.counted}" if offer.values else "no value was signed with another key"


@command(
    options={"what": Option(completes="steps", metavar="OUT.zip|KEY"), "yes": Option("-y")},
    text=_text,
    data=lambda offer: {**offer.as_dict(), "trusted": True},
    needs="maybe",
)
def trust(
    what: str | os.PathLike[str] | Iterable[str] = (),
    *,
    all: bool = False,  # noqa: A002 - the word that people type
    yes: bool = False,
    store: AnyStore = None,
) -> Offer:
    """Show values that were signed with another key, in a pack or in the store, and accept them: sign them with your key.

    Loading a pickle runs the code in it, so trust only people whom you would let run code on your machine. Values that were signed with your
    own key are always trusted; a team and its CI can share a key with STEPWELL_KEY_FILE.

    Parameters
    ----------
    what
        A file written by `pack`, or keys in the store.
    all
        Accept all values in the store that were signed with another key.
    yes
        Accept the values; by default, the error lists them.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Offer
        The values that are trusted now.

    Raises
    ------
    TrustNeededError
        If ``yes`` is not given and there are values that were signed with another key.
    PackError
        If the pack is damaged or unsafe; then nothing is imported.
    UnknownKeyError
        If nothing is stored under a key.
    """
    words: list[str | os.PathLike[str]] = [what] if isinstance(what, str | os.PathLike) else list(what)
    packs = [word for word in words if isinstance(word, os.PathLike) or word.endswith(".zip")]
    if bool(words) == all or (packs and len(words) > 1):
        raise InvalidInvocationError(
            "trust takes one file written by `stepwell pack`, or keys in the store, or --all",
            remedy='for example: stepwell trust out.zip, or stepwell.trust("out.zip")',
        )
    session = get_session()
    path = _pack_path(words[0]) if len(words) == 1 else None
    if path is not None:
        # Inspect the pack before a store is created for it.
        offer = inspect_pack(path, Signer())
        if not (yes or offer.own):
            raise _trust_needed(offer)
        return import_pack(session.open(store), path)
    used = session.open(store, create=False)
    foreign = foreign_values(used, [str(word) for word in words] or None)
    if not foreign.offer.own:
        if not yes:
            raise _trust_needed(foreign.offer)
        for key in adopt(used, foreign):
            warnings.warn(f"the value of {key} is damaged and was not accepted", StepwellWarning, stacklevel=2)
    return foreign.offer


def _pack_path(word: str | os.PathLike[str]) -> Path | None:
    """Return the path of a pack; None for a key. Any existing file with a suffix is treated as a pack, because this leads to a clearer error than an
    unknown key.
    """
    if isinstance(word, os.PathLike) or word.endswith(".zip"):
        return Path(word)
    return Path(word) if Path(word).suffix and Path(word).is_file() else None


def _trust_needed(offer: Offer) -> TrustNeededError:
    """Return the error that lists the values to be trusted."""
    count = len(offer.values)
    error = TrustNeededError(
        f"{count} value{'' if count == 1 else 's'} in {offer.source} {'is' if count == 1 else 'are'} signed with another key "
        f"({offer.signer}); loading {offer.executing} of them can run code",
        where=", ".join(dict.fromkeys(value.key for value in offer.values[:8])),
        remedy="if you trust its author: yes=True (on the command line --yes)",
    )
    error.offer = offer
    return error

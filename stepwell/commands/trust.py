"""The command ``trust``, which shows values that were signed with another person's key, and accepts them."""

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
    """Show values that were signed with another person's key, in a pack or in the store, and accept them: sign them with your key.

    Loading a pickle can run any code of its author, so accept values only from people whom you would let run code on your machine. Values that
    your key signed are always trusted. A team and its CI can share one key with STEPWELL_KEY_FILE.

    Parameters
    ----------
    what
        The path of a pack, or keys in the store. The values of a pack are imported into the store when they are accepted.
    all
        Select all values in the store that were signed with another key; no pack or key is passed then.
    yes
        Accept the selected values. Otherwise, if any of them was signed with another key, nothing is accepted and an error lists these values.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Offer
        The values that are trusted now. For keys or `all`, the offer is empty if none of the selected values was signed with another key.

    Raises
    ------
    TrustNeededError
        If `yes` is False and at least one value was signed with another key.
    PackError
        If the pack is damaged or unsafe; nothing is imported.
    UnknownKeyError
        If nothing is stored under one of the keys.
    InvalidInvocationError
        If not exactly one of these is passed: one pack, keys, or ``all=True``.
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
    """Return the path of a pack, or None if the argument of `trust` is a key.

    Any existing file with a suffix is treated as a pack, because the error "is not a pack" is clearer than the error for an unknown key.
    """
    if isinstance(word, os.PathLike) or word.endswith(".zip"):
        return Path(word)
    return Path(word) if Path(word).suffix and Path(word).is_file() else None


def _trust_needed(offer: Offer) -> TrustNeededError:
    """Return the error that lists the values in `offer`, which the user must accept or refuse."""
    count = len(offer.values)
    error = TrustNeededError(
        f"{count} value{'' if count == 1 else 's'} in {offer.source} {'is' if count == 1 else 'are'} signed with another key "
        f"({offer.signer}); loading {offer.executing} of them can run code",
        where=", ".join(dict.fromkeys(value.key for value in offer.values[:8])),
        remedy="if you trust the author of the values, pass yes=True (on the command line: --yes)",
    )
    error.offer = offer
    return error

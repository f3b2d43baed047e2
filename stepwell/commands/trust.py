"""``trust``: values that another key signed, taken over."""

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
    return f"trusted from now on: {offer.counted}" if offer.values else "there is nothing that another key signed"


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
    """Show values that another key signed, in a pack or in the store, and take them over: they are signed with your own key then.

    Loading a pickle runs the code that is stored in it, so trust only a person whom you would let run code on your machine. Values that your
    own key signed (a team and its CI can share one: STEPWELL_KEY_FILE) need no question.

    Parameters
    ----------
    what
        A file of `pack`, or keys in the store.
    all
        Everything in the store that another key signed.
    yes
        Take it over; without, the error shows what there is.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    TrustNeededError
        If ``yes`` is not given and another key signed something.
    PackError
        If the pack is damaged or unsafe; nothing is imported then.
    UnknownKeyError
        If nothing is stored under a key.
    """
    words: list[str | os.PathLike[str]] = [what] if isinstance(what, str | os.PathLike) else list(what)
    packs = [word for word in words if isinstance(word, os.PathLike) or word.endswith(".zip")]
    if bool(words) == all or (packs and len(words) > 1):
        raise InvalidInvocationError(
            "trust takes one file of `stepwell pack`, or keys in the store, or --all",
            remedy='for example: stepwell trust out.zip, or stepwell.trust("out.zip")',
        )
    session = get_session()
    path = _pack_path(words[0]) if len(words) == 1 else None
    if path is not None:
        # The pack is examined before a store is made for it.
        offer = inspect_pack(path, Signer())
        if not (yes or offer.own):
            raise _needed(offer)
        return import_pack(session.open(store), path)
    used = session.open(store, create=False)
    foreign = foreign_values(used, [str(word) for word in words] or None)
    if not foreign.offer.own:
        if not yes:
            raise _needed(foreign.offer)
        for key in adopt(used, foreign):
            warnings.warn(f"{key} is damaged and was left alone", StepwellWarning, stacklevel=2)
    return foreign.offer


def _pack_path(word: str | os.PathLike[str]) -> Path | None:
    """Return the path of a pack; None for a key. Another existing file is reported as no pack, not as an unknown key."""
    if isinstance(word, os.PathLike) or word.endswith(".zip"):
        return Path(word)
    return Path(word) if Path(word).suffix and Path(word).is_file() else None


def _needed(offer: Offer) -> TrustNeededError:
    """Return the error that lists the values which would be trusted."""
    count = len(offer.values)
    error = TrustNeededError(
        f"{count} value{'' if count == 1 else 's'} in {offer.source} {'is' if count == 1 else 'are'} signed with another key "
        f"({offer.signer}); loading {offer.executing} of them can run code",
        where=", ".join(dict.fromkeys(value.key for value in offer.values[:8])),
        remedy="if you trust who made that: yes=True (on the command line --yes)",
    )
    error.offer = offer
    return error

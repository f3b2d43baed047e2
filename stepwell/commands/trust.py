"""``trust``: values that another key signed, taken over."""

from __future__ import annotations

import os
from collections.abc import Iterable

from stepwell.commands.command import Option, command
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.records.maintenance import Offer
from stepwell.kernel_runtime.session import sharing
from stepwell.kernel_runtime.session.requests import AnyStore


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
    if not words:
        return sharing.trust(None, store=store, yes=yes)
    return sharing.trust(words[0] if len(words) == 1 else [str(word) for word in words], store=store, yes=yes)

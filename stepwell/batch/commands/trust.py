"""``stepwell trust``: look at what somebody else made, and take it over."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stepwell.batch.arguments import NOT_TRUSTED, OK, Commands, add_json, add_store, named_directory, print_result, say
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.records.packs import Offer
from stepwell.kernel_runtime.text import as_json

_TRUST = """\
Show what is in a file of `stepwell pack`, or what in the store another key signed, and take it over: it is signed with your own key
then, and counts like what you computed. Loading a pickle runs what is stored in it, so trust only whom you would let run code here.
What your own key signed (a team and its CI can share one: STEPWELL_KEY_FILE) is taken over without a question.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    trust = commands.add_parser(
        "trust", help="take over values that somebody else stored", description=_TRUST, allow_abbrev=False
    )
    trust.add_argument("what", metavar="OUT.zip|KEY", nargs="*", help="a file of `stepwell pack`, or keys in the store")
    trust.add_argument("--all", action="store_true", help="everything in the store that another key signed")
    trust.add_argument("-y", "--yes", action="store_true", help="take it over without asking")
    add_store(trust)
    add_json(trust)
    trust.set_defaults(command=_trust)


def _trust(asked: argparse.Namespace) -> int:
    from stepwell.kernel_runtime.store.store import open_store

    packs = [word for word in asked.what if word.endswith(".zip")]
    if bool(asked.what) == asked.all or (packs and len(asked.what) > 1):
        raise InvalidInvocationError(
            "stepwell trust takes one file of `stepwell pack`, or keys in the store, or --all",
            remedy="for example: stepwell trust out.zip",
        )
    directory, named = named_directory(asked)
    if not packs:
        store = open_store(directory, create=False, follow=named)
        try:
            given = store.foreign(None if asked.all else asked.what)
            accepted = given.offer.own or _agreed(given.offer, asked)
            damaged = store.adopt(given) if accepted and not given.offer.own else []
        finally:
            store.close()
        for key in damaged:
            say(f"{key} is damaged and was left alone")
        return _told(given.offer, accepted=accepted, asked=asked)
    from stepwell.kernel_runtime.store.signing import Signer
    from stepwell.kernel_runtime.store.trust import inspect_pack

    # Looked at before a store is made for it.
    offer = inspect_pack(Path(packs[0]), Signer())
    accepted = offer.own or _agreed(offer, asked)
    if accepted:
        store = open_store(directory, follow=named)
        try:
            offer = store.import_pack(Path(packs[0]))
        finally:
            store.close()
    return _told(offer, accepted=accepted, asked=asked)


def _agreed(offer: Offer, asked: argparse.Namespace) -> bool:
    if not asked.json:
        for line in str(offer).splitlines():
            say(line)
    if asked.yes:
        return True
    if asked.json or not sys.stdin.isatty():
        return False
    sys.stderr.write("Do you trust who made this? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _told(offer: Offer, *, accepted: bool, asked: argparse.Namespace) -> int:
    if asked.json:
        print_result(as_json({**offer.as_dict(), "trusted": accepted}, indent=2))
    elif not offer.values:
        say("there is nothing that another key signed")
    elif accepted:
        say(f"trusted from now on: {offer.counted}")
    else:
        say("nothing was taken over: --yes says that you trust it")
    return OK if accepted else NOT_TRUSTED

"""``%stepwell pack | trust``: stored values for somebody else, and from somebody else."""

from __future__ import annotations

from collections.abc import Sequence

from IPython.core.error import UsageError

from stepwell.kernel_runtime.records.events import DefinitionsChanged
from stepwell.kernel_runtime.session import sharing
from stepwell.kernel_runtime.text import in_one_line, size_text
from stepwell.magics.face import Face
from stepwell.magics.lines import say
from stepwell.magics.time_commands import LineParser


def pack(face: Face, words: Sequence[str]) -> None:
    """Write stored values into one file."""
    parser = LineParser("pack")
    parser.add_argument("selection", nargs="+", metavar="SELECTION")
    parser.add_argument("output", metavar="OUT.zip")
    asked = parser.parse_args(words)
    offer = sharing.pack(asked.selection, asked.output, store=face.session.store)
    say(in_one_line(f"{offer.source}: {offer.counted}, {size_text(offer.size)}, signed with the key {offer.signer}"))


def trust(face: Face, words: Sequence[str]) -> None:
    """Show what another key signed; with ``--yes`` take it over."""
    parser = LineParser("trust")
    parser.add_argument("what", nargs="*", metavar="OUT.zip|KEY")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("-y", "--yes", action="store_true")
    asked = parser.parse_args(words)
    packs = [word for word in asked.what if word.endswith(".zip")]
    if bool(asked.what) == asked.all or (packs and len(asked.what) > 1):
        raise UsageError("%stepwell trust takes one file of `stepwell pack`, or keys in the store, or --all")
    store = face.session.store
    what = packs[0] if packs else asked.what or None
    offer = sharing.offered(what, store=store)
    if not offer.values:
        say("there is nothing that another key signed")
        return
    if not (asked.yes or offer.own):
        say(str(offer))
        say("nothing was taken over: --yes says that you trust who made it")
        return
    sharing.trust(what, store=store, yes=True)
    face.session.publish(DefinitionsChanged(()))
    say(f"trusted from now on: {offer.counted}")

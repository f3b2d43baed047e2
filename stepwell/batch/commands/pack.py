"""``stepwell pack``: write stored values into one file for somebody else."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, Commands, add_json, add_store, named_store, print_result, say
from stepwell.kernel_runtime.text import as_json, in_one_line, size_text

_PACK = """\
Write what is current for a selection into one file: the values, their records and their code; no key, no run history, nothing
of the environment. Who gets it looks at it and takes it over with: stepwell trust out.zip
"""


def add(commands: Commands) -> None:
    """Add the command."""
    pack = commands.add_parser("pack", help="write stored values into one file", description=_PACK, allow_abbrev=False)
    pack.add_argument(
        "selection",
        metavar="SELECTION",
        nargs="+",
        help='keys, or selections of what is stored: "*model" with all upstream',
    )
    pack.add_argument("output", metavar="OUT.zip", help="the file to write")
    add_store(pack)
    add_json(pack)
    pack.set_defaults(command=_pack)


def _pack(asked: argparse.Namespace) -> int:
    from stepwell.kernel_runtime.session.sharing import pack

    with named_store(asked) as store:
        offer = pack(asked.selection, asked.output, store=store)
    if asked.json:
        print_result(as_json(offer.as_dict(), indent=2))
    else:
        say(f"packed {offer.counted}, {size_text(offer.size)}, signed with the key {offer.signer}")
        print_result(in_one_line(offer.source))
    return OK

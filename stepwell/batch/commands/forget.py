"""``stepwell forget``: remove a key."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, USAGE, Commands, add_json, add_store, named_store, print_result, say
from stepwell.kernel_runtime.text import as_json


def add(commands: Commands) -> None:
    """Add the command."""
    forget = commands.add_parser(
        "forget",
        help="remove every version of a key; not to be undone",
        description="Remove every version of a key, of all notebooks, with the steps inside it. Values that another key has too stay. Not to be undone.",
        allow_abbrev=False,
    )
    forget.add_argument("key", metavar="KEY", help="an asset or a step")
    forget.add_argument("--yes", action="store_true", help="do it; without, it is only told what would be freed")
    add_store(forget)
    add_json(forget)
    forget.set_defaults(command=_forget)


def _forget(asked: argparse.Namespace) -> int:
    with named_store(asked) as store:
        found = store.forget(asked.key, dry_run=not asked.yes)
        print_result(as_json(found.as_dict(), indent=2) if asked.json else str(found))
    if not asked.yes:
        say("nothing was removed: give --yes to do it")
        return USAGE
    return OK

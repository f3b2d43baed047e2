"""``stepwell gc``: free what nothing needs."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, Commands, add_json, add_store, named_store, print_result
from stepwell.kernel_runtime.text import as_json


def add(commands: Commands) -> None:
    """Add the command."""
    gc = commands.add_parser(
        "gc",
        help="free what the rules of `keep` drop, and what nothing refers to",
        description="Delete versions that the rules of `stepwell keep` drop, value files that no row refers to, and what dead processes left behind.",
        allow_abbrev=False,
    )
    gc.add_argument("-n", "--dry-run", action="store_true", help="only tell what would be freed")
    gc.add_argument(
        "--compact", action="store_true", help="write the catalog anew, without the room that deleted rows left in it"
    )
    add_store(gc)
    add_json(gc)
    gc.set_defaults(command=_gc)


def _gc(asked: argparse.Namespace) -> int:
    with named_store(asked) as store:
        found = store.collect(dry_run=asked.dry_run, compact=True if asked.compact else None)
        print_result(
            as_json({"store": str(store.directory), **found.as_dict()}, indent=2) if asked.json else str(found)
        )
    return OK

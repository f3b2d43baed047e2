"""``stepwell runs``: the newest runs of a store."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, Commands, add_json, add_store, count, named_store, print_result


def add(commands: Commands) -> None:
    """Add the command."""
    runs = commands.add_parser("runs", help="list the newest runs", allow_abbrev=False)
    add_store(runs)
    runs.add_argument("--limit", metavar="N", type=count, default=20, help="how many (default: 20)")
    add_json(runs)
    runs.set_defaults(command=_runs)


def _runs(asked: argparse.Namespace) -> int:
    from stepwell.batch.listing import runs_as_json, runs_lines

    with named_store(asked) as store:
        for line in (runs_as_json if asked.json else runs_lines)(store, limit=asked.limit):
            print_result(line)
    return OK

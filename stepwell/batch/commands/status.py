"""``stepwell status``: what a store holds."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, Commands, add_json, add_store, named_store, print_result


def add(commands: Commands) -> None:
    """Add the command."""
    status = commands.add_parser("status", help="list what a store holds", allow_abbrev=False)
    add_store(status)
    status.add_argument("--sizes", action="store_true", help="list what each key takes, the largest first")
    add_json(status)
    status.set_defaults(command=_status)


def _status(asked: argparse.Namespace) -> int:
    from stepwell.batch.listing import current_as_json, current_lines, sizes_as_json, sizes_lines

    if asked.sizes:
        current_as_json, current_lines = sizes_as_json, sizes_lines
    with named_store(asked) as store:
        for line in (current_as_json if asked.json else current_lines)(store):
            print_result(line)
    return OK

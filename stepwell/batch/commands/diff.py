"""``stepwell diff``: how two versions of a key differ."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, Commands, add_json, add_store, named_directory, print_result
from stepwell.kernel_runtime.text import as_json


def add(commands: Commands) -> None:
    """Add the command."""
    diff = commands.add_parser("diff", help="show how two versions of a key differ", allow_abbrev=False)
    diff.add_argument("key", metavar="KEY", help="an asset or a step")
    diff.add_argument(
        "before",
        metavar="A",
        nargs="?",
        help="a version: -2, an identifier, or a time (default: the last different one)",
    )
    diff.add_argument("after", metavar="B", nargs="?", help="a version (default: the newest)")
    diff.add_argument(
        "--on", metavar="COLUMN,...", help="the columns that rows of frames are matched by; empty for their position"
    )
    diff.add_argument(
        "--memory",
        metavar="SIZE",
        default="2GB",
        help="memory that a comparison may use before it spills (default: 2GB)",
    )
    add_store(diff)
    add_json(diff)
    diff.set_defaults(command=_diff)


def _diff(asked: argparse.Namespace) -> int:
    from stepwell.kernel_runtime.session import get_session

    directory, named = named_directory(asked)
    session = get_session()
    store = session.open(directory, create=False, follow=named)
    on = None if asked.on is None else [name for name in asked.on.split(",") if name]
    found = session.diff(asked.key, asked.before, asked.after, on=on, memory_limit=asked.memory, store=store)
    print_result(as_json(found.as_dict(), indent=2) if asked.json else str(found))
    return OK

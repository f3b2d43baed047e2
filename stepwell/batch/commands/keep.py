"""``stepwell keep``: rules of what is kept."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, Commands, add_json, add_store, named_store, print_result
from stepwell.kernel_runtime.text import as_json


def add(commands: Commands) -> None:
    """Add the command."""
    keep = commands.add_parser(
        "keep",
        help="show or set how much of a key, or of the whole store, is kept",
        description="Nothing is dropped without a rule. What is current, and the newest version of a key, always stays. Rules are applied by `stepwell gc`, and at most once an hour after a run.",
        allow_abbrev=False,
    )
    keep.add_argument("key", metavar="KEY", nargs="?", default="", help="an asset or a step (default: the whole store)")
    keep.add_argument(
        "--versions", metavar="N", help="the newest different values that are kept, for each notebook and partition"
    )
    keep.add_argument("--age", metavar="30d", help="how old a version becomes")
    keep.add_argument("--bytes", metavar="10GB", help="how much all values together take")
    keep.add_argument("--forever", action="store_true", help="take the rule back")
    add_store(keep)
    add_json(keep)
    keep.set_defaults(command=_keep)


def _keep(asked: argparse.Namespace) -> int:
    from stepwell.kernel_runtime.session.retaining import set_rule

    with named_store(asked) as store:
        rules = set_rule(
            store, asked.key, versions=asked.versions, age=asked.age, size=asked.bytes, forever=asked.forever
        )
        if asked.json:
            found = {key: rule.as_dict() for key, rule in rules.items()}
            print_result(as_json({"store": str(store.directory), "rules": found}, indent=2))
        else:
            lines = [f"{key or 'the whole store'}: {rule}" for key, rule in rules.items()]
            print_result("\n".join(lines) or "everything is kept: no rule drops anything")
    return OK

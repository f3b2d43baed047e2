"""``stepwell versions``: the versions of a key."""

from __future__ import annotations

import argparse

from stepwell.batch.arguments import OK, Commands, add_json, add_store, named_store, print_result
from stepwell.kernel_runtime.text import as_json


def add(commands: Commands) -> None:
    """Add the command."""
    versions = commands.add_parser("versions", help="list the versions of a key", allow_abbrev=False)
    versions.add_argument("key", metavar="KEY", help="an asset or a step")
    versions.add_argument("--all", action="store_true", help="list neighbours with the same value one by one")
    add_store(versions)
    add_json(versions)
    versions.set_defaults(command=_versions)


def _versions(asked: argparse.Namespace) -> int:
    from stepwell.kernel_runtime.session.history import read_versions

    with named_store(asked) as store:
        found = read_versions(store, asked.key, collapse=not asked.all)
        if asked.json:
            versions = [version.as_dict() for version in found]
            print_result(as_json({"store": str(store.directory), "key": asked.key, "versions": versions}, indent=2))
        else:
            print_result(str(found))
    return OK

"""``%stepwell versions | diff | rename | forget``: what a key was, and what becomes of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from IPython.core.error import UsageError

from stepwell.magics.face import Face
from stepwell.magics.lines import say

_MOST = 20


class LineParser(argparse.ArgumentParser):
    """Reads the words of a command; what is wrong is one line."""

    def __init__(self, command: str, **options: Any) -> None:
        super().__init__(prog=f"%stepwell {command}", add_help=False, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the error of a wrong line."""
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise UsageError(f"{message}; {usage}")


def versions(face: Face, words: Sequence[str]) -> None:
    """List the versions of a key, newest first."""
    parser = LineParser("versions")
    parser.add_argument("key")
    parser.add_argument("-a", "--all", action="store_true")
    asked = parser.parse_args(words)
    found = face.session.versions(asked.key, collapse=not asked.all)
    for version in found if asked.all else found[:_MOST]:
        say(str(version))
    if len(found) > _MOST and not asked.all:
        say(f"and {len(found) - _MOST:,} older: %stepwell versions {asked.key} -a")


def diff(face: Face, words: Sequence[str]) -> None:
    """Show how two versions of a key differ."""
    parser = LineParser("diff")
    parser.add_argument("key")
    parser.add_argument("before", nargs="?", metavar="A")
    parser.add_argument("after", nargs="?", metavar="B")
    parser.add_argument("--on", metavar="COLUMN,...")
    parser.add_argument("--memory", default=None, metavar="SIZE")
    asked = parser.parse_args(words)
    options: dict[str, Any] = {}
    if asked.on is not None:
        options["on"] = [name for name in asked.on.split(",") if name]
    if asked.memory is not None:
        options["memory_limit"] = asked.memory
    found = face.session.diff(asked.key, asked.before, asked.after, **options)
    from IPython.display import display

    display(found)  # type: ignore[no-untyped-call]


def rename(face: Face, words: Sequence[str]) -> None:
    """Carry what is stored for a key over to another."""
    parser = LineParser("rename")
    parser.add_argument("old")
    parser.add_argument("new")
    asked = parser.parse_args(words)
    count = face.session.rename(asked.old, asked.new)
    name = asked.new.rpartition("/")[2]
    say(
        f"{asked.old} -> {asked.new}: {count} version{'' if count == 1 else 's'} carried over; "
        f"in its cell, rename the variable to {name} as well and change nothing else: it is not computed again"
    )


def forget(face: Face, words: Sequence[str]) -> None:
    """Remove every version of a key."""
    parser = LineParser("forget")
    parser.add_argument("key")
    parser.add_argument("-y", "--yes", action="store_true")
    asked = parser.parse_args(words)
    say(str(face.session.forget(asked.key, dry_run=not asked.yes)))
    if not asked.yes:
        say(f"to do it: %stepwell forget {asked.key} --yes")

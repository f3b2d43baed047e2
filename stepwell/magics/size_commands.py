"""``%stepwell keep | gc``, and the sizes of ``%stepwell status --sizes``: how much is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepwell.kernel_runtime.text import size_text
from stepwell.magics.face import Face
from stepwell.magics.lines import say
from stepwell.magics.time_commands import LineParser


def keep(face: Face, words: Sequence[str]) -> None:
    """Show or set what is kept of a key, or of the whole store."""
    parser = LineParser("keep")
    parser.add_argument("key", nargs="?", default="")
    parser.add_argument("--versions", metavar="N")
    parser.add_argument("--age", metavar="30d")
    parser.add_argument("--bytes", metavar="10GB")
    parser.add_argument("--forever", action="store_true")
    asked = parser.parse_args(words)
    rules = face.session.keep(
        asked.key, versions=asked.versions, age=asked.age, bytes=asked.bytes, forever=asked.forever
    )
    for line in rule_lines(rules):
        say(line)


def rule_lines(rules: Mapping[str, Any]) -> list[str]:
    """Return one line a rule."""
    if not rules:
        return ["everything is kept: no rule drops anything"]
    return [f"{key or 'the whole store'}: {rule}" for key, rule in rules.items()]


def gc(face: Face, words: Sequence[str]) -> None:
    """Free what nothing needs."""
    parser = LineParser("gc")
    parser.add_argument("-n", "--dry-run", action="store_true")
    parser.add_argument("--compact", action="store_true")
    asked = parser.parse_args(words)
    say(str(face.session.gc(dry_run=asked.dry_run, compact=True if asked.compact else None)))


def say_sizes(face: Face, most: int = 20) -> None:
    """Say what each key takes, the largest first."""
    found = face.session.store.key_sizes()
    width = max((len(each.key) for each in found[:most]), default=0)
    for each in found[:most]:
        say(
            f"{each.key.ljust(width)}  {size_text(each.bytes)} · {each.versions:,} version{'' if each.versions == 1 else 's'}"
        )
    if len(found) > most:
        say(f"and {len(found) - most:,} more keys: {size_text(sum(each.bytes for each in found[most:]))}")

"""Texts that came with data, for a terminal: what somebody else stored must not move the cursor or reverse a line."""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]")


def printable(text: str) -> str:
    r"""Return a text with control characters and changes of direction written out (``\x1b``); its lines stay lines."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text) if _UNSAFE.search(text) else text


def in_one_line(text: str) -> str:
    r"""Return a text as `printable` does, its line breaks and tabs written out too (``\n``)."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")

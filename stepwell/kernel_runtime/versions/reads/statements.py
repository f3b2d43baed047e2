"""The files that a statement of SQL names.

Only literals are looked at. One counts if it names something that is there, or stands where DuckDB expects a file: after FROM, JOIN or
ATTACH, or inside a reading function. A function that is given no literal reads what cannot be told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stepwell.kernel_runtime.versions.reads.listings import has_magic, matches

_PIECES = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<text>'(?:[^']|'')*')|(?P<name>\"(?:[^\"]|\"\")*\")|\$\$(?P<dollars>.*?)\$\$", re.DOTALL
)
_FILE_FUNCTION = re.compile(
    r"\b(?:read_\w+|\w+_scan|sniff_csv|parquet_(?:metadata|schema|file_metadata|kv_metadata)|glob)\s*\(", re.IGNORECASE
)
_INSIDE = re.compile(_FILE_FUNCTION.pattern + r"[^(){}]*$", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(r"\b(?:from|join)\s*$|\b(?:from|join)\b[^()]*,\s*$", re.IGNORECASE | re.DOTALL)
_ATTACHED = re.compile(r"\battach\s+(?:database\s+)?(?:if\s+not\s+exists\s+)?$", re.IGNORECASE)
_WRITTEN = re.compile(r"\bto\s*$|\bexport\s+database\s*$", re.IGNORECASE)
_OPTION = re.compile(r"(?:=>?|:=|:)\s*\[?\s*$")
_BLANK = "\0"


@dataclass(slots=True)
class Named:
    """What a statement names."""

    read: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)
    untold: bool = False
    """Whether a reading function is given no literal."""


def files_named(text: str, parameters: Any = None) -> Named:
    """Return the files that a statement reads, writes and attaches.

    Parameters
    ----------
    parameters
        Values of its parameters: those that name a file count.
    """
    found = Named()
    before = ""
    end = 0
    for piece in _PIECES.finditer(text):
        before = f"{before}{text[end : piece.start()]}"
        end = piece.end()
        literal = _literal(piece)
        if literal is None:
            continue
        if _WRITTEN.search(before):
            found.written.append(literal)
        elif _ATTACHED.search(before):
            found.attached.append(literal)
        elif _OPTION.search(before):
            pass
        elif (piece["text"] is not None and (_AFTER.search(before) or _INSIDE.search(before))) or _is_there(literal):
            found.read.append(literal)
        before += _BLANK
    given = [
        value for value in _values(parameters) if isinstance(value, (str, os.PathLike)) and _is_there(os.fspath(value))
    ]
    found.read += [os.fspath(value) for value in given]
    found.untold = not found.read and _FILE_FUNCTION.search(before + text[end:]) is not None
    return found


def _literal(piece: re.Match[str]) -> str | None:
    if piece["text"] is not None:
        return piece["text"][1:-1].replace("''", "'")
    if piece["name"] is not None:
        return piece["name"][1:-1].replace('""', '"')
    return piece["dollars"]


def _is_there(literal: str) -> bool:
    if not 0 < len(literal) < 4096 or "\n" in literal or "\0" in literal:
        return False
    if os.path.isfile(literal):  # noqa: PTH113 - quicker
        return True
    return has_magic(literal) and os.sep in literal and bool(matches(os.path.abspath(literal)))  # noqa: PTH100 - quicker


def _values(parameters: Any) -> Iterable[Any]:
    if isinstance(parameters, dict):
        return parameters.values()
    return parameters if isinstance(parameters, (list, tuple)) else ()

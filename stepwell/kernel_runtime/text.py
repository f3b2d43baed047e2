r"""Text for display: functions that escape unsafe characters, and functions that format durations, ages, times and sizes.

A string in a store can come from another person. Shown unchanged, it could move the cursor of a terminal, hide text, or reverse
its direction.
Therefore every front end escapes strings before it shows them. The functions are:

- `printable` for lines and messages;
- `in_one_line` for the fields of tables;
- `as_json` for JSON, and `as_html` for HTML;
- `coloured` for text that may keep its colours: text in a terminal, and the recorded output of a step. (If the record of a step is signed with
  the user's key, its output is shown unchanged.)

These characters are unsafe: control characters (C1, and C0 except line breaks and tabs), characters that change the text direction, zero-width
characters, and lone surrogates. They are replaced by escapes such as ``\x1b`` and ``\u202e``.
"""

from __future__ import annotations

import html
import json
import re
import time
from typing import Any

_INVISIBLE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Unicode's format characters, line and paragraph separators, and fillers without a width.
    r"\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""The number of seconds in each unit of an age such as ``1d12h``."""
_UNSAFE = re.compile(f"[{_INVISIBLE}]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_UNCOLOURED = re.compile(rf"(\x1b\[[0-9;:]*m)|[{_INVISIBLE}]")


def printable(text: str) -> str:
    r"""Return `text` with control, direction-changing and invisible characters replaced by escapes such as ``\x1b``. Line breaks and tabs stay."""
    return _UNSAFE.sub(_escaped, text) if _UNSAFE.search(text) else text


def in_one_line(text: str) -> str:
    r"""Return the result of `printable` for `text`, with line breaks and tabs also replaced by escapes: ``\n`` and ``\t``."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def coloured(text: str) -> str:
    """Return the result of `printable` for `text`, but keep its ANSI colours. If there are any, a reset of the colours is added at the end."""
    shown = _UNCOLOURED.sub(lambda match: match[1] or _escaped(match), text)
    return f"{shown}\x1b[0m" if _COLOUR.search(shown) else shown


def signer_text(fingerprint: str) -> str:
    """Return a text about a value that is not signed with this user's key: ``signed with another key (3f2a-90b1-77c4-0d1e)`` or ``not signed``.

    Parameters
    ----------
    fingerprint
        The fingerprint of the key that signed the value; empty if the value has no signature.
    """
    return f"signed with another key ({fingerprint})" if fingerprint else "not signed"


def without_colours(text: str) -> str:
    """Return `text` without its ANSI colours."""
    return _COLOUR.sub("", text)


def as_html(text: object) -> str:
    """Return the string form of `text` as HTML, with the escapes of `printable` and of HTML (``&lt;``)."""
    return html.escape(printable(str(text)))


def as_json(value: Any, *, indent: int | None = None) -> str:
    r"""Return `value` as JSON. Characters that `printable` replaces are written as JSON escapes (``\u202e``), which a JSON parser decodes.

    `indent` is passed to `json.dumps`: the number of spaces for each level, or None for JSON in one line.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNSAFE.sub(_json_escaped, text) if _UNSAFE.search(text) else text


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


def _json_escaped(match: re.Match[str]) -> str:
    # `json.dumps` does not escape DEL.
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"


def duration(seconds: float) -> str:
    """Return a duration as rounded text, for example ``20 ms``, ``1.2 s``, ``18 min`` or ``2.5 h``."""
    if seconds < 0.0995:
        return f"{max(round(seconds * 1000), 1)} ms" if seconds > 0 else "0 ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def age_text(seconds: float) -> str:
    """Return an age in the notation of the option ``max_age``, for example ``1d``, ``1d12h`` or ``30m``."""
    rest, text = seconds, ""
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, SECONDS[unit])
        text += f"{count:.0f}{unit}" if count else ""
    return text + (f"{rest:g}s" if rest or not text else "")


def moment(seconds: float, *, exact: bool = False) -> str:
    """Return a time, in seconds since the epoch, as local time: ``2026-11-22 14:03``, or ``2026-11-22 14:03:59`` if `exact`."""
    return time.strftime("%Y-%m-%d %H:%M:%S" if exact else "%Y-%m-%d %H:%M", time.localtime(seconds))


def size_text(count: float) -> str:
    """Return a number of bytes as text with a decimal unit: ``12 B``, ``41.0 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        # From 999.95 on, the number would be rounded to 1000.0, so the next unit is used.
        if count < 999.95:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

"""Identifiers that sort by the time of their creation."""

from __future__ import annotations

import os
import time
from itertools import count

_counter = count()
_process = ""
_process_id = 0


def new_id() -> str:
    """Return a new identifier: time in microseconds, process-wide counter, random part; 26 hexadecimal digits.

    Identifiers of one process sort in the order in which they were made.
    """
    global _process, _process_id  # noqa: PLW0603 - a forked child must not repeat its parent's random part
    if _process_id != os.getpid():
        _process_id = os.getpid()
        _process = os.urandom(4).hex()
    return f"{time.time_ns() // 1000:014x}{next(_counter) & 0xFFFF:04x}{_process}"

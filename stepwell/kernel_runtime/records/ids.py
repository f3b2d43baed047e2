"""Identifiers that sort by the time of their creation."""

from __future__ import annotations

import os
import time
from itertools import count

_counter = count()
_latest = 0
_process = ""
_process_id = 0


def new_id() -> str:
    """Return a new identifier: time in microseconds, process-wide counter, random part; 26 hexadecimal digits.

    Identifiers of one process sort in the order in which they were made, also after its clock was set back; those of two processes
    say nothing of an order.
    """
    global _process, _process_id, _latest  # noqa: PLW0603 - a forked child must not repeat its parent's random part
    if _process_id != os.getpid():
        _process_id = os.getpid()
        _process = os.urandom(4).hex()
    _latest = max(_latest, time.time_ns() // 1000)
    return f"{_latest:014x}{next(_counter) & 0xFFFF:04x}{_process}"

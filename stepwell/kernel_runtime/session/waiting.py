"""The line that says for whom a step waits: ``model: waiting for prepare.ipynb (pid 4711, since 14:03, usually 18 min)``."""

from __future__ import annotations

import logging
import platform
import time

from stepwell.kernel_runtime.records.events import StepWaiting
from stepwell.kernel_runtime.text import duration

_log = logging.getLogger("stepwell")


def waiting_line(event: StepWaiting) -> str:
    """Return who computes a step, since when, and how long it usually takes."""
    who = event.claimant
    facts = []
    if who.pid:
        elsewhere = f" on {who.host}" if who.host and who.host != platform.node() else ""
        facts.append(f"pid {who.pid}{elsewhere}")
    if who.since:
        began = time.localtime(who.since)
        facts.append(f"since {time.strftime('%H:%M' if _is_today(began) else '%Y-%m-%d %H:%M', began)}")
    if event.expected_seconds:
        facts.append(f"usually {duration(event.expected_seconds)}")
    name = who.notebook.rpartition("/")[2]
    whom = name if name and name != "__main__" else "another process"
    return f"{event.key}: waiting for {whom}" + (f" ({', '.join(facts)})" if facts else "")


def log_waiting(event: StepWaiting) -> None:
    """Log, which shows it on standard error, that a step waits: in a plain process nothing else would say why."""
    _log.warning("%s", waiting_line(event))


def _is_today(moment: time.struct_time) -> bool:
    return moment[:3] == time.localtime()[:3]

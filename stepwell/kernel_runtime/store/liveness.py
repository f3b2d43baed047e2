"""Which process executes a run, and whether it is still alive: a run whose process is gone was interrupted."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

from stepwell.kernel_runtime.store.objects.witness import boot_id


def this_process() -> str:
    """Return this process as ``host/boot/pid/start``: no other process has the same text, also after a restart of the machine."""
    return _text(os.getpid())


def is_gone(process: str) -> bool:
    """Return whether a process is known to have ended.

    Parameters
    ----------
    process
        The text of `this_process`, written by any process. Those of other machines are not known to have ended.
    """
    host, boot, pid, start = (process.split("/") + [""] * 3)[:4]
    if host != _host() or not pid.isdigit():
        return False
    return boot != boot_id() or start != _start(int(pid))


@cache
def _text(pid: int) -> str:
    return f"{_host()}/{boot_id()}/{pid}/{_start(pid)}"


@cache
def _host() -> str:
    return socket.gethostname().replace("/", "-")


def _start(pid: int) -> str:
    """Return when a process started, empty if there is none or it has ended."""
    with suppress(OSError, IndexError):
        # Linux counts from the start of the machine: the clock may be set while the process runs.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in {"Z", "X"} else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return ""

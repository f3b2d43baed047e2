# ruff: noqa: PTH118, PTH123 - plain strings: an audit hook runs inside every open()
"""What tells whether a file is still the same, and which files never count."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_stat = os.stat
UNSTABLE = "changed while the step ran"
"""In place of a digest: such a read never holds."""
# A file that changes again within one tick of the file system's clock keeps its time.
_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_000_000_000


def _excluded_folders() -> tuple[str, ...]:
    found = {"/proc/", "/sys/", "/dev/"}
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        for path in (prefix, os.path.realpath(prefix)):
            # A prefix of /usr holds more than Python.
            if path in {"/usr", "/usr/local", "/"}:
                found |= {os.path.join(path, lib, "") + f"python{sys.version_info[0]}" for lib in ("lib", "lib64")}
            else:
                found.add(os.path.join(path, ""))
    # Our own modules are imported when they are first needed, which may be inside a step.
    found.add(os.path.join(str(Path(__file__).parents[3]), ""))
    return tuple(sorted(found))


EXCLUDED = _excluded_folders()
_SITE = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}", f"{os.sep}__pycache__{os.sep}")


def counts(path: str) -> bool:
    """Tell whether what is at an absolute path can be an input: nothing of the installation, the system, or caches of bytecode."""
    return not (path.startswith(EXCLUDED) or path.endswith(".pyc") or any(part in path for part in _SITE))


def file_digest(path: str) -> str | None:
    """Return the digest of a file's content, 32 hexadecimal digits; None if it cannot be read."""
    from blake3 import blake3

    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
            if len(data) < 1 << 20:
                return blake3(data).hexdigest(16)
            hasher = blake3(data, max_threads=blake3.AUTO)
            while data := file.read(1 << 23):
                hasher.update(data)
            return hasher.hexdigest(16)
    except OSError:
        return None


def file_stat(path: str) -> tuple[int, ...] | None:
    """Return size, mtime_ns, ctime_ns and inode of a file; None if there is none."""
    try:
        found = _stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def too_recent(stat: tuple[int, ...]) -> bool:
    """Tell whether a file is so young that it could change without a change of its times."""
    newest = max(stat[1], stat[2])
    tick = _COARSE_TICK_NS if newest % 1_000_000_000 == 0 else _TICK_NS
    return time.time_ns() - newest < tick

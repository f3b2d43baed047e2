"""What a store stands on: locks that work, a local disk, permissions, a key, room.

Locks are really tried, each by a child process against this one: ``flock`` as the lease uses it, and DuckDB's own.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.store.catalog.schema import FORMAT
from stepwell.kernel_runtime.store.doctor.contents import Finding
from stepwell.kernel_runtime.store.folder import FOLDERS, Folder, group_name, user_name
from stepwell.kernel_runtime.store.locks import lock, unlock
from stepwell.kernel_runtime.store.signing import Signer, fingerprint, key_name, key_path
from stepwell.kernel_runtime.store.trouble import one_line, trouble
from stepwell.kernel_runtime.text import size_text

_NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "ocfs2", "gfs2", "davfs",
     "sshfs", "s3fs", "vboxsf", "virtiofs", "prl_fs", "drvfs")
)  # fmt: skip
_CHILD_FLOCK = """\
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
    else:
        print("free")
"""
_CHILD_DUCKDB = """\
import sys, duckdb
try:
    duckdb.connect(sys.argv[1]).close()
except duckdb.IOException as error:
    print("held" if "lock" in str(error) else error)
else:
    print("free")
"""
_LOW = 0.10
"""The part of the disk below which its free room is worth a line."""


def locks(folder: Folder) -> Finding:
    """Try both kinds of lock between this process and a child, in both states; a `StoreError` where the machine is in trouble."""
    import duckdb

    flock, database = f"tmp/{new_id()}.lock", f"tmp/{new_id()}.duckdb"
    try:
        folder.mkdir("tmp")
        wrong = _wrong_flock(folder, flock) or _wrong_duckdb(folder, database)
    except (OSError, duckdb.Error) as error:
        found = trouble(error, f"the locks of the store {folder.path} could not be tried")
        if found is not None and getattr(error, "errno", 0) != errno.ENOLCK:
            raise found from error
        wrong = one_line(error)
    finally:
        for name in (flock, database, f"{database}.wal"):
            with contextlib.suppress(OSError):
                folder.unlink(name, missing_ok=True)
    if wrong:
        return Finding(
            "locks",
            "unusable",
            f"they do not work on this file system: {wrong}",
            "processes that use the store at once would lose results: put it on a local disk (STEPWELL_STORE=DIR)",
        )
    return Finding("locks", "ok", "this file system keeps processes apart, with flock and with DuckDB's own locks")


def _wrong_flock(folder: Folder, name: str) -> str:
    if sys.platform == "win32":  # pragma: no cover - Windows has no flock; the lease's own lock is tried by every open
        return ""
    descriptor = folder.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        lock(descriptor, block=True)
        while_held = _child(_CHILD_FLOCK, folder, name)
        unlock(descriptor)
        while_free = _child(_CHILD_FLOCK, folder, name)
    finally:
        os.close(descriptor)
    return _judged("flock", while_held, while_free)


def _wrong_duckdb(folder: Folder, name: str) -> str:
    import duckdb

    with folder.database(name) as path:
        connection = duckdb.connect(path)
    try:
        connection.execute("CREATE TABLE t (x INTEGER)")
        while_held = _child(_CHILD_DUCKDB, folder, name)
    finally:
        connection.close()
    return _judged("DuckDB's lock", while_held, _child(_CHILD_DUCKDB, folder, name))


def _judged(kind: str, while_held: str, while_free: str) -> str:
    if (while_held, while_free) == ("held", "free"):
        return ""
    return f"{kind} was {while_held or 'an error'} for a second process while held, and {while_free or 'an error'} when free"


def _child(program: str, folder: Folder, name: str) -> str:
    with folder.database(name) as path:
        # The child opens it through the same descriptor.
        inherited = [int(part) for part in Path(path).parts if path.startswith("/proc/self/fd/") and part.isdecimal()]
        done = subprocess.run(  # noqa: S603 - this interpreter, with a program of ours
            [sys.executable, "-c", program, path],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            pass_fds=inherited,
        )
    return done.stdout.strip() or one_line(Exception(done.stderr.strip().rpartition("\n")[2]))


def mount(directory: Path, table: Path = Path("/proc/mounts")) -> Finding:
    """Say on what kind of file system the store is, where the system tells."""
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Finding("mount", "ok", "this system does not tell what kind of file system it is")
    place = Path(os.path.realpath(directory))
    best, kind, options = Path(), "", ""
    for line in lines:
        _, point, found, with_options, *_ = line.split(" ")
        # Blanks in a mount point are written in octal.
        where = Path(point.encode().decode("unicode_escape"))
        if place.is_relative_to(where) and len(where.parts) >= len(best.parts):
            best, kind, options = where, found, with_options
    facts = {"type": kind, "point": str(best)}
    if "ro" in options.split(","):
        return Finding("mount", "unusable", f"{kind} on {best} is mounted read-only", "choose another place", facts)
    name = kind.removeprefix("fuse.")
    if name in _NETWORK or kind.startswith("fuse"):
        return Finding(
            "mount",
            "warning",
            f"{kind} on {best} is a network or user-space file system",
            "it is slower, and what one machine wrote another may see late: a local disk is better, for one machine at a time",
            facts,
        )
    return Finding("mount", "ok", f"{kind} on {best}, a local file system", facts=facts)


def permissions(folder: Folder) -> Finding:
    """Say whether this user can write everything that must be written, and whether others can."""
    directory = folder.path
    if not os.access(directory, os.W_OK | os.X_OK):
        return Finding("permissions", "unusable", f"{directory} is not writable for you", f"chmod u+rwx {directory}")
    names = (
        "catalog.duckdb",
        "catalog.lock",
        "want.lock",
        "catalog.seal",
        "objects",
        "tmp",
        "runs",
        "claims",
        "writers",
    )
    refused = [name for name in names if folder.exists(name) and not os.access(directory / name, os.R_OK | os.W_OK)]
    if refused:
        return Finding(
            "permissions", "unusable", f"not writable for you: {', '.join(refused)}", f"chmod -R u+rwX {directory}"
        )
    if sys.platform != "win32":
        found = folder.owner
        if found.st_mode & stat.S_IWOTH:
            return Finding(
                "permissions", "problem", f"everybody on this machine can write {directory}", f"chmod o-w {directory}"
            )
        if folder.is_shared:
            return _shared(folder)
        if found.st_uid != os.getuid():
            return Finding(
                "permissions",
                "warning",
                f"{directory} belongs to {user_name(found.st_uid)}",
                facts={"owner": found.st_uid},
            )
    return Finding("permissions", "ok", "writable for you, and not for everybody")


def _shared(folder: Folder) -> Finding:
    """Say whose files the group of a shared store cannot write, or read."""
    own = folder.owner
    group = group_name(own.st_gid)
    closed: dict[str, list[str]] = {}
    for name, found in _everything(folder):
        # A value file is replaced, never changed.
        value = name.startswith("objects/") and stat.S_ISREG(found.st_mode)
        wanted = stat.S_IRGRP if value else stat.S_IRGRP | stat.S_IWGRP
        if found.st_gid != own.st_gid or found.st_mode & wanted != wanted:
            closed.setdefault(user_name(found.st_uid), []).append(name)
    if not closed:
        return Finding("permissions", "ok", f"writable for the group {group}, and not for everybody")
    shown = "; ".join(
        f"of {user}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for user, names in sorted(closed.items())
    )
    return Finding(
        "permissions",
        "problem",
        f"the group {group} shares the store, but cannot use files {shown}",
        f"each of them, or root, runs: chgrp -R {group} {folder.path} && chmod -R g+rwX {folder.path}",
        {"closed": closed},
    )


def _everything(folder: Folder) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file and folder of a store, but what is below the folders of ``tmp/``."""
    for name, found in folder.entries(""):
        yield name, found
        if name in FOLDERS and stat.S_ISDIR(found.st_mode):
            for below, status in folder.entries(name):
                yield f"{name}/{below}", status
                if name == "objects" and stat.S_ISDIR(status.st_mode):
                    yield from ((f"{name}/{below}/{each}", one) for each, one in folder.entries(f"{name}/{below}"))


def key() -> tuple[Finding, bytes]:
    """Look at the key that signs stored values; return also the bytes by which its signatures name it, empty where there is none."""
    path = key_path(os.environ.get("STEPWELL_KEY_FILE", ""))
    if not path.exists():
        return Finding("key", "ok", f"none yet; it is made when it is first needed: {path}"), b""
    try:
        name = key_name(Signer().sign(()))
        shared = sys.platform != "win32" and path.stat().st_mode & stat.S_IRGRP
    except (StoreError, OSError) as error:
        return (
            Finding("key", "problem", one_line(error), getattr(error, "remedy", "") or "is it readable for you?"),
            b"",
        )
    facts = {"path": str(path), "fingerprint": fingerprint(name)}
    who = "shared with its group" if shared else "private"
    return Finding("key", "ok", f"{fingerprint(name)} in {path}, {who}", facts=facts), name


def disk(directory: Path) -> Finding:
    """Say how much room is left."""
    found = shutil.disk_usage(directory)
    facts = {"free": found.free, "total": found.total}
    text = f"{size_text(found.free)} of {size_text(found.total)} are free"
    if found.free < found.total * _LOW:
        return Finding("disk", "warning", text, "stepwell gc says what can be freed", facts)
    return Finding("disk", "ok", text, facts=facts)


def versions() -> Finding:
    """Say which versions are at work."""
    found = {"python": platform.python_version(), "format": str(FORMAT)}
    for name in ("stepwell", "duckdb", "pyarrow", "pandas", "polars", "numpy", "blake3"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(
        "versions", "ok", ", ".join(f"{name} {version}" for name, version in found.items()), facts=dict(found)
    )

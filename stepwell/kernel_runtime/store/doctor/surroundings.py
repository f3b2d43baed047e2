"""Checks of the environment of a store: file locks, the file system, permissions, the signing key, free disk space and versions.

Stepwell depends on two locks: ``flock``, which the lease uses, and DuckDB's lock of a database file. Each lock is tested with a child process,
which tries to get the lock while this process holds it.
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
"""The user is warned if less than this fraction of the disk is free."""


def locks(folder: Folder) -> Finding:
    """Test that ``flock`` and DuckDB's lock work in the store directory.

    A lock works if a child process cannot get it while this process holds it, and can get it when no process holds it. On Windows, which has no
    ``flock``, only DuckDB's lock is tested.

    Parameters
    ----------
    folder
        The store directory.

    Returns
    -------
    Finding
        Its status is ``ok`` if both locks work, otherwise ``unusable``.

    Raises
    ------
    StoreError
        If the locks cannot be tested, for example because the disk is full.
    """
    import duckdb

    flock, database = f"tmp/{new_id()}.lock", f"tmp/{new_id()}.duckdb"
    try:
        folder.mkdir("tmp")
        problem = _flock_problem(folder, flock) or _duckdb_problem(folder, database)
    except (OSError, duckdb.Error) as error:
        store_error = trouble(error, f"the file locks in the store {folder.path} could not be tested")
        if store_error is not None and getattr(error, "errno", 0) != errno.ENOLCK:
            raise store_error from error
        problem = one_line(error)
    finally:
        for name in (flock, database, f"{database}.wal"):
            with contextlib.suppress(OSError):
                folder.unlink(name, missing_ok=True)
    if problem:
        return Finding(
            "locks",
            "unusable",
            f"file locks do not work on this file system: {problem}",
            "move the store to a local disk (STEPWELL_STORE=DIR): without locks, processes that use the store at the same time lose results",
        )
    return Finding("locks", "ok", "flock and DuckDB's lock work on this file system")


def _flock_problem(folder: Folder, name: str) -> str:
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
    return _lock_problem("flock", while_held, while_free)


def _duckdb_problem(folder: Folder, name: str) -> str:
    import duckdb

    with folder.database(name) as path:
        connection = duckdb.connect(path)
    try:
        connection.execute("CREATE TABLE t (x INTEGER)")
        while_held = _child(_CHILD_DUCKDB, folder, name)
    finally:
        connection.close()
    return _lock_problem("DuckDB's lock", while_held, _child(_CHILD_DUCKDB, folder, name))


def _lock_problem(kind: str, while_held: str, while_free: str) -> str:
    if (while_held, while_free) == ("held", "free"):
        return ""
    return (
        f"{kind}: a second process reported {while_held or 'an error'!r} while this process held the lock, "
        f"and {while_free or 'an error'!r} after this process had released the lock"
    )


def _child(program: str, folder: Folder, name: str) -> str:
    with folder.database(name) as path:
        # The path may contain a descriptor of this process (/proc/self/fd/...), which the child must inherit.
        inherited = [int(part) for part in Path(path).parts if path.startswith("/proc/self/fd/") and part.isdecimal()]
        completed = subprocess.run(  # noqa: S603 - this interpreter, with a constant program
            [sys.executable, "-c", program, path],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            pass_fds=inherited,
        )
    return completed.stdout.strip() or one_line(Exception(completed.stderr.strip().rpartition("\n")[2]))


def mount(directory: Path, table: Path = Path("/proc/mounts")) -> Finding:
    """Check the file system that contains the store: warn about network and user-space file systems, and report a read-only mount as unusable.

    Parameters
    ----------
    directory
        The store directory.
    table
        The file in which the operating system lists its mounts. If this file cannot be read, the status of the finding is ``ok``.
    """
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Finding("mount", "ok", "this operating system does not report the types of its file systems")
    place = Path(os.path.realpath(directory))
    best, kind, options = Path(), "", ""
    for line in lines:
        _, point, type_, with_options, *_ = line.split(" ")
        # Spaces in a mount point are escaped in octal.
        where = Path(point.encode().decode("unicode_escape"))
        if place.is_relative_to(where) and len(where.parts) >= len(best.parts):
            best, kind, options = where, type_, with_options
    facts = {"type": kind, "point": str(best)}
    if "ro" in options.split(","):
        return Finding(
            "mount",
            "unusable",
            f"the file system of the store ({kind} on {best}) is mounted read-only",
            "move the store to a file system that you can write to (STEPWELL_STORE=DIR)",
            facts,
        )
    name = kind.removeprefix("fuse.")
    if name in _NETWORK or kind.startswith("fuse"):
        return Finding(
            "mount",
            "warning",
            f"the store is on a network or user-space file system ({kind} on {best})",
            "move the store to a local disk if possible (STEPWELL_STORE=DIR): this file system is slower, and may show writes of other machines late",
            facts,
        )
    return Finding("mount", "ok", f"the store is on a local file system ({kind} on {best})", facts=facts)


def permissions(folder: Folder) -> Finding:
    """Check that this user can read and write the store, and that not every user of the machine can write to it.

    If the store is shared with a group, also check the access of the group. If it is not shared but belongs to another user, the finding is a
    warning. On Windows, only the access of this user is checked.
    """
    directory = folder.path
    if not os.access(directory, os.W_OK | os.X_OK):
        return Finding("permissions", "unusable", f"you cannot write to {directory}", f"chmod u+rwx {directory}")
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
            "permissions",
            "unusable",
            f"you need permission to read and write {', '.join(refused)} in {directory}",
            f"chmod -R u+rwX {directory}",
        )
    if sys.platform != "win32":
        owner = folder.owner
        if owner.st_mode & stat.S_IWOTH:
            return Finding(
                "permissions",
                "problem",
                f"every user of this machine can write to {directory}",
                f"chmod o-w {directory}",
            )
        if folder.is_shared:
            return _shared(folder)
        if owner.st_uid != os.getuid():
            return Finding(
                "permissions",
                "warning",
                f"the store {directory} belongs to the user {user_name(owner.st_uid)}",
                facts={"owner": owner.st_uid},
            )
    return Finding("permissions", "ok", "only you can write to the store")


def _shared(folder: Folder) -> Finding:
    """Check that the group of a shared store can read all value files, and read and write all other files and folders.

    If the group lacks access to some files, the finding lists these files by owner, because only the owner or root can grant the access.
    """
    owner = folder.owner
    group = group_name(owner.st_gid)
    closed: dict[str, list[str]] = {}
    for name, status in _all_entries(folder):
        # The group need not be able to write value files, because they are replaced and never changed.
        value = name.startswith("objects/") and stat.S_ISREG(status.st_mode)
        wanted = stat.S_IRGRP if value else stat.S_IRGRP | stat.S_IWGRP
        if status.st_gid != owner.st_gid or status.st_mode & wanted != wanted:
            closed.setdefault(user_name(status.st_uid), []).append(name)
    if not closed:
        return Finding("permissions", "ok", f"only the group {group} can write to the store")
    shown = "; ".join(
        f"of {user}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for user, names in sorted(closed.items())
    )
    return Finding(
        "permissions",
        "problem",
        f"the group {group} shares the store but cannot use files {shown}",
        f"each of these users, or root, runs: chgrp -R {group} {folder.path} && chmod -R g+rwX {folder.path}",
        {"closed": closed},
    )


def _all_entries(folder: Folder) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path, relative to the store, and the status of every file and folder of a store. Folders in ``tmp/`` are not entered."""
    for name, status in folder.entries(""):
        yield name, status
        if name in FOLDERS and stat.S_ISDIR(status.st_mode):
            for below, below_status in folder.entries(name):
                yield f"{name}/{below}", below_status
                if name == "objects" and stat.S_ISDIR(below_status.st_mode):
                    yield from (
                        (f"{name}/{below}/{value}", value_status) for value, value_status in folder.entries(f"{name}/{below}")
                    )


def key() -> tuple[Finding, bytes]:
    """Check the key with which this user signs stored values.

    Returns
    -------
    finding
        The result of the check.
    name
        The name that signatures contain to identify the key; empty if there is no usable key.
    """
    path = key_path(os.environ.get("STEPWELL_KEY_FILE", ""))
    if not path.exists():
        return Finding("key", "ok", f"there is no key yet; the key file {path} will be created on first use"), b""
    try:
        name = key_name(Signer().sign(()))
        shared = sys.platform != "win32" and path.stat().st_mode & stat.S_IRGRP
    except (StoreError, OSError) as error:
        return (
            Finding(
                "key",
                "problem",
                one_line(error),
                getattr(error, "remedy", "") or f"make the key file {path} readable for you",
            ),
            b"",
        )
    facts = {"path": str(path), "fingerprint": fingerprint(name)}
    access = "shared with its group" if shared else "private"
    return Finding("key", "ok", f"the key {fingerprint(name)} in {path} is {access}", facts=facts), name


def disk(directory: Path) -> Finding:
    """Check the free space of the disk that contains a directory. The finding is a warning if less than 10 % of the disk is free."""
    usage = shutil.disk_usage(directory)
    facts = {"free": usage.free, "total": usage.total}
    text = f"{size_text(usage.free)} of {size_text(usage.total)} are free"
    if usage.free < usage.total * _LOW:
        return Finding("disk", "warning", text, "run stepwell gc -n to see how much space gc would free", facts)
    return Finding("disk", "ok", text, facts=facts)


def versions() -> Finding:
    """Report the versions of Python, of the catalog format, and of the installed libraries that write stored values."""
    by_name = {"python": platform.python_version(), "format": str(FORMAT)}
    for name in ("stepwell", "duckdb", "pyarrow", "pandas", "polars", "numpy", "blake3"):
        try:
            by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in by_name.items()), facts=dict(by_name))

# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH117, PTH118, PTH120, PTH123, PTH202, PTH206 - plain strings, as the recorder has them
"""Files that a step wrote: recorded with the digest of their content, and restored on a hit if they are lost.

A file is required only inside the project's folder. One that anything other than Stepwell's steps changed is never touched, and links are
never followed. Small files are kept in the store; for a large one that is lost the step runs again.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stepwell.kernel_runtime.reads.file_state import file_digest
from stepwell.kernel_runtime.reads.recorder import ReadRecorder
from stepwell.kernel_runtime.records.effects import Effects, FileEffect
from stepwell.kernel_runtime.records.protocols import ValueStore
from stepwell.kernel_runtime.versions.ownership import is_input_path

MOST_KEPT = 1 << 20
"""Bytes of a file up to which its content is stored."""
_MOST_IN_ALL = 16 << 20
FOLDER = "/"
_CACHES = ("__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".cache", ".stepwell")
_JOURNALS = ("-wal", "-shm", "-journal", ".wal", ".lock")

WasWritten = Callable[[str, str], bool]
"""Given a path as effects have it and a digest: whether a step of a trusted key left the file in that state."""


def taken(recorder: ReadRecorder, project: Path) -> tuple[tuple[FileEffect, ...], dict[str, bytes]]:
    """Return the files that a step wrote, made or removed, and the contents of small ones by path."""
    root = os.path.join(os.path.realpath(project), "")
    found: list[FileEffect] = []
    kept: dict[str, bytes] = {}
    total = 0
    for path, existed in sorted(recorder.changes().items()):
        if not _is_effect(path, root, recorder):
            continue
        name = os.path.relpath(path, root) if path.startswith(root) else path
        state = _state(path)
        if state is None:
            if existed:
                found.append(FileEffect(name, "", before=recorder.before.get(path, "")))
        elif state == FOLDER:
            found.append(FileEffect(name, FOLDER))
        else:
            size = os.path.getsize(path)
            keep = size <= MOST_KEPT and total + size <= _MOST_IN_ALL and path.startswith(root)
            if keep:
                with open(path, "rb") as file:
                    kept[name] = file.read()
                total += size
            before = recorder.before.get(path, "")
            found.append(FileEffect(name, state, size, keep, before, existed and path in recorder.appended))
    return tuple(found), kept


def _is_effect(path: str, root: str, recorder: ReadRecorder) -> bool:
    if not is_input_path(path) or recorder.excludes(path) or path.endswith(_JOURNALS):
        return False
    parts = path.split(os.sep)
    if any(part in _CACHES for part in parts):
        return False
    return path.startswith(root) or not path.startswith(os.path.join(os.path.realpath(tempfile.gettempdir()), ""))


def _state(path: str) -> str | None:
    """Return the digest of a file's content, `FOLDER`, or None if there is nothing or something else."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return FOLDER
    return file_digest(path) if stat.S_ISREG(mode) else None


@dataclass(slots=True)
class FilesToRestore:
    """What a hit must do to the project's files.

    Attributes
    ----------
    obstacle
        Why the step must run; empty if it need not.
    left
        Paths that were changed by hand and are left as they are.
    """

    write: list[str]
    remove: list[str]
    folders: list[str]
    left: list[str]
    obstacle: str = ""


def compare(
    effects: tuple[FileEffect, ...],
    project: Path,
    was_written: WasWritten,
    *,
    own: bool,
    has_appended: Callable[[str], bool],
) -> FilesToRestore:
    """Compare the project's files with the states in which a step left them.

    Parameters
    ----------
    has_appended
        Given a path as effects have it: whether what the step appended to the file in this kernel is in it. What later steps appended stays.
    own
        Whether the step's own cell runs, or it was asked for by name; else a file that exists is not touched.
    """
    todo = FilesToRestore([], [], [], [])
    for effect in effects:
        if os.path.isabs(effect.path):
            continue
        path = os.path.join(os.path.realpath(project), effect.path)
        if not _is_inside(path, project):
            todo.left.append(effect.path)
            continue
        now = _state(path)
        if now == effect.digest or (now is None and not os.path.lexists(path) and effect.digest == ""):
            continue
        if effect.digest == FOLDER:
            if now is None and not os.path.lexists(path):
                todo.folders.append(effect.path)
            continue
        lost = not os.path.lexists(path)
        if own and effect.appended and now != effect.before and (lost or was_written(effect.path, now or "")):
            # It appends to what others of our steps left there now.
            if lost or not has_appended(effect.path):
                todo.obstacle = f"it appends to {effect.path}, which others have written"
            continue
        if not lost:
            if not own:
                continue
            if now is None or now == FOLDER or not (now == effect.before or was_written(effect.path, now)):
                todo.left.append(effect.path)
                continue
        if effect.digest == "":
            todo.remove.append(effect.path)
        elif effect.kept:
            todo.write.append(effect.path)
        else:
            todo.obstacle = f"{effect.path}, which it wrote, is lost and too large to be stored"
    return todo


def lost(path: str, project: Path, files: Mapping[str, tuple[str, str]], store: ValueStore) -> str:
    """Return what is to be said of a file that is not there although a step wrote it; empty for any other path.

    Parameters
    ----------
    files
        What the steps of this kernel wrote: digest and step by path, as `Timeline.files` has it.
    """
    name = os.path.relpath(path, os.path.realpath(project))
    if os.path.lexists(path) or name.startswith(os.pardir):
        return ""
    digest, key = files.get(name, ("", ""))
    if name not in files:
        for item in store.writers_of(name):
            if store.vouches(item):
                digest = next(each.digest for each in Effects.from_text(item.effects).files if each.path == name)
                key = item.key.rpartition(":")[0]
                break
    return f"{name} was written by {key} and is gone: run the cell of {key}" if digest else ""


def restore(todo: FilesToRestore, contents: Mapping[str, bytes], project: Path) -> None:
    """Do what `compare` found; raises OSError or KeyError if it cannot be done."""
    root = os.path.realpath(project)
    for name in todo.folders:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    for name in todo.remove:
        os.unlink(os.path.join(root, name))
    for name in todo.write:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Written beside its place and renamed: a link that was put there meanwhile is replaced, never followed.
        descriptor, beside = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".stepwell-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(contents[name])
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(beside, 0o666 & ~mask)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise


def _is_inside(path: str, project: Path) -> bool:
    """Return True if a path is inside the project and no part of it is a link."""
    root = os.path.realpath(project)
    folder = os.path.dirname(path)
    return os.path.normpath(path).startswith(os.path.join(root, "")) and os.path.realpath(folder) == os.path.normpath(
        folder
    )

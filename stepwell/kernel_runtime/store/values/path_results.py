"""A step that returns a path returns what is there: the contents of a file are part of the stored value.

This is for a value that *is* a path, of exactly the platform's `pathlib.Path` type; a path inside a list or a dict is text.

=================  ===========================================  =====================================================
what is there      what is stored                               what a load gives
=================  ===========================================  =====================================================
a file             path and contents, up to `MOST_KEPT` bytes   the same path while the file there has these contents;
                                                                otherwise a file below the store with these contents,
                                                                of the same name
a larger file      path and digest of the contents              the same path while the file has these contents;
                                                                otherwise the value counts as missing
a folder           path and digest of all that is below it      as of a larger file
nothing            path                                         the same path
=================  ===========================================  =====================================================

The path is tried as it was written, then as it was absolute when it was stored: a relative path means the file that the step meant. The user's file is
never written. The data version is that of name and contents, so a step that writes the same file again changes nothing downstream.
What is restored is below ``tmp/file-<digest>/`` in the store, where `gc` deletes what has not been loaded for long; the next load restores it again. The stored form is signed like a pickle: nobody else can have
a file of a chosen name and contents written.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.path_contents import PathContents, contents_of
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.runs import Notice, notice
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.values.loading import Loading

MOST_KEPT = 1 << 30
"""Bytes of a file up to which its contents are stored."""
_MAP_FROM = 1 << 26
"""Bytes from which a file is mapped instead of read: one of this size should not be in memory twice."""
KIND = "path"


def dump(path: Path, *, key: str) -> tuple[dict[str, Any], list[memoryview], tuple[Notice, ...]]:
    """Return the head of the stream, the buffers, and notices for who stored it.

    Raises
    ------
    UnstorableValueError
        If what is there cannot be read.
    """
    try:
        found = contents_of(path)
        kept = found.kind == "file" and found.size <= MOST_KEPT
        buffers = [_contents(path)] if kept else []
    except OSError as error:
        raise UnstorableValueError(
            f"the value of {key!r} cannot be stored: what is at the path {path} cannot be read",
            where=f"{type(error).__name__}: {error}",
            remedy="return the path of a file that can be read, or str(path) to store the text alone",
        ) from error
    notices: tuple[Notice, ...] = ()
    if found.kind != "nothing" and not kept:
        notices = (notice("path only", key, path=str(path), folder=found.kind == "folder", most=MOST_KEPT),)
    head = {
        "kind": KIND,
        "path": os.fspath(path),
        "absolute": os.path.abspath(path),  # noqa: PTH100 - links stay as they are written
        "what": found.kind,
        "size": found.size,
        "digest": found.digest,
    }
    return head, buffers, notices


def load(head: dict[str, Any], buffers: Sequence[Any], *, key: str, loading: Loading) -> Path:
    """Return a path to what was stored.

    Raises
    ------
    ValueUnavailableError
        If it is not there any more and was not kept, or cannot be restored.
    """
    written = Path(head["path"])
    if head["what"] == "nothing":
        return written
    said = PathContents(head["what"], head["size"], head["digest"])
    for path in dict.fromkeys((written, Path(head["absolute"]))):
        if _holds(path, said):
            return path
    if not buffers or loading.folder is None:
        raise ValueUnavailableError(
            f"the stored value of {key!r} is the path of a {said.kind} that has changed or is gone, and its contents were not kept",
            where=head["absolute"],
            remedy=f"materialize {key!r} again",
        )
    try:
        restored = _restore(loading.folder, said.digest, written.name, buffers[0])
        if not _holds(restored, said):
            raise OSError("the stored contents are damaged")  # noqa: TRY301 - one message for all that can go wrong here
    except OSError as error:
        raise ValueUnavailableError(
            f"the file that is the value of {key!r} cannot be restored",
            where=f"{type(error).__name__}: {error}",
            remedy=f"materialize {key!r} again",
        ) from error
    loading.tell(notice("path restored", key, path=head["path"], restored=str(restored)))
    return restored


def _contents(path: Path) -> memoryview:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _MAP_FROM:
            return memoryview(file.read())
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))


def _holds(path: Path, said: PathContents) -> bool:
    try:
        if said.kind == "file" and path.stat().st_size != said.size:
            return False
        return contents_of(path) == said
    except OSError:
        return False


def _restore(folder: Folder, digest: str, name: str, contents: Any) -> Path:
    """Write contents to a file of a name below ``tmp/``, unless they are there."""
    place = f"tmp/file-{digest}"
    if not digest.isalnum() or name in {"", ".", ".."} or Path(name).name != name:
        raise OSError(f"{name!r} is no name of a file")
    folder.mkdir("tmp")
    folder.mkdir(place)
    path = folder.path / place / name
    if not (folder.exists(f"{place}/{name}") and _holds(path, PathContents("file", len(contents), digest))):
        making = f"{place}/.{new_id()}"
        try:
            folder.write(making, contents)
            folder.rename(making, f"{place}/{name}")
        finally:
            folder.unlink(making, missing_ok=True)
    # Its time tells when it was last wanted.
    descriptor = folder.open(f"{place}/{name}")
    try:
        os.utime(descriptor if os.utime in os.supports_fd else path)
    finally:
        os.close(descriptor)
    return path

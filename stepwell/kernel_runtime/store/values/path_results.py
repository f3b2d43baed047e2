"""Paths as values: if a step returns the path of a file, the contents of the file are stored with the path.

This applies to values whose type is exactly the platform's `pathlib.Path`. Of a path inside a list or a dict, only the path itself is stored.

======================  =====================================  ========================================================
the path refers to      what is stored                         what a load returns
======================  =====================================  ========================================================
a file of at most       path and contents                      the same path while the file has the stored contents;
`MOST_KEPT` bytes                                              otherwise the path of a restored file: a file below the
                                                               store with the stored contents and the same name
a larger file           path and digest of the contents        the same path while the contents have this digest;
                                                               otherwise the value counts as missing
a folder                path and digest of all files below it  like a larger file
nothing that exists     path                                   the same path
======================  =====================================  ========================================================

The absolute path is stored, too. A load first checks the path that the step returned, then the absolute path. So a load still finds the file
if the step returned a relative path and the working directory has changed since. The user's file is never written. The data version is a
digest of the file's name and contents, so a step that writes the same file again does not make downstream steps stale.

Files are restored below ``tmp/file-<digest>/`` in the store. ``gc`` deletes a restored file whose value has not been loaded for a day; the
next load of the value restores the file again. The stored form is signed like a pickle. Without a signature, another user could change the
stored form, and so choose the name and contents of the file that a load writes.
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
"""Maximum size in bytes of a file whose contents are stored."""
_MIN_MAPPED = 1 << 26
"""Minimum size in bytes of a file that is mapped into memory instead of read, to save memory."""
KIND = "path"


def dump(path: Path, *, key: str) -> tuple[dict[str, Any], list[memoryview], tuple[Notice, ...]]:
    """Return the stored form of a path that a step returned.

    Parameters
    ----------
    path
        The path.
    key
        The asset's key, for messages.

    Returns
    -------
    head
        A dict with the path and with facts about the file or folder to which it refers: the kind (file, folder or nothing), the size and the
        digest.
    buffers
        The contents of the file as the only item; empty if the contents are not stored.
    notices
        One notice for the user if the path refers to a folder or file whose contents are not stored; otherwise empty.

    Raises
    ------
    UnstorableValueError
        If the file or folder cannot be read.
    """
    try:
        contents = contents_of(path)
        is_kept = contents.kind == "file" and contents.size <= MOST_KEPT
        buffers = [_contents(path)] if is_kept else []
    except OSError as error:
        raise UnstorableValueError(
            f"the value of {key!r}",
            f"the file or folder {path} cannot be read",
            where=f"{type(error).__name__}: {error}",
            remedy="return the path of a readable file, or return str(path) to store the path without the contents",
        ) from error
    notices: tuple[Notice, ...] = ()
    if contents.kind != "nothing" and not is_kept:
        notices = (notice("path only", key, path=str(path), folder=contents.kind == "folder", most=MOST_KEPT),)
    head = {
        "kind": KIND,
        "path": os.fspath(path),
        "absolute": os.path.abspath(path),  # noqa: PTH100 - Path.resolve would replace links
        "what": contents.kind,
        "size": contents.size,
        "digest": contents.digest,
    }
    return head, buffers, notices


def load(head: dict[str, Any], buffers: Sequence[Any], *, key: str, loading: Loading) -> Path:
    """Return the path of a file or folder that has the stored contents; restore a file if necessary.

    Parameters
    ----------
    head, buffers
        The stored form, as returned by `dump`.
    key
        The asset's key, for messages.
    loading
        Contains the store directory, below which a file is restored, and the function that receives a notice about a restored file.

    Returns
    -------
    Path
        The stored path, or the path of a restored file.

    Raises
    ------
    ValueUnavailableError
        If the file or folder has changed or does not exist, and its contents were not stored; or if the file cannot be restored.
    """
    stored_path = Path(head["path"])
    if head["what"] == "nothing":
        return stored_path
    contents = PathContents(head["what"], head["size"], head["digest"])
    for path in dict.fromkeys((stored_path, Path(head["absolute"]))):
        if _holds(path, contents):
            return path
    if not buffers or loading.folder is None:
        raise ValueUnavailableError(
            f"the stored value of {key!r} is the path of a {contents.kind} that has changed or does not exist, and its contents were not stored",
            where=head["absolute"],
            remedy=f"materialize {key!r} again",
        )
    try:
        restored = _restore(loading.folder, contents.digest, stored_path.name, buffers[0])
        if not _holds(restored, contents):
            raise OSError("the stored contents of the file are damaged")  # noqa: TRY301 - one message for all errors of restoring
    except OSError as error:
        raise ValueUnavailableError(
            f"the stored value of {key!r} is the path of a file that cannot be restored",
            where=f"{type(error).__name__}: {error}",
            remedy=f"materialize {key!r} again",
        ) from error
    loading.notify(notice("path restored", key, path=head["path"], restored=str(restored)))
    return restored


def _contents(path: Path) -> memoryview:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _MIN_MAPPED:
            return memoryview(file.read())
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))


def _holds(path: Path, contents: PathContents) -> bool:
    try:
        if contents.kind == "file" and path.stat().st_size != contents.size:
            return False
        return contents_of(path) == contents
    except OSError:
        return False


def _restore(folder: Folder, digest: str, name: str, contents: Any) -> Path:
    """Write a file called ``name`` below ``tmp/`` in the store, unless an earlier load has written it; return the path of the file.

    ``contents`` are the bytes of the file, and ``digest`` is their digest. Raises OSError if ``digest`` or ``name`` is invalid, or if the file
    cannot be written.
    """
    place = f"tmp/file-{digest}"
    if not digest.isalnum() or name in {"", ".", ".."} or Path(name).name != name:
        raise OSError(f"invalid file name {name!r}")
    folder.mkdir("tmp")
    folder.mkdir(place)
    path = folder.path / place / name
    if not (folder.exists(f"{place}/{name}") and _holds(path, PathContents("file", len(contents), digest))):
        new_file = f"{place}/.{new_id()}"
        try:
            folder.write(new_file, contents)
            folder.rename(new_file, f"{place}/{name}")
        finally:
            folder.unlink(new_file, missing_ok=True)
    # Set the modification time to the time of this load, because gc deletes restored files that were not loaded for a long time.
    descriptor = folder.open(f"{place}/{name}")
    try:
        os.utime(descriptor if os.utime in os.supports_fd else path)
    finally:
        os.close(descriptor)
    return path

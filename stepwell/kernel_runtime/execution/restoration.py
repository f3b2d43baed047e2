# ruff: noqa: PTH101, PTH103, PTH105, PTH106, PTH108, PTH112, PTH114, PTH117, PTH118, PTH120, PTH123, PTH202, PTH204, PTH206 - paths are strings, as in the recorder
"""Restores the effects of a reused step: files, definitions, variables, the contents of objects, and arrays that share memory.

Only files inside the project's folder are restored. A file that was changed by anything except a step is overwritten only if it has the
content from before the step, and symbolic links are never followed. The contents of small files are stored; if a large file is gone, the step runs again.

If an array shares memory with another object, the array is stored as a link: a reference to the owner of the memory, and the position of the array
in the memory. The owner is an array, a pandas frame or a bytearray, in the notebook or among the stored objects. Two pandas frames that share memory
are not linked, because pandas copies the memory before one of them changes.
"""

from __future__ import annotations

import array
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, Definition
from stepwell.kernel_runtime.execution.addresses import replace_content, resolve
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.reads.checks import file_digest
from stepwell.kernel_runtime.reads.recorder import ReadRecorder
from stepwell.kernel_runtime.records.materializations import RESULT, Effects, FileEffect
from stepwell.kernel_runtime.store.catalog.tables import read_writers
from stepwell.kernel_runtime.store.signing import vouches
from stepwell.kernel_runtime.versions.ownership import is_input_path

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

MOST_KEPT = 1 << 20
"""The maximum size in bytes of a file whose content is stored."""
_MOST_IN_ALL = 16 << 20
"""The maximum total size in bytes of the files whose contents are stored for one step."""
FOLDER = "/"
"""Stands in place of the digest of a path that is a folder."""
_CACHES = ("__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".cache", ".stepwell")
_JOURNALS = ("-wal", "-shm", "-journal", ".wal", ".lock")

_FORM = 2
"""The version of the format of stored bundles, stored as the first item of `Bundle.as_tuple`."""

WasWritten = Callable[[str, str], bool]
"""Takes a path in the form of `FileEffect.path` and a digest; returns True if a step is known to have written this content into the file."""


def taken_files(recorder: ReadRecorder, project: Path) -> tuple[tuple[FileEffect, ...], dict[str, bytes]]:
    """Return the changes of files and folders that a step made.

    Returns
    -------
    effects, contents
        `effects` has a `FileEffect` for each file and folder that the step wrote, created or removed; caches, temporary files and the
        journals of databases are left out. `contents` has the contents of those files that are stored (small files of the project); the
        keys have the form of `FileEffect.path`.
    """
    root = os.path.join(os.path.realpath(project), "")
    effects: list[FileEffect] = []
    contents: dict[str, bytes] = {}
    total = 0
    for path, existed in sorted(recorder.changes().items()):
        if not _is_effect(path, root, recorder):
            continue
        name = os.path.relpath(path, root) if path.startswith(root) else path
        state = _state(path)
        if state is None:
            if existed:
                effects.append(FileEffect(name, "", digest_before=recorder.digests_before.get(path, "")))
        elif state == FOLDER:
            effects.append(FileEffect(name, FOLDER))
        else:
            size = os.path.getsize(path)
            keep = size <= MOST_KEPT and total + size <= _MOST_IN_ALL and path.startswith(root)
            if keep:
                with open(path, "rb") as file:
                    contents[name] = file.read()
                total += size
            before = recorder.digests_before.get(path, "")
            effects.append(FileEffect(name, state, size, keep, before, existed and path in recorder.appended))
    return tuple(effects), contents


def _is_effect(path: str, root: str, recorder: ReadRecorder) -> bool:
    if not is_input_path(path) or recorder.excludes(path) or path.endswith(_JOURNALS):
        return False
    parts = path.split(os.sep)
    if any(part in _CACHES for part in parts):
        return False
    return path.startswith(root) or not path.startswith(os.path.join(os.path.realpath(tempfile.gettempdir()), ""))


def _state(path: str) -> str | None:
    """Return the digest of a file's content, `FOLDER` for a folder, and None for anything else or if the path does not exist."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return FOLDER
    return file_digest(path) if stat.S_ISREG(mode) else None


@dataclass(slots=True)
class FilesToRestore:
    """The changes of the project's files that restore the effects of a step. All paths have the form of `FileEffect.path`.

    Attributes
    ----------
    write
        The files that are written with their stored content.
    remove
        The files and folders that are removed.
    folders
        The folders that are created.
    left_paths
        The files that are left as they are, because something other than a step has changed them, or a folder above them is a symbolic link.
    obstacle
        The reason why the files cannot be restored, so that the step must run; empty if they can.
    """

    write: list[str]
    remove: list[str]
    folders: list[str]
    left_paths: list[str]
    obstacle: str = ""


def compare_files(
    effects: tuple[FileEffect, ...],
    project: Path,
    was_written: WasWritten,
    *,
    cell_runs: bool,
) -> FilesToRestore:
    """Return the changes that bring the project's files into the states in which a step left them.

    Parameters
    ----------
    effects
        The files and folders that the step changed.
    was_written
        Tells whether a step has written the present content of a file. If no step has, the file is left as it is, unless it has the content
        from before the step.
    cell_runs
        True if the cell of the step runs. Otherwise files that exist are left as they are.
    """
    todo = FilesToRestore([], [], [], [])
    for effect in effects:
        if os.path.isabs(effect.path):
            continue
        path = os.path.join(os.path.realpath(project), effect.path)
        if not _is_inside(path, project):
            todo.left_paths.append(effect.path)
            continue
        now = _state(path)
        if now == effect.digest or (now is None and not os.path.lexists(path) and effect.digest == ""):
            continue
        if effect.digest == FOLDER:
            if now is None and not os.path.lexists(path):
                todo.folders.append(effect.path)
            continue
        if effect.digest == "" and now == FOLDER:
            if cell_runs:
                todo.remove.append(effect.path)
            continue
        lost = not os.path.lexists(path)
        if (
            cell_runs
            and effect.appended
            and now != effect.digest_before
            and (lost or os.path.getmtime(path) >= _STARTED or was_written(effect.path, now or ""))
        ):
            # The step appends to a file that was removed, or that a step or something in the time of this kernel has written since. If the data are
            # still there, only more data were appended, which must stay.
            if lost or file_digest(path, effect.size) != effect.digest:
                todo.obstacle = f"the step appends to {effect.path}, which has changed since"
            continue
        if not lost:
            if not cell_runs:
                continue
            if now is None or now == FOLDER or not (now == effect.digest_before or was_written(effect.path, now)):
                if effect.digest == "" and os.path.getmtime(path) >= _STARTED:
                    todo.obstacle = f"the step removes {effect.path}, which has changed since"
                else:
                    todo.left_paths.append(effect.path)
                continue
        if effect.digest == "":
            todo.remove.append(effect.path)
        elif effect.is_stored:
            todo.write.append(effect.path)
        else:
            todo.obstacle = f"the step wrote {effect.path}, whose content was not stored because of its size, and the file is gone or has changed"
    return todo


def lost_file(path: str, project: Path, files: Mapping[str, tuple[str, str]], store: ValueStore) -> str:
    """Return a note for the user about a missing file that a step wrote; empty if the path exists or no step is known to have written it.

    Parameters
    ----------
    files
        The files that the steps of this kernel wrote, as in `World.files`.
    """
    name = os.path.relpath(path, os.path.realpath(project))
    if os.path.lexists(path) or name.startswith(os.pardir):
        return ""
    digest, key = files.get(name) or next(left_states(name, store), ("", ""))
    return f"{name} was written by {key} and is gone: run the cell of {key}" if digest else ""


def left_states(path: str, store: ValueStore) -> Iterator[tuple[str, str]]:
    """Yield a pair for each execution of a step that wrote a file, newest first: the digest of the file after the step, and the step's key.

    The pairs come from the records of all runs. Records that are not signed with this user's key are left out. `path` has the form of
    `FileEffect.path`.
    """
    for item in store.catalog.ask(read_writers, path):
        if vouches(store.signer, item):
            for file in Effects.from_text(item.effects).files:
                if file.path == path:
                    yield file.digest, item.key.rpartition(":")[0]


def restore_files(todo: FilesToRestore, contents: Mapping[str, bytes], project: Path) -> None:
    """Make the changes of files that `compare_files` returned.

    Parameters
    ----------
    contents
        The stored contents of files, by path.

    Raises
    ------
    OSError
        If a file or folder cannot be changed.
    KeyError
        If the content of a file is missing.
    """
    root = os.path.realpath(project)
    for name in todo.folders:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    # The path of a folder sorts before the paths in it.
    for name in sorted(todo.remove, reverse=True):
        path = os.path.join(root, name)
        if os.path.isdir(path) and not os.path.islink(path):
            # A folder with other files stays.
            with suppress(OSError):
                os.rmdir(path)
        else:
            os.unlink(path)
    for name in todo.write:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # A temporary file is written and renamed: if a link is created at the path meanwhile, it is replaced and not followed.
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".stepwell-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(contents[name])
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _is_inside(path: str, project: Path) -> bool:
    """Return True if a path is inside the project, and none of the folders above it is a symbolic link."""
    root = os.path.realpath(project)
    folder = os.path.dirname(path)
    return os.path.normpath(path).startswith(os.path.join(root, "")) and os.path.realpath(folder) == os.path.normpath(folder)


_STARTED = time.time()
"""The time at which this kernel imported Stepwell."""
_MOST_COMPARED = 200
"""The maximum number of arrays in the same memory with which one array is compared."""


@dataclass(slots=True)
class MemoryRange:
    """An array, the range of its memory, and the object that holds the array."""

    array: Any
    holder: Any
    """The object that holds the array: the array itself, a buffer or a frame."""
    part: tuple[Any, ...]
    """How the holder holds the array: empty if the holder is the array itself; ``("buffer",)`` if the holder is a bytearray or an
    `array.array`; ``("column", 2)`` if the holder is a frame and the array begins with the frame's column at position 2."""
    root: Any
    """The last array in the chain of ``base`` attributes, which begins with the array; the array itself if its ``base`` is not an array."""
    start: int
    """The memory address of the first byte of the array."""
    end: int
    """The memory address after the last byte of the array."""
    linked: bool
    """True if the array can be stored as a link. This is not possible for a buffer, and for most subclasses of arrays."""
    memory: int
    """An identifier of the memory, which is equal for all arrays in the same memory."""

    def has(self, other: MemoryRange) -> bool:
        """Return True if the memory of this array contains the memory of `other`."""
        return self.start <= other.start and other.end <= self.end

    def meets(self, other: MemoryRange) -> bool:
        """Return True if the memory of this array overlaps the memory of `other`."""
        return self.start < other.end and other.start < self.end


def has_arrays(values: Iterable[Any]) -> bool:
    """Return True if one of `values` is a numpy array, a pandas frame or a pandas series."""
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    kinds = (*(() if np is None else (np.ndarray,)), *(() if pd is None else (pd.DataFrame, pd.Series)))
    return any(issubclass(type(value), kinds) for value in values)


def held_by(values: Iterable[Any]) -> Iterator[MemoryRange]:
    """Yield a `MemoryRange` for each array, for each array inside a frame, and for each buffer among `values`."""
    np = sys.modules.get("numpy")
    if np is None:
        return
    pd = sys.modules.get("pandas")
    for item in values:
        if issubclass(type(item), np.ndarray):
            yield from _memory_ranges(np, item, item, (), linked=type(item) in _kinds(np))
        elif type(item) in {bytearray, array.array}:
            yield from _memory_ranges(np, np.frombuffer(item, np.uint8), item, ("buffer",), linked=False)
        elif pd is not None and issubclass(type(item), (pd.DataFrame, pd.Series)):
            for column, block in blocks_of(item):
                yield from _memory_ranges(np, block, item, ("column", column), linked=True)


def blocks_of(frame: Any) -> list[tuple[int, Any]]:
    """Return a pair for each array in which a pandas frame has its data: the position of the array's first column in the frame, and the array.

    Return an empty list for an object that is neither a frame nor a series.
    """
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    if np is None or pd is None or not issubclass(type(frame), (pd.DataFrame, pd.Series)):
        return []
    try:
        blocks = frame._mgr.blocks  # noqa: SLF001 - pandas has no public access to shared memory
        return [(int(block.mgr_locs.as_array[0]), block.values) for block in blocks if type(block.values) is np.ndarray]
    except Exception:
        # An instance of a subclass that the user defined may raise any exception.
        return []


def _kinds(np: Any) -> tuple[type, ...]:
    return (np.ndarray, np.matrix, np.recarray)


def _column(frame: Any, at: int) -> Any:
    """Return the column at the position `at` of a frame, or the data of a series, as an array in the same memory.

    Return None if the column does not have a numpy dtype.
    """
    column = frame.iloc[:, at] if frame.ndim == 2 else frame
    return column.to_numpy() if type(column.dtype).__module__.startswith("numpy") else None


def _memory_ranges(np: Any, array: Any, holder: Any, part: tuple[Any, ...], *, linked: bool) -> Iterator[MemoryRange]:
    bounds = _bounds(array)
    if bounds is not None:
        root = _root(np, array)
        base = root.base.obj if isinstance(root.base, memoryview) else root.base
        yield MemoryRange(array, holder, part, root, *bounds, linked, id(root if base is None else base))


def _root(np: Any, array: Any) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _bounds(array: Any) -> tuple[int, int] | None:
    if not array.size:
        return None
    start = end = _address(array)
    for step, length in zip(array.strides, array.shape, strict=True):
        if step < 0:
            start += step * (length - 1)
        else:
            end += step * (length - 1)
    return start, end + array.itemsize


# -- links -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class View:
    """An array that is stored as a link to the memory of another object."""

    owner: Any
    """The array itself, or the frame that contains the array. (The owner of the memory is `holder`.) The reference keeps the object alive, so that no
    other object gets the same `id`."""
    holder: Any
    """The object whose memory the array uses. A reference to this object is stored in place of the array."""
    link: tuple[Any, ...]
    """The number of the link, and the data from which `view_of` makes the array again: the layout of `holder`, and the position in its memory."""


def views(stored_objects: Iterable[Any], notebook_objects: Iterable[Any]) -> dict[int, View]:
    """Return a `View` for each array among `stored_objects` that must be stored as a link, by the `id` of the array.

    Parameters
    ----------
    stored_objects
        The objects that will be stored.
    notebook_objects
        Objects that will exist in the notebook when the stored objects are loaded.
    """
    memory_ranges = list(held_by(stored_objects))
    if not any(part.linked for part in memory_ranges):
        return {}
    others: dict[int, list[MemoryRange]] = {}
    for part in held_by(notebook_objects):
        others.setdefault(part.memory, []).append(part)
    groups: dict[int, list[MemoryRange]] = {}
    for part in memory_ranges:
        groups.setdefault(part.memory, []).append(part)
    links: dict[int, View] = {}
    for memory, group in groups.items():
        if len(group) + len(others.get(memory, ())) > 1:
            _link_group(group, others.get(memory, []), links)
    return links


def _link_group(group: list[MemoryRange], others: list[MemoryRange], links: dict[int, View]) -> None:
    """Find those arrays of `group` that must be stored as links. Add a `View` for each to `links`, by the `id` of the array.

    All arrays in `group` and `others` use the same memory.

    Parameters
    ----------
    group
        The arrays of objects that will be stored.
    others
        The arrays of objects that will exist in the notebook.
    """
    # The arrays are sorted by size, the largest first. An array can only become a link to an array before it in this order.
    order = sorted(group, key=lambda part: (part.start - part.end, part.array is not part.root))
    for position, part in enumerate(order):
        if not part.linked or id(part.array) in links:
            continue
        firm = [*others[:_MOST_COMPARED], *[other for other in order if other.part][:_MOST_COMPARED]]
        firm = [other for other in firm if _may_own(other, part)]
        before = [other for other in order[: min(position, _MOST_COMPARED)] if not other.part and _may_own(other, part)]
        owner = next((other for other in (*firm, *before) if other.has(part)), firm[0] if firm else None)
        after = order[position + 1 : position + 1 + _MOST_COMPARED]
        # A stored array that is not contiguous does not include the memory between its elements.
        keeps = part.array.flags.forc
        if owner is None and (before or any(_may_own(other, part) and not (keeps and part.has(other)) for other in after)):
            # The arrays overlap, but neither contains the other. Both become links to the array whose memory they use.
            owner = replace(part, array=part.root, holder=part.root, part=())
        if owner is not None:
            links[id(part.array)] = View(part.holder, owner.holder, (len(links), *_link(owner, part)))


def _may_own(other: MemoryRange, part: MemoryRange) -> bool:
    """Return True if the array `part` could be stored as a link to the memory of the object that holds `other`."""
    if part.part and (other.part or not other.array.flags.writeable):
        # pandas keeps track of memory that its frames share. If a frame returns an array of its own memory, this array is read-only.
        return False
    return other.array is not part.array and other.holder is not part.holder and other.meets(part)


def _link(owner: MemoryRange, part: MemoryRange) -> tuple[Any, ...]:
    item = part.array
    own = owner.array if owner.part[:1] != ("column",) else _column(owner.holder, owner.part[1])
    inside = not owner.part and owner.has(part)
    return (
        owner.part,
        (own.shape, own.strides, own.dtype),
        None if inside else (_address(own) - _address(owner.root), owner.root.nbytes),
        _address(item) - _address(own),
        (item.shape, item.strides, item.dtype),
        item.flags.writeable,
        type(item),
    )


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def view_of(holder: Any, link: tuple[Any, ...]) -> Any:
    """Return the array that a link describes, in the memory of an object.

    Parameters
    ----------
    holder
        The object that owns the memory.
    link
        The number of the link and the description of the array, as in `View.link`.

    Raises
    ------
    ValueError
        If `holder` has another layout than the owner of the memory had when the link was stored, or if the array must be writeable but the memory of
        `holder` is read-only.
    """
    np = sys.modules["numpy"]
    _, part, layout, whole, offset, (shape, strides, dtype), writeable, kind = link
    own = np.frombuffer(holder, np.uint8) if part == ("buffer",) else _column(holder, part[1]) if part else holder
    root = _root(np, own)
    flat = root.ravel(order="K")
    same = (own.shape, own.strides, own.dtype) == layout and kind in _kinds(np) and np.may_share_memory(flat, root)
    if not same or whole not in {None, (_address(own) - _address(root), root.nbytes)}:
        raise ValueError(
            "the object that owns the array's memory no longer has the layout that it had when the effects were stored"
        )
    start = _address(own) + offset - _address(flat)
    memory = flat if dtype.hasobject else flat.view(np.uint8)
    view = np.ndarray(shape, dtype, buffer=memory, offset=start, strides=strides)
    if writeable and not view.flags.writeable:
        raise ValueError("the owner of the array's memory is read-only")
    view.flags.writeable = writeable
    return view if kind is np.ndarray else view.view(kind)


@dataclass(slots=True)
class Bundle:
    """The values that the effects of a cell need. They are stored as one value, so that objects which they share are also shared after a reuse."""

    values: dict[str, Any] = field(default_factory=dict)
    """The values of variables, by name."""
    contents: list[tuple[Any, str, Any]] = field(default_factory=list)
    """A tuple for each object that the body changed in place: the object, which is stored as a link; the method for `replace_content` (``content`` or
    ``leaf``); and the content to restore."""
    streams: dict[str, Any] = field(default_factory=dict)
    """The states of random streams, by name."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The contents of files, by path."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Maps the name of a setting of a library to its value, for the settings whose values cannot be recorded as strings, for example because they are
    functions of the notebook."""

    def as_tuple(self) -> tuple[Any, ...]:
        """Return the bundle as a tuple, the form in which it is stored."""
        return (_FORM, self.values, self.contents, self.streams, self.files, self.settings)

    def __bool__(self) -> bool:
        """Return True unless the bundle is empty."""
        return bool(self.values or self.contents or self.streams or self.files or self.settings)


class Restoration:
    """Restores the effects of one execution in the notebook.

    Parameters
    ----------
    effects
        The effects of the execution.
    names
        The names that may be bound or deleted; None for all names.
    """

    def __init__(self, timeline: Timeline, body: CellBody, effects: Effects, names: Collection[str] | None = None) -> None:
        self._space = timeline.namespace
        self._body = body
        self.effects = effects
        self._names = names
        self._space_before = dict(timeline.namespace)
        self._views: dict[int, Any] = {}
        """The arrays that were made for links, by the number of the link."""

    def may(self, name: str) -> bool:
        """Return True if a name may be bound or deleted."""
        return self._names is None or name in self._names

    def define(self) -> list[Definition]:
        """Execute the imports, functions and classes of the body again, in order.

        Returns
        -------
        list
            The definitions that ended with a NameError. They must be executed again after the variables are bound.

        Raises
        ------
        Exception
            If a definition ends with any other exception, which an import or a decorator may raise.
        """
        waiting = []
        for number in self.effects.definitions:
            if number >= len(self._body.definitions):
                continue
            definition = self._body.definitions[number]
            names = definition.names
            if not any(self.may(name) for name in names) if names else self._names is not None:
                continue
            if names and definition.is_import and all(isinstance(self._space.get(name), ModuleType) for name in names):
                continue
            try:
                exec(definition.code, self._space)  # noqa: S102 - the user's own cell
            except NameError:
                waiting.append(definition)
        return waiting

    def link(self, found: Any) -> Any:
        """Return the object to which a link refers.

        Parameters
        ----------
        found
            The link, as `LiveRun.link` returned it.
        """
        kind, name, address = found
        if kind == "view":
            number = address[0]
            if number not in self._views:
                self._views[number] = view_of(name, address)
            return self._views[number]
        if kind == "module":
            return sys.modules.get(name) or import_module(name)
        return resolve(self._space_before if kind == "was" else self._space, name, address)

    def forget_views(self) -> None:
        """Discard the arrays that were made for links, because the value with these links will be loaded again."""
        self._views.clear()

    def apply(self, plain: tuple[Any, ...], *, skip_objects: bool) -> list[str]:
        """Bind the variables of a stored `Bundle`, and replace the contents of objects in place. Return the names that were bound.

        Parameters
        ----------
        plain
            The bundle as loaded from the store: the result of `Bundle.as_tuple`.
        skip_objects
            True if the contents of objects stay as they are.

        Raises
        ------
        NotRestorableError
            If an object does not accept the stored content.
        """
        bound = self.bind(plain)
        for item, how, value in () if skip_objects else plain[2]:
            replace_content(item, how, value)
        return bound

    def bind(self, plain: tuple[Any, ...]) -> list[str]:
        """Bind the variables of a stored `Bundle`, and return their names. The parameter is that of `apply`."""
        values = {name: value for name, value in plain[1].items() if name != RESULT and self.may(name)}
        self._space.update(values)
        return [*values]

    def delete(self) -> list[str]:
        """Delete those names that the step deleted and that `may` allows to delete. Return them."""
        names = [name for name in self.effects.deleted if self.may(name)]
        for name in names:
            self._space.pop(name, None)
        return names

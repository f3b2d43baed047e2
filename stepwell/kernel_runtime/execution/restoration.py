# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH117, PTH118, PTH120, PTH123, PTH202, PTH206 - plain strings, as the recorder has them
"""Restores the effects of a reused step: files, definitions, variables, the contents of objects in place, arrays that share memory.

Only files inside the project's folder are restored. A file that anything other than a step has changed is never touched, and links are
never followed. Small files are kept in the store; if a large file is lost, the step runs again.

A slice of an array of the notebook is stored as a link: the owner of the memory, and the position in the memory. The owner is an array, a
pandas frame or a bytearray, in the notebook or among the stored objects. Two pandas frames that share memory are not views of each
other, because pandas copies on write.
"""

from __future__ import annotations

import array
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
FOLDER = "/"
_CACHES = ("__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".cache", ".stepwell")
_JOURNALS = ("-wal", "-shm", "-journal", ".wal", ".lock")

_FORM = 2
"""The version of the bundle's format: the first item of a stored bundle."""

WasWritten = Callable[[str, str], bool]
"""Takes a path in the form of `FileEffect.path` and a digest; returns True if a step is known to have written the file with this digest."""


def taken_files(recorder: ReadRecorder, project: Path) -> tuple[tuple[FileEffect, ...], dict[str, bytes]]:
    """Return the files and folders that a step wrote, created or removed, and the contents of small files by path."""
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
    """Return the digest of a file's content, `FOLDER` for a folder, or None for anything else and for a missing path."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return FOLDER
    return file_digest(path) if stat.S_ISREG(mode) else None


@dataclass(slots=True)
class FilesToRestore:
    """The changes to the project's files that the reuse of a step requires.

    Attributes
    ----------
    obstacle
        The reason why the step must run; empty if the step can be reused.
    left_paths
        Paths that are not restored, because something other than a step changed them.
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
    has_appended: Callable[[str], bool],
) -> FilesToRestore:
    """Compare the project's files with the states in which a step left them.

    Parameters
    ----------
    has_appended
        Takes a path in the form of `FileEffect.path`; returns True if the file contains the data that the step appended in this kernel.
        Data that later steps appended stays.
    cell_runs
        True if the step's cell runs or the request names the step; otherwise existing files are not touched.
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
        lost = not os.path.lexists(path)
        if (
            cell_runs
            and effect.appended
            and now != effect.digest_before
            and (lost or was_written(effect.path, now or ""))
        ):
            # The step appends to a file that another step has written since.
            if lost or not has_appended(effect.path):
                todo.obstacle = f"it appends to {effect.path}, which others have written"
            continue
        if not lost:
            if not cell_runs:
                continue
            if now is None or now == FOLDER or not (now == effect.digest_before or was_written(effect.path, now)):
                todo.left_paths.append(effect.path)
                continue
        if effect.digest == "":
            todo.remove.append(effect.path)
        elif effect.is_stored:
            todo.write.append(effect.path)
        else:
            todo.obstacle = f"{effect.path}, which it wrote, is lost and too large to be stored"
    return todo


def lost_file(path: str, project: Path, files: Mapping[str, tuple[str, str]], store: ValueStore) -> str:
    """Return a note about a missing file that a step wrote; empty for any other path.

    Parameters
    ----------
    files
        The digest and the writing step, by path, of each file that the steps of this kernel wrote: `Timeline.files`.
    """
    name = os.path.relpath(path, os.path.realpath(project))
    if os.path.lexists(path) or name.startswith(os.pardir):
        return ""
    digest, key = files.get(name) or next(left_states(name, store), ("", ""))
    return f"{name} was written by {key} and is gone: run the cell of {key}" if digest else ""


def left_states(path: str, store: ValueStore) -> Iterator[tuple[str, str]]:
    """Yield the digests of a file of the project after steps wrote it, with the keys of the steps, from trusted records; newest first."""
    for item in store.catalog.ask(read_writers, path):
        if vouches(store.signer, item):
            for file in Effects.from_text(item.effects).files:
                if file.path == path:
                    yield file.digest, item.key.rpartition(":")[0]


def restore_files(todo: FilesToRestore, contents: Mapping[str, bytes], project: Path) -> None:
    """Make the changes that `compare_files` returned; raises OSError or KeyError on failure."""
    root = os.path.realpath(project)
    for name in todo.folders:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    for name in todo.remove:
        os.unlink(os.path.join(root, name))
    for name in todo.write:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # A temporary file in the same folder is renamed, so that a link created at the path meanwhile is replaced and never followed.
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
    """Return True if a path is inside the project and no part of it is a link."""
    root = os.path.realpath(project)
    folder = os.path.dirname(path)
    return os.path.normpath(path).startswith(os.path.join(root, "")) and os.path.realpath(folder) == os.path.normpath(
        folder
    )


_MOST_COMPARED = 200
"""The maximum number of arrays over the same memory with which an array is compared."""


@dataclass(slots=True)
class MemoryRange:
    """A range of memory, and the object that holds it."""

    array: Any
    holder: Any
    part: tuple[Any, ...]
    """The array inside the holder: empty if the holder is the array, ``("buffer",)`` for a buffer, ``("column", 2)`` for the block of a frame
    that begins with this column."""
    root: Any
    """The array at the end of the chain of bases."""
    start: int
    end: int
    linked: bool
    """True if the array can be stored as a link, because the stored form contains it as an array."""
    memory: int
    """An identifier of the memory: equal for all arrays over the same memory."""

    def has(self, other: MemoryRange) -> bool:
        """Return True if this range contains another."""
        return self.start <= other.start and other.end <= self.end

    def meets(self, other: MemoryRange) -> bool:
        """Return True if this range overlaps another."""
        return self.start < other.end and other.start < self.end


def has_arrays(values: Iterable[Any]) -> bool:
    """Return True if some objects include an array or a frame."""
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    kinds = (*(() if np is None else (np.ndarray,)), *(() if pd is None else (pd.DataFrame, pd.Series)))
    return any(issubclass(type(value), kinds) for value in values)


def held_by(values: Iterable[Any]) -> Iterator[MemoryRange]:
    """Yield the memory of each array, frame and buffer among some objects."""
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
    """Return the arrays of a pandas frame, each after the position of its first column; return an empty list for any other object."""
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    if np is None or pd is None or not issubclass(type(frame), (pd.DataFrame, pd.Series)):
        return []
    try:
        blocks = frame._mgr.blocks  # noqa: SLF001 - no public way tells what is shared
        return [(int(block.mgr_locs.as_array[0]), block.values) for block in blocks if type(block.values) is np.ndarray]
    except Exception:
        # A subclass of the user may raise any exception.
        return []


def _kinds(np: Any) -> tuple[type, ...]:
    return (np.ndarray, np.matrix, np.recarray)


def _column(frame: Any, at: int) -> Any:
    """Return a column of a frame as an array over its memory, or None if it is not a numpy array."""
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
    """An array that is stored as a link."""

    owner: Any
    """The array, or the frame that holds it; the reference keeps its `id` unique."""
    holder: Any
    """The owner of the memory: stored in place of the array."""
    link: tuple[Any, ...]
    """The number of the link, and the position in the memory for `view_of`."""


def views(stored_objects: Iterable[Any], notebook_objects: Iterable[Any]) -> dict[int, View]:
    """Return the arrays among some objects that are stored as links, by `id`.

    Parameters
    ----------
    stored_objects
        The objects that are stored.
    notebook_objects
        Objects that exist in the notebook when the stored objects are loaded.
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
    """Find the links among arrays over one memory."""
    # Sorted by size, the largest first: an array can only be a link to an array before it.
    order = sorted(group, key=lambda part: (part.start - part.end, part.array is not part.root))
    for position, part in enumerate(order):
        if not part.linked or id(part.array) in links:
            continue
        firm = [*others[:_MOST_COMPARED], *[other for other in order if other.part][:_MOST_COMPARED]]
        firm = [other for other in firm if _may_own(other, part)]
        before = [other for other in order[: min(position, _MOST_COMPARED)] if not other.part and _may_own(other, part)]
        owner = next((other for other in (*firm, *before) if other.has(part)), firm[0] if firm else None)
        after = order[position + 1 : position + 1 + _MOST_COMPARED]
        # The stored form of a non-contiguous array lacks the memory between its elements.
        keeps = part.array.flags.forc
        if owner is None and (
            before or any(_may_own(other, part) and not (keeps and part.has(other)) for other in after)
        ):
            # The arrays overlap, and neither stored form contains the other: both become views of the array at the end of the chain of bases.
            owner = replace(part, array=part.root, holder=part.root, part=())
        if owner is not None:
            links[id(part.array)] = View(part.holder, owner.holder, (len(links), *_link(owner, part)))


def _may_own(other: MemoryRange, part: MemoryRange) -> bool:
    """Return True if an array can be a link to the memory of another object."""
    if part.part and (other.part or not other.array.flags.writeable):
        # Frames keep track of shared memory themselves. Arrays that they return over shared memory are read-only.
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
    """Return the array that a link describes, over the memory of an object.

    Raises
    ------
    ValueError
        If the layout of the object differs from that of the recorded owner of the memory.
    """
    np = sys.modules["numpy"]
    _, part, layout, whole, offset, (shape, strides, dtype), writeable, kind = link
    own = np.frombuffer(holder, np.uint8) if part == ("buffer",) else _column(holder, part[1]) if part else holder
    root = _root(np, own)
    flat = root.ravel(order="K")
    same = (own.shape, own.strides, own.dtype) == layout and kind in _kinds(np) and np.may_share_memory(flat, root)
    if not same or whole not in {None, (_address(own) - _address(root), root.nbytes)}:
        raise ValueError("the owner of the array's memory has a different layout")
    start = _address(own) + offset - _address(flat)
    memory = flat if dtype.hasobject else flat.view(np.uint8)
    view = np.ndarray(shape, dtype, buffer=memory, offset=start, strides=strides)
    if writeable and not view.flags.writeable:
        raise ValueError("the owner of the array's memory is read-only")
    view.flags.writeable = writeable
    return view if kind is np.ndarray else view.view(kind)


@dataclass(slots=True)
class Bundle:
    """The effects of a body on the notebook, stored as one value so that shared objects stay shared."""

    values: dict[str, Any] = field(default_factory=dict)
    """Variables by name."""
    contents: list[tuple[Any, str, Any]] = field(default_factory=list)
    """The changed objects (stored as links), each with ``content`` or ``leaf`` and the content to restore."""
    streams: dict[str, Any] = field(default_factory=dict)
    """States of random streams."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Contents of files by path."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of libraries that cannot be recorded as strings: functions of the notebook, objects of libraries."""

    def as_tuple(self) -> tuple[Any, ...]:
        """Return the tuple that is stored."""
        return (_FORM, self.values, self.contents, self.streams, self.files, self.settings)

    def __bool__(self) -> bool:
        """Return True unless the bundle is empty."""
        return bool(self.values or self.contents or self.streams or self.files or self.settings)


class Restoration:
    """Restores a step's effects in the notebook.

    Parameters
    ----------
    names
        Names that may be bound; None for all.
    """

    def __init__(
        self, timeline: Timeline, body: CellBody, effects: Effects, names: Collection[str] | None = None
    ) -> None:
        self._space = timeline.namespace
        self._body = body
        self.effects = effects
        self._names = names
        self._space_before = dict(timeline.namespace)
        self._views: dict[int, Any] = {}
        """The arrays created for links, by the number of the link."""

    def may(self, name: str) -> bool:
        """Return True if a name may be bound."""
        return self._names is None or name in self._names

    def define(self) -> list[Definition]:
        """Execute imports, functions and classes again, in order; return the definitions that need variables which are not bound yet.

        Raises
        ------
        Exception
            Any exception of an import or a decorator except NameError.
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
        """Return the object to which a link refers."""
        kind, name, address = found
        if kind == "view":
            number = address[0]
            if number not in self._views:
                self._views[number] = view_of(name, address)
            return self._views[number]
        if kind == "module":
            return sys.modules.get(name) or import_module(name)
        return resolve(self._space_before if kind == "was" else self._space, name, address)

    def apply(self, plain: tuple[Any, ...], *, skip_objects: bool) -> list[str]:
        """Bind variables and restore contents in place; return the names that were bound.

        Raises
        ------
        NotRestorableError
            If an object does not accept the stored content.
        """
        values, changes = plain[1:3]
        bound = []
        for name, value in values.items():
            if name != RESULT and self.may(name):
                self._space[name] = value
                bound.append(name)
        for item, how, value in () if skip_objects else changes:
            replace_content(item, how, value)
        return bound

    def delete(self) -> list[str]:
        """Remove the names that the step deleted; return them."""
        names = [name for name in self.effects.deleted if self.may(name)]
        for name in names:
            self._space.pop(name, None)
        return names

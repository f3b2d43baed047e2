"""Restores in the notebook what a reused step left there: definitions, variables, the contents of objects in place, arrays over one memory.

A slice of an array of the notebook is stored as a link: the owner of the memory, and the position in it. The owner is an array, a frame of
pandas or a bytearray, of the notebook or among the stored objects. Two frames of pandas that share memory are not views of each other:
pandas copies on write.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, Definition
from stepwell.kernel_runtime.execution.addresses import put, resolve
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.records.effects import RESULT, Effects

_MOST_COMPARED = 200
"""Arrays over one memory that one of them is compared with."""


@dataclass(slots=True)
class Held:
    """Memory, and the object that has it."""

    array: Any
    holder: Any
    part: tuple[Any, ...]
    """Which array of the holder: nothing for itself, ``("buffer",)``; of a frame, the first column that is in it, ``("column", 2)``."""
    root: Any
    """The array at the end of the chain of bases."""
    start: int
    end: int
    linked: bool
    """Whether it can be stored as a link: it is an array that the stored form holds as such."""
    memory: int
    """The same for all that is over the same memory."""

    def has(self, other: Held) -> bool:
        """Return True if the memory of another lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def meets(self, other: Held) -> bool:
        """Return True if the two have memory in common."""
        return self.start < other.end and other.start < self.end


def has_arrays(values: Iterable[Any]) -> bool:
    """Return True if there may be an array among some objects, or a frame that holds one."""
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    kinds = (*(() if np is None else (np.ndarray,)), *(() if pd is None else (pd.DataFrame, pd.Series)))
    return any(issubclass(type(each), kinds) for each in values)


def held_by(values: Iterable[Any]) -> Iterator[Held]:
    """Yield the memory of each array, frame and buffer among some objects."""
    np = sys.modules.get("numpy")
    if np is None:
        return
    pd = sys.modules.get("pandas")
    for item in values:
        if issubclass(type(item), np.ndarray):
            yield from _held(np, item, item, (), linked=type(item) in _kinds(np))
        elif type(item) in {bytearray, array.array}:
            yield from _held(np, np.frombuffer(item, np.uint8), item, ("buffer",), linked=False)
        elif pd is not None and issubclass(type(item), (pd.DataFrame, pd.Series)):
            for at, block in blocks_of(item):
                yield from _held(np, block, item, ("column", at), linked=True)


def blocks_of(frame: Any) -> list[tuple[int, Any]]:
    """Return the arrays that a frame of pandas consists of, each with the first column that is in it; none of another object."""
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    if np is None or pd is None or not issubclass(type(frame), (pd.DataFrame, pd.Series)):
        return []
    try:
        blocks = frame._mgr.blocks  # noqa: SLF001 - no public way tells what is shared
        return [(int(each.mgr_locs.as_array[0]), each.values) for each in blocks if type(each.values) is np.ndarray]
    except Exception:
        # A frame may be of a class of the user's, which may raise anything.
        return []


def _kinds(np: Any) -> tuple[type, ...]:
    return (np.ndarray, np.matrix, np.recarray)


def _column(frame: Any, at: int) -> Any:
    """Return a column's own memory, or None if it is no array of numpy."""
    column = frame.iloc[:, at] if frame.ndim == 2 else frame
    return column.to_numpy() if type(column.dtype).__module__.startswith("numpy") else None


def _held(np: Any, found: Any, holder: Any, part: tuple[Any, ...], *, linked: bool) -> Iterator[Held]:
    bounds = _bounds(found)
    if bounds is not None:
        root = _root(np, found)
        base = root.base.obj if isinstance(root.base, memoryview) else root.base
        yield Held(found, holder, part, root, *bounds, linked, id(root if base is None else base))


def _root(np: Any, found: Any) -> Any:
    while isinstance(found.base, np.ndarray):
        found = found.base
    return found


def _bounds(found: Any) -> tuple[int, int] | None:
    if not found.size:
        return None
    start = end = _address(found)
    for step, length in zip(found.strides, found.shape, strict=True):
        if step < 0:
            start += step * (length - 1)
        else:
            end += step * (length - 1)
    return start, end + found.itemsize


# -- links -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class View:
    """An array that is stored as a link."""

    inside: Any
    """The array itself, or the frame that holds it; kept, so that its identity stays unique."""
    holder: Any
    """The object whose memory it is: stored in its place."""
    link: tuple[Any, ...]
    """A number, and where in the memory it is, for `view_of`."""


def views(ours: Iterable[Any], theirs: Iterable[Any]) -> dict[int, View]:
    """Return the arrays among stored objects that are to be links, by identity.

    Parameters
    ----------
    ours
        The objects that are stored.
    theirs
        Objects that are there when the stored ones are loaded.
    """
    mine = list(held_by(ours))
    if not any(each.linked for each in mine):
        return {}
    others: dict[int, list[Held]] = {}
    for each in held_by(theirs):
        others.setdefault(each.memory, []).append(each)
    groups: dict[int, list[Held]] = {}
    for each in mine:
        groups.setdefault(each.memory, []).append(each)
    found: dict[int, View] = {}
    for memory, group in groups.items():
        if len(group) + len(others.get(memory, ())) > 1:
            _link_group(group, others.get(memory, []), found)
    return found


def _link_group(group: list[Held], others: list[Held], found: dict[int, View]) -> None:
    """Find the links among arrays over one memory."""
    # The largest first: an array is a link to one that comes before it.
    order = sorted(group, key=lambda each: (each.start - each.end, each.array is not each.root))
    for at, each in enumerate(order):
        if not each.linked or id(each.array) in found:
            continue
        firm = [*others[:_MOST_COMPARED], *[other for other in order if other.part][:_MOST_COMPARED]]
        firm = [other for other in firm if _may_own(other, each)]
        before = [other for other in order[: min(at, _MOST_COMPARED)] if not other.part and _may_own(other, each)]
        owner = next((other for other in (*firm, *before) if other.has(each)), firm[0] if firm else None)
        after = order[at + 1 : at + 1 + _MOST_COMPARED]
        # An array with gaps is stored without them.
        keeps = each.array.flags.forc
        if owner is None and (
            before or any(_may_own(other, each) and not (keeps and each.has(other)) for other in after)
        ):
            # They overlap, and none holds the other as it is stored: both are over the array at the end of their bases.
            owner = replace(each, array=each.root, holder=each.root, part=())
        if owner is not None:
            found[id(each.array)] = View(each.holder, owner.holder, (len(found), *_link(owner, each)))


def _may_own(other: Held, each: Held) -> bool:
    """Return True if an array can be a link to the memory of another object."""
    if each.part and (other.part or not other.array.flags.writeable):
        # Frames keep track of what they share. What they give of it as an array is read-only.
        return False
    return other.array is not each.array and other.holder is not each.holder and other.meets(each)


def _link(owner: Held, each: Held) -> tuple[Any, ...]:
    item = each.array
    own = owner.array if owner.part[:1] != ("column",) else _column(owner.holder, owner.part[1])
    inside = not owner.part and owner.has(each)
    return (
        owner.part,
        (own.shape, own.strides, own.dtype),
        None if inside else (_address(own) - _address(owner.root), owner.root.nbytes),
        _address(item) - _address(own),
        (item.shape, item.strides, item.dtype),
        item.flags.writeable,
        type(item),
    )


def _address(found: Any) -> int:
    return int(found.__array_interface__["data"][0])


def view_of(holder: Any, link: tuple[Any, ...]) -> Any:
    """Return the array that a link means, over the memory of an object.

    Raises
    ------
    ValueError
        If the object has another layout than the one whose memory it was.
    """
    np = sys.modules["numpy"]
    _, part, layout, whole, offset, (shape, strides, dtype), writeable, kind = link
    own = np.frombuffer(holder, np.uint8) if part == ("buffer",) else _column(holder, part[1]) if part else holder
    root = _root(np, own)
    flat = root.ravel(order="K")
    same = (own.shape, own.strides, own.dtype) == layout and kind in _kinds(np) and np.may_share_memory(flat, root)
    if not same or whole not in {None, (_address(own) - _address(root), root.nbytes)}:
        raise ValueError("the array whose memory it was has another layout")
    start = _address(own) + offset - _address(flat)
    memory = flat if dtype.hasobject else flat.view(np.uint8)
    made = np.ndarray(shape, dtype, buffer=memory, offset=start, strides=strides)
    if writeable and not made.flags.writeable:
        raise ValueError("the array whose memory it was is read-only")
    made.flags.writeable = writeable
    return made if kind is np.ndarray else made.view(kind)


class Restoration:
    """Puts a step's effects back into the notebook.

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
        self._before = dict(timeline.namespace)
        self._views: dict[int, Any] = {}
        """Arrays over memory of others that were made, by the number of their link."""

    def may(self, name: str) -> bool:
        """Return True if a name may be bound."""
        return self._names is None or name in self._names

    def define(self) -> list[Definition]:
        """Execute imports, functions and classes again, in order; return those that wait for variables.

        Raises
        ------
        Exception
            Whatever an import or a decorator raises.
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
        """Return the object that a link means."""
        kind, name, address = found
        if kind == "view":
            number = address[0]
            if number not in self._views:
                self._views[number] = view_of(name, address)
            return self._views[number]
        if kind == "module":
            return sys.modules.get(name) or import_module(name)
        return resolve(self._before if kind == "was" else self._space, name, address)

    def apply(self, plain: tuple[Any, ...], *, skip_objects: bool) -> list[str]:
        """Bind variables and put contents back; return the names that were bound.

        Raises
        ------
        NotRestorableError
            If an object takes no such content.
        """
        values, changes = plain[1:3]
        bound = []
        for name, value in values.items():
            if name != RESULT and self.may(name):
                self._space[name] = value
                bound.append(name)
        for item, how, value in () if skip_objects else changes:
            put(item, how, value)
        return bound

    def delete(self) -> list[str]:
        """Remove the names that the step deleted; return them."""
        names = [name for name in self.effects.deleted if self.may(name)]
        for name in names:
            self._space.pop(name, None)
        return names

"""Asset cells run in the notebook's own namespace: what a run left there is recorded, and a hit restores it.

A run is the plain cell: the body executes as module-level code with the notebook's variables as globals. Before it, the content of every
object that its code may change is noted; afterwards names and contents are compared. What the body left is stored as one more
output of the step (a `Bundle`) and described by `Effects`.

Objects are put back in place. References from stored content to objects that exist in the notebook (other variables, and objects that
the step changed in place) are stored as links, so that identities are kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, Definition
from stepwell.kernel_runtime.execution import contents
from stepwell.kernel_runtime.execution.contents import Address
from stepwell.kernel_runtime.execution.seeds import stream_states
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.records.effects import Effects
from stepwell.kernel_runtime.records.reads import Read
from stepwell.kernel_runtime.versions import library_state
from stepwell.kernel_runtime.versions.atoms import ATOMS
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.ownership import owner
from stepwell.kernel_runtime.versions.reads.environment import value_of
from stepwell.kernel_runtime.versions.reads.readers import seedings
from stepwell.kernel_runtime.versions.secrets import Environment, is_kept_back, looks_secret

_MISSING: Any = object()
_PYTHONS_OWN = frozenset(
    {"__builtins__", "__annotations__", "__annotate__", "__conditional_annotations__", "__warningregistry__"}
)
ENVIRONMENT = "environment:"
"""How the names of settings begin that are variables of the environment."""
_FORM = 1
"""The first item of a stored bundle."""


# -- objects ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """An object that a step may change, as it was before the body ran."""

    root: str
    """The name of the notebook through which it is reached."""
    address: Address
    """How it is reached from that name."""
    item: Any
    content: tuple[Any, ...] | None
    """Of a container."""
    digest: str | None
    """Of a leaf."""


class Inventory:
    """The objects behind some names of the notebook, as they are now.

    Parameters
    ----------
    names
        Names whose objects may be changed.
    """

    def __init__(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        self._namespace = namespace
        self.seen: dict[int, Seen] = {}
        """By identity. Each entry keeps its object alive, so that identities stay unique."""
        for name in sorted(names):
            value = namespace.get(name, _MISSING)
            if value is not _MISSING:
                self._enter(name, value)

    def _enter(self, root: str, value: Any) -> None:
        stack: list[tuple[Address, Any]] = [((), value)]
        first = len(self.seen)
        while stack:
            address, item = stack.pop()
            kind = type(item)
            if kind in ATOMS or id(item) in self.seen:
                continue
            if isinstance(item, type):
                if item.__module__ == "__main__":
                    self._note(root, address, item, content_of(item), None)
                    stack += [((*address, ("class", name)), each) for name, each in class_data(item).items()]
                continue
            if kind is FunctionType:
                if item.__globals__ is self._namespace:
                    self._note(root, address, item, content_of(item), None)
                    stack += [((*address, step), each) for step, each in _held_by(item)]
                continue
            if kind is ModuleType:
                if owner(item.__name__) is None:
                    self._note(root, address, item, content_of(item), None)
                    stack += [((*address, ("class", name)), each) for name, each in module_data(item).items()]
                continue
            if kind is not tuple and (not contents.has_content(item) or contents.is_inert(item)):
                continue
            if len(self.seen) - first > contents.MOST_CONTAINERS:
                # Too many to follow one by one. The whole is compared by its digest, and replaced as far as its type allows.
                self.seen = {key: seen for key, seen in self.seen.items() if seen.root != root}
                self._note(root, (), value, None, data_version(value))
                return
            if kind is tuple:
                self._note(root, address, item, (), None)
            elif contents.is_leaf(item):
                self._note(root, address, item, None, data_version(item))
                continue
            else:
                self._note(root, address, item, contents.content(item), None)
                if kind.__module__ == "__main__" and self._namespace.get(kind.__qualname__) is kind:
                    # A method may change an attribute of its class.
                    self._enter(kind.__qualname__, kind)
            stack += [((*address, step), each) for step, each in contents.members(item) if type(each) not in ATOMS]

    def _note(
        self, root: str, address: Address, item: Any, content: tuple[Any, ...] | None, digest: str | None
    ) -> None:
        self.seen[id(item)] = Seen(root, address, item, content, digest)

    def changed(self, suspects: Collection[str] | None = None) -> list[Seen]:
        """Return the objects whose content is another one now.

        Parameters
        ----------
        suspects
            Names whose objects count as changed if they have no digest: code may change them; None for all.
        """
        found = []
        for seen in self.seen.values():
            if seen.content is None:
                if seen.digest is None:
                    # Reading an iterator changes it.
                    if suspects is None or seen.root in suspects or contents.is_iterator(seen.item):
                        found.append(seen)
                elif data_version(seen.item) != seen.digest:
                    found.append(seen)
            elif type(seen.item) is not tuple and not contents.same_content(seen.content, content_of(seen.item)):
                found.append(seen)
        return found


def class_data(cls: type) -> dict[str, Any]:
    """Return the attributes of a class that hold data: what methods and cells assign to it."""
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith(("__", "_abc_")) and not isinstance(value, type) and not hasattr(type(value), "__get__")
    }


def module_data(module: ModuleType) -> dict[str, Any]:
    """Return the attributes of a local module that hold data."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("__") and not isinstance(value, (type, ModuleType)) and not callable(value)
    }


def _held_by(function: FunctionType) -> Iterable[tuple[tuple[str, Any], Any]]:
    for position, value in enumerate(function.__defaults__ or ()):
        yield ("default", position), value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield ("kwdefault", name), value
    for position, cell in enumerate(function.__closure__ or ()):
        with suppress(ValueError):
            yield ("closure", position), cell.cell_contents
    for name, value in vars(function).items():
        yield ("attr", name), value


def content_of(item: Any) -> tuple[Any, ...]:
    """Return the content of a container, of a class or local module, or of a function: its attributes and the variables that it closes over."""
    if type(item) is FunctionType:
        closure = tuple((place, *_cell_contents(cell)) for place, cell in enumerate(item.__closure__ or ()))
        return (("attributes", tuple(vars(item).items())), ("closure", closure))
    if type(item) is ModuleType:
        return (("class", tuple(module_data(item).items())),)
    if isinstance(item, type):
        return (("class", tuple(class_data(item).items())),)
    return contents.content(item)


def _cell_contents(cell: CellType) -> tuple[Any, ...]:
    """Return the value of a variable that a function closes over; nothing if it has none."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def resolve(namespace: Mapping[str, Any], root: str, address: Address) -> Any:
    """Return the object at an address; raises LookupError, AttributeError, TypeError or ValueError if there is none."""
    item: Any = namespace[root]
    for step in address:
        kind, name = step
        if kind == "class" or (kind == "attr" and isinstance(item, FunctionType)):
            item = vars(item)[name]
        elif kind == "default":
            item = item.__defaults__[name]
        elif kind == "kwdefault":
            item = item.__kwdefaults__[name]
        elif kind == "closure":
            item = item.__closure__[name].cell_contents
        else:
            item = contents.member(item, step)
    return item


def _put(item: Any, how: str, value: Any) -> None:
    """Replace the content of an object in place; raises `NotRestorableError`."""
    if how == "leaf":
        contents.put_leaf(item, value)
    elif type(item) is FunctionType:
        parts = dict(value)
        vars(item).clear()
        vars(item).update(parts["attributes"])
        for place, *given in parts.get("closure", ()):
            cell = (item.__closure__ or ())[place]
            if given:
                cell.cell_contents = given[0]
            elif _cell_contents(cell):
                del cell.cell_contents
    elif isinstance(item, (type, ModuleType)):
        entries = dict(value[0][1])
        now = class_data(item) if isinstance(item, type) else module_data(item)
        for name, each in entries.items():
            if now.get(name, _MISSING) is not each:
                setattr(item, name, each)
        for name in now.keys() - entries.keys():
            delattr(item, name)
    else:
        contents.put_content(item, value)


# -- a run -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bundle:
    """What a body left in the notebook: stored as one value, so that shared objects stay shared."""

    values: dict[str, Any] = field(default_factory=dict)
    """Variables by name."""
    put: list[tuple[Any, str, Any]] = field(default_factory=list)
    """Changed objects (stored as links), ``content`` or ``leaf``, and what is put there."""
    streams: dict[str, Any] = field(default_factory=dict)
    """States of random streams."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Contents of files by path."""

    def plain(self) -> tuple[Any, ...]:
        """Return what is stored."""
        return (_FORM, self.values, self.put, self.streams, self.files)

    def __bool__(self) -> bool:
        """Return True if there is anything to store."""
        return bool(self.values or self.put or self.streams or self.files)


class LiveRun:
    """One execution of a cell's body in the notebook.

    Parameters
    ----------
    names
        Names whose objects the body may change.
    arguments
        Values of inputs that the notebook does not have as they are needed; they are bound while the body runs.
    """

    def __init__(
        self, timeline: Timeline, body: CellBody, names: Collection[str], arguments: Mapping[str, Any]
    ) -> None:
        self._body = body
        self._space = space = timeline.namespace
        self.before = dict(space)
        self._placed = dict(arguments)
        space.update(arguments)
        self._inventory = Inventory(space, names)
        self._links: dict[int, str] = {}
        self._unchanged: dict[int, Seen] = {}
        self._changed_roots: set[str] = set()
        self._streams: dict[str, Any] = {}
        self._seedings = len(seedings)
        self._settings: library_state.Snapshot = {}
        self._covered: dict[str, Any] = {}
        self._rebound: set[str] = set()
        self.bundle = Bundle()
        self.suspects: frozenset[str] | set[str] | None = None
        """Names whose objects the body's own text, or functions that it uses, may change; None where that cannot be seen."""
        self.theirs: frozenset[str] = frozenset()
        """Names that are the user's: the step runs as an upstream and must give them back."""

    def cover(self, read: Collection[str]) -> None:
        """Take away numbers and texts that the body may bind again on some path: an equal one would be the same object.

        Parameters
        ----------
        read
            Names that the body, or a function that it uses, may read: they count by value, and stay.
        """
        body, space = self._body, self._space
        if body.sees_all:
            return
        said = _texts((body.code, body.tail))
        for name in body.bound - body.sure - set(read):
            if type(space.get(name, _MISSING)) in ATOMS and name not in said:
                self._covered[name] = space.pop(name)

    def _uncover(self) -> None:
        covered, self._covered = self._covered, {}
        for name, value in covered.items():
            if name in self._space:
                self._rebound.add(name)
            else:
                self._space[name] = value

    def watch_process(self) -> None:
        """Note the states of random streams and the settings of libraries, right before the body runs."""
        self._streams = stream_states()
        self._seedings = len(seedings)
        self._settings = library_state.snapshot()

    def seeded_streams(self) -> set[str]:
        """Return the random streams that the body seeded itself."""
        return {module.removesuffix(".random") for module in seedings[self._seedings :]}

    def stream_reads(self) -> tuple[Read, ...]:
        """Return the states of the random streams that the body drew from, as they were before."""
        return tuple(
            Read("stream", name, stream_digest(state))
            for name, state in self._streams.items()
            if name in self.bundle.streams
        )

    def changed_names(self) -> list[str]:
        """Return the names of the notebook whose objects were changed in place so far."""
        return list(dict.fromkeys(seen.root for seen in self._inventory.changed(self.suspects)))

    def bound(self) -> list[str]:
        """Return the names that the body has bound so far."""
        self._uncover()
        before, placed = self.before, self._placed
        # A number or text that the body reads and may bind counts with the value that it had: it is the body's, whether bound again or not.
        read = {name for name in self._body.bound & self._body.reads if type(self._space.get(name, _MISSING)) in ATOMS}
        own = self._body.sure | self._rebound | read
        return [
            name
            for name, value in self._space.items()
            if name not in _PYTHONS_OWN and (value is not placed.get(name, before.get(name, _MISSING)) or name in own)
        ]

    def finish(self, environment: Collection[str] = ()) -> Effects:
        """Compare the notebook with what it was; fill the bundle.

        Parameters
        ----------
        environment
            Names of the environment that the body set or removed.
        """
        space, body, bundle = self._space, self._body, self.bundle
        bound = self.bound()
        definitions, values = self._split(bound)
        outputs = [name for name in bound if name in body.outputs]
        changed = self._inventory.changed(self.suspects)
        self._changed_roots = {seen.root for seen in changed}
        self._links = {
            id(value): name
            for name, value in space.items()
            if name not in values and not name.startswith("_") and contents.has_content(value)
        }
        self._links.update({id(space[name]): name for name in outputs if contents.has_content(space[name])})
        bundle.values = {name: space[name] for name in values if name not in outputs}
        shared = self._shared(outputs, bundle.values.values())
        for name in shared:
            self._links.pop(id(space[name]), None)
        bundle.values = {**{name: space[name] for name in shared}, **bundle.values}
        lost = []
        for seen in changed:
            if any(
                is_kept_back("", dict(enumerate(part)))
                for _, part in (content_of(seen.item) if seen.content is not None else ())
            ):
                lost.append(seen.root)
            elif seen.content is not None:
                bundle.put.append((seen.item, "content", content_of(seen.item)))
            elif contents.can_be_put(seen.item):
                bundle.put.append((seen.item, "leaf", contents.leaf_state(seen.item)))
            else:
                lost.append(seen.root)
        for name, state in stream_states().items():
            before = self._streams.get(name)
            if before is None or stream_digest(before) != stream_digest(state):
                bundle.streams[name] = state
        entries = library_state.changed(self._settings, library_state.snapshot())
        secret = []
        if environment:
            # What the body sets is in the environment now: values that other variables have count.
            others = Environment(without=environment)
            secret = [
                name
                for name in environment
                if (value := value_of(name)) is not None and (looks_secret(name, value) or others.has(value, value))
            ]
        variables = [(f"{ENVIRONMENT}{name}", value_of(name)) for name in environment if name not in secret]
        deleted = tuple(name for name in self.before if name not in space)
        roots = tuple(dict.fromkeys(seen.root for seen in changed))
        return Effects(
            values=tuple(bundle.values),
            definitions=definitions,
            deleted=deleted,
            objects=roots,
            lost=(*dict.fromkeys(lost), *[name for name, text in entries if text is None], *secret),
            streams={name: stream_digest(state) for name, state in bundle.streams.items()},
            state=(*[(name, text) for name, text in entries if text is not None], *variables),
        )

    def leave_out(self, size: float) -> list[str]:
        """Take variables out of the bundle that are secret, or too large to be stored in passing; return their names.

        Parameters
        ----------
        size
            Bytes that may be stored; never more than 1 GB.
        """
        values = self.bundle.values
        found = [name for name, value in values.items() if name not in self._body.outputs and is_kept_back(name, value)]
        for name in found:
            del values[name]
        sizes = {name: size_of(value) for name, value in values.items() if name not in self._body.outputs}
        left = sum(sizes.values())
        for name in sorted(sizes, key=lambda each: -sizes[each]):
            if left <= min(size, 1e9):
                break
            left -= sizes[name]
            del values[name]
            found.append(name)
        return found

    def _split(self, bound: list[str]) -> tuple[tuple[int, ...], list[str]]:
        """Return the definitions that were executed, and the names that hold values."""
        by_name: dict[str, list[int]] = {}
        for place, definition in enumerate(self._body.definitions):
            for name in definition.names:
                by_name.setdefault(name, []).append(place)
        executed: set[int] = set()
        values: list[str] = []
        for name in bound:
            number: int | None = next(
                (
                    each
                    for each in reversed(by_name.get(name, []))
                    if _gave(self._body.definitions[each], self._space[name], alone=name not in self._body.stored)
                ),
                None,
            )
            if number is None:
                values.append(name)
            else:
                executed.add(number)
        for place, definition in enumerate(self._body.definitions):
            # An import of what is bound already changes nothing now, and binds the name in a fresh kernel.
            if definition.is_import and all(name in self._space for name in definition.names):
                executed.add(place)
        return tuple(sorted(executed)), values

    def _shared(self, outputs: Sequence[str], values: Iterable[Any]) -> list[str]:
        """Return the outputs that have objects in common with each other, with other variables, or with the notebook.

        These are stored with what they share, so that it is shared again after a hit.
        """
        space = self._space
        candidates = [name for name in outputs if contents.has_content(space[name])]
        if not candidates:
            return []
        inside = {name: _objects_in([space[name]]) for name in candidates}
        read = [
            name
            for name in (*self._body.reads, *self._body.parameters)
            if name in space and name not in outputs and contents.has_content(space[name])
        ]
        others = _objects_in([*values, *[space[name] for name in read]])
        found = []
        for name in candidates:
            elsewhere = set().union(others, *[inside[other] for other in candidates if other != name])
            if not inside[name].isdisjoint(elsewhere):
                found.append(name)
        if found:
            # Where the shared objects are in the notebook. What the body may have changed is known from before it.
            held = set().union(*[inside[name] for name in found])
            roots = [name for name in read if not held.isdisjoint(_objects_in([space[name]]))]
            self._unchanged = {
                key: seen
                for key, seen in Inventory(space, roots).seen.items()
                if key not in self._inventory.seen and seen.root not in self._changed_roots
            }
        return found

    def link(self, item: Any) -> Any:
        """Return the link to an object that is not stored by value; None for others."""
        kind = type(item)
        if kind in ATOMS or kind is tuple:
            return None
        seen = self._inventory.seen.get(id(item)) or self._unchanged.get(id(item))
        if kind is ModuleType:
            return ("module", item.__name__, ()) if item.__name__ in sys.modules else None
        if kind is FunctionType or isinstance(item, type):
            name = getattr(item, "__qualname__", "")
            if item.__module__ == "__main__" and self._space.get(name) is item:
                return ("at", name, ())
            return ("at", seen.root, seen.address) if seen is not None else None
        linked = self._links.get(id(item))
        if seen is not None and (linked is None or linked in self._body.outputs):
            return ("at", seen.root, seen.address)
        return ("at", linked, ()) if linked is not None else None

    def give_back(self) -> None:
        """Bind the user's names as before, and the names of inputs that were bound for this run only."""
        for name, value in self._placed.items():
            if self._space.get(name, _MISSING) is value and name in self.before:
                self._space[name] = self.before[name]
        for name in self.theirs:
            self._space[name] = self.before[name]


def _texts(codes: Iterable[CodeType | None]) -> set[str]:
    """Return the words in the texts of code: names that it may look up."""
    found: set[str] = set()
    pending: list[Any] = list(codes)
    while pending:
        item = pending.pop()
        if isinstance(item, CodeType):
            pending.extend(item.co_consts)
        elif isinstance(item, (tuple, frozenset)):
            pending.extend(item)
        elif isinstance(item, str):
            found.update(re.findall(r"\w+", item))
    return found


def size_of(value: Any) -> int:
    """Return about how many bytes the stored form of a value has, without looking at all of it."""
    try:
        return _size_of(value)
    except Exception:
        # An object may raise anything when it is asked for an attribute.
        return sys.getsizeof(value, 64)


def _size_of(value: Any) -> int:
    top = type(value).__module__.partition(".")[0]
    if top in {"numpy", "pyarrow", "torch"}:
        return int(value.nbytes)
    if top == "pandas":
        usage = value.memory_usage(deep=False)
        return int(usage if isinstance(usage, int) else usage.sum()) * 2
    if top == "polars":
        return int(value.estimated_size())
    if isinstance(value, (dict, list, tuple, set)) and value:
        some = [each for each, _ in zip(value.items() if isinstance(value, dict) else value, range(64), strict=False)]
        return len(value) * sum(size_of(each) for each in some) // len(some)
    return sys.getsizeof(value, 64)


def stream_digest(state: Any) -> str:
    """Return the digest of a random stream's state."""
    return data_version(state) or ""


def _gave(definition: Definition, value: Any, *, alone: bool) -> bool:
    """Return True if a definition gave a name its value."""
    if alone:
        return True
    if definition.is_import:
        return isinstance(value, ModuleType)
    code = getattr(getattr(value, "__wrapped__", value), "__code__", None)
    return isinstance(code, CodeType) and code.co_firstlineno == definition.line


def _objects_in(values: Iterable[Any]) -> set[int]:
    """Return the identities of the mutable objects in some values."""
    found: dict[int, Any] = {}
    stack = list(values)
    while stack and len(found) < contents.MOST_CONTAINERS:
        item = stack.pop()
        if id(item) in found or not (type(item) is tuple or contents.has_content(item)):
            continue
        found[id(item)] = item
        if not contents.is_leaf(item):
            stack += [each for _, each in contents.members(item)]
    return {key for key, item in found.items() if type(item) is not tuple}


# -- a hit -----------------------------------------------------------------------------------------------------------


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
        self._effects = effects
        self._names = names

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
        for number in self._effects.definitions:
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
        if kind == "module":
            return sys.modules.get(name) or import_module(name)
        return resolve(self._space, name, address)

    def apply(self, plain: tuple[Any, ...], *, skip_objects: bool) -> list[str]:
        """Bind variables and put contents back; return the names that were bound.

        Raises
        ------
        NotRestorableError
            If an object takes no such content.
        """
        _, values, put, _, _ = plain
        bound = []
        for name, value in values.items():
            if self.may(name):
                self._space[name] = value
                bound.append(name)
        for item, how, value in () if skip_objects else put:
            _put(item, how, value)
        for name in self._effects.deleted:
            if self.may(name):
                self._space.pop(name, None)
        return bound

"""The timeline of one kernel: which cell or step bound and changed each name of the notebook, and when each step was brought up to date.

The rules are those of a notebook. A name can be bound several times, so
"the value of `df`" has a meaning only at a point of the timeline. The timeline answers three questions:

* Is a variable still the value of its asset, or did a plain cell change it? (`asset_of`)
* A step that was brought up to date here reads other values now. Is that an edit, which makes it stale, or did *another* cell assign the
  same names again, or the step's own effects change them? (`pin`)
* Which names may Stepwell bind without taking a variable away from the user? (`may_bind`)
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.errors import StepwellError
from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.execution.contents import database_state, has_content
from stepwell.kernel_runtime.execution.world import OTHER, World, Writer, stream_states
from stepwell.kernel_runtime.planning.decision import PULLS, Kind
from stepwell.kernel_runtime.reads.checks import UNSTABLE, what_changed
from stepwell.kernel_runtime.reads.recorder import value_digest
from stepwell.kernel_runtime.records.materializations import CodeVersion, Materialization, Read, is_provenance
from stepwell.kernel_runtime.versions import library_state, queries
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.encode import ATOMS
from stepwell.kernel_runtime.versions.graph import MISSING

_GONE: Any = object()


@dataclass(slots=True)
class Bound:
    """A variable that Stepwell bound to the value of an asset."""

    key: str
    materialization: str
    data_version: str
    ref: Callable[[], Any] | None
    """Weak reference; None for types that take none."""
    strong: Any
    unchanged_at: int
    """Number of events after which the variable was last known to be as bound."""
    changed_by: str = ""
    """Label of the cell that changed it in place; empty if none did."""

    def value(self) -> Any:
        """Return the object that was bound, or None if it is gone."""
        return self.ref() if self.ref is not None else self.strong


@dataclass(slots=True)
class Memory:
    """When a step was last brought up to date in this kernel, and with what."""

    number: int
    """Number of events before it."""
    code: str
    """The digest of the code version then."""
    asset_names: tuple[tuple[str, str], ...]
    """The assets that its code read as globals, as in a code version."""
    source: object
    """The text of its body then: another text is an edit of the step itself."""
    materializations: frozenset[str]
    settings: library_state.Snapshot
    """The settings of libraries and of the process."""
    statements: int
    """The number of statements that cells had executed on DuckDB's default connection."""
    databases: dict[str, str | None] = field(default_factory=dict)
    """By variable, the states of the databases that its files, connections and the like lead to; None where that is not known."""


class Unstored:
    """Stands for the result of a reused cell that was not stored, until it is needed.

    Parameters
    ----------
    key
        Of an asset of the cell.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        """Say how to get it."""
        return f"<not stored: run the cell of {self.key} with -f>"


class Timeline:
    """The events of the names of one notebook.

    Parameters
    ----------
    namespace
        The notebook's variables, live.
    load
        Returns the current value of a key, as a separate copy.
    project
        The folder of the project: files that steps wrote are restored only below it.

    Attributes
    ----------
    world
        Who changed files, the environment and the like that steps read.
    unstored
        Variables that a reused cell assigned and whose values are not stored, each with the key of an asset of that cell.
    handles
        Those of them that are files and the like: they are not computed before code needs them.
    results
        By step key, the value of the last expression of a cell that has just run, until the shell has it.
    requested
        Keys of the steps that the current request names: their cell runs, or they were asked for by name. They read names as they are now.
    cells
        Those of them whose own cell runs: it binds its names even if others bound them before.
    only_unbound
        Whether such a cell runs for names that are not bound, and leaves the others as they are.
    pinned
        Keys of steps that count with the code version that they had, although names that they read are others now.
    """

    def __init__(self, namespace: dict[str, Any], load: Callable[[str], Any], project: Path) -> None:
        self.namespace = namespace
        self.project = project
        self.world = World(project)
        self.unstored: dict[str, str] = {}
        self.handles: set[str] = set()
        self.results: dict[str, Any] = {}
        self._load = load
        self.requested: frozenset[str] = frozenset()
        self.cells: frozenset[str] = frozenset()
        self.only_unbound = False
        self._reassigned: dict[str, dict[str, tuple[str, str]]] = {}
        """By step key, the names that other cells assigned again since it was brought up to date: the cells that assigned them then and now."""
        self.pinned: set[str] = set()
        self._count = 0
        self._binds: dict[str, list[tuple[int, Writer]]] = {}
        self._changes: dict[str, list[tuple[int, Writer]]] = {}
        self._group: dict[str, str] = {}
        """Names that may share objects have the same group."""
        self._sources: dict[str, frozenset[str]] = {}
        """By variable, the keys of the steps and assets that its value was made from."""
        self._bound: dict[str, Bound] = {}
        self._waiting: dict[str, Materialization] = {}
        self._memories: dict[str, Memory] = {}
        self._earlier: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    # -- events

    def note(
        self, writer: Writer, *, bound: Collection[str] = (), changed: Collection[str] = (), read: Collection[str] = ()
    ) -> None:
        """Record that a cell or step bound names, may have changed objects behind names, and read others."""
        self._count += 1
        event = (self._count, writer)
        if writer.kind == "cell":
            self.world.ran(writer, self._count)
        for name in bound:
            self.unstored.pop(name, None)
            self.handles.discard(name)
            self._binds.setdefault(name, []).append(event)
            self._group.pop(name, None)
        for name in changed:
            self._changes.setdefault(name, []).append(event)
        self._note_sources(writer, bound, changed, read)
        # What a cell binds may share objects with what it read or changed.
        space = self.namespace
        shared = [name for name in {*bound, *changed, *read} if name in space and has_content(space[name])]
        if len(shared) > 1:
            groups = {self._group.get(name, name) for name in shared}
            target = min(groups)
            for name, group in list(self._group.items()):
                if group in groups:
                    self._group[name] = target
            for name in shared:
                self._group[name] = target

    def with_aliases(self, names: Iterable[str]) -> set[str]:
        """Return names, and all others that may share objects with them."""
        aliases = set(names)
        groups = {group for name in aliases if (group := self._group.get(name)) is not None}
        return aliases | {name for name, group in self._group.items() if group in groups}

    def _note_sources(
        self, writer: Writer, bound: Collection[str], changed: Collection[str], read: Collection[str]
    ) -> None:
        if writer.kind == "step":
            sources = frozenset({writer.id} - {""})
        else:
            sources = frozenset().union(*[self.sources(name) for name in read])
        for name in bound:
            self._sources[name] = sources
        for name in changed if sources else ():
            self._sources[name] = self._sources.get(name, frozenset()) | sources

    def sources(self, name: str) -> frozenset[str]:
        """Return the keys of the steps and assets that the value of a variable was made from."""
        bound = self.bound_to(name)
        sources = self._sources.get(name, frozenset())
        return sources | {bound.key} if bound is not None else sources

    def made_from(self, step_key: str, body: object) -> dict[str, str]:
        """Return the steps and assets from whose values the plain variables that a step reads were made: by key, the variable."""
        variables: dict[str, str] = {}
        for name in sorted(body.reads - set(body.parameters)) if isinstance(body, CellBody) else ():
            if name in self.namespace:
                variables.update(dict.fromkeys(self.sources(name) - {step_key}, name))
        return variables

    def left_by(self, step_key: str, body: object) -> list[str]:
        """Return the steps that bound variables, other than assets, which a step reads."""
        names = body.reads if isinstance(body, CellBody) else ()
        writers = [self.binder(name) for name in sorted(names) if name in self.namespace]
        return [
            writer.id
            for writer in writers
            if writer is not None and writer.kind == "step" and writer.id not in {"", step_key}
        ]

    def binder(self, name: str) -> Writer | None:
        """Return who bound a name last, or None if nothing is known of it."""
        events = self._binds.get(name)
        return events[-1][1] if events else None

    def place(self, name: str) -> str:
        """Return the cell that bound a variable or changed it last: ``cell 5``; empty if none is known."""
        events = [*self._binds.get(name, ()), *self._changes.get(name, ())]
        return max(events, key=lambda event: event[0])[1].place if events else ""

    def _since(self, name: str, number: int) -> list[tuple[int, Writer]]:
        """Return the events after a number that bound a name, or may have changed its object under any name."""
        events = [event for event in self._binds.get(name, ()) if event[0] > number]
        group = self._group.get(name)
        names = [name] if group is None else [other for other, its_group in self._group.items() if its_group == group]
        for other in names:
            events += [event for event in self._changes.get(other, ()) if event[0] > number]
        return sorted(events, key=lambda event: event[0])

    # -- variables that are values of assets

    def bind(self, name: str, key: str, item: Materialization, value: Any) -> None:
        """Bind a variable to a value of an asset."""
        try:
            ref: Callable[[], Any] | None = weakref.ref(value)
            strong = None
        except TypeError:
            ref, strong = None, value
        self.namespace[name] = value
        self._bound[name] = Bound(key, item.id, item.data_version, ref, strong, self._count)
        with self._lock:
            self._waiting.pop(key, None)

    def settle(self, names: Iterable[str]) -> None:
        """Note that variables are the values of their assets now, whatever was noted of the step that bound them."""
        for name in names:
            bound = self._bound.get(name)
            if bound is not None:
                bound.unchanged_at = self._count

    def alive(self, key: str, item: Materialization | None = None) -> Any:
        """Return the object that some variable is bound to as the value of an asset, or None."""
        for bound in self._bound.values():
            if bound.key == key and (
                item is None or item.id == bound.materialization or (item.data_version or item.id) == bound.data_version
            ):
                value = bound.value()
                if value is not None:
                    return value
        return None

    def is_of(self, name: str, step_key: str) -> bool:
        """Return True if a step bound a name last."""
        writer = self.binder(name)
        return writer is not None and writer.kind == "step" and writer.id == step_key

    def bound_to(self, name: str) -> Bound | None:
        """Return what a variable was bound to if it still is that object, changed in place or not."""
        bound = self._bound.get(name)
        if bound is None:
            return None
        value = self.namespace.get(name, _GONE)
        if value is _GONE or value is not bound.value() or (bound.ref is not None and value is None):
            return None
        if type(value) in ATOMS:
            # A cell may have bound it to the very same number or text.
            number, writer = self._binds[name][-1] if name in self._binds else (0, None)
            if writer is not None and writer.kind == "cell" and number > bound.unchanged_at:
                return None
        return bound

    def asset_of(self, name: str) -> Bound | None:
        """Return the asset that a variable is the unchanged value of, or None.

        A digest decides, and is taken only if a cell or step that can have changed the object ran since it was last taken.
        """
        bound = self.bound_to(name)
        if bound is None or bound.changed_by:
            return None
        if bound.unchanged_at == self._count:
            return bound
        events = self._since(name, bound.unchanged_at)
        if events and not self._is_equal(name, bound):
            bound.changed_by = events[-1][1].label or "another cell"
            return None
        bound.unchanged_at = self._count
        return bound

    def _is_equal(self, name: str, bound: Bound) -> bool:
        # Of a value without a digest nothing can be compared: what may have changed it counts as a change.
        return not is_provenance(bound.data_version) and data_version(self.namespace[name]) == bound.data_version

    def changed_by(self, name: str) -> str:
        """Return the label of the cell that changed or rebound a variable which was the value of an asset; empty if none did."""
        bound = self._bound.get(name)
        if bound is None:
            return ""
        if self.bound_to(name) is not None:
            return bound.changed_by
        writer = self.binder(name)
        return writer.label if writer is not None and writer.kind == "cell" else ""

    def names(self, registered: Mapping[str, str]) -> dict[str, str]:
        """Return the keys of assets by the names that refer to them in the notebook's code.

        Parameters
        ----------
        registered
            Names of the registered assets: the last parts of their keys.
        """
        space = self.namespace
        keys = {}
        for name, key in registered.items():
            value = space.get(name, _GONE)
            if value is _GONE or hasattr(type(value), "__stepwell_asset_key__"):
                keys[name] = key
        for name in self._bound:
            bound = self.asset_of(name)
            if bound is not None:
                keys[name] = bound.key
        return keys

    def materialized(self, item: Materialization) -> None:
        """Note a new current value; `refresh` binds its variable again. May be called from any thread."""
        with self._lock:
            self._waiting[item.key] = item

    def refresh(self) -> None:
        """Bind the variables of assets that have new values, if they still are what Stepwell bound."""
        if not self._waiting:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for name, bound in list(self._bound.items()):
            new = waiting.get(bound.key)
            if new is None or new.id == bound.materialization or self.bound_to(name) is None:
                continue
            if new.data_version == bound.data_version:
                bound.materialization = new.id
                continue
            try:
                self.bind(name, bound.key, new, self._load(bound.key))
            except StepwellError:
                # A value that cannot be loaded is reported where it is asked for; the variable keeps the value it has.
                continue

    def withdraw(self, key: str) -> None:
        """Remove the variables that Stepwell bound to an asset whose definition was removed."""
        for name, bound in list(self._bound.items()):
            if bound.key == key:
                if self.bound_to(name) is not None:
                    del self.namespace[name]
                del self._bound[name]

    def after_cell(self) -> None:
        """Drop values whose variables the user has deleted or bound to something else."""
        for name, bound in list(self._bound.items()):
            if bound.ref is None and self.bound_to(name) is None:
                bound.strong = None

    def clear(self) -> None:
        """Forget every binding; the variables stay."""
        self._bound.clear()

    def may_bind(self, name: str, step_key: str) -> bool:
        """Return True if an upstream step that runs may bind a name: the name is unbound, or the step itself or Stepwell bound it last."""
        if name not in self.namespace:
            return True
        if self.bound_to(name) is not None:
            return True
        return self.is_of(name, step_key)

    # -- steps

    def look_before(self, step_key: str, names: Iterable[str]) -> None:
        """Note the numbers and texts that a step finds under names which it may read and binds itself."""
        earlier = self.earlier(step_key)
        for name in names:
            value = self.namespace.get(name, MISSING)
            if name not in earlier and (value is MISSING or type(value) in ATOMS):
                earlier[name] = value
        self._earlier[step_key] = earlier

    def earlier(self, step_key: str) -> dict[str, Any]:
        """Return the earlier values of names that only the step itself has bound since."""
        return {name: value for name, value in self._earlier.get(step_key, {}).items() if self.is_of(name, step_key)}

    def unpin(self, step_key: str) -> bool:
        """Use the present names for a step that is about to run; return True if earlier ones were in use."""
        earlier = self.earlier(step_key)
        differs = any(
            self.namespace.get(name, MISSING) is not value and self.namespace.get(name, MISSING) != value
            for name, value in earlier.items()
        )
        if not differs and step_key not in self.pinned:
            return False
        self._earlier.pop(step_key, None)
        self._memories.pop(step_key, None)
        self.pinned.discard(step_key)
        return True

    def brought(
        self,
        step_key: str,
        code: CodeVersion | None,
        source: object,
        items: Collection[Materialization],
        *,
        as_before: bool = False,
    ) -> None:
        """Note that a step was executed or reused, with the code version that its memo key has.

        Parameters
        ----------
        as_before
            True if it has read the same as when it was last brought up to date. Changes between the two are then later than what it read.
        """
        made = frozenset(item.id for item in items)
        before = self._memories.get(step_key)
        same = before is not None and before.materializations == made
        self.world.was_read(step_key, {read for item in items for read in item.reads}, self._count, same=same)
        self._memories[step_key] = Memory(
            before.number if as_before and before is not None else self._count,
            code.digest if code is not None else "",
            code.asset_names if code is not None else (),
            source,
            made,
            library_state.snapshot(),
            queries.connection.outside,
        )
        self._reassigned.pop(step_key, None)

    def has_brought(self, step_key: str, item: Materialization) -> bool:
        """Return True if a step already gave this materialization in this kernel."""
        memory = self._memories.get(step_key)
        return memory is not None and item.id in memory.materializations

    def is_reused_without_all(self, step_key: str, code: CodeVersion | None, source: object) -> bool:
        """Return True if a step that was not edited since was reused here without variables that are not stored. If it runs, then for these alone."""
        memory = self._memories.get(step_key)
        return (
            memory is not None
            and step_key in self.unstored.values()
            and code is not None
            and (memory.code, memory.source) == (code.digest, source)
        )

    def note_handles(self, step_key: str, names: Iterable[str]) -> None:
        """Note the state of files, connections and the like that a step has made."""
        memory = self._memories.get(step_key)
        if memory is not None:
            memory.databases.update({name: database_state(self.namespace.get(name)) for name in names})

    def is_handle_used(self, step_key: str, name: str) -> bool:
        """Return True if others may have changed what a file, connection or the like leads to since a step made it here."""
        memory = self._memories.get(step_key)
        if memory is None or name not in self.namespace or not self.is_touched(step_key, [name]):
            return False
        before = memory.databases.get(name)
        return before is None or before != database_state(self.namespace[name])

    def is_touched(self, step_key: str, names: Iterable[str]) -> bool:
        """Return True if others may have bound or changed one of some names since a step was brought up to date here, or it is gone."""
        memory = self._memories.get(step_key)
        if memory is None:
            return True
        return any(
            (
                name in self.namespace
                and any(
                    writer.kind == "cell" or writer.id != step_key for _, writer in self._since(name, memory.number)
                )
            )
            or (name not in self.namespace and bool(self._binds.get(name)))
            for name in names
        )

    def is_bound_since(self, step_key: str, names: Iterable[str]) -> bool:
        """Return True if others have bound one of some names to another mutable object or class since a step was brought up to date here."""
        memory = self._memories.get(step_key)
        space = self.namespace
        return memory is None or any(
            number > memory.number and (writer.kind == "cell" or writer.id != step_key)
            for name in names
            if name in space and (has_content(space[name]) or isinstance(space[name], type))
            for number, writer in self._binds.get(name, ())
        )

    def is_left(self, step_key: str) -> bool:
        """Return True if no cell has used DuckDB's own connection since a step was brought up to date: what a step left there is as it was."""
        memory = self._memories.get(step_key)
        return memory is not None and memory.statements == queries.connection.outside

    def seeded(self, stream: str, writer: Writer) -> None:
        """Note that a cell or step has seeded a random stream."""
        self.world.seeded(stream, writer, self._count)

    def was_seeded(self, stream: str, step_key: str) -> bool:
        """Return True if a random stream was seeded after a step was brought up to date here, other than by it or by what comes after it."""
        memory = self._memories.get(step_key)
        return memory is not None and self.world.was_seeded(
            stream, step_key, memory.number, pulled=self.is_pulled(step_key)
        )

    def kind(self, step_key: str) -> Kind:
        """Return how the present request asks for a step."""
        if step_key in self.requested:
            return "cell" if step_key in self.cells else "named"
        return "cell pull" if self.cells and step_key not in self.cells else "pull"

    def is_pulled(self, step_key: str) -> bool:
        """Return True if the present request does not name a step."""
        return self.kind(step_key) in PULLS

    def read_holds(self, read: Read, step_key: str, item: Materialization, kind: Kind) -> bool:
        """Return True if what a step read from the kernel itself is still so, or changed only by later cells and steps.

        Parameters
        ----------
        item
            The materialization that has the read.
        kind
            How the step is requested: where its own cell runs, or the request names it, what other cells changed counts.
        """
        pulled = kind in PULLS
        again = self.has_brought(step_key, item)
        if read.kind == "stream":
            if again and not self.was_seeded(read.name, step_key):
                # Draws of this step and of later ones do not make it stale; only seeding does.
                return True
            state = stream_states().get(read.name)
            return state is not None and data_version(state) == read.digest
        if self.world.has(read):
            return again and self.world.is_later_change(read, step_key, pulled=pulled)
        value = self.namespace.get(read.name, _GONE)
        if read.kind == "given":
            # Where the notebook has no such variable, the code in the input's value has its own.
            if value is _GONE or (read.digest != UNSTABLE and self.digest_of(read.name) == read.digest):
                return True
        elif value is not _GONE and value_digest(value) == read.digest:
            return True
        if not again:
            return False
        memory = self._memories[step_key]
        since = self._since(read.name, memory.number)
        return bool(since) and self._is_explained(read.name, memory, since, step_key, pulled=pulled)

    def look_at_world(self, writer: Writer = OTHER) -> None:
        """Note who changed files, the environment and the like that steps read, right after the change."""
        self.world.look(self._count, writer)

    def wrote(self, path: str, digest: str, step_key: str) -> None:
        """Note that a step wrote a file, by its path as effects have it, and in which state it left it."""
        self.world.wrote(path, digest, step_key, self._count)

    def digest_of(self, name: str) -> str:
        """Return the digest of a variable; that of an asset's unchanged value is known."""
        bound = self.asset_of(name)
        return (bound.data_version if bound is not None else "") or value_digest(self.namespace[name])

    def _is_explained(
        self, name: str, memory: Memory, since: list[tuple[int, Writer]], step_key: str, *, pulled: bool
    ) -> bool:
        """Return True if the events of a name since a step was brought up to date do not make the step stale."""
        if not pulled and (
            any(writer.kind == "cell" for _, writer in since)
            or any(number > memory.number and writer.id != step_key for number, writer in self._binds.get(name, ()))
        ):
            # A cell that runs reads the names that others bound. Changes in place by later steps are not edits.
            return False
        # Those who gave the value that the step read: who bound the name last before it, and who changed the object since.
        last = max((number for number, _ in self._binds.get(name, ()) if number <= memory.number), default=0)
        events = (*self._binds.get(name, ()), *self._changes.get(name, ()))
        before = {writer for number, writer in events if last <= number <= memory.number}
        return not any(writer in before and (writer.kind == "cell" or writer.id != step_key) for _, writer in since)

    def names_reassigned(self, step_key: str) -> dict[str, tuple[str, str]]:
        """Return the names that other cells assigned again since a step was brought up to date: the labels of the cells that did then and now."""
        return {name: labels for name, labels in self._reassigned.get(step_key, {}).items() if all(labels)}

    def changed_since(self, step_key: str) -> tuple[str, str]:
        """Return what a step read and what other cells changed of it since it was brought up to date: ``df from [1]``, ``df is now from [5]``.

        Both are empty if they changed nothing that it read: names, files and the like.
        """
        names = self.names_reassigned(step_key)
        world = self.world.changed_by_cells(step_key)
        before = [f"{name} from {first}" for name, (first, _) in names.items()]
        before += [f"what it read before {label}" for label in dict.fromkeys(world.values())]
        now = [f"{name} is now from {last}" for name, (_, last) in names.items()]
        now += [what_changed(read) for read in world]
        return ", ".join(before), ", ".join(now)

    def pin(self, step_key: str, body: CellBody, version: CodeVersion) -> CodeVersion:
        """Return the code version that counts for a step that was brought up to date in this kernel.

        Parameters
        ----------
        version
            The code version with the names as they are now.
        """
        memory = self._memories.get(step_key)
        self._reassigned.pop(step_key, None)
        self.pinned.discard(step_key)
        if memory is None or memory.code == version.digest or memory.source != body.source:
            return version
        pulled = self.is_pulled(step_key)
        again: dict[str, tuple[str, str]] = {}
        touched = False

        def is_bound_again(name: str) -> bool:
            return any(number > memory.number for number, _ in self._binds.get(name, ()))

        # A name that was bound since is not followed into the functions that read it.
        for name in sorted(reached_names(self.namespace, body.reads, ends_at=is_bound_again)):
            since = self._since(name, memory.number)
            if not since:
                continue
            touched = True
            if not self._is_explained(name, memory, since, step_key, pulled=pulled):
                return version
            if not pulled:
                continue
            cells = [writer for _, writer in since if writer.kind == "cell"]
            if cells:
                first = next(
                    (writer.label for number, writer in reversed(self._binds.get(name, ())) if number <= memory.number),
                    "",
                )
                again[name] = (first, cells[-1].label)
        if not touched:
            if library_state.changed(memory.settings, library_state.snapshot()):
                is_edit = not pulled
            else:
                # Settings of the step itself are not edits.
                is_edit = not self.world.has_settings(step_key)
            if is_edit:
                return version
        self._reassigned[step_key] = again
        self.pinned.add(step_key)
        return replace(version, digest=memory.code, asset_names=memory.asset_names)

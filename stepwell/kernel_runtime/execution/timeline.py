"""The timeline of one kernel records which cells and steps bound and changed each variable of the notebook, and when a step was brought up to date.

A step is *brought up to date* when it is executed or reused. A variable can be bound several times, so "the value of `df`" has a meaning only at a
point of the timeline. The timeline answers three questions:

* Does a variable still have the value of its asset, or did a cell change it? (`asset_of`)
* The variables that a step reads have changed since the step was brought up to date. Is this change an edit, which makes the step stale? Or did
  *another* cell bind the variables again, or the step itself change them? (`pin`)
* Which names may Stepwell bind without overwriting a variable of the user? (`may_bind`)

An *event* is one run of a cell or step, with the names that it bound and changed. Events are numbered.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
    """The value key of the asset."""
    materialization: str
    """The identifier of the materialization that contains the value."""
    data_version: str
    ref: Callable[[], Any] | None
    """A weak reference to the value; None if the type of the value does not support weak references."""
    strong: Any
    """The value itself if `ref` is None; otherwise None."""
    unchanged_at: int
    """The number of the last event after which the value was known to be unchanged."""
    changed_by: str = ""
    """The label of the cell or step that changed the value in place; empty if no change is known."""

    def value(self) -> Any:
        """Return the object to which the variable was bound; None if the object no longer exists."""
        return self.ref() if self.ref is not None else self.strong


@dataclass(slots=True)
class Memory:
    """What was recorded about a step when it was last brought up to date in this kernel."""

    number: int
    """The number of the last event before the step was brought up to date."""
    code: str
    """The digest of the code version that the step had then; empty if it had none."""
    asset_names: tuple[tuple[str, str], ...]
    """The assets that the step's code read as globals, as in `CodeVersion.asset_names`."""
    source: object
    """The source code of the step's body. Different source code is an edit of the step."""
    materializations: frozenset[str]
    """The identifiers of the materializations that the step made or reused."""
    settings: library_state.Snapshot
    """The settings of libraries and of the process when the step was brought up to date."""
    statements: int
    """The number of changes that plain cells had made through DuckDB's default connection before the step was brought up to date."""
    databases: dict[str, str | None] = field(default_factory=dict)
    """The variables whose values are files or connections that the step created. Maps each variable to the result of `database_state` for its value.
    The result is None if the value is not a database connection (for example, if it is a file), or if the state cannot be read."""
    closed: dict[str, Any] = field(default_factory=dict)
    """The values of those of these variables whose files or connections the step closed."""


class Unstored:
    """Stands for the result of a reused cell (the value of its last expression) if the result is not stored.

    Parameters
    ----------
    key
        The key of an asset that the cell defines.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        """Return a text for the user that says how to compute the result."""
        return f"<not stored: run the cell of {self.key} with -f>"


class Closed:
    """Stands for a file or connection that a step closed, if the step was reused and cannot run again only to compute the variable.

    Code can close it once more. Other uses fail, as they do with a closed file.

    Parameters
    ----------
    key
        The key of an asset that the cell defines.
    """

    closed = True

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        """Return a text that names the cell."""
        return f"<closed in the cell of {self.key}>"

    def close(self) -> None:
        """Do nothing."""


class Timeline:
    """Records which cells and steps bound and changed the variables of one notebook.

    Parameters
    ----------
    namespace
        The notebook's namespace itself, not a copy.
    load
        Takes the key of an asset and one of its materializations; returns a copy of the value.
    project
        The folder of the project. Files are restored only inside this folder.

    Attributes
    ----------
    world
        Records the changes of files, the environment and other external state that steps read.
    unstored
        The variables that reused cells left unbound because the values are not stored. Maps the name of each variable to the key of an asset that
        its cell defines.
    handles
        The variables in `unstored` whose values were files or connections. The step that made such a value runs again only when code needs the
        variable.
    results
        The results of cells (the values of their last expressions) that the shell has not received yet, by step key.
    requested
        The keys of the steps that the user asked for: those that the present request (such as ``materialize``) names, and those whose cells run.
        These steps read the present values of variables.
    cells
        The keys of the requested steps whose cells run. Such a step binds all of its names, even if other cells have bound them.
    binds_only_unbound
        True if the steps in `cells` do not bind all of their names, but only those that are unbound at present.
    pinned
        The keys of the steps that keep their earlier code version, although variables that they read have changed.
    """

    def __init__(self, namespace: dict[str, Any], load: Callable[[str, Materialization], Any], project: Path) -> None:
        self.namespace = namespace
        self.project = project
        self.world = World(project)
        self.unstored: dict[str, str] = {}
        self.handles: set[str] = set()
        self.results: dict[str, Any] = {}
        self._load = load
        self.requested: frozenset[str] = frozenset()
        self.cells: frozenset[str] = frozenset()
        self.binds_only_unbound = False
        self._reassigned: dict[str, dict[str, tuple[str, str]]] = {}
        """Maps the key of a step to the names that other cells have bound or changed since the step was brought up to date. Each name is mapped to
        two labels. The first is the label of the cell or step that had bound the name before that time. The second is the label of the cell that last
        bound or changed the name after that time. An unknown label is empty."""
        self.pinned: set[str] = set()
        self._count = 0
        """The number of events so far."""
        self._binds: dict[str, list[tuple[int, Writer]]] = {}
        self._changes: dict[str, list[tuple[int, Writer]]] = {}
        self._group: dict[str, str] = {}
        """The alias group of each name. Names whose values may share objects have the same alias group."""
        self._sources: dict[str, frozenset[str]] = {}
        """Maps a variable to the keys of the steps and assets from which its value was computed."""
        self._bindings: dict[str, Bound] = {}
        self._waiting: dict[str, Materialization] = {}
        """Maps the value key of an asset to a new materialization, to whose value `refresh` must still rebind the asset's variables."""
        self._memories: dict[str, Memory] = {}
        self._earlier: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    # -- events

    def note(
        self, writer: Writer, *, bound: Collection[str] = (), changed: Collection[str] = (), read: Collection[str] = ()
    ) -> None:
        """Record an event: a cell or step has run.

        Parameters
        ----------
        bound
            The names that the cell or step bound or deleted.
        changed
            The names whose values the cell or step may have changed in place.
        read
            The names that the cell or step read.
        """
        self._count += 1
        event = (self._count, writer)
        if writer.kind == "cell":
            self.world.note_run(writer, self._count)
        for name in bound:
            self.unstored.pop(name, None)
            self.handles.discard(name)
            self._binds.setdefault(name, []).append(event)
            self._group.pop(name, None)
        for name in changed:
            self._changes.setdefault(name, []).append(event)
        self._note_sources(writer, bound, changed, read)
        # A variable that the cell binds may share objects with a variable that it reads or changes.
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
        """Return `names`, and all other names whose values may share objects with the values of `names`."""
        aliases = set(names)
        groups = {group for name in aliases if (group := self._group.get(name)) is not None}
        return aliases | {name for name, group in self._group.items() if group in groups}

    def may_share(self, name: str) -> bool:
        """Return True if the value of a variable may share objects with variables that its cell or step read."""
        return name in self._group

    def _note_sources(self, writer: Writer, bound: Collection[str], changed: Collection[str], read: Collection[str]) -> None:
        if writer.kind == "step":
            sources = frozenset({writer.id} - {""})
        else:
            sources = frozenset().union(*[self.sources(name) for name in read])
        for name in bound:
            self._sources[name] = sources
        for name in changed if sources else ():
            self._sources[name] = self._sources.get(name, frozenset()) | sources

    def sources(self, name: str) -> frozenset[str]:
        """Return the keys of the steps and assets from which the value of a variable was computed."""
        bound = self.bound_to(name)
        sources = self._sources.get(name, frozenset())
        return sources | {bound.key} if bound is not None else sources

    def made_from(self, step_key: str, body: object) -> dict[str, str]:
        """Return the steps and assets from which the variables that a step reads were computed. Variables that are inputs of the step do not count.

        Returns
        -------
        dict
            Maps the key of each of these steps and assets to the name of one variable that was computed from the step or asset.
        """
        variables: dict[str, str] = {}
        for name in sorted(body.reads - set(body.parameters)) if isinstance(body, CellBody) else ():
            if name in self.namespace:
                variables.update(dict.fromkeys(self.sources(name) - {step_key}, name))
        return variables

    def left_by(self, step_key: str, body: object) -> list[str]:
        """Return the keys of the other steps that last bound variables which the step `step_key` reads."""
        names = body.reads if isinstance(body, CellBody) else ()
        writers = [self.binder(name) for name in sorted(names) if name in self.namespace]
        return [
            writer.id for writer in writers if writer is not None and writer.kind == "step" and writer.id not in {"", step_key}
        ]

    def binder(self, name: str) -> Writer | None:
        """Return the cell or step that bound a name last; None if no binding of the name is recorded."""
        events = self._binds.get(name)
        return events[-1][1] if events else None

    def place(self, name: str) -> str:
        """Return the place (``cell 5``) of the cell that last bound or changed a variable; empty if a step did so last, or if no cell did."""
        events = [*self._binds.get(name, ()), *self._changes.get(name, ())]
        return max(events, key=lambda event: event[0])[1].place if events else ""

    def _since(self, name: str, number: int) -> list[tuple[int, Writer]]:
        """Return the events after event number `number` that bound a name, or that may have changed its value (also through another name)."""
        events = [event for event in self._binds.get(name, ()) if event[0] > number]
        group = self._group.get(name)
        names = [name] if group is None else [other for other, its_group in self._group.items() if its_group == group]
        for other in names:
            events += [event for event in self._changes.get(other, ()) if event[0] > number]
        return sorted(events, key=lambda event: event[0])

    # -- variables that are values of assets

    def bind(self, name: str, key: str, item: Materialization, value: Any) -> None:
        """Bind a variable to `value`, the value of an asset with the value key `key` and the materialization `item`."""
        try:
            ref: Callable[[], Any] | None = weakref.ref(value)
            strong = None
        except TypeError:
            ref, strong = None, value
        self.namespace[name] = value
        self._bindings[name] = Bound(key, item.id, item.data_version, ref, strong, self._count)
        with self._lock:
            if key in self._waiting:
                # `item` is newer than the materialization that waits, and other variables of the asset are not bound to the new value yet.
                self._waiting[key] = item

    def settle(self, names: Iterable[str]) -> None:
        """Record that the variables `names` now have the unchanged values of their assets. Call this after `note` for the step that bound them."""
        for name in names:
            bound = self._bindings.get(name)
            if bound is not None:
                bound.unchanged_at = self._count

    def alive(self, key: str, item: Materialization | None = None) -> Any:
        """Return the object to which Stepwell bound a variable as the value of the asset `key`; None if no such object exists any more.

        Parameters
        ----------
        item
            The materialization whose value is needed; None for any materialization of the asset.
        """
        for bound in self._bindings.values():
            if bound.key == key and (
                item is None or item.id == bound.materialization or (item.data_version or item.id) == bound.data_version
            ):
                value = bound.value()
                if value is not None:
                    return value
        return None

    def is_of(self, name: str, step_key: str) -> bool:
        """Return True if the last binding of the variable `name` was made by the step with the key `step_key`."""
        writer = self.binder(name)
        return writer is not None and writer.kind == "step" and writer.id == step_key

    def bound_to(self, name: str) -> Bound | None:
        """Return the `Bound` of a variable that still refers to the object to which Stepwell bound it; None for any other variable.

        The object may have been changed in place.
        """
        bound = self._bindings.get(name)
        if bound is None:
            return None
        value = self.namespace.get(name, _GONE)
        if value is _GONE or value is not bound.value() or (bound.ref is not None and value is None):
            return None
        if type(value) in ATOMS:
            # A cell or another step may have bound the variable to the same number or string.
            number = self._binds[name][-1][0] if name in self._binds else 0
            if number > bound.unchanged_at:
                return None
        return bound

    def asset_of(self, name: str) -> Bound | None:
        """Return the `Bound` of a variable if the variable still has the unchanged value of its asset; else None.

        The digest of the value is computed only if a cell or step that may have changed the value ran since the last check.
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
        # A value without a digest cannot be compared, so a value that may have changed is treated as changed.
        return not is_provenance(bound.data_version) and data_version(self.namespace[name]) == bound.data_version

    def changed_by(self, name: str) -> str:
        """Return the label of the cell or step that changed a variable which Stepwell had bound to the value of an asset.

        A step counts only if it changed the value in place. A cell also counts if it bound the variable to another object. If no change is known,
        return an empty string.
        """
        bound = self._bindings.get(name)
        if bound is None:
            return ""
        if self.bound_to(name) is not None:
            return bound.changed_by
        writer = self.binder(name)
        return writer.label if writer is not None and writer.kind == "cell" else ""

    def names(self, registered: Mapping[str, str]) -> dict[str, str]:
        """Return the keys of the assets to which names in the notebook's code refer, by name.

        A name refers to an asset in two cases: Stepwell has bound the name to the asset's value, and this value is unchanged; or the name is in
        `registered`, and the notebook has no variable with this name or only one whose value is the definition of an asset.

        Parameters
        ----------
        registered
            The keys of the registered assets, by name. The name of an asset is the last component of its key.
        """
        space = self.namespace
        keys = {}
        for name, key in registered.items():
            value = space.get(name, _GONE)
            if value is _GONE or hasattr(type(value), "__stepwell_asset_key__"):
                keys[name] = key
        for name in self._bindings:
            bound = self.asset_of(name)
            if bound is not None:
                keys[name] = bound.key
        return keys

    def earlier_names(self) -> dict[str, str]:
        """Return the variables that Stepwell has bound to values of assets, even if they have other values now. Each is mapped to the asset's key."""
        return {name: bound.key for name, bound in self._bindings.items()}

    def materialized(self, item: Materialization) -> None:
        """Record that an asset has a new current value, so that `refresh` rebinds the asset's variables. The method may be called on any thread."""
        with self._lock:
            self._waiting[item.key] = item

    def refresh(self) -> None:
        """Rebind the variables of assets that have new values, except variables that the user has rebound."""
        if not self._waiting:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for name, bound in list(self._bindings.items()):
            new = waiting.get(bound.key)
            if new is None or new.id == bound.materialization or self.bound_to(name) is None:
                continue
            if new.data_version == bound.data_version:
                bound.materialization = new.id
                continue
            try:
                self.bind(name, bound.key, new, self._load(bound.key, new))
            except StepwellError:
                # The variable keeps its value. Code that needs the new value gets the error that it cannot be loaded.
                continue

    def withdraw(self, key: str) -> None:
        """Delete the variables that Stepwell bound to the asset `key`, whose definition was removed."""
        for name, bound in list(self._bindings.items()):
            if bound.key == key:
                if self.bound_to(name) is not None:
                    del self.namespace[name]
                del self._bindings[name]

    def after_cell(self) -> None:
        """Release the values of assets whose variables the user has deleted or bound to another object. Called after each cell."""
        for name, bound in list(self._bindings.items()):
            if bound.ref is None and self.bound_to(name) is None:
                bound.strong = None

    def clear(self) -> None:
        """Forget which variables Stepwell bound to assets. The variables themselves are not changed."""
        self._bindings.clear()

    def may_bind(self, name: str, step_key: str) -> bool:
        """Return True if a step whose cell does not run has the right to bind a name.

        This is so if the name is unbound, if it still refers to the object that Stepwell bound to it as the value of an asset, or if the step itself
        made the last binding of the name.
        """
        if name not in self.namespace:
            return True
        if self.bound_to(name) is not None:
            return True
        return self.is_of(name, step_key)

    # -- steps

    def look_before(self, step_key: str, names: Iterable[str]) -> None:
        """Before a step runs or is reused, record the values of `names`, which it both reads and binds.

        Only atoms (such as numbers and strings) are recorded, and which of the names are unbound.
        """
        earlier = self.earlier(step_key)
        for name in names:
            value = self.namespace.get(name, MISSING)
            if name not in earlier and (value is MISSING or type(value) in ATOMS):
                earlier[name] = value
        self._earlier[step_key] = earlier

    def earlier(self, step_key: str) -> dict[str, Any]:
        """Return, by name, the values that `look_before` noted for a step. Names that another cell or step has bound since are left out."""
        return {name: value for name, value in self._earlier.get(step_key, {}).items() if self.is_of(name, step_key)}

    def unpin(self, step_key: str) -> bool:
        """Give up the earlier values of variables and the earlier code version that are kept for a step, because the step is about to run.

        Return True if the code version of the step must be computed again, because it was computed from earlier values.
        """
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
        """Record that a step was brought up to date: executed or reused.

        Parameters
        ----------
        code
            The code version in the memo key of the step; None if there is none.
        source
            The source code of the step's body.
        items
            The materializations that the step made or reused.
        as_before
            True if the step read the same state as when it was previously brought up to date. In this case, that earlier time, not the present one,
            is the time after which changes count for the step.
        """
        materialization_ids = frozenset(item.id for item in items)
        before = self._memories.get(step_key)
        same = before is not None and before.materializations == materialization_ids
        self.world.was_read(step_key, {read for item in items for read in item.reads}, self._count, same=same)
        self._memories[step_key] = Memory(
            before.number if as_before and before is not None else self._count,
            code.digest if code is not None else "",
            code.asset_names if code is not None else (),
            source,
            materialization_ids,
            library_state.snapshot(),
            queries.connection.outside,
            *((before.databases, before.closed) if same and before is not None else ()),
        )
        self._reassigned.pop(step_key, None)

    def has_brought(self, step_key: str, item: Materialization) -> bool:
        """Return True if a step made or reused the materialization `item` when the step was last brought up to date in this kernel."""
        memory = self._memories.get(step_key)
        return memory is not None and item.id in memory.materializations

    def is_reused_without_all(self, step_key: str, code: CodeVersion | None, source: object) -> bool:
        """Return True if some variables of a step are unbound because their values are not stored, and the step was not edited since it was reused.

        If such a step runs, it runs only to compute these variables.
        """
        memory = self._memories.get(step_key)
        return (
            memory is not None
            and step_key in self.unstored.values()
            and code is not None
            and (memory.code, memory.source) == (code.digest, source)
        )

    def leave_unbound(self, keys: Sequence[str], names: Iterable[str] = ()) -> None:
        """Record the variables that a cell has left unbound, because their values are not stored. Those of its earlier runs are forgotten.

        Parameters
        ----------
        keys
            The keys of the assets that the cell defines.
        names
            The variables.
        """
        self.unstored = {name: key for name, key in self.unstored.items() if key not in keys} | dict.fromkeys(names, keys[0])

    def note_handles(self, step_key: str, names: Iterable[str], closed: Iterable[str]) -> None:
        """Record the result of `database_state` for each of `names`, the variables whose values are files and connections that a step created.

        The values of those that it `closed` are kept.
        """
        memory = self._memories.get(step_key)
        if memory is not None:
            memory.databases.update({name: database_state(self.namespace.get(name)) for name in names})
            memory.closed.update({name: self.namespace[name] for name in closed if name in self.namespace})

    def closed_by(self, step_key: str) -> dict[str, Any]:
        """Return the closed files and connections that a step left in its variables when it last ran in this kernel, by variable."""
        memory = self._memories.get(step_key)
        return memory.closed if memory is not None else {}

    def is_handle_used(self, step_key: str, name: str) -> bool:
        """Return True if another cell or step may have used the file or connection in a variable since the step `step_key` created it."""
        memory = self._memories.get(step_key)
        if memory is None or name not in self.namespace or not self.is_touched(step_key, [name]):
            return False
        before = memory.databases.get(name)
        return before is None or before != database_state(self.namespace[name])

    def is_touched(self, step_key: str, names: Iterable[str]) -> bool:
        """Return True if one of `names` was deleted, or may have been bound or changed by another cell or step, since a step was brought up to date.

        Also return True if the step was never brought up to date in this kernel.
        """
        memory = self._memories.get(step_key)
        if memory is None:
            return True
        return any(
            (
                name in self.namespace
                and any(writer.kind == "cell" or writer.id != step_key for _, writer in self._since(name, memory.number))
            )
            or (name not in self.namespace and bool(self._binds.get(name)))
            for name in names
        )

    def is_bound_since(self, step_key: str, names: Iterable[str]) -> bool:
        """Return True if other cells or steps have bound one of `names` to a mutable object or a class since a step was brought up to date.

        Also return True if the step was never brought up to date in this kernel.
        """
        memory = self._memories.get(step_key)
        space = self.namespace
        return memory is None or any(
            number > memory.number and (writer.kind == "cell" or writer.id != step_key)
            for name in names
            if name in space and (has_content(space[name]) or isinstance(space[name], type))
            for number, writer in self._binds.get(name, ())
        )

    def is_left(self, step_key: str) -> bool:
        """Return True if no plain cell has changed anything through DuckDB's default connection since a step was brought up to date.

        Return False if the step was never brought up to date in this kernel.
        """
        memory = self._memories.get(step_key)
        return memory is not None and memory.statements == queries.connection.outside

    def seeded(self, stream: str, writer: Writer) -> None:
        """Record that a cell or step has seeded a random stream."""
        self.world.seeded(stream, writer, self._count)

    def was_seeded(self, stream: str, step_key: str) -> bool:
        """Return True if a random stream was seeded since a step was brought up to date.

        Seeding by the step itself does not count, nor does seeding by cells and steps that come after the step (`World.is_later_change`).
        """
        memory = self._memories.get(step_key)
        return memory is not None and self.world.was_seeded(stream, step_key, memory.number, pulled=self.is_pulled(step_key))

    def kind(self, step_key: str) -> Kind:
        """Return how the present request refers to a step: whether its cell runs, the request names it, or only a later step needs it."""
        if step_key in self.requested:
            return "cell" if step_key in self.cells else "named"
        return "cell pull" if self.cells and step_key not in self.cells else "pull"

    def is_pulled(self, step_key: str) -> bool:
        """Return True if the present request includes a step only because a later step needs its value."""
        return self.kind(step_key) in PULLS

    def read_holds(self, read: Read, step_key: str, item: Materialization, kind: Kind) -> bool:
        """Return True if a recorded read of a step still holds: the state is unchanged, or only cells and steps that come after the step changed it.

        Parameters
        ----------
        item
            The materialization that contains the read.
        kind
            How the request refers to the step. If the cell of the step runs or the request names the step, the read does not hold after a change
            by any other cell.
        """
        pulled = kind in PULLS
        is_repeated = self.has_brought(step_key, item)
        if read.kind == "stream":
            if is_repeated and not self.was_seeded(read.name, step_key):
                # Drawing numbers from the stream, in this step or later ones, does not make the step stale; only seeding does.
                return True
            state = stream_states().get(read.name)
            return state is not None and data_version(state) == read.digest
        if self.world.has(read):
            return is_repeated and self.world.is_later_change(read, step_key, pulled=pulled)
        value = self.namespace.get(read.name, _GONE)
        if read.kind == "given":
            # If the notebook has no such variable, the code in the value of the input uses a global of another namespace.
            if value is _GONE or (read.digest != UNSTABLE and self.digest_of(read.name) == read.digest):
                return True
        elif value is not _GONE and value_digest(value) == read.digest:
            return True
        if not is_repeated:
            return False
        memory = self._memories[step_key]
        since = self._since(read.name, memory.number)
        return bool(since) and self._is_explained(read.name, memory, since, step_key, pulled=pulled)

    def look_at_world(self, writer: Writer = OTHER) -> None:
        """Examine files, the environment and other external state, and note that `writer` made every change since the last call of this method."""
        self.world.look(self._count, writer)

    def wrote(self, path: str, digest: str, step_key: str) -> None:
        """Record that a step wrote a file. `digest` is the digest of the content after the step; `path` has the form of `FileEffect.path`."""
        self.world.wrote(path, digest, step_key, self._count)

    def digest_of(self, name: str) -> str:
        """Return the digest of a variable's value. The digest of an asset's unchanged value is its data version, which is not computed again."""
        bound = self.asset_of(name)
        return (bound.data_version if bound is not None else "") or value_digest(self.namespace[name])

    def _is_explained(self, name: str, memory: Memory, since: list[tuple[int, Writer]], step_key: str, *, pulled: bool) -> bool:
        """Return True if a name that a step reads has a new value, but this does not make the step stale.

        Parameters
        ----------
        memory
            What was noted when the step was last brought up to date.
        since
            The events since then that bound the name or may have changed its value.
        pulled
            True if the request includes the step only because a later step needs it (`is_pulled`).
        """
        if not pulled and (
            any(writer.kind == "cell" for _, writer in since)
            or any(number > memory.number and writer.id != step_key for number, writer in self._binds.get(name, ()))
        ):
            # For a requested step, every change by a cell and every binding by another step is an edit. Changes in place by later steps are not.
            return False
        # `before` is the set of writers of the value that the step read: the last one that bound the name, and those that then changed the value.
        last = max((number for number, _ in self._binds.get(name, ()) if number <= memory.number), default=0)
        events = (*self._binds.get(name, ()), *self._changes.get(name, ()))
        before = {writer for number, writer in events if last <= number <= memory.number}
        return not any(writer in before and (writer.kind == "cell" or writer.id != step_key) for _, writer in since)

    def names_reassigned(self, step_key: str) -> dict[str, tuple[str, str]]:
        """Return the names that other cells have bound or changed since a step was brought up to date.

        Returns
        -------
        dict
            Maps each name to two labels. The first is the label of the cell or step that had bound the name when the step was brought up to date.
            The second is the label of the cell that last bound or changed the name after that time. If one of the labels is unknown, the name is
            left out.
        """
        return {name: labels for name, labels in self._reassigned.get(step_key, {}).items() if all(labels)}

    def changed_since(self, step_key: str) -> tuple[str, str]:
        """Return two descriptions of the state that other cells have changed since a step read it: how it was then, and how it is now.

        Returns
        -------
        before, now
            `before` names the origin of the state that the step read (``df from [1]``); `now` says what is different at present
            (``df is now from [5]``). Both are empty if other cells have changed nothing that the step read.
        """
        names = self.names_reassigned(step_key)
        world = self.world.changed_by_cells(step_key)
        before = [f"{name} from {first}" for name, (first, _) in names.items()]
        before += [f"the state from before {label}" for label in dict.fromkeys(world.values())]
        now = [f"{name} is now from {last}" for name, (_, last) in names.items()]
        now += [what_changed(read) for read in world]
        return ", ".join(before), ", ".join(now)

    def pin(self, step_key: str, body: CellBody, version: CodeVersion) -> CodeVersion:
        """Return the code version to use for a step: `version`, or the one from when the step was last brought up to date.

        The earlier code version is used if only variables or settings have changed since that time, in a way that does not make the step stale.

        Parameters
        ----------
        version
            The code version that was computed from the present values of variables.
        """
        memory = self._memories.get(step_key)
        self._reassigned.pop(step_key, None)
        self.pinned.discard(step_key)
        if memory is None or memory.code == version.digest or memory.source != body.source:
            return version
        pulled = self.is_pulled(step_key)
        rebound: dict[str, tuple[str, str]] = {}
        touched = False

        def is_bound_again(name: str) -> bool:
            return any(number > memory.number for number, _ in self._binds.get(name, ()))

        # If a name was bound again, its present value is not searched for further names.
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
                rebound[name] = (first, cells[-1].label)
        if not touched:
            if library_state.changed(memory.settings, library_state.snapshot()):
                is_edit = not pulled
            else:
                # Settings that the step itself changed are not edits.
                is_edit = not self.world.has_settings(step_key)
            if is_edit:
                return version
        self._reassigned[step_key] = rebound
        self.pinned.add(step_key)
        return replace(version, digest=memory.code, asset_names=memory.asset_names)

"""Finds the changes that the body of a live cell makes in the notebook, so that a reuse of the step can restore the changes.

The body of a live cell executes like a plain cell: as module-level code whose globals are the notebook's variables. Before the body runs, the
contents of all objects that its code may change are recorded. Afterwards, names and contents are compared with this record. The changes are
described by `Effects`. The values that a reuse needs to make the changes again are collected in a `Bundle`, which is stored as one more output of the
step.

A reuse restores the contents of objects in place. If a stored value refers to an object that exists in the notebook (the value of another variable,
or an object that the step changed in place), the reference is stored as a link, and after a reuse it leads to the object of the notebook.
"""

from __future__ import annotations

import re
import sys
from abc import ABCMeta
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, Definition
from stepwell.kernel_runtime.execution import contents
from stepwell.kernel_runtime.execution.addresses import (
    Inventory,
    ObjectState,
    class_data,
    content_of,
    objects_in,
    places,
    reached_names,
    resolve,
)
from stepwell.kernel_runtime.execution.restoration import Bundle, View, blocks_of, has_arrays, views
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.execution.world import stream_states
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.reads.readers import seedings
from stepwell.kernel_runtime.records.materializations import RESULT, Effects, Materialization, Read
from stepwell.kernel_runtime.versions import library_state, patches
from stepwell.kernel_runtime.versions.bytecode import facts
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.encode import ATOMS
from stepwell.kernel_runtime.versions.environment import environment_copy, value_of
from stepwell.kernel_runtime.versions.graph import MISSING
from stepwell.kernel_runtime.versions.secrets import Environment, is_kept_back, looks_secret

_PYTHONS_OWN = frozenset(
    {"__builtins__", "__annotations__", "__annotate__", "__conditional_annotations__", "__warningregistry__"}
)
ENVIRONMENT = "environment:"
"""The prefix of those names in `Effects.state` that stand for environment variables."""
_FREE = ("patches:", "dask:")
"""The prefixes of the names of settings whose values can be any objects."""


class LiveRun:
    """One run of the body of a live cell, with the state of the notebook before the run.

    Parameters
    ----------
    names
        The variables whose values the body may change in place.
    arguments
        The loaded inputs: those whose variables in the notebook are unbound or changed. Maps the name of each input to its value. The variable
        has this value while the body runs.
    own_inputs
        The inputs in `arguments` whose variables keep the values after the run. Maps the name of each input to the materialization of its asset.
    """

    def __init__(
        self,
        timeline: Timeline,
        body: CellBody,
        names: Collection[str],
        arguments: Mapping[str, Any],
        own_inputs: Mapping[str, Materialization],
    ) -> None:
        self._body = body
        self._timeline = timeline
        self._space = space = timeline.namespace
        self.space_before = dict(space)
        """The notebook's variables before the run."""
        self._placed_inputs = dict(arguments)
        space.update(arguments)
        self._own_inputs = own_inputs
        self._inventory = Inventory(space, names, body.reads)
        self._links: dict[int, str] = {}
        self._unchanged: dict[int, ObjectState] = {}
        self._definition_objects: dict[int, ObjectState] = {}
        """The objects, by `id`, that can be reached through the functions and classes of the body."""
        self._changed_roots: set[str] = set()
        self._streams: dict[str, Any] = {}
        self._seedings = len(seedings)
        self.settings: library_state.Snapshot = {}
        self.environment: dict[str, str] = {}
        self._covered_values: dict[str, Any] = {}
        self._rebound: set[str] = set()
        self._views: dict[int, View] | None = None
        self._objects_before: dict[int, Any] = {}
        """The objects, by `id`, that existed in the notebook before the run. Stored objects may contain these objects or share memory with them."""
        self.reads: tuple[Read, ...] = ()
        """A read for each variable that is used by functions inside the values of inputs, with the digest of the variable's value before the run."""
        self.bundle = Bundle()
        """The values that a reuse needs to make the changes of the body again; empty until `finish` is called."""
        self.suspects: frozenset[str] | set[str] | None = None
        """The variables whose values the body, or a function that it uses, may change; None if the code does not show which these are."""
        self.reruns_for_unstored = False
        """True if the step was reused before, and now runs only to compute variables that are not stored. It reads the same state as before."""
        self.users_names: frozenset[str] = frozenset()
        """The names that the step must not rebind, because other cells or the user have bound them. `give_back` restores their bindings."""

    def place_earlier(self, values: Mapping[str, Any]) -> None:
        """Bind names to the values that they had before an earlier run of the step. A name with the value `MISSING` is unbound."""
        for name, value in values.items():
            if value is MISSING:
                self._space.pop(name, None)
            else:
                self._space[name] = value

    def cover(self, read: Collection[str]) -> None:
        """Unbind the names that have numbers or strings as values and that the body binds only on some paths.

        Whether the body has bound one of these names to an equal value can be detected only if the name was unbound before. `bound_names` and
        `deleted_names` restore the names that the body has not bound.

        Parameters
        ----------
        read
            Names that the body, or a function that it uses, may read. They stay bound.
        """
        body, space = self._body, self._space
        if body.sees_all:
            return
        said = _texts((body.code, body.tail))
        for name in body.bound_names - body.always_assigned - set(read):
            if type(space.get(name, MISSING)) in ATOMS and name not in said:
                self._covered_values[name] = space.pop(name)

    def _uncover(self) -> None:
        covered, self._covered_values = self._covered_values, {}
        for name, value in covered.items():
            if name in self._space:
                self._rebound.add(name)
            else:
                self._space[name] = value

    def watch_process(self) -> None:
        """Record the states of random streams, the settings of libraries and the environment variables, right before the body runs."""
        self._streams = stream_states()
        self._seedings = len(seedings)
        patches.scan()
        self.settings = library_state.snapshot()
        self.environment = environment_copy()

    def seeded_streams(self) -> set[str]:
        """Return the random streams that the body has seeded."""
        return set(seedings[self._seedings :])

    def stream_reads(self) -> tuple[Read, ...]:
        """Return a `Read` for each random stream that the body used, with the digest of the stream's state before the run."""
        return tuple(
            Read("stream", name, stream_digest(state)) for name, state in self._streams.items() if name in self.bundle.streams
        )

    def changed_names(self) -> list[str]:
        """Return the variables whose values the body has changed in place so far."""
        return list(dict.fromkeys(seen.root for seen in self._inventory.changed_objects(self.suspects)))

    def bound_names(self) -> list[str]:
        """Return the names that the body has bound so far and that are still bound."""
        self._uncover()
        before, placed = self.space_before, self._placed_inputs
        # A name that the body reads and may bind, and whose value is a number or string, is returned even if the body did not bind it.
        read = {name for name in self._body.bound_names & self._body.reads if type(self._space.get(name, MISSING)) in ATOMS}
        own = self._body.always_assigned | self._rebound | read
        return [
            name
            for name, value in self._space.items()
            if name not in _PYTHONS_OWN
            # pydantic adds names such as ``Box[int]`` to the namespace.
            and name.isidentifier()
            and (value is not placed.get(name, before.get(name, MISSING)) or name in own)
        ]

    def deleted_names(self) -> tuple[str, ...]:
        """Return the names that were bound when the body began and that the body has deleted so far."""
        self._uncover()
        return tuple(name for name in {**self.space_before, **self._placed_inputs} if name not in self._space)

    def _is_users_handle(self, seen: ObjectState) -> bool:
        """Return True for a file or connection without a digest that no step created.

        Its changes need not be restored, because a step that reads it runs in every kernel anyway.
        """
        writer = self._timeline.binder(seen.root)
        is_users = contents.is_handle(seen.item) and (writer is None or writer.kind != "step")
        return is_users and (seen.content is None or data_version(seen.item) is None)

    def _updated(self, changed: list[ObjectState]) -> list[ObjectState]:
        """Return the DuckDB connections that are not in `changed`, but that may have been changed by SQL statements in strings of the body."""
        words = {word.lower() for word in _texts((self._body.code, self._body.tail))}
        if words.isdisjoint(contents.CHANGING):
            return []
        changed_ids = {id(seen) for seen in changed}
        return [
            seen
            for seen in self._inventory.objects.values()
            if type(seen.item).__module__ == "_duckdb"
            and (self.suspects is None or seen.root in self.suspects)
            and id(seen) not in changed_ids
            and not self._is_users_handle(seen)
        ]

    def finish(self, environment: Collection[str] = (), last: Any = None) -> Effects:
        """Compare the notebook with its state before the run, and return a description of the changes.

        The attribute `bundle` receives the values with which a reuse makes these changes again.

        Parameters
        ----------
        environment
            The names of the environment variables that the body set or removed.
        last
            The value of the cell's last expression, if the shell keeps this value in ``Out``. None if ``Out`` gets the value of a variable
            instead, or nothing.
        """
        space, body, bundle = self._space, self._body, self.bundle
        bound = self.bound_names()
        definitions, values = self._split(bound)
        outputs = [name for name in bound if name in body.outputs]
        changed = [seen for seen in self._inventory.changed_objects(self.suspects) if not self._is_users_handle(seen)]
        changed += self._updated(changed)
        self._changed_roots = {seen.root for seen in changed}
        # A link uses the oldest name of an object: a newer name may be the variable of an asset, and values of assets are stored by value.
        names = [name for name in space if name not in values and not name.startswith("_")]
        self._links = {}
        for name in (*names, *outputs):
            if contents.has_content(space[name]):
                self._links.setdefault(id(space[name]), name)
        bundle.values = {name: space[name] for name in values if name not in outputs}
        lost = []
        for seen in (*changed, *self._objects_in_definitions([name for name in bound if name not in values])):
            content = content_of(seen.item) if seen.content is not None else ()
            if any(is_kept_back("", dict(enumerate(part))) for _, part in content):
                lost.append(seen.root)
            elif seen.content is not None:
                bundle.contents.append((seen.item, "content", content))
            elif contents.can_be_put(seen.item):
                bundle.contents.append((seen.item, "leaf", contents.leaf_state(seen.item)))
            else:
                lost.append(seen.root)
        shared = self._shared(outputs, [name for name in bound if name not in body.outputs])
        for name in shared:
            if self._links.get(id(space[name])) == name:
                del self._links[id(space[name])]
        bundle.values = {**{name: space[name] for name in shared}, **bundle.values}
        unstored = self._with_last(last, [name for name in outputs if name not in shared]) if last is not None else ()
        for name, state in stream_states().items():
            before = self._streams.get(name)
            if before is None or stream_digest(before) != stream_digest(state):
                bundle.streams[name] = state
        patches.scan([code for code in (body.code, body.tail) if code is not None], space)
        settings = library_state.snapshot()
        entries = library_state.changed(self.settings, settings)
        setting_values = {name: library_state.value_in(settings, name) for name, text in entries if text is None}
        # Settings that accept any value may contain credentials.
        given = {name: library_state.value_in(settings, name) for name, _ in entries if name.startswith(_FREE)}
        secret = [name for name, value in (setting_values | given).items() if is_kept_back(name, value)]
        if environment:
            # A value that another environment variable has, too, may be secret. Variables that the body set do not count as other variables.
            others = Environment(without=environment)
            secret += [
                name
                for name in environment
                if (value := value_of(name)) is not None and (looks_secret(name, value) or others.has(value))
            ]
        entries = [entry for entry in entries if entry[0] not in secret]
        bundle.settings = {name: value for name, value in setting_values.items() if name not in secret}
        variables = [(f"{ENVIRONMENT}{name}", value_of(name)) for name in environment if name not in secret]
        deleted = self.deleted_names()
        roots = tuple(dict.fromkeys(seen.root for seen in changed))
        return Effects(
            values=tuple(bundle.values),
            unstored=unstored,
            definitions=definitions,
            deleted=deleted,
            objects=roots,
            lost=(*dict.fromkeys(lost), *secret),
            streams={name: stream_digest(state) for name, state in bundle.streams.items()},
            state=(*entries, *variables),
        )

    def _objects_in_definitions(self, names: Iterable[str]) -> list[ObjectState]:
        """Return the mutable objects inside the functions and classes that the body defined, if the body may have changed them after the definition.

        A reuse executes the definitions again, but this gives the objects only their initial content.

        Parameters
        ----------
        names
            The names of the functions and classes that the body defined.
        """
        code = (self._body.code, self._body.tail)
        used = {name for each in code if each is not None for name, _ in facts(each).loads}
        made_names = []
        for key, seen in Inventory(self._space, used.intersection(names), digests=False).objects.items():
            if key in self._inventory.objects:
                continue
            item = seen.item
            holds = (
                (type(item) in {type, ABCMeta} and class_data(item))
                or (type(item) is FunctionType and (vars(item) or item.__closure__))
                or (contents.can_change(item) and not callable(item) and contents.can_be_put(item))
            )
            self._definition_objects[key] = seen
            if holds:
                made_names.append(seen)
        return made_names

    def leave_out(self, size: float) -> list[str]:
        """Remove variables that must not be stored, or are too large, from the attribute `bundle`, and return their names.

        Secrets and the variables that ``--drop`` names are removed first. Then the largest variables are removed until the remaining ones need at
        most `size` bytes. Outputs of the cell are never removed; they and the variables that ``--keep`` names do not count towards `size`.

        Parameters
        ----------
        size
            The number of bytes that the remaining variables may need. A value above 1 GB has the effect of 1 GB.
        """
        values, body = self.bundle.values, self._body
        candidates = [
            name
            for name, value in values.items()
            if name not in body.outputs and (name in body.dropped_variables or is_kept_back(name, value))
        ]
        for name in candidates:
            del values[name]
        sizes = {name: size_of(value) for name, value in values.items() if name not in {*body.outputs, *body.kept_variables}}
        total_size = sum(sizes.values())
        for name in sorted(sizes, key=lambda each: -sizes[each]):
            if total_size <= min(size, 1e9):
                break
            total_size -= sizes[name]
            del values[name]
            candidates.append(name)
        if candidates:
            self._views = None
        return candidates

    def _split(self, bound: list[str]) -> tuple[tuple[int, ...], list[str]]:
        """Divide the names `bound`, which the body bound, into names of definitions and names of other values.

        Returns
        -------
        definitions, names
            `definitions` are the indices of the body's definitions that a reuse must execute: those that bound a name in `bound`, and imports whose
            names are bound to the imported objects. `names` are the names in `bound` whose values do not come from a definition.
        """
        definitions = self._body.definitions
        by_name: dict[str, list[int]] = {}
        for place, definition in enumerate(definitions):
            for name in definition.names:
                by_name.setdefault(name, []).append(place)
        executed: set[int] = set()
        values: list[str] = []
        for name in bound:
            places = by_name.get(name, [])
            is_only_binding = name not in self._body.assigned_values and len(places) == 1
            number: int | None = next(
                (
                    address
                    for address in reversed(places)
                    if _gave(
                        definitions[address],
                        name,
                        self._space[name],
                        is_only_binding=is_only_binding,
                        stored=name in self._body.assigned_values,
                    )
                ),
                None,
            )
            if number is None:
                values.append(name)
            else:
                executed.add(number)
                # Earlier definitions of the name may have had decorators with effects, as the handlers ``def _(...)`` of a `singledispatch` function.
                earlier = [(place, definitions[place]) for place in places if place < number]
                executed.update([place for place, other in earlier if other.always and not (other.is_import or other.is_call)])
        for place, definition in enumerate(definitions):
            # An import of an object that is already bound changes nothing here, but binds the name in a new kernel.
            if definition.is_import and all(
                name in self._space and _imports(definition, name, self._space[name]) for name in definition.names
            ):
                executed.add(place)
        for name in self._held_functions(executed, values):
            executed.difference_update(by_name[name])
            values.append(name)
        return tuple(sorted(executed)), values

    def _held_functions(self, executed: Collection[int], values: list[str]) -> list[str]:
        """Return the names of functions that a reuse cannot define again, because the definition needs a variable that holds the function.

        An example is a function that a decorator adds to a list of the same cell. Such a function is stored with the list.

        Parameters
        ----------
        executed, values
            The results of `_split`.
        """
        space = self._space
        waiting = [
            name
            for number in executed
            for name in self._body.definitions[number].names
            if _is_alone(space[name]) and not self._needed(self._body.definitions[number]).isdisjoint(values)
        ]
        if not waiting:
            return []
        held = Inventory(space, values, digests=False).objects
        return [name for name in dict.fromkeys(waiting) if id(space[name]) in held]

    def _needed(self, definition: Definition) -> set[str]:
        """Return the names that the execution of a definition reads, also inside the notebook's functions that it names, such as decorators."""
        needed = set(definition.code.co_names)
        stack = [*needed]
        while stack:
            function = self._space.get(stack.pop())
            if (
                type(function) is FunctionType
                and function.__globals__ is self._space
                and function.__name__ not in definition.names
            ):
                new = {name for name, _ in facts(function.__code__).loads} - needed
                needed |= new
                stack += new
        return needed

    def _shared(self, outputs: Sequence[str], rebound: Sequence[str]) -> list[str]:
        """Return the outputs that share objects or memory with each other, with `rebound` variables, or with the rest of the notebook.

        These outputs are stored in the bundle, because only then do they share the objects and the memory after a reuse, too.
        """
        space = self._space
        inside = {name: objects_in([space[name]]) for name in outputs}
        values = self._stored_objects()
        if not values and not any(inside.values()):
            return []
        read = [
            name
            for name in (*self._body.reads, *self._body.parameters)
            if name in space and name not in {*outputs, *rebound} and contents.has_content(space[name])
        ]
        others = {**values, **objects_in([space[name] for name in read])}
        shared = []
        for name, objects in inside.items():
            elsewhere = others.keys() | set().union(*[inside[other] for other in outputs if other != name])
            if not elsewhere.isdisjoint(objects):
                shared.append(name)
        stored_objects = {key: item for objects in (values, *inside.values()) for key, item in objects.items()}
        links: dict[int, View] = {}
        if has_arrays(stored_objects.values()):
            names = reached_names(space, {*self._body.reads, *self._body.parameters}) - {*rebound, *outputs}
            notebook_objects = self._note_there(names)
            links = views(
                [item for key, item in stored_objects.items() if key not in notebook_objects], notebook_objects.values()
            )
            owners = {id(each.holder) for each in links.values()}
            linked = {id(each.owner) for each in links.values()}
            for name, objects in inside.items():
                # The memory of an output can be linked through the name of the output, but the memory of an object inside the output cannot.
                deeper = owners & (objects.keys() - {id(space[name])})
                over = {id(each) for item in objects.values() for _, each in blocks_of(item)} & (
                    notebook_objects.keys() | values.keys()
                )
                if name not in shared and (deeper or over or not objects.keys().isdisjoint(linked)):
                    shared.append(name)
            read = [name for name in names if name in space]
        if shared or links:
            # Find the addresses of the shared objects. Objects that the body may have changed are left out: they have addresses from before the run.
            held = set().union(*[inside[name].keys() for name in shared], [id(each.holder) for each in links.values()])
            roots = [name for name in read if not held.isdisjoint(objects_in([space[name]]))]
            self._unchanged = {
                key: seen
                for key, seen in Inventory(space, roots, digests=False).objects.items()
                if key not in self._inventory.objects and seen.root not in self._changed_roots
            }
        return shared

    def _stored_objects(self) -> dict[int, Any]:
        """Return the mutable objects in the bundle, by `id`."""
        states = [state for _, how, state in self.bundle.contents if how == "content"]
        return objects_in([*self.bundle.values.values(), *states])

    def _note_there(self, names: Iterable[str]) -> dict[int, Any]:
        """Set the attribute `_objects_before`, and return it.

        The attribute then has the objects of the inventory from before the run, and the objects in the present values of the variables `names`.
        """
        changed = {id(item) for item, _, _ in self.bundle.contents}
        values = [self._space[name] for name in names if name in self._space]
        before = {key: seen.item for key, seen in self._inventory.objects.items()}
        self._objects_before = {**objects_in(values, stop=changed), **before}
        return self._objects_before

    def _with_last(self, last: Any, separate_names: Sequence[str]) -> tuple[str, ...]:
        """Add the value of the cell's last expression to the bundle.

        The value cannot be added if it shares an object with the notebook that neither is in the bundle nor has an address.

        Parameters
        ----------
        separate_names
            The outputs that are stored outside the bundle; they are loaded before the bundle.

        Returns
        -------
        tuple
            ``(RESULT,)`` if the value cannot be added; otherwise empty.
        """
        space = self._space
        if not objects_in([last]):
            self.bundle.values[RESULT] = last
            return ()
        names = [name for name in (*self._body.reads, *self._body.parameters) if name in space and name not in self.bundle.values]
        notebook_objects = {
            **(self._objects_before or self._note_there(names)),
            **objects_in([space[name] for name in separate_names]),
        }
        stored = self._stored_objects()
        inside = objects_in([last], stop=notebook_objects.keys())
        links = views(inside.values(), notebook_objects.values()) if has_arrays(inside.values()) else {}
        shared = {key for key in inside if key in notebook_objects and key not in stored}
        shared |= {id(each.holder) for each in links.values() if id(each.holder) in notebook_objects}
        if shared:
            changed = {id(item) for item, _, _ in self.bundle.contents}
            for key, seen in places(space, [*separate_names, *names], changed).items():
                if key not in self._inventory.objects:
                    self._unchanged.setdefault(key, seen)
            if not shared <= self._links.keys() | self._inventory.objects.keys() | self._unchanged.keys():
                return (RESULT,)
        self.bundle.values[RESULT] = last
        return ()

    def _linked_arrays(self) -> dict[int, View]:
        """Return a `View` for each array in the bundle that is stored as a link, by the `id` of the array."""
        if self._views is None:
            self._views = {}
            new_objects = {key: item for key, item in self._stored_objects().items() if key not in self._objects_before}
            if has_arrays(new_objects.values()):
                names = [name for name in self._body.outputs if name not in self.bundle.values]
                outputs = [self._space[name] for name in names if name in self._space]
                self._views = views(new_objects.values(), [*self._objects_before.values(), *outputs])
        return self._views

    def link(self, item: Any) -> Any:
        """Return the link that is stored in place of an object of the notebook; None for an object that is stored by value."""
        kind = type(item)
        if kind in ATOMS or kind is tuple:
            return None
        view = self._linked_arrays().get(id(item))
        if view is not None:
            return ("view", view.holder, view.link)
        seen = self._inventory.objects.get(id(item)) or self._unchanged.get(id(item))
        own = self._definition_objects.get(id(item))
        if own is not None and seen is None:
            return ("at", own.root, own.address)
        if kind is ModuleType:
            return ("module", item.__name__, ()) if item.__name__ in sys.modules else None
        if kind is FunctionType or issubclass(type(item), type):
            name = getattr(item, "__qualname__", "")
            if item.__module__ == "__main__" and self._space.get(name) is item and name not in self.bundle.values:
                return ("at", name, ())
            return self._link_to(seen) if seen is not None else None
        linked = self._links.get(id(item))
        # In a later kernel, the other names of an object that the body reads may be bound to other objects.
        if seen is not None and (linked is None or linked in self._body.outputs or seen.root in self._body.reads):
            return self._link_to(seen)
        return ("at", linked, ()) if linked is not None else None

    def _link_to(self, seen: ObjectState) -> tuple[str, str, Any]:
        """Return the link to the object of `seen`, as three elements: ``was`` or ``at``, the variable, and the path from the variable to the object.

        ``was`` means that the body has rebound the variable, so the path starts at the value from before the run. ``at`` means that the path starts
        at the present value.
        """
        root = self._placed_inputs.get(seen.root, self.space_before.get(seen.root, MISSING))
        was = id(seen.item) in self._inventory.objects and root is not self._space.get(seen.root, MISSING)
        return ("was" if was else "at", seen.root, seen.address)

    def root_of(self, item: Any) -> str:
        """Return the variable from which a changed object is reached; the name of the object's type if the variable is not known."""
        seen = self._inventory.objects.get(id(item)) or self._definition_objects.get(id(item))
        return seen.root if seen is not None else type(item).__name__

    def take_own_inputs(self, bound: Collection[str]) -> dict[str, Materialization]:
        """Return the entries of `own_inputs` whose variables still have the loaded values. After that, `give_back` does not restore these variables.

        Parameters
        ----------
        bound
            The names that the body has bound; they are left out.
        """
        placed, space = self._placed_inputs, self._space
        own = {
            name: item
            for name, item in self._own_inputs.items()
            if name not in bound and space.get(name, MISSING) is placed[name]
        }
        for name in own:
            del placed[name]
        return own

    def give_back(self) -> None:
        """Restore the bindings of the names in `users_names`, and of names that were bound to inputs only for this run.

        A step may have run only to compute variables that are not stored. If the value of such a variable is also inside the value of another
        variable of the step, it is bound to the object at the same place in the notebook's value of that other variable.
        """
        places = self._places() if self.reruns_for_unstored else {}
        for name, value in self._placed_inputs.items():
            if self._space.get(name, MISSING) is value and name in self.space_before:
                self._space[name] = self.space_before[name]
        for name in self.users_names:
            self._space[name] = self.space_before[name]
        for name, (root, address) in places.items():
            with suppress(LookupError, AttributeError, TypeError, ValueError):
                self._space[name] = resolve(self._space, root, address)

    def _places(self) -> dict[str, tuple[str, contents.Address]]:
        bound = self.bound_names()
        objects = Inventory(self._space, self.users_names.intersection(bound), digests=False).objects
        found = {name: objects.get(id(self._space[name])) for name in bound if name not in self.users_names}
        return {name: (seen.root, seen.address) for name, seen in found.items() if seen is not None}


def _is_alone(value: Any) -> bool:
    """Return True for a function that holds no other objects than numbers and strings, so that a copy of it is the same function."""
    if type(value) is not FunctionType or value.__closure__ or vars(value):
        return False
    held = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    return ATOMS.issuperset(map(type, held))


def coded_inputs(step: PlanStep, materializations: Mapping[str, Materialization]) -> set[str]:
    """Return the names of those inputs of a step whose values may contain functions of the notebook, or instances of the notebook's classes."""
    names = set()
    for given in step.inputs:
        values = [materializations[key].value for key in given.keys if key in materializations]
        if any(each is None or any(name.startswith("__main__.") for name, _ in each.classes) for each in values):
            names.add(given.name)
    return names


def _texts(codes: Iterable[CodeType | None]) -> set[str]:
    """Return all words in the string constants of code. If the code looks up a name by a string, the name may be among these words."""
    texts: set[str] = set()
    pending: list[Any] = list(codes)
    while pending:
        item = pending.pop()
        if isinstance(item, CodeType):
            pending.extend(item.co_consts)
        elif isinstance(item, (tuple, frozenset)):
            pending.extend(item)
        elif isinstance(item, str):
            texts.update(re.findall(r"\w+", item))
    return texts


def size_of(value: Any) -> int:
    """Return an estimate of the number of bytes that a stored value will need, from a sample of its members."""
    try:
        return _size_of(value)
    except Exception:
        # Access to an attribute may raise any exception.
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
    if issubclass(type(value), (dict, list, tuple, set)) and value:
        some = [member for member, _ in zip(value.items() if issubclass(type(value), dict) else value, range(64), strict=False)]
        return len(value) * sum(size_of(member) for member in some) // len(some)
    return sys.getsizeof(value, 64)


def stream_digest(state: Any) -> str:
    """Return the digest of the state of a random stream; empty if the state has no digest."""
    return data_version(state) or ""


def _gave(definition: Definition, name: str, value: Any, *, is_only_binding: bool, stored: bool) -> bool:
    """Return True if `value`, the present value of a name, comes from a definition (an import, function, class or call) that the body executed.

    Parameters
    ----------
    is_only_binding
        True if no other statement of the body binds the name.
    stored
        True if the body also binds the name by an assignment.
    """
    if definition.is_import:
        return _imports(definition, name, value)
    if definition.is_call:
        return issubclass(type(value), type) and (value.__module__, value.__qualname__) == ("__main__", name)
    if is_only_binding or (definition.always and not stored):
        return True
    inside = vars(value).values() if issubclass(type(value), type) else ()
    for item in (value, *inside):
        item = item.__func__ if type(item) in {staticmethod, classmethod} else item  # noqa: PLW2901 - the function inside the method object
        code = contents.attribute(contents.attribute(item, "__wrapped__") or item, "__code__")
        if isinstance(code, CodeType) and code.co_filename == definition.code.co_filename:
            return definition.line <= code.co_firstlineno <= definition.end
    return False


def _imports(definition: Definition, name: str, value: Any) -> bool:
    """Return True if the execution of an import would now bind a name to this value, as far as the loaded modules show."""
    if not definition.sources:
        return type(value) is ModuleType or type(contents.attribute(value, "__module__")) is str
    module, attribute = definition.sources[definition.names.index(name)]
    loaded = sys.modules.get(module, MISSING)
    if not attribute:
        return loaded is value
    return value is contents.attribute(loaded, attribute, MISSING) or value is sys.modules.get(f"{module}.{attribute}", MISSING)

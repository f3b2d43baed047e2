"""The definitions of this process: assets by key and jobs by name, each with the cell that made the definition.

When a cell runs again, its new definitions replace its earlier ones, and definitions that the cell no longer makes are withdrawn (removed
from the registry). If two cells define the same key, the definition of the cell that ran last is used. `Registry.on_replacement` notifies the front
end, which prints a line or, in batch, raises an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import JobDefinition
from stepwell.kernel_runtime.errors import DuplicateKeyError, InvalidDefinitionError

Definition: TypeAlias = AssetsDefinition | SourceAsset | JobDefinition


@dataclass(slots=True)
class Entry:
    """A registered definition and the cell that made it."""

    definition: Definition
    origin: str
    """The identifier of the cell that made the definition; empty if no cell made it."""


@dataclass(slots=True)
class Registry:
    """The registered definitions: assets by key and jobs by name.

    Attributes
    ----------
    on_change
        Called with the keys or job names of definitions after these were registered or withdrawn; None to call nothing.
    on_replacement
        Called before the definition of one cell replaces that of another cell, with three strings: the asset key or job name, the source location of
        the old definition, and that of the new one. None to call nothing.
    """

    assets: dict[str, Entry] = field(default_factory=dict)
    """Assets and source assets, by their keys as strings (``raw/flights``)."""
    jobs: dict[str, Entry] = field(default_factory=dict)
    on_change: Callable[[tuple[str, ...]], None] | None = None
    on_replacement: Callable[[str, str, str], None] | None = None
    notebook: Callable[[], str] | None = None
    """A function that returns the name of the notebook or script that runs as ``__main__``; None if there is no such function."""
    _origin: str = ""
    _defined_keys: set[str] = field(default_factory=set)

    def begin_cell(self, origin: str) -> None:
        """Record that the cell with the identifier `origin` makes all definitions that are registered until `end_cell` is called."""
        self._origin = origin
        self._defined_keys = set()

    def end_cell(self, *, succeeded: bool = True) -> tuple[str, ...]:
        """Record the end of the cell, and withdraw the definitions that an earlier run of the cell made but this run did not.

        Parameters
        ----------
        succeeded
            False if the cell failed. Nothing is withdrawn then.

        Returns
        -------
        tuple of str
            The keys of the withdrawn assets and the names of the withdrawn jobs.
        """
        origin, self._origin = self._origin, ""
        if not origin or not succeeded:
            return ()
        withdrawn_keys = [
            key
            for key, entry in (*self.assets.items(), *self.jobs.items())
            if entry.origin == origin and key not in self._defined_keys
        ]
        for key in withdrawn_keys:
            self.withdraw(key)
        return tuple(withdrawn_keys)

    def register(self, definition: Definition) -> None:
        """Add `definition` to the registry, and remove earlier definitions with the same job name or with one of the same keys.

        Raises
        ------
        InvalidDefinitionError
            If `definition` is a job whose name is the key of a registered asset, or an asset with a key that is the name of a registered job. But
            if the cell that makes `definition` also made the registered definition, the latter is removed, and no error is raised.
        """
        names = names_of(definition)
        table, other, kind = (
            (self.jobs, self.assets, "an asset") if isinstance(definition, JobDefinition) else (self.assets, self.jobs, "a job")
        )
        for name in names:
            if name in other and not (self._origin and other[name].origin == self._origin):
                raise InvalidDefinitionError(
                    f"{name!r} is already the name of {kind}",
                    where=place_of_definition(other[name].definition),
                    remedy="give the asset and the job different names",
                )
        # Raise all errors before the first change.
        for name in names:
            old = table.get(name)
            if old is not None and self.on_replacement is not None and old.origin != self._origin and old.origin and self._origin:
                self.on_replacement(name, place_of_definition(old.definition), place_of_definition(definition))
        if not isinstance(definition, SourceAsset):
            in_notebook = definition.module == "__main__"
            definition.notebook = self.notebook() if in_notebook and self.notebook else definition.module
        for name in names:
            other.pop(name, None)
            old = table.get(name)
            if old is not None and old.definition is not definition:
                self._drop(old.definition)
        for name in names:
            table[name] = Entry(definition, self._origin)
            self._defined_keys.add(name)
        if self.on_change is not None:
            self.on_change(names)

    def withdraw(self, name: str) -> None:
        """Remove the definition with the asset key or job name `name`. Its other keys are removed, too. Do nothing if there is no such definition."""
        entry = self.assets.get(name) or self.jobs.get(name)
        if entry is not None:
            self._drop(entry.definition)
            if self.on_change is not None:
                self.on_change(names_of(entry.definition))

    def _drop(self, definition: Definition) -> None:
        table = self.jobs if isinstance(definition, JobDefinition) else self.assets
        for name in names_of(definition):
            if name in table and table[name].definition is definition:
                del table[name]

    def definitions(self) -> Iterator[Definition]:
        """Yield every registered definition once: first assets, then jobs, each in the order of registration."""
        seen: set[int] = set()
        for entry in itertools.chain(self.assets.values(), self.jobs.values()):
            if id(entry.definition) not in seen:
                seen.add(id(entry.definition))
                yield entry.definition


REGISTRY = Registry()
"""The registry of this process."""


def names_of(definition: Definition) -> tuple[str, ...]:
    """Return the asset keys of `definition` as strings (``raw/flights``); for a job, return its name."""
    if isinstance(definition, JobDefinition):
        return (definition.name,)
    if isinstance(definition, SourceAsset):
        return (str(definition.key),)
    return definition.written_keys


def place_of_definition(definition: Definition) -> str:
    """Return the source location of `definition` for messages; return an empty string for a source asset."""
    return "" if isinstance(definition, SourceAsset) else definition.where


def by_key(definitions: Iterable[AssetsDefinition | SourceAsset]) -> dict[str, AssetsDefinition | SourceAsset]:
    """Return `definitions` by their keys as strings (``raw/flights``). A definition with several keys appears once for each key.

    Raises
    ------
    DuplicateKeyError
        If two definitions have the same key.
    """
    by_name: dict[str, AssetsDefinition | SourceAsset] = {}
    for definition in definitions:
        for name in names_of(definition):
            if name in by_name and by_name[name] is not definition:
                first, second = place_of_definition(by_name[name]), place_of_definition(definition)
                raise DuplicateKeyError(
                    f"two definitions have the asset key {name}",
                    where=" and ".join(place for place in (first, second) if place),
                    remedy="give one of the assets another name, or pass only one of the two definitions",
                )
            by_name[name] = definition
    return by_name

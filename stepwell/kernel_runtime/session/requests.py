"""Targets in any form (definitions, keys, selection strings) as definitions and keys; and what a key means when several notebooks define it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import JobDefinition
from stepwell.kernel_runtime.definitions.registry import Registry, by_key
from stepwell.kernel_runtime.errors import AmbiguousKeyError, InvalidInvocationError
from stepwell.kernel_runtime.planning.build import Definitions
from stepwell.kernel_runtime.planning.decision import choose_current
from stepwell.kernel_runtime.records.keys import AssetKey, listed
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.session.project import notebook_exists

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def choose(key: str, rows: list[Current], own: Iterable[str], directory: Path) -> Materialization | None:
    """Return the current materialization that a reader means, or None if there is none.

    Parameters
    ----------
    rows
        What is current in each notebook, newest first.
    own
        Names of the notebooks or modules whose own it is, the most specific first.
    directory
        The store directory, which recorded paths of notebooks are relative to.

    Raises
    ------
    AmbiguousKeyError
        If none of them is the reader's own, more than one still exists, and their data versions differ.
    """
    for notebook in own:
        found = next((row.materialization for row in rows if notebook and row.notebook == notebook), None)
        if found is not None:
            return found
    alive = [row for row in rows if notebook_exists(row.notebook, directory)]
    versions = {row.materialization.data_version or row.materialization.id for row in alive}
    if len(versions) > 1:
        raise AmbiguousKeyError(
            f"{key!r} is defined by several notebooks and their values differ",
            where=listed(row.notebook for row in alive),
            remedy=f"run the cell that defines {key} here, or choose a notebook: stepwell.load({key!r}, notebook={alive[0].notebook!r})",
        )
    return choose_current(alive or rows, "")


Target: TypeAlias = "AssetsDefinition | SourceAsset | AssetKey | str"
Targets: TypeAlias = "Target | Iterable[Target] | None"
Given: TypeAlias = "Iterable[Any] | ModuleType | None"


def read_targets(targets: Targets) -> tuple[list[AssetsDefinition | SourceAsset], list[str] | None]:
    """Return the definitions among targets, and the keys and selection strings; None for everything registered.

    Raises
    ------
    InvalidInvocationError
        For a target of another type.
    """
    if targets is None:
        return [], None
    listed: Sequence[Target] = (
        _members(targets)
        if isinstance(targets, ModuleType)
        else list(targets)
        if isinstance(targets, Iterable) and not isinstance(targets, str)
        else [targets]
    )
    definitions: list[AssetsDefinition | SourceAsset] = []
    words: list[str] = []
    for target in listed:
        if isinstance(target, AssetsDefinition | SourceAsset):
            definitions.append(target)
            if isinstance(target, AssetsDefinition):
                words.extend(target.written_keys)
        elif isinstance(target, AssetKey):
            words.append(str(target))
        elif isinstance(target, str):
            words.append(target)
        elif isinstance(target, JobDefinition):
            raise InvalidInvocationError(
                f"{target.name!r} is a job", where=target.where, remedy=f"run it with {target.name}.execute()"
            )
        else:
            raise InvalidInvocationError(
                f"a target is an asset, a key or a selection string, not a {type(target).__name__}",
                remedy="for example: stepwell.materialize([clean, 'report'])",
            )
    return definitions, words


def _definitions_of(module: ModuleType) -> list[AssetsDefinition | SourceAsset | JobDefinition]:
    """Return the definitions that are globals of a module."""
    return [
        value for value in vars(module).values() if isinstance(value, AssetsDefinition | SourceAsset | JobDefinition)
    ]


def _members(module: ModuleType) -> list[Target]:
    return [value for value in _definitions_of(module) if not isinstance(value, JobDefinition)]


def lookup(registry: Registry, given: Given = None, more: Iterable[AssetsDefinition | SourceAsset] = ()) -> Definitions:
    """Return where definitions are looked up: a given list or module first, the registry second.

    Raises
    ------
    DuplicateKeyError
        If two given definitions have the same key.
    InvalidInvocationError
        If something given is no definition.
    """
    listed = [given] if isinstance(given, ModuleType) else list(given or ())
    found: list[Any] = []
    for item in listed:
        found += _definitions_of(item) if isinstance(item, ModuleType) else [item]
    for definition in found:
        if not isinstance(definition, AssetsDefinition | SourceAsset | JobDefinition):
            raise InvalidInvocationError(
                f"definitions are assets, source assets and jobs; a {type(definition).__name__} is none",
                remedy="for example: definitions=[clean, send], or a module of them",
            )
    unique = list({id(definition): definition for definition in (*found, *more)}.values())
    assets = by_key(definition for definition in unique if not isinstance(definition, JobDefinition))
    jobs: dict[str, JobDefinition] = {
        name: entry.definition for name, entry in registry.jobs.items() if isinstance(entry.definition, JobDefinition)
    }
    jobs.update({definition.name: definition for definition in unique if isinstance(definition, JobDefinition)})
    registered: Mapping[str, AssetsDefinition | SourceAsset] = {
        name: entry.definition
        for name, entry in registry.assets.items()
        if not isinstance(entry.definition, JobDefinition)
    }
    return Definitions(assets, registered, jobs)


class HoldsValues(Protocol):
    """The public `stepwell.Store`, which holds the runtime's store."""

    values: ValueStore


AnyStore: TypeAlias = "HoldsValues | ValueStore | str | os.PathLike[str] | None"
"""A store directory, an open store, or None for the session's."""


def key_text(key: AssetKey | AssetsDefinition | SourceAsset | str) -> str:
    """Return a key as it is written, of whatever names it; an `InvalidInvocationError` for anything else."""
    if isinstance(key, AssetsDefinition | SourceAsset):
        key = key.key
    if not isinstance(key, AssetKey | str):
        raise InvalidInvocationError(
            f"a key is a string, not a {type(key).__name__}", remedy="for example: stepwell.load('raw/flights')"
        )
    return str(key)

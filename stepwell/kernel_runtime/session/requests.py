"""Requests: targets in any form (definitions, keys, selection strings), and the choice of a materialization if several notebooks define a key.

A request belongs to a notebook (or script) and a store. The store is ``.stepwell`` in the project's root: the nearest folder at or above the notebook's that has a ``pyproject.toml`` or ``.git``. The
search stops before the home directory and the file system's root; without a project, the store is in the notebook's folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import JobDefinition
from stepwell.kernel_runtime.definitions.registry import Registry, by_key
from stepwell.kernel_runtime.errors import (
    AmbiguousKeyError,
    InvalidInvocationError,
    ValueUnavailableError,
    unknown_key,
)
from stepwell.kernel_runtime.execution.timeline import Timeline
from stepwell.kernel_runtime.planning.build import Definitions, step_owner
from stepwell.kernel_runtime.planning.decision import choose_current
from stepwell.kernel_runtime.planning.plan import asset_steps
from stepwell.kernel_runtime.records.keys import AssetKey, keys_text
from stepwell.kernel_runtime.records.materializations import Current, Materialization

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


Target: TypeAlias = "AssetsDefinition | SourceAsset | AssetKey | str"
Targets: TypeAlias = "Target | Iterable[Target] | None"
Given: TypeAlias = "Iterable[Any] | ModuleType | None"


def read_targets(targets: Targets) -> tuple[list[AssetsDefinition | SourceAsset], list[str] | None]:
    """Return the definitions among targets, and the keys and selection strings; None stands for everything registered.

    Raises
    ------
    InvalidInvocationError
        If a target has another type.
    """
    if targets is None:
        return [], None
    target_list: Sequence[Target] = (
        _members(targets)
        if isinstance(targets, ModuleType)
        else list(targets)
        if isinstance(targets, Iterable) and not isinstance(targets, str)
        else [targets]
    )
    definitions: list[AssetsDefinition | SourceAsset] = []
    words: list[str] = []
    for target in target_list:
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


def lookup(
    registry: Registry, definitions: Given = None, targets: Iterable[AssetsDefinition | SourceAsset] = ()
) -> Definitions:
    """Return the definitions of a request: passed definitions take precedence over registered ones.

    Parameters
    ----------
    registry
        The registry.
    definitions
        Definitions or modules of definitions; or one module.
    targets
        More definitions, usually the targets.

    Raises
    ------
    DuplicateKeyError
        If two passed definitions have the same key.
    InvalidInvocationError
        If a passed object is not a definition.
    """
    definition_list = [definitions] if isinstance(definitions, ModuleType) else list(definitions or ())
    passed: list[Any] = []
    for item in definition_list:
        passed += _definitions_of(item) if isinstance(item, ModuleType) else [item]
    for definition in passed:
        if not isinstance(definition, AssetsDefinition | SourceAsset | JobDefinition):
            raise InvalidInvocationError(
                f"definitions are assets, source assets and jobs, not a {type(definition).__name__}",
                remedy="for example: definitions=[clean, send], or a module of them",
            )
    unique = list({id(definition): definition for definition in (*passed, *targets)}.values())
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


@contextmanager
def requesting(
    timeline: Timeline | None, definitions: Iterable[Any], *, cell: bool = False, only_unbound: bool = False
) -> Iterator[None]:
    """Mark assets as requested by name during planning: their cells read the present values of the notebook's names.

    Parameters
    ----------
    timeline
        The history of the notebook's names; None outside of a notebook.
    definitions
        The assets.
    cell
        True if the cell of the assets runs, which binds all of its names.
    only_unbound
        True if the cell only binds names that are unbound.
    """
    if timeline is None:
        yield
        return
    before = timeline.requested, timeline.cells, timeline.binds_only_unbound
    steps = [step.key for item in definitions if isinstance(item, AssetsDefinition) for step in asset_steps(item)]
    timeline.requested = frozenset(steps)
    if cell:
        timeline.cells = timeline.requested
        timeline.binds_only_unbound = only_unbound
    try:
        yield
    finally:
        timeline.requested, timeline.cells, timeline.binds_only_unbound = before


class HoldsValues(Protocol):
    """The public `stepwell.Store`, which wraps the internal store."""

    values: ValueStore


AnyStore: TypeAlias = "HoldsValues | ValueStore | str | os.PathLike[str] | None"
"""A store directory, an open store, or None for the session's."""


def key_text(key: AssetKey | AssetsDefinition | SourceAsset | str) -> str:
    """Return a key, or the key of a definition, as a string.

    Raises
    ------
    InvalidInvocationError
        If the object has another type.
    """
    if isinstance(key, AssetsDefinition | SourceAsset):
        key = key.key
    if not isinstance(key, AssetKey | str):
        raise InvalidInvocationError(
            f"a key is a string, not a {type(key).__name__}", remedy="for example: stepwell.load('raw/flights')"
        )
    return str(key)


# -- the choice of a materialization


def choose(registry: Registry, reader: str, key: str, rows: list[Current], store: ValueStore) -> Materialization | None:
    """Return the current materialization of a key for a reader; None if there is none.

    The order of preference is: the notebook of the reader's definition, the reader's own notebook, any other notebook that
    still exists, then any notebook.

    Parameters
    ----------
    registry, reader
        The reader's definitions, and the name of its notebook or script.
    rows
        The current materializations of the notebooks, newest first.

    Raises
    ------
    AmbiguousKeyError
        If neither of the reader's notebooks has a materialization, several other notebooks still exist, and their data versions differ.
    """
    entry = registry.assets.get(key)
    definer = getattr(entry.definition, "notebook", "") if entry is not None else ""
    for notebook in (definer, reader):
        item = next((row.materialization for row in rows if notebook and row.notebook == notebook), None)
        if item is not None:
            return item
    alive = [row for row in rows if notebook_exists(row.notebook, store.directory)]
    versions = {row.materialization.data_version or row.materialization.id for row in alive}
    if len(versions) > 1:
        raise AmbiguousKeyError(
            f"{key!r} is defined by several notebooks and their values differ",
            where=keys_text(row.notebook for row in alive),
            remedy=f"run the cell that defines {key} here, or choose a notebook: stepwell.load({key!r}, notebook={alive[0].notebook!r})",
        )
    return choose_current(alive or rows, "")


def current(
    key: str, store: ValueStore, registry: Registry, reader: str, *, notebook: str | None = None
) -> Materialization:
    """Return the current materialization of a key, or of the only output of a step.

    Parameters
    ----------
    registry, reader
        As in `choose`.
    notebook
        The notebook to read from; by default `choose` decides.

    Raises
    ------
    ValueUnavailableError, AmbiguousKeyError
        If no materialization exists, or if those of several notebooks differ.
    """
    rows = store.current(key)
    if not rows and (owner := step_owner(key, lookup(registry))) is not None:
        outputs = [output.key for step in asset_steps(owner) if step.key == key for output in step.outputs]
        rows = store.current(outputs[0]) if len(outputs) == 1 else []
    if not rows:
        remedy = (
            f"%materialize {key}, or stepwell.materialize([{key!r}])"
            if key in registry.assets
            else unknown_key("key", key, [*store.keys(), *registry.assets]).remedy
        )
        raise ValueUnavailableError(f"nothing is stored for {key!r}", where=str(store.directory), remedy=remedy)
    if notebook is not None:
        rows = [row for row in rows if row.notebook == notebook]
    item = choose(registry, reader, key, rows, store)
    if item is None:
        raise ValueUnavailableError(f"nothing is stored for {key!r}")
    return item


STORE = ".stepwell"
_MARKS = ("pyproject.toml", ".git")


def in_ipython() -> bool:
    """Return True if an IPython shell runs in this process; IPython is not imported."""
    module = sys.modules.get("IPython")
    get = getattr(module, "get_ipython", None) if module is not None else None
    return get is not None and get() is not None


def notebook_path(namespace: Mapping[str, Any] | None = None) -> Path | None:
    """Return the path of the notebook or script that runs as ``__main__``; None if the path is unknown.

    The sources are, in this order: ``STEPWELL_NOTEBOOK`` (set by ``stepwell run``), ``JPY_SESSION_NAME`` (set by Jupyter),
    ``__vsc_ipynb_file__`` (set by VS Code), and the script's ``__file__``.
    """
    space = namespace if namespace is not None else vars(sys.modules["__main__"])
    for path in (
        os.environ.get("STEPWELL_NOTEBOOK"),
        os.environ.get("JPY_SESSION_NAME"),
        space.get("__vsc_ipynb_file__"),
    ):
        if path and str(path).endswith(".ipynb"):
            return Path(str(path)).absolute()
    if in_ipython():
        return None
    script = space.get("__file__")
    return Path(script).absolute() if isinstance(script, str) else None


def project_root(start: Path) -> Path:
    """Return the nearest folder at or above a folder that has a ``pyproject.toml`` or ``.git``, else the folder itself."""
    home = Path.home()
    for folder in (start, *start.parents):
        if folder in (home, Path(folder.anchor)):
            break
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    return start


def store_directory(namespace: Mapping[str, Any] | None = None) -> tuple[Path, bool]:
    """Return the store directory of this process's notebook or script, and True if the user named the directory."""
    return named_or_found(None, _folder(namespace))


def project_directory(namespace: Mapping[str, Any] | None = None) -> Path:
    """Return the project's root for this process's notebook or script, independent of its store."""
    return project_root(_folder(namespace))


def _folder(namespace: Mapping[str, Any] | None) -> Path:
    path = notebook_path(namespace)
    return path.parent if path is not None and path.parent.is_dir() else Path.cwd()


def named_or_found(named_directory: str | None, folder: Path) -> tuple[Path, bool]:
    """Return a store directory, and True if the user named the directory.

    A directory from the argument or the environment takes precedence over the store of the folder's project. The second value decides if the
    directory may be a link: ``.stepwell`` in a downloaded project may be a link that the user does not know about.

    Parameters
    ----------
    named_directory
        The directory that the user named, or None.
    folder
        The folder of the notebook or script.
    """
    named = named_directory or os.environ.get("STEPWELL_STORE")
    return (Path(named).expanduser().absolute(), True) if named else (project_root(folder) / STORE, False)


def notebook_name(store: Path, namespace: Mapping[str, Any] | None = None) -> str:
    """Return the name under which this process's definitions are recorded: the notebook's path, relative to the project if inside the project."""
    path = notebook_path(namespace)
    if path is None:
        return "__main__"
    try:
        return path.relative_to(store.parent).as_posix()
    except ValueError:
        return path.as_posix()


def notebook_exists(name: str, store: Path) -> bool:
    """Return True if a recorded notebook or script still exists, or is a module."""
    if name in ("", "__main__"):
        return False
    if name.endswith((".ipynb", ".py")):
        return (store.parent / name).exists()
    return True

"""What a request refers to: its targets, its definitions, its notebook or script, its store, and the materialization of a key.

Targets are definitions, keys or selection strings. If several notebooks define a key, `choose` selects the materialization that the request
reads. The default store is the folder ``.stepwell`` in the root of the project. This root is the nearest folder, at or above the notebook's
folder, that contains ``pyproject.toml`` or ``.git``. The home folder, the folders above it and the root of the file system
are never examined. If no such folder is found, the root of the project is the notebook's folder.
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
    """Split targets into definitions and words.

    Parameters
    ----------
    targets
        Definitions, keys and selection strings, or one of these; a module for the assets in it; None for all registered assets.

    Returns
    -------
    tuple
        A list of the definitions, and a list of the words: all keys and selection strings, and the keys of those definitions that are not
        source assets. If `targets` is None, an empty list and None.

    Raises
    ------
    InvalidInvocationError
        If a target has another type, or is a job.
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
                f"{target.name!r} is a job, which cannot be materialized",
                where=target.where,
                remedy=f"run the job with {target.name}.execute()",
            )
        else:
            raise InvalidInvocationError(
                f"a target must be an asset, a key or a selection string, not an object of type {type(target).__name__}",
                remedy="pass targets like these: stepwell.materialize([clean, 'report'])",
            )
    return definitions, words


def _definitions_of(module: ModuleType) -> list[AssetsDefinition | SourceAsset | JobDefinition]:
    """Return the assets, source assets and jobs that are global variables of a module."""
    return [value for value in vars(module).values() if isinstance(value, AssetsDefinition | SourceAsset | JobDefinition)]


def _members(module: ModuleType) -> list[Target]:
    return [value for value in _definitions_of(module) if not isinstance(value, JobDefinition)]


def lookup(registry: Registry, definitions: Given = None, targets: Iterable[AssetsDefinition | SourceAsset] = ()) -> Definitions:
    """Return the definitions that a request uses: those that were passed to it, and the registered ones for all other keys.

    Parameters
    ----------
    definitions
        The passed definitions: a list of definitions and modules of definitions, or one module; None if there are none.
    targets
        Further passed definitions, usually the targets of the request.

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
                f"a definition must be an asset, a source asset or a job, not an object of type {type(definition).__name__}",
                remedy="pass definitions like these: definitions=[clean, send], or a module that contains them",
            )
    unique = list({id(definition): definition for definition in (*passed, *targets)}.values())
    assets = by_key(definition for definition in unique if not isinstance(definition, JobDefinition))
    jobs: dict[str, JobDefinition] = {
        name: entry.definition for name, entry in registry.jobs.items() if isinstance(entry.definition, JobDefinition)
    }
    jobs.update({definition.name: definition for definition in unique if isinstance(definition, JobDefinition)})
    registered: Mapping[str, AssetsDefinition | SourceAsset] = {
        name: entry.definition for name, entry in registry.assets.items() if not isinstance(entry.definition, JobDefinition)
    }
    return Definitions(assets, registered, jobs)


@contextmanager
def requesting(
    timeline: Timeline | None, definitions: Iterable[Any], *, cell: bool = False, only_unbound: bool = False
) -> Iterator[None]:
    """Record in the timeline which assets a request names. The note is removed at the end of the ``with`` block.

    Within the block, the cells of these assets read the present values of the notebook's variables, even if other cells have reassigned them.

    Parameters
    ----------
    timeline
        The timeline of the notebook; None outside of a notebook, where nothing is noted.
    definitions
        The assets that the request names; other definitions are ignored.
    cell
        True if the user runs the cell that defines these assets. Then the cell binds all of its variables, even those that other cells have bound.
    only_unbound
        Used only if `cell` is True. True to let the cell bind only those of its variables that are not bound yet.
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
    """An object whose attribute `values` is the internal store. The public `stepwell.Store` is such an object."""

    values: ValueStore


AnyStore: TypeAlias = "HoldsValues | ValueStore | str | os.PathLike[str] | None"
"""A store directory, an open store, or None for the session's store."""


def key_text(key: AssetKey | AssetsDefinition | SourceAsset | str) -> str:
    """Return a key as a string; for the definition of an asset, return its key.

    Raises
    ------
    InvalidInvocationError
        If `key` is neither a string, an `AssetKey` nor the definition of an asset.
    """
    if isinstance(key, AssetsDefinition | SourceAsset):
        key = key.key
    if not isinstance(key, AssetKey | str):
        raise InvalidInvocationError(
            f"a key must be a string, not an object of type {type(key).__name__}",
            remedy="write the key in quotes: stepwell.load('raw/flights')",
        )
    return str(key)


# -- the choice of a materialization


def choose(registry: Registry, reader: str, key: str, rows: list[Current], store: ValueStore) -> Materialization | None:
    """Return the materialization that a notebook or script reads for a key. Several notebooks may have a current one.

    The materialization of the notebook that defines the registered asset is preferred, then that of the notebook that reads, then that of any
    notebook that still exists, then any other.

    Parameters
    ----------
    registry
        The definitions of the notebook that reads.
    reader
        The name of the notebook or script that reads.
    rows
        The current materialization of `key` in each notebook, newest first.
    store
        The store that contains the materializations. The recorded paths of notebooks are relative to the parent folder of its directory.

    Returns
    -------
    Materialization or None
        The chosen materialization; None if `rows` is empty.

    Raises
    ------
    AmbiguousKeyError
        If neither the defining nor the reading notebook has a materialization, and the data versions of other notebooks that still exist
        differ.
    """
    entry = registry.assets.get(key)
    definer = getattr(entry.definition, "notebook", "") if entry is not None else ""
    for notebook in (definer, reader):
        item = next((row.materialization for row in rows if notebook and row.notebook == notebook), None)
        if item is not None:
            return item
    existing = [row for row in rows if notebook_exists(row.notebook, store.directory)]
    versions = {row.materialization.data_version or row.materialization.id for row in existing}
    if len(versions) > 1:
        raise AmbiguousKeyError(
            f"several notebooks define {key!r}, and their current values differ",
            where=keys_text(row.notebook for row in existing),
            remedy=f"run the cell that defines {key} in this notebook, or choose a notebook: stepwell.load({key!r}, notebook={existing[0].notebook!r})",
        )
    return choose_current(existing or rows, "")


def current(key: str, store: ValueStore, registry: Registry, reader: str, *, notebook: str | None = None) -> Materialization:
    """Return the current materialization of a key, or of the only output of a step.

    Parameters
    ----------
    registry, reader
        The definitions and the name of the notebook or script that reads.
    notebook
        The notebook whose materialization is returned; None to let `choose` select a notebook.

    Raises
    ------
    ValueUnavailableError
        If `key` has no current materialization, or none from `notebook`.
    AmbiguousKeyError
        If `choose` cannot decide between the materializations of several notebooks.
    """
    rows = store.current(key)
    if not rows and (owner := step_owner(key, lookup(registry))) is not None:
        outputs = [output.key for step in asset_steps(owner) if step.key == key for output in step.outputs]
        rows = store.current(outputs[0]) if len(outputs) == 1 else []
    if not rows:
        remedy = (
            f"compute it: %materialize {key}, or stepwell.materialize([{key!r}])"
            if key in registry.assets
            else unknown_key("key", key, [*store.keys(), *registry.assets]).remedy
        )
        raise ValueUnavailableError(f"nothing is stored for {key!r}", where=f"in the store {store.directory}", remedy=remedy)
    if notebook is not None:
        rows = [row for row in rows if row.notebook == notebook]
    item = choose(registry, reader, key, rows, store)
    if item is None:
        raise ValueUnavailableError(f"nothing is stored for {key!r} from the notebook {notebook!r}")
    return item


STORE = ".stepwell"
_MARKS = ("pyproject.toml", ".git")


def in_ipython() -> bool:
    """Return True if an IPython shell runs in this process. The function does not import IPython."""
    module = sys.modules.get("IPython")
    get = getattr(module, "get_ipython", None) if module is not None else None
    return get is not None and get() is not None


def notebook_path(namespace: Mapping[str, Any] | None = None) -> Path | None:
    """Return the path of the notebook or script that runs as ``__main__``; None if the path is unknown.

    The path is the first of these that ends with ``.ipynb``: the environment variable ``STEPWELL_NOTEBOOK`` (set by ``stepwell run``), the
    environment variable ``JPY_SESSION_NAME`` (set by Jupyter), and the variable ``__vsc_ipynb_file__`` (set by VS Code). If none of them
    does, the path is unknown in IPython; in a script, it is the variable ``__file__``.
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
    """Return the nearest folder, at or above `start`, that contains ``pyproject.toml`` or ``.git``; `start` if there is none.

    The home folder, the file system's root and the folders above the home folder are not searched.
    """
    home = Path.home()
    for folder in (start, *start.parents):
        if folder in (home, Path(folder.anchor)):
            break
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    return start


def store_directory(namespace: Mapping[str, Any] | None = None) -> tuple[Path, bool]:
    """Return the store directory that the notebook or script of this process uses if the user names none in a call or option.

    This is the directory that the environment variable ``STEPWELL_STORE`` names; if it is not set, ``.stepwell`` in the root of the project. The
    second result is True if ``STEPWELL_STORE`` is set, otherwise False.

    Parameters
    ----------
    namespace
        The namespace of the notebook; None for that of ``__main__``.
    """
    return named_or_found(None, _folder(namespace))


def project_directory(namespace: Mapping[str, Any] | None = None) -> Path:
    """Return the root of the project that contains the notebook or script of this process. The location of the store does not matter.

    Parameters
    ----------
    namespace
        The namespace of the notebook; None for that of ``__main__``.
    """
    return project_root(_folder(namespace))


def _folder(namespace: Mapping[str, Any] | None) -> Path:
    path = notebook_path(namespace)
    return path.parent if path is not None and path.parent.is_dir() else Path.cwd()


def named_or_found(named_directory: str | None, folder: Path) -> tuple[Path, bool]:
    """Return the store directory; and True if the user named it, False if it is the default.

    The directory is `named_directory`, else the environment variable ``STEPWELL_STORE``, else ``.stepwell`` in the root of the project of `folder`.
    The second value is True in the first two cases. Only then may the directory be a link: in a downloaded project, ``.stepwell`` may be
    a link that the user does not know about.

    Parameters
    ----------
    named_directory
        The directory that the user named; None if the user named none.
    folder
        The folder of the notebook or script.
    """
    named = named_directory or os.environ.get("STEPWELL_STORE")
    return (Path(named).expanduser().absolute(), True) if named else (project_root(folder) / STORE, False)


def notebook_name(store: Path, namespace: Mapping[str, Any] | None = None) -> str:
    """Return the name under which the store in the directory `store` records the notebook or script of this process.

    The name is the path of the notebook: relative to the parent folder of `store` if the notebook is below that folder, else absolute. It
    is ``__main__`` if the path is unknown.
    """
    path = notebook_path(namespace)
    if path is None:
        return "__main__"
    try:
        return path.relative_to(store.parent).as_posix()
    except ValueError:
        return path.as_posix()


def notebook_exists(name: str, store: Path) -> bool:
    """Return True if the notebook or script with a recorded name still exists. A module is assumed to exist.

    Parameters
    ----------
    name
        A name as `notebook_name` returns it, or the name of a module.
    store
        The store directory; relative paths begin at its parent folder.
    """
    if name in ("", "__main__"):
        return False
    if name.endswith((".ipynb", ".py")):
        return (store.parent / name).exists()
    return True

"""The public functions: what ``import stepwell`` offers beside the declarations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.records.protocols import ValueStore, Verify
from stepwell.kernel_runtime.session.explanation import Explanation
from stepwell.kernel_runtime.session.history import WhichVersion
from stepwell.kernel_runtime.session.kernel import get_session
from stepwell.kernel_runtime.session.requests import Given, Targets

AnyStore: TypeAlias = "ValueStore | str | os.PathLike[str] | None"


def materialize(
    targets: Targets = None,
    *,
    store: AnyStore = None,
    definitions: Given = None,
    stale_only: bool = True,
    upstream: bool = True,
    raise_on_error: bool = True,
) -> RunResult:
    """Bring assets, and every upstream that they need, up to date; run only what is stale.

    Parameters
    ----------
    targets
        Definitions, keys and selection strings (``"+report"``), alone or in a list; None for everything registered.
    store
        A store directory or an open store; by default the session's: ``.stepwell`` of the project in IPython, a throw-away
        one in a plain process.
    definitions
        More definitions, or a module of them, in which upstreams are looked up before the registry.
    stale_only
        False runs the targets even if they could be reused.
    upstream
        Whether upstream assets are brought up to date; else they are read as they are stored, and ``result.notes`` names
        those that are stale.
    raise_on_error
        Whether an exception of a step is raised after the run is recorded: the user's own exception, with a note that names
        the run. Else the result says what failed.

    Raises
    ------
    UnknownKeyError, InvalidSelectionError, DuplicateKeyError, CycleError, MissingUpstreamError
        Before anything runs.
    """
    return get_session().materialize(
        targets,
        definitions=definitions,
        store=store,
        force=not stale_only,
        upstream=upstream,
        raise_on_error=raise_on_error,
    )


def rerun(
    keys: Targets, *, definitions: Given = None, store: AnyStore = None, raise_on_error: bool = True
) -> RunResult:
    """Run single steps (``report.transform``) on the stored outputs of the others, even where these are stale.

    Raises
    ------
    UnknownKeyError, DefinitionUnavailableError
        If no step is called so, or its code is not here.
    """
    return get_session().rerun(keys, definitions=definitions, store=store, raise_on_error=raise_on_error)


def resume(run_id: str, *, definitions: Given = None, store: AnyStore = None, raise_on_error: bool = True) -> RunResult:
    """Execute again exactly the steps of a run that failed or never started.

    Raises
    ------
    UnknownKeyError, InvariantViolationError, DefinitionUnavailableError, ValueNotKeptError
        If there is no such run, it succeeded, its code is not here, or a value that it needs was not kept.
    """
    if not isinstance(run_id, str):
        raise InvalidInvocationError(
            f"a run is named by its identifier, not by a {type(run_id).__name__}",
            remedy="for example: stepwell.resume(stepwell.last_run().run_id)",
        )
    return get_session().resume(run_id, definitions=definitions, store=store, raise_on_error=raise_on_error)


def load(
    key: AssetKey | AssetsDefinition | SourceAsset | str,
    *,
    store: AnyStore = None,
    notebook: str | None = None,
    version: WhichVersion | None = None,
    verify: Verify = "signed",
) -> Any:
    """Return the current value of an asset or step: an own copy unless its type is immutable.

    Parameters
    ----------
    key
        A written key, an asset's or a step's; or a key or definition itself.
    notebook
        Whose value is meant, where several notebooks define the key and their values differ.
    version
        An older one: the beginning of its identifier, a number (-1 is the newest, -2 the one before; 0 the oldest), or a time
        (a `datetime`, or ISO text), for what the newest was then. `versions` lists them.
    verify
        ``full`` checks every byte of the value's file; by default that is done at its first load since the machine was started.

    Raises
    ------
    ValueUnavailableError, AmbiguousKeyError
        If there is none, it cannot be loaded, or several notebooks have different ones.
    UnknownVersionError
        If the key has no such version, or several.
    """
    return get_session().load(key_text(key), notebook=notebook, version=version, verify=verify, store=store)


def why(
    key: AssetKey | AssetsDefinition | SourceAsset | str, *, definitions: Given = None, store: AnyStore = None
) -> Explanation:
    """Return why an asset or step is in its state, and why it ran the last time that it was not reused.

    Causes are followed upstream to their origin. What is only stored, because its cell has not run here, is explained by the store's records.

    Parameters
    ----------
    key
        A written key, an asset's or a step's; or a key or definition itself.
    definitions
        Definitions, or a module of them, that are looked up before those that are registered.

    Raises
    ------
    UnknownKeyError
        If nothing is called so.

    Examples
    --------
    >>> print(stepwell.why("final"))  # doctest: +SKIP
    final: may change, because LIMIT 3 -> 4 in cell 5, three steps up: clean -> rep.f -> rep.g
    """
    return get_session().why(key_text(key), definitions=definitions, store=store)


def key_text(key: AssetKey | AssetsDefinition | SourceAsset | str) -> str:
    """Return a key as it is written, of whatever names it; an `InvalidInvocationError` for anything else."""
    if isinstance(key, AssetsDefinition | SourceAsset):
        key = key.key
    if not isinstance(key, AssetKey | str):
        raise InvalidInvocationError(
            f"a key is a string, not a {type(key).__name__}", remedy="for example: stepwell.load('raw/flights')"
        )
    return str(key)


def sql(
    text: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    frame: str = "auto",
    store: AnyStore = None,
    notebook: str | None = None,
) -> Any:
    """Run one SELECT over stored assets, or over what the store knows of its runs, and return the rows.

    A table is an asset's key: ``clean``, ``raw.flights`` or ``"raw/flights"``, read as `load` reads it; its value is a frame of pandas,
    polars or pyarrow, an array of one or two dimensions, a list of dicts or a dict of lists. A named index of pandas becomes columns.
    ``read_csv``, ``read_json`` and ``read_parquet`` read files below the project. The schema ``stepwell`` holds views of the catalog: runs, steps,
    materializations, current, lineage, reads, sizes, durations, code_versions, logs. Nothing is ever written. Inside a step everything
    that is read counts as an input of the step, except the catalog.

    Parameters
    ----------
    text
        One SELECT in DuckDB's dialect; FROM, WITH, VALUES, DESCRIBE and SUMMARIZE are SELECTs too.
    parameters
        Values of ``$name`` in the text.
    frame
        ``pandas``, ``polars``, ``pyarrow``, ``reader`` (a ``pyarrow.RecordBatchReader`` that makes rows as they are read), or ``auto``
        (pandas where it is installed, else pyarrow).
    store
        A store directory or an open store; by default the session's.
    notebook
        Whose values are meant, where several notebooks define a key and their values differ.

    Raises
    ------
    CellSyntaxError
        If the text is not one SELECT over assets, files and the catalog.
    QueryError
        If it cannot be run: no such table or parameter, a file elsewhere, DuckDB's own errors.
    NotTabularError
        If an asset that it reads is no table.
    ValueUnavailableError, AmbiguousKeyError
        As in `load`.
    """
    return get_session().sql(text, parameters=parameters, frame=frame, store=store, notebook=notebook)


def open_store(directory: str | os.PathLike[str]) -> ValueStore:
    """Open a store directory: the one with ``catalog.duckdb``; made if it is not there.

    Raises
    ------
    StoreError
        If it cannot be written, was written by a newer Stepwell, or is damaged.
    """
    return get_session().open(directory)


def last_run() -> RunResult | None:
    """Return the result of this process's newest run, also of one that failed; None before the first."""
    return get_session().last_run

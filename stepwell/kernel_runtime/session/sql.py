"""SELECTs: SQL assets, and the frame that the rows of a SELECT become.

A SQL asset is one SELECT over assets, in a cell or in a script. The tables that it names are its inputs; `sql_asset` makes the definition and
`run_sql` its value. Where a SELECT may read files, and where it spills, follows from the store and the project (`Surroundings`). Files that it
reads inside a step are recorded as reads of that step.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, CoercibleToAssetDep, dep_keys
from stepwell.kernel_runtime.definitions.bodies import SqlBody
from stepwell.kernel_runtime.definitions.declarations import In, MaxAge, Out
from stepwell.kernel_runtime.definitions.jobs import runner
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.definitions.signatures import place
from stepwell.kernel_runtime.errors import (
    CellError,
    CellNameError,
    CellSyntaxError,
    InvalidInvocationError,
    QueryError,
    StepwellError,
)
from stepwell.kernel_runtime.reads import active
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, prefixed
from stepwell.kernel_runtime.session.project import STORE, notebook_path, project_root
from stepwell.kernel_runtime.store.signing import key_path

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.sql.select import Scope

FRAMES = ("auto", "pandas", "polars", "pyarrow", "reader")
"""What the rows of a SELECT can become; ``reader`` is a ``pyarrow.RecordBatchReader`` that makes them as they are read."""


# -- the definition


@dataclass(frozen=True, slots=True)
class Select:
    """One SELECT as the parser understands it.

    Attributes
    ----------
    text
        The statement as typed, without the semicolon.
    tables
        The tables that it names, in the order of the text, written as keys: ``raw/flights`` for ``raw.flights``. Of spellings that
        differ in capitals only the first.
    parameters
        Names of its ``$name`` parameters.
    canonical
        What its code version digests.
    """

    text: str
    tables: tuple[str, ...]
    parameters: tuple[str, ...]
    canonical: str


def read_select(what: str, text: str, where: str) -> Select:
    """Read the text of a SQL asset, which messages call `what`.

    Raises
    ------
    CellSyntaxError
        If it is not exactly one SELECT.
    """
    from stepwell.kernel_runtime.store.sql.catalog_views import catalog_view
    from stepwell.kernel_runtime.store.sql.statements import folded, read_statement

    statement = plain(text)
    try:
        found = read_statement(statement)
    except CellSyntaxError as error:
        raise CellSyntaxError(
            f"{what}: {error.what}",
            where=", ".join(part for part in (where, error.where) if part),
            remedy=error.remedy,
        ) from None
    tables: dict[str, str] = {}
    for path in found.tables:
        if catalog_view(path):
            raise CellError(
                f"{what} reads the catalog ({'.'.join(path)}), which changes with every run",
                where=where,
                remedy="look at it with %stepwell sql, or stepwell.sql(...)",
            )
        written = "/".join(path)
        tables.setdefault(folded(written), written)
    return Select(statement, tuple(tables.values()), found.parameters, found.canonical)


def plain(text: str) -> str:
    """Return the text of a statement without the semicolons at its end."""
    return text.strip().rstrip("; \n\t")


def select_body(
    select: Select, key: AssetKey, inputs: Iterable[str], variables: dict[str, Any], *, frame: str, where: str
) -> SqlBody:
    """Return what executes a SELECT.

    Parameters
    ----------
    inputs
        The tables that are assets.
    variables
        Where its ``$name`` parameters are looked up when it runs: the notebook's namespace, live, or given values.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto``.
    """
    return SqlBody(
        key.name,
        select.text,
        where,
        tuple(inputs),
        select.parameters,
        variables,
        frame_type(frame, FRAMES[:-1]),
        select.canonical,
    )


def sql_asset(
    name: str,
    text: str,
    *,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, CoercibleToAssetKey] | None = None,
    deps: Iterable[CoercibleToAssetDep] | None = None,
    parameters: Mapping[str, Any] | None = None,
    frame: str = "auto",
    group_name: str | None = None,
    description: str | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
) -> AssetsDefinition:
    """Make an asset of one SELECT; the tables that it names are the upstream assets.

    Parameters
    ----------
    name, key_prefix
        The asset's key.
    text
        One SELECT in DuckDB's dialect. White space and comments do not count in its code version.
    ins
        Which asset a table is, where that is not its name.
    deps
        Upstreams that are not read: they only come first.
    parameters
        Values of ``$name`` in the text.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto`` (pandas where it is installed).
    group_name, description, cache, volatile, max_age
        As in `asset`.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    InvalidInvocationError
        If there is no such type of frame.
    CellNameError
        If a parameter has no value, or a table's name cannot be an asset's.
    CellError
        If the asset would depend on itself.
    """
    caller = sys._getframe(1)  # noqa: SLF001 - where the definition is, as a decorator knows from its function
    where = place(caller.f_code.co_filename, caller.f_lineno)
    key = prefixed(key_prefix, name)
    select = read_select(f"the SELECT of {key.name!r}", text, where)
    values = dict(parameters or {})
    for missing in select.parameters:
        if missing not in values:
            raise CellNameError(
                f"the SELECT of {key.name!r} takes ${missing}, which has no value",
                where=where,
                remedy=f"parameters={{{missing!r}: ...}}",
            )
    given = {table: as_asset_key(upstream) for table, upstream in (ins or {}).items()}
    inputs = {table: given.get(table) or _key_of(table, key, where) for table in select.tables}
    made = select_asset(
        key, select_body(select, key, inputs, values, frame=frame, where=where), inputs, deps=dep_keys(deps), group=group_name,
        cache=cache, volatile=volatile, max_age=max_age, where=where, module=str(caller.f_globals.get("__name__", "")),
        description=description,
    )  # fmt: skip
    if made.module == "__main__":
        runner().register(made)
    return made


def select_asset(
    key: AssetKey,
    body: SqlBody,
    inputs: Mapping[str, AssetKey],
    *,
    where: str,
    module: str,
    deps: Iterable[AssetKey] = (),
    group: str | None = None,
    description: str | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
    ignore: Iterable[str] | str | None = None,
) -> AssetsDefinition:
    """Return the definition of a SQL asset; it is not registered.

    Raises
    ------
    CellError
        If it would depend on itself.
    """
    if key in inputs.values():
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}: the asset would depend on itself",
            where=where,
            remedy="give the asset another name than what it reads",
        )
    op = OpDefinition(
        "__".join(key.path), body, ins={name: In() for name in inputs}, outs={"result": Out()}, cache=cache,
        volatile=volatile, max_age=max_age, ignore=ignore, where=where,
    )  # fmt: skip
    return AssetsDefinition(
        op, kind="sql_asset", keys_by_input=dict(inputs), keys_by_output={"result": key}, deps=tuple(deps),
        group_names={key: group} if group else None, descriptions={key: description or ""}, where=where, module=module,
    )  # fmt: skip


def _key_of(table: str, key: AssetKey, where: str) -> AssetKey:
    if not all(part.isidentifier() for part in table.split("/")):
        raise CellNameError(
            f"the SELECT of {key.name!r} reads {table!r}, which is no asset's name",
            where=where,
            remedy=f"name its key: ins={{{table!r}: AssetKey([...])}}",
        )
    return as_asset_key(table)


# -- the rows


def frame_type(setting: str, kinds: tuple[str, ...] = FRAMES) -> str:
    """Return the type of frame that a SELECT gives: the setting, else pandas where it is installed, else pyarrow.

    Parameters
    ----------
    kinds
        Those that can be meant: an asset's value is kept, so it is no reader.

    Raises
    ------
    InvalidInvocationError
        If there is no such type.
    """
    if setting not in kinds:
        raise InvalidInvocationError(
            f"{setting!r} is no type of frame that a SELECT gives", remedy=f"frame= is one of {', '.join(kinds)}"
        )
    if setting != "auto":
        return setting
    return "pandas" if importlib.util.find_spec("pandas") is not None else "pyarrow"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a SELECT runs.

    Attributes
    ----------
    store
        The store directory: values, and where it spills.
    project
        The folder below which it may read files; None where there is none: the home folder is no project.
    """

    store: Path
    project: Path | None

    @property
    def secret(self) -> tuple[Path, ...]:
        """What is never read although it is below the project."""
        return (self.store, key_path(os.environ.get("STEPWELL_KEY_FILE", "")))


def surroundings(store: Path, namespace: Mapping[str, Any] | None = None) -> Surroundings:
    """Return where SELECTs over a store run: its project is the folder that the store stands in, else the notebook's or script's."""
    if store.name == STORE:
        project = store.parent
    else:
        notebook = notebook_path(namespace)
        project = project_root(notebook.parent if notebook is not None and notebook.parent.is_dir() else Path.cwd())
    alone = project in (Path.home(), Path(project.anchor))
    return Surroundings(store, None if alone else project)


def run_sql(body: SqlBody, arguments: Mapping[str, Any], around: Surroundings) -> Any:
    """Return the result of a SELECT as the type of frame that the body names.

    Raises
    ------
    CellError
        If the text is no SELECT, a value is no table, or DuckDB cannot run it: names the asset, its cell and the reason.
    """
    from stepwell.kernel_runtime.store.sql.select import Scope
    from stepwell.kernel_runtime.store.sql.statements import folded, read_statement

    try:
        statement = read_statement(body.text)
        values = {folded(name): value for name, value in arguments.items()}
        tables = {path: values[folded("/".join(path))] for path in statement.tables}
        parameters = {name: body.globals[name] for name in body.parameters}
        return rows_as(body.frame, body.text, Scope(tables, parameters), around)
    except CellError:
        raise
    except StepwellError as error:
        where = "; ".join(part for part in (body.where, error.where) if part)
        remedy = error.remedy or f"its tables are: {', '.join(arguments) or 'none'}"
        raise CellError(f"{body.name}: {error.what}", where=where, remedy=remedy) from error


def rows_as(frame: str, text: str, scope: Scope, around: Surroundings) -> Any:
    """Run a SELECT and return its rows as a type of frame; errors as in `run_select`."""
    from stepwell.kernel_runtime.store.sql.files import file_access
    from stepwell.kernel_runtime.store.sql.select import run_select, stream_select
    from stepwell.kernel_runtime.store.sql.statements import read_statement

    sources = read_statement(text).files
    files = None
    if sources:
        recorder = active()
        # Looking what a pattern matches is no read of the step; what it matched is.
        with recorder.looks() if recorder is not None else nullcontext():
            files = file_access(sources, scope.parameters, around.project, around.secret)
        if recorder is not None:
            for path in files.named:
                recorder.path_read(path)
    scope = replace(scope, files=files, store=around.store)
    found = (stream_select if frame == "reader" else run_select)(text, scope)
    return found if frame in ("reader", "pyarrow") else as_frame(found, frame)


def as_frame(table: Any, frame: str) -> Any:
    """Return an Arrow table as a pandas or polars frame.

    In pandas, whole numbers and booleans with NULL become ``Int64`` and ``boolean``: as floats and objects, large numbers would change.

    Raises
    ------
    QueryError
        If the library has no type for a column.
    """
    if frame == "polars":
        return _polars(table)
    import pandas as pd
    import pyarrow as pa

    nullable = {
        at: _nullable(str(field.type))
        for at, field in enumerate(table.schema)
        if (pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)) and table.column(at).null_count
    }
    if not nullable:
        return table.to_pandas()
    columns = {
        field.name: pd.Series(nullable[at].__from_arrow__(table.column(at)))
        if at in nullable
        else table.select([at]).to_pandas()[field.name]
        for at, field in enumerate(table.schema)
    }
    return pd.DataFrame(columns)


def _nullable(arrow: str) -> Any:
    import pandas as pd

    return pd.api.types.pandas_dtype("boolean" if arrow == "bool" else arrow.replace("int", "Int").replace("u", "U"))


def _polars(table: Any) -> Any:
    import polars as pl

    try:
        return pl.from_arrow(table)
    except Exception as error:
        types = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
        raise QueryError(
            f"polars has no type for a column of the result: {error}", where=types, remedy="cast it: CAST(x AS VARCHAR)"
        ) from error

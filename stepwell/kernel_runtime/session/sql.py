"""SQL assets: parsing of their SELECT, its execution over stored values, and conversion of its rows to a frame.

The store and the project determine which files a SELECT may read and where it spills (`Surroundings`). Files that it reads inside a step
are recorded as reads of that step.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.definitions.bodies import SqlBody
from stepwell.kernel_runtime.errors import CellError, CellSyntaxError, InvalidInvocationError, QueryError, StepwellError
from stepwell.kernel_runtime.reads import active
from stepwell.kernel_runtime.session.requests import STORE, notebook_path, project_root
from stepwell.kernel_runtime.store.signing import key_path

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.sql.select import Scope

FRAMES = ("auto", "pandas", "polars", "pyarrow", "reader")
"""The types of a SELECT's result; ``reader`` is a ``pyarrow.RecordBatchReader`` that computes rows as they are consumed."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The store and the project in which a SELECT runs.

    Attributes
    ----------
    store
        The store directory, which has the values and the folder for spilling.
    project
        The folder whose files the SELECT may read; None if it may read none.
    """

    store: Path
    project: Path | None

    @property
    def secret(self) -> tuple[Path, ...]:
        """Paths that a SELECT never reads, even inside the project."""
        return (self.store, key_path(os.environ.get("STEPWELL_KEY_FILE", "")))


def surroundings(store: Path, namespace: Mapping[str, Any] | None = None) -> Surroundings:
    """Return the surroundings of SELECTs over a store.

    The project is the store's parent folder if the store has its default name, else the project of the notebook or script. The home folder
    and the file system's root are not projects.
    """
    if store.name == STORE:
        project = store.parent
    else:
        notebook = notebook_path(namespace)
        project = project_root(notebook.parent if notebook is not None and notebook.parent.is_dir() else Path.cwd())
    alone = project in (Path.home(), Path(project.anchor))
    return Surroundings(store, None if alone else project)


def frame_type(setting: str, kinds: tuple[str, ...] = FRAMES) -> str:
    """Return the type of a SELECT's result: the setting, or for ``auto`` pandas if it is installed, else pyarrow.

    Parameters
    ----------
    kinds
        The valid settings: an asset's value is stored, so it cannot be a reader.

    Raises
    ------
    InvalidInvocationError
        If the setting is invalid.
    """
    if setting not in kinds:
        raise InvalidInvocationError(f"invalid frame {setting!r}", remedy=f"use one of {', '.join(kinds)}")
    if setting != "auto":
        return setting
    return "pandas" if importlib.util.find_spec("pandas") is not None else "pyarrow"


def without_semicolons(text: str) -> str:
    """Return an SQL statement without the semicolons at its end."""
    return text.strip().rstrip("; \n\t")


def read_select(name: str, text: str, variables: dict[str, Any], *, what: str, frame: str, where: str) -> SqlBody:
    """Parse the text of a SQL asset.

    Parameters
    ----------
    name
        The last part of the asset's key.
    variables
        The namespace in which the ``$name`` parameters are looked up when the SELECT runs.
    what
        The description of the text in messages: ``the cell of 'daily'``.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto``.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    CellError
        If the SELECT reads the catalog.
    InvalidInvocationError
        If the type of frame is invalid.
    """
    from stepwell.kernel_runtime.store.sql.catalog_views import catalog_view
    from stepwell.kernel_runtime.store.sql.statements import folded, read_statement

    statement = without_semicolons(text)
    try:
        parsed = read_statement(statement)
    except CellSyntaxError as error:
        raise CellSyntaxError(
            f"{what}: {error.what}",
            where=", ".join(part for part in (where, error.where) if part),
            remedy=error.remedy,
        ) from None
    tables: dict[str, str] = {}
    for path in parsed.tables:
        if catalog_view(path):
            raise CellError(
                f"{what} reads the catalog ({'.'.join(path)}), which changes with every run",
                where=where,
                remedy="query the catalog with %stepwell sql or stepwell.sql(...)",
            )
        written = "/".join(path)
        tables.setdefault(folded(written), written)
    kind = frame_type(frame, FRAMES[:-1])
    return SqlBody(name, statement, where, tuple(tables.values()), parsed.parameters, variables, kind, parsed.canonical)


def run_sql_body(body: SqlBody, arguments: Mapping[str, Any], file_surroundings: Surroundings) -> Any:
    """Run the SELECT of a SQL asset and return its result as a frame.

    Parameters
    ----------
    body
        The SELECT and the type of frame.
    arguments
        The values of the SELECT's tables by key.
    file_surroundings
        The store and the project.

    Raises
    ------
    CellError
        If the text is not a SELECT, a value is not a table, or DuckDB cannot run it; the message names the asset, its cell and the reason.
    """
    from stepwell.kernel_runtime.store.sql.select import Scope
    from stepwell.kernel_runtime.store.sql.statements import folded, read_statement

    try:
        statement = read_statement(body.text)
        values = {folded(name): value for name, value in arguments.items()}
        tables = {path: values[folded("/".join(path))] for path in statement.tables}
        parameters = {name: body.globals[name] for name in body.parameters}
        return rows_as(body.frame, body.text, Scope(tables, parameters), file_surroundings)
    except CellError:
        raise
    except StepwellError as error:
        place = "; ".join(part for part in (body.where, error.where) if part)
        remedy = error.remedy or f"check the tables that the query reads: {', '.join(arguments) or 'none'}"
        raise CellError(f"{body.name}: {error.what}", where=place, remedy=remedy) from error


def rows_as(frame: str, text: str, scope: Scope, file_surroundings: Surroundings) -> Any:
    """Run a SELECT and return its rows as a frame; raises the errors of `run_select`."""
    from stepwell.kernel_runtime.store.sql.select import run_select, stream_select
    from stepwell.kernel_runtime.store.sql.statements import file_access, read_statement

    sources = read_statement(text).files
    files = None
    if sources:
        recorder = active()
        # The expansion of a pattern is not a read of the step; the matched files are.
        with recorder.paused() if recorder is not None else nullcontext():
            files = file_access(sources, scope.parameters, file_surroundings.project, file_surroundings.secret)
        if recorder is not None:
            for path in files.named_folders:
                recorder.path_read(path)
    scope = replace(scope, files=files, store=file_surroundings.store)
    result = (stream_select if frame == "reader" else run_select)(text, scope)
    return result if frame in ("reader", "pyarrow") else as_frame(result, frame)


def as_frame(table: Any, frame: str) -> Any:
    """Return an Arrow table as a pandas or polars frame.

    In pandas, integers and booleans with NULL become ``Int64`` and ``boolean``; conversion to floats would change large numbers.

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
        position: _nullable(str(field.type))
        for position, field in enumerate(table.schema)
        if (pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)) and table.column(position).null_count
    }
    if not nullable:
        return table.to_pandas()
    columns = {
        field.name: pd.Series(nullable[position].__from_arrow__(table.column(position)))
        if position in nullable
        else table.select([position]).to_pandas()[field.name]
        for position, field in enumerate(table.schema)
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

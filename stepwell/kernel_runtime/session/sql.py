"""SELECT statements: parsing the text of a SQL asset, running a SELECT over stored values, and converting the rows to a frame.

`Surroundings` says which files a SELECT may read, and in which store DuckDB writes temporary data. If a SELECT runs inside a step, the files
that it reads are recorded as reads of the step.
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
"""The possible types of a SELECT's result. ``reader`` is a ``pyarrow.RecordBatchReader``, which computes rows when they are consumed."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The store and the project in which a SELECT runs.

    Attributes
    ----------
    store
        The store directory, which contains the values and the folder for temporary data.
    project
        The folder whose files the SELECT may read; None to let the SELECT read no files.
    """

    store: Path
    project: Path | None

    @property
    def secret(self) -> tuple[Path, ...]:
        """The store directory and the file of the signing key. A SELECT must not read them, even if they are inside the project."""
        return (self.store, key_path(os.environ.get("STEPWELL_KEY_FILE", "")))


def surroundings(store: Path, namespace: Mapping[str, Any] | None = None) -> Surroundings:
    """Return the surroundings of SELECTs that read the values of a store.

    If the store has the default name ``.stepwell``, the project is its parent folder. Otherwise, it is the root of the project that contains
    the notebook or script. If the project would be the home folder or the file system's root, the SELECTs may read no files.

    Parameters
    ----------
    store
        The store directory.
    namespace
        The namespace of the notebook; None for that of ``__main__``.
    """
    if store.name == STORE:
        project = store.parent
    else:
        notebook = notebook_path(namespace)
        project = project_root(notebook.parent if notebook is not None and notebook.parent.is_dir() else Path.cwd())
    alone = project in (Path.home(), Path(project.anchor))
    return Surroundings(store, None if alone else project)


def frame_type(setting: str, kinds: tuple[str, ...] = FRAMES) -> str:
    """Return the type of a SELECT's result: `setting` or, if it is ``auto``, ``pandas`` if pandas is installed, else ``pyarrow``.

    Parameters
    ----------
    setting
        The type that the user requested, or ``auto``.
    kinds
        The valid settings. For a SQL asset, ``reader`` is not valid: a `pyarrow.RecordBatchReader` cannot be stored.

    Raises
    ------
    InvalidInvocationError
        If `setting` is not one of `kinds`.
    """
    if setting not in kinds:
        raise InvalidInvocationError(f"frame={setting!r} is invalid", remedy=f"use one of these: {', '.join(kinds)}")
    if setting != "auto":
        return setting
    return "pandas" if importlib.util.find_spec("pandas") is not None else "pyarrow"


def without_semicolons(text: str) -> str:
    """Return an SQL statement without the semicolons at its end."""
    return text.strip().rstrip("; \n\t")


def read_select(name: str, text: str, variables: dict[str, Any], *, what: str, frame: str, where: str) -> SqlBody:
    """Parse the text of a SQL asset into the body of its step.

    Parameters
    ----------
    name
        The last part of the asset's key.
    variables
        The namespace in which the values of parameters such as ``$limit`` are looked up when the SELECT runs.
    what
        A description of the text, which begins error messages, for example ``the cell of 'daily'``.
    frame
        The type of the SELECT's result: ``pandas``, ``pyarrow``, ``polars``, or ``auto``.
    where
        The cell, file or module that contains the text, for error messages.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    CellError
        If the SELECT reads the catalog.
    InvalidInvocationError
        If `frame` is invalid.
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
    arguments
        Maps the key of each asset that the SELECT reads as a table, written as in the SELECT, to the value of the asset.
    file_surroundings
        The store and the project in which the SELECT runs.

    Raises
    ------
    CellError
        If the SELECT cannot run, for example because a value is not a table. The message names the asset, its cell and the reason.
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
        remedy = error.remedy or f"check the tables that the SELECT reads: {', '.join(arguments) or 'it reads none'}"
        raise CellError(f"the SQL asset {body.name!r} could not be computed: {error.what}", where=place, remedy=remedy) from error


def rows_as(frame: str, text: str, scope: Scope, file_surroundings: Surroundings) -> Any:
    """Run a SELECT and return its rows as a frame.

    Parameters
    ----------
    frame
        The type of the result, one of `FRAMES` except ``auto``.
    text
        The SELECT.
    scope
        The tables and parameters that the SELECT uses.
    file_surroundings
        The store and the project in which the SELECT runs.

    Raises
    ------
    QueryError
        If a file is missing or forbidden, DuckDB cannot run the SELECT, or polars has no type for a column.
    NotTabularError
        If the value of a table is not tabular.
    """
    from stepwell.kernel_runtime.store.sql.select import run_select, stream_select
    from stepwell.kernel_runtime.store.sql.statements import file_access, read_statement

    sources = read_statement(text).files
    files = None
    if sources:
        recorder = active()
        # The search for files that match a pattern must not be recorded as a read of the step; the named patterns and files are recorded below.
        with recorder.paused() if recorder is not None else nullcontext():
            files = file_access(sources, scope.parameters, file_surroundings.project, file_surroundings.secret)
        if recorder is not None:
            for path in files.named_folders:
                recorder.path_read(path)
    scope = replace(scope, files=files, store=file_surroundings.store)
    result = (stream_select if frame == "reader" else run_select)(text, scope)
    return result if frame in ("reader", "pyarrow") else as_frame(result, frame)


def as_frame(table: Any, frame: str) -> Any:
    """Convert an Arrow table to a frame of the library that `frame` names, ``pandas`` or ``polars``.

    For pandas, columns of integers or booleans that contain NULL get a nullable type, such as ``Int64`` or ``boolean``: by default, pandas would
    convert the integers to floats, which changes large numbers.

    Raises
    ------
    QueryError
        If polars has no type for a column.
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
            f"polars has no type for a column of the result: {error}",
            where=f"the columns are: {types}",
            remedy="convert that column in the SELECT: CAST(column AS VARCHAR)",
        ) from error

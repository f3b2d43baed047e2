"""One SELECT over stored values: the text of a SQL asset, how it runs, and the frame that its rows become.

Where a SELECT may read files, and where it spills, follows from the store and the project (`Surroundings`). Files that it reads inside a
step are recorded as reads of that step.
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
from stepwell.kernel_runtime.session.project import STORE, notebook_path, project_root
from stepwell.kernel_runtime.store.signing import key_path

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.sql.select import Scope

FRAMES = ("auto", "pandas", "polars", "pyarrow", "reader")
"""What the rows of a SELECT can become; ``reader`` is a ``pyarrow.RecordBatchReader`` that makes them as they are read."""


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


def plain(text: str) -> str:
    """Return the text of a statement without the semicolons at its end."""
    return text.strip().rstrip("; \n\t")


def read_select(name: str, text: str, variables: dict[str, Any], *, what: str, frame: str, where: str) -> SqlBody:
    """Read the text of a SQL asset.

    Parameters
    ----------
    name
        The last part of the asset's key.
    variables
        Where its ``$name`` parameters are looked up when it runs.
    what
        What messages call the text: ``the cell of 'daily'``.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto``.

    Raises
    ------
    CellSyntaxError
        If it is not exactly one SELECT.
    CellError
        If it reads the catalog.
    InvalidInvocationError
        If there is no such type of frame.
    """
    from stepwell.kernel_runtime.store.sql.catalog_views import catalog_view
    from stepwell.kernel_runtime.store.sql.statements import folded, read_statement

    statement = plain(text)
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
                remedy="look at it with %stepwell sql, or stepwell.sql(...)",
            )
        written = "/".join(path)
        tables.setdefault(folded(written), written)
    kind = frame_type(frame, FRAMES[:-1])
    return SqlBody(name, statement, where, tuple(tables.values()), parsed.parameters, variables, kind, parsed.canonical)


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
        place = "; ".join(part for part in (body.where, error.where) if part)
        remedy = error.remedy or f"its tables are: {', '.join(arguments) or 'none'}"
        raise CellError(f"{body.name}: {error.what}", where=place, remedy=remedy) from error


def rows_as(frame: str, text: str, scope: Scope, around: Surroundings) -> Any:
    """Run a SELECT and return its rows as a type of frame; errors as in `run_select`."""
    from stepwell.kernel_runtime.store.sql.select import run_select, stream_select
    from stepwell.kernel_runtime.store.sql.statements import file_access, read_statement

    sources = read_statement(text).files
    files = None
    if sources:
        recorder = active()
        # Looking what a pattern matches is no read of the step; what it matched is.
        with recorder.paused() if recorder is not None else nullcontext():
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

"""Execution of one SELECT over values of assets, and the conversion of these values to tables.

DuckDB scans frames, Arrow tables and contiguous arrays in memory, without a copy. The labels of their columns become column names, and SQL
ignores the case of column names. The named levels of a pandas frame's index become columns, too, because the index of a grouped frame contains
the keys of the groups. Levels without a name usually only number the rows, and are omitted. A level with the same name as a column is omitted,
too.

A SELECT can access only the tables and files that `statements` finds in it. The tables are registered on a new connection, and the DuckDB
instance can open only these files (`instance`). If the SELECT names an unknown table, an error is raised before the SELECT runs. Without this
check, DuckDB might read a system view or a variable with this name.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from stepwell.kernel_runtime.errors import NotTabularError, QueryError
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.sql import instance as sql_instance
from stepwell.kernel_runtime.store.sql.statements import FileAccess, Statement, TablePath, folded, read_statement
from stepwell.kernel_runtime.store.trouble import one_line

_TABLES = "return a pandas, polars or pyarrow table, a numpy array of one or two dimensions, a list of dicts or a dict of lists from the asset"


def as_table(value: Any, name: str) -> Any:
    """Convert the value of an asset to an object that DuckDB can register as a table.

    Parameters
    ----------
    value
        The value of an asset.
    name
        The asset's key, for messages.

    Returns
    -------
    object
        A frame, an Arrow table, or a dict of arrays.

    Raises
    ------
    NotTabularError
        If the value is not a table, has no columns, or has two columns whose names are equal or differ only in case.
    """
    kind = type(value).__module__.partition(".")[0]
    if _is(value, "pandas", "DataFrame"):
        return _pandas(value, name)
    if _is(value, "pandas", "Series"):
        return _pandas(value.to_frame("value" if value.name is None else value.name), name)
    if _is(value, "polars", "Series"):
        value = value.to_frame(value.name or "value")
    if _is(value, "polars", "DataFrame"):
        _check_names(value.columns, name)
        return value
    if kind == "pyarrow" and hasattr(value, "schema") and not isinstance(value, type):
        _check_names(value.schema.names, name)
        return value
    if _is(value, "numpy", "ndarray"):
        return _array(value, name)
    if isinstance(value, Mapping):
        return _columns(value, name)
    if isinstance(value, list | tuple) and value and all(isinstance(row, Mapping) for row in value):
        labels = dict.fromkeys(label for row in value for label in row)
        return _columns({label: [row.get(label) for row in value] for label in labels}, name)
    raise _not_a_table(value, name)


def unreadable(value: Any, name: str, reason: str) -> NotTabularError:
    """Return the error for a table that DuckDB cannot read.

    Parameters
    ----------
    value
        The table.
    name
        The key of the asset.
    reason
        DuckDB's message, which becomes part of the error. If ``value`` is a pandas frame and the message contains the type of some columns, the
        error names these columns instead.
    """
    columns = [
        f"{label} ({dtype})" for label, dtype in getattr(value, "dtypes", {}).items() if f"'{dtype}'" in reason
    ] if _is(value, "pandas", "DataFrame") else []  # fmt: skip
    return NotTabularError(
        f"SQL cannot read the asset {name!r}"
        + (f", because DuckDB does not support the types of its columns: {', '.join(columns)}" if columns else f": {reason}"),
        remedy="define another asset that converts the columns, for example with frame.assign(period=frame.period.astype(str)), and select from that asset",
    )


def _is(value: Any, library: str, kind: str) -> bool:
    # If the library is not imported, the value cannot have a type of this library.
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, kind))


def _not_a_table(value: Any, name: str, why: str = "") -> NotTabularError:
    shown = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return NotTabularError(f"the asset {name!r} is not a table: its type is {shown}{why}", remedy=_TABLES)


def _check_names(labels: Iterable[Any], name: str) -> list[str]:
    written = [str(label) for label in labels]
    if not written:
        raise NotTabularError(f"SQL cannot read the asset {name!r}, because it has no columns", remedy=_TABLES)
    seen: dict[str, str] = {}
    for label in written:
        other = seen.get(folded(label))
        if other is not None:
            both = (
                f"it has two columns {label!r}"
                if other == label
                else f"SQL ignores the case of the column names {other!r} and {label!r}"
            )
            raise NotTabularError(
                f"SQL cannot read the asset {name!r}, because {both}",
                remedy="define another asset that returns the table with one of the two columns renamed, and select from that asset",
            )
        seen[folded(label)] = label
    return written


def _pandas(frame: Any, name: str) -> Any:
    if frame.columns.nlevels > 1:
        raise NotTabularError(
            f"SQL cannot read the asset {name!r}, because its columns have {frame.columns.nlevels} levels",
            remedy="join the levels in the asset: frame.columns = ['_'.join(map(str, label)) for label in frame.columns]",
        )
    columns = [str(label) for label in frame.columns]
    taken = {folded(label) for label in columns}
    index = frame.index
    levels = [
        level for level, label in enumerate(index.names) if label is not None and folded(str(label)) not in taken
    ]  # fmt: skip
    if levels:
        if len(levels) < index.nlevels:
            frame = frame.reset_index(level=[level for level in range(index.nlevels) if level not in levels], drop=True)
        frame = frame.reset_index()
    written = _check_names(frame.columns, name)
    if any(type(label) is not str for label in frame.columns):
        frame = frame.set_axis(written, axis=1)
    return frame


def _array(array: Any, name: str) -> Any:
    import numpy as np

    if array.dtype.names:
        if array.ndim != 1:
            raise _not_a_table(array, name, f" with {array.ndim} dimensions")
        return _columns({label: array[label] for label in array.dtype.names}, name)
    if array.ndim not in (1, 2):
        raise _not_a_table(array, name, f" with {array.ndim} dimensions")
    columns = [array] if array.ndim == 1 else [array[:, number] for number in range(array.shape[1])]
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "biufM":
        return _columns({f"column{number}": column for number, column in enumerate(columns)}, name)
    _check_names([f"column{number}" for number in range(len(columns))], name)
    return {f"column{number}": np.ascontiguousarray(column) for number, column in enumerate(columns)}


def _columns(columns: Mapping[Any, Any], name: str) -> Any:
    import pyarrow as pa

    labels = _check_names(columns, name)
    if not all(_is_column(column) for column in columns.values()):
        raise _not_a_table(columns, name, ", but its values are not columns")
    try:
        return pa.table({label: _arrow(column) for label, column in zip(labels, columns.values(), strict=True)})
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _not_a_table(columns, name, f", but its columns do not form a table: {error}") from error


def _arrow(column: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    if isinstance(column, np.ma.MaskedArray):
        return pa.array(np.ascontiguousarray(column.data), mask=np.ma.getmaskarray(column))
    return pa.array(np.ascontiguousarray(column)) if isinstance(column, np.ndarray) else pa.array(column)


def _is_column(column: Any) -> bool:
    if isinstance(column, str | bytes | Mapping):
        return False
    return isinstance(column, Sequence) or (hasattr(column, "__array__") and getattr(column, "ndim", 1) == 1)


T = TypeVar("T")

BATCH = 100_000
"""Maximum number of rows in a batch of a streamed result."""

Shapes = Mapping[TablePath, str]
"""Maps the path of a view, such as ``("stepwell", "runs")``, to the text of the SELECT that defines the view. The SELECT reads registered tables."""

_databases = count(1)


@dataclass(frozen=True, slots=True)
class Scope:
    """The tables, parameters and files that a SELECT can access.

    Attributes
    ----------
    tables
        Maps the name of each table that the SELECT can read to its value. If the name has two parts, like ``raw.flights``, the key is the path
        ``("raw", "flights")``.
    parameters
        The values of the SELECT's parameters by name, without ``$``.
    files
        The files that the SELECT can read; None if the SELECT must not read files.
    store
        The store directory, below which DuckDB writes temporary data; None if there is no store.
    shapes
        The views of the catalog that the SELECT can read. Maps the path of each view, such as ``("stepwell", "runs")``, to the text of the SELECT
        that defines the view.
    """

    tables: Mapping[Any, object]
    parameters: Mapping[str, object] = field(default_factory=dict)
    files: FileAccess | None = None
    store: Path | None = None
    shapes: Shapes = field(default_factory=dict)


def run_select(text: str, scope: Scope) -> Any:
    """Run one SELECT and return its rows. If several columns have the same name, numbers are appended to the names (``id``, ``id_1``).

    Parameters
    ----------
    text
        The SELECT.
    scope
        The tables, parameters and files that the SELECT can access.

    Returns
    -------
    pyarrow.Table
        The rows.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT, or could access anything other than tables and files.
    NotTabularError
        If a value that the SELECT names is not a table.
    QueryError
        If the SELECT names a table or parameter that ``scope`` does not contain; if ``scope.files`` is None, but the SELECT reads files; or if
        DuckDB cannot run the SELECT. In the last case, the error contains DuckDB's message.
    """
    with _prepared_query(text, scope) as query:
        return _numbered(query.run(lambda: query.relation().to_arrow_table()))


def stream_select(text: str, scope: Scope) -> Any:
    """Start one SELECT and return a stream of its rows, which are computed in batches when they are read.

    The parameters and errors are those of `run_select`. While a batch is computed, Ctrl-C interrupts the computation.

    Returns
    -------
    pyarrow.RecordBatchReader
        The rows. If DuckDB fails while the rows are computed, the reader raises the error.
    """
    import pyarrow as pa

    ready = _prepared_query(text, scope)
    query = ready.__enter__()
    try:
        reader = query.run(lambda: query.relation().to_arrow_reader(BATCH))
        schema = _numbered_schema(reader.schema)
    except BaseException as error:
        ready.__exit__(type(error), error, error.__traceback__)
        raise

    def batches() -> Iterator[Any]:
        try:
            while True:
                try:
                    batch = query.run(reader.read_next_batch)
                except StopIteration:
                    return
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        finally:
            ready.__exit__(None, None, None)

    return pa.RecordBatchReader.from_batches(schema, batches())


class _Query:
    """A SELECT that can be run, and the connection on which its tables are registered."""

    def __init__(self, connection: Connection, text: str, parameters: Mapping[str, object], names: list[str]) -> None:
        self.connection = connection
        self._text = text
        self._parameters = {name: _scalar(value) for name, value in parameters.items()}
        self._names = names

    def relation(self) -> Any:
        return self.connection.sql(self._text, params=self._parameters or None)

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work``, which executes the SELECT; return its result. Ctrl-C interrupts the SELECT. If DuckDB fails, raise `QueryError`."""
        import duckdb

        try:
            return sql_instance.interruptible(self.connection, work)
        except StopIteration:
            raise
        except duckdb.Error as error:
            self._raise_query_error(error)
        except (OSError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            # Arrow's reader raises one of these errors if DuckDB fails while rows are read. DuckDB itself raises one if the Python type of a
            # parameter has no SQL type.
            self._raise_query_error(error)

    def _raise_query_error(self, error: Exception) -> NoReturn:
        import duckdb

        remedy = ""
        if isinstance(error, duckdb.PermissionException):
            remedy = "read the data in an asset, and select from the asset"
        elif isinstance(error, duckdb.OutOfMemoryException):
            remedy = "give DuckDB more memory with the environment variable STEPWELL_SQL_MEMORY=8GB, or free disk space for its temporary data"
        elif "Ambiguous reference to catalog or schema" in str(error):
            long = next((name for name in self._names if "." in name), "")
            remedy = f'write the key of the asset in quotes: "{long.replace(".", "/")}"'
        elif isinstance(error, duckdb.CatalogException) and self._names:
            remedy = "use only tables and functions that exist; the tables of this SELECT are " + ", ".join(sorted(self._names))
        raise QueryError(f"the SELECT failed: {one_line(error)}", where=self._error_line(error), remedy=remedy) from error

    def _error_line(self, error: Exception) -> str:
        """Return two lines of text: the line of the SELECT in which DuckDB found the error, and a caret below the position of the error.

        Return an empty string if DuckDB does not report the position.
        """
        import duckdb

        line = _line_and_caret(error)
        if not line and isinstance(error, duckdb.BinderException | duckdb.CatalogException):
            # An error of a relation does not contain the line. These two kinds of errors occur before the SELECT runs, so EXPLAIN of the same
            # SELECT raises the same error with the line.
            try:
                self.connection.execute("EXPLAIN " + self._text, self._parameters)
            except duckdb.Error as explained:
                line = _line_and_caret(explained)
        return line


def _line_and_caret(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and set(lines[-1].strip()) == {"^"}:
        line, caret = lines[-2:]
        if line.startswith("LINE 1: EXPLAIN "):
            line, caret = "LINE 1: " + line.removeprefix("LINE 1: EXPLAIN "), caret[len("EXPLAIN ") :]
        return f"{line}\n{caret}"
    return ""


@contextmanager
def _prepared_query(text: str, scope: Scope) -> Iterator[_Query]:
    statement = read_statement(text)
    files, shapes = scope.files, scope.shapes
    tables: dict[TablePath, object] = {
        (key,) if isinstance(key, str) else tuple(key): value for key, value in scope.tables.items()
    }
    _check(statement, tables, scope)
    instance = (
        sql_instance.private_instance(scope.store, files.allowed_files) if files is not None and files.allowed_files else None
    )
    connection = sql_instance.cursor(scope.store) if instance is None else instance.cursor()
    database = ""
    try:
        for name, value in tables.items():
            if name in statement.tables or shapes:
                _register(connection, "/".join(name), value)
        qualified = [path for path in statement.tables if len(path) > 1]
        if qualified:
            database = f"assets_{next(_databases)}"
            _make_schemas(connection, database, qualified, shapes)
        yield _Query(
            connection,
            text,
            {name: scope.parameters[name] for name in statement.parameters},
            [".".join(path) for path in tables],
        )
    finally:
        if database:
            with suppress(Exception):
                connection.execute("USE memory")
                connection.execute(f"DETACH {database}")
        connection.close()
        if instance is not None:
            instance.close()


def _check(statement: Statement, tables: Mapping[TablePath, object], scope: Scope) -> None:
    spelled: dict[TablePath, TablePath] = {}
    for path in statement.tables:
        if path not in tables and path not in scope.shapes:
            raise missing_table(path, [".".join(known) for known in (*tables, *scope.shapes)])
        if len(path) > 2:
            raise QueryError(
                f"the table name {'.'.join(path)} has {len(path)} parts, but a table name can have at most two parts",
                remedy=f'write the key of the asset in quotes: "{"/".join(path)}"',
            )
        other = spelled.setdefault(tuple(map(folded, path)), path)
        if other != path and tables.get(other) is not tables.get(path):
            raise QueryError(
                f"SQL cannot distinguish the assets {'.'.join(other)!r} and {'.'.join(path)!r}, because it ignores the case of names",
                remedy=f"return the value of {'.'.join(path)!r} from an asset with another name, and select from that asset",
            )
    for name in statement.parameters:
        if name not in scope.parameters:
            raise QueryError(
                f"the parameter ${name} of the SELECT has no value",
                remedy=f"pass a value: parameters={{{name!r}: ...}}; on the command line: -p {name}=VALUE",
            )
    if statement.files and scope.files is None:
        raise QueryError(
            f"the SELECT failed: it contains {statement.files[0].label}, but this call does not allow a SELECT to read files",
            remedy="read the file in an asset, and select from the asset",
        )


def missing_table(path: TablePath, known_tables: list[str]) -> QueryError:
    """Return the error for a SELECT that names an unknown table.

    The remedy of the error proposes the names in ``known_tables`` that resemble ``path``. If no name resembles it, the remedy lists up to eight
    of the known tables.
    """
    name = ".".join(path)
    near = difflib.get_close_matches(name, known_tables, n=3, cutoff=0.5)
    shown = ", ".join(sorted(known_tables)[:8]) + (f" and {len(known_tables) - 8} more" if len(known_tables) > 8 else "")
    return QueryError(
        f"the SELECT failed: there is no table {name!r}",
        remedy="did you mean " + " or ".join(near) + "?"
        if near
        else f"use one of these tables: {shown}"
        if known_tables
        else "materialize an asset first, and select from the asset",
    )


def _register(connection: Connection, name: str, value: object) -> None:
    import duckdb

    table = as_table(value, name)
    try:
        connection.register(name, table)
    except (duckdb.Error, NotImplementedError, TypeError) as error:
        raise unreadable(table, name, one_line(error)) from error


def _make_schemas(connection: Connection, database: str, paths: list[TablePath], shapes: Shapes) -> None:
    """Make tables readable under names with two parts, such as ``raw.flights``: create a DuckDB view for each of these names.

    The views are needed because DuckDB can register a value only under a name with one part.

    Parameters
    ----------
    connection
        The connection on which the tables are registered.
    database
        The name of an in-memory database that is created for these views.
    paths
        The table names with two parts.
    shapes
        Maps the path of each view of the catalog to the SELECT that defines the view. The ``paths`` that are not in ``shapes`` refer to
        registered values.
    """
    connection.execute(f"ATTACH ':memory:' AS {database}")
    connection.execute(f"USE {database}")
    views: set[TablePath] = set()
    for path in paths:
        if tuple(map(folded, path)) in views:
            continue
        views.add(tuple(map(folded, path)))
        schema, table = map(_quoted, path)
        text = shapes.get(path) or f"FROM temp.main.{_quoted('/'.join(path))}"
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {database}.{schema}")
        connection.execute(f"CREATE VIEW {database}.{schema}.{table} AS {text}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _scalar(value: object) -> object:
    # DuckDB accepts no NumPy scalars as parameters.
    return (
        value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "ndim", 0) else value
    )


def _numbered_schema(schema: Any) -> Any:
    import pyarrow as pa

    names = _numbers(schema.names)
    if names == schema.names:
        return schema
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)], schema.metadata)


def _numbered(table: Any) -> Any:
    names = _numbers(table.schema.names)
    return table if names == table.schema.names else table.rename_columns(names)


def _numbers(names: list[str]) -> list[str]:
    """Return column names without repetitions: a number is appended to each repeated name (``id``, ``id_1``), as DuckDB does in CREATE TABLE AS."""
    taken = set(names)
    seen: set[str] = set()
    unique_names = []
    for name in names:
        unique = name
        if name in seen:
            unique = next(unique for number in count(1) if (unique := f"{name}_{number}") not in taken)
            taken.add(unique)
        seen.add(name)
        unique_names.append(unique)
    return unique_names

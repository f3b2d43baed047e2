"""One SELECT over given tables, streamed to Arrow; and which values SQL can read as tables.

Frames, Arrow tables and contiguous arrays are handed over as they lie in memory; DuckDB scans them there. Their labels become names of
columns, which SQL compares without regard to capitals. A named index of pandas becomes columns, since it holds the keys of
every grouped frame; an unnamed one only counts rows and is left out.

`statements` says what the text reads; exactly that is given to it: tables registered on a connection of its own, files that its
instance may open (`files`, `instance`). A name that is not among the tables is an error before anything runs, so that no system
view or variable stands in for it.
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

_TABLES = "SQL reads pandas, polars and pyarrow tables, numpy arrays of one or two dimensions, lists of dicts and dicts of lists"


def as_table(value: Any, name: str) -> Any:
    """Return what DuckDB can register for a value.

    Parameters
    ----------
    name
        The asset's key, for messages.

    Raises
    ------
    NotTabularError
        If the value is no table, or its columns cannot be told apart by name.
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
    raise _no_table(value, name)


def unreadable(value: Any, name: str, reason: str) -> NotTabularError:
    """Return the error of a table with columns of a type that DuckDB does not know, naming them where that can be told."""
    columns = [
        f"{label} ({dtype})" for label, dtype in getattr(value, "dtypes", {}).items() if f"'{dtype}'" in reason
    ] if _is(value, "pandas", "DataFrame") else []  # fmt: skip
    return NotTabularError(
        f"SQL cannot read the asset {name!r}: " + (f"its columns {', '.join(columns)}" if columns else reason),
        remedy="give it columns of types that SQL knows, in an asset of its own: frame.assign(period=frame.period.astype(str))",
    )


def _is(value: Any, library: str, kind: str) -> bool:
    # A value of a library's type exists only where that is imported.
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, kind))


def _no_table(value: Any, name: str, why: str = "") -> NotTabularError:
    shown = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return NotTabularError(f"the asset {name!r} is no table but a {shown}{why}", remedy=_TABLES)


def _check_names(labels: Iterable[Any], name: str) -> list[str]:
    written = [str(label) for label in labels]
    if not written:
        raise NotTabularError(f"the asset {name!r} has no columns", remedy=_TABLES)
    seen: dict[str, str] = {}
    for label in written:
        other = seen.get(folded(label))
        if other is not None:
            both = f"two columns {label!r}" if other == label else f"the columns {other!r} and {label!r}"
            raise NotTabularError(
                f"the asset {name!r} has {both}, which SQL does not tell apart",
                remedy="rename one in an asset of its own",
            )
        seen[folded(label)] = label
    return written


def _pandas(frame: Any, name: str) -> Any:
    if frame.columns.nlevels > 1:
        raise NotTabularError(
            f"the columns of the asset {name!r} have {frame.columns.nlevels} levels",
            remedy="give them one: frame.columns = ['_'.join(map(str, label)) for label in frame.columns]",
        )
    columns = [str(label) for label in frame.columns]
    taken = {folded(label) for label in columns}
    index = frame.index
    levels = [
        at for at, label in enumerate(index.names) if label is not None and folded(str(label)) not in taken
    ]  # fmt: skip
    if levels:
        if len(levels) < index.nlevels:
            frame = frame.reset_index(level=[at for at in range(index.nlevels) if at not in levels], drop=True)
        frame = frame.reset_index()
    written = _check_names(frame.columns, name)
    if any(type(label) is not str for label in frame.columns):
        frame = frame.set_axis(written, axis=1)
    return frame


def _array(array: Any, name: str) -> Any:
    import numpy as np

    if array.dtype.names:
        if array.ndim != 1:
            raise _no_table(array, name, f" of {array.ndim} dimensions")
        return _columns({label: array[label] for label in array.dtype.names}, name)
    if array.ndim not in (1, 2):
        raise _no_table(array, name, f" of {array.ndim} dimensions")
    columns = [array] if array.ndim == 1 else [array[:, at] for at in range(array.shape[1])]
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "biufM":
        return _columns({f"column{at}": column for at, column in enumerate(columns)}, name)
    _check_names([f"column{at}" for at in range(len(columns))], name)
    return {f"column{at}": np.ascontiguousarray(column) for at, column in enumerate(columns)}


def _columns(columns: Mapping[Any, Any], name: str) -> Any:
    import pyarrow as pa

    labels = _check_names(columns, name)
    if not all(_is_column(column) for column in columns.values()):
        raise _no_table(columns, name, " whose values are no columns")
    try:
        return pa.table({label: _arrow(column) for label, column in zip(labels, columns.values(), strict=True)})
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _no_table(columns, name, f" whose columns make no table: {error}") from error


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
"""Rows of a streamed batch."""

Shapes = Mapping[TablePath, str]
"""By path, the SELECT that makes a table of other ones: the catalog's views."""

_databases = count(1)


@dataclass(frozen=True, slots=True)
class Scope:
    """All that a SELECT can see.

    Attributes
    ----------
    tables
        Values by name, or by path: ``("raw", "flights")`` for ``raw.flights``.
    parameters
        Values of ``$name``.
    files
        What it may read of the file system; None for nothing.
    store
        The store directory, below which it spills.
    shapes
        Tables that are made of others by a SELECT of ours.
    """

    tables: Mapping[Any, object]
    parameters: Mapping[str, object] = field(default_factory=dict)
    files: FileAccess | None = None
    store: Path | None = None
    shapes: Shapes = field(default_factory=dict)


def run_select(text: str, scope: Scope) -> Any:
    """Run one SELECT over tables by name and return a ``pyarrow.Table``; columns that share a name are numbered (``id``, ``id_1``).

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    NotTabularError
        If a value that it names is no table.
    QueryError
        If a table is not there, or DuckDB cannot run it; the message is DuckDB's.
    """
    with _ready(text, scope) as query:
        return _numbered(query.run(lambda: query.relation().to_arrow_table()))


def stream_select(text: str, scope: Scope) -> Any:
    """Run one SELECT and return a ``pyarrow.RecordBatchReader`` of its rows, made as they are read; else as `run_select`.

    Whoever reads may be interrupted between and inside batches. An error of DuckDB's in the middle is raised by the reader.
    """
    import pyarrow as pa

    ready = _ready(text, scope)
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
    """A statement whose tables are registered on a connection."""

    def __init__(self, connection: Connection, text: str, parameters: Mapping[str, object], names: list[str]) -> None:
        self.connection = connection
        self._text = text
        self._parameters = {name: _scalar(value) for name, value in parameters.items()}
        self._names = names

    def relation(self) -> Any:
        return self.connection.sql(self._text, params=self._parameters or None)

    def run(self, work: Callable[[], T]) -> T:
        """Do what DuckDB does, interruptibly; its errors become ours."""
        import duckdb

        try:
            return sql_instance.interruptible(self.connection, work)
        except StopIteration:
            raise
        except duckdb.Error as error:
            self._fail(error)
        except (OSError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            # What Arrow's reader makes of an error in the middle, and values of parameters that no type of SQL fits.
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        import duckdb

        remedy = ""
        if isinstance(error, duckdb.PermissionException):
            remedy = "a SELECT reads assets, and files below the project"
        elif isinstance(error, duckdb.OutOfMemoryException):
            remedy = "STEPWELL_SQL_MEMORY=8GB in the environment gives it more; the disk of the store must hold what it spills"
        elif "Ambiguous reference to catalog or schema" in str(error):
            long = next((name for name in self._names if "." in name), "")
            remedy = f'write the whole key in quotes: "{long.replace(".", "/")}"'
        elif isinstance(error, duckdb.CatalogException) and self._names:
            remedy = "tables here: " + ", ".join(sorted(self._names))
        raise QueryError(f"the SELECT failed: {one_line(error)}", where=self._place(error), remedy=remedy) from error

    def _place(self, error: Exception) -> str:
        """Return DuckDB's picture of where in the statement: the line and the caret below it."""
        import duckdb

        found = _picture(error)
        if not found and isinstance(error, duckdb.BinderException | duckdb.CatalogException):
            # A relation's error has no picture, a statement's has; these two come before anything runs.
            try:
                self.connection.execute("EXPLAIN " + self._text, self._parameters)
            except duckdb.Error as again:
                found = _picture(again)
        return found


def _picture(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and set(lines[-1].strip()) == {"^"}:
        line, caret = lines[-2:]
        if line.startswith("LINE 1: EXPLAIN "):
            line, caret = "LINE 1: " + line.removeprefix("LINE 1: EXPLAIN "), caret[len("EXPLAIN ") :]
        return f"{line}\n{caret}"
    return ""


@contextmanager
def _ready(text: str, scope: Scope) -> Iterator[_Query]:
    statement = read_statement(text)
    files, shapes = scope.files, scope.shapes
    given: dict[TablePath, object] = {
        (key,) if isinstance(key, str) else tuple(key): value for key, value in scope.tables.items()
    }
    _check(statement, given, scope)
    instance = sql_instance.own_instance(scope.store, files.allowed) if files is not None and files.allowed else None
    connection = sql_instance.cursor(scope.store) if instance is None else instance.cursor()
    database = ""
    try:
        for name, value in given.items():
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
            [".".join(path) for path in given],
        )
    finally:
        if database:
            with suppress(Exception):
                connection.execute("USE memory")
                connection.execute(f"DETACH {database}")
        connection.close()
        if instance is not None:
            instance.close()


def _check(statement: Statement, given: Mapping[TablePath, object], scope: Scope) -> None:
    spelled: dict[TablePath, TablePath] = {}
    for path in statement.tables:
        if path not in given and path not in scope.shapes:
            raise missing_table(path, [".".join(each) for each in (*given, *scope.shapes)])
        if len(path) > 2:
            raise QueryError(
                f"a name of {len(path)} parts cannot be read here: {'.'.join(path)}",
                remedy=f'write it in quotes: "{"/".join(path)}"',
            )
        other = spelled.setdefault(tuple(map(folded, path)), path)
        if other != path and given.get(other) is not given.get(path):
            raise QueryError(
                f"SQL does not tell {'.'.join(other)!r} and {'.'.join(path)!r} apart: they differ in capitals only",
                remedy="read one of them under another name, in an asset of its own",
            )
    for name in statement.parameters:
        if name not in scope.parameters:
            raise QueryError(
                f"the SELECT takes ${name}, which has no value",
                remedy=f"parameters={{{name!r}: ...}}; on the command line: -p {name}=VALUE",
            )
    if statement.files and scope.files is None:
        raise QueryError(
            f"the SELECT failed: it reads files ({statement.files[0].shown}), which is not allowed here",
            remedy="read the file in an asset of its own and name that",
        )


def missing_table(path: TablePath, known: list[str]) -> QueryError:
    """Return the error of a name that is no table, with the nearest ones."""
    name = ".".join(path)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    shown = ", ".join(sorted(known)[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    return QueryError(
        f"the SELECT failed: there is no table {name!r}",
        remedy="did you mean " + " or ".join(near) + "?" if near else f"tables here: {shown or 'none'}",
    )


def _register(connection: Connection, name: str, value: object) -> None:
    import duckdb

    table = as_table(value, name)
    try:
        connection.register(name, table)
    except (duckdb.Error, NotImplementedError, TypeError) as error:
        raise unreadable(table, name, one_line(error)) from error


def _make_schemas(connection: Connection, database: str, paths: list[TablePath], shapes: Shapes) -> None:
    """Make views by qualified names, in a database that this call alone uses."""
    connection.execute(f"ATTACH ':memory:' AS {database}")
    connection.execute(f"USE {database}")
    made: set[TablePath] = set()
    for path in paths:
        if tuple(map(folded, path)) in made:
            continue
        made.add(tuple(map(folded, path)))
        schema, table = map(_quoted, path)
        text = shapes.get(path) or f"FROM temp.main.{_quoted('/'.join(path))}"
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {database}.{schema}")
        connection.execute(f"CREATE VIEW {database}.{schema}.{table} AS {text}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _scalar(value: object) -> object:
    # Scalars of numpy are no values to DuckDB.
    return (
        value.item()
        if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "ndim", 0)
        else value
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
    """Give names that occur twice a number, as DuckDB does where it stores a result."""
    taken = set(names)
    seen: set[str] = set()
    found = []
    for name in names:
        written = name
        if name in seen:
            written = next(made for at in count(1) if (made := f"{name}_{at}") not in taken)
            taken.add(written)
        seen.add(name)
        found.append(written)
    return found

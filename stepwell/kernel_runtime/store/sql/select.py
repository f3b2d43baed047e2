"""One SELECT over given tables, streamed to Arrow.

`statements` says what the text reads; exactly that is given to it: tables registered on a connection of its own, files that its
instance may open (`sql_files`, `sql_instance`). A name that is not among the tables is an error before anything runs, so that no system
view or variable stands in for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from stepwell.kernel_runtime.errors import QueryError
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.sql import instance as sql_instance
from stepwell.kernel_runtime.store.sql.files import FileAccess
from stepwell.kernel_runtime.store.sql.statements import Statement, TablePath, folded, read_statement
from stepwell.kernel_runtime.store.sql.tabular import as_table, unreadable
from stepwell.kernel_runtime.store.trouble import one_line

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

"""The command ``sql``, which runs one SELECT over stored assets, files and the catalog. The command line prints the rows in several formats.

A table in the SELECT is an asset, named by its key, for example ``clean``, ``"raw/flights"`` or ``raw.flights``. The last part of the key is
enough if no other key has the same last part. Upper and lower case may differ if only one key matches. The rows of the table are those of the asset's
current value. Tables in the schema ``stepwell`` are views of the catalog.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, TextIO

from stepwell.commands.command import Option, command, read_count
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import AmbiguousKeyError, QueryError, ValueUnavailableError
from stepwell.kernel_runtime.reads import active
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.session.session import Session
from stepwell.kernel_runtime.session.sql import frame_type, rows_as, surroundings, without_semicolons
from stepwell.kernel_runtime.text import as_json, in_one_line, printable

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


_EPILOG = """\
examples:
  stepwell sql "SELECT origin, count(*) FROM clean GROUP BY ALL"
  stepwell sql "FROM clean WHERE delay > $low" -p low=30 --csv > late.csv
  stepwell sql "SELECT key, max(seconds) FROM stepwell.steps GROUP BY key"

formats: table prints at most --limit rows; csv, json and jsonl print all rows, each as soon as it is computed. json prints one object:
  {"columns": [{"name", "type"}], "rows": [[...]]}
jsonl prints one object per row, with the names of the columns. Dates, times, and numbers that JSON cannot represent are printed as strings.
"""


class Printer:
    """The command-line interface of ``sql``: the options for the parameters of the SELECT and for the format, and the printing of the rows."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options to a parser."""
        parser.add_argument(
            "-p", "--parameter", dest="parameters", metavar="NAME=VALUE", type=_parameter, action="append", default=[],
            help="the value of the parameter $NAME in the SELECT: parsed as JSON if it is valid JSON (30, true, [1, 2]), else a string",
        )  # fmt: skip
        form = parser.add_mutually_exclusive_group()
        form.add_argument(
            "--format",
            choices=["table", "csv", "json", "jsonl"],
            default="table",
            help="output format (default: table)",
        )
        form.add_argument("--json", action="store_true", help="the same as --format json")
        form.add_argument("--csv", dest="format", action="store_const", const="csv", help="the same as --format csv")
        parser.add_argument(
            "--raw", action="store_true",
            help="with csv, print texts unchanged, for programs; by default, control and invisible characters are escaped (\\x1b)",
        )  # fmt: skip
        parser.add_argument(
            "--limit", metavar="N", type=_count, default=40, help="the maximum number of rows in a table (default: 40)"
        )

    @staticmethod
    def function_arguments(options: argparse.Namespace) -> dict[str, Any]:
        """Return two further arguments of `sql`: the parameters of the SELECT as a dict, and the type of the result, which is always ``reader``.

        If the SELECT is ``-``, replace it in `options` with the text from standard input.
        """
        options.json = options.json or options.format == "json"
        if options.text == "-":
            options.text = sys.stdin.read()
        return {"parameters": dict(options.parameters), "frame": "reader"}

    @staticmethod
    def show(reader: Any, options: argparse.Namespace, out: TextIO) -> None:
        """Print the rows of a result in the format that the options name."""
        with reader:
            if options.json:
                print_json(reader, out)
            elif options.format == "jsonl":
                print_json_lines(reader, out)
            elif options.format == "csv":
                print_csv(reader, out, raw=options.raw)
            else:
                print_table(reader, out, limit=options.limit)
            out.flush()


def _count(text: str) -> int:
    try:
        return read_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parameter(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE; write for example -p low=30")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@command(options={"text": Option(metavar="SELECT", completes="assets")}, epilog=_EPILOG, printer=Printer)
def sql(
    text: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    frame: str = "auto",
    store: AnyStore = None,
    notebook: str | None = None,
) -> Any:
    """Run one SELECT over stored assets, or over the catalog of the store, and return the rows.

    A table is an asset, named by its key, for example ``clean``, ``raw.flights`` or ``"raw/flights"``. The rows are those of the asset's current
    value, which must be a frame of pandas, polars or pyarrow, an array of one or two dimensions, a list of dicts or a dict of lists. A named
    pandas index becomes columns. ``read_csv``, ``read_json`` and ``read_parquet`` read files in the project. The schema ``stepwell`` contains views
    of the catalog: runs, steps, materializations, current, lineage, reads, sizes, durations, code_versions, logs. A SELECT cannot write. Inside a
    step, the assets and files that the SELECT reads are recorded as reads of the step; the catalog is not.

    Parameters
    ----------
    text
        One SELECT in DuckDB's dialect. It may also begin with FROM, WITH, VALUES, DESCRIBE or SUMMARIZE. On the command line, - reads the SELECT
        from standard input.
    parameters
        The values of the parameters that the SELECT contains as ``$name``, by name.
    frame
        The type of the result: ``pandas``, ``polars``, ``pyarrow``, ``reader`` (a ``pyarrow.RecordBatchReader`` that computes rows as they are
        consumed), or ``auto`` (pandas if it is installed, else pyarrow).
    store
        A store directory or an open store; by default the session's store.
    notebook
        The notebook whose values are loaded, as stepwell versions prints it; needed only if several notebooks computed different values of a key.

    Returns
    -------
    frame
        The rows, as an object of the type that `frame` names.

    Raises
    ------
    CellSyntaxError
        If `text` is not exactly one SELECT, or calls a function that is not allowed.
    QueryError
        If a table or parameter is unknown, a file is outside of the project, or DuckDB reports an error.
    NotTabularError
        If the value of an asset is not a table.
    ValueUnavailableError, AmbiguousKeyError
        If the value of an asset cannot be loaded; see `load`.
    """
    return query(get_session(), text, parameters=parameters, frame=frame, store=store, notebook=notebook)


_WIDEST = 60
"""The maximum number of characters that a printed table shows of one value."""


def print_csv(reader: Any, out: TextIO, *, raw: bool = False) -> None:
    """Print a header and all rows as CSV; NULL is an empty field.

    Parameters
    ----------
    raw
        If True, print strings unchanged, for programs. Otherwise escape their control and invisible characters.
    """
    escape = str if raw else printable
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(escape, reader.schema.names))
    for row in _rows(reader):
        writer.writerow(["" if value is None else escape(_text(value)) for value in row])


def print_json(reader: Any, out: TextIO) -> None:
    """Print all rows as one JSON object, ``{"columns": [{"name", "type"}], "rows": [[...]]}``, with each row on a separate line."""
    columns = [{"name": field.name, "type": str(field.type)} for field in reader.schema]
    out.write(f'{{"columns": {as_json(columns)}, "rows": [')
    begin = "\n"
    for row in _rows(reader):
        out.write(begin + as_json([_json_value(value) for value in row]))
        begin = ",\n"
    out.write("]}\n")


def print_json_lines(reader: Any, out: TextIO) -> None:
    """Print each row as one line with a JSON object that has a member for each column."""
    names = reader.schema.names
    out.writelines(
        as_json({name: _json_value(value) for name, value in zip(names, row, strict=True)}) + "\n" for row in _rows(reader)
    )


def print_table(reader: Any, out: TextIO, *, limit: int) -> None:
    """Print the first `limit` rows in aligned columns. If the result has more rows, print a last line that says so."""
    rows: list[tuple[Any, ...]] = []
    has_more = False
    for row in _rows(reader):
        if len(rows) == limit:
            has_more = True
            break
        rows.append(row)
    names = [in_one_line(name) for name in reader.schema.names]
    lines = [[_short_text(value) for value in row] for row in rows]
    numbers = [
        any(isinstance(row[position], int | float) for row in rows)
        and all(row[position] is None or isinstance(row[position], int | float) for row in rows)
        for position in range(len(names))
    ]
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    for line in (names, *lines):
        cells = [
            cell.rjust(width) if number else cell.ljust(width) for cell, width, number in zip(line, widths, numbers, strict=True)
        ]
        out.write("  ".join(cells).rstrip() + "\n")
    if not rows:
        out.write("no rows\n")
    elif has_more:
        out.write(f"only the first {limit} rows are shown: --limit N shows more, --csv prints all\n")


def _rows(reader: Any) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _short_text(value: Any) -> str:
    text = "NULL" if value is None else in_one_line(" ".join(_text(value).split()))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, dict | list):
        return as_json(_json_value(value))
    return value.hex() if isinstance(value, bytes) else str(value)


def _json_value(value: Any) -> Any:
    """Convert a value and all its members to values that JSON can represent. Dates and infinite numbers, for example, become strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {str(name): _json_value(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(member) for member in value]
    return _text(value)


_Path = tuple[str, ...]


def query(
    session: Session,
    text: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    frame: str = "auto",
    store: AnyStore = None,
    notebook: str | None = None,
) -> Any:
    """Run one SELECT in a session; the other parameters, the result and the errors are those of `sql`."""
    from stepwell.kernel_runtime.store.sql import catalog_views
    from stepwell.kernel_runtime.store.sql.select import Scope
    from stepwell.kernel_runtime.store.sql.statements import read_statement

    kind = frame_type(frame)
    step = active()
    used = session.open(store, create=False)

    def load(key: str) -> Any:
        try:
            # Inside a step, `load` records the name of a store only if a store is passed, so pass the store only if the caller named it.
            return session.load(key, notebook=notebook, store=None if store is None else used)
        except AmbiguousKeyError as error:
            remedy = error.remedy.replace(f"stepwell.load({key!r}, ", "stepwell.sql(..., ")
            raise AmbiguousKeyError(error.what, where=error.where, remedy=remedy) from None

    statement = read_statement(without_semicolons(text))
    tables: dict[_Path, Any] = {}
    views: dict[_Path, str] = {}
    loaded: dict[str, Any] = {}
    for path in statement.tables:
        view = catalog_views.catalog_view(path)
        if view is not None:
            views[path] = view
            continue
        key, value = _table(path, load, session.registry.assets, used)
        # If the SELECT spells a key in two ways, both tables are the same object.
        tables[path] = loaded.setdefault(key, value)
    shapes: dict[_Path, str] = {}
    if views:
        if step is not None:
            step.unseen_read("stepwell.sql", "the catalog of the store")
        sources = used.catalog.ask(catalog_views.read_sources, catalog_views.sources_of(views.values()))
        tables |= {(catalog_views.source_table(name),): table for name, table in sources.items()}
        shapes = {path: catalog_views.view_select(view) for path, view in views.items()}
    around = surroundings(used.directory, session.namespace)
    return rows_as(kind, statement.text, Scope(tables, parameters or {}, shapes=shapes), around)


def _table(path: _Path, load: Callable[[str], Any], registered: Collection[str], store: ValueStore) -> tuple[str, Any]:
    """Return the key that a table's name refers to, and the loaded value of the key.

    Parameters
    ----------
    path
        The parts of the table's name, for example ``("raw", "flights")``.
    load
        Loads the stored value of a key.
    registered
        The keys of the registered definitions, for messages.
    store
        The store that contains the value.

    Raises
    ------
    QueryError
        If no key, or more than one, matches the name.
    """
    from stepwell.kernel_runtime.store.sql.catalog_views import VIEWS
    from stepwell.kernel_runtime.store.sql.select import missing_table

    written = "/".join(path)
    try:
        # Nearly all names are exact keys, for which one query of the catalog is enough.
        return written, load(written)
    except ValueUnavailableError:
        if written in registered or store.current(written):
            raise
    stored_keys = store.keys()
    key = key_meant(path, stored_keys)
    if key is None:
        raise missing_table(path, sorted({*stored_keys, *registered, *(f"stepwell.{name}" for name in VIEWS)}))
    return key, load(key)


def key_meant(path: _Path, stored_keys: Iterable[str]) -> str | None:
    """Return the stored key that a table's name refers to.

    The name can be the whole key, with dots or slashes between its parts, or the last part of an asset's key. Keys that differ from the name in
    upper and lower case are considered only if no key matches exactly.

    Parameters
    ----------
    path
        The parts of the table's name: ``("raw", "flights")`` for ``raw.flights``.
    stored_keys
        The stored keys.

    Returns
    -------
    str or None
        The key; None if no key matches.

    Raises
    ------
    QueryError
        If several keys match equally well.
    """
    from stepwell.kernel_runtime.store.sql.statements import folded

    whole = {folded("/".join(path)), folded(".".join(path))}
    name = path[-1] if len(path) == 1 else None
    keys = list(stored_keys)
    assets = {key: key.rpartition("/")[2] for key in keys if "." not in key and ":" not in key}
    for matches in (
        [key for key in keys if key == ".".join(path)],
        [key for key, last in assets.items() if last == name],
        [key for key in keys if folded(key) in whole],
        [key for key, last in assets.items() if name is not None and folded(last) == folded(name)],
    ):
        if len(matches) > 1:
            raise QueryError(
                f"the table name {'.'.join(path)!r} is ambiguous: it could mean {' or '.join(sorted(matches))}",
                remedy=f'write the whole key in quotes: "{min(matches)}"',
            )
        if matches:
            return matches[0]
    return None

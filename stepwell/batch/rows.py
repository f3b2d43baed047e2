"""Rows of a query on standard output, a batch at a time: nothing is kept but what a table shows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, TextIO

from stepwell.kernel_runtime.text import as_json, in_one_line, printable

_WIDEST = 60
"""Characters that a table shows of one value."""


def print_csv(reader: Any, out: TextIO, *, raw: bool = False) -> None:
    """Print a header and all rows as CSV; NULL is empty.

    Parameters
    ----------
    raw
        Whether texts are written as they are, for a program; otherwise control and invisible characters are written out.
    """
    shown = str if raw else printable
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(shown, reader.schema.names))
    for row in _rows(reader):
        writer.writerow(["" if value is None else shown(_text(value)) for value in row])


def print_json(reader: Any, out: TextIO) -> None:
    """Print ``{"columns": [{"name", "type"}], "rows": [[...]]}``, a row a line."""
    columns = [{"name": field.name, "type": str(field.type)} for field in reader.schema]
    out.write(f'{{"columns": {as_json(columns)}, "rows": [')
    begin = "\n"
    for row in _rows(reader):
        out.write(begin + as_json([_plain(value) for value in row]))
        begin = ",\n"
    out.write("]}\n")


def print_json_lines(reader: Any, out: TextIO) -> None:
    """Print one object a row, by column."""
    names = reader.schema.names
    out.writelines(
        as_json({name: _plain(value) for name, value in zip(names, row, strict=True)}) + "\n" for row in _rows(reader)
    )


def print_table(reader: Any, out: TextIO, *, limit: int) -> None:
    """Print the first rows in columns, and a line that says whether there are more."""
    shown: list[tuple[Any, ...]] = []
    more = False
    for row in _rows(reader):
        if len(shown) == limit:
            more = True
            break
        shown.append(row)
    names = [in_one_line(name) for name in reader.schema.names]
    lines = [[_short(value) for value in row] for row in shown]
    numbers = [
        any(isinstance(row[at], int | float) for row in shown)
        and all(row[at] is None or isinstance(row[at], int | float) for row in shown)
        for at in range(len(names))
    ]
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    for line in (names, *lines):
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ]
        out.write("  ".join(cells).rstrip() + "\n")
    if not shown:
        out.write("no rows\n")
    elif more:
        out.write(f"the first {limit} rows; --limit shows more, --csv all\n")


def _rows(reader: Any) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _short(value: Any) -> str:
    text = "NULL" if value is None else in_one_line(" ".join(_text(value).split()))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, dict | list):
        return as_json(_plain(value))
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what it has no form for becomes a string."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return _text(value)

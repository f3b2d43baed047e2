"""``stepwell sql``: rows of one SELECT over what a store holds."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from stepwell.batch.arguments import OK, Commands, add_store, named_store

_SQL = """\
Print the rows of one SELECT over stored assets, or over what the store knows of its runs. A table is an asset's key: clean, raw.flights or
"raw/flights". The schema stepwell has views of the catalog: runs, steps, materializations, current, lineage, reads, sizes, durations,
code_versions, logs. read_csv, read_json and read_parquet read files below the project. Nothing is written.
"""
_EXAMPLES = """\
examples:
  stepwell sql "SELECT origin, count(*) FROM clean GROUP BY ALL"
  stepwell sql "FROM clean WHERE delay > $low" -p low=30 --csv > late.csv
  stepwell sql "SELECT key, max(seconds) FROM stepwell.steps GROUP BY key"

formats: table shows at most --limit rows; csv, json and jsonl print all of them, as they are made. json is one object:
  {"columns": [{"name", "type"}], "rows": [[...]]}
jsonl is one object a line, by column. Numbers that JSON has no room for, dates and times are strings.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    sql = commands.add_parser(
        "sql",
        help="query stored assets and the catalog",
        description=_SQL,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sql.add_argument("text", metavar="SELECT", help="one SELECT in DuckDB's dialect; - reads it from standard input")
    add_store(sql)
    sql.add_argument(
        "-p",
        "--parameter",
        dest="parameters",
        metavar="NAME=VALUE",
        type=_parameter,
        action="append",
        default=[],
        help="the value of $NAME: JSON where it is JSON (30, true, [1, 2]), else a string",
    )
    sql.add_argument("--notebook", metavar="PATH", help="whose values are meant, where several notebooks define a key")
    form = sql.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=["table", "csv", "json", "jsonl"],
        default="table",
        help="how rows are printed (default: table)",
    )
    form.add_argument("--json", dest="json", action="store_true", help="the same as --format json")
    form.add_argument("--csv", dest="format", action="store_const", const="csv", help="the same as --format csv")
    sql.add_argument(
        "--raw",
        action="store_true",
        help="csv with texts exactly as they are, for a program; without, control and invisible characters are written out (\\x1b)",
    )
    sql.add_argument(
        "--limit", metavar="N", type=_rows, default=40, help="rows that a table shows at most (default: 40)"
    )
    sql.set_defaults(command=_sql)


def _sql(asked: argparse.Namespace) -> int:
    from stepwell.batch import rows
    from stepwell.kernel_runtime.session import get_session

    asked.json = asked.json or asked.format == "json"
    text = sys.stdin.read() if asked.text == "-" else asked.text
    with named_store(asked) as store:
        reader = get_session().sql(
            text, parameters=dict(asked.parameters), frame="reader", store=store, notebook=asked.notebook
        )
        with reader:
            if asked.json:
                rows.print_json(reader, sys.stdout)
            elif asked.format == "jsonl":
                rows.print_json_lines(reader, sys.stdout)
            elif asked.format == "csv":
                rows.print_csv(reader, sys.stdout, raw=asked.raw)
            else:
                rows.print_table(reader, sys.stdout, limit=asked.limit)
            sys.stdout.flush()
    return OK


def _parameter(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _rows(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)

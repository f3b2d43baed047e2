# ruff: noqa: PTH100, PTH109, PTH110, PTH111, PTH112, PTH113, PTH117, PTH118, PTH120, PTH207 - strings: a Path would change what was written
"""What one SELECT reads, by the parser's word (``json_serialize_sql``) and never a pattern's: tables, files, parameters.

A text is refused if it is not exactly one SELECT, or if it reaches anything that the parse tree does not show: SQL inside a string
(``query('...')``), settings, logs, memory addresses. Table functions are therefore refused unless they are known to be harmless; what
slipped through would still meet an instance that has nothing else to give (`sql.instance`).

A SELECT may read files below the project's folder, and of these none of a store and no key (`file_access`). Where a file really is counts, with
every link followed. DuckDB gets the list of exactly these files, and compares real paths
itself when it opens one: a link that is changed in between opens nothing else.
"""

from __future__ import annotations

import difflib
import glob
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from stepwell.kernel_runtime.errors import CellSyntaxError, QueryError
from stepwell.kernel_runtime.store.catalog.attachment import CATALOG
from stepwell.kernel_runtime.store.sql import instance as sql_instance

TablePath: TypeAlias = tuple[str, ...]
"""A table's name as its parts: ``raw.flights`` has two."""

_POSITIONS = frozenset({"query_location", "query_location_length"})
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_SOURCES = frozenset({
    "BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "EMPTY_FROM", "PIVOT", "SHOW_REF",
})  # fmt: skip
_SOURCE_FIELDS = frozenset({"from_table", "left", "right", "source"})
_FILE_FUNCTIONS = frozenset({
    "read_csv", "read_csv_auto", "read_parquet", "parquet_scan", "read_json", "read_json_auto", "read_ndjson", "read_ndjson_auto",
})  # fmt: skip
_TABLE_FUNCTIONS = _FILE_FUNCTIONS | {
    "unnest",
    "range",
    "generate_series",
    "repeat",
    "repeat_row",
    "json_each",
    "json_tree",
}
_REFUSED_FUNCTIONS = frozenset({
    "current_setting", "getvariable", "getenv", "write_log", "nextval", "currval", "setval", "json_execute_serialized_sql",
    "read_text", "read_blob", "glob", "sniff_csv", "query", "query_table", "arrow_scan", "pandas_scan",
})  # fmt: skip
_FILE = re.compile(r".*\.(csv|tsv|parquet|json|jsonl|ndjson)(\.gz|\.zst)?", re.IGNORECASE)
"""What DuckDB takes for a file where a table is expected."""
_ASCII = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files that a statement reads.

    Attributes
    ----------
    names
        Paths and patterns as written.
    parameter
        The ``$name`` whose value names them instead; empty for none.
    shown
        How it is called in messages.
    """

    names: tuple[str, ...]
    parameter: str
    shown: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT as the parser understands it.

    Attributes
    ----------
    tables
        What it names, in the order of the text, each spelling once; its own WITH names are no tables.
    canonical
        The parse tree as text: comments and white space do not count in it, literals do.
    """

    text: str
    tables: tuple[TablePath, ...]
    files: tuple[FileSource, ...]
    parameters: tuple[str, ...]
    canonical: str


def folded(name: str) -> str:
    """Return a name as DuckDB compares it: of capital letters only A to Z are small ones'."""
    return name.translate(_ASCII)


@lru_cache(maxsize=512)
def read_statement(text: str) -> Statement:
    """Read one SELECT.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT, or reads something that is no table and no file.
    """
    tree = _parsed(text)
    found = _Found()
    _walk(tree, "", frozenset(), found)
    return Statement(
        text,
        tuple(found.tables),
        tuple(found.files),
        tuple(found.parameters),
        json.dumps(_without_positions(tree), sort_keys=True, separators=(",", ":")),
    )


def select_tables(text: str) -> tuple[str, ...]:
    """Return the tables that one SELECT names, a qualified name with its dots; errors as in `read_statement`."""
    return tuple(".".join(path) for path in read_statement(text).tables)


def canonical_sql(text: str) -> str:
    """Return the statement as the parser understands it; errors as in `read_statement`."""
    return read_statement(text).canonical


def _parsed(text: str) -> dict[str, Any]:
    connection = sql_instance.cursor()
    try:
        row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    finally:
        connection.close()
    parsed: dict[str, Any] = json.loads(row[0])
    if parsed["error"]:
        message = parsed["error_message"]
        if "positional" in message.lower():
            raise _positional(text)
        if parsed.get("error_type") == "not implemented":
            remedy = "write one SELECT (or FROM, WITH, VALUES)"
            if re.search(r"\bpivot\b", text, re.IGNORECASE):
                remedy = "a PIVOT says which columns it makes: PIVOT t ON a IN (1, 2) USING sum(b)"
            raise CellSyntaxError("the text is not one SELECT", where=_first_line(text), remedy=remedy)
        raise CellSyntaxError(
            f"the SELECT cannot be read: {message}", where=_around(text, parsed.get("position")), remedy=""
        )
    statements = parsed["statements"]
    if len(statements) != 1:
        count = "there is no statement" if not statements else f"there are {len(statements)} statements"
        raise CellSyntaxError(f"{count} where one SELECT is needed", where=_first_line(text), remedy="write one SELECT")
    found: dict[str, Any] = statements[0]
    return found


class _Found:
    """What the walk over a parse tree has found; dicts keep the order of the text."""

    def __init__(self) -> None:
        self.tables: dict[TablePath, None] = {}
        self.files: dict[FileSource, None] = {}
        self.parameters: dict[str, None] = {}


def _walk(tree: Any, field: str, hidden: frozenset[str], found: _Found) -> None:
    """Look at a part of the parse tree; ``hidden`` are WITH names in scope, folded."""
    if isinstance(tree, list):
        for each in tree:
            _walk(each, field, hidden, found)
        return
    if not isinstance(tree, dict):
        return
    kind = tree.get("type")
    if "cte_map" in tree and kind not in _NODES:
        raise _refused(f"a {str(kind).partition('_')[0]} inside a SELECT")
    if field in _SOURCE_FIELDS and "class" not in tree and kind not in _NODES | _SOURCES:
        raise _refused(f"a source of the kind {kind}")
    if kind == "BASE_TABLE":
        _table(tree, hidden, found)
    elif kind == "SHOW_REF" and not tree.get("query"):
        if tree.get("show_type") == "SHOW_SPECIAL" or not tree.get("table_name"):
            raise _refused("SHOW", "name a table: DESCRIBE flights; or FROM stepwell.current for what is stored")
        _table(tree, hidden, found)
    elif tree.get("class") == "FUNCTION":
        _function(tree, field, found)
    elif kind == "VALUE_PARAMETER":
        name = str(tree.get("identifier"))
        if not name.isidentifier():
            raise _positional("")
        found.parameters.setdefault(name)
    for each in (tree.get("cte_map") or {}).get("map") or []:
        query = each["value"].get("query_node") or each["value"].get("query")
        name = folded(each["key"])
        # Only a recursive WITH sees itself; otherwise its own name means the table of that name.
        itself = {name, f"recurring.{name}"} if _is_recursive(query) else set()
        _walk(each["value"], "", hidden | itself, found)
        hidden = hidden | {name}
    for name, value in tree.items():
        if name != "cte_map":
            # The call of a table function hangs below its source.
            below = "table function" if kind == "TABLE_FUNCTION" and name == "function" else name
            _walk(value, below, hidden, found)


def _table(tree: dict[str, Any], hidden: frozenset[str], found: _Found) -> None:
    path = tuple((tree.get("qualified_name") or {}).get("path") or [tree["table_name"]])
    if folded(".".join(path)) in hidden and (len(path) == 1 or path[0].lower() == "recurring"):
        return
    if len(path) == 1 and _FILE.fullmatch(path[0]):
        found.files.setdefault(FileSource(path, "", path[0]))
    else:
        found.tables.setdefault(path)


def _function(tree: dict[str, Any], field: str, found: _Found) -> None:
    path = (tree.get("qualified_name") or {}).get("path") or [tree.get("function_name", "")]
    name = folded(str(path[-1]))
    if field == "table function":
        if name not in _TABLE_FUNCTIONS:
            raise _refused(f"{name}()", _instead_of(name))
        if name in _FILE_FUNCTIONS:
            found.files.setdefault(_file_source(name, tree))
    elif name in _REFUSED_FUNCTIONS or name.startswith("__internal"):
        raise _refused(f"{name}()", _instead_of(name))


def _instead_of(name: str) -> str:
    if name in {"query", "query_table", "histogram", "histogram_values", "summary"}:
        return "write the query itself, or the table after FROM"
    if name in {"read_text", "read_blob", "glob", "sniff_csv"} or name.startswith(("parquet_", "read_")):
        return "read_csv, read_json and read_parquet read files below the project; read others in an asset of its own"
    if name.startswith("duckdb_") or name in {"current_setting", "pragma_version"}:
        return "the views of the schema stepwell tell what the store knows: FROM stepwell.runs"
    near = difflib.get_close_matches(name, _TABLE_FUNCTIONS, n=1, cutoff=0.8)
    return f"did you mean {near[0]}()?" if near else "a SELECT reads assets and files below the project, nothing else"


def _file_source(function: str, tree: dict[str, Any]) -> FileSource:
    """Return what a reading function is told to read: its first argument, a constant, a list of them or a parameter."""
    arguments = [each for each in tree.get("arguments") or () if not each.get("name")]
    given = arguments[0].get("expression", arguments[0]) if arguments else {}
    if given.get("type") == "VALUE_PARAMETER":
        return FileSource((), str(given["identifier"]), f"{function}(${given['identifier']})")
    listed = given.get("function_name") in {"list_value", "array_value"} or given.get("type") == "ARRAY_CONSTRUCTOR"
    parts = [each.get("expression", each) for each in given.get("arguments") or given.get("children") or ()]
    names = [_text(part) for part in (parts if listed else [given])]
    if not names or None in names:
        raise _refused(
            f"{function}() of a name that is computed",
            f"write the name: {function}('data/x'), or as a parameter: $path",
        )
    return FileSource(tuple(name for name in names if name is not None), "", f"{function}()")


def _text(expression: dict[str, Any]) -> str | None:
    if expression.get("type") != "VALUE_CONSTANT":
        return None
    literal = expression.get("literal") or {}
    if literal.get("kind") == "STRING":
        return str(literal["text"])
    value = (expression.get("value") or {}).get("value")
    return value if isinstance(value, str) else None


def _refused(
    what: str, remedy: str = "a SELECT reads assets and files below the project, nothing else"
) -> CellSyntaxError:
    return CellSyntaxError(f"{what} is not for a SELECT over assets", remedy=remedy)


def _positional(text: str) -> CellSyntaxError:
    return CellSyntaxError(
        "parameters have names here", where=_first_line(text), remedy="write $name instead of ? or $1"
    )


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:100]


def _around(text: str, position: str | None) -> str:
    if position is None or not position.isdigit():
        return _first_line(text)
    # DuckDB counts bytes.
    at = len(text.encode()[: int(position)].decode(errors="ignore"))
    number = text.count("\n", 0, at) + 1
    lines = text.splitlines() or [""]
    return f"line {number}: {lines[min(number, len(lines)) - 1].strip()[:100]}"


def _without_positions(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _without_positions(value) for name, value in tree.items() if name not in _POSITIONS}
    if isinstance(tree, list):
        return [_without_positions(value) for value in tree]
    return tree


def _is_recursive(query: Any) -> bool:
    node = query.get("node", query) if isinstance(query, dict) else {}
    return isinstance(node, dict) and node.get("type") == "RECURSIVE_CTE_NODE"


_MOST = 100_000
"""Files that one pattern may match."""


@dataclass(frozen=True, slots=True)
class FileAccess:
    """What a SELECT reads of the file system.

    Attributes
    ----------
    allowed
        Absolute paths and patterns that DuckDB may open.
    named
        Absolute paths and patterns as the statement names them: what is recorded as read.
    """

    allowed: tuple[str, ...]
    named: tuple[str, ...]


def file_access(
    sources: Iterable[FileSource], parameters: Mapping[str, Any], project: Path | None, secret: Collection[Path]
) -> FileAccess:
    """Return which files a statement reads, checked.

    Parameters
    ----------
    sources
        What the statement names, relative to the working directory.
    project
        The folder below which they must be; None where there is none.
    secret
        Files and folders that are never read: stores, keys.

    Raises
    ------
    QueryError
        If a file is elsewhere, not there, or of a store.
    """
    allowed: dict[str, None] = {}
    named: dict[str, None] = {}
    hidden = [os.path.realpath(path) for path in secret]
    for source in sources:
        for written in _names(source, parameters):
            path = _absolute(written)
            # First where it is, then whether it is there: nothing is told of what is elsewhere.
            _check(os.path.realpath(_fixed(path)), written, project, hidden)
            named.setdefault(path)
            allowed.setdefault(path)
            for file in _matches(path, written):
                real = os.path.realpath(file)
                _check(real, written, project, hidden)
                allowed.setdefault(file)
                allowed.setdefault(real)
    return FileAccess(tuple(allowed), tuple(named))


def _names(source: FileSource, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    if not source.parameter:
        return source.names
    value = parameters.get(source.parameter)
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(each, str) for each in values):
        raise QueryError(
            f"{source.shown} is given {type(value).__name__ if not isinstance(value, list | tuple) else 'a list'},"
            " which names no file",
            remedy="its value is a path or a list of paths, as strings",
        )
    return tuple(values)


def _absolute(written: str) -> str:
    path = written
    if path.startswith("file:"):
        path = "/" + path.removeprefix("file:").lstrip("/")
    if "://" in path or not path or "\0" in path:
        raise QueryError(
            f"{written!r} is not below the project",
            remedy="a SELECT opens no connection: fetch it in an asset of its own and read that",
        )
    return os.path.abspath(os.path.expanduser(path))


def _fixed(path: str) -> str:
    """Return the part of a path before its first pattern."""
    parts = path.split(os.sep)  # noqa: PTH206 - as above
    first = next((at for at, part in enumerate(parts) if glob.has_magic(part)), None)
    return path if first is None or os.path.exists(path) else os.sep.join(parts[:first]) or os.sep


def _matches(path: str, written: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        raise QueryError(f"{written!r} is a folder", remedy=f"name its files: '{written.rstrip('/')}/*.csv'")
    found = []
    if glob.has_magic(path):
        # DuckDB's patterns match names that begin with a dot too.
        for each in glob.iglob(path, recursive=True, include_hidden=True):
            if os.path.isfile(each):
                found.append(each)
                if len(found) > _MOST:
                    raise QueryError(f"{written!r} matches more than {_MOST:,} files", remedy="narrow the pattern")
    if not found:
        raise QueryError(
            f"no file is called {written!r}" if not glob.has_magic(path) else f"no file matches {written!r}",
            where=f"looked for in {os.getcwd()}" if not os.path.isabs(written) else "",
            remedy="a path is relative to the notebook's folder; a table's name has no ending such as .csv",
        )
    return sorted(found)


def _check(real: str, written: str, project: Path | None, hidden: list[str]) -> None:
    shown = f"{written!r}" if real.endswith(written.lstrip("./")) else f"{written!r} ({real})"
    root = os.path.realpath(project) if project is not None else ""
    if not root or not (_below(real, root) or (real == root and glob.has_magic(written))):
        raise QueryError(
            f"{shown} is not below the project",
            where=f"the project is {root}" if root else "there is no project: the home folder is none",
            remedy="read it in an asset of its own and name that in the SELECT",
        )
    if any(real == each or _below(real, each) for each in hidden) or _of_a_store(real, root):
        raise QueryError(
            f"{shown} belongs to a store",
            remedy="name the asset instead, or the views of the schema stepwell: FROM stepwell.runs",
        )


def _below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _of_a_store(real: str, root: str) -> bool:
    """Tell whether a folder between the project's and a file is a store: any one, not only that of the session."""
    folder = os.path.dirname(real)
    while len(folder) >= len(root):
        if os.path.exists(os.path.join(folder, CATALOG)):
            return True
        folder = os.path.dirname(folder)
    return False

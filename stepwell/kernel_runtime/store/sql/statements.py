# ruff: noqa: PTH100, PTH109, PTH110, PTH111, PTH112, PTH113, PTH117, PTH118, PTH120, PTH207 - strings: a Path would change the paths as written
"""Parsing of one SELECT with DuckDB's parser (``json_serialize_sql``), and the check that the SELECT may read the files it names.

The parse tree shows the tables, files and parameters of a SELECT. A text is refused if it is not exactly one SELECT, or if it could access
data that the parse tree does not show: for example by SQL inside a string (``query('...')``), settings, logs or memory addresses. So the only
table functions that are allowed are those that are known to be harmless. The DuckDB instance that runs the SELECT is a second barrier: it
cannot access data other than the registered tables and the allowed files (`instance`).

A SELECT may read files below the project's folder, except signing keys and files of a store (`file_access`). The check resolves all links in
a path and uses the real path. DuckDB gets a list of the allowed files, and resolves links again when it opens a file. So if a link is changed
after the check, it cannot lead DuckDB to a file that is not on the list.
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
"""The parts of a table's name: ``("raw", "flights")`` for ``raw.flights``."""

# Names of fields and node types in DuckDB's parse tree.
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
"""Matches a table name that DuckDB would read as the name of a file."""
_ALLOWED = "read only assets, and files below the project's folder"
_ASCII = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class FileSource:
    """The files that one table name (``FROM 'x.csv'``) or one function call (``read_csv(...)``) in a SELECT reads.

    Attributes
    ----------
    names
        The paths and patterns as they are written in the SELECT; empty if a parameter contains them.
    parameter
        The name of the parameter whose value is the path or a list of paths; empty if the SELECT itself contains the paths.
    label
        The table name, or the function call such as ``read_csv()``, for messages.
    """

    names: tuple[str, ...]
    parameter: str
    label: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed SELECT.

    Attributes
    ----------
    text
        The SELECT as it was written.
    tables
        The paths of the tables that the SELECT reads, in the order in which they occur. A table occurs several times only if the SELECT spells its
        name in several ways (``t``, ``T``). Tables that a WITH clause defines are omitted.
    files
        The files that the SELECT reads.
    parameters
        The names of the parameters (``$name``) of the SELECT.
    canonical
        The parse tree as JSON. It is equal for texts that differ only in comments and white space.
    """

    text: str
    tables: tuple[TablePath, ...]
    files: tuple[FileSource, ...]
    parameters: tuple[str, ...]
    canonical: str


def folded(name: str) -> str:
    """Return a name with the letters A to Z in lower case. Two results are equal if and only if DuckDB regards the two names as equal."""
    return name.translate(_ASCII)


@lru_cache(maxsize=512)
def read_statement(text: str) -> Statement:
    """Parse one SELECT.

    Parameters
    ----------
    text
        The SELECT.

    Returns
    -------
    Statement
        The SELECT with its tables, files and parameters.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT, if the SELECT could access anything other than tables and files, or if a parameter has no name.
    """
    tree = _parsed(text)
    references = _References()
    _collect_references(tree, "", frozenset(), references)
    return Statement(
        text,
        tuple(references.tables),
        tuple(references.files),
        tuple(references.parameters),
        json.dumps(_without_positions(tree), sort_keys=True, separators=(",", ":")),
    )


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
            remedy = "write one SELECT statement, which may begin with SELECT, FROM, WITH or VALUES"
            if re.search(r"\bpivot\b", text, re.IGNORECASE):
                remedy = "list the values that the PIVOT turns into columns: PIVOT t ON a IN (1, 2) USING sum(b)"
            raise CellSyntaxError(
                "the SQL text is not a SELECT statement that can be analyzed", where=_first_line(text), remedy=remedy
            )
        raise CellSyntaxError(
            f"DuckDB cannot parse the SELECT: {message}", where=_context_of(text, parsed.get("position")), remedy=""
        )
    statements = parsed["statements"]
    if len(statements) != 1:
        count = "no statement" if not statements else f"{len(statements)} statements"
        raise CellSyntaxError(
            f"the SQL text must contain exactly one SELECT, but it contains {count}",
            where=_first_line(text),
            remedy="write one SELECT",
        )
    tree: dict[str, Any] = statements[0]
    return tree


class _References:
    """The tables, files and parameters that were found in a parse tree. They are the keys of the dicts, in the order in which they were found."""

    def __init__(self) -> None:
        self.tables: dict[TablePath, None] = {}
        self.files: dict[FileSource, None] = {}
        self.parameters: dict[str, None] = {}


def _collect_references(tree: Any, field: str, hidden: frozenset[str], references: _References) -> None:
    """Add the tables, files and parameters in a node of the parse tree, and in all nodes below it, to ``references``.

    Parameters
    ----------
    tree
        The node, a list of nodes, or a plain value.
    field
        The name of the field in which the parent node contains ``tree``; empty for the root.
    hidden
        Names of the tables that WITH clauses around ``tree`` define, in the form that `folded` returns. These names do not refer to assets.
    references
        Receives the tables, files and parameters.

    Raises
    ------
    CellSyntaxError
        If a node could access anything other than tables and files, or if a parameter has no name.
    """
    if isinstance(tree, list):
        for node in tree:
            _collect_references(node, field, hidden, references)
        return
    if not isinstance(tree, dict):
        return
    kind = tree.get("type")
    if "cte_map" in tree and kind not in _NODES:
        raise _not_allowed(f"the statement {str(kind).partition('_')[0]}")
    if field in _SOURCE_FIELDS and "class" not in tree and kind not in _NODES | _SOURCES:
        raise _not_allowed(f"a table source of type {kind}")
    if kind == "BASE_TABLE":
        _table(tree, hidden, references)
    elif kind == "SHOW_REF" and not tree.get("query"):
        if tree.get("show_type") == "SHOW_SPECIAL" or not tree.get("table_name"):
            raise _not_allowed(
                "SHOW",
                "use DESCRIBE with the name of a table (DESCRIBE flights), or list the stored assets (FROM stepwell.current)",
            )
        _table(tree, hidden, references)
    elif tree.get("class") == "FUNCTION":
        _function(tree, field, references)
    elif kind == "VALUE_PARAMETER":
        name = str(tree.get("identifier"))
        if not name.isidentifier():
            raise _positional("")
        references.parameters.setdefault(name)
    for cte in (tree.get("cte_map") or {}).get("map") or []:
        query = cte["value"].get("query_node") or cte["value"].get("query")
        name = folded(cte["key"])
        # Only a recursive WITH can read the table that it defines. In any other WITH, this name refers to another table.
        itself = {name, f"recurring.{name}"} if _is_recursive(query) else set()
        _collect_references(cte["value"], "", hidden | itself, references)
        hidden = hidden | {name}
    for name, value in tree.items():
        if name != "cte_map":
            # The field "function" of a TABLE_FUNCTION node contains the function call.
            below = "table function" if kind == "TABLE_FUNCTION" and name == "function" else name
            _collect_references(value, below, hidden, references)


def _table(tree: dict[str, Any], hidden: frozenset[str], references: _References) -> None:
    path = tuple((tree.get("qualified_name") or {}).get("path") or [tree["table_name"]])
    if folded(".".join(path)) in hidden and (len(path) == 1 or path[0].lower() == "recurring"):
        return
    if len(path) == 1 and _FILE.fullmatch(path[0]):
        references.files.setdefault(FileSource(path, "", path[0]))
    else:
        references.tables.setdefault(path)


def _function(tree: dict[str, Any], field: str, references: _References) -> None:
    path = (tree.get("qualified_name") or {}).get("path") or [tree.get("function_name", "")]
    name = folded(str(path[-1]))
    if field == "table function":
        if name not in _TABLE_FUNCTIONS:
            raise _not_allowed(f"{name}()", _alternative_to(name))
        if name in _FILE_FUNCTIONS:
            references.files.setdefault(_file_source(name, tree))
    elif name in _REFUSED_FUNCTIONS or name.startswith("__internal"):
        raise _not_allowed(f"{name}()", _alternative_to(name))


def _alternative_to(name: str) -> str:
    if name in {"query", "query_table", "histogram", "histogram_values", "summary"}:
        return "write the query itself, or the name of the table after FROM"
    if name in {"read_text", "read_blob", "glob", "sniff_csv"} or name.startswith(("parquet_", "read_")):
        return "use read_csv, read_json or read_parquet for a file below the project's folder; read any other file in an asset, and select from the asset"
    if name.startswith("duckdb_") or name in {"current_setting", "pragma_version"}:
        return "select from a view of the schema stepwell, such as FROM stepwell.runs"
    near = difflib.get_close_matches(name, _TABLE_FUNCTIONS, n=1, cutoff=0.8)
    return f"did you mean {near[0]}()?" if near else _ALLOWED


def _file_source(function: str, tree: dict[str, Any]) -> FileSource:
    """Return the files that a call of a function such as ``read_csv`` reads.

    Parameters
    ----------
    function
        The name of the function.
    tree
        The node of the call in the parse tree.

    Raises
    ------
    CellSyntaxError
        If the first argument of the call is not a string, a list of strings or a parameter.
    """
    arguments = [argument for argument in tree.get("arguments") or () if not argument.get("name")]
    path = arguments[0].get("expression", arguments[0]) if arguments else {}
    if path.get("type") == "VALUE_PARAMETER":
        return FileSource((), str(path["identifier"]), f"{function}(${path['identifier']})")
    listed = path.get("function_name") in {"list_value", "array_value"} or path.get("type") == "ARRAY_CONSTRUCTOR"
    parts = [item.get("expression", item) for item in path.get("arguments") or path.get("children") or ()]
    names = [_text(part) for part in (parts if listed else [path])]
    if not names or None in names:
        raise _not_allowed(
            f"{function}() with a computed path",
            f"write the path as a string, {function}('data/x'), or pass the path as a parameter, {function}($path)",
        )
    return FileSource(tuple(name for name in names if name is not None), "", f"{function}()")


def _text(expression: dict[str, Any]) -> str | None:
    """Return the text of a string literal in the parse tree; None for any other expression."""
    if expression.get("type") != "VALUE_CONSTANT":
        return None
    literal = expression.get("literal") or {}
    if literal.get("kind") == "STRING":
        return str(literal["text"])
    value = (expression.get("value") or {}).get("value")
    return value if isinstance(value, str) else None


def _not_allowed(construct: str, remedy: str = _ALLOWED) -> CellSyntaxError:
    return CellSyntaxError(f"{construct} is not allowed in a SELECT over assets", remedy=remedy)


def _positional(text: str) -> CellSyntaxError:
    return CellSyntaxError(
        "the SELECT contains a parameter without a name",
        where=_first_line(text),
        remedy="write $name instead of ? or $1",
    )


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:100]


def _context_of(text: str, position: str | None) -> str:
    if position is None or not position.isdigit():
        return _first_line(text)
    # DuckDB counts the position in bytes.
    offset = len(text.encode()[: int(position)].decode(errors="ignore"))
    number = text.count("\n", 0, offset) + 1
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


_MAX_FILES = 100_000
"""Maximum number of files that one pattern may match."""


@dataclass(frozen=True, slots=True)
class FileAccess:
    """The files that a SELECT may read.

    Attributes
    ----------
    allowed_files
        What DuckDB may open: the paths and patterns in ``named_folders``, the files to which they refer, and the real paths of these files.
    named_folders
        The paths and patterns that the SELECT or its parameters name, as absolute paths. A step that runs the SELECT records them as its reads.
    """

    allowed_files: tuple[str, ...]
    named_folders: tuple[str, ...]


def file_access(
    sources: Iterable[FileSource], parameters: Mapping[str, Any], project: Path | None, secret: Collection[Path]
) -> FileAccess:
    """Find the files that a SELECT reads, and check that it may read all of them.

    Parameters
    ----------
    sources
        The table names and function calls in the SELECT that read files. Relative paths are relative to the working directory.
    parameters
        The values of the SELECT's parameters by name.
    project
        The folder that must contain the files; None if there is no project, so that no file may be read.
    secret
        Files and folders that must not be read, such as stores and keys.

    Returns
    -------
    FileAccess
        The files.

    Raises
    ------
    QueryError
        If a file does not exist, is not below ``project``, or is in ``secret`` or in a store; if a path is a URL or a folder; if a pattern
        matches too many files; or if the value of a parameter is neither a path nor a list of paths.
    """
    allowed: dict[str, None] = {}
    named: dict[str, None] = {}
    hidden = [os.path.realpath(path) for path in secret]
    for source in sources:
        for name in _names(source, parameters):
            path = _absolute(name)
            # The location is checked before the existence, so that no error reveals whether a file outside the project exists.
            _check(os.path.realpath(_without_patterns(path)), name, project, hidden)
            named.setdefault(path)
            allowed.setdefault(path)
            for file in _matches(path, name):
                real = os.path.realpath(file)
                _check(real, name, project, hidden)
                allowed.setdefault(file)
                allowed.setdefault(real)
    return FileAccess(tuple(allowed), tuple(named))


def _names(source: FileSource, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    if not source.parameter:
        return source.names
    value = parameters.get(source.parameter)
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(path, str) for path in values):
        raise QueryError(
            f"{source.label} in the SELECT needs a path or a list of paths as strings, but the value of the parameter is "
            f"{f'of type {type(value).__name__}' if not isinstance(value, list | tuple) else 'a list that is empty or contains objects that are not strings'}",
            remedy=f"pass a path for the parameter: parameters={{{source.parameter!r}: 'data/x.csv'}}",
        )
    return tuple(values)


def _absolute(name: str) -> str:
    path = name
    if path.startswith("file:"):
        path = "/" + path.removeprefix("file:").lstrip("/")
    if "://" in path or not path or "\0" in path:
        raise QueryError(
            f"a SELECT cannot read {name!r}, because it is not a file below the project's folder",
            remedy="fetch the data in an asset, and select from the asset",
        )
    return os.path.abspath(os.path.expanduser(path))


def _without_patterns(path: str) -> str:
    """Return the path of the folder before the first wildcard in ``path``: ``/data`` for ``/data/*/x.csv``.

    If no part of ``path`` is a wildcard, or a file or folder with exactly this path exists, return ``path`` itself.
    """
    parts = path.split(os.sep)  # noqa: PTH206 - as above
    first = next((number for number, part in enumerate(parts) if glob.has_magic(part)), None)
    return path if first is None or os.path.exists(path) else os.sep.join(parts[:first]) or os.sep


def _matches(path: str, name: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        raise QueryError(
            f"a SELECT cannot read {name!r}, because it is a folder",
            remedy=f"name the files in the folder, for example with a pattern: '{name.rstrip('/')}/*.csv'",
        )
    files = []
    if glob.has_magic(path):
        # Patterns also match names that begin with a dot, because they do so in DuckDB.
        for file in glob.iglob(path, recursive=True, include_hidden=True):
            if os.path.isfile(file):
                files.append(file)
                if len(files) > _MAX_FILES:
                    raise QueryError(
                        f"the pattern {name!r} in the SELECT matches more than {_MAX_FILES:,} files",
                        remedy="write a pattern that matches fewer files",
                    )
    if not files:
        raise QueryError(
            f"there is no file {name!r}" if not glob.has_magic(path) else f"no file matches the pattern {name!r}",
            where=f"searched in the folder {os.getcwd()}" if not os.path.isabs(name) else "",
            remedy="write the path relative to the notebook's folder; to read an asset, write its name without a file extension",
        )
    return sorted(files)


def _check(real: str, name: str, project: Path | None, hidden: list[str]) -> None:
    name_text = f"{name!r}" if real.endswith(name.lstrip("./")) else f"{name!r} ({real})"
    root = os.path.realpath(project) if project is not None else ""
    if not root or not (_is_below(real, root) or (real == root and glob.has_magic(name))):
        raise QueryError(
            f"a SELECT cannot read {name_text}, because the file is not below the project's folder",
            where=f"the project's folder is {root}"
            if root
            else "there is no project, because the home folder and the root folder do not count as projects",
            remedy="read the file in an asset, and select from the asset",
        )
    if any(real == folder or _is_below(real, folder) for folder in hidden) or _is_in_a_store(real, root):
        raise QueryError(
            f"a SELECT cannot read {name_text}, because the file belongs to a store or is a signing key",
            remedy="select from the asset by its name, or from a view of the schema stepwell, such as FROM stepwell.runs",
        )


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _is_in_a_store(real: str, root: str) -> bool:
    """Return True if a file is in a store: if the folder that contains the file is a store, or any folder above it up to the project's folder.

    Parameters
    ----------
    real
        The real path of the file.
    root
        The real path of the project's folder.
    """
    folder = os.path.dirname(real)
    while len(folder) >= len(root):
        if os.path.exists(os.path.join(folder, CATALOG)):
            return True
        folder = os.path.dirname(folder)
    return False

# ruff: noqa: PTH100, PTH109, PTH110, PTH111, PTH112, PTH113, PTH117, PTH118, PTH120, PTH207 - strings: a Path would change the paths as written
"""The tables, files and parameters of one SELECT, from the parse tree of DuckDB's parser (``json_serialize_sql``).

A statement is refused if it is not exactly one SELECT, or if it can access data that the parse tree does not show, such as SQL inside a
string (``query('...')``), settings, logs or memory addresses. So only table functions that are known to be harmless are allowed. The
instance that runs the SELECT is a second barrier, because it cannot access other data (`sql.instance`).

A SELECT can read files below the project's folder, except keys and files of a store (`file_access`). The check uses the real path of a
file, with all links resolved. DuckDB gets a list of the allowed files, and compares real paths again when it opens a file. So a link that
changes after the check cannot lead to another file.
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
_ALLOWED = "a SELECT can read only assets and files below the project"
_ASCII = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class FileSource:
    """The files that one table name or function call of a statement reads.

    Attributes
    ----------
    names
        Paths and patterns as written in the statement; empty if there is a parameter.
    parameter
        Name of the parameter whose value contains the paths; empty if there is none.
    label
        The name or call, for messages.
    """

    names: tuple[str, ...]
    parameter: str
    label: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed SELECT.

    Attributes
    ----------
    tables
        The tables that the SELECT reads, in the order of the text, once for each spelling. Names defined by WITH are omitted.
    canonical
        The parse tree as JSON, which includes literals, but not comments or white space.
    """

    text: str
    tables: tuple[TablePath, ...]
    files: tuple[FileSource, ...]
    parameters: tuple[str, ...]
    canonical: str


def folded(name: str) -> str:
    """Return a name in the form in which DuckDB compares it: only the letters A to Z are converted to lower case."""
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
        If the text is not exactly one SELECT, or reads anything other than tables and files.
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
            remedy = "write one SELECT (or FROM, WITH, VALUES)"
            if re.search(r"\bpivot\b", text, re.IGNORECASE):
                remedy = "list the columns that the PIVOT makes: PIVOT t ON a IN (1, 2) USING sum(b)"
            raise CellSyntaxError("the text is not one SELECT", where=_first_line(text), remedy=remedy)
        raise CellSyntaxError(
            f"the SELECT cannot be read: {message}", where=_context_of(text, parsed.get("position")), remedy=""
        )
    statements = parsed["statements"]
    if len(statements) != 1:
        count = "there is no statement" if not statements else f"there are {len(statements)} statements"
        raise CellSyntaxError(f"{count} where one SELECT is needed", where=_first_line(text), remedy="write one SELECT")
    tree: dict[str, Any] = statements[0]
    return tree


class _References:
    """The tables, files and parameters in a parse tree. The dicts serve as sets in the order of the text."""

    def __init__(self) -> None:
        self.tables: dict[TablePath, None] = {}
        self.files: dict[FileSource, None] = {}
        self.parameters: dict[str, None] = {}


def _collect_references(tree: Any, field: str, hidden: frozenset[str], references: _References) -> None:
    """Collect the references in a part of the parse tree; ``hidden`` contains the folded WITH names in scope."""
    if isinstance(tree, list):
        for node in tree:
            _collect_references(node, field, hidden, references)
        return
    if not isinstance(tree, dict):
        return
    kind = tree.get("type")
    if "cte_map" in tree and kind not in _NODES:
        raise _not_allowed(f"{str(kind).partition('_')[0]} inside a SELECT")
    if field in _SOURCE_FIELDS and "class" not in tree and kind not in _NODES | _SOURCES:
        raise _not_allowed(f"the source {kind}")
    if kind == "BASE_TABLE":
        _table(tree, hidden, references)
    elif kind == "SHOW_REF" and not tree.get("query"):
        if tree.get("show_type") == "SHOW_SPECIAL" or not tree.get("table_name"):
            raise _not_allowed(
                "SHOW", "name a table: DESCRIBE flights; for a list of stored assets: FROM stepwell.current"
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
        # Only a recursive WITH can read itself; in any other WITH, its name refers to the table of this name.
        itself = {name, f"recurring.{name}"} if _is_recursive(query) else set()
        _collect_references(cte["value"], "", hidden | itself, references)
        hidden = hidden | {name}
    for name, value in tree.items():
        if name != "cte_map":
            # The node of a table function contains the function call.
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
        return "write the query itself, or the table after FROM"
    if name in {"read_text", "read_blob", "glob", "sniff_csv"} or name.startswith(("parquet_", "read_")):
        return "read_csv, read_json and read_parquet read files below the project; read other files in an asset, and select from the asset"
    if name.startswith("duckdb_") or name in {"current_setting", "pragma_version"}:
        return "read a view of the schema stepwell: FROM stepwell.runs"
    near = difflib.get_close_matches(name, _TABLE_FUNCTIONS, n=1, cutoff=0.8)
    return f"did you mean {near[0]}()?" if near else _ALLOWED


def _file_source(function: str, tree: dict[str, Any]) -> FileSource:
    """Return the files that a call of a function such as read_csv reads.

    The first argument of the call must be a constant, a list of constants or a parameter.
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
            f"write the path: {function}('data/x'), or pass it as a parameter: {function}($path)",
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


def _not_allowed(construct: str, remedy: str = _ALLOWED) -> CellSyntaxError:
    return CellSyntaxError(f"{construct} is not allowed in a SELECT over assets", remedy=remedy)


def _positional(text: str) -> CellSyntaxError:
    return CellSyntaxError(
        "parameters of a SELECT have names", where=_first_line(text), remedy="write $name instead of ? or $1"
    )


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:100]


def _context_of(text: str, position: str | None) -> str:
    if position is None or not position.isdigit():
        return _first_line(text)
    # DuckDB's position is in bytes.
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
    """The files of a SELECT.

    Attributes
    ----------
    allowed_files
        Absolute paths and patterns that DuckDB may open.
    named_folders
        Absolute paths and patterns that the statement names, which are recorded as reads.
    """

    allowed_files: tuple[str, ...]
    named_folders: tuple[str, ...]


def file_access(
    sources: Iterable[FileSource], parameters: Mapping[str, Any], project: Path | None, secret: Collection[Path]
) -> FileAccess:
    """Return the files that a statement may read, or raise an error if one of them is not allowed.

    Parameters
    ----------
    sources
        The files in the statement; paths are relative to the working directory.
    parameters
        Values of parameters by name.
    project
        The folder that must contain the files; None if there is no project.
    secret
        Files and folders that must not be read, such as stores and keys.

    Returns
    -------
    FileAccess
        The files by name and by real path.

    Raises
    ------
    QueryError
        If a file does not exist, is not below the project, or belongs to a store.
    """
    allowed: dict[str, None] = {}
    named: dict[str, None] = {}
    hidden = [os.path.realpath(path) for path in secret]
    for source in sources:
        for name in _names(source, parameters):
            path = _absolute(name)
            # Check the location before the existence, so that an error does not reveal whether a file outside the project exists.
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
            f"{source.label} needs a path or a list of paths as strings, not "
            f"{type(value).__name__ if not isinstance(value, list | tuple) else 'this list'}",
            remedy=f"pass a path: parameters={{{source.parameter!r}: 'data/x.csv'}}",
        )
    return tuple(values)


def _absolute(name: str) -> str:
    path = name
    if path.startswith("file:"):
        path = "/" + path.removeprefix("file:").lstrip("/")
    if "://" in path or not path or "\0" in path:
        raise QueryError(
            f"{name!r} is not below the project, and a SELECT cannot open connections",
            remedy="fetch the data in an asset, and select from the asset",
        )
    return os.path.abspath(os.path.expanduser(path))


def _without_patterns(path: str) -> str:
    """Return the leading part of a path that contains no pattern."""
    parts = path.split(os.sep)  # noqa: PTH206 - as above
    first = next((number for number, part in enumerate(parts) if glob.has_magic(part)), None)
    return path if first is None or os.path.exists(path) else os.sep.join(parts[:first]) or os.sep


def _matches(path: str, name: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        raise QueryError(f"{name!r} is a folder", remedy=f"name the files in it: '{name.rstrip('/')}/*.csv'")
    files = []
    if glob.has_magic(path):
        # As in DuckDB, patterns also match names that begin with a dot.
        for file in glob.iglob(path, recursive=True, include_hidden=True):
            if os.path.isfile(file):
                files.append(file)
                if len(files) > _MAX_FILES:
                    raise QueryError(f"{name!r} matches more than {_MAX_FILES:,} files", remedy="narrow the pattern")
    if not files:
        raise QueryError(
            f"no file is called {name!r}" if not glob.has_magic(path) else f"no file matches {name!r}",
            where=f"searched in {os.getcwd()}" if not os.path.isabs(name) else "",
            remedy="write the path relative to the notebook's folder; for an asset, leave out the ending",
        )
    return sorted(files)


def _check(real: str, name: str, project: Path | None, hidden: list[str]) -> None:
    name_text = f"{name!r}" if real.endswith(name.lstrip("./")) else f"{name!r} ({real})"
    root = os.path.realpath(project) if project is not None else ""
    if not root or not (_is_below(real, root) or (real == root and glob.has_magic(name))):
        raise QueryError(
            f"{name_text} is not below the project",
            where=f"the project is {root}"
            if root
            else "there is no project here: the home folder does not count as one",
            remedy="read it in an asset, and select from the asset",
        )
    if any(real == folder or _is_below(real, folder) for folder in hidden) or _is_in_a_store(real, root):
        raise QueryError(
            f"{name_text} belongs to a store",
            remedy="select from the asset, or from a view of the schema stepwell: FROM stepwell.runs",
        )


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _is_in_a_store(real: str, root: str) -> bool:
    """Return True if a file is inside any store below the project."""
    folder = os.path.dirname(real)
    while len(folder) >= len(root):
        if os.path.exists(os.path.join(folder, CATALOG)):
            return True
        folder = os.path.dirname(folder)
    return False

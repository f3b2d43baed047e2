"""One SELECT over given frames, in a DuckDB instance of its own.

Whether a text is one SELECT, and which tables it names, is the parser's word (``json_serialize_sql``), never a pattern's. The
statement runs in a second in-memory instance that knows nothing but the tables it is given: no variable of the caller's, no
file, no extension, and no way to change that.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.kernel_runtime.errors import CellSyntaxError, StepwellError
from stepwell.kernel_runtime.store.attachment import Connection, leak, one_line

_POSITIONS = frozenset({"query_location", "query_location_length"})

_instances: list[Connection] = []
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that does not exist here
    _lock = threading.Lock()
    for instance in _instances:
        leak(instance)
    _instances.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def select_tables(text: str) -> tuple[str, ...]:
    """Return the tables that one SELECT names, in the order of the text, each once; its own WITH names are no tables.

    A qualified name is returned with its dots.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    """
    found: dict[str, None] = {}
    for name in _tables(_statement(text), frozenset()):
        found.setdefault(name)
    return tuple(found)


def canonical_sql(text: str) -> str:
    """Return the statement as the parser understands it: comments and white space do not count, literals do.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    """
    return json.dumps(_without_positions(_statement(text)), sort_keys=True, separators=(",", ":"))


def run_select(text: str, tables: Mapping[str, object], parameters: Mapping[str, object]) -> Any:
    """Run one SELECT over frames (pandas, pyarrow, polars) by name and return a ``pyarrow.Table``.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    StepwellError
        If DuckDB cannot run it; the message is DuckDB's.
    """
    import duckdb

    _statement(text)
    connection = _cursor()
    try:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(text, params=dict(parameters) or None).to_arrow_table()
    except duckdb.Error as error:
        raise StepwellError(
            f"the SELECT failed: {one_line(error)}",
            where=_place(connection, text, parameters, error),
            remedy=_remedy(error, tables),
        ) from error
    finally:
        connection.close()


def _place(connection: Connection, text: str, parameters: Mapping[str, object], error: Exception) -> str:
    """Return DuckDB's picture of where in the statement: the line and the caret below it."""
    import duckdb

    if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        # A relation's error has no picture, a statement's has; these two come before anything runs.
        try:
            connection.execute(text, dict(parameters))
        except duckdb.Error as again:
            lines = [line for line in str(again).splitlines() if line.strip()]
            if len(lines) > 2 and set(lines[-1].strip()) == {"^"}:
                return "\n".join(lines[-2:])
    return ""


def _remedy(error: Exception, tables: Mapping[str, object]) -> str:
    import duckdb

    if isinstance(error, duckdb.PermissionException):
        return "a SELECT reads assets only: load the file in an asset of its own and name that"
    if isinstance(error, duckdb.CatalogException) and tables:
        return "tables here: " + ", ".join(sorted(tables))
    return ""


def _cursor() -> Connection:
    with _lock:
        if not _instances:
            import duckdb

            _instances.append(
                duckdb.connect(
                    ":memory:",
                    config={
                        "autoinstall_known_extensions": False,
                        "autoload_known_extensions": False,
                        "python_enable_replacements": False,
                        "python_scan_all_frames": False,
                        "enable_external_access": False,
                        "lock_configuration": True,
                    },
                )
            )
        return _instances[0].cursor()


def _statement(text: str) -> dict[str, Any]:
    connection = _cursor()
    try:
        row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    finally:
        connection.close()
    parsed: dict[str, Any] = json.loads(row[0])
    if parsed["error"]:
        message = parsed["error_message"]
        if parsed.get("error_type") == "not implemented":
            raise CellSyntaxError(
                "the text is not one SELECT", where=_first_line(text), remedy="write one SELECT (or FROM, WITH, VALUES)"
            )
        raise CellSyntaxError(
            f"the SELECT cannot be read: {message}", where=_around(text, parsed.get("position")), remedy=""
        )
    statements = parsed["statements"]
    if len(statements) != 1:
        count = "there is no statement" if not statements else f"there are {len(statements)} statements"
        raise CellSyntaxError(f"{count} where one SELECT is needed", where=_first_line(text), remedy="write one SELECT")
    found: dict[str, Any] = statements[0]
    return found


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:100]


def _around(text: str, position: str | None) -> str:
    if position is None or not position.isdigit():
        return _first_line(text)
    at = int(position)
    number = text.count("\n", 0, at) + 1
    lines = text.splitlines() or [""]
    return f"line {number}: {lines[min(number, len(lines)) - 1].strip()[:100]}"


def _without_positions(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _without_positions(value) for name, value in tree.items() if name not in _POSITIONS}
    if isinstance(tree, list):
        return [_without_positions(value) for value in tree]
    return tree


def _tables(tree: Any, hidden: frozenset[str]) -> Iterator[str]:
    """Yield the tables below a part of the parse tree; ``hidden`` are WITH names in scope, in lower case."""
    if isinstance(tree, list):
        for each in tree:
            yield from _tables(each, hidden)
        return
    if not isinstance(tree, dict):
        return
    if tree.get("type") == "BASE_TABLE":
        path = (tree.get("qualified_name") or {}).get("path") or [tree["table_name"]]
        if len(path) > 1 or path[0].lower() not in hidden:
            yield ".".join(path)
    with_names = (tree.get("cte_map") or {}).get("map") or []
    for each in with_names:
        query = each["value"].get("query_node") or each["value"].get("query")
        name = each["key"].lower()
        # Only a recursive WITH sees itself; otherwise its own name means the table of that name.
        itself = {name} if _is_recursive(query) else set()
        yield from _tables(each["value"], hidden | itself)
        hidden = hidden | {name}
    for field, value in tree.items():
        if field != "cte_map":
            yield from _tables(value, hidden)


def _is_recursive(query: Any) -> bool:
    node = query.get("node", query) if isinstance(query, dict) else {}
    return isinstance(node, dict) and node.get("type") == "RECURSIVE_CTE_NODE"

"""What DuckDB's own connection holds: ``duckdb.sql("create table t ...")`` keeps its tables in the process.

`objects` has the digests of the tables, views, macros, sequences and types of the connection that the functions of the module
use. A step that names one reads it; what a step leaves there is not restored, so that it runs once in every kernel. What cannot be looked
at from another connection (temporary tables, registered frames) never holds.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from stepwell.kernel_runtime.versions.atoms import digest

_WORD = re.compile(r"[^\W\d]\w*")
_STATEMENT = re.compile(r"(?:\A|;)\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(?P<verb>\w+)(?P<rest>[^;]*)", re.DOTALL)
_TEMPORARY = re.compile(
    r"\A\s*(?:or\s+replace\s+)?temp(?:orary)?\s+\w+\s+(?:if\s+not\s+exists\s+)?\"?(?P<name>\w+)", re.IGNORECASE
)
_SETS = frozenset(("set", "pragma", "reset", "attach", "detach", "use", "load"))
_READS = frozenset(("select", "from", "with", "values", "describe", "desc", "show", "explain", "summarize", "pivot", "unpivot", "table"))  # fmt: skip
_QUIET = frozenset(("threads", "worker_threads", "memory_limit", "max_memory", "temp_directory", "enable_progress_bar", "progress_bar_time", "global", "session"))  # fmt: skip
_MOST_ROWS = 50_000_000
NAME = "duckdb: "
"""How the names of recorded reads begin."""
SETTINGS = "(settings)"


class _State:
    """What statements on the connection have done so far."""

    def __init__(self) -> None:
        self.used = False
        self.busy = False
        self.temporary: set[str] = set()
        self.settings: list[str] = []
        self.outside = 0
        """How many statements that may change something were executed outside of steps."""


state = _State()


def is_own(connection: Any) -> bool:
    """Return True for the connection that the functions of the module use; None stands for it."""
    if connection is None:
        return True
    module = sys.modules.get("duckdb")
    try:
        return module is not None and connection is module.default_connection()
    except Exception:
        # Another version has no such function.
        return False


def noted(text: str, *, outside: bool) -> list[str]:
    """Note a statement that is about to be executed; return what it leaves in the connection that is not in `objects`."""
    state.used = True
    left = []
    for found in _STATEMENT.finditer(text):
        verb, rest = found["verb"].lower(), found["rest"]
        state.outside += outside and verb not in _READS
        temporary = _TEMPORARY.match(rest) if verb == "create" else None
        if temporary is not None:
            state.temporary.add(temporary["name"].lower())
            left.append(f"temporary table {temporary['name']}")
        elif verb in _SETS and not (
            {each.lower() for each in _WORD.findall(rest)[:2]} & _QUIET - {"global", "session"}
        ):
            state.settings.append(f"{verb} {' '.join(rest.split())}")
            left.append(f"{verb} {' '.join(rest.split()[:1])}")
    return left


def registered(name: str, *, outside: bool) -> None:
    """Note that an object is about to be registered under a name."""
    state.used = True
    state.outside += outside
    state.temporary.add(name.lower())


def words(text: str) -> set[str]:
    """Return the words of a statement, as the names of objects are compared."""
    return {each.lower() for each in _WORD.findall(text)}


def objects() -> dict[str, str]:
    """Return the digests of everything that the connection holds, by name in lower case."""
    module: Any = sys.modules.get("duckdb")
    if not state.used or module is None or state.busy:
        return {}
    state.busy = True
    try:
        cursor = module.default_connection().cursor()
        try:
            return _objects(cursor, str(module.__version__))
        finally:
            cursor.close()
    except Exception:
        # A database that is closed or broken holds nothing that could be named.
        return {}
    finally:
        state.busy = False


def _objects(cursor: Any, version: str) -> dict[str, str]:
    found: dict[str, list[Any]] = {}

    def put(name: str, *told: Any) -> None:
        found.setdefault(name.lower(), [version]).extend(told)

    def rows(text: str) -> list[tuple[Any, ...]]:
        answer: list[tuple[Any, ...]] = cursor.execute(text).fetchall()
        return answer

    for schema, name, text, size in rows(
        "select schema_name, table_name, sql, estimated_size from duckdb_tables() where not internal and not temporary and database_name = current_database()"
    ):
        place = f'"{schema}"."{name}"'.replace("\0", "")
        content = rows(f"select count(*), bit_xor(hash(rowid, x)) from {place} x") if size < _MOST_ROWS else "too large"  # noqa: S608 - names of the catalog
        put(name, schema, text, content)
    for name, text in rows("select view_name, sql from duckdb_views() where not internal and not temporary"):
        put(name, text)
    for name, given, text in rows(
        "select function_name, parameters::varchar, macro_definition from duckdb_functions() where not internal"
    ):
        put(name, given, text)
    for name, last, text in rows("select sequence_name, last_value, sql from duckdb_sequences()"):
        put(name, last, text)
    for name, labels in rows("select type_name, labels::varchar from duckdb_types() where not internal"):
        put(name, labels)
    # What a view or macro names is a part of it.
    digests = {name: digest(repr(told).encode()).hex() for name, told in found.items()}
    for _ in range(5):
        digests = {
            name: digest(
                repr(
                    [
                        digests[name],
                        *[digests[each] for each in sorted(words(str(told))) if each in digests and each != name],
                    ]
                ).encode()
            ).hex()
            for name, told in found.items()
        }
    return digests


def object_digest(name: str) -> str:
    """Return the digest of an object by the name of a recorded read; empty if there is none."""
    name = name.removeprefix(NAME)
    if name == SETTINGS:
        return digest("\n".join(state.settings).encode()).hex() if state.settings else ""
    return objects().get(name, "")

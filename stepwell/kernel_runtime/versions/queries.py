# ruff: noqa: PTH100, PTH112, PTH113, PTH207 - plain strings are faster, and every statement of a step is read
"""Reads by queries: variables and files in SQL, ``@name`` in expressions of pandas, and objects in DuckDB's default connection.

*Variables.* `names_in_texts` and `tables_in` find the names that a query may look up. They may return too many names, but never too few. For a
complete statement, they exclude names that the statement defines (``with df as (...)``), names after a FROM that is not a clause
(``extract(month from day)``), and names in strings and comments. For a fragment of a statement, they return every name after a FROM or JOIN.

*Files.* `files_named` finds the files in a statement. A string literal or a quoted name is regarded as the path of a file if this file exists. A
string literal is also regarded as a path if DuckDB expects a file at its position: after FROM, JOIN or ATTACH, or inside a function that reads
files.

*The default connection.* ``duckdb.sql("create table t ...")`` creates a table in DuckDB's default connection, which exists as long as the
process. `connection_objects` returns the digests of the tables, views, macros, sequences and types in this connection. If a statement of a step
names such an object, a read of the object is recorded. Objects that a step creates in the connection are not restored, so the step runs once in
every kernel. A step that reads an object to which other connections have no access (a temporary table, a registered frame) is never reused.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell.kernel_runtime.versions.encode import digest

# -- names

FRAME_TEXT = frozenset(("query", "eval"))
SQL_TEXT = frozenset(("sql", "query", "execute", "sql_expr", "from_query", "read_sql", "sqldf"))
"""Names of functions and methods that look up variables named in a string argument: an expression for `FRAME_TEXT`, SQL for `SQL_TEXT`."""
_AT_NAME = re.compile(r"@([^\W\d]\w*)")
_FROM_NAME = re.compile(r"\b(?:from|join)\s+((?:[^\W\d]\w*\s*,\s*)*[^\W\d]\w*)", re.IGNORECASE)
_TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$\$.*?\$\$|\"(?:[^\"]|\"\")*\"|[^\W\d]\w*|\d[\w.]*|\S", re.DOTALL)
_STARTS = frozenset(
    ("with", "select", "from", "(", "values", "describe", "summarize", "explain", "pivot", "insert", "create", "copy")
)
_WITH_FROM = frozenset(("extract", "substring", "trim", "overlay"))
_ENDS_LIST = frozenset(
    "with where group order having limit offset window qualify union intersect except select set returning".split()
)
_NO_TABLE = frozenset("on using as inner left right full cross natural asof positional semi anti lateral".split())


def names_in_texts(texts: Sequence[str], read: Iterable[str]) -> Iterator[str]:
    """Yield the names of the variables that query strings in code may look up. There are none if the code calls no function that looks up variables.

    Parameters
    ----------
    texts
        The string constants of the code.
    read
        The names that the code reads, including attributes such as ``query`` and ``sql``.
    """
    calls = set(read)
    for text in texts:
        if calls & FRAME_TEXT:
            yield from _AT_NAME.findall(text)
        if calls & SQL_TEXT:
            yield from tables_in(text)


def tables_in(text: str) -> list[str]:
    """Return the names that an SQL text may read as tables, each once."""
    whole = _whole_statement(text)
    if whole is not None:
        return list(dict.fromkeys(_tables(whole)))
    return list(dict.fromkeys(name.strip() for names in _FROM_NAME.findall(text) for name in names.split(",")))


def _whole_statement(text: str) -> list[str] | None:
    """Return the tokens of a text if it is one complete SQL statement, else None."""
    tokens = [candidate for candidate in _TOKEN.findall(text) if not candidate.startswith(("--", "/*"))]
    while tokens and tokens[-1] == ";":
        tokens.pop()
    if not tokens or tokens[0].lower() not in _STARTS or ";" in tokens:
        return None
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")  # noqa: S105 - no password
        if depth < 0 or token in {"'", '"', "{", "}"}:
            return None
    return tokens if depth == 0 else None


def _tables(tokens: list[str]) -> Iterator[str]:
    words = [token.lower() for token in tokens]
    closing = _closing(words)
    defined = list(_own_names(words, closing))
    inside: list[str] = []
    """For each open parenthesis, the word before it."""
    listing = [False]
    """For the statement and for each open parenthesis: True if the present position is in a list of tables."""
    expected = False
    for position, word in enumerate(words):
        if word == "(":
            inside.append(words[position - 1] if position else "")
            # A parenthesis after FROM may contain tables, ``from (a join b)``, or a query, ``from (select ...)``.
            listing.append(expected)
            continue
        if word == ")":
            inside.pop()
            listing.pop()
            expected = False
            continue
        if word in {"from", "join"}:
            other = word == "from" and (words[position - 1] == "distinct" or (inside and inside[-1] in _WITH_FROM))
            expected = listing[-1] = not other
            continue
        if word == "," and listing[-1]:
            expected = True
            continue
        if word in _ENDS_LIST:
            listing[-1] = expected = False
            continue
        if word in _NO_TABLE:
            expected = expected and word == "lateral"
            continue
        if expected and (word[0].isalpha() or word[0] in '_"'):
            expected = False
            after = words[position + 1] if position + 1 < len(words) else ""
            name = tokens[position].strip('"')
            if after not in {"(", "."} and not any(
                defined_name == name.lower() and first < position < last for defined_name, first, last in defined
            ):
                yield name


def _closing(words: list[str]) -> dict[int, int]:
    """Return a dict from the position of each opening parenthesis to the position of its closing parenthesis."""
    closing: dict[int, int] = {}
    stack: list[int] = []
    for position, word in enumerate(words):
        if word == "(":
            stack.append(position)
        elif word == ")":
            closing[stack.pop()] = position
    return closing


def _own_names(words: list[str], closing: dict[int, int]) -> Iterator[tuple[str, int, int]]:
    """Yield the names that WITH defines in a statement, each with two positions.

    The definition is visible for the tokens after the first and before the second position.

    Parameters
    ----------
    words
        The tokens of the statement in lower case.
    closing
        The result of `_closing` for `words`.
    """
    stack = [len(words)]
    for position, word in enumerate(words):
        if word == "(":
            stack.append(closing[position])
        elif word == ")":
            stack.pop()
        if word != "with" or (position and words[position - 1] not in {"(", "as", "explain", "describe", "summarize"}):
            continue
        current = position + 1
        recursive = current < len(words) and words[current] == "recursive"
        current += recursive
        while current < len(words):
            name = words[current].strip('"')
            current += 1
            if current < len(words) and words[current] == "(":
                current = closing[current] + 1
            while current < len(words) and words[current] in {"as", "not", "materialized"}:
                current += 1
            if current >= len(words) or words[current] != "(":
                break
            yield name, current if recursive else closing[current], stack[-1]
            current = closing[current] + 1
            if current >= len(words) or words[current] != ",":
                break
            current += 1


# -- files

_PIECES = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<text>'(?:[^']|'')*')|(?P<name>\"(?:[^\"]|\"\")*\")|\$\$(?P<dollars>.*?)\$\$", re.DOTALL
)
_FILE_FUNCTION = re.compile(
    r"\b(?:read_\w+|\w+_scan|sniff_csv|parquet_(?:metadata|schema|file_metadata|kv_metadata)|glob)\s*\(", re.IGNORECASE
)
_INSIDE = re.compile(_FILE_FUNCTION.pattern + r"[^(){}]*$", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(r"\b(?:from|join)\s*$|\b(?:from|join)\b[^()]*,\s*$", re.IGNORECASE | re.DOTALL)
_ATTACHED = re.compile(r"\battach\s+(?:database\s+)?(?:if\s+not\s+exists\s+)?$", re.IGNORECASE)
_WRITTEN = re.compile(r"\bto\s*$|\bexport\s+database\s*$", re.IGNORECASE)
_OPTION = re.compile(r"(?:=>?|:=|:)\s*\[?\s*$")
_BLANK = "\0"
_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(slots=True)
class NamedFiles:
    """The files that an SQL statement and its parameters name."""

    read_files: list[str] = field(default_factory=list)
    written_files: list[str] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)
    has_computed_name: bool = False
    """True if the statement calls a function that reads files, but `read_files` is empty: the name of the file is then computed."""


def files_named(text: str, parameters: Any = None) -> NamedFiles:
    """Return the files that an SQL statement reads, writes and attaches.

    Parameters
    ----------
    parameters
        The values of the statement's parameters. The paths of existing files among them are returned as files that the statement reads.
    """
    files = NamedFiles()
    before = ""
    end = 0
    for piece in _PIECES.finditer(text):
        before = f"{before}{text[end : piece.start()]}"
        end = piece.end()
        literal = _literal(piece)
        if literal is None:
            continue
        if _WRITTEN.search(before):
            files.written_files.append(literal)
        elif _ATTACHED.search(before):
            files.attached.append(literal)
        elif _OPTION.search(before):
            pass
        elif (piece["text"] is not None and (_AFTER.search(before) or _INSIDE.search(before))) or _exists(literal):
            files.read_files.append(literal)
        before += _BLANK
    paths = [value for value in _values(parameters) if isinstance(value, (str, os.PathLike)) and _exists(os.fspath(value))]
    files.read_files += [os.fspath(value) for value in paths]
    files.has_computed_name = not files.read_files and _FILE_FUNCTION.search(before + text[end:]) is not None
    return files


def _literal(piece: re.Match[str]) -> str | None:
    if piece["text"] is not None:
        return piece["text"][1:-1].replace("''", "'")
    if piece["name"] is not None:
        return piece["name"][1:-1].replace('""', '"')
    return piece["dollars"]


def _exists(literal: str) -> bool:
    if not 0 < len(literal) < 4096 or "\n" in literal or "\0" in literal:
        return False
    if os.path.isfile(literal):
        return True
    if not glob.has_magic(literal) or os.sep not in literal:
        return False
    return any(not os.path.isdir(path) for path in glob.iglob(os.path.abspath(literal), recursive=True))


def _values(parameters: Any) -> Iterable[Any]:
    if isinstance(parameters, dict):
        return parameters.values()
    return parameters if isinstance(parameters, (list, tuple)) else ()


# -- the default connection

_STATEMENT = re.compile(r"(?:\A|;)\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(?P<verb>\w+)(?P<rest>[^;]*)", re.DOTALL)
_TEMPORARY = re.compile(
    r"\A\s*(?:or\s+replace\s+)?temp(?:orary)?\s+\w+\s+(?:if\s+not\s+exists\s+)?\"?(?P<name>\w+)", re.IGNORECASE
)
_SETS = frozenset(("set", "pragma", "reset", "attach", "detach", "use", "load"))
_READS = frozenset(("select", "from", "with", "values", "describe", "desc", "show", "explain", "summarize", "pivot", "unpivot", "table"))  # fmt: skip
_QUIET = frozenset(("threads", "worker_threads", "memory_limit", "max_memory", "temp_directory", "enable_progress_bar", "progress_bar_time", "global", "session"))  # fmt: skip
_MOST_ROWS = 50_000_000
IN_CONNECTION = "duckdb: "
"""The beginning of the name of a recorded read of an object in DuckDB's default connection."""
SETTINGS = "(settings)"
"""Takes the place of the object's name in a recorded read of the settings of the default connection."""


class _Connection:
    """Facts about DuckDB's default connection that cannot be read from the connection, such as the settings that statements have changed."""

    def __init__(self) -> None:
        self.used = False
        self.busy = False
        self.temporary: set[str] = set()
        self.settings: list[str] = []
        self.outside = 0
        """The number of possible changes of the connection while no step ran: statements that may change it, and registered Python objects."""


connection = _Connection()


def is_own(handle: Any) -> bool:
    """Return True if `handle` is the default connection of DuckDB, or None, which stands for this connection."""
    if handle is None:
        return True
    module = sys.modules.get("duckdb")
    try:
        return module is not None and handle is module.default_connection()
    except Exception:
        # This version of DuckDB has no such function.
        return False


def note_statement(text: str, *, outside: bool) -> list[str]:
    """Record a statement that is about to be executed in DuckDB's default connection.

    Parameters
    ----------
    outside
        True if no step runs.

    Returns
    -------
    list of str
        Descriptions, for messages, of the temporary tables that the statement creates and the settings that it changes. The result
        of `connection_objects` contains neither.
    """
    connection.used = True
    effects = []
    for match in _STATEMENT.finditer(text):
        verb, rest = match["verb"].lower(), match["rest"]
        connection.outside += outside and verb not in _READS
        temporary = _TEMPORARY.match(rest) if verb == "create" else None
        if temporary is not None:
            connection.temporary.add(temporary["name"].lower())
            effects.append(f"temporary table {temporary['name']}")
        elif verb in _SETS and not ({word.lower() for word in _WORD.findall(rest)[:2]} & _QUIET - {"global", "session"}):
            connection.settings.append(f"{verb} {' '.join(rest.split())}")
            effects.append(f"{verb} {' '.join(rest.split()[:1])}")
    return effects


def note_registered(name: str, *, outside: bool) -> None:
    """Record that a Python object, such as a frame, is about to be registered under a name in DuckDB's default connection.

    Parameters
    ----------
    outside
        True if no step runs.
    """
    connection.used = True
    connection.outside += outside
    connection.temporary.add(name.lower())


def words(text: str) -> set[str]:
    """Return the words of a statement in lower case, because the names of objects in DuckDB are compared in lower case."""
    return {word.lower() for word in _WORD.findall(text)}


def connection_objects() -> dict[str, str]:
    """Return a dict from the name of each object in DuckDB's default connection, in lower case, to the digest of the object.

    The result is empty if no statement has used the connection, or if the objects cannot be read.
    """
    module: Any = sys.modules.get("duckdb")
    if not connection.used or module is None or connection.busy:
        return {}
    connection.busy = True
    try:
        cursor = module.default_connection().cursor()
        try:
            return _objects(cursor, str(module.__version__))
        finally:
            cursor.close()
    except Exception:
        # The database is closed or broken.
        return {}
    finally:
        connection.busy = False


def _objects(cursor: Any, version: str) -> dict[str, str]:
    facts: dict[str, list[Any]] = {}

    def put(name: str, *values: Any) -> None:
        facts.setdefault(name.lower(), [version]).extend(values)

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
    for name, parameters, text in rows(
        "select function_name, parameters::varchar, macro_definition from duckdb_functions() where not internal"
    ):
        put(name, parameters, text)
    for name, last, text in rows("select sequence_name, last_value, sql from duckdb_sequences()"):
        put(name, last, text)
    for name, labels in rows("select type_name, labels::varchar from duckdb_types() where not internal"):
        put(name, labels)
    # The digest of a view or macro covers the objects that it names.
    digests = {name: digest(repr(values).encode()).hex() for name, values in facts.items()}
    for _ in range(5):
        digests = {
            name: digest(
                repr(
                    [
                        digests[name],
                        *[digests[word] for word in sorted(words(str(values))) if word in digests and word != name],
                    ]
                ).encode()
            ).hex()
            for name, values in facts.items()
        }
    return digests


def object_digest(name: str) -> str:
    """Return the digest of an object in DuckDB's default connection, or of the connection's settings.

    The digest is an empty string for an object that does not exist, and for the settings as long as none was changed.

    Parameters
    ----------
    name
        The name of the recorded read: `IN_CONNECTION` followed by the name of the object, or by `SETTINGS` for the settings.
    """
    name = name.removeprefix(IN_CONNECTION)
    if name == SETTINGS:
        return digest("\n".join(connection.settings).encode()).hex() if connection.settings else ""
    return connection_objects().get(name, "")

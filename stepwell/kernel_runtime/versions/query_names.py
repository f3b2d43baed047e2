"""Names that the texts of queries read: tables in SQL, ``@name`` in expressions of pandas.

The answer may name too much, never too little. In a whole statement, what the statement itself names (``with df as (...)``), what follows
another FROM (``extract(month from day)``), and what stands in its strings and comments does not count. In a part of one every name after a
FROM or JOIN counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

FRAME_TEXT = frozenset(("query", "eval"))
SQL_TEXT = frozenset(("sql", "query", "execute", "sql_expr", "from_query", "read_sql", "sqldf"))
"""Functions and methods whose texts read names."""
_AT_NAME = re.compile(r"@([^\W\d]\w*)")
_FROM_NAME = re.compile(r"\b(?:from|join)\s+((?:[^\W\d]\w*\s*,\s*)*[^\W\d]\w*)", re.IGNORECASE)
_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$\$.*?\$\$|\"(?:[^\"]|\"\")*\"|[^\W\d]\w*|\d[\w.]*|\S", re.DOTALL
)
_STARTS = frozenset(
    ("with", "select", "from", "(", "values", "describe", "summarize", "explain", "pivot", "insert", "create", "copy")
)
_WITH_FROM = frozenset(("extract", "substring", "trim", "overlay"))
_ENDS_LIST = frozenset(
    "with where group order having limit offset window qualify union intersect except select set returning".split()
)
_NO_TABLE = frozenset("on using as inner left right full cross natural asof positional semi anti lateral".split())


def names_in_texts(texts: Sequence[str], read: Iterable[str]) -> Iterator[str]:
    """Find names that strings read where code calls something known to look names up in its caller.

    Parameters
    ----------
    texts
        String constants of the code.
    read
        Names that the code reads, attributes among them: ``query``, ``sql``.
    """
    calls = set(read)
    for text in texts:
        if calls & FRAME_TEXT:
            yield from _AT_NAME.findall(text)
        if calls & SQL_TEXT:
            yield from tables_in(text)


def tables_in(text: str) -> list[str]:
    """Return the names that SQL may read as tables, each once."""
    whole = _whole(text)
    if whole is not None:
        return list(dict.fromkeys(_tables(whole)))
    return list(dict.fromkeys(name.strip() for names in _FROM_NAME.findall(text) for name in names.split(",")))


def _whole(text: str) -> list[str] | None:
    """Return the tokens of a text that is one statement; None for any other, such as a part of one."""
    tokens = [found for found in _TOKEN.findall(text) if not found.startswith(("--", "/*"))]
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
    own = list(_own_names(words, closing))
    inside: list[str] = []
    """For each open parenthesis, the word before it."""
    listing = [False]
    """For each open parenthesis and the statement, whether tables are listed."""
    expected = False
    for at, word in enumerate(words):
        if word == "(":
            inside.append(words[at - 1] if at else "")
            # Of ``from (a join b)``, but also of ``from (select ...)``.
            listing.append(expected)
            continue
        if word == ")":
            inside.pop()
            listing.pop()
            expected = False
            continue
        if word in {"from", "join"}:
            other = word == "from" and (words[at - 1] == "distinct" or (inside and inside[-1] in _WITH_FROM))
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
            after = words[at + 1] if at + 1 < len(words) else ""
            name = tokens[at].strip('"')
            if after not in {"(", "."} and not any(
                each == name.lower() and first < at < last for each, first, last in own
            ):
                yield name


def _closing(words: list[str]) -> dict[int, int]:
    """Return where each parenthesis is closed."""
    found: dict[int, int] = {}
    stack: list[int] = []
    for at, word in enumerate(words):
        if word == "(":
            stack.append(at)
        elif word == ")":
            found[stack.pop()] = at
    return found


def _own_names(words: list[str], closing: dict[int, int]) -> Iterator[tuple[str, int, int]]:
    """Yield the names that WITH gives to queries, each with the positions between which it means that query."""
    stack = [len(words)]
    for at, word in enumerate(words):
        if word == "(":
            stack.append(closing[at])
        elif word == ")":
            stack.pop()
        if word != "with" or (at and words[at - 1] not in {"(", "as", "explain", "describe", "summarize"}):
            continue
        here = at + 1
        recursive = here < len(words) and words[here] == "recursive"
        here += recursive
        while here < len(words):
            name = words[here].strip('"')
            here += 1
            if here < len(words) and words[here] == "(":
                here = closing[here] + 1
            while here < len(words) and words[here] in {"as", "not", "materialized"}:
                here += 1
            if here >= len(words) or words[here] != "(":
                break
            yield name, here if recursive else closing[here], stack[-1]
            here = closing[here] + 1
            if here >= len(words) or words[here] != ",":
                break
            here += 1

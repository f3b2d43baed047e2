"""Selection strings: which assets are meant (the syntax of SEMANTICS, section 2, Selection strings).

``a`` · ``key:"a*"`` · ``+a`` and ``a+`` one level, ``++a`` two, ``1+key:a`` and ``key:a+1`` by number · ``*a`` and ``a*`` all the way ·
``group:x`` · ``kind:sql`` · ``and``, ``or``, ``not``, parentheses · ``roots(...)``, ``sinks(...)`` · ``*``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from stepwell.kernel_runtime.errors import InvalidSelectionError, unknown_key

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<depth>\d+\+(?=key:|"|[A-Za-z_*(])) | (?P<plus>\++\d*) | (?P<open>\() | (?P<close>\)) |
    (?P<attribute>(?:key|group|kind|tag|owner):) | (?P<quoted>"[^"]*") | (?P<name>\*?[A-Za-z0-9_][A-Za-z0-9_/.]*\*?|\*)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class SelectionGraph:
    """What a selection is made from."""

    upstream: Mapping[str, Collection[str]]
    """For each key the keys that it depends on."""
    groups: Mapping[str, str]
    kinds: Mapping[str, str]

    def downstream(self) -> dict[str, list[str]]:
        """Return for each key the keys that depend on it."""
        found: dict[str, list[str]] = {key: [] for key in self.upstream}
        for key, needs in self.upstream.items():
            for need in needs:
                found.setdefault(need, []).append(key)
        return found


def select(expressions: str | Iterable[str], graph: SelectionGraph) -> list[str]:
    """Return the keys that one or several expressions mean, in the order of the graph.

    Raises
    ------
    UnknownKeyError
        For a name that is no key, with the nearest ones.
    InvalidSelectionError
        For an expression that cannot be read.
    """
    chosen: set[str] = set()
    for expression in [expressions] if isinstance(expressions, str) else expressions:
        chosen |= {expression} if expression in graph.upstream else _Parser(expression, graph).parse()
    return [key for key in graph.upstream if key in chosen]


class _Parser:
    def __init__(self, text: str, graph: SelectionGraph) -> None:
        self.text = text
        self.graph = graph
        self.down = graph.downstream()
        self.tokens = self._tokens()
        self.position = 0

    def _tokens(self) -> list[tuple[str, str]]:
        found, position = [], 0
        while position < len(self.text.rstrip()):
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                raise self._error(f"at {self.text[position:].strip()[:12]!r}")
            found.append((match.lastgroup, match.group(match.lastgroup)))
            position = match.end()
        return found

    def _error(self, where: str, remedy: str = "") -> InvalidSelectionError:
        remedy = remedy or (
            "several assets are separate words in a magic and a list in Python; in one string write: a or b"
            if "," in self.text
            else "for example: clean, +clean, clean+, *clean, group:raw, not (a or b)"
        )
        return InvalidSelectionError(f"the selection {self.text!r} cannot be read {where}", remedy=remedy)

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self.position += 1
        return token

    def parse(self) -> set[str]:
        if not self.tokens:
            raise self._error("because it is empty")
        found = self._or()
        if self._peek()[0] != "end":
            raise self._error(f"at {self._peek()[1]!r}")
        return found

    def _or(self) -> set[str]:
        found = self._and()
        while self._peek() == ("name", "or"):
            self._next()
            found = found | self._and()
        return found

    def _and(self) -> set[str]:
        found = self._not()
        while self._peek() == ("name", "and"):
            self._next()
            found = found & self._not()
        return found

    def _not(self) -> set[str]:
        if self._peek() == ("name", "not"):
            self._next()
            return set(self.graph.upstream) - self._not()
        return self._walked()

    def _walked(self) -> set[str]:
        up = 0
        kind, text = self._peek()
        if kind == "depth":
            up = int(self._next()[1][:-1])
            if self._peek()[0] == "name":
                raise self._error(f"at {text!r}", f"write {up}+key:{self._peek()[1]}, or a + for each level")
        elif kind == "plus":
            if text[-1].isdigit():
                raise self._error(f"at {text!r}")
            up = len(self._next()[1])
        found, all_up, all_down = self._atom()
        down = 0
        if self._peek()[0] == "plus":
            text = self._next()[1]
            digits = text.lstrip("+")
            down = int(digits) if digits else len(text)
        start = found
        if up or all_up:
            found = found | self._reach(start, self.graph.upstream, None if all_up else up)
        if down or all_down:
            found = found | self._reach(start, self.down, None if all_down else down)
        return found

    def _atom(self) -> tuple[set[str], bool, bool]:
        kind, text = self._next()
        if kind == "open":
            found = self._or()
            self._close()
            return found, False, False
        if kind == "attribute":
            return self._attribute(text[:-1]), False, False
        if kind == "quoted":
            return self._matching(text[1:-1]), False, False
        if kind != "name" or (text in {"and", "or"} and text not in self.graph.upstream):
            raise self._error(f"at {text!r}" if text else "because it ends too early")
        if text == "*":
            return set(self.graph.upstream), False, False
        if text in {"roots", "sinks"} and self._peek()[0] == "open":
            self._next()
            inner = self._or()
            self._close()
            edges = self.graph.upstream if text == "roots" else self.down
            return {key for key in inner if not any(other in inner for other in edges.get(key, ()))}, False, False
        all_up, all_down = text.startswith("*"), text.endswith("*")
        return self._matching(text.strip("*")), all_up, all_down

    def _close(self) -> None:
        if self._next()[0] != "close":
            raise self._error("because a parenthesis is not closed")

    def _attribute(self, name: str) -> set[str]:
        kind, text = self._next()
        if kind not in {"name", "quoted"}:
            raise self._error(f"after {name!r}")
        wanted = text.strip('"')
        if name == "key":
            return self._matching(wanted)
        if name not in {"group", "kind"}:
            raise self._error(f"because {name}: is not known here")
        values = self.graph.groups if name == "group" else self.graph.kinds
        found = {key for key in self.graph.upstream if fnmatch.fnmatchcase(values.get(key, ""), wanted)}
        if not found:
            raise unknown_key(name, wanted, set(values.values()))
        return found

    def _matching(self, pattern: str) -> set[str]:
        if "*" in pattern:
            found = {key for key in self.graph.upstream if fnmatch.fnmatchcase(key, pattern)}
        else:
            found = {pattern} & set(self.graph.upstream)
        if not found:
            raise unknown_key("asset", pattern, self.graph.upstream)
        return found

    @staticmethod
    def _reach(start: set[str], edges: Mapping[str, Collection[str]], depth: int | None) -> set[str]:
        found, frontier, level = set(start), set(start), 0
        while frontier and (depth is None or level < depth):
            frontier = {other for key in frontier for other in edges.get(key, ())} - found
            found |= frontier
            level += 1
        return found

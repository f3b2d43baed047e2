"""What must not be kept or shown as text: values of the environment, and values whose names are those of secrets.

A secret may stand in a value, in a source, in a message. What hides it leaves the rest readable.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator

from stepwell.kernel_runtime.versions.reads.environment import of_session, whole
from stepwell.kernel_runtime.versions.secret_names import names_secret

HIDDEN = "<hidden>"
_WORDS = r"token|secret|passw|passphrase|credential|api_?key|private_?key|access_?key|auth|bearer|cookie"
_PERHAPS = re.compile(rf"{_WORDS}|pwd|creds|jwt|-key", re.IGNORECASE)
"""What a text must hold before it is looked at more closely."""
_SIGNS = (
    "token", "secret", "passw", "passphrase", "credential", "key", "auth", "bearer", "cookie", "pwd", "creds", "jwt", "://", "sk-", "sk_", "ghp",
    "gho", "xox",
)  # fmt: skip
"""Texts of which what `_PERHAPS` or `_IN_TEXT` finds holds one: a run looks through thousands of sources, and a pattern takes ten times as long."""
_IN_TEXT = re.compile(
    r"(?i)(?:^|[\"'\s{,(?&;])(?P<name>[\w-]*(?:token|secret|passw|api[_-]?key|private[_-]?key|access[_-]?key|credential)[\w-]*)[\"']?\s*[:=]"
    r"|://[^/\s:@]+:[^/\s@]+@|\b(?:sk|ghp|gho|xox[abp])[-_][\w-]{10,}|\bbearer\s+[\w.~+/-]{8,}"
)
_QUOTED = re.compile(
    rf"""(?ix)( \b (?P<name> \w* (?:{_WORDS}|pwd) \w* ) ["']? \]? \s* (?: : \s* [\w.\[\]| ]+ (?==) )? [:=]{{1,2}} \s* [rbfu]{{0,2}} )
    ( \"\"\".*?\"\"\" | \'\'\'.*?\'\'\' | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )""",
    re.DOTALL,
)
_LEAST = 4
"""Characters from which a value that equals one of the environment is taken to come from there."""
_LONG = 8
"""Characters from which a value of the environment is looked for inside texts."""


def looks_secret(name: str, text: str = "") -> bool:
    """Whether a value must not be shown: by its name, or because its text itself names or looks like a secret."""
    return names_secret(name) or bool(text and _tells(text))


def _tells(text: str) -> bool:
    """Whether a text names or looks like a secret."""
    return any(found["name"] is None or names_secret(found["name"]) for found in _IN_TEXT.finditer(text))


class Environment:
    """The values of the environment at one moment, as far as they could be recognised in a text."""

    def __init__(self) -> None:
        found = {value for name, value in whole().items() if len(value) >= _LEAST and not of_session(name)}
        self._values = frozenset(found)
        # A folder is no secret, and it is in many texts.
        long = sorted(
            (value for value in found if len(value) >= _LONG and not value.startswith((os.sep, "~", "."))),
            key=len,
            reverse=True,
        )
        self._long = re.compile("|".join(map(re.escape, long))) if long else None

    def has(self, value: object, text: str) -> bool:
        """Whether a value is one of the environment's, or its text holds one."""
        return str(value) in self._values or (self._long is not None and self._long.search(text) is not None)

    def hidden(self, text: str) -> str:
        """Return a text without values of the environment."""
        return self._long.sub(HIDDEN, text) if self._long is not None else text


def hidden_message(text: str) -> str:
    """Return a message or a traceback without values of the environment and literal secrets of the source lines in it."""
    return _quoted_hidden(Environment().hidden(text))


def hidden_source(text: str, environment: Environment | None = None) -> str:
    """Return source without the literal values of what is named like a secret, and without values of the environment."""
    text = (environment or Environment()).hidden(text)
    folded = text.casefold()
    if not [sign for sign in _SIGNS if sign in folded]:
        return text
    if not _PERHAPS.search(text) and not _IN_TEXT.search(text):
        return text
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return _quoted_hidden(text)
    spots = {
        (node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0)
        for node in _secret_literals(tree)
    }
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for first, start, last, end in sorted(spots, reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:start] + repr(HIDDEN).encode() + lines[last - 1][end:]]
    return _quoted_hidden(b"".join(lines).decode("utf-8", "replace"))


def _quoted_hidden(text: str) -> str:
    def hidden(found: re.Match[str]) -> str:
        return found[1].rstrip("rbfuRBFU") + repr(HIDDEN) if names_secret(found["name"]) else found[0]

    return _QUOTED.sub(hidden, text)


def _secret_literals(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        for value in _secret_values(node):
            yield from _literals(value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _tells(node.value):
            yield node


def _secret_values(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that give a value to something named like a secret."""
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr | ast.keyword):
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [getattr(node, "target", None) or ast.Constant(getattr(node, "arg", ""))]
        )
        if node.value is not None and any(map(_is_secret, targets)):
            yield node.value
    elif isinstance(node, ast.Dict):
        yield from (
            value for key, value in zip(node.keys, node.values, strict=True) if key is not None and _is_secret(key)
        )
    elif isinstance(node, ast.arguments):
        plain = [*node.posonlyargs, *node.args]
        with_default: list[tuple[ast.arg, ast.expr | None]] = [
            *zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True),
            *zip(node.kwonlyargs, node.kw_defaults, strict=True),
        ]
        yield from (value for argument, value in with_default if value is not None and names_secret(argument.arg))
    elif isinstance(node, ast.Compare) and any(map(_is_secret, (node.left, *node.comparators))):
        yield from (side for side in (node.left, *node.comparators) if not _is_secret(side))


def _is_secret(target: ast.expr) -> bool:
    names: Iterable[str] = ()
    if isinstance(target, ast.Name):
        names = (target.id,)
    elif isinstance(target, ast.Attribute):
        names = (target.attr,)
    elif isinstance(target, ast.Constant) and isinstance(target.value, str):
        names = (target.value,)
    elif isinstance(target, ast.Subscript):
        return _is_secret(target.slice)
    elif isinstance(target, ast.Tuple | ast.List):
        return any(map(_is_secret, target.elts))
    return any(map(names_secret, names))


def _literals(value: ast.expr) -> Iterator[ast.expr]:
    """Yield the texts and numbers of an expression; a formatted text as a whole."""
    stack: list[ast.AST] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)):
            yield node
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, int | float | complex) and not isinstance(node.value, bool):
                yield node
        elif not isinstance(node, ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))

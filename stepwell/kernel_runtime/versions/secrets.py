"""Text that must not be stored or shown: values of environment variables, and secrets in code, values and messages.

A secret is recognised by its name or by its format (`secret_forms`). A text that looks generated is also a secret if the code uses it like one,
for example as the second argument of ``login``. The functions `hidden_...` replace the secrets in a value, in source code or in a message by
``<hidden>`` and leave the rest readable.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise
from typing import Any

from stepwell.kernel_runtime.versions.environment import environment_copy, of_session
from stepwell.kernel_runtime.versions.secret_forms import (
    CLIENTS,
    LEAST_GENERATED,
    LOGINS,
    PLACEHOLDER,
    has_run,
    is_literal,
    is_weak,
    looks_generated,
    names_secret,
    token_spans,
    uses_secret,
)

HIDDEN = "<hidden>"
_MOST_MEMBERS = 100
"""`is_kept_back` checks the members of a container if it has at most this number of members."""
_SIGNS = (
    "token", "secret", "passw", "passphrase", "passcode", "cred", "auth", "bearer", "cookie", "pwd", "jwt", "://", "login", "sign_in", "sk-", "hrku", "putty",
)  # fmt: skip
"""Every name of a secret contains at least one of these strings, except names of secret keys (`_KEY_OF`). The strings are a fast filter: a run
checks thousands of source texts, and a regular expression takes ten times as long."""
_LOGIN_USES = [word for word in sorted(LOGINS) if not any(sign in word for sign in _SIGNS)]
_USES = _LOGIN_USES + [word for word in sorted(CLIENTS) if not any(sign in word for sign in (*_SIGNS, *(CLIENTS - {word})))]
"""The names of logins (`LOGINS`), and words in the names of other functions that use secrets (`CLIENTS`). Words that contain a string in
`_SIGNS` are left out, and so are words in `CLIENTS` that contain another word in `CLIENTS`."""
_LOGIN_USE = re.compile(rf"(?<!\w)(?:{'|'.join(_LOGIN_USES)})(?!\w)")
_KEY_OF = re.compile(r"(?:api|private|access|secret|signing|encryption)[^a-z]{0,8}key")
"""Names of secret keys, such as ``api_key``. Most other names with ``key`` mean keys of mappings and tables."""
_STRING = r"""\"\"\".*?\"\"\"|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_NAMED = re.compile(
    rf"""(?<![\w-])(?P<name>[A-Za-z_][\w-]*)\\?["']?\]?(?P<gap>[ \t]*)(?::[ \t]*[A-Za-z_][\w.\[\],]*(?:[ \t]*\|[ \t]*[\w.\[\]]+)*[ \t]*(?==))?(?P<sign>[:=]{{1,2}})[ \t]*[rbfuRBFU]{{0,2}}"""
    rf"""(?=(?P<value>{_STRING}|\\?["'][^"'\\\n]*\\?["']|[^\s'",;&()\[\]{{}}]+))""",
    re.DOTALL,
)
"""A name followed by its value, for example ``password = 'x'``, ``"token": "x"``, ``?api_key=x``, ``PGPASSWORD=x``."""
_QUOTED = re.compile(_STRING, re.DOTALL)
_SCHEME = re.compile(r"\b(?:[Bb]earer|BEARER|Basic|Token)\s+(?P<value>[\w.~+/=-]{8,})")
_STATED = re.compile(r"(?<![\w-])(?P<name>[A-Za-z_][\w-]*)[ \t]+(?:(?:is|was)[ \t]+)?(?=(?P<value>[^\s'\"`,;()\[\]{}<>]{8,}))")
_ELEMENT = re.compile(r"<(?P<name>[A-Za-z_][\w.-]*)(?:\s[^<>]*)?>(?P<value>[^<>\s]+)</(?P=name)>")
_FLAG = re.compile(r"(?<![\w-])--?(?P<name>[a-z][\w-]*)(?:['\"]\s*,\s*['\"]|=|[ \t]+)(?P<value>[^\s'\",]+)")
_WORD = re.compile(r"[^\s'\"`,;()\[\]{}<>]+")
_LINE = re.compile(r"[^\n]+")
_COMMENT = re.compile(r"#[^\n]*")
_MAGIC = re.compile(r"(?m)^([ \t]*)[%!?].*$")
_SETTERS = frozenset({
    "setdefault", "getenv", "get", "pop", "getattr", "setattr", "setenv", "putenv", "set", "put", "setitem", "add_header", "putheader", "header", "update",
    "set_password", "set_secret", "getoption", "set_option", "add", "config",
})  # fmt: skip
"""Functions to which a name and then its value are passed: the name of an environment variable, an attribute or a header."""
_LEAST_NUMBER = 1000
_KEY = "()"
"""The label of the keys of a dict in `holds_secret`."""
_LEAST = 4
"""A text that is equal to the value of an environment variable is hidden if the value has at least this number of characters."""
_LONG = 8
"""The value of an environment variable is hidden inside a longer text if the value has at least this number of characters."""
_LOOK_UPS = frozenset({"environ", "getenv", "secret", "EnvVar", "getpass", "input", "prompt", "get_secret", "Prompt"})
"""Mappings and functions whose string argument is not a secret, but the name of a secret or a prompt for a secret."""


def looks_secret(name: str, text: str = "") -> bool:
    """Return True if a value must not be shown, because it has the name of a secret or because its text contains a secret.

    Parameters
    ----------
    name
        The name of the variable, attribute or item that holds the value.
    text
        The value as text.
    """
    return names_secret(name) or bool(text and may_contain_secret(text) and _contains_secret(text))


def may_contain_secret(text: str) -> bool:
    """Return False if a text certainly contains no secret that is recognised by its name or format.

    This check is much faster than the search for secrets. For secrets that are recognised by their use, see `_may_use_secret`.
    """
    folded = text.casefold()
    return (
        bool([sign for sign in _SIGNS if sign in folded])
        or ("key" in folded and _KEY_OF.search(folded) is not None)
        or has_run(text)
    )


def _may_use_secret(source: str) -> bool:
    """Return False if source code certainly passes no string as a secret to a function that `uses_secret` recognises.

    Most source code has no such function or no string that looks generated. A split finds the strings faster than a regular expression.
    """
    if '"' not in source and "'" not in source:
        return False
    # Each string without an escaped quote is one of these parts, whatever the other parts are.
    parts = [
        part
        for part in source.split('"') + source.split("'")
        if len(part) >= LEAST_GENERATED and " " not in part and "\n" not in part
    ]
    escaped = "\\" in source and ('\\"' in source or "\\'" in source)
    folded = source.casefold()
    found = [word for word in (_USES if parts or escaped else _LOGIN_USES) if word in folded]
    if not found:
        return False
    # A string with an escaped character may look generated although its source code does not.
    return (
        escaped
        or any("\\" in part or looks_generated(part) for part in parts)
        or (any(word in _LOGIN_USES for word in found) and _LOGIN_USE.search(folded) is not None)
    )


def holds_secret(
    label: str, value: object, *, environment: Environment | None = None, limit: int = 1000, result_beyond_limit: bool = True
) -> bool:
    """Return True if a value is or contains a secret.

    Parameters
    ----------
    label
        The name of the variable or attribute that holds the value.
    environment
        The values of environment variables, if these count as secrets, too; otherwise None. In a container, those with fewer than 8
        characters do not count, and a key of a dict is not compared with any of them: short texts and keys are often common words.
    limit
        The maximum number of items to check, those of nested containers included.
    result_beyond_limit
        The result if the value has more items and no secret was found.
    """
    stack: list[tuple[str, Any]] = [(label, value)]
    for _ in range(limit):
        if not stack:
            return False
        name, item = stack.pop()
        if type(item) in {str, bytes}:
            # The values of environment variables are decoded in the same way.
            text = item if type(item) is str else item.decode("utf-8", "surrogateescape")
            if looks_secret(name, text):
                return True
            if environment is not None and name != _KEY and environment.has(text, inside=item is not value):
                return True
        elif isinstance(item, dict):
            stack += [(f"[{key!r}]", member) for key, member in item.items()] + [(_KEY, key) for key in item]
        elif isinstance(item, list | tuple | set | frozenset):
            members = list(item)
            for before, after in pairwise(members):
                if type(before) is not str or type(after) is not str:
                    continue
                # The pair may be a header, or a flag and its argument. In other lists, such as column names, the second must look generated.
                if names_secret(before) and (len(members) == 2 or before.startswith("-") or looks_generated(after)):
                    return True
            stack += [(name, member) for member in members]
        elif name and names_secret(name):
            return True
    return result_beyond_limit


def _contains_secret(text: str) -> bool:
    return next(_spans(text), None) is not None


def _spans(text: str, *, code: bool = False) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the secrets in a text. A secret is recognised by its format or by the name before it.

    Parameters
    ----------
    code
        True if the text is source code, where a word without quotes is a variable and not a value.
    """
    yield from token_spans(text)
    for match in _NAMED.finditer(text):
        if names_secret(match["name"]) and _is_value(match, text, code=code):
            yield match.span("value")
    for match in _SCHEME.finditer(text):
        if is_literal(match["value"]) and looks_generated(match["value"]):
            yield match.span("value")
    for match in _ELEMENT.finditer(text) if "</" in text else ():
        if names_secret(match["name"]) and is_literal(match["value"]):
            yield match.span("value")
    if code:
        return
    for match in _FLAG.finditer(text):
        if names_secret(match["name"]) and is_literal(match["value"]) and not match["value"].startswith("-"):
            yield match.span("value")
    for match in _STATED.finditer(text):
        if names_secret(match["name"]) and is_literal(match["value"]) and looks_generated(match["value"]):
            yield match.span("value")
    yield from _words(text, has_run)


def _words(text: str, like: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the words of a text for which `like` returns True.

    Only lines that contain the name of a secret are searched. Placeholders such as ``{password}`` and words with an inner ``=`` are left out.

    Parameters
    ----------
    like
        Returns True if a word looks like a secret.
    """
    for line in _LINE.finditer(text):
        if may_contain_secret(line[0]) and names_secret(line[0]):
            for word in _WORD.finditer(line[0]):
                if like(word[0]) and is_literal(word[0]) and "=" not in word[0].rstrip("="):
                    yield line.start() + word.start(), line.start() + word.end()


def _is_value(match: re.Match[str], text: str, *, code: bool) -> bool:
    """Return True if the text after the name of a secret is the value of the secret, and not a variable, a type or a word of a sentence.

    Parameters
    ----------
    match
        A match of `_NAMED` in `text`.
    code
        True if `text` is source code.
    """
    value = match["value"].replace("\\", "")
    if value[0] in "\"'":
        return any(map(str.isalnum, value[:200])) and len(value.strip("\"'")) > 1 and is_literal(value.strip("\"'"))
    if not is_literal(value) or value[0] == "=":
        return False
    if match["sign"] == "=" and not code:
        return True
    if any(map(str.isdigit, value)) and value.strip("0123456789.") == "":
        # A number after "=" is a value, as in PIN_SECRET = 1234. A number after ":" is a position, as in token:12.
        return match["sign"] == "="
    if looks_generated(value):
        return not code or not value.replace(".", "_").isidentifier()
    if code:
        return False
    # Any other word is a value if it and its name are alone on a line, as in files of settings.
    line_start = text.rfind("\n", 0, match.start()) + 1
    return (
        not match["gap"]
        and not text[line_start : match.start()].strip(" -'\"")
        and text[match.end() : match.end() + 1] in ("", "\n", "\r")
    )


def is_kept_back(name: str, value: Any) -> bool:
    """Return True if the value of a variable must not be stored, because it is or contains a secret or the value of an environment variable.

    In a container with at most 100 members, or an instance of a class of the notebook with at most 100 attributes, the first 10,000 items are
    checked for secrets and values of environment variables, including the items of nested containers. For larger containers and all other objects
    except strings and bytes, only `name` is checked.
    """
    if type(value).__module__ == "__main__" and type(state := getattr(value, "__dict__", None)) is dict:
        value = state
    kind = type(value)
    if kind in {str, bytes} or (kind in {dict, list, tuple, set, frozenset} and len(value) <= _MOST_MEMBERS):
        return holds_secret(name, value, environment=environment_now(), limit=10_000, result_beyond_limit=False)
    return names_secret(name)


class Environment:
    """The values of environment variables at one moment, to recognise them in texts.

    Parameters
    ----------
    without
        Names of environment variables whose values are not recognised.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        values = {
            value
            for name, value in environment_copy().items()
            if len(value) >= _LEAST and name not in without and not of_session(name)
        }
        self._values = frozenset(values)
        # Paths of folders are not secrets, and occur often.
        long = sorted(
            (value for value in values if len(value) >= _LONG and not value.startswith((os.sep, "~", "."))),
            key=len,
            reverse=True,
        )
        self._long_values = tuple(long)

    def has(self, text: str, *, inside: bool = False) -> bool:
        """Return True if a text is equal to the value of an environment variable, or if it contains such a value of at least 8 characters.

        If `inside` is True, equality to a shorter value does not count.
        """
        equal = not inside and text in self._values
        return equal or any([known in text for known in self._long_values])  # noqa: C419 - a list is quicker

    def hide_values(self, text: str) -> str:
        """Return a text in which the values of environment variables are replaced by `HIDDEN`."""
        # One regular expression for all values would take twenty times as long.
        for value in [known for known in self._long_values if known in text]:
            text = text.replace(value, HIDDEN)
        return text


_newest: tuple[dict[Any, Any], Environment] | None = None


def environment_now() -> Environment:
    """Return the present values of the environment variables. If no variable has changed since the last call, return the same object."""
    global _newest  # noqa: PLW0603 - one for the process
    environ: Any = os.environ
    raw: dict[Any, Any] = environ._data  # noqa: SLF001 - an unrecorded read, as in `environment`
    newest = _newest
    if newest is None or newest[0] != raw:
        newest = _newest = dict(raw), Environment()
    return newest[1]


def hidden_message(text: str) -> str:
    """Return a message, log or traceback in which secrets and values of environment variables are replaced by `HIDDEN`."""
    text = environment_now().hide_values(text)
    return _text_hidden(text, prose=True) if may_contain_secret(text) else text


def hidden_values(value: Any, name: str = "") -> Any:
    """Return a JSON value in which secrets are replaced by `HIDDEN`: values under the name of a secret, and secrets inside other strings.

    Parameters
    ----------
    name
        The key under which `value` stands in a JSON object; empty for the outermost value.
    """
    if isinstance(value, str):
        return HIDDEN if value and names_secret(name) else hidden_message(value)
    if isinstance(value, dict):
        return {hidden_text(key): hidden_values(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [hidden_values(member, name) for member in value]
    return HIDDEN if type(value) in {int, float} and names_secret(name) and not is_weak(name) else value


def hidden_text(text: str) -> str:
    """Return a short text, such as the path of an object or a reason, in which secrets are replaced by `HIDDEN`."""
    return _replace_ranges(text, _spans(text)) if may_contain_secret(text) else text


def hidden_source(text: str, environment: Environment | None = None) -> str:
    """Return source code in which secrets and values of environment variables are replaced by `HIDDEN`.

    A literal is a secret if it has the name, the use or the format of a secret.

    Parameters
    ----------
    environment
        The values of environment variables; None for the present ones.
    """
    text = (environment or environment_now()).hide_values(text)
    if not (may_contain_secret(text) or _may_use_secret(text)):
        return text
    tree = _parsed(text)
    if tree is None:
        return _text_hidden(text)
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for (first, start), (last, end) in reversed(_outermost(_secret_literals(tree))):
        lines[first - 1 : last] = [lines[first - 1][:start] + repr(HIDDEN).encode() + lines[last - 1][end:]]
    return _text_hidden(b"".join(lines).decode("utf-8", "replace"))


def _parsed(text: str) -> ast.AST | None:
    """Return the syntax tree of source code, ignoring lines with magics and shell commands; None if the rest has a syntax error."""
    for source in (text, _MAGIC.sub(r"\1pass", text)):
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


def _outermost(nodes: Iterable[ast.expr]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the start and the end (line and column) of each expression in `nodes`, in the order of the source code.

    An expression that is a part of another expression in `nodes` is left out.
    """
    places = sorted(
        {((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)) for node in nodes},
        key=lambda place: (place[0], (-place[1][0], -place[1][1])),
    )
    ranges: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for start, end in places:
        if not ranges or start >= ranges[-1][1]:
            ranges.append((start, end))
    return ranges


def _text_hidden(text: str, *, prose: bool = False) -> str:
    """Return a text that may contain code, with its secrets replaced by `HIDDEN`.

    Parameters
    ----------
    prose
        True for a message: each line is searched like ordinary text, where a secret may have no quotes. False for source code: only comments are
        searched in this way.
    """
    spans = list(_spans(text, code=True))
    traced = prose and ('File "' in text or "Cell In" in text)
    for match in _QUOTED.finditer(text):
        inner = match[0].strip("\"'")
        if inner and may_contain_secret(inner):
            offset = text.index(inner, match.start())
            spans += [(offset + start, offset + end) for start, end in _spans(inner)]
    for match in _LINE.finditer(text) if prose else _COMMENT.finditer(text):
        line = match[0]
        # The indented lines of a traceback are source code, so they are not searched like ordinary text.
        if may_contain_secret(line) and not (traced and line[0].isspace()):
            spans += [(match.start() + start, match.start() + end) for start, end in _spans(line)]
            spans += (
                [(match.start() + start, match.start() + end) for start, end in _words(line, looks_generated)]
                if not prose
                else []
            )
    return _replace_ranges(text, spans)


def _replace_ranges(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text in which the ranges `spans` are replaced by `HIDDEN`; if a range is in quotes, so is the replacement."""
    end = 0
    parts: list[str] = []
    for start, stop in sorted(spans):
        if start >= end:
            quoted = text[start] in "\"'" and stop - start > 1
            parts += [text[end:start], repr(HIDDEN) if quoted else HIDDEN]
        end = max(end, stop)
    return "".join([*parts, text[end:]]) if parts else text


# -- the syntax tree


def _secret_literals(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the literals in a syntax tree that are secrets. If a part of an f-string is a secret, yield the whole f-string."""
    stack: list[tuple[ast.AST, ast.JoinedStr | None]] = [(tree, None)]
    while stack:
        node, outer = stack.pop()
        if isinstance(node, ast.JoinedStr):
            outer = outer or node
        for name, value in _secret_values(node):
            for literal in _literals(value, weak=is_weak(name)):
                yield outer or literal
        if isinstance(node, ast.JoinedStr | ast.BinOp | ast.Constant):
            text = _literal_text(node)
            # In a text of several lines, `_text_hidden` later replaces the secrets and leaves the rest.
            if text and "\n" not in text and may_contain_secret(text) and _contains_secret(text):
                yield from (outer or literal for literal in _literals(node))
        stack.extend((child, outer) for child in ast.iter_child_nodes(node))


def _literal_text(node: ast.AST) -> str:
    """Return the text of a string, an f-string or a concatenation, with `PLACEHOLDER` for computed parts; empty for any other node."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bytes):
            return node.value.decode("latin-1")
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal_text(part) or PLACEHOLDER for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [_literal_text(side) for side in (node.left, node.right)]
        return "".join(side or PLACEHOLDER for side in sides) if any(sides) else ""
    return ""


def _secret_values(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the expressions that hold secrets in a syntax node, as pairs of the name of the secret and the expression.

    An expression holds a secret if it is bound to, or compared with, the name of a secret, or if it is passed to a function as a secret.
    """
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is not None:
            yield from _assigned(targets, node.value)
    elif isinstance(node, ast.keyword):
        if node.arg is not None and names_secret(node.arg):
            yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        yield from (
            (name, value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key is not None and (name := _secret_name(key))
        )
    elif isinstance(node, ast.arguments):
        plain = [*node.posonlyargs, *node.args]
        with_default: list[tuple[ast.arg, ast.expr | None]] = [
            *zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True),
            *zip(node.kwonlyargs, node.kw_defaults, strict=True),
        ]
        yield from ((argument.arg, value) for argument, value in with_default if value is not None and names_secret(argument.arg))
    elif isinstance(node, ast.Compare):
        yield from _compared(node)
    elif isinstance(node, ast.Tuple | ast.List) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant):
        # The node is a pair in a list of headers or in dict([...]).
        name, value = _secret_name(node.elts[0]), node.elts[1]
        if name and (not isinstance(value, ast.Constant) or _looks_literal(value.value)):
            yield name, value
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and names_secret(node.name):
        yield from (
            (node.name, inner.value)
            for inner in ast.walk(node)
            if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Constant)
        )
    elif isinstance(node, ast.Match) and (name := _secret_name(node.subject)):
        yield from ((name, inner) for case in node.cases for inner in ast.walk(case.pattern) if isinstance(inner, ast.Constant))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and (name := _last_name(node.left)):
        yield name, node.right
    elif isinstance(node, ast.Call):
        yield from _secret_arguments(node)


def _assigned(targets: Iterable[ast.expr], value: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List):
            values = value.elts if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts) else None
            for index, element in enumerate(target.elts):
                yield from _assigned([element], values[index] if values else value)
        elif name := _secret_name(target):
            yield name, value


def _compared(node: ast.Compare) -> Iterator[tuple[str, ast.AST]]:
    for operator, left, right in zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False):
        if isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn | ast.Is | ast.IsNot) and (name := _secret_name(left)):
            yield name, right
        elif isinstance(operator, ast.Eq | ast.NotEq) and (name := _secret_name(right)):
            yield name, left


def _secret_arguments(call: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    """Yield the arguments of a call that are secrets, judging from the called function or from the argument before them.

    Each is yielded as a pair of the name of the secret and the argument, for example ``("password", argument)`` for the second argument of
    ``login``.
    """
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called == "format" and isinstance(call.func, ast.Attribute) and (name := _last_name(call.func.value)):
        yield from ((name, argument) for argument in call.args)
    use = uses_secret(called)
    for i, argument in enumerate(call.args):
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str | bytes):
            text = _literal_text(argument)
            before = _secret_name(call.args[i - 1]) if i and isinstance(call.args[i - 1], ast.Constant) else ""
            if (use == "login" and i > 0) or (use and looks_generated(text)):
                yield "password", argument
            elif before and (called.lower() in _SETTERS or looks_generated(text)):
                # The second argument is the default for an environment variable, or a value that is set by name.
                yield before, argument
    if call.args and isinstance(call.args[0], ast.Constant) and (name := _secret_name(call.args[0])):
        yield from ((name, keyword.value) for keyword in call.keywords if keyword.arg in {"default", "value"})


def _last_name(node: ast.AST) -> str:
    """Return the name of the secret at the end of a format string, for example ``password`` for ``"host=%s password=%s"``.

    Return an empty string if the node is not such a string.
    """
    match = re.search(r"([A-Za-z_][\w-]*)['\"]?\s*[:=]\s*['\"]?(?:%s|\{\w*\})['\"]?\s*$", _literal_text(node))
    return match[1] if match is not None and names_secret(match[1]) else ""


def _looks_literal(value: object) -> bool:
    return isinstance(value, str) and (looks_generated(value) or " " in value.strip())


def _secret_name(target: ast.expr) -> str:
    """Return the name of a variable, attribute or item, or the text of a string, if this is the name of a secret; else an empty string."""
    name = ""
    if isinstance(target, ast.Name):
        name = target.id
    elif isinstance(target, ast.Attribute):
        name = target.attr
    elif isinstance(target, ast.Constant) and isinstance(target.value, str):
        name = target.value if len(target.value) < 64 and " " not in target.value else ""
    elif isinstance(target, ast.Subscript):
        return _secret_name(target.slice)
    return name if name and names_secret(name) else ""


def _literals(value: ast.AST, *, weak: bool = False) -> Iterator[ast.expr]:
    """Yield the strings and numbers in an expression that may be secrets. An f-string is yielded as a whole.

    Names by which secrets are looked up, as in ``os.environ["API_KEY"]``, are left out.

    Parameters
    ----------
    weak
        True if the name to which the expression is bound is ambiguous: for example, ``token`` may mean a secret or the token of a lexer. Then a
        string in the arguments of a call or in a dict is yielded only if it looks generated.
    """
    stack: list[tuple[ast.AST, bool]] = [(value, False)]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, ast.JoinedStr):
            if not inside and any(isinstance(part, ast.Constant) and str(part.value).strip() for part in node.values):
                yield node
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str | bytes):
                if (
                    any(map(str.isalnum, _literal_text(node)[:200]))
                    and len(node.value) > 1
                    and (not inside or looks_generated(_literal_text(node)))
                ):
                    yield node
            elif isinstance(node.value, int | float | complex) and abs(node.value) >= _LEAST_NUMBER and not inside:
                yield node
        elif isinstance(node, ast.Subscript):
            stack.append((node.value, inside))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and "%" in _literal_text(node.left):
            stack.append((node.right, inside))
        elif isinstance(node, ast.Call):
            stack.append((node.func, inside))
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            looks_up = called in _LOOK_UPS or (called in {"get", "pop", "getattr"} and node.args)
            arguments = [*(node.args[1:] if looks_up else node.args), *(part.value for part in node.keywords)]
            stack.extend((part, inside or weak) for part in arguments)
        else:
            stack.extend((part, inside or (weak and isinstance(node, ast.Dict))) for part in ast.iter_child_nodes(node))

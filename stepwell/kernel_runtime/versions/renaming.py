"""Whether a step's code is the same as another's but for the one name that was renamed.

An asset's cell assigns the variable that is named like it, so that renaming the asset changes its code version although it computes the
same. Here the recorded parts of both code versions are compared: everything that is reached must be equal by digest, and the body's
source must be equal once the old name is replaced by the new. What follows from that is much (a value is reused), so whatever could make
the two mean something else is a no: the new name occurred before; a name stands in a text, as a parameter, an attribute of a class
or an import; the source is not known, is no plain Python, or hides a secret.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

from stepwell.kernel_runtime.records.materializations import CodePart, CodeVersion
from stepwell.kernel_runtime.versions.secrets import HIDDEN


def same_but_for_name(old: CodeVersion, new: CodeVersion, old_name: str, new_name: str) -> bool:
    """Tell whether two code versions with their parts differ in one name only.

    Parameters
    ----------
    old_name, new_name
        The variable, or the function, that each defines.
    """
    if old.digest == new.digest:
        return True
    if not old.parts or not new.parts or old.unverifiable or new.unverifiable:
        return False
    return _reached(old.parts) == _reached(new.parts) and _same_body(old.parts[0], new.parts[0], old_name, new_name)


def under_new_name(old: CodeVersion, new: CodeVersion, old_name: str, new_name: str) -> CodeVersion:
    """Return the older of two code versions as if it had been the new name's, so that only what else differs is seen."""
    if not old.parts or not new.parts:
        return old
    root, key = old.parts[0].path, new.parts[0].path
    parts = [
        replace(part, path=key + part.path[len(root) :]) if part.path.startswith(root) else part for part in old.parts
    ]
    if _same_body(old.parts[0], new.parts[0], old_name, new_name):
        parts[0] = new.parts[0]
    return replace(old, parts=tuple(parts))


def _same_body(old: CodePart, new: CodePart, old_name: str, new_name: str) -> bool:
    if old.kind != "body" or new.kind != "body" or old.text is None or new.text is None:
        return False
    return _renamed(old.text, old_name, new_name) == _dumped(new.text) is not None


def _reached(parts: tuple[CodePart, ...]) -> list[tuple[str, str, str]]:
    """Return what is reached below the body, with paths that do not begin with the step's own key."""
    root = parts[0].path
    return sorted((part.path.removeprefix(root), part.kind, part.digest) for part in parts[1:])


def _dumped(source: str) -> str | None:
    tree = _parsed(source)
    return None if tree is None else ast.dump(tree)


def _parsed(source: str) -> ast.Module | None:
    import textwrap

    if HIDDEN in source:
        return None
    try:
        return ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError):
        return None


def _renamed(source: str, old: str, new: str) -> str | None:
    """Return the dump of a source with one name replaced by another; None where that could mean something else."""
    tree = _parsed(source)
    if tree is None:
        return None
    words = re.compile(rf"\b({re.escape(old)}|{re.escape(new)})\b")
    outer = (
        tree.body[0]
        if len(tree.body) == 1 and isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef)
        else None
    )
    if outer is not None and outer.name == old:
        outer.name = new
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id == new:
                return None
            if node.id == old:
                node.id = new
        elif isinstance(node, ast.ClassDef):
            if any(isinstance(inner, ast.Name) and inner.id in (old, new) for inner in ast.walk(node)):
                return None
            if node.name in (old, new):
                return None
        elif isinstance(node, ast.Constant):
            if (
                isinstance(node.value, str | bytes)
                and words.search(_text(node.value))
                and not _is_docstring(node, tree)
            ):
                return None
        elif node is not outer and any(words.fullmatch(name) for name in _identifiers(node)):
            return None
    return ast.dump(tree)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _is_docstring(node: ast.Constant, tree: ast.Module) -> bool:
    return any(
        isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        and each.body
        and isinstance(each.body[0], ast.Expr)
        and each.body[0].value is node
        for each in ast.walk(tree)
    )


def _identifiers(node: ast.AST) -> list[str]:
    """Return the identifiers in a node that are no names of variables: parameters, imports, functions, patterns, global statements."""
    found: list[Any] = []
    if isinstance(node, ast.arg):
        found.append(node.arg)
    elif isinstance(node, ast.alias):
        found += [*node.name.split("."), node.asname]
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        found.append(node.name)
    elif isinstance(node, ast.Global | ast.Nonlocal):
        found += node.names
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        found.append(node.name)
    elif isinstance(node, ast.MatchMapping):
        found.append(node.rest)
    return [name for name in found if name]

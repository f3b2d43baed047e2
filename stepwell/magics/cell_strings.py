"""Names that a body reads through strings: ``frame.query("x > @cutoff")``, ``duckdb.sql("from raw")``, ``pd.eval``, formulas.

What is found may be too much, never too little: every string constant of the body counts if the body calls something that looks
names up. A name that is neither an asset nor a variable of the notebook means nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from stepwell.kernel_runtime.versions.query_names import names_in_texts

_WORD = re.compile(r"[^\W\d]\w*")
_FORMULA = frozenset(
    (
        "ols",
        "wls",
        "gls",
        "glm",
        "rlm",
        "logit",
        "probit",
        "poisson",
        "mnlogit",
        "quantreg",
        "mixedlm",
        "gee",
        "phreg",
        "negativebinomial",
        "dmatrix",
        "dmatrices",
        "from_formula",
    )
)
"""Functions of patsy and statsmodels that take a formula, in small letters."""
_LOOK_UP = frozenset(("globals", "locals", "vars", "eval", "exec"))
_FRAME_MODULES = frozenset(("pd", "pandas"))


def names_in_strings(tree: ast.AST) -> frozenset[str]:
    """Return the names that the string constants of a body may read."""
    calls = {name for node in ast.walk(tree) if isinstance(node, ast.Call) and (name := _called(node.func))}
    if not calls:
        return frozenset()
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found = set(names_in_texts(texts, list(calls)))
    if any(name.lower() in _FORMULA for name in calls):
        found.update(word for text in texts if "~" in text for word in _WORD.findall(text))
    if _evaluates(tree):
        found.update(name for text in texts for name in _expression_names(text))
    return frozenset(found)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _evaluates(tree: ast.AST) -> bool:
    """Tell whether the body calls ``eval`` or ``pd.eval``, whose text is an expression of names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in ("eval", "exec"):
                return True
            if (
                isinstance(function, ast.Attribute)
                and function.attr == "eval"
                and isinstance(function.value, ast.Name)
                and function.value.id in _FRAME_MODULES
            ):
                return True
    return False


def _expression_names(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text.replace("@", ""))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id


def looks_up(tree: ast.AST) -> bool:
    """Tell whether a body looks names up in ways that cannot be seen: a builtin that reads or runs a whole namespace."""
    return any(isinstance(node, ast.Name) and node.id in _LOOK_UP for node in ast.walk(tree))

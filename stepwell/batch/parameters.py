"""Parameters of a batch run: checked against the notebook's cell tagged ``parameters``, and injected in a cell below it, as papermill does.

The cell tagged ``parameters`` assigns a default to each name. Its names and the types of its defaults are read without running it, so that a wrong
parameter is an error before a kernel starts. The injected cell is tagged ``injected-parameters``; one that an earlier run left is replaced.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import InvalidInvocationError, NotebookNotFoundError

DECLARES = "parameters"
INJECTED = "injected-parameters"
_TYPES: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}
_TRUTH = {"true": True, "false": False}


class Text(str):
    """The text of a value on the command line: read as what the parameter's default is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that a notebook declares."""

    name: str
    type: type | None
    """The type of its default, or of its annotation; None if it has none that can be read."""
    default: str
    """The source of its default; empty if there is none."""


def declared_parameters(notebook: Any) -> dict[str, Parameter] | None:
    """Return the parameters that a notebook declares; None if it has no cell tagged ``parameters``."""
    # Imported here: a run without parameters needs none of it.
    from IPython.core.inputtransformer2 import TransformerManager

    transformer: Callable[[], Any] = TransformerManager
    place = _tagged(notebook, DECLARES)
    if place is None:
        return None
    try:
        tree = ast.parse(transformer().transform_cell(notebook.cells[place].source))
    except SyntaxError:
        return {}
    found: dict[str, Parameter] = {}
    for node in tree.body:
        targets: list[ast.expr]
        value: ast.expr | None
        hint: ast.expr | None
        if isinstance(node, ast.Assign):
            targets, value, hint = node.targets, node.value, None
        elif isinstance(node, ast.AnnAssign):
            targets, value, hint = [node.target], node.value, node.annotation
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = Parameter(target.id, _type_of(value, hint), ast.unparse(value) if value else "")
    return found


def read_pairs(pairs: Iterable[str], files: Iterable[Path]) -> dict[str, Any]:
    """Return the parameters that a command line gives; those of files come first, in their order.

    Parameters
    ----------
    pairs
        Texts ``NAME=VALUE``.
    files
        YAML or JSON files, each one mapping.

    Raises
    ------
    InvalidInvocationError
        If a pair or a file is not of this form.
    NotebookNotFoundError
        If there is no such file.
    """
    found: dict[str, Any] = {}
    for file in files:
        found |= _read_file(file)
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise InvalidInvocationError(f"{pair!r} is no parameter", remedy="-p NAME VALUE, or -p NAME=VALUE")
        found[name] = Text(value)
    return found


def checked_parameters(notebook: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return given parameters as values of the types that the notebook declares.

    Raises
    ------
    InvalidInvocationError
        If the notebook does not declare one of them, or a value has another type.
    """
    if not given:
        return {}
    declared = declared_parameters(notebook)
    if declared is None:
        raise InvalidInvocationError(
            "the notebook has no cell tagged `parameters`, so it takes none",
            remedy="tag the cell that assigns the defaults: in JupyterLab, Property Inspector, Cell Tags",
        )
    return {name: _checked(name, value, declared) for name, value in given.items()}


def inject(notebook: Any, values: Mapping[str, Any]) -> None:
    """Add a cell with assignments below the cell tagged ``parameters``; a cell that an earlier run injected is removed."""
    from nbformat import v4

    new_cell: Callable[..., Any] = v4.new_code_cell
    notebook.cells = [cell for cell in notebook.cells if INJECTED not in cell.metadata.get("tags", ())]
    place = _tagged(notebook, DECLARES)
    if place is None or not values:
        return
    source = "\n".join(["# Parameters", *(f"{name} = {_source_of(value)}" for name, value in values.items())])
    cell = new_cell(source, id=INJECTED, metadata={"tags": [INJECTED]})
    notebook.cells.insert(place + 1, cell)


def _tagged(notebook: Any, tag: str) -> int | None:
    return next(
        (
            place
            for place, cell in enumerate(notebook.cells)
            if cell.cell_type == "code" and tag in cell.metadata.get("tags", ())
        ),
        None,
    )


def _type_of(value: ast.expr | None, hint: ast.expr | None) -> type | None:
    if isinstance(hint, ast.Name) and hint.id in _TYPES:
        return _TYPES[hint.id]
    try:
        found = type(ast.literal_eval(value)) if value is not None else None
    except (ValueError, TypeError):
        return None
    return found if found in _TYPES.values() else None


def _read_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotebookNotFoundError(f"there is no file {file}", remedy="-f takes a YAML file of parameters") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).partition("\n")[0]
        raise InvalidInvocationError(
            f"the parameters of {file} cannot be read: {first}", remedy="one mapping: NAME: VALUE"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) and name.isidentifier() for name in found):
        raise InvalidInvocationError(f"{file} is not one mapping of names to values", remedy="NAME: VALUE, a line each")
    return found


def _checked(name: str, value: Any, declared: Mapping[str, Parameter]) -> Any:
    parameter = declared.get(name)
    if parameter is None:
        near = difflib.get_close_matches(name, declared, 1)
        known = f"did you mean {near[0]}?" if near else f"it declares {', '.join(declared) or 'none'}"
        raise InvalidInvocationError(f"the notebook declares no parameter {name!r}", remedy=known)
    if isinstance(value, Text):
        return _read_text(parameter, value)
    wanted = parameter.type
    if wanted is float and type(value) is int:
        return float(value)
    if (wanted is not None and value is not None and type(value) is not wanted) or not _is_plain(value):
        raise _wrong(parameter, value)
    return value


def _read_text(parameter: Parameter, text: Text) -> Any:
    wanted = parameter.type
    if wanted is str:
        return str(text)
    try:
        if wanted is bool:
            return _TRUTH[text.lower()]
        if wanted is int or wanted is float:
            return wanted(text)
    except (KeyError, ValueError):
        raise _wrong(parameter, str(text)) from None
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = str(text)
    if (wanted is not None and type(found) is not wanted) or not _is_plain(found):
        raise _wrong(parameter, str(text))
    return found


def _is_plain(value: Any) -> bool:
    """Return whether the repr of a value is a literal."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, float, str}


def _source_of(value: Any) -> str:
    """Return the expression that makes a value; ``nan`` and ``inf`` are no literals."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_source_of(key)}: {_source_of(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_source_of, value))}]"
    return f"float({str(value)!r})" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _wrong(parameter: Parameter, value: Any) -> InvalidInvocationError:
    kind = parameter.type.__name__ if parameter.type is not None else "a plain value"
    default = f" (default {parameter.default})" if parameter.default else ""
    return InvalidInvocationError(
        f"the parameter {parameter.name!r} must be {kind}{default}, not {value!r}",
        remedy=f"-p {parameter.name} {parameter.default or 'VALUE'}",
    )

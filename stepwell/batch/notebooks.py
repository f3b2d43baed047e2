"""Notebook files: reading, parameters, the choice of the kernel, the path of the executed copy, and saving.

Parameters work as in papermill. A code cell with the tag ``parameters`` assigns defaults to names. The names and types of the parameters are
read without running the cell, so that wrong parameters are reported before a kernel starts. Below the cell, a cell with the tag
``injected-parameters`` is added, which assigns the values that the user passed. A cell with this tag from an earlier run is removed.

nbformat validates notebooks with jsonschema. If the package ``rfc3987_syntax`` is installed (JupyterLab requires it), the import of jsonschema
builds a grammar for IRIs, which takes two seconds, although the schema of notebooks does not use IRIs. jsonschema also works without
``rfc3987_syntax``, so this module hides the package during the import. This happens only in the process that reads the notebook, not in the kernel.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import (
    InvalidInvocationError,
    NotebookError,
    NotebookKernelError,
    NotebookNotFoundError,
)
from stepwell.kernel_runtime.store.folder import Folder

_GRAMMAR = "rfc3987_syntax"


def import_nbformat() -> Any:
    """Import nbformat and return the module. While nbformat imports jsonschema, the slow package ``rfc3987_syntax`` is hidden."""
    hide = _GRAMMAR not in sys.modules and "jsonschema" not in sys.modules
    if hide:
        # If a module is None in sys.modules, its import raises ModuleNotFoundError.
        sys.modules[_GRAMMAR] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("nbformat")
    finally:
        if hide:
            del sys.modules[_GRAMMAR]


_LOADS_STEPWELL = re.compile(r"^\s*%(?:load_ext|reload_ext)\s+stepwell\b", re.MULTILINE)


def choose_kernel(notebook: Any, path: Path, requested: str | None) -> str:
    """Return the name of the kernel that executes a notebook: the requested kernel, else the kernel that the notebook names.

    If there is neither, the kernel is ``python3`` if the notebook's language is Python or a cell of the notebook loads Stepwell.

    Parameters
    ----------
    notebook
        The contents of the notebook.
    path
        The path of the notebook, for messages.
    requested
        The name of the kernel that the user chose; None to use the kernel of the notebook.

    Raises
    ------
    NotebookKernelError
        If none of these rules gives a kernel, or the kernel is not installed. The remedy lists the installed kernels.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    name = requested or notebook.metadata.get("kernelspec", {}).get("name")
    if not name and (
        notebook.metadata.get("language_info", {}).get("name") == "python"
        or any(cell.cell_type == "code" and _LOADS_STEPWELL.search(cell.source) for cell in notebook.cells)
    ):
        name = "python3"
    specs = KernelSpecManager()
    if not name:
        raise NotebookKernelError(f"the notebook {path} names no kernel", remedy=_remedy(specs.find_kernel_specs()))
    try:
        specs.get_kernel_spec(name)
    except NoSuchKernel as error:
        who = f"the kernel {name!r}" if requested else f"the kernel {name!r}, which {path} names,"
        raise NotebookKernelError(f"{who} is not installed", remedy=_remedy(specs.find_kernel_specs())) from error
    return str(name)


def _remedy(installed: dict[str, str]) -> str:
    if not installed:
        return "install a kernel: pip install ipykernel"
    return "choose an installed kernel with --kernel: " + ", ".join(sorted(installed))


SUFFIX = ".ipynb"
SKIP_TAG = "skip-execution"
"""The tag of cells that nbclient does not execute."""
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def read_notebook(path: Path) -> Any:
    """Read a notebook file, and return the contents as a ``NotebookNode`` of format 4 in which every cell has an id.

    Raises
    ------
    NotebookNotFoundError
        If the file does not exist, cannot be read, or is not a notebook. For a file that does not exist, the remedy lists similar names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _notebook_not_found(path) from error
    except OSError as error:
        raise NotebookNotFoundError(
            f"the notebook {path} cannot be read", where=str(error), remedy="check the permissions of the file"
        ) from error
    except UnicodeDecodeError as error:
        raise _not_a_notebook(path, "the file is not UTF-8 text") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _not_a_notebook(path, f"the file is not JSON: {error}" if text.strip() else "the file is empty") from error
    if not isinstance(content, dict) or not isinstance(content.get("nbformat"), int):
        raise _not_a_notebook(path, "the file is JSON without the field nbformat")

    nbformat = import_nbformat()
    if content["nbformat"] > nbformat.current_nbformat:
        raise NotebookNotFoundError(
            f"{path} has the notebook format {content['nbformat']}, but nbformat {nbformat.__version__} reads only formats up to {nbformat.current_nbformat}",
            remedy="upgrade nbformat: pip install -U nbformat",
        )
    if content["nbformat"] == nbformat.current_nbformat:
        _name_cells(content)
    try:
        with warnings.catch_warnings():
            # nbformat repairs old notebooks and warns. The warnings do not matter, because the notebook file is not written.
            warnings.simplefilter("ignore")
            notebook = nbformat.reads(json.dumps(content), as_version=4)
            _name_cells(notebook)
            nbformat.validate(notebook)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _not_a_notebook(path, reason[0]) from error
    return notebook


def _name_cells(notebook: Any) -> None:
    """Add an id to each cell that has none, because notebook format 4.5 requires ids.

    The ids are made from the positions of the cells, so that a cell has the same id in every run.
    """
    cells = notebook.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        return
    taken = {cell["id"] for cell in cells if "id" in cell}
    for number, cell in enumerate(cells, start=1):
        if "id" not in cell:
            name = f"cell-{number}"
            while name in taken:
                name += "-"
            cell["id"] = name
            taken.add(name)
    notebook["nbformat_minor"] = max(5, notebook.get("nbformat_minor") or 0)


def _notebook_not_found(path: Path) -> NotebookNotFoundError:
    folder = path if path.is_dir() else path.parent
    problem = f"{path} is a folder, not a notebook" if path.is_dir() else f"the notebook {path} does not exist"
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix == SUFFIX)
    except OSError:
        return NotebookNotFoundError(f"{problem}; the folder {folder} cannot be read", remedy="check the path")
    if not names:
        return NotebookNotFoundError(f"{problem}; {folder.absolute()} contains no notebooks", remedy="check the path")
    stems = [name.removesuffix(SUFFIX) for name in names]
    near = [] if path.is_dir() else difflib.get_close_matches(path.name.removesuffix(SUFFIX), stems, n=3, cutoff=0.5)
    if near:
        return NotebookNotFoundError(
            problem, remedy="did you mean " + " or ".join(str(folder / (stem + SUFFIX)) for stem in near) + "?"
        )
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return NotebookNotFoundError(problem, remedy=f"choose a notebook in {folder.absolute()}: " + ", ".join(names[:8]) + more)


def _not_a_notebook(path: Path, reason: str) -> NotebookNotFoundError:
    shown = reason if len(reason) <= 300 else reason[:300] + "…"
    return NotebookNotFoundError(
        f"{path} is not a notebook",
        where=shown,
        remedy="open the file in Jupyter to see what is wrong, or choose another file",
    )


def is_run(cell: Any) -> bool:
    """Return True if a cell must be executed: it is a code cell, not empty, and does not have the tag ``skip-execution``."""
    return bool(cell.cell_type == "code" and cell.source.strip() and SKIP_TAG not in cell.metadata.get("tags", []))


def clear(notebook: Any) -> None:
    """Remove the outputs of an earlier execution from a notebook, so that a run which stops early leaves no old outputs in the executed copy."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code" and SKIP_TAG not in cell.metadata.get("tags", []):
            cell.outputs = []
            cell.execution_count = None
            cell.metadata.pop("execution", None)


def output_path(notebook: Path, requested: str | None, *, runs: Path, batch: str) -> Path:
    """Return the absolute path of the executed copy of a notebook.

    Parameters
    ----------
    notebook
        The path of the notebook.
    requested
        The path that the user named: a file if the path ends in ``.ipynb``, else a directory. None for a new file in `runs`.
    runs
        The default directory for executed copies.
    batch
        The identifier of this execution, which makes the default file name unique.

    Raises
    ------
    NotebookError
        If the path is that of the notebook itself.
    """
    if requested is None:
        return runs / f"{notebook.stem}-{batch}{SUFFIX}"
    target = Path(requested).absolute()
    if target.suffix != SUFFIX or target.is_dir():
        target /= notebook.name
    if target.resolve() == notebook.resolve() or (target.exists() and target.samefile(notebook)):
        raise NotebookError(
            f"the executed copy would replace the notebook {notebook}",
            remedy="choose another output path: a file that ends in .ipynb, or a directory",
        )
    return target


def make_folder(target: Path) -> None:
    """Create the folder of the executed copy, so that an unusable path is reported before any cell runs.

    Parameters
    ----------
    target
        The path of the executed copy.

    Raises
    ------
    NotebookError
        If the folder cannot be created, or the user has no write access to it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(target, str(error)) from error
    if not os.access(target.parent, os.W_OK):
        raise _not_written(target, f"you have no write access to {target.parent}")


def _not_written(target: Path, reason: str) -> NotebookError:
    return NotebookError(
        f"the executed notebook cannot be written to {target}",
        where=reason,
        remedy=f"choose another output path, or check the free space and the permissions of {target.parent}",
    )


def save(notebook: Any, path: Path, store: Folder | None = None) -> None:
    """Write a notebook to a file atomically, so that readers of the file see either the old or the new contents, never a mixture.

    Parameters
    ----------
    path
        The file.
    store
        The opened store directory if the file is in its folder ``runs``; None for a file outside the store.

    Raises
    ------
    NotebookError
        If the file cannot be written.
    """
    nbformat = import_nbformat()
    _drop_dead_views(notebook)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = nbformat.writes(notebook) + "\n"
    try:
        if store is not None:
            _save_in(store, f"runs/{temporary.name}", f"runs/{path.name}", text.encode())
        else:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    except OSError as error:
        if store is None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise _not_written(path, str(error)) from error


def _save_in(store: Folder, temporary: str, name: str, data: bytes) -> None:
    store.mkdir("runs")
    store.unlink(temporary, missing_ok=True)
    try:
        store.write(temporary, data)
        store.rename(temporary, name)
    finally:
        store.unlink(temporary, missing_ok=True)


def _drop_dead_views(notebook: Any) -> None:
    # The kernel no longer exists when the file is opened, and the state of widgets is not saved. JupyterLab would show
    # "model not found" instead of the picture or text in the same output.
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data")
            if data and WIDGET_VIEW in data and len(data) > 1:
                del data[WIDGET_VIEW]


# -- parameters

DECLARES = "parameters"
INJECTED = "injected-parameters"
_TYPES: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}
_TRUTH = {"true": True, "false": False}


class Text(str):
    """A parameter value as a user typed it. `checked_parameters` converts the text to the type of the parameter."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a notebook declares in the cell with the tag ``parameters``."""

    name: str
    type: type | None
    """The type of the parameter, from its annotation or default; None if neither determines the type."""
    default: str
    """The source code of the default; empty if the parameter has no default."""


def declared_parameters(notebook: Any) -> dict[str, Parameter] | None:
    """Return the parameters that a notebook declares, by name; None if no cell has the tag ``parameters``.

    If the cell with this tag is not valid Python, the result is an empty dict.
    """
    # Imported here, because a run without parameters does not need IPython.
    from IPython.core.inputtransformer2 import TransformerManager

    transformer: Callable[[], Any] = TransformerManager
    place = _tagged(notebook, DECLARES)
    if place is None:
        return None
    try:
        tree = ast.parse(transformer().transform_cell(notebook.cells[place].source))
    except SyntaxError:
        return {}
    parameters: dict[str, Parameter] = {}
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
                parameters[target.id] = Parameter(target.id, _type_of(value, hint), ast.unparse(value) if value else "")
    return parameters


def read_pairs(pairs: Iterable[str], files: Iterable[Path]) -> dict[str, Any]:
    """Return the values of parameters that a user passes with ``-p`` and ``-f``, by name. Values of ``-p`` are not converted yet (`Text`).

    Parameters
    ----------
    pairs
        Strings of the form ``NAME=VALUE``. They take precedence over files.
    files
        YAML or JSON files, each with one mapping from names to values. Later files take precedence over earlier files.

    Raises
    ------
    InvalidInvocationError
        If a string is not of the form ``NAME=VALUE``, or a file cannot be read or does not contain such a mapping.
    NotebookNotFoundError
        If a file does not exist.
    """
    parameters: dict[str, Any] = {}
    for file in files:
        parameters |= _read_file(file)
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise InvalidInvocationError(
                f"-p {pair} is not of the form NAME=VALUE", remedy="write -p NAME VALUE, or -p NAME=VALUE"
            )
        parameters[name] = Text(value)
    return parameters


def checked_parameters(notebook: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a notebook's parameters, converted to the types that the notebook declares.

    Parameters
    ----------
    notebook
        The contents of the notebook.
    values
        The values by parameter name.

    Raises
    ------
    InvalidInvocationError
        If values are passed, but no cell has the tag ``parameters``; if a name is not that of a declared parameter; or if a value has the wrong
        type.
    """
    if not values:
        return {}
    declared = declared_parameters(notebook)
    if declared is None:
        raise InvalidInvocationError(
            "the notebook takes no parameters, because it has no cell tagged `parameters`",
            remedy="add the tag `parameters` to the cell that assigns the defaults (in JupyterLab: Property Inspector, Cell Tags)",
        )
    return {name: _parameter_value(name, value, declared) for name, value in values.items()}


def inject(notebook: Any, values: Mapping[str, Any]) -> None:
    """Insert a cell into a notebook, below the cell with the tag ``parameters``. The new cell assigns the values of the parameters.

    First remove the cell that an earlier run added. If there are no values, or no cell has the tag ``parameters``, add nothing.
    """
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
        (place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code" and tag in cell.metadata.get("tags", ())),
        None,
    )


def _type_of(value: ast.expr | None, hint: ast.expr | None) -> type | None:
    if isinstance(hint, ast.Name) and hint.id in _TYPES:
        return _TYPES[hint.id]
    try:
        kind = type(ast.literal_eval(value)) if value is not None else None
    except (ValueError, TypeError):
        return None
    return kind if kind in _TYPES.values() else None


def _read_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotebookNotFoundError(
            f"the file {file} does not exist", remedy="name an existing YAML file of parameters after -f"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).partition("\n")[0]
        raise InvalidInvocationError(
            f"the parameters in {file} cannot be read: {first}",
            remedy="write one line for each parameter, for example RATE: 4",
        ) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) and name.isidentifier() for name in content):
        raise InvalidInvocationError(
            f"the file {file} does not contain one mapping from parameter names to values",
            remedy="write one line for each parameter, for example RATE: 4",
        )
    return content


def _parameter_value(name: str, value: Any, declared: Mapping[str, Parameter]) -> Any:
    parameter = declared.get(name)
    if parameter is None:
        near = difflib.get_close_matches(name, declared, 1)
        known = (
            f"use a declared parameter: {', '.join(declared)}" if declared else "assign a default in the cell tagged `parameters`"
        )
        raise InvalidInvocationError(
            f"the notebook declares no parameter {name!r}", remedy=f"did you mean {near[0]}?" if near else known
        )
    if isinstance(value, Text):
        return _read_text(parameter, value)
    wanted = parameter.type
    if wanted is float and type(value) is int:
        return float(value)
    if (wanted is not None and value is not None and type(value) is not wanted) or not _is_plain(value):
        raise _wrong(parameter, value)
    return value


def _read_text(parameter: Parameter, text: Text) -> Any:
    parameter_type = parameter.type
    if parameter_type is str:
        return str(text)
    try:
        if parameter_type is bool:
            return _TRUTH[text.lower()]
        if parameter_type is int or parameter_type is float:
            return parameter_type(text)
    except (KeyError, ValueError):
        raise _wrong(parameter, str(text)) from None
    import yaml

    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        value = str(text)
    if (parameter_type is not None and type(value) is not parameter_type) or not _is_plain(value):
        raise _wrong(parameter, str(text))
    return value


def _is_plain(value: Any) -> bool:
    """Return True if a value is None, a bool, a number, a string, or a list or dict of such values."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, float, str}


def _source_of(value: Any) -> str:
    """Return a Python expression for a value: its ``repr``, except for ``nan`` and ``inf``, whose ``repr`` is a name that may be undefined."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_source_of(key)}: {_source_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_source_of, value))}]"
    return f"float({str(value)!r})" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _wrong(parameter: Parameter, value: Any) -> InvalidInvocationError:
    kind = parameter.type.__name__ if parameter.type is not None else "a plain value (None, bool, number, string, list or dict)"
    default = f" (default {parameter.default})" if parameter.default else ""
    return InvalidInvocationError(
        f"the parameter {parameter.name!r} must be {kind}{default}, not {value!r}",
        remedy=f"write for example -p {parameter.name} {parameter.default or 'VALUE'}",
    )

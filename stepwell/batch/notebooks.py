"""Notebooks as files: reading, parameters, the choice of the kernel, the path of the executed copy, and saving.

Parameters work as in papermill. A code cell tagged ``parameters`` assigns defaults to names. The names and the types of the defaults are read
without running the cell, so that wrong parameters are reported before a kernel starts. A cell tagged ``injected-parameters`` is added below
this cell and assigns the values of the user; it replaces the cell that an earlier run added.

nbformat validates with jsonschema. If ``rfc3987_syntax`` is installed (JupyterLab requires it), the import of jsonschema builds a grammar for
IRIs. This takes two seconds, although the schema of notebooks does not use IRIs. The package is optional for jsonschema, so this module hides
it during the import. Only the command line does this, in a separate process.
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
    """Import nbformat without the slow optional part of jsonschema, and return it."""
    hide = _GRAMMAR not in sys.modules and "jsonschema" not in sys.modules
    if hide:
        # An import of a module that is None in sys.modules raises ModuleNotFoundError.
        sys.modules[_GRAMMAR] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("nbformat")
    finally:
        if hide:
            del sys.modules[_GRAMMAR]


_LOADS_STEPWELL = re.compile(r"^\s*%(?:load_ext|reload_ext)\s+stepwell\b", re.MULTILINE)


def choose_kernel(notebook: Any, path: Path, requested: str | None) -> str:
    """Return the name of an installed kernel: the requested kernel, else the kernel that the notebook names.

    The kernel of a notebook without a kernelspec is ``python3`` if the language is Python or the notebook loads Stepwell. In other cases
    there is no default.

    Raises
    ------
    NotebookKernelError
        If no kernel is named, or the named kernel is not installed; the remedy lists the installed kernels.
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
        return "no kernel is installed here: pip install ipykernel"
    return "choose one with --kernel; installed: " + ", ".join(sorted(installed))


SUFFIX = ".ipynb"
SKIP_TAG = "skip-execution"
"""nbclient's tag of cells that are not executed."""
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def read_notebook(path: Path) -> Any:
    """Return a notebook as a ``NotebookNode`` of format 4 in which every cell has an id.

    Raises
    ------
    NotebookNotFoundError
        If the file is not a notebook or does not exist; in the latter case, the message lists similar names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _notebook_not_found(path) from error
    except OSError as error:
        raise NotebookNotFoundError(
            f"the notebook {path} cannot be read", where=str(error), remedy="check its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise _not_a_notebook(path, "it is not UTF-8 text") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _not_a_notebook(path, f"not JSON: {error}" if text.strip() else "the file is empty") from error
    if not isinstance(content, dict) or not isinstance(content.get("nbformat"), int):
        raise _not_a_notebook(path, "JSON without the field nbformat")

    nbformat = import_nbformat()
    if content["nbformat"] > nbformat.current_nbformat:
        raise NotebookNotFoundError(
            f"{path} is in notebook format {content['nbformat']}; nbformat {nbformat.__version__} reads up to {nbformat.current_nbformat}",
            remedy="upgrade: pip install -U nbformat",
        )
    if content["nbformat"] == nbformat.current_nbformat:
        _name_cells(content)
    try:
        with warnings.catch_warnings():
            # nbformat warns about its repairs, which do not matter here: the source is not written.
            warnings.simplefilter("ignore")
            notebook = nbformat.reads(json.dumps(content), as_version=4)
            _name_cells(notebook)
            nbformat.validate(notebook)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _not_a_notebook(path, reason[0]) from error
    return notebook


def _name_cells(notebook: Any) -> None:
    """Add the ids that format 4.5 requires to the cells of older notebooks. Ids derive from positions, so that they are the same in every run."""
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
    return NotebookNotFoundError(problem, remedy=f"notebooks in {folder.absolute()}: " + ", ".join(names[:8]) + more)


def _not_a_notebook(path: Path, reason: str) -> NotebookNotFoundError:
    shown = reason if len(reason) <= 300 else reason[:300] + "…"
    return NotebookNotFoundError(
        f"{path} is not a notebook",
        where=shown,
        remedy="open it in Jupyter to see what is wrong, or choose another file",
    )


def is_run(cell: Any) -> bool:
    """Return True if a cell is to be executed: a code cell that is not empty and not tagged skip-execution."""
    return bool(cell.cell_type == "code" and cell.source.strip() and SKIP_TAG not in cell.metadata.get("tags", []))


def clear(notebook: Any) -> None:
    """Remove the outputs of an earlier execution, so that a run that stops early shows no old outputs."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code" and SKIP_TAG not in cell.metadata.get("tags", []):
            cell.outputs = []
            cell.execution_count = None
            cell.metadata.pop("execution", None)


def output_path(notebook: Path, requested: str | None, *, runs: Path, batch: str) -> Path:
    """Return the path of the executed notebook.

    Parameters
    ----------
    notebook
        The path of the source.
    requested
        The path that the user named, or None. A path that ends in ``.ipynb`` is a file; any other path is a directory.
    runs
        The default directory for executed notebooks.
    batch
        The identifier of this execution, which makes the default filename unique.

    Raises
    ------
    NotebookError
        If the path is that of the source.
    """
    if requested is None:
        return runs / f"{notebook.stem}-{batch}{SUFFIX}"
    target = Path(requested).absolute()
    if target.suffix != SUFFIX or target.is_dir():
        target /= notebook.name
    if target.resolve() == notebook.resolve() or (target.exists() and target.samefile(notebook)):
        raise NotebookError(
            f"the output would replace the notebook {notebook} itself",
            remedy="choose another output path: a file that ends in .ipynb, or a directory",
        )
    return target


def make_folder(target: Path) -> None:
    """Create the folder of the executed notebook, before any cell runs.

    Raises
    ------
    NotebookError
        If the folder cannot be created or written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(target, str(error)) from error
    if not os.access(target.parent, os.W_OK):
        raise _not_written(target, f"no write access to {target.parent}")


def _not_written(target: Path, reason: str) -> NotebookError:
    return NotebookError(
        f"the executed notebook cannot be written to {target}",
        where=reason,
        remedy="choose another output path, or check the free space and permissions there",
    )


def save(notebook: Any, path: Path, store: Folder | None = None) -> None:
    """Write the notebook atomically, so that readers of ``path`` see the complete old or the complete new file.

    Parameters
    ----------
    store
        The directory of the store if the path is in its ``runs/``, else None.

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
    # When the file is opened, the kernel no longer exists, and the state of widgets is not saved. JupyterLab would show
    # "model not found" instead of the picture or text in the same bundle.
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
    """A value as typed on the command line, to be converted to the type of the parameter."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that a notebook declares."""

    name: str
    type: type | None
    """The type according to the annotation or the default; None if neither determines it."""
    default: str
    """The source of the default; empty if the parameter has no default."""


def declared_parameters(notebook: Any) -> dict[str, Parameter] | None:
    """Return the parameters that a notebook declares; None if it has no cell tagged ``parameters``."""
    # Imported here because a run without parameters does not need IPython.
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
    """Return the parameters of a command line. Later files replace values of earlier files; pairs replace values of files.

    Parameters
    ----------
    pairs
        Strings of the form ``NAME=VALUE``.
    files
        YAML or JSON files that contain one mapping each.

    Raises
    ------
    InvalidInvocationError
        If a pair or a file does not have this form.
    NotebookNotFoundError
        If a file does not exist.
    """
    parameters: dict[str, Any] = {}
    for file in files:
        parameters |= _read_file(file)
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.isidentifier():
            raise InvalidInvocationError(f"{pair!r} is not a parameter", remedy="write -p NAME VALUE, or -p NAME=VALUE")
        parameters[name] = Text(value)
    return parameters


def checked_parameters(notebook: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters, converted to the types that the notebook declares.

    Raises
    ------
    InvalidInvocationError
        If the notebook does not declare a parameter, or a value has the wrong type.
    """
    if not values:
        return {}
    declared = declared_parameters(notebook)
    if declared is None:
        raise InvalidInvocationError(
            "the notebook has no cell tagged `parameters`, so it takes no parameters",
            remedy="tag the cell that assigns the defaults: in JupyterLab, Property Inspector, Cell Tags",
        )
    return {name: _parameter_value(name, value, declared) for name, value in values.items()}


def inject(notebook: Any, values: Mapping[str, Any]) -> None:
    """Add a cell with assignments below the cell tagged ``parameters``, and remove the cell that an earlier run added."""
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
            f"the file {file} does not exist", remedy="name a YAML file of parameters: -f FILE"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).partition("\n")[0]
        raise InvalidInvocationError(
            f"the parameters of {file} cannot be read: {first}", remedy="write one mapping: lines NAME: VALUE"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) and name.isidentifier() for name in content):
        raise InvalidInvocationError(f"{file} is not one mapping of names to values", remedy="write lines NAME: VALUE")
    return content


def _parameter_value(name: str, value: Any, declared: Mapping[str, Parameter]) -> Any:
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
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = str(text)
    if (parameter_type is not None and type(value) is not parameter_type) or not _is_plain(value):
        raise _wrong(parameter, str(text))
    return value


def _is_plain(value: Any) -> bool:
    """Return True if a value consists of literals."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, float, str}


def _source_of(value: Any) -> str:
    """Return a Python expression for a value. It differs from ``repr`` for ``nan`` and ``inf``, which are not literals."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_source_of(key)}: {_source_of(item)}" for key, item in value.items()) + "}"
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

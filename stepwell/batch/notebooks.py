"""Notebooks as files: reading one, its parameters, which kernel runs it, where the executed copy goes, and saving it.

Parameters are those of papermill. The code cell tagged ``parameters`` assigns a default to each name. Its names and the types of its
defaults are read without running it, so that a wrong parameter is an error before a kernel starts. Given values are assigned in a cell below
it that is tagged ``injected-parameters``; one that an earlier run left is replaced.

nbformat validates with jsonschema, which builds the IRI grammar of ``rfc3987_syntax`` when it is imported, if that is installed
(JupyterLab brings it): two seconds for a format that the notebook's schema does not have. jsonschema treats the package as optional, so it
is hidden from it for as long as the import takes. Only the command line does this, in its own process.
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
    """Return nbformat, imported quickly if it is not imported yet."""
    hide = _GRAMMAR not in sys.modules and "jsonschema" not in sys.modules
    if hide:
        # None in sys.modules is Python's own way to say "not there": the import raises ModuleNotFoundError.
        sys.modules[_GRAMMAR] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("nbformat")
    finally:
        if hide:
            del sys.modules[_GRAMMAR]


_LOADS_STEPWELL = re.compile(r"^\s*%(?:load_ext|reload_ext)\s+stepwell\b", re.MULTILINE)


def choose_kernel(notebook: Any, path: Path, asked: str | None) -> str:
    """Return the name of an installed kernel: the one asked for, else the one that the notebook names.

    A notebook without a kernelspec gets ``python3`` if it says in another way that it is Python: by its language, or by
    loading Stepwell. Anything else would be a guess.

    Raises
    ------
    NotebookKernelError
        If no kernel is named, or the named one is not installed; lists those that are.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    name = asked or notebook.metadata.get("kernelspec", {}).get("name")
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
        who = f"the kernel {name!r}" if asked else f"the kernel {name!r}, which {path} names,"
        raise NotebookKernelError(f"{who} is not installed", remedy=_remedy(specs.find_kernel_specs())) from error
    return str(name)


def _remedy(installed: dict[str, str]) -> str:
    if not installed:
        return "no kernel is installed here: pip install ipykernel"
    return "choose one with --kernel; installed: " + ", ".join(sorted(installed))


SUFFIX = ".ipynb"
SKIP_TAG = "skip-execution"
"""nbclient's own word for a cell that is not run."""
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def read_notebook(path: Path) -> Any:
    """Read a notebook as a ``NotebookNode`` of format 4, every cell with an id.

    Raises
    ------
    NotebookNotFoundError
        If the file does not exist (the message has the nearest names), or is not a notebook.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _missing(path) from error
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
            f"{path} is in notebook format {content['nbformat']}; nbformat {nbformat.__version__} knows {nbformat.current_nbformat}",
            remedy="upgrade: pip install -U nbformat",
        )
    if content["nbformat"] == nbformat.current_nbformat:
        _name_cells(content)
    try:
        with warnings.catch_warnings():
            # nbformat warns of what it repairs: that is fine here, the source is not written.
            warnings.simplefilter("ignore")
            notebook = nbformat.reads(json.dumps(content), as_version=4)
            _name_cells(notebook)
            nbformat.validate(notebook)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _not_a_notebook(path, reason[0]) from error
    return notebook


def _name_cells(notebook: Any) -> None:
    """Give cells of older notebooks the id that format 4.5 has: from their place, so that it stays the same from run to run."""
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


def _missing(path: Path) -> NotebookNotFoundError:
    folder = path if path.is_dir() else path.parent
    what = f"{path} is a folder, not a notebook" if path.is_dir() else f"there is no notebook {path}"
    try:
        names = sorted(each.name for each in folder.iterdir() if each.suffix == SUFFIX)
    except OSError:
        return NotebookNotFoundError(what, remedy=f"there is no folder {folder} either: check the path")
    if not names:
        return NotebookNotFoundError(what, remedy=f"there is no notebook in {folder.absolute()}: check the path")
    stems = [name.removesuffix(SUFFIX) for name in names]
    near = [] if path.is_dir() else difflib.get_close_matches(path.name.removesuffix(SUFFIX), stems, n=3, cutoff=0.5)
    if near:
        return NotebookNotFoundError(
            what, remedy="did you mean " + " or ".join(str(folder / (stem + SUFFIX)) for stem in near) + "?"
        )
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return NotebookNotFoundError(what, remedy=f"notebooks in {folder.absolute()}: " + ", ".join(names[:8]) + more)


def _not_a_notebook(path: Path, reason: str) -> NotebookNotFoundError:
    shown = reason if len(reason) <= 300 else reason[:300] + "…"
    return NotebookNotFoundError(
        f"{path} is not a notebook",
        where=shown,
        remedy="open it in Jupyter to see what is wrong, or choose another file",
    )


def is_run(cell: Any) -> bool:
    """Return True if a cell is executed: code that is not empty and not tagged to be skipped."""
    return bool(cell.cell_type == "code" and cell.source.strip() and SKIP_TAG not in cell.metadata.get("tags", []))


def clear(notebook: Any) -> None:
    """Remove what an earlier execution left, so that a run that stops half way shows nothing old below its end."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code" and SKIP_TAG not in cell.metadata.get("tags", []):
            cell.outputs = []
            cell.execution_count = None
            cell.metadata.pop("execution", None)


def output_path(notebook: Path, asked: str | None, *, runs: Path, batch: str) -> Path:
    """Return the file that the executed notebook is saved to.

    Parameters
    ----------
    notebook
        The source.
    asked
        What the user named: a file if it ends in ``.ipynb``, else a directory.
    runs
        The directory for executed notebooks when nothing is asked for.
    batch
        The identifier of this execution, which keeps names apart there.

    Raises
    ------
    NotebookError
        If that is the source itself.
    """
    if asked is None:
        return runs / f"{notebook.stem}-{batch}{SUFFIX}"
    target = Path(asked).absolute()
    if target.suffix != SUFFIX or target.is_dir():
        target /= notebook.name
    if target.resolve() == notebook.resolve() or (target.exists() and target.samefile(notebook)):
        raise NotebookError(
            f"the output would replace the notebook {notebook} itself",
            remedy="choose another output path: a file that ends in .ipynb, or a directory",
        )
    return target


def make_folder(target: Path) -> None:
    """Make the folder that the executed notebook goes to, before anything is run.

    Raises
    ------
    NotebookError
        If it cannot be made or written.
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
        remedy="choose another output path, or make room and write access there",
    )


def save(notebook: Any, path: Path, store: Folder | None = None) -> None:
    """Write the notebook in one step: a reader of ``path`` sees the old file or the new one, never a part.

    Parameters
    ----------
    store
        The directory of the store in whose ``runs/`` the path is; None where it is elsewhere.

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
    # The kernel is gone when the file is opened, and widget state is not saved: a trusted JupyterLab would show
    # "model not found" in place of the picture or text that is in the same bundle.
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
        If a file does not exist.
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
    """Return True if the repr of a value is a literal."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, float, str}


def _source_of(value: Any) -> str:
    """Return the expression that makes a value; ``nan`` and ``inf`` are not literals."""
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

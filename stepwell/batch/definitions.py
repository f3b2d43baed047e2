"""Commands that need the definitions of a notebook: they are called in a temporary kernel, in which the notebook's assets are only registered.

The notebook's cells run in that kernel, with ``STEPWELL_DEFINE`` set: plain cells run, asset cells register and compute nothing. A plain cell
that uses an asset's value ends with a NameError, which is expected; so does a cell that uses what such a cell would have assigned. Then the command is
called there, and its output is passed on.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepwell.batch.terminal import say, show
from stepwell.commands.command import CELL_FAILED, USAGE, Command, find_command
from stepwell.kernel_runtime.errors import NotebookKernelError, StepwellError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.session.project import named_or_found
from stepwell.kernel_runtime.session.session import DEFINE, get_session

_ANSWER = "application/vnd.stepwell.answer+json"
_NAME = re.compile(r"name '(\w+)' is not defined")


def in_notebook(command: Command[Any, Any], path: Path, given: Mapping[str, Any]) -> int:
    """Call a command with the definitions of a notebook; print its result, and return the exit code.

    Parameters
    ----------
    command
        The command.
    path
        The notebook; it is not written.
    given
        The arguments of the command line.

    Raises
    ------
    NotebookNotFoundError, NotebookKernelError
        If the notebook does not exist, or its kernel does not start.
    """
    from nbclient import NotebookClient
    from nbformat import v4

    from stepwell.batch.notebooks import choose_kernel, clear, is_run, read_notebook

    path = path.absolute()
    notebook = read_notebook(path)
    kernel = choose_kernel(notebook, path, None)
    clear(notebook)
    cells = [cell for cell in notebook.cells if is_run(cell)]
    directory, _ = named_or_found(given.get("store"), path.parent)
    environment = {
        **os.environ, DEFINE: "1", "STEPWELL_BATCH": new_id(), "STEPWELL_NOTEBOOK": str(path), "STEPWELL_STORE": str(directory),
    }  # fmt: skip
    words = {each.name: given.get(each.name, each.default) for each in command.arguments}
    question = {"command": command.name, "given": words, "json": bool(given.get("json"))}
    new_cell: Callable[[str], Any] = v4.new_code_cell
    calls = [new_cell(f"from stepwell.batch.definitions import {name}\n{name}({argument})") for name, argument in
             (("tell_names", ""), ("answer", repr(json.dumps(question))))]  # fmt: skip
    notebook.cells = [*cells, *calls]
    client = NotebookClient(
        notebook, kernel_name=kernel, timeout=None, allow_errors=True, record_timing=False, store_widget_state=False
    )
    with tempfile.TemporaryFile() as log:
        try:
            client.execute(cwd=str(path.parent), env=environment, stdout=log, stderr=log)
        except (OSError, RuntimeError) as error:
            raise NotebookKernelError(
                f"the kernel {kernel!r} does not start: {error}", remedy="try it in Jupyter"
            ) from error
    names = _answer_of(calls[0]).get("names", [])
    failed = _unexpected_error(cells, set(names))
    if failed:
        say(failed)
        return CELL_FAILED
    for output in calls[1].outputs:
        if output.output_type == "stream":
            out = sys.stdout if output.name == "stdout" else sys.stderr
            out.write(output.text)
            out.flush()
        elif output.output_type == "error":
            say(f"{output.ename}: {output.evalue}")
            return CELL_FAILED
    return int(_answer_of(calls[1]).get("exit_code", USAGE))


def _answer_of(cell: Any) -> dict[str, Any]:
    found = [output.data[_ANSWER] for output in cell.outputs if _ANSWER in getattr(output, "data", {})]
    return dict(found[-1]) if found else {}


def _unexpected_error(cells: list[Any], unbound: set[str]) -> str:
    """Return the message of the first plain cell that failed for another reason than an asset's value; empty if none did.

    Parameters
    ----------
    unbound
        Names of assets; extended by the names that a cell which did not end would have bound.
    """
    for number, cell in enumerate(cells, 1):
        error = next((output for output in cell.outputs if output.output_type == "error"), None)
        if error is None:
            continue
        missing = _NAME.search(error.evalue)
        if error.ename != "DefinitionsOnlyError" and not (missing and missing[1] in unbound):
            return f"cell [{number}] (id {cell.id}) failed: {error.ename}: {error.evalue}"
        unbound |= _bound_names(cell.source)
    return ""


def _bound_names(source: str) -> set[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    found |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def tell_names() -> None:
    """In the kernel: publish the names of the variables that the assets would have."""
    registry = get_session().registry
    names = {key.rpartition("/")[2] for key in registry.assets}
    for entry in registry.assets.values():
        body = getattr(getattr(entry.definition, "node", None), "body", None)
        names |= {*getattr(body, "variables", ()), *getattr(body, "bound", ())}
    _publish({"names": sorted(names)})


def answer(text: str) -> None:
    """In the kernel: call a command and print its result."""
    os.environ.pop(DEFINE, None)
    question = json.loads(text)
    command = find_command(question["command"])
    assert command is not None
    try:
        results = command.call(question["given"])
    except StepwellError as error:
        say(f"{type(error).__name__}: {error}")
        _publish({"exit_code": USAGE})
        return
    show(command, results, json=question["json"], about={"store": str(get_session().store.directory)})
    _publish({"exit_code": max(map(command.exit_code, results), default=0)})


def _publish(data: dict[str, Any]) -> None:
    from IPython.display import publish_display_data

    publish_display_data({_ANSWER: data})  # type: ignore[no-untyped-call]

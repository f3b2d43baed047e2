"""The command line ``stepwell`` (and ``jupyter stepwell``), which parses arguments, calls a command, and prints the result as text or JSON.

A command that needs the definitions of a notebook is called in a temporary kernel in which the environment variable ``STEPWELL_DEFINE`` is
set. In this kernel, plain cells run, but asset cells only register their assets. A plain cell that uses the value of an asset therefore fails
with a NameError, and so does a cell that uses a name which a failed cell would have assigned. These errors are expected and ignored. After the
last cell, the command is called in the kernel, and its output is printed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from stepwell.batch.terminal import EXIT_CODES, INTERRUPTED, STORE_HELP, print_result, say, show, show_files
from stepwell.commands import VERBS
from stepwell.commands.command import (
    CELL_FAILED,
    NO_KERNEL,
    NO_NOTEBOOK,
    NO_STORE,
    NOT_TRUSTED,
    OK,
    USAGE,
    Command,
    LineError,
    LineParser,
    add_json,
    find_command,
)
from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.errors import (
    InvalidInvocationError,
    NotebookKernelError,
    NotebookNotFoundError,
    StepwellError,
    StoreError,
    TrustNeededError,
    UntrustedStoreError,
)
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.session.requests import named_or_found
from stepwell.kernel_runtime.session.session import DEFINE, get_session
from stepwell.kernel_runtime.text import as_json


class _Parser(LineParser):
    def __init__(self, prog: str = "", **options: Any) -> None:
        super().__init__(prog, **options)

    def error(self, message: str) -> NoReturn:
        raise LineError(f"{self.prog}: {message}{self.suggestion(message)} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        The arguments without the program's name; by default ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code; `EXIT_CODES` lists them.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        command = find_command(arguments[0]) if arguments else None
        if command is not None and hasattr(command.printer, "prepared"):
            arguments = command.printer.prepared(arguments)
        options = _parser(arguments).parse_args(arguments)
    except LineError as error:
        if "--json" in arguments:
            _print_error(None, "UsageError", str(error))
        say(str(error))
        return USAGE
    try:
        return int(options.act(options))
    except StepwellError as error:
        return _fail(options, error)
    except KeyboardInterrupt:
        if _wants_json(options):
            _print_error(_notebook(options), "KeyboardInterrupt", "interrupted")
        say("stepwell: interrupted")
        return INTERRUPTED + 2
    except BrokenPipeError:
        # The reader has closed the pipe. Without this redirection, Python would raise the error again when the interpreter closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CELL_FAILED
    except Exception as error:
        from stepwell.kernel_runtime.store.trouble import trouble

        machine_error = trouble(error, "the command could not be finished")
        if machine_error is None:
            raise
        return _fail(options, machine_error)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    # Imported by name, because a static import would make an import cycle: the root package imports the front ends lazily.
    version = import_module("stepwell").__version__
    parser = _Parser(
        "stepwell",
        description="Assets, ops and graphs of notebooks: run notebooks in batch, inspect and maintain stores.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stepwell {version}")
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    # Only the module of the command that the user typed is imported; the help needs the modules of all commands.
    wanted = arguments[0] if arguments else ""
    for name in [wanted] if wanted in VERBS else VERBS:
        command = find_command(name)
        if command is not None:
            _add(added, command)
    return parser


def _add(added: Any, command: Command[Any, Any]) -> None:
    parser = added.add_parser(
        command.name,
        help=summary_start(command.summary),
        description="\n\n".join(textwrap.fill(text, 100) for text in (command.summary, command.description) if text).replace(
            "`", ""
        ),
        epilog=command.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command.definitions == "notebooks":
        parser.add_argument("notebooks", metavar="NB", nargs="+", type=Path, help="notebooks")
    else:
        command.add_arguments(parser)
    if command.definitions in {"optional", "required"}:
        parser.add_argument(
            "--notebook",
            metavar="NB",
            type=Path,
            help="the notebook with the definitions: its plain cells run, its asset cells only register their assets",
        )
    if command.needs == "nothing":
        parser.set_defaults(store=None)
    else:
        parser.add_argument("--store", metavar="DIR", help=STORE_HELP)
    if command.printer is not None:
        command.printer.add_arguments(parser)
    else:
        add_json(parser)
    parser.set_defaults(act=lambda options: _act(command, options))


def summary_start(summary: str) -> str:
    """Return a command's summary up to the first comma, colon or semicolon, for the list of commands in the help."""
    text = summary.partition(", ")[0].partition(": ")[0].partition("; ")[0].removesuffix(".")
    return (text[0].lower() + text[1:]).replace("`", "")


def _act(command: Command[Any, Any], options: argparse.Namespace) -> int:
    """Call a command with the arguments that a user typed, print the results, and return the exit code."""
    if command.definitions == "notebooks" or (getattr(options, "notebook", None) and command.definitions != "none"):
        notebooks = options.notebooks if command.definitions == "notebooks" else [options.notebook]
        codes = [in_notebook(command, notebook, vars(options)) for notebook in notebooks]
        return max(codes, default=OK)
    if command.definitions == "required":
        raise InvalidInvocationError(
            f"stepwell {command.name} needs the definitions of a notebook",
            remedy=f"name the notebook: stepwell {command.name} ... --notebook NOTEBOOK.ipynb",
        )
    with ExitStack() as opened:
        extra_arguments: dict[str, Any] = {}
        about: dict[str, Any] = {}
        if command.needs == "store":
            store = opened.enter_context(_named_store(options))
            extra_arguments["store"], about["store"] = store, str(store.directory)
        elif command.needs == "directory":
            extra_arguments["store"], about["store"] = options.store, str(_directory(options)[0])
            extra_arguments["progress"] = show_files if sys.stderr.isatty() else None
        elif command.needs == "itself":
            extra_arguments["store"] = options.store
        elif command.needs == "maybe":
            extra_arguments["store"] = about["store"] = _directory_to_make(options)
        elif options.path is None:
            # The command uses the session's store. The variable makes the session open the existing store instead of creating one.
            os.environ["STEPWELL_STORE"] = str(opened.enter_context(_named_store(options)).directory)
        if command.printer is not None:
            extra_arguments |= command.printer.function_arguments(options)
        results = call_with_trust(command, options, extra_arguments)
        if results is None:
            return NOT_TRUSTED
        if command.printer is not None:
            for result in results:
                command.printer.show(result, options, sys.stdout)
            return max(map(command.exit_code, results), default=OK)
        show(command, results, json=options.json, about=about)
        return max(map(command.exit_code, results), default=OK)


def call_with_trust(command: Command[Any, Any], options: argparse.Namespace, extra_arguments: dict[str, Any]) -> list[Any] | None:
    """Call a command and return its results.

    If ``stepwell trust`` needs a confirmation, print the values that the user must confirm. If standard input is a terminal and ``--json`` was not
    passed, also ask the user. Return None if the values are not confirmed.
    """
    try:
        return command.call(vars(options), **extra_arguments)
    except TrustNeededError as error:
        if not options.json:
            for line in str(error.offer).splitlines():
                say(line)
            if sys.stdin.isatty():
                sys.stderr.write("Do you trust the author of these values? [y/N] ")
                sys.stderr.flush()
                if sys.stdin.readline().strip().lower() in ("y", "yes"):
                    return command.call({**vars(options), "yes": True}, **extra_arguments)
            say("nothing was trusted: add --yes if you trust the author")
        else:
            print_result(as_json({**error.offer.as_dict(), "trusted": False}, indent=2))
        return None


def _directory(options: argparse.Namespace) -> tuple[Path, bool]:
    """Return the store directory, and whether the user named it with ``--store`` or the environment variable ``STEPWELL_STORE``."""
    from stepwell.kernel_runtime.session.requests import named_or_found

    return named_or_found(options.store, Path.cwd())


def _directory_to_make(options: argparse.Namespace) -> str:
    """Return the directory of a store that the command may create.

    Raises
    ------
    UntrustedStoreError
        If the directory is a symbolic link, and the user did not name the directory.
    """
    directory, named = _directory(options)
    if directory.is_symlink() and not named:
        raise UntrustedStoreError(
            f"the store directory {directory} is a link",
            remedy=f"if you trust the link, name the directory: --store {directory}",
        )
    return str(directory)


def _named_store(options: argparse.Namespace) -> Any:
    """Open the store that the command line names or finds, and return a context manager that closes it. The store must exist."""
    from stepwell.kernel_runtime.store.store import open_store

    directory, named = _directory(options)
    return closing(open_store(directory, create=False, follow=named, notify=lambda notice: say(notice_text(notice))))


def _fail(options: argparse.Namespace, error: StepwellError) -> int:
    if _wants_json(options):
        _print_error(_notebook(options), type(error).__name__, str(error))
    say(f"{type(error).__name__}: {error}")
    codes = {NotebookNotFoundError: NO_NOTEBOOK, NotebookKernelError: NO_KERNEL, StoreError: NO_STORE}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), USAGE)


def _wants_json(options: argparse.Namespace) -> bool:
    return bool(getattr(options, "json", False))


def _notebook(options: argparse.Namespace) -> Path | None:
    path = getattr(options, "notebook", None)
    return Path(path) if path is not None else None


def _print_error(notebook: Path | None, name: str, message: str) -> None:
    from stepwell.batch.run import result_dict

    error = {"cell": None, "name": name, "message": message}
    print_result(as_json(result_dict(notebook, None, error), indent=2))


_ANSWER = "application/vnd.stepwell.answer+json"
_NAME = re.compile(r"name '(\w+)' is not defined")


def in_notebook(command: Command[Any, Any], path: Path, arguments: Mapping[str, Any]) -> int:
    """Call a command in a temporary kernel with the definitions of a notebook, print the results, and return the exit code.

    Parameters
    ----------
    command
        The command.
    path
        The path of the notebook. The file is not changed.
    arguments
        The arguments that a user typed, by name.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    NotebookNotFoundError, NotebookKernelError
        If the notebook does not exist, or its kernel is not installed or does not start.
    """
    from stepwell.batch.notebooks import choose_kernel, clear, is_run, read_notebook

    path = path.absolute()
    notebook = read_notebook(path)

    # Imported after `read_notebook`, because nbclient imports nbformat, and `import_nbformat` must be the first to import it.
    from nbclient import NotebookClient
    from nbformat import v4

    kernel = choose_kernel(notebook, path, None)
    clear(notebook)
    cells = [cell for cell in notebook.cells if is_run(cell)]
    directory, _ = named_or_found(arguments.get("store"), path.parent)
    environment = {
        **os.environ, DEFINE: "1", "STEPWELL_BATCH": new_id(), "STEPWELL_NOTEBOOK": str(path), "STEPWELL_STORE": str(directory),
    }  # fmt: skip
    words = {argument.name: arguments.get(argument.name, argument.default) for argument in command.arguments}
    question = {"command": command.name, "given": words, "json": bool(arguments.get("json"))}
    new_cell: Callable[[str], Any] = v4.new_code_cell
    calls = [new_cell(f"from stepwell.batch.command_line import {name}\n{name}({argument})") for name, argument in
             (("publish_names", ""), ("answer", repr(json.dumps(question))))]  # fmt: skip
    notebook.cells = [*cells, *calls]
    client = NotebookClient(
        notebook, kernel_name=kernel, timeout=None, allow_errors=True, record_timing=False, store_widget_state=False
    )
    with tempfile.TemporaryFile() as log:
        try:
            client.execute(cwd=str(path.parent), env=environment, stdout=log, stderr=log)
        except (OSError, RuntimeError) as error:
            raise NotebookKernelError(
                f"the kernel {kernel!r} does not start: {error}",
                remedy="start the kernel in Jupyter to see why it fails",
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
    answers = [output.data[_ANSWER] for output in cell.outputs if _ANSWER in getattr(output, "data", {})]
    return dict(answers[-1]) if answers else {}


def _unexpected_error(cells: list[Any], unbound: set[str]) -> str:
    """Return a message about the first cell that failed for another reason than the missing value of an asset; empty if there is no such cell.

    Parameters
    ----------
    cells
        The executed cells of the notebook.
    unbound
        The names of the variables of assets, which are not bound, because the assets were not computed. This function adds to the set the names
        that failed cells would have bound.
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
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return names | {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def publish_names() -> None:
    """Send the names of the variables of all registered assets to `in_notebook`, which calls this function in a cell of the temporary kernel."""
    registry = get_session().registry
    names = {key.rpartition("/")[2] for key in registry.assets}
    for entry in registry.assets.values():
        body = getattr(getattr(entry.definition, "node", None), "body", None)
        names |= {*getattr(body, "variables", ()), *getattr(body, "bound_names", ())}
    _publish({"names": sorted(names)})


def answer(text: str) -> None:
    """Call a command, print its results, and send its exit code to `in_notebook`, which calls this function in a cell of the temporary kernel.

    Parameters
    ----------
    text
        A JSON object with ``command`` (the verb), ``given`` (the arguments by name) and ``json`` (True to print JSON).
    """
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

"""The command line ``stepwell`` (and ``jupyter stepwell``): words to the arguments of a command, its result to text or JSON and an exit code.

Every verb comes from `stepwell.commands`. A verb that needs the definitions of a notebook is called in a temporary kernel, in which the
notebook's assets are only registered. The notebook's cells run in that kernel, with ``STEPWELL_DEFINE`` set: plain cells run, asset cells register and compute nothing. A plain cell
that uses an asset's value ends with a NameError, which is expected; so does a cell that uses what such a cell would have assigned. Then the command is
called there, and its output is passed on.
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
        Without the program's name; by default those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        command = find_command(arguments[0]) if arguments else None
        if command is not None and hasattr(command.printer, "prepared"):
            arguments = command.printer.prepared(arguments)
        asked = _parser(arguments).parse_args(arguments)
    except LineError as error:
        if "--json" in arguments:
            _print_error(None, "UsageError", str(error))
        say(str(error))
        return USAGE
    try:
        return int(asked.act(asked))
    except StepwellError as error:
        return _fail(asked, error)
    except KeyboardInterrupt:
        if _wants_json(asked):
            _print_error(_notebook(asked), "KeyboardInterrupt", "interrupted")
        say("stepwell: interrupted")
        return INTERRUPTED + 2
    except BrokenPipeError:
        # The reader of our output has gone; Python would report that again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CELL_FAILED
    except Exception as error:
        from stepwell.kernel_runtime.store.trouble import trouble

        found = trouble(error, "the command could not be finished")
        if found is None:
            raise
        return _fail(asked, found)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    # By name: the root package knows the faces (lazily), and no face may import another through it.
    version = import_module("stepwell").__version__
    parser = _Parser(
        "stepwell",
        description="Assets, ops and graphs of notebooks: run a notebook in batch, look into a store.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"stepwell {version}")
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    # Commands are imported when they are used; help lists all.
    wanted = arguments[0] if arguments else ""
    for name in [wanted] if wanted in VERBS else VERBS:
        command = find_command(name)
        if command is not None:
            _add(added, command)
    return parser


def _add(added: Any, command: Command[Any, Any]) -> None:
    parser = added.add_parser(
        command.name,
        help=_first(command.summary),
        description="\n\n".join(
            textwrap.fill(text, 100) for text in (command.summary, command.description) if text
        ).replace("`", ""),
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
            help="the notebook that defines it: its plain cells run, its assets do not",
        )
    if command.needs == "nothing":
        parser.set_defaults(store=None)
    else:
        parser.add_argument("--store", metavar="DIR", help=STORE_HELP)
    if command.printer is not None:
        command.printer.add_arguments(parser)
    else:
        add_json(parser)
    parser.set_defaults(act=lambda asked: _act(command, asked))


def _first(summary: str) -> str:
    """Return the first part of a sentence, as a list of commands shows it."""
    text = summary.partition(", ")[0].partition(": ")[0].partition("; ")[0].removesuffix(".")
    return (text[0].lower() + text[1:]).replace("`", "")


def _act(command: Command[Any, Any], asked: argparse.Namespace) -> int:
    """Call a command with what a command line says, print the result, and return the exit code."""
    if command.definitions == "notebooks" or (getattr(asked, "notebook", None) and command.definitions != "none"):
        notebooks = asked.notebooks if command.definitions == "notebooks" else [asked.notebook]
        codes = [in_notebook(command, notebook, vars(asked)) for notebook in notebooks]
        return max(codes, default=OK)
    if command.definitions == "required":
        raise InvalidInvocationError(
            f"stepwell {command.name} needs the definitions of a notebook",
            remedy=f"name it: stepwell {command.name} ... --notebook NOTEBOOK.ipynb",
        )
    with ExitStack() as opened:
        more: dict[str, Any] = {}
        about: dict[str, Any] = {}
        if command.needs == "store":
            store = opened.enter_context(_named_store(asked))
            more["store"], about["store"] = store, str(store.directory)
        elif command.needs == "directory":
            more["store"], about["store"] = asked.store, str(_directory(asked)[0])
            more["progress"] = show_files if sys.stderr.isatty() else None
        elif command.needs == "itself":
            more["store"] = asked.store
        elif command.needs == "maybe":
            more["store"] = about["store"] = _directory_to_make(asked)
        elif asked.path is None:
            # The session of this process is to show the store of the folder, and not to make one.
            os.environ["STEPWELL_STORE"] = str(opened.enter_context(_named_store(asked)).directory)
        if command.printer is not None:
            more |= command.printer.given(asked)
        results = _called(command, asked, more)
        if results is None:
            return NOT_TRUSTED
        if command.printer is not None:
            for result in results:
                command.printer.show(result, asked, sys.stdout)
            return max(map(command.exit_code, results), default=OK)
        show(command, results, json=asked.json, about=about)
        return max(map(command.exit_code, results), default=OK)


def _called(command: Command[Any, Any], asked: argparse.Namespace, more: dict[str, Any]) -> list[Any] | None:
    """Call a command; what another person made is shown first, and taken over only if the user says yes. None if not."""
    try:
        return command.call(vars(asked), **more)
    except TrustNeededError as error:
        if not asked.json:
            for line in str(error.offer).splitlines():
                say(line)
            if sys.stdin.isatty():
                sys.stderr.write("Do you trust who made this? [y/N] ")
                sys.stderr.flush()
                if sys.stdin.readline().strip().lower() in ("y", "yes"):
                    return command.call({**vars(asked), "yes": True}, **more)
            say("nothing was taken over: --yes says that you trust it")
        else:
            print_result(as_json({**error.offer.as_dict(), "trusted": False}, indent=2))
        return None


def _directory(asked: argparse.Namespace) -> tuple[Path, bool]:
    """Return the directory of the store that a command line means, and whether the user named it."""
    from stepwell.kernel_runtime.session.requests import named_or_found

    return named_or_found(asked.store, Path.cwd())


def _directory_to_make(asked: argparse.Namespace) -> str:
    """Return the directory of a store that the command may make. A link that the user did not name is not followed."""
    directory, named = _directory(asked)
    if directory.is_symlink() and not named:
        raise UntrustedStoreError(
            f"the store directory {directory} is a link", remedy=f"name it to use it: --store {directory}"
        )
    return str(directory)


def _named_store(asked: argparse.Namespace) -> Any:
    """Open the store that a command line means; it must be there."""
    from stepwell.kernel_runtime.store.store import open_store

    directory, named = _directory(asked)
    return closing(open_store(directory, create=False, follow=named, notify=lambda found: say(notice_text(found))))


def _fail(asked: argparse.Namespace, error: StepwellError) -> int:
    if _wants_json(asked):
        _print_error(_notebook(asked), type(error).__name__, str(error))
    say(f"{type(error).__name__}: {error}")
    codes = {NotebookNotFoundError: NO_NOTEBOOK, NotebookKernelError: NO_KERNEL, StoreError: NO_STORE}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), USAGE)


def _wants_json(asked: argparse.Namespace) -> bool:
    return bool(getattr(asked, "json", False))


def _notebook(asked: argparse.Namespace) -> Path | None:
    found = getattr(asked, "notebook", None)
    return Path(found) if found is not None else None


def _print_error(notebook: Path | None, name: str, message: str) -> None:
    from stepwell.batch.run import result_dict

    error = {"cell": None, "name": name, "message": message}
    print_result(as_json(result_dict(notebook, None, error), indent=2))


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
    calls = [new_cell(f"from stepwell.batch.command_line import {name}\n{name}({argument})") for name, argument in
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

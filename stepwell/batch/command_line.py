"""The command line ``stepwell`` (and ``jupyter stepwell``): words to the arguments of a command, its result to text or JSON and an exit code.

Every verb comes from `stepwell.commands`. What a verb reads from a notebook's definitions runs in a kernel (`stepwell.batch.definitions`).
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
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
        from stepwell.batch.definitions import in_notebook

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
    from stepwell.kernel_runtime.session.project import named_or_found

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

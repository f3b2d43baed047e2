"""The commands ``stepwell`` and ``jupyter stepwell``: arguments in, exit codes out, everything else elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from stepwell.batch import commands
from stepwell.batch.arguments import (
    CELL_FAILED,
    EXIT_CODES,
    INTERRUPTED,
    NO_KERNEL,
    NO_NOTEBOOK,
    NO_STORE,
    USAGE,
    print_result,
    say,
)
from stepwell.kernel_runtime.errors import NotebookKernelError, NotebookNotFoundError, StepwellError, StoreError


class _UsageError(Exception):
    """A wrong command line; the message is one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.prog}: {message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        Without the program's name; by default those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        asked = _parser().parse_args(arguments)
    except _UsageError as error:
        if "--json" in arguments:
            _print_error(None, "UsageError", str(error))
        say(str(error))
        return USAGE
    try:
        return int(asked.command(asked))
    except StepwellError as error:
        return _fail(asked, error)
    except KeyboardInterrupt:
        if _wants_json(asked):
            _print_error(_notebook(asked), "KeyboardInterrupt", "interrupted")
        say("stepwell: interrupted")
        return INTERRUPTED + 2
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CELL_FAILED
    except Exception as error:
        from stepwell.kernel_runtime.store.trouble import trouble

        found = trouble(error, "the command could not be finished")
        if found is None:
            raise
        return _fail(asked, found)


def _parser() -> argparse.ArgumentParser:
    # By name: the root package knows the faces (lazily), and no face may import another through it.
    version = import_module("stepwell").__version__
    parser = _Parser(
        prog="stepwell",
        description="Assets, ops and graphs of notebooks: run a notebook in batch, look into a store.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stepwell {version}")
    commands.add_all(parser.add_subparsers(title="commands", metavar="COMMAND", required=True))
    return parser


def _fail(asked: argparse.Namespace, error: StepwellError) -> int:
    if _wants_json(asked):
        _print_error(_notebook(asked), type(error).__name__, str(error))
    say(f"{type(error).__name__}: {error}")
    codes = {NotebookNotFoundError: NO_NOTEBOOK, NotebookKernelError: NO_KERNEL, StoreError: NO_STORE}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), USAGE)


def _wants_json(asked: argparse.Namespace) -> bool:
    return bool(getattr(asked, "json", False))


def _notebook(asked: argparse.Namespace) -> Path | None:
    return getattr(asked, "notebook", None)


def _print_error(notebook: Path | None, name: str, message: str) -> None:
    from stepwell.batch import report

    print_result(report.as_json(notebook, None, {"cell": None, "name": name, "message": message}))

"""The commands ``stepwell`` and ``jupyter stepwell``: arguments in, exit codes out, everything else elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from stepwell.kernel_runtime.errors import NotebookKernelError, NotebookNotFoundError, StepwellError, StoreError

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import Store

OK, CELL_FAILED, USAGE, NO_NOTEBOOK, NO_KERNEL, NO_STORE = range(6)
INTERRUPTED = 128
"""Plus the signal's number, as shells count."""

_EXIT_CODES = """\
exit codes:
  0    every cell was executed
  1    a cell failed, or its kernel died; the notebook is saved up to there
  2    the command line is wrong, or --output cannot be written
  3    the notebook does not exist or is not a notebook
  4    the notebook's kernel is not installed or does not start
  5    the store cannot be used
  130  interrupted (Ctrl-C); 143 when ended by SIGTERM; the notebook is saved up to there
"""
_RUN = """\
Execute a notebook from its first cell to its last, in its own folder and in a fresh kernel, and save the executed copy
after every cell. Steps whose results the store has are reused. The notebook itself is never written.
"""
_RUN_MORE = """\
standard output is the path of the executed notebook; progress and errors go to standard error. With --json it is one object:
  {"notebook", "status": "success"|"failure", "runs": [{"run_id", "status", "steps": [{"key", "status", "seconds"}]}],
   "error": null | {"cell", "name", "message"}}
cells tagged skip-execution are not executed; those tagged raises-exception may fail.

"""


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
        _say(str(error))
        return USAGE
    try:
        return int(asked.command(asked))
    except StepwellError as error:
        return _fail(asked, error)
    except KeyboardInterrupt:
        if asked.json:
            _print_error(asked.notebook, "KeyboardInterrupt", "interrupted")
        _say("stepwell: interrupted")
        return INTERRUPTED + 2
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CELL_FAILED


def _parser() -> argparse.ArgumentParser:
    # By name: the root package knows the faces (lazily), and no face may import another through it.
    version = import_module("stepwell").__version__
    plain = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="stepwell",
        description="Assets, ops and graphs of notebooks: run a notebook in batch, look into a store.",
        epilog=_EXIT_CODES,
        formatter_class=plain,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stepwell {version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="execute a notebook",
        description=_RUN,
        epilog=_RUN_MORE + _EXIT_CODES,
        formatter_class=plain,
        allow_abbrev=False,
    )
    run.add_argument("notebook", metavar="NOTEBOOK", type=Path, help="the notebook to execute")
    run.add_argument(
        "--output",
        metavar="PATH",
        help="where the executed notebook goes: a file if it ends in .ipynb, else a directory (default: the store's runs/)",
    )
    _add_store(run)
    run.add_argument("--kernel", metavar="NAME", help="the kernel to use (default: the notebook's own)")
    _add_json(run)
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="list what a store holds", allow_abbrev=False)
    _add_store(status)
    _add_json(status)
    status.set_defaults(command=_status, notebook=None)

    runs = commands.add_parser("runs", help="list the newest runs", allow_abbrev=False)
    _add_store(runs)
    runs.add_argument("--limit", metavar="N", type=_count, default=20, help="how many (default: 20)")
    _add_json(runs)
    runs.set_defaults(command=_runs, notebook=None)
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="the store directory, the one with catalog.duckdb (default: $STEPWELL_STORE, else .stepwell in the project's root)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, and nothing else there"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs")
    return int(text)


def _run(asked: argparse.Namespace) -> int:
    from stepwell.batch import report
    from stepwell.batch.runner import run_notebook

    result = run_notebook(
        asked.notebook, output=asked.output, store=asked.store, kernel=asked.kernel, progress=sys.stderr
    )
    for line in report.lines(result, colour=report.wants_colour(sys.stderr)):
        _say(line)
    if asked.json:
        _say(f"saved {result.output}")
        _print(report.as_json(result.notebook, result))
    else:
        _print(str(result.output))
    if result.signal is not None:
        return INTERRUPTED + result.signal
    return OK if result.success else CELL_FAILED


def _status(asked: argparse.Namespace) -> int:
    from stepwell.batch.listing import current_as_json, current_lines

    return _list(asked, current_as_json if asked.json else current_lines)


def _runs(asked: argparse.Namespace) -> int:
    from stepwell.batch.listing import runs_as_json, runs_lines

    return _list(asked, partial(runs_as_json if asked.json else runs_lines, limit=asked.limit))


def _list(asked: argparse.Namespace, listing: Callable[[Store], list[str]]) -> int:
    from stepwell.batch.runner import store_directory
    from stepwell.kernel_runtime.store.store import open_store

    store = open_store(store_directory(Path.cwd() / "notebook", asked.store), create=False)
    try:
        for line in listing(store):
            _print(line)
    finally:
        store.close()
    return OK


def _fail(asked: argparse.Namespace, error: StepwellError) -> int:
    if asked.json:
        _print_error(asked.notebook, type(error).__name__, str(error))
    _say(f"{type(error).__name__}: {error}")
    codes = {NotebookNotFoundError: NO_NOTEBOOK, NotebookKernelError: NO_KERNEL, StoreError: NO_STORE}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), USAGE)


def _print_error(notebook: Path | None, name: str, message: str) -> None:
    from stepwell.batch import report

    _print(report.as_json(notebook, None, {"cell": None, "name": name, "message": message}))


def _print(result: str) -> None:
    sys.stdout.write(result + "\n")
    # A reader that has gone is noticed here and not when the process ends.
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")

"""``run``: a notebook executed in batch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from stepwell.batch.parameters import read_pairs
from stepwell.batch.runner import BatchResult, run_notebook
from stepwell.batch.terminal import EXIT_CODES, INTERRUPTED, print_result, say
from stepwell.commands.command import CELL_FAILED, OK, Option, command
from stepwell.kernel_runtime.session.requests import AnyStore

_EPILOG = """\
standard output is the path of the executed notebook; progress and errors go to standard error. With --json it is one object:
  {"notebook", "status": "success"|"failure", "runs": [{"run_id", "status", "steps": [{"key", "status", "seconds"}]}],
   "error": null | {"cell", "name", "message"}}
cells tagged skip-execution are not executed; those tagged raises-exception may fail. Parameters replace the defaults of the cell tagged
parameters; the executed copy has them in a cell below it. Another value computes only the steps that depend on it.

"""


class Printer:
    """What the command line adds: parameters as papermill has them, progress while the notebook runs, a report at the end."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the arguments to a parser."""
        parser.add_argument(
            "-p", "--parameter", dest="pairs", metavar="NAME=VALUE", action="append", default=[],
            help="a parameter of the notebook: -p NAME VALUE, or -p NAME=VALUE",
        )  # fmt: skip
        parser.add_argument(
            "-f", "--parameters-file", dest="files", metavar="PARAMS.yaml", type=Path, action="append", default=[],
            help="a YAML file of parameters; -p comes after it",
        )  # fmt: skip
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object on standard output, and nothing else there"
        )

    @staticmethod
    def prepared(words: Sequence[str]) -> list[str]:
        """Return the words of a line with ``-p NAME VALUE`` written as ``-p NAME=VALUE``."""
        found = list(words)
        for place, word in enumerate(words):
            if word in ("-p", "--parameter") and place + 2 < len(words) and words[place + 1].isidentifier():
                found[place + 1] = f"{words[place + 1]}={words[place + 2]}"
                found[place + 2] = ""
        return [word for place, word in enumerate(found) if word or words[place] == ""]

    @staticmethod
    def given(asked: argparse.Namespace) -> dict[str, Any]:
        """Return further arguments of the function."""
        return {"parameters": read_pairs(asked.pairs, asked.files), "progress": sys.stderr}

    @staticmethod
    def show(result: BatchResult, asked: argparse.Namespace, _: TextIO) -> None:
        """Print the report and the path of the executed notebook."""
        from stepwell.batch import report

        colours = report.wants_colour(sys.stderr)
        for line in report.lines(result, colour=colours):
            say(line, colours=colours)
        if asked.json:
            say(f"saved {result.output}")
            print_result(report.as_json(result.notebook, result))
        else:
            print_result(str(result.output))


def _exit_code(result: BatchResult) -> int:
    if result.signal is not None:
        return INTERRUPTED + result.signal
    return OK if result.success else CELL_FAILED


def _text(result: BatchResult) -> str:
    from stepwell.batch import report

    return "\n".join([*report.lines(result, colour=False), str(result.output)])


def _data(result: BatchResult) -> Any:
    from stepwell.batch import report

    return report.as_dict(result.notebook, result)


def _seconds(text: str) -> float:
    found = float(text)
    if found <= 0:
        raise ValueError(f"{text!r} is not a positive number of seconds")
    return found


@command(
    needs="itself",
    options={
        "notebook": Option(read=Path, metavar="NOTEBOOK"),
        "output": Option(metavar="OUTPUT"),
        "cwd": Option(metavar="DIR"),
        "kernel": Option(metavar="NAME"),
        "cell_timeout": Option(read=_seconds, metavar="SECONDS"),
        "timeout": Option(read=_seconds, metavar="SECONDS"),
        "progress": Option(hidden=True),
    },
    text=_text,
    data=_data,
    exit_code=_exit_code,
    epilog=_EPILOG + EXIT_CODES,
    printer=Printer,
)
def run(
    notebook: Path,
    output: str | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    cwd: str | None = None,
    kernel: str | None = None,
    strict: bool = False,
    log_output: bool = False,
    cell_timeout: float | None = None,
    timeout: float | None = None,
    store: AnyStore = None,
    progress: TextIO | None = None,
) -> BatchResult:
    """Execute a notebook from its first cell to its last in a new kernel, and save the executed copy after every cell.

    Steps whose results the store has are reused. The notebook itself is never written.

    Parameters
    ----------
    notebook
        The notebook.
    output
        Where the executed copy goes: a file if it ends in .ipynb, else a directory; by default the runs/ folder of the store.
    parameters
        Values for names that the cell tagged ``parameters`` assigns.
    cwd
        The working directory of the kernel; by default the notebook's folder.
    kernel
        The kernel to use; by default the notebook's own.
    strict
        Fail where a value cannot be stored.
    log_output
        Write the output of cells to standard error as it comes.
    cell_timeout
        Seconds after which a cell is interrupted and the run fails.
    timeout
        Seconds after which the whole run is interrupted and fails.
    store
        A store directory; by default that of the notebook's project.
    progress
        Where to write which cell runs.

    Raises
    ------
    NotebookNotFoundError, NotebookKernelError
        If there is nothing to run, or nothing to run it with.
    InvalidInvocationError
        If a parameter is unknown or of another type; no kernel is started.
    NotebookError
        If the executed copy cannot be written.
    StoreError
        If the store cannot be used.
    """
    return run_notebook(
        Path(notebook), output=output, parameters=parameters, cwd=cwd, kernel=kernel, strict=strict, log_output=log_output,
        cell_timeout=cell_timeout, timeout=timeout, store=None if store is None else str(store), progress=progress,
    )  # fmt: skip

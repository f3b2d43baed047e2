"""The command ``run``, which executes one notebook in a new kernel and prints a report.

Environment variables pass the identifier of this execution, the path of the notebook and, if the user named one, the store to the kernel. The
session in the kernel records its runs under this identifier. Afterwards the report is made from the rows that were committed to the store, not
from the output of cells.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TextIO

from stepwell.batch.notebooks import (
    checked_parameters,
    choose_kernel,
    clear,
    inject,
    is_run,
    make_folder,
    output_path,
    read_notebook,
    read_pairs,
    save,
)
from stepwell.batch.terminal import EXIT_CODES, INTERRUPTED, Progress, is_terminal, print_result, say
from stepwell.commands.command import CELL_FAILED, OK, Option, add_json, command
from stepwell.kernel_runtime.errors import InvalidInvocationError, NotebookKernelError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord
from stepwell.kernel_runtime.session.requests import AnyStore, named_or_found
from stepwell.kernel_runtime.text import as_json, duration, without_colours
from stepwell.kernel_runtime.versions.secrets import hidden_message

STARTUP_TIMEOUT = 120
"""Seconds to wait for the start of a kernel; long, since the first start on a loaded machine compiles many modules."""
OUTPUT_TIMEOUT = 30
"""Seconds to wait for the remaining output of a finished cell."""
_TRACEBACK_LINES = 24
_SHOWN_KEYS = 6
_MIN_REPORTED_SAVING = 1.0
"""The report mentions the saved time if this is at least this number of seconds."""
_EPILOG = """\
standard output is the path of the executed notebook; progress and errors go to standard error. With --json it is one object:
  {"notebook", "status": "success"|"failure", "runs": [{"run_id", "status", "steps": [{"key", "status", "seconds"}]}],
   "error": null | {"cell", "name", "message"}}
cells tagged skip-execution are not executed; those tagged raises-exception may fail. Parameters replace the defaults of the cell tagged
parameters; the executed copy has them in a cell below it. Another value computes only the steps that depend on it.

"""


@dataclass(frozen=True, slots=True)
class CellFailure:
    """The cell that ended an execution."""

    cell: str
    """The id of the cell."""
    number: int
    """The execution number, as in ``In [3]``."""
    name: str
    """The name of the exception's class."""
    message: str
    traceback: tuple[str, ...] = ()
    """The lines of the traceback as the kernel formatted them, with ANSI colours."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of an execution of a notebook."""

    notebook: Path
    output: Path
    """The executed notebook."""
    store: Path
    runs: tuple[tuple[RunRecord, tuple[StepRecord, ...]], ...]
    """The runs with their steps, oldest first."""
    failure: CellFailure | None
    signal: signal.Signals | None
    """The signal that interrupted the execution, or None."""

    @property
    def success(self) -> bool:
        """True if every cell was executed."""
        return self.failure is None and self.signal is None


# -- the report


def result_dict(
    notebook: Path | None, result: BatchResult | None, error: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the data that ``--json`` prints.

    Parameters
    ----------
    notebook
        The path of the source.
    result
        The result; None if nothing was executed.
    error
        ``{"cell": None, "name", "message"}`` for an error that did not occur in a cell, else None.
    """
    runs = result.runs if result else ()
    interrupted = result is not None and result.signal is not None
    if result is not None and result.failure is not None:
        failure = result.failure
        error = {"cell": failure.cell, "name": failure.name, "message": failure.message}
    elif result is not None and result.signal is not None:
        error = {"cell": None, "name": "KeyboardInterrupt", "message": f"interrupted by {result.signal.name}"}
    return {
        "notebook": None if notebook is None else str(notebook.absolute()),
        "status": "success" if result is not None and result.success else "failure",
        "runs": [
            {
                "run_id": run.run_id,
                "status": run_status(run, interrupted=interrupted),
                "steps": [{"key": step.key, "status": step.status, "seconds": step.seconds} for step in steps],
            }
            for run, steps in runs
        ],
        "error": error,
    }


def run_status(run: RunRecord, *, interrupted: bool) -> str:
    """Return ``success``, ``failure`` or ``cancelled``. A run that did not end is ``cancelled`` if `interrupted` is True, else ``failure``."""
    if run.status in {"running", "interrupted"}:
        return "cancelled" if interrupted else "failure"
    return run.status


def result_lines(result: BatchResult, *, colour: bool) -> list[str]:
    """Return the report of an execution: the reason if it stopped early, and the results of its runs."""
    lines = []
    if result.signal is not None:
        where = f"in {_place(result.failure)}" if result.failure is not None else "before the first cell"
        lines.append(
            f"interrupted by {result.signal.name} {where}; the steps that finished are kept: run the notebook again to continue"
        )
    elif result.failure is not None:
        lines += _failure_lines(result.failure, colour=colour)
        failed = [(run, steps) for run, steps in result.runs if run.status == "failure"]
        lines += [_resume_line(*failed[-1])] if failed else []
    counts = Counter(step.status for _, steps in result.runs for step in steps)
    if counts:
        words = [
            f"{counts[status]} {status}"
            for status in ("executed", "reused", "failed", "skipped", "untouched", "cancelled")
            if counts[status]
        ]
        saved = _saved_seconds(result)
        if saved >= _MIN_REPORTED_SAVING:
            words.append(f"{duration(saved)} saved")
        executed = list(
            dict.fromkeys(step.key for _, steps in result.runs for step in steps if step.status == "executed")
        )
        named = ", ".join(executed[:_SHOWN_KEYS]) + (
            f" and {len(executed) - _SHOWN_KEYS} more" if len(executed) > _SHOWN_KEYS else ""
        )
        lines.append(f"steps: {', '.join(words)}" + (f" (executed: {named})" if executed else ""))
    left_out = {step.key: step.not_kept for run, steps in result.runs if run.kind == "assets" for step in steps}
    lines += [
        f"{key} is not stored ({reason.partition(': ')[2]}): computed again in a kernel that needs it"
        for key, not_kept in left_out.items()
        for reason in not_kept
    ]
    return lines


def _saved_seconds(result: BatchResult) -> float:
    """Return the total duration of the reused steps when they last ran. Each step counts once; steps that ran in this execution do not count."""
    run_ids = {run.run_id for run, _ in result.runs}
    reused = {
        step.key: step.materializations[0]
        for _, steps in result.runs
        for step in steps
        if step.status == "reused" and step.materializations
    }
    return sum(item.seconds for item in reused.values() if item.run_id not in run_ids)


def _failure_lines(failure: CellFailure, *, colour: bool) -> list[str]:
    summary = f"{failure.name}: {failure.message}" if failure.message else failure.name
    shown = "\n".join(failure.traceback)
    plain = without_colours(shown)
    lines = []
    # The traceback of a Stepwell error consists only of the message, which is printed below.
    if plain.strip() and plain.strip() != summary.strip():
        traceback = (shown if colour else plain).splitlines()
        if len(traceback) > _TRACEBACK_LINES:
            traceback = ["…", *traceback[-_TRACEBACK_LINES:]]
        lines += [*traceback, ""]
    lines.append(f"{_place(failure)} failed: {summary}")
    if failure.name == "ModuleNotFoundError" and failure.message == "No module named 'stepwell'":
        lines.append(
            "the kernel uses another Python than this command: pip install stepwell there, or choose another kernel with --kernel"
        )
    return lines


def _place(failure: CellFailure) -> str:
    return f"cell [{failure.number}] (id {failure.cell})"


def _resume_line(run: RunRecord, steps: tuple[StepRecord, ...]) -> str:
    failed = ", ".join(step.key for step in steps if step.status == "failed") or ", ".join(run.targets)
    return (
        f"run {run.run_id} failed at {failed}; the steps that finished are kept: fix it and run the notebook again, "
        f'or in a notebook: stepwell.resume("{run.run_id}")'
    )


def wants_colour(stream: TextIO) -> bool:
    """Return True if colours may be written: the stream is a terminal whose output is not recorded (``CI``), and ``NO_COLOR`` is not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


# -- the command


class Printer:
    """The command-line interface of ``run``, with parameters as in papermill, progress during the run, and a report at the end."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the arguments to a parser."""
        parser.add_argument(
            "-p", "--parameter", dest="pairs", metavar="NAME=VALUE", action="append", default=[],
            help="a parameter of the notebook: -p NAME VALUE, or -p NAME=VALUE",
        )  # fmt: skip
        parser.add_argument(
            "-f", "--parameters-file", dest="files", metavar="PARAMS.yaml", type=Path, action="append", default=[],
            help="a YAML file of parameters; -p overrides it",
        )  # fmt: skip
        add_json(parser)

    @staticmethod
    def prepared(words: Sequence[str]) -> list[str]:
        """Return the words of a command line in which ``-p NAME VALUE`` is replaced by ``-p NAME=VALUE``."""
        joined = list(words)
        for place, word in enumerate(words):
            if word in ("-p", "--parameter") and place + 2 < len(words) and words[place + 1].isidentifier():
                joined[place + 1] = f"{words[place + 1]}={words[place + 2]}"
                joined[place + 2] = ""
        return [word for place, word in enumerate(joined) if word or words[place] == ""]

    @staticmethod
    def function_arguments(options: argparse.Namespace) -> dict[str, Any]:
        """Return the additional arguments of the function `run`."""
        return {"parameters": read_pairs(options.pairs, options.files), "progress": sys.stderr}

    @staticmethod
    def show(result: BatchResult, options: argparse.Namespace, _: TextIO) -> None:
        """Print the report and the path of the executed notebook."""
        colours = wants_colour(sys.stderr)
        for line in result_lines(result, colour=colours):
            say(line, colours=colours)
        if options.json:
            say(f"saved {result.output}")
            print_result(as_json(result_dict(result.notebook, result), indent=2))
        else:
            print_result(str(result.output))


def _exit_code(result: BatchResult) -> int:
    if result.signal is not None:
        return INTERRUPTED + result.signal
    return OK if result.success else CELL_FAILED


def _seconds(text: str) -> float:
    seconds = float(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a positive number of seconds")
    return seconds


@command(
    needs="itself",
    options={
        "notebook": Option(parse=Path, metavar="NOTEBOOK"),
        "output": Option(metavar="OUTPUT"),
        "cwd": Option(metavar="DIR"),
        "kernel": Option(metavar="NAME"),
        "cell_timeout": Option(parse=_seconds, metavar="SECONDS"),
        "timeout": Option(parse=_seconds, metavar="SECONDS"),
        "progress": Option(is_hidden=True),
    },
    text=lambda result: "\n".join([*result_lines(result, colour=False), str(result.output)]),
    data=lambda result: result_dict(result.notebook, result),
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
    """Execute all cells of a notebook in a new kernel, and save the executed copy after every cell.

    Steps whose results are stored are reused. The notebook itself is never changed.

    Parameters
    ----------
    notebook
        The path of the notebook.
    output
        The path of the executed copy: a file if it ends in .ipynb, else a directory; by default the runs/ folder of the store.
    parameters
        Values by name, for names that the cell tagged ``parameters`` assigns.
    cwd
        The working directory of the kernel; by default the notebook's folder.
    kernel
        The name of the kernel; by default the kernel that the notebook names.
    strict
        Fail if a value cannot be stored.
    log_output
        Write the output of cells to standard error while they run.
    cell_timeout
        Seconds after which a cell is interrupted and the run fails.
    timeout
        Seconds after which the whole run is interrupted and fails.
    store
        A store directory; by default the store of the notebook's project.
    progress
        The stream for progress; None prints none.

    Returns
    -------
    BatchResult
        The paths, the runs with their steps, and the failed cell if there is one.

    Raises
    ------
    NotebookNotFoundError, NotebookKernelError
        If the notebook or its kernel does not exist, or the kernel does not start.
    InvalidInvocationError
        If a parameter is unknown or has the wrong type; no kernel is started.
    NotebookError
        If the executed copy cannot be written.
    StoreError
        If the store cannot be used.
    """
    from stepwell.kernel_runtime.store.store import open_store

    chosen = None if store is None else str(store)
    path = Path(notebook).absolute()
    content = read_notebook(path)
    inject(content, checked_parameters(content, parameters or {}))
    folder = path.parent if cwd is None else Path(cwd).absolute()
    if not folder.is_dir():
        raise InvalidInvocationError(
            f"the directory {folder} does not exist", remedy="choose an existing directory: --cwd DIR"
        )
    kernel_name = choose_kernel(content, path, kernel)
    directory, named = named_or_found(chosen, path.parent)
    batch = new_id()
    target = output_path(path, output, runs=directory / "runs", batch=batch)
    if output is not None:
        make_folder(target)
    opened = open_store(directory, follow=named)
    opened.close()
    saved = partial(save, content, target, opened.folder if output is None else None)
    clear(content)
    saved()

    environment = {**os.environ, "STEPWELL_BATCH": batch, "STEPWELL_NOTEBOOK": str(path)}
    if strict:
        environment["STEPWELL_STRICT"] = "1"
    if chosen is not None or "STEPWELL_STORE" in environment:
        # The path must be absolute, because the kernel runs in another directory.
        environment["STEPWELL_STORE"] = str(directory)
    failure, received = _execute(
        content,
        saved,
        kernel_name,
        folder=folder,
        environment=environment,
        progress=Progress(progress, sum(map(is_run, content.cells)), log_output=log_output),
        cell_timeout=cell_timeout,
        timeout=timeout,
    )
    return BatchResult(path, target, directory, _recorded_runs(directory, named, batch), failure, received)


# -- the execution


def _execute(
    notebook: Any,
    saved: Callable[[], None],
    kernel: str,
    *,
    folder: Path,
    environment: dict[str, str],
    progress: Progress,
    cell_timeout: float | None,
    timeout: float | None,
) -> tuple[CellFailure | None, signal.Signals | None]:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    from stepwell.batch.client import BatchClient

    client = BatchClient(
        notebook,
        progress=progress,
        save=saved,
        limits=(cell_timeout, timeout),
        kernel_name=kernel,
        timeout=None,
        startup_timeout=STARTUP_TIMEOUT,
        iopub_timeout=OUTPUT_TIMEOUT,
        store_widget_state=False,
    )
    failure = None
    # Output of the kernel process that does not come from cells goes to a file, which is read only if the process dies.
    with tempfile.TemporaryFile() as log:
        try:
            client.execute(cwd=str(folder), env=environment, stdout=log, stderr=log)
        except CellExecutionError as error:
            failure = _failure(client, error.ename, error.evalue)
        except CellTimeoutError as error:
            failure = _failure(client, type(error).__name__, str(error))
        except (InterruptedError, KeyboardInterrupt, asyncio.CancelledError):
            client.signal = client.signal or signal.SIGINT
        except (OSError, RuntimeError) as error:
            if client.signal is None and client.cell is None:
                raise NotebookKernelError(
                    f"the kernel {kernel!r} does not start: {error}",
                    where="\n".join(_tail(log)),
                    remedy="try it in Jupyter, repair it (pip install ipykernel in its environment), or choose another with --kernel",
                ) from error
            if client.signal is None and not isinstance(error, DeadKernelError):
                raise
            failure = _failure(client, "DeadKernelError", "\n".join(("the kernel died", *_tail(log))))
        finally:
            progress.close()
    saved()
    if client.timed_out:
        failure = _failure(client, "CellTimeoutError", client.timed_out)
    if client.signal is not None:
        failure = _failure(client, "KeyboardInterrupt", f"interrupted by {client.signal.name}")
    return failure, client.signal


def _failure(client: Any, name: str, message: str) -> CellFailure | None:
    if client.cell is None:
        return None
    errors = [output for output in client.cell.outputs if output.output_type == "error"]
    traceback = tuple(map(_without_secrets, errors[-1].traceback)) if errors else ()
    return CellFailure(client.cell.id, client.code_cells_executed, name, hidden_message(message), traceback)


def _without_secrets(line: str) -> str:
    """Return a formatted line without secrets. If the line contains a secret, its colours are removed, too."""
    plain = without_colours(line)
    hidden = hidden_message(plain)
    return line if hidden == plain else hidden


def _tail(log: IO[bytes]) -> list[str]:
    log.seek(0)
    written = log.read().decode("utf-8", "replace").strip().splitlines()
    # Warnings that the kernel writes when it starts are not the reason why it died.
    return [line for line in written if "IPKernelApp] WARNING" not in line][-5:]


def _recorded_runs(directory: Path, named: bool, batch: str) -> tuple[tuple[RunRecord, tuple[StepRecord, ...]], ...]:
    from stepwell.kernel_runtime.store.store import open_store

    store = open_store(directory, create=False, follow=named)
    try:
        runs = [store.run(run.run_id) for run in reversed(store.runs(limit=1_000_000, batch=batch))]
    finally:
        store.close()
    return tuple(run for run in runs if run is not None)

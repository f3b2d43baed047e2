"""The command ``run``, which executes one notebook in a new kernel and prints a report.

Through environment variables, the kernel receives an identifier of this execution, the path of the notebook and, if the user named a store, the
store directory. The session in the kernel records its runs with this identifier. After the last cell, the report is made from these records in the
store, not from the output of cells.
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
"""Seconds to wait for the start of a kernel. The time is long, because the first start on a busy machine compiles many modules."""
OUTPUT_TIMEOUT = 30
"""Seconds to wait, after a cell has finished, for the output that has not arrived yet."""
_TRACEBACK_LINES = 24
_SHOWN_KEYS = 6
_MIN_REPORTED_SAVING = 1.0
"""The smallest saved time, in seconds, that the report mentions."""
_EPILOG = """\
The path of the executed copy is printed on standard output; progress and errors are printed on standard error. With --json, one object is
printed on standard output:
  {"notebook", "status": "success"|"failure", "runs": [{"run_id", "status", "steps": [{"key", "status", "seconds"}]}],
   "error": null | {"cell", "name", "message"}}
Cells with the tag skip-execution are not executed; cells with the tag raises-exception may fail. Parameters replace the defaults that the
cell with the tag parameters assigns; the executed copy contains their values in a cell below that cell. If a parameter has another value than
in the last run, only the steps that depend on the parameter are computed.

"""


@dataclass(frozen=True, slots=True)
class CellFailure:
    """The cell in which the execution of a notebook ended early, and the reason."""

    cell: str | None
    """The id of the cell; None if the execution ended before the first cell."""
    number: int
    """The execution number of the cell: 3 for ``In [3]``; 0 if the execution ended before the first cell."""
    name: str
    """The name of the exception's class."""
    message: str
    traceback: tuple[str, ...] = ()
    """The lines of the traceback as the kernel formatted them, with ANSI colours."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of the execution of a notebook."""

    notebook: Path
    """The path of the notebook."""
    output: Path
    """The path of the executed copy."""
    store: Path
    runs: tuple[tuple[RunRecord, tuple[StepRecord, ...]], ...]
    """The runs that the kernel recorded during the execution, oldest first. Each is a pair: the run, and the records of its steps."""
    failure: CellFailure | None
    """The cell in which the execution ended early; None if every cell was executed."""
    signal: signal.Signals | None
    """The signal that interrupted the execution; None if there was none."""

    @property
    def success(self) -> bool:
        """True if every cell was executed and no error or signal ended the execution."""
        return self.failure is None and self.signal is None


# -- the report


def result_dict(notebook: Path | None, result: BatchResult | None, error: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON values that ``stepwell run --json`` prints: ``{"notebook", "status", "runs", "error"}``.

    Parameters
    ----------
    notebook
        The path of the notebook; None if it is unknown.
    result
        The result of the execution; None if no cell was executed.
    error
        ``{"cell": None, "name", "message"}`` for an error that did not occur in a cell, else None.
    """
    runs = result.runs if result else ()
    interrupted = result is not None and result.signal is not None
    if result is not None and result.failure is not None:
        failure = result.failure
        error = {"cell": failure.cell, "name": failure.name, "message": failure.message}
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
    """Return the status of a run for the report: ``success``, ``failure`` or ``cancelled``.

    Parameters
    ----------
    interrupted
        True if a signal interrupted the execution. A run whose end is not recorded then counts as cancelled, otherwise as failed.
    """
    if run.status in {"running", "interrupted"}:
        return "cancelled" if interrupted else "failure"
    return run.status


def result_lines(result: BatchResult, *, colour: bool) -> list[str]:
    """Return the lines of the report of an execution: why it ended early, how many steps were executed or reused, and which values are not stored."""
    lines = []
    if result.signal is not None and result.failure is not None:
        lines.append(
            f"interrupted by {result.signal.name} in {_place(result.failure)}; the results of finished steps are stored: run the notebook again to continue"
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
        executed = list(dict.fromkeys(step.key for _, steps in result.runs for step in steps if step.status == "executed"))
        named = ", ".join(executed[:_SHOWN_KEYS]) + (
            f" and {len(executed) - _SHOWN_KEYS} more" if len(executed) > _SHOWN_KEYS else ""
        )
        lines.append(f"steps: {', '.join(words)}" + (f" (executed: {named})" if executed else ""))
    left_out = {step.key: step.not_kept for run, steps in result.runs if run.kind == "assets" for step in steps}
    lines += [
        f"the value of {key} is not stored ({reason.partition(': ')[2]}): every kernel that needs the value computes it again"
        for key, not_kept in left_out.items()
        for reason in not_kept
    ]
    return lines


def _saved_seconds(result: BatchResult) -> float:
    """Return the seconds that reuse saved: the total duration of the last executions of the reused steps.

    Each step is counted once. Steps that were first executed and then reused in this notebook execution are not counted.
    """
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
    # The traceback of a Stepwell error is only the message, which is printed below.
    if plain.strip() and plain.strip() != summary.strip():
        traceback = (shown if colour else plain).splitlines()
        if len(traceback) > _TRACEBACK_LINES:
            traceback = ["…", *traceback[-_TRACEBACK_LINES:]]
        lines += [*traceback, ""]
    lines.append(f"{_place(failure)} failed: {summary}")
    if failure.name == "ModuleNotFoundError" and failure.message == "No module named 'stepwell'":
        lines.append(
            "the kernel uses another Python than this command: install stepwell in the kernel's environment (pip install stepwell), "
            "or choose another kernel with --kernel"
        )
    return lines


def _place(failure: CellFailure) -> str:
    return f"cell [{failure.number}] (id {failure.cell})" if failure.cell else "the kernel's start"


def _resume_line(run: RunRecord, steps: tuple[StepRecord, ...]) -> str:
    failed = ", ".join(step.key for step in steps if step.status == "failed") or ", ".join(run.targets)
    return (
        f"run {run.run_id} failed at {failed}; the results of finished steps are stored: correct the error and run the notebook again, "
        f'or call stepwell.resume("{run.run_id}") in the notebook'
    )


def wants_colour(stream: TextIO) -> bool:
    """Return True if colours can be printed on a stream: it is a terminal, and the environment variables ``CI`` and ``NO_COLOR`` are not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


# -- the command


class Printer:
    """The command-line interface of ``run``: options for parameters as in papermill, and the report at the end."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options to a parser."""
        parser.add_argument(
            "-p", "--parameter", dest="pairs", metavar="NAME=VALUE", action="append", default=[],
            help="the value of a parameter of the notebook: -p NAME VALUE, or -p NAME=VALUE",
        )  # fmt: skip
        parser.add_argument(
            "-f", "--parameters-file", dest="files", metavar="PARAMS.yaml", type=Path, action="append", default=[],
            help="a YAML file with a line NAME: VALUE for each parameter; values of -p take precedence",
        )  # fmt: skip
        add_json(parser)

    @staticmethod
    def prepared(words: Sequence[str]) -> list[str]:
        """Return the words of a command line, with ``-p NAME VALUE`` replaced by ``-p NAME=VALUE``."""
        joined, rest = [], list(words)
        while rest:
            if rest[0] in ("-p", "--parameter") and len(rest) > 2 and rest[1].isidentifier():
                option, name, value, *rest = rest
                joined += [option, f"{name}={value}"]
            else:
                joined.append(rest.pop(0))
        return joined

    @staticmethod
    def function_arguments(options: argparse.Namespace) -> dict[str, Any]:
        """Return two further arguments of `run`: the notebook's parameters from ``-p`` and ``-f``, and the stream to which progress is written."""
        return {"parameters": read_pairs(options.pairs, options.files), "progress": sys.stderr}

    @staticmethod
    def show(result: BatchResult, options: argparse.Namespace, _: TextIO) -> None:
        """Print the report on standard error; then print on standard output the path of the executed copy or, with ``--json``, one JSON object."""
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

    Steps whose stored results are still valid are reused. The notebook file itself is never changed.

    Parameters
    ----------
    notebook
        The path of the notebook.
    output
        The path of the executed copy: a file if the path ends in .ipynb, else a directory; by default a file in the runs/ folder of the store.
    parameters
        Values of the notebook's parameters, by name. The parameters are the names that the cell with the tag ``parameters`` assigns.
    cwd
        The working directory of the kernel; by default the notebook's folder.
    kernel
        The name of the kernel; by default the kernel that the notebook names.
    strict
        Fail if the value of an asset cell cannot be stored. By default the value stays only in the kernel.
    log_output
        Print the output of cells while the cells run, on the same stream as the progress (standard error on the command line).
    cell_timeout
        The maximum duration of each cell in seconds; after this time, the cell is interrupted and the execution fails. By default there is no
        limit.
    timeout
        The maximum duration of the whole execution in seconds; after this time, the running cell is interrupted and the execution fails. By default
        there is no limit.
    store
        A store directory; by default the store of the notebook's project.
    progress
        The stream on which progress is printed; by default, none is printed.

    Returns
    -------
    BatchResult
        The paths, the recorded runs with their steps, and the failed cell if there is one.

    Raises
    ------
    NotebookNotFoundError
        If the notebook does not exist.
    NotebookKernelError
        If the kernel is not installed or does not start.
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
        raise InvalidInvocationError(f"the directory {folder} does not exist", remedy="choose an existing directory: --cwd DIR")
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
        # The path must be absolute, because the kernel may run in another directory.
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
    from nbclient.exceptions import CellExecutionError, DeadKernelError

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
    # What the kernel process prints outside of cells goes to a file, which is read only if the kernel dies or does not start.
    with tempfile.TemporaryFile() as log:
        try:
            client.execute(cwd=str(folder), env=environment, stdout=log, stderr=log)
        except CellExecutionError as error:
            failure = _failure(client, error.ename, error.evalue)
        except (InterruptedError, KeyboardInterrupt, asyncio.CancelledError):
            client.signal = client.signal or signal.SIGINT
        except (OSError, RuntimeError) as error:
            stopped = client.signal is not None or client.timed_out
            if not stopped and client.cell is None:
                raise NotebookKernelError(
                    f"the kernel {kernel!r} does not start: {error}",
                    where="\n".join(_tail(log)),
                    remedy="start the kernel in Jupyter to see why it fails, install ipykernel in its environment (pip install ipykernel), "
                    "or choose another kernel with --kernel",
                ) from error
            if not stopped and not isinstance(error, DeadKernelError):
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


def _failure(client: Any, name: str, message: str) -> CellFailure:
    if client.cell is None:
        return CellFailure(None, 0, name, message)
    errors = [output for output in client.cell.outputs if output.output_type == "error"]
    traceback = tuple(map(_without_secrets, errors[-1].traceback)) if errors else ()
    return CellFailure(client.cell.id, client.code_cells_executed, name, hidden_message(message), traceback)


def _without_secrets(line: str) -> str:
    """Return a line of a traceback in which secrets are hidden. If the line contains a secret, the ANSI colours of the line are removed, too."""
    plain = without_colours(line)
    hidden = hidden_message(plain)
    return line if hidden == plain else hidden


def _tail(log: IO[bytes]) -> list[str]:
    log.seek(0)
    written = log.read().decode("utf-8", "replace").strip().splitlines()
    # Warnings that the kernel writes at its start do not explain why the kernel died.
    return [line for line in written if "IPKernelApp] WARNING" not in line][-5:]


def _recorded_runs(directory: Path, named: bool, batch: str) -> tuple[tuple[RunRecord, tuple[StepRecord, ...]], ...]:
    from stepwell.kernel_runtime.store.store import open_store

    store = open_store(directory, create=False, follow=named)
    try:
        runs = [store.run(run.run_id) for run in reversed(store.runs(limit=1_000_000, batch=batch))]
    finally:
        store.close()
    return tuple(run for run in runs if run is not None)

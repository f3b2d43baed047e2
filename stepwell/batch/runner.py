"""One notebook from its first cell to its last, in a kernel of its own.

The kernel learns from its environment that it is in batch, whose notebook it runs and, where the user chose one, the store;
the session in it records the runs as usual, under the identifier of this execution. What the runs did is read
from the store afterwards, so the report is what was committed and not what a cell printed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TextIO

from stepwell.batch.notebooks import choose_kernel, clear, is_run, make_folder, output_path, read_notebook, save
from stepwell.batch.parameters import checked_parameters, inject
from stepwell.batch.terminal import Progress
from stepwell.kernel_runtime.errors import InvalidInvocationError, NotebookKernelError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord
from stepwell.kernel_runtime.session.project import named_or_found
from stepwell.kernel_runtime.text import without_colours
from stepwell.kernel_runtime.versions.secrets import hidden_message

STARTUP_TIMEOUT = 120
"""Seconds until a kernel that does not answer is given up: a first start on a loaded machine compiles a lot."""
OUTPUT_TIMEOUT = 30
"""Seconds to wait for the rest of a cell's output once the cell is done."""


@dataclass(frozen=True, slots=True)
class CellFailure:
    """The cell that ended an execution."""

    cell: str
    """Its id."""
    number: int
    """As in ``In [3]``."""
    name: str
    """The exception's class."""
    message: str
    traceback: tuple[str, ...] = ()
    """Lines as the kernel formatted them, with ANSI colours."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What an execution of a notebook came to."""

    notebook: Path
    output: Path
    """The executed notebook."""
    store: Path
    runs: tuple[tuple[RunRecord, tuple[StepRecord, ...]], ...]
    """Oldest first."""
    failure: CellFailure | None
    signal: signal.Signals | None
    """What interrupted it."""

    @property
    def success(self) -> bool:
        """Whether every cell was executed."""
        return self.failure is None and self.signal is None


def run_notebook(
    path: Path,
    *,
    output: str | None = None,
    store: str | None = None,
    kernel: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    cwd: str | None = None,
    strict: bool = False,
    log_output: bool = False,
    cell_timeout: float | None = None,
    timeout: float | None = None,
    progress: TextIO | None = None,
) -> BatchResult:
    """Execute a notebook in its own folder and save it, after every cell, somewhere else.

    Parameters
    ----------
    path
        The notebook; never written.
    output
        A file if it ends in ``.ipynb``, else a directory; by default a new file below the store's ``runs/``.
    store
        The store directory, for the kernel too; by default the one that the notebook's session would use.
    kernel
        An installed kernel's name, in place of the notebook's own.
    parameters
        Values for names that the cell tagged ``parameters`` assigns.
    cwd
        The kernel's working directory; by default the notebook's folder.
    strict
        Whether a value that cannot be stored is a failure of its step.
    log_output
        Whether the output of cells is written to `progress` as it comes.
    cell_timeout, timeout
        Seconds after which a cell, or the whole run, is interrupted and fails.
    progress
        Where to say which cell runs.

    Raises
    ------
    NotebookNotFoundError, NotebookKernelError
        If there is nothing to run, or nothing to run it with.
    NotebookError
        If the executed notebook cannot be written.
    StoreError
        If the store cannot be used.
    """
    from stepwell.kernel_runtime.store.store import open_store

    path = path.absolute()
    notebook = read_notebook(path)
    inject(notebook, checked_parameters(notebook, parameters or {}))
    folder = path.parent if cwd is None else Path(cwd).absolute()
    if not folder.is_dir():
        raise InvalidInvocationError(f"there is no directory {folder}", remedy="--cwd names an existing directory")
    kernel_name = choose_kernel(notebook, path, kernel)
    directory, named = named_or_found(store, path.parent)
    batch = new_id()
    target = output_path(path, output, runs=directory / "runs", batch=batch)
    if output is not None:
        make_folder(target)
    opened = open_store(directory, follow=named)
    opened.close()
    saved = partial(save, notebook, target, opened.folder if output is None else None)
    clear(notebook)
    saved()

    environment = {**os.environ, "STEPWELL_BATCH": batch, "STEPWELL_NOTEBOOK": str(path)}
    if strict:
        environment["STEPWELL_STRICT"] = "1"
    if store is not None or "STEPWELL_STORE" in environment:
        # Absolute: the kernel's folder is not ours.
        environment["STEPWELL_STORE"] = str(directory)
    failure, received = _execute(
        notebook,
        saved,
        kernel_name,
        folder=folder,
        environment=environment,
        progress=Progress(progress, sum(map(is_run, notebook.cells)), log_output=log_output),
        cell_timeout=cell_timeout,
        timeout=timeout,
    )
    return BatchResult(path, target, directory, _recorded_runs(directory, named, batch), failure, received)


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
    # What the kernel's process itself writes is no output of a cell; it matters only if the process dies.
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
    """Return what a kernel formatted without secrets; where there is one, also without the colours that stand between its words."""
    plain = without_colours(line)
    hidden = hidden_message(plain)
    return line if hidden == plain else hidden


def _tail(log: IO[bytes], lines: int = 5) -> list[str]:
    log.seek(0)
    written = log.read().decode("utf-8", "replace").strip().splitlines()
    # The kernel's own advice at its start is not why it died.
    return [line for line in written if "IPKernelApp] WARNING" not in line][-lines:]


def _recorded_runs(directory: Path, named: bool, batch: str) -> tuple[tuple[RunRecord, tuple[StepRecord, ...]], ...]:
    from stepwell.kernel_runtime.store.store import open_store

    store = open_store(directory, create=False, follow=named)
    try:
        found = [store.run(run.run_id) for run in reversed(store.runs(limit=1_000_000, batch=batch))]
    finally:
        store.close()
    return tuple(run for run in found if run is not None)

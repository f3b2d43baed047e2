"""What an execution came to, for a machine (one JSON object) and for a reader (a few lines)."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from stepwell.batch.runner import BatchResult, CellFailure
from stepwell.batch.terminal import is_terminal
from stepwell.kernel_runtime import text
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_TRACEBACK_LINES = 24
_SHOWN_KEYS = 6
_WORTH_TELLING = 1.0
"""Seconds that reuse saved, from which on the report tells them."""


def as_json(notebook: Path | None, result: BatchResult | None, error: dict[str, Any] | None = None) -> str:
    """Return the text that ``--json`` prints; parameters as of `as_dict`."""
    return text.as_json(as_dict(notebook, result, error), indent=2)


def as_dict(notebook: Path | None, result: BatchResult | None, error: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what ``--json`` prints.

    Parameters
    ----------
    notebook
        The source.
    result
        None if nothing was executed.
    error
        ``{"cell": None, "name", "message"}`` where no cell is to blame.
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
    """Return ``success``, ``failure`` or ``cancelled``; a run that its kernel did not live to end has one of the last two."""
    if run.status in {"running", "interrupted"}:
        return "cancelled" if interrupted else "failure"
    return run.status


def lines(result: BatchResult, *, colour: bool) -> list[str]:
    """Return what is said after an execution: why it stopped, what its runs did."""
    said = []
    if result.signal is not None:
        where = f"in {_place(result.failure)}" if result.failure is not None else "before the first cell"
        said.append(
            f"interrupted by {result.signal.name} {where}; the steps that finished are kept: run the notebook again to go on"
        )
    elif result.failure is not None:
        said += _failure_lines(result.failure, colour=colour)
        failed = [(run, steps) for run, steps in result.runs if run.status == "failure"]
        said += [_resume_line(*failed[-1])] if failed else []
    counts = Counter(step.status for _, steps in result.runs for step in steps)
    if counts:
        words = [
            f"{counts[status]} {status}"
            for status in ("executed", "reused", "failed", "skipped", "untouched", "cancelled")
            if counts[status]
        ]
        saved = _saved_seconds(result)
        if saved >= _WORTH_TELLING:
            words.append(f"{text.duration(saved)} saved")
        executed = list(
            dict.fromkeys(step.key for _, steps in result.runs for step in steps if step.status == "executed")
        )
        named = ", ".join(executed[:_SHOWN_KEYS]) + (
            f" and {len(executed) - _SHOWN_KEYS} more" if len(executed) > _SHOWN_KEYS else ""
        )
        said.append(f"steps: {', '.join(words)}" + (f" (executed: {named})" if executed else ""))
    left_out = {step.key: step.not_kept for run, steps in result.runs if run.kind == "assets" for step in steps}
    said += [
        f"{key} is not stored ({each.partition(': ')[2]}): computed again in a kernel that needs it"
        for key, not_kept in left_out.items()
        for each in not_kept
    ]
    return said


def _saved_seconds(result: BatchResult) -> float:
    """Return how long the reused steps took when they ran: each once, and none that ran in this execution."""
    here = {run.run_id for run, _ in result.runs}
    made = {
        step.key: step.materializations[0]
        for _, steps in result.runs
        for step in steps
        if step.status == "reused" and step.materializations
    }
    return sum(each.seconds for each in made.values() if each.run_id not in here)


def _failure_lines(failure: CellFailure, *, colour: bool) -> list[str]:
    summary = f"{failure.name}: {failure.message}" if failure.message else failure.name
    shown = "\n".join(failure.traceback)
    plain = _ANSI.sub("", shown)
    said = []
    # An error of Stepwell's own has no traceback but its message, which comes anyway.
    if plain.strip() and plain.strip() != summary.strip():
        traceback = (shown if colour else plain).splitlines()
        if len(traceback) > _TRACEBACK_LINES:
            traceback = ["…", *traceback[-_TRACEBACK_LINES:]]
        said += [*traceback, ""]
    said.append(f"{_place(failure)} failed: {summary}")
    if failure.name == "ModuleNotFoundError" and failure.message == "No module named 'stepwell'":
        said.append(
            "the kernel's Python is another than this command's: pip install stepwell there, or choose another kernel with --kernel"
        )
    return said


def _place(failure: CellFailure) -> str:
    return f"cell [{failure.number}] (id {failure.cell})"


def _resume_line(run: RunRecord, steps: tuple[StepRecord, ...]) -> str:
    failed = ", ".join(step.key for step in steps if step.status == "failed") or ", ".join(run.targets)
    return (
        f"run {run.run_id} failed at {failed}; the steps that finished are kept: mend it and run the notebook again, "
        f'or in a notebook: stepwell.resume("{run.run_id}")'
    )


def wants_colour(stream: TextIO) -> bool:
    """Return whether colours may be written: to a terminal that nobody records, unless ``NO_COLOR`` is set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")

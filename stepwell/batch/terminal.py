"""Output of the command line (results on standard output, messages and progress on standard error), and the list of exit codes.

On a terminal, progress is one line that is updated; elsewhere it is one line per cell.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any, TextIO

from stepwell.commands.command import Command
from stepwell.kernel_runtime.text import coloured, in_one_line, printable, size_text

INTERRUPTED = 128
"""The exit code after an interrupt is this number plus the number of the signal, as in shells."""
EXIT_CODES = """\
exit codes:
  0    every cell was executed; other commands: success
  1    a cell failed, or its kernel died; the notebook is saved up to that cell. stepwell doctor: a problem was found. stepwell check: a
       step would run
  2    the command line is wrong, or the executed copy cannot be written
  3    the notebook does not exist or is not a notebook
  4    the notebook's kernel is not installed or does not start
  5    the store cannot be used
  6    stepwell trust: nothing was trusted, because it was not confirmed
  130  interrupted (Ctrl-C); 143 if ended by SIGTERM; the notebook is saved up to the interrupted cell
"""
STORE_HELP = "the store directory, which contains catalog.duckdb (default: $STEPWELL_STORE, else .stepwell in the project's root)"


def print_result(result: str) -> None:
    """Print a result on standard output."""
    sys.stdout.write(printable(result) + "\n")
    # If the pipe is closed, raise the error here and not at the end of the process.
    sys.stdout.flush()


def say(line: str, *, colours: bool = False) -> None:
    """Print a message on standard error; keep its colours if `colours` is True."""
    sys.stderr.write((coloured(line) if colours else printable(line)) + "\n")


def show(command: Command[Any, Any], results: Sequence[Any], *, json: bool, about: dict[str, Any]) -> None:
    """Print results on standard output, as text or as JSON."""
    if json:
        print_result(command.json(results, about))
        return
    for result in results:
        print_result(command.text(result))


_FIRST_WORDS = 48


class Progress:
    """Prints the progress of an execution.

    Parameters
    ----------
    stream
        The stream to write to; None prints nothing.
    total
        The number of cells to execute.
    log_output
        If True, also write the output of cells to the stream.
    """

    def __init__(self, stream: TextIO | None, total: int, *, log_output: bool = False) -> None:
        self._log_output = log_output
        self._stream = stream
        self._total = total
        self._is_terminal = stream is not None and is_terminal(stream)
        self._label = ""
        self._note = ""
        self._began = 0.0

    def begin(self, number: int, source: str) -> None:
        """Print that a cell begins; ``number`` counts from 1."""
        self._label = f"cell {number}/{self._total}  {in_one_line(first_words(source))}"
        self._began = monotonic()
        self.tick()

    def tick(self) -> None:
        """Update the elapsed time of the line."""
        if self._is_terminal and self._label:
            note = f"  {self._note}" if self._note else ""
            self._rewrite(f"{self._label}  {monotonic() - self._began:.1f} s{note}")

    def note(self, line: str) -> None:
        """Print a note about the running cell, which waits for another process."""
        line = self._note = in_one_line(line)
        if self._is_terminal:
            self.tick()
        elif self._stream is not None:
            self._stream.write(f"{self._label}  {line}\n")
            self._stream.flush()

    def log(self, text: str) -> None:
        """Write output of the running cell if `log_output` is True."""
        if self._stream is None or not self._log_output:
            return
        if self._is_terminal:
            self._rewrite("")
        self._stream.write(coloured(text))
        self._stream.flush()

    def end(self, outcome: str = "") -> None:
        """Print that the cell ended, with its outcome if it did not succeed."""
        line = f"{self._label}  {monotonic() - self._began:.1f} s" + (f"  {outcome}" if outcome else "")
        if self._is_terminal:
            self._rewrite(line)
        elif self._stream is not None:
            self._stream.write(line + "\n")
            self._stream.flush()
        self._label = self._note = ""

    def close(self) -> None:
        """Clear the updated line, so that later output starts on an empty line."""
        if self._is_terminal:
            self._rewrite("")

    def _rewrite(self, line: str) -> None:
        assert self._stream is not None
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[2K" + line[:width])
        self._stream.flush()


def is_terminal(stream: TextIO) -> bool:
    """Return True if lines of a stream can be rewritten: the stream is a terminal whose output is not recorded (``CI``)."""
    return stream.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def first_words(source: str) -> str:
    """Return the first line of a cell, shortened."""
    line = re.sub(r"\s+", " ", next((line for line in source.splitlines() if line.strip()), "")).strip()
    return line if len(line) <= _FIRST_WORDS else line[: _FIRST_WORDS - 1] + "…"


def show_files(checked_count: int, total: int, size: int) -> None:
    """Update the line that shows the number of value files that a check has read."""
    end = "\r" if checked_count < total else "\r\033[K"
    sys.stderr.write(f"  value files: {checked_count:,} of {total:,}, {size_text(size)}{end}")
    sys.stderr.flush()

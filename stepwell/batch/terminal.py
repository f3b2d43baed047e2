"""Output of the command line: results on standard output, messages and progress on standard error; and the list of exit codes.

On a terminal, the progress of a notebook is one line that is updated. In a file or pipe, one line is added for each executed cell.
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
"""The exit code of an interrupted command is this number plus the number of the signal, as in shells."""
EXIT_CODES = """\
exit codes:
  0    every cell was executed; other commands: success
  1    a cell failed, or the kernel died; the executed copy is saved up to this cell. stepwell doctor: a problem was found. stepwell check:
       a step would run or may run
  2    the command line is wrong, or the executed copy cannot be written
  3    the notebook does not exist or is not a notebook
  4    the notebook's kernel is not installed or does not start
  5    the store cannot be used
  6    stepwell trust: no value was accepted, because you did not confirm
  130  interrupted by Ctrl-C (143: by SIGTERM); the executed copy is saved up to the interrupted cell
"""
STORE_HELP = "the store directory, which contains catalog.duckdb (default: $STEPWELL_STORE, else .stepwell in the project's root)"


def print_result(result: str) -> None:
    """Print a result on standard output; control characters are escaped."""
    sys.stdout.write(printable(result) + "\n")
    # If the reader has closed the pipe, the error is raised here, where it is handled, and not at the end of the process.
    sys.stdout.flush()


def say(line: str, *, colours: bool = False) -> None:
    """Print a message on standard error. ANSI colours in the message are kept if `colours` is True; other control characters are escaped."""
    sys.stderr.write((coloured(line) if colours else printable(line)) + "\n")


def show(command: Command[Any, Any], results: Sequence[Any], *, json: bool, about: dict[str, Any]) -> None:
    """Print the results of a command on standard output.

    Parameters
    ----------
    command
        The command that returned the results.
    results
        The results of `Command.call`.
    json
        True to print JSON, False to print text.
    about
        Members to add to each JSON object, such as the store.
    """
    if json:
        print_result(command.json(results, about))
        return
    for result in results:
        print_result(command.text(result))


_FIRST_WORDS = 48


class Progress:
    """Prints the progress of the execution of a notebook.

    Parameters
    ----------
    stream
        The stream to print to; None prints nothing.
    total
        The number of cells to execute.
    log_output
        True to print the output of cells, too.
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
        """Begin the progress line of a cell. The line is shown now if the stream is a terminal, else when the cell ends.

        Parameters
        ----------
        number
            The number of the cell among the cells to execute; the first is 1.
        source
            The source of the cell, whose first line is shown.
        """
        self._label = f"cell {number}/{self._total}  {in_one_line(first_words(source))}"
        self._began = monotonic()
        self.tick()

    def tick(self) -> None:
        """Print the elapsed time of the running cell again, if the stream is a terminal."""
        if self._is_terminal and self._label:
            note = f"  {self._note}" if self._note else ""
            self._rewrite(f"{self._label}  {monotonic() - self._began:.1f} s{note}")

    def note(self, line: str) -> None:
        """Print a note that the running cell waits for another process."""
        line = self._note = in_one_line(line)
        if self._is_terminal:
            self.tick()
        elif self._stream is not None:
            self._stream.write(f"{self._label}  {line}\n")
            self._stream.flush()

    def log(self, text: str) -> None:
        """Print output of the running cell; do nothing if this object was made with ``log_output=False``."""
        if self._stream is None or not self._log_output:
            return
        if self._is_terminal:
            self._rewrite("")
        self._stream.write(coloured(text))
        self._stream.flush()

    def end(self, outcome: str = "") -> None:
        """Print that the running cell ended, and its duration.

        Parameters
        ----------
        outcome
            ``failed`` or ``interrupted``; empty if the cell succeeded.
        """
        line = f"{self._label}  {monotonic() - self._began:.1f} s" + (f"  {outcome}" if outcome else "")
        if self._is_terminal:
            self._rewrite(line)
        elif self._stream is not None:
            self._stream.write(line + "\n")
            self._stream.flush()
        self._label = self._note = ""

    def close(self) -> None:
        """Clear the progress line on a terminal, so that later output starts on an empty line."""
        if self._is_terminal:
            self._rewrite("")

    def _rewrite(self, line: str) -> None:
        assert self._stream is not None
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[2K" + line[:width])
        self._stream.flush()


def is_terminal(stream: TextIO) -> bool:
    """Return True if a stream is a terminal on which a printed line can be replaced.

    Return False if the environment variable ``CI`` is set: a CI system records the output in a log, which would contain every replaced line.
    """
    return stream.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def first_words(source: str) -> str:
    """Return the first non-empty line of a cell's source, cut to 48 characters."""
    line = re.sub(r"\s+", " ", next((line for line in source.splitlines() if line.strip()), "")).strip()
    return line if len(line) <= _FIRST_WORDS else line[: _FIRST_WORDS - 1] + "…"


def show_files(checked_count: int, total: int, size: int) -> None:
    """Print how many value files ``stepwell doctor`` has checked. Each call replaces the line that the previous call printed.

    Parameters
    ----------
    checked_count, total
        The number of files checked so far, and the number of all files.
    size
        The number of bytes checked so far.
    """
    end = "\r" if checked_count < total else "\r\033[K"
    sys.stderr.write(f"  value files: {checked_count:,} of {total:,}, {size_text(size)}{end}")
    sys.stderr.flush()

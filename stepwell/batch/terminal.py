"""Output of the command line: results on standard output, messages and progress on standard error; and its exit codes.

On a terminal progress is one line that is updated, elsewhere one line per cell.
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
"""Plus the signal's number, as shells count."""
EXIT_CODES = """\
exit codes:
  0    every cell was executed; of other commands: it was done
  1    a cell failed, or its kernel died; the notebook is saved up to there. stepwell doctor: something is wrong. stepwell check: something
       would be computed
  2    the command line is wrong, or the executed copy cannot be written
  3    the notebook does not exist or is not a notebook
  4    the notebook's kernel is not installed or does not start
  5    the store cannot be used
  6    stepwell trust: nothing was taken over, because nobody said yes
  130  interrupted (Ctrl-C); 143 when ended by SIGTERM; the notebook is saved up to there
"""
STORE_HELP = (
    "the store directory, the one with catalog.duckdb (default: $STEPWELL_STORE, else .stepwell in the project's root)"
)


def print_result(result: str) -> None:
    """Print a result on standard output."""
    sys.stdout.write(printable(result) + "\n")
    # A reader that has gone is noticed here and not when the process ends.
    sys.stdout.flush()


def say(line: str, *, colours: bool = False) -> None:
    """Print a message on standard error, with the colours that it may have."""
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
    """Says which cell runs.

    Parameters
    ----------
    stream
        Where to; None says nothing.
    total
        How many cells will be executed.
    log_output
        Whether the output of cells is written there, too.
    """

    def __init__(self, stream: TextIO | None, total: int, *, log_output: bool = False) -> None:
        self._log_output = log_output
        self._stream = stream
        self._total = total
        self._live = stream is not None and is_terminal(stream)
        self._label = ""
        self._note = ""
        self._began = 0.0

    def begin(self, number: int, source: str) -> None:
        """Say that a cell begins; ``number`` counts from 1."""
        self._label = f"cell {number}/{self._total}  {in_one_line(first_words(source))}"
        self._began = monotonic()
        self.tick()

    def tick(self) -> None:
        """Bring the elapsed time of the updating line up to date."""
        if self._live and self._label:
            note = f"  {self._note}" if self._note else ""
            self._rewrite(f"{self._label}  {monotonic() - self._began:.1f} s{note}")

    def note(self, line: str) -> None:
        """Say what the cell that runs waits for."""
        line = self._note = in_one_line(line)
        if self._live:
            self.tick()
        elif self._stream is not None:
            self._stream.write(f"{self._label}  {line}\n")
            self._stream.flush()

    def log(self, text: str) -> None:
        """Write output of the cell that runs, if it is to be logged."""
        if self._stream is None or not self._log_output:
            return
        if self._live:
            self._rewrite("")
        self._stream.write(coloured(text))
        self._stream.flush()

    def end(self, outcome: str = "") -> None:
        """Say that the cell is over, with a word if it did not end as cells do."""
        line = f"{self._label}  {monotonic() - self._began:.1f} s" + (f"  {outcome}" if outcome else "")
        if self._live:
            self._rewrite(line)
        elif self._stream is not None:
            self._stream.write(line + "\n")
            self._stream.flush()
        self._label = self._note = ""

    def close(self) -> None:
        """Take the updating line away: what follows starts on a line of its own."""
        if self._live:
            self._rewrite("")

    def _rewrite(self, line: str) -> None:
        assert self._stream is not None
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[2K" + line[:width])
        self._stream.flush()


def is_terminal(stream: TextIO) -> bool:
    """Return True if lines can be rewritten there: a terminal, and nobody collects what it shows (``CI``)."""
    return stream.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def first_words(source: str) -> str:
    """Return how a cell begins, on one short line."""
    line = re.sub(r"\s+", " ", next((line for line in source.splitlines() if line.strip()), "")).strip()
    return line if len(line) <= _FIRST_WORDS else line[: _FIRST_WORDS - 1] + "…"


def show_files(done: int, total: int, size: int) -> None:
    """Show how many value files a check has read, on one line that is updated."""
    end = "\r" if done < total else "\r\033[K"
    sys.stderr.write(f"  value files: {done:,} of {total:,}, {size_text(size)}{end}")
    sys.stderr.flush()

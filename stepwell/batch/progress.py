"""How far a batch run is, on standard error: one updating line on a terminal, one line a cell elsewhere."""

from __future__ import annotations

import os
import re
import shutil
from time import monotonic
from typing import TextIO

from stepwell.kernel_runtime.text import coloured, in_one_line

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
    """Return whether lines can be rewritten there: a terminal, and nobody collects what it shows (``CI``)."""
    return stream.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def first_words(source: str) -> str:
    """Return how a cell begins, on one short line."""
    line = re.sub(r"\s+", " ", next((line for line in source.splitlines() if line.strip()), "")).strip()
    return line if len(line) <= _FIRST_WORDS else line[: _FIRST_WORDS - 1] + "…"

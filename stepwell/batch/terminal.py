"""What the command line prints and where: results on standard output, messages on standard error; and its exit codes."""

from __future__ import annotations

import sys

from stepwell.kernel_runtime.text import coloured, printable

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

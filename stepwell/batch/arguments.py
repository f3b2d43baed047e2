"""What the commands share: flags, the store that is meant, and where results and messages go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stepwell.kernel_runtime.text import coloured, printable

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import Store

OK, CELL_FAILED, USAGE, NO_NOTEBOOK, NO_KERNEL, NO_STORE, NOT_TRUSTED = range(7)
INTERRUPTED = 128
"""Plus the signal's number, as shells count."""

EXIT_CODES = """\
exit codes:
  0    every cell was executed; of other commands: it was done
  1    a cell failed, or its kernel died; the notebook is saved up to there. stepwell doctor: something is wrong
  2    the command line is wrong, or --output cannot be written
  3    the notebook does not exist or is not a notebook
  4    the notebook's kernel is not installed or does not start
  5    the store cannot be used
  6    stepwell trust: nothing was taken over, because nobody said yes
  130  interrupted (Ctrl-C); 143 when ended by SIGTERM; the notebook is saved up to there
"""


class Commands(Protocol):
    """What ``argparse`` gives for adding commands."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Add a command."""


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add ``--store``."""
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="the store directory, the one with catalog.duckdb (default: $STEPWELL_STORE, else .stepwell in the project's root)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, and nothing else there"
    )


def count(text: str) -> int:
    """Read a number of things, one at least."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs")
    return int(text)


def named_directory(asked: argparse.Namespace) -> tuple[Path, bool]:
    """Return the directory of the store that a command line means, and whether the user named it."""
    from stepwell.kernel_runtime.session.project import named_or_found

    return named_or_found(asked.store, Path.cwd())


@contextmanager
def named_store(asked: argparse.Namespace) -> Iterator[Store]:
    """Open the store that a command line means; it must be there.

    Raises
    ------
    StoreError
        If it is not, or cannot be used.
    """
    from stepwell.kernel_runtime.store.store import open_store

    directory, named = named_directory(asked)
    store = open_store(directory, create=False, follow=named, tell=say)
    try:
        yield store
    finally:
        store.close()


def print_result(result: str) -> None:
    """Print a result on standard output."""
    sys.stdout.write(printable(result) + "\n")
    # A reader that has gone is noticed here and not when the process ends.
    sys.stdout.flush()


def say(line: str, *, colours: bool = False) -> None:
    """Print a message on standard error, with the colours that it may have."""
    sys.stderr.write((coloured(line) if colours else printable(line)) + "\n")

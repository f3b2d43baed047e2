"""``stepwell run``: execute a notebook."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stepwell.batch.arguments import (
    CELL_FAILED,
    EXIT_CODES,
    INTERRUPTED,
    OK,
    Commands,
    add_json,
    add_store,
    print_result,
    say,
)

_RUN = """\
Execute a notebook from its first cell to its last, in its own folder and in a fresh kernel, and save the executed copy
after every cell. Steps whose results the store has are reused. The notebook itself is never written.
"""
_RUN_MORE = """\
standard output is the path of the executed notebook; progress and errors go to standard error. With --json it is one object:
  {"notebook", "status": "success"|"failure", "runs": [{"run_id", "status", "steps": [{"key", "status", "seconds"}]}],
   "error": null | {"cell", "name", "message"}}
cells tagged skip-execution are not executed; those tagged raises-exception may fail.

"""


def add(commands: Commands) -> None:
    """Add the command."""
    run = commands.add_parser(
        "run",
        help="execute a notebook",
        description=_RUN,
        epilog=_RUN_MORE + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("notebook", metavar="NOTEBOOK", type=Path, help="the notebook to execute")
    run.add_argument(
        "--output",
        metavar="PATH",
        help="where the executed notebook goes: a file if it ends in .ipynb, else a directory (default: the store's runs/)",
    )
    add_store(run)
    run.add_argument("--kernel", metavar="NAME", help="the kernel to use (default: the notebook's own)")
    run.add_argument("--strict", action="store_true", help="fail where a value cannot be stored")
    add_json(run)
    run.set_defaults(command=_run)


def _run(asked: argparse.Namespace) -> int:
    from stepwell.batch import report
    from stepwell.batch.runner import run_notebook

    result = run_notebook(
        asked.notebook,
        output=asked.output,
        store=asked.store,
        kernel=asked.kernel,
        strict=asked.strict,
        progress=sys.stderr,
    )
    colours = report.wants_colour(sys.stderr)
    for line in report.lines(result, colour=colours):
        say(line, colours=colours)
    if asked.json:
        say(f"saved {result.output}")
        print_result(report.as_json(result.notebook, result))
    else:
        print_result(str(result.output))
    if result.signal is not None:
        return INTERRUPTED + result.signal
    return OK if result.success else CELL_FAILED

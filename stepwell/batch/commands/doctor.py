"""``stepwell doctor``: checks a store and its surroundings, and says what to do."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from stepwell.batch.arguments import NO_STORE, OK, Commands, add_json, add_store, named_directory, print_result
from stepwell.kernel_runtime.text import as_json

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.doctor.checks import Finding

PROBLEMS = 1
_WHAT = """\
Check a store and what it stands on: locks, file system, permissions, key, room, every table of the catalog, every byte of every
value file. Other processes may use the store meanwhile. Damaged value files are set aside: what they held is computed again.
"""
_MORE = """\
exit codes:
  0  nothing is wrong (lines with ! are good to know)
  1  problems were found; each line with a cross says what to do
  5  there is no store, or it cannot be used as it is
"""


def add(commands: Commands) -> None:
    """Add the command."""
    doctor = commands.add_parser(
        "doctor",
        help="check a store and its surroundings",
        description=_WHAT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_store(doctor)
    doctor.add_argument(
        "--quick", action="store_true", help="do not read the value files, only look whether they are there"
    )
    doctor.add_argument(
        "--clean",
        action="store_true",
        help="remove what is surely garbage: leftovers of dead processes, value files without a row, both older than an hour, and damaged ones",
    )
    doctor.add_argument(
        "--rebuild",
        action="store_true",
        help="make a new catalog of what can be read of the old one and of the value files' headers; the old one is kept beside it",
    )
    add_json(doctor)
    doctor.set_defaults(command=_doctor)


def _doctor(asked: argparse.Namespace) -> int:
    from stepwell.kernel_runtime.store.doctor.checks import worst
    from stepwell.kernel_runtime.store.doctor.examination import examine

    directory, named = named_directory(asked)
    progress = _progress if sys.stderr.isatty() else None
    findings: list[Finding] = []
    for finding in examine(
        directory, follow=named, full=not asked.quick, clean=asked.clean, mend=asked.rebuild, progress=progress
    ):
        findings.append(finding)
        if not asked.json:
            print_result(str(finding))
    status = worst(findings)
    if asked.json:
        shown = {"store": str(directory), "status": status, "findings": [each.as_dict() for each in findings]}
        print_result(as_json(shown))
    return {"problem": PROBLEMS, "unusable": NO_STORE}.get(status, OK)


def _progress(done: int, total: int, size: int) -> None:
    from stepwell.kernel_runtime.text import size_text

    end = "\r" if done < total else "\r\033[K"
    sys.stderr.write(f"  value files: {done:,} of {total:,}, {size_text(size)}{end}")
    sys.stderr.flush()

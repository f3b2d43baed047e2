"""The commands of ``stepwell``, one file each: ``add(commands)`` adds its flags and names the function that runs it."""

from __future__ import annotations

from stepwell.batch.arguments import Commands
from stepwell.batch.commands import diff, doctor, forget, gc, keep, pack, run, runs, sql, status, trust, versions

MODULES = (run, status, runs, sql, versions, diff, keep, gc, forget, pack, trust, doctor)
"""In the order in which ``stepwell --help`` lists them."""


def add_all(commands: Commands) -> None:
    """Add every command."""
    for module in MODULES:
        module.add(commands)

"""What a key means when several notebooks have defined it (DESIGN, section 1, current)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.kernel_runtime.errors import AmbiguousKeyError
from stepwell.kernel_runtime.planning.memo import choose_current
from stepwell.kernel_runtime.records.keys import listed
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.session.project import notebook_exists


def choose(key: str, rows: list[Current], own: Iterable[str], directory: Path) -> Materialization | None:
    """Return the current materialization that a reader means, or None if there is none.

    Parameters
    ----------
    rows
        What is current in each notebook, newest first.
    own
        Names of the notebooks or modules whose own it is, the most specific first.
    directory
        The store directory, which recorded paths of notebooks are relative to.

    Raises
    ------
    AmbiguousKeyError
        If none of them is the reader's own, more than one still exists, and their data versions differ.
    """
    for notebook in own:
        found = next((row.materialization for row in rows if notebook and row.notebook == notebook), None)
        if found is not None:
            return found
    alive = [row for row in rows if notebook_exists(row.notebook, directory)]
    versions = {row.materialization.data_version or row.materialization.id for row in alive}
    if len(versions) > 1:
        raise AmbiguousKeyError(
            f"{key!r} is defined by several notebooks and their values differ",
            where=listed(row.notebook for row in alive),
            remedy=f"run the cell that defines {key} here, or choose a notebook: stepwell.load({key!r}, notebook={alive[0].notebook!r})",
        )
    return choose_current(alive or rows, "")

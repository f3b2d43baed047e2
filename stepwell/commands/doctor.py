"""``doctor``: the health of a store and its surroundings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.commands.command import NO_STORE, Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.session.requests import AnyStore

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.doctor.contents import Finding, Progress

PROBLEMS = 1


def _data(findings: list[Finding]) -> dict[str, Any]:
    from stepwell.kernel_runtime.store.doctor.contents import worst

    return {"status": worst(findings), "findings": [each.as_dict() for each in findings]}


def _exit_code(findings: list[Finding]) -> int:
    from stepwell.kernel_runtime.store.doctor.contents import worst

    return {"problem": PROBLEMS, "unusable": NO_STORE}.get(worst(findings), 0)


@command(
    needs="directory",
    options={"progress": Option(hidden=True)},
    text=lambda findings: "\n".join(map(str, findings)),
    data=_data,
    exit_code=_exit_code,
    epilog="""\
exit codes:
  0  nothing is wrong (lines with ! are good to know)
  1  problems were found; each line with a cross says what to do
  5  there is no store, or it cannot be used as it is
""",
)
def doctor(
    *,
    quick: bool = False,
    clean: bool = False,
    rebuild: bool = False,
    store: AnyStore = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Check a store and its surroundings: locks, file system, permissions, key, free space, every table and every value file.

    Other processes may use the store meanwhile. Damaged value files are set aside, and their values are computed again. The store may be one
    that cannot be opened.

    Parameters
    ----------
    quick
        Do not read the value files, only look whether they are there.
    clean
        Remove garbage: leftovers of dead processes and value files without a row, both older than an hour, and damaged files.
    rebuild
        Make a new catalog of what can be read of the old one and of the value files' headers; the old one is kept.
    store
        A store directory or an open store; by default the session's.
    progress
        Called with the value files that are checked, their number, and the bytes checked.

    Raises
    ------
    StoreError
        If there is no store.
    """
    from stepwell.kernel_runtime.store.doctor.examination import examine

    session = get_session()
    if store is None:
        directory, named = session.location
    else:
        # A directory is not opened here: the store may be one that cannot be.
        named = True
        directory = Path(store).absolute() if isinstance(store, str | os.PathLike) else session.open(store).directory
    for opened in session.stores.values():
        opened.close()
    return list(
        examine(directory, follow=named, full=not quick, clean=clean, rebuild_catalog=rebuild, progress=progress)
    )

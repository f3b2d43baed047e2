"""``doctor``: checks of a store and its environment."""

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

    return {"status": worst(findings), "findings": [finding.as_dict() for finding in findings]}


def _exit_code(findings: list[Finding]) -> int:
    from stepwell.kernel_runtime.store.doctor.contents import worst

    return {"problem": PROBLEMS, "unusable": NO_STORE}.get(worst(findings), 0)


@command(
    needs="directory",
    options={"progress": Option(is_hidden=True)},
    text=lambda findings: "\n".join(map(str, findings)),
    data=_data,
    exit_code=_exit_code,
    epilog="""\
exit codes:
  0  no problems (lines with ! are for information)
  1  problems were found; each line with a cross says what to do
  5  the store does not exist or cannot be used in its present state
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
    """Check a store and its environment: locks, file system, permissions, key, free space, every table and every value file.

    Other processes may use the store meanwhile. Damaged value files are set aside, and their values are computed again at the next run. A store
    that cannot be opened can be checked, too.

    Parameters
    ----------
    quick
        Only check that the value files exist; do not read them.
    clean
        Remove garbage: leftovers of dead processes and value files without a row, both older than an hour, and damaged files.
    rebuild
        Build a new catalog from the readable parts of the old one and the headers of the value files; the old one is kept.
    store
        A store directory or an open store; by default the session's.
    progress
        Called with the number of value files checked, the number of all value files, and the bytes checked.

    Returns
    -------
    list of Finding
        The results of the checks, problems included.

    Raises
    ------
    StoreError
        If the store does not exist.
    """
    from stepwell.kernel_runtime.store.doctor.examination import examine

    session = get_session()
    if store is None:
        directory, named = session.location
    else:
        # Do not open the store, because it may be damaged.
        named = True
        directory = Path(store).absolute() if isinstance(store, str | os.PathLike) else session.open(store).directory
    for opened in session.stores.values():
        opened.close()
    return list(
        examine(directory, follow=named, full=not quick, clean=clean, rebuild_catalog=rebuild, progress=progress)
    )

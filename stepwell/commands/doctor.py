"""The command ``doctor``, which checks a store and the file system, key and processes that the store depends on."""

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
  0  no problem was found (lines with ! are for information)
  1  a problem was found; each line with a cross says what to do
  5  the store does not exist, or cannot be used in its present state
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

    Other processes may use the store during the check. A damaged value file is moved to the folder damaged/ of the store, and the next run that
    needs its value computes the value again. A store that cannot be opened can be checked, too.

    Parameters
    ----------
    quick
        Check only that the value files exist, not their contents; by default every byte of each file is checked.
    clean
        Delete damaged value files, including those that earlier checks moved away. Also delete two kinds of files if they are older
        than an hour: files that dead processes left, and value files that no catalog row refers to.
    rebuild
        Build a new catalog from the readable parts of the old catalog and the headers of the value files. The old catalog is kept under another
        name.
    store
        A store directory or an open store; by default the session's store.
    progress
        A function that is called repeatedly during the check with three numbers: the value files checked so far, all value files, and the bytes
        checked so far. By default no function is called.

    Returns
    -------
    list of Finding
        The result of each check, in the order of the checks.

    Raises
    ------
    StoreError
        If the store does not exist, or its catalog cannot be rebuilt.
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
    return list(examine(directory, follow=named, full=not quick, clean=clean, rebuild_catalog=rebuild, progress=progress))

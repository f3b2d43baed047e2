"""The command ``runs``, which lists the newest runs that a store records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell.commands.command import Option, Table, command, read_count
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.runs import RunRecord
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.text import duration, in_one_line, moment


def _row(run: RunRecord) -> tuple[str, ...]:
    took = duration(run.ended - run.started) if run.ended is not None else "-"
    error = f"{run.error.name}: {run.error.message.partition(chr(10))[0]}" if run.error is not None else ""
    return tuple(
        map(
            in_one_line,
            (run.run_id, moment(run.started), run.status, ", ".join(run.targets), took, run.notebook, error),
        )
    )


def _data(records: Sequence[RunRecord]) -> dict[str, Any]:
    names = ("run_id", "status", "started", "ended", "notebook", "batch")
    return {"runs": [{**{name: getattr(run, name) for name in names}, "targets": list(run.targets)} for run in records]}


@command(
    options={"limit": Option(parse=read_count, metavar="N")},
    text=lambda records: str(Table([*map(_row, records)], "no runs yet")),
    data=_data,
)
def runs(limit: int = 20, *, store: AnyStore = None) -> list[RunRecord]:
    """List the runs that the store records, newest first.

    Parameters
    ----------
    limit
        The maximum number of runs to list.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    list of RunRecord
        The newest runs.
    """
    return get_session().open(store, create=False).runs(limit=limit)

"""The command ``logs``, which shows the log records of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepwell.commands.command import command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import unknown_key
from stepwell.kernel_runtime.records.runs import LogRecord
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.store.catalog.tables import read_logs
from stepwell.kernel_runtime.text import in_one_line, moment


@dataclass(frozen=True, slots=True)
class Logs:
    """The log records of one run."""

    run_id: str
    """The identifier of the run; empty if the store has no runs."""
    records: tuple[LogRecord, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the records as JSON values."""
        return {"run_id": self.run_id, "records": [asdict(record) for record in self.records]}

    def __str__(self) -> str:
        if not self.run_id:
            return "no runs yet"
        # Continuation lines are indented so that they cannot look like separate records.
        lines = [
            f"{in_one_line(f'{moment(record.time)}  {record.level.lower():<7}  {record.step_key}')}: {record.message}".replace(
                "\n", "\n    "
            )
            for record in self.records
        ]
        return "\n".join(lines) or f"the steps of run {self.run_id} logged nothing"


@command()
def logs(run: str | None = None, *, store: AnyStore = None) -> Logs:
    """Show the log records of the steps of a run, oldest first.

    Parameters
    ----------
    run
        The identifier of the run, as stepwell runs prints it; by default the newest run.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Logs
        The log records of the run; empty if the store has no runs.

    Raises
    ------
    UnknownKeyError
        If no run in the store has the identifier.
    """
    used = get_session().open(store, create=False)
    if run is None:
        newest = used.runs(limit=1)
        return Logs(newest[0].run_id, tuple(used.catalog.ask(read_logs, newest[0].run_id))) if newest else Logs("", ())
    if used.run(run) is None:
        raise unknown_key("run", run, [record.run_id for record in used.runs(limit=50)])
    return Logs(run, tuple(used.catalog.ask(read_logs, run)))

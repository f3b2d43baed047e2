"""``logs``: the log records of a run."""

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
    """Empty if there is no run yet."""
    records: tuple[LogRecord, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {"run_id": self.run_id, "records": [asdict(record) for record in self.records]}

    def __str__(self) -> str:
        if not self.run_id:
            return "no runs yet"
        # Further lines of a record are indented: none of them may look like a record of its own.
        lines = [
            f"{in_one_line(f'{moment(each.time)}  {each.level.lower():<7}  {each.step_key}')}: {each.message}".replace(
                "\n", "\n    "
            )
            for each in self.records
        ]
        return "\n".join(lines) or f"the steps of run {self.run_id} logged nothing"


@command()
def logs(run: str | None = None, *, store: AnyStore = None) -> Logs:
    """Show what the steps of a run logged, oldest first.

    Parameters
    ----------
    run
        The run's identifier; by default that of the newest run.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError
        If there is no such run.
    """
    used = get_session().open(store, create=False)
    if run is None:
        newest = used.runs(limit=1)
        return Logs(newest[0].run_id, tuple(used.catalog.ask(read_logs, newest[0].run_id))) if newest else Logs("", ())
    if used.run(run) is None:
        raise unknown_key("run", run, [each.run_id for each in used.runs(limit=50)])
    return Logs(run, tuple(used.catalog.ask(read_logs, run)))

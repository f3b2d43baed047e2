"""From the records of a group to the rows that an appender takes: a few lists, no statement per step."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from stepwell.kernel_runtime.records.materializations import CodeVersion, Current
from stepwell.kernel_runtime.records.runs import CapturedOutput, LogRecord, RunRecord, StepRecord
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import known_codes, one_of, rows_of
from stepwell.kernel_runtime.store.catalog.schema import (
    Row,
    code_row,
    current_row,
    log_row,
    materialization_row,
    output_rows,
    run_row,
    step_row,
)


@dataclass(slots=True)
class Recorded:
    """What one call of ``record_step`` adds to a group."""

    step: StepRecord
    current: Sequence[Current]
    code: CodeVersion | None
    outputs: Sequence[CapturedOutput]
    logs: Sequence[LogRecord]


Record: TypeAlias = Recorded | RunRecord


class RowWriter:
    """Appends the rows of a group; remembers which code versions the catalog has."""

    def __init__(self) -> None:
        self.expected: frozenset[str] = frozenset()
        """Code versions of which some are probably written soon: those of the newest plan."""
        self._codes: set[str] = set()
        self._absent: frozenset[str] = frozenset()
        """Code versions that the catalog did not have, whether this process has written them since or not."""
        self._running: set[str] = set()
        """Runs whose row says so; it is replaced when they end."""
        self._state = ""

    def write(self, connection: Connection, name: str, state: str, records: Sequence[Record]) -> None:
        """Append the rows of ``records`` to the attached catalog ``name``; the caller's transaction commits them.

        What is known of the catalog holds as long as ``state`` is the same: it is another where somebody else wrote.
        """
        if state != self._state:
            self._state = state
            self.forget()
        runs: dict[str, RunRecord] = {}
        steps: list[Row] = []
        made: list[Row] = []
        current: list[Row] = []
        outputs: list[Row] = []
        logs: list[Row] = []
        codes: dict[str, CodeVersion] = {}
        now = time.time()
        for record in records:
            if isinstance(record, RunRecord):
                runs[record.run_id] = record
                continue
            step = record.step
            steps.append(step_row(step))
            if step.status != "reused":
                made.extend([materialization_row(m) for m in step.materializations])
            if record.current:
                current.extend([current_row(each, now) for each in record.current])
            if record.code is not None and record.code.digest not in self._codes:
                codes[record.code.digest] = record.code
            if record.outputs:
                outputs.extend(output_rows(step.run_id, step.key, record.outputs))
            if record.logs:
                logs.extend([log_row(log) for log in record.logs])
        made.extend(_dropped(connection, name, records))
        ended = [run.run_id for run in runs.values() if run.status != "running"]
        begun = [run_id for run_id in ended if run_id in self._running]
        if begun:
            rows_of(connection, name, "DELETE FROM @runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [begun])
        if runs:
            append(connection, f"{name}.runs", [run_row(run) for run in runs.values()])
        if codes:
            known = self._known(connection, name, codes)
            append(
                connection,
                f"{name}.code_versions",
                [code_row(code) for digest, code in codes.items() if digest not in known],
            )
            self._codes.update(codes)
        append(connection, f"{name}.steps", steps)
        append(connection, f"{name}.materializations", made)
        append(connection, f"{name}.current", current)
        append(connection, f"{name}.outputs", outputs)
        append(connection, f"{name}.logs", logs)
        self._running.update(run.run_id for run in runs.values() if run.status == "running")
        self._running.difference_update(ended)

    def _known(self, connection: Connection, name: str, codes: Collection[str]) -> set[str]:
        """Return those of some code versions that the catalog has: one query for those of a plan, not one for each group."""
        if self._absent.issuperset(codes):
            return set()
        asked = self.expected.union(codes)
        known = known_codes(connection, name, asked)
        self._absent = asked - known
        return known

    def forget(self) -> None:
        """Forget what is known after a group failed: its code versions were not committed."""
        self._codes.clear()
        self._absent = frozenset()


def _dropped(connection: Connection, name: str, records: Sequence[Record]) -> list[Row]:
    """Return the rows of reused materializations that become current and that retention dropped since they were found."""
    found = {
        each.materialization.id: each.materialization
        for record in records
        if isinstance(record, Recorded) and record.step.status == "reused"
        for each in record.current
    }
    if not found:
        return []
    asked, value = one_of(list(found))
    text = f"SELECT id FROM @materializations WHERE id IN {asked}"  # noqa: S608 - a constant of our own
    known = {row[0] for row in rows_of(connection, name, text, [value])}
    return [materialization_row(m) for m in found.values() if m.id not in known]


def append(connection: Connection, table: str, rows: Sequence[Row]) -> None:
    """Append rows to a table; what text cannot hold is replaced."""
    if not rows:
        return
    import duckdb

    appender = connection.appender(table)
    try:
        appender.append_rows(rows)
    except duckdb.InvalidInputException:
        # A lone surrogate in a text of the user's. The rows before it are kept in the appender: begin again.
        appender.clear()
        appender.append_rows([tuple(_encodable(each) for each in row) for row in rows])
    appender.flush()


def _encodable(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

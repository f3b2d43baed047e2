"""Reading and writing rows of the catalog, and the last snapshot, which is kept in memory.

Reading takes a fixed number of statements for any number of keys.

Writing turns the records of one commit into a few lists of rows for DuckDB's appender, without a statement per step.

A run with nothing to do needs the same rows as the run before. If no other process has written the catalog since then (the caller checks
this), `Remembered` returns the last snapshot, updated with the later commits of this process. This needs neither the lease nor a query.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from stepwell.kernel_runtime.errors import StoreDamagedError
from stepwell.kernel_runtime.records.bulk import no_collection
from stepwell.kernel_runtime.records.materializations import CodeVersion, Current, Materialization
from stepwell.kernel_runtime.records.runs import (
    CapturedOutput,
    FailedAttempt,
    LogRecord,
    RunRecord,
    Snapshot,
    StepRecord,
)
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.schema import (
    MATERIALIZATION_COLUMNS,
    RUN_COLUMNS,
    STEP_COLUMNS,
    Row,
    code_record,
    code_row,
    current_record,
    current_row,
    error_record,
    log_record,
    log_row,
    materialization,
    materialization_row,
    output_record,
    output_rows,
    run_record,
    run_row,
    step_materializations,
    step_record,
    step_row,
)

# The current materialization of each (notebook, key, partition), newest pointer first.
_POINTERS = "SELECT notebook, key, partition, arg_max(materialization, rowid) FROM @current {} GROUP BY notebook, key, partition ORDER BY max(rowid) DESC"
_MATERIALIZATIONS = f"SELECT {MATERIALIZATION_COLUMNS} FROM @materializations "  # noqa: S608 - constants of our own
# Inline values are omitted, because a listing of keys does not show them.
_LISTED = (
    "SELECT p.notebook, p.key, p.partition, "  # noqa: S608 - constants of our own
    + ", ".join(f"m.{column}" for column in MATERIALIZATION_COLUMNS.split(", "))
    + " FROM (SELECT notebook, key, partition, arg_max(materialization, rowid) AS id, max(rowid) AS moved FROM @current "
    "GROUP BY notebook, key, partition) p JOIN (SELECT * REPLACE (NULL AS inline) FROM @materializations) m ON m.id = p.id "
    "ORDER BY p.key, p.moved DESC"
)
# For each step: the duration of its last execution, its newest failure, and its newest attempt.
_ATTEMPTS = "SELECT key, arg_max(seconds, rowid) FILTER (WHERE status = 'executed'), max(rowid) FILTER (WHERE status = 'failed'), max(rowid) FROM @steps WHERE status IN ('executed', 'failed') AND key IN {} GROUP BY key"
_RUNS = f"SELECT {RUN_COLUMNS} FROM @runs "  # noqa: S608 - constants of our own
_STEPS = f"SELECT {STEP_COLUMNS} FROM @steps "  # noqa: S608 - constants of our own


def rows_of(connection: Connection, name: str, text: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return all rows of a query; ``@`` before the name of a table stands for the attached catalog ``name``."""
    rows: list[Row] = connection.execute(text.replace("@", f"{name}."), list(values)).fetchall()
    return rows


_BETWEEN = "\x1f"


def one_of(texts: Sequence[str]) -> tuple[str, Any]:
    """Return an SQL expression to follow ``IN`` that matches any of the strings, and the value of its parameter.

    Passing one joined string takes a third of the time of passing a list, which DuckDB converts value by value.
    """
    joined = _BETWEEN.join(texts)
    if texts and joined.count(_BETWEEN) == len(texts) - 1:
        return "(SELECT unnest(string_split(?, chr(31))))", joined
    return "(SELECT unnest(?::VARCHAR[]))", list(texts)


def read_snapshot(
    connection: Connection, name: str, keys: Collection[str], step_keys: Collection[str], code_versions: Collection[str]
) -> Snapshot:
    """Read the rows that a plan needs, with four statements for any number of steps."""
    with no_collection():
        return _snapshot(connection, name, list(keys), list(step_keys), list(code_versions))


def _snapshot(connection: Connection, name: str, keys: list[str], steps: list[str], versions: list[str]) -> Snapshot:
    asked, value = one_of(keys)
    pointers = rows_of(connection, name, _POINTERS.format(f"WHERE key IN {asked}"), [value])
    ids, of_steps, of_versions = one_of([pointer[3] or "" for pointer in pointers]), one_of(steps), one_of(versions)
    rows = rows_of(
        connection,
        name,
        _MATERIALIZATIONS
        + f"WHERE id IN {ids[0]} OR (step_key IN {of_steps[0]} AND code_version IN {of_versions[0]}) ORDER BY rowid",
        [ids[1], of_steps[1], of_versions[1]],
    )
    snapshot = Snapshot()
    known = {row[0]: materialization(row) for row in rows}
    for notebook, key, partition, id_ in pointers:
        if id_ in known:
            snapshot.current.setdefault(key, []).append(current_record(notebook, key, partition, known[id_]))
    snapshot.by_memo_key = executions(known.values(), frozenset(steps), frozenset(versions))
    _read_attempts(connection, name, steps, snapshot)
    return snapshot


def executions(
    materializations: Iterable[Materialization], step_keys: Collection[str], code_versions: Collection[str]
) -> dict[str, list[tuple[Materialization, ...]]]:
    """Group materializations by memo key and execution. They are passed oldest first; the newest execution is returned first."""
    groups: dict[str, dict[tuple[str, str], list[Materialization]]] = {}
    for m in materializations:
        if m.step_key in step_keys and m.code_version in code_versions:
            groups.setdefault(m.memo_key, {}).setdefault((m.run_id, m.step_key), []).append(m)
    return {memo_key: [tuple(results) for results in reversed(group.values())] for memo_key, group in groups.items()}


def _read_attempts(connection: Connection, name: str, steps: list[str], snapshot: Snapshot) -> None:
    asked, value = one_of(steps)
    rows = rows_of(connection, name, _ATTEMPTS.format(asked), [value])
    failed = []
    for key, seconds, newest_failure, newest in rows:
        if seconds is not None:
            snapshot.seconds[key] = seconds
        if newest_failure == newest:
            failed.append(newest)
    if failed:
        for key, run_id, memo_key, error, started, seconds in rows_of(
            connection,
            name,
            "SELECT key, run_id, memo_key, error, started, seconds FROM @steps WHERE rowid IN (SELECT unnest(?::BIGINT[]))",
            [failed],
        ):
            snapshot.failures[key] = FailedAttempt(run_id, memo_key, error_record(error), started, seconds)


def read_current(connection: Connection, name: str, key: str) -> list[Current]:
    """Read the current materialization of a key in each notebook that defined it, newest first."""
    pointers = rows_of(connection, name, _POINTERS.format("WHERE key = ?"), [key])
    known = _by_id(connection, name, [pointer[3] for pointer in pointers])
    return [
        current_record(notebook, key, partition, known[id_])
        for notebook, key, partition, id_ in pointers
        if id_ in known
    ]


def read_all_current(connection: Connection, name: str) -> list[Current]:
    """Read all current materializations with one statement, without inline values, sorted by key and then newest first."""
    with no_collection():
        rows = rows_of(connection, name, _LISTED)
        return [current_record(row[0], row[1], row[2], materialization(row[3:])) for row in rows]


def _by_id(connection: Connection, name: str, ids: list[str]) -> dict[str, Materialization]:
    if not ids:
        return {}
    asked, value = one_of(ids)
    rows = rows_of(connection, name, _MATERIALIZATIONS + f"WHERE id IN {asked}", [value])
    return {row[0]: materialization(row) for row in rows}


def read_run(connection: Connection, name: str, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
    """Read a run and its steps in the order in which they were recorded; None if there is no such run."""
    run_rows = rows_of(connection, name, _RUNS + "WHERE run_id = ?", [run_id])
    if not run_rows:
        return None
    rows = rows_of(connection, name, _STEPS + "WHERE run_id = ? ORDER BY rowid", [run_id])
    known = _by_id(connection, name, [id_ for row in rows for id_ in step_materializations(row)])
    run = run_record(run_rows[0])
    steps = tuple(step_record(row, known) for row in rows)
    if run.kind == "job":
        # In the catalog, the keys of a job's steps begin with the name of the job; in the records of the run they do not.
        inside = f"{run.targets[0]}."
        steps = tuple(replace(step, key=step.key.removeprefix(inside)) for step in steps)
    return run, steps


def read_runs(connection: Connection, name: str, limit: int, batch: str) -> list[RunRecord]:
    """Read the runs whose start or end was committed last, newest first."""
    where, values = ("WHERE batch = ? ", [batch]) if batch else ("", [])
    rows = rows_of(connection, name, _RUNS + where + "ORDER BY rowid DESC LIMIT ?", [*values, limit])
    return [run_record(row) for row in rows]


def read_attempts(connection: Connection, name: str, step_key: str, limit: int = 20) -> list[StepRecord]:
    """Read the latest attempts of a step, newest first. A reuse of the preceding attempt's result is omitted."""
    where = (
        "WHERE key = ? AND status IN ('executed', 'reused', 'failed', 'cancelled') "
        "QUALIFY status <> 'reused' OR materializations IS DISTINCT FROM lag(materializations) OVER (ORDER BY rowid) "
        "ORDER BY rowid DESC LIMIT ?"
    )
    rows = rows_of(connection, name, _STEPS + where, [step_key, limit])
    known = _by_id(connection, name, [id_ for row in rows for id_ in step_materializations(row)])
    return [step_record(row, known) for row in rows]


def read_outputs(connection: Connection, name: str, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
    """Read the captured outputs of an executed step."""
    text = "SELECT kind, stream, text, data, metadata FROM @outputs WHERE run_id = ? AND step_key = ? ORDER BY rowid"
    return tuple(output_record(row) for row in rows_of(connection, name, text, [run_id, step_key]))


def read_logs(connection: Connection, name: str, run_id: str, step_key: str = "") -> list[LogRecord]:
    """Read the log records of one step of a run, or of all steps if ``step_key`` is empty, oldest first."""
    text = "SELECT run_id, step_key, time, level, message FROM @logs WHERE run_id = ? AND ? IN ('', step_key) ORDER BY time, rowid"
    return [log_record(row) for row in rows_of(connection, name, text, [run_id, step_key])]


def read_codes(connection: Connection, name: str, digests: Collection[str]) -> dict[str, CodeVersion]:
    """Read recorded code versions with their parts, by digest, with one statement."""
    asked, value = one_of(list(digests))
    text = f"SELECT digest, parts FROM @code_versions WHERE digest IN {asked}"  # noqa: S608 - constants of our own
    with no_collection():
        codes = {}
        for row in rows_of(connection, name, text, [value]):
            # Code versions are only used for explanations, so an unreadable one is omitted.
            with suppress(StoreDamagedError):
                codes[row[0]] = code_record(row)
        return codes


def read_keys(connection: Connection, name: str) -> list[str]:
    """Read every key that has a current materialization."""
    return [
        key
        for (key,) in rows_of(connection, name, "SELECT DISTINCT key FROM @current WHERE key IS NOT NULL ORDER BY key")
    ]


def read_history(connection: Connection, name: str, key: str, limit: int) -> list[Materialization]:
    """Read the newest materializations of a key, newest first."""
    rows = rows_of(connection, name, _MATERIALIZATIONS + "WHERE key = ? ORDER BY rowid DESC LIMIT ?", [key, limit])
    return [materialization(row) for row in rows]


def read_writers(connection: Connection, name: str, path: str) -> list[Materialization]:
    """Read the materializations whose effects include a file, newest first."""
    rows = rows_of(
        connection,
        name,
        _MATERIALIZATIONS + "WHERE contains(effects, ?) ORDER BY rowid DESC LIMIT 50",
        [json.dumps(path)],
    )
    return [materialization(row) for row in rows]


def read_counts(connection: Connection, name: str) -> dict[str, int]:
    """Count materializations and runs."""
    ((materializations, runs),) = rows_of(
        connection, name, "SELECT (SELECT count(*) FROM @materializations), (SELECT count(*) FROM @runs)"
    )
    return {"materializations": materializations, "runs": runs}


def known_codes(connection: Connection, name: str, digests: Collection[str]) -> set[str]:
    """Return those of the digests for which the catalog contains a code version."""
    asked, value = one_of(list(digests))
    text = f"SELECT digest FROM @code_versions WHERE digest IN {asked}"  # noqa: S608 - constants of our own
    rows = rows_of(connection, name, text, [value])
    return {digest for (digest,) in rows}


@dataclass(slots=True)
class Recorded:
    """The records of one call to ``record_step``."""

    step: StepRecord
    current: Sequence[Current]
    code: CodeVersion | None
    outputs: Sequence[CapturedOutput]
    logs: Sequence[LogRecord]


Record: TypeAlias = Recorded | RunRecord


class RowWriter:
    """Appends the rows of a commit; remembers which code versions the catalog contains."""

    def __init__(self) -> None:
        self.expected_codes: frozenset[str] = frozenset()
        """The digests of the newest plan's code versions, some of which will probably be written soon."""
        self._codes: set[str] = set()
        self._absent: frozenset[str] = frozenset()
        """Digests of code versions that the catalog did not contain when it was last queried."""
        self._running: set[str] = set()
        """Ids of runs whose row has the status ``running``; the row of a run is replaced when the run ends."""
        self._state = ""

    def write(self, connection: Connection, name: str, state: str, records: Sequence[Record]) -> None:
        """Append the rows of ``records`` to the attached catalog ``name``, in the caller's transaction.

        The remembered code versions are forgotten when ``state`` changes, which it does when another process has written.
        """
        if state != self._state:
            self._state = state
            self.forget()
        runs: dict[str, RunRecord] = {}
        steps: list[Row] = []
        materializations: list[Row] = []
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
                materializations.extend([materialization_row(m) for m in step.materializations])
            if record.current:
                current.extend([current_row(pointer, now) for pointer in record.current])
            if record.code is not None and record.code.digest not in self._codes:
                codes[record.code.digest] = record.code
            if record.outputs:
                outputs.extend(output_rows(step.run_id, step.key, record.outputs))
            if record.logs:
                logs.extend([log_row(log) for log in record.logs])
        materializations.extend(_rows_of_dropped(connection, name, records))
        ended = [run.run_id for run in runs.values() if run.status != "running"]
        begun = [run_id for run_id in ended if run_id in self._running]
        if begun:
            rows_of(connection, name, "DELETE FROM @runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [begun])
        if runs:
            append(connection, f"{name}.runs", [run_row(run) for run in runs.values()])
        if codes:
            known = self._stored_codes(connection, name, codes)
            append(
                connection,
                f"{name}.code_versions",
                [code_row(code) for digest, code in codes.items() if digest not in known],
            )
            self._codes.update(codes)
        append(connection, f"{name}.steps", steps)
        append(connection, f"{name}.materializations", materializations)
        append(connection, f"{name}.current", current)
        append(connection, f"{name}.outputs", outputs)
        append(connection, f"{name}.logs", logs)
        self._running.update(run.run_id for run in runs.values() if run.status == "running")
        self._running.difference_update(ended)

    def _stored_codes(self, connection: Connection, name: str, codes: Collection[str]) -> set[str]:
        """Return the digests that the catalog contains. One query covers the whole plan, so that most commits need none."""
        if self._absent.issuperset(codes):
            return set()
        asked = self.expected_codes.union(codes)
        known = known_codes(connection, name, asked)
        self._absent = asked - known
        return known

    def forget(self) -> None:
        """Forget the known code versions, because a commit failed."""
        self._codes.clear()
        self._absent = frozenset()


def _rows_of_dropped(connection: Connection, name: str, records: Sequence[Record]) -> list[Row]:
    """Return rows for reused materializations that become current but were deleted by retention after they were read."""
    reused = {
        pointer.materialization.id: pointer.materialization
        for record in records
        if isinstance(record, Recorded) and record.step.status == "reused"
        for pointer in record.current
    }
    if not reused:
        return []
    asked, value = one_of(list(reused))
    text = f"SELECT id FROM @materializations WHERE id IN {asked}"  # noqa: S608 - a constant of our own
    known = {row[0] for row in rows_of(connection, name, text, [value])}
    return [materialization_row(m) for m in reused.values() if m.id not in known]


def append(connection: Connection, table: str, rows: Sequence[Row]) -> None:
    """Append rows to a table; characters that cannot be encoded are replaced."""
    if not rows:
        return
    import duckdb

    appender = connection.appender(table)
    try:
        appender.append_rows(rows)
    except duckdb.InvalidInputException:
        # A string of the user contains a lone surrogate. The appender still holds the preceding rows, so it is cleared.
        appender.clear()
        appender.append_rows([tuple(_encodable(value) for value in row) for row in rows])
    appender.flush()


def _encodable(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


SnapshotRequest: TypeAlias = tuple[frozenset[str], frozenset[str], frozenset[str]]
"""Keys, step keys and code versions."""


class Remembered:
    """The last snapshot and the keys for which it was read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._request: SnapshotRequest | None = None
        self._epoch = -1
        self._snapshot = Snapshot()

    def keep(self, request: SnapshotRequest, epoch: int, snapshot: Snapshot) -> Snapshot:
        """Remember a new snapshot and return a copy of it; called on the catalog thread."""
        with self._lock:
            self._request, self._epoch, self._snapshot = request, epoch, snapshot
            return _snapshot_copy(snapshot)

    def snapshot(self, request: SnapshotRequest, epoch: int) -> Snapshot | None:
        """Return a copy of the remembered snapshot if it was read for the same keys in the same epoch, else None."""
        with self._lock:
            return _snapshot_copy(self._snapshot) if epoch == self._epoch and request == self._request else None

    def add(self, records: Iterable[Recorded]) -> None:
        """Update the snapshot with the records of a commit; called on the catalog thread."""
        with self._lock:
            if self._request is None:
                return
            keys, step_keys, code_versions = self._request
            for record in records:
                step = record.step
                if step.key in step_keys:
                    self._attempt(record)
                if step.status == "executed":
                    self._executed(
                        [
                            m
                            for m in step.materializations
                            if m.step_key in step_keys and m.code_version in code_versions
                        ]
                    )
                for pointer in record.current:
                    if pointer.key in keys:
                        self._move_pointers(pointer)

    def _attempt(self, record: Recorded) -> None:
        step = record.step
        if step.status == "executed":
            self._snapshot.seconds[step.key] = step.seconds
            self._snapshot.failures.pop(step.key, None)
        elif step.status == "failed":
            self._snapshot.failures[step.key] = FailedAttempt(
                step.run_id, step.memo_key, step.error, step.started, step.seconds
            )

    def _executed(self, materializations: list[Materialization]) -> None:
        # Lists are replaced, never changed, because copies of the snapshot share them.
        groups: dict[tuple[str, str, str], list[Materialization]] = {}
        for m in materializations:
            groups.setdefault((m.memo_key, m.run_id, m.step_key), []).append(_as_read(m))
        for (memo_key, _, _), group in groups.items():
            self._snapshot.by_memo_key[memo_key] = [tuple(group), *self._snapshot.by_memo_key.get(memo_key, ())]

    def _move_pointers(self, current: Current) -> None:
        item = _as_read(current.materialization)
        if item is not current.materialization:
            current = replace(current, materialization=item)
        others = [
            pointer
            for pointer in self._snapshot.current.get(current.key, ())
            if pointer.notebook != current.notebook or pointer.partition != current.partition
        ]
        self._snapshot.current[current.key] = [current, *others]


def _as_read(m: Materialization) -> Materialization:
    """Return a materialization as it would be read back from the catalog, with its metadata converted to JSON values."""
    return replace(m, metadata=json.loads(json.dumps(m.metadata, default=repr))) if m.metadata else m


def _snapshot_copy(snapshot: Snapshot) -> Snapshot:
    return Snapshot(
        dict(snapshot.by_memo_key),
        dict(snapshot.current),
        dict(snapshot.failures),
        dict(snapshot.seconds),
        epoch=snapshot.epoch,
    )

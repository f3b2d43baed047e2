"""Reading and writing rows of the catalog, and the last snapshot, which is kept in memory.

Every function that reads uses a fixed number of SQL statements, however many keys it reads.

A *pointer* says which materialization is current for a notebook, key and partition.

`RowWriter` turns the records of one commit into a few lists of rows for DuckDB's appender, so that no step needs SQL statements of its own.

A run with nothing to do needs the same rows as the run before it. If no other process has changed the catalog in the meantime (the caller
checks this), `Remembered` returns the last snapshot, updated with the later commits of this process. This needs neither the lease nor a query.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import itemgetter
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

# Selects the newest pointer of each (notebook, key, partition), newest first.
_POINTERS = "SELECT notebook, key, partition, arg_max(materialization, rowid) FROM @current {} GROUP BY notebook, key, partition ORDER BY max(rowid) DESC"
_MATERIALIZATIONS = f"SELECT {MATERIALIZATION_COLUMNS} FROM @materializations "  # noqa: S608 - constants of our own
# Selects all current materializations, without their inline values, because a listing of keys does not show values.
_LISTED = (
    "SELECT p.notebook, p.key, p.partition, "  # noqa: S608 - constants of our own
    + ", ".join(f"m.{column}" for column in MATERIALIZATION_COLUMNS.split(", "))
    + " FROM (SELECT notebook, key, partition, arg_max(materialization, rowid) AS id, max(rowid) AS moved FROM @current "
    "GROUP BY notebook, key, partition) p JOIN (SELECT * REPLACE (NULL AS inline) FROM @materializations) m ON m.id = p.id "
    "ORDER BY p.key, p.moved DESC"
)
# Selects, for each step, the duration of its newest execution, and the rowids of its newest failure and of its newest attempt.
_ATTEMPTS = "SELECT key, arg_max(seconds, rowid) FILTER (WHERE status = 'executed'), max(rowid) FILTER (WHERE status = 'failed'), max(rowid) FROM @steps WHERE status IN ('executed', 'failed') AND key IN {} GROUP BY key"
_ANY_RECORD = "SELECT 1 FROM (SELECT 1 FROM @steps UNION ALL SELECT 1 FROM @materializations) LIMIT 1"
_RUNS = f"SELECT {RUN_COLUMNS} FROM @runs "  # noqa: S608 - constants of our own
_STEPS = f"SELECT {STEP_COLUMNS} FROM @steps "  # noqa: S608 - constants of our own


def rows_of(connection: Connection, name: str, text: str, values: Sequence[Any] = ()) -> list[Row]:
    """Execute the SQL statement ``text`` with the parameters ``values``; return all rows of its result.

    In ``text``, ``@`` before the name of a table stands for the attached catalog ``name``.
    """
    rows: list[Row] = connection.execute(text.replace("@", f"{name}."), list(values)).fetchall()
    return rows


_BETWEEN = "\x1f"
"""The separator of joined strings in `one_of`: an ASCII control character that practically no string contains."""


def one_of(texts: Sequence[str]) -> tuple[str, Any]:
    """Return two things: an SQL expression for all of ``texts``, to be written after ``IN``, and the value of its parameter ``?``.

    The value is one joined string if possible, because DuckDB would convert the strings of a list one by one, which takes three times as long.
    """
    joined = _BETWEEN.join(texts)
    if texts and joined.count(_BETWEEN) == len(texts) - 1:
        return "(SELECT unnest(string_split(?, chr(31))))", joined
    return "(SELECT unnest(?::VARCHAR[]))", list(texts)


def read_snapshot(
    connection: Connection, name: str, keys: Collection[str], step_keys: Collection[str], code_versions: Collection[str]
) -> Snapshot:
    """Read the rows that a plan needs, with at most five SQL statements.

    Parameters
    ----------
    connection, name
        The connection, and the name of the attached catalog.
    keys
        Keys whose current materializations are read.
    step_keys, code_versions
        The keys of steps, and the digests of their code versions. For these steps, three things are read: the durations, the failures, and the
        materializations that have one of these code versions.
    """
    with no_collection():
        return _snapshot(connection, name, list(keys), list(step_keys), list(code_versions))


def _snapshot(connection: Connection, name: str, keys: list[str], steps: list[str], versions: list[str]) -> Snapshot:
    asked, value = one_of(keys)
    pointers = rows_of(connection, name, _POINTERS.format(f"WHERE key IN {asked}"), [value])
    if not pointers and not rows_of(connection, name, _ANY_RECORD):
        # The first plan of a new store ends here: the other queries take some milliseconds even if the tables are empty.
        return Snapshot()
    of_steps, of_versions = one_of(steps), one_of(versions)
    rows = rows_of(
        connection,
        name,
        f"SELECT {MATERIALIZATION_COLUMNS}, rowid FROM @materializations "  # noqa: S608 - constants of our own
        f"WHERE step_key IN {of_steps[0]} AND code_version IN {of_versions[0]}",
        [of_steps[1], of_versions[1]],
    )
    # Sorting here takes less time than sorting rows of so many columns in DuckDB.
    rows.sort(key=itemgetter(-1))
    snapshot = Snapshot()
    known = {row[0]: materialization(row) for row in rows}
    # Most current materializations are among these rows.
    known |= _by_id(connection, name, [pointer[3] for pointer in pointers if pointer[3] and pointer[3] not in known])
    for notebook, key, partition, id_ in pointers:
        if id_ in known:
            snapshot.current.setdefault(key, []).append(current_record(notebook, key, partition, known[id_]))
    snapshot.by_memo_key = executions(known.values(), frozenset(steps), frozenset(versions))
    _read_attempts(connection, name, steps, snapshot)
    return snapshot


def executions(
    materializations: Iterable[Materialization], step_keys: Collection[str], code_versions: Collection[str]
) -> dict[str, list[tuple[Materialization, ...]]]:
    """Group the materializations of some steps and code versions by execution, and the executions by memo key.

    Parameters
    ----------
    materializations
        Materializations, oldest first. Those of other steps or other code versions are ignored.
    step_keys, code_versions
        The keys of the steps, and the digests of the code versions.

    Returns
    -------
    dict
        Maps each memo key to its executions, newest first. An execution is a tuple of the materializations that one step made in one run.
    """
    groups: dict[str, dict[tuple[str, str], list[Materialization]]] = {}
    for m in materializations:
        if m.step_key in step_keys and m.code_version in code_versions:
            groups.setdefault(m.memo_key, {}).setdefault((m.run_id, m.step_key), []).append(m)
    return {memo_key: [tuple(results) for results in reversed(group.values())] for memo_key, group in groups.items()}


def _read_attempts(connection: Connection, name: str, steps: list[str], snapshot: Snapshot) -> None:
    """Add the durations of the steps to ``snapshot``, and the failures of those steps whose newest attempt failed."""
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
    """Read the pointers to the current materializations of a key, one for each notebook and partition, newest first."""
    pointers = rows_of(connection, name, _POINTERS.format("WHERE key = ?"), [key])
    known = _by_id(connection, name, [pointer[3] for pointer in pointers])
    return [current_record(notebook, key, partition, known[id_]) for notebook, key, partition, id_ in pointers if id_ in known]


def read_all_current(connection: Connection, name: str) -> list[Current]:
    """Read the pointers to all current materializations, sorted by key, the newest of each key first.

    The materializations are read without their inline values.
    """
    with no_collection():
        rows = rows_of(connection, name, _LISTED)
        return [current_record(row[0], row[1], row[2], materialization(row[3:])) for row in rows]


def _by_id(connection: Connection, name: str, ids: list[str]) -> dict[str, Materialization]:
    """Read the materializations with the ids ``ids``; return them by id. Ids that the catalog does not contain are omitted."""
    if not ids:
        return {}
    asked, value = one_of(ids)
    rows = rows_of(connection, name, _MATERIALIZATIONS + f"WHERE id IN {asked}", [value])
    return {row[0]: materialization(row) for row in rows}


def read_run(connection: Connection, name: str, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
    """Read the record of a run, and the records of its steps in the order of their recording; return None if there is no such run."""
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
    """Read at most ``limit`` runs: those whose start or end was committed most recently, newest first.

    If ``batch`` is not empty, only runs of this batch execution are read.
    """
    where, values = ("WHERE batch = ? ", [batch]) if batch else ("", [])
    rows = rows_of(connection, name, _RUNS + where + "ORDER BY rowid DESC LIMIT ?", [*values, limit])
    return [run_record(row) for row in rows]


def read_attempts(connection: Connection, name: str, step_key: str, limit: int = 20) -> list[StepRecord]:
    """Read at most ``limit`` attempts at a step, newest first.

    An attempt that reused materializations is omitted if the attempt before it made or reused the same ones.
    """
    where = (
        "WHERE key = ? AND status IN ('executed', 'reused', 'failed', 'cancelled') "
        "QUALIFY status <> 'reused' OR materializations IS DISTINCT FROM lag(materializations) OVER (ORDER BY rowid) "
        "ORDER BY rowid DESC LIMIT ?"
    )
    rows = rows_of(connection, name, _STEPS + where, [step_key, limit])
    known = _by_id(connection, name, [id_ for row in rows for id_ in step_materializations(row)])
    return [step_record(row, known) for row in rows]


def read_outputs(connection: Connection, name: str, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
    """Read the captured outputs of a step of a run, in the order in which they were captured."""
    text = "SELECT kind, stream, text, data, metadata FROM @outputs WHERE run_id = ? AND step_key = ? ORDER BY rowid"
    return tuple(output_record(row) for row in rows_of(connection, name, text, [run_id, step_key]))


def read_logs(connection: Connection, name: str, run_id: str, step_key: str = "") -> list[LogRecord]:
    """Read the lines that a step of a run logged, oldest first; if ``step_key`` is empty, the lines of all steps of the run."""
    text = (
        "SELECT run_id, step_key, time, level, message FROM @logs WHERE run_id = ? AND ? IN ('', step_key) ORDER BY time, rowid"
    )
    return [log_record(row) for row in rows_of(connection, name, text, [run_id, step_key])]


def read_codes(connection: Connection, name: str, digests: Collection[str]) -> dict[str, CodeVersion]:
    """Read the code versions with the digests ``digests``; return them by digest. A missing or unreadable code version is omitted."""
    asked, value = one_of(list(digests))
    text = f"SELECT digest, parts FROM @code_versions WHERE digest IN {asked}"  # noqa: S608 - constants of our own
    with no_collection():
        codes = {}
        for row in rows_of(connection, name, text, [value]):
            # The parts of code versions are used only to explain differences, so an unreadable code version is no error.
            with suppress(StoreDamagedError):
                codes[row[0]] = code_record(row)
        return codes


def read_keys(connection: Connection, name: str) -> list[str]:
    """Read every key that has a current materialization in some notebook, sorted."""
    return [key for (key,) in rows_of(connection, name, "SELECT DISTINCT key FROM @current WHERE key IS NOT NULL ORDER BY key")]


def read_history(connection: Connection, name: str, key: str, limit: int) -> list[Materialization]:
    """Read the materializations of a key, newest first, at most ``limit``."""
    rows = rows_of(connection, name, _MATERIALIZATIONS + "WHERE key = ? ORDER BY rowid DESC LIMIT ?", [key, limit])
    return [materialization(row) for row in rows]


def read_writers(connection: Connection, name: str, path: str) -> list[Materialization]:
    """Read the materializations whose effects mention the file ``path``, newest first, at most 50.

    ``path`` is written as in `FileEffect.path`.
    """
    rows = rows_of(
        connection,
        name,
        _MATERIALIZATIONS + "WHERE contains(effects, ?) ORDER BY rowid DESC LIMIT 50",
        [json.dumps(path)],
    )
    return [materialization(row) for row in rows]


def read_counts(connection: Connection, name: str) -> dict[str, int]:
    """Return the number of materializations and the number of runs, under the names ``materializations`` and ``runs``."""
    ((materializations, runs),) = rows_of(
        connection, name, "SELECT (SELECT count(*) FROM @materializations), (SELECT count(*) FROM @runs)"
    )
    return {"materializations": materializations, "runs": runs}


def known_codes(connection: Connection, name: str, digests: Collection[str]) -> set[str]:
    """Return the digests among ``digests`` whose code versions the catalog contains."""
    asked, value = one_of(list(digests))
    text = f"SELECT digest FROM @code_versions WHERE digest IN {asked}"  # noqa: S608 - constants of our own
    rows = rows_of(connection, name, text, [value])
    return {digest for (digest,) in rows}


@dataclass(slots=True)
class Recorded:
    """The records that one call of `ValueStore.record_step` adds to a commit."""

    step: StepRecord
    current: Sequence[Current]
    code: CodeVersion | None
    outputs: Sequence[CapturedOutput]
    logs: Sequence[LogRecord]


Record: TypeAlias = Recorded | RunRecord


class RowWriter:
    """Appends the rows of each commit to the catalog, and remembers which code versions the catalog contains."""

    def __init__(self) -> None:
        self.expected_codes: frozenset[str] = frozenset()
        """The digests of the code versions of the newest plan. When one of them is to be written, one query looks up all of them."""
        self._codes: set[str] = set()
        """Digests of code versions that the catalog contains."""
        self._absent: frozenset[str] = frozenset()
        """Digests of code versions that the catalog did not contain when it was last queried."""
        self._running: set[str] = set()
        """Ids of the runs of this process whose row has the status ``running``. This row is replaced when the run ends."""
        self._state = ""
        """The argument ``state`` of the last call of `write`."""

    def write(self, connection: Connection, name: str, state: str, records: Sequence[Record]) -> None:
        """Append the rows of ``records`` to the attached catalog ``name``. The caller has begun a transaction.

        ``state`` is a string that changes when another process may have deleted rows. The remembered code versions are then forgotten.
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
        for run_id in ended:
            if run_id in self._running:
                rows_of(connection, name, "DELETE FROM @runs WHERE run_id = ?", [run_id])
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
        """Return the digests among ``codes`` whose code versions the catalog contains.

        A query looks up all code versions of the newest plan at once, and its result is remembered, so that most commits need no query.
        """
        if self._absent.issuperset(codes):
            return set()
        asked = self.expected_codes.union(codes)
        known = known_codes(connection, name, asked)
        self._absent = asked - known
        return known

    def forget(self) -> None:
        """Forget which code versions the catalog contains, because a commit failed or another process may have deleted some."""
        self._codes.clear()
        self._absent = frozenset()


def _rows_of_dropped(connection: Connection, name: str, records: Sequence[Record]) -> list[Row]:
    """Return the rows of reused materializations that become current again but are no longer in the catalog.

    Another process has deleted these rows after the run had read them.
    """
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
    """Append rows to a table. Characters that UTF-8 cannot encode are replaced by ``?``."""
    if not rows:
        return
    import duckdb

    appender = connection.appender(table)
    try:
        appender.append_rows(rows)
    except duckdb.InvalidInputException:
        # A string of the user contains a lone surrogate. The appender has kept the rows before this string, so it is cleared.
        appender.clear()
        appender.append_rows([tuple(_encodable(value) for value in row) for row in rows])
    appender.flush()


def _encodable(value: Any) -> Any:
    """Return a string with every character that UTF-8 cannot encode replaced by ``?``; any other value unchanged."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


SnapshotRequest: TypeAlias = tuple[frozenset[str], frozenset[str], frozenset[str]]
"""The keys, step keys and code versions for which a snapshot is read."""


class Remembered:
    """The last snapshot of a store, kept in memory with its request and the epoch (`Catalog.epoch`) in which it was read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._request: SnapshotRequest | None = None
        self._epoch = -1
        self._snapshot = Snapshot()

    def keep(self, request: SnapshotRequest, epoch: int, snapshot: Snapshot) -> Snapshot:
        """Remember a snapshot that was read for ``request`` in the epoch ``epoch`` of the catalog; return a copy. Called on the catalog thread."""
        with self._lock:
            self._request, self._epoch, self._snapshot = request, epoch, snapshot
            return _snapshot_copy(snapshot)

    def snapshot(self, request: SnapshotRequest, epoch: int) -> Snapshot | None:
        """Return a copy of the remembered snapshot if it was read for ``request`` in the epoch ``epoch`` of the catalog; else None."""
        with self._lock:
            return _snapshot_copy(self._snapshot) if epoch == self._epoch and request == self._request else None

    def add(self, records: Iterable[Recorded]) -> None:
        """Update the remembered snapshot with the records of a commit. Called on the catalog thread."""
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
                        [m for m in step.materializations if m.step_key in step_keys and m.code_version in code_versions]
                    )
                for pointer in record.current:
                    if pointer.key in keys:
                        self._move_pointers(pointer)

    def _attempt(self, record: Recorded) -> None:
        """Update the duration and the failure of the step of ``record`` in the remembered snapshot."""
        step = record.step
        if step.status == "executed":
            self._snapshot.seconds[step.key] = step.seconds
            self._snapshot.failures.pop(step.key, None)
        elif step.status == "failed":
            self._snapshot.failures[step.key] = FailedAttempt(step.run_id, step.memo_key, step.error, step.started, step.seconds)

    def _executed(self, materializations: list[Materialization]) -> None:
        """Add the new materializations of an executed step to the remembered snapshot."""
        # Lists are replaced, never changed, because copies of the snapshot share them.
        groups: dict[tuple[str, str, str], list[Materialization]] = {}
        for m in materializations:
            groups.setdefault((m.memo_key, m.run_id, m.step_key), []).append(_as_read(m))
        for (memo_key, _, _), group in groups.items():
            self._snapshot.by_memo_key[memo_key] = [tuple(group), *self._snapshot.by_memo_key.get(memo_key, ())]

    def _move_pointers(self, current: Current) -> None:
        """In the remembered snapshot, replace the pointer of the same notebook, key and partition by ``current``."""
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
    """Return ``m`` as it would be read from the catalog: with its metadata converted to JSON values."""
    return replace(m, metadata=json.loads(json.dumps(m.metadata, default=repr))) if m.metadata else m


def _snapshot_copy(snapshot: Snapshot) -> Snapshot:
    """Return a copy of a snapshot. Its fields ``missing_files`` and ``foreign`` are empty, because the caller sets them."""
    return Snapshot(
        dict(snapshot.by_memo_key),
        dict(snapshot.current),
        dict(snapshot.failures),
        dict(snapshot.seconds),
        epoch=snapshot.epoch,
    )

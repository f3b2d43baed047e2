"""The catalog's queries: each a few statements whose number does not depend on how many keys are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stepwell.kernel_runtime.records.code import CodeVersion
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.outputs import CapturedOutput
from stepwell.kernel_runtime.records.runs import LogRecord, RunRecord, StepRecord
from stepwell.kernel_runtime.records.snapshot import FailedAttempt, Snapshot
from stepwell.kernel_runtime.store.attachment import Connection
from stepwell.kernel_runtime.store.schema import (
    MATERIALIZATION_COLUMNS,
    RUN_COLUMNS,
    STEP_COLUMNS,
    code_record,
    error_record,
    materialization,
    output_record,
    run_record,
    step_materializations,
    step_record,
)

# Where each (notebook, key, partition) points now, newest move first.
_POINTERS = (
    "SELECT notebook, key, partition, arg_max(materialization, rowid) AS id FROM {name}.current {where} "
    "GROUP BY notebook, key, partition ORDER BY max(rowid) DESC"
)




def read_snapshot(
    connection: Connection, name: str, keys: Collection[str], step_keys: Collection[str], code_versions: Collection[str]
) -> Snapshot:
    """Read what a plan needs: four statements, for one step or ten thousand."""
    steps, versions = list(step_keys), list(code_versions)
    pointers = connection.execute(_POINTERS.format(name=name, where="WHERE key IN (SELECT unnest(?))"), [list(keys)]).fetchall()
    rows = connection.execute(
        f"SELECT {MATERIALIZATION_COLUMNS} FROM {name}.materializations WHERE id IN (SELECT unnest(?)) "
        "OR (step_key IN (SELECT unnest(?)) AND code_version IN (SELECT unnest(?))) ORDER BY rowid",
        [[pointer[3] for pointer in pointers], steps, versions],
    ).fetchall()
    snapshot = Snapshot()
    known = {row[0]: materialization(row) for row in rows}
    for notebook, key, partition, found in pointers:
        if found in known:
            snapshot.current.setdefault(key, []).append(Current(notebook, key, known[found], partition))
    snapshot.by_memo_key = executions(known.values(), frozenset(steps), frozenset(versions))
    _read_attempts(connection, name, steps, snapshot)
    return snapshot


def executions(
    found: Iterable[Materialization], step_keys: Collection[str], code_versions: Collection[str]
) -> dict[str, list[tuple[Materialization, ...]]]:
    """Group materializations, given oldest first, by memo key and execution, newest execution first."""
    groups: dict[str, dict[tuple[str, str], list[Materialization]]] = {}
    for m in found:
        if m.step_key in step_keys and m.code_version in code_versions:
            groups.setdefault(m.memo_key, {}).setdefault((m.run_id, m.step_key), []).append(m)
    return {memo_key: [tuple(each) for each in reversed(group.values())] for memo_key, group in groups.items()}


def _read_attempts(connection: Connection, name: str, steps: list[str], snapshot: Snapshot) -> None:
    rows = connection.execute(
        "SELECT key, arg_max(seconds, rowid) FILTER (WHERE status = 'executed'), max(rowid) FILTER (WHERE status = 'failed'), max(rowid) "
        f"FROM {name}.steps WHERE status IN ('executed', 'failed') AND key IN (SELECT unnest(?)) GROUP BY key",
        [steps],
    ).fetchall()
    failed = []
    for key, seconds, newest_failure, newest in rows:
        if seconds is not None:
            snapshot.seconds[key] = seconds
        if newest_failure == newest:
            failed.append(newest)
    if failed:
        for key, run_id, memo_key, error, started, seconds in connection.execute(
            f"SELECT key, run_id, memo_key, error, started, seconds FROM {name}.steps WHERE rowid IN (SELECT unnest(?))", [failed]
        ).fetchall():
            snapshot.failures[key] = FailedAttempt(run_id, memo_key, error_record(error), started, seconds)


def read_current(connection: Connection, name: str, key: str) -> list[Current]:
    """Read what is current for a key in each notebook that defined it, newest first."""
    pointers = connection.execute(_POINTERS.format(name=name, where="WHERE key = ?"), [key]).fetchall()
    known = _by_id(connection, name, [pointer[3] for pointer in pointers])
    return [Current(notebook, key, known[found], partition) for notebook, key, partition, found in pointers if found in known]


def _by_id(connection: Connection, name: str, ids: list[str]) -> dict[str, Materialization]:
    if not ids:
        return {}
    rows = connection.execute(
        f"SELECT {MATERIALIZATION_COLUMNS} FROM {name}.materializations WHERE id IN (SELECT unnest(?))", [ids]
    ).fetchall()
    return {row[0]: materialization(row) for row in rows}


def read_run(connection: Connection, name: str, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]] | None:
    """Read a run and its steps in the order of their records."""
    found = connection.execute(f"SELECT {RUN_COLUMNS} FROM {name}.runs WHERE run_id = ?", [run_id]).fetchone()
    if found is None:
        return None
    rows = connection.execute(f"SELECT {STEP_COLUMNS} FROM {name}.steps WHERE run_id = ? ORDER BY rowid", [run_id]).fetchall()
    known = _by_id(connection, name, [each for row in rows for each in step_materializations(row)])
    return run_record(found), tuple(step_record(row, known) for row in rows)


def read_runs(connection: Connection, name: str, limit: int, batch: str) -> list[RunRecord]:
    """Read the newest runs, newest first."""
    where, values = ("WHERE batch = ?", [batch]) if batch else ("", [])
    rows = connection.execute(
        f"SELECT {RUN_COLUMNS} FROM {name}.runs {where} ORDER BY started DESC, run_id DESC LIMIT ?", [*values, limit]
    ).fetchall()
    return [run_record(row) for row in rows]


def read_outputs(connection: Connection, name: str, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
    """Read what an executed step printed and displayed."""
    rows = connection.execute(
        f"SELECT kind, stream, text, data, metadata FROM {name}.outputs WHERE run_id = ? AND step_key = ? ORDER BY rowid", [run_id, step_key]
    ).fetchall()
    return tuple(output_record(row) for row in rows)


def read_logs(connection: Connection, name: str, run_id: str, step_key: str) -> list[LogRecord]:
    """Read what a run's steps logged, oldest first."""
    where, values = ("AND step_key = ?", [step_key]) if step_key else ("", [])
    rows = connection.execute(
        f"SELECT run_id, step_key, time, level, message FROM {name}.logs WHERE run_id = ? {where} ORDER BY time, rowid", [run_id, *values]
    ).fetchall()
    return [LogRecord(*row) for row in rows]


def read_code(connection: Connection, name: str, digest: str) -> CodeVersion | None:
    """Read the parts of a recorded code version."""
    row = connection.execute(f"SELECT digest, parts FROM {name}.code_versions WHERE digest = ? LIMIT 1", [digest]).fetchone()
    return None if row is None else code_record(row)


def read_keys(connection: Connection, name: str) -> list[str]:
    """Read every key that has something current."""
    return [key for (key,) in connection.execute(f"SELECT DISTINCT key FROM {name}.current ORDER BY key").fetchall()]


def read_history(connection: Connection, name: str, key: str, limit: int) -> list[Materialization]:
    """Read the newest materializations of a key, newest first."""
    rows = connection.execute(
        f"SELECT {MATERIALIZATION_COLUMNS} FROM {name}.materializations WHERE key = ? ORDER BY rowid DESC LIMIT ?", [key, limit]
    ).fetchall()
    return [materialization(row) for row in rows]


def read_counts(connection: Connection, name: str) -> dict[str, int]:
    """Count materializations and runs."""
    found = connection.execute(f"SELECT (SELECT count(*) FROM {name}.materializations), (SELECT count(*) FROM {name}.runs)").fetchone()
    return {"materializations": found[0], "runs": found[1]}

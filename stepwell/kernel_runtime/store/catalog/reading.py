"""The catalog's queries: each a few statements whose number does not depend on how many keys are asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

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
    current_record,
    error_record,
    log_record,
    materialization,
    output_record,
    run_record,
    step_materializations,
    step_record,
)

# Where each (notebook, key, partition) points now, newest move first.
_POINTERS = "SELECT notebook, key, partition, arg_max(materialization, rowid) FROM @current {} GROUP BY notebook, key, partition ORDER BY max(rowid) DESC"
_MATERIALIZATIONS = f"SELECT {MATERIALIZATION_COLUMNS} FROM @materializations "  # noqa: S608 - constants of our own
# Inline values are left out: a list of keys shows none of them.
_LISTED = (
    "SELECT p.notebook, p.key, p.partition, "  # noqa: S608 - constants of our own
    + ", ".join(f"m.{column}" for column in MATERIALIZATION_COLUMNS.split(", "))
    + " FROM (SELECT notebook, key, partition, arg_max(materialization, rowid) AS id, max(rowid) AS moved FROM @current "
    "GROUP BY notebook, key, partition) p JOIN (SELECT * REPLACE (NULL AS inline) FROM @materializations) m ON m.id = p.id "
    "ORDER BY p.key, p.moved DESC"
)
# Of each step how long it ran last, and its newest failure beside its newest attempt.
_ATTEMPTS = "SELECT key, arg_max(seconds, rowid) FILTER (WHERE status = 'executed'), max(rowid) FILTER (WHERE status = 'failed'), max(rowid) FROM @steps WHERE status IN ('executed', 'failed') AND key IN {} GROUP BY key"
_RUNS = f"SELECT {RUN_COLUMNS} FROM @runs "  # noqa: S608 - constants of our own
_STEPS = f"SELECT {STEP_COLUMNS} FROM @steps "  # noqa: S608 - constants of our own


def rows_of(connection: Connection, name: str, text: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return all rows of a query; ``@`` before a table stands for the attached catalog ``name``."""
    found: list[Row] = connection.execute(text.replace("@", f"{name}."), list(values)).fetchall()
    return found


_BETWEEN = "\x1f"


def one_of(texts: Sequence[str]) -> tuple[str, Any]:
    """Return what stands after ``IN`` for any of some texts, and the value of its parameter.

    One text is handed over in a third of the time of a list, which is made DuckDB's value by value.
    """
    joined = _BETWEEN.join(texts)
    if texts and joined.count(_BETWEEN) == len(texts) - 1:
        return "(SELECT unnest(string_split(?, chr(31))))", joined
    return "(SELECT unnest(?::VARCHAR[]))", list(texts)


def read_snapshot(
    connection: Connection, name: str, keys: Collection[str], step_keys: Collection[str], code_versions: Collection[str]
) -> Snapshot:
    """Read what a plan needs: four statements, for one step or ten thousand."""
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
    for notebook, key, partition, found in pointers:
        if found in known:
            snapshot.current.setdefault(key, []).append(current_record(notebook, key, partition, known[found]))
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
    """Read what is current for a key in each notebook that defined it, newest first."""
    pointers = rows_of(connection, name, _POINTERS.format("WHERE key = ?"), [key])
    known = _by_id(connection, name, [pointer[3] for pointer in pointers])
    return [
        current_record(notebook, key, partition, known[found])
        for notebook, key, partition, found in pointers
        if found in known
    ]


def read_all_current(connection: Connection, name: str) -> list[Current]:
    """Read what is current for every key, by key, newest first, without inline values: one statement."""
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
    """Read a run and its steps in the order of their records."""
    found = rows_of(connection, name, _RUNS + "WHERE run_id = ?", [run_id])
    if not found:
        return None
    rows = rows_of(connection, name, _STEPS + "WHERE run_id = ? ORDER BY rowid", [run_id])
    known = _by_id(connection, name, [each for row in rows for each in step_materializations(row)])
    run = run_record(found[0])
    steps = tuple(step_record(row, known) for row in rows)
    if run.kind == "job":
        # In the catalog a job's steps have addresses, with the job's name; within the run their keys do not repeat it.
        inside = f"{run.targets[0]}."
        steps = tuple(replace(step, key=step.key.removeprefix(inside)) for step in steps)
    return run, steps


def read_runs(connection: Connection, name: str, limit: int, batch: str) -> list[RunRecord]:
    """Read the newest runs, newest first: those that began or ended last, by the order of the commits."""
    where, values = ("WHERE batch = ? ", [batch]) if batch else ("", [])
    rows = rows_of(connection, name, _RUNS + where + "ORDER BY rowid DESC LIMIT ?", [*values, limit])
    return [run_record(row) for row in rows]


def read_attempts(connection: Connection, name: str, step_key: str, limit: int) -> list[StepRecord]:
    """Read the newest records of a step, newest first, of runs in which its turn came; of reuses in a row the first."""
    where = (
        "WHERE key = ? AND status IN ('executed', 'reused', 'failed', 'cancelled') "
        "QUALIFY status <> 'reused' OR materializations IS DISTINCT FROM lag(materializations) OVER (ORDER BY rowid) "
        "ORDER BY rowid DESC LIMIT ?"
    )
    rows = rows_of(connection, name, _STEPS + where, [step_key, limit])
    known = _by_id(connection, name, [each for row in rows for each in step_materializations(row)])
    return [step_record(row, known) for row in rows]


def read_outputs(connection: Connection, name: str, run_id: str, step_key: str) -> tuple[CapturedOutput, ...]:
    """Read what an executed step printed and displayed."""
    text = "SELECT kind, stream, text, data, metadata FROM @outputs WHERE run_id = ? AND step_key = ? ORDER BY rowid"
    return tuple(output_record(row) for row in rows_of(connection, name, text, [run_id, step_key]))


def read_logs(connection: Connection, name: str, run_id: str, step_key: str) -> list[LogRecord]:
    """Read what a run's steps logged, oldest first; of all its steps if none is named."""
    text = "SELECT run_id, step_key, time, level, message FROM @logs WHERE run_id = ? AND ? IN ('', step_key) ORDER BY time, rowid"
    return [log_record(row) for row in rows_of(connection, name, text, [run_id, step_key])]


def read_codes(connection: Connection, name: str, digests: Collection[str]) -> dict[str, CodeVersion]:
    """Read the parts of recorded code versions, by digest: one statement."""
    asked, value = one_of(list(digests))
    text = f"SELECT digest, parts FROM @code_versions WHERE digest IN {asked}"  # noqa: S608 - constants of our own
    with no_collection():
        found = {}
        for row in rows_of(connection, name, text, [value]):
            # What cannot be read explains nothing; a step is run or reused without it.
            with suppress(StoreDamagedError):
                found[row[0]] = code_record(row)
        return found


def read_keys(connection: Connection, name: str) -> list[str]:
    """Read every key that has something current."""
    return [
        key
        for (key,) in rows_of(connection, name, "SELECT DISTINCT key FROM @current WHERE key IS NOT NULL ORDER BY key")
    ]


def read_history(connection: Connection, name: str, key: str, limit: int) -> list[Materialization]:
    """Read the newest materializations of a key, newest first."""
    rows = rows_of(connection, name, _MATERIALIZATIONS + "WHERE key = ? ORDER BY rowid DESC LIMIT ?", [key, limit])
    return [materialization(row) for row in rows]


def read_writers(connection: Connection, name: str, path: str) -> list[Materialization]:
    """Read the materializations whose effects name a file, newest first."""
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
    """Return those of some code versions that the catalog has."""
    asked, value = one_of(list(digests))
    text = f"SELECT digest FROM @code_versions WHERE digest IN {asked}"  # noqa: S608 - constants of our own
    rows = rows_of(connection, name, text, [value])
    return {digest for (digest,) in rows}

"""Rows carried over to another key, with what their steps printed and what is current, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from stepwell.kernel_runtime.records.code_versions import CodeVersion
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import known_codes, rows_of
from stepwell.kernel_runtime.store.catalog.schema import code_row, current_row, materialization_row
from stepwell.kernel_runtime.store.catalog.writing import append


def carry(
    connection: Connection,
    name: str,
    made: Sequence[Materialization],
    current: Sequence[Current],
    *,
    steps: Mapping[str, str],
    gone: Sequence[Current] = (),
    code: CodeVersion | None = None,
) -> None:
    """Append materializations and what is current, in the caller's transaction.

    Parameters
    ----------
    made, current
        Oldest first.
    steps
        By the step that captured outputs were recorded for, the one that they are recorded for as well.
    gone
        What is not current any more.
    code
        The parts of the code version that they have.
    """
    if code is not None and code.digest not in known_codes(connection, name, [code.digest]):
        append(connection, f"{name}.code_versions", [code_row(code)])
    append(connection, f"{name}.materializations", [materialization_row(item) for item in made])
    now = time.time()
    append(connection, f"{name}.current", [current_row(each, now) for each in current])
    for old, new in steps.items():
        rows_of(
            connection,
            name,
            "INSERT INTO @outputs (run_id, step_key, kind, stream, text, data, metadata) "
            "SELECT run_id, ?, kind, stream, text, data, metadata FROM @outputs WHERE step_key = ? "
            "AND run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY rowid",
            [new, old, list({item.run_id for item in made if item.step_key == new})],
        )
    for each in gone:
        rows_of(
            connection,
            name,
            "DELETE FROM @current WHERE notebook = ? AND key = ? AND partition = ?",
            [each.notebook, each.key, each.partition],
        )

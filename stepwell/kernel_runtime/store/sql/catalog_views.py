# ruff: noqa: S608 - the statements are built from constants
"""The schema ``stepwell``: views of the catalog that users can query. Their columns do not change between versions of Stepwell.

A statement that reads views is executed in two stages. First, while this process has the lease, the catalog thread reads the needed columns of
the catalog's tables into Arrow tables, which are called the *sources* of the views. It reads the sources of all views in the user's statement
together, and never reads inline values, signatures or source code. Second, after the lease is released, the DuckDB instance for SQL
(`instance`) runs the user's statement, in which each view is a SELECT over its sources.

Times are TIMESTAMPTZ, durations are in seconds, and sizes are in bytes. Of the materializations with the same notebook, key and partition, at most one
is *current*: the one that the notebook uses. In ``current``, ``moved`` is the time at which the materialization was recorded as current.
In ``lineage``, ``input`` is the name of the step's parameter, and ``upstream`` is the key of the upstream value. ``kind`` is ``order`` if the input
only orders the steps and passes no value; otherwise it is ``value``. ``version`` is the data version of the upstream value. If ``kind`` is
``order``, or the upstream value has no data version, ``version`` is the id of the upstream materialization. In ``code_versions``, ``path``
consists of the names by which the step's code reaches the object, and ``place`` is the source location of the object's definition. In
``materializations``, ``object`` is the name of the value file.

====================  =====================================================================================================
``runs``              run_id, kind, notebook, targets[], status, started, ended, seconds, batch, parent_run_id, root_run_id, error,
                      error_message
``steps``             run_id, key, status, started, seconds, memo_key, materializations[], reason, error, error_message
``materializations``  id, run_id, key, step_key, output, notebook, partition, created, seconds, memo_key, code_version, data_version, type,
                      summary, codec, size, stored (inline, file, no), object, metadata (JSON), is_current
``current``           notebook, key, partition, materialization, moved, created, seconds, type, summary, size
``lineage``           key, input, upstream, materialization, version, kind, is_current: one row for each input of each materialization
``reads``             key, kind, name, materialization, is_current: one row for each read (file, folder listing, environment variable or
                      asset) of each materialization
``sizes``             key, versions, bytes, current_bytes, newest
``durations``         key, executed, reused, failed, min_seconds, median_seconds, max_seconds, total_seconds, last_started
``code_versions``     code_version, path, kind, digest, place: one row for each function, class or other object in a code version
``logs``              run_id, step_key, time, level, message
====================  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.sql.statements import TablePath, folded

SCHEMA = "stepwell"

_SOURCES = {
    "runs": "SELECT run_id, kind, notebook, targets, status, started, ended, batch, parent_run_id, root_run_id, error FROM @runs",
    "steps": "SELECT run_id, key, status, started, seconds, memo_key, materializations, reason, error FROM @steps",
    "materializations": "SELECT id, run_id, key, step_key, output, notebook, partition, created, seconds, memo_key, code_version, data_version, "
    "type_name, summary, codec, size, inline IS NOT NULL AS inlined, object_name, metadata FROM @materializations",
    "values": "SELECT id, key, created, seconds, type_name, summary, coalesce(size, 0) AS size FROM @materializations",
    "inputs": "SELECT id, key, inputs FROM @materializations WHERE inputs <> '[]'",
    "reads": "SELECT id, key, reads FROM @materializations WHERE reads <> '[]'",
    "pointers": "SELECT notebook, key, partition, arg_max(materialization, rowid) AS materialization, max(moved) AS moved "
    "FROM @current GROUP BY notebook, key, partition",
    "durations": "SELECT key, status, started, seconds FROM @steps",
    "code": "SELECT digest, parts FROM @code_versions",
    "logs": "SELECT run_id, step_key, time, level, message FROM @logs",
}
"""Maps the name of each source to the query that reads the source from the catalog. In a query, ``@runs`` stands for the table ``runs`` of the
catalog, and so on."""

_ERROR = "json_extract_string(error, '$[0]') AS error, json_extract_string(error, '$[1]') AS error_message"
_IS_CURRENT = "id IN (SELECT materialization FROM @pointers) AS is_current"


@dataclass(frozen=True, slots=True)
class CatalogView:
    """A view of the schema ``stepwell``.

    ``sources`` are the names of its sources. ``text`` is the SELECT that defines the view. In this text, ``@runs`` stands for the source ``runs``, and
    so on.
    """

    sources: tuple[str, ...]
    text: str


VIEWS = {
    "runs": CatalogView(
        ("runs",),
        "SELECT run_id, kind, notebook, from_json(targets, '[\"VARCHAR\"]') AS targets, status, to_timestamp(started) AS started, "
        "to_timestamp(ended) AS ended, ended - started AS seconds, batch, parent_run_id, root_run_id, " + _ERROR + " FROM @runs",
    ),
    "steps": CatalogView(
        ("steps",),
        "SELECT run_id, key, status, to_timestamp(started) AS started, seconds, memo_key, from_json(materializations, '[\"VARCHAR\"]') AS materializations, "
        "reason, " + _ERROR + " FROM @steps",
    ),
    "materializations": CatalogView(
        ("materializations", "pointers"),
        "SELECT id, run_id, key, step_key, output, notebook, partition, to_timestamp(created) AS created, seconds, memo_key, code_version, "
        "data_version, type_name AS type, summary, codec, size, "
        "CASE WHEN inlined THEN 'inline' WHEN object_name IS NOT NULL THEN 'file' ELSE 'no' END AS stored, object_name AS object, metadata, "
        + _IS_CURRENT + " FROM @materializations",
    ),
    "current": CatalogView(
        ("pointers", "values"),
        "SELECT p.notebook, p.key, p.partition, p.materialization, to_timestamp(p.moved) AS moved, to_timestamp(v.created) AS created, v.seconds, "
        "v.type_name AS type, v.summary, v.size FROM @pointers p LEFT JOIN @values v ON v.id = p.materialization",
    ),
    "lineage": CatalogView(
        ("inputs", "pointers"),
        "SELECT key, edge[1] AS input, edge[2] AS upstream, id AS materialization, edge[3] AS version, edge[4] AS kind, "
        + _IS_CURRENT + " FROM (SELECT id, key, unnest(from_json(inputs, '[[\"VARCHAR\"]]')) AS edge FROM @inputs)",
    ),
    "reads": CatalogView(
        ("reads", "pointers"),
        "SELECT key, json_extract_string(part, '$[0]') AS kind, json_extract_string(part, '$[1]') AS name, id AS materialization, "
        + _IS_CURRENT + " FROM (SELECT id, key, unnest(from_json(reads, '[\"JSON\"]')) AS part FROM @reads)",
    ),
    "sizes": CatalogView(
        ("values", "pointers"),
        "SELECT key, count(*) AS versions, sum(size)::BIGINT AS bytes, "
        "coalesce(sum(size) FILTER (id IN (SELECT materialization FROM @pointers)), 0)::BIGINT AS current_bytes, "
        "to_timestamp(max(created)) AS newest FROM @values GROUP BY key ORDER BY bytes DESC, key",
    ),
    "durations": CatalogView(
        ("durations",),
        "SELECT key, count(*) FILTER (status = 'executed') AS executed, count(*) FILTER (status = 'reused') AS reused, "
        "count(*) FILTER (status = 'failed') AS failed, min(seconds) FILTER (status = 'executed') AS min_seconds, "
        "median(seconds) FILTER (status = 'executed') AS median_seconds, max(seconds) FILTER (status = 'executed') AS max_seconds, "
        "coalesce(sum(seconds) FILTER (status = 'executed'), 0) AS total_seconds, to_timestamp(max(started)) AS last_started "
        "FROM @durations GROUP BY key ORDER BY total_seconds DESC, key",
    ),
    "code_versions": CatalogView(
        ("code",),
        "SELECT digest AS code_version, json_extract_string(part, '$[0]') AS path, json_extract_string(part, '$[1]') AS kind, "
        "json_extract_string(part, '$[2]') AS digest, json_extract_string(part, '$[4]') AS place "
        "FROM (SELECT digest, unnest(from_json(json_extract(parts, '$.parts'), '[\"JSON\"]')) AS part FROM @code)",
    ),
    "logs": CatalogView(
        ("logs",), "SELECT run_id, step_key, to_timestamp(time) AS time, level, message FROM @logs"
    ),
}  # fmt: skip


def catalog_view(path: TablePath) -> str | None:
    """Return the name of the view to which a table path refers, for example ``runs`` for ``("stepwell", "Runs")``; None if there is no such view."""
    if len(path) == 2 and folded(path[0]) == SCHEMA and folded(path[1]) in VIEWS:
        return folded(path[1])
    return None


def sources_of(views: Collection[str]) -> tuple[str, ...]:
    """Return the names of the sources that the views named ``views`` need, without repetitions."""
    return tuple(dict.fromkeys(source for view in views for source in VIEWS[view].sources))


def source_table(source: str) -> str:
    """Return the table name under which a source is registered with DuckDB.

    This name contains a dot (``stepwell.runs``). Values are registered under the keys of their assets, which contain no dot. So a source and a value
    never have the same name.
    """
    return f"{SCHEMA}.{source}"


def view_select(view: str) -> str:
    """Return the text of the SELECT that defines a view. In this text, each source has the table name that `source_table` returns."""
    text = VIEWS[view].text
    for source in VIEWS[view].sources:
        text = text.replace(f"@{source}", f'temp.main."{source_table(source)}"')
    return text


def read_sources(connection: Connection, name: str, sources: Collection[str]) -> dict[str, Any]:
    """Read sources of views from the catalog. This function must run on the catalog thread, while the catalog is attached.

    Parameters
    ----------
    connection
        The connection to which the catalog is attached.
    name
        The name under which the catalog is attached.
    sources
        The names of the sources.

    Returns
    -------
    dict
        Maps the name of each source to its ``pyarrow.Table``.
    """
    # A separate cursor is used, because an open result of another statement could disturb these queries. Closing the cursor ends its
    # relations, which would otherwise block DETACH.
    cursor = connection.cursor()
    try:
        return {source: cursor.sql(_SOURCES[source].replace("@", f"{name}.")).to_arrow_table() for source in sources}
    finally:
        cursor.close()

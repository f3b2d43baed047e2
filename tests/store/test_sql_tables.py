"""The tables that are found in a statement are exactly those that DuckDB reads."""

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.kernel_runtime.errors import QueryError
from stepwell.kernel_runtime.store.sql.select import Scope, run_select
from stepwell.kernel_runtime.store.sql.statements import folded, read_statement

NAMES = ("a", "b", "c", "A", "s.a", "s.b", "W", "w")
TABLE = pa.table({"x": [1, 2], "y": [3, 4]})
BARE = duckdb.connect()


def queries(depth):
    """Statements with columns x and y, made of everything that hides, shadows or mentions a table."""
    source = sources(depth)
    plain = st.builds("SELECT x, y FROM {}".format, source)
    if depth == 0:
        return plain
    inner = queries(depth - 1)
    names = st.sampled_from(["w", "W", "a", "A", "b"])
    return st.one_of(
        plain,
        st.builds("FROM {} SELECT x, y".format, source),
        st.builds("SELECT t.x, u.y FROM {} AS t, {} AS u".format, source, source),
        st.builds("SELECT t.x, t.y FROM {} AS t POSITIONAL JOIN {} AS u".format, source, source),
        st.builds("SELECT t.x, t.y FROM {} AS t ASOF JOIN {} AS u ON t.x >= u.x".format, source, source),
        st.builds("SELECT t.x, l.y FROM {} AS t, LATERAL (SELECT t.x + y AS y FROM {}) AS l".format, source, source),
        st.builds("SELECT x, (SELECT max(y) FROM {}) AS y FROM {}".format, source, source),
        st.builds("SELECT x, y FROM {} AS t WHERE EXISTS (SELECT 1 FROM {} AS u WHERE u.x = t.x)".format, source, source),
        st.builds("SELECT x, y FROM {} WHERE x IN (SELECT x FROM ({}))".format, source, inner),
        st.builds("WITH {} AS ({}) SELECT x, y FROM ({})".format, names, inner, inner),
        st.builds("WITH {} AS ({}), {}_2 AS ({}) SELECT x, y FROM {}".format, names, inner, names, inner, source),
        st.builds("({}) UNION ALL ({})".format, inner, inner),
        st.builds("({}) EXCEPT ({})".format, inner, inner),
        st.builds("WITH RECURSIVE {0} AS (SELECT 1 AS x, 2 AS y UNION ALL SELECT x + 1, y FROM {0} WHERE x < 2) SELECT x, y FROM ({1})".format, names, inner),
        st.builds("SELECT x, y FROM {} PIVOT (count(*) FOR y IN (3, 4)) AS p(x, y, z)".format, source),
        st.builds("SELECT 1 AS x, v AS y FROM (SELECT x, y FROM {}) UNPIVOT (v FOR n IN (x, y))".format, source),
        st.builds("SELECT length(column_name) AS x, 1 AS y FROM (DESCRIBE {})".format, inner),
        st.builds("SELECT COLUMNS(*) FROM (SELECT x, y FROM {})".format, source),
        st.builds("SELECT x, y FROM {} ORDER BY (SELECT min(x) FROM {}) LIMIT 5".format, source, source),
        st.builds("SELECT list_sum(list_transform([x], e -> e + (SELECT min(x) FROM {}))) AS x, y FROM {}".format, source, source),
        st.just("SELECT 1 AS x, 'FROM c' AS y -- FROM b\n"),
        st.just("FROM (VALUES (1, 2)) AS a(x, y)"),
        st.just("SELECT range AS x, 2 AS y FROM range(3) AS b"),
    )  # fmt: skip


def sources(depth):
    named = st.sampled_from(NAMES)
    if depth == 0:
        return named
    inner = queries(depth - 1)
    return st.one_of(named, named, st.builds("({})".format, inner))


def run(text, paths):
    return run_select(text, Scope(dict.fromkeys(paths, TABLE)))


def outcome(text, paths):
    try:
        run_select(text, Scope(dict.fromkeys(paths, TABLE)))
    except QueryError as error:
        return str(error)
    return ""


def bare_outcome(connection, text, paths):
    """Run a statement without any check of ours over tables of its own, and return what DuckDB says."""
    connection.execute("BEGIN")
    try:
        for path in paths:
            if len(path) == 2:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {path[0]}")
            connection.execute(f"CREATE OR REPLACE VIEW {'.'.join(path)} AS SELECT 1 AS x, 2 AS y")
        connection.execute("EXPLAIN " + text).fetchall()
    except duckdb.Error as error:
        return str(error)
    finally:
        connection.execute("ROLLBACK")
    return ""


def same(one, other):
    return tuple(map(folded, one)) == tuple(map(folded, other))


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(queries(2))
def test_a_statement_needs_each_of_the_tables_found_and_no_other(text):
    found = read_statement(text).tables
    assert "does not exist" not in outcome(text, found), text
    if bare_outcome(BARE, text, found):
        return  # DuckDB refuses it for another reason: an ambiguous name
    if "WITH" in text:
        return  # a WITH that is not used is named, and DuckDB does not look at it
    for each in found:
        left = [path for path in found if not same(path, each)]
        assert "does not exist" in bare_outcome(BARE, text, left), (text, each)


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("DESCRIBE a", ["a"]),
        ("SHOW a", ["a"]),
        ("SUMMARIZE a", ["a"]),
        ("TABLE a", ["a"]),
        ("FROM a, a AS b, b.c", ["a", "b.c"]),
        ("UNPIVOT a ON x, y INTO NAME n VALUE v", ["a"]),
        ("FROM a SELECT a.x, b.y", ["a"]),
        ("WITH r AS (WITH a AS (FROM c) FROM a) FROM r, a", ["c", "a"]),
        ("WITH RECURSIVE t(n) USING KEY (n) AS (SELECT 1 UNION SELECT k.n + 1 FROM recurring.t AS k, t) FROM t", []),
        ("WITH a AS (FROM b) FROM main.a", ["b", "main.a"]),
        ("FROM a TABLESAMPLE 50%", ["a"]),
        ("SELECT ARRAY(FROM a), {'k': (FROM b)}", ["a", "b"]),
        ("SELECT sum(x) OVER w FROM a WINDOW w AS (ORDER BY (FROM b))", ["a", "b"]),
        ("SELECT x FROM a QUALIFY row_number() OVER (PARTITION BY (SELECT 1 FROM b)) = 1", ["a", "b"]),
        ("SELECT max(x) FILTER (x IN (FROM b)) FROM a GROUP BY ALL HAVING 1 IN (FROM c)", ["a", "b", "c"]),
        ("FROM a SEMI JOIN b USING (x) ANTI JOIN c USING (x)", ["a", "b", "c"]),
        ("VALUES ((FROM a))", ["a"]),
        ("SELECT 1 LIMIT (SELECT count(*) FROM a)", ["a"]),
        ("FROM unnest((SELECT list(x) FROM a))", ["a"]),
    ],
)
def test_places_where_a_table_can_stand(text, tables):
    assert sorted(".".join(path) for path in read_statement(text).tables) == sorted(tables)

"""What a SELECT must not reach: files, settings, extensions, memory, code, what other calls see; by text, parameters, names and values."""

import os
import threading
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepwell.kernel_runtime.errors import CellSyntaxError, QueryError, StepwellError
from stepwell.kernel_runtime.store.sql import instance as sql_instance
from stepwell.kernel_runtime.store.sql.select import Scope, run_select
from stepwell.kernel_runtime.store.sql.statements import file_access, read_statement

pytestmark = pytest.mark.attack(
    "A SELECT of another person writes, reads files outside of the project, loads extensions or changes settings.",
    "The text is refused before it runs: it must be one SELECT for DuckDB's parser, and may call only functions that are on a list.",
)

SECRET = "value-nobody-may-see"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a file, a folder outside it with another, and a store; the working directory is the project."""
    inside, outside = tmp_path / "project", tmp_path / "outside"
    for folder in (inside / "data", outside, inside / ".stepwell" / "tmp"):
        folder.mkdir(parents=True)
    (inside / "data" / "a.csv").write_text("x\n1\n")
    (inside / "data" / "b.csv").write_text("x\n2\n")
    for secret in (outside / "o.csv", inside / ".stepwell" / "catalog.duckdb", inside / "key"):
        secret.write_text(f"x\n{SECRET}\n")
    (inside / ".stepwell" / "s.csv").write_text(f"x\n{SECRET}\n")
    monkeypatch.chdir(inside)
    return inside


def select(text, project, parameters=None):
    """Run a SELECT as the session does: with the files below the project that it names, and nothing else."""
    parameters = parameters or {}
    access = file_access(read_statement(text).files, parameters, project, [project / ".stepwell", project / "key"])
    return run_select(text, Scope({}, parameters, files=access, store=project / ".stepwell")).to_pydict()


@pytest.mark.parametrize(
    "text",
    [
        "FROM 'data/a.csv'",
        'FROM "data/a.csv"',
        "FROM './data/../data/a.csv'",
        "FROM read_csv('data/a.csv')",
        "FROM read_csv(['data/a.csv'], header = true)",
        "FROM READ_CSV('data/a.csv')",
        "FROM read_csv($path)",
    ],
)
def test_files_below_the_project_are_read(project, text):
    parameters = {"path": str(project / "data" / "a.csv")} if "$path" in text else {}
    assert select(text, project, parameters) == {"x": [1]}


def test_patterns_and_links_inside_the_project_are_read(project):
    (project / "data" / "c.csv").symlink_to(project / "data" / "a.csv")
    assert select("SELECT sum(x)::INT AS s FROM 'data/*.csv'", project) == {"s": [4]}
    assert select("SELECT sum(x)::INT AS s FROM read_csv('**/[ab].csv')", project) == {"s": [3]}
    assert select(f"FROM 'file://{project}/data/a.csv'", project) == {"x": [1]}
    (project / "data" / "p.json").write_text('{"y": 5}\n')
    pq.write_table(pa.table({"z": [6]}), "data/p.parquet")
    assert select("SELECT y, z FROM read_json('data/p.json'), 'data/p.parquet'", project) == {"y": [5], "z": [6]}


OUTSIDE = [
    "FROM '../outside/o.csv'",
    "FROM 'data/../../outside/o.csv'",
    "FROM read_csv('{outside}/o.csv')",
    "FROM read_csv(['data/a.csv', '{outside}/o.csv'])",
    "FROM read_csv($path)",
    "FROM 'file://{outside}/o.csv'",
    "FROM 'data/link.csv'",
    "FROM 'data/*.csv'",
    "FROM 'folder/o.csv'",
    "FROM 'folder/*.csv'",
    "FROM '../*/o.csv'",
    "FROM read_csv('../**/*.csv')",
    "FROM '.stepwell/s.csv'",
    "FROM read_csv('.stepwell/catalog.duckdb')",
    "FROM read_csv('.stepwell/*')",
    "FROM read_csv('key')",
    "FROM read_csv('~/x.csv')",
    "FROM read_csv('/etc/passwd')",
    "FROM read_csv('/proc/self/environ')",
    "FROM read_csv('/dev/stdin')",
    "FROM 'https://example.org/x.csv'",
    "FROM read_parquet('s3://bucket/x.parquet')",
    "FROM read_csv('data/a.csv' || '')",
    "FROM read_csv(getenv('HOME'))",
    "FROM read_csv((SELECT 'data/a.csv'))",
    "FROM read_csv(path := '{outside}/o.csv')",
    "FROM read_csv()",
    "FROM read_csv('data/a.csv\0')",
    "SELECT 1 WHERE 1 IN (FROM read_csv('{outside}/o.csv'))",
    "WITH t AS (FROM '{outside}/o.csv') FROM t",
    "FROM (DESCRIBE FROM '{outside}/o.csv')",
    "SUMMARIZE FROM '{outside}/o.csv'",
    "FROM (PIVOT '{outside}/o.csv' ON x IN (1) USING count(*))",
    "SELECT (SELECT count(*) FROM '{outside}/o.csv')",
]


@pytest.mark.parametrize("text", OUTSIDE)
def test_no_other_file_is_read(project, text):
    outside = project.parent / "outside"
    (project / "data" / "link.csv").symlink_to(outside / "o.csv")
    (project / "folder").symlink_to(outside)
    before = tree(project.parent)
    with pytest.raises(StepwellError) as caught:
        select(text.replace("{outside}", str(outside)), project, {"path": str(outside / "o.csv")})
    assert SECRET not in str(caught.value)
    assert tree(project.parent) == before


def test_the_engine_alone_reads_no_other_file_either(project):
    # As if every check of ours had let it pass: the instance may open a.csv, and nothing else.
    outside = project.parent / "outside"
    (project / "data" / "link.csv").symlink_to(outside / "o.csv")
    (project / "folder").symlink_to(outside)
    instance = sql_instance.private_instance(project / ".stepwell", [str(project / "data" / "a.csv")])
    try:
        for text in OUTSIDE:
            if text.startswith(("FROM read_csv('data/a.csv", "FROM read_csv((SELECT")):
                continue
            with pytest.raises(duckdb.Error) as caught:
                instance.execute(
                    text.replace("{outside}", str(outside)),
                    {"path": str(outside / "o.csv")} if "$path" in text else None,
                ).fetchall()
            assert SECRET not in str(caught.value), text
    finally:
        instance.close()


STATEMENTS = [
    "COPY (SELECT 1) TO 'out.csv'",
    "COPY t FROM 'data/a.csv'",
    "ATTACH 'other.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE 'out'",
    "IMPORT DATABASE 'out'",
    "PRAGMA database_list",
    "SET threads = 1",
    "RESET threads",
    "CALL range(3)",
    "CREATE TABLE made AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "CREATE SECRET (TYPE s3)",
    "INSERT INTO t VALUES (1)",
    "UPDATE t SET x = 1",
    "DELETE FROM t",
    "DROP TABLE t",
    "USE memory",
    "CHECKPOINT",
    "VACUUM",
    "PREPARE q AS SELECT 1",
    "EXECUTE q",
    "EXPLAIN ANALYZE SELECT 1",
    "BEGIN",
    "SELECT 1; COPY (SELECT 1) TO 'out.csv'",
    "SELECT 1;; SELECT 2",
    "WITH w AS (INSERT INTO t VALUES (1) RETURNING *) FROM w",
    "WITH w AS (DELETE FROM t RETURNING *) FROM w",
    "WITH w AS (UPDATE t SET x = 1 RETURNING *) SELECT 1",
    "FROM query('SELECT 1')",
    "FROM query('COPY (SELECT 1) TO ''out.csv''')",
    "FROM query_table('t')",
    "FROM system.main.query_table('t')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "FROM histogram('t', x)",
    "FROM histogram_values('t', x)",
    "FROM summary(TABLE t)",
    "FROM glob('*')",
    "FROM read_text('data/a.csv')",
    "FROM read_blob('data/a.csv')",
    "FROM sniff_csv('data/a.csv')",
    "FROM parquet_metadata('data/a.parquet')",
    "FROM read_duckdb('.stepwell/catalog.duckdb')",
    "FROM arrow_scan(1::UBIGINT, 2::UBIGINT, 3::UBIGINT)",
    "FROM python_arrow_scan(1, 2, 3)",
    "FROM pandas_scan(1)",
    "FROM python_map_function(TABLE t, 1)",
    "FROM enable_logging(storage := 'file', storage_path := 'out')",
    "FROM enable_profiling()",
    "FROM create_external_resource('x')",
    "FROM add_grammar_extension('x')",
    "FROM checkpoint()",
    "FROM duckdb_settings()",
    "FROM duckdb_secrets()",
    "FROM duckdb_tables()",
    "FROM pragma_version()",
    "SHOW TABLES",
    "SHOW DATABASES",
    "FROM (SHOW ALL TABLES)",
    "SELECT getenv('HOME')",
    "SELECT current_setting('temp_directory')",
    "SELECT getvariable('x')",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
    "SELECT __internal_decompress_string(1::UBIGINT)",
    "SELECT 1 ORDER BY (SELECT count(*) FROM query('SELECT 1'))",
    "SELECT list_transform([1], x -> (SELECT current_setting('threads')))",
]


@pytest.mark.parametrize("text", STATEMENTS)
def test_nothing_but_one_plain_select_is_run(project, text):
    before = tree(project)
    with pytest.raises(CellSyntaxError) as caught:
        run_select(text, Scope({"t": pd.DataFrame({"x": [1]})}))
    assert len(str(caught.value).splitlines()) <= 3
    assert tree(project) == before


@pytest.mark.parametrize(
    "table",
    [
        "duckdb_settings", "duckdb_tables", "sqlite_master", "pg_catalog.pg_tables", "information_schema.tables", "temp.main.other", "memory.main.other",
        "main.t", "temp.t", "system.main.duckdb_settings", "other", "frame", "os", "pragma_database_list", "duckdb_secrets",
    ],
)  # fmt: skip
def test_no_view_of_the_system_and_no_variable_stands_in_for_a_table(table):
    frame = pd.DataFrame({"x": [1]})
    with pytest.raises(QueryError, match="there is no table"):
        run_select(f"SELECT * FROM {table}", Scope({"t": frame}))


NAMES = [
    'key"; DROP TABLE t; --', "a;b", "a'b", 'a"b', "ключ", "ta\u200bble", "ﬂights", "select", "a b", "a.b", "1", "-- x", "/* x", "$x", "raw/flights", "x" * 500,
    "'; ATTACH 'x", "temp", "main", "K", "t\n", "\\", "%s", "{}",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_table_or_column_is_only_a_name(name, project):
    before = tree(project)
    quoted = '"' + name.replace('"', '""') + '"'
    frame = pd.DataFrame({name: [name, "'; DROP TABLE t; --"], "n": [1, 2]})
    for value in (frame, pa.Table.from_pandas(frame)):
        found = run_select(
            f"SELECT {quoted} FROM {quoted} WHERE {quoted} = $p", Scope({name: value, "other": value}, {"p": name})
        )
        assert found.to_pydict() == {name: [name]}
    if name == "temp":
        with pytest.raises(QueryError, match=r'write the key of the asset in quotes: "temp/temp"'):
            run_select("SELECT n FROM temp.temp", Scope({(name, name): frame}))
    else:
        qualified = run_select(f"SELECT n FROM {quoted}.{quoted}", Scope({(name, name): frame}))
        assert qualified.to_pydict() == {"n": [1, 2]}
    assert tree(project) == before


def test_names_that_look_alike_are_not_the_same():
    kelvin, k = pd.DataFrame({"x": ["kelvin"]}), pd.DataFrame({"x": ["k"]})
    tables = {"\u212a": kelvin, "k": k}
    assert run_select('FROM "\u212a"', Scope(tables)).to_pydict() == {"x": ["kelvin"]}
    assert run_select("FROM K", Scope({"K": k})).to_pydict() == {"x": ["k"]}
    assert set(read_statement('WITH "É" AS (SELECT 1) FROM "é", "É"').tables) == {("é",)}


def test_names_that_differ_in_capitals_only_are_refused_where_they_mean_different_tables():
    one, two = pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [2]})
    with pytest.raises(QueryError, match="ignores the case of names"):
        run_select("FROM t a, T b", Scope({"t": one, "T": two}))
    assert run_select("SELECT a.x + b.x AS s FROM t a, T b", Scope({"t": one, "T": one})).to_pydict() == {"s": [2]}


def test_values_of_parameters_are_values(project):
    for value in ("' OR 1=1 --", "x'); COPY (SELECT 1) TO 'out.csv'; --", "$p", "'data/a.csv'", "\0"):
        assert run_select("SELECT $p AS p", Scope({}, {"p": value})).to_pydict() == {"p": [value]}
    with pytest.raises(QueryError, match="no value"):
        run_select("SELECT $p", Scope({}))
    with pytest.raises(CellSyntaxError, match="contains a parameter without a name"):
        run_select("SELECT ?", Scope({}, {"1": 1}))
    with pytest.raises(QueryError):
        run_select("SELECT $p", Scope({}, {"p": object()}))


def test_calls_at_the_same_time_see_their_own_tables():
    begun, wrong = threading.Barrier(6), []

    def ask(number):
        begun.wait()
        for _ in range(15):
            mine = pa.table({"x": [number]})
            for text, scope in (
                ("SELECT x FROM t", {"t": mine}),
                ("SELECT x FROM s.t", {("s", "t"): mine}),
            ):
                found = run_select(text, Scope(scope)).to_pydict()["x"]
                if found != [number]:
                    wrong.append((number, found))
        try:
            run_select("SELECT x FROM t", Scope({"u": mine}))
            wrong.append(number)
        except QueryError:
            pass

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_configuration_is_locked_and_nothing_spills_outside_the_store(project):
    connection = sql_instance.cursor(project / ".stepwell")
    try:
        settings = dict(connection.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    finally:
        connection.close()
    assert settings["lock_configuration"] == "true"
    assert settings["enable_external_access"] == "false"
    assert settings["autoload_known_extensions"] == settings["autoinstall_known_extensions"] == "false"
    assert settings["TimeZone"] == "UTC"
    assert Path(settings["temp_directory"]).parent == project / ".stepwell" / "tmp"


def tree(folder):
    return {
        path: os.lstat(path).st_size for path in sorted(Path(folder).rglob("*")) if "tmp" not in path.relative_to(folder).parts
    }

"""`stepwell.sql`: rows of stored assets, of files below the project and of the catalog; inside a step its reads count."""

import os

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import stepwell
from stepwell.commands.sql import query
from stepwell.kernel_runtime.definitions.registry import Registry
from stepwell.kernel_runtime.errors import (
    CellError,
    CellNameError,
    CellSyntaxError,
    InvalidInvocationError,
    NotTabularError,
    QueryError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.session.explanation import explain


@stepwell.asset
def clean():
    return pd.DataFrame({"origin": ["JFK", "SFO"], "delay": [5, 40]})


@stepwell.asset(key_prefix="raw")
def flights():
    return [{"n": 1}, {"n": 2}]


@stepwell.asset
def model():
    return {"weights": 1.5}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working directory: a project with its store."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def session(project):
    made = Session(Registry())
    made.use(project / ".stepwell")
    yield made
    made.close()


@pytest.fixture
def run(session):
    def bring(*definitions):
        return [step.status for step in session.materialize(list(definitions)).steps]

    return bring


def test_a_table_is_a_key_in_any_spelling_that_means_one(session, run):
    run(clean, flights, model)
    assert query(session, "SELECT delay FROM clean WHERE origin = $o", parameters={"o": "SFO"})["delay"].tolist() == [40]
    for name in ('"raw/flights"', "raw.flights", "flights", "Flights", '"RAW/flights"', "Raw.Flights"):
        assert query(session, f"SELECT sum(n)::INT AS s FROM {name}", frame="pyarrow").to_pydict() == {"s": [3]}
    assert len(query(session, "FROM raw.flights, flights AS f")) == 4

    @stepwell.asset(name="flights", key_prefix="old")
    def older():
        return [{"n": 9}]

    run(older)
    with pytest.raises(QueryError, match="could mean old/flights or raw/flights"):
        query(session, "FROM flights")


def test_the_rows_become_the_frame_that_is_asked_for(session, run):
    run(clean)
    kinds = {"pandas": pd.DataFrame, "auto": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table}
    for name, kind in kinds.items():
        assert type(query(session, "FROM clean", frame=name)) is kind
    assert query(session, "FROM clean", frame="reader").read_all().num_rows == 2


def test_what_cannot_be_read_says_so(session, run):
    run(clean, model)
    for text, kind, says in (
        ("FROM claen", QueryError, "did you mean clean?"),
        ("FROM stepwell.run", QueryError, "did you mean stepwell.runs"),
        ("FROM model", NotTabularError, "'model' is not a table: its type is dict"),
        ("SELECT nope FROM clean", QueryError, r"LINE 1: SELECT nope FROM clean\n +\^"),
        ("SELECT $low", QueryError, "parameters={'low': ...}"),
        ("DELETE FROM clean", CellSyntaxError, "not a SELECT statement"),
        ("", CellSyntaxError, "no statement"),
        ("FROM 'nope.csv'", QueryError, "there is no file 'nope.csv'"),
        ("FROM a.b.c.d", QueryError, "no table 'a.b.c.d'"),
    ):
        with pytest.raises(kind, match=says) as caught:
            query(session, text)
        assert len(str(caught.value).splitlines()) <= 4


def test_what_is_defined_and_not_stored_says_how_to_make_it(session):
    session.registry.register(flights)
    with pytest.raises(ValueUnavailableError, match="%materialize raw/flights"):
        query(session, "FROM raw.flights")


def test_values_of_several_notebooks_are_told_apart(python):
    for number in (1, 2):
        python(
            f"""
            import stepwell
            @stepwell.asset
            def shared():
                return [{{"x": {number}}}]
            stepwell.materialize([shared], store="kept")
            """,
            name=f"notebook_{number}.py",
        )
    out = python(
        """
        import stepwell
        try:
            stepwell.sql("FROM shared", store="kept")
        except stepwell.errors.AmbiguousKeyError as error:
            print(error)
        print(stepwell.sql("FROM shared", store="kept", notebook=NAME)["x"].tolist())
        """.replace("NAME", "str(stepwell.sql('FROM stepwell.current', store='kept')['notebook'].min())"),
        name="reader.py",
    )
    assert "several notebooks" in out
    assert "stepwell.sql(..., notebook=" in out
    assert out.splitlines()[-1] == "[1]"


def test_what_a_step_asks_for_counts_as_its_input(session, run, project):
    (project / "data").mkdir()
    (project / "data" / "a.csv").write_text("x\n1\n")

    @stepwell.asset
    def base():
        return pa.table({"x": [LEVEL]})

    @stepwell.asset(deps=[base])
    def asked():
        both = stepwell.sql("SELECT x FROM base UNION ALL SELECT x FROM 'data/*.csv'", frame="pyarrow")
        return sorted(both["x"].to_pylist())

    global LEVEL  # noqa: PLW0603 - what the user edits
    LEVEL = 5
    store = project / ".stepwell"

    def bring():
        return [step.status for step in stepwell.materialize([base, asked], store=store).steps]

    assert bring() == ["executed"] * 2
    assert stepwell.load("asked", store=store) == [1, 5]
    assert bring() == ["reused"] * 2
    os.utime(project / "data" / "a.csv")
    assert bring() == ["reused"] * 2
    (project / "data" / "a.csv").write_text("x\n2\n")
    assert bring() == ["reused", "executed"]
    (project / "data" / "b.csv").write_text("x\n3\n")
    assert bring() == ["reused", "executed"]
    assert stepwell.load("asked", store=store) == [2, 3, 5]
    LEVEL = 6
    assert bring() == ["executed"] * 2
    assert bring() == ["reused"] * 2
    reads = stepwell.sql("SELECT DISTINCT kind FROM stepwell.reads WHERE key = 'asked' AND is_current", store=store)
    assert sorted(reads["kind"]) == ["asset", "file", "glob"]


LEVEL = 5


def test_a_sql_asset_follows_its_files_and_keys_with_prefixes(session, run, project):
    (project / "rates.csv").write_text("n,rate\n1,10\n")
    joined = stepwell.sql_asset("joined", "SELECT n, rate FROM raw.flights JOIN 'rates.csv' USING (n)")
    quoted = stepwell.sql_asset("quoted", 'SELECT count(*) AS c FROM "raw/flights"', frame="pyarrow")
    assert run(flights, joined, quoted) == ["executed"] * 3
    assert session.load("joined")["rate"].tolist() == [10]
    assert session.load("quoted").to_pydict() == {"c": [2]}
    os.utime(project / "rates.csv")
    assert run(flights, joined, quoted) == ["reused"] * 3
    (project / "rates.csv").write_text("n,rate\n1,11\n2,12\n")
    assert "rates.csv changed" in str(explain(session, "joined", definitions=[flights, joined]))
    assert run(flights, joined, quoted) == ["reused", "executed", "reused"]
    assert session.load("joined")["rate"].tolist() == [11, 12]
    outside = stepwell.sql_asset("outside", "FROM '/etc/x.csv'")
    reason = r"a SELECT cannot read '/etc/x\.csv', because the file is not below the project"
    with pytest.raises(CellError, match=f"the SQL asset 'outside' could not be computed: {reason}"):
        run(outside)
    with pytest.raises(CellError, match="reads the catalog"):
        stepwell.sql_asset("of_runs", "FROM stepwell.runs")
    with pytest.raises(InvalidInvocationError, match="frame='reader' is invalid"):
        stepwell.sql_asset("read", "SELECT 1", frame="reader")
    with pytest.raises(CellNameError, match="low"):
        stepwell.sql_asset("late", "FROM clean WHERE delay > $low")


def test_the_catalog_is_a_schema(session, run):
    @stepwell.asset
    def doubled(clean):
        return len(clean) * 2

    run(clean, doubled)
    run(clean, doubled)
    with pytest.raises(ZeroDivisionError):
        run(broken)

    def rows(text):
        return query(session, text, frame="pyarrow").to_pylist()

    assert [row["status"] for row in rows("FROM stepwell.runs ORDER BY started")] == ["success", "success", "failure"]
    assert rows("SELECT error, error_message FROM stepwell.runs WHERE status = 'failure'")[0]["error"] == "ZeroDivisionError"
    assert rows("SELECT targets FROM stepwell.runs LIMIT 1") == [{"targets": ["clean", "doubled"]}]
    assert rows("SELECT key, count(*) AS n FROM Stepwell.STEPS WHERE status = 'reused' GROUP BY key ORDER BY key") == [
        {"key": "clean", "n": 1},
        {"key": "doubled", "n": 1},
    ]
    assert rows("SELECT upstream, input, is_current FROM stepwell.lineage WHERE key = 'doubled'") == [
        {"upstream": "clean", "input": "clean", "is_current": True}
    ]
    assert rows("SELECT key, executed, reused FROM stepwell.durations WHERE key = 'clean'") == [
        {"key": "clean", "executed": 1, "reused": 1}
    ]
    stored = rows("SELECT key, versions, bytes = current_bytes AS whole FROM stepwell.sizes ORDER BY key")
    assert stored == [{"key": key, "versions": 1, "whole": True} for key in ("clean", "doubled")]
    assert rows("SELECT m.key, m.type, c.size = m.size AS same FROM stepwell.materializations m JOIN stepwell.current c "
                "ON c.materialization = m.id WHERE m.key = 'clean'") == [{"key": "clean", "type": "pandas.DataFrame", "same": True}]  # fmt: skip
    assert rows("SELECT count(*) > 0 AS some FROM stepwell.code_versions WHERE path = 'clean'") == [{"some": True}]
    # Beside assets, in one statement.
    assert rows("SELECT max(s.seconds) >= 0 AS ok, count(*) > 2 AS many FROM stepwell.steps s, clean") == [
        {"ok": True, "many": True}
    ]


@stepwell.asset
def broken():
    return 1 // 0


def test_the_catalog_tells_no_secret_and_is_let_go_before_the_statement_runs(session, run, python, project, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "value-nobody-may-see")

    @stepwell.asset
    def fetched():
        return len(os.environ["API_TOKEN"])

    run(fetched)
    from stepwell.kernel_runtime.store.sql.catalog_views import VIEWS

    for view in VIEWS:
        rows = query(session, f"FROM stepwell.{view}", frame="pyarrow")
        assert "value-nobody-may-see" not in str(rows.to_pylist()), view
        assert not {"inline", "signature", "text"} & set(rows.column_names)
    assert "API_TOKEN" in query(session, "FROM stepwell.reads")["name"].tolist()
    # While the reader stands in the middle of its rows, another process writes the same store.
    reader = query(session, "SELECT s.key FROM stepwell.steps s, range(1_000_000_000)", frame="reader")
    reader.read_next_batch()
    out = python(
        """
        import sys, stepwell
        @stepwell.asset
        def other():
            return 1
        print([step.status for step in stepwell.materialize([other], store=sys.argv[1]).steps])
        """,
        project / ".stepwell",
    )
    assert out == "['executed']\n"
    reader.close()


def test_ctrl_c_stops_a_statement_and_the_session_goes_on(python, tmp_path):
    out = python(
        """
        import os, signal, sys, threading, time
        import pyarrow as pa, stepwell
        from stepwell.kernel_runtime.session import get_session

        @stepwell.asset
        def base():
            return pa.table({"x": [1, 2]})

        long = stepwell.sql_asset("long", "SELECT count(*) FROM base, range(100000000) a, range(100000000) b WHERE a.range + b.range = x")
        stepwell.materialize([base], store="kept")

        def interrupted(what, work):
            # The signal is sent when the statement runs: DuckDB's threads are busy.
            def send():
                while time.process_time() - began < 0.3:
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGINT)
            began, started = time.process_time(), time.monotonic()
            threading.Thread(target=send, daemon=True).start()
            try:
                work()
                print(what, "ended")
            except KeyboardInterrupt:
                print(what, "stopped", time.monotonic() - started < 20)

        interrupted("sql", lambda: stepwell.sql("SELECT count(*) FROM base, range(100000000) a, range(100000000) b WHERE a.range + b.range = x", store="kept"))
        interrupted("reader", lambda: stepwell.sql("SELECT sum(a.range + b.range) FROM base, range(100000000) a, range(100000000) b", store="kept", frame="reader").read_all())
        interrupted("asset", lambda: stepwell.materialize([base, long], store="kept"))
        print(stepwell.sql("SELECT sum(x)::INT AS s FROM base", store="kept", frame="pyarrow").to_pydict())
        print(stepwell.last_run().status)
        """
    )
    assert out.splitlines() == [
        "sql stopped True",
        "reader stopped True",
        "asset stopped True",
        "{'s': [3]}",
        "cancelled",
    ]

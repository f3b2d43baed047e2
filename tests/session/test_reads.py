"""What a step reads of the world decides whether its value is used again, and `why` says what changed."""

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import duckdb
import polars as pl
import pytest

import stepwell
from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.errors import InvalidDefinitionError
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.session.explanation import explain


@pytest.fixture
def folder(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(store_dir):
    """Bring assets up to date in a new session; returns the statuses of the steps in order."""

    def bring(*definitions):
        session = Session()
        try:
            result = session.materialize(list(definitions), store=store_dir)
            bring.last = result
            return [step.status for step in result.steps]
        finally:
            session.close()

    return bring


@pytest.fixture
def why(store_dir):
    def explained(key, *definitions):
        session = Session()
        try:
            return str(explain(session, key, definitions=list(definitions), store=store_dir))
        finally:
            session.close()

    return explained


def test_an_environment_name_its_value_never_shown_or_stored(folder, run, why, monkeypatch, store_dir):
    @stepwell.asset
    def mode():
        return len(os.environ["SOME_MODE"])

    monkeypatch.setenv("SOME_MODE", "value-nobody-may-see-1")
    assert run(mode) == ["executed"]
    monkeypatch.setenv("OTHER", "1")
    assert run(mode) == ["reused"]
    monkeypatch.setenv("SOME_MODE", "value-nobody-may-see-2")
    told = why("mode", mode)
    assert "the environment variable SOME_MODE changed" in told
    assert "value-nobody" not in told
    assert run(mode) == ["executed"]
    monkeypatch.setenv("SOME_MODE", "value-nobody-may-see-1")
    assert run(mode) == ["reused"]
    kept = [path for path in store_dir.rglob("*") if path.is_file()]
    assert kept
    assert all(b"value-nobody-may" not in path.read_bytes() for path in kept)


def test_a_value_is_found_again_by_another_process_and_not_under_another_key(tmp_path, python, monkeypatch):
    script = """
        import os, sys, stepwell
        @stepwell.asset
        def mode():
            return os.environ["SOME_MODE"], len(dict(os.environ)) > 0, sorted(os.listdir("data"))
        print([step.status for step in stepwell.materialize([mode], store="kept").steps])
    """
    monkeypatch.setenv("SOME_MODE", "a")
    (tmp_path / "data").mkdir()
    assert python(script) == "['executed']\n"
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert python(script) == "['reused']\n"
    monkeypatch.setenv("SOME_MODE", "b")
    assert python(script) == "['executed']\n"
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "kept" / "another key"))
    assert python(script) == "['executed']\n"


def test_a_listing_and_a_native_file(folder, run, why):
    for name in ("1", "2"):
        pl.DataFrame({"a": [int(name)]}).write_parquet(f"{name}.parquet")

    @stepwell.asset
    def names():
        return sorted(path.name for path in Path().glob("*.parquet"))

    @stepwell.asset
    def total():
        return pl.scan_parquet("*.parquet").sum().collect().item()

    @stepwell.asset
    def counted():
        return duckdb.sql("select count(*) from '*.parquet'").fetchall()

    every = (names, total, counted)
    assert run(*every) == ["executed"] * 3
    assert run(*every) == ["reused"] * 3
    os.utime("1.parquet")
    assert run(*every) == ["reused"] * 3
    pl.DataFrame({"a": [5]}).write_parquet("1.parquet")
    assert run(*every) == ["reused", "executed", "executed"]
    pl.DataFrame({"a": [3]}).write_parquet("3.parquet")
    assert f"the names in {folder} changed: new 3.parquet" in why("names", *every)
    assert f"the files that match {folder}/*.parquet changed: new 3.parquet" in why("total", *every)
    assert run(*every) == ["executed"] * 3
    assert run.last.value("total") == 10


def test_declared_files_are_checked_and_count_from_the_moment_they_are_declared(folder, run, why):
    Path("data").mkdir()
    Path("data/a.bin").write_text("1")

    def body():
        return 1

    assert run(stepwell.asset(name="seen")(body)) == ["executed"]
    seen = stepwell.asset(name="seen", reads=["data/*.bin", Path("settings")])(body)
    assert run(seen) == ["executed"]
    assert run(seen) == ["reused"]
    Path("data/a.bin").write_text("2")
    assert f"{folder}/data/a.bin changed" in why("seen", seen)
    assert run(seen) == ["executed"]
    Path("data/b.bin").write_text("2")
    assert run(seen) == ["executed"]
    Path("settings").write_text("")
    assert run(seen) == ["executed"]
    assert run(seen) == ["reused"]


def test_ops_and_multi_assets_declare_files_too(folder, run):
    Path("a").write_text("1")
    both = stepwell.multi_asset(outs={"one": stepwell.AssetOut(), "two": stepwell.AssetOut()}, name="both", reads="a")(
        lambda: (1, 2)
    )
    part = stepwell.op(name="part", reads=["a"])(lambda: 1)

    @stepwell.graph_asset
    def whole():
        return part()

    assert run(both, whole) == ["executed"] * 2
    assert run(both, whole) == ["reused"] * 2
    Path("a").write_text("2")
    assert run(both, whole) == ["executed"] * 2


@pytest.mark.parametrize("given", ["https://example.org/x.csv", [1], [""]])
def test_what_is_no_file_cannot_be_declared(given):
    with pytest.raises(InvalidDefinitionError, match="not a file path"):
        stepwell.asset(name="bad", reads=given)(lambda: 1)


def test_an_asset_that_is_loaded_inside_a_step_is_an_input(folder, store_dir):
    Path("number").write_text("1")

    @stepwell.asset
    def base():
        return int(Path("number").read_text()) // 10

    @stepwell.asset
    def by_key():
        return stepwell.load("base") + 1

    @stepwell.asset
    def by_definition():
        return base.load() + 1

    every = [base, by_key, by_definition]

    def statuses():
        result = stepwell.materialize(every, store=store_dir)
        return [step.status for step in result.steps], result.value("by_key")

    assert statuses() == (["executed"] * 3, 1)
    assert statuses() == (["reused"] * 3, 1)
    Path("number").write_text("2")
    # Early cutoff: the value that was loaded is the same.
    assert statuses() == (["executed", "reused", "reused"], 1)
    Path("number").write_text("30")
    assert statuses() == (["executed"] * 3, 4)
    stepwell.materialize([base], store=store_dir)
    Path("number").write_text("50")
    stepwell.materialize([base], store=store_dir)
    assert "the value of base, which the step loads, changed" in str(stepwell.why("by_key", definitions=every, store=store_dir))


def test_a_native_read_that_cannot_be_checked_is_said_once_for_the_step(folder, run):
    Path("a.csv").write_text("a\n1\n")

    @stepwell.asset
    def computed():
        duckdb.execute("set variable place = 'a.csv'")
        for _ in range(2):
            found = duckdb.execute("from read_csv(getvariable('place'))").fetchall()
        return found

    assert run(computed) == ["executed"]
    (note,) = [note for note in map(notice_text, run.last.notices) if "computed" in note]
    assert note.startswith("computed read a file whose name is computed with duckdb.execute")
    assert "reads=[...]" in note


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"1")

    def log_message(self, *_):
        pass


def test_a_step_that_uses_the_network_is_reused(folder, run):
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:

        @stepwell.asset
        def raw():
            return urlopen(address).read()

        assert run(raw) == ["executed"]
        assert run(raw) == ["reused"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_step_that_branches_on_a_file_runs_again_when_it_comes_or_goes(folder, run, why):
    @stepwell.asset
    def mode():
        return "fast" if Path("fast.flag").exists() else "slow"

    assert run(mode) == ["executed"]
    assert run(mode) == ["reused"]
    Path("fast.flag").write_text("")
    assert f"{folder}/fast.flag is there now" in why("mode", mode)
    assert run(mode) == ["executed"]
    Path("fast.flag").write_text("other content")
    assert run(mode) == ["reused"]
    Path("fast.flag").unlink()
    # What was computed without it is found again.
    assert run(mode) == ["reused"]


def test_a_step_that_runs_a_program_says_that_what_it_reads_is_not_seen(folder, run):
    Path("data.csv").write_text("1")

    def counted():
        return subprocess.run(["wc", "-c", "data.csv"], check=True, capture_output=True, text=True).stdout

    def notes(**declared):
        run(stepwell.asset(name="counted", **declared)(counted))
        return tuple(map(notice_text, run.last.notices))

    (line,) = notes()
    assert line.startswith("counted ran wc: files that other processes read are not seen; declare them with reads=[...]")
    assert notes() == ()
    assert notes(reads=["data.csv"]) == notes(max_age="1d") == notes(volatile=True) == ()

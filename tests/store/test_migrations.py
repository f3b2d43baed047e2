"""A catalog of format 1 is brought to this one, with a copy kept; a process killed meanwhile leaves it as it was."""

import subprocess
import sys

import duckdb
import pytest

from stepwell.kernel_runtime.store.catalog.schema import FORMAT
from stepwell.kernel_runtime.store.store import open_store

# As the first format wrote them: they never change.
FORMAT_1 = """
CREATE TABLE meta (format INTEGER, store_id VARCHAR, created DOUBLE, created_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round(created * 1000000))::BIGINT)) VIRTUAL);
CREATE TABLE runs (run_id VARCHAR, kind VARCHAR, notebook VARCHAR, targets VARCHAR, status VARCHAR, started DOUBLE, ended DOUBLE, batch VARCHAR, parent_run_id VARCHAR, root_run_id VARCHAR, error VARCHAR, started_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round(started * 1000000))::BIGINT)) VIRTUAL, ended_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round(ended * 1000000))::BIGINT)) VIRTUAL);
CREATE TABLE steps (run_id VARCHAR, key VARCHAR, status VARCHAR, started DOUBLE, seconds DOUBLE, memo_key VARCHAR, materializations VARCHAR, error VARCHAR, reason VARCHAR, not_kept VARCHAR, started_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round(started * 1000000))::BIGINT)) VIRTUAL);
CREATE TABLE materializations (id VARCHAR, run_id VARCHAR, key VARCHAR, step_key VARCHAR, output VARCHAR, notebook VARCHAR, memo_key VARCHAR, code_version VARCHAR, data_version VARCHAR, codec VARCHAR, digest VARCHAR, size BIGINT, inline BLOB, object_name VARCHAR, signature BLOB, type_name VARCHAR, summary VARCHAR, classes VARCHAR, created DOUBLE, seconds DOUBLE, partition VARCHAR, inputs VARCHAR, reads VARCHAR, unverifiable VARCHAR, metadata VARCHAR, created_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round(created * 1000000))::BIGINT)) VIRTUAL);
CREATE TABLE current (notebook VARCHAR, key VARCHAR, partition VARCHAR, materialization VARCHAR, moved DOUBLE, moved_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round(moved * 1000000))::BIGINT)) VIRTUAL);
CREATE TABLE code_versions (digest VARCHAR, parts VARCHAR);
CREATE TABLE outputs (run_id VARCHAR, step_key VARCHAR, kind VARCHAR, stream VARCHAR, text VARCHAR, data VARCHAR, metadata VARCHAR);
CREATE TABLE logs (run_id VARCHAR, step_key VARCHAR, time DOUBLE, level VARCHAR, message VARCHAR, time_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round(time * 1000000))::BIGINT)) VIRTUAL);
INSERT INTO meta VALUES (1, 'the-store', 1.0);
INSERT INTO runs VALUES ('r', 'assets', 'n.ipynb', '["a"]', 'success', 1.0, 2.0, '', '', '', NULL);
INSERT INTO steps VALUES ('r', 'a', 'executed', 1.0, 0.5, 'm', '["i"]', NULL, '', '[]');
INSERT INTO materializations VALUES ('i', 'r', 'a', 'a', 'result', 'n.ipynb', 'm', 'c', 'd', 'plain', '929e5c68755b7c01863d3486fb815db0ec9448875d15660e1b4c67a19e15620f', 4, '\\x00\\x00i5', NULL, NULL, 'int', '5', '[]', 1.0, 0.5, '', '[]', '[]', '[]', '{}');
INSERT INTO current VALUES ('n.ipynb', 'a', '', 'i', 1.0);
"""
KILL_AT = """
import os, sys
from stepwell.kernel_runtime.store.catalog import attachment
from stepwell.kernel_runtime.store.catalog import schema
from stepwell.kernel_runtime.store.store import open_store
place = sys.argv[2]
kill = lambda *_, **__: os.kill(os.getpid(), 9)
if place == "copying":
    schema.Folder.sync = kill
elif place == "before":
    attachment.migrate = kill
else:
    class Connection:
        def __init__(self, real): self.real = real
        def __getattr__(self, name):
            if name == "commit" and place == "commit":
                kill()
            found = getattr(self.real, name)
            def call(*given):
                if name == "execute" and given[0].startswith("UPDATE") and place == "update":
                    kill()
                result = found(*given)
                if name == "commit":
                    kill()
                return result
            return call
    real = attachment.cursor
    attachment.cursor = lambda: Connection(real())
open_store(sys.argv[1])
"""


@pytest.fixture(params=["at rest", "with a log"])
def old(request, tmp_path):
    folder = tmp_path / "store"
    (folder / "objects").mkdir(parents=True)
    if request.param == "at rest":
        with duckdb.connect(str(folder / "catalog.duckdb")) as connection:
            connection.execute(FORMAT_1)
    else:
        program = "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute(sys.argv[2]); os._exit(0)"
        subprocess.run([sys.executable, "-c", program, str(folder / "catalog.duckdb"), FORMAT_1], check=True)
        assert (folder / "catalog.duckdb.wal").exists()
    return folder


def is_whole(folder):
    store = open_store(folder)
    (item,) = store.history("a")
    assert store.get(item.value, key="a") == 5
    assert store.current("a")[0].materialization == item
    assert store.run("r")[1][0].materializations == (item,)
    format_now = store.catalog.ask(
        lambda con, name: con.execute(
            f"SELECT format, store_id, commits, (SELECT count(*) FROM {name}.retention) FROM {name}.meta"
        ).fetchone()
    )
    store.close()
    return format_now == (FORMAT, "the-store", 0, 0)


def test_an_older_catalog_is_migrated_and_a_copy_kept(old):
    assert is_whole(old)
    with duckdb.connect(str(old / "catalog.format-1.duckdb"), read_only=True) as copy:
        assert copy.execute("SELECT format FROM meta").fetchone() == (1,)
        assert copy.execute("SELECT key FROM materializations").fetchone() == ("a",)
    assert not list((old / "tmp").iterdir())


@pytest.mark.parametrize("place", ["copying", "before", "update", "commit", "committed"])
def test_a_process_killed_while_it_migrates_loses_nothing(old, place):
    done = subprocess.run([sys.executable, "-c", KILL_AT, str(old), place], check=False, timeout=240)
    assert done.returncode == -9
    assert is_whole(old)
    assert (old / "catalog.format-1.duckdb").exists()


def test_a_new_store_and_a_migrated_one_have_the_same_tables(tmp_path, old):
    def tables(folder):
        store = open_store(folder)
        found = store.catalog.ask(
            lambda con, name: con.execute(
                "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = ?", [name]
            ).fetchall()
        )
        store.close()
        return sorted(found)

    assert tables(old) == tables(tmp_path / "new")

"""The catalog is written anew without losing a row or the order of rows, seen by others, and safe to kill."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.catalog import compaction
from stepwell.kernel_runtime.store.store import open_store

from . import rows

ROOT = Path(__file__).parents[2]


def everything(store):
    """Return every row of every table in its order, with the columns that are stored and those that are made."""
    return store.catalog.ask(
        lambda con, name: {
            table: con.execute(f"SELECT * FROM {name}.{table} ORDER BY rowid").fetchall() for table in compaction.TABLES
        }
    )


def fill(store, count, start=0):
    for number in range(start, start + count):
        made = rows.made(store, f"a{number % 7}", "x" * 500 + str(number), run_id=f"r{number}", memo_key=f"m{number}")
        store.begin_run(rows.run(f"r{number}", status="success", ended=1.0))
        rows.record(store, made)
    store.flush()


def test_every_row_comes_back_in_its_order_and_the_file_shrinks(store):
    fill(store, 3000)
    store.catalog.change(
        lambda con, name: con.execute(f"DELETE FROM {name}.materializations WHERE run_id NOT LIKE '%7'").fetchall()
    )
    before = everything(store)
    path = store.directory / "catalog.duckdb"
    store.close()
    size = path.stat().st_size
    freed = housekeeping.collect(store, compact=True).catalog_bytes
    after = everything(store)
    # Overtaken pointers went, and commits were counted; nothing else changed.
    same = [name for name in before if name not in ("current", "meta")]
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert after["current"] == [row for row in before["current"] if row in after["current"]]
    assert len(after["current"]) == 7
    store.close()
    assert path.stat().st_size == size - freed < size
    fill(store, 5, start=9000)
    assert store.history("a0")[0].run_id == "r9002"
    assert not list((store.directory / "tmp").iterdir())


def test_newest_means_the_same_after_a_compaction(store):
    fill(store, 20)
    compaction.compact(store.catalog, force=True)
    asked = (["a1"], ["a1"], ["c1"])
    store.snapshot(["another"], ["another"], ["another"])
    assert store.snapshot(*asked).current["a1"][0].materialization.run_id == "r15"
    fill(store, 1, start=22)
    assert store.current("a1")[0].materialization.run_id == "r22"
    assert [item.run_id for item in store.history("a1", limit=2)] == ["r22", "r15"]


def test_another_process_goes_on_with_the_new_file(store):
    program = """
import sys
from stepwell.kernel_runtime.store.store import open_store
from tests.store import rows
store = open_store(sys.argv[1])
for line in sys.stdin:
    rows.record(store, rows.made(store, "theirs", line, run_id=line.strip())).wait()
    print(len(store.history("mine")), len(store.history("theirs")), flush=True)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(store.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    def ask(line):
        other.stdin.write(line + "\n")
        other.stdin.flush()
        return other.stdout.readline().split()

    assert ask("one") == ["0", "1"]
    rows.record(store, rows.made(store, "mine")).wait()
    compaction.compact(store.catalog, force=True)
    assert ask("two") == ["1", "2"]
    assert len(store.history("theirs")) == 2
    compaction.compact(store.catalog, force=True)
    assert ask("three") == ["1", "3"]
    other.stdin.close()
    assert other.wait(240) == 0


def test_a_compaction_that_is_killed_at_any_moment_loses_nothing(tmp_path):
    directory = tmp_path / "store"
    store = open_store(directory)
    fill(store, 300)
    compaction.compact(store.catalog, force=True)
    before = everything(store)
    store.close()
    program = (
        "import sys; from stepwell.kernel_runtime.store.store import open_store\n"
        "from stepwell.kernel_runtime.store.catalog import compaction\n"
        "s = open_store(sys.argv[1]); print('begun', flush=True)\n"
        "while True: compaction.compact(s.catalog, force=True); print('again', flush=True)\n"
    )
    chance = random.Random(4)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )  # fmt: skip
        for _ in range(chance.randrange(1, 4)):
            process.stdout.readline()
        spin = chance.randrange(0, 300_000)
        while spin:
            spin -= 1
        process.kill()
        process.wait()
        assert everything(store) == before
        store.close()
    for path in (directory / "tmp").iterdir():
        os.utime(path, (0, 0))
    housekeeping.collect(store)
    assert not list((directory / "tmp").iterdir())


def test_a_compaction_that_fails_leaves_the_catalog_as_it_was(store, monkeypatch):
    fill(store, 10)
    before = everything(store)
    (store.directory / "tmp").rename(store.directory / "elsewhere")
    with pytest.raises(Exception, match="tmp"):
        compaction.compact(store.catalog, force=True)
    (store.directory / "elsewhere").rename(store.directory / "tmp")
    assert everything(store) == before
    store.record_step(StepRecord("r", "after", "skipped", 0.0)).wait()
    assert len(everything(store)["steps"]) == 11


def test_small_catalogs_are_left_as_they_are(store):
    fill(store, 10)
    path = store.directory / "catalog.duckdb"
    store.close()
    inode = path.stat().st_ino
    assert housekeeping.collect(store).catalog_bytes == 0
    store.close()
    assert path.stat().st_ino == inode


def test_a_large_catalog_that_is_mostly_free_is_written_anew(store):
    fill(store, 100)
    store.catalog.change(
        lambda con, name: con.execute(
            f"INSERT INTO {name}.logs (run_id, step_key, time, level, message) "
            "SELECT 'r', 's', 0, 'INFO', md5(i::VARCHAR) || md5((i + 1)::VARCHAR) FROM range(600000) t(i)"
        ).fetchall()
    )
    store.close()
    store.catalog.change(lambda con, name: con.execute(f"DELETE FROM {name}.logs").fetchall())
    store.close()
    assert compaction.compact(store.catalog, force=False) > compaction.WORTH
    assert len(store.history("a0")) == 15

"""A store stays small by itself, once an hour, and says how large it is."""

import json
import os
import time

import numpy as np

from stepwell.kernel_runtime.records.maintenance import Rule
from stepwell.kernel_runtime.records.materializations import Current
from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.store import housekeeping, retention

from . import rows


def due(store):
    for name in ("housekeeping.json", "CACHEDIR.TAG"):
        if (store.directory / name).exists():
            os.utime(store.directory / name, (time.time() - 4000,) * 2)


def count(store, table, where="true"):
    return store.catalog.ask(lambda con, name: con.execute(f"SELECT count(*) FROM {name}.{table} WHERE {where}").fetchall())[0][0]


def reuse(store, run_id, items, status="success"):
    store.begin_run(rows.run(run_id, status=status, ended=1.0))
    for item in items:
        store.record_step(StepRecord(run_id, item.key, "reused", 0.0, 0.0, item.memo_key, (item,)))


def test_it_is_done_at_most_once_an_hour(store):
    assert not housekeeping.housekeep(store)
    due(store)
    assert housekeeping.housekeep(store)
    assert not housekeeping.housekeep(store)
    os.utime(store.directory / "housekeeping.json", (time.time() + 9000,) * 2)
    assert housekeeping.housekeep(store)


def test_without_rules_no_version_goes_and_with_one_it_does(store):
    for number in range(3):
        rows.record(store, rows.made(store, "a", np.full(20_000, number), run_id=f"r{number}", memo_key=f"m{number}")).wait()
    due(store)
    assert housekeeping.housekeep(store)
    assert len(store.history("a")) == 3
    sizes = housekeeping.read_sizes(store.folder)
    assert sizes.object_bytes > 480_000
    assert 320_000 <= sizes.older_bytes < 330_000
    retention.keep(store, "a", Rule(versions=1))
    due(store)
    assert housekeeping.housekeep(store)
    assert len(store.history("a")) == 1
    # Files without a row are left alone for an hour; these are minutes old.
    assert housekeeping.read_sizes(store.folder).older_bytes == 0


def test_what_a_rule_drops_is_not_counted_as_older_too(store):
    for number in range(3):
        rows.record(store, rows.made(store, "a", np.full(20_000, number), run_id=f"r{number}", memo_key=f"m{number}")).wait()
    assert 320_000 <= housekeeping.measure(store).older_bytes < 330_000
    retention.keep(store, "a", Rule(versions=2))
    assert 160_000 <= housekeeping.measure(store).older_bytes < 165_000


def test_overtaken_pointers_go_and_what_is_current_stays(store):
    for number in range(6):
        for notebook in ("one", "two"):
            rows.record(store, rows.made(store, "a", number, run_id=f"{notebook}{number}", notebook=notebook))
    store.flush()
    before = store.current("a")
    assert store.catalog.change(housekeeping.fold) == (10, 0)
    assert store.current("a") == before
    assert count(store, "current") == 2


def test_of_runs_that_reused_everything_only_the_newest_keep_their_steps(store):
    items = [rows.made(store, f"a{number}", number) for number in range(10)]
    for item in items:
        rows.record(store, item)
    for number in range(20):
        reuse(store, f"r{number}", items, "failure" if number == 3 else "success")
    store.flush()
    assert store.catalog.change(lambda con, name: housekeeping.fold(con, name, 500)) == (0, 0)
    _, steps = store.catalog.change(lambda con, name: housekeeping.fold(con, name, 100))
    # The newest five runs have fifty rows; a run that failed can be resumed and keeps its own.
    assert steps == 140
    assert [len(store.run(f"r{number}")[1]) for number in (2, 3, 14, 15, 19)] == [0, 10, 0, 10, 10]
    assert count(store, "steps", "status = 'executed'") == 10
    assert len(store.runs(limit=100)) == 20


def test_no_op_runs_of_many_steps_do_not_blow_the_catalog_up(store):
    items = [rows.made(store, f"step_{number}", number, memo_key=f"{number:032x}") for number in range(2000)]
    for item in items:
        rows.record(store, item)
    store.close()
    path = store.directory / "catalog.duckdb"
    sizes = []
    for number in range(12):
        reuse(store, f"r{number}", items)
        store.flush()
        store.catalog.change(lambda con, name: housekeeping.fold(con, name, 6000))
        store.close()
        sizes.append(path.stat().st_size)
    assert count(store, "steps", "status = 'reused'") <= 6000
    assert sizes[-1] <= sizes[5] * 1.5


def test_sizes_that_cannot_be_read_are_none(store):
    assert housekeeping.read_sizes(store.folder) is None
    for text in ("", "[]", "{", json.dumps({"other": 1})):
        (store.directory / "housekeeping.json").write_text(text)
        assert housekeeping.read_sizes(store.folder) is None


def test_a_reused_row_that_was_overtaken_and_folded_becomes_current_again(store):
    old = rows.made(store, "a", 1)
    rows.record(store, old)
    new = rows.made(store, "a", 2)
    rows.record(store, new).wait()
    store.catalog.change(housekeeping.fold)
    store.record_step(StepRecord("r", "a", "reused", 0.0, 0.0, "m", (old,)), current=[Current(rows.NOTEBOOK, "a", old)]).wait()
    assert store.current("a")[0].materialization == old

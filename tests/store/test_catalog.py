"""What is recorded is read back, and a snapshot says what a plan needs."""

import datetime as dt
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.records.materializations import CodePart, CodeVersion, Current, Unverifiable
from stepwell.kernel_runtime.records.runs import CapturedOutput, ErrorRecord, LogRecord, StepRecord
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.catalog.tables import read_logs
from stepwell.kernel_runtime.store.signing import read_outputs
from stepwell.kernel_runtime.store.store import open_store

from . import rows


def forget(store):
    """Make the next snapshot ask the catalog."""
    store.snapshot(["another"], ["another"], ["another"])


def test_every_field_of_a_materialization_comes_back(store):
    m = rows.made(store, "report.transform", {"x": [1]}, asset="report", partition="2026-01")
    rows.record(store, m).wait()
    assert store.history("report") == [m]
    assert store.current("report") == [Current(rows.NOTEBOOK, "report", m, "2026-01")]
    assert store.get(store.history("report")[0].value, key="report") == {"x": [1]}


def test_a_materialization_without_a_value_comes_back(store):
    from dataclasses import replace

    m = replace(rows.made(store, "a"), value=None, data_version="")
    rows.record(store, m)
    assert store.history("a") == [m]


def test_a_run_and_its_steps_come_back_in_order(store):
    begun = rows.run("r1", batch="b1", parent_run_id="p", root_run_id="q")
    store.begin_run(begun).wait()
    assert store.run("r1") == (begun, ())
    m = rows.made(store, "a", run_id="r1")
    rows.record(store, m)
    steps = (
        rows.executed(m),
        StepRecord("r1", "b", "reused", 0.0, 0.0, "m1", (m,)),
        rows.failed("c", run_id="r1"),
        StepRecord("r1", "d", "skipped", 0.0, reason="c failed", not_kept=("out: generator",)),
    )
    for step in steps[1:]:
        store.record_step(step)
    ended = rows.run("r1", status="failure", batch="b1", ended=time.time(), error=ErrorRecord("KeyError", "'x'"))
    store.finish_run(ended).wait()
    assert store.run("r1") == (ended, steps)
    assert store.runs() == [ended]
    assert store.runs(batch="b1") == [ended]
    assert store.runs(batch="other") == []
    assert store.run("none") is None


def test_runs_are_listed_newest_first(store):
    ids = [f"r{i}" for i in range(5)]
    for run_id in ids:
        store.begin_run(rows.run(run_id))
    assert [run.run_id for run in store.runs(limit=3)] == ["r4", "r3", "r2"]


def test_code_outputs_and_logs_come_back(store):
    code = CodeVersion(
        "c1",
        (CodePart("a", "body", "d", "x = 1", "cell 1"),),
        (Unverifiable("a -> C", "why"),),
        (("up", "a -> up"),),
        ("G",),
    )
    outputs = (
        CapturedOutput("stream", "stdout", "printed\n"),
        CapturedOutput("display_data", data={"image/png": b"\x89PNG", "text/plain": "p"}, metadata={"w": 1}),
    )
    logs = [LogRecord("run", "a", 1.0, "INFO", "one"), LogRecord("run", "a", 2.0, "INFO", "two \ud800")]
    for _ in range(2):
        rows.record(store, rows.made(store, "a"), code=code)
    rows.record(store, rows.made(store, "b", run_id="run"), code=code, outputs=outputs, logs=logs).wait()
    assert store.codes(["c1"]).get("c1") == code
    assert store.codes(["c2"]).get("c2") is None
    assert read_outputs(store.catalog, store.signer, "run", "b") == outputs
    assert read_outputs(store.catalog, store.signer, "run", "a") == ()
    assert [log.message for log in store.catalog.ask(read_logs, "run")] == ["one", "two ?"]
    assert store.catalog.ask(read_logs, "run", "other") == []
    assert store.catalog.ask(lambda con, name: con.execute(f"SELECT count(*) FROM {name}.code_versions").fetchone()) == (1,)


@pytest.mark.parametrize("remembered", [True, False])
def test_a_snapshot_follows_every_kind_of_record(store, remembered):
    asked = (["a", "b"], ["a", "b"], ["c1", "c2"])

    def snapshot():
        if not remembered:
            forget(store)
        return store.snapshot(*asked)

    assert snapshot().by_memo_key == {}
    old = rows.made(store, "a", 1, run_id="r1")
    rows.record(store, old)
    new = rows.made(store, "a", 2, run_id="r2", memo_key="m1")
    two = (
        rows.made(store, "b", 1, run_id="r2", memo_key="m2", output="x", code="c2"),
        rows.made(store, "b", 2, run_id="r2", memo_key="m2", output="y", code="c2"),
    )
    rows.record(store, new)
    rows.record(store, *two)
    other_code = rows.made(store, "a", 3, run_id="r3", memo_key="m3", code="c9")
    rows.record(store, other_code)
    found = snapshot()
    assert found.by_memo_key == {"m1": [(new,), (old,)], "m2": [two]}
    assert found.current == {"a": [Current(rows.NOTEBOOK, "a", other_code)], "b": [Current(rows.NOTEBOOK, "b", two[1])]}
    assert found.seconds == {"a": 0.25, "b": 0.25}
    assert found.failures == {}

    store.record_step(rows.failed("a", run_id="r4"))
    store.record_step(StepRecord("r5", "a", "skipped", 0.0))
    failure = snapshot().failures
    assert set(failure) == {"a"}
    assert (failure["a"].run_id, failure["a"].memo_key, failure["a"].error.name, failure["a"].seconds) == (
        "r4",
        "m1",
        "KeyError",
        0.5,
    )

    # Reuse moves what is current without a new materialization; another notebook has its own.
    store.record_step(StepRecord("r6", "a", "reused", 0.0, 0.0, "m1", (old,)), current=[Current(rows.NOTEBOOK, "a", old)])
    store.record_step(StepRecord("r6", "a", "reused", 0.0, 0.0, "m1", (new,)), current=[Current("/other.ipynb", "a", new)])
    assert snapshot().current["a"] == [Current("/other.ipynb", "a", new), Current(rows.NOTEBOOK, "a", old)]
    assert set(snapshot().failures) == {"a"}
    rows.record(store, rows.made(store, "a", 5, run_id="r7", memo_key="m7"))
    assert snapshot().failures == {}
    assert store.keys() == ["a", "b"]


def test_a_snapshot_of_keys_without_current_values_has_what_the_catalog_knows_of_their_steps(store):
    store.record_step(rows.failed("a"))
    assert set(store.snapshot(["a"], ["a"], ["c1"]).failures) == {"a"}
    m = rows.made(store, "b")
    store.record_step(rows.executed(m))
    assert store.snapshot(["b"], ["b"], ["c1"]).by_memo_key == {"m1": [(m,)]}
    store.catalog.change(lambda con, name: con.execute(f"DELETE FROM {name}.steps"))
    assert store.snapshot(["b"], ["b"], ["c1"]).by_memo_key == {"m1": [(m,)]}


def test_a_remembered_snapshot_equals_what_the_catalog_says(store):
    asked = (["a", "b"], ["a", "b"], ["c1"])
    store.snapshot(*asked)
    for index in range(6):
        rows.record(store, rows.made(store, "ab"[index % 2], index, run_id=f"r{index}", memo_key=f"m{index % 3}"))
        if index % 3 == 0:
            store.record_step(rows.failed("a", run_id=f"f{index}"))
        store.flush()
        quick = store.snapshot(*asked)
        forget(store)
        assert store.snapshot(*asked) == quick


def test_a_snapshot_that_was_given_out_does_not_change(store):
    rows.record(store, rows.made(store, "a"))
    first = store.snapshot(["a"], ["a"], ["c1"])
    before = {key: list(value) for key, value in first.by_memo_key.items()}
    first.current.clear()
    rows.record(store, rows.made(store, "a", 2)).wait()
    assert first.by_memo_key == before
    assert len(store.snapshot(["a"], ["a"], ["c1"]).current["a"]) == 1


def test_an_unchanged_catalog_is_not_asked_again(store):
    rows.record(store, rows.made(store, "a"))
    store.snapshot(["a"], ["a"], ["c1"])
    store.close()
    before = set(threading.enumerate())
    store.snapshot(["a"], ["a"], ["c1"])
    assert set(threading.enumerate()) == before, "a snapshot of what is known started the catalog thread"


def test_a_snapshot_names_files_that_are_gone(store):
    m = rows.made(store, "a", np.arange(100_000))
    rows.record(store, m)
    for _ in range(2):
        assert store.snapshot(["a"], ["a"], ["c1"]).missing_files == frozenset()
    (store.directory / "objects" / m.value.object_name).unlink()
    assert store.snapshot(["a"], ["a"], ["c1"]).missing_files == {m.value.object_name}


def test_what_another_process_writes_is_seen(store, tmp_path):
    rows.record(store, rows.made(store, "a"))
    assert len(store.snapshot(["a"], ["a"], ["c1"]).by_memo_key["m1"]) == 1
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import rows\nfrom stepwell.kernel_runtime.records.keys import new_id\nfrom stepwell.kernel_runtime.store.store import open_store\n"
        f"store = open_store({str(store.directory)!r})\n"
        "rows.record(store, rows.made(store, 'a', 2, run_id=new_id())).wait(); store.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
    assert len(store.snapshot(["a"], ["a"], ["c1"]).by_memo_key["m1"]) == 2
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
    # Our own commit opens the catalog first: what the other wrote meanwhile must not be taken for known.
    rows.record(store, rows.made(store, "a", 3, run_id="mine")).wait()
    assert len(store.snapshot(["a"], ["a"], ["c1"]).by_memo_key["m1"]) == 4


def test_a_group_is_shared_and_tells_when_it_is_committed(store):
    commits = [store.record_step(StepRecord("r", f"s{i}", "skipped", 0.0)) for i in range(10)]
    assert len(set(map(id, commits))) <= 2
    told = threading.Event()
    commits[-1].then(lambda error: told.set() if error is None else None)
    assert told.wait(240)
    late = queue.SimpleQueue()
    commits[-1].then(late.put)
    assert late.get(timeout=240) is None


def test_callbacks_are_called_in_order_even_if_one_is_added_while_they_run(store):
    order, reached, go_on, over = [], threading.Event(), threading.Event(), threading.Event()

    def first(error):
        reached.set()
        go_on.wait(240)
        order.append("first")

    commit = store.record_step(StepRecord("r", "s", "skipped", 0.0))
    commit.then(first)
    assert reached.wait(240)
    # The commit is over now, but its callbacks are not.
    commit.then(lambda error: order.append("second") or over.set())
    go_on.set()
    assert over.wait(240)
    assert order == ["first", "second"]


def test_a_callback_may_ask_the_store(store):
    found = []
    over = threading.Event()

    def look(error):
        found.append((error, store.keys()))
        over.set()

    rows.record(store, rows.made(store, "a")).then(look)
    assert over.wait(240)
    assert found == [(None, ["a"])]


def test_a_group_that_cannot_be_committed_says_so_and_the_store_goes_on(store):
    rows.record(store, rows.made(store, "a")).wait()
    broken = store.record_step(StepRecord("r", "s", "skipped", "no time"))
    told = []
    broken.then(told.append)
    with pytest.raises(StoreError, match="could not record"):
        broken.wait()
    assert isinstance(told[0], StoreError)
    rows.record(store, rows.made(store, "b")).wait()
    assert store.keys() == ["a", "b"]


def test_people_can_query_the_catalog(store):
    rows.record(store, rows.made(store, "a"))
    store.close()
    with duckdb.connect(str(store.directory / "catalog.duckdb"), read_only=True) as connection:
        when, created = connection.execute("SELECT created_at, created FROM materializations").fetchone()
    assert abs(when.replace(tzinfo=dt.UTC).timestamp() - created) < 1e-5


def test_a_store_at_rest_is_one_file_without_a_log(store):
    rows.record(store, rows.made(store, "a"))
    store.close()
    names = {path.name for path in store.directory.iterdir()}
    assert names == {
        ".gitignore",
        "CACHEDIR.TAG",
        "catalog.duckdb",
        "catalog.lock",
        "catalog.seal",
        "want.lock",
        "reserve",
        "claims",
        "objects",
        "runs",
        "tmp",
    }
    assert (store.directory / ".gitignore").read_text() == "*\n"
    assert store.keys() == ["a"]


def test_two_stores_of_one_directory_in_one_process_are_one(store):
    other = open_store(store.directory)
    rows.record(store, rows.made(store, "a"))
    assert other.keys() == ["a"]
    assert housekeeping.sizes(other)["materializations"] == 1


def test_a_removed_store_is_made_again(store):
    import shutil

    rows.record(store, rows.made(store, "a"), code=CodeVersion("c1"))
    store.close()
    shutil.rmtree(store.directory)
    assert store.keys() == []
    rows.record(store, rows.made(store, "b", np.arange(100_000)), code=CodeVersion("c1")).wait()
    assert store.keys() == ["b"]
    assert store.codes(["c1"]).get("c1") == CodeVersion("c1")


def test_threads_record_and_read_at_once(store):
    def work(name):
        for index in range(30):
            rows.record(store, rows.made(store, f"{name}{index}", index, run_id=name))
            if index % 10 == 0:
                assert store.current(f"{name}{index}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.keys()) == 120


def test_closing_waits_for_what_was_recorded_and_not_for_who_goes_on_recording(store):
    over = threading.Event()

    def work(name):
        number = 0
        while not over.is_set():
            store.record_step(StepRecord(name, f"s{number}", "skipped", 0.0))
            number += 1
            if number % 50 == 0:
                store.flush()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            commit = store.record_step(StepRecord("mine", f"s{number}", "skipped", 0.0))
            store.close()
            assert commit.is_over
    finally:
        over.set()
        for thread in threads:
            thread.join()

"""What nothing refers to is collected, and nothing else: while others write, after kills, under rules."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepwell.kernel_runtime.errors import UnknownKeyError
from stepwell.kernel_runtime.records.maintenance import Rule
from stepwell.kernel_runtime.records.materializations import Current
from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.store import housekeeping, retention
from stepwell.kernel_runtime.store.signing import read_outputs
from stepwell.kernel_runtime.store.store import open_store

from . import rows

ROOT = Path(__file__).parents[2]


def array(number, size=20_000):
    return np.full(size, number)


def record(store, key, number, **more):
    made = rows.made(store, key, array(number), run_id=f"{key}{number}", memo_key=f"{key}{number}", **more)
    rows.record(store, made).wait()
    return made


def files(store):
    return sorted(path.name for path in (store.directory / "objects").rglob("*.*"))


def program(text, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_without_a_rule_nothing_that_a_row_refers_to_goes(store):
    for number in range(3):
        record(store, "a", number)
    found = housekeeping.collect(store, grace=0)
    assert (found.materializations, found.objects) == (0, 0)
    assert len(files(store)) == 3
    assert "no rule drops versions" in str(found)


def test_a_file_without_a_row_goes_after_the_grace_period(store):
    record(store, "a", 1)
    program(
        "import sys, numpy as np; from stepwell.kernel_runtime.store.store import open_store\n"
        "open_store(sys.argv[1]).put(np.full(20_000, 9), key='z', memo_key='z')",
        store.directory,
    ).wait(60)
    assert housekeeping.collect(store).young == 1
    assert housekeeping.collect(store, grace=0, dry_run=True).objects == 1
    assert len(files(store)) == 2
    found = housekeeping.collect(store, grace=0)
    assert found.objects == 1
    assert found.object_bytes > 160_000
    assert len(files(store)) == 1


def test_what_a_living_process_is_about_to_record_stays_and_of_a_killed_one_goes(store):
    holder = program(
        "import sys, time, numpy as np; from stepwell.kernel_runtime.store.store import open_store\n"
        "open_store(sys.argv[1]).put(np.full(20_000, 9), key='z', memo_key='z'); print('put', flush=True); time.sleep(100)",
        store.directory,
    )
    assert holder.stdout.readline() == "put\n"
    assert housekeeping.collect(store, grace=0).objects == 0
    mine = rows.made(store, "a", array(5))
    assert housekeeping.collect(store, grace=0).objects == 0
    assert len(files(store)) == 2
    holder.kill()
    holder.wait()
    assert housekeeping.collect(store, grace=0).objects == 1
    rows.record(store, mine).wait()
    assert (store.get(mine.value, key="a") == 5).all()
    assert not [path for path in (store.directory / "tmp").iterdir() if "condemned" in path.name]


def test_a_value_written_again_after_it_was_found_is_put_back(store):
    """The collector takes it away, then sees that somebody names it."""
    made = rows.made(store, "a", array(5))
    name = made.value.object_name

    deleted = housekeeping.delete_objects(store.catalog, store.folder, [name])
    assert deleted == (0, 0)
    assert (store.get(made.value, key="a") == 5).all()


def test_what_a_killed_collector_moved_away_is_put_back_if_a_row_needs_it(store):
    kept, lost = record(store, "a", 1), record(store, "b", 2)
    for made in (kept, lost):
        path = store.directory / "objects" / made.value.object_name
        path.replace(store.directory / "tmp" / f"{path.name}.condemned")
    housekeeping.forget(store, "b")
    housekeeping.collect(store, grace=0)
    assert (store.get(kept.value, key="a") == 1).all()
    assert len(files(store)) == 1
    assert not list((store.directory / "tmp").iterdir())


def test_writers_and_collectors_race_without_losing_a_value(tmp_path):
    directory = tmp_path / "store"
    store = open_store(directory)
    writer = Path(__file__).with_name("collecting_writer.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(writer), str(directory), f"w{number}", "12"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(2)
    ]
    collected = 0
    while any(process.poll() is None for process in processes):
        housekeeping.collect(store, grace=0, compact=False)
        collected += 1
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert len(out.split()) == 13
    assert collected > 3
    assert housekeeping.collect(store, grace=0).objects >= 0
    for number in range(2):
        value = store.current(f"w{number}-last")[0].materialization.value
        assert (store.get(value, key="x") == number).all()
    assert len(files(store)) == 2
    store.close()


# -- rules -------------------------------------------------------------------------------------------------------------


def test_versions_beyond_the_rule_go_with_their_files_and_outputs(store):
    from stepwell.kernel_runtime.records.materializations import CodeVersion
    from stepwell.kernel_runtime.records.runs import CapturedOutput

    for number in range(5):
        made = rows.made(store, "a", array(number), run_id=f"r{number}", memo_key=f"m{number}", code=f"c{number}")
        outputs = (CapturedOutput("stream", "stdout", f"{number}\n"),)
        rows.record(store, made, outputs=outputs, code=CodeVersion(f"c{number}")).wait()
    retention.keep(store, "", Rule(versions=2))
    told = housekeeping.collect(store, dry_run=True, grace=0)
    assert (told.materializations, told.objects) == (3, 3)
    assert len(store.history("a")) == 5
    found = housekeeping.collect(store, grace=0)
    assert (found.materializations, found.objects) == (3, 3)
    assert [item.run_id for item in store.history("a")] == ["r4", "r3"]
    assert read_outputs(store.catalog, store.signer, "r0", "a") == ()
    assert read_outputs(store.catalog, store.signer, "r4", "a") != ()
    assert store.codes(["c0"]).get("c0") is None
    assert store.codes(["c4"]).get("c4") is not None


def test_runs_that_were_killed_long_ago_keep_nothing(store):
    for number, age in enumerate((9, 8, 1, 0)):
        store.begin_run(replace(rows.run(f"r{number}"), started=time.time() - age * 86400))
        made = rows.made(store, "a", array(number), run_id=f"r{number}", memo_key=f"m{number}")
        rows.record(store, made).wait()
    retention.keep(store, "", Rule(versions=1))
    assert housekeeping.collect(store, grace=0).materializations == 2
    assert [item.run_id for item in store.history("a")] == ["r3", "r2"]


def test_code_that_was_collected_is_recorded_again_by_a_process_that_knew_it(store):
    from stepwell.kernel_runtime.records.materializations import CodeVersion

    rows.record(store, rows.made(store, "a", 1, code="c"), code=CodeVersion("c")).wait()
    program(
        "import sys; from stepwell.kernel_runtime.store.store import open_store\n"
        "from stepwell.kernel_runtime.store import housekeeping\n"
        "s = open_store(sys.argv[1]); housekeeping.forget(s, 'a'); s.close()",
        store.directory,
    ).wait(60)
    assert store.codes(["c"]).get("c") is None
    rows.record(store, rows.made(store, "a", 1, code="c"), code=CodeVersion("c")).wait()
    assert store.codes(["c"]).get("c") is not None


def test_a_row_that_was_dropped_while_a_run_meant_to_reuse_it_is_recorded_again(store):
    old, new = record(store, "a", 1), record(store, "a", 2)
    retention.keep(store, "a", Rule(versions=1))
    assert housekeeping.collect(store, grace=0).materializations == 1
    # A run of another process found the old one before, and goes back to it now.
    store.record_step(
        StepRecord("later", "a", "reused", 0.0, 0.0, old.memo_key, (old,)), current=[Current(rows.NOTEBOOK, "a", old)]
    ).wait()
    assert store.current("a")[0].materialization == old
    assert {item.id for item in store.history("a")} == {old.id, new.id}


def test_what_is_current_in_any_notebook_stays(store):
    old = record(store, "a", 1, notebook="one.ipynb")
    for number in range(2, 5):
        record(store, "a", number, notebook="two.ipynb")
    store.record_step(StepRecord("r", "a", "reused", 0.0, 0.0, "", (old,)), current=[Current("three.ipynb", "a", old)]).wait()
    retention.keep(store, "", Rule(versions=1, age=0.000001, bytes=1))
    assert housekeeping.collect(store, grace=0).materializations == 2
    assert {each.notebook: store.get(each.materialization.value, key="a")[0] for each in store.current("a")} == {
        "one.ipynb": 1,
        "two.ipynb": 4,
        "three.ipynb": 1,
    }


def test_rules_are_taken_back_and_the_newest_row_holds(store):
    retention.keep(store, "a", Rule(versions=1))
    retention.keep(store, "a", Rule(versions=7))
    retention.keep(store, "", Rule(age=5.0))
    assert retention.rules_of(store) == {"": Rule(age=5.0), "a": Rule(versions=7)}
    retention.keep(store, "a", Rule())
    assert retention.rules_of(store) == {"": Rule(age=5.0)}


# -- forgetting --------------------------------------------------------------------------------------------------------


def test_forgetting_a_key_frees_what_no_other_key_has(store):
    record(store, "a", 1)
    record(store, "a", 2)
    other = record(store, "b", 2)
    told = housekeeping.forget(store, "a", dry_run=True)
    assert (told.versions, told.objects, told.shared, told.dry_run) == (2, 1, 1, True)
    assert "; 1 value file is kept, because another key refers to it. This cannot be undone." in str(told)
    assert store.keys() == ["a", "b"]
    housekeeping.forget(store, "a")
    assert store.keys() == ["b"]
    assert store.history("a") == []
    assert (store.get(other.value, key="b") == 2).all()
    assert len(files(store)) == 1
    with pytest.raises(UnknownKeyError, match="'a'"):
        housekeeping.forget(store, "a")


def test_the_steps_inside_go_with_it_and_keys_that_only_begin_alike_stay(store):
    for key in ("report", "report.fetch", "report.fetch:out", "reports", "re"):
        record(store, key, 1)
    assert "forget report.fetch and 1 step inside it: 2 versions" in str(housekeeping.forget(store, "report.fetch", dry_run=True))
    assert "forget re:" in str(housekeeping.forget(store, "re", dry_run=True))
    told = housekeeping.forget(store, "report")
    assert told.keys == ("report", "report.fetch", "report.fetch:out")
    assert "report and 2 steps inside it: 3 versions" in str(told)
    assert store.keys() == ["re", "reports"]


def test_failures_of_a_forgotten_step_are_forgotten_too(store):
    record(store, "a", 1)
    store.record_step(rows.failed("a")).wait()
    housekeeping.forget(store, "a")
    assert store.snapshot(["a"], ["a"], ["c1"]).failures == {}


def test_dead_files_in_tmp_go_and_new_ones_stay(store):
    for name, age in (("old", 90_000), ("new", 10)):
        path = store.directory / "tmp" / name
        path.write_bytes(b"x" * 100)
        os.utime(path, (time.time() - age,) * 2)
    found = housekeeping.collect(store)
    assert (found.temporary, found.temporary_bytes) == (1, 100)
    assert [path.name for path in (store.directory / "tmp").iterdir()] == ["new"]


def test_sizes_by_key_count_a_value_once(store):
    record(store, "a", 1)
    record(store, "a", 1)
    record(store, "a", 2)
    (found,) = store.catalog.ask(housekeeping.read_key_sizes)
    assert (found.key, found.versions) == ("a", 3)
    assert 320_000 <= found.bytes < 330_000

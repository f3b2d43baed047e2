"""What protects a value file until its row is there: exactly as long, and nothing else."""

import os
import resource
import signal

import numpy as np
import pytest

from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.store import housekeeping, packs, trust
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.processes import Unrecorded, unrecorded_names
from stepwell.kernel_runtime.store.store import open_store

from . import rows


def array(number):
    return np.full(20_000, number)


def named(store):
    return unrecorded_names(store.folder)


def seen_by_others(store, python):
    script = (
        "import sys; from pathlib import Path; from stepwell.kernel_runtime.store.processes import unrecorded_names\n"
        "from stepwell.kernel_runtime.store.folder import Folder\n"
        "print(*sorted(unrecorded_names(Folder(Path(sys.argv[1])))))"
    )
    return set(python(script, store.directory).split())


def test_a_name_that_stays_keeps_no_other_on_the_list(store, python):
    never = rows.made(store, "a", array(1)).value.object_name
    made = rows.made(store, "b", array(2))
    assert seen_by_others(store, python) == named(store) == {never, made.value.object_name}
    rows.record(store, made).wait()
    assert seen_by_others(store, python) == named(store) == {never}
    again = rows.made(store, "b", array(2))
    assert seen_by_others(store, python) == {never, again.value.object_name}


def test_the_row_of_one_step_does_not_take_away_what_protects_the_equal_value_of_another(store):
    first, second = rows.made(store, "a", array(1)), rows.made(store, "b", array(1))
    rows.record(store, first).wait()
    assert named(store) == {second.value.object_name}
    housekeeping.forget(store, "a")
    rows.record(store, second).wait()
    assert (store.get(second.value, key="b") == 1).all()
    assert named(store) == set()


def test_a_step_that_reused_a_value_takes_nothing_off(store):
    first = rows.made(store, "a", array(1))
    rows.record(store, first).wait()
    rows.made(store, "b", array(1))
    store.record_step(StepRecord("later", "a", "reused", 0.0, 0.0, "m1", (first,))).wait()
    assert named(store) == {first.value.object_name}


def test_an_imported_pack_leaves_nothing_on_the_list(store, tmp_path):
    rows.record(store, rows.made(store, "a", array(1))).wait()
    packs.write_pack(store, ["a"], tmp_path / "out.zip")
    other = open_store(tmp_path / "other")
    trust.import_pack(other, tmp_path / "out.zip")
    assert len(other.history("a")) == 1
    assert named(other) == set()
    other.close()
    assert not list((other.directory / "writers").iterdir())


def test_a_forked_child_leaves_its_parents_list_alone(tmp_path):
    mine = Unrecorded(Folder(tmp_path))
    mine.add("one")
    with mine._mutex:  # as another thread of the parent may have it at that moment
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            mine.remove_recorded(["one"])
            mine.close()
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert unrecorded_names(Folder(tmp_path)) == {"one"}
    assert [path.read_text().split() for path in (tmp_path / "writers").iterdir()] == [["one"]]


def test_a_list_that_takes_no_more_keeps_its_names_and_ends_nothing(store, python):
    made = [rows.made(store, key, array(number)) for number, key in enumerate("abc")]
    names = {item.value.object_name for item in made}
    (path,) = (store.directory / "writers").iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    listing = Unrecorded(store.folder)
    listing.add("first")
    listing.add("second")
    (own,) = set((store.directory / "writers").iterdir()) - {path}
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (own.stat().st_size + 4, hard))
    try:
        # Of its line only the first bytes find room; of the next none.
        listing.remove_recorded(["first"])
        with pytest.raises(OSError, match=r"\[Errno (27|28)\]"):
            listing.add("third")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert seen_by_others(store, python) == {*names, "first", "second"}
    listing.add("fourth")
    assert seen_by_others(store, python) == {*names, "first", "second", "fourth"}

# ruff: noqa: PTH123, SIM105, SIM115, PLW0108, ASYNC240 - every way to open a file is tried, the plain one first
"""What a step reads is recorded, what others read is not, and a later look tells whether it still holds."""

import asyncio
import contextlib
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepwell.kernel_runtime.reads import ReadRecorder, read_holds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recorded(action, exclude=()):
    with ReadRecorder(exclude) as recorder:
        action()
    return tuple(read for read in recorder.reads if read.kind != "state")


def aged(path):
    """Give a file an age at which its times can be trusted."""
    os.utime(path, ns=(1_600_000_000_123_456_789,) * 2)
    limit = time.monotonic() + 5
    while time.time_ns() - path.stat().st_ctime_ns < 60_000_000 and time.monotonic() < limit:
        os.sched_yield()
    return path


@pytest.mark.parametrize(
    "read",
    [
        lambda path: open(path).read(),
        lambda path: Path(path).read_bytes(),
        lambda path: pd.read_csv(path),
        lambda path: os.close(os.open(path, os.O_RDONLY)),
        lambda path: open(os.fsencode(path), "rb").read(),
    ],
)
def test_a_file_that_is_opened_is_recorded_by_its_absolute_path(folder, read):
    Path("data.csv").write_text("a\n1\n")
    (found,) = recorded(lambda: read("data.csv"))
    assert (found.kind, found.name) == ("file", str(folder / "data.csv"))
    assert read_holds(found)
    Path("data.csv").write_text("a\n2\n")
    assert not read_holds(found)


def test_a_touched_file_is_no_change_and_a_quick_change_of_equal_size_is(folder):
    path = aged(folder / "data") if (folder / "data").write_text("one") else None
    (found,) = recorded(path.read_text)
    assert found.stat
    os.utime(path)
    assert read_holds(found)
    path.write_text("two")
    assert not read_holds(found)
    fresh = folder / "fresh"
    fresh.write_text("one")
    (recent,) = recorded(fresh.read_text)
    before = fresh.stat()
    fresh.write_text("two")
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not read_holds(recent)


def test_a_file_that_is_not_there_is_a_read_too(folder):
    def read():
        try:
            open("config.toml")
        except FileNotFoundError:
            pass

    (found,) = recorded(read)
    assert (found.kind, found.name) == ("absent", str(folder / "config.toml"))
    assert read_holds(found)
    Path("config.toml").write_text("")
    assert not read_holds(found)


def test_what_the_step_writes_is_no_input(folder):
    Path("log").write_text("x")

    def work():
        Path("made").write_text("1")
        Path("made").read_text()
        with open("log", "a") as file:
            file.write("y")
        Path("log").read_text()
        Path("folder").mkdir()
        subprocess.run([sys.executable, "-c", "open('folder/child', 'w').write('1')"], check=True)
        Path("folder/child").read_text()
        subprocess.run([sys.executable, "-c", "open('passing', 'w').write('1')"], check=True)
        Path("passing").read_text()
        Path("passing").unlink()
        Path("other").write_text("1")
        Path("other").rename("renamed")
        Path("renamed").read_text()

    assert recorded(work) == ()


@pytest.mark.parametrize("mode", ["a", "w", "r+", "a+"])
def test_a_file_that_is_read_and_written_counts_as_the_step_left_it(folder, mode):
    path = folder / "state"
    path.write_text("one")

    def work():
        if "+" not in mode:
            path.read_text()
        with open(path, mode) as file:
            file.write("mine")

    (found,) = recorded(work)
    assert read_holds(found)
    path.write_text("theirs")
    assert not read_holds(found)


def test_a_link_counts_by_what_it_leads_to(folder):
    for name, text in (("a", "same"), ("b", "same"), ("c", "else")):
        (folder / name).write_text(text)
    link = folder / "link"
    link.symlink_to("a")
    (found,) = recorded(link.read_text)
    assert (found.name, read_holds(found)) == (str(link), True)
    for target, holds in (("b", True), ("c", False), ("nowhere", False)):
        link.unlink()
        link.symlink_to(target)
        assert read_holds(found) is holds


def test_a_file_in_a_folder_that_is_deleted_does_not_hold(folder):
    (folder / "data").mkdir()
    (folder / "data" / "file").write_text("x")
    (found,) = recorded((folder / "data" / "file").read_text)
    shutil.rmtree(folder / "data")
    assert not read_holds(found)


def test_numpy_and_sqlite_are_seen(folder):
    np.save("array.npy", np.arange(4))
    Path("raw.bin").write_bytes(bytes(8))
    with contextlib.closing(sqlite3.connect("base.db")) as base:
        base.execute("create table t as select 1 a")
        base.commit()

    def work():
        np.load("array.npy", mmap_mode="r")
        np.fromfile("raw.bin")
        with contextlib.closing(sqlite3.connect(f"file:{folder}/base.db?mode=ro", uri=True)) as inside:
            assert inside.execute("select a from t").fetchall() == [(1,)]
        sqlite3.connect(":memory:").close()

    found = recorded(work)
    assert [(read.kind, Path(read.name).name) for read in found] == [
        ("file", "array.npy"),
        ("file", "base.db"),
        ("absent", "base.db-wal"),
        ("file", "raw.bin"),
    ]
    assert all(map(read_holds, found))
    with contextlib.closing(sqlite3.connect("base.db")) as base:
        base.execute("insert into t values (2)")
        base.commit()
    assert [read_holds(read) for read in found] == [True, False, True, True]


def test_a_pool_that_outlives_a_step_reads_for_the_step_that_asks(folder):
    for name in ("one", "two", "none"):
        Path(name).write_text(name)
    with ThreadPoolExecutor(1) as pool:
        seen = [recorded(lambda name=name: pool.submit(Path(name).read_text).result()) for name in ("one", "two")]
        pool.submit(Path("none").read_text).result()
    assert [[Path(read.name).name for read in reads] for reads in seen] == [["one"], ["two"]]


def test_the_installation_the_system_and_the_store_do_not_count(folder):
    store = folder / ".stepwell"
    store.mkdir()
    (store / "object").write_text("x")

    def work():
        (store / "object").read_text()
        Path("/proc/self/status").read_text()
        Path(os.devnull).read_text()
        Path(pd.__file__).read_text()
        Path(os.__file__).read_text()

    assert recorded(work, (store,)) == ()
    assert len(recorded(work)) == 1


def test_only_the_steps_own_context_and_its_threads_count(folder):
    for name in ("mine", "pool", "thread", "other"):
        Path(name).write_text(name)
    go, done = threading.Event(), threading.Event()

    def other():
        go.wait()
        Path("other").read_text()
        done.set()

    outside = threading.Thread(target=other)
    outside.start()

    def work():
        Path("mine").read_text()
        thread = threading.Thread(target=lambda: Path("thread").read_text())
        thread.start()
        thread.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: Path(name).read_text(), ["pool"]))
        go.set()
        done.wait()

    names = [Path(read.name).name for read in recorded(work)]
    outside.join()
    assert names == ["mine", "pool", "thread"]
    Path("mine").read_text()


def test_steps_that_run_at_once_on_one_loop_are_kept_apart(folder):
    for name in ("a", "b"):
        Path(name).write_text(name)

    async def step(name):
        with ReadRecorder() as recorder:
            await asyncio.sleep(0)
            Path(name).read_text()
            await asyncio.sleep(0)
        return [Path(read.name).name for read in recorder.reads if read.kind != "state"]

    async def both():
        return await asyncio.gather(step("a"), step("b"))

    assert asyncio.run(both()) == [["a"], ["b"]]


def test_a_file_that_changes_while_the_step_runs_never_holds(folder):
    path = folder / "data"
    path.write_text("one")

    def work():
        path.read_text()
        thread = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", f"open({str(path)!r}, 'w').write('three')"])
        assert thread == 0

    (found,) = recorded(work)
    assert not read_holds(found)


def test_the_recorder_of_a_step_is_freed_without_the_garbage_collector():
    # The garbage collector does not run during a run, which may have thousands of steps.
    gc.disable()
    try:
        with ReadRecorder() as recorder:
            pass
        freed = weakref.ref(recorder)
        del recorder
        assert freed() is None
    finally:
        gc.enable()

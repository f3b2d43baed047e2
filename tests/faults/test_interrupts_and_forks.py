"""Interrupts never reach the catalog thread; a forked child neither unlocks nor damages what its parent holds."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.store.catalog import thread as catalog
from stepwell.kernel_runtime.store.store import open_store


def step(key, run_id="r"):
    return StepRecord(run_id, key, "skipped", 0.0)


def keys(store, run_id="r"):
    return [
        row[0]
        for row in store.catalog.ask(
            lambda con, name: con.execute(f"SELECT key FROM {name}.steps WHERE run_id = '{run_id}' ORDER BY rowid").fetchall()
        )
    ]


def test_interrupts_lose_no_recorded_step(tmp_path):
    store = open_store(tmp_path / "store")
    chance = random.Random(3)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    returned = []
    interrupts = 0
    try:
        for number in range(150):
            signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.006 + 0.0001)
            try:
                commit = store.record_step(step(f"s{number}"))
                returned.append(f"s{number}")
                commit.wait()
                store.put([number], key="k", memo_key="m")
                if number % 5 == 0:
                    store.keys()
            except KeyboardInterrupt:
                interrupts += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:  # between the alarm and its end
        interrupts += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 10
    store.flush()
    found = keys(store)
    assert set(returned) <= set(found)
    assert len(found) == len(set(found))
    store.close()


def in_child(work):
    """Run ``work`` in a forked child; return what it returned as text, and fail with its error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = f"ok {work()}"
        except BaseException as error:
            answer = f"failed {type(error).__name__}: {error}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    assert text.startswith("ok "), text
    return text[3:]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_opens_the_store_anew(tmp_path):
    store = open_store(tmp_path / "store")
    store.record_step(step("before")).wait()

    def work():
        store.record_step(step("child")).wait()
        found = keys(store)
        store.close()
        return found

    for attached in (True, False):
        if not attached:
            store.close()
        assert "before" in in_child(work)
    store.record_step(step("after")).wait()
    assert keys(store) == ["before", "child", "child", "after"]
    store.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_does_not_unlock_what_its_parent_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "FORK", 0.2)
    store = open_store(tmp_path / "store")
    inside, leave = threading.Event(), threading.Event()

    def stay(connection, name):
        inside.set()
        leave.wait(240)

    holder = threading.Thread(target=lambda: store.catalog.ask(stay))
    holder.start()
    assert inside.wait(240)
    in_child(lambda: None)
    with (tmp_path / "store" / "catalog.lock").open("r+b") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leave.set()
        holder.join()
        store.close()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_forked_child_that_ends_in_order_leaves_the_catalog_alone(tmp_path):
    program = textwrap.dedent(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from stepwell.kernel_runtime.records.runs import StepRecord
        from stepwell.kernel_runtime.store.sql.statements import read_statement
        from stepwell.kernel_runtime.store.store import open_store
        read_statement("SELECT 1")
        store = open_store(sys.argv[1])
        store.record_step(StepRecord("r", "one", "skipped", 0.0)).wait()
        store.record_step(StepRecord("r", "pending", "skipped", 0.0))
        child = os.fork()
        if child == 0:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        store.record_step(StepRecord("r", "two", "skipped", 0.0))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    # DuckDB's bindings tell that the child ended without destroying what is its parent's; that is the point.
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    store = open_store(tmp_path / "store")
    assert keys(store) == ["one", "pending", "two"]
    store.close()


def test_what_is_pending_at_the_end_of_a_process_is_committed(tmp_path):
    program = textwrap.dedent(
        """
        import sys
        from stepwell.kernel_runtime.records.runs import StepRecord
        from stepwell.kernel_runtime.store.store import open_store
        open_store(sys.argv[1]).record_step(StepRecord("r", "last", "skipped", 0.0))
        """
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], check=True, timeout=240)
    store = open_store(tmp_path / "store")
    assert keys(store) == ["last"]
    store.close()

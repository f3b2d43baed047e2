"""Forks at bad moments: a child neither hangs nor disturbs, and the parent loses nothing."""

import json

import pytest

FORKED = """
import json, multiprocessing, os, sys, threading, time, warnings
warnings.simplefilter("ignore")
import stepwell
from stepwell import asset
from stepwell.kernel_runtime.records.runs import StepRecord

store = stepwell.get_session().open(sys.argv[1])


def step(name):
    return StepRecord("r", name, "skipped", 0.0)


def recorded():
    found = store.catalog.ask(lambda con, name: con.execute(f"SELECT key FROM {name}.steps WHERE run_id = 'r'").fetchall())
    return sorted(key for key, in found)


def ended(child):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, code


def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child
"""


@pytest.fixture
def forks(python, store_dir):
    def run(script):
        return json.loads(python(FORKED + script, store_dir))

    return run


def test_forks_while_threads_record_lose_nothing(forks):
    found = forks(
        """
over = threading.Event()
acknowledged = []
def write(name):
    number = 0
    while not over.is_set():
        store.record_step(step(f"{name}{number}")).wait()
        acknowledged.append(f"{name}{number}")
        number += 1
threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
for thread in threads:
    thread.start()
children = []
for number in range(6):
    def work():
        store.record_step(step(f"child{number}")).wait()
        assert f"child{number}" in recorded()
        store.close()
    children.append(in_child(work))
for child in children:
    ended(child)
over.set()
for thread in threads:
    thread.join()
found = recorded()
print(json.dumps([sorted(acknowledged), found]))
"""
    )
    acknowledged, recorded = found
    assert len(acknowledged) > 2
    assert sorted([*acknowledged, *(f"child{number}" for number in range(6))]) == recorded


def test_a_fork_while_a_long_question_is_answered_waits_for_it(forks):
    assert forks(
        """
inside = threading.Event()
def long(connection, name):
    inside.set()
    time.sleep(1.3)  # longer than a fork waits for another process
    return "answered"
answers = []
thread = threading.Thread(target=lambda: answers.append(store.catalog.ask(long)))
thread.start()
inside.wait()
ended(in_child(lambda: store.record_step(step("child")).wait()))
thread.join()
print(json.dumps([answers, recorded()]))
"""
    ) == [["answered"], ["child"]]


def test_a_child_does_not_wait_for_what_its_parent_records(forks):
    assert forks(
        """
from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.store.catalog.lease import Lease
from stepwell.kernel_runtime.store.folder import Folder
from pathlib import Path
store.close()
other = Lease(Folder(Path(sys.argv[1])))  # stands for another process: a lock belongs to an open file
other.acquire()
commit = store.record_step(step("parent"))
def work():
    try:
        commit.wait()
    except StoreError as error:
        assert "this process was forked while its parent" in error.what
    else:
        raise AssertionError
child = in_child(work)
ended(child)
other.release()
commit.wait()
print(json.dumps(recorded()))
"""
    ) == ["parent"]


def test_a_fork_inside_a_step_leaves_run_and_claim_to_the_parent(forks):
    assert forks(
        """
folder = os.path.join(sys.argv[1], "claims")
def claims():
    return os.listdir(folder)

@asset(ignore=["in_child", "ended", "folder", "store", "claims"])
def forking():
    while not os.path.isdir(folder) or not claims():
        time.sleep(0.01)
    def work():
        store.keys()
        try:
            stepwell.materialize([asset(name="inner")(lambda: 1)], store=sys.argv[1])
        except stepwell.errors.InvariantViolationError:
            os._exit(0)
        os._exit(2)
    ended(in_child(work))
    assert claims(), "the child took its parent's claim away"
    return 7

result = stepwell.materialize([forking], store=store)
print(json.dumps([result.value("forking"), claims()]))
"""
    ) == [7, []]


def test_a_child_may_run_what_another_thread_of_its_parent_runs(forks):
    assert (
        forks(
            """
begun, go = threading.Event(), threading.Event()

@asset(ignore=["begun", "go"])
def waits():
    begun.set()
    go.wait(240)
    return 1

@asset
async def awaited():
    import asyncio
    await asyncio.sleep(0)
    return 2

stepwell.materialize([awaited], store=store)  # starts the thread of coroutines
thread = threading.Thread(target=lambda: stepwell.materialize([waits], store=store))
thread.start()
begun.wait()
def work():
    assert stepwell.materialize([awaited], store=store, force=True).value("awaited") == 2
    store.close()
ended(in_child(work))
go.set()
thread.join()
print(json.dumps(stepwell.load("waits", store=store)))
"""
        )
        == 1
    )


def test_workers_of_a_forked_pool_load_from_a_busy_store(forks):
    assert forks(
        """
big = asset(name="big")(lambda: list(range(20_000)))
stepwell.materialize([big], store=store)
over = threading.Event()
def write():
    while not over.is_set():
        store.record_step(step("x"))
        time.sleep(0.001)
thread = threading.Thread(target=write)
thread.start()
def work(number):
    return sum(stepwell.load("big", store=store)) + number
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map(work, range(6))
over.set()
thread.join()
print(json.dumps([number - sum(range(20_000)) for number in found]))
"""
    ) == [0, 1, 2, 3, 4, 5]


def test_an_interrupt_during_a_fork_is_raised_after_it(forks):
    # Most of them: one inside another library's hook, logging's for instance, is lost by Python.
    assert forks(
        """
import signal
interrupts = 0
for number in range(10):
    store.record_step(step(f"s{number}"))
    child = None
    # The fork waits for the catalog's work, which ends when the interrupt is there: it comes while our hook runs, however slow all this is.
    inside, came = threading.Event(), threading.Event()
    def work(connection, name):
        inside.set()
        came.wait(240)
    asking = threading.Thread(target=lambda: store.catalog.ask(work))
    asking.start()
    inside.wait(240)
    try:
        signal.signal(signal.SIGALRM, lambda *_: (came.set(), signal.raise_signal(signal.SIGINT)))
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * (number % 10 + 1))
        child = in_child(lambda: None)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            time.sleep(0.001)
    except KeyboardInterrupt:
        interrupts += 1
    if child:
        os.waitpid(child, 0)
    asking.join()
store.record_step(step("last")).wait()
print(json.dumps([interrupts > 5, len(recorded())]))
"""
    ) == [True, 11]


ENDS = """
import os, sys, threading, time
from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.store.store import open_store

store = open_store(sys.argv[1])
def write():
    number = 0
    while True:
        store.record_step(StepRecord("r", f"s{number}", "skipped", 0.0)).wait()
        os.write(1, f"s{number}\\n".encode())
        number += 1
for _ in range(2):
    threading.Thread(target=write, daemon=True).start()
while store.catalog.ask(lambda con, name: con.execute(f"SELECT count(*) FROM {name}.steps").fetchone()[0]) < 5:
    pass
if sys.argv[2] == "exit":
    os._exit(3)
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("exit", 3)])
def test_a_process_that_ends_while_daemon_threads_record(python, store_dir, how, code):
    from stepwell.kernel_runtime.store.store import open_store

    for _ in range(3):
        process = python(ENDS, store_dir, how, wait=False)
        out, err = process.communicate(timeout=240)
        assert process.returncode == code, err
        assert "StoreError" not in err
        acknowledged = {line for line in out.splitlines() if line.startswith("s")}
        store = open_store(store_dir)
        found = store.catalog.ask(lambda con, name: con.execute(f"SELECT key FROM {name}.steps").fetchall())
        assert acknowledged - set(out.splitlines()[-1:]) <= {key for (key,) in found}
        store.close()

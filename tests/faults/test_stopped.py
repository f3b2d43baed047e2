"""A process that was stopped while it has the catalog (Ctrl-Z, a laptop's sleep): the others wait, and waiting can be left."""

import json
import selectors
import signal
import subprocess
import sys

import pytest

from stepwell.kernel_runtime.store.store import open_store

HOLDER = """
import sys
from stepwell.kernel_runtime.store.store import open_store


def stay(connection, name):
    print("inside", flush=True)
    sys.stdin.readline()


store = open_store(sys.argv[1])
store.catalog.ask(stay)
"""
RUNNER = """
import json, signal, sys
import stepwell
from stepwell import asset

when = sys.argv[2]
# Outside of a run an interrupt does nothing here, so that its moment does not matter.
signal.signal(signal.SIGINT, lambda *_: None)
store = stepwell.get_session().open(sys.argv[1])


@asset
def first():
    if when == "commit":
        store.close()
        print("hold", flush=True)
        assert sys.stdin.readline() == "held\\n"
    return 1


if when == "start":
    store.close()
    print("hold", flush=True)
    assert sys.stdin.readline() == "held\\n"
report = {}
try:
    print("waits", flush=True)
    stepwell.materialize([first], store=store)
    report["interrupted"] = False
except KeyboardInterrupt:
    report["interrupted"] = True
print("left", flush=True)
sys.stdin.readline()
report["runs"] = [run.status for run in store.runs()]
report["again"] = stepwell.materialize([first], store=store).steps[0].status if when == "start" else ""
report["steps"] = [[step.key, step.status] for run in store.runs() for step in store.run(run.run_id)[1]]
print(json.dumps(report))
"""


@pytest.mark.parametrize(("when", "interrupts"), [("start", 1), ("commit", 2)])
def test_waiting_for_a_stopped_process_is_left_by_an_interrupt_and_loses_nothing(python, store_dir, when, interrupts):
    open_store(store_dir).close()
    runner = python(RUNNER, store_dir, when, wait=False, stdin=subprocess.PIPE)
    holder = None
    try:
        for line in ["hold"] if when == "start" else ["waits", "hold"]:
            assert runner.stdout.readline() == f"{line}\n"
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(store_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout.readline() == "inside\n"
        holder.send_signal(signal.SIGSTOP)
        runner.stdin.write("held\n")
        runner.stdin.flush()
        if when == "start":
            assert runner.stdout.readline() == "waits\n"
        sent = 0
        with selectors.DefaultSelector() as answers:
            answers.register(runner.stdout, selectors.EVENT_READ)
            while not answers.select(0.2):
                assert sent < 300
                runner.send_signal(signal.SIGINT)
                sent += 1
        assert sent >= interrupts
        assert runner.stdout.readline() == "left\n"
        holder.send_signal(signal.SIGCONT)
        holder.communicate("\n", timeout=240)
        out, err = runner.communicate("\n", timeout=240)
        assert runner.returncode == 0, err
        report = json.loads(out)
        assert report["interrupted"]
        if when == "start":
            assert (report["runs"], report["again"]) == ([], "executed")
        else:
            assert report["steps"] in ([["first", "executed"]], [["first", "cancelled"]])
    finally:
        for process in (runner, holder):
            if process is not None:
                process.kill()
                process.communicate()

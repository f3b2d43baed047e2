"""Ctrl-C at any moment: finished steps stay recorded, the running one is cancelled, the process goes on."""

import json
import random
import signal
import time

import pytest

SCRIPT = """
import asyncio, json, sys, time
import stepwell
from stepwell import AssetOut, Output, asset, multi_asset

store, kind, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])


def sleeps(n):
    time.sleep(0.02)
    return n


def computes(n):
    total = 0
    for i in range(200_000):
        total += i % 7
    return total


def trivial(n):
    return n


async def awaits(n):
    await asyncio.sleep(0.02)
    return n


BODY = {"sleeps": sleeps, "computes": computes, "engine": trivial, "awaits": awaits}[kind]
COUNT = 300 if kind == "engine" else 12


def define(round_, number):
    if kind == "awaits":
        async def body():
            return await BODY((round_, number))
    else:
        def body():
            return BODY((round_, number))
    return asset(name=f"s{number:03}")(body)


opened = stepwell.get_session().open(store)
stepwell.materialize([asset(name="warm")(lambda: 1)], store=opened)
for round_ in range(rounds):
    definitions = [define(round_, number) for number in range(COUNT)]
    before = stepwell.last_run().run_id
    interrupted = False
    try:
        print("go", flush=True)
        stepwell.materialize(definitions, store=opened)
        while True:
            time.sleep(0.005)
    except KeyboardInterrupt:
        interrupted = True
    last = stepwell.last_run()
    report = {"interrupted": interrupted, "began": last.run_id != before}
    if report["began"]:
        run, steps = opened.run(last.run_id)
        report |= {
            "status": run.status,
            "steps": [step.status for step in last.steps],
            "recorded": sorted(step.key + step.status for step in steps) == sorted(step.key + step.status for step in last.steps),
        }
        again = stepwell.materialize(definitions, store=opened)
        report["again"] = [step.status for step in again.steps]
    report["running"] = [run.run_id for run in opened.runs(limit=100) if run.status == "running"]
    print(json.dumps(report), flush=True)
"""


@pytest.mark.parametrize(("kind", "longest"), [("sleeps", 0.3), ("computes", 0.3), ("engine", 0.15), ("awaits", 0.3)])
def test_interrupts_at_random_moments(python, store_dir, kind, longest):
    rounds = 5
    delays = random.Random(kind)
    process = python(SCRIPT, store_dir, kind, rounds, wait=False)
    try:
        for _ in range(rounds):
            line = process.stdout.readline()
            assert line == "go\n", line + process.stderr.read()
            time.sleep(delays.uniform(0, longest))  # the moment is what is tested
            process.send_signal(signal.SIGINT)
            line = process.stdout.readline()
            report = json.loads(line or process.stderr.read())
            assert report["interrupted"]
            assert report["running"] == []
            if not report["began"]:
                continue
            assert report["recorded"]
            statuses = report["steps"]
            done = statuses.count("executed")
            expected = ["executed"] * done + ["cancelled"] * statuses.count("cancelled")
            expected += ["untouched"] * (len(statuses) - len(expected))
            assert statuses == expected
            assert statuses.count("cancelled") <= 1
            assert report["status"] == ("success" if done == len(statuses) else "cancelled")
            assert report["again"] == ["reused"] * done + ["executed"] * (len(statuses) - done)
        _, err = process.communicate(timeout=240)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_a_body_that_raises_keyboard_interrupt_itself_stops_the_run(store_dir):
    import stepwell
    from stepwell import asset

    @asset
    def first():
        return 1

    @asset
    def stops(first):
        raise KeyboardInterrupt

    @asset
    def later():
        return 1

    with pytest.raises(KeyboardInterrupt):
        stepwell.materialize([first, stops, later], store=store_dir, raise_on_error=False)
    result = stepwell.last_run()
    assert result.status == "cancelled"
    assert [step.status for step in result.steps] == ["executed", "cancelled", "untouched"]
    assert stepwell.materialize([first], store=store_dir).steps[0].status == "reused"


def test_what_a_cancelled_step_had_yielded_stays(store_dir):
    import stepwell
    from stepwell import AssetOut, Output, multi_asset

    @multi_asset(outs={"p": AssetOut(), "q": AssetOut()})
    def parts():
        yield Output(1, "p")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stepwell.materialize([parts], store=store_dir)
    assert stepwell.load("p", store=store_dir) == 1


def test_cancel_stops_before_the_next_step_without_an_exception(store_dir):
    import stepwell
    from stepwell import asset
    from stepwell.kernel_runtime.session import get_session

    @asset(cache=False)
    def asks():
        from stepwell.kernel_runtime.session import get_session

        get_session().cancel()
        return 1

    @asset
    def later(asks):
        return 1

    result = stepwell.materialize([asks, later], store=store_dir)
    assert (result.status, [step.status for step in result.steps]) == ("cancelled", ["executed", "untouched"])
    assert get_session().last_run is result
    resumed = stepwell.resume(result.run_id, definitions=[asks, later], store=store_dir)
    assert [(step.key, step.status) for step in resumed.steps] == [("later", "executed")]


LONG = """
import asyncio, sys, time
import stepwell
from stepwell import asset

kind = sys.argv[2]


@asset
def before():
    return 1


if kind == "awaits":
    @asset
    async def long(before):
        print("running", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up", flush=True)
else:
    @asset
    def long(before):
        print("running", flush=True)
        end = time.monotonic() + 240
        if kind == "sleeps":
            time.sleep(60)
        while time.monotonic() < end:
            pass


try:
    stepwell.materialize([long], store=sys.argv[1])
except KeyboardInterrupt:
    print([step.status for step in stepwell.last_run().steps])
    from stepwell.kernel_runtime.store.signing import read_outputs
    store = stepwell.get_session().open(sys.argv[1])
    print(read_outputs(store.catalog, store.signer, stepwell.last_run().run_id, "long")[0].text.splitlines()[0])
"""


@pytest.mark.parametrize("kind", ["sleeps", "computes", "awaits"])
def test_an_interrupt_ends_the_running_step_at_once(python, store_dir, kind):
    process = python(LONG, store_dir, kind, wait=False)
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
        assert err == ""
        assert out.splitlines() == [
            *(["cleaned up"] if kind == "awaits" else []),
            "['executed', 'cancelled']",
            "running",
        ]
    finally:
        process.kill()
        process.communicate()


CANCELLED = """
import asyncio, os, socket, subprocess, sys, threading, time
import stepwell
from stepwell import asset
from stepwell.kernel_runtime.records.runs import RunStarted
from stepwell.kernel_runtime.session import get_session

store, kind = sys.argv[1:]
running = threading.Event()
started = []
get_session().subscribe(lambda event: started.append(event.run.run_id) if isinstance(event, RunStarted) else None)


def waits():
    running.set()
    if kind in ("sleeps", "on a thread"):
        time.sleep(600 if kind == "sleeps" else 0)
    elif kind == "reads a socket":
        ends = socket.socketpair()
        ends[0].recv(1)
    elif kind == "waits for a shell":
        os.system("sleep 600; sleep 600")
    elif kind == "runs a program":
        subprocess.run(["sleep", "600"])
    elif kind == "catches the first":
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            running.clear()
            threading.Thread(target=cancel).start()
            running.set()
        time.sleep(600)
    while True:
        pass


@asset
def before():
    return 1


if kind == "awaits":
    @asset
    async def long(before):
        running.set()
        await asyncio.sleep(600)
else:
    @asset
    def long(before):
        waits()


@asset
def later(long):
    return 1


def cancel():
    running.wait()
    get_session().cancel("another run")
    get_session().cancel(started[-1])


def go():
    try:
        stepwell.materialize([later], store=store)
    except KeyboardInterrupt:
        print([step.status for step in stepwell.last_run().steps])


threading.Thread(target=cancel).start()
if kind == "on a thread":
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
else:
    go()
"""


@pytest.mark.parametrize(
    "kind",
    [
        "sleeps",
        "reads a socket",
        "waits for a shell",
        "runs a program",
        "catches the first",
        "computes",
        "awaits",
        "on a thread",
    ],
)
def test_cancel_on_another_thread_ends_the_running_step(python, store_dir, kind):
    out = python(CANCELLED, store_dir, kind)
    assert out.splitlines() == ["['executed', 'cancelled', 'untouched']"]


LATE = """
import random, sys, threading, time
import stepwell
from stepwell import asset
from stepwell.kernel_runtime.session import get_session

opened = stepwell.get_session().open(sys.argv[1])
moments = random.Random(1)
seen = set()


def computes():
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass


def press(delay):
    time.sleep(delay)
    get_session().cancel()


usual = 0.02
for round_ in range(int(sys.argv[2])):
    definitions = [asset(name=f"a{round_}_{number}")(lambda: computes()) for number in range(2)]
    last = stepwell.last_run()
    thread = threading.Thread(target=press, args=(moments.uniform(0, 1.5 * usual),))
    began = time.perf_counter()
    thread.start()
    try:
        status = stepwell.materialize(definitions, store=opened).status
        seen.add("ran")
        assert status == "success", status
    except KeyboardInterrupt:
        begun = stepwell.last_run() is not last
        seen.add("cancelled")
        assert not begun or stepwell.last_run().status == "cancelled"
    usual = 0.9 * usual + 0.1 * (time.perf_counter() - began)
    # The next cell: an interrupt in it ends this script.
    while thread.is_alive():
        pass
    computes()
print(sorted(seen))
"""


def test_a_cancel_that_comes_after_the_run_ends_nothing_else(python, store_dir):
    assert python(LATE, store_dir, 60) == "['cancelled', 'ran']\n"

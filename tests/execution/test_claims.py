"""Of two processes that need one long step, the second waits for the first, says so, and reuses; nobody waits in vain."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.records.runs import Claimant, StepFinished, StepStarted, StepWaiting
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.processes import Claims

SCRIPT = """
import json, os, sys, time
from pathlib import Path
import stepwell
from stepwell import asset

store, folder, options = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]


@asset
def slow():
    (folder / f"began-{os.getpid()}").touch()
    read = (folder / "data").read_text()
    if os.read(0, 10) == b"fail":  # what comes in here is no read that counts
        raise ValueError("as asked")
    return read


@asset
def after(slow):
    return slow + "!"


print("ready", flush=True)
report = {}
try:
    result = stepwell.materialize([slow, after], store=store, force="force" in options, raise_on_error=False)
    report["value"] = result.value("after") if result.success else ""
except KeyboardInterrupt:
    report["interrupted"] = True
    result = stepwell.last_run()
report["steps"] = {step.key: step.status for step in result.steps}
report["status"] = stepwell.get_session().open(store).run(result.run_id)[0].status
report["another"] = stepwell.materialize([asset(name="another")(lambda: 5)], store=store).value("another")
print(json.dumps(report))
"""
PATIENCE = 240
EXECUTED = {"slow": "executed", "after": "executed"}


def claims_in(store):
    """The memo keys that are claimed; lists of what is not recorded yet lie beside them."""
    return sorted(path.name for path in store.glob("claims/*"))


class Processes:
    def __init__(self, python, store, folder):
        self.python, self.store, self.folder = python, store, folder
        (folder / "data").write_text("one")
        self.started = []

    def start(self, *options):
        process = self.python(SCRIPT, self.store, self.folder, *options, wait=False, name="prepare.py", stdin=subprocess.PIPE)
        self.started.append(process)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        return process

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def claims(self):
        return claims_in(self.store)

    def claimed(self, process):
        """Wait until a process holds its claim."""
        claims = Claims(Folder(self.store))
        self.until(lambda: any(claims.claimant(name).pid == process.pid for name in self.claims()))

    def waits(self, process):
        """Read the line that says for whom a process waits."""
        return process.stderr.readline()

    def opened(self, word="go"):
        """Let every body that runs, now or later, go on."""
        for process in self.started:
            if process.poll() is None:
                process.stdin.write(word)
                process.stdin.flush()

    def ended(self, process):
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        return json.loads(out), err

    def bodies(self):
        return len(list(self.folder.glob("began-*")))


@pytest.fixture
def processes(python, store_dir, tmp_path):
    found = Processes(python, store_dir, tmp_path)
    yield found
    for process in found.started:
        process.kill()
        process.communicate()


def test_the_second_waits_says_for_whom_and_reuses(processes):
    first = processes.start()
    processes.claimed(first)
    second = processes.start()
    third = processes.start()
    for waiting in (second, third):
        line = processes.waits(waiting)
        assert line.startswith(f"slow: waiting for prepare.py (pid {first.pid}, since "), line
        assert line.endswith(")\n")
    processes.opened()
    report, err = processes.ended(first)
    assert (report["steps"], report["value"], err) == (EXECUTED, "one!", "")
    for waiting in (second, third):
        report, err = processes.ended(waiting)
        assert report["steps"]["slow"] == "reused"
        assert report["value"] == "one!"
        assert all(line.startswith("slow: waiting for prepare.py") for line in err.splitlines())
    assert processes.bodies() == 1
    assert processes.claims() == []
    # Now it is known to take long: claimed from its first moment on, and how long it takes is said.
    (processes.folder / "data").write_text("two")
    first = processes.start()
    processes.claimed(first)
    second = processes.start()
    assert ", usually " in processes.waits(second)
    processes.opened()
    assert processes.ended(first)[0]["value"] == "two!"
    assert processes.ended(second)[0]["steps"]["slow"] == "reused"
    assert processes.bodies() == 2


def test_the_second_takes_over_when_the_first_dies(processes):
    first = processes.start()
    processes.claimed(first)
    second = processes.start()
    processes.waits(second)
    first.kill()
    first.wait()
    processes.claimed(second)
    processes.opened()
    report, _ = processes.ended(second)
    assert (report["steps"], report["value"]) == (EXECUTED, "one!")
    assert processes.bodies() == 2
    assert processes.claims() == []


def test_the_second_takes_over_when_the_first_fails(processes):
    first = processes.start()
    processes.claimed(first)
    second = processes.start()
    processes.waits(second)
    processes.opened("fail")
    assert processes.ended(first)[0]["steps"] == {"slow": "failed", "after": "untouched"}
    assert processes.ended(second)[0]["steps"] == {"slow": "failed", "after": "untouched"}
    assert processes.bodies() == 2
    assert processes.claims() == []


def test_what_the_first_read_is_checked_before_it_is_reused(processes):
    first = processes.start()
    processes.claimed(first)
    processes.until(processes.bodies)
    second = processes.start()
    processes.waits(second)
    (processes.folder / "data").write_text("two")
    processes.opened()
    assert processes.ended(first)[0]["value"] == "one!"
    report, _ = processes.ended(second)
    assert (report["steps"], report["value"]) == (EXECUTED, "two!")


def test_an_interrupt_ends_the_waiting_and_leaves_everything_usable(processes):
    first = processes.start()
    processes.claimed(first)
    second = processes.start()
    processes.waits(second)
    second.send_signal(signal.SIGINT)
    report, err = processes.ended(second)
    assert report["interrupted"]
    assert report["steps"] == {"slow": "untouched", "after": "untouched"}
    assert report["status"] == "cancelled"
    assert report["another"] == 5
    assert "Traceback" not in err
    processes.opened()
    assert processes.ended(first)[0]["steps"] == EXECUTED
    assert processes.bodies() == 1


def test_a_forced_step_waits_for_nobody(processes):
    first = processes.start()
    processes.claimed(first)
    second = processes.start("force")
    processes.until(lambda: processes.bodies() == 2)
    processes.opened()
    for process in (first, second):
        report, err = processes.ended(process)
        assert (report["steps"], err) == (EXECUTED, "")


def waits(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def test_short_steps_and_runs_without_work_do_not_touch_the_claims(store_dir):
    definitions = [asset(name=f"s{number}")(lambda: 1) for number in range(20)]
    stepwell.materialize(definitions, store=store_dir)
    (store_dir / "claims").rmdir()

    @asset
    def long():
        waits(0.3)
        return 1

    stepwell.materialize([long], store=store_dir)
    (store_dir / "claims").rmdir()
    touched = []

    def look(event, args):
        if watching and args and isinstance(args[0], str) and "/claims" in args[0]:
            touched.append((event, args))

    watching = True
    sys.addaudithook(look)
    assert stepwell.materialize([*definitions, long], store=store_dir).steps[-1].status == "reused"
    watching = False
    assert touched == []
    assert not (store_dir / "claims").exists()


def test_threads_with_sessions_of_their_own_wait_for_each_other(store_dir):
    bodies, gate = [], threading.Event()

    @asset(ignore=["bodies", "gate"])
    def slow():
        bodies.append(1)
        gate.wait(PATIENCE)
        return 3

    events, results = [], {}

    def work(name):
        session = Session()
        session.subscribe(lambda event: events.append((name, event)))
        session.subscribe(lambda event: gate.set() if isinstance(event, StepWaiting) else None)
        results[name] = session.materialize([slow], store=store_dir)

    first = threading.Thread(target=work, args=("first",))
    first.start()
    deadline = time.monotonic() + PATIENCE
    while not claims_in(store_dir):
        assert time.monotonic() < deadline
    second = threading.Thread(target=work, args=("second",))
    second.start()
    for thread in (first, second):
        thread.join(PATIENCE)
    assert [results[name].steps[0].status for name in ("first", "second")] == ["executed", "reused"]
    assert bodies == [1]
    seen = [type(event) for name, event in events if name == "second"]
    assert seen.count(StepWaiting) == 1
    assert StepStarted not in seen
    assert seen.index(StepWaiting) < seen.index(StepFinished)
    assert claims_in(store_dir) == []


class Lost:
    """Two long assets whose code can be edited; the first one's value is lost."""

    def __init__(self, store):
        self.store = store
        self.claims = Claims(Folder(store))
        self.during = []

    def run(self, session, factor):
        place, during = self.store, self.during

        @asset(ignore=["during", "place", "claims_in"])
        def up():
            during.append(("up", claims_in(place)))
            waits(0.25)
            return list(range(40_000))

        @asset(ignore=["during", "place", "claims_in"])
        def down(up):
            during.append(("down", claims_in(place)))
            waits(0.25)
            return len(up) * factor

        self.up, self.down = up, down
        return session.materialize([down], store=self.store, definitions=[up])

    def lose(self):
        for path in (self.store / "objects").rglob("*.*"):
            path.unlink()

    def memo(self, key):
        return self.open().history(key)[0].memo_key

    def open(self):
        return stepwell.get_session().open(self.store)


@pytest.fixture
def lost(store_dir):
    return Lost(store_dir)


def test_while_a_lost_input_is_computed_again_only_that_is_claimed(lost):
    lost.run(Session(), 1)
    lost.lose()
    lost.during.clear()
    result = lost.run(Session(), 2)
    assert result.value("down") == 80_000
    (first, claimed), (second, later) = lost.during
    assert (first, claimed) == ("up", [lost.memo("up")])
    # The lost input's claim may still wait for its commit.
    assert (second, set(later) - {lost.memo("up")}) == ("down", {lost.memo("down")})
    assert claims_in(lost.store) == []


def test_who_waits_for_a_lost_input_holds_no_claim_and_takes_what_another_made(lost):
    lost.run(Session(), 1)
    lost.lose()
    lost.during.clear()
    claim = lost.claims.take(lost.memo("up"), Claimant("other.ipynb", 7))
    waiting, results = threading.Event(), []
    session = Session()
    session.subscribe(lambda event: waiting.set() if isinstance(event, StepWaiting) else None)
    thread = threading.Thread(target=lambda: results.append(lost.run(session, 2)))
    thread.start()
    assert waiting.wait(PATIENCE)
    assert claims_in(lost.store) == [lost.memo("up")]
    Session().materialize([lost.up], store=lost.store, force=True)
    claim.release()
    thread.join(PATIENCE)
    assert results[0].value("down") == 80_000
    assert {step.key: step.status for step in results[0].steps} == {"up": "reused", "down": "executed"}
    assert [name for name, _ in lost.during] == ["up", "down"]


def test_what_another_key_signed_while_one_waited_is_computed_again(tmp_path, monkeypatch):
    made = []

    @asset(ignore=["made"])
    def waited():
        made.append(1)
        return list(range(40_000))

    stepwell.materialize([waited], store=tmp_path / "elsewhere")
    memo = stepwell.get_session().open(tmp_path / "elsewhere").history("waited")[0].memo_key
    stepwell.get_session().open(tmp_path / "store")
    claim = Claims(Folder(tmp_path / "store")).take(memo, Claimant("other.ipynb", 7))
    waiting, results = threading.Event(), []
    session = Session()
    session.open(tmp_path / "store")
    session.subscribe(lambda event: waiting.set() if isinstance(event, StepWaiting) else None)
    thread = threading.Thread(target=lambda: results.append(session.materialize([waited], store=tmp_path / "store")))
    thread.start()
    assert waiting.wait(PATIENCE)
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "another"))
    Session().materialize([waited], store=tmp_path / "store", force=True)
    claim.release()
    thread.join(PATIENCE)
    assert [step.status for step in results[0].steps] == ["executed"]
    assert results[0].value("waited") == list(range(40_000))
    assert len(made) == 3


def test_cancelling_a_run_ends_its_waiting(tmp_path):
    @asset
    def waited():
        return 1

    @asset
    def follows():
        return 1

    stepwell.materialize([waited], store=tmp_path / "elsewhere")
    memo = stepwell.get_session().open(tmp_path / "elsewhere").history("waited")[0].memo_key
    stepwell.get_session().open(tmp_path / "store")
    claim = Claims(Folder(tmp_path / "store")).take(memo, Claimant("other.ipynb", 7))
    session, results = Session(), []
    session.subscribe(lambda event: session.cancel() if isinstance(event, StepWaiting) else None)
    thread = threading.Thread(target=lambda: results.append(session.materialize([waited, follows], store=tmp_path / "store")))
    thread.start()
    thread.join(PATIENCE)
    assert (results[0].status, [step.status for step in results[0].steps]) == ("cancelled", ["untouched", "untouched"])
    claim.release()
    assert session.materialize([waited, follows], store=tmp_path / "store").success

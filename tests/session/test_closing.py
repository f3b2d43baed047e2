"""What happens when a process ends: what is due is done, quietly."""

import os
import subprocess
import sys
import time

import pytest

from stepwell.kernel_runtime.session import get_session
from stepwell.kernel_runtime.store.processes import is_gone, this_process

SCRIPT = """
import stepwell

@stepwell.asset
def number():
    return 1

result = stepwell.materialize([number], store="kept")
print([step.status for step in result.steps])
"""


def ran(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout.strip(), done.stderr


def test_a_process_that_found_everything_fresh_does_what_is_due_as_it_ends(tmp_path):
    assert ran(tmp_path) == ("['executed']", "")
    os.utime(tmp_path / "kept" / "CACHEDIR.TAG", (time.time() - 4000,) * 2)
    assert ran(tmp_path) == ("['reused']", "")
    sizes = (tmp_path / "kept" / "housekeeping.json").read_text()
    assert '"older_bytes"' in sizes


RUNS_FOREVER = """
import sys, time, stepwell
from stepwell import asset

@asset
def forever():
    print("begun", flush=True)
    while True:
        time.sleep(0.05)

stepwell.materialize([forever], store=sys.argv[1])
"""


@pytest.mark.parametrize("reaped", [False, True])
def test_a_run_whose_process_was_killed_is_interrupted(tmp_path, reaped):
    path = tmp_path / "runs.py"
    path.write_text(RUNS_FOREVER, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(path), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
    assert "begun" in process.stdout.readline()
    store = get_session().open(tmp_path / "store")
    try:
        end = time.monotonic() + 240
        # The body may begin before the record of the run is committed.
        while not store.runs():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert [run.status for run in store.runs()] == ["running"]
        process.kill()
        if reaped:
            process.wait()
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert [run.status for run in store.runs()] == ["interrupted"]
    finally:
        process.kill()
        process.communicate()
        store.close()


def test_a_process_of_another_machine_or_an_earlier_start_is_told_apart():
    host, boot, pid, start = this_process().split("/")
    assert not is_gone(this_process())
    assert not is_gone(f"elsewhere/{boot}/{pid}/0")
    assert not is_gone("")
    assert is_gone(f"{host}/an earlier start/{pid}/{start}")
    assert is_gone(f"{host}/{boot}/{pid}/0")

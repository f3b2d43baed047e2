"""Kernels that share a store: one waits for a step that another process computes, and says so where the reader looks."""

import json
import time

from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.processes import Claims
from stepwell.kernel_runtime.store.store import open_store

RAW = "%%asset raw\n1"
PATIENCE = 240
BOTH = "%%asset clean\nraw + 1"


def claimed(kernel, tmp_path, key):
    """Claim, in the kernel's store, a step that the kernel has run in another store."""
    memo = open_store(tmp_path / "store").history(key)[0].memo_key
    kernel(f"%stepwell store {tmp_path / 'other'}")
    return Claims(Folder(tmp_path / "other")).take(memo, Claimant("prepare.ipynb", 4711, "", 0.0))


def test_a_cell_says_for_whom_it_waits_and_goes_on(kernel, tmp_path):
    kernel(RAW)
    claim = claimed(kernel, tmp_path, "raw")
    sent = kernel.send(RAW)
    seen = kernel.collect(sent, until="(pid 4711")
    assert "raw: waiting for prepare.ipynb (pid 4711" in seen.text
    claim.release()
    assert "raw: executed" in kernel.collect(sent).text


def test_a_cell_that_waits_can_be_interrupted(kernel, tmp_path):
    kernel(RAW)
    claim = claimed(kernel, tmp_path, "raw")
    sent = kernel.send(RAW)
    kernel.collect(sent, until="(pid 4711")
    kernel.manager.interrupt_kernel()
    ran = kernel.collect(sent)
    assert ran.error == "KeyboardInterrupt"
    assert "kernel_runtime" not in ran.text
    claim.release()
    assert "raw: executed" in kernel(RAW).text


def test_a_run_with_upstream_work_says_it_in_its_line(kernel, tmp_path):
    kernel(RAW)
    kernel(BOTH)
    claim = claimed(kernel, tmp_path, "raw")
    sent = kernel.send(BOTH)
    kinds = ("update_display_data",)
    seen = kernel.collect(sent, until="waiting for prepare.ipynb (pid 4711", kinds=kinds)
    assert "clean: first raw · raw: waiting for prepare.ipynb (pid 4711" in seen.text
    claim.release()
    ran = kernel.collect(sent, kinds=kinds)
    assert "clean: executed" in ran.text
    lines = [output["content"]["data"]["text/plain"] for output in ran.outputs if "data" in output["content"]]
    assert "clean: first raw" in lines, "the line did not end as it began"


def test_a_step_of_a_kernel_that_was_restarted_is_free_at_once(kernel, tmp_path):
    gate = tmp_path / "gate"
    slow = (
        f"%%asset slow\nimport os, time\nprint('began')\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\nslow = 5"
    )
    sent = kernel.send(slow)
    kernel.collect(sent, until="began")
    claims, names, deadline = Claims(Folder(kernel.store)), [], time.monotonic() + PATIENCE
    while not names or not claims.claimant(names[0]).pid:
        assert time.monotonic() < deadline
        names = [path.name for path in (kernel.store / "claims").glob("*")]
    (memo,) = names
    assert claims.take(memo, Claimant()) is None
    kernel.restart()
    gate.touch()
    claim = claims.take(memo, Claimant())
    assert claim is not None
    claim.release()
    kernel(f"import os\nos.environ['STEPWELL_STORE'] = {json.dumps(str(kernel.store))}\n%load_ext stepwell")
    assert "slow: executed" in kernel(slow).text

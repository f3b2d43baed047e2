"""A batch run that waits for another process says so on standard error, and the executed notebook does not tell of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.processes import Claims
from stepwell.kernel_runtime.store.store import open_store


def test_for_whom_a_step_waits_is_said_and_not_kept(write, stepwell, start, project):
    path = write("n.ipynb", "%load_ext stepwell", "%%asset clean\nclean = [1]")
    alone = json.loads(Path(stepwell("run", path, "--store", "elsewhere").out.strip()).read_text())
    # A memo key does not depend on where it is stored.
    memo = open_store(project / "elsewhere").history("clean")[0].memo_key
    open_store(project / ".stepwell").close()
    claim = Claims(Folder(project / ".stepwell")).take(memo, Claimant("prepare.ipynb", 4711, "", 0.0))
    patience = threading.Timer(60, claim.release)
    patience.start()
    process = start("run", path)
    said = []
    while "waiting" not in (line := process.stderr.readline()):
        assert line
        said.append(line)
    assert line == "cell 2/2  %%asset clean  clean: waiting for prepare.ipynb (pid 4711)\n"
    patience.cancel()
    claim.release()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    waited = json.loads(Path(out.strip()).read_text())
    assert [len(cell["outputs"]) for cell in waited["cells"]] == [len(cell["outputs"]) for cell in alone["cells"]]
    assert "waiting" not in json.dumps(waited)

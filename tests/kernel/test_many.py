"""A kernel, batch runs, plain processes and readers on one store at once: nobody sees a lock, nothing that was acknowledged is lost."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat import v4

from stepwell.kernel_runtime.store.store import open_store

ROOT = Path(__file__).resolve().parents[2]
WRITER = ROOT / "tests" / "faults" / "writer.py"


def start(kernel, folder, *arguments):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "STEPWELL_KEY_FILE": str(kernel.folder / "key"),
            "JUPYTER_PREFER_ENV_PATH": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def notebook(folder, name, *cells):
    made = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    made.cells = [v4.new_code_cell(source) for source in cells]
    nbformat.write(made, folder / name)
    return folder / name


def test_everybody_at_once(kernel, tmp_path):
    store = kernel.store
    path = notebook(tmp_path, "batch.ipynb", "%load_ext stepwell", "%%asset shared\n[1, 2]", "%%asset batch\nshared + [3]")
    processes = {
        "w1": start(kernel, tmp_path, WRITER, store, "w1", 8, 3),
        "w2": start(kernel, tmp_path, WRITER, store, "w2", 8, 3),
        "batch": start(kernel, tmp_path, "-m", "stepwell.batch", "run", path, "--store", store, "--json"),
        "reader": start(kernel, tmp_path, "-m", "stepwell.batch", "status", "--store", store),
    }
    try:
        for number in range(6):
            kernel(f"%%asset k{number}\n{number}")
        kernel("%%asset shared\n[1, 2]")
        # A front end's panel asks on another thread while a cell runs.
        ran = kernel(
            "import threading, stepwell\n"
            "from stepwell.kernel_runtime.session import get_session\n"
            "asked = []\n"
            "def ask():\n    for _ in range(3):\n        asked.append(len(get_session().inspect().lineage().nodes) and len(get_session().store.keys()))\n"
            "threads = [threading.Thread(target=ask) for _ in range(2)]\n"
            "[thread.start() for thread in threads]\n"
            "print(stepwell.materialize(['k0', 'k1'], force=True).status)\n"
            "[thread.join(60) for thread in threads]\nprint(len(asked), all(asked))"
        )
        assert ran.text.splitlines()[0] == "success"
        assert "6 True" in ran.text
        ended = {name: (*process.communicate(timeout=240), process.returncode) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    for name, (_, err, code) in ended.items():
        assert code == 0, (name, err)
        assert "lock" not in err.lower(), (name, err)
    acknowledged = {key for name in ("w1", "w2") for key in ended[name][0].split()} - {"begun"}
    assert len(acknowledged) == 2 * 8 * 3
    found = open_store(store)
    assert set(found.keys()) >= acknowledged | {f"k{number}" for number in range(6)} | {"shared", "batch"}
    assert all(run.status == "success" for run in found.runs(limit=100) if not run.notebook.startswith("/w"))
    found.close()


def test_a_subshell_asks_for_states_while_a_cell_runs(kernel, tmp_path):
    gate = tmp_path / "gate"
    kernel("%%asset quick\n1")
    control = kernel.client.session.msg("create_subshell_request", {})
    kernel.client.control_channel.send(control)
    subshell = kernel.client.get_control_msg(timeout=240)["content"]["subshell_id"]
    slow = f"%%asset slow\nimport os, time\nprint('began')\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\nslow = quick"
    sent = kernel.send(slow)
    kernel.collect(sent, until="began")
    asking = kernel.client.session.msg(
        "execute_request",
        {
            "code": "%stepwell status\n%stepwell runs 1",
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        },
    )
    asking["header"]["subshell_id"] = subshell
    kernel.client.shell_channel.send(asking)
    told = kernel.collect(asking["header"]["msg_id"], until="running")
    assert "quick" in told.text
    gate.touch()
    assert "slow: executed" in kernel.collect(sent).text

"""A notebook is executed in its own folder by its own kernel, and saved elsewhere after every cell."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import nbformat

VIEW = "application/vnd.jupyter.widget-view+json"


def read(path):
    return nbformat.read(path, as_version=4)


def test_a_notebook_is_executed_in_its_folder_and_saved_below_the_store(write, stepwell, project):
    path = write(
        "sub/numbers.ipynb",
        "import os, sys\nprint('one', flush=True); print('two')\n(project_file := os.path.exists('beside.txt'), sys.executable)",
        "get_ipython().kernel.get_parent()['metadata']['cellId']",
        "sorted(name for name in os.environ if name.startswith('STEPWELL_')), os.environ['STEPWELL_NOTEBOOK']",
        f"display({{'text/plain': 'w', 'text/html': '<b>w</b>', '{VIEW}': {{'model_id': 'm'}}}}, raw=True)",
    )
    (path.parent / "beside.txt").touch()
    before = path.read_bytes()

    ended = stepwell("run", path)

    assert ended.code == 0, ended.err
    saved = Path(ended.out.removesuffix("\n"))
    assert saved.parent == project / ".stepwell/runs"
    assert path.read_bytes() == before
    assert [line.split("  ")[0] for line in ended.err.splitlines()] == ["cell 1/4", "cell 2/4", "cell 3/4", "cell 4/4"]
    cells = read(saved).cells
    nbformat.validate(read(saved))
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4]
    # Text that continues a stream is one output.
    assert cells[0].outputs[0].text == "one\ntwo\n"
    assert cells[0].outputs[1].data["text/plain"] == repr((True, sys.executable))
    assert cells[1].outputs[0].data["text/plain"] == repr(cells[1].id)
    told = cells[2].outputs[0].data["text/plain"]
    assert "STEPWELL_BATCH" in told
    assert repr(str(path)) in told
    # No kernel is there when the file is opened: only what needs none is kept of a widget.
    assert set(cells[3].outputs[0].data) == {"text/plain", "text/html"}
    assert "widgets" not in read(saved).metadata


def test_the_copy_on_disk_has_every_cell_that_is_done(write, stepwell, project):
    path = write(
        "steps.ipynb",
        "print('first')",
        "import json\nprint([c['outputs'] != [] for c in json.load(open('out.ipynb'))['cells']])",
    )

    ended = stepwell("run", path, "out.ipynb", "--json")

    assert ended.json == {"notebook": str(path), "status": "success", "runs": [], "error": None}
    executed = read(project / "out.ipynb")
    assert executed.cells[1].outputs[0].text == "[True, False]\n"
    # Times in the metadata would make every two executions differ.
    assert all("execution" not in cell.metadata for cell in executed.cells)


def test_a_failing_cell_ends_the_execution_and_is_saved(write, stepwell, project):
    path = write("fails.ipynb", "x = 1", "print('so far')\n{}['absent']", "x = 2")
    source = read(path)
    source.cells[2].outputs = [nbformat.v4.new_output("stream", text="of an earlier execution")]
    nbformat.write(source, path)

    ended = stepwell("run", path, "executed", "--json")

    assert ended.code == 1
    failing = source.cells[1].id
    assert ended.json == {
        "notebook": str(path),
        "status": "failure",
        "runs": [],
        "error": {"cell": failing, "name": "KeyError", "message": "'absent'"},
    }
    assert f"cell [2] (id {failing}) failed: KeyError: 'absent'" in ended.err.splitlines()
    assert "\x1b" not in ended.err
    cells = read(project / "executed/fails.ipynb").cells
    assert [output.output_type for output in cells[1].outputs] == ["stream", "error"]
    assert cells[2].outputs == []


def test_tags_let_a_cell_fail_or_be_skipped(write, stepwell):
    path = write("tagged.ipynb", ("1 / 0", "raises-exception"), ("raise SystemError", "skip-execution"), "print('end')")

    ended = stepwell("run", path)

    assert ended.code == 0, ended.err
    cells = read(ended.out.strip()).cells
    assert cells[0].outputs[0].ename == "ZeroDivisionError"
    assert cells[1].outputs == []
    assert cells[2].outputs[0].text == "end\n"


def test_a_kernel_that_dies_fails_its_cell(write, stepwell):
    path = write("dies.ipynb", "x = 1", "import os\nos._exit(3)")

    ended = stepwell("run", path, "--json")

    assert ended.code == 1
    assert ended.json["error"]["name"] == "DeadKernelError"
    assert ended.json["error"]["cell"] == read(path).cells[1].id


def test_an_interrupt_reaches_the_cell_and_keeps_the_notebook(write, start, until, project):
    path = write(
        "waits.ipynb",
        "print('done')",
        "import os, threading\nprint('waiting', flush=True)\nopen('pid', 'w').write(str(os.getpid()))\nthreading.Event().wait(600)",
        "print('never')",
    )
    process = start("run", path, "out.ipynb", "--json")
    until(lambda: (project / "pid").exists() and (project / "pid").read_text())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)

    assert process.returncode == 130, err
    ended = json.loads(out)
    assert (ended["status"], ended["error"]["name"]) == ("failure", "KeyboardInterrupt")
    cells = read(project / "out.ipynb").cells
    assert cells[0].outputs[0].text == "done\n"
    assert [output.get("ename", output.get("text")) for output in cells[1].outputs] == [
        "waiting\n",
        "KeyboardInterrupt",
    ]
    assert cells[2].outputs == []
    kernel = int((project / "pid").read_text())
    until(lambda: not Path(f"/proc/{kernel}").exists())


def test_an_interrupt_before_the_first_cell_ends_the_start_of_the_kernel(write, start, until, project, kernels):
    name = kernels("slow", [sys.executable, "-c", "import time; open('began', 'w').close(); time.sleep(600)"], {})
    process = start("run", write("any.ipynb", "1"), "--kernel", name, "--json")
    until((project / "began").exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)

    assert process.returncode == 130, err
    assert json.loads(out)["error"] == {"cell": None, "name": "KeyboardInterrupt", "message": "interrupted by SIGINT"}
    assert "interrupted by SIGINT in the kernel's start;" in err


def test_a_second_interrupt_ends_a_kernel_that_does_not_stop(write, start, until, project):
    path = write(
        "deaf.ipynb",
        "import time\nfrom pathlib import Path\nPath('began').touch()\nwhile True:\n"
        "    try:\n        time.sleep(600)\n    except KeyboardInterrupt:\n        Path('heard').touch()",
    )
    process = start("run", path, "out.ipynb", "--json")
    until((project / "began").exists)
    process.send_signal(signal.SIGINT)
    until((project / "heard").exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)

    assert process.returncode == 130, err
    assert json.loads(out)["error"]["cell"] == read(path).cells[0].id


def test_a_kernel_that_cannot_start_is_an_error_of_its_own(write, stepwell, kernels):
    path = write("any.ipynb", "1")
    broken = kernels("broken", [sys.executable, "-c", "raise SystemExit('no kernel in here')"], {})
    absent = kernels("absent", ["/nowhere/python", "-f", "{connection_file}"], {})

    for name, reason in ((broken, "no kernel in here"), (absent, "/nowhere/python")):
        ended = stepwell("run", path, "--kernel", name)
        assert ended.code == 4, ended.err
        assert ended.err.startswith(f"NotebookKernelError: the kernel '{name}' does not start")
        assert reason in ended.err
        assert "--kernel" in ended.err
        assert "Traceback" not in ended.err


def test_a_kernel_of_a_python_without_stepwell_is_explained(write, stepwell, kernels, project):
    path = write("any.ipynb", "%load_ext stepwell")
    (project / "hidden").mkdir()
    (project / "hidden/stepwell.py").write_text("raise ModuleNotFoundError(\"No module named 'stepwell'\", name='stepwell')")
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    other = kernels("other", argv, {"PYTHONPATH": str(project / "hidden")})

    ended = stepwell("run", path, "--kernel", other)

    assert ended.code == 1
    assert "(pip install stepwell)" in ended.err.splitlines()[-1]

"""Parameters of a batch run, as papermill has them: checked before a kernel starts, injected below the tagged cell."""

import sys

import nbformat
import pytest

CELLS = (
    ("RATE = 3\nname: str = 'a'\nfast = False\nshare = 0.5\ndays = [1]\nstart = None", "parameters"),
    "%load_ext stepwell",
    "%%asset raw\nraw = [1, 2]",
    "%%asset clean\nclean = [each * RATE for each in raw]",
    "print(clean, name, fast, share, days, start)",
)


def printed(project):
    return nbformat.read(project / "out.ipynb", 4).cells[-1].outputs[0].text


def test_a_parameter_replaces_the_default_and_only_what_depends_on_it_is_computed(write, stepwell, project):
    path = write("daily.ipynb", *CELLS)
    first = stepwell("run", path, "out.ipynb", "--json")
    assert {step["status"] for run in first.json["runs"] for step in run["steps"]} == {"executed", "reused"}
    ended = stepwell(
        "run",
        path,
        "out.ipynb",
        "-p",
        "RATE",
        "4",
        "-p",
        "name=b c",
        "-p",
        "fast",
        "true",
        "-p",
        "share",
        "1",
        "-p",
        "days",
        "[2, 3]",
        "-p",
        "start",
        "2026",
    )
    assert ended.code == 0
    assert printed(project) == "[4, 8] b c True 1.0 [2, 3] 2026\n"
    assert "(executed: clean)" in ended.err
    cells = nbformat.read(project / "out.ipynb", 4).cells
    assert cells[1].metadata.tags == ["injected-parameters"]
    assert cells[1].source.splitlines()[:3] == ["# Parameters", "RATE = 4", "name = 'b c'"]
    # The executed copy can be executed again, with other values.
    (project / "out.ipynb").rename(project / "again.ipynb")
    assert stepwell("run", "again.ipynb", "out.ipynb", "-p", "RATE=5").code == 0
    assert printed(project).startswith("[5, 10] a")
    assert (
        sum("injected-parameters" in cell.metadata.get("tags", ()) for cell in nbformat.read(project / "out.ipynb", 4).cells) == 1
    )


def test_a_file_of_parameters_comes_before_those_of_the_line(write, stepwell, project):
    path = write("daily.ipynb", *CELLS)
    (project / "params.yaml").write_text("RATE: 7\nname: d\nstart:\n  day: 1\n")
    assert stepwell("run", "-f", "params.yaml", path, "out.ipynb", "-p", "RATE=8").code == 0
    assert printed(project) == "[8, 16] d False 0.5 [1] {'day': 1}\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-p", "RAT", "4"], 2, ["no parameter 'RAT'", "did you mean RATE?"]),
        (["-p", "RATE", "four"], 2, ["'RATE' must be int (default 3), not 'four'"]),
        (["-p", "fast", "maybe"], 2, ["'fast' must be bool"]),
        (["-p", "days", "{a: 1}"], 2, ["'days' must be list"]),
        (["-p", "days", "[[1"], 2, ["'days' must be list"]),
        (["-p", "start", "2026-01-01"], 2, ["'start' must be a plain value"]),
        (["-p", "RATE"], 2, ["-p RATE is not of the form NAME=VALUE", "-p NAME VALUE"]),
        (["-f", "nowhere.yaml"], 3, ["the file nowhere.yaml does not exist"]),
        (["-f", "list.yaml"], 2, ["does not contain one mapping"]),
        (["-f", "broken.yaml"], 2, ["cannot be read"]),
        (["-f", "wrong.yaml"], 2, ["'name' must be str (default 'a'), not 3"]),
        (["--cwd", "nowhere"], 2, ["does not exist"]),
        (["--cell-timeout", "none"], 2, ["--cell-timeout"]),
        (["--timeout", "0"], 2, ["not a positive number"]),
    ],
)
def test_a_wrong_parameter_is_an_error_before_a_kernel_starts(write, stepwell, project, words, code, said):  # noqa: PLR0917 - fixtures and parameters
    path = write("daily.ipynb", *CELLS, kernel={"name": "none", "display_name": "None", "language": "python"})
    for name, text in {"list.yaml": "[1]", "broken.yaml": "a: [", "wrong.yaml": "name: 3"}.items():
        (project / name).write_text(text)
    ended = stepwell("run", path, *words)
    assert ended.code == code
    assert all(text in ended.err for text in said), ended.err
    assert not (project / ".stepwell").exists()


def test_a_notebook_without_the_tagged_cell_takes_none(write, stepwell):
    ended = stepwell("run", write("daily.ipynb", "1"), "-p", "RATE", "4")
    assert ended.code == 2
    assert "no cell tagged `parameters`" in ended.err


def test_cells_are_logged_and_run_where_the_line_says(write, stepwell, project):
    (project / "elsewhere").mkdir()
    path = write("daily.ipynb", "import os; print(os.path.basename(os.getcwd()))")
    ended = stepwell("run", path, "--log-output", "--cwd", "elsewhere")
    assert ended.code == 0
    assert "elsewhere" in ended.err.splitlines()


@pytest.mark.parametrize("limit", ["--cell-timeout", "--timeout"])
@pytest.mark.parametrize(
    "cell",
    [
        "import time; time.sleep(600)",
        "import time\nfor _ in range(600):\n    try: time.sleep(1)\n    except KeyboardInterrupt: pass",
    ],
    ids=["stops", "goes on"],
)
def test_a_cell_that_takes_too_long_is_interrupted(write, stepwell, project, limit, cell):
    path = write("daily.ipynb", "1", cell, "2")
    ended = stepwell("run", path, "out.ipynb", limit, "8" if limit == "--timeout" else "2", "--json")
    assert ended.code == 1
    assert ended.json["error"]["name"] == "CellTimeoutError"
    assert limit in ended.json["error"]["message"]
    assert nbformat.read(project / "out.ipynb", 4).cells[2].execution_count is None


def test_a_limit_that_ends_before_the_first_cell_fails_the_run(write, stepwell, project):
    path = write("daily.ipynb", "print('never')")
    ended = stepwell("run", path, "out.ipynb", "--timeout", "0.001", "--json")
    assert ended.code == 1
    assert ended.json["status"] == "failure"
    assert ended.json["error"] == {
        "cell": None,
        "name": "CellTimeoutError",
        "message": "the run took longer than 0.001 s (--timeout)",
    }
    assert "the kernel's start failed: CellTimeoutError: the run took longer" in ended.err
    assert nbformat.read(project / "out.ipynb", 4).cells[0].execution_count is None


def test_a_limit_ends_a_start_of_the_kernel_that_never_ends(write, stepwell, kernels):
    name = kernels("slow", [sys.executable, "-c", "import time; time.sleep(600)"], {})
    ended = stepwell("run", write("daily.ipynb", "1"), "--kernel", name, "--timeout", "1", "--json")
    assert ended.code == 1, ended.err
    assert ended.json["error"]["name"] == "CellTimeoutError"


def test_a_parameter_can_be_the_empty_string(write, stepwell, project):
    path = write("empty.ipynb", ("name = 'a'\nother = 'b'\nfree = None", "parameters"), "print([name, other, free])")
    ended = stepwell("run", "-p", "name", "", path, "-p", "other=", "out.ipynb", "-p", "free", "")
    assert ended.code == 0, ended.err
    assert printed(project) == "['', '', '']\n"


def test_values_without_a_literal_and_magics_among_the_defaults_are_taken(write, stepwell, project):
    cells = "%load_ext stepwell\nshare = 0.5\nranks = []", "print(share, ranks)"
    path = write("nan.ipynb", (cells[0], "parameters"), cells[1])
    ended = stepwell("run", path, "out.ipynb", "-p", "share", "nan", "-p", "ranks", "[-.inf, {a: .nan}]")
    assert ended.code == 0, ended.err
    assert printed(project) == "nan [-inf, {'a': nan}]\n"

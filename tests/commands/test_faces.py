"""A verb is the same in every face: Python, the notebook, the command line."""

import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

import stepwell
from stepwell.commands.command import all_commands, parameter_help

HERE = Path(__file__).parent


def test_the_table_of_the_documentation_is_that_of_the_commands():
    spec = importlib.util.spec_from_file_location("verbs", HERE / "verbs.py")
    verbs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(verbs)
    assert verbs.DOCUMENT.read_text(encoding="utf-8") == verbs.text(), "write it again: python tests/commands/verbs.py"


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: command.name)
def test_every_argument_is_explained_once_and_every_function_tells_its_parameters(command):
    assert command.summary.endswith(".")
    told = parameter_help(inspect.getdoc(command.function) or "")
    assert list(told) == list(inspect.signature(command.function).parameters)
    assert all(argument.help for argument in command.arguments)
    if command.name in stepwell.__all__:
        assert getattr(stepwell, command.name) is command.function


CELLS = [
    "%load_ext stepwell",
    "RATE = 3",
    "%%asset raw\nraw = [1, 2, 3]",
    "%%asset clean\nclean = [each * RATE for each in raw]",
    "count = len(clean)",
    "more = count + 1",
    "%materialize clean",
]


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Run the command line in a project with one notebook."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "pyproject.toml").touch()

    def run(*words, code=0, cells=CELLS):
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel}),
            tmp_path / "daily.ipynb",
        )
        done = subprocess.run(
            [sys.executable, "-m", "stepwell.batch", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    return run


def edited(old, new):
    return [cell.replace(old, new) for cell in CELLS]


def test_check_tells_what_would_be_computed_and_runs_nothing(shell):
    out = shell("check", "daily.ipynb", code=1)
    assert out.splitlines() == [
        "raw: missing · never computed",
        "clean: missing · never computed",
        "steps: 2 would be computed, 0 fresh",
    ]
    assert shell("runs") == "no runs yet\n"
    shell("run", "daily.ipynb")
    before = json.loads(shell("runs", "--json"))["runs"]
    assert shell("check", "daily.ipynb") == "fresh: 2 steps, nothing would be computed\n"
    other = edited("RATE = 3", "RATE = 4")
    found = json.loads(shell("check", "daily.ipynb", "--json", code=1, cells=other))
    assert not found["fresh"]
    assert [(step["key"], step["state"]) for step in found["steps"]] == [("raw", "fresh"), ("clean", "stale")]
    assert found["steps"][1]["reasons"][0]["text"] == "RATE: 3 -> 4"
    assert json.loads(shell("runs", "--json"))["runs"] == before


def test_verbs_that_need_definitions_take_the_notebook(shell):
    assert shell("materialize", "clean", "--notebook", "daily.ipynb").startswith("clean: executed")
    assert shell("materialize", "clean", "--notebook", "daily.ipynb").startswith("clean: reused")
    assert shell("load", "clean") == "[3, 6, 9]\n"
    assert shell("why", "clean", "--notebook", "daily.ipynb").startswith("clean: fresh")
    assert shell("why", "clean").startswith("clean: stored by daily.ipynb, not defined here")
    assert shell("inputs", "clean", "--notebook", "daily.ipynb").split() == ["raw", "list", "3", "items"]
    assert "raw   " in shell("status", "--notebook", "daily.ipynb")
    assert shell("lineage", "--notebook", "daily.ipynb").startswith("Lineage: 2 steps")
    assert shell("code", "clean", "--notebook", "daily.ipynb").endswith("clean = [each * RATE for each in raw]\n")
    assert shell("rerun", "clean", "--notebook", "daily.ipynb").startswith("clean: executed")
    assert shell("rename", "clean", "tidy").startswith("clean -> tidy: 2 versions")
    assert shell("logs").endswith("logged nothing\n")


def test_bad_input_is_one_error(shell):
    assert shell("materialize", "clean", code=2) == ""
    assert shell("check", "nowhere.ipynb", code=3) == ""
    assert shell("check", "daily.ipynb", code=1, cells=[*CELLS[:2], "1 / 0", *CELLS[2:]]) == ""
    assert shell("check", "daily.ipynb", code=1, cells=[*CELLS, "unknown_name"]) == ""
    assert shell("why", "unknown", "--notebook", "daily.ipynb", code=2) == ""
    assert shell("materialize", "--forse", code=2) == ""


def test_a_line_of_the_notebook_and_python_give_the_same(tmp_path, monkeypatch, capsys):

    monkeypatch.setenv("STEPWELL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))
    script = f"""
import stepwell
from IPython.testing.globalipapp import start_ipython
shell = start_ipython()
for cell in {CELLS!r}:
    shell.run_cell(cell)
from IPython.utils.capture import capture_output
for verb, words, call in [
    ("versions", "clean", lambda: stepwell.versions("clean")), ("runs", "3", lambda: stepwell.runs(3)), ("logs", "", stepwell.logs),
    ("keep", "clean --versions 2", lambda: stepwell.keep("clean", versions=2)), ("gc", "-n", lambda: stepwell.gc(dry_run=True)),
    ("check", "", stepwell.check), ("forget", "clean", lambda: stepwell.forget("clean")),
]:
    from stepwell.commands.command import find_command
    command = find_command(verb)
    with capture_output() as told:
        shell.run_line_magic("stepwell", verb + " " + words)
    assert told.stdout == command.text(call()) + "\\n", (verb, told.stdout, command.text(call()))
    with capture_output() as told:
        shell.run_line_magic("stepwell", verb + " " + words + " --json")
    assert told.stdout == command.json([call()]) + "\\n", verb
print("same")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("same\n"), done.stdout + done.stderr

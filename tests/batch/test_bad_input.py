"""Each wrong input of the command line: one screen, an exit code of its own, nothing changed."""

from __future__ import annotations

import json

import duckdb
import pytest

from stepwell import open_store
from stepwell.batch.command_line import main

NOT_A_KERNEL = {"name": "fortran-77", "display_name": "Fortran"}


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def inputs(write, project, monkeypatch):
    monkeypatch.chdir(project)
    write("prepare.ipynb", "x = 1")
    write("other.ipynb", "x = 1", kernel=NOT_A_KERNEL)
    write("unnamed.ipynb", "x = 1", kernel=None)
    (project / "broken.ipynb").write_text("{")
    (project / "empty.ipynb").write_text("")
    (project / "future.ipynb").write_text(json.dumps({"nbformat": 9, "nbformat_minor": 0, "metadata": {}, "cells": []}))
    (project / "plain.ipynb").write_text("{}")
    (project / "file").touch()
    return project


@pytest.fixture
def newer(project):
    """A store that a newer Stepwell wrote."""
    open_store(project / "newer").close()
    with duckdb.connect(str(project / "newer/catalog.duckdb")) as connection:
        connection.execute("UPDATE meta SET format = 99")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "prepar.ipynb"], 3, ["NotebookNotFoundError", "prepar.ipynb", "did you mean", "prepare.ipynb"]),
        (["run", "broken.ipynb"], 3, ["NotebookNotFoundError", "not a notebook", "not JSON"]),
        (["run", "other.ipynb"], 4, ["NotebookKernelError", "'fortran-77'", "--kernel", "python3"]),
        (["run", "prepare.ipynb", "prepare.ipynb"], 2, ["NotebookError", "would replace the notebook", "output path"]),
        (["run", "prepare.ipynb", "--store", "file/below"], 5, ["StoreNotWritableError", "file/below"]),
        (["run", "prepare.ipynb", "--colour"], 2, ["unrecognized arguments: --colour", "--help"]),
    ],
)
def test_wrong_input_is_one_screen_and_changes_nothing(inputs, stepwell, arguments, code, said):
    before = tree(inputs)

    ended = stepwell(*arguments)

    refused((ended.code, ended.out, ended.err), code, said)
    assert tree(inputs) == before


def test_a_store_of_a_newer_stepwell_is_left_alone(inputs, newer, stepwell):
    before = tree(inputs)

    ended = stepwell("run", "prepare.ipynb", "--store", "newer")

    refused((ended.code, ended.out, ended.err), 5, ["StoreFormatError", "format 99", "upgrade"])
    assert tree(inputs) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "nowhere/at.ipynb"], 3, ["NotebookNotFoundError", "does not exist"]),
        (["run", "."], 3, ["NotebookNotFoundError", "is a folder", "prepare.ipynb"]),
        (["run", "empty.ipynb"], 3, ["NotebookNotFoundError", "empty"]),
        (["run", "plain.ipynb"], 3, ["NotebookNotFoundError", "nbformat"]),
        (["run", "future.ipynb"], 3, ["NotebookNotFoundError", "format 9", "upgrade"]),
        (["run", "unnamed.ipynb"], 4, ["NotebookKernelError", "names no kernel", "--kernel", "python3"]),
        (["run", "prepare.ipynb", "--kernel", "nope"], 4, ["NotebookKernelError", "'nope'", "python3"]),
        (["run", "prepare.ipynb", "."], 2, ["NotebookError", "would replace the notebook", "output path"]),
        (["run", "prepare.ipynb", "file/below"], 2, ["NotebookError", "cannot be written", "output path"]),
        (["status", "--store", "absent"], 5, ["StoreError", "no store", "absent"]),
        (["run"], 2, ["NOTEBOOK", "--help"]),
        (["runs", "none"], 2, ["'none'", "at least 1"]),
    ],
)
def test_more_wrong_input(inputs, capsys, arguments, code, said):
    before = tree(inputs)

    ended = main(arguments)

    refused((ended, *capsys.readouterr()), code, said)
    assert tree(inputs) == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["other.ipynb"], "NotebookKernelError"),
        (["gone.ipynb"], "NotebookNotFoundError"),
        (["x.ipynb", "--no"], "UsageError"),
    ],
)
@pytest.mark.usefixtures("inputs")
def test_errors_are_json_too(capsys, arguments, name):
    assert main(["run", *arguments, "--json"]) > 1

    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"notebook", "status", "runs", "error"}
    assert (report["status"], report["runs"]) == ("failure", [])
    assert (report["error"]["cell"], report["error"]["name"]) == (None, name)


def refused(ended, code, said):
    ended_code, out, err = ended
    assert ended_code == code, err
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 4
    assert "Traceback" not in err
    for words in said:
        assert words in err

"""Notebooks as files: older formats, where the executed one goes, and what the import costs."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest

from stepwell.batch.notebooks import choose_kernel, output_path, read_notebook
from stepwell.kernel_runtime.errors import NotebookError, NotebookKernelError


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, "runs/report-0a1b.ipynb"),
        ("copy.ipynb", "copy.ipynb"),
        ("folder", "folder/report.ipynb"),
        ("folder/with.dots", "folder/with.dots/report.ipynb"),
        ("is_folder.ipynb", "is_folder.ipynb/report.ipynb"),
    ],
)
def test_an_output_is_a_file_if_it_ends_in_ipynb_else_a_directory(project, write, monkeypatch, asked, expected):
    monkeypatch.chdir(project)
    (project / "is_folder.ipynb").mkdir()
    path = write("report.ipynb")

    assert output_path(path, asked, runs=project / "runs", batch="0a1b") == project / expected


@pytest.mark.parametrize("asked", ["report.ipynb", "../{folder}/report.ipynb", ".", "linked.ipynb", "hard.ipynb"])
def test_the_output_is_never_the_notebook(project, write, monkeypatch, asked):
    monkeypatch.chdir(project)
    path = write("report.ipynb")
    (project / "linked.ipynb").symlink_to(path)
    (project / "hard.ipynb").hardlink_to(path)

    with pytest.raises(NotebookError, match="would replace the notebook"):
        output_path(path, asked.format(folder=project.name), runs=project, batch="0a1b")


def test_cells_of_an_older_notebook_get_ids_that_stay_the_same(project):
    path = project / "old.ipynb"
    cell = {"cell_type": "code", "metadata": {}, "source": "1", "outputs": [], "execution_count": None}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": [cell, cell]}))

    assert [cell.id for cell in read_notebook(path).cells] == ["cell-1", "cell-2"]
    nbformat.validate(read_notebook(path))


def test_a_notebook_of_format_3_is_read(project):
    path = project / "older.ipynb"
    cell = {"cell_type": "code", "language": "python", "metadata": {}, "input": "1", "outputs": [], "collapsed": False}
    path.write_text(
        json.dumps(
            {
                "nbformat": 3,
                "nbformat_minor": 0,
                "metadata": {"name": ""},
                "worksheets": [{"cells": [cell], "metadata": {}}],
            }
        )
    )

    assert [cell.source for cell in read_notebook(path).cells] == ["1"]


def test_a_notebook_that_loads_stepwell_needs_no_kernelspec(project, write):
    path = write("bare.ipynb", "%load_ext stepwell", kernel=None)
    assert choose_kernel(read_notebook(path), path, None) == "python3"

    path = write("unknown.ipynb", "x = 1", kernel=None)
    with pytest.raises(NotebookKernelError, match="names no kernel"):
        choose_kernel(read_notebook(path), path, None)


def test_reading_a_notebook_builds_no_grammar(write):
    path = write("small.ipynb", "1")
    code = (
        "import sys; from pathlib import Path; from stepwell.batch.notebooks import read_notebook\n"
        "read_notebook(Path(sys.argv[1])); assert 'lark' not in sys.modules; assert 'rfc3987_syntax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_command_in_a_notebook_builds_no_grammar(write):
    path = write("small.ipynb", "%load_ext stepwell", "%%asset raw\nraw = 1")
    code = (
        "import sys; from stepwell.batch.command_line import main\n"
        "assert main(['why', 'raw', '--notebook', sys.argv[1]]) == 0\n"
        "assert 'lark' not in sys.modules; assert 'rfc3987_syntax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_help_names_the_exit_codes_and_starts_quickly(stepwell):
    ended = stepwell("run", "--help")

    assert ended.code == 0
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"\n  {code} " in ended.out

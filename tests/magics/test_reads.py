# ruff: noqa: PTH109 - plain strings, as a notebook has them
"""The flag --reads, and what a cell reads without saying so."""

import os
from pathlib import Path

from stepwell.kernel_runtime.errors import InvalidDefinitionError


def statuses(notebook):
    return {step.key: step.status for step in notebook.session.last_run.steps}


def test_declared_files_of_a_cell_are_checked_before_its_value_is_reused(notebook):
    Path("data").mkdir()
    Path("data/a.bin").write_text("1")
    cell = "%%asset --reads data/*.bin --reads settings.toml raw\n1"
    notebook(cell)
    assert notebook.session.registry.assets["raw"].definition.node.reads == ("data/*.bin", "settings.toml")
    notebook(cell)
    assert statuses(notebook) == {"raw": "reused"}
    Path("data/b.bin").write_text("1")
    assert f"the files that match {os.getcwd()}/data/*.bin changed: new b.bin" in notebook("%why raw").text
    notebook(cell)
    assert statuses(notebook) == {"raw": "executed"}
    assert "no path of a file" in notebook.refused("%%asset --reads s3://bucket/key other\n1", InvalidDefinitionError)


def test_a_cell_that_reads_the_environment_and_shows_a_frame(notebook, monkeypatch):
    monkeypatch.setenv("REGION", "north")
    cell = "%%asset region\nimport os, pandas as pd\nregion = pd.DataFrame({'a': [os.environ['REGION']]})\nregion"
    notebook(cell)
    for name in ("COLUMNS", "JPY_PARENT_PID"):
        monkeypatch.setenv(name, "77")
    notebook(cell)
    assert statuses(notebook) == {"region": "reused"}
    monkeypatch.setenv("REGION", "a-certain-south")
    told = notebook("%why region").text
    assert "the environment name REGION changed" in told
    assert "a-certain-south" not in told
    notebook(cell)
    assert statuses(notebook) == {"region": "executed"}

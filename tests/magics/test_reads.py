# ruff: noqa: PTH109 - plain strings, as a notebook has them
"""The flag --reads, and what a cell reads without saying so."""

import os
import re
from pathlib import Path

from stepwell.kernel_runtime.errors import InvalidDefinitionError, NamesReassignedError


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
    assert "not a file path" in notebook.refused("%%asset --reads s3://bucket/key other\n1", InvalidDefinitionError)


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
    assert "the environment variable REGION changed" in told
    assert "a-certain-south" not in told
    notebook(cell)
    assert statuses(notebook) == {"region": "executed"}


def test_what_later_cells_change_is_said_and_counts_where_the_own_cell_runs(notebook):
    Path("rates.csv").write_text("1")
    notebook("n = 1", cell_id="one")
    raw = "%%asset raw\nraw = open('rates.csv').read() + str(n)"
    notebook(raw, cell_id="raw")
    notebook("open('rates.csv', 'w').write('2')", cell_id="later")
    notebook("n = 2", cell_id="last")
    told = notebook("%why raw", cell_id="why").text
    assert "raw: fresh" in told
    assert re.search(r"names reassigned: with n from \[\d+\] \(n = 1\), the state from before \[\d+\]", told)
    assert re.search(r"n is now from \[\d+\] \(n = 2\)", told)
    assert f"{os.getcwd()}/rates.csv changed; run the cell of raw to use the change" in told
    shown = notebook("%%asset doubled\nraw * 2", cell_id="doubled")
    assert "raw: reused, with n from [" in shown.text
    assert shown.result.result == "1111"
    assert notebook("%%asset doubled\nraw * 2", cell_id="doubled").result.result == "1111"
    notebook(raw, cell_id="raw")
    assert notebook.ns["raw"] == "22"


def test_a_step_that_must_run_stops_where_later_cells_changed_its_file(notebook):
    Path("rates.csv").write_text("1")
    helper = "def shape(text):\n    return text{}"
    notebook(helper.format(""), cell_id="helper")
    notebook("%%asset raw\nraw = shape(open('rates.csv').read())", cell_id="raw")
    notebook("open('rates.csv', 'w').write('2')", cell_id="later")
    notebook(helper.format(" + '!'"), cell_id="helper")
    ran = notebook.run("%%asset doubled\nraw * 2", cell_id="doubled")
    assert isinstance(ran.error, NamesReassignedError)
    assert "it was computed with the state from before [" in ran.text
    assert "run the cells that assign or write what the step reads, and then the cell of raw" in ran.text

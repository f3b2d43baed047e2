"""Names that a body reads through strings are inputs, or count by their value."""

import pytest

SETUP = "import pandas as pd, duckdb\ncutoff = 1\nother = 1"
RAW = "%%asset raw\nraw = pd.DataFrame({'a': [1, 2, 3]})"


@pytest.mark.parametrize(
    "body",
    [
        "picked = raw.query('a > @cutoff')",
        "picked = raw.eval('b = a + @cutoff')",
        "picked = pd.eval('raw.a + cutoff')",
        "def pick(frame):\n    return frame.query('a > @cutoff')\npicked = pick(raw)",
    ],
)
def test_a_global_in_a_string_counts(notebook, body):
    notebook(SETUP)
    notebook(RAW)
    notebook(f"%%asset picked\n{body}")
    states = notebook.session.states
    assert states(["picked"])["picked"].state == "fresh"
    notebook("other = 2")
    assert states(["picked"])["picked"].state == "fresh"
    notebook("cutoff = 2")
    assert states(["picked"])["picked"].state == "stale"


@pytest.mark.parametrize("body", ["total = duckdb.sql('select sum(a) as s from raw').df()", "total = pd.eval('raw.a + 1')"])
def test_an_asset_in_a_string_is_an_input(notebook, body):
    notebook(SETUP)
    notebook(RAW)
    notebook(f"%%asset total\n{body}")
    edges = {(edge.source, edge.target) for edge in notebook.session.inspect().lineage().edges}
    assert ("raw", "total") in edges


def test_a_string_of_a_body_that_looks_nothing_up_means_nothing(notebook):
    notebook(SETUP)
    notebook(RAW)
    notebook("%%asset text\ntext = 'from raw @cutoff'")
    assert not notebook.session.inspect().lineage().edges


@pytest.mark.parametrize(
    "body",
    [
        "found = locals().get('FLAG')",
        "def look():\n    return globals().get('FLAG')\nfound = look()",
        "found = eval('FL' + 'AG')",
        "import sys\nfound = sys.modules['__main__'].__dict__.get('FLAG', 1)",
    ],
)
def test_what_looks_names_up_unseen_has_the_plain_cells_value_and_is_unverifiable(notebook, body):
    notebook("FLAG = 1")
    notebook(f"%%asset found\n{body}")
    assert notebook.ns["found"] == 1
    assert notebook.session.states(["found"])["found"].state == "unverifiable"

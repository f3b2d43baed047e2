"""What cannot become a definition is refused with what happened, where, and the remedy; the registry stays as it was."""

import pytest

from stepwell.kernel_runtime.errors import (
    CellError,
    CellNameError,
    CellSyntaxError,
    CellValueError,
    CycleError,
    DuplicateKeyError,
    InvalidDefinitionError,
    MissingUpstreamError,
    UnknownKeyError,
)


@pytest.mark.parametrize(
    ("cell", "kind", "said"),
    [
        ("%%asset clean\nx = 1\ny = 2", CellValueError, "assign clean"),
        ("%%asset clean\n\n   \n", CellError, "empty"),
        ("%%asset clean\n# only a comment", CellError, "empty"),
        ("%%asset clean\nx = 1\nclean = (", CellSyntaxError, "line 3: clean = ("),
        ("%%asset clean\n\n\nclean = 1 +* 2", CellSyntaxError, "line 4: clean = 1 +* 2"),
        ("%%asset clean\nx = 1\nreturn x", CellSyntaxError, "line 3: return x"),
        ("%%asset clean\nif 1:\n    yield 2", CellSyntaxError, "`yield` outside a function"),
        ("%%asset clean\nclass A:\n    return 1", CellSyntaxError, "`return` outside a function"),
        ("%%asset clean\nfrom math import *\nclean = pi", CellSyntaxError, "imports * from math"),
        ("%%asset clean\nx = 1\n%who\nclean = 1", CellSyntaxError, "%who"),
        ("%%asset clean\nif True:\n    %matplotlib inline\nclean = 1", CellSyntaxError, "%matplotlib"),
        ("%%asset clean\nclean = %who_ls", CellSyntaxError, "%who_ls"),
        ("%%asset clean\n%%bash\nls", CellSyntaxError, "%%bash"),
        ("%%asset clean\nlen?\nclean = 1", CellSyntaxError, "asks for help"),
        ("%%asset clean\n%time x = (\nclean = 1", CellSyntaxError, "line 2"),
        ("%%asset clean\nclean = clean.dropna()", CellError, "depend on itself"),
        ("%%asset clean\nclean += 1", CellError, "depend on itself"),
        ("%%asset 1st\n1", CellError, "'1st' cannot be the name"),
        ("%%asset class\n1", CellError, "'class' cannot be the name"),
        ("%%asset a-b\n1", CellError, "'a-b' cannot be the name"),
        ("%%asset größe\n1", CellError, "cannot be the name"),
        ("%%asset report.transform\n1", CellError, "name of a step"),
        ("%%asset raw/1st\n1", CellError, "'1st' cannot be the name"),
        ("%%asset input\n1", CellError, "reserved"),
        ("%%asset clean --in flights\nclean = 1", CellError, "--in NAME=KEY"),
        ("%%multi_asset train test\ntrain = 1", CellValueError, "never assigns 'test'"),
        ("%%multi_asset train train\ntrain = 1", CellError, "the asset 'train' twice"),
        ("%%op f(x) -> y\nz = x", CellValueError, "never assigns 'y'"),
        ("%%op f(x)\nz = x", CellValueError, "has no value"),
        ("%%op f(x, *args)\nx", CellSyntaxError, "parameters with * or **"),
        ("%%op f(x\nx", CellSyntaxError, "is not a signature"),
        ("%%op f(x) -> 1\nx", CellSyntaxError, "is not a signature"),
        ("%%op f(context, x)\nx", CellError, "only functions get a context"),
        ("%%op f(x, *, k=undefined)\nx", CellError, "undefined cannot be evaluated"),
        ("%%op f(x)\nx + base", CellError, "reads the asset base"),
        ("%%op type(x)\nx", InvalidDefinitionError, "reserved"),
        ("%%graph_asset report\nx = 1\nif x:\n    pass", CellValueError, "has no value"),
        ("%%graph_asset report\n3", InvalidDefinitionError, "not the result of a call"),
        ("%%graph_asset report\ndouble(base) + 1", TypeError, "unsupported operand"),
        ("%%graph_asset report\ndouble(3)", InvalidDefinitionError, "an input gets the result of another call"),
        ("%%graph_asset report\nawait double(base)", CellError, "contains await"),
        ("%%graph tidy(data, *, k=1)\ndouble(data)", CellError, "a graph has only inputs"),
        ("%%graph tidy(data)\ndouble(base)", InvalidDefinitionError, "the input 'data' is not used"),
        ("%%job mail(x)\ndouble(base)", CellSyntaxError, "a job has only a name"),
        ("%%job base\ndouble(base)", InvalidDefinitionError, "already the name of an asset"),
        ("%%sql_asset daily\nselect * from nowhere", CellNameError, "'nowhere', which is not an asset"),
        ("%%sql_asset daily\nselect * from plain", CellNameError, "make the variable plain an asset"),
        ("%%sql_asset daily\nselect * from base where x > $limit", CellNameError, "$limit"),
        ("%%sql_asset daily\ndelete from base", CellSyntaxError, "not a SELECT statement"),
        ("%%sql_asset daily\nselect 1; select 2", CellSyntaxError, "2 statements"),
        ("%%sql_asset daily\nselec 1", CellSyntaxError, "cannot parse"),
        ("%%sql_asset daily\nselect * from daily", CellError, "depend on itself"),
        ("%%sql_asset daily\n  ", CellError, "empty"),
        ("%%asset late\nbase + 1", None, ""),
        ("%%asset late --in x=nothing\nlate = 1", MissingUpstreamError, "nothing"),
        ("%materialize bse", UnknownKeyError, "base"),
        ("%rerun bse.x", UnknownKeyError, "base"),
        ("%why bse", UnknownKeyError, "did you mean base"),
        ("%stepwell load bse", Exception, "base"),
        ("%stepwell logs 123", UnknownKeyError, "123"),
        ("%stepwell code bse", UnknownKeyError, "base"),
    ],
)
def test_bad_cells(notebook, cell, kind, said):
    notebook("%%asset -q base\n1")
    notebook("%%op double(x)\nx * 2")
    notebook("plain = 1")
    if kind is None:
        notebook(cell)
    elif kind is TypeError:
        ran = notebook.run(cell)
        assert isinstance(ran.error, kind)
        assert said in ran.text
        assert "report" not in notebook.session.registry.assets
    else:
        assert said in notebook.refused(cell, kind)


def test_a_cycle_is_refused_and_the_registry_stays(notebook):
    notebook("%%asset -r a\na = 1")
    notebook("%%asset -r b\nb = a + 1")
    assert "a" in notebook.refused("%%asset a\na = b + 1", CycleError)
    assert notebook("%%asset b\nb = a + 1").result.success
    assert notebook.session.load("b") == 2


def test_two_assets_that_share_a_name_need_to_be_told_apart(notebook):
    notebook("%%asset raw/flights\n[1]")
    notebook("%%asset old/flights\n[2]")
    text = notebook.refused("%%asset clean\nflights[0]", CellError)
    assert "old/flights, raw/flights" in text
    assert "--in flights=old/flights" in text
    notebook("%%asset clean --in flights=raw/flights\nflights[0]")
    assert notebook.session.load("clean") == 1


def test_another_cell_with_the_same_key_wins_with_a_line_that_names_both(notebook):
    notebook("%%asset a\n1", cell_id="one")
    first = notebook.shell.execution_count - 1
    ran = notebook("%%asset a\n2", cell_id="two")
    assert f"a is defined in cell {first} and cell {first + 1}" in ran.text
    assert notebook.session.load("a") == 2


def test_in_batch_another_cell_with_the_same_key_is_an_error(notebook, monkeypatch):
    notebook("%%asset a\n1", cell_id="one")
    monkeypatch.setenv("STEPWELL_BATCH", "x")
    assert "two cells define the asset key a" in notebook.refused("%%asset a\n2", DuplicateKeyError)
    notebook("%%asset a\n3", cell_id="one")


def test_a_cell_that_is_run_again_withdraws_what_it_no_longer_defines(notebook):
    notebook("%%asset a\n1", cell_id="one")
    assert notebook.ns["a"] == 1
    notebook("%%asset b\n2", cell_id="one")
    assert set(notebook.session.registry.assets) == {"b"}
    assert "a" not in notebook.ns


def test_a_cell_that_fails_withdraws_nothing(notebook):
    notebook("%%asset a\n1", cell_id="one")
    notebook.run("%%asset b\nb = (", cell_id="one")
    assert set(notebook.session.registry.assets) == {"a"}


@pytest.mark.parametrize(
    "cell",
    [
        "%%asset clean --bogus\n1",
        "%%asset\n1",
        "%%asset -h\n1",
        "%%op --help\n1",
        "%%op\n1",
        "%stepwell",
        "%stepwell frobnicate",
        "%stepwell load",
        "%asset -h",
        "%op f(x)",
    ],
)
def test_a_bad_line_is_a_usage_error_of_one_line(notebook, cell):
    ran = notebook.run(cell)
    assert ran.error is not None
    assert "UsageError" in ran.text
    assert len([line for line in ran.lines if line.strip()]) <= 2, ran.text


def test_what_an_asset_cell_binds_inside_is_there_for_later_cells(notebook):
    notebook("%%asset clean\nimport math as mm\ntmp = 2\nclean = mm.sqrt(4)")
    notebook("%%asset other\nmm.floor(clean) + tmp")
    assert notebook.ns["other"] == 4


def test_a_name_that_the_text_does_not_show_is_found_and_counts(notebook):
    notebook("import pandas as pd\nhidden = 5\nframe = pd.DataFrame({'a': [1, 9]})", cell_id="one")
    cell = "%%asset clean\nclean = len(frame.query('a > @hid' + 'den'))"
    notebook(cell, cell_id="two")
    assert notebook.ns["clean"] == 1
    notebook("hidden = 0", cell_id="three")
    notebook(cell, cell_id="two")
    assert notebook.ns["clean"] == 2


def test_a_plain_name_error_keeps_its_traceback(notebook):
    ran = notebook.run("%%asset clean\nx = 1\nclean = nowhere_at_all + x")
    assert type(ran.error) is NameError
    assert "line 3" in ran.text
    assert "----> 3 clean = nowhere_at_all + x" in ran.text


@pytest.mark.parametrize("magic", ["%%graph_asset report", "%%graph report()", "%%job report"])
def test_an_error_while_composing_shows_the_cells_own_frames(notebook, magic):
    ran = notebook.run(f"{magic}\nx = 1\nundefined_op(x)")
    assert isinstance(ran.error, NameError)
    assert "----> 3 undefined_op(x)" in ran.text
    assert "stepwell/" not in ran.text


def test_two_parameters_of_one_name_are_refused(notebook):
    notebook.refused("%%op join(a, a)\na", CellSyntaxError)

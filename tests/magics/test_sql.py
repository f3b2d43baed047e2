"""``%stepwell sql``, and what ``%%sql_asset`` can read."""

import os

import pandas as pd

from stepwell.kernel_runtime.errors import CellError, CellNameError, CellSyntaxError, QueryError


def test_a_line_and_a_cell_give_rows_with_the_notebooks_variables(notebook):
    notebook("import pandas as pd\nlow, o = 30, 'SFO'")
    notebook("%%asset clean\npd.DataFrame({'origin': ['JFK', 'SFO'], 'delay': [5, 40]})")
    notebook("found = %stepwell sql SELECT origin FROM clean WHERE delay > $low AND origin <> 'it''s {low}'")
    assert notebook.ns["found"]["origin"].tolist() == ["SFO"]
    ran = notebook("%%stepwell sql\nSELECT delay\nFROM clean -- $nothing\nWHERE origin = $o;")
    assert ran.result.result["delay"].tolist() == [40]
    assert isinstance(notebook("%stepwell sql FROM stepwell.runs").result.result, pd.DataFrame)
    notebook("%config Stepwell.frame = 'pyarrow'")
    assert type(notebook("%stepwell sql FROM clean").result.result).__module__.startswith("pyarrow")
    notebook("%config Stepwell.frame = 'auto'")
    assert list(notebook.session.registry.assets) == ["clean"]


def test_wrong_lines_are_refused_on_one_screen(notebook):
    notebook("%%asset clean\n[{'x': 1}]")
    for cell, kind, says in (
        ("%stepwell sql FROM claen", QueryError, "did you mean clean?"),
        ("%stepwell sql FROM clean WHERE x > $low", CellNameError, "$low"),
        ("%stepwell sql DROP TABLE clean", CellSyntaxError, "not a SELECT statement"),
        ("%stepwell sql SELECT nope FROM clean", QueryError, "^^^^"),
    ):
        assert says in notebook.refused(cell, kind)
    assert "needs a SELECT" in notebook.run("%stepwell sql").text
    assert "only the command sql uses the rest of the cell (%%stepwell sql)" in notebook.run("%%stepwell runs\nx").text
    notebook("place = 'elsewhere'")
    assert "elsewhere" in notebook("%stepwell store $place").text


def test_an_asset_of_a_select_reads_keys_with_prefixes_and_files(notebook, tmp_path):
    notebook("%config Stepwell.frame = 'pandas'")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "rates.csv").write_text("n,rate\n1,10\n2,20\n")
    notebook("%%asset raw/flights\n[{'n': 1}]")
    notebook("%%sql_asset daily\nSELECT n, rate FROM raw.flights JOIN 'rates.csv' USING (n)")
    assert notebook.ns["daily"]["rate"].tolist() == [10]
    notebook('%%sql_asset capitals\nSELECT count(*) AS c FROM "RAW/Flights"')
    assert notebook.ns["capitals"]["c"].tolist() == [1]
    os.utime(tmp_path / "rates.csv")
    cell = "%%sql_asset daily\nSELECT n, rate FROM raw.flights JOIN 'rates.csv' USING (n)"
    assert "reused" in notebook(cell).lines[-1]
    (tmp_path / "rates.csv").write_text("n,rate\n1,11\n")
    assert "executed" in notebook(cell).text
    assert notebook.ns["daily"]["rate"].tolist() == [11]
    told = notebook.run("%%sql_asset wrong\nSELECT nope\nFROM raw.flights")
    assert isinstance(told.error, CellError)
    assert "the SQL asset 'wrong' could not be computed: the SELECT failed" in told.text
    assert "LINE 1: SELECT nope" in told.text
    assert "cell " in told.text
    assert "reads the catalog" in notebook.refused("%%sql_asset wrong\nFROM stepwell.runs", CellError)
    assert "did you mean raw/flights?" in notebook.refused("%%sql_asset wrong\nFROM raw.flight", CellNameError)


def test_an_asset_that_asks_with_sql_brings_what_it_asks_for_up_to_date(notebook):
    notebook("import stepwell\nbase = 1")
    notebook("%%asset clean\n[{'x': base}]")
    cell = "%%asset total\nint(stepwell.sql('SELECT sum(x) AS s FROM clean')['s'][0])"
    notebook(cell)
    assert notebook.ns["total"] == 1
    notebook("base = 5")
    notebook(cell)
    assert notebook.ns["total"] == 5
    assert "reused" in notebook(cell).lines[-1]

"""The flags --ignore, --max-age and --volatile."""

from stepwell.kernel_runtime.errors import InvalidDefinitionError


def statuses(notebook):
    return {step.key: step.status for step in notebook.session.last_run.steps}


def test_ignored_names_do_not_make_an_asset_stale(notebook):
    notebook("import sqlite3\nsession, TOKEN, LIMIT = sqlite3.connect(':memory:'), 'a', 1")
    cell = "%%asset --ignore session,TOKEN raw\nraw = (session.execute('select 1').fetchall(), TOKEN, LIMIT)"
    notebook(cell)
    notebook("TOKEN = 'b'\nsession = sqlite3.connect(':memory:')")
    notebook(cell)
    assert statuses(notebook) == {"raw": "reused"}
    notebook("LIMIT = 2")
    notebook(cell)
    assert statuses(notebook) == {"raw": "executed"}


def test_a_volatile_cell_runs_every_time(notebook):
    for _ in range(2):
        notebook("%%asset --volatile raw\n1")
        assert statuses(notebook) == {"raw": "executed"}
    ran = notebook("%%asset clean\nraw")
    assert ran.lines[0].startswith("clean: first raw (")
    assert "volatile: runs every time" in ran.lines[0]
    notebook("%%asset clean\nraw")
    assert statuses(notebook) == {"raw": "executed", "clean": "reused"}


def test_a_greatest_age_is_given_and_checked(notebook):
    notebook("%%asset --max-age 1d raw\n1")
    assert notebook.session.registry.assets["raw"].definition.node.max_age == 86_400
    text = notebook.refused("%%asset --max-age soon other\n1", InvalidDefinitionError)
    assert "'soon' is no age" in text
    notebook("%%sql_asset --max-age 2h daily\nSELECT 1 AS one")
    assert notebook.session.registry.assets["daily"].definition.node.max_age == 7200


def test_a_cell_that_changes_a_variable_says_so_and_the_next_one_is_keyed_anew(notebook):
    notebook("SEEN = []\ndef remember(value):\n    SEEN.append(value)\n    return value")
    notebook("%%asset -r raw\nremember(1)")
    ran = notebook("%%asset count\n(raw, len(SEEN))")
    assert notebook.ns["count"] == (1, 1)
    assert "raw changed the global SEEN: steps that read it are keyed anew" in ran.text
    notebook("SEEN.clear()")
    notebook("%%asset count\n(raw, len(SEEN))")
    assert notebook.ns["count"] == (1, 0)


def test_an_opaque_client_lets_an_asset_be_reused(notebook):
    notebook("import sqlite3, stepwell\nsession = stepwell.opaque(sqlite3.connect(':memory:'), version='test')")
    for status in ("executed", "reused"):
        notebook("%%asset raw\nsession.execute('select 1').fetchall()")
        assert statuses(notebook) == {"raw": status}
    notebook("session = stepwell.opaque(sqlite3.connect(':memory:'), version='production')")
    notebook("%%asset raw\nsession.execute('select 1').fetchall()")
    assert statuses(notebook) == {"raw": "executed"}

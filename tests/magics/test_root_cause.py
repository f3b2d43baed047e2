"""``%why`` follows a cause to its origin, and says why a step ran last."""

import json

import pytest

import stepwell


@pytest.fixture
def chain(notebook):
    """The chain clean -> rep.f -> rep.g -> final."""
    notebook("LIMIT = 3")
    notebook("def cut(rows):\n    return rows[:LIMIT]")
    notebook("%%asset clean\ncut([1, 2, 3, 4, 5])")
    notebook("%%op f(rows)\nrows")
    notebook("%%op g(rows)\n[row * 2 for row in rows]")
    notebook("%%graph_asset rep\ng(f(clean))")
    notebook("%%asset final\nsum(rep)")
    return notebook


STEPS = "three steps up: clean -> rep.f -> rep.g"


def last_run(notebook, key):
    (step,) = json.loads(notebook(f"%why {key} --json").text)["steps"]
    return step["last_run"]


def test_a_cause_is_followed_through_what_may_change(chain):
    ran = chain("LIMIT = 4")
    number = ran.result.execution_count
    told = chain("%why final").lines
    assert told[0] == f"final: may change, because LIMIT 3 -> 4 in cell {number}, {STEPS}"
    (reason,) = stepwell.why("final").as_dict()["reasons"]
    (origin,) = reason["origins"]
    assert (reason["kind"], reason["path"]) == ("upstream", "rep.g")
    assert (origin["text"], origin["path"], origin["place"]) == (
        "LIMIT: 3 -> 4",
        "clean -> cut -> LIMIT",
        f"cell {number}",
    )
    assert origin["chain"] == ["clean", "rep.f", "rep.g"]
    # The step in which it lies names it itself.
    assert "LIMIT: 3 -> 4  (clean -> cut -> LIMIT" in chain("%why clean").text
    assert "two steps up: clean -> rep.f" in chain("%why rep.g").text


def test_an_edited_helper_is_shown_with_its_lines_from_afar(chain):
    chain("def cut(rows):\n    return rows[-LIMIT:]")
    told = chain("%why final").text
    assert "because cut() changed (cell " in told.splitlines()[0]
    assert "-    return rows[:LIMIT]" in told
    assert "+    return rows[-LIMIT:]" in told


def test_a_cause_is_followed_through_a_failure(chain):
    chain("def cut(rows):\n    raise ValueError('no rows')")
    chain.run("%materialize final")
    first = chain("%why final").lines[0]
    assert first.startswith("final: may change, because clean failed (ValueError: no rows), after cut() changed (cell ")
    assert first.endswith(STEPS)
    told = chain("%why clean").text
    assert told.startswith("clean: failed\n  ValueError: no rows")
    assert "cut() changed (cell " in told


def test_a_cause_is_followed_through_what_has_run_already(chain):
    chain("LIMIT = 4")
    chain("%materialize clean")
    first = chain("%why final").lines[0]
    assert first.startswith("final: may change, because LIMIT 3 -> 4 in cell ")
    assert first.endswith(STEPS)
    chain("%materialize rep")
    told = chain("%why final").lines
    assert told[0].startswith("final: stale, because LIMIT 3 -> 4 in cell ")
    assert told[0].endswith(STEPS)
    assert told[1] == "  the value of rep changed  (rep)" or told[1] == "  the value of rep changed"


def test_after_a_run_it_says_why_the_run_ran(chain):
    chain("LIMIT = 4")
    chain("%materialize final")
    told = chain("%why final").lines
    assert told[0].startswith("final: fresh")
    assert "because LIMIT 3 -> 4 in cell " in told[1]
    assert told[1].endswith(STEPS)
    # A run that reused it changes nothing of that; an unchanged value ends the chain.
    chain("%materialize final")
    assert "because LIMIT 3 -> 4" in chain("%why final").text
    chain("def cut(rows):\n    return list(rows[:LIMIT])")
    chain("%materialize final")
    assert "because cut() changed" in chain("%why clean").text
    assert "because LIMIT 3 -> 4" in chain("%why final").text


def test_the_run_before_is_what_was_current_not_what_was_made_before(notebook):
    notebook("n = 1")
    for value in (1, 2, 1, 3):
        notebook(f"n = {value}")
        notebook("%%asset a\nn")
    assert "because n 1 -> 3" in notebook("%why a").text


def test_why_a_step_ran_although_nothing_in_it_changed(notebook, tmp_path):
    file = tmp_path / "numbers.txt"
    file.write_text("1 2")
    notebook(f"%%asset numbers\nopen({str(file)!r}).read().split()")
    assert last_run(notebook, "numbers")["reasons"][0]["text"] == "no result was stored before this run"
    file.write_text("1 2 3")
    notebook("%materialize numbers")
    assert last_run(notebook, "numbers")["reasons"][0]["text"] == f"{file} changed"
    notebook("%materialize -f numbers")
    assert last_run(notebook, "numbers")["reasons"][0]["text"] == "it was forced"
    notebook("%%asset size\nlen(numbers)")
    file.write_text("1 2 3 4")
    notebook("%materialize size")
    assert f"because {file} changed, one step up: numbers" in notebook("%why size").text
    notebook("import threading\nlock = threading.Lock()")
    for _ in range(2):
        notebook("%%asset --volatile tick\n1")
        notebook("%%asset locked\nwith lock:\n    value = 1\nvalue")
    assert last_run(notebook, "tick")["reasons"][0]["text"] == "volatile: the step runs in every run"
    assert "locked -> lock has no digest" in last_run(notebook, "locked")["reasons"][0]["text"]


def test_a_step_that_changes_what_it_reads_does_not_run_again_for_that(notebook):
    notebook("class Model:\n    fits = 0\nmodel = Model()")
    cell = "%%asset fitted\nmodel.fits += 1\nmodel.fits"
    notebook(cell)
    assert "reused" in notebook(cell).text
    assert notebook.ns["model"].fits == notebook.ns["fitted"] == 1
    notebook("model.fits = 5")
    assert "model.fits" in notebook("%why fitted").text
    assert "executed" in notebook(cell).text
    assert notebook.ns["fitted"] == 6


def test_definitions_with_equal_code_are_told_apart_by_their_keys(notebook):
    notebook("K = 1\ndef helper(value):\n    return value + K")
    for key in ("x1", "x2", "x3"):
        notebook(f"%%asset {key}\n# the cell of {key}\nhelper(1)")
    notebook("K = 2")
    number = notebook.shell.execution_count - 1
    for key in ("x1", "x2", "x3"):
        assert notebook(f"%why {key}").lines == [f"{key}: stale", f"  K: 1 -> 2  ({key} -> helper -> K, cell {number})"]
    notebook("%materialize x3")
    assert notebook("%why x3").lines[1].endswith(f"because K 1 -> 2 in cell {number}")
    notebook("K = 1")
    notebook("%%asset -r x2\n# the cell of x2\nhelper(2)")
    told = notebook("%why x2").text
    assert "-helper(1)" in told
    assert "+helper(2)" in told
    assert "x1" not in told
    assert "x3" not in told


def test_many_reuses_later_it_still_says_why_the_step_ran(notebook):
    for value in (1, 2):
        notebook(f"n = {value}")
        notebook("%%asset a\nn")
    notebook("import stepwell\nfor _ in range(60):\n    stepwell.materialize('a')")
    assert "because n 1 -> 2" in notebook("%why a").text


def test_the_runs_of_another_notebook_are_its_own(notebook):
    notebook("n = 1")
    notebook("%%asset a\nn")
    notebook("n = 2")
    notebook("%%asset a\nn")
    told = notebook("%why a").text
    notebook("import subprocess, sys\nname = str(__import__('stepwell').get_session().store.directory)")
    notebook(
        "subprocess.run([sys.executable, '-c', 'import stepwell\\n@stepwell.asset\\ndef a():\\n    return 7\\n"
        'a.notebook = "other.ipynb"\\nstepwell.materialize([a], store=__import__("sys").argv[1])\', name], check=True)'
    )
    assert notebook("%why a").text == told


def test_what_is_reached_by_another_path_is_no_cause_of_its_own(notebook):
    notebook("K, TABLE = 1, [1, 2]")
    notebook("def g(v):\n    return v + K + TABLE[0]\ndef h(v):\n    return g(v) + K + TABLE[0]")
    notebook("%%asset a\ng(1) + h(1)")
    notebook("def g(v):\n    return v")
    assert [reason["text"].split(" (")[0] for reason in stepwell.why("a").as_dict()["reasons"]] == ["g() changed"]


def test_an_asset_that_another_kind_of_definition_computes_now(notebook):
    notebook("%%asset report\n1")
    notebook("%%op give()\n1")
    notebook("%%graph_asset -r report\ngive()")
    assert "the value is now computed by report.give, no longer by report" in notebook("%why report").text


def test_a_cause_is_named_once_by_the_shortest_way(notebook):
    notebook("rate = 1\ndef helper():\n    return rate")
    notebook("%%multi_asset left right\nleft = rate\nright = helper()")
    notebook("%%asset long\nleft + 1")
    notebook("%%asset last\n(right, long)")
    number = notebook("rate = 2").result.execution_count
    told = notebook("%why last").lines
    assert told[0] == f"last: may change, because rate 1 -> 2 in cell {number}, one step up: left_right"
    notebook("%materialize last")
    assert notebook("%why last").lines[1].endswith(f", because rate 1 -> 2 in cell {number}, one step up: left_right")
    notebook("%stepwell forget left --yes")
    assert notebook("%why right").lines[1] == "  left is no longer stored"
    assert "because left is no longer stored, " in notebook("%why last").lines[0]


def test_a_step_of_a_job(notebook):
    notebook("%%op send()\n1")
    notebook("%%job mail\nsend()")
    notebook("mail.execute()")
    told = notebook("%why mail.send").lines
    assert told[0].startswith("mail.send: a step of a job, which runs whenever its job does")
    assert "a job runs all of its steps" in told[1]


def test_a_key_that_only_the_store_has(notebook):
    notebook("n = 1")
    for value in (1, 2):
        notebook(f"n = {value}")
        notebook("%%asset raw\nn", cell_id="one")
    notebook("1", cell_id="one")
    told = notebook("%why raw").text
    assert told.startswith("raw: stored by ")
    assert "because n 1 -> 2 in cell " in told
    assert json.loads(notebook("%why raw --json").text)["state"] == "stored"
    notebook("import stepwell")
    notebook("found = stepwell.why('raw')")
    assert (notebook.ns["found"].state, str(notebook.ns["found"])) == ("stored", told.rstrip())


def test_a_secret_is_not_shown_by_any_link_of_the_chain(notebook):
    notebook("API_TOKEN = 'hunter2-one'\nclass C:\n    pass\nclient = C()\nclient.password = 'hunter2-two'")
    notebook("%%asset raw\n(len(API_TOKEN), client.password and 1)")
    notebook("%%asset final\nraw")
    notebook("API_TOKEN = 'hunter2-three-'\nclient.password = 'hunter2-four'")
    told = notebook("%why final").text + notebook("%why final --json").text + notebook("%why raw").text
    notebook("%materialize final")
    told += notebook("%why final").text + notebook("%why raw --json").text
    assert "API_TOKEN changed" in told
    assert "client.password changed" in told
    assert "hunter2" not in told

"""The line that ends a plain cell which made assets stale."""

import sys
import threading

import pytest


@pytest.fixture
def three(notebook):
    notebook("def parse(rows):\n    return [row + 1 for row in rows]\ncutoff = 1")
    notebook("%%asset raw\n[1, 2, 3]")
    notebook("%%asset clean\nparse(raw)")
    notebook("%%asset model\n[row for row in clean if row > cutoff]")
    return notebook


def test_an_edited_helper_names_what_it_makes_stale_once(three):
    assert three("def parse(rows):\n    return [row + 2 for row in rows]").lines == ["stale now: clean, model"]
    assert three("x = 1").lines == []
    assert three("def parse(rows):\n    return [row + 3 for row in rows]").lines == []


def test_what_was_brought_up_to_date_is_named_again(three):
    three("cutoff = 2")
    three("%materialize model")
    assert three("cutoff = 3").lines == ["stale now: model"]


def test_an_edit_that_is_taken_back_is_said_again_when_it_is_made_again(three):
    assert three("cutoff = 2").lines == ["stale now: model"]
    assert three("cutoff = 1").lines == []
    assert three("cutoff = 2").lines == ["stale now: model"]


def test_a_loaded_machine_makes_no_difference(three):
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            pass

    # The interpreter's lock is with the others most of the time, so that a look takes many times as long by the clock.
    threads = [threading.Thread(target=busy) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.02)
    for thread in threads:
        thread.start()
    try:
        for value in (2, 1, 2):
            three(f"cutoff = {value}")
        told = [three(f"cutoff = {value}").lines for value in (1, 2)]
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join()
    assert told == [[], ["stale now: model"]]


def test_a_look_that_takes_long_is_reported_once_before_others_are_left_out(three, monkeypatch):
    monkeypatch.setattr("stepwell.magics.extension._NOTICED", 1.0)
    cells = ["table = [[{row}] for row in range(40_000)]", "%%asset -r count\nlen(table)", *["table.append([[1]])"] * 3]
    reports = [line for cell in cells for line in three(cell).lines if "check for stale assets" in line]
    assert len(reports) == 1
    assert "show_stale = False" in reports[0]


def test_cosmetic_edits_and_other_names_say_nothing(three):
    assert three("def parse(rows):\n    '''Add one.'''\n    # so\n    return [row + 1 for row in rows]").lines == []
    assert three("another = 3").lines == []


def test_asset_cells_do_not_say_it(three):
    text = three("%%asset -r clean\nparse(raw) + [1]").text
    assert "stale now" not in text
    assert three("x = 1").lines == []


def test_a_definition_in_a_plain_cell_says_it(notebook):
    notebook("from stepwell import asset\n@asset\ndef one():\n    return 1", "a")
    notebook("%materialize one")
    assert notebook("@asset\ndef one():\n    return 2", "a").lines == ["stale now: one"]


def test_a_graph_backed_asset_is_named_by_its_key(notebook):
    notebook("rate = 1\n")
    notebook("%%op fetch() -> out\nout = rate")
    notebook("%%op keep(value) -> out\nout = value")
    notebook("%%graph_asset report\nkeep(fetch())")
    assert notebook("rate = 2").lines == ["stale now: report"]


def test_it_can_be_turned_off_and_is_off_in_batch(three, monkeypatch):
    three("%config Stepwell.show_stale = False")
    assert three("cutoff = 2").lines == []
    three("%config Stepwell.show_stale = True")
    monkeypatch.setenv("STEPWELL_BATCH", "1")
    assert three("cutoff = 3").lines == []


def test_an_error_of_the_cell_is_not_hidden(three):
    ran = three.run("cutoff = 2\n1 / 0")
    assert isinstance(ran.error, ZeroDivisionError)
    assert "stale now: model" in ran.text


def test_it_is_quick_for_a_hundred_assets(notebook):
    notebook(
        "def helper(value):\n    return value\nfrom stepwell import asset\n"
        + "".join(f"@asset\ndef a{i}():\n    return helper({i})\n" for i in range(100))
    )
    notebook("%materialize")
    pause = "The check for stale assets used"
    paused = pause in notebook("x = 1").text
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(event) if event == "call" else None)
    try:
        notebook.session.inspect().plan()
    finally:
        sys.setprofile(None)
    # Counted, because time depends on what else the machine does.
    assert len(calls) < 30 * 100
    # On a slow machine, a check can use too much processor time; then the next check is postponed.
    lines = notebook("def helper(value):\n    return value + 1").lines
    assert paused or any(line.startswith("stale now: a0, a1, ") for line in lines if not line.startswith(pause))


def test_the_line_for_a_changed_variable(three):
    three("raw = [7]")
    assert "with your raw from [" in three("%%asset clean\nparse(raw)").text
    three("raw")
    three("%stepwell load raw")
    three("raw.append(9)")
    assert "with your raw from [" in three("%%asset clean\nparse(raw)").text


def test_a_body_that_used_the_network_says_so_once(notebook):
    notebook("import socket, threading\nserver = socket.create_server(('127.0.0.1', 0))\nport = server.getsockname()[1]")
    cell = "%%asset {flags} {name}\nimport socket\nsocket.create_connection(('127.0.0.1', {port})).close()\n{value}"
    port = notebook.ns["port"]
    text = notebook(cell.format(flags="", name="raw", port=port, value=1)).text
    assert "raw used 127.0.0.1: changes there are not detected; add --max-age 1d to refresh daily" in text
    assert "are not detected" not in notebook(cell.format(flags="", name="raw", port=port, value=2)).text
    assert "are not detected" not in notebook(cell.format(flags="--max-age 1d", name="other", port=port, value=1)).text
    assert "are not detected" not in notebook(cell.format(flags="--volatile", name="third", port=port, value=1)).text
    notebook("server.close()")


def test_seeding_is_a_setting(notebook):
    notebook("import random")
    values = []
    for _ in range(2):
        notebook("%%asset -f raw\nrandom.random()")
        values.append(notebook.ns["raw"])
    assert values[0] == values[1]
    notebook("%config Stepwell.seed_steps = False")
    notebook("%%asset -f raw\nrandom.random()")
    assert notebook.ns["raw"] != values[0]
    notebook("%config Stepwell.seed_steps = True")


def test_why_accepts_revokes_and_gives_json(three):
    import json

    three("cutoff = 2")
    found = json.loads(three("%why model --json").text)
    assert (found["state"], found["reasons"][0]["path"]) == ("stale", "model -> cutoff")
    assert "accepted on" in three("%why model --accept").text
    assert "reused" in three("%%asset model\n[row for row in clean if row > cutoff]").text
    assert "model: stale" in three("%why model --revoke").text


def test_what_reads_a_variable_made_from_an_asset_may_change_with_it(notebook):
    notebook("k = 1")
    notebook("%%asset rows\n[k, 2, 3]")
    notebook("some = rows[:2]")
    notebook("more = [*some, 4]")
    notebook("%%asset total\nsum(more)")
    notebook("%%asset twice\ntotal * 2")
    notebook("%%asset other\n1")
    assert {state.state for state in notebook.session.states().values()} == {"fresh"}
    notebook("k = 5")
    states = notebook.session.states()
    assert [states[key].state for key in ("rows", "total", "twice", "other")] == [
        "stale",
        "may change",
        "may change",
        "fresh",
    ]
    assert states["total"].reasons[0].text == "the variable more was computed from rows, which is stale"
    notebook("%materialize rows")
    assert notebook.session.states()["total"].state == "fresh"  # of the variable as it is


def test_the_lineage_shows_which_asset_left_a_variable(notebook):
    notebook("%%asset model\nrows = [1, 2]\ntest = rows[1:]\nlen(rows)")
    notebook("%%asset score\nsum(test)")
    notebook("plain = list(rows)")
    notebook("%%asset last\nscore + len(plain)")
    edges = {(edge.source, edge.target) for edge in notebook.session.inspect().lineage().edges}
    assert edges == {("model", "score"), ("score", "last")}


def test_a_step_that_depends_on_an_effect_that_a_reuse_would_have_may_change(notebook, tmp_path):
    cells = [
        "%%asset{} step\nconfig['lr'] = 5\nn_rows = 3\nwith open('out.txt', 'w') as file:\n    file.write('x')\nstep = 1",
        "%%asset{} model\nmodel = config['lr'] * 2 + step",
        "%%asset{} rows\nrows = open('out.txt').read()",
        "%%asset{} count\ncount = n_rows + 1",
        "%%asset{} free\nfree = 1",
    ]
    notebook("config = {'lr': 1}")
    for cell in cells:
        notebook(cell.format(""))

    def states():
        lines = notebook("%stepwell status").lines
        return {line.split()[0]: line for line in lines if " · " in line and not line.startswith("store")}

    assert all("fresh" in line for line in states().values())
    # As in a new kernel, where plain cells have run and asset cells are only registered.
    notebook.session.attach(None)
    notebook.session.attach(notebook.shell.user_ns)
    notebook("config = {'lr': 1}\ndel n_rows, step, model, rows, count, free")
    (tmp_path / "out.txt").unlink()
    for cell in cells:
        notebook(cell.format(" -r"))
    found = states()
    assert "fresh" in found["step"]
    assert "fresh" in found["free"]
    assert "may change · the reuse of step would first change config" in found["model"]
    assert "may change · the reuse of step would first change out.txt" in found["rows"]
    assert "would run model (may change; the reuse of step would first change config" in notebook(cells[1].format(" -n")).text
    assert not (tmp_path / "out.txt").exists()
    assert notebook.ns["config"] == {"lr": 1}
    # Where they are reused, the states that were announced as possible turn out to be none.
    notebook(cells[0].format(""))
    assert all("fresh" in line for line in states().values())

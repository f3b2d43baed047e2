"""An edit that does not matter can be accepted, on the record, and taken back."""

import json
import sqlite3

import pytest

import stepwell
from stepwell import AssetOut, asset, graph_asset, multi_asset, op
from stepwell.kernel_runtime.errors import InvariantViolationError, ValueUnavailableError
from stepwell.kernel_runtime.session import Session, get_session
from stepwell.kernel_runtime.session.explanation import explain

STYLE = "plain"


def shown(value):
    return value, len(STYLE)


@asset
def clean():
    return shown(1)


@asset
def model(clean):
    return clean, "model"


@pytest.fixture
def session(tmp_path):
    session = get_session()
    session.use(tmp_path / "store")
    yield session
    session.close()


def run(*targets):
    return {step.key: step.status for step in stepwell.materialize(list(targets)).steps}


def why(key):
    return stepwell.why(key, definitions=[clean, model])


def test_an_accepted_edit_is_fresh_and_so_is_what_follows(session, monkeypatch):
    run(clean, model)
    value = stepwell.load("clean")
    monkeypatch.setitem(globals(), "STYLE", "bold")
    assert why("clean").state == "stale"
    found = stepwell.why("clean", accept=True, definitions=[clean, model])
    assert found.state == "fresh"
    assert "accepted on 2" in str(found)
    assert "STYLE: 'plain' -> 'bold'" in str(found)
    assert run(clean, model) == {"clean": "reused", "model": "reused"}
    assert stepwell.load("clean") == value
    # Another edit is another question, and the old code finds its own result.
    monkeypatch.setitem(globals(), "STYLE", "narrow")
    assert why("clean").state == "stale"
    assert "STYLE: 'bold' -> 'narrow'" in str(why("clean"))
    monkeypatch.setitem(globals(), "STYLE", "plain")
    assert why("clean").state == "fresh"


def test_it_holds_in_a_fresh_process_and_is_on_the_record(session, monkeypatch):
    run(clean)
    monkeypatch.setitem(globals(), "STYLE", "bold")
    stepwell.why("clean", accept=True, definitions=[clean])
    directory = session.store.directory
    session.close()
    session = Session()
    session.use(directory)
    assert explain(session, "clean", definitions=[clean]).state == "fresh"
    newest = session.store.history("clean")[0]
    assert newest.metadata["stepwell:accepted"]["causes"] == ["STYLE: 'plain' -> 'bold'"]
    record = session.store.run(newest.run_id)
    assert record[1][0].reason.startswith("accepted: ")


def test_it_can_be_taken_back(session, monkeypatch):
    run(clean)
    first = session.current("clean").id
    monkeypatch.setitem(globals(), "STYLE", "bold")
    stepwell.why("clean", accept=True, definitions=[clean])
    assert session.current("clean").id != first
    found = stepwell.why("clean", revoke=True, definitions=[clean])
    assert found.state == "stale"
    assert session.current("clean").id == first
    with pytest.raises(InvariantViolationError, match="no edit of 'clean' was accepted"):
        stepwell.why("clean", revoke=True, definitions=[clean])
    assert stepwell.why("clean", accept=True, definitions=[clean]).state == "fresh"
    stepwell.why("clean", revoke=True, definitions=[clean])
    assert run(clean) == {"clean": "executed"}
    assert why("clean").state == "fresh"


def test_the_steps_of_a_graph_are_accepted_one_after_the_other(session, monkeypatch):
    @op
    def fetch():
        return shown(2)

    @op
    def keep(rows):
        return rows, STYLE

    @graph_asset
    def whole():
        return keep(fetch())

    run(whole)
    monkeypatch.setitem(globals(), "STYLE", "heavy")
    assert stepwell.why("whole", accept=True, definitions=[whole]).state == "fresh"
    assert run(whole) == {"whole.fetch": "reused", "whole.keep": "reused"}
    assert stepwell.why("whole", revoke=True, definitions=[whole]).state == "stale"


def test_every_output_of_a_multi_asset_is_accepted(session, monkeypatch):
    @multi_asset(outs={"left": AssetOut(), "right": AssetOut()})
    def both():
        return shown(1), 2

    run(both)
    monkeypatch.setitem(globals(), "STYLE", "heavy")
    stepwell.why("left", accept=True, definitions=[both])
    assert run(both) == {"both": "reused"}


def test_a_changed_file_can_be_accepted(session, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1\n")

    @asset
    def rows():
        return path.read_text()

    run(rows)
    path.write_text("1\n2\n")
    assert stepwell.why("rows", accept=True, definitions=[rows]).state == "fresh"
    assert run(rows) == {"rows": "reused"}
    path.write_text("1\n2\n3\n")
    assert run(rows) == {"rows": "executed"}


CONN = sqlite3.connect(":memory:")


def test_what_cannot_be_digested_can_be_accepted_but_not_what_comes_later(session, monkeypatch):
    @asset
    def rows():
        return CONN.execute("select 1").fetchall(), STYLE

    run(rows)
    assert stepwell.why("rows", definitions=[rows]).state == "unverifiable"
    assert stepwell.why("rows", accept=True, definitions=[rows]).state == "fresh"
    assert run(rows) == {"rows": "reused"}
    monkeypatch.setitem(globals(), "STYLE", sqlite3.connect(":memory:"))
    assert stepwell.why("rows", definitions=[rows]).state == "unverifiable"


def test_what_cannot_be_accepted_says_why(session, monkeypatch):
    with pytest.raises(ValueUnavailableError, match="no value is stored"):
        stepwell.why("clean", accept=True, definitions=[clean])
    run(clean, model)
    assert stepwell.why("model", accept=True, definitions=[clean, model]).state == "fresh"
    monkeypatch.setitem(globals(), "STYLE", "bold")
    with pytest.raises(InvariantViolationError, match="upstream steps first"):
        stepwell.why("model", accept=True, definitions=[clean, model])

    @asset(volatile=True)
    def now():
        return 1

    run(now)
    with pytest.raises(InvariantViolationError, match="runs in every run"):
        stepwell.why("now", accept=True, definitions=[now])


API_TOKEN = "zq-1"


def test_a_changed_secret_is_named_with_the_two_remedies(session, monkeypatch):
    @asset
    def rows():
        return len(API_TOKEN)

    run(rows)
    monkeypatch.setitem(globals(), "API_TOKEN", "zq-2")
    found = stepwell.why("rows", definitions=[rows])
    (reason,) = found.steps[0].reasons
    assert reason.text == "API_TOKEN changed"
    assert "--ignore API_TOKEN" in reason.detail
    assert "stepwell.secret(" in reason.detail
    assert "zq-" not in str(found) + str(found.as_dict())


def test_the_explanation_is_data_too(session, monkeypatch):
    run(clean, model)
    monkeypatch.setitem(globals(), "STYLE", "bold")
    found = json.loads(json.dumps(why("clean").as_dict()))
    assert (found["key"], found["state"]) == ("clean", "stale")
    (reason,) = found["reasons"]
    assert (reason["kind"], reason["text"], reason["path"]) == (
        "global",
        "STYLE: 'plain' -> 'bold'",
        "clean -> shown -> STYLE",
    )
    assert why("model").as_dict()["reasons"][0]["kind"] == "upstream"

"""Graphs follow the ops that they are made of: an edit of an op's cell reaches what is composed of it."""

import pytest

FETCH = "%%op fetch(data)\nfetch = sorted(data)"
HEAD = "%%op head(data, *, top=2)\ndata[:top]"


@pytest.fixture
def ready(notebook):
    notebook("%%asset base\n[3, 1, 2]")
    notebook(FETCH)
    notebook(HEAD)
    return notebook


def statuses(notebook):
    return {step.key: step.status for step in notebook.session.last_run.steps}


def test_an_edited_op_makes_its_step_stale_and_runs_as_edited(ready):
    ready("%%graph_asset report\nhead(fetch(base))")
    assert ready.ns["report"] == [1, 2]
    ready(FETCH)
    assert "fresh" in ready("%why report").text
    ready("%%op head(data, *, top=2)\ndata[-top:]")
    assert "report.head: stale" in ready("%why report").text
    ready("%rerun report.head")
    assert ready.ns["report"] == [2, 3]
    assert statuses(ready) == {"report.head": "executed"}
    ready("%materialize report")
    assert statuses(ready) == {"base": "reused", "report.fetch": "reused", "report.head": "reused"}


def test_a_changed_constant_is_config_of_the_step(ready):
    ready("TOP = 1")
    ready("%%graph_asset report\nhead(fetch(base), top=TOP)")
    assert ready.ns["report"] == [1]
    ready("TOP = 3")
    ready("%materialize report")
    assert ready.ns["report"] == [1, 2, 3]
    assert statuses(ready) == {"base": "reused", "report.fetch": "reused", "report.head": "executed"}


def test_graphs_inside_graphs_and_jobs_follow(ready):
    ready("%%graph inner(data)\nhead(fetch(data))")
    ready("%%graph outer(data)\ninner(data)")
    ready("%%graph_asset report\nouter(base)")
    ready("seen = []")
    ready("%%op mail(data)\nseen.append(('old', data))\nmail = None")
    ready("%%job send\nmail(inner(report))")
    ready("%%op head(data, *, top=2)\ndata[-top:]")
    ready("%%op mail(data)\nseen.append(('new', data))\nmail = None")
    ready("%materialize report")
    assert ready.ns["report"] == [2, 3]
    ready("send.execute()")
    assert ready.ns["seen"] == [("new", [2, 3])]


def test_decorated_graphs_of_plain_cells_follow(ready):
    ready("from stepwell import op, graph, graph_asset, job")
    ready("@op\ndef double(x):\n    return x * 2")
    ready("@graph\ndef inner(x):\n    return double(x)")
    ready("@graph_asset\ndef doubled(base):\n    return inner(base)")
    ready("%materialize doubled")
    assert ready.ns["doubled"].load() == [3, 1, 2, 3, 1, 2]
    ready("@op\ndef double(x):\n    return x * 3")
    ready("%materialize doubled")
    assert ready.ns["doubled"].load() == [3, 1, 2] * 3


def test_what_cannot_be_composed_again_says_so(ready):
    ready("%%graph_asset report\nhead(fetch(base), top=1)")
    ran = ready("%%op head(data, *, first=2)\ndata[:first]")
    assert "the graph report could not be composed again" in ran.text
    assert "run its cell again" in ran.text
    assert "could not be composed again" not in ready("1").text


def test_a_followed_definition_is_still_its_cells(ready):
    ready("%%graph_asset report\nhead(fetch(base))", cell_id="r")
    ready("%%op head(data, *, top=2)\ndata[-top:]")
    assert "defined in" not in ready("%%graph_asset report\nhead(fetch(base))", cell_id="r").text
    ready("%%op head(data, *, top=2)\ndata[:1]")
    ready("pass", cell_id="r")
    assert "report" not in ready.session.registry.assets

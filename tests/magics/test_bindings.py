"""The variables that are bound to assets."""

import gc
import weakref


def test_a_name_follows_its_asset(notebook):
    notebook("%%asset raw\n[1]")
    notebook("%%asset clean\nraw + [0]")
    notebook("%%asset -r raw\n[2]")
    notebook("%materialize clean")
    assert notebook.ns["clean"] == [2, 0]
    assert notebook.ns["raw"] == [2]


def test_a_name_follows_its_asset_when_python_materializes(notebook):
    notebook("import stepwell")
    notebook("%%asset raw\n[1]")
    notebook("%%asset -r raw\n[2]")
    notebook("stepwell.materialize(['raw'])\nseen = raw")
    assert notebook.ns["seen"] == [2]


def test_a_variable_that_the_user_changed_is_left_alone_and_said(notebook):
    notebook("%%asset raw\n[1]")
    notebook("raw = 'mine'")
    ran = notebook("%%asset clean\nraw + [0]")
    assert "uses the stored asset raw, not your changed variable" in ran.text
    assert notebook.ns["clean"] == [1, 0]
    notebook("%%asset -r raw\n[2]")
    notebook("%materialize clean")
    assert notebook.ns["raw"] == "mine"
    notebook("del raw")
    assert "changed variable" not in notebook("%%asset -f clean\nraw + [0]").text


def test_an_unchanged_variable_says_nothing(notebook):
    notebook("%%asset raw\n[1]")
    assert "changed variable" not in notebook("%%asset clean\nraw + [0]").text


def test_withdrawing_an_asset_removes_our_binding_only(notebook):
    notebook("%%asset raw\n[1]", cell_id="one")
    notebook("%%asset kept\n[1]", cell_id="two")
    notebook("kept = 'mine'")
    notebook("1", cell_id="one")
    notebook("1", cell_id="two")
    assert "raw" not in notebook.ns
    assert notebook.ns["kept"] == "mine"


def test_del_frees_a_bound_value(notebook):
    notebook("import pandas as pd")
    notebook("%%asset frame\npd.DataFrame({'x': [1]});")
    ref = weakref.ref(notebook.ns["frame"])
    notebook("del frame")
    gc.collect()
    assert ref() is None


def test_what_takes_no_weak_reference_is_dropped_after_the_cell_that_unbinds_it(notebook):
    class Probe:
        pass

    notebook("%%asset items\n[1];")
    probe = Probe()
    ref = weakref.ref(probe)
    notebook.ns["items"].append(probe)
    del probe
    notebook("del items")
    gc.collect()
    assert ref() is None


def test_running_the_cell_again_gives_the_stored_value_also_where_the_variable_was_changed(notebook):
    notebook("%%asset raw\n[1]")
    notebook("raw.append(2)")
    assert "reused" in notebook("%%asset raw\n[1]").text
    assert notebook.ns["raw"] == [1]


def test_a_variable_that_was_changed_in_place_is_said(notebook):
    notebook("%%asset raw\n[1]")
    notebook("raw.append(2)")
    ran = notebook("%%asset clean\nraw + [0]")
    assert "uses the stored asset raw, not your changed variable" in ran.text
    assert notebook.ns["clean"] == [1, 0]


def test_with_a_decorator_the_name_is_the_definition(notebook):
    notebook("import stepwell\n@stepwell.asset\ndef raw():\n    return [1]")
    notebook("%materialize raw")
    assert notebook.ns["raw"].load() == [1]
    ran = notebook("%%asset clean\nraw + [2]")
    assert "changed variable" not in ran.text
    assert notebook.ns["clean"] == [1, 2]
    notebook("%%asset raw\n[5]")
    assert notebook.ns["raw"] == [5]


def test_no_consumer_sees_what_another_changed(notebook):
    notebook("%%asset raw\n[1]")
    notebook("raw.append(2)")
    notebook("%%asset clean\nraw.append(3)\nclean = raw")
    assert notebook.ns["clean"] == [1, 3]
    assert notebook.session.load("raw") == [1]


def test_a_stored_step_is_not_bound_over_its_op(notebook):
    notebook("%%op fetch()\n[1]")
    notebook("%%op head(data)\ndata[0]")
    notebook("%%graph_asset report\nhead(fetch())")
    notebook("%stepwell load report.fetch")
    assert notebook.ns["report_fetch"] == [1]
    assert type(notebook.ns["fetch"]).__name__ == "OpDefinition"

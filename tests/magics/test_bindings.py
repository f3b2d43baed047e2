"""The variables that are bound to assets."""

import contextlib
import gc
import os
import signal
import sys
import time
import weakref

import stepwell
from stepwell.kernel_runtime.execution.addresses import Inventory
from stepwell.kernel_runtime.session import Session


def test_a_name_follows_its_asset(notebook):
    notebook("%%asset raw\n[1]")
    notebook("%%asset clean\nraw + [0]")
    notebook("%%asset -r raw\n[2]")
    notebook("%materialize clean")
    assert notebook.ns["clean"] == [2, 0]
    assert notebook.ns["raw"] == [2]


def test_all_names_of_an_asset_follow_it(notebook):
    notebook("%%asset src\n[1]")
    timeline, first = notebook.session.timeline, notebook.session.current("src")
    notebook("%%asset src\n[2]")
    second = notebook.session.current("src")
    # The value of another run is there, and one name of the asset is bound to it before the other.
    timeline.bind("v1", "src", first, [1])
    timeline.materialized(second)
    timeline.bind("v2", "src", second, [2])
    notebook("seen = v1, v2")
    assert notebook.ns["seen"] == ([2], [2])


def test_a_variable_is_bound_to_the_value_of_its_materialization(notebook):
    items = []
    for value in (1, 2, 3):
        notebook(f"%%asset src\n[{value}]")
        items.append(notebook.session.current("src"))
    timeline = notebook.session.timeline
    timeline.bind("v1", "src", items[0], [1])
    timeline.materialized(items[2])
    timeline.bind("v2", "src", items[1], [2])
    timeline.refresh()
    values = {item.id: value for item, value in zip(items, ([1], [2], [3]), strict=True)}
    for name in ("v1", "v2", "src"):
        assert notebook.ns[name] == values[timeline.asset_of(name).materialization]


def test_a_name_follows_its_asset_when_python_materializes(notebook):
    notebook("import stepwell")
    notebook("%%asset raw\n[1]")
    notebook("%%asset -r raw\n[2]")
    notebook("stepwell.materialize(['raw'])\nseen = raw")
    assert notebook.ns["seen"] == [2]


def test_a_variable_that_the_user_bound_again_is_read_and_said(notebook):
    notebook("%%asset raw\n[1]", cell_id="raw")
    notebook("raw = [7]", cell_id="mine")
    ran = notebook("%%asset clean\nraw + [0]", cell_id="clean")
    assert "with your raw from [" in ran.text
    assert "(raw = [7])" in ran.text
    assert notebook.ns["clean"] == [7, 0]
    notebook("%%asset -r raw\n[2]", cell_id="raw")
    notebook("%materialize raw")
    assert notebook.ns["raw"] == [7]
    notebook("del raw", cell_id="gone")
    assert "with your raw" not in notebook("%%asset -f clean\nraw + [0]", cell_id="clean").text
    assert notebook.ns["clean"] == [2, 0]


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


def test_a_variable_that_was_changed_in_place_is_read_and_said(notebook):
    notebook("%%asset raw\n[1]")
    notebook("raw.append(2)")
    ran = notebook("%%asset clean\nraw + [0]")
    assert "with your raw from [" in ran.text
    assert notebook.ns["clean"] == [1, 2, 0]
    assert notebook.session.load("raw") == [1]


def test_with_a_decorator_the_name_is_the_definition(notebook):
    notebook("import stepwell\n@stepwell.asset\ndef raw():\n    return [1]")
    notebook("%materialize raw")
    assert notebook.ns["raw"].load() == [1]
    ran = notebook("%%asset clean\nraw + [2]")
    assert "changed variable" not in ran.text
    assert notebook.ns["clean"] == [1, 2]
    notebook("%%asset raw\n[5]")
    assert notebook.ns["raw"] == [5]


def test_a_cell_that_changes_its_input_changes_the_variable_and_never_the_stored_asset(notebook):
    notebook("%%asset raw\n[1]")
    notebook("raw.append(2)")
    notebook("%%asset clean\nraw.append(3)\nclean = raw")
    assert notebook.ns["clean"] == [1, 2, 3]
    assert notebook.ns["raw"] is notebook.ns["clean"]
    assert notebook.session.load("raw") == [1]


def test_a_stored_step_is_not_bound_over_its_op(notebook):
    notebook("%%op fetch()\n[1]")
    notebook("%%op head(data)\ndata[0]")
    notebook("%%graph_asset report\nhead(fetch())")
    notebook("%stepwell load report.fetch")
    assert notebook.ns["report_fetch"] == [1]
    assert type(notebook.ns["fetch"]).__name__ == "OpDefinition"


def test_a_loaded_asset_is_an_input_of_the_cells_that_read_it(notebook, tmp_path):
    notebook("import stepwell")
    notebook("@stepwell.asset\ndef raw():\n    return [1]", cell_id="one")
    notebook("%%asset -k other raw\n[5]", cell_id="two")
    notebook("%materialize")
    notebook("1", cell_id="one")
    notebook("1", cell_id="two")
    # Nothing here defines them; the store has both.
    notebook("%stepwell load other/raw")
    assert "other/raw <- store" in notebook("%%asset size\nlen(raw)").text
    edges = {(edge.source, edge.target) for edge in notebook.session.inspect().lineage().edges}
    assert ("other/raw", "size") in edges
    notebook("%%sql_asset listed\nSELECT 1 AS one")
    # Of two assets of one name the variable is the value of the one that was loaded.
    notebook("@stepwell.asset\ndef raw():\n    return [1, 2]")
    assert "loaded as raw_" not in notebook("%stepwell load other/raw").text
    assert type(notebook.ns["raw"]).__name__ == "AssetsDefinition"
    notebook("%%asset total\nsum(raw_)")
    assert notebook.ns["total"] == 5
    notebook("raw_ = [7]")
    assert "other/raw" not in notebook("%%asset total\nsum(raw_)").text
    assert notebook.ns["total"] == 7


def test_the_inputs_of_a_step_are_bound_over_no_code_and_no_other_asset(notebook):
    notebook("%%asset raw\n[1]")
    notebook("%%asset top\n'a value'")
    notebook("%%op fetch(data)\ndata + [2]")
    notebook("%%op render(fetch, raw, history, *, top=2)\nfetch + raw + history")
    notebook("%%graph_asset report\nrender(fetch(raw), raw, raw)")
    for _ in range(2):
        told = notebook("%stepwell inputs report.render").text
        assert "bound fetch_ (fetch is an op), raw, history_ (history is a magic), top_ (top is the asset top)" in told
    assert type(notebook.ns["fetch"]).__name__ == "OpDefinition"
    assert "could not be composed again" not in told
    assert (notebook.ns["fetch_"], notebook.ns["raw"], notebook.ns["top_"]) == ([1, 2], [1], 2)
    assert notebook.ns["top"] == "a value"
    assert "report: reused" in notebook("%%graph_asset report\nrender(fetch(raw), raw, raw)").text
    # What it binds to an asset's value is that asset's.
    assert "changed variable" not in notebook("%%asset size\nlen(raw)").text
    notebook("%%asset also\nlen(history_)")
    assert ("raw", "also") in {(edge.source, edge.target) for edge in notebook.session.inspect().lineage().edges}


def test_the_inputs_of_a_step_leave_functions_assets_graphs_and_jobs_alone(notebook):
    notebook("import stepwell, math as pd\ndef helper():\n    return 1\nclass Model:\n    pass")
    notebook("@stepwell.asset\ndef decorated():\n    return 3")
    notebook("%%op give()\n1")
    notebook("%%op give_()\n1")
    notebook("%%graph whole()\ngive()")
    notebook("%%job mail\ngive()")
    names = ("helper", "Model", "pd", "decorated", "give", "whole", "mail")
    before = {name: notebook.ns[name] for name in names}
    notebook(f"%%op every({', '.join(names)})\n1")
    notebook(f"%%graph_asset report\nx = give()\nreport = every({', '.join(['x'] * len(names))})")
    told = notebook("%stepwell inputs report.every").text
    assert {name: notebook.ns[name] for name in names} == before
    assert "give__ (give is an op)" in told
    for name, kind in (("helper", "a function"), ("Model", "a class"), ("whole", "a graph"), ("mail", "a job")):
        assert f"{name}_ ({name} is {kind})" in told
    assert "decorated_ (decorated is an asset definition)" in told


@contextlib.contextmanager
def interrupted_before_a_body():
    """Send Ctrl-C when the notebook's objects are listed before the next body."""

    def interrupt(frame, event, _):
        if event == "call" and frame.f_code is Inventory.__init__.__code__:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(interrupt)
    try:
        yield
    finally:
        sys.setprofile(None)


def stored(store, value):
    """Store `value` as the asset ``raw``, like another notebook with the same store."""

    @stepwell.asset
    def raw():
        return value

    session = Session()
    session.materialize([raw], store=store)
    session.close()


def test_an_input_that_another_notebook_computes_stays_an_input(notebook):
    store = notebook.session.open().directory
    stored(store, [1, 2, 3])
    cell = "%%asset total\ntotal = sum(raw)"
    notebook(cell)
    assert (notebook.ns["total"], notebook.ns["raw"]) == (6, [1, 2, 3])
    assert "total: reused" in notebook(cell).text
    assert notebook("%why total").text.startswith("total: fresh")
    stored(store, [100, 200])
    notebook(cell)
    assert (notebook.ns["total"], notebook.ns["raw"]) == (300, [100, 200])


def test_a_helper_reads_the_present_value_of_an_input_that_another_notebook_computes(notebook):
    store = notebook.session.open().directory
    stored(store, [1, 2, 3])
    notebook("def helper():\n    return sum(raw)")
    notebook("%%asset size\nsize = len(raw)")
    cell = "%%asset total\ntotal = helper()"
    notebook(cell)
    assert notebook.ns["total"] == 6
    stored(store, [10])
    notebook(cell)
    assert (notebook.ns["total"], notebook.ns["raw"]) == (10, [10])
    assert "total: reused" in notebook(cell).text


def test_an_interrupted_cell_still_reads_the_newest_value(notebook):
    store = notebook.session.open().directory
    stored(store, [1, 2, 3])
    cell = "%%asset total\ntotal = sum(raw)"
    notebook(cell)
    stored(store, [100, 200])
    with interrupted_before_a_body():
        assert isinstance(notebook.run(cell).error, KeyboardInterrupt)
    assert notebook.ns["raw"] == [1, 2, 3]
    notebook(cell)
    assert (notebook.ns["total"], notebook.ns["raw"]) == (300, [100, 200])


def test_an_input_is_one_again_after_its_variable_was_deleted(notebook):
    notebook("%%asset a\na = [1, 2, 3]")
    notebook("del a")
    cell = "%%asset c\nc = len(a)"
    notebook(cell)
    again = notebook(cell).text
    assert "reused" in again
    assert "del a" not in again
    notebook("%%asset a\na = [1, 2, 3, 4]")
    notebook(cell)
    assert notebook.ns["c"] == 4


def test_an_interrupt_before_the_body_leaves_the_variables(notebook):
    notebook("%%asset a\na = [1, 2, 3]\nsize = 3")
    notebook("x = 'precious'\nbig = [[0]]\ndel a")

    with interrupted_before_a_body():
        ran = notebook.run("%%asset b --in x=a\nb = sum(x) + len(big)")
    assert isinstance(ran.error, KeyboardInterrupt)
    assert (notebook.ns["x"], "b" in notebook.ns) == ("precious", False)
    notebook("%%asset b --in x=a\nb = sum(x) + len(big)")
    assert (notebook.ns["x"], notebook.ns["b"]) == ("precious", 7)


class Slow:
    """A value whose storing waits for an interrupt. The class notes that no interrupt has ended the wait."""

    has_waited = False

    def __init__(self, wait):
        self.wait = wait

    def __reduce__(self):
        if self.wait:
            self.wait = False
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
            Slow.has_waited = True
        return Slow, (False,)


def test_an_interrupt_ends_the_storing_of_a_variable(notebook):
    notebook.ns["Slow"] = Slow
    ran = notebook.run("%%asset a\nother = Slow(True)\na = 1")
    assert isinstance(ran.error, KeyboardInterrupt)
    assert not Slow.has_waited
    assert (notebook.ns["a"], notebook.ns["other"].wait) == (1, False)
    assert "a: executed" in notebook("%%asset a\nother = Slow(False)\na = 2").text

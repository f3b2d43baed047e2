"""Loading, unloading, help, completion, settings."""

import pytest

from stepwell.magics.extension import cell_origin

MAGICS = [
    "asset",
    "multi_asset",
    "sql_asset",
    "op",
    "graph_asset",
    "graph",
    "job",
    "materialize",
    "rerun",
    "why",
    "stepwell",
    "lineage",
]


def parts(shell):
    tables = shell.magics_manager.magics
    for name in MAGICS:
        shell.find_line_magic(name)
    shell.find_line_magic("load_ext")  # IPython loads its own magics when they are first used
    return (
        {kind: {name: repr(magic) for name, magic in table.items()} for kind, table in tables.items()},
        list(shell.Completer.custom_matchers),
        {event: list(callbacks) for event, callbacks in shell.events.callbacks.items()},
        list(shell.configurables),
        dict(vars(shell.display_pub)),
        set(shell.magics_manager.registry),
    )


def test_unloading_leaves_the_shell_as_it_was(bare):
    before = parts(bare.shell)
    bare("%load_ext stepwell")
    for name in MAGICS:
        assert name in bare.shell.magics_manager.magics["line"]
    bare("%%asset clean\n1")
    bare("%unload_ext stepwell")
    after = parts(bare.shell)
    for one, other in zip(before[:4], after[:4], strict=True):
        assert one == other
    assert set(before[4]) == set(after[4])
    assert before[5] == after[5]
    assert bare.ns["clean"] == 1


def test_loading_says_where_the_store_is_and_twice_is_once(bare):
    ran = bare("%load_ext stepwell")
    assert ran.lines == [f"stepwell: store {bare.session.store.directory}"]
    loaded = parts(bare.shell)
    bare("import stepwell\nstepwell.load_ipython_extension(get_ipython())")
    assert parts(bare.shell)[1:] == loaded[1:]
    bare("%reload_ext stepwell")
    assert [len(each) for each in parts(bare.shell)] == [len(each) for each in loaded]
    bare("%%asset clean\n1")
    assert bare.ns["clean"] == 1
    bare("%unload_ext stepwell")


@pytest.mark.parametrize("magic", MAGICS)
def test_help_explains_each_magic(notebook, magic):
    found = notebook.shell.object_inspect_text(f"%{magic}")
    assert len(found) > 80
    if magic in ("asset", "multi_asset"):
        for flag in ("-r", "-n", "-f", "-q", "-g", "-k", "-d", "--in", "--no-cache", "--plain"):
            assert flag in found


def test_rerun_of_the_history_stays_ipythons(notebook):
    own = type(notebook.shell.magics_manager.registry["HistoryMagics"])
    assert own.rerun is not type(notebook.shell.magics_manager.registry["Stepwell"]).rerun
    notebook("count = [1]")
    ran = notebook("%rerun 999999")
    assert "No lines in history" in ran.text
    notebook.shell.run_line_magic("unload_ext", "stepwell")
    assert notebook.shell.magics_manager.magics["line"]["rerun"].__func__ is own.rerun
    notebook("%load_ext stepwell")


def complete(notebook, text):
    line = text.splitlines()[-1] if text else ""
    return notebook.shell.complete(line, line, len(line))[1]


def test_flags_and_keys_complete(notebook):
    notebook("%%asset -g daily raw/flights\n1")
    notebook("%%asset clean\n1")
    notebook("%%op fetch(data)\ndata")
    notebook("%%graph_asset report\nfetch(clean)")
    notebook("%%job mail\nfetch(clean)")
    assert {"--plain", "--no-cache", "--in", "--key-prefix"} <= set(complete(notebook, "%%asset --"))
    assert complete(notebook, "%%asset --no-c") == ["--no-cache"]
    assert complete(notebook, "%materialize --f") == ["--force"]
    assert complete(notebook, "%materialize cl") == ["clean"]
    assert complete(notebook, "%materialize raw/") == ["raw/flights"]
    assert set(complete(notebook, "%rerun rep")) == {"report", "report.fetch"} or complete(notebook, "%rerun rep") == [
        "report.fetch"
    ]
    assert complete(notebook, "%rerun mail.") == ["mail.fetch"]
    assert "report.fetch" in complete(notebook, "%why report.")
    assert complete(notebook, "%%asset x -d cl") == ["clean"]
    assert complete(notebook, "%%asset x -g da") == ["daily"]
    assert "raw/flights" in complete(notebook, "%%asset x --in flights=raw/")
    assert complete(notebook, "%stepwell sta") == ["status"]
    assert complete(notebook, "%stepwell load cl") == ["clean"]
    notebook("somewhere = 1")
    assert "somewhere" in complete(notebook, "some")


def test_settings_are_traits(notebook):
    shown = notebook("%config Stepwell").text
    for name in ("upstream_budget", "lines", "frame"):
        assert f"Stepwell.{name}" in shown


def test_a_decorator_in_a_plain_cell_registers_and_is_withdrawn_with_its_cell(notebook):
    notebook("import stepwell")
    notebook("@stepwell.asset\ndef raw():\n    return 1", cell_id="one")
    assert "raw" in notebook.session.registry.assets
    notebook("pass", cell_id="one")
    assert "raw" not in notebook.session.registry.assets


def test_a_cell_is_its_id_and_without_one_its_first_line_or_its_text():
    class Info:
        def __init__(self, raw_cell, cell_id=None):
            self.raw_cell, self.cell_id = raw_cell, cell_id

    assert cell_origin(Info("a", "x")) == cell_origin(Info("b", "x"))
    assert cell_origin(Info("%%asset a\n1")) == cell_origin(Info("%%asset a\n2"))
    assert cell_origin(Info("%%asset a\n1")) != cell_origin(Info("%%asset b\n1"))
    assert cell_origin(Info("%%asset a -k raw\n1")) != cell_origin(Info("%%asset a -k other\n1"))
    assert cell_origin(Info("%%asset a -g raw\n1")) == cell_origin(Info("%%asset a -g other\n1"))
    assert cell_origin(Info("%%asset -r a\n1")) != cell_origin(Info("%%asset -r b\n1"))
    assert cell_origin(Info("x = 1")) != cell_origin(Info("x = 2"))


def test_a_cell_that_runs_another_cell_keeps_its_own_definitions(notebook):
    notebook("import stepwell")
    notebook("get_ipython().run_cell('x = 1')\n@stepwell.asset\ndef raw():\n    return 1", cell_id="one")
    assert notebook.session.registry.assets["raw"].origin == "cell:one"

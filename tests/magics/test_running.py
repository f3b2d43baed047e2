"""What an asset's cell does and says when it is run."""

import inspect
import re

import pytest

from stepwell.kernel_runtime.errors import CellValueError, UpstreamBudgetError


def statuses(notebook):
    return {step.key: step.status for step in notebook.session.last_run.steps}


def test_the_first_run_executes_and_the_second_reuses_with_facts_of_the_first(notebook):
    first = notebook("%%asset clean\nprint('working')\n[1, 2, 3]")
    assert first.lines[:2] == ["working", "[1, 2, 3]"]
    assert re.fullmatch(r"clean: executed in [\d.]+ m?s · 3 items · \d+ B", first.lines[2])
    second = notebook("%%asset clean\nprint('working')\n[1, 2, 3]")
    assert second.lines[:2] == ["working", "[1, 2, 3]"]
    assert re.fullmatch(r"clean: reused · computed \d{4}-\d\d-\d\d \d\d:\d\d · [\d.]+ m?s · \d+ B", second.lines[2])
    third = notebook("%%asset clean\nprint('working')\n[1, 2, 3]")
    assert third.text == second.text


def test_output_appears_in_order_as_it_happens(notebook):
    ran = notebook(
        "%%asset clean\nfrom IPython.display import display\nprint('one')\ndisplay('two')\nprint('three')\nclean = 1\n'four'"
    )
    assert ran.lines[:4] == ["one", "'two'", "three", "'four'"]
    again = notebook(
        "%%asset clean\nfrom IPython.display import display\nprint('one')\ndisplay('two')\nprint('three')\nclean = 1\n'four'"
    )
    assert again.lines[:4] == ["one", "'two'", "three", "'four'"]
    assert "reused" in again.lines[4]


def test_displays_of_upstream_do_not_show_but_its_prints_do(notebook):
    notebook("%%asset -r raw\nprint('printing')\nraw = 1\n'displayed'")
    ran = notebook("%%asset clean\nraw + 1")
    assert "printing" in ran.text
    assert "displayed" not in ran.text
    assert ran.lines[0] == "clean: first raw"
    assert "'displayed'" in notebook("%%asset raw\nprint('printing')\nraw = 1\n'displayed'").lines


def test_a_semicolon_displays_nothing(notebook):
    assert notebook("%%asset clean\n[1, 2];").lines[0].startswith("clean: executed")
    assert notebook("%%asset clean\n[1, 2];").lines[0].startswith("clean: reused")


def test_a_value_of_none_is_said(notebook):
    ran = notebook("%%asset nothing\nprint('x')")
    assert "nothing: the cell ends without a value, so its value is None" in ran.text
    assert notebook.session.load("nothing") is None


@pytest.mark.parametrize(
    "ending",
    [
        "import math\nassert math.pi > 3",
        "table['b'] = 2",
        "table['b'], table['c'] = 2, 3",
        "x = 1\ndel x",
        "global x",
        "pass",
    ],
)
def test_a_cell_that_ends_in_a_statement_has_the_value_none(notebook, ending):
    notebook("table = {'a': 1}")
    ran = notebook(f"%%asset nothing\n{ending}")
    assert "nothing: the cell ends without a value, so its value is None" in ran.text
    assert notebook.session.load("nothing") is None


@pytest.mark.parametrize("ending", ["other = 1", "other = dict()", "a, b = 1, 2", "other: int = len('x')", "counter += 1"])
def test_a_cell_that_ends_by_assigning_another_variable_has_no_value(notebook, ending):
    notebook("counter = 1")
    ran = notebook.run(f"%%asset nothing\n{ending}")
    assert isinstance(ran.error, CellValueError)
    assert "%%asset nothing -> variable" in ran.text


def test_register_only(notebook):
    assert notebook("%%asset -r clean\n1 / 0").lines == ["clean: registered"]
    assert notebook.session.last_run is None or "clean" not in statuses(notebook)


def test_dry_run_shows_what_would_run(notebook):
    notebook("%%asset -r raw\n1")
    ran = notebook("%%asset -n clean\nraw + 1")
    assert [line.split(" (")[0] for line in ran.lines] == ["first raw", "would run clean"]
    notebook("%materialize clean")
    assert notebook("%%asset -n clean\nraw + 1").lines == ["clean: fresh, nothing would run"]


def test_force_runs_the_target_and_nothing_else(notebook):
    notebook("%%asset raw\n1")
    notebook("%%asset clean\nraw + 1")
    assert "executed" in notebook("%%asset -f clean\nraw + 1").lines[-1]
    assert statuses(notebook) == {"raw": "reused", "clean": "executed"}


def test_quiet_displays_nothing_and_keeps_what_would_be(notebook):
    assert [line for line in notebook("%%asset -q clean\n[1]").lines if not line.startswith("clean:")] == []
    assert notebook("%%asset clean\n[1]").lines[0] == "[1]"


def test_group_prefix_and_order_only_dependency(notebook):
    notebook("%%asset -k raw -g daily flights\n[1]")
    assert notebook.ns["flights"] == [1]
    definition = notebook.session.registry.assets["raw/flights"].definition
    assert definition.group_name(definition.key) == "daily"
    notebook("%%asset after -d raw/flights\n2")
    assert [str(key) for key in notebook.session.registry.assets["after"].definition.deps] == ["raw/flights"]
    assert notebook("%%asset sized\nlen(flights)").lines[0] == "1"


def test_no_cache_runs_every_time(notebook):
    notebook("ticks = []")
    notebook("%%asset --no-cache clean\n1")
    assert "executed" in notebook("%%asset --no-cache clean\n1").lines[-1]


def test_plain_runs_in_the_notebook_and_stores_nothing(notebook):
    notebook("%%asset --plain clean\nimport math\nclean = math.floor(2.5)\nclean")
    assert notebook.ns["clean"] == 2
    assert "math" in notebook.ns
    assert "clean" not in notebook.session.registry.assets
    notebook("%%asset --plain later\nimport asyncio\nawait asyncio.sleep(0, 7)")


def test_multi_asset(notebook):
    notebook("%%asset data\nlist(range(10))")
    notebook("%%multi_asset train test\ntrain, test = data[:8], data[8:]\nlen(train)")
    assert notebook.ns["train"] == list(range(8))
    assert notebook.session.load("test") == [8, 9]
    assert "train test: reused" in notebook("%%multi_asset train test\ntrain, test = data[:8], data[8:]\nlen(train)").text


def test_sql_asset_reads_assets_and_variables_and_follows_them(notebook):
    notebook("import pandas as pd\nlimit = 1")
    notebook("%%asset base\npd.DataFrame({'x': [1, 2, 3]})")
    ran = notebook("%%sql_asset daily\n-- $nothing\nselect x, '$no' as t from base where x > $limit;")
    assert list(notebook.ns["daily"]["x"]) == [2, 3]
    assert "daily: executed" in ran.text
    assert "reused" in notebook("%%sql_asset daily\nselect x, '$no' as t\nfrom base where x > $limit").lines[-1]
    notebook("limit = 2")
    assert "executed" in notebook("%%sql_asset daily\nselect x, '$no' as t from base where x > $limit").lines[-1]
    assert list(notebook.session.load("daily")["x"]) == [3]


def test_the_frame_of_sql_assets_is_a_setting(notebook):
    notebook("%config Stepwell.frame = 'pyarrow'")
    notebook("%%sql_asset daily\nselect 1 as a")
    assert type(notebook.session.load("daily")).__module__.startswith("pyarrow")
    notebook("%config Stepwell.frame = 'polars'")
    notebook("%%sql_asset daily\nselect 1 as a")
    assert type(notebook.session.load("daily")).__module__.startswith("polars")


def test_ops_a_graph_backed_asset_and_a_job(notebook):
    notebook("%%asset base\n[3, 1, 2]")
    notebook("%%op fetch(data)\nfetch = sorted(data)")
    notebook("%%op head(data, *, top=2) -> out\nout = data[:top]")
    notebook("%%graph both(data)\nhead(fetch(data))")
    notebook("%%graph_asset report\nhead(fetch(base), top=1)")
    assert notebook.ns["report"] == [1]
    assert statuses(notebook) == {"base": "reused", "report.fetch": "executed", "report.head": "executed"}
    notebook("%%graph_asset report\nhead(fetch(base), top=3)")
    assert statuses(notebook) == {"base": "reused", "report.fetch": "reused", "report.head": "executed"}
    assert notebook.ns["report"] == [1, 2, 3]
    notebook("%%graph_asset nested\nnested = both(base)")
    assert notebook.ns["nested"] == [1, 2]
    notebook("sent = []")
    notebook("%%op mail(data)\nsent.append(data)\nmail = None")
    assert "mail_worst.execute()" in notebook("%%job mail_worst\nmail(report)").text
    notebook("mail_worst.execute()\nmail_worst.execute()")
    assert notebook.ns["sent"] == [[1, 2, 3], [1, 2, 3]]


def test_rerun_of_one_step(notebook):
    notebook("%%op fetch()\nprint('fetching')\n5")
    notebook("%%op render(data)\nprint('rendering')\ndata * 2")
    notebook("%%graph_asset report\nrender(fetch())")
    ran = notebook("%rerun report.render")
    assert "rendering" in ran.text
    assert "fetching" not in ran.text
    assert "report.render: executed" in ran.text


def test_rerun_on_stale_inputs_says_so(notebook):
    notebook("%%asset raw\n1")
    notebook("%%asset clean\nraw + 1")
    notebook("%%asset -r raw\n2")
    assert re.search("raw is stale .*its stored value is used", notebook("%rerun clean").text)
    assert notebook.ns["clean"] == 2


def test_materialize_binds_and_displays_nothing(notebook):
    notebook("%%asset -r raw\nprint('p')\n[1]")
    notebook("%%asset -r clean\nraw + [2]")
    ran = notebook("%materialize clean")
    assert ran.lines[:2] == ["to run: raw, clean", "p"]
    assert "[1, 2]" not in ran.text
    assert notebook.ns["clean"] == [1, 2]
    assert "clean: executed" in ran.text
    assert "reused" in notebook("%materialize clean").lines[-1]
    assert "executed" in notebook("%materialize -f clean").text


def test_without_upstream_what_is_stored_is_used(notebook):
    notebook("%%asset raw\n1")
    notebook("%%asset -r raw\n2")
    notebook("%%asset -r clean\nraw + 1")
    notebook("%materialize --no-upstream clean")
    assert notebook.ns["clean"] == 2


def test_upstream_above_the_budget_is_not_started_by_a_cell(notebook, monkeypatch):
    notebook("import time")
    notebook("%%asset slow\ntime.sleep(0.12)\n1")
    notebook("%%asset -r slow\ntime.sleep(0.12)\n2")
    notebook("%config Stepwell.upstream_budget = 0.1")
    ran = notebook.run("%%asset fast\nslow + 1")
    assert isinstance(ran.error, UpstreamBudgetError)
    assert re.search(r"fast: first slow \(last [\d.]+ m?s", ran.text)
    assert "%materialize fast" in ran.text
    assert "fast" in notebook.session.registry.assets
    monkeypatch.setenv("STEPWELL_BATCH", "x")
    notebook("%%asset fast\nslow + 1")
    assert notebook.ns["fast"] == 3
    notebook("%config Stepwell.upstream_budget = 60")


def test_lines_can_be_turned_off(notebook):
    notebook("%config Stepwell.lines = False")
    assert notebook("%%asset clean\n7").lines == ["7"]
    notebook("%config Stepwell.lines = True")


def test_an_edited_helper_makes_it_run_again(notebook):
    notebook("def helper(x):\n    return x + 1")
    notebook("%%asset clean\nhelper(1)")
    assert "reused" in notebook("%%asset clean\nhelper(1)").text
    notebook("def helper(x):\n    # only a comment\n    return x + 1")
    assert "reused" in notebook("%%asset clean\nhelper(1)").text
    notebook("def helper(x):\n    return x + 2")
    assert "helper" in notebook("%why clean").text
    assert "executed" in notebook("%%asset clean\nhelper(1)").text
    assert notebook.ns["clean"] == 3


def test_a_shell_command_makes_the_step_unverifiable(notebook):
    notebook("%%asset clean\nclean = !echo hello")
    assert "executed" in notebook("%%asset clean\nclean = !echo hello").text
    assert len(notebook("%why clean").lines) <= 3
    assert "unverifiable" in notebook("%why clean").text
    notebook("%%asset ran\ndef f():\n    return get_ipython().getoutput('echo hi')\nran = list(f())")
    assert notebook.ns["ran"] == ["hi"]
    assert len(notebook("%why ran").lines) <= 3


def test_a_name_in_the_store_only_is_read_from_there(notebook):
    notebook("%%asset prepared\n[1, 2]", cell_id="one")
    notebook.session.registry.withdraw("prepared")
    notebook.ns.pop("prepared", None)
    ran = notebook("%%asset clean\nlen(prepared)", cell_id="two")
    assert re.search(r"prepared <- store \(.*\d{4}-\d\d-\d\d \d\d:\d\d\)", ran.text)
    assert notebook.ns["clean"] == 2


def test_an_error_shows_the_users_frames_with_asset_and_cell(notebook):
    notebook("def parse(x):\n    return x['carrier']")
    notebook("%%asset -r raw\nx = {}\nraw = parse(x)")
    cell = notebook.shell.execution_count - 1
    ran = notebook.run("%%asset clean\nraw + 1")
    assert isinstance(ran.error, KeyError)
    assert f"raw failed (cell {cell})" in ran.text
    assert "----> 3 raw = parse(x)" in ran.text
    assert "----> 2     return x['carrier']" in ran.text
    assert "kernel_runtime" not in ran.text
    assert "interactiveshell" not in ran.text
    assert "stepwell.resume(" in ran.text


def test_debug_begins_in_the_users_innermost_frame(notebook):
    notebook.run("%%asset clean\nmarker = 41\nclean = marker / 0")
    trace = notebook.shell.InteractiveTB.tb
    while trace.tb_next is not None:
        trace = trace.tb_next
    assert trace.tb_frame.f_globals["marker"] == 41


@pytest.mark.parametrize("above", ["", "\n\n", "%%time\n"])
def test_line_numbers_are_those_of_the_whole_cell(notebook, above):
    ran = notebook.run(f"{above}%%asset clean\n\n# a comment\nx = !echo a \\\n  b\ndef f():\n    return 1 / 0\nclean = f()")
    assert isinstance(ran.error, ZeroDivisionError)
    number = 7 + above.count("\n")
    assert re.search(f"-> {number}     return 1 / 0", ran.text)
    assert re.search(rf"-> {number + 1} clean = f\(\)", ran.text)


def test_the_source_of_what_a_cell_defines_can_be_found(notebook):
    notebook("%%asset --plain clean\n\ndef f():\n    return 1\nclean = 1")
    assert inspect.getsource(notebook.ns["f"]) == "def f():\n    return 1\n"


def test_time_above_an_asset_cell(notebook):
    ran = notebook("%%time\n%%asset clean\n1 + 1")
    assert "Wall time" in ran.text
    assert notebook.ns["clean"] == 2


def test_interrupting_a_cell_leaves_the_session_usable(notebook):
    ran = notebook.run("%%asset clean\nimport os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\nclean = 1")
    assert isinstance(ran.error, KeyboardInterrupt)
    assert statuses(notebook) == {"clean": "cancelled"}
    assert notebook("%%asset clean\n2").result.success


def test_looking_into_the_session(notebook):
    notebook("%%asset raw\n[1]")
    notebook("%%op fetch(data)\ndata + [2]")
    notebook("%%op broken(data)\n1 / 0")
    notebook.run("%%graph_asset report\nbroken(fetch(raw))")
    status = notebook("%stepwell status").text
    assert re.search(r"^raw +fresh", status, re.MULTILINE)
    assert re.search(r"^report.broken +failed · ZeroDivisionError", status, re.MULTILINE)
    assert "store: " in status
    runs = notebook("%stepwell runs 1").text
    assert "failure" in runs
    assert len(runs.splitlines()) == 1
    notebook("%stepwell inputs report.broken")
    assert notebook.ns["data"] == [1, 2]
    assert "logged nothing" in notebook("%stepwell logs").text
    assert "1 / 0" in notebook("%stepwell code report.broken").text
    notebook("raw = None")
    notebook("%stepwell load raw")
    assert notebook.ns["raw"] == [1]
    assert "fresh" in notebook("%asset raw").text


def test_logs_of_a_run(notebook):
    notebook("import stepwell\n@stepwell.asset\ndef noted(context):\n    context.log.info('hello log')\n    return 1")
    notebook("%materialize noted")
    assert "noted: hello log" in notebook("%stepwell logs").text


def test_switching_the_store(notebook, tmp_path):
    notebook("%%asset raw\n1")
    assert str(tmp_path / "other") in notebook(f"%stepwell store {tmp_path / 'other'}").text
    assert "missing" in notebook("%why raw").text
    assert "executed" in notebook("%%asset raw\n1").text


def test_only_the_composition_displays_a_value_not_its_ops(notebook):
    notebook("%%op fetch()\n['fetched']")
    notebook("%%op head(data)\nout = data[0]\nprint('heading')\nout")
    ran = notebook("%%graph_asset report\nhead(fetch())")
    assert ran.lines[:2] == ["heading", "'fetched'"]
    assert ran.lines[2].startswith("report: executed")
    assert notebook("%%graph_asset report\nhead(fetch())").lines[:2] == ["heading", "'fetched'"]
    assert len(notebook("%%graph_asset report\nhead(fetch());").lines) == 2


def test_a_users_own_error_of_our_kind_does_not_undo_the_registration(notebook):
    ran = notebook.run("%%asset clean\nimport stepwell\nraise stepwell.errors.CycleError('mine')")
    assert ran.error is not None
    ran = notebook.run("%%asset clean\nimport stepwell\nif True:\n    raise stepwell.errors.CycleError('mine')\nclean = 1")
    assert "mine" in ran.text
    assert "clean" in notebook.session.registry.assets


def test_materialize_names_the_work_and_refuses_a_job(notebook):
    notebook("%%asset -r raw\n1")
    notebook("%%asset -r clean\nraw + 1")
    assert notebook("%materialize clean").lines[0] == "to run: raw, clean"
    assert "to run" not in notebook("%materialize clean").text
    notebook("%%op mail(data)\ndata")
    notebook("%%job mail_worst\nmail(clean)")
    assert "run the job with mail_worst.execute()" in notebook.run("%materialize mail_worst").text


def test_a_magic_that_runs_the_asset_cell_inside_a_cell_of_its_own(notebook):
    notebook("%%capture out\n%%asset clean\nprint('hello')\nclean = 1", cell_id="one")
    assert "hello" in notebook.ns["out"].stdout
    assert notebook.session.registry.assets["clean"].origin == "cell:one"


def test_time_of_what_is_awaited(notebook):
    notebook("async def slow(x):\n    return x")
    ran = notebook("%%asset clean\n%time await slow(4)")
    assert "Wall time" in ran.text
    assert notebook.ns["clean"] == 4


def test_dry_run_answers_also_where_lines_are_off(notebook):
    notebook("%config Stepwell.lines = False")
    assert "would run clean" in notebook("%%asset -n clean\n1").text
    notebook("%config Stepwell.lines = True")


def test_plt_show_at_the_end_keeps_the_figure(notebook):
    notebook("import matplotlib\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt\nshow = plt.show")
    notebook("%%asset chart\nfig, ax = plt.subplots()\nax.plot([1, 2])\nplt.show()")
    assert type(notebook.ns["chart"]).__name__ == "Figure"
    assert notebook.ns["plt"].show is notebook.ns["show"]


def test_a_job_names_what_is_stale_of_what_it_reads(notebook):
    notebook("from stepwell import SourceAsset, job, op\nFACTOR = 2")
    notebook("%%asset clean\nclean = FACTOR")
    notebook("@op\ndef use(x):\n    return x\n\n@job\ndef mail():\n    use(SourceAsset('clean'))")
    assert "stale" not in notebook("mail.execute()").text
    notebook("FACTOR = 3")
    assert "clean is stale (FACTOR: 2 -> 3): its stored value is used" in notebook("mail.execute()").text


def test_an_asset_that_a_resumed_run_made_is_bound(notebook):
    notebook("import stepwell\nFAIL = True")
    assert notebook.run("%%asset late\nif FAIL:\n    raise ValueError\nlate = 5").error is not None
    notebook("FAIL = False")
    notebook("stepwell.resume(stepwell.last_run().run_id)")
    assert notebook.ns["late"] == 5


def test_an_interrupt_shows_the_users_frames_only(notebook):
    notebook("def slow():\n    raise KeyboardInterrupt")
    ran = notebook.run("%%asset waits\nwaits = slow()")
    assert isinstance(ran.error, KeyboardInterrupt)
    assert "in slow()" in ran.text
    assert "stepwell/" not in ran.text.replace("stepwell/store", "")


@pytest.mark.parametrize("reader", ["rows = open('out.csv').read()", "%%asset rows\nrows = open('out.csv').read()"])
@pytest.mark.parametrize("restarted", [False, True])
def test_whoever_misses_a_file_is_told_which_asset_wrote_it(notebook, tmp_path, reader, restarted):
    notebook("%%asset raw/export\nwith open('out.csv', 'w') as file:\n    file.write('a,b')\nexport = 1")
    if restarted:
        notebook.session.attach(None)
        notebook.session.attach(notebook.shell.user_ns)
    (tmp_path / "out.csv").unlink()
    ran = notebook.run(reader)
    assert isinstance(ran.error, FileNotFoundError)
    assert ran.text.count("out.csv was written by raw/export and is gone: run the cell of raw/export") == 1
    notebook("%%asset raw/export\nwith open('out.csv', 'w') as file:\n    file.write('a,b')\nexport = 1")
    assert "executed" in notebook("%%asset rows\nrows = open('out.csv').read()").text


def test_a_file_that_no_asset_wrote_is_nobodys(notebook):
    notebook("%%asset export\nexport = 1")
    assert "was written by" not in notebook.run("open('other.csv')").text
    assert "was written by" not in notebook.run("%%asset rows\nrows = open('other.csv').read()").text


def test_status_of_the_assets_of_a_multi_asset_and_of_keys_that_are_only_stored(notebook):
    notebook("%%multi_asset train test\ntrain, test = [1, 2], [3]")
    notebook("%%asset old\n7")
    del notebook.session.registry.assets["old"]
    assert notebook("%stepwell status test").lines[0].startswith("train_test  fresh")
    lines = notebook("%stepwell status old train").lines
    assert lines[0].startswith("train_test  fresh")
    assert lines[1].split()[:2] == ["old", "7"]
    assert "there is no asset or step 'nowhere'" in notebook.run("%stepwell status nowhere").text

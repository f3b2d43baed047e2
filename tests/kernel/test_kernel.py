"""The life of a notebook in a real kernel: register, materialise, restart, reuse, edit, re-run, fail, resume, interrupt."""

import re

PREPARE = "def parse(text):\n    return [int(part) for part in text.split(',')]"
RAW = "%%asset raw\nprint('fetching')\n'3,1,2'"
CLEAN = "%%asset clean\nclean = sorted(parse(raw))\nclean"


def statuses(kernel):
    text = kernel("print({s.key: s.status for s in __import__('stepwell').last_run().steps})").text
    return eval(text)


def again(kernel):
    """Restart the kernel and load the extension on the same store."""
    kernel.restart()
    ran = kernel(f"import os\nos.environ['STEPWELL_STORE'] = {str(kernel.store)!r}\n%load_ext stepwell")
    assert str(kernel.store) in ran.text


def test_register_materialise_restart_reuse_and_edit(kernel):
    kernel(PREPARE, "c1")
    assert "raw: registered" in kernel(RAW.replace("raw\n", "-r raw\n", 1), "c2").text
    first = kernel(CLEAN, "c3")
    assert re.search(r"clean: first raw\nfetching\n\[1, 2, 3\]\nclean: executed in .* · 3 items", first.text)
    assert statuses(kernel) == {"raw": "executed", "clean": "executed"}

    again(kernel)
    kernel(PREPARE, "c1")
    assert "fetching\n'3,1,2'\nraw: reused · computed " in kernel(RAW, "c2").text
    reused = kernel(CLEAN, "c3")
    assert "[1, 2, 3]\nclean: reused" in reused.text
    assert kernel("clean.append(4); clean").text.strip() == "[1, 2, 3, 4]"

    kernel("def parse(text):\n    return [-int(part) for part in text.split(',')]", "c1")
    assert "parse" in kernel("%why clean").text
    assert "executed" in kernel(CLEAN, "c3").text
    assert statuses(kernel) == {"raw": "reused", "clean": "executed"}
    kernel(PREPARE, "c1")
    assert "clean: reused" in kernel(CLEAN, "c3").text


def test_why_names_the_origin_and_after_a_restart_why_the_last_run_ran(kernel):
    cells = ["LIMIT = 3", "%%asset clean\n[1, 2, 3, 4][:LIMIT]", "%%asset size\nlen(clean)", "%%asset double\nsize * 2"]
    for number, code in enumerate(cells):
        kernel(code, f"c{number}")
    kernel("LIMIT = 4", "c0")
    told = kernel("%why double").text
    place = re.fullmatch(
        r"double: may change, because LIMIT 3 -> 4 in (cell \d+), two steps up: clean -> size", told.splitlines()[0]
    )
    assert place is not None, told
    kernel("%materialize double")
    because = f"because LIMIT 3 -> 4 in {place[1]}, two steps up: clean -> size"
    assert because in kernel("%why double").text

    again(kernel)
    assert because in kernel("%why double").text
    for number, code in enumerate(("LIMIT = 4", *cells[1:])):
        kernel(code, f"c{number}")
    told = kernel("import stepwell\nprint(stepwell.why('double'))").text
    assert told.startswith("double: fresh")
    assert because in told


def test_a_fresh_kernel_can_run_the_last_cell_alone(kernel):
    kernel(RAW, "c2")
    again(kernel)
    ran = kernel("%%asset size\nlen(raw)", "c3")
    assert re.search(r"raw <- store \(.*work\.ipynb, \d{4}-\d\d-\d\d \d\d:\d\d\)", ran.text)
    assert "5\n" in ran.text


def test_a_loaded_variable_is_an_input_and_a_steps_inputs_leave_ops_alone(kernel):
    kernel(RAW, "c2")
    again(kernel)
    kernel("%stepwell load raw")
    assert "raw <- store (" in kernel("%%asset size\nlen(raw)", "c3").text
    kernel("%%op fetch(data)\ndata + '4'")
    kernel("%%op render(fetch)\nlen(fetch)")
    kernel("%%graph_asset report\nrender(fetch(raw))")
    assert "bound fetch_ (fetch is an op)" in kernel("%stepwell inputs report.render").text
    assert kernel("fetch_, fetch").text.strip() == "('3,1,24', <op fetch(data) -> result>)"
    # After a restart the records tell what the step was given, before any cell has run.
    again(kernel)
    assert "bound fetch" in kernel("%stepwell inputs report.render").text
    assert kernel("fetch").text.strip() == "'3,1,24'"


FETCH = "%%op fetch()\nprint('fetching')\n[1, 2, 3]"
TRANSFORM = "%%op transform(data, *, top=2)\nprint('transforming')\n[x * FACTOR for x in data[:top]]"
REPORT = "%%graph_asset report\ntransform(fetch())"


def test_rerun_of_one_step_also_after_a_restart(kernel):
    for code in ("FACTOR = 10", FETCH, TRANSFORM, REPORT):
        kernel(code)
    again(kernel)
    for code in ("FACTOR = 100", FETCH, TRANSFORM):
        kernel(code)
    kernel(REPORT.replace("report\n", "-r report\n", 1))
    ran = kernel("%rerun report.transform")
    assert "transforming" in ran.text
    assert "fetching" not in ran.text
    assert kernel("report").text.strip() == "[100, 200]"


def test_failure_and_resume(kernel):
    kernel("FACTOR = None")
    kernel(FETCH)
    kernel(TRANSFORM)
    ran = kernel.run(REPORT)
    assert ran.error == "TypeError"
    assert "report.transform failed" in ran.text
    assert "fetching" in ran.text
    assert "[x * FACTOR for x in data[:top]]" in ran.text
    assert "kernel_runtime" not in ran.text
    run_id = re.search(r"stepwell\.resume\('(\w+)'\)", ran.text).group(1)
    kernel("%stepwell inputs report.transform")
    assert kernel("data").text.strip() == "[1, 2, 3]"

    again(kernel)
    kernel("FACTOR = 3")
    kernel(FETCH)
    kernel(TRANSFORM)
    kernel("%%graph_asset -r report\ntransform(fetch())")
    resumed = kernel(f"import stepwell\nresult = stepwell.resume({run_id!r})\nresult.value('report')")
    assert "fetching" not in resumed.text
    assert "[3, 6]" in resumed.text
    assert "reused" in kernel(REPORT).text


def test_interrupt_during_a_step_leaves_finished_steps_recorded_and_the_kernel_usable(kernel):
    kernel("import time")
    kernel("%%asset -r done\nprint('finished')\n1")
    kernel("%%asset -r waits\nprint('waiting')\ntime.sleep(600)\ndone + 1")
    kernel("%%asset -r after\nwaits + 1")
    sent = kernel.send("%materialize after")
    kernel.collect(sent, until="waiting")
    kernel.manager.interrupt_kernel()
    ran = kernel.collect(sent)
    assert ran.reply["status"] == "error"
    assert ran.error == "KeyboardInterrupt"
    assert statuses(kernel) == {"done": "executed", "waits": "cancelled", "after": "untouched"}
    assert "cancelled" in kernel("%stepwell runs 1").text
    assert "finished\n1\ndone: reused" in kernel("%%asset done\nprint('finished')\n1").text
    assert "2\nwaits: executed" in kernel("%%asset waits\nprint('waiting')\ntime.sleep(0)\ndone + 1").text


def test_interrupt_of_an_awaiting_step(kernel):
    sent = kernel.send("%%asset waits\nimport asyncio\nprint('waiting')\nawait asyncio.sleep(600)\n1")
    kernel.collect(sent, until="waiting")
    kernel.manager.interrupt_kernel()
    assert kernel.collect(sent).error == "KeyboardInterrupt"
    assert kernel("%%asset waits\nimport asyncio\nawait asyncio.sleep(0, 5)").text.startswith("5\n")


def test_output_appears_while_the_step_runs(kernel, tmp_path):
    gate = tmp_path / "gate"
    sent = kernel.send(
        f"%%asset waits\nimport os, time\nprint('first', flush=True)\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\nprint('second')\nwaits = 1"
    )
    assert kernel.collect(sent, until="first").reply is None
    gate.write_text("")
    assert "second" in kernel.collect(sent).text


def test_displays_are_recorded_in_the_notebooks_terms_and_shown_again(kernel):
    code = "%%asset clean\nfrom IPython.display import HTML, display\ndisplay(HTML('<b>one</b>'))\nclean = 1\nHTML('<i>two</i>')"
    kinds = []
    for _ in range(2):
        ran = kernel(code, "c1")
        kinds.append([o["content"]["data"]["text/html"] for o in ran.outputs if o["msg_type"] == "display_data"])
    assert kinds == [["<b>one</b>", "<i>two</i>"]] * 2
    assert "reused" in ran.text


FIGURE = "%%asset figure\nimport matplotlib.pyplot as plt\nplt.plot([1, 2], [3, 4])\nplt.title('t'){}"


def pictures(ran):
    return [
        o["content"]["data"]["image/png"]
        for o in ran.outputs
        if o["msg_type"] == "display_data" and "image/png" in o["content"]["data"]
    ]


def test_a_figure_is_shown_once_and_again_from_its_picture(kernel):
    kernel("import matplotlib\n%matplotlib inline")
    for ending in ("\nNone", "\nplt.gcf()", ";figure = plt.gcf()"):
        first = kernel(FIGURE.format(ending), "c1")
        assert len(pictures(first)) == 1, first.text
        assert "figure: executed" in first.text
        assert kernel("type(figure).__name__, plt.get_fignums() if 'plt' in dir() else []").text.strip() == "('Figure', [])"
        second = kernel(FIGURE.format(ending), "c1")
        assert pictures(second) == pictures(first)
        assert "reused" in second.text

    again(kernel)
    hit = kernel(FIGURE.format("\nNone"), "c1")
    assert len(pictures(hit)) == 1
    assert "reused" in hit.text
    assert kernel("import matplotlib.pyplot as plt\nplt.get_fignums()").text.strip() == "[]"


def test_figures_beside_a_value_are_shown_and_the_users_own_stay_open(kernel):
    kernel("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.close('all')")
    ran = kernel("%%asset total\nfig, ax = plt.subplots()\nax.plot([1, 2])\ntotal = 3", "c1")
    assert len(pictures(ran)) == 1
    assert "total: executed" in ran.text
    two = kernel("%%asset none\nplt.figure()\nplt.figure()\nNone", "c2")
    assert "the cell opened 2 figures; end the cell with the figure that is the value" in two.text


def test_a_cell_is_known_by_its_id(kernel):
    kernel("%%asset a\n1", "c1")
    assert "defined in" not in kernel("%%asset a\n2", "c1").text
    assert re.search(
        r"a is defined in cell \d+(, line 1)? and cell \d+(, line 1)?: the definition of the cell that ran last",
        kernel("%%asset a\n3", "c2").text,
    )
    kernel("%%asset b\n3", "c2")
    assert kernel("'a' in dir()").text.strip() == "False"


def test_traceback_lines_and_breakpoints_are_those_of_the_cell(kernel):
    ran = kernel.run("%%asset clean\n\ndef f():\n    return 1 / 0\nclean = f()", "c1")
    assert ran.error == "ZeroDivisionError"
    assert re.search(r"Cell In\[\d+\], line 5\n", ran.text), ran.text
    assert re.search(r"Cell In\[\d+\], line 4, in f\(\)", ran.text), ran.text
    where = kernel("import traceback, sys\ntraceback.extract_tb(sys.last_traceback)[-1].filename").text
    assert "ipykernel_" in where
    assert where.strip("'\n").endswith(".py")


def test_errors_in_a_notebook_are_one_screen_each(kernel):
    kernel("%%asset base\n1", "c1")
    for code, name in [
        ("%%asset clean\nclean = (", "CellSyntaxError"),
        ("%%asset clean\nx = 1", "CellValueError"),
        ("%%asset 1st\n1", "CellError"),
        ("%materialize bse", "UnknownKeyError"),
        ("%%asset base\nlater + base2", "NameError"),
        ("%stepwell store /proc/nowhere", "StoreNotWritableError"),
        ("%%sql_asset daily\nselect * from nowhere", "CellNameError"),
    ]:
        ran = kernel.run(code, "c2")
        assert ran.error == name, ran.text
        assert len(ran.text.splitlines()) < 20


def test_cells_without_ids_work(kernel):
    kernel("%%asset a\n1")
    kernel("%%asset b\na + 1")
    assert "a: reused" in kernel("%%asset a\n1").text
    assert kernel("b").text.strip() == "2"


def test_progress_is_shown_in_one_line_that_ends_as_it_began(kernel, tmp_path):
    gate = tmp_path / "gate"
    kernel("import os, time")
    kernel(f"%%asset -r slow\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\nslow = 1")
    sent = kernel.send("%%asset quick\nslow + 1")
    seen = kernel.collect(sent, until="step 1 of 2: slow, ", kinds=("update_display_data",))
    gate.write_text("")
    ran = kernel.collect(sent, kinds=("update_display_data",))
    texts = [output["content"]["data"]["text/plain"] for output in (*seen.outputs, *ran.outputs) if "data" in output["content"]]
    assert texts[0] == "quick: first slow"
    assert texts[1].startswith("quick: first slow · step 1 of 2: slow, ")
    assert "quick: first slow" in texts[2:]
    assert len({output["content"]["transient"].get("display_id") for output in seen.outputs}) == 1


def test_the_lineage_is_shown_with_a_picture_and_words(kernel):
    kernel("%%asset raw\n1")
    kernel("%%asset clean\nraw + 1")
    ran = kernel("%lineage")
    assert any("text/html" in output["content"].get("data", {}) for output in ran.outputs)
    assert "clean" in ran.text


def test_help_appears_as_in_any_notebook(kernel):
    ran = kernel("%%asset?")
    payload = "".join(part["data"]["text/plain"] for part in ran.reply["payload"])
    assert "--no-cache" in payload


def test_a_front_end_completes_flags_and_keys(kernel):
    kernel("%%asset clean\n1")
    for code, word in (("%%asset --no", "--no-cache"), ("%materialize cl", "clean"), ("%stepwell sta", "status")):
        reply = kernel.client.complete(code, len(code), reply=True, timeout=240)["content"]
        assert word in reply["matches"]
        assert code[: reply["cursor_start"]] + word == code[: code.rindex(" ") + 1] + word

"""Consumers do not see each other's changes; what a step prints and logs is kept with it."""

import gc
import sys
import threading

import stepwell
from stepwell import AssetOut, Output, asset, job, multi_asset, op
from stepwell.kernel_runtime.store.catalog.tables import read_logs
from stepwell.kernel_runtime.store.signing import read_outputs


def test_a_consumer_that_changes_its_input_changes_nothing_for_others(store_dir):
    @asset
    def table():
        return {"rows": [1, 2]}

    @asset
    def greedy(table):
        table["rows"].append(3)
        return len(table["rows"])

    @asset
    def modest(table, greedy):
        return len(table["rows"])

    result = stepwell.materialize([table, greedy, modest], store=store_dir)
    assert (result.value("greedy"), result.value("modest")) == (3, 2)
    mine = result.value("table")
    mine["rows"].clear()
    assert result.value("table") == stepwell.load("table", store=store_dir) == {"rows": [1, 2]}


def test_a_step_that_keeps_what_it_returned_cannot_change_it(store_dir):
    kept = []

    @op
    def rows():
        kept.append([1])
        return kept[0]

    from stepwell import graph_asset

    @op
    def count(rows):
        kept[0].append(2)
        return len(rows)

    @graph_asset
    def counted():
        return count(rows())

    assert stepwell.materialize([counted], store=store_dir).value("counted") == 1


def test_isolate_false_shares_one_object(store_dir):
    @asset(isolate=False)
    def table():
        return []

    @asset
    def first(table):
        table.append(1)
        return len(table)

    @asset
    def second(table, first):
        return len(table)

    result = stepwell.materialize([table, first, second], store=store_dir)
    assert (result.value("first"), result.value("second")) == (1, 1)


def test_numpy_views_of_one_stored_value_do_not_touch(store_dir):
    import numpy as np

    @asset
    def big():
        return np.zeros(100_000)

    @asset
    def writes(big):
        big[:] = 1
        return float(big.sum())

    @asset
    def reads(big, writes):
        return float(big.sum())

    result = stepwell.materialize([big, writes, reads], store=store_dir)
    assert (result.value("writes"), result.value("reads")) == (100_000.0, 0.0)


def streams(store, result, key):
    opened = stepwell.get_session().open(store)
    return [(out.stream, out.text) for out in read_outputs(opened.catalog, opened.signer, result.run_id, key)]


def test_what_a_step_prints_passes_on_and_is_kept(store_dir, capsys):
    @asset
    def loud():
        print("one")
        print("two", file=sys.stderr)
        print("three", end="")
        return 1

    @asset
    def quiet(loud):
        return 1

    result = stepwell.materialize([loud, quiet], store=store_dir)
    assert streams(store_dir, result, "loud") == [("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "three")]
    assert streams(store_dir, result, "quiet") == []
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("one\nthree", "two\n")
    assert not hasattr(sys.stdout, "_stream")


def test_output_of_a_failing_step_and_of_an_async_step_is_kept(store_dir):
    @asset
    def fails():
        print("before")
        raise ValueError

    @asset
    async def later():
        print("async")
        return 1

    result = stepwell.materialize([fails, later], store=store_dir, raise_on_error=False)
    assert streams(store_dir, result, "fails") == [("stdout", "before\n")]
    assert streams(store_dir, result, "later") == [("stdout", "async\n")]


def test_a_thread_without_the_steps_context_prints_through_only(store_dir, capsys):
    @asset
    def threaded():
        worker = threading.Thread(target=lambda: print("elsewhere"))
        worker.start()
        worker.join()
        return 1

    result = stepwell.materialize([threaded], store=store_dir)
    assert streams(store_dir, result, "threaded") == []
    assert capsys.readouterr().out == "elsewhere\n"


def test_log_lines_are_kept_with_the_step(store_dir):
    @asset
    def logs(context):
        context.log.info("read %d rows", 3)
        context.log.warning("two are odd")
        try:
            1 / 0
        except ZeroDivisionError:
            context.log.exception("divided")
        return 1

    @op
    def also(context):
        context.log.debug("from %s of %s", context.op_name, context.job_name)
        return context.run_id

    @job
    def run():
        also()

    result = stepwell.materialize([logs], store=store_dir)
    store = stepwell.get_session().open(store_dir)
    lines = store.catalog.ask(read_logs, result.run_id, "logs")
    assert [(line.level, line.message.splitlines()[0]) for line in lines] == [
        ("INFO", "read 3 rows"),
        ("WARNING", "two are odd"),
        ("ERROR", "divided"),
    ]
    assert "ZeroDivisionError" in lines[2].message
    result = run.execute(store=store_dir)
    assert [line.message for line in store.catalog.ask(read_logs, result.run_id)] == ["from also of run"]
    assert result.value("also") == result.run_id


def test_what_a_context_says_of_its_step(store_dir):
    seen = {}

    @multi_asset(outs={"p": AssetOut(key_prefix="raw"), "q": AssetOut()}, name="pair")
    def pair(context):
        seen["keys"] = sorted(map(str, context.selected_asset_keys))
        seen["p"] = str(context.asset_key_for_output("p"))
        seen["names"] = context.selected_output_names
        context.add_output_metadata({"rows": 2, "path": store_dir}, output_name="p")
        yield Output(1, "p", metadata={"more": [1, 2]})
        yield Output(2, "q")

    @asset
    def single(context):
        context.add_asset_metadata({"mean": 1.5})
        seen["key"] = (str(context.asset_key), context.step_key, context.job_name)
        return 1

    result = stepwell.materialize([pair, single], store=store_dir)
    assert seen == {
        "keys": ["q", "raw/p"],
        "p": "raw/p",
        "names": {"p", "q"},
        "key": ("single", "single", "__ephemeral_asset_job__"),
    }
    assert result.materialization("raw/p").metadata == {"more": [1, 2], "rows": 2, "path": str(store_dir)}
    assert result.materialization("single").metadata == {"mean": 1.5}


def test_config_reaches_the_body_and_the_context(store_dir):
    @op
    def top(context, x, *, rows=10, name="n"):
        return [x, rows, name, context.op_config]

    @op
    def one():
        return 1

    @job
    def run():
        top(one(), rows=3)

    assert run.execute(store=store_dir).value("top") == [1, 3, "n", {"rows": 3, "name": "n"}]


def test_a_step_cannot_start_a_run(store_dir):
    import pytest

    from stepwell.kernel_runtime.errors import InvariantViolationError

    @asset
    def inner():
        return 1

    @asset
    def outer():
        stepwell.materialize([inner], store=store_dir)
        return 1

    with pytest.raises(InvariantViolationError, match="another run is active"):
        stepwell.materialize([outer], store=store_dir)
    assert stepwell.materialize([inner], store=store_dir).success


def test_a_logged_line_is_kept_without_values_of_the_environment(store_dir, monkeypatch):
    monkeypatch.setenv("MAIL_HOST", "mail.example.org")

    @asset
    def sent(context):
        context.log.info("sent by mail.example.org")
        return 1

    run_id = stepwell.materialize([sent], store=store_dir).run_id
    assert [log.message for log in stepwell.get_session().open(store_dir).catalog.ask(read_logs, run_id)] == ["sent by <hidden>"]


def test_a_stored_figure_opens_nothing_in_pyplot_when_it_is_loaded(store_dir):
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    @asset
    def chart():
        figure, axes = plt.subplots()
        axes.plot([1, 2])
        return figure

    before = plt.get_fignums()
    result = stepwell.materialize([chart], store=store_dir)
    assert type(result.value("chart")).__name__ == "Figure"
    assert type(stepwell.load("chart", store=store_dir)).__name__ == "Figure"
    assert plt.get_fignums() == before


def test_the_garbage_collector_examines_no_records_before_they_are_committed(store_dir):
    def body():
        return 1

    definitions = [asset(name=f"a{number}")(body) for number in range(5_000)]
    stepwell.materialize(definitions, store=store_dir)
    threads = []

    def note(phase, _):
        if phase == "start":
            threads.append(threading.get_ident())

    gc.callbacks.append(note)
    try:
        stepwell.materialize(definitions, store=store_dir)
    finally:
        gc.callbacks.remove(note)
    assert gc.isenabled()
    assert set(threads) <= {threading.get_ident()}

"""Running one step again, and continuing a run that failed: here, after a restart, and from another process."""

import json

import pytest

import stepwell
from stepwell import GraphOut, Out, Output, asset, graph, graph_asset, job, op
from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.errors import (
    DefinitionUnavailableError,
    InvariantViolationError,
    MissingUpstreamError,
    StoreError,
    UnknownKeyError,
    ValueNotKeptError,
)
from stepwell.kernel_runtime.session import get_session


def statuses(result):
    return {step.key: step.status for step in result.steps}


@op
def fetch(source):
    return [source, source]


@op
def transform(rows, *, times=1):
    return len(rows) * times


@asset
def source():
    return 4


@graph_asset
def report(source):
    return transform(fetch(source))


@asset
def mail(report):
    return f"{report} rows"


DEFINITIONS = [source, report, mail]


def test_one_step_runs_again_on_the_stored_outputs_of_the_others(store_dir):
    stepwell.materialize(DEFINITIONS, store=store_dir)
    result = stepwell.rerun(["report.transform"], definitions=DEFINITIONS, store=store_dir)
    assert statuses(result) == {"report.transform": "executed"}
    assert result.value("report") == result.value("report.transform") == 2
    # Its value is the same: what is downstream stays fresh.
    assert {state.state for state in get_session().states(DEFINITIONS, store=store_dir).values()} == {"fresh"}
    assert statuses(stepwell.rerun("report", definitions=DEFINITIONS, store=store_dir)) == {
        "report.fetch": "executed",
        "report.transform": "executed",
    }
    assert statuses(stepwell.rerun("mail", definitions=DEFINITIONS, store=store_dir)) == {"mail": "executed"}


def test_a_step_runs_again_with_new_code_and_stale_inputs_are_named(store_dir):
    stepwell.materialize(DEFINITIONS, store=store_dir)

    @asset(name="source")
    def other_source():
        return 5

    @graph_asset(name="report")
    def other_report(source):
        return transform(fetch(source), times=10)

    given = [other_source, other_report, mail]
    result = stepwell.rerun(["report.transform"], definitions=given, store=store_dir)
    assert result.value("report") == 20
    assert any("report.fetch" in note for note in map(notice_text, result.notices))
    states = {key: state.state for key, state in get_session().states(given, store=store_dir).items()}
    assert states["source"] == "stale"
    assert states["mail"] != "fresh"


def test_rerun_says_what_is_wrong(store_dir):
    with pytest.raises(StoreError, match="no store"):
        stepwell.rerun(["mail"], definitions=DEFINITIONS, store=store_dir)
    assert not store_dir.exists()
    stepwell.materialize([source], store=store_dir)
    with pytest.raises(UnknownKeyError, match=r"report\.transfrom") as caught:
        stepwell.rerun(["report.transfrom"], definitions=DEFINITIONS, store=store_dir)
    assert "report.transform" in caught.value.remedy
    with pytest.raises(MissingUpstreamError, match="not materialized") as caught:
        stepwell.rerun(["mail"], definitions=DEFINITIONS, store=store_dir)
    assert "report" in caught.value.remedy


def flaky(marker, *, lock=False):
    """Fetch, then a transform that fails until there is a marker."""
    import threading

    @op
    def get():
        return threading.Lock() if lock else [1, 2]

    @op
    def put(rows):
        if not marker.is_dir():
            raise OSError("not yet")
        return 1

    @op
    def last(x):
        return x + 1

    @op
    def beside():
        return 0

    @job
    def run():
        last(put(get()))
        beside()

    @graph_asset
    def table():
        return last(put(get()))

    return run, table


def test_resume_runs_exactly_what_failed_or_never_started(store_dir, tmp_path):
    run, _ = flaky(tmp_path / "marker")
    with pytest.raises(OSError, match="not yet"):
        run.execute(store=store_dir)
    first = stepwell.last_run()
    again = stepwell.resume(first.run_id, definitions=[run], store=store_dir, raise_on_error=False)
    assert statuses(again) == {"put": "failed", "last": "untouched"}
    (tmp_path / "marker").mkdir()
    # Also what a continued run continues: `get` is known from the first.
    result = stepwell.resume(again.run_id, definitions=[run], store=store_dir)
    assert statuses(result) == {"put": "executed", "last": "executed"}
    assert (result.run.parent_run_id, result.run.root_run_id) == (again.run_id, first.run_id)
    assert result.value("last") == 2
    with pytest.raises(InvariantViolationError, match="nothing to resume") as refused:
        stepwell.resume(result.run_id, definitions=[run], store=store_dir)
    assert f"{run.name}.execute()" in refused.value.remedy


def test_resume_takes_values_of_its_own_run_not_of_a_later_one(store_dir, tmp_path):
    def make(value):
        @op
        def get():
            return value

        @op
        def put(x):
            if not (tmp_path / "marker").is_dir():
                raise OSError
            return x

        @job
        def run():
            put(get())

        return run

    first = make(1).execute(store=store_dir, raise_on_error=False)
    second = stepwell.resume(first.run_id, definitions=[make(1)], store=store_dir, raise_on_error=False)
    make(2).execute(store=store_dir, raise_on_error=False)
    (tmp_path / "marker").mkdir()
    assert stepwell.resume(second.run_id, definitions=[make(1)], store=store_dir).value("put") == 1


def test_resume_of_assets(store_dir, tmp_path):
    _, table = flaky(tmp_path / "marker")
    result = stepwell.materialize([table], store=store_dir, raise_on_error=False)
    assert statuses(result) == {"table.get": "executed", "table.put": "failed", "table.last": "untouched"}
    (tmp_path / "marker").mkdir()
    result = stepwell.resume(result.run_id, definitions=[table], store=store_dir)
    assert statuses(result) == {"table.put": "executed", "table.last": "executed"}
    assert stepwell.load("table", store=store_dir) == 2


def test_what_was_skipped_stays_skipped_when_a_run_is_resumed(store_dir, tmp_path):
    @op(out={"yes": Out(is_required=False), "no": Out(is_required=False)})
    def choose():
        yield Output(1, "yes")

    @op
    def take(x):
        return x

    @op
    def fails():
        if not (tmp_path / "marker").is_dir():
            raise OSError
        return 5

    @op
    def both(x, y):
        return x, y

    @op
    def gather(values):
        return values

    @graph(out={"a": GraphOut(), "b": GraphOut()})
    def inner():
        yes, no = choose()
        return {"a": yes, "b": no}

    @job
    def run():
        yes, no = inner()
        skipped = take(no)
        failed = fails()
        both(skipped, failed)
        both.alias("direct")(no, failed)
        gather([no, failed, yes, skipped])

    result = run.execute(store=store_dir, raise_on_error=False)
    assert statuses(result) | {"take": "skipped", "both": "untouched", "gather": "untouched"} == statuses(result)
    (tmp_path / "marker").mkdir()
    result = stepwell.resume(result.run_id, definitions=[run], store=store_dir)
    assert statuses(result) == {"fails": "executed", "both": "skipped", "direct": "skipped", "gather": "executed"}
    assert result.value("gather") == [5, 1]


def test_a_value_that_was_not_kept_names_the_step_to_run_again(store_dir, tmp_path):
    run, _ = flaky(tmp_path / "marker", lock=True)
    first = run.execute(store=store_dir, raise_on_error=False)
    assert first.step("get").not_kept
    (tmp_path / "marker").mkdir()
    for again in (
        lambda: stepwell.resume(first.run_id, definitions=[run], store=store_dir),
        lambda: stepwell.rerun(["run.put"], definitions=[run], store=store_dir),
    ):
        with pytest.raises(ValueNotKeptError, match=r"'put' needs the value of 'run\.get'") as caught:
            again()
        assert "stepwell.rerun(['run.get', 'run.put'])" in caught.value.remedy
    result = stepwell.rerun(["run.get", "run.put"], definitions=[run], store=store_dir)
    assert statuses(result) == {"get": "executed", "put": "executed"}


def test_unknown_runs_and_missing_code(store_dir, tmp_path):
    _, table = flaky(tmp_path / "marker")
    first = stepwell.materialize([table, mail], definitions=DEFINITIONS[:2], store=store_dir, raise_on_error=False)
    with pytest.raises(UnknownKeyError, match="no run"):
        stepwell.resume("nothing", definitions=[table], store=store_dir)
    with pytest.raises(DefinitionUnavailableError, match="'table'"):
        stepwell.resume(first.run_id, store=store_dir)

    @asset
    def upstream():
        if not (tmp_path / "marker").is_dir():
            raise OSError
        return 1

    @asset
    def below(upstream):
        return upstream

    second = stepwell.materialize([below], definitions=[upstream], store=store_dir, raise_on_error=False)
    with pytest.raises(DefinitionUnavailableError, match="'upstream'"):
        stepwell.resume(second.run_id, definitions=[below], store=store_dir)


MODULE = """
from pathlib import Path
from stepwell import asset, graph_asset, job, op

@op
def fetch():
    print("fetching")
    return [1, 2, 3]

@op
def transform(rows):
    if not Path("marker").is_dir():
        raise OSError("no marker")
    return sum(rows)

@graph_asset
def report():
    return transform(fetch())

@asset
def mail(report):
    return f"sum {report}"

@job
def send():
    transform(fetch())
"""
HEAD = """
import json, sys, stepwell
def show(result):
    print("RESULT", json.dumps([result.run_id, {step.key: step.status for step in result.steps}]))
"""


def shown(out):
    run_id, steps = json.loads(out.split("RESULT ", 1)[1].splitlines()[0])
    return run_id, steps


def test_from_other_processes_with_and_without_definitions(python, store_dir, tmp_path):
    (tmp_path / "flow.py").write_text(MODULE)
    run_id, steps = shown(
        python(
            HEAD + "import flow\nshow(stepwell.materialize([flow.report, flow.mail], store=sys.argv[1], raise_on_error=False))",
            store_dir,
        )
    )
    assert steps == {"report.fetch": "executed", "report.transform": "failed", "mail": "untouched"}
    job_run, steps = shown(
        python(HEAD + "import flow\nshow(flow.send.execute(store=sys.argv[1], raise_on_error=False))", store_dir)
    )
    assert steps == {"fetch": "executed", "transform": "failed"}

    for call in (
        f"resume({run_id!r}, ",
        f"resume({job_run!r}, ",
        "rerun(['report.transform'], ",
        "rerun(['send.transform'], ",
    ):
        error = python(HEAD + f"stepwell.{call}store=sys.argv[1])", store_dir, fails=True)
        assert "DefinitionUnavailableError" in error
        assert "not defined in this process; flow" in error

    (tmp_path / "marker").mkdir()
    resumed = python(HEAD + f"import flow\nshow(stepwell.resume({run_id!r}, definitions=flow, store=sys.argv[1]))", store_dir)
    assert shown(resumed)[1] == {"report.transform": "executed", "mail": "executed"}
    assert "fetching" not in resumed
    resumed = python(
        HEAD + f"import flow\nshow(stepwell.resume({job_run!r}, definitions=[flow.send], store=sys.argv[1]))", store_dir
    )
    assert shown(resumed)[1] == {"transform": "executed"}
    again = python(
        HEAD + "import flow\nshow(stepwell.rerun(['report.transform'], definitions=flow, store=sys.argv[1]))", store_dir
    )
    assert shown(again)[1] == {"report.transform": "executed"}
    noop = python(HEAD + "import flow\nshow(stepwell.materialize([flow.mail], definitions=flow, store=sys.argv[1]))", store_dir)
    assert shown(noop)[1] == {"report.fetch": "reused", "report.transform": "reused", "mail": "reused"}
    assert python("import stepwell, sys\nprint(stepwell.load('mail', store=sys.argv[1]))", store_dir) == "sum 6\n"


def test_a_scripts_definitions_register_themselves(python, store_dir, tmp_path):
    script = HEAD + MODULE + "\nshow(stepwell.materialize(store=sys.argv[1], raise_on_error=False))"
    run_id, steps = shown(python(script, store_dir, name="flow.py"))
    assert steps == {"report.fetch": "executed", "report.transform": "failed", "mail": "untouched"}
    error = python(HEAD + f"stepwell.resume({run_id!r}, store=sys.argv[1])", store_dir, fails=True, name="other.py")
    assert "flow.py" in error
    (tmp_path / "marker").mkdir()
    script = HEAD + MODULE + f"\nshow(stepwell.resume({run_id!r}, store=sys.argv[1]))"
    assert shown(python(script, store_dir, name="flow.py"))[1] == {"report.transform": "executed", "mail": "executed"}

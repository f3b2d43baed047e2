"""What a real run's events make of the cards, step by step and whatever order threads bring them in."""

import pytest

import stepwell
from stepwell.kernel_runtime.definitions.registry import Registry
from stepwell.kernel_runtime.records.runs import (
    Claimant,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    StepWaiting,
)
from stepwell.kernel_runtime.session import Session
from stepwell.widgets.lineage import Overlay


@pytest.fixture
def pipeline():
    """Definitions that no registry has: one with two steps that can be made to fail, one above it."""
    broken = []

    @stepwell.asset
    def numbers():
        return [1, 2, 3]

    @stepwell.op
    def fetch(data):
        return data

    @stepwell.op
    def transform(data):
        if broken:
            raise KeyError(broken[0])
        return sum(data)

    @stepwell.graph_asset
    def report(numbers):
        return transform(fetch(numbers))

    return [numbers, report], broken


@pytest.fixture
def session(tmp_path, pipeline):
    registry = Registry()
    for definition in pipeline[0]:
        registry.register(definition)
    session = Session(registry)
    session.use(tmp_path / "store")
    yield session
    session.close()


def status(overlay):
    return {key: state["status"] for key, state in overlay.states().items()}


def events_of(session, action):
    events = []
    end = session.subscribe(events.append)
    try:
        action()
    finally:
        session.store.flush()
        end()
    return events


def test_a_run_is_queued_running_and_fresh(session):
    overlay = Overlay(session.inspect().lineage())
    assert set(status(overlay).values()) == {"missing"}
    assert overlay.outdated() == ["numbers", "report"]
    seen = []
    for event in events_of(session, session.materialize):
        overlay.take(event)
        seen.append((type(event), status(overlay), overlay.run["active"]))
    first = seen[0]
    assert first[0] is RunStarted
    assert set(first[1].values()) == {"queued"}
    assert first[2]
    started = next(states for kind, states, _ in seen if kind is StepStarted)
    assert started == {"numbers": "running", "report.fetch": "queued", "report.transform": "queued"}
    assert set(status(overlay).values()) == {"fresh"}
    assert overlay.run == {"active": False, "words": ""}
    assert overlay.outdated() == []
    assert overlay.states()["numbers"]["footer"][0] == "Fresh"


def test_what_the_events_say_is_what_the_session_says_afterwards(session, pipeline):
    overlay = Overlay(session.inspect().lineage())
    for event in events_of(session, session.materialize):
        overlay.take(event)
    said = status(overlay)
    overlay.replace_lineage(session.inspect().lineage())
    assert status(overlay) == said
    assert overlay.status_counts(overlay.states()) == {"steps": 3, "outdated": 0, "chips": []}


def test_a_failure_keeps_its_error_and_traceback_on_the_card(session, pipeline):
    pipeline[1].append("carrier")
    overlay = Overlay(session.inspect().lineage())
    for event in events_of(session, lambda: session.materialize(raise_on_error=False)):
        overlay.take(event)
    for _ in range(2):
        state = overlay.states()["report.transform"]
        assert state["status"] == "failed"
        assert "KeyError: 'carrier'" in state["error"]
        assert "transform" in state["traceback"]
        assert overlay.group_words(overlay.states()) == {"report": "graph-backed asset · 2 steps · 1 failed"}
        overlay.replace_lineage(session.inspect().lineage())
    pipeline[1].clear()
    for event in events_of(session, lambda: session.rerun("report.transform")):
        overlay.take(event)
    overlay.replace_lineage(session.inspect().lineage())
    assert "traceback" not in overlay.states()["report.transform"]


def test_a_step_that_ends_after_its_run_does_not_hide_what_the_session_said(session):
    events = events_of(session, session.materialize)
    late = next(event for event in events if isinstance(event, StepFinished))
    overlay = Overlay(session.inspect().lineage())
    overlay.take(events[0])
    for event in events:
        if isinstance(event, RunFinished):
            overlay.take(event)
    stale = session.inspect().lineage()
    overlay.replace_lineage(stale)
    before = overlay.states()
    overlay.take(late)
    assert overlay.states() == before


def test_a_request_is_queued_until_it_is_answered(session):
    overlay = Overlay(session.inspect().lineage())
    overlay.show_requested(overlay.steps_of(["report"]))
    assert status(overlay) == {"numbers": "missing", "report.fetch": "queued", "report.transform": "queued"}
    overlay.show_requested([])
    assert set(status(overlay).values()) == {"missing"}


def test_a_jobs_steps_never_paint_assets_of_the_same_name(tmp_path):
    @stepwell.asset
    def same():
        return 1

    @stepwell.op(name="same")
    def other():
        return 2

    @stepwell.job
    def mail():
        other()

    registry = Registry()
    for definition in (same, mail):
        registry.register(definition)
    session = Session(registry)
    session.use(tmp_path / "store")
    overlay = Overlay(session.inspect().lineage())
    seen = []
    for event in events_of(session, lambda: session.execute_job(mail)):
        overlay.take(event)
        seen.append(status(overlay))
    session.close()
    assert {states["same"] for states in seen} == {"missing"}
    assert "running" in {states["mail"] for states in seen}
    assert seen[-1]["mail"] == "job"


def test_a_multi_asset_is_one_card_that_names_its_outputs(tmp_path):
    @stepwell.multi_asset(outs={"train": stepwell.AssetOut(), "test": stepwell.AssetOut()})
    def split():
        return 1, 2

    registry = Registry()
    registry.register(split)
    session = Session(registry)
    session.use(tmp_path / "store")
    overlay = Overlay(session.inspect().lineage())
    assert overlay.outdated() == ["train", "test"]
    assert overlay.assets_of("split") == ["train", "test"]
    for event in events_of(session, lambda: session.materialize(overlay.outdated())):
        overlay.take(event)
    session.close()
    state = overlay.states()["split"]
    assert (state["status"], state["summary"]) == ("fresh", "train, test")


def test_a_step_that_waits_for_another_process_is_queued_and_says_for_whom(session):
    events = events_of(session, lambda: session.materialize(["report"]))
    overlay = Overlay(session.inspect().lineage())
    run_id = next(event.run.run_id for event in events if isinstance(event, RunStarted))
    for event in events:
        if isinstance(event, StepStarted) and event.key == "report.fetch":
            break
        overlay.take(event)
    overlay.take(StepWaiting(run_id, "report.fetch", 2, 3, Claimant("sub/prepare.ipynb", 4711, "", 1.0), 60.0))
    state = overlay.states()["report.fetch"]
    assert (state["status"], state["footer"]) == ("queued", ["Waiting", "for prepare.ipynb"])
    assert overlay.run["words"] == "2 of 3 · report.fetch waits for prepare.ipynb"
    overlay.take(event)
    assert overlay.states()["report.fetch"]["status"] == "running"

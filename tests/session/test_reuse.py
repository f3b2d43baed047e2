"""What is reused and what runs again; `current` moves with both."""

import stepwell
from stepwell import AssetOut, Output, SourceAsset, asset, graph_asset, job, multi_asset, op
from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.session import get_session


def statuses(result):
    return {step.key: step.status for step in result.steps}


def chain(factor=1, *, label="x"):
    """Raw to parity to report; another factor is another code of `raw`."""

    @asset
    def raw():
        return 3 * factor

    @asset
    def parity(raw):
        return raw % 2

    @asset
    def report(parity):
        return f"{label}{parity}"

    return [raw, parity, report]


def test_a_second_run_reuses_everything(store_dir):
    assert set(statuses(stepwell.materialize(chain(), store=store_dir)).values()) == {"executed"}
    result = stepwell.materialize(chain(), store=store_dir)
    assert set(statuses(result).values()) == {"reused"}
    assert result.value("report") == "x1"


def test_only_what_an_edit_can_reach_runs_and_an_equal_value_ends_it(store_dir):
    stepwell.materialize(chain(), store=store_dir)
    assert statuses(stepwell.materialize(chain(3), store=store_dir)) == {
        "raw": "executed",
        "parity": "executed",
        "report": "reused",
    }
    assert statuses(stepwell.materialize(chain(3, label="y"), store=store_dir)) == {
        "raw": "reused",
        "parity": "reused",
        "report": "executed",
    }


def test_changed_and_changed_back_is_found_and_current_moves(store_dir):
    stepwell.materialize(chain(), store=store_dir)
    stepwell.materialize(chain(2), store=store_dir)
    assert (stepwell.load("raw", store=store_dir), stepwell.load("report", store=store_dir)) == (6, "x0")
    assert set(statuses(stepwell.materialize(chain(), store=store_dir)).values()) == {"reused"}
    assert (stepwell.load("raw", store=store_dir), stepwell.load("report", store=store_dir)) == (3, "x1")
    assert len(stepwell.get_session().open(store_dir).history("raw")) == 2


def test_force_runs_the_targets_and_keeps_both_under_one_memo_key(store_dir):
    first = stepwell.materialize(chain(), store=store_dir)
    result = stepwell.materialize(chain(), store=store_dir, force=True)
    assert set(statuses(result).values()) == {"executed"}
    again = stepwell.materialize([chain()[1]], definitions=[chain()[0]], store=store_dir, force=True)
    assert statuses(again) == {"raw": "reused", "parity": "executed"}
    history = stepwell.get_session().open(store_dir).history("raw")
    assert len(history) == 2
    assert {item.memo_key for item in history} == {first.step("raw").memo_key}


def test_cache_false_runs_always_and_what_follows_only_for_another_value(store_dir):
    @asset(cache=False)
    def clock():
        return 1

    @asset
    def reads(clock):
        return clock

    stepwell.materialize([clock, reads], store=store_dir)
    assert statuses(stepwell.materialize([clock, reads], store=store_dir)) == {"clock": "executed", "reads": "reused"}
    state = get_session().states([clock], store=store_dir)["clock"]
    assert state.state == "stale"
    assert "cache=False" in state.reasons[0].text


def test_ops_of_jobs_always_run_unless_they_say_otherwise(store_dir):
    @op
    def mail(x):
        return x

    @op(cache=True)
    def load():
        return 1

    @op(cache=False)
    def never():
        return 2

    @op
    def kept(x):
        return x

    @job
    def run():
        mail(load())

    @graph_asset
    def report():
        return kept(never())

    for status in ("executed", "reused"):
        assert statuses(run.execute(store=store_dir)) == {"load": status, "mail": "executed"}
        assert statuses(stepwell.materialize([report], store=store_dir)) == {
            "report.never": "executed",
            "report.kept": status,
        }


def test_an_order_edge_follows_the_materialization_not_the_value(store_dir):
    def pair(version):
        @asset
        def setup():
            return bool(version)

        @asset(deps=[setup])
        def model():
            return 1

        return [setup, model]

    stepwell.materialize(pair(1), store=store_dir)
    assert statuses(stepwell.materialize(pair(1), store=store_dir)) == {"setup": "reused", "model": "reused"}
    # An equal value, but it was made again.
    assert statuses(stepwell.materialize(pair(2), store=store_dir)) == {"setup": "executed", "model": "executed"}
    assert statuses(stepwell.materialize(pair(1), store=store_dir)) == {"setup": "reused", "model": "reused"}


def test_of_what_has_no_value_only_the_newest_is_reused(store_dir, tmp_path):
    def writes(text):
        @asset
        def table() -> None:
            (tmp_path / "table").write_text(text)

        return [table]

    stepwell.materialize(writes("a"), store=store_dir)
    assert statuses(stepwell.materialize(writes("a"), store=store_dir)) == {"table": "reused"}
    stepwell.materialize(writes("b"), store=store_dir)
    # The world is at b by now: what was once done for a is undone.
    assert statuses(stepwell.materialize(writes("a"), store=store_dir)) == {"table": "executed"}
    assert (tmp_path / "table").read_text() == "a"


def test_a_file_that_was_read_counts(store_dir, tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("1")

    @asset
    def reads():
        return data.read_text()

    stepwell.materialize([reads], store=store_dir)
    assert statuses(stepwell.materialize([reads], store=store_dir)) == {"reads": "reused"}
    data.write_text("22")
    result = stepwell.materialize([reads], store=store_dir)
    assert statuses(result) == {"reads": "executed"}
    assert result.value("reads") == "22"


def test_config_and_aliases_count(store_dir):
    @op
    def top(*, rows=1):
        return rows

    def report(rows):
        @graph_asset
        def best():
            return top(rows=rows)

        return best

    assert stepwell.materialize([report(1)], store=store_dir).value("best") == 1
    assert stepwell.materialize([report(2)], store=store_dir).value("best") == 2
    assert statuses(stepwell.materialize([report(1)], store=store_dir)) == {"best.top": "reused"}


def test_a_multi_asset_is_one_step_with_a_value_each(store_dir):
    def split(first):
        @multi_asset(outs={"train": AssetOut(), "test": AssetOut()}, name="split")
        def parts():
            yield Output(first, "train")
            yield Output(2, "test")

        @asset
        def model(train):
            return train

        @asset
        def score(test):
            return test

        return [parts, model, score]

    stepwell.materialize(split(1), store=store_dir)
    result = stepwell.materialize(split(7), store=store_dir)
    assert statuses(result) == {"split": "executed", "model": "executed", "score": "reused"}


def test_a_lost_file_is_made_again_only_when_its_value_is_needed(store_dir):
    import numpy as np

    def make(label):
        @asset
        def big():
            return np.arange(100_000)

        @asset
        def small(big):
            return f"{label} {int(big.sum())}"

        return [big, small]

    def lose():
        for path in (store_dir / "objects").rglob("*.*"):
            path.unlink()

    stepwell.materialize(make("a"), store=store_dir)
    lose()
    assert statuses(stepwell.materialize(make("a")[1:], definitions=make("a")[:1], store=store_dir)) == {
        "big": "reused",
        "small": "reused",
    }
    result = stepwell.materialize(make("b")[1:], definitions=make("b")[:1], store=store_dir)
    assert statuses(result) == {"big": "executed", "small": "executed"}
    lose()
    assert statuses(stepwell.materialize(make("b"), store=store_dir))["big"] == "executed"


def test_a_lost_file_whose_step_fails_now_leaves_what_needs_it_untouched(store_dir, tmp_path):
    import numpy as np

    marker = tmp_path / "marker"

    def make(label):
        @asset
        def big():
            if marker.is_dir():
                raise OSError("gone")
            return np.arange(100_000)

        @asset
        def small(big):
            return label

        return [big, small]

    stepwell.materialize(make("a"), store=store_dir)
    marker.mkdir()
    for path in (store_dir / "objects").rglob("*.*"):
        path.unlink()
    result = stepwell.materialize(make("b")[1:], definitions=make("b")[:1], store=store_dir, raise_on_error=False)
    assert statuses(result) == {"big": "failed", "small": "untouched"}
    assert isinstance(result.error, OSError)


def test_what_was_made_again_with_another_value_is_what_the_consumer_is_recorded_with(store_dir):
    import time

    import numpy as np

    def make(label):
        @asset
        def big():
            return np.full(100_000, time.time_ns())

        @asset
        def small(big):
            return (label, int(big[0]))

        return [big, small]

    first = stepwell.materialize(make("a"), store=store_dir)
    for path in (store_dir / "objects").rglob("*.*"):
        path.unlink()
    second = stepwell.materialize(make("b")[1:], definitions=make("b")[:1], store=store_dir)
    (used,) = second.materialization("small").inputs
    assert used.version == second.materialization("big").data_version != first.materialization("big").data_version
    assert set(statuses(stepwell.materialize(make("b"), store=store_dir)).values()) == {"reused"}


# -- where an upstream is looked for


def test_upstream_from_the_list_then_the_registry_then_the_store(store_dir):
    @asset
    def raw():
        return 1

    @asset(name="raw")
    def other_raw():
        return 2

    @asset
    def clean(raw):
        return raw * 10

    session = get_session()
    session.registry.register(raw)
    try:
        result = stepwell.materialize([clean], store=store_dir)
        assert (statuses(result), result.value("clean")) == ({"raw": "executed", "clean": "executed"}, 10)
        assert stepwell.materialize([clean, other_raw], store=store_dir).value("clean") == 20
        assert stepwell.materialize([clean], definitions=[other_raw], store=store_dir).value("clean") == 20
        assert stepwell.materialize("clean", definitions=[other_raw, clean], store=store_dir).value("clean") == 20
    finally:
        session.registry.withdraw("raw")
    result = stepwell.materialize([clean], store=store_dir)
    assert statuses(result) == {"clean": "reused"}
    (note,) = map(notice_text, result.notices)
    assert note.startswith("raw <- store (")


def test_upstream_false_reads_what_is_stored_and_names_what_is_stale(store_dir):
    def make(n):
        @asset
        def raw():
            return n

        @asset
        def clean(raw):
            return raw * 10

        return [raw, clean]

    stepwell.materialize(make(1), store=store_dir)
    raw, clean = make(2)
    result = stepwell.materialize([clean], definitions=[raw], store=store_dir, upstream=False)
    assert (statuses(result), result.value("clean")) == ({"clean": "reused"}, 10)
    assert any("raw is stale" in note for note in map(notice_text, result.notices))
    assert stepwell.materialize([clean], definitions=[raw], store=store_dir).value("clean") == 20


def test_a_source_asset_is_read_and_never_a_step(store_dir):
    @asset(key_prefix="raw")
    def flights():
        return [1]

    @asset(ins={"flights": "raw/flights"})
    def count(flights):
        return len(flights)

    stepwell.materialize([flights], store=store_dir)
    result = stepwell.materialize([count, flights.to_source_asset()], store=store_dir)
    assert statuses(result) == {"count": "executed"}
    assert SourceAsset("raw/flights").load(store=store_dir) == [1]
    alone = stepwell.materialize([SourceAsset("raw/flights")], store=store_dir)
    assert (alone.success, alone.steps) == (True, ())


def test_a_job_reads_an_asset_as_it_is_stored_and_never_makes_it(store_dir):
    def make(n):
        @asset
        def worst():
            return n

        @op
        def mail(rows):
            return f"mail {rows}"

        @job
        def send():
            mail(worst)

        return worst, send

    worst, _ = make(1)
    stepwell.materialize([worst], store=store_dir)
    _, send = make(2)
    result = send.execute(store=store_dir)
    assert statuses(result) == {"mail": "executed"}
    assert result.value("mail") == "mail 1"


def test_deps_that_nobody_provides_are_no_obstacle(store_dir):
    @asset(deps=["elsewhere"])
    def alone():
        return 1

    assert stepwell.materialize([alone], store=store_dir).success


def test_a_graph_asset_body_may_name_an_asset_of_the_list(store_dir):
    @asset
    def raw():
        return 2

    @op
    def double(x):
        return x * 2

    @graph_asset
    def report():
        return double(raw)

    result = stepwell.materialize([report, raw], store=store_dir)
    assert statuses(result) == {"raw": "executed", "report.double": "executed"}
    assert stepwell.materialize(["+report"], definitions=[raw, report], store=store_dir).value("report") == 4


# -- states


def state_of(definitions, store):
    return {key: state.state for key, state in get_session().states(definitions, store=store).items()}


def test_states_and_their_reasons(store_dir):
    stepwell.materialize(chain(), store=store_dir)
    assert state_of(chain(), store_dir) == {"raw": "fresh", "parity": "fresh", "report": "fresh"}
    assert state_of(chain(2), store_dir) == {"raw": "stale", "parity": "may change", "report": "may change"}
    assert state_of(chain(2, label="y"), store_dir) == {"raw": "stale", "parity": "may change", "report": "stale"}

    @asset
    def extra(raw):
        return 1

    assert state_of([*chain(2), extra], store_dir)["extra"] == "missing"
    why = str(stepwell.why("raw", definitions=chain(2), store=store_dir))
    assert why.startswith("raw: stale")
    assert "factor" in why
    why = str(stepwell.why("parity", definitions=chain(2), store=store_dir))
    assert "raw is stale" in why


def test_the_state_failed_lasts_as_long_as_the_cause(store_dir):
    def make(n):
        @asset
        def broken():
            if n < 2:
                raise ValueError(f"n is {n}")
            return n

        return broken

    stepwell.materialize([make(0)], store=store_dir, raise_on_error=False)
    assert state_of([make(0)], store_dir) == {"broken": "failed"}
    assert "n is 0" in str(stepwell.why("broken", definitions=[make(0)], store=store_dir))
    assert state_of([make(1)], store_dir) == {"broken": "missing"}
    stepwell.materialize([make(2)], store=store_dir)
    assert state_of([make(2)], store_dir) == {"broken": "fresh"}
    stepwell.materialize([make(1)], store=store_dir, raise_on_error=False)
    assert state_of([make(1)], store_dir) == {"broken": "failed"}
    # A failed attempt keeps the previous value loadable.
    assert stepwell.load("broken", store=store_dir) == 2


def test_what_has_no_digest_is_unverifiable_and_runs_each_time(store_dir):
    import threading

    lock = threading.Lock()

    @asset
    def guarded():
        with lock:
            return 1

    @asset
    def reads(guarded):
        return guarded

    stepwell.materialize([guarded, reads], store=store_dir)
    assert state_of([guarded, reads], store_dir) == {"guarded": "unverifiable", "reads": "may change"}
    assert "lock" in str(stepwell.why("guarded", definitions=[guarded], store=store_dir))
    assert statuses(stepwell.materialize([guarded, reads], store=store_dir)) == {
        "guarded": "executed",
        "reads": "reused",
    }

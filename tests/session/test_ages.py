"""Results that are not reused for ever: volatile steps, max_age; and names that do not count."""

import sqlite3
import time
from datetime import timedelta

import pytest

import stepwell
from stepwell import AssetOut, asset, graph_asset, multi_asset, op
from stepwell.kernel_runtime.definitions.declarations import seconds_of
from stepwell.kernel_runtime.errors import InvalidDefinitionError
from stepwell.kernel_runtime.session import get_session
from stepwell.kernel_runtime.text import age_text


def statuses(*targets, store):
    return {step.key: step.status for step in stepwell.materialize(list(targets), store=store).steps}


def states(*targets, store):
    return get_session().states(list(targets), store=store)


def test_a_volatile_asset_runs_every_time_and_what_follows_only_if_its_value_changed(store_dir):
    clock = [1]

    @asset(volatile=True, ignore=["clock"])
    def now():
        return clock[0]

    @asset
    def report(now):
        return now * 2

    assert statuses(now, report, store=store_dir) == {"now": "executed", "report": "executed"}
    found = states(now, report, store=store_dir)
    assert (found["now"].state, found["now"].reasons[0].text) == ("stale", "volatile: the step runs in every run")
    assert found["report"].state == "may change"
    assert statuses(now, report, store=store_dir) == {"now": "executed", "report": "reused"}
    clock[0] = 2
    assert statuses(now, report, store=store_dir) == {"now": "executed", "report": "executed"}


def test_volatile_ops_and_multi_assets_run_every_time(store_dir):
    @op(volatile=True)
    def fetch():
        return 1

    @op
    def keep(value):
        return value

    @graph_asset
    def whole():
        return keep(fetch())

    @multi_asset(outs={"left": AssetOut(), "right": AssetOut()}, volatile=True)
    def both():
        return 1, 2

    statuses(whole, both, store=store_dir)
    assert statuses(whole, both, store=store_dir) == {
        "whole.fetch": "executed",
        "whole.keep": "reused",
        "both": "executed",
    }


def test_a_result_is_reused_until_it_is_too_old(store_dir, monkeypatch):
    @asset(max_age="1h")
    def prices():
        return 1

    @asset
    def chart(prices):
        return prices

    real = time.time
    with monkeypatch.context() as an_hour_ago:
        an_hour_ago.setattr(time, "time", lambda: real() - 3601)
        statuses(prices, chart, store=store_dir)
    found = states(prices, chart, store=store_dir)["prices"]
    assert (found.state, found.reasons[0].text) == ("stale", "the value is older than max_age (1h)")
    assert statuses(prices, chart, store=store_dir) == {"prices": "executed", "chart": "reused"}
    assert statuses(prices, chart, store=store_dir) == {"prices": "reused", "chart": "reused"}


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("1d", 86_400),
        ("30m", 1800),
        ("90 min", 5400),
        ("1d12h", 129_600),
        ("2w", 1_209_600),
        ("1.5h", 5400),
        (30, 30),
        (timedelta(hours=2), 7200),
    ],
)
def test_ages_are_read(given, seconds):
    assert seconds_of(given) == seconds


@pytest.mark.parametrize(
    "given", ["", "tomorrow", "1y", "5", "-1d", "0s", 0, -3, float("nan"), float("inf"), True, [1], timedelta(0)]
)
def test_what_is_no_age_is_refused(given):
    with pytest.raises(InvalidDefinitionError, match="30m"):
        asset(name="a", max_age=given)(lambda: 1)


def test_ages_are_written_as_they_are_read():
    assert [age_text(seconds) for seconds in (86_400, 129_600, 1800, 90, 0.5)] == [
        "1d",
        "1d12h",
        "30m",
        "1m30s",
        "0.5s",
    ]


def test_volatile_and_a_greatest_age_contradict_each_other():
    with pytest.raises(InvalidDefinitionError, match="volatile"):
        asset(name="a", volatile=True, max_age="1d")(lambda: 1)


CONN = sqlite3.connect(":memory:")
LIMIT = 1


def rows():
    return CONN.execute("select 1").fetchall(), LIMIT


def test_an_unverifiable_step_names_the_object_and_the_remedy_and_an_ignored_name_makes_it_fresh(store_dir, monkeypatch):
    def result():
        return rows()

    plain = asset(result)
    statuses(plain, store=store_dir)
    assert statuses(plain, store=store_dir) == {"result": "executed"}
    (reason,) = states(plain, store=store_dir)["result"].reasons
    assert reason.path == "result -> rows -> CONN"
    assert "--ignore CONN" in reason.detail
    assert "stepwell.opaque(CONN" in reason.detail
    ignoring = asset(ignore=["CONN"])(result)
    statuses(ignoring, store=store_dir)
    assert statuses(ignoring, store=store_dir) == {"result": "reused"}
    monkeypatch.setitem(globals(), "LIMIT", 2)
    assert statuses(ignoring, store=store_dir) == {"result": "executed"}


class Holder:
    conn = CONN


def test_the_remedy_is_one_that_works(store_dir):
    @asset
    def held():
        return Holder.conn.total_changes

    @asset
    def blind():
        return eval("1")

    statuses(held, blind, store=store_dir)
    found = states(held, blind, store=store_dir)
    ignored = "--ignore Holder.conn (of a decorator: ignore=['Holder.conn'])"
    made = 'stepwell.opaque(Holder.conn, version="1")'
    assert found["held"].reasons[0].detail == f"to exclude only this object from the code version: {ignored}, or {made}"
    assert "--ignore eval" in found["blind"].reasons[0].detail
    for name, definition in (("Holder.conn", held), ("eval", blind)):
        left_out = asset(ignore=[name], name=str(definition.key))(definition.node.body)
        statuses(left_out, store=store_dir)
        assert statuses(left_out, store=store_dir) == {str(definition.key): "reused"}


@pytest.mark.parametrize("given", [["not a name"], [1], "a-b"])
def test_what_is_no_name_cannot_be_ignored(given):
    with pytest.raises(InvalidDefinitionError, match="ignore"):
        asset(name="a", ignore=given)(lambda: 1)

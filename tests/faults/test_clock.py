"""A clock that is set back makes nothing stale look fresh, and nothing old look newest."""

import time

import pytest

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.store.store import open_store

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """Return a function that sets the clock by some seconds."""
    real, real_ns = time.time, time.time_ns

    def put(seconds):
        monkeypatch.setattr(time, "time", lambda: real() + seconds)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(seconds * 1e9))

    return put


def test_identifiers_of_a_process_sort_in_the_order_in_which_they_were_made(clock):
    made = [new_id()]
    for seconds in (HOUR, -HOUR, 0.0):
        clock(seconds)
        made += [new_id(), new_id()]
    assert made == sorted(set(made))


def test_the_newest_run_and_what_is_current_are_those_of_the_last_commit(tmp_path, clock):
    def version(number):
        @asset(name="a")
        def made():
            return number

        return made

    for number, seconds in enumerate((HOUR, 0.0, -HOUR)):
        clock(seconds)
        result = stepwell.materialize([version(number)], store=tmp_path / "store")
        store = open_store(tmp_path / "store")
        assert store.runs()[0].run_id == result.run_id
        assert store.get(store.current("a")[0].materialization.value, key="a") == number


def test_what_changed_the_world_last_is_not_forgotten_for_an_older_one_with_a_later_time(tmp_path, clock, monkeypatch):
    world = []

    def version(number):
        @asset(name="acted")
        def made() -> None:
            world.append(number)

        return made

    from stepwell.kernel_runtime.records import keys

    for number, seconds in ((1, HOUR), (2, 0.0), (1, 60.0)):
        clock(seconds)
        # As another process, whose identifiers begin with its own clock.
        monkeypatch.setattr(keys, "_latest", 0)
        stepwell.materialize([version(number)], store=tmp_path / "store")
    assert [each for each in world if isinstance(each, int)] == [1, 2, 1]


def test_a_value_from_the_future_is_not_young(tmp_path, clock):
    runs = []

    @asset(max_age="1d", ignore=["runs"])
    def fetched():
        runs.append(1)
        return 5

    clock(2 * HOUR)
    stepwell.materialize([fetched], store=tmp_path / "store")
    stepwell.materialize([fetched], store=tmp_path / "store")
    assert len(runs) == 1
    clock(0.0)
    stepwell.materialize([fetched], store=tmp_path / "store")
    assert len(runs) == 2

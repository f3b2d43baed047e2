"""Chance inside steps: seeded from the step's key, and put back after the run."""

import random
import time

import numpy as np
import pytest

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.execution.world import Seeds
from stepwell.kernel_runtime.session import Session


@asset
def first():
    return random.random(), float(np.random.rand()), random.gauss(0, 1)


@asset
def second():
    return random.random(), float(np.random.rand()), random.gauss(0, 1)


def values(store):
    result = stepwell.materialize([first, second], store=store, force=True)
    return result.value("first"), result.value("second")


def test_chance_is_the_same_twice_and_differs_between_steps(tmp_path):
    once = values(tmp_path / "a")
    random.random(), np.random.rand()
    assert values(tmp_path / "b") == once
    assert all(one != other for one, other in zip(*once, strict=True))


def test_the_users_own_generators_go_on_as_if_nothing_had_run(tmp_path):
    random.seed(7), np.random.seed(7)
    random.gauss(0, 1)
    expected = [random.gauss(0, 1), random.random(), float(np.random.rand())]
    random.seed(7), np.random.seed(7)
    random.gauss(0, 1)
    values(tmp_path / "a")
    assert [random.gauss(0, 1), random.random(), float(np.random.rand())] == expected


def test_they_are_put_back_after_a_failure(tmp_path):
    @asset
    def fails():
        raise ValueError

    random.seed(7)
    expected = random.random()
    random.seed(7)
    with pytest.raises(ValueError):
        stepwell.materialize([fails], store=tmp_path / "a")
    assert random.random() == expected


def test_a_run_of_reused_steps_does_not_touch_them(tmp_path, monkeypatch):
    values(tmp_path / "a")
    monkeypatch.setattr(random, "seed", lambda *_: pytest.fail("seeded"))
    stepwell.materialize([first, second], store=tmp_path / "a")


def test_it_can_be_turned_off(tmp_path):
    session = Session()
    session.seed_steps = False
    once, again = (session.materialize([first, second], store=tmp_path / name) for name in "ab")
    assert once.value("first") != again.value("first")
    session.close()


def test_numpy_that_a_body_imports_first_is_seeded_too(python):
    script = """
        import sys, random, stepwell
        from stepwell import asset

        @asset
        def fit():
            import numpy
            return float(numpy.random.rand())

        @asset
        def other():
            import numpy
            return float(numpy.random.rand())

        assert "numpy" not in sys.modules
        result = stepwell.materialize([fit, other])
        print(result.value("fit"), result.value("other"))
        assert not [finder for finder in sys.meta_path if type(finder).__module__.endswith("seeds")]
    """
    one, two = python(script), python(script)
    assert one == two
    assert len(set(one.split())) == 2


def test_a_step_costs_a_few_microseconds():
    seeds = Seeds()
    seeds.seed("warm")
    best = min(_timed(seeds) for _ in range(5))
    seeds.restore()
    assert best < 60e-6


def _timed(seeds):
    started = time.thread_time()
    for at in range(200):
        seeds.seed(f"step{at}")
    return (time.thread_time() - started) / 200

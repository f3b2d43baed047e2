"""Random notebooks: after every asset cell the notebook is as after the plain cell, and nothing runs needlessly. Each failure can be run by its
seed alone: ``python tests/plain/fuzz.py --seed N -v``."""

import contextlib

import pytest
from fuzz import USED, fuzz
from oracle import Forks

PARTS = 10
EACH = 30


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with contextlib.closing(Forks(tmp_path_factory.mktemp("servers"), USED)) as forks:
        yield forks


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_random_notebooks_have_the_plain_values(part, runner, tmp_path):
    first = part * EACH
    failures, fuzzer = fuzz(runner, tmp_path, range(first, first + EACH), stop=2)
    assert not failures, "\n\n".join(failures)
    assert fuzzer.reused > EACH
    assert fuzzer.invalid + fuzzer.dependent <= EACH // 5

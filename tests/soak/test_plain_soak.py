"""Random notebooks with and without Stepwell for as long as it takes: ``pytest -m soak tests/soak/test_plain_soak.py -n 2``."""

import contextlib

import pytest
from fuzz import USED, fuzz
from oracle import Forks

PARTS = 30
EACH = 100


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_thousands_of_notebooks_have_the_plain_values(part, tmp_path):
    first = 1_000 + part * EACH
    with contextlib.closing(Forks(tmp_path / "servers", USED)) as runner:
        failures, fuzzer = fuzz(runner, tmp_path, range(first, first + EACH), stop=3)
    print(
        f"{fuzzer.executed} steps executed, {fuzzer.reused} reused, {fuzzer.invalid} no notebooks, {fuzzer.dependent} depend on earlier runs"
    )
    assert not failures, "\n\n".join(failures)

"""A hundred thousand mutations of stored bytes: no crash, no hang, no wrong value."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from corrupting import mutated

MUTATIONS = 100_000
PORTION = 5000


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_a_hundred_thousand_mutations(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda at: mutated(tmp_path, 1, at, at + PORTION), range(0, MUTATIONS, PORTION)))
    outcomes = sum((found for _, found in parts), Counter())
    print(sum(outcomes.values()), dict(outcomes))
    assert [line for wrong, _ in parts for line in wrong] == []

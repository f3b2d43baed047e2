"""The editing fuzzer for as long as it takes: ``pytest -m soak tests/soak -s``."""

import pytest
from fuzzer import fuzz

EDITS = 5_000


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thousands_of_edits_leave_nothing_stale():
    report = fuzz(EDITS, seed=2)
    print(report)
    assert report.edits == EDITS
    assert report.stale == []
    assert report.needless == []
    assert report.unverifiable == []

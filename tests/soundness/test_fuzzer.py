"""Random notebooks, edited at random, over the whole product: never a stale value, never a needless run."""

from fuzzer import fuzz


def test_no_edit_leaves_a_stale_value_or_runs_a_step_needlessly():
    report = fuzz(200, seed=1)
    assert report.edits == 200
    assert report.executed > 200
    assert report.stale == []
    assert report.needless == []
    assert report.unverifiable == []

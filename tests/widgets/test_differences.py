"""A difference as HTML: everything that comes from values is escaped."""

import numpy as np
import pandas as pd
import pytest

from stepwell.commands.diff import worded
from stepwell.kernel_runtime.session.differences import Side, compare
from stepwell.kernel_runtime.session.history import Version, Versions
from stepwell.widgets.differences import difference_html, versions_html

EVIL = "<script>alert(1)</script>"


def diff(before, after):
    sides = (Side("before", None, "t", EVIL), Side("after", None, "t", ""))
    return worded(compare(EVIL, *sides, (lambda: before, lambda: after)))


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (pd.DataFrame({EVIL: [EVIL], "g": 1}), pd.DataFrame({EVIL: [EVIL + "x"], "n": 1}), "cells changed"),
        (np.array([EVIL]), np.array([EVIL + "x"]), "position"),
        ({EVIL: EVIL}, {EVIL: 1}, "where"),
        (f"a\n{EVIL}", f"b\n{EVIL}x", "<pre>"),
        (b"a", b"b", "different byte is at position 0"),
        ([*range(500)], [*range(1, 501)], "and more"),
    ],
)
def test_every_kind_of_difference(before, after, shown):
    text = difference_html(diff(before, after))
    assert shown in text
    assert "<script" not in text
    assert len(text) < 60_000


def test_a_list_of_versions():
    version = Version(EVIL, -1, 0.0, "d", "c", "r", EVIL, EVIL, EVIL, EVIL, 5, 1.0, True, False, 3, 0.0, True)
    text = versions_html(Versions([version] * 100))
    assert "<script" not in text
    assert "current, 3 times, accepted, value not available" in text
    assert "and 40 older" in text

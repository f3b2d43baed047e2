"""Durations and points in time read well."""

from stepwell.kernel_runtime.text import duration, moment


def test_durations_read_well():
    assert [duration(s) for s in (0, 0.00001, 0.012, 0.0996, 1.94, 72, 99.96, 3599, 9000)] == [
        "0 ms",
        "1 ms",
        "12 ms",
        "0.1 s",
        "1.9 s",
        "72.0 s",
        "2 min",
        "60 min",
        "2.5 h",
    ]


def test_a_moment_has_its_seconds_only_where_it_is_to_be_exact():
    assert moment(0.9, exact=True).startswith(moment(0.9) + ":")

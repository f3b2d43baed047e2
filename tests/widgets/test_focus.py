"""A reader who names assets sees them and everything upstream."""

import pytest
from pictured import everything

from stepwell.commands.lineage import upstream_of
from stepwell.kernel_runtime.errors import UnknownKeyError


def keys(lineage):
    return {node.key for node in lineage.nodes}


def test_everything_without_a_name():
    assert upstream_of(everything(), None) == everything()


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        ("clean", {"raw/flights", "clean"}),
        ("train", {"raw/flights", "clean", "split"}),
        ("report.fetch", {"raw/weather", "raw/planes", "raw/flights", "clean", "daily", "report.fetch"}),
        ("report", keys(everything()) - {"mail_worst"}),
        ("mail_worst", keys(everything())),
    ],
)
def test_named_cards_and_what_is_upstream(named, shown):
    part = upstream_of(everything(), [named])
    assert keys(part) == shown
    assert all(edge.source in shown and edge.target in shown for edge in part.edges)


def test_unknown_names_have_the_nearest_ones():
    with pytest.raises(UnknownKeyError, match="did you mean daily"):
        upstream_of(everything(), ["dayly"])

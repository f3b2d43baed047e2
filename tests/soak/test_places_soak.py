"""Every place of a store, replaced by every kind of thing; the suite has those that take no time."""

import pytest

from tests.store.test_places import KINDS, ground, places, try_places

__all__ = ["ground"]


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_every_place_of_a_store_with_every_kind_of_replacement(ground, kind):
    names = places(ground / "template")
    assert len(names) > 25
    try_places(ground, kind, names)

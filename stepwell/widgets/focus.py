"""The part of a lineage that a reader asked for: cards by name, and everything upstream of them."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.kernel_runtime.errors import unknown_key
from stepwell.kernel_runtime.records.lineage import Lineage
from stepwell.widgets.states import assets_of


def upstream_of(lineage: Lineage, keys: Sequence[str] | None) -> Lineage:
    """Return the cards that ``keys`` name (assets, steps or jobs) with everything upstream; everything if None.

    Raises
    ------
    UnknownKeyError
        If a key is in no card.
    """
    if keys is None:
        return lineage
    named = {node.key: {node.key} for node in lineage.nodes}
    for node in lineage.nodes:
        for asset in assets_of(node):
            named.setdefault(asset, set()).add(node.key)
    upstream: dict[str, list[str]] = {}
    for edge in lineage.edges:
        upstream.setdefault(edge.target, []).append(edge.source)
    kept: set[str] = set()
    for key in keys:
        if key not in named:
            raise unknown_key("asset, step or job", key, named)
        ahead = list(named[key])
        while ahead:
            here = ahead.pop()
            if here not in kept:
                kept.add(here)
                ahead += upstream.get(here, ())
    return Lineage(
        tuple(node for node in lineage.nodes if node.key in kept),
        tuple(edge for edge in lineage.edges if edge.source in kept and edge.target in kept),
    )

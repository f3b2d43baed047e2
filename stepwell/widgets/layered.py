"""A plain layout in layers, for where Graphviz is not there or would take too long.

A card stands one column right of the last of its upstreams. Each graph-backed asset has a band of its own, so that its
box never covers another card; within a band a column is ordered by where its upstreams stand.
"""

from __future__ import annotations

from stepwell.kernel_runtime.records.lineage import Lineage, LineageNode
from stepwell.widgets.layout import (
    CARD_HEIGHT,
    CARD_WIDTH,
    GROUP_HEADER,
    GROUP_PADDING,
    MARGIN,
    Box,
    Layout,
    Route,
    drawn_edges,
    members,
)

_COLUMN = CARD_WIDTH + 56
_ROW = CARD_HEIGHT + 18


def layered(lineage: Lineage, *, note: str = "") -> Layout:
    """Return a layout in columns; ``note`` says why Graphviz did not make it."""
    columns = _columns(lineage)
    bands: list[tuple[str, list[LineageNode]]] = [("", [node for node in lineage.nodes if not node.parent])]
    bands += list(members(lineage.nodes).items())
    upstream: dict[str, list[str]] = {}
    for edge in drawn_edges(lineage):
        upstream.setdefault(edge.target, []).append(edge.source)
    cards: dict[str, Box] = {}
    groups: dict[str, Box] = {}
    top = float(MARGIN)
    for parent, nodes in bands:
        if not nodes:
            continue
        first = top + (GROUP_HEADER + GROUP_PADDING if parent else 0)
        rows = 0
        by_column: dict[int, list[LineageNode]] = {}
        for node in nodes:
            by_column.setdefault(columns[node.key], []).append(node)
        for column in sorted(by_column):
            heights = {
                node.key: _mean([cards[key].y for key in upstream.get(node.key, ()) if key in cards])
                for node in by_column[column]
            }
            for row, node in enumerate(sorted(by_column[column], key=lambda node: heights[node.key])):
                cards[node.key] = Box(MARGIN + GROUP_PADDING + column * _COLUMN, first + row * _ROW)
            rows = max(rows, len(by_column[column]))
        bottom = first + rows * _ROW - (_ROW - CARD_HEIGHT)
        if parent:
            left = min(cards[node.key].x for node in nodes) - GROUP_PADDING
            right = max(cards[node.key].right for node in nodes) + GROUP_PADDING
            bottom += GROUP_PADDING
            groups[parent] = Box(left, top, right - left, bottom - top)
        top = bottom + 18
    boxes = [*cards.values(), *groups.values()]
    routes = []
    for edge in drawn_edges(lineage):
        start, end = cards[edge.source], cards[edge.target]
        bend = max(28.0, (end.x - start.right) / 2)
        routes.append(
            Route(
                edge,
                (
                    (start.right, start.middle),
                    (start.right + bend, start.middle),
                    (end.x - bend, end.middle),
                    (end.x, end.middle),
                ),
            )
        )
    return Layout(
        width=max((box.right for box in boxes), default=0.0) + MARGIN,
        height=max((box.bottom for box in boxes), default=0.0) + MARGIN,
        cards=cards,
        groups=groups,
        routes=tuple(routes),
        note=note,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _columns(lineage: Lineage) -> dict[str, int]:
    """Return each card's column: the longest way to it. A card on a cycle takes its place when nothing else is left."""
    waiting = {node.key: 0 for node in lineage.nodes}
    downstream: dict[str, list[str]] = {}
    for edge in drawn_edges(lineage):
        waiting[edge.target] += 1
        downstream.setdefault(edge.source, []).append(edge.target)
    columns: dict[str, int] = dict.fromkeys(waiting, 0)
    left = dict.fromkeys(waiting)
    ready = [key for key, count in waiting.items() if not count]
    while left:
        key = ready.pop() if ready else next(iter(left))
        if key not in left:
            continue
        del left[key]
        for below in downstream.get(key, ()):
            if below in left:
                columns[below] = max(columns[below], columns[key] + 1)
                waiting[below] -= 1
                if not waiting[below]:
                    ready.append(below)
    return columns

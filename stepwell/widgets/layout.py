"""Where the cards of a lineage stand and which way the arrows go.

Graphviz decides positions and splines only (``-Tjson``, cards of one fixed size); nothing that it draws is used. The
engine is one function from DOT to the parsed JSON, so that it can be replaced. Where it fails, plain layers are drawn, so
that a picture always appears; the layout then says why. Coordinates are pixels, y downwards.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from stepwell.kernel_runtime.errors import LayoutError
from stepwell.kernel_runtime.records.lineage import Lineage, LineageEdge, LineageNode

CARD_WIDTH = 236
CARD_HEIGHT = 76
GROUP_HEADER = 26
GROUP_PADDING = 14
MARGIN = 16
MOST_CARDS = 1200
"""Above this many cards Graphviz takes seconds to minutes, and plain layers are drawn."""

Point: TypeAlias = tuple[float, float]
Engine: TypeAlias = Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its upper left corner."""

    x: float
    y: float
    width: float = CARD_WIDTH
    height: float = CARD_HEIGHT

    @property
    def right(self) -> float:
        """The x of the right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of the lower side."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """The y of the middle, where arrows leave and arrive."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one arrow: a cubic spline of ``1 + 3 n`` points, from the source's side to the target's."""

    edge: LineageEdge
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A picture's geometry."""

    width: float
    height: float
    cards: dict[str, Box]
    groups: dict[str, Box] = field(default_factory=dict)
    """Boxes of graph-backed assets, by asset key."""
    routes: tuple[Route, ...] = ()
    note: str = ""
    """Why Graphviz did not do it; empty where it did."""


def members(nodes: Iterable[LineageNode]) -> dict[str, list[LineageNode]]:
    """Return the cards that stand in a box together, by the graph-backed asset that they belong to."""
    found: dict[str, list[LineageNode]] = {}
    for node in nodes:
        if node.parent:
            found.setdefault(node.parent, []).append(node)
    return found


def drawn_edges(lineage: Lineage) -> list[LineageEdge]:
    """Return the edges between two different cards of the picture, each once."""
    known = {node.key for node in lineage.nodes}
    seen = dict.fromkeys(e for e in lineage.edges if e.source in known and e.target in known and e.source != e.target)
    return list(seen)


def to_dot(lineage: Lineage) -> str:
    """Return the lineage in the DOT language, cards and boxes named by position, so that no key needs quoting."""
    import graphviz

    inch = 72.0
    dot = graphviz.Digraph(
        graph_attr={
            "rankdir": "LR",
            "nodesep": f"{18 / inch:.3f}",
            "ranksep": f"{40 / inch:.3f}",
            "pad": "0",
            "newrank": "true",
        },
        node_attr={
            "shape": "box",
            "label": "",
            "fixedsize": "true",
            "width": f"{CARD_WIDTH / inch:.4f}",
            "height": f"{CARD_HEIGHT / inch:.4f}",
        },
        edge_attr={"arrowhead": "none", "tailport": "e", "headport": "w"},
    )
    names = {node.key: f"n{place}" for place, node in enumerate(lineage.nodes)}
    boxed = members(lineage.nodes)
    for node in lineage.nodes:
        if not node.parent:
            dot.node(names[node.key])
    for place, nodes in enumerate(boxed.values()):
        with dot.subgraph(name=f"cluster_{place}") as box:
            box.attr(label=" ", fontsize="14", margin=str(GROUP_PADDING))
            for node in nodes:
                box.node(names[node.key])
    for edge in drawn_edges(lineage):
        dot.edge(names[edge.source], names[edge.target])
    return str(dot.source)


_cache: OrderedDict[object, Layout] = OrderedDict()
_CACHED = 32


def layout(lineage: Lineage, *, engine: Engine | None = None) -> Layout:
    """Return the geometry of a lineage; one structure is laid out once.

    Parameters
    ----------
    lineage
        What to draw; only keys, parents and edges matter here.
    engine
        From DOT to what Graphviz writes with ``-Tjson``; by default `stepwell.widgets.dot.graphviz_json`.
    """
    from stepwell.widgets.dot import graphviz_json
    from stepwell.widgets.layered import layered

    chosen = engine or graphviz_json
    structure = (chosen, tuple((node.key, node.parent) for node in lineage.nodes), lineage.edges)
    if structure in _cache:
        _cache.move_to_end(structure)
        return _cache[structure]
    if not lineage.nodes:
        found = Layout(width=2.0 * MARGIN, height=2.0 * MARGIN, cards={})
    elif len(lineage.nodes) > MOST_CARDS:
        found = layered(lineage, note=f"{len(lineage.nodes)} cards are too many for Graphviz: drawn in plain layers")
    else:
        try:
            found = _read(lineage, chosen(to_dot(lineage)))
        except LayoutError as error:
            # Not cached: the command may be there next time.
            return layered(lineage, note=" ".join(str(error).splitlines()))
    _cache[structure] = found
    if len(_cache) > _CACHED:
        _cache.popitem(last=False)
    return found


def _read(lineage: Lineage, drawing: dict[str, Any]) -> Layout:
    """Translate Graphviz's JSON (points, y upwards) into a layout."""
    try:
        left, low, right, high = _numbers(drawing["bb"])
        shift_x, shift_y = MARGIN - left, MARGIN + high
        named = {entry["name"]: entry for entry in drawing.get("objects", ())}
        by_id = {entry["_gvid"]: entry["name"] for entry in drawing.get("objects", ())}
        cards = {}
        for place, node in enumerate(lineage.nodes):
            x, y = _numbers(named[f"n{place}"]["pos"])
            cards[node.key] = Box(_round(x + shift_x - CARD_WIDTH / 2), _round(shift_y - y - CARD_HEIGHT / 2))
        groups = {}
        for place, parent in enumerate(members(lineage.nodes)):
            x0, y0, x1, y1 = _numbers(named[f"cluster_{place}"]["bb"])
            groups[parent] = Box(_round(x0 + shift_x), _round(shift_y - y1), _round(x1 - x0), _round(y1 - y0))
        spline = {
            (by_id[entry["tail"]], by_id[entry["head"]]): entry["pos"]
            for entry in drawing.get("edges", ())
            if "pos" in entry
        }
        names = {node.key: f"n{place}" for place, node in enumerate(lineage.nodes)}
        routes = tuple(
            Route(
                edge,
                tuple(
                    (_round(x + shift_x), _round(shift_y - y))
                    for x, y in _spline(spline[names[edge.source], names[edge.target]])
                ),
            )
            for edge in drawn_edges(lineage)
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise LayoutError(f"Graphviz answered with a drawing that cannot be read: {error!r}") from error
    return Layout(
        width=_round(right - left + 2 * MARGIN),
        height=_round(high - low + 2 * MARGIN),
        cards=cards,
        groups=groups,
        routes=routes,
    )


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _round(value: float) -> float:
    return round(value, 1)


def _spline(pos: str) -> Sequence[Point]:
    """Read the first spline of an edge's ``pos``; its end points, marked s and e, are the arrows' tips."""
    points: list[Point] = []
    start: Point | None = None
    end: Point | None = None
    for word in pos.split(";", maxsplit=1)[0].split():
        mark = re.match(r"[se],", word)
        x, y = _numbers(word[2:] if mark else word)
        if not mark:
            points.append((x, y))
        elif word[0] == "s":
            start = (x, y)
        else:
            end = (x, y)
    if start:
        points[0] = start
    if end:
        points[-1] = end
    if len(points) < 4 or (len(points) - 1) % 3:
        raise ValueError(pos)
    return points

"""The layout of a lineage: the positions of its cards, and the paths of its arrows.

Graphviz computes the positions of the cards, which have a fixed size, and the splines of the arrows; Graphviz does not draw the picture. The layout
engine is a function that takes a graph in the DOT language and returns the parsed output of ``dot -Tjson``. Tests can pass another engine.

If Graphviz is missing or fails, or the lineage has more than `MOST_CARDS` cards, a simpler layout in columns (`layered`) is used, and
`Layout.note` states the reason. In this layout, each card is one column to the right of its rightmost upstream card. The picture is divided into
horizontal bands: one for each graph-backed asset, and one for all other cards. The box of a graph-backed asset therefore never covers another card.
In a band, the cards of a column are ordered by the positions of their upstream cards.

Coordinates are in pixels; y increases downwards.

The Graphviz program is ``dot`` or ``graphviz-pure`` on PATH. If PATH contains neither, the program is looked up in the list of files of the
installed distribution ``graphviz-pure``: the ``bin`` folder of an environment that is not activated is not on PATH.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from stepwell.commands.lineage import drawn_edges
from stepwell.kernel_runtime.errors import LayoutError
from stepwell.kernel_runtime.records.runs import Lineage, LineageEdge, LineageNode

PATIENCE = 20.0
"""The time limit for Graphviz, in seconds."""


def graphviz_json(dot: str) -> dict[str, Any]:
    """Compute the layout of a graph with Graphviz.

    Parameters
    ----------
    dot
        The graph in the DOT language.

    Returns
    -------
    dict
        The parsed output of ``dot -Tjson``. Coordinates are in points; y increases upwards.

    Raises
    ------
    LayoutError
        If Graphviz is not installed, fails, or takes more than `PATIENCE` seconds.
    """
    command = locate_graphviz()
    try:
        process = subprocess.run(  # noqa: S603 - a located program, its input on stdin
            [command, "-Kdot", "-Tjson"], input=dot.encode(), capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LayoutError(
            f"Graphviz took more than {PATIENCE:.0f} s to lay out the lineage and was stopped",
            where=command,
            remedy="show a part of the lineage: %lineage KEY",
        ) from error
    except OSError as error:
        raise LayoutError(f"Graphviz cannot be started: {error}", where=command, remedy=_REMEDY) from error
    if process.returncode:
        raise LayoutError(
            f"Graphviz failed with exit code {process.returncode}: {process.stderr.decode(errors='replace').strip()[:200]}",
            where=command,
        )
    try:
        drawing = json.loads(process.stdout)
    except ValueError as error:
        raise LayoutError("the layout that Graphviz printed is not valid JSON", where=command, remedy=_OTHER_VERSION) from error
    if not isinstance(drawing, dict):
        raise LayoutError("the layout that Graphviz printed is not a JSON object", where=command, remedy=_OTHER_VERSION)
    return drawing


_REMEDY = "install Graphviz: run `pip install graphviz-pure`, or install the graphviz package of your system"
_OTHER_VERSION = "install another version of Graphviz"


def locate_graphviz() -> str:
    """Return the path of the Graphviz program: ``dot`` or ``graphviz-pure``.

    Raises
    ------
    LayoutError
        If neither program is installed.
    """
    command = shutil.which("dot") or shutil.which("graphviz-pure") or _of_the_wheel()
    if not command:
        raise LayoutError("Graphviz is not installed", remedy=_REMEDY)
    return command


@lru_cache(maxsize=1)
def _of_the_wheel() -> str | None:
    from importlib.metadata import PackageNotFoundError, files

    try:
        installed = files("graphviz-pure") or []
    except PackageNotFoundError:
        return None
    for entry in installed:
        if entry.name in {"graphviz-pure", "graphviz-pure.exe"}:
            path = Path(str(entry.locate())).resolve()
            if path.is_file():
                return str(path)
    return None


CARD_WIDTH = 236
CARD_HEIGHT = 76
_COLUMN = CARD_WIDTH + 56
_ROW = CARD_HEIGHT + 18


def layered(lineage: Lineage, *, note: str = "") -> Layout:
    """Return a layout in columns, without Graphviz.

    Parameters
    ----------
    note
        The reason why Graphviz is not used, for `Layout.note`.
    """
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
    """Return a dict from the key of each card to its column: the number of edges on the longest path to it. Edges that close a cycle are ignored."""
    waiting = {node.key: 0 for node in lineage.nodes}
    downstream: dict[str, list[str]] = {}
    for edge in drawn_edges(lineage):
        waiting[edge.target] += 1
        downstream.setdefault(edge.source, []).append(edge.target)
    columns: dict[str, int] = dict.fromkeys(waiting, 0)
    unplaced = dict.fromkeys(waiting)
    ready = [key for key, count in waiting.items() if not count]
    while unplaced:
        key = ready.pop() if ready else next(iter(unplaced))
        if key not in unplaced:
            continue
        del unplaced[key]
        for successor in downstream.get(key, ()):
            if successor in unplaced:
                columns[successor] = max(columns[successor], columns[key] + 1)
                waiting[successor] -= 1
                if not waiting[successor]:
                    ready.append(successor)
    return columns


GROUP_HEADER = 26
GROUP_PADDING = 14
MARGIN = 16
MOST_CARDS = 1200
"""The maximum number of cards that Graphviz lays out. With more cards, Graphviz would need seconds to minutes."""

Point: TypeAlias = tuple[float, float]
Engine: TypeAlias = Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, given by its upper left corner (`x`, `y`) and its size. The default size is that of a card."""

    x: float
    y: float
    width: float = CARD_WIDTH
    height: float = CARD_HEIGHT

    @property
    def right(self) -> float:
        """The x coordinate of the right side of the rectangle."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y coordinate of the lower side of the rectangle."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """The y coordinate of the middle of the rectangle, where arrows start and end."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Route:
    """The path of one arrow: a cubic spline from the right side of the upstream card to the left side of the downstream card.

    `points` contains the start of the spline, followed by three points for each of its Bezier curves: two control points and the end.
    """

    edge: LineageEdge
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a lineage: the size of the picture, and the positions of its elements in pixels."""

    width: float
    height: float
    cards: dict[str, Box]
    groups: dict[str, Box] = field(default_factory=dict)
    """Maps the key of each graph-backed asset to the box around its cards."""
    routes: tuple[Route, ...] = ()
    note: str = ""
    """The reason why Graphviz was not used; empty if Graphviz was used."""


def members(nodes: Iterable[LineageNode]) -> dict[str, list[LineageNode]]:
    """Return a dict from the key of each graph-backed asset to the cards of its steps. Other cards are left out."""
    by_parent: dict[str, list[LineageNode]] = {}
    for node in nodes:
        if node.parent:
            by_parent.setdefault(node.parent, []).append(node)
    return by_parent


def to_dot(lineage: Lineage) -> str:
    """Return the lineage in the DOT language. In DOT, cards and boxes have numbered names, because keys would need quoting."""
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


def layout(lineage: Lineage, *, engine: Engine | None = None) -> Layout:
    """Return the layout of a lineage. The layout is cached. If Graphviz fails, the simpler layout is returned and not cached.

    Parameters
    ----------
    lineage
        The lineage. Only its edges, and the keys and parents of its cards, determine the layout; the states of cards do not.
    engine
        A function that takes a graph in the DOT language and returns the parsed output of ``dot -Tjson``; by default `graphviz_json`.
    """
    nodes = tuple(LineageNode(node.key, "", "asset", None, parent=node.parent) for node in lineage.nodes)
    try:
        return laid_out(Lineage(nodes, lineage.edges), engine or graphviz_json)
    except LayoutError as error:
        # Do not cache the layout without Graphviz: the user may install Graphviz before the next call.
        return layered(lineage, note=" ".join(str(error).splitlines()))


@lru_cache(maxsize=32)
def laid_out(lineage: Lineage, engine: Engine) -> Layout:
    """Return the layout that `engine` computes; for more than `MOST_CARDS` cards, return the simpler layout in columns (`layered`).

    Raises
    ------
    LayoutError
        If `engine` fails, or its output is not valid.
    """
    if not lineage.nodes:
        return Layout(width=2.0 * MARGIN, height=2.0 * MARGIN, cards={})
    if len(lineage.nodes) > MOST_CARDS:
        return layered(lineage, note=f"the layout is simplified, because {len(lineage.nodes)} cards are too many for Graphviz")
    return _read_layout(lineage, engine(to_dot(lineage)))


def _read_layout(lineage: Lineage, drawing: dict[str, Any]) -> Layout:
    """Convert the output of ``dot -Tjson``, in points with y upwards, to a layout, in pixels with y downwards.

    Raises
    ------
    LayoutError
        If a position is missing in the output or is not valid.
    """
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
            (by_id[entry["tail"]], by_id[entry["head"]]): entry["pos"] for entry in drawing.get("edges", ()) if "pos" in entry
        }
        names = {node.key: f"n{place}" for place, node in enumerate(lineage.nodes)}
        routes = tuple(
            Route(
                edge,
                tuple(
                    (_round(x + shift_x), _round(shift_y - y)) for x, y in _spline(spline[names[edge.source], names[edge.target]])
                ),
            )
            for edge in drawn_edges(lineage)
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise LayoutError(f"Graphviz printed an invalid layout: {error!r}", remedy=_OTHER_VERSION) from error
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
    """Return the points of the first spline in `pos`. Graphviz describes an edge by an attribute ``pos``, which can contain several splines.

    A point that begins with ``s,`` or ``e,`` is the tip of an arrowhead. The one with ``s,`` replaces the first point, the one with ``e,`` the last.

    Raises
    ------
    ValueError
        If `pos` is not a spline.
    """
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

"""The drawing of a lineage as SVG, and the static picture, which is a MIME bundle with an image and a text.

The static picture and the live picture are drawn by the same functions. Colours are attributes of the SVG elements, so that the drawing has colours
even where no CSS is applied. The image in the static picture also contains CSS for dark themes. In the live picture, the CSS of the widget overrides
the colours with those of the notebook's theme. For this, the elements have CSS classes.

The smallest font size is 11 px. Text that does not fit into its card is cut, not scaled down.
"""

from __future__ import annotations

import base64
import math
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from stepwell.commands.lineage import (
    SYMBOLS,
    chip,
    footer,
    footer_as_text,
    group_words,
    headline,
    lineage_text,
    status_of,
    summary,
)
from stepwell.kernel_runtime.records.runs import Lineage, LineageNode
from stepwell.kernel_runtime.text import as_html
from stepwell.widgets.layout import (
    CARD_HEIGHT,
    CARD_WIDTH,
    GROUP_HEADER,
    Box,
    Layout,
    Point,
    Route,
    layout,
    members,
)

_FOOT = 25
_SMALL = 11
_NAME_WIDTH = 23
_TEXT_WIDTH = CARD_WIDTH - 20
_SANS = "system-ui,Segoe UI,DejaVu Sans,sans-serif"
_MONO = "ui-monospace,DejaVu Sans Mono,monospace"


class Colours(NamedTuple):
    """The colours of the cards with one status."""

    ink: str
    """The colour of the text in the footer."""
    tint: str
    """The background of the footer."""
    border: str
    """The colour of the border of the card."""


LIGHT: dict[str, Colours] = {
    "failed": Colours("#b3202c", "#fbe3e5", "#d1434e"),
    "missing": Colours("#57606a", "#f3f4f6", "#8c959f"),
    "unverifiable": Colours("#7340c4", "#f0e9fb", "#a37fe0"),
    "stale": Colours("#8a5d00", "#f5ecd8", "#b7811a"),
    "may change": Colours("#8a5d00", "#faf5e9", "#cfa75a"),
    "fresh": Colours("#1a6e35", "#e5f2e8", "#c3cbd3"),
    "queued": Colours("#33608f", "#eaf1f9", "#8fb2d9"),
    "running": Colours("#0a5cc2", "#dfebfb", "#1f73e0"),
    "source": Colours("#57606a", "#f6f7f8", "#c3cbd3"),
    "job": Colours("#57606a", "#f6f7f8", "#c3cbd3"),
}
DARK: dict[str, Colours] = {
    "failed": Colours("#ff7b72", "#3d2024", "#d0545a"),
    "missing": Colours("#a2abb5", "#23282e", "#6e7681"),
    "unverifiable": Colours("#bb9af5", "#2c2440", "#8565c0"),
    "stale": Colours("#e0ac45", "#352b17", "#a97f2a"),
    "may change": Colours("#d6b063", "#2b261b", "#7d6534"),
    "fresh": Colours("#57c271", "#1b2e22", "#3d444d"),
    "queued": Colours("#8fb8ea", "#1d2733", "#4a6d99"),
    "running": Colours("#6cb0ff", "#19283d", "#3b86e0"),
    "source": Colours("#a2abb5", "#1e2328", "#3d444d"),
    "job": Colours("#a2abb5", "#1e2328", "#3d444d"),
}
DASHES = {"stale": "5 3", "may change": "2 3", "source": "1.5 2.5", "missing": "7 4"}
"""Maps each status whose cards have dashed borders to the dash pattern. With the patterns, statuses can be told apart without colours."""


def lineage_svg(lineage: Lineage, *, geometry: Layout | None = None, live: bool = False) -> str:
    """Draw a lineage as SVG.

    Parameters
    ----------
    lineage
        The lineage.
    geometry
        The layout of the drawing; None to compute it.
    live
        False to draw a complete image. True to draw for the widget: the cards can be selected with the keyboard, and their states are left out,
        because the browser adds them. The drawing then changes only if cards or edges change.

    Returns
    -------
    str
        The SVG.
    """
    geometry = geometry or layout(lineage)
    size = f'width="{geometry.width:g}" height="{geometry.height:g}" viewBox="0 0 {geometry.width:g} {geometry.height:g}"'
    name = f"Lineage: {headline(lineage)}"
    role = 'role="group" aria-label="Lineage"' if live else f'role="img" aria-label="{clean(name)}"'
    body = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="sw-svg" {role} font-family="{_SANS}" font-size="{_SMALL}">']
    if not live:
        body.append(f"<title>{clean(name)}</title><style>{_dark_style()}</style>")
        body.append(f'<rect class="sw-page" width="{geometry.width:g}" height="{geometry.height:g}" rx="8" fill="#ffffff"/>')
    boxed = members(lineage.nodes)
    body += [_group(parent, box, boxed.get(parent, []), live=live) for parent, box in geometry.groups.items()]
    body += [_arrow(route) for route in geometry.routes]
    body += [_card(node, geometry.cards[node.key], live=live) for node in lineage.nodes]
    body.append("</svg>")
    return "".join(body)


def clean(text: str) -> str:
    """Return `text` escaped for use in XML elements and attributes. Control characters and invisible characters become visible escapes."""
    return as_html(text.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd"))


def shorten(text: str, width: int) -> str:
    """Return `text` shortened to at most `width` columns: an ellipsis replaces its middle. Wide characters, such as Chinese ones, take two columns."""
    text = " ".join(text.split())
    if _columns(text) <= width:
        return text
    tail = text[-(width // 3) :]
    while _columns(tail) > width // 3:
        tail = tail[1:]
    head = text[:width]
    while head and _columns(head) + 1 + _columns(tail) > width:
        head = head[:-1]
    return f"{head}…{tail}"


def _columns(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str, width: float) -> str:
    """Return `text` in one line. If it is wider than `width` pixels in the smallest font size, cut its end, and add an ellipsis."""
    text = " ".join(text.split())
    if _pixels(text) <= width:
        return text
    while text and _pixels(text) > width - _SMALL:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _pixels(text: str) -> float:
    """Return an upper bound for the width of `text` in pixels, in the smallest font size and the widest of the common sans-serif fonts."""
    return _SMALL * sum(_em(c) for c in text)


def _em(c: str) -> float:
    if unicodedata.combining(c):
        return 0.0
    if unicodedata.east_asian_width(c) in "WF" or c in "mwMW%@…—":
        return 1.0
    if c in " iIjl|!.,:;'":
        return 0.38
    if c in "frt()[]/-·":
        return 0.46
    return 0.64 if c.islower() or c.isdigit() else 0.84


def _card(node: LineageNode, box: Box, *, live: bool) -> str:
    status = status_of(node)
    colours = LIGHT["source" if live else status]
    footer_text = "" if live else f"{SYMBOLS[status]} {_cut(footer_as_text(footer(node)), _TEXT_WIDTH)}"
    below = "" if live else _cut(summary(node), _TEXT_WIDTH)
    dash = f' stroke-dasharray="{DASHES[status]}"' if status in DASHES and not live else ""
    name = clean(shorten(node.label or node.key, _NAME_WIDTH))
    letters = clean(chip(node))
    chip_width = max(34, 7 * len(letters) + 12)
    reach = ' tabindex="-1" role="button" aria-pressed="false"' if live else ""
    status_attribute = "" if live else f' data-status="{status}"'
    full = clean(node.key)
    middle = 9 + chip_width / 2
    w, h, foot = CARD_WIDTH, CARD_HEIGHT, CARD_HEIGHT - _FOOT
    return (
        f'<g class="sw-node" data-key="{full}" data-kind="{node.kind}"{status_attribute}{reach} transform="translate({box.x:g} {box.y:g})">'
        f"<title>{full}</title>"
        f'<rect class="sw-card" width="{w}" height="{h}" rx="6" fill="#ffffff"/>'
        f'<path class="sw-foot" d="M0 {foot}H{w}V{h - 6}a6 6 0 0 1 -6 6H6a6 6 0 0 1 -6 -6Z" fill="{colours.tint}"/>'
        f'<rect class="sw-border" width="{w}" height="{h}" rx="6" fill="none" stroke="{colours.border}"{dash}/>'
        f'<rect class="sw-chip" x="9" y="9" width="{chip_width}" height="17" rx="4" fill="#f3f4f6" stroke="#d0d7de"/>'
        f'<text class="sw-chip-text" x="{middle:g}" y="21.5" text-anchor="middle" font-weight="700" font-family="{_MONO}" fill="#57606a">{letters}</text>'
        f'<text class="sw-name" x="{17 + chip_width}" y="21.8" font-size="12" font-weight="700" font-family="{_MONO}" fill="#1f2328">{name}</text>'
        f'<text class="sw-summary" x="10" y="42" fill="#57606a">{clean(below)}</text>'
        f'<text class="sw-foot-text" x="10" y="{h - 8}" fill="{colours.ink}">{clean(footer_text)}</text>'
        "</g>"
    )


def _group(parent: str, box: Box, nodes: list[LineageNode], *, live: bool) -> str:
    header = "" if live else group_words([status_of(node) for node in nodes])
    room = box.width - 31
    name = shorten(parent, max(8, int(room / 2 / 7)))
    return (
        f'<g class="sw-group" data-group="{clean(parent)}"><title>{clean(parent)}</title>'
        f'<rect class="sw-group-box" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="8" fill="#f6f8fc" stroke="#c9d1dc"/>'
        f'<text x="{box.x + 12:g}" y="{box.y + GROUP_HEADER - 8:g}"><tspan class="sw-name" font-size="11.5" font-weight="700" font-family="{_MONO}" fill="#1f2328">{clean(name)}</tspan>'
        f'<tspan class="sw-group-text" dx="7" fill="#57606a">{clean(_cut(header, room - 7 * _columns(name)))}</tspan></text></g>'
    )


def _arrow(route: Route) -> str:
    points = list(route.points)
    tip, before = points[-1], next((p for p in reversed(points[:-1]) if p != points[-1]), points[0])
    angle = math.atan2(tip[1] - before[1], tip[0] - before[0])
    base = _moved_point(tip, angle, 7.5)
    wings = [_moved_point(base, angle + turn, 3.6) for turn in (math.pi / 2, -math.pi / 2)]
    points[-1] = _moved_point(tip, angle, 6)
    start, *rest = (f"{x:g} {y:g}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if route.edge.kind == "order" else ""
    corners = " ".join(f"{x:g},{y:g}" for x, y in (tip, *wings))
    return (
        f'<g class="sw-edge" data-kind="{route.edge.kind}" data-source="{clean(route.edge.source)}" data-target="{clean(route.edge.target)}">'
        f'<path d="M{start}C{" ".join(rest)}" fill="none" stroke="#8c959f" stroke-width="1.3"{dash}/>'
        f'<polygon points="{corners}" fill="#8c959f"/></g>'
    )


def _moved_point(point: Point, angle: float, distance: float) -> Point:
    return round(point[0] - distance * math.cos(angle), 1), round(point[1] - distance * math.sin(angle), 1)


def status_style() -> str:
    """Return CSS that defines variables with the colours of each status, for light and dark themes, and applies them to the live picture."""

    def variables(colours: Mapping[str, Colours]) -> str:
        return "".join(
            f"--sw-{status.replace(' ', '-')}-{part}:{value};"
            for status, all_three in colours.items()
            for part, value in all_three._asdict().items()
        )

    used = "".join(
        f'.sw-live [data-status="{status}"]{{--sw-ink:var(--sw-{name}-ink);--sw-tint:var(--sw-{name}-tint);--sw-border:var(--sw-{name}-border)}}'
        for status, name in ((status, status.replace(" ", "-")) for status in LIGHT)
    )
    return f'.sw-live{{{variables(LIGHT)}}}:is([data-jp-theme-light="false"],.vscode-dark) .sw-live{{{variables(DARK)}}}{used}'


def _dark_style() -> str:
    rules = [
        ".sw-page{fill:#0f1216}.sw-card{fill:#1a1f25}.sw-chip{fill:#262c33;stroke:#3d444d}.sw-chip-text,.sw-summary,.sw-group-text{fill:#a2abb5}",
        ".sw-name{fill:#f0f3f6}.sw-group-box{fill:#151a20;stroke:#3d444d}.sw-edge path{stroke:#7d8590}.sw-edge polygon{fill:#7d8590}",
    ]
    for status, colours in DARK.items():
        selector = f'[data-status="{status}"]'
        rules.append(
            f"{selector} .sw-foot{{fill:{colours.tint}}}{selector} .sw-foot-text{{fill:{colours.ink}}}{selector} .sw-border{{stroke:{colours.border}}}"
        )
    return f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"


_STYLE = (
    '[data-jp-theme-light="false"] .sw-static img{color-scheme:dark}'
    '[data-jp-theme-light="true"] .sw-static img{color-scheme:light}'
)
_VIEW = '.jp-OutputArea-output:not([data-mime-type]),[data-mime-type="application/vnd.jupyter.widget-view+json"]'
_BESIDE = f".jp-OutputArea-child:has(>:is({_VIEW})):not(:has(.sw-live)):has(+.jp-OutputArea-child .sw-beside){{display:none}}"
"""CSS that hides the output above the static picture if this output is a widget without a kernel. Such a widget shows an error or never
finishes loading."""


def static_bundle(lineage: Lineage, *, is_extra: bool = False) -> dict[str, str]:
    """Return a MIME bundle that shows the lineage in every viewer of notebooks.

    The HTML contains the SVG as an image, because viewers remove inline SVG from notebooks that the user does not trust. An image that does not fit
    can be scrolled. Times are absolute, so that the output does not change if the notebook runs again and computes nothing.

    Parameters
    ----------
    lineage
        The lineage.
    is_extra
        True if the output above the static picture is the live picture. The HTML then hides that output in viewers that cannot show the widget.

    Returns
    -------
    dict
        The HTML and the text, by MIME type.
    """
    image = base64.b64encode(lineage_svg(lineage).encode()).decode()
    alternative = clean(f"Lineage: {headline(lineage)}")
    html = (
        f'<div class="sw-static{" sw-beside" if is_extra else ""}" style="overflow:auto;max-height:600px">'
        f"<style>{_STYLE}{_BESIDE if is_extra else ''}</style>"
        f'<img alt="{alternative}" style="max-width:none" src="data:image/svg+xml;base64,{image}"></div>'
    )
    return {"text/plain": lineage_text(lineage), "text/html": html}

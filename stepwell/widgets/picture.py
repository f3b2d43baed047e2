"""The lineage where no widget can live: as an image, and as text."""

from __future__ import annotations

import base64

from stepwell.kernel_runtime.records.lineage import Lineage, LineageNode
from stepwell.kernel_runtime.text import in_one_line
from stepwell.widgets.layout import drawn_edges
from stepwell.widgets.states import KINDS, SYMBOLS, footer, status_of, written
from stepwell.widgets.svg import clean, headline, lineage_svg

_STYLE = (
    '[data-jp-theme-light="false"] .sw-static img{color-scheme:dark}'
    '[data-jp-theme-light="true"] .sw-static img{color-scheme:light}'
)
_VIEW = '.jp-OutputArea-output:not([data-mime-type]),[data-mime-type="application/vnd.jupyter.widget-view+json"]'
_BESIDE = (
    f".jp-OutputArea-child:has(>:is({_VIEW})):not(:has(.sw-live)):has(+.jp-OutputArea-child .sw-beside){{display:none}}"
)
"""A saved view whose kernel is gone shows an error, or waits for ever; the picture stands for it."""


def static_bundle(lineage: Lineage, *, beside: bool = False) -> dict[str, str]:
    """Return a MIME bundle that shows the lineage wherever notebooks are shown.

    ``text/html`` has the picture as an image (a notebook that is not trusted shows no inline SVG), ``text/plain`` the same
    as text. The image scrolls where it does not fit. Times are absolute, so that a notebook's diff stays quiet.

    Parameters
    ----------
    beside
        Whether the output just before it is the live picture, which this one replaces where that cannot be shown.
    """
    image = base64.b64encode(lineage_svg(lineage).encode()).decode()
    alternative = clean(f"Lineage: {headline(lineage)}")
    html = (
        f'<div class="sw-static{" sw-beside" if beside else ""}" style="overflow:auto;max-height:600px">'
        f"<style>{_STYLE}{_BESIDE if beside else ''}</style>"
        f'<img alt="{alternative}" style="max-width:none" src="data:image/svg+xml;base64,{image}"></div>'
    )
    return {"text/plain": lineage_text(lineage), "text/html": html}


def lineage_text(lineage: Lineage) -> str:
    """Return the lineage as a tree: each card once, below the upstream that it waits for longest, further ones named."""
    if not lineage.nodes:
        return "Lineage: nothing is defined yet"
    nodes = {node.key: node for node in lineage.nodes}
    inputs: dict[str, list[str]] = {key: [] for key in nodes}
    for edge in drawn_edges(lineage):
        inputs[edge.target].append(edge.source)
    depth = _depths(inputs)
    below: dict[str | None, list[str]] = {}
    for key in nodes:
        candidates = [source for source in inputs[key] if depth[source] < depth[key]]
        below.setdefault(max(candidates, key=lambda source: depth[source]) if candidates else None, []).append(key)
    rows: list[tuple[str, LineageNode, list[str]]] = []
    ahead = [("", "", key, None) for key in reversed(below.get(None, []))]
    stack: list[tuple[str, str, str, str | None]] = list(ahead)
    while stack:
        prefix, branch, key, parent = stack.pop()
        rows.append(
            (
                prefix + branch + _plain(nodes[key].label or key),
                nodes[key],
                [source for source in inputs[key] if source != parent],
            )
        )
        children = below.get(key, [])
        deeper = prefix + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for place, child in reversed(list(enumerate(children))):
            stack.append((deeper, "└─ " if place == len(children) - 1 else "├─ ", child, key))
    width = min(48, max(len(name) for name, _, _ in rows))
    lines = [f"Lineage: {headline(lineage)}"]
    for name, node, others in rows:
        said = [f"{SYMBOLS[status_of(node)]} {_plain(written(footer(node)))}", KINDS.get(node.kind, node.kind)]
        said += [_plain(node.summary)] if node.summary else []
        said += ["also from " + ", ".join(_plain(nodes[other].label or other) for other in others)] if others else []
        lines.append(f"{name.ljust(width)}  {' · '.join(said)}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return text on one line without characters that steer a terminal."""
    return in_one_line(" ".join(text.split()))


def _depths(inputs: dict[str, list[str]]) -> dict[str, int]:
    """Return the longest way to each key; keys on a cycle keep what is known when it is met."""
    depth: dict[str, int] = {}
    for root in inputs:
        stack = [root]
        waiting: set[str] = set()
        while stack:
            key = stack[-1]
            missing = [source for source in inputs[key] if source not in depth and source not in waiting]
            if key in depth or not missing:
                stack.pop()
                depth.setdefault(key, 1 + max((depth.get(source, -1) for source in inputs[key]), default=-1))
            else:
                waiting.add(key)
                stack.append(missing[0])
    return depth

"""``lineage``: the graph of assets and steps with their states, as text; the notebook shows it as a picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stepwell.commands.cards import KINDS, SYMBOLS, drawn_edges, footer, headline, status_of, upstream_of, written
from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.records.events import Lineage, LineageNode
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.text import in_one_line


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


def _data(lineage: Lineage) -> dict[str, Any]:
    return {"nodes": [asdict(node) for node in lineage.nodes], "edges": [asdict(edge) for edge in lineage.edges]}


@command(
    options={"keys": Option(completes="steps")}, definitions="required", text=lineage_text, data=_data, displayed=True
)
def lineage(*keys: str, store: AnyStore = None) -> Lineage:
    """Show the graph of assets, their steps and their states.

    Parameters
    ----------
    keys
        Assets, steps and jobs that are shown with everything upstream of them; by default everything.
    store
        A store directory or an open store; by default the session's.

    Raises
    ------
    UnknownKeyError
        If one of the keys is not defined.
    """
    session = get_session()
    return upstream_of(session.inspect(store=store).lineage(), keys or None)

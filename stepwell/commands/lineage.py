"""The command ``lineage``, and functions that return the contents of the cards.

The lineage is the graph of assets and steps with their states. The command line prints it as a tree; notebooks show it as a picture
(`stepwell.widgets`). Both show the same cards: one for each step, source asset and job. A card shows a status with its symbol, the time and
duration of the step's last execution, and the reason for the status. The status of a step is its state or, during a run, ``queued`` or
``running``. Source assets and jobs have no state: their status is their kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from stepwell.commands.command import Option, command
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.errors import unknown_key
from stepwell.kernel_runtime.records.runs import Lineage, LineageEdge, LineageNode
from stepwell.kernel_runtime.session.requests import AnyStore
from stepwell.kernel_runtime.text import duration, in_one_line, moment


def lineage_text(lineage: Lineage) -> str:
    """Return the lineage as a tree of text lines, one for each card.

    In the tree, the parent of a card is the upstream card that is deepest in the graph. The line of the card names its other upstream cards.
    """
    if not lineage.nodes:
        return "Lineage: nothing is defined yet"
    nodes = {node.key: node for node in lineage.nodes}
    inputs: dict[str, list[str]] = {key: [] for key in nodes}
    for edge in drawn_edges(lineage):
        inputs[edge.target].append(edge.source)
    depth = _depths(inputs)
    lines_by_parent: dict[str | None, list[str]] = {}
    for key in nodes:
        candidates = [source for source in inputs[key] if depth[source] < depth[key]]
        lines_by_parent.setdefault(max(candidates, key=lambda source: depth[source]) if candidates else None, []).append(key)
    rows: list[tuple[str, LineageNode, list[str]]] = []
    ahead = [("", "", key, None) for key in reversed(lines_by_parent.get(None, []))]
    stack: list[tuple[str, str, str, str | None]] = list(ahead)
    while stack:
        prefix, branch, key, parent = stack.pop()
        rows.append(
            (
                prefix + branch + _plain_text(nodes[key].label or key),
                nodes[key],
                [source for source in inputs[key] if source != parent],
            )
        )
        children = lines_by_parent.get(key, [])
        deeper = prefix + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for place, child in reversed(list(enumerate(children))):
            stack.append((deeper, "└─ " if place == len(children) - 1 else "├─ ", child, key))
    width = min(48, max(len(name) for name, _, _ in rows))
    lines = [f"Lineage: {headline(lineage)}"]
    for name, node, others in rows:
        facts = [
            f"{SYMBOLS[status_of(node)]} {_plain_text(footer_as_text(footer(node)))}",
            KINDS.get(node.kind, node.kind),
        ]
        facts += [_plain_text(node.summary)] if node.summary else []
        facts += ["also from " + ", ".join(_plain_text(nodes[other].label or other) for other in others)] if others else []
        lines.append(f"{name.ljust(width)}  {' · '.join(facts)}")
    return "\n".join(lines)


def _plain_text(text: str) -> str:
    """Return a text as one line in which control characters are escaped."""
    return in_one_line(" ".join(text.split()))


def _depths(inputs: dict[str, list[str]]) -> dict[str, int]:
    """Return, by key, the number of edges on the longest path that begins at a key without inputs and ends at this key.

    Edges that close a cycle are ignored.

    Parameters
    ----------
    inputs
        Maps each key to the keys directly upstream of it.
    """
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


@command(options={"keys": Option(completes="steps")}, definitions="required", text=lineage_text, data=_data, displayed=True)
def lineage(*keys: str, store: AnyStore = None) -> Lineage:
    """Show the graph of assets and their steps, with the state of each step.

    Parameters
    ----------
    keys
        The keys of assets, steps or jobs. They are shown with everything upstream of them; by default all definitions are shown.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Lineage
        The cards and the edges between the cards.

    Raises
    ------
    UnknownKeyError
        If one of the keys is not defined in this process.
    """
    session = get_session()
    return upstream_of(session.inspect(store=store).lineage(), keys or None)


Status: TypeAlias = Literal[
    "failed", "missing", "unverifiable", "stale", "may change", "fresh", "queued", "running", "source", "job"
]

SYMBOLS: dict[str, str] = {
    "failed": "✕",
    "missing": "○",
    "unverifiable": "◍",
    "stale": "◌",
    "may change": "◔",
    "fresh": "●",
    "queued": "◦",
    "running": "◐",
    "source": "◇",
    "job": "▷",
}
"""The symbol of each status, so that statuses can be distinguished without colours."""

ATTENTION: tuple[Status, ...] = ("running", "queued", "failed", "missing", "unverifiable", "stale", "may change")
"""The statuses that the headline of a lineage or of a graph-backed asset counts, in this order. The others are ``fresh``, ``source`` and ``job``."""

CHIPS: dict[str, str] = {"asset": "PY", "sql_asset": "SQL", "op": "OP", "source": "SRC", "job": "JOB"}
"""The abbreviations that the picture shows for kinds of definitions."""

KINDS: dict[str, str] = {
    "asset": "asset",
    "multi_asset": "multi-asset",
    "sql_asset": "SQL asset",
    "op": "op",
    "source": "source asset",
    "job": "job",
}
"""The names that texts use for kinds of definitions."""

Part: TypeAlias = str | dict[str, float]
"""An element of a card's footer: a text, or a time in seconds since the epoch.

``{"at": TIME}`` is the time of an execution. ``{"since": TIME}`` is the start of a running step; the live picture shows the time elapsed since then.
"""


def status_of(node: LineageNode) -> Status:
    """Return the status of a card while no run is active: the state of its step, or ``source`` or ``job``."""
    if node.state is not None:
        return node.state
    return "job" if node.kind == "job" else "source"


def outdated(lineage: Lineage) -> list[str]:
    """Return the keys of the assets that a run can make fresh, in the order of the cards.

    These are the assets with a step whose state is failed, missing, stale or *may change*.
    """
    wanted = [node for node in lineage.nodes if node.state in {"failed", "missing", "stale", "may change"}]
    return list(dict.fromkeys(asset for node in wanted for asset in assets_of(node)))


def counts(statuses: Iterable[str]) -> dict[str, int]:
    """Return the number of cards with each status; the statuses in `ATTENTION` come first."""
    number_by_status: dict[str, int] = {}
    for status in statuses:
        number_by_status[status] = number_by_status.get(status, 0) + 1
    order: dict[str, int] = {status: place for place, status in enumerate((*ATTENTION, "fresh"))}
    return dict(sorted(number_by_status.items(), key=lambda item: order.get(item[0], len(order))))


def group_words(statuses: Sequence[str]) -> str:
    """Return the headline of a graph-backed asset from the statuses of its steps, for example ``graph-backed asset · 2 steps · 1 failed``."""
    rest = [f"{number} {status}" for status, number in counts(statuses).items() if status in ATTENTION]
    return " · ".join(["graph-backed asset", f"{len(statuses)} step{'s' * (len(statuses) != 1)}", *rest])


def assets_of(node: LineageNode) -> list[str]:
    """Return the keys of the assets that a card belongs to: its graph-backed asset, the assets of its multi-asset, or its own key."""
    return [node.parent] if node.parent else list(node.assets) or [node.key]


def chip(node: LineageNode) -> str:
    """Return the abbreviation of a card's kind, for example ``PY`` for a Python asset, or ``×2`` for a multi-asset with two assets."""
    return f"×{max(2, len(node.assets))}" if node.kind == "multi_asset" else CHIPS.get(node.kind, "PY")


def footer(node: LineageNode) -> list[Part]:
    """Return the footer of a card while no run is active: the status, followed by its reason or by the time and duration of the last execution."""
    parts: list[Part] = [status_of(node).capitalize()]
    if node.state == "failed":
        parts.append(node.error or node.reason)
    elif node.state in {"missing", "unverifiable", "stale", "may change"}:
        parts.append(node.reason)
    if node.created is not None and node.state in {None, "fresh"}:
        parts.append({"at": node.created})
    if node.seconds is not None and node.state == "fresh":
        parts.append(duration(node.seconds))
    return [part for part in parts if part]


def footer_as_text(parts: Sequence[Part]) -> str:
    """Return a footer as text. Times are absolute, so that they stay correct in a saved notebook."""
    return " · ".join(part if isinstance(part, str) else moment(next(iter(part.values()))) for part in parts)


def node_state(node: LineageNode) -> dict[str, Any]:
    """Return, as JSON values, the contents of a card that change while the live picture is shown: status, footer, summary, reason and error."""
    return {
        "status": status_of(node),
        "footer": footer(node),
        "summary": summary(node),
        "reason": node.reason,
        "error": node.error,
    }


def summary(node: LineageNode) -> str:
    """Return the line below the name on a card: the keys of a multi-asset's assets, the summary of a value, or what a source asset or job is."""
    if node.kind == "multi_asset" and node.assets:
        return ", ".join(node.assets)
    return node.summary or {"source": "read, not computed here", "job": "runs on request"}.get(node.kind, "")


def upstream_of(lineage: Lineage, keys: Sequence[str] | None) -> Lineage:
    """Return the cards of some assets, steps or jobs with everything upstream of them, and the edges between these cards.

    Parameters
    ----------
    lineage
        The lineage that contains the cards.
    keys
        The keys of the assets, steps or jobs; None returns the lineage unchanged.

    Raises
    ------
    UnknownKeyError
        If a key has no card.
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
    selected: set[str] = set()
    for key in keys:
        if key not in named:
            raise unknown_key("asset, step or job", key, named)
        ahead = list(named[key])
        while ahead:
            card = ahead.pop()
            if card not in selected:
                selected.add(card)
                ahead += upstream.get(card, ())
    return Lineage(
        tuple(node for node in lineage.nodes if node.key in selected),
        tuple(edge for edge in lineage.edges if edge.source in selected and edge.target in selected),
    )


def headline(lineage: Lineage) -> str:
    """Return the number of steps and, for each status in `ATTENTION`, the number of cards, for example ``11 steps · 3 stale · 1 failed``."""
    steps = sum(node.state is not None for node in lineage.nodes)
    number_by_status = counts(status_of(node) for node in lineage.nodes)
    rest = [f"{number} {status}" for status, number in number_by_status.items() if status in ATTENTION]
    return " · ".join([f"{steps} step{'s' * (steps != 1)}", *rest])


def drawn_edges(lineage: Lineage) -> list[LineageEdge]:
    """Return the edges of a lineage that are drawn, each once. Edges from a card to itself, and from or to a key without a card, are left out."""
    known = {node.key for node in lineage.nodes}
    seen = dict.fromkeys(e for e in lineage.edges if e.source in known and e.target in known and e.source != e.target)
    return list(seen)

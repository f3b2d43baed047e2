"""The lineage as data: what the widgets draw and ``%stepwell status`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["failed", "missing", "unverifiable", "stale", "may change", "fresh"]
NodeKind: TypeAlias = Literal["asset", "multi_asset", "sql_asset", "op", "source", "job"]


@dataclass(frozen=True, slots=True)
class LineageNode:
    """One card: an asset computed by one op, an op inside a graph-backed asset, a source asset, or a job."""

    key: str
    """The step key for what can be run, the asset key of a source, the name of a job."""
    label: str
    kind: NodeKind
    state: State | None
    """None for sources and jobs."""
    assets: tuple[str, ...] = ()
    """The asset keys that the step computes where that is not just ``key``: those of a multi-asset."""
    group: str = "default"
    parent: str = ""
    """The graph-backed asset that an op belongs to; empty otherwise."""
    reason: str = ""
    """The smallest true cause of the state in a few words: ``split() changed``."""
    summary: str = ""
    """Shape, size or type of the current value: ``336,776 × 19 · 41.0 MB``."""
    seconds: float | None = None
    """How long the current value took."""
    created: float | None = None
    """When the current value was made, seconds since the epoch."""
    error: str = ""
    """``KeyError: 'carrier'`` of a failed attempt."""
    where: str = ""
    """Where it is defined: ``cell 14``."""
    description: str = ""
    code: str = ""
    """Source of the definition."""


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """One dependency between two cards."""

    source: str
    target: str
    kind: Literal["value", "order"] = "value"


@dataclass(frozen=True, slots=True)
class Lineage:
    """The whole picture."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]

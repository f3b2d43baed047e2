"""Data for front ends: the events of a run while it goes on, and the lineage.

A step's end is published after its rows are committed, so a subscriber never reports work that can still be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick
from stepwell.kernel_runtime.records.runs import Claimant, LogRecord, RunRecord, StepRecord


@dataclass(frozen=True, slots=True)
class Notice:
    """A fact that a person may want to know. The faces choose its wording (`stepwell.commands.wording.notice_text`).

    Attributes
    ----------
    kind
        What it is about: ``network``, ``unrestored``, ``stale input``, ...
    key
        The step, asset or store that it is about.
    facts
        What is to be said, by name, as plain values.
    """

    kind: str
    key: str = ""
    facts: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.facts)[name]


Notify: TypeAlias = Callable[[Notice], None]


def notice(kind: str, key: str = "", **facts: Any) -> Notice:
    """Return a notice; facts are texts, numbers and tuples of them."""
    return Notice(kind, key, tuple(facts.items()))


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over and about to return: published in the thread that runs it, with the result and the exception that will be raised, if any."""

    result: Any
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run was planned and begins."""

    run: RunRecord
    steps: tuple[str, ...]
    """Keys of the plan's steps in the order in which they may run."""


@quick
@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step's body begins."""

    run_id: str
    key: str
    position: int
    """One-based position among the steps of the plan."""
    total: int
    expected_seconds: float | None
    """How long it took the last time; None where that is unknown."""


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """A step is not begun because another process computes the same; once for each that is waited for."""

    run_id: str
    key: str
    position: int
    total: int
    claimant: Claimant
    """The process that computes it."""
    expected_seconds: float | None
    """How long it took the last time; None where that is unknown."""


@quick
@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step ended, or was found in the store; its rows are committed."""

    step: StepRecord


@dataclass(frozen=True, slots=True)
class StepLogged:
    """A step wrote a line with ``context.log``."""

    log: LogRecord


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ended and everything is committed."""

    run: RunRecord
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, slots=True)
class DefinitionsChanged:
    """Definitions were registered or withdrawn."""

    keys: tuple[str, ...]


Event: TypeAlias = (
    Notice
    | RunEnded
    | RunStarted
    | StepStarted
    | StepWaiting
    | StepFinished
    | StepLogged
    | RunFinished
    | DefinitionsChanged
)
Subscriber: TypeAlias = Callable[[Event], None]


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

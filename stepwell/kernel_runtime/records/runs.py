"""Runs and their steps: what happened, what the steps printed and displayed, who computes a step now, and what a new run reads first.

A `Snapshot` is read from the catalog by one query at the start of a run, so that no step needs a statement of its own.

Front ends get events while a run goes on, and the lineage. A step's end is published after its rows are committed, so a subscriber never reports work that can still be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick
from stepwell.kernel_runtime.records.materializations import Current, Materialization


@dataclass(frozen=True, slots=True)
class Claimant:
    """A process that computes a step. Fields are empty or zero where the file did not say."""

    notebook: str = ""
    """The notebook, script or module that started the run."""
    pid: int = 0
    host: str = ""
    since: float = 0.0
    """When it began with the step, in seconds since the epoch."""


OutputKind: TypeAlias = Literal["stream", "display_data", "update_display_data", "clear_output", "signature"]


@dataclass(frozen=True, slots=True)
class CapturedOutput:
    """One output in the notebook format's terms."""

    kind: OutputKind
    stream: str = ""
    """``stdout`` or ``stderr`` for a stream."""
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """The MIME bundle of a display."""
    metadata: dict[str, Any] = field(default_factory=dict)


RunStatus: TypeAlias = Literal["running", "success", "failure", "cancelled", "interrupted"]
StepStatus: TypeAlias = Literal["executed", "reused", "failed", "skipped", "untouched", "cancelled"]
RunKind: TypeAlias = Literal["assets", "job"]
FORCED = "it was forced"
"""The reason of a step that ran because the request said so."""


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An exception of the user's code, as far as it can be kept."""

    name: str
    """The exception's class: ``KeyError``."""
    message: str
    traceback: str = ""
    """Formatted, without frames of the engine."""
    where: str = ""
    """The innermost frame of the user's code: ``cell 14, line 3``."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of a plan."""

    run_id: str
    kind: RunKind
    notebook: str
    """The notebook, script or module that started it."""
    targets: tuple[str, ...]
    """The asset or step keys that were asked for; for a job, its name."""
    status: RunStatus
    started: float
    """Seconds since the epoch."""
    ended: float | None = None
    batch: str = ""
    """The batch execution that it belongs to; empty in an interactive kernel."""
    parent_run_id: str = ""
    root_run_id: str = ""
    error: ErrorRecord | None = None
    process: str = ""
    """The process that executes it, as ``host/boot/pid/start``: a run whose process is gone was interrupted."""


@quick
@dataclass(frozen=True, slots=True)
class StepRecord:
    """The outcome of one step in one run."""

    run_id: str
    key: str
    status: StepStatus
    started: float
    """Seconds since the epoch; 0.0 for a step that was never begun."""
    seconds: float = 0.0
    """How long the body ran; 0.0 where it did not."""
    memo_key: str = ""
    materializations: tuple[Materialization, ...] = ()
    """Of an executed step those it made, of a reused one those it found."""
    error: ErrorRecord | None = None
    reason: str = ""
    """Why it ran, in a few words, or for a job's step which outputs were not kept."""
    not_kept: tuple[str, ...] = ()
    """Outputs of a job's step that could not be stored, each as ``output: type``."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line that a step wrote with ``context.log``."""

    run_id: str
    step_key: str
    time: float
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The newest attempt at a step, where that failed."""

    run_id: str
    memo_key: str
    error: ErrorRecord | None
    started: float
    seconds: float


@dataclass(slots=True)
class Snapshot:
    """The catalog's rows for a set of steps, as they were at one moment."""

    by_memo_key: dict[str, list[tuple[Materialization, ...]]] = field(default_factory=dict)
    """For each memo key the executions that have it, newest first; each is one materialization per output."""
    current: dict[str, list[Current]] = field(default_factory=dict)
    """For each key, what is current in each notebook that defined it; newest first."""
    failures: dict[str, FailedAttempt] = field(default_factory=dict)
    """By step key; absent where the newest attempt did not fail."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By step key, how long the newest execution took."""
    missing_files: frozenset[str] = frozenset()
    """Names of objects that a row refers to but whose file is gone."""
    foreign: dict[str, str] = field(default_factory=dict)
    """By the id of a materialization whose value another user's key signed: which key, as people compare it."""
    epoch: int = 0
    """The number of the catalog's state that was read; `ValueStore.is_newest` compares it."""

    def take(self, later: Snapshot) -> None:
        """Take over what a later snapshot knows of the steps and keys that it was asked for; the rest stays as it was."""
        self.by_memo_key.update(later.by_memo_key)
        self.current.update(later.current)
        seen = list(later.materializations())
        names = {item.value.object_name for item in seen if item.value is not None}
        self.missing_files = (self.missing_files - names) | later.missing_files
        for item in seen:
            self.foreign.pop(item.id, None)
        self.foreign.update(later.foreign)

    def materializations(self) -> Iterator[Materialization]:
        """Yield every materialization in it, some of them more than once."""
        for executions in self.by_memo_key.values():
            for made in executions:
                yield from made
        for pointers in self.current.values():
            for each in pointers:
                yield each.materialization


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

"""Runs and their steps: outcomes, captured output, claims, the snapshot for a new run, events, and the lineage.

A `Snapshot` is read from the catalog once at the start of a run, so that no step needs a separate query.

Front ends receive events during a run. The end of a step is published after its rows are committed, so that no front end reports work that
can still be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick_init
from stepwell.kernel_runtime.records.materializations import Current, Materialization


@dataclass(frozen=True, slots=True)
class Claimant:
    """A process that computes a step. A field that is missing in the process's claim file is empty or zero."""

    notebook: str = ""
    """The notebook, script or module that started the run."""
    pid: int = 0
    host: str = ""
    since: float = 0.0
    """When the process began the step, in seconds since the epoch."""


OutputKind: TypeAlias = Literal["stream", "display_data", "update_display_data", "clear_output", "signature"]


@dataclass(frozen=True, slots=True)
class CapturedOutput:
    """One recorded output of a step, as in the notebook format."""

    kind: OutputKind
    stream: str = ""
    """``stdout`` or ``stderr`` for a stream; empty for a display."""
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """The MIME bundle of a display."""
    metadata: dict[str, Any] = field(default_factory=dict)


RunStatus: TypeAlias = Literal["running", "success", "failure", "cancelled", "interrupted"]
StepStatus: TypeAlias = Literal["executed", "reused", "failed", "skipped", "untouched", "cancelled"]
RunKind: TypeAlias = Literal["assets", "job"]
FORCED = "it was forced"
"""The reason of a step that ran because the request forced it."""


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An exception of the user's code, as text."""

    name: str
    """The class of the exception: ``KeyError``."""
    message: str
    traceback: str = ""
    """The formatted traceback, without frames of the engine."""
    where: str = ""
    """The innermost frame of the user's code: ``cell 14, line 3``."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of a plan."""

    run_id: str
    kind: RunKind
    notebook: str
    """The notebook, script or module that started the run."""
    targets: tuple[str, ...]
    """The requested asset or step keys; for a job, its name."""
    status: RunStatus
    started: float
    """The start in seconds since the epoch."""
    ended: float | None = None
    batch: str = ""
    """The batch execution to which the run belongs; empty in an interactive kernel."""
    parent_run_id: str = ""
    root_run_id: str = ""
    error: ErrorRecord | None = None
    process: str = ""
    """The process that executes the run, as ``host/boot/pid/start``. If it no longer exists, the run was interrupted."""


@quick_init
@dataclass(frozen=True, slots=True)
class StepRecord:
    """The outcome of one step in one run."""

    run_id: str
    key: str
    status: StepStatus
    started: float
    """The start in seconds since the epoch; 0.0 for a step that never began."""
    seconds: float = 0.0
    """The duration of the body in seconds; 0.0 if it did not run."""
    memo_key: str = ""
    materializations: tuple[Materialization, ...] = ()
    """Materializations that the step made or, for a reused step, reused."""
    error: ErrorRecord | None = None
    reason: str = ""
    """Why the step ran although its memo key was unchanged; empty if the memo key had changed, and for most steps of jobs."""
    not_kept: tuple[str, ...] = ()
    """Outputs of a job's step or an asset's cell that could not be stored, each as ``output: `` and the reason or the type."""


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
    """The newest attempt at a step, if it failed."""

    run_id: str
    memo_key: str
    error: ErrorRecord | None
    started: float
    seconds: float


@dataclass(slots=True)
class Snapshot:
    """The rows of the catalog for a set of steps, read at one moment."""

    by_memo_key: dict[str, list[tuple[Materialization, ...]]] = field(default_factory=dict)
    """Executions by memo key, newest first. An execution has one materialization per output."""
    current: dict[str, list[Current]] = field(default_factory=dict)
    """The current materializations by key: one per notebook that defined the key, newest first."""
    failures: dict[str, FailedAttempt] = field(default_factory=dict)
    """Failed attempts by step key; a step is absent if its newest attempt did not fail."""
    seconds: dict[str, float] = field(default_factory=dict)
    """The duration of the newest execution, by step key."""
    missing_files: frozenset[str] = frozenset()
    """Names of value files to which a row refers but which are missing."""
    foreign: dict[str, str] = field(default_factory=dict)
    """The fingerprint of the signing key by materialization id, for values that another user's key signed."""
    epoch: int = 0
    """The number of the catalog's state when the snapshot was read; `ValueStore.is_newest` compares it."""

    def take(self, later: Snapshot) -> None:
        """Replace the rows of the steps and keys that a later snapshot contains; other rows stay."""
        self.by_memo_key.update(later.by_memo_key)
        self.current.update(later.current)
        items = list(later.materializations())
        names = {item.value.object_name for item in items if item.value is not None}
        self.missing_files = (self.missing_files - names) | later.missing_files
        for item in items:
            self.foreign.pop(item.id, None)
        self.foreign.update(later.foreign)

    def materializations(self) -> Iterator[Materialization]:
        """Yield every materialization of the snapshot, some more than once."""
        for executions in self.by_memo_key.values():
            for execution in executions:
                yield from execution
        for pointers in self.current.values():
            for pointer in pointers:
                yield pointer.materialization


@dataclass(frozen=True, slots=True)
class Notice:
    """A fact for the user. The front ends choose the wording (`stepwell.commands.wording.notice_text`).

    Attributes
    ----------
    kind
        The kind of fact: ``network``, ``unrestored``, ``stale input``, ...
    key
        The step, asset or store concerned.
    facts
        The details by name, as plain values.
    """

    kind: str
    key: str = ""
    facts: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.facts)[name]


Notify: TypeAlias = Callable[[Notice], None]


def notice(kind: str, key: str = "", **facts: Any) -> Notice:
    """Return a notice whose facts are strings, numbers, and tuples of these."""
    return Notice(kind, key, tuple(facts.items()))


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is about to return its result, or to raise an error. The event is published in the thread of the run."""

    result: Any
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins after it was planned."""

    run: RunRecord
    steps: tuple[str, ...]
    """The step keys of the plan, sorted so that each step follows its upstream steps."""


@quick_init
@dataclass(frozen=True, slots=True)
class StepStarted:
    """The body of a step begins."""

    run_id: str
    key: str
    position: int
    """One-based position among the steps of the plan."""
    total: int
    expected_seconds: float | None
    """The duration of the last execution in seconds; None if it is unknown."""


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """A step waits for another process that computes the same step; published once per process."""

    run_id: str
    key: str
    position: int
    total: int
    claimant: Claimant
    """The process that computes the step."""
    expected_seconds: float | None
    """The duration of the last execution in seconds; None if it is unknown."""


@quick_init
@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step ended or was reused, and its rows are committed."""

    step: StepRecord


@dataclass(frozen=True, slots=True)
class StepLogged:
    """A step wrote a line with ``context.log``."""

    log: LogRecord


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ended, and all its rows are committed."""

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
    """The key of a step, the key of a source asset, or the name of a job."""
    label: str
    kind: NodeKind
    state: State | None
    """None for sources and jobs."""
    assets: tuple[str, ...] = ()
    """The keys of the assets that a multi-asset's step computes; empty if ``key`` is the only one."""
    group: str = "default"
    parent: str = ""
    """The graph-backed asset to which an op belongs; empty otherwise."""
    reason: str = ""
    """The most specific cause of the state: ``split() changed``."""
    summary: str = ""
    """Shape, size or type of the current value: ``336,776 × 19 · 41.0 MB``."""
    seconds: float | None = None
    """The duration of the step that computed the current value, in seconds."""
    created: float | None = None
    """When the current value was computed, in seconds since the epoch."""
    error: str = ""
    """The error of a failed attempt: ``KeyError: 'carrier'``."""
    where: str = ""
    """The source location of the definition: ``cell 14``."""
    description: str = ""
    code: str = ""
    """The source of the definition."""


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """One dependency between two cards."""

    source: str
    target: str
    kind: Literal["value", "order"] = "value"


@dataclass(frozen=True, slots=True)
class Lineage:
    """All cards and their dependencies."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]

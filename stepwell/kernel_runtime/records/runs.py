"""Records of runs and their steps, captured outputs, the snapshot of the catalog for a run, events, and the lineage.

A `Snapshot` is read from the catalog at the start of a run, so that most steps of the run need no query of their own. The records
of a step are read again if its code version has changed during the run, or if another process may have recorded its result in the meantime.

Front ends receive events during a run. The end of a step is published after the rows of the step are committed, so that no front end reports
a result that could still be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick_init
from stepwell.kernel_runtime.records.materializations import Current, Materialization


@dataclass(frozen=True, slots=True)
class Claimant:
    """A process that has claimed the memo key of a step. If the lock file of the claim cannot be read, the fields are empty or zero."""

    notebook: str = ""
    """The notebook, script or module that started the run in this process."""
    pid: int = 0
    host: str = ""
    """The name of the machine on which the process runs."""
    since: float = 0.0
    """The time when the process claimed the step, in seconds since the epoch."""


OutputKind: TypeAlias = Literal["stream", "display_data", "update_display_data", "clear_output", "signature"]


@dataclass(frozen=True, slots=True)
class CapturedOutput:
    """One captured output of a step, with the fields of an output in a notebook file.

    An output of the kind ``signature`` contains the signature of the other outputs of the step.
    """

    kind: OutputKind
    stream: str = ""
    """``stdout`` or ``stderr`` if the kind is ``stream``; else empty."""
    text: str = ""
    """The text of a stream, or the signature in hexadecimal digits; empty for a display."""
    data: dict[str, Any] = field(default_factory=dict)
    """The data of a display by MIME type; empty for a stream."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The metadata of a display; empty for a stream."""


RunStatus: TypeAlias = Literal["running", "success", "failure", "cancelled", "interrupted"]
StepStatus: TypeAlias = Literal["executed", "reused", "failed", "skipped", "untouched", "cancelled"]
RunKind: TypeAlias = Literal["assets", "job"]
FORCED = "it was forced"
"""`StepRecord.reason` of a step that ran because the user asked for it (``force=True``)."""


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An exception that the user's code raised, as text."""

    name: str
    """The name of the exception's class, for example ``KeyError``."""
    message: str
    traceback: str = ""
    """The formatted traceback, without the frames of Stepwell."""
    where: str = ""
    """The line of the user's code that raised the exception or led to it, for example ``cell 14, line 3``."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of a plan."""

    run_id: str
    kind: RunKind
    notebook: str
    """The notebook, script or module that started the run."""
    targets: tuple[str, ...]
    """The keys of the requested assets, or of the assets whose steps were requested; for a run of a job, the name of the job."""
    status: RunStatus
    started: float
    """The time when the run started, in seconds since the epoch."""
    ended: float | None = None
    """The time when the run ended, in seconds since the epoch; None if the end was not recorded."""
    batch: str = ""
    """The identifier of the batch execution (``stepwell run``) that contains the run; empty in an interactive kernel."""
    parent_run_id: str = ""
    """The id of the run that this run resumes; empty if this run resumes none."""
    root_run_id: str = ""
    """The id of the first run in the chain of resumed runs; empty if this run resumes none."""
    error: ErrorRecord | None = None
    process: str = ""
    """The identity of the process that executes the run, ``host/boot/pid/start``. If this process has ended and the end of the run was not
    recorded, the run was interrupted."""


@quick_init
@dataclass(frozen=True, slots=True)
class StepRecord:
    """The outcome of one step in one run."""

    run_id: str
    key: str
    status: StepStatus
    started: float
    """The time when the step started, in seconds since the epoch; 0.0 if the step was not executed."""
    seconds: float = 0.0
    """The time in seconds that the step's body took; 0.0 if the body did not run."""
    memo_key: str = ""
    materializations: tuple[Materialization, ...] = ()
    """The materializations that the step made or, if the status is ``reused``, reused."""
    error: ErrorRecord | None = None
    reason: str = ""
    """The reason why the step was executed, for example that it was forced or that a file changed. The record of a renamed, accepted or revoked value
    has the status ``executed`` and a reason, too.

    Empty for a step of a job, and if the status is not ``executed``. Also empty if the step ran only because its code, config or stored input
    values were new or had changed: the records of its runs show these differences.
    """
    not_kept: tuple[str, ...] = ()
    """The outputs that could not be stored, each as a string: its name, a colon, and the reason or the type of its value. Only steps of jobs and of
    live cells can have such outputs."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line that a step wrote with ``context.log``."""

    run_id: str
    step_key: str
    time: float
    """The time when the line was written, in seconds since the epoch."""
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The newest attempt at a step, if this attempt failed."""

    run_id: str
    memo_key: str
    error: ErrorRecord | None
    started: float
    seconds: float


@dataclass(slots=True)
class Snapshot:
    """The records that a run needs for its steps, as they were in the catalog at one moment."""

    by_memo_key: dict[str, list[tuple[Materialization, ...]]] = field(default_factory=dict)
    """Maps a memo key to the stored executions with this memo key, newest first. An execution is a tuple of materializations, one for each output."""
    current: dict[str, list[Current]] = field(default_factory=dict)
    """Maps a value key to its current materializations, newest first: one for each combination of a notebook and a partition."""
    failures: dict[str, FailedAttempt] = field(default_factory=dict)
    """Maps the key of each step whose newest attempt failed to this attempt."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Maps a step key to the time in seconds that the newest execution of the step took."""
    missing_files: frozenset[str] = frozenset()
    """The names of value files that are missing or truncated, although a materialization in the snapshot refers to them."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Maps the id of a materialization to the fingerprint of the key that signed its value, or to an empty string if the value has no signature.
    A materialization is in the mapping only if its value executes code when it is loaded, and this user's key has not signed the value."""
    epoch: int = 0
    """The catalog's `epoch` when the snapshot was read. It tells `ValueStore.is_newest` whether the snapshot is out of date."""

    def take(self, later: Snapshot) -> None:
        """Copy the stored executions and the current materializations from ``later``, a newer snapshot of fewer steps.

        Executions in ``later`` replace those with the same memo key. Current materializations replace those with the same key. All others stay.
        The missing files and foreign values are updated for the materializations in ``later``; the failures and durations are not changed.
        """
        self.by_memo_key.update(later.by_memo_key)
        self.current.update(later.current)
        items = list(later.materializations())
        names = {item.value.object_name for item in items if item.value is not None}
        self.missing_files = (self.missing_files - names) | later.missing_files
        for item in items:
            self.foreign.pop(item.id, None)
        self.foreign.update(later.foreign)

    def materializations(self) -> Iterator[Materialization]:
        """Yield every materialization in the snapshot. A materialization may be yielded more than once."""
        for executions in self.by_memo_key.values():
            for execution in executions:
                yield from execution
        for pointers in self.current.values():
            for pointer in pointers:
                yield pointer.materialization


@dataclass(frozen=True, slots=True)
class Notice:
    """An event for the user, for example that a step read from the network. Its wording is chosen by `stepwell.commands.wording.notice_text`.

    Attributes
    ----------
    kind
        The kind of event: ``network``, ``unrestored``, ``stale input``, ...
    key
        The key of the step or asset, or the path of the store, to which the event belongs.
    facts
        The details of the event, as pairs of a name and a value. A value is a string, a number, or a tuple of these.
    """

    kind: str
    key: str = ""
    facts: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.facts)[name]


Notify: TypeAlias = Callable[[Notice], None]


def notice(kind: str, key: str = "", **facts: Any) -> Notice:
    """Return a notice with the keyword arguments as its details. Each must be a string, a number, or a tuple of these."""
    return Notice(kind, key, tuple(facts.items()))


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Event: a run is about to return its result or to raise its error. Subscribers are called on the thread that executes the run."""

    result: Any
    error: BaseException | None = None
    """The error that the run is about to raise; None if the run is about to return ``result``."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Event: a run has been planned, and its steps are about to begin."""

    run: RunRecord
    steps: tuple[str, ...]
    """The step keys of the plan. Each step comes after its upstream steps."""


@quick_init
@dataclass(frozen=True, slots=True)
class StepStarted:
    """Event: the body of a step begins."""

    run_id: str
    key: str
    position: int
    """The position of the step in the plan, beginning with 1."""
    total: int
    """The number of steps in the plan."""
    expected_seconds: float | None
    """The time in seconds that the last execution of the step took; None if the step was never executed."""


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """Event: a step waits for another process that computes the same step. Published once for each such process."""

    run_id: str
    key: str
    position: int
    """The position of the step in the plan, beginning with 1."""
    total: int
    """The number of steps in the plan."""
    claimant: Claimant
    """The other process."""
    expected_seconds: float | None
    """The time in seconds that the last execution of the step took; None if the step was never executed."""


@quick_init
@dataclass(frozen=True, slots=True)
class StepFinished:
    """Event: the outcome of a step is known (see `StepStatus`), and its rows are committed."""

    step: StepRecord


@dataclass(frozen=True, slots=True)
class StepLogged:
    """Event: a step wrote a line with ``context.log``."""

    log: LogRecord


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Event: a run ended, and all its rows are committed."""

    run: RunRecord
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, slots=True)
class DefinitionsChanged:
    """Event: the registry of definitions has changed, or states of steps may have changed without a run, for example after ``forget``."""

    keys: tuple[str, ...]
    """The keys of the definitions or steps that are concerned; empty if every state may have changed."""


Event: TypeAlias = (
    Notice | RunEnded | RunStarted | StepStarted | StepWaiting | StepFinished | StepLogged | RunFinished | DefinitionsChanged
)
Subscriber: TypeAlias = Callable[[Event], None]


State: TypeAlias = Literal["failed", "missing", "unverifiable", "stale", "may change", "fresh"]
NodeKind: TypeAlias = Literal["asset", "multi_asset", "sql_asset", "op", "source", "job"]


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A card of the lineage: an asset or multi-asset that one op computes, an op inside a graph-backed asset, a source asset, or a job."""

    key: str
    """The key of a step, the key of a source asset, or the name of a job."""
    label: str
    """The name on the card."""
    kind: NodeKind
    state: State | None
    """The state of the step; None for source assets and jobs, which have no state."""
    assets: tuple[str, ...] = ()
    """The keys of the assets that the step of a multi-asset computes; empty for other cards."""
    group: str = "default"
    """The asset group."""
    parent: str = ""
    """The key of the graph-backed asset that contains the op; empty for other cards."""
    reason: str = ""
    """One or two reasons for the state, the most specific first, for example ``split() changed``. For a source asset, always
    ``read, not computed here``."""
    summary: str = ""
    """The shape, size or type of the current value, for example ``336,776 × 19 · 41.0 MB``."""
    seconds: float | None = None
    """The duration in seconds of the execution that computed the current value. If there is no current value, the duration of the newest execution.
    None if the duration is unknown."""
    created: float | None = None
    """The time when the current value was computed, in seconds since the epoch; None if there is no current value."""
    error: str = ""
    """The error of the newest attempt at the step, for example ``KeyError: 'carrier'``; empty if this attempt did not fail."""
    where: str = ""
    """The source location of the definition, for example ``cell 14``."""
    description: str = ""
    code: str = ""
    """The source code of the definition."""


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """An arrow of the lineage: the step of one card depends on another card."""

    source: str
    """The key of the upstream card."""
    target: str
    """The key of the downstream card."""
    kind: Literal["value", "order"] = "value"
    """``value`` if a value is passed; ``order`` if the dependency only orders the steps."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The lineage: all cards and the dependencies between them."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]

"""Runs, their steps, what the steps printed and displayed, and who computes a step at present."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.records.bulk import quick
from stepwell.kernel_runtime.records.materializations import Materialization


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
    """What happened to one step in one run."""

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

"""Events: what a run publishes to its subscribers (progress line, widgets, bindings) while it goes on.

A step's end is published after its rows are committed: what a subscriber is told has happened has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

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
    """Who computes it."""
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

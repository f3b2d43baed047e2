"""What one query at the start of a run brings from the catalog, so that no step needs a statement of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.runs import ErrorRecord


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
    """Which state of the catalog it is of: `ValueStore.is_newest` compares it."""

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

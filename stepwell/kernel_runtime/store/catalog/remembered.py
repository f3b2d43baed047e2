"""The last snapshot, kept true by what this process itself commits.

A run that has nothing to do asks for the same rows again and again. As long as nobody else wrote the catalog (the caller checks
that), the rows are the last answer plus our own later commits, and need neither the lease nor a query.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.runs import FailedAttempt, Snapshot
from stepwell.kernel_runtime.store.catalog.writing import Recorded

Asked: TypeAlias = tuple[frozenset[str], frozenset[str], frozenset[str]]
"""Keys, step keys and code versions."""


class Remembered:
    """One snapshot and what was asked for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: Asked | None = None
        self._epoch = -1
        self._snapshot = Snapshot()

    def keep(self, asked: Asked, epoch: int, snapshot: Snapshot) -> Snapshot:
        """Keep a fresh answer, on the catalog thread; return a copy for who asked."""
        with self._lock:
            self._asked, self._epoch, self._snapshot = asked, epoch, snapshot
            return _copied(snapshot)

    def snapshot(self, asked: Asked, epoch: int) -> Snapshot | None:
        """Return the answer if this very question was the last one, and in this epoch of the catalog."""
        with self._lock:
            return _copied(self._snapshot) if epoch == self._epoch and asked == self._asked else None

    def add(self, records: Iterable[Recorded]) -> None:
        """Bring the answer up to date with a committed group, on the catalog thread."""
        with self._lock:
            if self._asked is None:
                return
            keys, step_keys, code_versions = self._asked
            for record in records:
                step = record.step
                if step.key in step_keys:
                    self._attempt(record)
                if step.status == "executed":
                    self._executed(
                        [
                            m
                            for m in step.materializations
                            if m.step_key in step_keys and m.code_version in code_versions
                        ]
                    )
                for each in record.current:
                    if each.key in keys:
                        self._moved(each)

    def _attempt(self, record: Recorded) -> None:
        step = record.step
        if step.status == "executed":
            self._snapshot.seconds[step.key] = step.seconds
            self._snapshot.failures.pop(step.key, None)
        elif step.status == "failed":
            self._snapshot.failures[step.key] = FailedAttempt(
                step.run_id, step.memo_key, step.error, step.started, step.seconds
            )

    def _executed(self, made: list[Materialization]) -> None:
        # Lists are replaced, never changed: copies that were given out share them.
        groups: dict[tuple[str, str, str], list[Materialization]] = {}
        for m in made:
            groups.setdefault((m.memo_key, m.run_id, m.step_key), []).append(_as_read(m))
        for (memo_key, _, _), group in groups.items():
            self._snapshot.by_memo_key[memo_key] = [tuple(group), *self._snapshot.by_memo_key.get(memo_key, ())]

    def _moved(self, current: Current) -> None:
        found = _as_read(current.materialization)
        if found is not current.materialization:
            current = replace(current, materialization=found)
        others = [
            each
            for each in self._snapshot.current.get(current.key, ())
            if each.notebook != current.notebook or each.partition != current.partition
        ]
        self._snapshot.current[current.key] = [current, *others]


def _as_read(m: Materialization) -> Materialization:
    """Return a materialization as the catalog will give it back: metadata are JSON values there."""
    return replace(m, metadata=json.loads(json.dumps(m.metadata, default=repr))) if m.metadata else m


def _copied(snapshot: Snapshot) -> Snapshot:
    return Snapshot(
        dict(snapshot.by_memo_key),
        dict(snapshot.current),
        dict(snapshot.failures),
        dict(snapshot.seconds),
        epoch=snapshot.epoch,
    )

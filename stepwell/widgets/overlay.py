"""What a run's events say about cards, laid over the states that the session told last.

While a run lasts, its steps are queued and running; a step that ended shows what came of it until the session is asked
again. Pure bookkeeping: events in, states per card out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from stepwell.kernel_runtime.records.events import (
    DefinitionsChanged,
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    StepWaiting,
)
from stepwell.kernel_runtime.records.lineage import Lineage, LineageNode
from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.widgets.layout import members
from stepwell.widgets.states import (
    ATTENTION,
    SYMBOLS,
    Part,
    assets_of,
    counts,
    duration,
    group_words,
    node_state,
    outdated,
)

_UNFINISHED = ("queued", "running")
_NO_RUN: dict[str, Any] = {"active": False, "words": ""}


class Overlay:
    """The states of a lineage's cards, kept up to date by events.

    Parameters
    ----------
    lineage
        The states at rest.
    """

    def __init__(self, lineage: Lineage) -> None:
        self.run: dict[str, Any] = _NO_RUN
        self._over: dict[str, dict[str, Any]] = {}
        self._asked: set[str] = set()
        self._tracebacks: dict[str, str] = {}
        self._runs: dict[str, bool] = {}
        # Of each run that goes on, whether its steps are cards; a job's are not, and may be called like assets.
        self.rest(lineage)

    def rest(self, lineage: Lineage) -> None:
        """Take the states at rest anew; only what is queued or running stays laid over."""
        self.lineage = lineage
        self._nodes = {node.key: node for node in lineage.nodes}
        self._over = {
            key: state
            for key, state in self._over.items()
            if self._runs and state["status"] in _UNFINISHED and key in self._nodes
        }
        failed = {node.key for node in lineage.nodes if node.state == "failed"}
        self._tracebacks = {key: text for key, text in self._tracebacks.items() if key in failed}

    def asked(self, steps: Iterable[str]) -> None:
        """Show what a button asked for as queued beside what the events say."""
        self._asked = set(steps)

    def take(self, event: Event) -> bool:
        """Take an event; True if the states at rest may be others now and the session must be asked again."""
        if isinstance(event, RunStarted):
            assets = self._runs[event.run.run_id] = event.run.kind == "assets"
            self._say(event.run.run_id, f"{len(event.steps)} step{'s' * (len(event.steps) != 1)} queued")
            for key in event.steps if assets else event.run.targets:
                self._lay(
                    key,
                    {"status": "queued", "footer": ["Queued"]}
                    if assets
                    else {"status": "running", "footer": ["Running", {"since": time.time()}]},
                )
            return False
        if isinstance(event, StepStarted):
            self._say(event.run_id, f"{event.position} of {event.total} · {event.key}")
            footer: list[Part] = ["Running", {"since": time.time()}]
            if event.expected_seconds is not None:
                footer.append(f"last time {duration(event.expected_seconds)}")
            if self._runs.get(event.run_id):
                self._lay(event.key, {"status": "running", "footer": footer})
            return False
        if isinstance(event, StepWaiting):
            whom = event.claimant.notebook.rpartition("/")[2] or "another process"
            self._say(event.run_id, f"{event.position} of {event.total} · {event.key} waits for {whom}")
            if self._runs.get(event.run_id):
                self._lay(event.key, {"status": "queued", "footer": ["Waiting", f"for {whom}"]})
            return False
        if isinstance(event, StepFinished):
            # Steps end on the catalog's thread; one that comes after its run's end was in that end's records.
            if self._runs.get(event.step.run_id):
                self._finished(event.step)
            return False
        if isinstance(event, RunFinished):
            if self._runs.pop(event.run.run_id, False):
                for step in event.steps:
                    self._finished(step)
            if not self._runs:
                self.run = _NO_RUN
                self._over = {key: state for key, state in self._over.items() if state["status"] not in _UNFINISHED}
            return True
        return isinstance(event, DefinitionsChanged)

    def states(self) -> dict[str, dict[str, Any]]:
        """Return every card's state: the full picture, nothing to merge."""
        found = {}
        for key, node in self._nodes.items():
            state = node_state(node)
            if key in self._over:
                state |= self._over[key]
            elif key in self._asked:
                state |= {"status": "queued", "footer": ["Queued"]}
            if state["status"] == "failed" and key in self._tracebacks:
                state["traceback"] = self._tracebacks[key]
            state["symbol"] = SYMBOLS[state["status"]]
            found[key] = state
        return found

    def counted(self, states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return how many steps there are, how many are in which state, and how many assets are out of date."""
        steps = [states[node.key]["status"] for node in self.lineage.nodes if node.state is not None]
        chips = [
            [status, f"{SYMBOLS[status]} {number} {status}"]
            for status, number in counts(steps).items()
            if status in ATTENTION
        ]
        return {"steps": len(steps), "outdated": len(self.outdated()), "chips": chips}

    def group_words(self, states: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return what the header of each graph-backed asset says."""
        return {
            parent: group_words([states[node.key]["status"] for node in nodes])
            for parent, nodes in members(self.lineage.nodes).items()
        }

    def stopping(self, run_id: str) -> None:
        """Say that a run was asked to stop."""
        if run_id in self._runs:
            self._say(run_id, "Cancelling…")

    def outdated(self) -> list[str]:
        """Return the assets that materializing could make fresh, without those whose step just became so."""
        fresh = {key for key, state in self._over.items() if state["status"] == "fresh"}
        return outdated(Lineage(tuple(node for node in self.lineage.nodes if node.key not in fresh), ()))

    def assets_of(self, key: str) -> list[str]:
        """Return the assets that a card's step computes, or takes part in computing."""
        return assets_of(self._nodes[key]) if key in self._nodes else [key]

    def steps_of(self, assets: Iterable[str]) -> list[str]:
        """Return the steps that compute assets."""
        wanted = set(assets)
        return [node.key for node in self.lineage.nodes if wanted.intersection(assets_of(node))]

    def _say(self, run_id: str, words: str) -> None:
        self.run = {"active": True, "words": words, "id": run_id}

    def _lay(self, key: str, state: dict[str, Any]) -> None:
        if key in self._nodes:
            self._over[key] = state

    def _finished(self, step: StepRecord) -> None:
        key = step.key
        self._over.pop(key, None)
        if key not in self._nodes:
            return
        if step.status in {"executed", "reused"}:
            self._tracebacks.pop(key, None)
            self._over[key] = _ended(self._nodes[key], step)
        elif step.status == "failed":
            error = f"{step.error.name}: {step.error.message}" if step.error else "failed"
            self._over[key] = {"status": "failed", "footer": ["Failed", error], "error": error}
            if step.error and step.error.traceback:
                self._tracebacks[key] = step.error.traceback


def _ended(node: LineageNode, step: StepRecord) -> dict[str, Any]:
    own = next((m for m in step.materializations if m.key == node.key), None) or next(iter(step.materializations), None)
    if own is not None and own.unverifiable:
        return {
            "status": "unverifiable",
            "footer": ["Unverifiable", own.unverifiable[0]],
            "reason": own.unverifiable[0],
            "error": "",
        }
    footer: list[Part] = ["Fresh"]
    footer += [{"at": own.created}, duration(own.seconds)] if own is not None else [{"at": time.time()}]
    state: dict[str, Any] = {"status": "fresh", "footer": footer, "reason": "", "error": ""}
    told = own.value.summary if own is not None and own.value is not None else ""
    if told and not node.assets and not node.summary.startswith(told):
        state["summary"] = told
    return state

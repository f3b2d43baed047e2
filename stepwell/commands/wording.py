"""The wording of what runs print. Times are absolute and facts are of the original run, so that Run All leaves diffs quiet."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.planning.states import StepState
from stepwell.kernel_runtime.records.effects import NOTEBOOK
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.records.runs import FORCED, StepRecord
from stepwell.kernel_runtime.text import duration, size_text


def moment(created: float) -> str:
    """Return a point in time: ``2026-11-22 14:03``."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(created))


def _facts(materializations: Sequence[Materialization], *, summary: bool) -> list[str]:
    stored = [item.value for item in materializations if item.value is not None and item.output != NOTEBOOK]
    found = []
    if (
        summary
        and len(stored) == 1
        and stored[0].summary
        and len(stored[0].summary) <= 60
        and "\n" not in stored[0].summary
    ):
        found.append(stored[0].summary)
    if stored:
        found.append(size_text(sum(item.size for item in stored)))
    return found


def run_line(name: str, steps: Sequence[StepRecord]) -> str:
    """Return the line that ends an asset's cell.

    Parameters
    ----------
    name
        The asset's key.
    steps
        The records of its steps in this run; the last one made its value.
    """
    last = steps[-1]
    ran = [step for step in steps if step.status == "executed"]
    if ran:
        inner = f" ({len(ran)} of {len(steps)} steps)" if len(steps) > 1 else ""
        why = next((step.reason for step in ran if step.reason and step.reason != FORCED), "")
        return " · ".join(
            [
                f"{name}: executed in {duration(sum(step.seconds for step in ran))}{inner}",
                *_facts(last.materializations, summary=True),
                *([f"because {why}"] if why else []),
            ]
        )
    if last.status == "reused" and last.materializations:
        oldest = last.materializations[0]
        seconds = (
            oldest.seconds
            if len(steps) == 1
            else sum(step.materializations[0].seconds for step in steps if step.materializations)
        )
        return " · ".join(
            [
                f"{name}: reused",
                f"computed {moment(oldest.created)}",
                duration(seconds),
                *_facts(last.materializations, summary=False),
            ]
        )
    return f"{name}: {last.status}" + (f" ({last.reason})" if last.reason else "")


def upstream_line(target: str, states: Iterable[StepState]) -> str:
    """Return the line that names upstream work before it starts: ``model: first raw (last 18 min; parse() changed), clean``."""
    return f"{target}: first {_named(states)}"


def work_line(states: Iterable[StepState]) -> str:
    """Return the line that names what a run is about to do: ``to run: raw (last 18 min), clean``."""
    return f"to run: {_named(states)}"


def _named(states: Iterable[StepState], most: int = 6) -> str:
    shown = []
    for state in states:
        facts = [f"last {duration(state.seconds)}"] if state.seconds else []
        reason = next((reason.text for reason in state.reasons if reason.text), "")
        if state.state != "missing" and reason:
            facts.append(reason)
        shown.append(state.key + (f" ({'; '.join(facts)})" if facts else ""))
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def step_lines(result: RunResult) -> list[str]:
    """Return what a run of single steps did: one line for each step."""
    return [run_line(step.key, [step]) for step in result.steps]


def result_lines(result: RunResult) -> list[str]:
    """Return what a run did: one line for each asset that was asked for, and for each other step that was not reused."""
    lines: list[str] = []
    said: set[str] = set()
    for key in result.run.targets:
        steps = [step for step in result.steps if step.key == key or step.key.startswith(key + ".")]
        said |= {step.key for step in steps}
        if steps:
            lines.append(run_line(key, steps))
    return lines + [
        run_line(step.key, [step]) for step in result.steps if step.key not in said and step.status != "reused"
    ]

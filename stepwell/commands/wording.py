"""The texts about runs and notices that notebooks and the command line share, and the output of notices in plain Python processes.

Times in these texts are absolute, and the time and duration shown for a reused step are those of its last execution. So the output of a
notebook does not change if the notebook is run again and every step is reused.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence

from stepwell.kernel_runtime.errors import StepwellWarning
from stepwell.kernel_runtime.execution.result import RunResult
from stepwell.kernel_runtime.planning.states import StepState
from stepwell.kernel_runtime.records.keys import keys_text
from stepwell.kernel_runtime.records.materializations import NOTEBOOK, Materialization
from stepwell.kernel_runtime.records.runs import FORCED, Event, Notice, StepRecord, StepWaiting
from stepwell.kernel_runtime.session import session as process
from stepwell.kernel_runtime.session.session import Session
from stepwell.kernel_runtime.text import duration, moment, signer_text, size_text

_log = logging.getLogger("stepwell")


def _facts(materializations: Sequence[Materialization], *, summary: bool) -> list[str]:
    stored = [item.value for item in materializations if item.value is not None and item.output != NOTEBOOK]
    facts = []
    if summary and len(stored) == 1 and stored[0].summary and len(stored[0].summary) <= 60 and "\n" not in stored[0].summary:
        facts.append(stored[0].summary)
    if stored:
        facts.append(size_text(sum(item.size for item in stored)))
    return facts


def run_line(name: str, steps: Sequence[StepRecord]) -> str:
    """Return the line that reports what a run did for an asset, for example ``clean: executed in 2.1 s · 1,000 × 4 · 32 kB``.

    Parameters
    ----------
    name
        The key of the asset, or of a single step.
    steps
        The records of the asset's steps in the run; the last step produced the asset's value.
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
    """Return the line that announces which upstream steps run before an asset.

    For example, the line is ``model: first raw (last 18 min; parse() changed), clean``.
    """
    return f"{target}: first {_state_names(states)}"


def work_line(states: Iterable[StepState]) -> str:
    """Return the line that announces which steps a run will execute, for example ``to run: raw (last 18 min), clean``."""
    return f"to run: {_state_names(states)}"


def _state_names(states: Iterable[StepState], limit: int = 6) -> str:
    names = []
    for state in states:
        facts = [f"last {duration(state.seconds)}"] if state.seconds else []
        reason = next((reason.text for reason in state.reasons if reason.text), "")
        if state.state != "missing" and reason:
            facts.append(reason)
        names.append(state.key + (f" ({'; '.join(facts)})" if facts else ""))
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def step_lines(result: RunResult) -> list[str]:
    """Return a line for each step of a run, in the order of the steps."""
    return [run_line(step.key, [step]) for step in result.steps]


def result_lines(result: RunResult) -> list[str]:
    """Return a line for each target of a run, then a line for each other step that was not reused."""
    lines: list[str] = []
    reported: set[str] = set()
    for key in result.run.targets:
        steps = [step for step in result.steps if step.key == key or step.key.startswith(key + ".")]
        reported |= {step.key for step in steps}
        if steps:
            lines.append(run_line(key, steps))
    return lines + [run_line(step.key, [step]) for step in result.steps if step.key not in reported and step.status != "reused"]


# -- notices


def notice_text(notice: Notice) -> str:
    """Return the text of a notice for the user: a fact and, if the user can do something about it, an action."""
    return _NOTICES[notice.kind](notice)


def _first_names(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _stale_input(notice: Notice) -> str:
    cause = f" ({notice['cause']})" if notice["cause"] else ""
    return f"{notice.key} is {notice['state']}{cause}: its stored value is used"


def _foreign(notice: Notice) -> str:
    names = notice["names"]
    verbs = ("is", "counts") if len(names) == 1 else ("are", "count")
    line = f"{keys_text(names)} {verbs[0]} {signer_text(notice['signer'])} and {verbs[1]} as missing"
    return f"{line}; if you trust the author, run: stepwell trust {' '.join(names[:5])}"


def _large_store(notice: Notice) -> str:
    more = (
        f", and {size_text(notice['older'])} more with %stepwell keep --versions 1" if notice["older"] > notice["garbage"] else ""
    )
    return (
        f"the store {notice.key} holds {size_text(notice['held'])}, and {notice['free']:.0%} of the disk is free: "
        f"%stepwell gc would free {size_text(notice['garbage'])}{more}"
    )


def _copy_used(notice: Notice) -> str:
    module, name = notice["module"], notice["name"]
    place = "the notebook" if module == "__main__" else module
    how = f"now defines another {name}" if notice["exists"] else f"does not define {name}"
    return f"{notice.key}: the stored copy of {name} is used, because {place} {how}"


def _path_only(notice: Notice) -> str:
    contents = "a folder" if notice["folder"] else f"larger than {notice['most'] >> 30} GiB"
    return f"{notice.key}: {notice['path']} is {contents}: the path is stored, not the contents; the step runs again when the contents change"


def later_changes(key: str, before: str, now: str) -> str:
    """Return a text about names or files that other cells changed after a step had read them.

    The text names the versions that the step read and the present versions, and says how to use the changes.

    Parameters
    ----------
    key
        The key of the step.
    before
        The versions that the step read, for example ``df from [1]``.
    now
        The present versions, for example ``df is now from [5]``.
    """
    return f"with {before} ({now}; run the cell of {key} to use the change)"


_NOTICES: dict[str, Callable[[Notice], str]] = {
    "changed later": lambda n: f"{n.key}: reused, {later_changes(n.key, n['before'], n['now'])}",
    "class inside": lambda n: (
        f"{n.key}: the class {n['name']} was defined inside the step and is stored by value: define it in a separate cell"
    ),
    "computed again": lambda n: f"{n['why']}; {n.key} is computed again",
    "copy read": lambda n: (
        f"the store {n.key} cannot be locked: it is read from a copy of {n['moment']}, and later changes are not seen"
    ),
    "copy used": _copy_used,
    "file left": lambda n: (
        f"{n.key} wrote {n['path']}, which something else has changed since: the file is left unchanged (-f writes the file again)"
    ),
    "foreign": _foreign,
    "global changed": lambda n: (
        f"{n.key} changed the global{'s' * (len(n['names']) > 1)} {_first_names(n['names'])}: "
        f"steps that read {'it' if len(n['names']) == 1 else 'them'} are checked again"
    ),
    "large store": _large_store,
    "network": lambda n: (
        f"{n.key} used {', '.join(n['hosts'])}: changes there are not detected; add --max-age 1d to refresh daily"
    ),
    "not set": lambda n: (
        f"{n.key} was reused, but its changes of settings cannot be made in this process: {', '.join(n['names'])}"
    ),
    "path only": _path_only,
    "path restored": lambda n: (
        f"{n.key}: {n['path']} has changed or no longer exists; the stored contents are in {n['restored']}"
    ),
    "processes": lambda n: (
        f"{n.key} ran {', '.join(n['programs'])}: files that other processes read are not seen; declare them with reads=[...], and other data with max_age=..."
    ),
    "read": lambda n: f"{n.key} <- store ({n['notebook']}, {moment(n['created'])})",
    "slow global": lambda n: f"the global {n.key} takes {n['seconds']:.1f} s to digest in every run: make it an asset",
    "stale input": _stale_input,
    "unrestored": lambda n: (
        f"{n.key} changed {_first_names(n['names'])}, which cannot be restored: the step runs once in every kernel"
    ),
    "unseen read": lambda n: (
        f"{n.key} read {n['what']} with {n['reader']}: later changes are not detected; declare files with reads=[...], other data with max_age=..."
    ),
    "untested python": lambda n: (
        f"{n['reason']}: every step runs, and nothing is reused. Use another Python or a newer stepwell."
    ),
}
"""Maps each kind of notice to a function that returns the text for the user."""


# -- notices in plain Python processes


_listening: weakref.WeakSet[Session] = weakref.WeakSet()


def listen(session: Session) -> None:
    """In a plain Python process, show the notices of a session as warnings, and log a record when a step waits for another process.

    Do nothing while the IPython extension is loaded, because the extension shows these events itself.
    """
    if session.face:
        return
    session.face = "python"
    if session in _listening:
        return
    _listening.add(session)

    def hear(event: Event) -> None:
        if session.face != "python":
            return
        if isinstance(event, Notice):
            # The warning must name the line of the user's code, not a line of this package.
            level, frame = 1, sys._getframe()  # noqa: SLF001 - as `warnings` does itself
            while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "stepwell":
                level, frame = level + 1, frame.f_back
            warnings.warn(notice_text(event), StepwellWarning, stacklevel=level)
        elif isinstance(event, StepWaiting):
            _log.warning("%s", waiting_line(event))

    session.subscribe(hear)


def get_session() -> Session:
    """Return the session of this process. From now on, its notices are shown as warnings, unless the IPython extension shows them."""
    session = process.get_session()
    listen(session)
    return session


# -- waiting


def waiting_line(event: StepWaiting) -> str:
    """Return the line about a step that waits because another process computes it.

    The line names the other process, the time when it began the step, and the usual duration of the step.
    """
    claimant = event.claimant
    facts = []
    if claimant.pid:
        elsewhere = f" on {claimant.host}" if claimant.host and claimant.host != platform.node() else ""
        facts.append(f"pid {claimant.pid}{elsewhere}")
    if claimant.since:
        today = moment(time.time()).partition(" ")[0]
        facts.append(f"since {moment(claimant.since).removeprefix(today).lstrip()}")
    if event.expected_seconds:
        facts.append(f"usually {duration(event.expected_seconds)}")
    name = claimant.notebook.rpartition("/")[2]
    process_name = name if name and name != "__main__" else "another process"
    return f"{event.key}: waiting for {process_name}" + (f" ({', '.join(facts)})" if facts else "")

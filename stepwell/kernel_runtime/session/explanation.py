"""The causes of a step's state and of its last run, followed upstream to their origins, for ``%why``.

A cause is inherited if it lies upstream: an upstream step is not up to date, or the value of an input changed. Inherited causes are followed
upstream step by step, to causes that are not inherited: their *origins*.

- If an upstream step is not up to date, the reasons for its present state are the causes.
- If an upstream step has already computed a new value, two of its materializations are compared: that of the old value and that of the new
  value. The differences of their code versions, inputs and reads are the causes. If there are none, the cause is the reason that the engine
  recorded when the step ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import StoreError, UnknownKeyError, ValueUnavailableError
from stepwell.kernel_runtime.planning.states import Reason, StepState, describe
from stepwell.kernel_runtime.records.materializations import Materialization, Read
from stepwell.kernel_runtime.records.runs import StepRecord
from stepwell.kernel_runtime.session.reasons import code_reasons, input_reasons
from stepwell.kernel_runtime.session.requests import AnyStore, Given
from stepwell.kernel_runtime.session.session import Session
from stepwell.kernel_runtime.store.catalog.tables import read_attempts
from stepwell.kernel_runtime.text import moment, printable
from stepwell.kernel_runtime.versions.graph import ARROW

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def explain(session: Session, key: str, *, definitions: Given = None, store: AnyStore = None) -> Explanation:
    """Carry out `stepwell.why` without its options: explain the state and the last run of an asset or step.

    If `key` is stored but not defined in this process, the result explains only the last run. `UnknownKeyError` is raised if `key` is
    neither defined nor stored.
    """
    inspection = session.inspect(definitions, store=store)
    try:
        steps = inspection.steps_of(key)
    except UnknownKeyError as unknown:
        try:
            item = session.current(key, inspection.store)
        except (StoreError, ValueUnavailableError):
            raise unknown from None
        last = Origins(inspection.store, {}).last_run(item.step_key, item.notebook)
        return Explanation(key, (), {} if last is None else {item.step_key: last}, item)
    plan = inspection.plan_of(key)
    states = inspection.states(plan)
    origins = Origins(inspection.store, states)
    plan_steps = [step for step in plan.steps if step.key in steps]
    runs = {step.key: run for step in plan_steps if (run := origins.last_run(step.address, step.notebook)) is not None}
    return Explanation(key, tuple(origins.of(states[step]) for step in steps), runs)


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run in which a step did not reuse a stored result: the step was executed, failed or was cancelled."""

    run_id: str
    started: float
    """The time at which the step started, in seconds since the epoch."""
    status: str
    """The outcome of the step: ``executed``, ``failed`` or ``cancelled``."""
    reasons: tuple[Reason, ...]
    """The reasons why the step was executed. For a failed step, the only reason is its error."""

    def as_dict(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        return {
            "run_id": self.run_id,
            "started": self.started,
            "status": self.status,
            "reasons": [reason.as_dict() for reason in self.reasons],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """The result of ``%why KEY``: the states and last runs of the steps of an asset, or of one step, with their causes."""

    key: str
    steps: tuple[StepState, ...]
    """The states of the key's steps; empty if the key is stored but not defined in this process."""
    last_runs: Mapping[str, LastRun] = field(default_factory=dict)
    """Maps a step key to the newest run in which the step did not reuse a stored result. Steps without such a run are not in the mapping."""
    stored: Materialization | None = None
    """The current materialization of a key that is stored but not defined in this process; None for a defined key."""

    @property
    def state(self) -> str:
        """The state of the first step that is not fresh; ``fresh`` if all are; ``stored`` if the key is not defined in this process."""
        if not self.steps:
            return "stored"
        return next((step.state for step in self.steps if step.state != "fresh"), "fresh")

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as a dict of JSON values.

        ``key`` and ``state`` are those of this explanation, ``reasons`` is a list of the reasons for the states of all steps, and ``steps`` is a
        list with one dict for each step. For a key that is stored but not defined, ``materialization`` and ``last_run`` describe what is stored.
        """
        steps = [
            {
                "key": step.key,
                "state": step.state,
                "reasons": [reason.as_dict() for reason in step.reasons],
                "materialization": step.current[-1].id if step.current else None,
                "computed": step.current[-1].created if step.current else None,
                "seconds": step.current[-1].seconds if step.current else None,
                "last_run": self.last_runs[step.key].as_dict() if step.key in self.last_runs else None,
            }
            for step in self.steps
        ]
        result: dict[str, Any] = {
            "key": self.key,
            "state": self.state,
            "reasons": [reason.as_dict() for step in self.steps for reason in step.reasons],
            "steps": steps,
        }
        if self.stored is not None:
            result["materialization"] = self.stored.id
            result["last_run"] = next((run.as_dict() for run in self.last_runs.values()), None)
        return result

    def __str__(self) -> str:
        lines: list[str] = []
        if self.stored is not None:
            maker = f"stored by {self.stored.notebook or 'no notebook'}, not defined here"
            if not self.stored.memo_key:
                maker = "a step of a job, which runs whenever its job does"
            lines.append(f"{self.key}: {maker}{_facts(self.stored)}")
            for last in self.last_runs.values():
                lines += _last_lines(last)
        for step in self.steps:
            facts = _facts(step.current[-1]) if step.current and step.state == "fresh" else ""
            origins = [origin for reason in step.reasons for origin in reason.origins]
            if len(origins) == 1:
                facts += f", because {headline(origins[0])}"
            lines.append(f"{step.key}: {step.state}{facts}")
            for reason in step.reasons:
                lines += _reason_lines(reason, named=len(origins) == 1)
            run = self.last_runs.get(step.key)
            first = run is not None and all(reason.kind == "missing" for reason in run.reasons)
            # In all other states, the reasons for the state already say why the step ran last.
            if run is not None and (step.state == "fresh" or (step.state in ("stale", "may change") and not first)):
                lines += _last_lines(run)
        return printable("\n".join(lines))


def headline(reason: Reason) -> str:
    """Return a reason as one phrase, for example ``LIMIT 3 -> 4 in cell 5, two steps up: clean -> rep.f``.

    The phrase consists of the reason's text, its place, and its `Reason.chain`: the steps that lead from the reason to the explained step. The
    explained step itself is not named.
    """
    text = reason.text.replace(": ", " ", 1) if reason.kind == "global" and ARROW in reason.text else reason.text
    place = f" in {reason.place}" if reason.place else ""
    count = len(reason.chain)
    if not count:
        return text + place
    steps = f"{_NUMBERS[count] if count < len(_NUMBERS) else count} step{'' if count == 1 else 's'} up"
    return f"{text}{place}, {steps}: {ARROW.join(reason.chain)}"


def _facts(materialization: Materialization) -> str:
    return f" · {describe(materialization)} · {moment(materialization.created)} · {materialization.seconds:.1f} s"


def _reason_lines(reason: Reason, *, named: bool = False) -> list[str]:
    """Return the lines of ``%why`` about one reason for the state of a step: its text, its detail, and its origins.

    Parameters
    ----------
    named
        True if all reasons for the step's state together have only one origin. The text of this origin is left out, because the line about the
        step already contains it.
    """
    around = [part for part in (reason.path if reason.path not in reason.text else "", reason.place) if part]
    lines = [f"  {reason.text}" + (f"  ({', '.join(around)})" if around else "")]
    lines += [f"    {line}" for line in reason.detail.splitlines()]
    for origin in reason.origins:
        if not named:
            lines.append(f"    because {headline(origin)}")
        lines += [f"    {line}" for line in origin.detail.splitlines()]
    return lines


def _last_lines(run: LastRun) -> list[str]:
    """Return the lines of ``%why`` about the last run of a step: its time and outcome, and why it ran."""
    causes = [origin for reason in run.reasons for origin in reason.origins or (reason,)]
    began = f"  last run {moment(run.started)}" + ("" if run.status == "executed" else f": {run.status}")
    if len(causes) == 1:
        return [f"{began}, because {headline(causes[0])}", *[f"    {line}" for line in causes[0].detail.splitlines()]]
    lines = [f"{began}, because"]
    for cause in causes:
        lines += [f"    {headline(cause)}", *[f"      {line}" for line in cause.detail.splitlines()]]
    return lines


_MOST = 5
"""The maximum number of origins that are named for one reason."""
_ATTEMPTS = 50
"""How many of the newest records of a step are searched for its last run and the run before."""
_VERSIONS = 200
"""How many of the newest materializations of an input are searched for those before and after a change."""


class Origins:
    """Finds the origins of the reasons for a step's state: for each reason that lies upstream, the changes that caused it.

    The origins are found in the present states of the steps, and in the records of the store.

    Parameters
    ----------
    states
        The present states of the steps of a plan, by step key; empty to use only the records.
    """

    def __init__(self, store: ValueStore, states: Mapping[str, StepState]) -> None:
        self._store = store
        self._states = states
        self._histories: dict[str, list[Materialization]] = {}

    def of(self, state: StepState) -> StepState:
        """Return a copy of a step's state with the origins of its reasons: for each reason that lies upstream, the changes that caused it."""
        return replace(state, reasons=self._followed(state.reasons))

    def last_run(self, address: str, notebook: str) -> LastRun | None:
        """Return the newest run in which a step did not reuse a stored result; None if no such run is recorded.

        Parameters
        ----------
        address
            The step's key in the store.
        notebook
            The notebook whose runs are searched first. If no run of this notebook executed the step, the runs of all notebooks are searched.
        """
        attempts = self._store.catalog.ask(read_attempts, address, _ATTEMPTS)
        # Only a materialization names the notebook, and the record of a failed attempt has none. So such a record counts for every notebook.
        of_notebook = [
            record for record in attempts if not record.materializations or record.materializations[0].notebook == notebook
        ]
        records = of_notebook if any(record.status == "executed" for record in of_notebook) else attempts
        for position, record in enumerate(records):
            if record.status != "reused":
                return LastRun(record.run_id, record.started, record.status, self._causes(record, records[position + 1 :]))
        return None

    def _causes(self, record: StepRecord, earlier: list[StepRecord]) -> tuple[Reason, ...]:
        if record.error is not None:
            return (Reason(f"{record.error.name}: {record.error.message}", detail=record.error.where, kind="failure"),)
        if record.reason or not record.materializations:
            return (Reason(record.reason or "the run was stopped", kind="run"),)
        new = record.materializations[0]
        if not new.memo_key:
            return (Reason("the job ran, and a job runs all of its steps", kind="cache"),)
        before = next(
            (item for other in earlier for item in other.materializations if item.key == new.key and item.memo_key),
            None,
        )
        if before is None and any(other.status == "executed" for other in earlier):
            return (
                Reason(
                    "the step's code or inputs changed; the result before the change is no longer recorded",
                    kind="missing",
                ),
            )
        if before is None:
            return (Reason("no result was stored before this run", kind="missing"),)
        reasons = self._followed(tuple(self._differences(new, before)), new.created)
        # A changed input without origins is left out if other reasons remain: its origin is named with another input.
        explained = tuple(reason for reason in reasons if reason.origins or not reason.versions)
        lost = Reason(
            "the stored result could not be used: another Python version computed it, or its value was missing",
            kind="missing",
        )
        return explained or reasons or (lost,)

    def _followed(self, reasons: tuple[Reason, ...], until: float = math.inf) -> tuple[Reason, ...]:
        """Return copies of reasons with their origins: for each reason that lies upstream, the changes that caused it.

        Parameters
        ----------
        until
            Ignore materializations that are newer than this time, in seconds since the epoch. For a past run, pass the time of its result.
        """
        followed = []
        for reason in reasons:
            origins: list[Reason] = []
            if reason.kind in {"upstream", "variable"}:
                origins = self._through_states(reason.path)
            elif reason.versions:
                origins = self._through_records(reason, (), until)
            followed.append(replace(reason, origins=tuple(origins[:_MOST])) if origins else reason)
        return _unique_origins(followed)

    def _through_states(self, start: str) -> list[Reason]:
        origins: list[Reason] = []
        queue: list[tuple[str, tuple[str, ...]]] = [(start, (start,))]
        seen = {start}
        for key, chain in queue:
            state = self._states.get(key)
            if state is None or len(origins) >= _MOST:
                continue
            reasons = []
            for reason in state.reasons:
                if reason.kind in {"upstream", "variable"}:
                    if reason.path not in seen:
                        seen.add(reason.path)
                        queue.append((reason.path, (reason.path, *chain)))
                elif reason.versions:
                    reasons += self._through_records(reason, chain, math.inf)
                else:
                    reasons.append(replace(reason, chain=chain))
            origins += _failure(key, reasons) if state.state == "failed" else [_with_key(key, reason) for reason in reasons]
        return origins

    def _through_records(self, changed: Reason, chain: tuple[str, ...], until: float) -> list[Reason]:
        """Return why the value of an input changed. This is found by comparing recorded materializations of the input and of steps upstream.

        Parameters
        ----------
        changed
            The reason that names the input and its versions before and after the change.
        chain
            The keys of the steps that lie between the input and the explained step, in the order of the run.
        until
            Ignore materializations that are newer than this time, in seconds since the epoch.
        """
        origins: list[Reason] = []
        queue = [(changed, chain, until)]
        seen = {(changed.path, changed.versions)}
        for reason, upstream, latest in queue:
            if len(origins) >= _MOST:
                break
            before, now = self._change(reason, latest)
            if now is None:
                if upstream or len(queue) > 1:
                    origins.append(replace(reason, chain=upstream, versions=()))
                continue
            path = (now.step_key, *upstream)
            if before is None:
                origins.append(
                    Reason(
                        f"{now.step_key} was computed again; its earlier value is no longer recorded",
                        chain=path,
                        kind="missing",
                    )
                )
                continue
            differences = self._differences(now, before)
            inherited = [difference for difference in differences if difference.versions]
            local = [difference for difference in differences if not difference.versions]
            if not differences:
                note = self._note(now)
                origins.append(Reason(f"{now.step_key} ran again and gave another value{note}", chain=path, kind="run"))
            # If the upstream step itself changed, this explains its new value. Otherwise, its changed inputs are followed further upstream.
            origins += [replace(difference, chain=path) for difference in local]
            for difference in inherited if not local else ():
                if (difference.path, difference.versions) not in seen:
                    seen.add((difference.path, difference.versions))
                    queue.append((difference, path, now.created))
        return origins

    def _change(self, reason: Reason, until: float) -> tuple[Materialization | None, Materialization | None]:
        """Return two materializations of an input: the last with the version before a change, and the first with the version after it.

        Parameters
        ----------
        reason
            The reason that names the input and both versions.
        until
            Ignore materializations that are newer than this time, in seconds since the epoch.

        Returns
        -------
        tuple
            The materialization before and the materialization after the change; None in place of a materialization that is not recorded.
        """
        items = self._histories.get(reason.path)
        if items is None:
            items = self._histories[reason.path] = self._store.history(reason.path, limit=_VERSIONS)
        earlier, version = reason.versions
        items_until = [item for item in reversed(items) if item.created <= until and item.memo_key]
        olds = [index for index, item in enumerate(items_until) if earlier in (item.id, item.data_version)]
        news = [index for index, item in enumerate(items_until) if version in (item.id, item.data_version)]
        # Find the newest change from the old to the new version. If the new version was reused, its materialization may be older than the old
        # version's.
        now = next((index for index in news if olds and index > olds[-1]), news[-1] if news else None)
        before = next((index for index in reversed(olds) if now is None or index < now), olds[-1] if olds else None)
        return (None if before is None else items_until[before], None if now is None else items_until[now])

    def _note(self, item: Materialization) -> str:
        for record in self._store.catalog.ask(read_attempts, item.step_key, _ATTEMPTS):
            if record.run_id == item.run_id and record.reason:
                return f" ({record.reason})"
        return ""

    def _differences(self, new: Materialization, old: Materialization) -> list[Reason]:
        """Return the differences between two materializations of a key as reasons why `new` was computed although `old` was stored."""
        if new.step_key != old.step_key:
            return [Reason(f"the value is now computed by {new.step_key}, no longer by {old.step_key}", kind="step")]
        reasons: list[Reason] = []
        if new.code_version != old.code_version:
            before, now = (self._store.codes([item.code_version]).get(item.code_version) for item in (old, new))
            reasons += code_reasons(before, now, new.step_key)
        return [*reasons, *input_reasons(old.inputs, new.inputs), *_reads(old.reads, new.reads)]


def _unique_origins(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return copies of one step's reasons, so that each origin occurs only once in all of them.

    If several reasons have the same origin, only the one with the shortest `Reason.chain` from this origin to the step keeps it.
    """
    reasons = list(reasons)
    shortest: dict[tuple[object, ...], Reason] = {}
    for reason in reasons:
        for origin in reason.origins:
            shortest_origin = shortest.get(_cause(origin))
            if shortest_origin is None or len(origin.chain) < len(shortest_origin.chain):
                shortest[_cause(origin)] = origin
    unnamed = dict(shortest)
    result = []
    for reason in reasons:
        origins = [origin for origin in reason.origins if unnamed.get(_cause(origin)) is origin and unnamed.pop(_cause(origin))]
        result.append(replace(reason, origins=tuple(origins)))
    return tuple(result)


def _cause(origin: Reason) -> tuple[object, ...]:
    return origin.kind, origin.text, origin.path, origin.place, origin.chain[:1]


def _with_key(key: str, reason: Reason) -> Reason:
    """Return `reason`, a reason for the state of the upstream step `key`. If its text is ``never computed``, add the key to the text."""
    return replace(reason, text=f"{key} was never computed") if reason.text == "never computed" else reason


def _failure(key: str, reasons: list[Reason]) -> list[Reason]:
    """Return a list of one reason for the state of a failed upstream step: it names the error, and the changes that made the step run.

    Parameters
    ----------
    key
        The key of the failed step.
    reasons
        The reasons for the step's state: first the error, then the changes; may be empty.
    """
    error, *changes = reasons or [Reason("its last attempt failed")]
    after = f", after {'; '.join(headline(replace(change, chain=())) for change in changes)}" if changes else ""
    detail = "\n".join(filter(None, (error.detail, *(change.detail for change in changes))))
    return [replace(error, text=f"{key} failed ({error.text}){after}", detail=detail, chain=error.chain or (key,))]


def _reads(old: tuple[Read, ...], new: tuple[Read, ...]) -> list[Reason]:
    """Return a reason for each read that both runs recorded with different results.

    Parameters
    ----------
    old, new
        The reads of the earlier and of the later run of a step.
    """
    before = {_subject(read): read for read in old}
    reasons = []
    for read in new:
        earlier = before.get(_subject(read))
        if earlier is None or (earlier.kind, earlier.digest) == (read.kind, read.digest):
            continue
        if read.kind == "asset":
            versions = (earlier.digest, read.digest)
            reasons.append(Reason(f"the value of {read.name} changed", read.name, kind="input", versions=versions))
        else:
            reasons.append(Reason(_read_text(earlier, read), kind=read.kind))
    return reasons


def _subject(read: Read) -> tuple[object, ...]:
    aspect = read.names if read.kind in ("status", "asset") else ()
    return ("file" if read.kind == "absent" else read.kind, read.name, *aspect)


def _read_text(before: Read, now: Read) -> str:
    name = now.name
    if now.kind in ("listing", "glob"):
        kind = "names in" if now.kind == "listing" else "files that match"
        return f"the {kind} {name} changed"
    if now.kind == "environment":
        return "the environment changed" if name == "*" else f"the environment variable {name} changed"
    if before.kind == "absent":
        return f"{name} is there now"
    return f"{name} is gone" if now.kind == "absent" else f"{name} changed"

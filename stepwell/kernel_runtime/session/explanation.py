"""Why a step is in its state, and why it ran last: the smallest true causes, followed upstream to their origin.

A cause that a step inherits (it may change, the value of an input changed) is followed link by link: through the present states where
something upstream is yet to run, through the records of two materializations where it has run. Everything needed is recorded already: code
versions with their parts, versions of inputs, reads, and the engine's note of a run that no difference explains.
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
    """Return why an asset or step is in its state, and why it ran last; only the latter of a key that is only stored.

    Raises
    ------
    UnknownKeyError
        If nothing has this key.
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
    own = [step for step in plan.steps if step.key in steps]
    runs = {step.key: run for step in own if (run := origins.last_run(step.address, step.notebook)) is not None}
    return Explanation(key, tuple(origins.of(states[step]) for step in steps), runs)


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, slots=True)
class LastRun:
    """Why a step ran the last time that it ran."""

    run_id: str
    started: float
    """Seconds since the epoch."""
    status: str
    """``executed``, ``failed`` or ``cancelled``."""
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "run_id": self.run_id,
            "started": self.started,
            "status": self.status,
            "reasons": [reason.as_dict() for reason in self.reasons],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``%why`` says of a key."""

    key: str
    steps: tuple[StepState, ...]
    """The states of its steps; one for an asset computed by one op, none for what is only read from the store."""
    last_runs: Mapping[str, LastRun] = field(default_factory=dict)
    """By step key, the last run that did not reuse it."""
    stored: Materialization | None = None
    """What is stored for a key that nothing here defines."""

    @property
    def state(self) -> str:
        """The state of the key: the first of its steps that is not fresh, else fresh; ``stored`` for what nothing here defines."""
        if not self.steps:
            return "stored"
        return next((step.state for step in self.steps if step.state != "fresh"), "fresh")

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values: key, state, reasons with kind, path, detail and origins, and these for each step."""
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
        found: dict[str, Any] = {
            "key": self.key,
            "state": self.state,
            "reasons": [reason.as_dict() for step in self.steps for reason in step.reasons],
            "steps": steps,
        }
        if self.stored is not None:
            found["materialization"] = self.stored.id
            found["last_run"] = next((run.as_dict() for run in self.last_runs.values()), None)
        return found

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
                lines += _reason_lines(reason, told=len(origins) == 1)
            run = self.last_runs.get(step.key)
            first = run is not None and all(reason.kind == "missing" for reason in run.reasons)
            # Of other states the reasons say what there is to say of the last run.
            if run is not None and (step.state == "fresh" or (step.state in ("stale", "may change") and not first)):
                lines += _last_lines(run)
        return printable("\n".join(lines))


def headline(reason: Reason) -> str:
    """Return a cause in one phrase: ``LIMIT 3 -> 4 in cell 5, three steps up: clean -> rep.f -> rep.g``."""
    text = reason.text.replace(": ", " ", 1) if reason.kind == "global" and ARROW in reason.text else reason.text
    place = f" in {reason.place}" if reason.place else ""
    count = len(reason.chain)
    if not count:
        return text + place
    steps = f"{_NUMBERS[count] if count < len(_NUMBERS) else count} step{'' if count == 1 else 's'} up"
    return f"{text}{place}, {steps}: {ARROW.join(reason.chain)}"


def _facts(shown: Materialization) -> str:
    return f" · {describe(shown)} · {moment(shown.created)} · {shown.seconds:.1f} s"


def _reason_lines(reason: Reason, *, told: bool = False) -> list[str]:
    """Return the lines of one reason.

    Parameters
    ----------
    told
        Whether the only origin was named above.
    """
    around = [part for part in (reason.path if reason.path not in reason.text else "", reason.place) if part]
    lines = [f"  {reason.text}" + (f"  ({', '.join(around)})" if around else "")]
    lines += [f"    {line}" for line in reason.detail.splitlines()]
    for origin in reason.origins:
        if not told:
            lines.append(f"    because {headline(origin)}")
        lines += [f"    {line}" for line in origin.detail.splitlines()]
    return lines


def _last_lines(run: LastRun) -> list[str]:
    """Return the lines about a step's last run, the first with its time."""
    causes = [origin for reason in run.reasons for origin in reason.origins or (reason,)]
    began = f"  last run {moment(run.started)}" + ("" if run.status == "executed" else f": {run.status}")
    if len(causes) == 1:
        return [f"{began}, because {headline(causes[0])}", *[f"    {line}" for line in causes[0].detail.splitlines()]]
    lines = [f"{began}, because"]
    for cause in causes:
        lines += [f"    {headline(cause)}", *[f"      {line}" for line in cause.detail.splitlines()]]
    return lines


_MOST = 5
"""Origins that are named."""
_ATTEMPTS = 50
"""Records of a step among which the run before its last one is looked for."""
_VERSIONS = 200
"""Materializations of a key among which the two versions of an input are looked for."""


class Origins:
    """Follows causes upstream.

    Parameters
    ----------
    states
        The states of now, by step key.
    """

    def __init__(self, store: ValueStore, states: Mapping[str, StepState]) -> None:
        self._store = store
        self._states = states
        self._histories: dict[str, list[Materialization]] = {}

    def of(self, state: StepState) -> StepState:
        """Return a state whose reasons have their origins."""
        return replace(state, reasons=self._followed(state.reasons))

    def last_run(self, address: str, notebook: str) -> LastRun | None:
        """Return why a step ran the last time that it was not reused; None if no such run is recorded.

        Parameters
        ----------
        address
            The step's key in the store.
        notebook
            Whose run is meant where several notebooks define the step.
        """
        found = self._store.catalog.ask(read_attempts, address, _ATTEMPTS)
        # A failed attempt has no materialization that tells whose it is.
        own = [each for each in found if not each.materializations or each.materializations[0].notebook == notebook]
        records = own if any(each.status == "executed" for each in own) else found
        for position, record in enumerate(records):
            if record.status != "reused":
                return LastRun(
                    record.run_id, record.started, record.status, self._causes(record, records[position + 1 :])
                )
        return None

    def _causes(self, record: StepRecord, earlier: list[StepRecord]) -> tuple[Reason, ...]:
        if record.error is not None:
            return (Reason(f"{record.error.name}: {record.error.message}", detail=record.error.where, kind="failure"),)
        if record.reason or not record.materializations:
            return (Reason(record.reason or "its run was stopped", kind="run"),)
        new = record.materializations[0]
        if not new.memo_key:
            return (Reason("its job ran, and steps of a job are never skipped", kind="cache"),)
        before = next(
            (item for other in earlier for item in other.materializations if item.key == new.key and item.memo_key),
            None,
        )
        if before is None and any(other.status == "executed" for other in earlier):
            return (Reason("its code or inputs changed; the result before is no longer recorded", kind="missing"),)
        if before is None:
            return (Reason("nothing was stored for it", kind="missing"),)
        found = self._followed(tuple(self._differences(new, before)), new.created)
        # An input whose origin is named beside another input needs no line of its own.
        told = tuple(reason for reason in found if reason.origins or not reason.versions)
        lost = Reason("what was stored could not be used: another Python, or a value that was gone", kind="missing")
        return told or found or (lost,)

    def _followed(self, reasons: tuple[Reason, ...], until: float = math.inf) -> tuple[Reason, ...]:
        """Return reasons with their origins; those of a run in the past are found in what was recorded until then."""
        found = []
        for reason in reasons:
            origins: list[Reason] = []
            if reason.kind in {"upstream", "variable"}:
                origins = self._through_states(reason.path)
            elif reason.versions:
                origins = self._through_records(reason, (), until)
            found.append(replace(reason, origins=tuple(origins[:_MOST])) if origins else reason)
        return _once(found)

    def _through_states(self, start: str) -> list[Reason]:
        found: list[Reason] = []
        queue: list[tuple[str, tuple[str, ...]]] = [(start, (start,))]
        seen = {start}
        for key, chain in queue:
            state = self._states.get(key)
            if state is None or len(found) >= _MOST:
                continue
            own = []
            for reason in state.reasons:
                if reason.kind in {"upstream", "variable"}:
                    if reason.path not in seen:
                        seen.add(reason.path)
                        queue.append((reason.path, (reason.path, *chain)))
                elif reason.versions:
                    own += self._through_records(reason, chain, math.inf)
                else:
                    own.append(replace(reason, chain=chain))
            found += _failure(key, own) if state.state == "failed" else [_named(key, reason) for reason in own]
        return found

    def _through_records(self, changed: Reason, chain: tuple[str, ...], until: float) -> list[Reason]:
        """Follow a changed input through the materializations that had its two versions."""
        found: list[Reason] = []
        queue = [(changed, chain, until)]
        seen = {(changed.path, changed.versions)}
        for reason, below, latest in queue:
            if len(found) >= _MOST:
                break
            before, now = self._change(reason, latest)
            if now is None:
                if below or len(queue) > 1:
                    found.append(replace(reason, chain=below, versions=()))
                continue
            here = (now.step_key, *below)
            if before is None:
                found.append(Reason(f"{now.step_key} was computed", chain=here, kind="missing"))
                continue
            differences = self._differences(now, before)
            inherited = [each for each in differences if each.versions]
            own = [each for each in differences if not each.versions]
            if not differences:
                told = self._note(now)
                found.append(Reason(f"{now.step_key} ran again and gave another value{told}", chain=here, kind="run"))
            # What changed in the step itself explains it; only where nothing did, what it was given is followed.
            found += [replace(each, chain=here) for each in own]
            for each in inherited if not own else ():
                if (each.path, each.versions) not in seen:
                    seen.add((each.path, each.versions))
                    queue.append((each, here, now.created))
        return found

    def _change(self, reason: Reason, until: float) -> tuple[Materialization | None, Materialization | None]:
        """Return the materializations of an input between which its value changed: what came later with the same value explains nothing."""
        items = self._histories.get(reason.path)
        if items is None:
            items = self._histories[reason.path] = self._store.history(reason.path, limit=_VERSIONS)
        earlier, version = reason.versions
        known = [item for item in reversed(items) if item.created <= until and item.memo_key]
        befores = [at for at, item in enumerate(known) if earlier in (item.id, item.data_version)]
        nows = [at for at, item in enumerate(known) if version in (item.id, item.data_version)]
        # The newest change from one to the other; a value that came back by reuse was made before the other.
        now = next((at for at in nows if befores and at > befores[-1]), nows[-1] if nows else None)
        before = next((at for at in reversed(befores) if now is None or at < now), befores[-1] if befores else None)
        return (None if before is None else known[before], None if now is None else known[now])

    def _note(self, item: Materialization) -> str:
        for record in self._store.catalog.ask(read_attempts, item.step_key, _ATTEMPTS):
            if record.run_id == item.run_id and record.reason:
                return f" ({record.reason})"
        return ""

    def _differences(self, new: Materialization, old: Materialization) -> list[Reason]:
        """Return in what a materialization differs from an earlier one of the same key, by what is recorded of both."""
        if new.step_key != old.step_key:
            return [Reason(f"it is computed by {new.step_key} now, no longer by {old.step_key}", kind="step")]
        found: list[Reason] = []
        if new.code_version != old.code_version:
            before, now = (self._store.codes([item.code_version]).get(item.code_version) for item in (old, new))
            found += code_reasons(before, now, new.step_key)
        return [*found, *input_reasons(old.inputs, new.inputs), *_reads(old.reads, new.reads)]


def _once(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return reasons with each origin named once: where several ways lead to it, by the shortest."""
    reasons = list(reasons)
    shortest: dict[tuple[object, ...], Reason] = {}
    for reason in reasons:
        for origin in reason.origins:
            known = shortest.get(_cause(origin))
            if known is None or len(origin.chain) < len(known.chain):
                shortest[_cause(origin)] = origin
    left = dict(shortest)
    found = []
    for reason in reasons:
        origins = [each for each in reason.origins if left.get(_cause(each)) is each and left.pop(_cause(each))]
        found.append(replace(reason, origins=tuple(origins)))
    return tuple(found)


def _cause(origin: Reason) -> tuple[object, ...]:
    return origin.kind, origin.text, origin.path, origin.place, origin.chain[:1]


def _named(key: str, reason: Reason) -> Reason:
    """Return a reason that is read without the step that it belongs to beside it."""
    return replace(reason, text=f"{key} was never computed") if reason.text == "never computed" else reason


def _failure(key: str, reasons: list[Reason]) -> list[Reason]:
    """Return the causes of a failed step as one: the error, and what changed before it."""
    error, *changes = reasons or [Reason("its last attempt failed")]
    after = f", after {'; '.join(headline(replace(change, chain=())) for change in changes)}" if changes else ""
    detail = "\n".join(filter(None, (error.detail, *(change.detail for change in changes))))
    return [replace(error, text=f"{key} failed ({error.text}){after}", detail=detail, chain=error.chain or (key,))]


def _reads(old: tuple[Read, ...], new: tuple[Read, ...]) -> list[Reason]:
    """Return what two runs read with different results."""
    before = {_subject(read): read for read in old}
    found = []
    for read in new:
        earlier = before.get(_subject(read))
        if earlier is None or (earlier.kind, earlier.digest) == (read.kind, read.digest):
            continue
        if read.kind == "asset":
            versions = (earlier.digest, read.digest)
            found.append(Reason(f"the value of {read.name} changed", read.name, kind="input", versions=versions))
        else:
            found.append(Reason(_read_text(earlier, read), kind=read.kind))
    return found


def _subject(read: Read) -> tuple[object, ...]:
    aspect = read.names if read.kind in ("status", "asset") else ()
    return ("file" if read.kind == "absent" else read.kind, read.name, *aspect)


def _read_text(before: Read, now: Read) -> str:
    name = now.name
    if now.kind in ("listing", "glob"):
        kind = "names in" if now.kind == "listing" else "files that match"
        return f"the {kind} {name} changed"
    if now.kind == "environment":
        return "the environment changed" if name == "*" else f"the environment name {name} changed"
    if before.kind == "absent":
        return f"{name} is there now"
    return f"{name} is gone" if now.kind == "absent" else f"{name} changed"

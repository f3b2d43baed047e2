"""The state of every step, with its reasons (DESIGN, section 1, state)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.planning.memo import Known, choose_current
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.records.events import State
from stepwell.kernel_runtime.records.materializations import (
    NOTEBOOK,
    Effects,
    InputVersion,
    Materialization,
    acceptance,
)
from stepwell.kernel_runtime.text import age_text


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause of a state."""

    text: str
    """In a few words: ``split() changed (cell 9)``."""
    path: str = ""
    """How the cause is reached from the step: ``model -> split``."""
    detail: str = ""
    """More lines: a diff, an old and a new value, a remedy."""
    kind: str = ""
    """For machines: ``body``, ``function``, ``global``, ``package``, ``input``, ``order``, ``file``, ``upstream``, ``volatile``, ..."""
    place: str = ""
    """The cell that bound a changed variable, where the text does not say it."""
    versions: tuple[str, ...] = ()
    """Of a changed input the version before and now."""
    chain: tuple[str, ...] = ()
    """Of a cause upstream the steps from the one in which it lies to the one before the explained step."""
    origins: tuple[Reason, ...] = ()
    """Of what is inherited from upstream its causes, where they were asked for."""

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "kind": self.kind,
            "text": self.text,
            "path": self.path,
            "detail": self.detail,
            "place": self.place,
            "chain": list(self.chain),
            "origins": [origin.as_dict() for origin in self.origins],
        }


@dataclass(frozen=True, slots=True)
class StepState:
    """What is known of a step without running it."""

    key: str
    state: State
    reasons: tuple[Reason, ...]
    memo_key: str
    """Empty where it is not known before something upstream ran."""
    current: tuple[Materialization, ...]
    """The current materialization of each output that has one; what a run would reuse, for a fresh step."""
    seconds: float | None
    """How long the newest execution took."""
    inputs: tuple[InputVersion, ...] | None = None

    @property
    def must_run(self) -> bool:
        """Whether a run would certainly or possibly run it: what reads the notebook's variables as they are now would not."""
        doubt = self.state == "may change" and all(reason.kind == "variable" for reason in self.reasons)
        return self.state != "fresh" and not doubt


class Explainer(Protocol):
    """Says why what is stored for a step cannot be reused."""

    def __call__(
        self, step: PlanStep, stored: tuple[Materialization, ...], inputs: tuple[InputVersion, ...] | None
    ) -> tuple[Reason, ...]:
        """Return the causes that are in the step itself, its inputs (None if they are not known yet) or its reads."""

    def unverifiable(self, step: PlanStep) -> tuple[Reason, ...]:
        """Return what the step reaches that has no digest."""


def plan_states(plan: Plan, known: Known, explain: Explainer) -> dict[str, StepState]:
    """Return the state of every step of a plan, in its order.

    Parameters
    ----------
    known
        Gets the materializations of what is fresh, and of what the plan reads from the store.
    explain
        Called for steps that have something stored which cannot be reused.
    """
    found: dict[str, StepState] = {}
    pending: dict[str, str] = {}
    for step in plan.steps:
        found[step.key] = state = _state(step, plan, known, found, explain, pending=pending)
        if state.state == "fresh":
            known.values.update((item.key, item) for item in state.current)
    return found


def _state(
    step: PlanStep,
    plan: Plan,
    known: Known,
    found: dict[str, StepState],
    explain: Explainer,
    *,
    pending: dict[str, str],
) -> StepState:
    snapshot = known.snapshot
    stored = tuple(
        item
        for output in step.outputs
        if (item := choose_current(snapshot.current.get(output.key, []), step.notebook)) is not None
    )
    seconds = snapshot.seconds.get(step.address)
    failure = snapshot.failures.get(step.address)
    waits = [
        key for key in step.input_keys if key in plan.producers and found[plan.producers[key].key].state != "fresh"
    ]
    inputs = None if waits else known.inputs(step)
    memo = known.key(step, inputs) if inputs is not None else ""
    group = known.hit(step, memo) if memo else None

    def result(state: State, *reasons: Reason, current: tuple[Materialization, ...] = stored) -> StepState:
        return StepState(step.key, state, reasons, memo, current, seconds, inputs)

    if failure is not None and group is None and memo and failure.memo_key == memo:
        error = failure.error
        return result(
            "failed",
            Reason(
                f"{error.name}: {error.message}" if error else "the last attempt failed",
                detail=error.where if error else "",
                kind="failure",
            ),
            *(reason for reason in (explain(step, stored, inputs) if stored else ()) if reason.kind != "python"),
        )
    if group is not None:
        lost = next(((item, why) for item in group if (why := known.lost(item))), None)
        if lost is not None:
            return result("missing", _lost(*lost, known), current=group)
        if len(group) > 1 and not (known.kept is not None and known.kept(step.key, group[0])):
            pending.update(dict.fromkeys(_would_change(step, group, known), step.key))
        doubts = _doubts(step, plan, known, found)
        if doubts:
            return result("may change", *doubts, current=tuple([item for item in group if item.output != NOTEBOOK]))
        return result(
            "fresh",
            *_moved(step, stored, group, inputs, explain),
            current=tuple([item for item in group if item.output != NOTEBOOK]),
        )
    if not stored:
        return result("missing", Reason("never computed", kind="missing"))
    if not step.memoised:
        return result("stale", Reason("cache=False: it runs in every run", kind="cache"))
    if step.op.volatile:
        return result("stale", Reason("volatile: runs every time", kind="volatile"))
    if step.code is not None and step.code.unverifiable:
        return result("unverifiable", *explain.unverifiable(step))
    if waits:
        # What changed in the step itself is certain; what comes from upstream is only possible.
        own = tuple(reason for reason in explain(step, stored, None))
        if own:
            return result("stale", *own)
        sources = dict.fromkeys(plan.producers[key].key for key in waits)
        return result(
            "may change",
            *(
                Reason(
                    f"{key} {'may change' if found[key].state == 'may change' else f'is {found[key].state}'}",
                    path=key,
                    kind="upstream",
                )
                for key in sources
            ),
        )
    old = _too_old(step, stored, known) if stored[0].memo_key == memo else None
    if old is not None:
        return result("stale", old)
    reasons = explain(step, stored, inputs)
    changed = [_pending_change(reason, pending) for reason in reasons] if pending else []
    if changed and all(changed):
        # No effect is applied where only states are asked for: whether the step runs is known when those before it were reused.
        return result("may change", *dict.fromkeys(reason for reason in changed if reason is not None))
    return result("stale", *(reasons or (Reason("its memo key changed"),)))


def _would_change(step: PlanStep, group: tuple[Materialization, ...], known: Known) -> list[str]:
    """Return the names and files of the notebook that a reuse of a step would change."""
    kept = next((item for item in group if item.output == NOTEBOOK), None)
    if kept is None or not known.vouches(kept):
        return []
    effects, body = Effects.from_text(kept.effects), step.op.body
    names = body.defined(effects.definitions) if isinstance(body, CellBody) else []
    return [*effects.values, *effects.objects, *effects.deleted, *names, *(each.path for each in effects.files)]


def _pending_change(reason: Reason, pending: dict[str, str]) -> Reason | None:
    """Return a reason that names the step whose reuse would change what a reason names, or None if none would."""
    # A recorded read has no path from the step: its text names the file or the variable.
    words = reason.path.split(" -> ") if reason.path else reason.text.split()
    for name, key in pending.items():
        if any(word == name or word.endswith(f"/{name}") for word in words):
            return Reason(f"{key} would change {name} first", path=key, kind="upstream")
    return None


def _doubts(step: PlanStep, plan: Plan, known: Known, found: dict[str, StepState]) -> list[Reason]:
    """Return which variables that a step reads were made from assets that are not fresh."""
    reasons = []
    for key, name in (known.made_from(step) if known.made_from is not None else {}).items():
        giver = plan.producers[key].key if key in plan.producers else key
        state = found.get(giver)
        if state is not None and giver != step.key and state.state != "fresh":
            how = "may change" if state.state == "may change" else f"is {state.state}"
            reasons.append(Reason(f"{name} was made from {key}, which {how}", path=giver, kind="variable"))
    return reasons


def _lost(item: Materialization, why: str, known: Known) -> Reason:
    if item.id in known.snapshot.foreign:
        return Reason(why, detail=f"if you trust who made it: stepwell trust {item.key}", kind="untrusted")
    return Reason(why, kind="missing")


def _too_old(step: PlanStep, stored: tuple[Materialization, ...], known: Known) -> Reason | None:
    age = step.op.max_age
    if age is None or known.is_young(stored, age):
        return None
    return Reason(f"older than its greatest age of {age_text(age)}", kind="age")


def _moved(
    step: PlanStep,
    stored: tuple[Materialization, ...],
    group: tuple[Materialization, ...],
    inputs: tuple[InputVersion, ...] | None,
    explain: Explainer,
) -> tuple[Reason, ...]:
    """Say why the result that a run would reuse is another one than the current."""
    note = acceptance(group[0])
    if note is not None:
        causes = "; ".join(note.get("causes", ())) or "nothing that could be named"
        return (Reason(f"accepted on {note.get('on', '')}, as not mattering: {causes}", kind="accepted"),)
    if not stored or stored[0].memo_key == group[0].memo_key:
        return ()
    return (
        Reason("a result kept for exactly this will be reused; since the current one:"),
        *explain(step, stored, inputs),
    )

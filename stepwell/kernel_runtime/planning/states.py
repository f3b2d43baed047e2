"""The state of every step before anything runs, with reasons; and the lineage, which shows definitions and states as a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, JobDefinition
from stepwell.kernel_runtime.planning.build import Definitions
from stepwell.kernel_runtime.planning.decision import (
    Decision,
    DecisionFacts,
    choose_current,
    decide,
    is_kept,
    lost_value,
    may_be_reused,
)
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.records.materializations import (
    NOTEBOOK,
    Effects,
    InputVersion,
    Materialization,
    acceptance,
)
from stepwell.kernel_runtime.records.runs import Lineage, LineageEdge, LineageNode, NodeKind, State
from stepwell.kernel_runtime.text import age_text, size_text


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for the state of a step, or for the last run of a step."""

    text: str
    """The reason in a few words, for example ``split() changed (cell 9)``."""
    path: str = ""
    """The path from the step to the changed object, for example ``model -> split``. If the reason is an input or an upstream step, the key of this
    input or upstream step. May be empty.
    """
    detail: str = ""
    """Further lines: a diff of source code, or a remedy. May be empty."""
    kind: str = ""
    """The kind of reason, for programs: ``body``, ``function``, ``global``, ``package``, ``input``, ``order``, ``file``, ``upstream``,
    ``volatile`` and others.
    """
    place: str = ""
    """The cell or file that bound the changed variable; empty if it is unknown or if `text` names it."""
    versions: tuple[str, ...] = ()
    """For a changed input, two strings: its version before and its version after the change. Otherwise empty."""
    chain: tuple[str, ...] = ()
    """If the reason is in `origins` of another reason: the keys of the steps from the upstream step that has this reason to the explained step,
    in the order of the run, without the explained step itself. Otherwise empty.
    """
    origins: tuple[Reason, ...] = ()
    """If the reason lies upstream (a changed input, or an upstream step that is not fresh): the reasons upstream that caused it. Only
    `session.explanation` searches for these, for ``%why``. Otherwise empty.
    """

    def as_dict(self) -> dict[str, Any]:
        """Return the reason as JSON values."""
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
    """The state of a step, determined without running the step."""

    key: str
    state: State
    reasons: tuple[Reason, ...]
    memo_key: str
    """The present memo key; empty if it is not known before upstream steps run."""
    current: tuple[Materialization, ...]
    """The stored result that `decide` found for the step; if it found none, the current materializations of the outputs."""
    seconds: float | None
    """The duration of the newest execution in seconds; None if unknown."""
    inputs: tuple[InputVersion, ...] | None = None
    """The present versions of the inputs; None if they are not known before upstream steps run."""

    @property
    def must_run(self) -> bool:
        """True if a run will or may execute the step; False if the step is fresh.

        Also False if the state is ``may change`` for one reason only: the step reads variables that plain cells computed from assets that are not
        fresh. A run does not execute plain cells.
        """
        doubt = self.state == "may change" and all(reason.kind == "variable" for reason in self.reasons)
        return self.state != "fresh" and not doubt


class Explainer(Protocol):
    """Explains why the stored results of a step cannot be reused."""

    def __call__(
        self, step: PlanStep, stored: tuple[Materialization, ...], inputs: tuple[InputVersion, ...] | None
    ) -> tuple[Reason, ...]:
        """Return the reasons why the stored results of a step cannot be reused.

        Parameters
        ----------
        stored
            The current materializations of the step's outputs; at least one.
        inputs
            The present versions of the step's inputs; None if they are not known before upstream steps run.
        """

    def unverifiable(self, step: PlanStep) -> tuple[Reason, ...]:
        """Return a reason for each object that the step's code reaches and that has no digest."""


def plan_states(plan: Plan, facts: DecisionFacts, explain: Explainer) -> dict[str, StepState]:
    """Return the state of every step of a plan by step key, in the order of the plan. No step runs.

    Parameters
    ----------
    facts
        The facts on which the decisions are based. This function adds to them: the materializations of fresh steps to `facts.values`, and the
        keys of all other steps to `facts.steps_without_value`.
    explain
        Returns the reasons why the stored results of a step cannot be reused.
    """
    states = _States(plan, facts, explain)
    for step in plan.steps:
        states.add(step)
    return states.by_key


class _States:
    """Collects the states of the steps of a plan, one step after the other."""

    def __init__(self, plan: Plan, facts: DecisionFacts, explain: Explainer) -> None:
        self.plan = plan
        self.facts = facts
        self.explain = explain
        self.by_key: dict[str, StepState] = {}
        self.pending: dict[str, str] = {}
        """Maps the name or path of each variable or file that a run would change by reusing an earlier step to the key of that step."""
        self._executions: dict[str, list[tuple[Materialization, ...]]] | None = None

    def add(self, step: PlanStep) -> None:
        """Determine and add the state of the next step. Record in the facts whether the step has a value, because later steps depend on this."""
        facts = self.facts
        decision = decide(step, self.plan, facts, facts.kind(step.key))
        state = self._state(step, decision)
        self.by_key[step.key] = state
        if state.state == "fresh":
            facts.values.update((item.key, item) for item in state.current)
        else:
            facts.steps_without_value[step.key] = "wait"

    def _state(self, step: PlanStep, decision: Decision) -> StepState:
        snapshot = self.facts.snapshot
        stored = tuple(
            item
            for output in step.outputs
            if (item := choose_current(snapshot.current.get(output.key, []), step.notebook)) is not None
        )
        current = stored
        if decision.materializations:
            state, reasons = self._of_found(step, decision, stored)
            lost = state == "missing"
            current = tuple([item for item in decision.materializations if lost or item.output != NOTEBOOK])
        elif not stored and decision.cause != "failed":
            state, reasons = "missing", (Reason("never computed", kind="missing"),)
        else:
            state, reasons = self._of_computed(step, decision, stored)
        seconds = snapshot.seconds.get(step.address)
        return StepState(step.key, state, reasons, decision.memo_key, current, seconds, decision.inputs)

    def _of_found(
        self, step: PlanStep, decision: Decision, stored: tuple[Materialization, ...]
    ) -> tuple[State, tuple[Reason, ...]]:
        """Return the state and reasons of a step that has a stored result with its memo key (``decision.materializations``).

        Either this result can be reused, or one of its stored values is lost, or its effects cannot be restored.
        """
        facts, materializations = self.facts, decision.materializations
        lost = lost_value(materializations, facts)
        if lost is not None:
            return "missing", (_lost_value_reason(*lost, facts),)
        if decision.cause == "unrestorable":
            reason = Reason(decision.obstacle, kind="unrestorable")
            earlier = _pending_change(reason, self.pending)
            return ("stale", (reason,)) if earlier is None else ("may change", (earlier,))
        if len(materializations) > 1 and not is_kept(step, materializations, facts, facts.kind(step.key)):
            self.pending.update(dict.fromkeys(_would_change(step, materializations, facts), step.key))
        doubts = self._doubts(step)
        if doubts:
            return "may change", tuple(doubts)
        return "fresh", _other_result_reasons(step, stored, materializations, decision.inputs, self.explain)

    def _of_computed(
        self, step: PlanStep, decision: Decision, stored: tuple[Materialization, ...]
    ) -> tuple[State, tuple[Reason, ...]]:
        """Return the state and reasons of a step that was computed or failed before and that a run will or may execute."""
        facts, cause = self.facts, decision.cause
        if cause == "failed":
            error = facts.snapshot.failures[step.address].error
            text = f"{error.name}: {error.message}" if error else "the last attempt failed"
            why = self.explain(step, stored, decision.inputs) if stored else ()
            return "failed", (
                Reason(text, detail=error.where if error else "", kind="failure"),
                *(reason for reason in why if reason.kind != "python"),
            )
        if cause == "cache":
            return "stale", (Reason("cache=False: the step runs in every run", kind="cache"),)
        if cause == "volatile":
            return "stale", (Reason("volatile: the step runs in every run", kind="volatile"),)
        if cause == "unverifiable":
            return "unverifiable", self.explain.unverifiable(step)
        if decision.action == "wait":
            return self._of_waiting(step, stored)
        old = _age_reason(step, stored, facts) if stored[0].memo_key == decision.memo_key else None
        if old is not None:
            return "stale", (old,)
        reasons = self.explain(step, stored, decision.inputs)
        changed = [_pending_change(reason, self.pending) for reason in reasons] if self.pending else []
        if changed and all(changed):
            # A run would restore all changed objects by reusing earlier steps. States are determined without restoring anything.
            return "may change", tuple(dict.fromkeys(reason for reason in changed if reason is not None))
        return "stale", reasons or (Reason("the memo key of the step changed"),)

    def _of_waiting(self, step: PlanStep, stored: tuple[Materialization, ...]) -> tuple[State, tuple[Reason, ...]]:
        """Return the state and reasons of a step that was computed before and is downstream of a step that is not fresh."""
        changes = self.explain(step, stored, None)
        if changes and not may_be_reused(step, self._executions_of(step), self.facts):
            # The step itself has changed, so it will run, whatever the upstream step returns.
            return "stale", changes
        producers, states = self.plan.producers, self.by_key
        sources = dict.fromkeys(producers[key].key for key in step.input_keys if key in producers)
        return "may change", tuple(
            Reason(f"{key} {_difference_text(states[key])}", path=key, kind="upstream")
            for key in sources
            if states[key].state != "fresh"
        )

    def _executions_of(self, step: PlanStep) -> list[tuple[Materialization, ...]]:
        """Return the stored results of a step that the snapshot contains, whatever their memo keys.

        The snapshot contains only results that were computed with a present code version of a step of the plan.
        """
        if self._executions is None:
            self._executions = {}
            for executions in self.facts.snapshot.by_memo_key.values():
                self._executions.setdefault(executions[0][0].step_key, []).extend(executions)
        return self._executions.get(step.address, [])

    def _doubts(self, step: PlanStep) -> list[Reason]:
        """Return a reason for each variable that a step reads and that a plain cell computed from an asset that is not fresh."""
        facts, plan = self.facts, self.plan
        reasons = []
        for key, name in (facts.made_from(step) if facts.made_from is not None else {}).items():
            giver = plan.producers[key].key if key in plan.producers else key
            state = self.by_key.get(giver)
            if state is not None and giver != step.key and state.state != "fresh":
                reasons.append(
                    Reason(
                        f"the variable {name} was computed from {key}, which {_difference_text(state)}",
                        path=giver,
                        kind="variable",
                    )
                )
        return reasons


def _difference_text(state: StepState) -> str:
    return "may change" if state.state == "may change" else f"is {state.state}"


def _would_change(step: PlanStep, materializations: tuple[Materialization, ...], facts: DecisionFacts) -> list[str]:
    """Return the names of the variables, and the paths of the files, that the reuse of a stored result would change.

    Return an empty list if the result has no effects, or if the record of the effects is not signed with this user's key.

    Parameters
    ----------
    materializations
        The stored result: the materializations that one run of the step produced.
    """
    effects_record = next((item for item in materializations if item.output == NOTEBOOK), None)
    if effects_record is None or not facts.vouches(effects_record):
        return []
    effects, body = Effects.from_text(effects_record.effects), step.op.body
    names = body.defined_names(effects.definitions) if isinstance(body, CellBody) else []
    return [*effects.values, *effects.objects, *effects.deleted, *names, *(file.path for file in effects.files)]


def _pending_change(reason: Reason, pending: dict[str, str]) -> Reason | None:
    """Return a reason that names the earlier step whose reuse would change the object that `reason` names; None if there is no such step.

    Parameters
    ----------
    pending
        Maps the name or path of each variable or file that a run would change by reusing an earlier step to the key of that step.
    """
    # The reason for a recorded read has no path: its text names the file or the variable.
    words = reason.path.split(" -> ") if reason.path else [word.strip("(),") for word in reason.text.split()]
    for name, key in pending.items():
        if any(word == name or word.endswith(f"/{name}") for word in words):
            return Reason(f"the reuse of {key} would first change {name}", path=key, kind="upstream")
    return None


def _lost_value_reason(item: Materialization, why: str, facts: DecisionFacts) -> Reason:
    if item.id in facts.snapshot.foreign:
        return Reason(why, detail=f"if you trust the author of the value: stepwell trust {item.key}", kind="untrusted")
    return Reason(why, kind="missing")


def _age_reason(step: PlanStep, stored: tuple[Materialization, ...], facts: DecisionFacts) -> Reason | None:
    age = step.op.max_age
    if age is None or facts.is_young(stored, age):
        return None
    return Reason(f"the value is older than max_age ({age_text(age)})", kind="age")


def _other_result_reasons(
    step: PlanStep,
    stored: tuple[Materialization, ...],
    materializations: tuple[Materialization, ...],
    inputs: tuple[InputVersion, ...] | None,
    explain: Explainer,
) -> tuple[Reason, ...]:
    """Return the reasons to show for a fresh step. There are two: the user accepted its result, or a run would reuse a stored result that is not the
    current one.

    Parameters
    ----------
    stored
        The current materializations of the step's outputs.
    materializations
        The stored result that a run would reuse.
    """
    note = acceptance(materializations[0])
    if note is not None:
        causes = "; ".join(note.get("causes", ())) or "unknown changes"
        return (Reason(f"accepted on {note.get('on', '')} despite these changes: {causes}", kind="accepted"),)
    if not stored or stored[0].memo_key == materializations[0].memo_key:
        return ()
    return (
        Reason("an earlier result for the present code and inputs will be reused; changes since the current result:"),
        *explain(step, stored, inputs),
    )


_KINDS: Mapping[str, NodeKind] = {
    "asset": "asset",
    "multi_asset": "multi_asset",
    "sql_asset": "sql_asset",
    "graph_asset": "op",
}


def lineage_of(
    plan: Plan,
    states: Mapping[str, StepState],
    definitions: Definitions,
    job_plans: Iterable[tuple[JobDefinition, Plan]],
    source_of: Callable[[object], str],
    *,
    left_by: Callable[[PlanStep], Iterable[str]] = lambda step: (),  # noqa: ARG005 - the default outside of notebooks
) -> Lineage:
    """Return the lineage: a card for each step, each source asset that a step reads, and each job; and the edges between the cards.

    Parameters
    ----------
    states
        The state of each step of `plan`, by step key.
    job_plans
        The jobs, each with its plan.
    source_of
        Returns the source code of a step's body, or of a job, for its card.
    left_by
        Takes a step, and returns the keys of the steps whose cells last bound the notebook variables that this step reads. These steps get an
        edge to the step, too. By default, no keys are returned.
    """
    owners: dict[str, AssetsDefinition] = {}
    for key, definition in definitions.computed_assets().items():
        owners[definition.step_key] = definition
        owners[key] = definition
    nodes: list[LineageNode] = []
    edges: list[LineageEdge] = []
    for step in plan.steps:
        owner = owners.get(step.key) or owners.get(step.key.split(".", 1)[0])
        nodes.append(_step_node(step, owner, states[step.key], source_of))
        edges += _edges(step, plan)
    steps = {step.key for step in plan.steps}
    after: dict[str, list[str]] = {}
    for edge in edges:
        after.setdefault(edge.source, []).append(edge.target)
    for step in plan.steps:
        for giver in left_by(step):
            # Steps can bind and read each other's variables. Then the lineage shows only the first edge, so that it has no cycle.
            if giver in steps and not _leads(after, step.key, giver):
                edges.append(LineageEdge(giver, step.key))
                after.setdefault(giver, []).append(step.key)
    nodes += [LineageNode(key, key, "source", None, reason="read, not computed here") for key in plan.read_keys]
    drawn = {node.key for node in nodes}
    for job, job_plan in job_plans:
        source = job.graph.source
        nodes.append(
            LineageNode(
                job.name,
                job.name,
                "job",
                None,
                where=job.where,
                description=job.description or "",
                code=source_of(source),
            )
        )
        for key in job_plan.read_keys:
            giver = plan.producers[key].key if key in plan.producers else key
            if giver not in drawn:
                nodes.append(LineageNode(giver, giver, "source", None, reason="read, not computed here"))
                drawn.add(giver)
            edges.append(LineageEdge(giver, job.name))
    return Lineage(tuple(nodes), tuple(dict.fromkeys(edges)))


def _step_node(
    step: PlanStep, owner: AssetsDefinition | None, state: StepState, source_of: Callable[[object], str]
) -> LineageNode:
    materialization = state.current[-1] if state.current else None
    failed = state.state == "failed" and state.reasons
    inside = owner is not None and isinstance(owner.node, GraphDefinition)
    return LineageNode(
        key=step.key,
        label=step.key,
        kind=_KINDS.get(owner.kind, "asset") if owner is not None else "op",
        state=state.state,
        group=step.group_name,
        parent=step.key.split(".", 1)[0] if inside else "",
        reason="" if failed else "; ".join(reason.text for reason in state.reasons[:2]),
        summary=describe(materialization) if materialization is not None else "",
        seconds=materialization.seconds if materialization is not None else state.seconds,
        created=materialization.created if materialization is not None else None,
        error=state.reasons[0].text if failed else "",
        where=step.where,
        description=step.op.description or "",
        code=source_of(step.op.body),
        assets=tuple(str(key) for key in owner.keys) if owner is not None and len(owner.keys) > 1 else (),
    )


def _edges(step: PlanStep, plan: Plan) -> list[LineageEdge]:
    return [
        LineageEdge(
            plan.producers[key].key if key in plan.producers else key,
            step.key,
            "value" if given.carries_value else "order",
        )
        for given in step.inputs
        for key in given.keys
    ]


def _leads(after: dict[str, list[str]], start: str, end: str) -> bool:
    """Return True if edges lead from the card `start` to the card `end`.

    Parameters
    ----------
    after
        Maps the key of each card to the keys of the cards to which its edges lead.
    """
    pending, seen = [start], {start}
    while pending:
        key = pending.pop()
        if key == end:
            return True
        new = [target for target in after.get(key, ()) if target not in seen]
        seen.update(new)
        pending += new
    return False


def describe(item: Materialization) -> str:
    """Return a short description of the stored value of a materialization, such as ``336,776 × 19 · 41.0 MB``, or ``no value`` if none is stored."""
    if item.value is None:
        return "no value"
    return " · ".join(
        part
        for part in (
            item.value.summary or item.value.type_name,
            size_text(item.value.size) if item.value.object_name else "",
        )
        if part
    )

"""The lineage: definitions and states as cards and edges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, JobDefinition
from stepwell.kernel_runtime.planning.build import Definitions
from stepwell.kernel_runtime.planning.plan import Plan, PlanStep
from stepwell.kernel_runtime.planning.states import StepState
from stepwell.kernel_runtime.records.events import Lineage, LineageEdge, LineageNode, NodeKind
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.text import size_text

_KINDS: Mapping[str, NodeKind] = {
    "asset": "asset",
    "multi_asset": "multi_asset",
    "sql_asset": "sql_asset",
    "graph_asset": "op",
}


def picture(
    plan: Plan,
    states: Mapping[str, StepState],
    definitions: Definitions,
    job_plans: Iterable[tuple[JobDefinition, Plan]],
    source_of: Callable[[object], str],
    *,
    left_by: Callable[[PlanStep], Iterable[str]] = lambda step: (),  # noqa: ARG005 - where there is no notebook
) -> Lineage:
    """Return the cards and edges of a plan, of the sources that it reads, and of jobs that read its assets.

    Parameters
    ----------
    source_of
        Returns the source of a step's body, for the reader.
    left_by
        Returns the keys of steps that left variables in the notebook, other than their values, which a step reads.
    """
    owners: dict[str, AssetsDefinition] = {}
    for key, definition in definitions.computed().items():
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
            # Variables can be bound and read in a circle; the picture shows what came first.
            if giver in steps and not _leads(after, step.key, giver):
                edges.append(LineageEdge(giver, step.key))
                after.setdefault(giver, []).append(step.key)
    nodes += [LineageNode(key, key, "source", None, reason="read, not computed here") for key in plan.read]
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
        for key in job_plan.read:
            giver = plan.producers[key].key if key in plan.producers else key
            if giver not in drawn:
                nodes.append(LineageNode(giver, giver, "source", None, reason="read, not computed here"))
                drawn.add(giver)
            edges.append(LineageEdge(giver, job.name))
    return Lineage(tuple(nodes), tuple(dict.fromkeys(edges)))


def _step_node(
    step: PlanStep, owner: AssetsDefinition | None, state: StepState, source_of: Callable[[object], str]
) -> LineageNode:
    shown = state.current[-1] if state.current else None
    failed = state.state == "failed" and state.reasons
    inside = owner is not None and isinstance(owner.node, GraphDefinition)
    return LineageNode(
        key=step.key,
        label=step.key,
        kind=_KINDS.get(owner.kind, "asset") if owner is not None else "op",
        state=state.state,
        group=step.group,
        parent=step.key.split(".", 1)[0] if inside else "",
        reason="" if failed else "; ".join(reason.text for reason in state.reasons[:2]),
        summary=describe(shown) if shown is not None else "",
        seconds=shown.seconds if shown is not None else state.seconds,
        created=shown.created if shown is not None else None,
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
    """Return True if edges lead from one card to another, given the cards that follow each."""
    pending, seen = [start], {start}
    while pending:
        key = pending.pop()
        if key == end:
            return True
        new = [each for each in after.get(key, ()) if each not in seen]
        seen.update(new)
        pending += new
    return False


def describe(item: Materialization) -> str:
    """Return a value in a few words: ``336,776 × 19 · 41.0 MB``."""
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

"""Graphs follow the ops that they are made of.

A graph is composed once, when its cell runs, from the ops that its names mean then. When a later cell gives such a name another
meaning (an op's cell was edited, a constant changed), the graph is composed again at the end of that cell, so that what runs
is what the notebook says, as it is for a function that calls other functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.definitions.bodies import CellBody
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, build_graph
from stepwell.kernel_runtime.definitions.jobs import JobDefinition
from stepwell.magics.face import Face

_ABSENT: Any = object()
_MOST_ROUNDS = 20
"""Graphs inside graphs inside graphs: each round lets one more level follow."""

Replace = Callable[[GraphDefinition], None]


class Recomposition:
    """Composes the graphs of a notebook again when the names that they read have changed."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._seen: dict[int, tuple[GraphDefinition, dict[str, Any]]] = {}
        """By the identity of a graph, what the names that it reads were when it was composed."""

    def refresh(self) -> None:
        """Compose again what has changed, and take note of what is new; called at the end of each cell."""
        live: set[int] = set()
        for _ in range(_MOST_ROUNDS):
            changed = False
            live = set()
            for graph, kind, replace in list(self._live()):
                live.add(id(graph))
                now = self._meanings(graph)
                known = self._seen.get(id(graph))
                if known is None or all(known[1].get(name, _ABSENT) is value for name, value in now.items()):
                    self._seen[id(graph)] = graph, now
                    continue
                self._seen[id(graph)] = graph, now
                made = self._again(graph, kind)
                if made is not None:
                    replace(made)
                    changed = True
            if not changed:
                break
        for gone in self._seen.keys() - live:
            del self._seen[gone]
        sources = {id(graph.source) for graph, _ in self._seen.values()}
        for gone in self._face.composed.keys() - sources:
            del self._face.composed[gone]

    def _live(self) -> Iterator[tuple[GraphDefinition, str, Replace]]:
        registry, namespace = self._face.session.registry, self._face.namespace
        for name, value in list(namespace.items()):
            if isinstance(value, GraphDefinition):
                yield value, "graph", _setter(namespace, name)
        for entry in list(registry.assets.values()):
            owner = entry.definition
            if isinstance(owner, AssetsDefinition) and isinstance(owner.node, GraphDefinition):
                yield owner.node, "graph-backed asset", self._replace_asset(entry)
        for entry in list(registry.jobs.values()):
            yield entry.definition.graph, "job", self._replace_job(entry)

    def _meanings(self, graph: GraphDefinition) -> dict[str, Any]:
        source, namespace = graph.source, self._face.namespace
        if isinstance(source, CellBody):
            names = source.reads
        elif isinstance(source, FunctionType) and source.__globals__ is namespace:
            names = frozenset(_global_names(source.__code__))
        else:
            return {}
        return {name: namespace.get(name, _ABSENT) for name in names}

    def _again(self, graph: GraphDefinition, kind: str) -> GraphDefinition | None:
        compose = self._face.composed.get(id(graph.source), graph.source)
        try:
            return build_graph(
                graph.name,
                compose,  # type: ignore[arg-type]
                tuple(graph.ins),
                kind=kind,
                declared=tuple(graph.outputs) if len(graph.outputs) > 1 else None,
                description=graph.description,
                where=graph.where,
                source=graph.source,
            )
        except Exception as error:
            what = str(error).splitlines()[0] if str(error) else ""
            self._face.say(
                f"{graph.name}: composing it again failed ({type(error).__name__}: {what}); run its cell again"
            )
            return None

    def _replace_asset(self, entry: Any) -> Replace:
        def replace(graph: GraphDefinition) -> None:
            old = entry.definition
            made = AssetsDefinition(
                graph,
                kind=old.kind,
                keys_by_input=old.keys_by_input,
                keys_by_output=dict(zip(graph.outputs, old.keys, strict=True)),
                deps=old.deps,
                group_names=old.group_names,
                descriptions=old.descriptions,
                where=old.where,
                module=old.module,
                isolate=old.isolate,
            )
            self._put(entry, made, tuple(str(key) for key in old.keys))

        return replace

    def _replace_job(self, entry: Any) -> Replace:
        def replace(graph: GraphDefinition) -> None:
            old = entry.definition
            made = JobDefinition(graph, tags=old.tags)
            made.module = old.module
            self._put(entry, made, (old.name,))

        return replace

    def _put(self, entry: Any, made: Any, names: tuple[str, ...]) -> None:
        old, entry.definition = entry.definition, made
        made.notebook = old.notebook
        namespace, registry = self._face.namespace, self._face.session.registry
        for name, value in list(namespace.items()):
            if value is old:
                namespace[name] = made
        if registry.changed is not None:
            registry.changed(names)


def _setter(namespace: dict[str, Any], name: str) -> Replace:
    def replace(graph: GraphDefinition) -> None:
        namespace[name] = graph

    return replace


def _global_names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _global_names(constant)
    return found

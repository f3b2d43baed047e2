"""The decorator `graph_asset`: an asset that a composition of ops computes, a step each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, announce, as_asset_ins, check_parts, own_key
from stepwell.kernel_runtime.definitions.declarations import AssetIn
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, graph_of
from stepwell.kernel_runtime.definitions.places import place_of
from stepwell.kernel_runtime.errors import InvalidDefinitionError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey


@overload
def graph_asset(compose_fn: Callable[..., Any]) -> AssetsDefinition: ...
@overload
def graph_asset(
    compose_fn: None = None,
    *,
    name: str | None = None,
    key: CoercibleToAssetKey | None = None,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None = None,
    group_name: str | None = None,
    description: str | None = None,
) -> Callable[[Callable[..., Any]], AssetsDefinition]: ...
def graph_asset(
    compose_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    key: CoercibleToAssetKey | None = None,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None = None,
    group_name: str | None = None,
    description: str | None = None,
) -> AssetsDefinition | Callable[[Callable[..., Any]], AssetsDefinition]:
    """Make a graph-backed asset of a function that calls ops on handles of upstream assets.

    Parameters
    ----------
    name, key_prefix, key, ins, group_name
        As in `asset`.

    Raises
    ------
    InvalidDefinitionError
        If nothing, or several outputs, are returned; else see SEMANTICS, section 1.
    """

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        where = place_of(getattr(function, "__code__", None))
        own = own_key(name or function.__name__, key, key_prefix, name is not None, where)
        composed = graph_of(
            function, name="__".join(own.path), kind="graph-backed asset", declared=None, description=description
        )
        return announce(
            graph_backed(
                composed,
                own,
                ins=as_asset_ins(ins),
                group_name=group_name,
                where=where,
                module=getattr(function, "__module__", "") or "",
            )
        )

    return decorate(compose_fn) if compose_fn is not None else decorate


def graph_backed(
    graph: GraphDefinition,
    key: AssetKey,
    *,
    ins: Mapping[str, AssetIn] | None = None,
    group_name: str | None = None,
    where: str = "",
    module: str = "",
) -> AssetsDefinition:
    """Bind a graph with one output to an asset key.

    Raises
    ------
    InvalidDefinitionError
        If the graph has no output or several, or `ins` names what is no input.
    """
    check_parts(key, where)
    if len(graph.outputs) != 1:
        given = "returns nothing" if not graph.outputs else f"returns {len(graph.outputs)} outputs"
        raise InvalidDefinitionError(
            f"the graph-backed asset {key} {given}",
            where=where,
            remedy="return the result of the op that ends the computation",
        )
    inputs = dict(ins or {})
    for name in inputs:
        if name not in graph.ins:
            raise InvalidDefinitionError(
                f"ins= of {key} names {name!r}, which is no parameter",
                where=where,
                remedy=f"parameters are: {', '.join(graph.ins) or 'none'}",
            )
    return AssetsDefinition(
        graph,
        kind="graph_asset",
        keys_by_input={name: inputs.get(name, AssetIn()).resolve(name) for name in graph.ins},
        keys_by_output={next(iter(graph.outputs)): key},
        group_names={key: group_name} if group_name else None,
        descriptions={key: graph.description or ""},
        where=where,
        module=module,
    )

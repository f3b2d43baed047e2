"""The functions that define assets: `asset` and `multi_asset` from a function, `graph_asset` from a composition of ops, `sql_asset` from a SELECT.

All except `sql_asset` are decorators; `sql_asset` takes the SELECT as a string. `sql_asset` and ``%%sql_asset`` share `select_asset`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack, overload

from stepwell.kernel_runtime.definitions.assets import (
    AssetKind,
    AssetsDefinition,
    CoercibleToAssetDep,
    SourceAsset,
)
from stepwell.kernel_runtime.definitions.bodies import SqlBody, place, place_of, place_of_function
from stepwell.kernel_runtime.definitions.declarations import UNSET, AssetIn, AssetOut, In, MaxAge, Out
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, graph_of, module_of, runner
from stepwell.kernel_runtime.definitions.ops import OpDefinition, Reuse, build_op
from stepwell.kernel_runtime.errors import CellError, CellNameError, InvalidDefinitionError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, check_name, prefixed


def _dep_keys(deps: Iterable[CoercibleToAssetDep] | None) -> tuple[AssetKey, ...]:
    """Return the keys in ``deps=``, whose items are keys or definitions."""
    keys: list[AssetKey] = []
    for dep in deps or ():
        if isinstance(dep, AssetsDefinition):
            keys.extend(dep.keys)
        elif isinstance(dep, SourceAsset):
            keys.append(dep.key)
        else:
            keys.append(as_asset_key(dep))
    return tuple(dict.fromkeys(keys))


def _as_asset_ins(ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None) -> dict[str, AssetIn]:
    """Return ``ins=`` with every key replaced by an `AssetIn`."""
    return {name: item if isinstance(item, AssetIn) else AssetIn(key=item) for name, item in (ins or {}).items()}


def _register(definition: AssetsDefinition) -> AssetsDefinition:
    """Register a definition made in ``__main__``; the user passes or loads the definitions of other modules explicitly."""
    if definition.module == "__main__":
        runner().register(definition)
    return definition


def _asset_key(
    name: str, key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None, named: bool, where: str
) -> AssetKey:
    """Return the key that the arguments ``name``, ``key`` and ``key_prefix`` of a decorator specify.

    Raises
    ------
    InvalidDefinitionError
        If ``key`` is combined with ``name`` or ``key_prefix``.
    """
    if key is None:
        return prefixed(key_prefix, name)
    if named or key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= cannot be combined with name= or key_prefix=",
            where=where,
            remedy="give either the whole key, or a name and a prefix",
        )
    return as_asset_key(key)


def _check_parts(key: AssetKey, where: str) -> None:
    """Raise `InvalidDefinitionError` unless every part of a key is a valid name."""
    for part in key.path:
        check_name("an asset", part, where=where)


def _assets_of_function(
    function: Callable[..., Any],
    *,
    kind: AssetKind,
    name: str | None,
    ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None,
    deps: Iterable[CoercibleToAssetDep] | None,
    out: Out | Mapping[str, Out],
    keys_by_output: Mapping[str, AssetKey],
    description: str | None,
    descriptions: Mapping[AssetKey, str],
    group_names: Mapping[AssetKey, str],
    where: str,
    isolate: bool = True,
    **reuse: Unpack[Reuse],
) -> AssetsDefinition:
    """Make and register the definition of the assets that one function computes."""
    for key in keys_by_output.values():
        _check_parts(key, where)
    inputs = _as_asset_ins(ins)
    op_ins = {name: In(item.dagster_type, metadata=item.metadata) for name, item in inputs.items()}
    op = build_op(
        function, name=name, ins=op_ins, out=out, description=description, keyword_config=False, where=where, **reuse
    )
    keys = {name: inputs[name].resolve(name) if name in inputs else AssetKey(name) for name in op.parameters}
    order = [item.resolve(name) for name, item in inputs.items() if name not in keys]
    definition = AssetsDefinition(
        op, kind=kind, keys_by_input=keys, keys_by_output=keys_by_output, deps=tuple(dict.fromkeys((*order, *_dep_keys(deps)))),
        group_names=group_names, descriptions=descriptions, where=where, module=module_of(function), isolate=isolate,
    )  # fmt: skip
    return _register(definition)


@overload
def asset(compute_fn: Callable[..., Any]) -> AssetsDefinition: ...
@overload
def asset(
    compute_fn: None = None,
    *,
    name: str | None = None,
    key: CoercibleToAssetKey | None = None,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None = None,
    deps: Iterable[CoercibleToAssetDep] | None = None,
    group_name: str | None = None,
    description: str | None = None,
    dagster_type: Any = UNSET,
    output_required: bool = True,
    isolate: bool = True,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
    ignore: Iterable[str] | str | None = None,
    reads: Iterable[str | os.PathLike[str]] | str | None = None,
) -> Callable[[Callable[..., Any]], AssetsDefinition]: ...
def asset(
    compute_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    key: CoercibleToAssetKey | None = None,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None = None,
    deps: Iterable[CoercibleToAssetDep] | None = None,
    group_name: str | None = None,
    description: str | None = None,
    dagster_type: Any = UNSET,
    output_required: bool = True,
    isolate: bool = True,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
    ignore: Iterable[str] | str | None = None,
    reads: Iterable[str | os.PathLike[str]] | str | None = None,
) -> AssetsDefinition | Callable[[Callable[..., Any]], AssetsDefinition]:
    """Define an asset by a function that returns its value; each parameter is an upstream asset.

    Parameters
    ----------
    compute_fn
        The function to decorate; not given when the decorator has arguments.
    name, key_prefix
        The asset's name, by default the name of the function, and a prefix for its key.
    key
        The asset's whole key, in place of `name` and `key_prefix`.
    ins
        The upstream assets of parameters whose names are not the keys, each as a key or an `AssetIn`.
    deps
        Upstream assets that must be computed first but are not loaded: keys or definitions.
    group_name
        The asset's group, for selections; ``default`` if not given.
    description
        The asset's description; by default the docstring of the function.
    dagster_type
        The type that the value must have; by default the return annotation.
    output_required
        False if the function may end without yielding a value.
    isolate
        True if each consumer loads a separate copy of the value; False if all share one object.
    cache
        False to compute the asset in every run and never reuse a result.
    volatile
        True to compute the asset in every run that requests it; downstream steps run only if its value changed.
    max_age
        The age up to which a result is reused: ``"1d"``, ``"30m"``, a number of seconds, or a timedelta.
    ignore
        Names of globals that are excluded from the code version.
    reads
        Paths and patterns of files that the function reads in ways that Stepwell cannot record, such as ``["data/*.csv"]``, relative to the
        working directory.

    Returns
    -------
    AssetsDefinition
        The definition; without a function to decorate, the decorator.

    Raises
    ------
    InvalidDefinitionError
        If a name, key or option is invalid, `ins` names something that is not a parameter, or the asset depends on itself.

    Examples
    --------
    ::

        @asset(max_age="1d")
        def flights():
            return pd.read_csv("https://example.org/flights.csv")

        @asset
        def delays(flights):
            return flights.groupby("carrier").dep_delay.mean()
    """

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        where = place_of_function(function)
        asset_key = _asset_key(name or str(getattr(function, "__name__", "")), key, key_prefix, name is not None, where)
        shown = description or function.__doc__
        return _assets_of_function(
            function, kind="asset", name="__".join(asset_key.path), ins=ins, deps=deps,
            out=Out(dagster_type, description, output_required), keys_by_output={"result": asset_key},
            description=description, descriptions={asset_key: shown} if shown else {},
            group_names={asset_key: group_name} if group_name else {}, where=where, isolate=isolate,
            cache=cache, volatile=volatile, max_age=max_age, ignore=ignore, reads=reads,
        )  # fmt: skip

    return decorate(compute_fn) if compute_fn is not None else decorate


def multi_asset(
    *,
    outs: Mapping[str, AssetOut],
    name: str | None = None,
    ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None = None,
    deps: Iterable[CoercibleToAssetDep] | None = None,
    group_name: str | None = None,
    description: str | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
    ignore: Iterable[str] | str | None = None,
    reads: Iterable[str | os.PathLike[str]] | str | None = None,
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """Define several assets by one function that returns a tuple of their values or yields an `Output` for each.

    Parameters
    ----------
    outs
        The assets by output name; the key is the output's name unless the `AssetOut` declares another.
    name
        The name of the step; by default the name of the function.
    description
        The description of the assets whose `AssetOut` declares none.
    group_name
        The group of the assets whose `AssetOut` declares none.
    ins, deps, cache, volatile, max_age, ignore, reads
        As in `asset`.

    Returns
    -------
    Callable
        The decorator, which returns an `AssetsDefinition`.

    Raises
    ------
    InvalidDefinitionError
        If `outs` is empty, if two outputs have the same key, or for the reasons listed in `asset`.

    Examples
    --------
    ::

        @multi_asset(outs={"train": AssetOut(), "test": AssetOut()})
        def split(clean):
            return clean[:800], clean[800:]
    """
    if not outs:
        raise InvalidDefinitionError(
            "a multi-asset needs at least one output", remedy="outs={'train': AssetOut(), 'test': AssetOut()}"
        )

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        keys = {output: declared.resolve(output) for output, declared in outs.items()}
        group_names = {keys[output]: declared.group_name or group_name for output, declared in outs.items()}
        op_outs = {
            output: Out(declared.dagster_type, declared.description, declared.is_required)
            for output, declared in outs.items()
        }
        return _assets_of_function(
            function, kind="multi_asset", name=name, ins=ins, deps=deps, out=op_outs, keys_by_output=keys, description=description,
            descriptions={keys[output]: declared.description or description or "" for output, declared in outs.items()},
            group_names={key: group for key, group in group_names.items() if group}, where=place_of_function(function),
            cache=cache, volatile=volatile, max_age=max_age, ignore=ignore, reads=reads,
        )  # fmt: skip

    return decorate


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
    """Define an asset by a function that composes a graph of ops.

    The function is called once, when it is decorated. Its parameters are handles of the upstream assets, and it returns the handle of the
    asset's value.

    Parameters
    ----------
    compose_fn
        The function to decorate; not given when the decorator has arguments.
    name, key_prefix, key, ins, group_name, description
        As in `asset`.

    Returns
    -------
    AssetsDefinition
        The definition; without a function to decorate, the decorator.

    Raises
    ------
    InvalidDefinitionError
        If the function does not return exactly one output, or breaks another rule of composition.
    """

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        where = place_of(getattr(function, "__code__", None))
        asset_key = _asset_key(name or function.__name__, key, key_prefix, name is not None, where)
        composed = graph_of(
            function, name="__".join(asset_key.path), kind="graph-backed asset", declared=None, description=description
        )
        return _register(
            graph_backed(
                composed,
                asset_key,
                ins=_as_asset_ins(ins),
                group_name=group_name,
                where=where,
                module=module_of(function),
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
        If the graph does not have exactly one output, or `ins` names something that is not an input.
    """
    _check_parts(key, where)
    if len(graph.outputs) != 1:
        returned = "returns nothing" if not graph.outputs else f"returns {len(graph.outputs)} outputs"
        raise InvalidDefinitionError(
            f"the graph-backed asset {key} {returned}",
            where=where,
            remedy="return the result of the last op",
        )
    inputs = dict(ins or {})
    for name in inputs:
        if name not in graph.ins:
            raise InvalidDefinitionError(
                f"ins= of {key} names {name!r}, which is not a parameter",
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


def sql_asset(
    name: str,
    text: str,
    *,
    key_prefix: str | Sequence[str] | None = None,
    ins: Mapping[str, CoercibleToAssetKey] | None = None,
    deps: Iterable[CoercibleToAssetDep] | None = None,
    parameters: Mapping[str, Any] | None = None,
    frame: str = "auto",
    group_name: str | None = None,
    description: str | None = None,
    cache: bool | None = None,
    volatile: bool = False,
    max_age: MaxAge = None,
) -> AssetsDefinition:
    """Define an asset by one SELECT; the tables that it names are the upstream assets.

    Parameters
    ----------
    name, key_prefix
        The asset's name, and a prefix for its key.
    text
        One SELECT in DuckDB's dialect. Changes of white space and comments do not change the code version.
    ins
        The keys of tables whose names are not the keys of their assets.
    deps
        Upstream assets that must be computed first but are not read: keys or definitions.
    parameters
        Values of ``$name`` in the SELECT, by name.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto`` (pandas if it is installed).
    group_name, description, cache, volatile, max_age
        As in `asset`.

    Returns
    -------
    AssetsDefinition
        The definition.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    InvalidInvocationError
        If `frame` is unknown.
    CellNameError
        If a parameter has no value, or the name of a table cannot be the key of an asset.
    CellError
        If the asset depends on itself.

    Examples
    --------
    ::

        daily = sql_asset("daily", "SELECT day, count(*) AS n FROM flights GROUP BY day")
    """
    caller = sys._getframe(1)  # noqa: SLF001 - the place of the definition; a decorator takes it from its function
    where = place(caller.f_code.co_filename, caller.f_lineno)
    key = prefixed(key_prefix, name)
    values = dict(parameters or {})
    select = runner().read_select(key.name, text, values, what=f"the SELECT of {key.name!r}", frame=frame, where=where)
    for missing in select.parameters:
        if missing not in values:
            raise CellNameError(
                f"the SELECT of {key.name!r} takes ${missing}, which has no value",
                where=where,
                remedy=f"parameters={{{missing!r}: ...}}",
            )
    keys = {table: as_asset_key(upstream) for table, upstream in (ins or {}).items()}
    inputs = {table: keys.get(table) or _key_of(table, key, where) for table in select.inputs}
    return _register(
        select_asset(
            key, select, inputs, deps=_dep_keys(deps), group_name=group_name, cache=cache, volatile=volatile, max_age=max_age,
            where=where, module=str(caller.f_globals.get("__name__", "")), description=description,
        )
    )  # fmt: skip


def select_asset(
    key: AssetKey,
    body: SqlBody,
    inputs: Mapping[str, AssetKey],
    *,
    where: str,
    module: str,
    deps: Iterable[AssetKey] = (),
    group_name: str | None = None,
    description: str | None = None,
    **reuse: Unpack[Reuse],
) -> AssetsDefinition:
    """Return the definition of a SQL asset without registering it.

    Raises
    ------
    CellError
        If the asset depends on itself.
    """
    if key in inputs.values():
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}: the asset depends on itself",
            where=where,
            remedy="give the asset a name that differs from the tables that it reads",
        )
    op = OpDefinition(
        "__".join(key.path), body, ins={name: In() for name in inputs}, outs={"result": Out()}, where=where, **reuse,
    )  # fmt: skip
    return AssetsDefinition(
        op, kind="sql_asset", keys_by_input=dict(inputs), keys_by_output={"result": key}, deps=tuple(deps),
        group_names={key: group_name} if group_name else None, descriptions={key: description or ""}, where=where, module=module,
    )  # fmt: skip


def _key_of(table: str, key: AssetKey, where: str) -> AssetKey:
    if not all(part.isidentifier() for part in table.split("/")):
        raise CellNameError(
            f"the SELECT of {key.name!r} reads {table!r}, which is not an asset's name",
            where=where,
            remedy=f"name its key: ins={{{table!r}: AssetKey([...])}}",
        )
    return as_asset_key(table)

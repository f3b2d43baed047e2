"""The functions that define assets: `asset` and `multi_asset` from a function, `graph_asset` from a composition of ops, `sql_asset` from a SELECT.

All except `sql_asset` are decorators; `sql_asset` takes the SELECT as a string. `sql_asset` and the magic ``%%sql_asset`` both make the
definition with `select_asset`.
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
from stepwell.kernel_runtime.definitions.ops import BARE_OUT, OpDefinition, Reuse, build_op
from stepwell.kernel_runtime.errors import CellError, CellNameError, InvalidDefinitionError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, check_name, prefixed


def _dep_keys(deps: Iterable[CoercibleToAssetDep] | None) -> tuple[AssetKey, ...]:
    """Return the asset keys that ``deps=`` lists as keys or definitions, without duplicates; return an empty tuple for None."""
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
    """Return the value of ``ins=`` with each asset key in it replaced by an `AssetIn` with this key; return an empty dict for None."""
    return {name: item if isinstance(item, AssetIn) else AssetIn(key=item) for name, item in (ins or {}).items()}


def _register(definition: AssetsDefinition) -> AssetsDefinition:
    """Return `definition`, and register it if the notebook or script itself (``__main__``) made it.

    Definitions of imported modules are not registered: the user passes them to `materialize`.
    """
    if definition.module == "__main__":
        runner().register(definition)
    return definition


def _asset_key(
    name: str, key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None, named: bool, where: str
) -> AssetKey:
    """Return the asset key that the arguments of a decorator specify.

    Parameters
    ----------
    name
        The last part of the key if ``key=`` is not used.
    named
        True if the user passed ``name=``; False if `name` is the name of the decorated function.

    Raises
    ------
    InvalidDefinitionError
        If the user combined ``key=`` with ``name=`` or ``key_prefix=``.
    """
    if key is None:
        return prefixed(key_prefix, name)
    if named or key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= cannot be combined with name= or key_prefix=",
            where=where,
            remedy="pass either key= with the whole key, or name= with an optional key_prefix=",
        )
    return as_asset_key(key)


def _check_parts(key: AssetKey, where: str) -> None:
    """Raise `InvalidDefinitionError` unless every part of `key` is a valid name."""
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
    """Return the definition of the assets that `function` computes, and register the definition if ``__main__`` made it.

    `name` and `description` are those of the op; `descriptions` and `group_names` contain those of the assets.
    """
    for key in keys_by_output.values():
        _check_parts(key, where)
    inputs = _as_asset_ins(ins) if ins else {}
    op_ins = {name: In(item.dagster_type, metadata=item.metadata) for name, item in inputs.items()} if inputs else None
    op = build_op(function, name=name, ins=op_ins, out=out, description=description, keyword_config=False, where=where, **reuse)
    keys = {name: inputs[name].resolve(name) if name in inputs else AssetKey(name) for name in op.parameters}
    order = _dep_keys(deps) if deps else ()
    if inputs:
        order = (*[item.resolve(name) for name, item in inputs.items() if name not in keys], *order)
    definition = AssetsDefinition(
        op, kind=kind, keys_by_input=keys, keys_by_output=keys_by_output, deps=tuple(dict.fromkeys(order)),
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
    """Define an asset by a function that returns the value of the asset. The function's parameters receive the values of upstream assets.

    Parameters
    ----------
    compute_fn
        The function to decorate; None if the decorator is used with arguments, as in ``@asset(max_age="1d")``.
    name, key_prefix
        The name of the asset, by default the name of the function, and an optional prefix. Together they are the key of the asset.
    key
        The whole key of the asset, in place of `name` and `key_prefix`.
    ins
        Maps the name of a parameter to the upstream asset (a key or an `AssetIn`) whose value the parameter receives. A parameter that is not listed
        receives the value of the asset whose key is the parameter's name.
    deps
        Upstream assets, as keys or definitions, that must be computed first but whose values the function does not get.
    group_name
        The group of the asset, by which selections can name it; by default ``default``.
    description
        The description of the asset; by default the docstring of the function.
    dagster_type
        The type that the value of the asset must have; by default the return annotation of the function.
    output_required
        False if the function may end without yielding a value. In a run in which it yields no value, the downstream steps are skipped.
    isolate
        True if each downstream step gets a separate copy of the value; False if all downstream steps share one object.
    cache
        False to run the function in every run and never reuse its result, for a function that has side effects. True and None reuse results.
    volatile
        True to run the function in every run that needs the asset, for a function whose data can change unnoticed. Downstream steps run only if
        the value changed.
    max_age
        The age up to which a stored result is reused: ``"1d"``, ``"30m"``, a number of seconds, or a timedelta. None for no limit.
    ignore
        Names of global variables that are excluded from the code version, so that changes of these variables do not make the asset stale.
    reads
        Paths and patterns, such as ``["data/*.csv"]``, of files that the function reads in ways that Stepwell cannot record. They are relative to
        the working directory unless they are absolute. A change of one of these files makes the asset stale.

    Returns
    -------
    AssetsDefinition
        The definition of the asset; if `compute_fn` is None, a decorator that returns the definition.

    Raises
    ------
    InvalidDefinitionError
        If a name, key or option is invalid, if the asset depends on itself, or if a name in `ins` is not a parameter of the function. Only inputs
        of type `Nothing` need no parameter.

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
        is_bare = dagster_type is UNSET and description is None and output_required
        out = BARE_OUT if is_bare else Out(dagster_type, description, output_required)
        return _assets_of_function(
            function, kind="asset", name="__".join(asset_key.path), ins=ins, deps=deps,
            out=out, keys_by_output={"result": asset_key},
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
    """Define several assets by one function that returns a tuple of the assets' values, or yields an `Output` for each asset.

    Parameters
    ----------
    outs
        Maps the name of each output to the declaration of its asset. The name of the output is the key of the asset unless the `AssetOut` declares
        another key.
    name
        The name of the step that computes the assets; by default the name of the function.
    description
        The description of each asset whose `AssetOut` declares no description.
    group_name
        The group of each asset whose `AssetOut` declares no group.
    ins, deps, cache, volatile, max_age, ignore, reads
        The same as in `asset`.

    Returns
    -------
    Callable
        The decorator, which returns an `AssetsDefinition`.

    Raises
    ------
    InvalidDefinitionError
        If `outs` is empty, if two assets have the same key, and for the reasons that `asset` lists.

    Examples
    --------
    ::

        @multi_asset(outs={"train": AssetOut(), "test": AssetOut()})
        def split(clean):
            return clean[:800], clean[800:]
    """
    if not outs:
        raise InvalidDefinitionError(
            "a multi-asset needs at least one output",
            remedy="declare each asset: outs={'train': AssetOut(), 'test': AssetOut()}",
        )

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        keys = {output: declared.resolve(output) for output, declared in outs.items()}
        group_names = {keys[output]: declared.group_name or group_name for output, declared in outs.items()}
        op_outs = {
            output: Out(declared.dagster_type, declared.description, declared.is_required) for output, declared in outs.items()
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
    """Define an asset by a function that composes a graph: the function calls ops, and each call becomes a step.

    The function is called once, when it is defined. Its arguments are handles: objects that stand for the values of the upstream assets. It returns
    the handle that stands for the value of the asset, usually the result of the last call.

    Parameters
    ----------
    compose_fn
        The function to decorate; None if the decorator is used with arguments.
    name, key_prefix, key, ins, group_name, description
        The same as in `asset`.

    Returns
    -------
    AssetsDefinition
        The definition of the asset; if `compose_fn` is None, a decorator that returns the definition.

    Raises
    ------
    InvalidDefinitionError
        If the function does not return exactly one output, or breaks another rule of composition, for example if it does not use a parameter.
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
    """Return the definition of the asset `key` whose value is the only output of `graph`. The definition is not registered.

    Raises
    ------
    InvalidDefinitionError
        If `graph` does not have exactly one output, `ins` contains a name that is not an input of `graph`, or `key` is not valid.
    """
    _check_parts(key, where)
    if len(graph.outputs) != 1:
        returned = "returns nothing" if not graph.outputs else f"returns {len(graph.outputs)} outputs"
        raise InvalidDefinitionError(
            f"the graph-backed asset {key} {returned}; it must return exactly one output",
            where=where,
            remedy="return the result of the last op",
        )
    inputs = dict(ins or {})
    for name in inputs:
        if name not in graph.ins:
            raise InvalidDefinitionError(
                f"ins= of the asset {key} names {name!r}, which is not a parameter of its function",
                where=where,
                remedy=f"in ins=, use only names of parameters; the function has {', '.join(graph.ins) or 'none'}",
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
    """Define an asset by one SELECT. The tables that the SELECT reads are the upstream assets.

    Parameters
    ----------
    name, key_prefix
        The name of the asset, and an optional prefix. Together they are the key of the asset.
    text
        One SELECT in DuckDB's dialect. Edits of white space and comments do not make the asset stale.
    ins
        Maps the name of a table in the SELECT to the key of the upstream asset. If a table is not listed, its name is the key.
    deps
        Upstream assets, as keys or definitions, that must be computed first but that the SELECT does not read.
    parameters
        The value of each parameter ``$name`` of the SELECT, by name.
    frame
        The type of the asset's value: ``pandas``, ``pyarrow``, ``polars``, or ``auto`` (pandas if it is installed, else pyarrow).
    group_name, description, cache, volatile, max_age
        The same as in `asset`.

    Returns
    -------
    AssetsDefinition
        The definition of the asset.

    Raises
    ------
    CellSyntaxError
        If `text` is not exactly one SELECT.
    InvalidInvocationError
        If `frame` is not one of the listed types.
    CellNameError
        If a parameter of the SELECT has no value, or the name of a table cannot be the key of an asset.
    CellError
        If the SELECT reads the asset that it defines, or reads the catalog of the store.
    InvalidDefinitionError
        If the name or another option is invalid, or `deps` contains the asset itself.

    Examples
    --------
    ::

        daily = sql_asset("daily", "SELECT day, count(*) AS n FROM flights GROUP BY day")
    """
    caller = sys._getframe(1)  # noqa: SLF001 - the source location of the definition; a decorator gets it from the function
    where = place(caller.f_code.co_filename, caller.f_lineno)
    key = prefixed(key_prefix, name)
    values = dict(parameters or {})
    select = runner().read_select(key.name, text, values, what=f"the SELECT of {key.name!r}", frame=frame, where=where)
    for missing in select.parameters:
        if missing not in values:
            raise CellNameError(
                f"the SELECT of {key.name!r} uses the parameter ${missing}, which has no value",
                where=where,
                remedy=f"pass its value: parameters={{{missing!r}: ...}}",
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
    """Return the definition of the SQL asset `key`, without registering it.

    Parameters
    ----------
    inputs
        Maps the name of each table that the SELECT reads to the key of the upstream asset.

    Raises
    ------
    CellError
        If the SELECT reads the asset `key`.
    InvalidDefinitionError
        If `deps` contains `key`, or the options in `reuse` contradict each other.
    """
    if key in inputs.values():
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}, so the asset would depend on itself",
            where=where,
            remedy="give the asset a name that differs from the names of the tables that the SELECT reads",
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
            f"the SELECT of {key.name!r} reads the table {table!r}, which cannot be the key of an asset",
            where=where,
            remedy=f"name the asset that the table stands for: ins={{{table!r}: AssetKey([...])}}",
        )
    return as_asset_key(table)

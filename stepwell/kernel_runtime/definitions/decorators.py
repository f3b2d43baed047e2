"""How assets are made: of one function (`asset`, `multi_asset`), of a composition of ops (`graph_asset`), or of one SELECT (`sql_asset`).

Assets of functions are made by decorators. `sql_asset` is a plain function, because the text of a SELECT has nothing to decorate; what it
and ``%%sql_asset`` share is `select_asset`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack, overload

from stepwell.kernel_runtime.definitions.assets import (
    AssetsDefinition,
    CoercibleToAssetDep,
    SourceAsset,
)
from stepwell.kernel_runtime.definitions.bodies import SqlBody, place, place_of, place_of_function
from stepwell.kernel_runtime.definitions.declarations import UNSET, AssetIn, AssetOut, In, MaxAge, Out
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, graph_of, runner
from stepwell.kernel_runtime.definitions.ops import OpDefinition, Reuse, build_op
from stepwell.kernel_runtime.errors import CellError, CellNameError, InvalidDefinitionError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, check_name, prefixed


def _dep_keys(deps: Iterable[CoercibleToAssetDep] | None) -> tuple[AssetKey, ...]:
    """Return the keys of what `deps=` names: keys, written keys, assets or source assets."""
    found: list[AssetKey] = []
    for dep in deps or ():
        if isinstance(dep, AssetsDefinition):
            found.extend(dep.keys)
        elif isinstance(dep, SourceAsset):
            found.append(dep.key)
        else:
            found.append(as_asset_key(dep))
    return tuple(dict.fromkeys(found))


def _as_asset_ins(ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None) -> dict[str, AssetIn]:
    """Return what `ins=` says of each parameter; a key alone is an `AssetIn` of it."""
    return {name: given if isinstance(given, AssetIn) else AssetIn(key=given) for name, given in (ins or {}).items()}


def _announce(made: AssetsDefinition) -> AssetsDefinition:
    """Register a definition made in ``__main__``; a module's are passed or loaded."""
    if made.module == "__main__":
        runner().register(made)
    return made


def _own_key(
    name: str, key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None, named: bool, where: str
) -> AssetKey:
    """Return the key that a decorator's ``name``, ``key`` and ``key_prefix`` say.

    Raises
    ------
    InvalidDefinitionError
        If the whole key is given and a part of it too.
    """
    if key is None:
        return prefixed(key_prefix, name)
    if named or key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= is given together with name= or key_prefix=",
            where=where,
            remedy="give the whole key, or its name and prefix",
        )
    return as_asset_key(key)


def _check_parts(key: AssetKey, where: str) -> None:
    """Check that every part of a key can be an asset's name; `InvalidDefinitionError` if not."""
    for part in key.path:
        check_name("an asset", part, where=where)


def _resolve_inputs(op: OpDefinition, ins: Mapping[str, AssetIn]) -> tuple[dict[str, AssetKey], tuple[AssetKey, ...]]:
    keys = {name: ins[name].resolve(name) if name in ins else AssetKey(name) for name in op.parameters}
    order = tuple(given.resolve(name) for name, given in ins.items() if name not in keys)
    return keys, order


def _op_ins(ins: Mapping[str, AssetIn]) -> dict[str, In]:
    return {name: In(given.dagster_type, metadata=given.metadata) for name, given in ins.items()}


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
    """Make an asset of a function; its parameters are the upstream assets.

    Parameters
    ----------
    name, key_prefix, key
        The asset's key: a prefix and a name (the function's by default), or the whole key.
    ins
        Which asset a parameter is, where that is not its name.
    deps
        Upstreams that are not loaded: they only come first.
    group_name
        For selection; ``default`` if not given.
    dagster_type
        The type that the value is checked against; the return annotation by default.
    output_required
        Whether the function must yield a value.
    isolate
        Whether each consumer loads a separate object; False shares one object and marks the asset so.
    cache
        False runs it in every run.
    volatile
        Runs it in every run that asks for it; what follows runs only if its value changed.
    max_age
        Reuses a result only while it is younger: ``"1d"``, ``"30m"``, seconds, or a timedelta.
    ignore
        Names of globals that do not count in the code version.
    reads
        Files and patterns that the function reads in a way that cannot be seen: ``["data/*.csv"]``, relative to the working directory.

    Raises
    ------
    InvalidDefinitionError
        See SEMANTICS, section 1, asset.
    """

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        where = place_of_function(function)
        own_name = name or str(getattr(function, "__name__", ""))
        own = _own_key(own_name, key, key_prefix, name is not None, where)
        _check_parts(own, where)
        inputs = _as_asset_ins(ins)
        out = Out(dagster_type, description, output_required)
        made = build_op(
            function,
            name="__".join(own.path),
            ins=_op_ins(inputs),
            out=out,
            description=description,
            cache=cache,
            volatile=volatile,
            max_age=max_age,
            ignore=ignore,
            reads=reads,
            keyword_config=False,
            where=where,
        )
        keys, order = _resolve_inputs(made, inputs)
        told = description or function.__doc__
        return _announce(
            AssetsDefinition(
                made,
                kind="asset",
                keys_by_input=keys,
                keys_by_output={"result": own},
                deps=tuple(dict.fromkeys((*order, *_dep_keys(deps)))),
                group_names={own: group_name} if group_name else None,
                descriptions={own: told} if told else None,
                where=where,
                module=getattr(function, "__module__", "") or "",
                isolate=isolate,
            )
        )

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
    """Make several assets of one function that returns a tuple of them or yields `Output`.

    Parameters
    ----------
    outs
        The assets by output name; an output's key is its name unless its `AssetOut` says otherwise.
    name
        The step's name; the function's by default.
    ins, deps, group_name, cache, volatile, max_age, ignore, reads
        As in `asset`.

    Raises
    ------
    InvalidDefinitionError
        See SEMANTICS, section 1, multi_asset.
    """
    if not outs:
        raise InvalidDefinitionError(
            "a multi-asset needs at least one output", remedy="outs={'train': AssetOut(), 'test': AssetOut()}"
        )

    def decorate(function: Callable[..., Any]) -> AssetsDefinition:
        where = place_of_function(function)
        inputs = _as_asset_ins(ins)
        keys = {output: declared.resolve(output) for output, declared in outs.items()}
        for own in keys.values():
            _check_parts(own, where)
        made = build_op(
            function,
            name=name,
            ins=_op_ins(inputs),
            description=description,
            cache=cache,
            volatile=volatile,
            max_age=max_age,
            ignore=ignore,
            reads=reads,
            keyword_config=False,
            where=where,
            out={
                output: Out(declared.dagster_type, declared.description, declared.is_required)
                for output, declared in outs.items()
            },
        )
        upstream, order = _resolve_inputs(made, inputs)
        groups = {keys[output]: declared.group_name or group_name for output, declared in outs.items()}
        return _announce(
            AssetsDefinition(
                made,
                kind="multi_asset",
                keys_by_input=upstream,
                keys_by_output=keys,
                deps=tuple(dict.fromkeys((*order, *_dep_keys(deps)))),
                group_names={own: group for own, group in groups.items() if group},
                descriptions={
                    keys[output]: declared.description or description or "" for output, declared in outs.items()
                },
                where=where,
                module=getattr(function, "__module__", "") or "",
            )
        )

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
        own = _own_key(name or function.__name__, key, key_prefix, name is not None, where)
        composed = graph_of(
            function, name="__".join(own.path), kind="graph-backed asset", declared=None, description=description
        )
        return _announce(
            graph_backed(
                composed,
                own,
                ins=_as_asset_ins(ins),
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
        If the graph has no output or several, or `ins` names something that is not an input.
    """
    _check_parts(key, where)
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
    """Make an asset of one SELECT; the tables that it names are the upstream assets.

    Parameters
    ----------
    name, key_prefix
        The asset's key.
    text
        One SELECT in DuckDB's dialect. White space and comments do not count in its code version.
    ins
        Which asset a table is, where that is not its name.
    deps
        Upstreams that are not read: they only come first.
    parameters
        Values of ``$name`` in the text.
    frame
        The type of the result: ``pandas``, ``pyarrow``, ``polars``, or ``auto`` (pandas where it is installed).
    group_name, description, cache, volatile, max_age
        As in `asset`.

    Raises
    ------
    CellSyntaxError
        If the text is not exactly one SELECT.
    InvalidInvocationError
        If the type of frame is unknown.
    CellNameError
        If a parameter has no value, or a table's name cannot be an asset's.
    CellError
        If the asset would depend on itself.
    """
    caller = sys._getframe(1)  # noqa: SLF001 - where the definition is, as a decorator knows from its function
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
    given = {table: as_asset_key(upstream) for table, upstream in (ins or {}).items()}
    inputs = {table: given.get(table) or _key_of(table, key, where) for table in select.inputs}
    return _announce(
        select_asset(
            key, select, inputs, deps=_dep_keys(deps), group=group_name, cache=cache, volatile=volatile, max_age=max_age,
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
    group: str | None = None,
    description: str | None = None,
    **reuse: Unpack[Reuse],
) -> AssetsDefinition:
    """Return the definition of a SQL asset; it is not registered.

    Raises
    ------
    CellError
        If it would depend on itself.
    """
    if key in inputs.values():
        raise CellError(
            f"the SELECT of {key.name!r} reads {key.name!r}: the asset would depend on itself",
            where=where,
            remedy="give the asset another name than what it reads",
        )
    op = OpDefinition(
        "__".join(key.path), body, ins={name: In() for name in inputs}, outs={"result": Out()}, where=where, **reuse,
    )  # fmt: skip
    return AssetsDefinition(
        op, kind="sql_asset", keys_by_input=dict(inputs), keys_by_output={"result": key}, deps=tuple(deps),
        group_names={key: group} if group else None, descriptions={key: description or ""}, where=where, module=module,
    )  # fmt: skip


def _key_of(table: str, key: AssetKey, where: str) -> AssetKey:
    if not all(part.isidentifier() for part in table.split("/")):
        raise CellNameError(
            f"the SELECT of {key.name!r} reads {table!r}, which is no asset's name",
            where=where,
            remedy=f"name its key: ins={{{table!r}: AssetKey([...])}}",
        )
    return as_asset_key(table)

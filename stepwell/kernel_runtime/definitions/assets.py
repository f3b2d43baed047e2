"""Assets: an op or a graph bound to asset keys."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypeAlias, overload

from stepwell.kernel_runtime.definitions.composition import composing
from stepwell.kernel_runtime.definitions.declarations import UNSET, AssetIn, AssetOut, In, Out
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, asset_reads, graph_of
from stepwell.kernel_runtime.definitions.ops import OpDefinition, build_op, invoke
from stepwell.kernel_runtime.definitions.places import place_of
from stepwell.kernel_runtime.definitions.reuse import MaxAge
from stepwell.kernel_runtime.definitions.runner import runner
from stepwell.kernel_runtime.definitions.sources import SourceAsset
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvalidInvocationError, InvariantViolationError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, check_name, prefixed

AssetKind: TypeAlias = Literal["asset", "multi_asset", "graph_asset", "sql_asset"]
CoercibleToAssetDep: TypeAlias = "CoercibleToAssetKey | AssetsDefinition | SourceAsset"


class AssetsDefinition:
    """One or more assets that are computed together.

    Attributes
    ----------
    node
        The op, or for a graph-backed asset the graph, that computes them.
    keys_by_input
        For each input that carries a value the upstream's key.
    keys_by_output
        For each output the asset's key.
    deps
        Keys of upstreams that only order.
    reads
        Keys of assets that the body of a graph names.
    """

    def __init__(
        self,
        node: OpDefinition | GraphDefinition,
        *,
        kind: AssetKind,
        keys_by_input: Mapping[str, AssetKey],
        keys_by_output: Mapping[str, AssetKey],
        deps: Iterable[AssetKey] = (),
        group_names: Mapping[AssetKey, str] | None = None,
        descriptions: Mapping[AssetKey, str] | None = None,
        where: str = "",
        module: str = "",
        isolate: bool = True,
    ) -> None:
        self.node = node
        self.kind = kind
        self.keys_by_input = dict(keys_by_input)
        self.keys_by_output = dict(keys_by_output)
        self.deps = tuple(deps)
        self.reads = tuple(asset_reads(node)) if isinstance(node, GraphDefinition) else ()
        self.group_names = dict(group_names or {})
        self.descriptions = dict(descriptions or {})
        self.where = where
        self.module = module
        self.isolate = isolate
        self.notebook = ""
        """The notebook or module that defined it, filled in by the registry."""
        self._check()

    def _check(self) -> None:
        own = set(self.keys_by_output.values())
        if len(own) < len(self.keys_by_output):
            raise InvalidDefinitionError(f"two outputs of {self.node.name!r} have the same key", where=self.where)
        for key in self.upstream_keys:
            if key in own:
                raise InvalidDefinitionError(
                    f"asset {key} depends on itself",
                    where=self.where,
                    remedy="give the asset another name than what it reads: clean = raw.dropna() in an asset `clean` that reads `raw`",
                )

    @property
    def keys(self) -> tuple[AssetKey, ...]:
        """The assets' keys in the order of the outputs."""
        return tuple(self.keys_by_output.values())

    @property
    def key(self) -> AssetKey:
        """The asset's key.

        Raises
        ------
        InvariantViolationError
            If there are several.
        """
        if len(self.keys_by_output) != 1:
            raise InvariantViolationError(f"{self.node.name!r} has {len(self.keys_by_output)} keys", remedy="use .keys")
        return next(iter(self.keys_by_output.values()))

    @property
    def step_key(self) -> str:
        """The key of its step; for a graph-backed asset the parent of its steps' keys."""
        return str(self.key) if len(self.keys_by_output) == 1 else "/".join((*self._common_prefix(), self.node.name))

    def _common_prefix(self) -> tuple[str, ...]:
        prefixes = {key.path[:-1] for key in self.keys_by_output.values()}
        return prefixes.pop() if len(prefixes) == 1 else ()

    @property
    def upstream_keys(self) -> tuple[AssetKey, ...]:
        """Keys of every upstream, values first."""
        return tuple(dict.fromkeys((*self.keys_by_input.values(), *self.reads, *self.deps)))

    def group_name(self, key: AssetKey) -> str:
        """Return the group of one of the assets."""
        return self.group_names.get(key, "default")

    @property
    def __stepwell_asset_key__(self) -> AssetKey:
        """What a graph that is given this reads."""
        return self.key

    @property
    def __stepwell_body__(self) -> object:
        """What its code version is made from."""
        return self.node.__stepwell_body__

    def to_source_asset(self, key: CoercibleToAssetKey | None = None) -> SourceAsset:
        """Return one of the assets as a source asset.

        Parameters
        ----------
        key
            Which one; required where there are several.
        """
        if key is None and len(self.keys_by_output) != 1:
            raise InvariantViolationError(
                f"{self.node.name!r} has several keys",
                where=self.where,
                remedy=f"name one: to_source_asset({str(self.keys[0])!r})",
            )
        chosen = self.key if key is None else as_asset_key(key)
        if chosen not in self.keys:
            raise InvariantViolationError(
                f"{self.node.name!r} does not define {chosen}",
                where=self.where,
                remedy=f"it defines {', '.join(map(str, self.keys))}",
            )
        return SourceAsset(chosen, description=self.descriptions.get(chosen), group_name=self.group_name(chosen))

    def load(self, key: CoercibleToAssetKey | None = None, *, store: Any = None) -> Any:
        """Return the current value of the asset, or of one of them.

        Raises
        ------
        ValueUnavailableError
            If there is none, or it cannot be loaded.
        """
        return runner().load(str(self.key if key is None else as_asset_key(key)), store=store)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function directly: nothing is checked against a store or recorded."""
        if composing() is not None:
            raise InvalidDefinitionError(
                f"asset {self.step_key} is called while a graph is composed",
                where=self.where,
                remedy="pass it as it is: it is read from the store, never computed there",
            )
        if isinstance(self.node, GraphDefinition):
            raise InvalidInvocationError(
                f"the graph-backed asset {self.step_key} cannot be called",
                where=self.where,
                remedy=f"materialize it: stepwell.materialize([{self.node.name}])",
            )
        return invoke(self.node, args, kwargs)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        step = self.__dict__.get("keys_by_output") or {}
        shown = "/".join(next(iter(step.values())).path) if step else "this"
        raise AttributeError(
            f"{shown!r} is the definition of an asset and has no attribute {name!r}; its value is {shown.rsplit('/', maxsplit=1)[-1]}.load()"
        )

    def __repr__(self) -> str:
        return (
            f"<{self.kind} {', '.join(map(str, self.keys))} <- {', '.join(map(str, self.upstream_keys)) or 'nothing'}>"
        )


def dep_keys(deps: Iterable[CoercibleToAssetDep] | None) -> tuple[AssetKey, ...]:
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


def _resolve_inputs(op: OpDefinition, ins: Mapping[str, AssetIn]) -> tuple[dict[str, AssetKey], tuple[AssetKey, ...]]:
    keys = {name: ins[name].resolve(name) if name in ins else AssetKey(name) for name in op.parameters}
    order = tuple(given.resolve(name) for name, given in ins.items() if name not in keys)
    return keys, order


def _op_ins(ins: Mapping[str, AssetIn]) -> dict[str, In]:
    return {name: In(given.dagster_type, metadata=given.metadata) for name, given in ins.items()}


def _as_asset_ins(ins: Mapping[str, AssetIn | CoercibleToAssetKey] | None) -> dict[str, AssetIn]:
    return {name: given if isinstance(given, AssetIn) else AssetIn(key=given) for name, given in (ins or {}).items()}


def _announce(made: AssetsDefinition) -> AssetsDefinition:
    if made.module == "__main__":
        runner().register(made)
    return made


def _asset_key(
    name: str, key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None, named: bool, where: str
) -> AssetKey:
    if key is None:
        return prefixed(key_prefix, name)
    if named or key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= is given together with name= or key_prefix=",
            where=where,
            remedy="give the whole key, or its name and prefix",
        )
    return as_asset_key(key)


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
        Whether each consumer gets a load of its own; False shares one object and marks the asset so.
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
        where = place_of(getattr(inspect.unwrap(function), "__code__", None))
        own_name = name or str(getattr(function, "__name__", ""))
        own = _asset_key(own_name, key, key_prefix, name is not None, where)
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
        )
        keys, order = _resolve_inputs(made, inputs)
        return _announce(
            AssetsDefinition(
                made,
                kind="asset",
                keys_by_input=keys,
                keys_by_output={"result": own},
                deps=tuple(dict.fromkeys((*order, *dep_keys(deps)))),
                group_names={own: group_name} if group_name else None,
                descriptions={own: description or function.__doc__ or ""},
                where=where,
                module=getattr(function, "__module__", "") or "",
                isolate=isolate,
            )
        )

    return decorate(compute_fn) if compute_fn is not None else decorate


def _check_parts(key: AssetKey, where: str) -> None:
    for part in key.path:
        check_name("an asset", part, where=where)


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
        where = place_of(getattr(inspect.unwrap(function), "__code__", None))
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
                deps=tuple(dict.fromkeys((*order, *dep_keys(deps)))),
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
        own = _asset_key(name or function.__name__, key, key_prefix, name is not None, where)
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
        If the graph has no output or several, or `ins` names what is no input.
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

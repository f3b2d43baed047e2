"""Assets, which bind an op or a graph to asset keys, and source assets, whose stored values are read but never computed by this program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, TypeAlias

from stepwell.kernel_runtime.definitions.composition import composing
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, asset_reads, runner
from stepwell.kernel_runtime.definitions.ops import OpDefinition, invoke
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvalidInvocationError, InvariantViolationError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key


class SourceAsset:
    """Declare an asset that another notebook or program materializes. Downstream steps read its current value from the store.

    Parameters
    ----------
    key
        The key of the asset.
    description
        The description of the asset.
    group_name
        The group of the asset, by which selections can name it.
    metadata
        Arbitrary values by name. Stepwell keeps them as an attribute and does not use them.

    Raises
    ------
    InvalidDefinitionError
        If `key` is not a valid asset key.
    """

    def __init__(
        self,
        key: CoercibleToAssetKey,
        *,
        description: str | None = None,
        group_name: str = "default",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.key = as_asset_key(key)
        self.description = description
        self.group_name = group_name
        self.metadata = dict(metadata or {})

    @property
    def __stepwell_asset_key__(self) -> AssetKey:
        """The key of this asset. If the body of a graph passes this definition to an op, the op gets the stored value with this key."""
        return self.key

    def load(self, *, store: Any = None) -> Any:
        """Return the current value of the asset.

        Parameters
        ----------
        store
            A store directory or an open store; by default the store of the session.

        Raises
        ------
        ValueUnavailableError
            If the asset has no stored value, or the value cannot be loaded.
        """
        return runner().load(str(self.key), store=store)

    def __repr__(self) -> str:
        return f"<source asset {self.key}>"


AssetKind: TypeAlias = Literal["asset", "multi_asset", "graph_asset", "sql_asset"]
CoercibleToAssetDep: TypeAlias = "CoercibleToAssetKey | AssetsDefinition | SourceAsset"


class AssetsDefinition:
    """The definition of one or more assets that one op or graph computes.

    Attributes
    ----------
    node
        The op that computes the assets; for a graph-backed asset, the graph.
    keys_by_input
        Maps the name of each input of `node` that carries a value to the key of the upstream asset.
    keys_by_output
        Maps the name of each output of `node` to the key of the asset.
    deps
        Keys of upstream assets that must be computed first but whose values `node` does not get.
    reads
        If `node` is a graph: the keys of the assets whose definitions the graph's body passes directly to ops. The ops get the stored values of
        these assets, so the assets are not inputs of the graph. Empty if `node` is an op.
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
        self.written_keys = tuple([str(key) for key in self.keys_by_output.values()])
        """The keys of the assets as strings (``raw/flights``), in the order of the outputs."""
        self.deps = tuple(deps)
        self.reads = tuple(asset_reads(node)) if isinstance(node, GraphDefinition) else ()
        self.group_names = dict(group_names or {})
        self.descriptions = dict(descriptions or {})
        self.where = where
        self.module = module
        self.isolate = isolate
        self.notebook = ""
        """The path of the notebook, or the name of the module, that defined the assets. Empty until the registry sets it."""
        self.planned_steps: Any = None
        """The steps of this definition. `planning.plan.asset_steps` sets them when it is first called; None until then."""
        self._check()

    def _check(self) -> None:
        # Compare paths instead of keys: the interpreter hashes a tuple faster than a dataclass.
        paths = {key.path for key in self.keys_by_output.values()}
        if len(paths) < len(self.keys_by_output):
            raise InvalidDefinitionError(
                f"two outputs of {self.node.name!r} have the same asset key",
                where=self.where,
                remedy="give each output a different key",
            )
        for key in (*self.keys_by_input.values(), *self.reads, *self.deps):
            if key.path in paths:
                raise InvalidDefinitionError(
                    f"the asset {key} depends on itself",
                    where=self.where,
                    remedy="give the asset a name that differs from the names of its inputs, such as `clean` for an asset that reads `raw`",
                )

    @property
    def keys(self) -> tuple[AssetKey, ...]:
        """The keys of the assets, in the order of the outputs."""
        return tuple(self.keys_by_output.values())

    @property
    def key(self) -> AssetKey:
        """The key of the only asset.

        Raises
        ------
        InvariantViolationError
            If the definition defines several assets.
        """
        if len(self.keys_by_output) != 1:
            raise InvariantViolationError(
                f"{self.node.name!r} defines {len(self.keys_by_output)} assets, so it has no single key",
                remedy="use .keys, which returns the keys of all its assets",
            )
        return next(iter(self.keys_by_output.values()))

    @property
    def step_key(self) -> str:
        """The key of the step that computes the assets; for a graph-backed asset, the asset key, with which the keys of all its steps begin."""
        if len(self.written_keys) == 1:
            return self.written_keys[0]
        return "/".join((*self._common_prefix(), self.node.name))

    def _common_prefix(self) -> tuple[str, ...]:
        prefixes = {key.path[:-1] for key in self.keys_by_output.values()}
        return prefixes.pop() if len(prefixes) == 1 else ()

    @property
    def upstream_keys(self) -> tuple[AssetKey, ...]:
        """The keys of all upstream assets without duplicates. Those in `deps`, whose values are not loaded, come last."""
        return tuple(dict.fromkeys((*self.keys_by_input.values(), *self.reads, *self.deps)))

    def group_name(self, key: AssetKey) -> str:
        """Return the group of the asset `key`; ``default`` if the asset has no declared group."""
        return self.group_names.get(key, "default") if self.group_names else "default"

    @property
    def __stepwell_asset_key__(self) -> AssetKey:
        """The key of this asset. If the body of a graph passes this definition to an op, the op gets the stored value with this key."""
        return self.key

    @property
    def __stepwell_body__(self) -> object:
        """The body of the op or graph. If the code of a step refers to this definition, the step's code version covers the body."""
        return self.node.__stepwell_body__

    def to_source_asset(self, key: CoercibleToAssetKey | None = None) -> SourceAsset:
        """Return a source asset for one of the assets, so that other definitions can read its stored value without computing the asset.

        Parameters
        ----------
        key
            The key of the asset; may be None if this definition defines only one asset.

        Returns
        -------
        SourceAsset
            A source asset with the key, description and group of the asset.

        Raises
        ------
        InvariantViolationError
            If this definition does not define the asset `key`, or `key` is None although this definition defines several assets.
        """
        if key is None and len(self.keys_by_output) != 1:
            raise InvariantViolationError(
                f"{self.node.name!r} defines several assets, and the call of to_source_asset() does not name one of them",
                where=self.where,
                remedy=f"pass the key of one of them: to_source_asset({str(self.keys[0])!r})",
            )
        chosen = self.key if key is None else as_asset_key(key)
        if chosen not in self.keys:
            raise InvariantViolationError(
                f"{self.node.name!r} does not define the asset {chosen}",
                where=self.where,
                remedy=f"pass the key of an asset that it defines: {', '.join(map(str, self.keys))}",
            )
        return SourceAsset(chosen, description=self.descriptions.get(chosen), group_name=self.group_name(chosen))

    def load(self, key: CoercibleToAssetKey | None = None, *, store: Any = None) -> Any:
        """Return the current value of one of the assets.

        Parameters
        ----------
        key
            The key of the asset; may be None if this definition defines only one asset.
        store
            A store directory or an open store; by default the store of the session.

        Raises
        ------
        ValueUnavailableError
            If the asset has no stored value, or the value cannot be loaded.
        InvariantViolationError
            If `key` is None although this definition defines several assets.
        """
        return runner().load(str(self.key if key is None else as_asset_key(key)), store=store)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function of the asset directly and return its result. No stored value is reused, and nothing is stored or recorded."""
        if composing() is not None:
            raise InvalidDefinitionError(
                f"the asset {self.step_key} cannot be called while a graph is being composed",
                where=self.where,
                remedy="pass the asset to an op without calling it: the op gets the stored value of the asset",
            )
        if isinstance(self.node, GraphDefinition):
            raise InvalidInvocationError(
                f"the graph-backed asset {self.step_key} cannot be called",
                where=self.where,
                remedy=f"materialize the asset: stepwell.materialize([{self.node.name}])",
            )
        return invoke(self.node, args, kwargs)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        keys = self.__dict__.get("keys_by_output") or {}
        shown = "/".join(next(iter(keys.values())).path) if keys else "this"
        raise AttributeError(
            f"{shown!r} is the definition of an asset and has no attribute {name!r}; to use the value of the asset, call {shown.rsplit('/', maxsplit=1)[-1]}.load()"
        )

    def __repr__(self) -> str:
        return f"<{self.kind} {', '.join(map(str, self.keys))} <- {', '.join(map(str, self.upstream_keys)) or 'nothing'}>"

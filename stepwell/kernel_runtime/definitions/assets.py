"""Assets, which bind an op or a graph to asset keys, and source assets, whose stored values are read but never computed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, TypeAlias

from stepwell.kernel_runtime.definitions.composition import composing
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, asset_reads, runner
from stepwell.kernel_runtime.definitions.ops import OpDefinition, invoke
from stepwell.kernel_runtime.errors import InvalidDefinitionError, InvalidInvocationError, InvariantViolationError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key


class SourceAsset:
    """Declare an asset that another notebook or program materialises.

    Parameters
    ----------
    key
        The key whose current value is read.
    description
        The description of the asset.
    group_name
        The group of the asset, for selections.
    metadata
        Further values by name, not used by Stepwell.

    Raises
    ------
    InvalidDefinitionError
        If the key is invalid.
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
        """The key that a graph reads when this definition is passed to it."""
        return self.key

    def load(self, *, store: Any = None) -> Any:
        """Return the current value.

        Parameters
        ----------
        store
            A store directory or an open store; by default the session's.

        Raises
        ------
        ValueUnavailableError
            If no value is stored, or the value cannot be loaded.
        """
        return runner().load(str(self.key), store=store)

    def __repr__(self) -> str:
        return f"<source asset {self.key}>"


AssetKind: TypeAlias = Literal["asset", "multi_asset", "graph_asset", "sql_asset"]
CoercibleToAssetDep: TypeAlias = "CoercibleToAssetKey | AssetsDefinition | SourceAsset"


class AssetsDefinition:
    """One or more assets that are computed together.

    Attributes
    ----------
    node
        The op that computes the assets; for a graph-backed asset, the graph.
    keys_by_input
        The upstream key of each input that carries a value.
    keys_by_output
        The asset key of each output.
    deps
        Keys of upstream assets that must be computed first but are not loaded.
    reads
        Keys of assets that the body of a graph passes to ops directly.
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
        """The assets' keys in written form, in the order of the outputs."""
        self.deps = tuple(deps)
        self.reads = tuple(asset_reads(node)) if isinstance(node, GraphDefinition) else ()
        self.group_names = dict(group_names or {})
        self.descriptions = dict(descriptions or {})
        self.where = where
        self.module = module
        self.isolate = isolate
        self.notebook = ""
        """The notebook or module that defined the assets, set by the registry."""
        self.planned_steps: Any = None
        """The steps from the first planning, or None. The definition itself never changes, but the notebook that registers it may."""
        self._check()

    def _check(self) -> None:
        # Compare paths instead of keys: the interpreter hashes a tuple faster than a dataclass.
        paths = {key.path for key in self.keys_by_output.values()}
        if len(paths) < len(self.keys_by_output):
            raise InvalidDefinitionError(f"two outputs of {self.node.name!r} have the same key", where=self.where)
        for key in (*self.keys_by_input.values(), *self.reads, *self.deps):
            if key.path in paths:
                raise InvalidDefinitionError(
                    f"asset {key} depends on itself",
                    where=self.where,
                    remedy="give the asset a name that differs from its input: clean = raw.dropna() in an asset `clean` that reads `raw`",
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
            If the definition has several keys.
        """
        if len(self.keys_by_output) != 1:
            raise InvariantViolationError(f"{self.node.name!r} has {len(self.keys_by_output)} keys", remedy="use .keys")
        return next(iter(self.keys_by_output.values()))

    @property
    def step_key(self) -> str:
        """The key of the step; for a graph-backed asset, the parent of the keys of its steps."""
        if len(self.written_keys) == 1:
            return self.written_keys[0]
        return "/".join((*self._common_prefix(), self.node.name))

    def _common_prefix(self) -> tuple[str, ...]:
        prefixes = {key.path[:-1] for key in self.keys_by_output.values()}
        return prefixes.pop() if len(prefixes) == 1 else ()

    @property
    def upstream_keys(self) -> tuple[AssetKey, ...]:
        """Keys of all upstream assets; those whose values are loaded come first."""
        return tuple(dict.fromkeys((*self.keys_by_input.values(), *self.reads, *self.deps)))

    def group_name(self, key: AssetKey) -> str:
        """Return the group of one of the assets."""
        return self.group_names.get(key, "default") if self.group_names else "default"

    @property
    def __stepwell_asset_key__(self) -> AssetKey:
        """The key that a graph reads when this definition is passed to it."""
        return self.key

    @property
    def __stepwell_body__(self) -> object:
        """The object whose code version counts."""
        return self.node.__stepwell_body__

    def to_source_asset(self, key: CoercibleToAssetKey | None = None) -> SourceAsset:
        """Return one of the assets as a source asset.

        Parameters
        ----------
        key
            The key of the asset; required if the definition has several.

        Returns
        -------
        SourceAsset
            A definition that only reads the stored value.

        Raises
        ------
        InvariantViolationError
            If `key` is not a key of the definition, or is omitted although the definition has several keys.
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
        """Return the current value of the asset.

        Parameters
        ----------
        key
            The key of the asset; required if the definition has several.
        store
            A store directory or an open store; by default the session's.

        Raises
        ------
        ValueUnavailableError
            If no value is stored, or the value cannot be loaded.
        InvariantViolationError
            If the definition has several keys and none is given.
        """
        return runner().load(str(self.key if key is None else as_asset_key(key)), store=store)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function directly, without the store: nothing is reused or recorded."""
        if composing() is not None:
            raise InvalidDefinitionError(
                f"asset {self.step_key} cannot be called while a graph is composed",
                where=self.where,
                remedy="pass the asset itself, without calling it: its value is read from the store",
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
        keys = self.__dict__.get("keys_by_output") or {}
        shown = "/".join(next(iter(keys.values())).path) if keys else "this"
        raise AttributeError(
            f"{shown!r} is the definition of an asset and has no attribute {name!r}; its value is {shown.rsplit('/', maxsplit=1)[-1]}.load()"
        )

    def __repr__(self) -> str:
        return (
            f"<{self.kind} {', '.join(map(str, self.keys))} <- {', '.join(map(str, self.upstream_keys)) or 'nothing'}>"
        )

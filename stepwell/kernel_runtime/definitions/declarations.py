"""What is said of inputs and outputs beside their names: In, Out, GraphOut, AssetIn, AssetOut, Output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from stepwell.kernel_runtime.errors import InvalidDefinitionError
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, prefixed
from stepwell.kernel_runtime.records.quick import quick

T = TypeVar("T")


class _Unset:
    def __repr__(self) -> str:
        return "<not given>"


UNSET: Final = _Unset()
"""What a parameter has that was not given; None is a value."""


@quick
@dataclass(frozen=True, slots=True)
class In:
    """Declare an input of an op.

    Parameters
    ----------
    dagster_type
        The type that a value is checked against; `Nothing` for an input that only orders.
    description
        For a reader.
    default_value
        Used where the input is not connected.
    metadata
        For a reader.
    """

    dagster_type: Any = UNSET
    description: str | None = None
    default_value: Any = UNSET
    metadata: Mapping[str, Any] | None = None


@quick
@dataclass(frozen=True, slots=True)
class Out:
    """Declare an output of an op.

    Parameters
    ----------
    dagster_type
        The type that a value is checked against; `Nothing` where no value passes.
    description
        For a reader.
    is_required
        Whether the step must produce it; where not, what follows a missing one is skipped.
    metadata
        For a reader.
    """

    dagster_type: Any = UNSET
    description: str | None = None
    is_required: bool = True
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GraphOut:
    """Declare an output of a graph; its type is that of the op behind it."""

    description: str | None = None


@dataclass(frozen=True, slots=True)
class AssetIn:
    """Say which asset a parameter is.

    Parameters
    ----------
    key
        The upstream's key; by default the parameter's name.
    key_prefix
        A prefix for the parameter's name; not together with `key`.
    metadata
        For a reader.
    dagster_type
        The type that the loaded value is checked against; `Nothing` for an order without a parameter.
    """

    key: CoercibleToAssetKey | None = None
    key_prefix: str | Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
    dagster_type: Any = UNSET

    def __post_init__(self) -> None:
        _check_key(self.key, self.key_prefix)

    def resolve(self, parameter: str) -> AssetKey:
        """Return the key of the upstream for a parameter."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, parameter)


@dataclass(frozen=True, slots=True)
class AssetOut:
    """Declare one asset of a multi-asset.

    Parameters
    ----------
    key_prefix
        A prefix for the output's name; not together with `key`.
    key
        The asset's key; by default the output's name.
    dagster_type
        The type that the value is checked against.
    description, group_name, metadata
        For a reader, and for selection.
    is_required
        Whether the step must produce it.
    """

    key_prefix: str | Sequence[str] | None = None
    key: CoercibleToAssetKey | None = None
    dagster_type: Any = UNSET
    description: str | None = None
    is_required: bool = True
    group_name: str | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_key(self.key, self.key_prefix)

    def resolve(self, output: str) -> AssetKey:
        """Return the key of the asset for an output."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, output)


def _check_key(key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None) -> None:
    if key is not None and key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= is given together with key_prefix=",
            remedy="give the whole key, or its prefix alone",
        )


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """A value that a step returns or yields, with the name of its output and metadata.

    Parameters
    ----------
    value
        The value.
    output_name
        Which output it is; an op with one output calls it ``result``.
    metadata
        JSON values that are kept with the materialization.
    """

    value: T
    output_name: str = "result"
    metadata: Mapping[str, Any] = field(default_factory=dict)

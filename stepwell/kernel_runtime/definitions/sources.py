"""Source assets: keys that are read as they are stored and never computed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepwell.kernel_runtime.definitions.runner import runner
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key


class SourceAsset:
    """An asset that something else materialises.

    Parameters
    ----------
    key
        The key whose current value is read.
    description, group_name, metadata
        For a reader, and for selection.
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
        """What a graph that is given this reads."""
        return self.key

    def load(self, *, store: Any = None) -> Any:
        """Return the current value.

        Raises
        ------
        ValueUnavailableError
            If there is none, or it cannot be loaded.
        """
        return runner().load(str(self.key), store=store)

    def __repr__(self) -> str:
        return f"<source asset {self.key}>"

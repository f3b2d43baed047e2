"""Running the body of a SQL asset: one SELECT over the values of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import SqlBody


def run_sql(body: SqlBody, arguments: Mapping[str, Any]) -> Any:
    """Return the result of a SELECT as the type of frame that the body names."""
    from stepwell.kernel_runtime.store.sql import run_select

    table = run_select(body.text, dict(arguments), {name: body.globals[name] for name in body.parameters})
    if body.frame == "pandas":
        return table.to_pandas()
    if body.frame == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return table

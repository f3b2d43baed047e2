"""Running the body of a SQL asset: one SELECT over the values of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import SqlBody
from stepwell.kernel_runtime.errors import CellError, StepwellError


def run_sql(body: SqlBody, arguments: Mapping[str, Any]) -> Any:
    """Return the result of a SELECT as the type of frame that the body names.

    Raises
    ------
    CellError
        If the text is no SELECT, or DuckDB cannot run it: names the asset, its cell and DuckDB's reason.
    """
    from stepwell.kernel_runtime.store.sql import run_select

    try:
        table = run_select(body.text, dict(arguments), {name: body.globals[name] for name in body.parameters})
    except CellError:
        raise
    except StepwellError as error:
        place = "; ".join(part for part in (body.where, error.where) if part)
        remedy = error.remedy or f"its tables are: {', '.join(arguments) or 'none'}"
        raise CellError(f"{body.name}: {error.what}", where=place, remedy=remedy) from error
    if body.frame == "pandas":
        return table.to_pandas()
    if body.frame == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return table

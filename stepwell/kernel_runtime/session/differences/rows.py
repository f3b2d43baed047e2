"""The differing rows of two frames as a frame of the same library, taken from both by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.kernel_runtime.session.differences.columns import labelled
from stepwell.kernel_runtime.session.differences.result import RowKind


def differing_rows(
    kind: RowKind,
    limit: int | None,
    differing: Any,
    *,
    load: tuple[Callable[[], Any], Callable[[], Any]],
    keys: tuple[str, ...],
    changed: tuple[str, ...],
) -> Any:
    """Return the added, removed or changed rows of two frames.

    Parameters
    ----------
    differing
        An Arrow table of the kind and both positions of each differing row; None where there are none.
    load
        Return the two frames.
    keys, changed
        Labels of the columns that rows were matched by, and of those that changed anywhere.
    """
    import numpy as np
    import pyarrow.compute as pc

    if differing is None:
        chosen = {"pa": np.empty(0, np.int64), "pb": np.empty(0, np.int64)}
    else:
        table = differing.filter(pc.equal(differing["kind"], kind))
        table = table.slice(0, limit) if limit is not None else table
        chosen = {side: table[side].drop_null().to_numpy() for side in ("pa", "pb")}
    if kind == "added":
        return _taken(load[1](), chosen["pb"])
    before = _taken(load[0](), chosen["pa"])
    return before if kind == "removed" else _side_by_side(before, _taken(load[1](), chosen["pb"]), keys, changed)


def _taken(frame: Any, positions: Any) -> Any:
    root = type(frame).__module__.partition(".")[0]
    if root == "pyarrow":
        return frame.take(positions)
    if root == "polars":
        return (frame.to_frame() if type(frame).__name__ == "Series" else frame)[positions]
    return (frame.to_frame() if frame.ndim == 1 else frame).iloc[positions]


def _side_by_side(before: Any, after: Any, keys: tuple[str, ...], changed: tuple[str, ...]) -> Any:
    root = type(after).__module__.partition(".")[0]
    if root == "pyarrow":
        import pyarrow as pa

        columns = {name: after[name] for name in keys}
        for name in changed:
            columns |= {f"{name} (before)": before[name], f"{name} (after)": after[name]}
        return pa.table(columns)
    if root == "polars":
        import polars as pl

        named = [after[name] for name in keys]
        for name in changed:
            named += [before[name].alias(f"{name} (before)"), after[name].alias(f"{name} (after)")]
        return pl.DataFrame(named)
    import pandas as pd

    old, new = labelled(before), labelled(after)
    data = {name: after.iloc[:, new[name]].array for name in keys if name in new}
    for name in changed:
        if name in old and name in new:
            data |= {
                f"{name} (before)": before.iloc[:, old[name]].array,
                f"{name} (after)": after.iloc[:, new[name]].array,
            }
    return pd.DataFrame(data, index=after.index)

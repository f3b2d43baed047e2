"""What of a value SQL can read, and as which table.

Frames, Arrow tables and contiguous arrays are handed over as they lie in memory; DuckDB scans them there. Their labels become names of
columns, which SQL compares without regard to capitals. A named index of pandas becomes columns, since it holds the keys of
every grouped frame; an unnamed one only counts rows and is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepwell.kernel_runtime.errors import NotTabularError
from stepwell.kernel_runtime.store.sql.statements import folded

_TABLES = "SQL reads pandas, polars and pyarrow tables, numpy arrays of one or two dimensions, lists of dicts and dicts of lists"


def as_table(value: Any, name: str) -> Any:
    """Return what DuckDB can register for a value.

    Parameters
    ----------
    name
        The asset's key, for messages.

    Raises
    ------
    NotTabularError
        If the value is no table, or its columns cannot be told apart by name.
    """
    kind = type(value).__module__.partition(".")[0]
    if _is(value, "pandas", "DataFrame"):
        return _pandas(value, name)
    if _is(value, "pandas", "Series"):
        return _pandas(value.to_frame("value" if value.name is None else value.name), name)
    if _is(value, "polars", "Series"):
        value = value.to_frame(value.name or "value")
    if _is(value, "polars", "DataFrame"):
        _check_names(value.columns, name)
        return value
    if kind == "pyarrow" and hasattr(value, "schema") and not isinstance(value, type):
        _check_names(value.schema.names, name)
        return value
    if _is(value, "numpy", "ndarray"):
        return _array(value, name)
    if isinstance(value, Mapping):
        return _columns(value, name)
    if isinstance(value, list | tuple) and value and all(isinstance(row, Mapping) for row in value):
        labels = dict.fromkeys(label for row in value for label in row)
        return _columns({label: [row.get(label) for row in value] for label in labels}, name)
    raise _no_table(value, name)


def unreadable(value: Any, name: str, reason: str) -> NotTabularError:
    """Return the error of a table with columns of a type that DuckDB does not know, naming them where that can be told."""
    columns = [
        f"{label} ({dtype})" for label, dtype in getattr(value, "dtypes", {}).items() if f"'{dtype}'" in reason
    ] if _is(value, "pandas", "DataFrame") else []  # fmt: skip
    return NotTabularError(
        f"SQL cannot read the asset {name!r}: " + (f"its columns {', '.join(columns)}" if columns else reason),
        remedy="give it columns of types that SQL knows, in an asset of its own: frame.assign(period=frame.period.astype(str))",
    )


def _is(value: Any, library: str, kind: str) -> bool:
    # A value of a library's type exists only where that is imported.
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, kind))


def _no_table(value: Any, name: str, why: str = "") -> NotTabularError:
    shown = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return NotTabularError(f"the asset {name!r} is no table but a {shown}{why}", remedy=_TABLES)


def _check_names(labels: Iterable[Any], name: str) -> list[str]:
    written = [str(label) for label in labels]
    if not written:
        raise NotTabularError(f"the asset {name!r} has no columns", remedy=_TABLES)
    seen: dict[str, str] = {}
    for label in written:
        other = seen.get(folded(label))
        if other is not None:
            both = f"two columns {label!r}" if other == label else f"the columns {other!r} and {label!r}"
            raise NotTabularError(
                f"the asset {name!r} has {both}, which SQL does not tell apart",
                remedy="rename one in an asset of its own",
            )
        seen[folded(label)] = label
    return written


def _pandas(frame: Any, name: str) -> Any:
    if frame.columns.nlevels > 1:
        raise NotTabularError(
            f"the columns of the asset {name!r} have {frame.columns.nlevels} levels",
            remedy="give them one: frame.columns = ['_'.join(map(str, label)) for label in frame.columns]",
        )
    columns = [str(label) for label in frame.columns]
    taken = {folded(label) for label in columns}
    index = frame.index
    levels = [
        at for at, label in enumerate(index.names) if label is not None and folded(str(label)) not in taken
    ]  # fmt: skip
    if levels:
        if len(levels) < index.nlevels:
            frame = frame.reset_index(level=[at for at in range(index.nlevels) if at not in levels], drop=True)
        frame = frame.reset_index()
    written = _check_names(frame.columns, name)
    if any(type(label) is not str for label in frame.columns):
        frame = frame.set_axis(written, axis=1)
    return frame


def _array(array: Any, name: str) -> Any:
    import numpy as np

    if array.dtype.names:
        if array.ndim != 1:
            raise _no_table(array, name, f" of {array.ndim} dimensions")
        return _columns({label: array[label] for label in array.dtype.names}, name)
    if array.ndim not in (1, 2):
        raise _no_table(array, name, f" of {array.ndim} dimensions")
    columns = [array] if array.ndim == 1 else [array[:, at] for at in range(array.shape[1])]
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "biufM":
        return _columns({f"column{at}": column for at, column in enumerate(columns)}, name)
    _check_names([f"column{at}" for at in range(len(columns))], name)
    return {f"column{at}": np.ascontiguousarray(column) for at, column in enumerate(columns)}


def _columns(columns: Mapping[Any, Any], name: str) -> Any:
    import pyarrow as pa

    labels = _check_names(columns, name)
    if not all(_is_column(column) for column in columns.values()):
        raise _no_table(columns, name, " whose values are no columns")
    try:
        return pa.table({label: _arrow(column) for label, column in zip(labels, columns.values(), strict=True)})
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _no_table(columns, name, f" whose columns make no table: {error}") from error


def _arrow(column: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    if isinstance(column, np.ma.MaskedArray):
        return pa.array(np.ascontiguousarray(column.data), mask=np.ma.getmaskarray(column))
    return pa.array(np.ascontiguousarray(column)) if isinstance(column, np.ndarray) else pa.array(column)


def _is_column(column: Any) -> bool:
    if isinstance(column, str | bytes | Mapping):
        return False
    return isinstance(column, Sequence) or (hasattr(column, "__array__") and getattr(column, "ndim", 1) == 1)

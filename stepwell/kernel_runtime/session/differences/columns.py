"""A frame's columns as Arrow arrays, without copying what can be looked at in place, so that DuckDB can compare them.

What Arrow or DuckDB cannot hold, or what one of them would compare by less than all of it, is compared *by digest*: each cell's canonical data version,
equal exactly if the cells are. A cell with no such digest makes its column one that is not compared, and the result says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.kernel_runtime.versions.data import data_version

BY_DIGEST = "by digest"
AS_TEXT = "as text"


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or one level of an index."""

    label: str
    """As a reader sees it; a second column of one label has ``#2``."""
    dtype: str
    """The library's own name of its type."""
    data: Any
    """An Arrow array; None where it cannot be compared."""
    how: str = ""
    level: bool = False
    """Whether it is a level of a pandas index."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A frame as columns."""

    library: str
    rows: int
    columns: tuple[Column, ...]
    index_is_key: bool = False
    """Whether a pandas index is something that rows can be matched by: it has names, or is no count, and is unique."""


def is_frame(value: Any) -> bool:
    """Tell whether a value is a table with columns."""
    return _library(value) != ""


def _library(value: Any) -> str:
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    if root == "pyarrow":
        return "pyarrow" if kind.__name__ in ("Table", "RecordBatch") else ""
    if root == "polars":
        return "polars" if kind.__name__ in ("DataFrame", "Series") else ""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] == "pandas" and base.__name__ in ("DataFrame", "Series"):
            return "pandas"
    return ""


def columns_of(value: Any) -> Columns:
    """Return a frame's columns."""
    library = _library(value)
    if library == "pandas":
        return _pandas(value)
    if library == "polars":
        frame = value.to_frame() if type(value).__name__ == "Series" else value
        made = [_polars(label, frame.get_column(label)) for label in frame.columns]
        return Columns(library, frame.height, tuple(made))
    made = [
        _arrow(label, str(field.type), value.column(at))
        for at, (label, field) in enumerate(zip(_labels(value.schema.names), value.schema, strict=True))
    ]
    return Columns(library, value.num_rows, tuple(made))


def _labels(names: Sequence[Any]) -> list[str]:
    """Return column labels as text; a label that occurs again gets a number."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        text = name if isinstance(name, str) else repr(name)
        seen[text] = seen.get(text, 0) + 1
        found.append(text if seen[text] == 1 else f"{text} #{seen[text]}")
    return found


# -- pandas ------------------------------------------------------------------------------------------------------------


def _pandas(value: Any) -> Columns:
    import pandas as pd

    frame = value.to_frame() if isinstance(value, pd.Series) else value
    index = frame.index
    counts = type(index) is pd.RangeIndex
    named = all(name is not None for name in index.names)
    levels: list[Column] = []
    if named or not counts:
        for at, name in enumerate(index.names):
            label = str(name) if name is not None else "index" if index.nlevels == 1 else f"level {at}"
            series = pd.Series(index.get_level_values(at))
            levels.append(_pandas_column(label, series, level=True))
    labels = _labels([*(level.label for level in levels), *frame.columns])[len(levels) :]
    made = [_pandas_column(label, frame.iloc[:, at]) for at, label in enumerate(labels)]
    unique = bool(levels) and bool(index.is_unique) and not counts and all(level.data is not None for level in levels)
    return Columns("pandas", len(frame), (*levels, *made), index_is_key=unique)


def labelled(frame: Any) -> dict[str, int]:
    """Return the positions of a pandas frame's columns by the labels that `columns_of` gives them."""
    levels = [column.label for column in _pandas(frame.iloc[:0]).columns if column.level]
    labels = _labels([*levels, *frame.columns])[len(levels) :]
    return {label: at for at, label in enumerate(labels)}


def _pandas_column(label: str, series: Any, *, level: bool = False) -> Column:
    import pyarrow as pa

    dtype = str(series.dtype)
    if dtype == "object":
        # Arrow would take 1 and True, or a list and an array, for one type.
        kinds = {type(item) for item in series.array}
        if not kinds <= {str, type(None)}:
            return _digested(label, dtype, series.array, level=level)
    try:
        data = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _digested(label, dtype, series.array, level=level)
    if isinstance(data, pa.ChunkedArray) and data.num_chunks == 1:
        data = data.chunk(0)
    found = _arrow(label, dtype, data)
    if found.data is None:
        return _digested(label, dtype, series.array, level=level)
    return Column(label, dtype, found.data, found.how, level)


# -- Arrow and polars --------------------------------------------------------------------------------------------------


def _polars(label: str, series: Any) -> Column:
    dtype = str(series.dtype)
    try:
        data = series.to_arrow()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return _digested(label, dtype, series.to_list())
    return _arrow(label, dtype, data)


def _arrow(label: str, dtype: str, data: Any) -> Column:
    import pyarrow as pa

    kind = data.type
    if isinstance(kind, pa.BaseExtensionType):
        return _arrow(
            label,
            dtype,
            pa.chunked_array([c.storage for c in data.chunks], kind.storage_type)
            if isinstance(data, pa.ChunkedArray)
            else data.storage,
        )
    if pa.types.is_dictionary(kind):
        return _arrow(label, dtype, data.cast(kind.value_type))
    if pa.types.is_float16(kind):
        return Column(label, dtype, data.cast(pa.float32()))
    if _known(kind):
        return Column(label, dtype, data)
    return _digested(label, dtype, data.to_pylist() if len(data) else [])


def _known(kind: Any) -> bool:
    """Tell whether DuckDB holds a type whole."""
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _known(kind.value_type)
    if types.is_struct(kind):
        return kind.num_fields > 0 and all(_known(field.type) for field in kind)
    if types.is_timestamp(kind) or types.is_time(kind):
        # DuckDB's own times with a zone, and of a day, have microseconds.
        return bool(kind.unit != "ns" or not (types.is_time(kind) or kind.tz is not None))
    if types.is_duration(kind):
        return bool(kind.unit != "ns")
    if types.is_decimal128(kind):
        return bool(kind.precision <= 38)
    return bool(
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_date(kind)
        or types.is_null(kind)
        or str(kind) in ("string_view", "binary_view")
    )


def _digested(label: str, dtype: str, cells: Any, *, level: bool = False) -> Column:
    import pyarrow as pa

    found = []
    for cell in cells:
        version = data_version(cell)
        if version is None:
            return Column(label, dtype, None, f"not compared: no digest of a {type(cell).__name__}", level)
        found.append(version)
    return Column(label, dtype, pa.array(found, pa.string()), BY_DIGEST, level)

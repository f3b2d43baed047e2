"""Comparison of two frames by schema, rows and cells, in DuckDB within a memory limit.

The columns of a pandas, polars or pyarrow frame are read as Arrow arrays, without a copy if Arrow can use the library's memory directly. A column
that Arrow or DuckDB cannot represent exactly is compared *by digest*: by the data version of each cell. If a cell has no data version, the
column is reported as not compared.

Rows of the two frames are matched by position with a positional join, or by the values of key columns with a full outer join on *is not distinct
from*, so that NULL is a valid key. DuckDB writes what exceeds the memory limit to a temporary folder. The cells of matched rows are compared with
*is distinct from*: two NULLs are equal, and so are two NaNs. The result of the query contains only the differing rows: their positions in both
frames, and a flag for each column. The examples, and the rows that a function of type `Rows` returns, are then read from the frames at these
positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.errors import InvalidInvocationError, UnknownKeyError, unknown_key
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.secret_forms import is_weak
from stepwell.kernel_runtime.versions.secrets import HIDDEN, hidden_text, looks_secret

MEMORY = "2GB"
"""The default memory limit of DuckDB for a comparison."""
RowKind: TypeAlias = Literal["added", "removed", "changed"]
Rows: TypeAlias = Callable[[RowKind, "int | None"], Any]
"""A function that takes a kind of differing rows and their maximum number (None for all), and returns these rows as a frame of the library that
made the compared frames."""
How: TypeAlias = Literal["", "as text", "by digest", "in nanoseconds", "not compared"]
"""How the cells of a column are compared; empty for a direct comparison of the values."""
Example: TypeAlias = tuple[str, str, str]
"""One difference: where the values differ (a row, an array position or a path), the earlier value and the later value, all formatted."""
Load: TypeAlias = tuple[Callable[[], Any], Callable[[], Any]]
"""Two functions without parameters: the first loads and returns the earlier value, the second the later value."""

_EXAMPLES = 3
"""The maximum number of examples of one column."""
_COLUMNS_WITH_EXAMPLES = 20
_KEY_NAMES = ("id", "key", "uuid", "index", "name")
"""The names of columns that are tried as key columns; names that end in ``_id``, ``_key`` or ``_uuid`` are tried, too."""
_FRAMES = {"pyarrow": ("Table", "RecordBatch"), "polars": ("DataFrame", "Series"), "pandas": ("DataFrame", "Series")}
_LONGEST_READ = 2_000
"""How many characters after the shown part of a string are also searched for secrets: a secret may begin in the shown part and end after it."""


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """The changes of cells in a column that both frames have."""

    name: str
    count: int
    """The number of matched rows in which the cells of this column differ."""
    how: How = ""
    """How the cells were compared; empty for a direct comparison of the values."""
    undigested: str = ""
    """The type of a cell that has no data version, if the column was not compared for this reason. Empty otherwise."""
    examples: tuple[Example, ...] = ()
    """The first differences, each with the row and both cells."""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """The difference between the columns of two frames."""

    added: tuple[tuple[str, str], ...] = ()
    """The name and type of each column that only the later frame has."""
    removed: tuple[tuple[str, str], ...] = ()
    """The name and type of each column that only the earlier frame has."""
    retyped: tuple[tuple[str, str, str], ...] = ()
    """The name, the earlier type and the later type of each column whose type changed."""
    renamed: tuple[tuple[str, str], ...] = ()
    """The earlier and the later name of each column that was probably renamed: a removed and an added column with equal cells."""


@dataclass(frozen=True, slots=True)
class FrameDifference:
    """The difference between two frames."""

    rows_before: int
    rows_after: int
    matched_by: tuple[str, ...]
    """The columns or index levels by whose values the rows were matched; empty if rows were matched by position."""
    chosen: Literal["requested", "index", "column", "position"]
    """Why `matched_by` was used. ``requested``: the caller passed it. Otherwise it was chosen automatically: a unique ``index``, else the first
    unique ``column`` with a usual key name such as ``id``, else the ``position``.
    """
    schema: SchemaChange
    added: int
    """The number of rows that only the later frame has."""
    removed: int
    """The number of rows that only the earlier frame has."""
    changed: int
    """The number of matched rows with a differing cell."""
    columns: tuple[ColumnChange, ...]
    """The columns with differing cells and the columns that were not compared."""
    duplicates: tuple[int, int] = (0, 0)
    """For the earlier and for the later frame, the number of keys that occur in more than one row of this frame. A key consists of the values
    of the columns by which the caller wants rows to be matched. The first row with such a key is matched with the first row of the other frame that
    has the key, the second with the second, and so on.
    """


def shortened(text: str, longest: int = 60) -> str:
    """Return at most `longest` characters from the beginning of a string, with secrets replaced. A shortened string ends with ``…``."""
    text = hidden_text(text[: longest + _LONGEST_READ])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def example(place: str, before: str, after: str, *, column: str = "", longest: int = 60) -> Example:
    """Return an example of a difference: the place and both values, with secrets replaced.

    Strings that look like secrets are replaced. If `place` or `column` looks like the name of a secret, both values are replaced completely.

    Parameters
    ----------
    place
        Where the values differ: a row, a position or a path.
    before, after
        The formatted values; an empty string stays empty.
    column
        The name of the column that contains the values.
    longest
        The maximum number of characters of a value in the example.
    """
    if any(looks_secret(name) and not is_weak(name) for name in (place, column)):
        return hidden_text(place), before and HIDDEN, after and HIDDEN
    return hidden_text(place), shortened(before, longest), shortened(after, longest)


# -- columns as Arrow arrays -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """A column of a frame, or a level of a pandas index, as an Arrow array."""

    label: str
    """The column's name; for the second column with the same name, followed by ``#2``, and so on."""
    dtype: str
    """The column's type as the frame's library formats it."""
    data: Any
    """The Arrow array of the column's values, or of their digests; None if the column cannot be compared."""
    method: How = ""
    undigested: str = ""
    """If `data` is None: the type of a cell that has no data version. Empty otherwise."""
    is_level: bool = False
    """True for a level of a pandas index."""


def is_frame(value: Any) -> bool:
    """Return True for a table or series of pandas, polars or pyarrow."""
    return bool(_library(value))


def _library(value: Any) -> str:
    for base in type(value).__mro__:
        root = base.__module__.partition(".")[0]
        if base.__name__ in _FRAMES.get(root, ()):
            return root
    return ""


def _as_table(value: Any) -> Any:
    return value.to_frame() if any(base.__name__ == "Series" for base in type(value).__mro__) else value


def _columns_of(frame: Any) -> list[_Column]:
    library = _library(frame)
    if library == "pandas":
        return _pandas_columns(frame)
    names = frame.columns if library == "polars" else frame.schema.names
    columns = frame.get_columns() if library == "polars" else frame.columns
    read = _polars_column if library == "polars" else _arrow_column
    return [read(label, data) for label, data in zip(_labels(names), columns, strict=True)]


def _labels(names: Iterable[Any]) -> list[str]:
    """Return a unique label for each column name: the name as a string; for the second column with this name, followed by ``#2``, and so on."""
    seen: dict[str, int] = {}
    labels = []
    for name in names:
        text = name if isinstance(name, str) else repr(name)
        seen[text] = seen.get(text, 0) + 1
        labels.append(text if seen[text] == 1 else f"{text} #{seen[text]}")
    return labels


def _pandas_labels(frame: Any) -> tuple[list[str], list[str]]:
    """Return the labels of the index levels of a pandas frame, and the labels of its columns. An unnamed `RangeIndex` has no label."""
    import pandas as pd

    index = frame.index
    levels = []
    if type(index) is not pd.RangeIndex or index.name is not None:
        single = index.nlevels == 1
        levels = [
            str(name) if name is not None else "index" if single else f"level {number}" for number, name in enumerate(index.names)
        ]
    labels = _labels([*levels, *frame.columns])
    return labels[: len(levels)], labels[len(levels) :]


def _pandas_columns(frame: Any) -> list[_Column]:
    import pandas as pd

    levels, labels = _pandas_labels(frame)
    return [
        *(
            _pandas_column(label, pd.Series(frame.index.get_level_values(number)), is_level=True)
            for number, label in enumerate(levels)
        ),
        *(_pandas_column(label, frame.iloc[:, number]) for number, label in enumerate(labels)),
    ]


def _pandas_column(label: str, series: Any, *, is_level: bool = False) -> _Column:
    import pyarrow as pa

    dtype = str(series.dtype)
    # Arrow would convert different values, such as 1 and True, or a list and an array, to equal ones.
    if dtype == "object" and not {type(item) for item in series.array} <= {str, type(None)}:
        return _digested(label, dtype, series.array, is_level=is_level)
    try:
        data = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _digested(label, dtype, series.array, is_level=is_level)
    exact = _exact(data)
    if exact is None:
        return _digested(label, dtype, series.array, is_level=is_level)
    return _Column(label, dtype, *exact, is_level=is_level)


def _polars_column(label: str, series: Any) -> _Column:
    try:
        data = series.to_arrow()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # polars panics for columns of Python objects, and its `PanicException` is not a subclass of `Exception`.
        return _digested(label, str(series.dtype), series.to_list())
    return _arrow_column(label, data, str(series.dtype))


def _arrow_column(label: str, data: Any, dtype: str = "") -> _Column:
    exact = _exact(data)
    if exact is None:
        # Each cell is digested as a slice of one row, because conversion to Python objects would lose nanoseconds.
        return _digested(label, dtype or str(data.type), (data.slice(row, 1) for row in range(len(data))))
    return _Column(label, dtype or str(data.type), *exact)


def _exact(data: Any) -> tuple[Any, How] | None:
    """Convert an Arrow array to a type that DuckDB represents exactly.

    Return the converted array, and how its cells are compared. Return None if DuckDB has no such type for the values.
    """
    import pyarrow as pa

    kind = data.type
    if isinstance(kind, pa.BaseExtensionType):
        return _exact(
            pa.chunked_array([chunk.storage for chunk in data.chunks], kind.storage_type)
            if isinstance(data, pa.ChunkedArray)
            else data.storage
        )
    if pa.types.is_dictionary(kind):
        return _exact(data.cast(kind.value_type))
    if pa.types.is_float16(kind):
        return data.cast(pa.float32()), ""
    if _is_shortened(kind):
        return data.cast(pa.int64()), "in nanoseconds"
    return (data, "") if _is_exact(kind) else None


def _is_shortened(kind: Any) -> bool:
    """Return True for an Arrow type in nanoseconds whose values DuckDB would truncate to microseconds."""
    import pyarrow as pa

    types = pa.types
    return bool(
        (types.is_timestamp(kind) and kind.unit == "ns" and kind.tz is not None)
        or ((types.is_time(kind) or types.is_duration(kind)) and kind.unit == "ns")
    )


def _is_exact(kind: Any) -> bool:
    """Return True if DuckDB represents every value of an Arrow type exactly."""
    import pyarrow as pa

    types = pa.types
    if kind.num_fields:
        nested = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_struct, types.is_map)
        return any(test(kind) for test in nested) and all(_is_exact(kind.field(number).type) for number in range(kind.num_fields))
    if types.is_primitive(kind):
        return not (types.is_interval(kind) or types.is_float16(kind) or _is_shortened(kind))
    texts = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")
    return str(kind) in texts or types.is_fixed_size_binary(kind) or types.is_decimal128(kind)


def _digested(label: str, dtype: str, cells: Iterable[Any], *, is_level: bool = False) -> _Column:
    import pyarrow as pa

    digests = []
    for cell in cells:
        digest = data_version(cell)
        if digest is None:
            return _Column(label, dtype, None, "not compared", type(cell).__name__, is_level)
        digests.append(digest)
    return _Column(label, dtype, pa.array(digests, pa.string()), "by digest", is_level=is_level)


# -- the comparison ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A column that both frames have."""

    sql: str
    """The name of the column in DuckDB's tables ``a`` (the earlier frame) and ``b`` (the later frame)."""
    before: _Column
    after: _Column
    method: How

    @property
    def label(self) -> str:
        return self.after.label

    def compares(self, operator: str) -> str:
        """Return an SQL condition that compares the cells of both frames; `operator` is ``DISTINCT FROM`` or ``NOT DISTINCT FROM``."""
        cast = "::VARCHAR" if self.method == "as text" else ""
        return f"(a.{self.sql}{cast} IS {operator} b.{self.sql}{cast})"


def compare_frames(
    before: Any, after: Any, *, on: Sequence[str] | None, folder: Path | None, memory_limit: str, load: Load
) -> tuple[FrameDifference, Rows]:
    """Compare two frames.

    Parameters
    ----------
    before, after
        The earlier and the later frame.
    on
        The columns or index levels by whose values the rows are matched; empty to match rows by position. None chooses automatically: a
        unique index, else a unique column with a usual key name such as ``id`` or ``*_id``, else the position.
    folder
        An empty folder for DuckDB's temporary data; None to keep all data in memory.
    memory_limit
        The memory that DuckDB may use before it writes temporary data to `folder`, in DuckDB's notation: ``2GB``.
    load
        Two functions that load the earlier and the later frame again when the caller asks for the differing rows.

    Returns
    -------
    tuple
        The `FrameDifference`, and a function that returns the differing rows.

    Raises
    ------
    UnknownKeyError
        If a column of `on` is not in both frames.
    InvalidInvocationError
        If a frame cannot be compared, or the memory limit is invalid.
    """
    import duckdb

    before, after = _as_table(before), _as_table(after)
    old, new = _columns_of(before), _columns_of(after)
    rows = len(before), len(after)
    chosen: Literal["requested", "index", "column", "position"] = "requested"
    pairs, schema = _paired(old, new, same_length=rows[0] == rows[1])
    comparable = [pair for pair in pairs if pair.method != "not compared"]
    connection = _connection(memory_limit, folder)
    try:
        _register(connection, comparable, rows)
        if on is not None:
            keys = _requested_keys(pairs, [on] if isinstance(on, str) else on)
            duplicates = _duplicates(connection, keys)
        else:
            keys, chosen = _chosen_keys(connection, pairs, has_index=_have_unique_index(before, after))
            duplicates = (0, 0)
        compared = [pair for pair in comparable if pair not in keys]
        _join(connection, keys, compared, numbered=any(duplicates))
        counts = _counts(connection, compared)
        columns = _changes(connection, pairs, keys, counts)
        differing = connection.sql("SELECT kind, pa, pb FROM d ORDER BY coalesce(pb, pa)").to_arrow_table()
    except duckdb.Error as error:
        raise InvalidInvocationError(
            "the frames could not be compared, because DuckDB reported an error",
            where=str(error).splitlines()[0],
            remedy="if DuckDB ran out of memory, pass a larger memory_limit, for example memory_limit='8GB'",
        ) from error
    finally:
        connection.close()
    matched_by = tuple(pair.label for pair in keys)
    difference = FrameDifference(
        *rows, matched_by, chosen, schema, counts["added"], counts["removed"], counts["changed"], columns, duplicates
    )
    changed = tuple(column.name for column in columns if column.count)
    return difference, partial(_differing_rows, differing=differing, load=load, keys=matched_by, changed=changed)


def _connection(memory_limit: str, folder: Path | None) -> Any:
    import duckdb

    config: dict[str, Any] = {
        "memory_limit": memory_limit, "threads": 2, "autoinstall_known_extensions": False,
        "autoload_known_extensions": False, "python_enable_replacements": False,
        "preserve_insertion_order": False, "temp_directory": str(folder) if folder is not None else "",
    }  # fmt: skip
    try:
        return duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise InvalidInvocationError(
            f"the memory limit {memory_limit!r} is invalid",
            where=str(error).splitlines()[0],
            remedy="write a number and a unit, for example memory_limit='2GB'",
        ) from error


def _paired(old: list[_Column], new: list[_Column], *, same_length: bool) -> tuple[list[_Pair], SchemaChange]:
    before, after = ({(column.label, column.is_level): column for column in columns} for columns in (old, new))
    pairs = [
        _Pair(f"c{number}", before[name], after[name], _comparison_method(before[name], after[name]))
        for number, name in enumerate(name for name in before if name in after)
    ]
    added = [column for name, column in after.items() if name not in before]
    removed = [column for name, column in before.items() if name not in after]
    renamed = []
    candidates = list(added) if same_length else []
    for column in removed:
        same = next((other for other in candidates if _are_equal(column, other)), None)
        if same is not None:
            candidates.remove(same)
            renamed.append((column.label, same.label))
    return pairs, SchemaChange(
        tuple((column.label, column.dtype) for column in added),
        tuple((column.label, column.dtype) for column in removed),
        tuple((p.label, p.before.dtype, p.after.dtype) for p in pairs if p.before.dtype != p.after.dtype),
        tuple(renamed),
    )


def _comparison_method(before: _Column, after: _Column) -> How:
    if before.data is None or after.data is None or (before.method == "by digest") != (after.method == "by digest"):
        return "not compared"
    if before.data.type == after.data.type or (_is_number(before) and _is_number(after)):
        return before.method
    return "as text"


def _is_number(column: _Column) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(column.data.type) or pa.types.is_floating(column.data.type))


def _are_equal(before: _Column, after: _Column) -> bool:
    return (
        before.data is not None
        and after.data is not None
        and len(before.data) > 0
        and before.data.type == after.data.type
        and bool(_chunked(before.data).equals(_chunked(after.data)))
    )


def _chunked(data: Any) -> Any:
    import pyarrow as pa

    return data if isinstance(data, pa.ChunkedArray) else pa.chunked_array([data])


def _register(connection: Any, pairs: Sequence[_Pair], rows: tuple[int, int]) -> None:
    """Make the compared columns of both frames readable in DuckDB: the earlier frame as table ``a``, the later one as table ``b``.

    The column ``p`` of each table is the position of the row in its frame.

    Parameters
    ----------
    rows
        The numbers of rows of the earlier and of the later frame.
    """
    import numpy as np
    import pyarrow as pa

    for name, count, columns in (
        ("a", rows[0], {pair.sql: pair.before for pair in pairs}),
        ("b", rows[1], {pair.sql: pair.after for pair in pairs}),
    ):
        arrays = {sql: _chunked(column.data) for sql, column in columns.items()}
        connection.register(name, pa.table({**arrays, "p": np.arange(count, dtype=np.int64)}))


def _requested_keys(pairs: Sequence[_Pair], names: Iterable[str]) -> list[_Pair]:
    pairs_by_label = {pair.label: pair for pair in pairs}
    for name in names:
        if name not in pairs_by_label:
            if not pairs_by_label:
                raise UnknownKeyError(
                    f"rows cannot be matched by the column {name!r}: the frames have no columns in common",
                    remedy="compare them without on=[...] (--on)",
                )
            raise unknown_key("common column", str(name), pairs_by_label)
        if pairs_by_label[name].method == "not compared":
            raise InvalidInvocationError(
                f"rows cannot be matched by the column {name!r}",
                where="the values of this column cannot be compared",
                remedy="name other columns in on=[...] (--on)",
            )
    return [pairs_by_label[name] for name in names]


def _chosen_keys(
    connection: Any, pairs: Sequence[_Pair], *, has_index: bool
) -> tuple[list[_Pair], Literal["index", "column", "position"]]:
    levels = [pair for pair in pairs if pair.before.is_level]
    if levels and has_index and all(pair.method != "not compared" for pair in levels):
        return levels, "index"
    for pair in pairs:
        name = pair.label.lower()
        has_name = name in _KEY_NAMES or name.endswith(("_id", "_key", "_uuid"))
        if has_name and not pair.method and not _is_float(pair) and _is_unique(connection, pair):
            return [pair], "column"
    return [], "position"


def _have_unique_index(before: Any, after: Any) -> bool:
    """Return True if both frames are pandas frames with a unique index other than a `RangeIndex`, and the names of the index levels are equal."""
    if {_library(before), _library(after)} != {"pandas"} or before.index.names != after.index.names:
        return False
    import pandas as pd

    return all(type(index) is not pd.RangeIndex and index.is_unique for index in (before.index, after.index))


def _is_float(pair: _Pair) -> bool:
    import pyarrow as pa

    return any(pa.types.is_floating(column.data.type) for column in (pair.before, pair.after))


def _is_unique(connection: Any, pair: _Pair) -> bool:
    text = f"SELECT count(*) = count(DISTINCT {pair.sql}) FROM"
    return all(connection.execute(f"{text} {table}").fetchall()[0][0] for table in ("a", "b"))


def _duplicates(connection: Any, keys: Sequence[_Pair]) -> tuple[int, int]:
    if not keys:
        return 0, 0
    columns = ", ".join(pair.sql for pair in keys)
    text = "SELECT count(*) FROM (SELECT 1 FROM {} GROUP BY {} HAVING count(*) > 1)"
    before, after = (connection.execute(text.format(table, columns)).fetchall()[0][0] for table in ("a", "b"))
    return before, after


def _join(connection: Any, keys: Sequence[_Pair], compared: Sequence[_Pair], *, numbered: bool) -> None:
    """Match the rows of the tables ``a`` and ``b``, and create the table ``d`` of the differing rows.

    The columns of ``d`` are the kind of the row (``added``, ``removed`` or ``changed``), the row's positions ``pa`` and ``pb`` in both frames,
    and for each compared column a flag that is True if the cells differ.

    Parameters
    ----------
    keys
        The columns by whose values rows are matched; empty to match rows by position.
    numbered
        True to match rows with the same key in their order: the first with the first, the second with the second, and so on.
    """
    source = "a POSITIONAL JOIN b"
    if keys:
        tables, conditions = ["a", "b"], [pair.compares("NOT DISTINCT FROM") for pair in keys]
        if numbered:
            columns = ", ".join(pair.sql for pair in keys)
            number = f"row_number() OVER (PARTITION BY {columns} ORDER BY p) AS n"
            tables = [f"(SELECT *, {number} FROM {table}) AS {table}" for table in tables]  # noqa: S608 - all names in the statement are generated by this module
            conditions.append("a.n = b.n")
        source = f"{tables[0]} FULL OUTER JOIN {tables[1]} ON {' AND '.join(conditions)}"
    flags = "".join(f", {pair.compares('DISTINCT FROM')} AS d{pair.sql}" for pair in compared)
    where = " OR ".join(["a.p IS NULL", "b.p IS NULL", *(pair.compares("DISTINCT FROM") for pair in compared)])
    kind = "CASE WHEN a.p IS NULL THEN 'added' WHEN b.p IS NULL THEN 'removed' ELSE 'changed' END"
    connection.execute(
        f"CREATE TEMP TABLE d AS SELECT {kind} AS kind, a.p AS pa, b.p AS pb{flags} FROM {source} WHERE {where}"  # noqa: S608 - all names in the statement are generated by this module
    )


def _counts(connection: Any, compared: Sequence[_Pair]) -> dict[str, int]:
    """Count rows of the table ``d``: by kind (``added``, ``removed``, ``changed``), and for each compared column the rows in which it changed.

    The keys of the result are the kinds, and the names of the columns in DuckDB.
    """
    conditions = {kind: f"kind = '{kind}'" for kind in ("added", "removed", "changed")}
    conditions |= {pair.sql: f"kind = 'changed' AND d{pair.sql}" for pair in compared}
    sums = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in conditions.values())
    row = connection.execute(f"SELECT {sums} FROM d").fetchall()[0]  # noqa: S608 - all names in the statement are generated by this module
    return dict(zip(conditions, row, strict=True))


def _changes(connection: Any, pairs: Sequence[_Pair], keys: Sequence[_Pair], counts: dict[str, int]) -> tuple[ColumnChange, ...]:
    columns: list[ColumnChange] = []
    for pair in pairs:
        count = counts.get(pair.sql, 0)
        if count or pair.method == "not compared":
            examples = _examples(connection, pair, keys) if count and len(columns) < _COLUMNS_WITH_EXAMPLES else ()
            undigested = pair.before.undigested or pair.after.undigested
            columns.append(ColumnChange(pair.label, count, pair.method, undigested, examples))
    return tuple(sorted(columns, key=lambda column: -column.count))


def _examples(connection: Any, pair: _Pair, keys: Sequence[_Pair]) -> tuple[Example, ...]:
    text = f"SELECT pa, pb FROM d WHERE d{pair.sql} AND kind = 'changed' ORDER BY pb LIMIT {_EXAMPLES}"  # noqa: S608 - all names in the statement are generated by this module
    examples = []
    for before, after in connection.execute(text).fetchall():
        row = ", ".join(_scalar_text(key.after.data[after]) for key in keys) or f"row {after:,}"
        values = (
            ("…", "…")
            if pair.method == "by digest"
            else (_scalar_text(pair.before.data[before]), _scalar_text(pair.after.data[after]))
        )
        examples.append(example(row, *values, column=pair.label))
    return tuple(examples)


def _scalar_text(scalar: Any) -> str:
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError):
        value = scalar
    return "NULL" if value is None else shortened(repr(value))


# -- the differing rows ------------------------------------------------------------------------------------------------


def _differing_rows(
    kind: RowKind, limit: int | None, *, differing: Any, load: Load, keys: tuple[str, ...], changed: tuple[str, ...]
) -> Any:
    """Return the differing rows of one kind as a frame; see `Comparison.rows`.

    Parameters
    ----------
    limit
        The maximum number of rows; None for all.
    differing
        An Arrow table with the kind and both positions of each differing row.
    load
        Two functions that load the earlier and the later frame.
    keys
        The labels of the columns by which rows were matched.
    changed
        The labels of the columns whose cells differ in at least one pair of matched rows.
    """
    import pyarrow.compute as pc

    table = differing.filter(pc.equal(differing["kind"], kind)).slice(0, limit)

    def rows(number: int) -> Any:
        frame, positions = _as_table(load[number]()), table[("pa", "pb")[number]].to_numpy()
        library = _library(frame)
        if library == "pyarrow":
            return frame.take(positions)
        return frame[positions] if library == "polars" else frame.iloc[positions]

    if kind != "changed":
        return rows(1 if kind == "added" else 0)
    before, after = rows(0), rows(1)
    old, new = _by_label(before), _by_label(after)
    columns = {name: new[name] for name in keys if name in new}
    for name in changed:
        if name in old and name in new:
            columns |= {f"{name} (before)": old[name], f"{name} (after)": new[name]}
    return _made_like(after, columns)


def _by_label(frame: Any) -> dict[str, Any]:
    library = _library(frame)
    if library == "pandas":
        return {label: frame.iloc[:, number].array for number, label in enumerate(_pandas_labels(frame)[1])}
    if library == "polars":
        return dict(zip(frame.columns, frame.get_columns(), strict=True))
    return dict(zip(_labels(frame.schema.names), frame.columns, strict=True))


def _made_like(frame: Any, columns: dict[str, Any]) -> Any:
    library = _library(frame)
    if library == "pandas":
        import pandas as pd

        return pd.DataFrame(columns, index=frame.index)
    if library == "polars":
        import polars as pl

        return pl.DataFrame(columns)
    import pyarrow as pa

    return pa.table(columns)

"""Compares two frames in a DuckDB instance of its own with a memory limit, and returns the differing rows as a frame of the same library.

Both frames are scanned in place, as Arrow. By position, DuckDB's positional join walks both side by side. By key, a full outer
join on *is not distinct from* (a NULL is a key like any other) builds a hash table that spills to a folder below the store's ``tmp/``. Of the
result only the differing rows are kept: two positions and one bit per column. Values are compared with *is distinct from*: two NULLs, and two
NaNs, are equal. The values shown to a reader are taken from the frames by position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import InvalidInvocationError, unknown_key
from stepwell.kernel_runtime.session.differences.columns import (
    AS_TEXT,
    BY_DIGEST,
    Column,
    Columns,
    columns_of,
    labelled,
)
from stepwell.kernel_runtime.session.differences.difference import (
    ColumnChange,
    FrameDifference,
    RowKind,
    Rows,
    SchemaChange,
)


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


MEMORY = "2GB"
_EXAMPLES = 3
_MOST_EXAMPLES = 20
"""Columns of which examples are shown."""
_LONGEST = 60
_IS_KEY = ("id", "key", "uuid", "index", "name")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A column that both frames have."""

    before: Column
    after: Column
    how: str

    def differs(self, number: int) -> str:
        left, right = f"a.c{number}", f"b.c{number}"
        if self.how == AS_TEXT:
            left, right = f"{left}::VARCHAR", f"{right}::VARCHAR"
        return f"({left} IS DISTINCT FROM {right})"


def compare_frames(
    before: Any,
    after: Any,
    *,
    on: Sequence[str] | None,
    folder: Path | None,
    memory_limit: str,
    load: tuple[Callable[[], Any], Callable[[], Any]],
) -> tuple[FrameDifference, Rows]:
    """Return how two frames differ, and what gives the differing rows.

    Parameters
    ----------
    on
        The columns or index levels that rows are matched by; None to choose.
    folder
        A folder of its own in which DuckDB may spill; None for nowhere.
    memory_limit
        As DuckDB reads it: ``2GB``.
    load
        Return the two frames again, when their rows are asked for.

    Raises
    ------
    UnknownKeyError
        If a column of `on` is not in both.
    InvalidInvocationError
        If one cannot be compared, or the memory limit cannot be read.
    """
    import duckdb

    old, new = columns_of(before), columns_of(after)
    pairs, schema = _paired(old, new)
    connection = _connection(memory_limit, folder)
    try:
        _register(connection, pairs, old, new)
        keys, chosen = _keys(connection, pairs, old, new, on)
        # Keys that were chosen are known to be unique.
        duplicates = _duplicates(connection, keys) if keys and on is not None else (0, 0)
        _join(connection, pairs, keys, numbered=any(duplicates))
        found = _counted(connection, pairs, keys, old=old, new=new, schema=schema, chosen=chosen, duplicates=duplicates)
        differing = (
            connection.sql("SELECT kind, pa, pb FROM d ORDER BY coalesce(pb, pa)").to_arrow_table()
            if found.added or found.removed or found.changed
            else None
        )
    except duckdb.Error as error:
        raise InvalidInvocationError(
            "the frames could not be compared",
            where=str(error).splitlines()[0],
            remedy="a greater memory_limit='8GB', or fewer columns",
        ) from error
    finally:
        connection.close()
    kept = tuple(pairs[number].after.label for number in keys)
    changed = tuple(column.name for column in found.columns if column.count)
    return found, lambda kind, limit: differing_rows(kind, limit, differing, load=load, keys=kept, changed=changed)


def _connection(memory_limit: str, spill: Path | None) -> Any:
    import duckdb

    config: dict[str, Any] = {
        "memory_limit": memory_limit, "threads": 2, "autoinstall_known_extensions": False,
        "autoload_known_extensions": False, "python_enable_replacements": False,
        "preserve_insertion_order": False, "temp_directory": str(spill) if spill is not None else "",
    }  # fmt: skip
    try:
        return duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise InvalidInvocationError(
            f"{memory_limit!r} is no memory limit", where=str(error).splitlines()[0], remedy="for example: '2GB'"
        ) from error


def _paired(old: Columns, new: Columns) -> tuple[list[_Pair], SchemaChange]:
    theirs = {(column.label, column.level): column for column in new.columns}
    mine = {(column.label, column.level): column for column in old.columns}
    pairs = []
    for name, before in mine.items():
        after = theirs.get(name)
        if after is not None:
            pairs.append(_Pair(before, after, _how(before, after)))
    added = [column for name, column in theirs.items() if name not in mine]
    removed = [column for name, column in mine.items() if name not in theirs]
    renamed = []
    if old.rows == new.rows:
        left = list(added)
        for before in removed:
            same = next((after for after in left if _same(before, after)), None)
            if same is not None:
                left.remove(same)
                renamed.append((before.label, same.label))
    retyped = tuple(
        (pair.after.label, pair.before.dtype, pair.after.dtype)
        for pair in pairs
        if pair.before.dtype != pair.after.dtype
    )
    schema = SchemaChange(
        tuple((column.label, column.dtype) for column in added),
        tuple((column.label, column.dtype) for column in removed),
        retyped,
        tuple(renamed),
    )
    return pairs, schema


def _how(before: Column, after: Column) -> str:
    if before.data is None or after.data is None:
        return before.how or after.how
    if (before.how == BY_DIGEST) != (after.how == BY_DIGEST):
        return "not compared: its type is another"
    if before.how == BY_DIGEST or before.data.type == after.data.type or (_numeric(before) and _numeric(after)):
        return before.how
    return AS_TEXT


def _numeric(column: Column) -> bool:
    import pyarrow as pa

    kind = column.data.type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _same(before: Column, after: Column) -> bool:
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


def _comparable(pairs: Sequence[_Pair]) -> list[int]:
    return [number for number, pair in enumerate(pairs) if not pair.how.startswith("not compared")]


def _register(connection: Any, pairs: Sequence[_Pair], old: Columns, new: Columns) -> None:
    import pyarrow as pa

    numbers = _comparable(pairs)
    for name, rows, side in (("a", old.rows, "before"), ("b", new.rows, "after")):
        arrays = {f"c{number}": _chunked(getattr(pairs[number], side).data) for number in numbers}
        arrays["p"] = pa.chunked_array([pa.array(range(0), pa.int64()) if not rows else _counting(rows)])
        connection.register(name, pa.table(arrays))


def _counting(rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    return pa.array(np.arange(rows, dtype=np.int64))


def _keys(
    connection: Any, pairs: Sequence[_Pair], old: Columns, new: Columns, on: Sequence[str] | None
) -> tuple[list[int], str]:
    """Return the numbers of the pairs that rows are matched by, and why."""
    names = {pair.after.label: number for number, pair in enumerate(pairs)}
    if on is not None:
        found = []
        for name in [on] if isinstance(on, str) else list(on):
            if name not in names:
                raise unknown_key("column in both frames called", str(name), names)
            if names[name] not in _comparable(pairs):
                raise InvalidInvocationError(f"rows cannot be matched by {name!r}", where=pairs[names[name]].how)
            found.append(names[name])
        if not found:
            return [], "as asked for"
        return found, "as asked for"
    levels = [number for number, pair in enumerate(pairs) if pair.before.level]
    if levels and old.index_is_key and new.index_is_key and all(number in _comparable(pairs) for number in levels):
        return levels, "the index is unique in both"
    for name, number in names.items():
        low = name.lower()
        is_key = low in _IS_KEY or low.endswith(("_id", "_key", "_uuid"))
        if (
            is_key
            and number in _comparable(pairs)
            and not pairs[number].how
            and not _is_float(pairs[number])
            and _unique(connection, number)
        ):
            return [number], "unique in both; on=[...], or --on, chooses others"
    return [], "on=[...], or --on COLUMN, chooses key columns"


def _is_float(pair: _Pair) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(pair.before.data.type) or pa.types.is_floating(pair.after.data.type))


def _unique(connection: Any, number: int) -> bool:
    for side in ("a", "b"):
        text = f"SELECT count(*) = count(DISTINCT c{number}) FROM {side}"  # noqa: S608 - names of our own
        if not connection.execute(text).fetchall()[0][0]:
            return False
    return True


def _duplicates(connection: Any, keys: Sequence[int]) -> tuple[int, int]:
    columns = ", ".join(f"c{number}" for number in keys)
    text = "SELECT count(*) FROM (SELECT 1 FROM {} GROUP BY {} HAVING count(*) > 1)"
    found = [connection.execute(text.format(side, columns)).fetchall()[0][0] for side in ("a", "b")]
    return found[0], found[1]


def _join(connection: Any, pairs: Sequence[_Pair], keys: Sequence[int], *, numbered: bool) -> None:
    """Make the table of differing rows: kind, positions, and for each compared column whether it differs."""
    compared = [number for number in _comparable(pairs) if number not in keys]
    bits = "".join(f", {pairs[number].differs(number)} AS d{number}" for number in compared)
    if not keys:
        source = "a POSITIONAL JOIN b"
        differs = " OR ".join(pairs[number].differs(number) for number in compared)
    else:
        left, right, equal = "a", "b", [_equal(pairs[number], number) for number in keys]
        if numbered:
            columns = ", ".join(f"c{number}" for number in keys)
            left, right = (
                f"(SELECT *, row_number() OVER (PARTITION BY {columns} ORDER BY p) AS n FROM {side}) AS {side}"  # noqa: S608 - names of our own
                for side in ("a", "b")
            )
            equal.append("a.n = b.n")
        source = f"{left} FULL OUTER JOIN {right} ON {' AND '.join(equal)}"
        differs = " OR ".join(pairs[number].differs(number) for number in compared)
    where = f"a.p IS NULL OR b.p IS NULL{' OR ' + differs if differs else ''}"
    connection.execute(
        "CREATE TEMP TABLE d AS SELECT CASE WHEN a.p IS NULL THEN 'added' WHEN b.p IS NULL THEN 'removed' ELSE 'changed' END AS kind, "  # noqa: S608 - names of our own
        f"a.p AS pa, b.p AS pb{bits} FROM {source} WHERE {where}"
    )


def _equal(pair: _Pair, number: int) -> str:
    cast = "::VARCHAR" if pair.how == AS_TEXT else ""
    return f"a.c{number}{cast} IS NOT DISTINCT FROM b.c{number}{cast}"


def _counted(
    connection: Any, pairs: Sequence[_Pair], keys: Sequence[int], *, old: Columns, new: Columns, schema: SchemaChange,
    chosen: str, duplicates: tuple[int, int],
) -> FrameDifference:  # fmt: skip
    compared = [number for number in _comparable(pairs) if number not in keys]
    sums = "".join(f", count(*) FILTER (WHERE d{number} AND kind = 'changed')" for number in compared)
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE kind = 'added'), count(*) FILTER (WHERE kind = 'removed'), "  # noqa: S608 - names of our own
        f"count(*) FILTER (WHERE kind = 'changed'){sums} FROM d"
    ).fetchall()[0]
    added, removed, changed = row[:3]
    counts = dict(zip(compared, row[3:], strict=True))
    shown = 0
    columns = []
    for number, pair in enumerate(pairs):
        count = counts.get(number, 0)
        if not count and not pair.how.startswith("not compared"):
            continue
        shown += 1
        examples = _examples(connection, pairs, keys, number) if count and shown <= _MOST_EXAMPLES else ()
        columns.append(ColumnChange(pair.after.label, count, pair.how, examples))
    columns.sort(key=lambda column: -column.count)
    return FrameDifference(
        old.rows, new.rows, tuple(pairs[number].after.label for number in keys), chosen, schema, added, removed, changed,
        tuple(columns), duplicates,
    )  # fmt: skip


def _examples(
    connection: Any, pairs: Sequence[_Pair], keys: Sequence[int], number: int
) -> tuple[tuple[str, str, str], ...]:
    text = f"SELECT pa, pb FROM d WHERE d{number} AND kind = 'changed' ORDER BY pb LIMIT {_EXAMPLES}"  # noqa: S608 - names of our own
    pair = pairs[number]
    found = []
    for before, after in connection.execute(text).fetchall():
        row = ", ".join(_shown(pairs[key].after.data[after]) for key in keys) if keys else f"row {after:,}"
        if pair.how == BY_DIGEST:
            # The digests say nothing to a reader.
            found.append((row, "…", "…"))
        else:
            found.append((row, _shown(pair.before.data[before]), _shown(pair.after.data[after])))
    return tuple(found)


def _shown(scalar: Any) -> str:
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError):
        value = scalar
    text = "NULL" if value is None else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

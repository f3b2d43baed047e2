"""The command ``diff``, which shows the differences between two stored versions of an asset or step."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from dataclasses import asdict, dataclass, fields
from typing import Any

from stepwell.commands.command import Option, command, read_names
from stepwell.commands.wording import get_session
from stepwell.kernel_runtime.session.differences import (
    ArrayDifference,
    BytesDifference,
    Comparison,
    ObjectDifference,
    TextDifference,
    compare_versions,
)
from stepwell.kernel_runtime.session.frame_differences import MEMORY, ColumnChange, FrameDifference
from stepwell.kernel_runtime.session.history import WhichVersion
from stepwell.kernel_runtime.session.requests import AnyStore, Target, key_text
from stepwell.kernel_runtime.text import printable

_MOST_LINES = 12
_MOST_COLUMNS = 8
_UNSEEN = "all compared contents are equal, but the order of columns, the index, the metadata or the representation differs"
_CHOSEN = {
    "requested": "",
    "index": ": the index is unique in both",
    "column": ": the column is unique in both; to match by other columns, use on=[...] or --on COLUMN",
    "position": ": to match by columns, use on=[...] or --on COLUMN",
}


@dataclass(frozen=True, slots=True, repr=False)
class Difference(Comparison):
    """The differences between two versions of an asset or step. ``str`` returns a summary and the first differences."""

    @property
    def summary(self) -> str:
        """One line that counts the differences, for example ``clean: 2 rows added, 1 row changed (10 -> 12 rows, matched by id)``."""
        return f"{self.key}: {_summary(self)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the differences as JSON values.

        The members are ``key``, ``kind``, ``equal``, ``before``, ``after``, ``summary`` and ``details``; ``details`` is None if the values are equal
        or are not compared in detail.
        """
        return {
            "key": self.key,
            "kind": self.kind,
            "equal": self.equal,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "summary": self.summary,
            "details": _as_json_value(asdict(self.details)) if self.details is not None else None,
        }

    def __str__(self) -> str:
        return printable("\n".join([self.summary, *(f"  {line}" for line in _lines(self))]))

    __repr__ = __str__


def worded(comparison: Comparison) -> Difference:
    """Return a comparison as a `Difference`, which prints as text."""
    return Difference(*(getattr(comparison, field.name) for field in fields(comparison)))


@command(
    options={
        "key": Option(completes="steps"),
        "before": Option(metavar="A"),
        "after": Option(metavar="B"),
        "on": Option(parse=read_names, metavar="COLUMN,..."),
        "memory_limit": Option(metavar="SIZE"),
    },
    displayed=True,
)
def diff(
    key: Target,
    before: WhichVersion | None = None,
    after: WhichVersion | None = None,
    *,
    on: Sequence[str] | None = None,
    notebook: str | None = None,
    memory_limit: str = MEMORY,
    store: AnyStore = None,
) -> Difference:
    """Show the differences between two versions of an asset or step, by default between the newest version and the version before it.

    If a notebook computes the same value several times in succession, these results count as one version.

    Parameters
    ----------
    key
        An asset or step.
    before
        The older version: a number (-1 is the newest version, -2 the version before it; 0 is the oldest), the beginning of a version's identifier
        (stepwell versions lists these), or a time, which selects the version that was the newest at that time. The default is -2.
    after
        The newer version, in the same notation; the default is -1, the newest version.
    on
        For frames, the columns or index levels that identify a row: each row of the older version is compared with the row of the newer version
        that has the same values in these columns. If empty, rows at the same position are compared. By default, rows are identified by the index if
        it is unique in both versions; else by the first column that is unique in both versions and is named id, key, uuid, index or name, or ends
        in _id, _key or _uuid; else by position.
    notebook
        The notebook whose versions are compared, named as in the output of stepwell versions; by default, the versions of all notebooks.
    memory_limit
        For frames, the memory, such as 2GB, that the comparison may use before it writes temporary data to disk.
    store
        A store directory or an open store; by default the session's store.

    Returns
    -------
    Difference
        The differences. If the values are frames, the method `rows` of the result returns the added, removed or changed rows.

    Raises
    ------
    UnknownKeyError, UnknownVersionError
        If the key or a version does not exist, or if the key has only one version and `before` is omitted.
    ValueUnavailableError
        If the value of a version cannot be loaded.
    InvalidInvocationError
        If `on` is passed and the values are not frames.
    """
    opened = get_session().open(store, create=False)
    return worded(compare_versions(opened, key_text(key), before, after, on=on, notebook=notebook, memory_limit=memory_limit))


def _as_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _as_json_value(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json_value(member) for member in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# -- the summary -------------------------------------------------------------------------------------------------------


def _summary(comparison: Comparison) -> str:
    details = comparison.details
    if isinstance(details, FrameDifference):
        return _frame_summary(details)
    if isinstance(details, ArrayDifference):
        return _array_summary(details)
    if isinstance(details, TextDifference):
        return f"{_count_text(details.added, 'line')} added, {details.removed:,} removed"
    if isinstance(details, BytesDifference):
        before, after = details.sizes
        return f"{before:,} bytes before, {after:,} bytes after; the first different byte is at position {details.first:,}"
    if isinstance(details, ObjectDifference):
        count = len(details.changes)
        if not count:
            return (
                "no difference in the compared part; the value is too large to be compared as a whole"
                if details.more
                else _UNSEEN
            )
        return f"{count:,}{' or more' if details.more else ''} place{' differs' if count == 1 else 's differ'}"
    if comparison.equal:
        return "both versions have the same value"
    return "the figures differ, but figures are not compared in detail: load both versions and look at them"


def _count_text(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _frame_summary(difference: FrameDifference) -> str:
    schema = difference.schema
    not_compared = sum(column.how == "not compared" for column in difference.columns)
    counts = [
        (difference.added, "row", "added"),
        (difference.removed, "row", "removed"),
        (difference.changed, "row", "changed"),
        (len(schema.added), "column", "added"),
        (len(schema.removed), "column", "removed"),
        (len(schema.retyped), "column", "of another type"),
        (not_compared, "column", "not compared"),
    ]
    changes = ", ".join(f"{_count_text(count, noun)} {change}" for count, noun, change in counts if count) or _UNSEEN
    by = f"matched by {', '.join(difference.matched_by) or 'position'}{_CHOSEN[difference.chosen]}"
    return f"{changes} ({difference.rows_before:,} -> {difference.rows_after:,} rows, {by})"


def _array_summary(difference: ArrayDifference) -> str:
    shape = " × ".join(map(str, difference.shape[0])) or "0-d"
    dtype = f"dtype {difference.dtype[0]} -> {difference.dtype[1]}; " if difference.dtype[0] != difference.dtype[1] else ""
    if difference.differing is None:
        return f"{dtype}shape {difference.shape[0]} -> {difference.shape[1]}"
    if not difference.differing:
        rest = "" if dtype else ": order, mask, metadata or representation differ"
        return f"{dtype}no element of {shape} differs{rest}"
    greatest = f", greatest difference {difference.greatest:g}" if difference.greatest is not None else ""
    return f"{dtype}{difference.differing:,} of {difference.total:,} elements differ ({shape}){greatest}"


# -- the lines below the summary ---------------------------------------------------------------------------------------


def _lines(comparison: Comparison) -> list[str]:
    details = comparison.details
    if isinstance(details, FrameDifference):
        return _frame_lines(details)
    if isinstance(details, ArrayDifference):
        return [f"[{position}] {old} -> {new}" for position, old, new in details.examples[:5]]
    if isinstance(details, ObjectDifference):
        lines = [f"{path or 'value'}: {_change(old, new)}" for path, old, new in details.changes[:_MOST_LINES]]
        rest = len(details.changes) - len(lines)
        if rest or details.more:
            lines.append(f"and {f'at least {rest} ' if rest and details.more else f'{rest} ' if rest else ''}more")
        return lines
    if isinstance(details, TextDifference):
        return text_lines(details, _MOST_LINES)
    return []


def _change(old: str, new: str) -> str:
    if old and new:
        return f"{old} -> {new}"
    return f"added {new}" if new else f"removed {old}"


def text_lines(difference: TextDifference, limit: int) -> list[str]:
    """Return the first lines of a unified diff of two strings and, if lines are omitted, a last line with their number.

    If no diff was computed, return one line that says how many lines changed, or that only line endings differ.

    Parameters
    ----------
    difference
        The difference between the two strings.
    limit
        The maximum number of diff lines to return.
    """
    if not difference.lines:
        if difference.added or difference.removed:
            return [f"from line {difference.first + 1}: {_count_text(difference.removed, 'line')} became {difference.added:,}"]
        return ["only line endings differ"]
    rest = len(difference.lines) - limit + difference.more
    return [*difference.lines[:limit], *([f"and {_count_text(rest, 'more line')}"] if rest > 0 else [])]


def _frame_lines(difference: FrameDifference) -> list[str]:
    lines = []
    for sign, columns in (("+", difference.schema.added), ("-", difference.schema.removed)):
        if columns:
            names = ", ".join(f"{name} ({dtype})" for name, dtype in columns[:_MOST_COLUMNS])
            lines.append(f"{sign} {names}{_further_columns(columns)}")
    lines += [f"{name}: {old} -> {new}" for name, old, new in difference.schema.retyped[:6]]
    for column in difference.columns[:_MOST_COLUMNS]:
        note = column_note(column)
        count = f": {column.count:,} changed" if column.count or not note else ""
        row = "".join(f", {row}: {old} -> {new}" for row, old, new in column.examples[:1])
        lines.append(f"{column.name}{count}{f' ({note})' if note else ''}{row}")
    if len(difference.columns) > _MOST_COLUMNS:
        lines.append(f"and {_count_text(len(difference.columns) - _MOST_COLUMNS, 'more column')}")
    return [*lines, *frame_notes(difference)]


def _further_columns(columns: Sized) -> str:
    return f" and {len(columns) - _MOST_COLUMNS} more" if len(columns) > _MOST_COLUMNS else ""


def column_note(column: ColumnChange) -> str:
    """Return a note that says how the cells of a column were compared, or why they were not; empty if their values were compared directly."""
    if column.how != "not compared":
        return column.how
    cause = f"a cell of type {column.undigested} has no digest" if column.undigested else "the column's type changed"
    return f"not compared: {cause}"


def frame_notes(difference: FrameDifference) -> list[str]:
    """Return lines about renamed columns and duplicate keys.

    There is one line for each column that was probably renamed, but at most four. If a version has duplicate keys, another line counts these keys.
    """
    notes = [
        f"{old} was probably renamed to {new}, because both columns have the same values"
        for old, new in difference.schema.renamed[:4]
    ]
    if any(difference.duplicates):
        before, after = difference.duplicates
        notes.append(
            f"keys that occur more than once: {before:,} before, {after:,} after; rows with equal keys are matched in their order"
        )
    return notes

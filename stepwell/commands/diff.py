"""``diff``: the differences between two versions of a key, as text."""

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
_UNSEEN = "the compared parts are equal, but the order of columns, the index, metadata or the representation differs"
_CHOSEN = {
    "requested": "",
    "index": ": the index is unique in both",
    "column": ": unique in both; on=[...], or --on, chooses others",
    "position": ": on=[...], or --on COLUMN, chooses key columns",
}


@dataclass(frozen=True, slots=True, repr=False)
class Difference(Comparison):
    """The differences between two versions of a key; printed as a summary and the first differences."""

    @property
    def summary(self) -> str:
        """A summary of the difference in one line."""
        return f"{self.key}: {_summary(self)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as JSON values."""
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
    """Show the differences between two versions of an asset or step, by default the newest two that differ.

    Parameters
    ----------
    key
        An asset or a step.
    before
        The older version: a number (-2), the beginning of an identifier, or a time; by default the newest one that differs from the newest.
    after
        The newer version; by default the newest.
    on
        For frames, the columns or index levels that match rows; empty to match by position. By default a unique index, else a unique column that
        is named like a key, else the position.
    notebook
        Only versions from this notebook.
    memory_limit
        For frames, the memory that the comparison may use before it spills to disk, such as 2GB.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Difference
        The difference. Its `rows` method returns the differing rows of frames.

    Raises
    ------
    UnknownKeyError, UnknownVersionError, ValueUnavailableError
        If a version does not exist or cannot be loaded.
    """
    opened = get_session().open(store, create=False)
    return worded(
        compare_versions(opened, key_text(key), before, after, on=on, notebook=notebook, memory_limit=memory_limit)
    )


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
        return f"{before:,} bytes before, {after:,} after, different from byte {details.first:,} on"
    if isinstance(details, ObjectDifference):
        count = len(details.changes)
        if not count:
            return "no difference in the part that was compared: the value is large" if details.more else _UNSEEN
        return f"{count:,}{' or more' if details.more else ''} place{' differs' if count == 1 else 's differ'}"
    if comparison.equal:
        return "both versions have the same value"
    return "the figures differ; figures are not compared in detail: look at both"


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
    dtype = (
        f"dtype {difference.dtype[0]} -> {difference.dtype[1]}; " if difference.dtype[0] != difference.dtype[1] else ""
    )
    if difference.differing is None:
        return f"{dtype}shape {difference.shape[0]} -> {difference.shape[1]}"
    if not difference.differing:
        rest = "" if dtype else ": order, mask, metadata or representation differ"
        return f"{dtype}no element of {shape} differs{rest}"
    greatest = f", greatest difference {difference.greatest:g}" if difference.greatest is not None else ""
    return f"{dtype}{difference.differing:,} of {difference.total:,} elements differ ({shape}){greatest}"


# -- the lines below it ------------------------------------------------------------------------------------------------


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
            lines.append(" ".join(filter(None, ("and", str(rest or ""), "or more" if details.more else "", "more"))))
        return lines
    if isinstance(details, TextDifference):
        return text_lines(details, _MOST_LINES)
    return []


def _change(old: str, new: str) -> str:
    if old and new:
        return f"{old} -> {new}"
    return f"added {new}" if new else f"removed {old}"


def text_lines(difference: TextDifference, limit: int) -> list[str]:
    """Return the first lines of a unified diff and the number of lines left out.

    Parameters
    ----------
    difference
        The difference between two strings.
    limit
        The greatest number of lines of the diff.
    """
    if not difference.lines:
        if difference.added or difference.removed:
            return [f"from line {difference.first + 1}: {difference.removed:,} lines became {difference.added:,}"]
        return ["the lines are the same, their ends differ"]
    rest = len(difference.lines) - limit + difference.more
    return [*difference.lines[:limit], *([f"and {rest:,} more lines"] if rest > 0 else [])]


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
        lines.append(f"and {len(difference.columns) - _MOST_COLUMNS} more columns")
    return [*lines, *frame_notes(difference)]


def _further_columns(columns: Sized) -> str:
    return f" and {len(columns) - _MOST_COLUMNS} more" if len(columns) > _MOST_COLUMNS else ""


def column_note(column: ColumnChange) -> str:
    """Return a note about a column that was compared indirectly or not at all; empty if its cells were compared directly."""
    if column.how != "not compared":
        return column.how
    cause = f"no digest of a {column.undigested}" if column.undigested else "its type changed"
    return f"not compared: {cause}"


def frame_notes(difference: FrameDifference) -> list[str]:
    """Return remarks on probably renamed columns and on repeated keys."""
    notes = [
        f"{old} was perhaps renamed to {new}: the values are the same" for old, new in difference.schema.renamed[:4]
    ]
    if any(difference.duplicates):
        before, after = difference.duplicates
        notes.append(f"keys that occur more than once: {before:,} before, {after:,} after; matched in their order")
    return notes

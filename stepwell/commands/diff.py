"""``diff``: how two versions of a key differ, and its wording."""

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
_UNSEEN = "no difference in what is compared: order of columns, index, metadata or representation differ"
_CHOSEN = {
    "requested": "",
    "index": ": the index is unique in both",
    "column": ": unique in both; on=[...], or --on, chooses others",
    "position": ": on=[...], or --on COLUMN, chooses key columns",
}


@dataclass(frozen=True, slots=True, repr=False)
class Difference(Comparison):
    """How two versions of a key differ; printed as a summary and the first differences."""

    @property
    def summary(self) -> str:
        """The difference in one line."""
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
    """Return a comparison that is printed as text."""
    return Difference(*(getattr(comparison, field.name) for field in fields(comparison)))


@command(
    options={
        "key": Option(completes="steps"),
        "before": Option(metavar="A"),
        "after": Option(metavar="B"),
        "on": Option(read=read_names, metavar="COLUMN,..."),
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
    """Show how two versions of an asset or step differ, by default the newest two that do.

    Parameters
    ----------
    key
        An asset or a step.
    before
        A version: a number (-2), the beginning of an identifier, or a time; by default the last different one.
    after
        A version; by default the newest.
    on
        For frames, the columns or index levels that match rows; empty for their position. By default a unique index, or a column named like
        a key that is unique in both, else the position.
    notebook
        Only versions that this notebook made.
    memory_limit
        For frames, the memory that the comparison may use before it spills to the disk.
    store
        A store directory or an open store; by default the session's.

    Returns
    -------
    Difference
        The difference. Its `rows` method returns the differing rows of frames.

    Raises
    ------
    UnknownKeyError, UnknownVersionError, ValueUnavailableError
        If there are no such versions, or one of them cannot be loaded.
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


def _summary(found: Comparison) -> str:
    details = found.details
    if isinstance(details, FrameDifference):
        return _frame_summary(details)
    if isinstance(details, ArrayDifference):
        return _array_summary(details)
    if isinstance(details, TextDifference):
        return f"{_counted(details.added, 'line')} added, {details.removed:,} removed"
    if isinstance(details, BytesDifference):
        before, after = details.sizes
        return f"{before:,} bytes before, {after:,} after, different from byte {details.first:,} on"
    if isinstance(details, ObjectDifference):
        count = len(details.changes)
        if not count:
            return "no difference in the part that was compared: the value is large" if details.more else _UNSEEN
        return f"{count:,}{' or more' if details.more else ''} place{' differs' if count == 1 else 's differ'}"
    if found.equal:
        return "both versions have the same value"
    return "figures are not compared: their values differ, look at both"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _frame_summary(found: FrameDifference) -> str:
    schema = found.schema
    not_compared = sum(column.how == "not compared" for column in found.columns)
    counts = [
        (found.added, "row", "added"),
        (found.removed, "row", "removed"),
        (found.changed, "row", "changed"),
        (len(schema.added), "column", "added"),
        (len(schema.removed), "column", "removed"),
        (len(schema.retyped), "column", "of another type"),
        (not_compared, "column", "not compared"),
    ]
    what = ", ".join(f"{_counted(count, noun)} {change}" for count, noun, change in counts if count) or _UNSEEN
    by = f"matched by {', '.join(found.matched_by) or 'position'}{_CHOSEN[found.chosen]}"
    return f"{what} ({found.rows_before:,} -> {found.rows_after:,} rows, {by})"


def _array_summary(found: ArrayDifference) -> str:
    shape = " × ".join(map(str, found.shape[0])) or "0-d"
    dtype = f"dtype {found.dtype[0]} -> {found.dtype[1]}; " if found.dtype[0] != found.dtype[1] else ""
    if found.differing is None:
        return f"{dtype}shape {found.shape[0]} -> {found.shape[1]}"
    if not found.differing:
        rest = "" if dtype else ": order, mask, metadata or representation differ"
        return f"{dtype}no element of {shape} differs{rest}"
    greatest = f", greatest difference {found.greatest:g}" if found.greatest is not None else ""
    return f"{dtype}{found.differing:,} of {found.total:,} elements differ ({shape}){greatest}"


# -- the lines below it ------------------------------------------------------------------------------------------------


def _lines(found: Comparison) -> list[str]:
    details = found.details
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


def text_lines(found: TextDifference, most: int) -> list[str]:
    """Return the first lines of a unified diff, and how many more there are."""
    if not found.lines:
        if found.added or found.removed:
            return [f"from line {found.first + 1}: {found.removed:,} lines became {found.added:,}"]
        return ["the lines are the same, their ends differ"]
    rest = len(found.lines) - most + found.more
    return [*found.lines[:most], *([f"and {rest:,} more lines"] if rest > 0 else [])]


def _frame_lines(found: FrameDifference) -> list[str]:
    lines = []
    for sign, columns in (("+", found.schema.added), ("-", found.schema.removed)):
        if columns:
            names = ", ".join(f"{name} ({dtype})" for name, dtype in columns[:_MOST_COLUMNS])
            lines.append(f"{sign} {names}{_more(columns)}")
    lines += [f"{name}: {old} -> {new}" for name, old, new in found.schema.retyped[:6]]
    for column in found.columns[:_MOST_COLUMNS]:
        note = column_note(column)
        count = f": {column.count:,} changed" if column.count or not note else ""
        row = "".join(f", {row}: {old} -> {new}" for row, old, new in column.examples[:1])
        lines.append(f"{column.name}{count}{f' ({note})' if note else ''}{row}")
    if len(found.columns) > _MOST_COLUMNS:
        lines.append(f"and {len(found.columns) - _MOST_COLUMNS} more columns")
    return [*lines, *frame_notes(found)]


def _more(columns: Sized) -> str:
    return f" and {len(columns) - _MOST_COLUMNS} more" if len(columns) > _MOST_COLUMNS else ""


def column_note(column: ColumnChange) -> str:
    """Return how a column was compared, or why it was not; empty if its cells were compared as they are."""
    if column.how != "not compared":
        return column.how
    cause = f"no digest of a {column.undigested}" if column.undigested else "its type is another"
    return f"not compared: {cause}"


def frame_notes(found: FrameDifference) -> list[str]:
    """Return remarks on columns with equal cells and on keys that repeat."""
    notes = [f"{old} is perhaps {new} now: the same values" for old, new in found.schema.renamed[:4]]
    if any(found.duplicates):
        before, after = found.duplicates
        notes.append(f"keys that occur more than once: {before:,} before, {after:,} after; matched in their order")
    return notes

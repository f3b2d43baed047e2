"""What a comparison found, as plain frozen data; `widgets` draws it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.text import printable

Kind: TypeAlias = Literal["equal", "frame", "array", "text", "object", "figure", "other"]
RowKind: TypeAlias = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two values that were compared."""

    id: str
    """The version's identifier; ``before`` or ``after`` for a value that is no version."""
    created: float | None
    type_name: str
    summary: str


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """What changed in one column that both frames have."""

    name: str
    count: int
    """Rows in which its value differs."""
    how: str = ""
    """How it was compared where not as it is: ``as text``, ``by digest``; or why it was not."""
    examples: tuple[tuple[str, str, str], ...] = ()
    """The first differing rows: which row, before, after; as text."""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """How the columns differ."""

    added: tuple[tuple[str, str], ...] = ()
    """Each with its type."""
    removed: tuple[tuple[str, str], ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    """Name, type before, type after."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Pairs of a removed and an added column that hold the same: before, after."""

    @property
    def empty(self) -> bool:
        """Whether the columns are the same."""
        return not (self.added or self.removed or self.retyped)


@dataclass(frozen=True, slots=True)
class FrameDifference:
    """How two frames differ."""

    rows_before: int
    rows_after: int
    matched_by: tuple[str, ...]
    """The key columns or index levels; empty where rows were matched by position."""
    chosen: str
    """Why so, in a few words."""
    schema: SchemaChange
    added: int
    removed: int
    changed: int
    columns: tuple[ColumnChange, ...]
    """Those in which something changed, and those that were compared in another way or not at all."""
    duplicates: tuple[int, int] = (0, 0)
    """How many keys occur more than once, before and after; equal ones are matched in their order."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArrayDifference:
    """How two arrays differ."""

    shape: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: tuple[str, str]
    differing: int | None
    """Elements that differ; None where the shapes do."""
    total: int
    greatest: float | None
    """The greatest absolute difference; None where there is no such thing."""
    positions: tuple[tuple[int, ...], ...] = ()
    """The first that differ."""
    examples: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectDifference:
    """How two objects differ: the first places, each with what was there before and after."""

    changes: tuple[tuple[str, str, str], ...]
    """Path (``['a'][0].x``), before, after; an empty text for what was not there."""
    more: bool = False
    """Whether there may be others: the search is bounded."""


@dataclass(frozen=True, slots=True)
class TextDifference:
    """How two texts differ."""

    added: int
    removed: int
    lines: tuple[str, ...]
    """A unified diff, bounded."""
    more: int = 0
    """Lines of it that are left out."""


Details: TypeAlias = "FrameDifference | ArrayDifference | ObjectDifference | TextDifference | None"
Rows: TypeAlias = Callable[[RowKind, "int | None"], Any]


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """How two values of a key differ."""

    key: str
    kind: Kind
    before: Side
    after: Side
    summary: str
    """One line."""
    details: Details = None
    _rows: Rows | None = field(default=None, compare=False)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.kind == "equal"

    def rows(self, kind: RowKind = "changed", limit: int | None = None) -> Any:
        """Return the differing rows of two frames as a frame of the same library.

        Parameters
        ----------
        kind
            ``added`` and ``removed`` give the rows as they are; ``changed`` the matching columns and, of each column that changed anywhere,
            ``NAME (before)`` and ``NAME (after)``.
        limit
            How many at most.

        Raises
        ------
        InvalidInvocationError
            If the values are no frames, or the kind is none of the three.
        """
        if kind not in ("added", "removed", "changed"):
            raise InvalidInvocationError(f"rows are 'added', 'removed' or 'changed', not {kind!r}")
        if self._rows is None:
            raise InvalidInvocationError(
                f"the values of {self.key!r} that were compared are no frames: there are no rows",
                remedy="print the difference to see what there is",
            )
        return self._rows(kind, limit)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        details = _plain(asdict(self.details)) if is_dataclass(self.details) else None
        return {
            "key": self.key,
            "kind": self.kind,
            "equal": self.equal,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "summary": self.summary,
            "details": details,
        }

    def __str__(self) -> str:
        return printable("\n".join([self.summary, *(f"  {line}" for line in _lines(self.details))]))

    __repr__ = __str__


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value


_MOST_LINES = 12


def _lines(details: Details) -> list[str]:
    """Return a few lines for a reader."""
    if isinstance(details, FrameDifference):
        return _frame_lines(details)
    if isinstance(details, ArrayDifference):
        return [f"[{at}] {old} -> {new}" for at, old, new in details.examples[:5]]
    if isinstance(details, ObjectDifference):
        lines = [
            f"{path or 'value'}: {f'{old} -> {new}' if old and new else f'added {new}' if new else f'removed {old}'}"
            for path, old, new in details.changes[:_MOST_LINES]
        ]
        rest = len(details.changes) - _MOST_LINES
        if rest > 0 or details.more:
            lines.append(f"and {rest if rest > 0 else ''}{' or more' if details.more else ''} more".replace("  ", " "))
        return lines
    if isinstance(details, TextDifference):
        rest = len(details.lines) - _MOST_LINES + details.more
        return [*details.lines[:_MOST_LINES], *([f"and {rest:,} more lines"] if rest > 0 else [])]
    return []


def _frame_lines(found: FrameDifference) -> list[str]:
    lines = []
    for sign, columns in (("+", found.schema.added), ("-", found.schema.removed)):
        if columns:
            lines.append(f"{sign} {', '.join(f'{name} ({kind})' for name, kind in columns[:8])}" + _more(columns, 8))
    lines += [f"{old} is perhaps {new} now: the same values" for old, new in found.schema.renamed[:4]]
    lines += [f"{name}: {old} -> {new}" for name, old, new in found.schema.retyped[:6]]
    for column in found.columns[:8]:
        first = (
            f", {column.examples[0][0]}: {column.examples[0][1]} -> {column.examples[0][2]}" if column.examples else ""
        )
        how = f" ({column.how})" if column.how else ""
        lines.append(
            f"{column.name}: {column.count:,} changed{how}{first}"
            if column.count or not column.how
            else f"{column.name}{how}"
        )
    if len(found.columns) > 8:
        lines.append(f"and {len(found.columns) - 8} more columns")
    if any(found.duplicates):
        before, after = found.duplicates
        lines.append(f"keys that occur more than once: {before:,} before, {after:,} after; matched in their order")
    return [*lines, *found.notes]


def _more(items: tuple[Any, ...], most: int) -> str:
    return f" and {len(items) - most} more" if len(items) > most else ""

"""Choosing how two values are compared, by the types of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.session.differences.arrays import compare_arrays, is_array, is_sparse
from stepwell.kernel_runtime.session.differences.columns import is_frame
from stepwell.kernel_runtime.session.differences.frames import MEMORY, compare_frames
from stepwell.kernel_runtime.session.differences.objects import compare_objects
from stepwell.kernel_runtime.session.differences.result import (
    ArrayDifference,
    Details,
    Difference,
    FrameDifference,
    Kind,
    ObjectDifference,
    Side,
    TextDifference,
)
from stepwell.kernel_runtime.session.differences.texts import compare_texts
from stepwell.kernel_runtime.versions.secret_forms import is_weak
from stepwell.kernel_runtime.versions.secrets import HIDDEN, hidden_text, looks_secret

_UNSEEN = "no difference in what is compared: order of columns, index, metadata or representation differ"


def compare(
    key: str,
    before: Side,
    after: Side,
    load: tuple[Callable[[], Any], Callable[[], Any]],
    *,
    same: bool = False,
    on: Sequence[str] | None = None,
    memory_limit: str = MEMORY,
    folder: Path | None = None,
) -> Difference:
    """Return how two values differ.

    Parameters
    ----------
    key
        What they are values of.
    before, after
        What is known of each without loading it.
    load
        Return the values.
    same
        Whether they are known to be equal: then neither is loaded.
    on
        For frames, the columns or index levels that rows are matched by.
    memory_limit
        For frames, how much memory DuckDB may use before it spills: ``2GB``.
    folder
        Where it may spill.

    Raises
    ------
    InvalidInvocationError
        If `on` is given and the values are no frames.
    """
    if same:
        return Difference(key, "equal", before, after, f"{key}: both versions have the same value")
    old, new = load[0](), load[1]()
    if is_frame(old) and is_frame(new):
        details, rows = compare_frames(old, new, on=on, folder=folder, memory_limit=memory_limit, load=load)
        return Difference(key, "frame", before, after, _frame_summary(key, details), _hidden(details), rows)
    if on is not None:
        raise InvalidInvocationError(
            f"rows are matched by columns only where both values are frames; {key!r} has {before.type_name} and {after.type_name}",
            remedy="leave on=[...] away",
        )
    kind, found, what = _other(old, new)
    return Difference(key, kind, before, after, f"{key}: {what}", _hidden(found), None)


def _hidden(found: Any) -> Any:
    """Return what a comparison found without the secrets in its examples."""
    if isinstance(found, FrameDifference):
        return replace(found, columns=tuple(replace(each, examples=_without(each.examples)) for each in found.columns))
    if isinstance(found, ArrayDifference):
        return replace(found, examples=_without(found.examples))
    if isinstance(found, ObjectDifference):
        return replace(found, changes=_without(found.changes))
    return replace(found, lines=tuple(map(hidden_text, found.lines))) if isinstance(found, TextDifference) else found


def _without(examples: tuple[tuple[str, str, str], ...]) -> tuple[tuple[str, str, str], ...]:
    return tuple((hidden_text(at), _example(at, before), _example(at, after)) for at, before, after in examples)


def _example(place: str, text: str) -> str:
    return HIDDEN if text and _is_password(place) else hidden_text(text)


def _is_password(place: str) -> bool:
    """Whether the place of a value in an object is named like a secret, and not like a lexer's token."""
    return looks_secret(place) and not is_weak(place)


def _other(old: Any, new: Any) -> tuple[Kind, Details, str]:
    if is_array(old) and is_array(new) and is_sparse(old) == is_sparse(new):
        array = compare_arrays(old, new)
        return "array", array, _array_summary(array)
    if type(old) is str and type(new) is str:
        text = compare_texts(old, new)
        return "text", text, f"{text.added:,} line{'' if text.added == 1 else 's'} added, {text.removed:,} removed"
    if type(old) is bytes and type(new) is bytes:
        at = next(
            (at for at, (one, two) in enumerate(zip(old, new, strict=False)) if one != two), min(len(old), len(new))
        )
        return "other", None, f"{len(old):,} bytes before, {len(new):,} after, different from byte {at:,} on"
    if _is_figure(old) or _is_figure(new):
        return "figure", None, "figures are not compared: their values differ, look at both"
    found = compare_objects(old, new)
    if not found.changes:
        return "other", found, _UNSEEN
    count = f"{len(found.changes):,}{' or more' if found.more else ''}"
    return "object", found, f"{count} place{'s differ' if len(found.changes) != 1 else ' differs'}"


def _is_figure(value: Any) -> bool:
    return any(base.__module__ == "matplotlib.figure" and base.__name__ == "Figure" for base in type(value).__mro__)


def _frame_summary(key: str, found: FrameDifference) -> str:
    parts = []
    for count, word in ((found.added, "added"), (found.removed, "removed"), (found.changed, "changed")):
        if count:
            parts.append(f"{count:,} row{'' if count == 1 else 's'} {word}")
    schema = found.schema
    for items, word in ((schema.added, "added"), (schema.removed, "removed"), (schema.retyped, "of another type")):
        if items:
            parts.append(f"{len(items)} column{'' if len(items) == 1 else 's'} {word}")
    not_compared = sum(column.how.startswith("not compared") for column in found.columns)
    if not_compared:
        parts.append(f"{not_compared} column{'' if not_compared == 1 else 's'} not compared")
    what = ", ".join(parts) or _UNSEEN
    by = f"matched by {', '.join(found.matched_by)}" if found.matched_by else "matched by position"
    return f"{key}: {what} ({found.rows_before:,} -> {found.rows_after:,} rows, {by}{'' if found.chosen == 'as asked for' else f': {found.chosen}'})"


def _array_summary(found: ArrayDifference) -> str:
    shape = " × ".join(map(str, found.shape[0])) or "0-d"
    dtype = f"dtype {found.dtype[0]} -> {found.dtype[1]}; " if found.dtype[0] != found.dtype[1] else ""
    if found.differing is None:
        return f"{dtype}shape {found.shape[0]} -> {found.shape[1]}"
    greatest = f", greatest difference {found.greatest:g}" if found.greatest is not None else ""
    if not found.differing:
        return f"{dtype}no element of {shape} differs" + (
            "" if dtype else ": order, mask, metadata or representation differ"
        )
    return f"{dtype}{found.differing:,} of {found.total:,} elements differ ({shape}){greatest}"

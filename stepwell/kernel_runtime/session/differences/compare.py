"""Compares two values, by the types of both: texts as a bounded unified diff, small objects by paths, arrays part by part.

A walk over small objects lists the places where they differ, bounded in places and in steps. Arrays are those of numpy and scipy's sparse
ones; nothing large is copied whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.session.differences.columns import is_frame
from stepwell.kernel_runtime.session.differences.difference import (
    ArrayDifference,
    Details,
    Difference,
    FrameDifference,
    Kind,
    ObjectDifference,
    Side,
    TextDifference,
)
from stepwell.kernel_runtime.session.differences.frames import MEMORY, compare_frames
from stepwell.kernel_runtime.store.values.structure import summary, type_name
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.secret_forms import is_weak
from stepwell.kernel_runtime.versions.secrets import HIDDEN, hidden_text, looks_secret

_MOST_LINES = 200
_LINES = 5_000
"""Lines from which only the part between what both begin and end with is compared."""


def compare_texts(before: str, after: str) -> TextDifference:
    """Return how two texts differ, by lines."""
    old, new = before.splitlines(), after.splitlines()
    skip = 0
    if len(old) + len(new) > _LINES:
        old, new, skip = _middle(old, new)
    if len(old) + len(new) > 4 * _LINES:
        # A diff would take minutes; what is in the middle is another text.
        return TextDifference(len(new), len(old), (f"from line {skip + 1}: {len(old):,} lines became {len(new):,}",))
    lines = list(difflib.unified_diff(old, new, "before", "after", lineterm=""))
    added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    shown = tuple(islice(lines, _MOST_LINES))
    if not lines:
        shown = ("the lines are the same, their ends differ",)
    return TextDifference(added, removed, shown, max(0, len(lines) - _MOST_LINES))


def _middle(old: list[str], new: list[str]) -> tuple[list[str], list[str], int]:
    start = next(
        (at for at, (one, two) in enumerate(zip(old, new, strict=False)) if one != two), min(len(old), len(new))
    )
    old, new = old[start:], new[start:]
    end = next(
        (at for at, (one, two) in enumerate(zip(reversed(old), reversed(new), strict=False)) if one != two),
        min(len(old), len(new)),
    )
    return (old[:-end], new[:-end], start) if end else (old, new, start)


MOST = 100
"""Places that are listed."""
_STEPS = 100_000
_LONGEST_TEXT = 80
_SCALARS = (int, float, complex, bool, str, bytes, type(None))

_Change: TypeAlias = tuple[str, str, str]


def compare_objects(before: Any, after: Any) -> ObjectDifference:
    """Return where two objects differ; two NaNs are equal, 1, 1.0 and True are not."""
    walk = _Walk()
    changes: list[_Change] = []
    for change in walk.of(before, after, "", frozenset()):
        if len(changes) == MOST:
            return ObjectDifference(tuple(changes), more=True)
        changes.append(change)
    return ObjectDifference(tuple(changes), more=walk.steps >= _STEPS)


class _Walk:
    def __init__(self) -> None:
        self.steps = 0

    def of(self, old: Any, new: Any, path: str, above: frozenset[tuple[int, int]]) -> Iterator[_Change]:
        self.steps += 1
        pair = (id(old), id(new))
        if old is new or pair in above or self.steps >= _STEPS:
            return
        if type(old) is not type(new):
            yield path, _shown_object(old, typed=True), _shown_object(new, typed=True)
            return
        if isinstance(old, _SCALARS):
            if data_version(old) != data_version(new):
                yield path, _shown_object(old), _shown_object(new)
            return
        inside = above | {pair}
        if len(inside) > 200:
            # Deeper than anybody reads: whether, not where.
            yield from self._whole(old, new, path)
        elif isinstance(old, Mapping) and type(old).__module__ in ("builtins", "collections"):
            yield from self._mapping(old, new, path, inside)
        elif isinstance(old, list | tuple):
            yield from self._sequence(old, new, path, inside)
        elif isinstance(old, set | frozenset):
            yield from ((f"{path} without", _shown_object(item), "") for item in _sorted(old - new))
            yield from ((f"{path} with", "", _shown_object(item)) for item in _sorted(new - old))
        elif is_dataclass(old):
            for field in fields(old):
                yield from self.of(
                    getattr(old, field.name, None), getattr(new, field.name, None), f"{path}.{field.name}", inside
                )
        elif _is_plain_instance(old):
            yield from self._attributes(vars(old), vars(new), path, inside)
        else:
            yield from self._whole(old, new, path)

    def _whole(self, old: Any, new: Any, path: str) -> Iterator[_Change]:
        version = data_version(old)
        if version is None or version != data_version(new):
            yield path, _shown_object(old, typed=True), _shown_object(new, typed=True)

    def _mapping(self, old: Any, new: Any, path: str, above: frozenset[tuple[int, int]]) -> Iterator[_Change]:
        for key in old:
            if key not in new:
                yield f"{path}[{_shown_object(key)}]", _shown_object(old[key]), ""
            else:
                yield from self.of(old[key], new[key], f"{path}[{_shown_object(key)}]", above)
        for key in new:
            if key not in old:
                yield f"{path}[{_shown_object(key)}]", "", _shown_object(new[key])
        common = [key for key in old if key in new]
        if common != [key for key in new if key in old]:
            yield (
                f"{path} order",
                ", ".join(map(_shown_object, common[:5])),
                ", ".join(_shown_object(key) for key in [key for key in new if key in old][:5]),
            )

    def _sequence(self, old: Any, new: Any, path: str, above: frozenset[tuple[int, int]]) -> Iterator[_Change]:
        names = getattr(type(old), "_fields", None)
        for at, (one, two) in enumerate(zip(old, new, strict=False)):
            yield from self.of(one, two, f"{path}.{names[at]}" if names else f"{path}[{at}]", above)
        for at in range(len(new), len(old)):
            yield f"{path}[{at}]", _shown_object(old[at]), ""
        for at in range(len(old), len(new)):
            yield f"{path}[{at}]", "", _shown_object(new[at])

    def _attributes(
        self, old: dict[str, Any], new: dict[str, Any], path: str, above: frozenset[tuple[int, int]]
    ) -> Iterator[_Change]:
        for name in dict.fromkeys((*old, *new)):
            if name not in new:
                yield f"{path}.{name}", _shown_object(old[name]), ""
            elif name not in old:
                yield f"{path}.{name}", "", _shown_object(new[name])
            else:
                yield from self.of(old[name], new[name], f"{path}.{name}", above)


def _is_plain_instance(value: Any) -> bool:
    """Tell whether an instance is all in its ``__dict__``."""
    kind = type(value)
    return (
        type(getattr(value, "__dict__", None)) is dict
        and not any(
            {"__reduce__", "__reduce_ex__", "__getstate__", "__slots__"} & set(vars(base)) for base in kind.__mro__[:-1]
        )
        and not isinstance(value, type)
        and not callable(value)
    )


def _sorted(items: Any) -> list[Any]:
    return sorted(items, key=lambda item: (type(item).__name__, repr(item)))


def _shown_object(value: Any, *, typed: bool = False) -> str:
    """Return a value as a short text."""
    if isinstance(value, _SCALARS):
        try:
            text = repr(value)
        except ValueError:  # an int of more digits than Python prints
            text = summary(value)
    else:
        text = " ".join(part for part in (type_name(value), summary(value)) if part)
        typed = False
    text = f"{text} ({type_name(value)})" if typed else text
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


_PART = 1 << 20
"""Elements that are compared at once."""
_MOST = 20
_LONGEST = 60


def is_array(value: Any) -> bool:
    """Tell whether a value is an array of numpy, or a sparse one of scipy."""
    return is_sparse(value) or any(
        base.__module__ == "numpy" and base.__name__ in ("ndarray", "generic") for base in type(value).__mro__
    )


def is_sparse(value: Any) -> bool:
    """Tell whether a value is a sparse matrix or array of scipy."""
    return type(value).__module__.startswith("scipy.sparse") and hasattr(value, "tocoo")


def compare_arrays(before: Any, after: Any) -> ArrayDifference:
    """Return how two arrays differ; two NaNs, and two masked elements, are equal."""
    if is_sparse(before) and is_sparse(after):
        return _sparse(before, after)
    import numpy as np

    old, new = np.asanyarray(before), np.asanyarray(after)
    shapes, dtypes = (old.shape, new.shape), (str(old.dtype), str(new.dtype))
    if old.shape != new.shape:
        return ArrayDifference(shapes, dtypes, None, old.size, None)
    count = 0
    greatest: float | None = None
    positions: list[tuple[int, ...]] = []
    examples: list[tuple[str, str, str]] = []
    flat_old, flat_new = _flat(old), _flat(new)
    for at in range(0, old.size, _PART):
        left, right = flat_old[at : at + _PART], flat_new[at : at + _PART]
        differs = _differs(left, right)
        found = np.flatnonzero(differs)
        if not found.size:
            continue
        count += int(found.size)
        greatest = _greater(greatest, _distance(left, right, found))
        for each in found[: max(0, _MOST - len(positions))]:
            position = tuple(int(part) for part in np.unravel_index(at + int(each), old.shape))
            positions.append(position)
            examples.append((", ".join(map(str, position)), _shown(left[each]), _shown(right[each])))
    return ArrayDifference(shapes, dtypes, count, old.size, greatest, tuple(positions), tuple(examples))


def _flat(array: Any) -> Any:
    """Return an array's elements in C order: a view where that is possible, else read on the way."""
    import numpy as np

    if array.flags.c_contiguous or isinstance(array, np.ma.MaskedArray):
        return array.reshape(-1)
    return array.flat


def _differs(left: Any, right: Any) -> Any:
    import numpy as np

    if isinstance(left, np.ma.MaskedArray) or isinstance(right, np.ma.MaskedArray):
        one, two = np.ma.getmaskarray(left), np.ma.getmaskarray(right)
        if one.dtype.names is not None or two.dtype.names is not None:
            return np.array([repr(a) != repr(b) for a, b in zip(left, right, strict=True)], bool)
        return (one != two) | (~one & ~two & _differs(np.ma.getdata(left), np.ma.getdata(right)))
    if left.dtype.hasobject or right.dtype.hasobject:
        return np.array([not _equal(a, b) for a, b in zip(left, right, strict=True)], bool)
    if left.dtype.names is not None or right.dtype.names is not None:
        if left.dtype.names != right.dtype.names:
            return np.ones(left.shape, bool)
        found = np.zeros(left.shape, bool)
        for name in left.dtype.names:
            part = _differs(left[name], right[name])
            found |= part if part.ndim == 1 else part.reshape(len(found), -1).any(axis=1)
        return found
    if left.dtype.kind == "V" or right.dtype.kind == "V":
        return np.array([bytes(a) != bytes(b) for a, b in zip(left, right, strict=True)], bool)
    try:
        with np.errstate(invalid="ignore"):
            differs = np.asarray(left != right)
    except (TypeError, ValueError):
        return np.ones(left.shape, bool)
    if left.dtype.kind in "fcmM" and right.dtype.kind in "fcmM":
        differs &= ~(np.isnan(left) & np.isnan(right))
    return differs


def _equal(one: Any, two: Any) -> bool:
    from stepwell.kernel_runtime.versions.data import data_version

    version = data_version(one)
    return version is not None and version == data_version(two)


def _distance(left: Any, right: Any, found: Any) -> float | None:
    """Return the greatest absolute difference among differing elements, where numbers differ."""
    import numpy as np

    if left.dtype.kind not in "biufc" or right.dtype.kind not in "biufc":
        return None
    one, two = np.ma.getdata(left)[found], np.ma.getdata(right)[found]
    kind = "c16" if "c" in left.dtype.kind + right.dtype.kind else "f8"
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.abs(one.astype(kind) - two.astype(kind))
    distances = distances[~np.isnan(distances)]
    return float(distances.max()) if distances.size else None


def _greater(one: float | None, two: float | None) -> float | None:
    return two if one is None else one if two is None else max(one, two)


def _sparse(before: Any, after: Any) -> ArrayDifference:
    import numpy as np

    shapes, dtypes = (tuple(before.shape), tuple(after.shape)), (str(before.dtype), str(after.dtype))
    total = int(np.prod(before.shape, dtype=float))
    if shapes[0] != shapes[1]:
        return ArrayDifference(shapes, dtypes, None, total, None)
    old, new = before.tocsr(), after.tocsr()
    differs = (old != new).tocoo()
    # A NaN is unlike itself.
    row, column = differs.coords if hasattr(differs, "coords") else (differs.row, differs.col)
    keep = (
        [at for at in range(len(row)) if not _both_nan(old, new, row[at], column[at])]
        if _has_nan(old) and _has_nan(new)
        else range(len(row))
    )
    count = len(keep)
    positions = [(int(row[at]), int(column[at])) for at in list(keep)[:_MOST]]
    examples = [(f"{i}, {j}", _shown(old[i, j]), _shown(new[i, j])) for i, j in positions]
    greatest = None
    if count and old.dtype.kind in "biufc" and new.dtype.kind in "biufc":
        kind = complex if "c" in old.dtype.kind + new.dtype.kind else float
        distances = np.abs((old.astype(kind) - new.astype(kind)).data)
        distances = distances[~np.isnan(distances)]
        greatest = float(distances.max()) if distances.size else None
    return ArrayDifference(shapes, dtypes, count, total, greatest, tuple(positions), tuple(examples))


def _has_nan(matrix: Any) -> bool:
    import numpy as np

    return matrix.dtype.kind in "fc" and bool(np.isnan(matrix.data).any())


def _both_nan(old: Any, new: Any, row: int, column: int) -> bool:
    import numpy as np

    one, two = old[row, column], new[row, column]
    return bool(np.isnan(one) and np.isnan(two))


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


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

"""Comparison of two values: frames by rows and cells, arrays by elements, texts by lines, other values by their members.

`compare` selects the method by the types of both values. A `Comparison` is plain data: `commands.diff` writes it as text,
`widgets.differences` draws it. `frame_differences` compares frames.

Members of objects are compared by data version, so a difference is reported if and only if the store would record another value: 1, 1.0 and
True differ, as do 0.0 and -0.0, and dicts with different orders; two NaNs are equal. The search through objects is limited in results, steps
and depth. Arrays are read in parts and never copied as a whole. Examples are short strings without secrets.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.session.frame_differences import (
    MEMORY,
    Example,
    FrameDifference,
    Load,
    RowKind,
    Rows,
    compare_frames,
    example,
    is_frame,
    shortened,
)
from stepwell.kernel_runtime.session.history import WhichVersion, two_versions, value_of
from stepwell.kernel_runtime.store.values.structure import summary, type_name
from stepwell.kernel_runtime.versions.data import data_version

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

Kind: TypeAlias = Literal["equal", "frame", "array", "text", "object", "figure", "other"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two values that were compared."""

    id: str
    """The version's identifier; ``before`` or ``after`` for a value that is not a stored version."""
    created: float | None
    type_name: str
    summary: str


@dataclass(frozen=True, slots=True)
class ArrayDifference:
    """The difference between two arrays."""

    shape: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: tuple[str, str]
    differing: int | None
    """Number of differing elements; None if the shapes differ."""
    total: int
    greatest: float | None
    """The greatest absolute difference; None if the elements are not numbers."""
    positions: tuple[tuple[int, ...], ...] = ()
    """Indices of the first differing elements."""
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectDifference:
    """The first places where two objects differ."""

    changes: tuple[Example, ...]
    """The path (``['a'][0].x``), the value before and the value after; an empty string if one object does not have the member."""
    more: bool = False
    """True if the search reached a limit, so that there may be more changes."""


@dataclass(frozen=True, slots=True)
class TextDifference:
    """The difference between two texts."""

    added: int
    """Number of added lines."""
    removed: int
    """Number of removed lines."""
    lines: tuple[str, ...]
    """The first lines of a unified diff; empty if only line endings differ, and for long texts with many differing lines."""
    more: int = 0
    """Number of further lines of the diff."""
    first: int = 0
    """Number of lines before the first difference of a long text."""


@dataclass(frozen=True, slots=True)
class BytesDifference:
    """The difference between two byte strings."""

    sizes: tuple[int, int]
    first: int
    """The position of the first byte that differs."""


Details: TypeAlias = "FrameDifference | ArrayDifference | ObjectDifference | TextDifference | BytesDifference | None"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between two values of a key."""

    key: str
    before: Side
    after: Side
    kind: Kind
    details: Details = None
    changed_rows: Rows | None = field(default=None, compare=False, repr=False)

    @property
    def equal(self) -> bool:
        """True if the values are equal."""
        return self.kind == "equal"

    def rows(self, kind: RowKind = "changed", limit: int | None = None) -> Any:
        """Return the differing rows of two frames.

        Parameters
        ----------
        kind
            ``added``, ``removed`` or ``changed``. Changed rows contain the key columns, and ``NAME (before)`` and ``NAME (after)`` for each
            column that changed in any row.
        limit
            The maximum number of rows; None for all.

        Returns
        -------
        frame
            A frame of the same library.

        Raises
        ------
        InvalidInvocationError
            If the values are not frames, or the kind is invalid.
        """
        if kind not in ("added", "removed", "changed"):
            raise InvalidInvocationError(f"rows are 'added', 'removed' or 'changed', not {kind!r}")
        if self.changed_rows is None:
            raise InvalidInvocationError(
                f"the compared values of {self.key!r} are not frames, so they have no rows",
                remedy="print the difference to see it",
            )
        return self.changed_rows(kind, limit)


def compare_versions(
    store: ValueStore,
    key: str,
    before: WhichVersion | None = None,
    after: WhichVersion | None = None,
    *,
    on: Sequence[str] | None = None,
    notebook: str | None = None,
    memory_limit: str = MEMORY,
) -> Comparison:
    """Compare two versions of a key, by default the newest two that differ.

    Parameters
    ----------
    before, after
        The versions, by default the second newest and the newest.
    notebook
        Only versions from this notebook.
    on, memory_limit
        As in `compare`.

    Returns
    -------
    Comparison
        The difference.

    Raises
    ------
    UnknownKeyError, UnknownVersionError
        If a version does not exist.
    ValueUnavailableError
        If a version cannot be loaded.
    """
    old, new = two_versions(store, key, before, after, notebook)
    values = value_of(key, old), value_of(key, new)
    with store.folder.scratch() as folder:
        return compare(
            key, _side(old), _side(new), (lambda: store.get(values[0], key=key), lambda: store.get(values[1], key=key)),
            same=bool(old.data_version) and old.data_version == new.data_version,
            on=on, memory_limit=memory_limit, folder=folder,
        )  # fmt: skip


def _side(version: Materialization) -> Side:
    value = version.value
    return Side(version.id, version.created, value.type_name if value else "", value.summary if value else "")


def compare(
    key: str,
    before: Side,
    after: Side,
    load: Load,
    *,
    same: bool = False,
    on: Sequence[str] | None = None,
    memory_limit: str = MEMORY,
    folder: Path | None = None,
) -> Comparison:
    """Compare two values.

    Parameters
    ----------
    key
        The key of both values.
    before, after
        Metadata of the values that is available without loading them.
    load
        Functions that return the values.
    same
        True if the values are known to be equal; they are not loaded then.
    on
        For frames, the columns or index levels that match rows; empty to match by position, None to choose automatically.
    memory_limit
        For frames, the memory that DuckDB may use before it spills to disk, such as ``2GB``.
    folder
        An empty folder in which DuckDB may spill; None to prevent spilling.

    Returns
    -------
    Comparison
        The difference.

    Raises
    ------
    InvalidInvocationError
        If `on` is passed and the values are not frames.
    """
    if same:
        return Comparison(key, before, after, "equal")
    old, new = load[0](), load[1]()
    if is_frame(old) and is_frame(new):
        details, rows = compare_frames(old, new, on=on, folder=folder, memory_limit=memory_limit, load=load)
        return Comparison(key, before, after, "frame", details, rows)
    if on is not None:
        raise InvalidInvocationError(
            f"on is only valid if both values are frames; {key!r} has {before.type_name} and {after.type_name}",
            remedy="remove on=[...]",
        )
    return Comparison(key, before, after, *_compare_others(old, new))


def _compare_others(old: Any, new: Any) -> tuple[Kind, Details]:
    if (_is_sparse(old) and _is_sparse(new)) or (_is_array(old) and _is_array(new)):
        return "array", compare_arrays(old, new)
    if type(old) is str and type(new) is str:
        return "text", compare_texts(old, new)
    if type(old) is bytes and type(new) is bytes:
        return "other", BytesDifference((len(old), len(new)), _common_start(old, new))
    if _has_base(old, "matplotlib.figure", "Figure") or _has_base(new, "matplotlib.figure", "Figure"):
        return "figure", None
    difference = compare_objects(old, new)
    return ("object" if difference.changes else "other"), difference


def _has_base(value: Any, module: str, *names: str) -> bool:
    return any(base.__module__ == module and base.__name__ in names for base in type(value).__mro__)


# -- texts -------------------------------------------------------------------------------------------------------------

_LINES = 5_000
"""Number of lines above which the common beginning and end of two texts are removed before the comparison."""
_SHOWN_LINES = 200
_LONGEST_LINE = 1_000


def compare_texts(before: str, after: str) -> TextDifference:
    """Compare two texts by lines."""
    old, new = before.splitlines(), after.splitlines()
    first = 0
    if len(old) + len(new) > _LINES:
        first = _common_start(old, new)
        old, new = old[first:], new[first:]
        end = _common_start(reversed(old), reversed(new))
        old, new = old[: len(old) - end], new[: len(new) - end]
    if len(old) + len(new) > 4 * _LINES:
        # `difflib` would take minutes.
        return TextDifference(len(new), len(old), (), first=first)
    lines = list(difflib.unified_diff(old, new, "before", "after", lineterm=""))
    added, removed = (sum(line.startswith(sign) for line in lines[2:]) for sign in "+-")
    shown = tuple(shortened(line, _LONGEST_LINE) for line in lines[:_SHOWN_LINES])
    return TextDifference(added, removed, shown, len(lines) - len(shown), first)


def _common_start(left: Iterable[object], right: Iterable[object]) -> int:
    """Return the number of equal items before the first difference."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


# -- arrays ------------------------------------------------------------------------------------------------------------

_PART = 1 << 20
"""Number of elements in one part of an array."""
_ELEMENTS = 20
"""Number of differing elements in the examples."""


def _is_array(value: Any) -> bool:
    return _has_base(value, "numpy", "ndarray", "generic")


def _is_sparse(value: Any) -> bool:
    return type(value).__module__.startswith("scipy.sparse") and hasattr(value, "tocsr") and value.ndim <= 2


def compare_arrays(before: Any, after: Any) -> ArrayDifference:
    """Compare two numpy arrays, or two sparse arrays of scipy. Two NaNs are equal, and so are two masked elements."""
    import numpy as np

    sparse = _is_sparse(before)
    old, new = (before.tocsr(), after.tocsr()) if sparse else (np.asanyarray(before), np.asanyarray(after))
    shapes, dtypes = (tuple(old.shape), tuple(new.shape)), (str(old.dtype), str(new.dtype))
    total = int(np.prod(old.shape, dtype=float))
    if old.shape != new.shape:
        return ArrayDifference(shapes, dtypes, None, total, None)
    count = 0
    distances: list[float] = []
    positions: list[tuple[int, ...]] = []
    examples: list[Example] = []
    for left, right, position in _sparse_parts(old, new) if sparse else _parts(old, new):
        differing = np.flatnonzero(_differs(left, right))
        count += int(differing.size)
        distances += _distance(left, right, differing)
        for element in differing[: _ELEMENTS - len(positions)]:
            positions.append(tuple(map(int, position(element))))
            examples.append(example(", ".join(map(str, positions[-1])), str(left[element]), str(right[element])))
    return ArrayDifference(
        shapes, dtypes, count, total, max(distances, default=None), tuple(positions), tuple(examples)
    )


_Part: TypeAlias = "tuple[Any, Any, Callable[[Any], Iterable[Any]]]"
"""Two flat arrays, and a function that returns the position of an element."""


def _parts(old: Any, new: Any) -> Iterator[_Part]:
    """Yield the elements of two arrays in C order."""
    import numpy as np

    def flat(array: Any) -> Any:
        view = array.flags.c_contiguous or isinstance(array, np.ma.MaskedArray)
        return array.reshape(-1) if view else array.flat

    def position(start: int, element: Any) -> Iterable[Any]:
        return np.unravel_index(start + element, old.shape)

    left, right = flat(old), flat(new)
    for start in range(0, old.size, _PART):
        part = slice(start, start + _PART)
        yield left[part], right[part], partial(position, start)


def _sparse_parts(old: Any, new: Any) -> Iterator[_Part]:
    """Yield the elements that at least one of two sparse arrays stores."""
    import numpy as np

    places = (old.astype(bool) + new.astype(bool)).nonzero()
    if places[0].size:
        left, right = (np.asarray(array[places]).reshape(-1) for array in (old, new))
        yield left, right, lambda element: (axis[element] for axis in places)


def _differs(left: Any, right: Any) -> Any:
    """Return an array of bools: True for each differing element of two flat arrays."""
    import numpy as np

    if left.dtype.names is not None or right.dtype.names is not None:
        differs = np.full(left.shape, left.dtype.names != right.dtype.names)
        for name in () if differs.all() else left.dtype.names:
            differs |= _differs(left[name], right[name]).reshape(len(differs), -1).any(axis=1)
        return differs
    if isinstance(left, np.ma.MaskedArray) or isinstance(right, np.ma.MaskedArray):
        left_mask, right_mask = np.ma.getmaskarray(left), np.ma.getmaskarray(right)
        return (left_mask != right_mask) | (
            ~left_mask & ~right_mask & _differs(np.ma.getdata(left), np.ma.getdata(right))
        )
    if left.dtype.kind in "OV" or right.dtype.kind in "OV":
        pairs = zip(left.flat, right.flat, strict=True)
        return np.array([not _are_equal(*pair) for pair in pairs], bool).reshape(left.shape)
    try:
        with np.errstate(invalid="ignore"):
            differs = np.asarray(left != right)
    except (TypeError, ValueError):
        return np.ones(left.shape, bool)
    if left.dtype.kind in "fcmM" and right.dtype.kind in "fcmM":
        differs &= ~(np.isnan(left) & np.isnan(right))
    return differs


def _distance(left: Any, right: Any, differing: Any) -> list[float]:
    """Return the greatest absolute difference of the elements at some positions; empty if they are not numbers."""
    import numpy as np

    if left.dtype.kind not in "biufc" or right.dtype.kind not in "biufc":
        return []
    kind = "c16" if "c" in left.dtype.kind + right.dtype.kind else "f8"
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.abs(np.ma.getdata(left)[differing].astype(kind) - np.ma.getdata(right)[differing].astype(kind))
    distances = distances[~np.isnan(distances)]
    return [float(distances.max())] if distances.size else []


# -- objects -----------------------------------------------------------------------------------------------------------

_PLACES = 100
"""The maximum number of differing places that are listed."""
_STEPS = 100_000
_DEEPEST = 200
"""Depth below which objects are only compared as a whole."""
_LONGEST = 80
_SCALARS = (int, float, complex, bool, str, bytes, type(None))
_Members: TypeAlias = Mapping[Any, Any]
_Path: TypeAlias = "tuple[tuple[Callable[[Any], str], Any], ...]"
"""The keys of nested members, each with the function that formats it. Most members are equal, so most paths are never formatted."""


def compare_objects(before: Any, after: Any) -> ObjectDifference:
    """Compare two objects, and list the places where they differ."""
    search = _Search()
    changes = tuple(islice(search.changes(before, after, (), frozenset()), _PLACES + 1))
    return ObjectDifference(changes[:_PLACES], more=len(changes) > _PLACES or search.steps >= _STEPS)


class _Search:
    """A search for differing members of two objects."""

    steps = 0

    def changes(
        self, old: Any, new: Any, path: _Path, enclosing_pairs: frozenset[tuple[int, int]]
    ) -> Iterator[Example]:
        """Yield the places where two objects differ; `enclosing_pairs` contains the pairs of `id`s of the objects around them."""
        self.steps += 1
        pair = (id(old), id(new))
        if old is new or pair in enclosing_pairs:
            return
        if type(old) is not type(new):
            yield _change(path, _short_value(old, typed=True), _short_value(new, typed=True))
        elif isinstance(old, set | frozenset):
            yield from (_change(path, text, "", " without") for text in sorted(map(_short_value, old - new)))
            yield from (_change(path, "", text, " with") for text in sorted(map(_short_value, new - old)))
        elif len(enclosing_pairs) < _DEEPEST and (members := _members(old)) is not None:
            yield from self._changes_inside(members, _members(new) or {}, _label(old), path, enclosing_pairs | {pair})
        elif not _are_equal(old, new):
            yield _change(path, _short_value(old), _short_value(new))

    def _changes_inside(
        self,
        old: _Members,
        new: _Members,
        label: Callable[[Any], str],
        path: _Path,
        enclosing_pairs: frozenset[tuple[int, int]],
    ) -> Iterator[Example]:
        for key in chain(old, (key for key in new if key not in old)):
            place = (*path, (label, key))
            if self.steps >= _STEPS:
                return
            if key not in new:
                yield _change(place, _short_value(old[key]), "")
            elif key not in old:
                yield _change(place, "", _short_value(new[key]))
            else:
                yield from self.changes(old[key], new[key], place, enclosing_pairs)
        orders = [key for key in old if key in new], [key for key in new if key in old]
        if orders[0] != orders[1]:
            before, after = (", ".join(map(_short_value, order[:5])) for order in orders)
            yield _change(path, before, after, " order")


def _members(value: Any) -> _Members | None:
    """Return the items or attributes of a container or plain instance; None for other values."""
    kind = type(value)
    if issubclass(kind, dict):
        return value if kind.__module__ in ("builtins", "collections") else dict.copy(value)
    if issubclass(kind, list | tuple):
        items = list.__iter__(value) if issubclass(kind, list) else tuple.__iter__(value)
        # The search visits no more members than this.
        return dict(enumerate(islice(items, _STEPS)))
    if is_dataclass(kind):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    return vars(value) if _is_plain(value) else None


def _label(value: Any) -> Callable[[Any], str]:
    """Return a function that formats the key of a member: ``[0]``, ``.x``."""
    names = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and names:
        return lambda number: f".{names[number]}"
    if isinstance(value, dict | list | tuple):
        return lambda key: f"[{_short_value(key)}]"
    return lambda name: f".{name}"


def _is_plain(value: Any) -> bool:
    """Return True if an instance's ``__dict__`` is its whole state."""
    state_methods = {"__reduce__", "__reduce_ex__", "__getstate__", "__slots__"}
    return (
        type(getattr(value, "__dict__", None)) is dict
        and not isinstance(value, (type, *_SCALARS))
        and not callable(value)
        and not any(state_methods & vars(base).keys() for base in type(value).__mro__[:-1])
    )


def _are_equal(left: Any, right: Any) -> bool:
    version = data_version(left)
    return version is not None and version == data_version(right)


def _change(path: _Path, before: str, after: str, suffix: str = "") -> Example:
    place = "".join(label(key) for label, key in path)
    return example(f"{place}{suffix}", before, after, longest=_LONGEST)


def _short_value(value: Any, *, typed: bool = False) -> str:
    """Return a short string for a value; `repr` is only called for numbers and strings, because other classes may run user code."""
    if not isinstance(value, _SCALARS):
        return " ".join(filter(None, (type_name(value), summary(value))))
    try:
        text = repr(value)
    except Exception:
        text = summary(value) or type_name(value)
    return shortened(f"{text} ({type_name(value)})" if typed else text, _LONGEST)

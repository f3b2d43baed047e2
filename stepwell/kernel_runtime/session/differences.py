"""Comparison of two values: frames by rows and cells, arrays by elements, strings by lines, other values by their members.

`compare` selects the method by the types of both values. Its result, a `Comparison`, is plain data: `commands.diff` writes it as text, and
`widgets.differences` draws it. `frame_differences` compares frames.

Members of objects are compared by data version, so a difference is reported exactly if the data versions differ: 1, 1.0 and True differ, and
so do 0.0 and -0.0, and two dicts with different orders; two NaNs are equal. The search through the members of objects ends after a maximum
number of differences or of compared members, and members below a maximum depth are compared as a whole. Arrays are read in parts and never
copied as a whole. Examples of differing values are short strings in which secrets are hidden.
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
"""How two values were compared. ``equal``: not at all, because they are known to be equal. ``figure``: not in detail. ``other``: as byte
strings, or as objects in which no differing member was found.
"""


@dataclass(frozen=True, slots=True)
class Side:
    """Facts about one of the two compared values that are known without loading the value."""

    id: str
    """The identifier of the stored version; ``before`` or ``after`` for a value that is not a stored version."""
    created: float | None
    """The time at which the version was stored, in seconds since the epoch; None for a value that is not a stored version."""
    type_name: str
    """The name of the value's type; empty if unknown."""
    summary: str
    """A short description of the value, such as the shape of a frame; empty if unknown."""


@dataclass(frozen=True, slots=True)
class ArrayDifference:
    """The difference between two arrays."""

    shape: tuple[tuple[int, ...], tuple[int, ...]]
    """The shapes of the earlier and of the later array."""
    dtype: tuple[str, str]
    """The dtypes of the earlier and of the later array."""
    differing: int | None
    """The number of differing elements; None if the shapes differ, because elements are not compared then."""
    total: int
    """The number of elements of the earlier array."""
    greatest: float | None
    """The largest absolute difference between elements at the same position. None if no elements differ, if the elements are not numbers, if every
    difference is NaN, or if elements were not compared.
    """
    positions: tuple[tuple[int, ...], ...] = ()
    """The indices of the first differing elements, one tuple per element."""
    examples: tuple[Example, ...] = ()
    """The position and both values of the first differing elements, as strings."""


@dataclass(frozen=True, slots=True)
class ObjectDifference:
    """The first members in which two objects differ."""

    changes: tuple[Example, ...]
    """For each differing member, its path (``['a'][0].x``), its value in the earlier and its value in the later object, as strings. If one of the
    objects does not have the member, the string for this object is empty.
    """
    more: bool = False
    """True if the search reached a limit, so that the objects may differ in further members."""


@dataclass(frozen=True, slots=True)
class TextDifference:
    """The difference between two strings, by lines."""

    added: int
    """The number of added lines; an upper bound if too many lines differ for a diff to be computed."""
    removed: int
    """The number of removed lines; an upper bound if too many lines differ for a diff to be computed."""
    lines: tuple[str, ...]
    """The first lines of a unified diff. Empty if only line endings differ, or if too many lines differ for a diff to be computed."""
    more: int = 0
    """The number of further lines of the diff, which are not in `lines`."""
    first: int = 0
    """For long strings, the number of equal lines at the beginning of both. The diff leaves these lines out, and its line numbers
    do not count them. 0 for short strings.
    """


@dataclass(frozen=True, slots=True)
class BytesDifference:
    """The difference between two byte strings."""

    sizes: tuple[int, int]
    """The lengths of the earlier and of the later byte string."""
    first: int
    """The position of the first differing byte; the length of the shorter byte string if the longer one begins with it."""


Details: TypeAlias = "FrameDifference | ArrayDifference | ObjectDifference | TextDifference | BytesDifference | None"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two values of a key."""

    key: str
    before: Side
    after: Side
    kind: Kind
    details: Details = None
    """The differences; None if the values are known to be equal, and for figures, which are not compared in detail."""
    changed_rows: Rows | None = field(default=None, compare=False, repr=False)
    """Takes a kind of rows and a maximum number, and returns the differing rows of two frames. None if the values are not frames, or if they are
    known to be equal.
    """

    @property
    def equal(self) -> bool:
        """True if the values are known to be equal because their data versions are equal."""
        return self.kind == "equal"

    def rows(self, kind: RowKind = "changed", limit: int | None = None) -> Any:
        """Return the rows in which two compared frames differ.

        Parameters
        ----------
        kind
            ``added``: rows that only the later frame has, with all columns. ``removed``: rows that only the earlier frame has, with all columns.
            ``changed``: rows with differing cells. Of these, the result contains the key columns, and for each column that changed in any row, two
            columns ``NAME (before)`` and ``NAME (after)``.
        limit
            The maximum number of rows to return; None for all rows.

        Returns
        -------
        frame
            A frame of the same library as the compared frames.

        Raises
        ------
        InvalidInvocationError
            If the compared values are not frames, if they are known to be equal, or if `kind` is invalid.
        """
        if kind not in ("added", "removed", "changed"):
            raise InvalidInvocationError(
                f"{kind!r} is not a kind of differing rows",
                remedy="choose one of the kinds 'added', 'removed' and 'changed'",
            )
        if self.changed_rows is None:
            raise InvalidInvocationError(
                f"the compared values of {self.key!r} are not two frames that differ, so there are no differing rows",
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
    """Compare two stored versions of a key, by default the newest two.

    Parameters
    ----------
    before, after
        The versions: a number (-1 is the newest version), the beginning of an identifier, or a time. None selects the second newest
        version for `before` and the newest for `after`.
    on, memory_limit
        The options of `compare` for frames.
    notebook
        Search only versions from this notebook; None for all notebooks.

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
    InvalidInvocationError
        If `on` is passed but the values are not both frames, or if another argument is invalid.
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
    """Load two values and compare them.

    Parameters
    ----------
    key
        The key to which both values belong.
    before, after
        Facts about both values that are known without loading them.
    load
        A pair of functions without parameters: the first loads and returns the earlier value, the second the later value.
    same
        True if the values are known to be equal. Then they are neither loaded nor compared.
    on
        For frames, the columns or index levels by whose values the rows of both frames are matched. An empty list matches rows by
        position. None chooses automatically: a unique index, else a unique column with a usual key name such as ``id`` or ``*_id``, else the
        position.
    memory_limit
        For frames, the memory that DuckDB may use before it writes temporary data to `folder`, in DuckDB's notation: ``2GB``.
    folder
        An empty folder for DuckDB's temporary data; None to keep all data in memory.

    Returns
    -------
    Comparison
        The difference.

    Raises
    ------
    InvalidInvocationError
        If `on` is passed but the values are not both frames.
    """
    if same:
        return Comparison(key, before, after, "equal")
    old, new = load[0](), load[1]()
    if is_frame(old) and is_frame(new):
        details, rows = compare_frames(old, new, on=on, folder=folder, memory_limit=memory_limit, load=load)
        return Comparison(key, before, after, "frame", details, rows)
    if on is not None:
        raise InvalidInvocationError(
            f"the values of {key!r} cannot be compared by columns, because they are not both frames: "
            f"their types are {before.type_name} and {after.type_name}",
            remedy="compare them without on=[...] (--on)",
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
"""If two strings have more lines than this together, their common beginning and end are not passed to `difflib`."""
_SHOWN_LINES = 200
_LONGEST_LINE = 1_000


def compare_texts(before: str, after: str) -> TextDifference:
    """Compare two strings by lines."""
    old, new = before.splitlines(), after.splitlines()
    first = 0
    if len(old) + len(new) > _LINES:
        first = _common_start(old, new)
        old, new = old[first:], new[first:]
        end = _common_start(reversed(old), reversed(new))
        old, new = old[: len(old) - end], new[: len(new) - end]
    if len(old) + len(new) > 4 * _LINES:
        # A diff of so many lines with `difflib` would take minutes.
        return TextDifference(len(new), len(old), (), first=first)
    lines = list(difflib.unified_diff(old, new, "before", "after", lineterm=""))
    added, removed = (sum(line.startswith(sign) for line in lines[2:]) for sign in "+-")
    shown = tuple(shortened(line, _LONGEST_LINE) for line in lines[:_SHOWN_LINES])
    return TextDifference(added, removed, shown, len(lines) - len(shown), first)


def _common_start(left: Iterable[object], right: Iterable[object]) -> int:
    """Return the number of items at the beginning of `left` that equal the items at the same positions of `right`."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


# -- arrays ------------------------------------------------------------------------------------------------------------

_PART = 1 << 20
"""The number of array elements that are compared at once."""
_ELEMENTS = 20
"""The maximum number of differing elements in the examples."""


def _is_array(value: Any) -> bool:
    return _has_base(value, "numpy", "ndarray", "generic")


def _is_sparse(value: Any) -> bool:
    return type(value).__module__.startswith("scipy.sparse") and hasattr(value, "tocsr") and value.ndim <= 2


def compare_arrays(before: Any, after: Any) -> ArrayDifference:
    """Compare the elements of two numpy arrays, or of two sparse arrays of scipy.

    Two NaNs count as equal, and so do two masked elements.
    """
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
    return ArrayDifference(shapes, dtypes, count, total, max(distances, default=None), tuple(positions), tuple(examples))


_Part: TypeAlias = "tuple[Any, Any, Callable[[Any], Iterable[Any]]]"
"""Three items: a flat array with elements of the earlier array, a flat array with elements of the later array, and a function.

Elements with the same index in the flat arrays have the same position in the whole arrays. The function takes an index into the flat arrays, and
returns the position of the element in the whole arrays.
"""


def _parts(old: Any, new: Any) -> Iterator[_Part]:
    """Yield a `_Part` for every `_PART` elements of two arrays of the same shape, in C order; the last part may be shorter."""
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
    """Yield one `_Part` with all elements that are nonzero in at least one of two sparse arrays; yield nothing if there are none."""
    import numpy as np

    places = (old.astype(bool) + new.astype(bool)).nonzero()
    if places[0].size:
        left, right = (np.asarray(array[places]).reshape(-1) for array in (old, new))
        yield left, right, lambda element: (axis[element] for axis in places)


def _differs(left: Any, right: Any) -> Any:
    """Return a flat array of bools that is True where the elements of two flat arrays differ."""
    import numpy as np

    if left.dtype.names is not None or right.dtype.names is not None:
        differs = np.full(left.shape, left.dtype.names != right.dtype.names)
        for name in () if differs.all() else left.dtype.names:
            differs |= _differs(left[name], right[name]).reshape(len(differs), -1).any(axis=1)
        return differs
    if isinstance(left, np.ma.MaskedArray) or isinstance(right, np.ma.MaskedArray):
        left_mask, right_mask = np.ma.getmaskarray(left), np.ma.getmaskarray(right)
        return (left_mask != right_mask) | (~left_mask & ~right_mask & _differs(np.ma.getdata(left), np.ma.getdata(right)))
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
    """Return a list of one number, the largest absolute difference between elements at the same position; empty if no difference is known.

    Parameters
    ----------
    left, right
        Flat arrays of the same length. If one does not contain numbers, the result is empty.
    differing
        The indices at which the elements are compared. Differences that are NaN are ignored.
    """
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
"""The maximum number of differing members that are listed."""
_STEPS = 100_000
"""The maximum number of pairs of members that are compared."""
_DEEPEST = 200
"""The depth of nested members below which objects are only compared as a whole."""
_LONGEST = 80
"""The maximum number of characters of a value in an example."""
_SCALARS = (int, float, complex, bool, str, bytes, type(None))
_Members: TypeAlias = Mapping[Any, Any]
_Path: TypeAlias = "tuple[tuple[Callable[[Any], str], Any], ...]"
"""The path to a nested member: for each level, a function that formats the key of a member, and this key. Only paths of differing members are
formatted."""


def compare_objects(before: Any, after: Any) -> ObjectDifference:
    """Compare two objects by their members at all levels, and list the first members that differ."""
    search = _Search()
    changes = tuple(islice(search.changes(before, after, (), frozenset()), _PLACES + 1))
    return ObjectDifference(changes[:_PLACES], more=len(changes) > _PLACES or search.steps >= _STEPS)


class _Search:
    """One search for the members in which two objects differ."""

    steps = 0
    """The number of pairs of members that were compared."""

    def changes(self, old: Any, new: Any, path: _Path, enclosing_pairs: frozenset[tuple[int, int]]) -> Iterator[Example]:
        """Yield an example for each member in which two objects differ.

        Parameters
        ----------
        path
            The path to both objects; empty for the compared values themselves.
        enclosing_pairs
            The pairs of ``id()`` of the objects that contain `old` and `new`, to detect objects that contain themselves.
        """
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
    """Return the members of a value: the items of a dict, list or tuple, or the attributes of a dataclass or plain instance.

    Return None for any other value, which is compared as a whole.
    """
    kind = type(value)
    if issubclass(kind, dict):
        return value if kind.__module__ in ("builtins", "collections") else dict.copy(value)
    if issubclass(kind, list | tuple):
        items = list.__iter__(value) if issubclass(kind, list) else tuple.__iter__(value)
        # The search compares no more members than `_STEPS`.
        return dict(enumerate(islice(items, _STEPS)))
    if is_dataclass(kind):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    return vars(value) if _is_plain(value) else None


def _label(value: Any) -> Callable[[Any], str]:
    """Return a function that formats the key of one of the value's members as in a Python expression: ``[0]`` or ``.x``."""
    names = getattr(type(value), "_fields", None)
    if isinstance(value, tuple) and names:
        return lambda number: f".{names[number]}"
    if isinstance(value, dict | list | tuple):
        return lambda key: f"[{_short_value(key)}]"
    return lambda name: f".{name}"


def _is_plain(value: Any) -> bool:
    """Return True if the ``__dict__`` of a value is its whole state: its class has no slots and does not customise pickling."""
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
    """Return a short string for a value: the `repr` of a number, string, byte string or None; for any other value, its type and a summary.

    The `repr` of other values is not called, because it may run user code.

    Parameters
    ----------
    typed
        True to append the name of the type to a `repr`.
    """
    if not isinstance(value, _SCALARS):
        return " ".join(filter(None, (type_name(value), summary(value))))
    try:
        text = repr(value)
    except Exception:
        text = summary(value) or type_name(value)
    return shortened(f"{text} ({type_name(value)})" if typed else text, _LONGEST)

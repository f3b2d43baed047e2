"""Comparing arrays: numpy's of every kind, and scipy's sparse ones; a part at a time, so that nothing large is copied whole."""

from __future__ import annotations

from typing import Any

from stepwell.kernel_runtime.session.differences.result import ArrayDifference

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

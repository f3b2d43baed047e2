"""What numpy's own pickle changes, kept: the other byte order, and what a masked array is beside its values.

numpy writes dates, long doubles and strided arrays of the other byte order in the machine's, and a masked array without its hard mask and with a
full mask where it had none. The
functions that rebuild them are named by stored values: they keep their names and arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from stepwell.kernel_runtime.store.values import arrays


def reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces the objects of a type of numpy, or None where numpy does it rightly."""
    np = sys.modules["numpy"]
    if kind is np.ndarray:
        return _array
    if kind is np.memmap:
        return _mapped
    # By name: numpy imports the module of masked arrays when it is asked for.
    return _masked if (kind.__module__, kind.__name__) == ("numpy.ma", "MaskedArray") else None


def _array(value: Any) -> Any:
    dtype = value.dtype
    if dtype.isnative or dtype.hasobject or not dtype.itemsize:
        return arrays.reduced(value)
    np = sys.modules["numpy"]
    # As bytes without an order; of a strided array those of a copy.
    plain = value if value.flags.forc else np.array(value, order="K")
    raw = plain.view(np.dtype((np.void, dtype.itemsize)))
    raw.flags.writeable = value.flags.writeable or plain is not value
    return of_dtype, (raw, dtype)


def _mapped(value: Any) -> Any:
    # An array in its place would change no file. One in memory only is the base of none.
    if value.flags.writeable and getattr(value, "mode", "") in {"r+", "w+"}:
        raise TypeError("what is assigned to it goes into its file")
    return NotImplemented


def _masked(value: Any) -> Any:
    np = sys.modules["numpy"]
    mask = None if value.mask is np.ma.nomask else value._mask  # noqa: SLF001 - the mask itself, not a view of it
    more = {name: each for name, each in vars(value).items() if name in {"_optinfo", "_basedict"} and each}
    return masked, (value.data, mask, value._fill_value, value.hardmask, more)  # noqa: SLF001 - None where none was chosen


def of_dtype(raw: Any, dtype: Any) -> Any:
    """Return an array from its bytes."""
    return raw.view(dtype)


def masked(data: Any, mask: Any, fill_value: Any, hard: bool, more: dict[str, Any]) -> Any:
    """Return a masked array."""
    import numpy as np

    value: Any = np.ma.MaskedArray(data, mask=np.ma.nomask, copy=False, hard_mask=hard)
    if mask is not None:
        value._mask = mask  # noqa: SLF001 - assigned through the property it would be copied into the order of the data
    if fill_value is not None:
        value._fill_value = fill_value  # noqa: SLF001 - an array without dimensions, which the property would convert
    value.__dict__.update(more)
    return value

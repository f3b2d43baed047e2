"""Arrays whose bytes pickle would copy into its stream, kept beside it instead; and small ones the other way round.

NumPy hands its memory to pickle only where the buffer protocol can describe it: not for dates and time spans, and not for what
is not contiguous, which is how pandas keeps columns of one type and slices. A date is a 64-bit integer that is called otherwise,
so it goes as that; what is not contiguous goes as the contiguous copy that pickle would make, too. A buffer of some bytes costs
more as an entry of its own than it saves.
"""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any

BESIDE = 4096
"""Bytes from which a buffer is kept beside the stream."""


def in_stream(buffer: PickleBuffer) -> bool:
    """Return whether a buffer is better kept in the stream."""
    return memoryview(buffer).nbytes < BESIDE


def reduced(array: Any) -> Any:
    """Return how a ``numpy.ndarray`` is pickled, or NotImplemented where NumPy's own way keeps its bytes beside the stream."""
    if array.nbytes < BESIDE or array.dtype.hasobject:
        return NotImplemented
    if array.dtype.kind in "mM":
        return called, (array.view(f"{array.dtype.byteorder}i8"), array.dtype)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return array.copy(order="K").__reduce_ex__(5)
    return NotImplemented


def called(numbers: Any, dtype: Any) -> Any:
    """Return integers as the dates or time spans that they are: stored values name this function."""
    return numbers.view(dtype)

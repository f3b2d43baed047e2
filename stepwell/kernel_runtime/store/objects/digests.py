"""BLAKE3 digests of stored values, computed in a second thread while the value file is written.

The parts of a stored value are its stream and its buffers. The digest of the value is computed from the digests of the parts, and is part of
the name of the value file. One thread writes the parts while the other computes their digests. Both can run at the same time, because writing and
hashing release the GIL. So the digests are known at about the time when the last byte is written.
"""

from __future__ import annotations

import os
from _thread import start_new_thread
from collections.abc import Sequence
from typing import Any

from stepwell.kernel_runtime.store.locks import Once

_PARALLEL = 1 << 20
"""Minimum size in bytes of a part whose digest is computed with several threads."""
_SECOND_THREAD = 4 << 20
"""Minimum total size in bytes of the parts whose digests are computed in a second thread. For smaller parts, a second thread saves no time."""
_PIECE = 16 << 20
"""Number of bytes that `Digesting` hashes at once. Before each piece of this size, it checks whether `Digesting.stop` was called."""


def blake(data: bytes | memoryview) -> str:
    """Return the BLAKE3 digest of some bytes as 64 hexadecimal digits."""
    import blake3

    if len(data) < _PARALLEL:
        return blake3.blake3(data).hexdigest()
    return blake3.blake3(data, max_threads=blake3.blake3.AUTO).hexdigest()


def combined(codec: str, size: int, stream: str, buffers: Sequence[Sequence[Any]]) -> str:
    """Return the digest of a stored value as 64 hexadecimal digits, computed from the digests of its parts.

    Parameters
    ----------
    codec
        The codec of the value.
    size, stream
        The size of the stream in bytes, and its digest.
    buffers
        For each buffer: its size in bytes, its digest, and True if the buffer is read-only.
    """
    described = f"{codec} {size} {stream}" + "".join(
        [f" {length} {digest} {int(readonly)}" for length, digest, readonly in buffers]
    )
    return blake(described.encode())


class Digesting:
    """Computes the digests of the parts of a stored value, in a second thread if the parts are large.

    Parameters
    ----------
    parts
        The stream and the buffers. They must not change before `result` returns.
    """

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = parts
        self._digests: list[str] = []
        self._error: BaseException | None = None
        self._end = Once()
        self._is_stopped = False
        self._is_parallel = sum(map(len, parts)) >= _SECOND_THREAD
        if self._is_parallel:
            start_new_thread(self._work, ())

    def result(self) -> list[str]:
        """Wait until the digests are computed; return the digest of each part, in the order of the parts.

        If the second thread failed, raise its error.
        """
        if not self._is_parallel:
            return [blake(part) for part in self._parts]
        self._end.wait()
        if self._error is not None:
            raise self._error
        return self._digests

    def stop(self) -> None:
        """Make the second thread end soon. Call this if the digests are no longer needed."""
        self._is_stopped = True

    def _work(self) -> None:
        try:
            self._digests = [self._digest(part) for part in self._parts]
        except BaseException as error:
            self._error = error
        finally:
            self._parts = ()
            self._end.happen()

    def _digest(self, part: bytes | memoryview) -> str:
        import blake3

        if self._is_stopped:
            raise RuntimeError("the computation of the digests was stopped")
        if len(part) < _PARALLEL:
            return blake3.blake3(part).hexdigest()
        # Leave one core for the thread that writes the file.
        digest = blake3.blake3(max_threads=max(1, min(8, (os.cpu_count() or 1) - 1)))
        view = memoryview(part)
        for start in range(0, len(view), _PIECE):
            if self._is_stopped:
                raise RuntimeError("the computation of the digests was stopped")
            digest.update(view[start : start + _PIECE])
        return digest.hexdigest()

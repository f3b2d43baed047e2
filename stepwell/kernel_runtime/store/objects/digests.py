"""Digests of stored forms: BLAKE3 of each part, computed while the file is written.

Writing and hashing read the same memory, and both release the GIL. So a second thread computes the digests while the file is written, and
the digest, which becomes the name of the file, is known at about the time when the last byte is written.
"""

from __future__ import annotations

import os
from _thread import start_new_thread
from collections.abc import Sequence
from typing import Any

from stepwell.kernel_runtime.store.locks import Once

_PARALLEL = 1 << 20
"""Size in bytes from which a digest is computed with several threads."""
_SECOND_THREAD = 4 << 20
"""Size in bytes from which a second thread for hashing is worth its start."""
_PIECE = 16 << 20
"""Number of bytes that are hashed before `Digesting` checks again that the digest is still needed."""


def blake(data: bytes | memoryview) -> str:
    """Return the digest of one part as 64 hexadecimal digits."""
    import blake3

    if len(data) < _PARALLEL:
        return blake3.blake3(data).hexdigest()
    return blake3.blake3(data, max_threads=blake3.blake3.AUTO).hexdigest()


def combined(codec: str, size: int, stream: str, buffers: Sequence[Sequence[Any]]) -> str:
    """Return the digest of a stored form from the size and digest of its stream, and the size, digest and read-only flag of each buffer."""
    described = f"{codec} {size} {stream}" + "".join(
        [f" {length} {digest} {int(readonly)}" for length, digest, readonly in buffers]
    )
    return blake(described.encode())


class Digesting:
    """The digests of some parts, computed in a second thread if the parts are large.

    Parameters
    ----------
    parts
        Contiguous buffers of bytes, which must not change before the result is available.
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
        """Wait for the digests and return one per part."""
        if not self._is_parallel:
            return [blake(part) for part in self._parts]
        self._end.wait()
        if self._error is not None:
            raise self._error
        return self._digests

    def stop(self) -> None:
        """End the thread early, because the result is not needed."""
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
            raise RuntimeError("the digest is not needed any more")
        if len(part) < _PARALLEL:
            return blake3.blake3(part).hexdigest()
        # One core is left for the writing thread.
        digest = blake3.blake3(max_threads=max(1, min(8, (os.cpu_count() or 1) - 1)))
        view = memoryview(part)
        for start in range(0, len(view), _PIECE):
            if self._is_stopped:
                raise RuntimeError("the digest is not needed any more")
            digest.update(view[start : start + _PIECE])
        return digest.hexdigest()

"""Digests of stored forms: blake3 of each part, computed while the file is written.

Writing and digesting stream through the same memory, and neither holds the interpreter's lock. So the writer gets a
thread that digests while it writes. The name of a file is its digest, which is known when the last byte is written.
"""

from __future__ import annotations

import os
from _thread import start_new_thread
from collections.abc import Sequence
from typing import Any

from stepwell.kernel_runtime.store.locks import Once

_PARALLEL = 1 << 20
"""Bytes from which a digest uses several threads."""
_BESIDE = 4 << 20
"""Bytes from which a thread beside the writer is worth its start."""
_PIECE = 16 << 20
"""Bytes that are digested before looking whether anybody still wants to know."""


def blake(data: bytes | memoryview) -> str:
    """Return the digest of one part, 64 hexadecimal digits."""
    import blake3

    if len(data) < _PARALLEL:
        return blake3.blake3(data).hexdigest()
    return blake3.blake3(data, max_threads=blake3.blake3.AUTO).hexdigest()


def combined(codec: str, size: int, stream: str, buffers: Sequence[Sequence[Any]]) -> str:
    """Return the digest of a stored form from those of its parts: of each buffer size, digest and whether it is read-only."""
    described = f"{codec} {size} {stream}" + "".join(
        [f" {length} {found} {int(readonly)}" for length, found, readonly in buffers]
    )
    return blake(described.encode())


class Digesting:
    """The digests of some parts, taken in a thread of its own where they are large.

    Parameters
    ----------
    parts
        Contiguous buffers of bytes; nobody may change them before the result is there.
    """

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = parts
        self._found: list[str] = []
        self._error: BaseException | None = None
        self._over = Once()
        self._stopped = False
        self._beside = sum(map(len, parts)) >= _BESIDE
        if self._beside:
            start_new_thread(self._work, ())

    def result(self) -> list[str]:
        """Return the digest of each part, once all are known."""
        if not self._beside:
            return [blake(part) for part in self._parts]
        self._over.wait()
        if self._error is not None:
            raise self._error
        return self._found

    def stop(self) -> None:
        """Let the thread end soon: nobody waits for the result any more."""
        self._stopped = True

    def _work(self) -> None:
        try:
            self._found = [self._digest(part) for part in self._parts]
        except BaseException as error:
            self._error = error
        finally:
            self._parts = ()
            self._over.happen()

    def _digest(self, part: bytes | memoryview) -> str:
        import blake3

        if self._stopped:
            raise RuntimeError("nobody waits for this digest")
        if len(part) < _PARALLEL:
            return blake3.blake3(part).hexdigest()
        # One core is the writer's.
        digest = blake3.blake3(max_threads=max(1, min(8, (os.cpu_count() or 1) - 1)))
        view = memoryview(part)
        for at in range(0, len(view), _PIECE):
            if self._stopped:
                raise RuntimeError("nobody waits for this digest")
            digest.update(view[at : at + _PIECE])
        return digest.hexdigest()

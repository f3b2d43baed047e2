"""Value files: content-addressed, written once, mapped copy-on-write.

A file is ``objects/ab/<digest>.<codec>``::

    magic, version, length of the header, signature      64 bytes
    header (JSON)                                         codec, versions of libraries, sizes and digests, who wrote it first
    stream                                                executed when a pickle is loaded
    buffer, buffer, ...                                   data; each part begins at a multiple of 64 bytes

The digest is that of the stream and of the buffers, with the codec; the same value stored twice is one file. It is written
below ``tmp/`` and renamed, so a file below ``objects/`` is whole unless the machine went down. The signature is over
header and stream; the buffers are data, of which a load checks the sizes only.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stepwell.kernel_runtime.errors import UntrustedValueError, ValueUnavailableError
from stepwell.kernel_runtime.records.ids import new_id
from stepwell.kernel_runtime.store.attachment import not_writable
from stepwell.kernel_runtime.store.codecs import PICKLE, Encoded
from stepwell.kernel_runtime.store.signing import SIGNATURE_SIZE, Signer
from stepwell.kernel_runtime.store.unrecorded import Unrecorded

_MAGIC = b"STEPWELL"
_PREFIX = struct.Struct(f"<8sII{SIGNATURE_SIZE}s8x")
_VERSION = 1
_ALIGN = 64
_PARALLEL = 1 << 20
"""Bytes from which a digest uses several threads."""
_MAP_FROM = 1 << 20
"""Bytes from which a file is mapped; below, reading is as quick and keeps no descriptor."""


def inline_digest(encoded: Encoded) -> str:
    """Return the digest of a stored form that is kept in its row; that of a file is made with its header."""
    if not encoded.buffers:
        return _blake(f"{encoded.codec} ".encode() + encoded.stream)
    return _digest(encoded.codec, len(encoded.stream), _blake(encoded.stream), _described(encoded.buffers))


def _described(buffers: Sequence[memoryview]) -> list[tuple[int, str, bool]]:
    return [(buffer.nbytes, _blake(buffer), buffer.readonly) for buffer in buffers]


def _blake(data: bytes | memoryview) -> str:
    import blake3

    if len(data) < _PARALLEL:
        return blake3.blake3(data).hexdigest()
    return blake3.blake3(data, max_threads=blake3.blake3.AUTO).hexdigest()


def _digest(codec: str, size: int, stream: str, buffers: Sequence[Sequence[Any]]) -> str:
    described = f"{codec} {size} {stream}" + "".join(
        [f" {length} {found} {int(readonly)}" for length, found, readonly in buffers]
    )
    return _blake(described.encode())


@dataclass(frozen=True, slots=True)
class Parts:
    """What a file or an inline value holds, ready for `codecs.decode`."""

    stream: bytes | memoryview
    buffers: list[memoryview]


# -- inline ------------------------------------------------------------------------------------------------------------


def pack(encoded: Encoded) -> bytes:
    """Return the inline form: number of buffers, size and writability of each, the stream, the buffers."""
    if not encoded.buffers:
        return b"\0\0" + encoded.stream
    head = struct.pack("<HI", len(encoded.buffers), len(encoded.stream))
    sizes = b"".join([struct.pack("<I?", buffer.nbytes, buffer.readonly) for buffer in encoded.buffers])
    return b"".join([head, sizes, encoded.stream, *encoded.buffers])


def unpack(data: bytes) -> Parts:
    """Read the inline form; every buffer that was writable is a fresh copy."""
    count = int.from_bytes(data[:2], "little")
    if not count:
        return Parts(data[2:], [])
    _, size = struct.unpack_from("<HI", data)
    at = 6 + 5 * count
    view = memoryview(data)
    stream = view[at : at + size]
    at += size
    buffers = []
    for index in range(count):
        length, readonly = struct.unpack_from("<I?", data, 6 + 5 * index)
        part = view[at : at + length]
        buffers.append(part if readonly else memoryview(bytearray(part)))
        at += length
    if at != len(data):
        raise ValueError("the sizes of an inline value do not add up")
    return Parts(stream, buffers)


def packs(encoded: Encoded) -> bool:
    """Return whether the inline form can hold so many buffers."""
    return len(encoded.buffers) < 1 << 16


# -- files -------------------------------------------------------------------------------------------------------------


class Objects:
    """The files below ``objects/`` of one store.

    Parameters
    ----------
    directory
        The store directory.
    signer
        Signs and checks what executes code when loaded.
    unrecorded
        The list of what has no row yet: named there before it is looked for.
    """

    def __init__(self, directory: Path, signer: Signer, unrecorded: Unrecorded | None = None) -> None:
        self.folder = directory / "objects"
        self._directory = directory
        self._signer = signer
        self._unrecorded = unrecorded or Unrecorded(directory)

    def write(self, encoded: Encoded, *, key: str, memo_key: str) -> tuple[str, str]:
        """Write a value's file unless it is there; return its digest and its name below ``objects/``."""
        buffers = _described(encoded.buffers)
        stream_digest = _blake(encoded.stream)
        found = _digest(encoded.codec, len(encoded.stream), stream_digest, buffers)
        name = f"{found[:2]}/{found}.{encoded.codec}"
        try:
            self._unrecorded.add(name)
        except OSError as error:
            raise not_writable(self._directory, error) from error
        if self._usable(name, found, encoded.codec):
            return found, name
        header = json.dumps(
            {
                "codec": encoded.codec,
                "python": ".".join(map(str, sys.version_info[:3])),
                "libraries": _libraries(encoded.codec),
                "stream": [len(encoded.stream), stream_digest],
                "buffers": buffers,
                "classes": encoded.classes,
                "key": key,
                "memo_key": memo_key,
            },
            separators=(",", ":"),
        ).encode()
        signature = self._signer.sign((header, encoded.stream)) if encoded.codec == PICKLE else b""
        try:
            self._write(name, _PREFIX.pack(_MAGIC, _VERSION, len(header), signature), header, encoded)
        except OSError as error:
            raise not_writable(self._directory, error) from error
        return found, name

    def read(self, name: str, found: str, codec: str, *, key: str) -> Parts:
        """Map a file copy-on-write and return its parts.

        Raises
        ------
        ValueUnavailableError
            If the file is gone, cut short, or not what its name says.
        UntrustedValueError
            If it would execute code and this user's key did not sign it.
        """
        try:
            with (self.folder / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < _PREFIX.size:
                    raise _damaged(key, name, "it is cut short")
                data = _mapped(file.fileno(), size) if size >= _MAP_FROM else memoryview(bytearray(file.read()))
        except OSError as error:
            raise ValueUnavailableError(
                f"the stored value of {key!r} is gone",
                where=f"no file {self.folder / name}",
                remedy=f"materialize {key!r} again",
            ) from error
        return self._parts(data, name, found, codec, key)

    def missing(self, name: str) -> bool:
        """Return whether a file is gone."""
        return not os.path.exists(f"{self.folder}/{name}")  # noqa: PTH110 - asked for every row of a snapshot; a Path costs ten times that

    def usage(self) -> tuple[int, int]:
        """Return the number of files and their bytes."""
        files = total = 0
        if self.folder.is_dir():
            for folder in os.scandir(self.folder):
                if folder.is_dir():
                    for entry in os.scandir(folder.path):
                        with contextlib.suppress(FileNotFoundError):
                            total += entry.stat().st_size
                            files += 1
        return files, total

    def _parts(self, data: memoryview, name: str, found: str, codec: str, key: str) -> Parts:
        try:
            magic, version, length, signature = _PREFIX.unpack_from(data)
            if magic != _MAGIC or version > _VERSION:
                raise _damaged(key, name, "it does not begin like a stored value")
            header_bytes = data[_PREFIX.size : _PREFIX.size + length]
            header = json.loads(bytes(header_bytes))
            at = _aligned(_PREFIX.size + length)
            stream_size, stream_digest = header["stream"]
            stream = data[at : at + stream_size]
            buffers = []
            end = at + stream_size
            for size, _, readonly in header["buffers"]:
                at = _aligned(end)
                end = at + size
                part = data[at:end]
                buffers.append(part.toreadonly() if readonly else part)
            said = _digest(header["codec"], stream_size, stream_digest, header["buffers"])
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise _damaged(key, name, "its header cannot be read") from error
        if end > len(data):
            raise _damaged(key, name, "it is cut short")
        if header["codec"] != codec or said != found:
            raise _damaged(key, name, "it holds another value than its name says")
        if codec == PICKLE:
            if not self._signer.verify(signature, (header_bytes, stream)):
                raise untrusted(key, f"file {self.folder / name}")
        elif stream_size and _blake(stream) != stream_digest:
            raise _damaged(key, name, "its contents changed")
        return Parts(stream, buffers)

    def _usable(self, name: str, found: str, codec: str) -> bool:
        """Return whether the file is there and this user could load it; another user's is written anew."""
        if self.missing(name):
            return False
        try:
            self.read(name, found, codec, key="")
        except ValueUnavailableError:
            return False
        return True

    def _write(self, name: str, prefix: bytes, header: bytes, encoded: Encoded) -> None:
        making = self._directory / "tmp" / new_id()
        path = self.folder / name
        try:
            with _created(making) as file:
                at = file.write(prefix) + file.write(header)
                for part in (memoryview(encoded.stream), *encoded.buffers):
                    at += file.write(b"\0" * (_aligned(at) - at))
                    at += _write_all(file, part)
            path.parent.mkdir(parents=True, exist_ok=True)
            making.replace(path)
        finally:
            making.unlink(missing_ok=True)


def untrusted(key: str, where: str) -> UntrustedValueError:
    """Return the error of a stored value that somebody else wrote."""
    return UntrustedValueError(
        f"the stored value of {key!r} was not written by you, and loading it could run any code",
        where=where,
        remedy=f"materialize {key!r} again, or let STEPWELL_KEY_FILE name the key of who wrote it",
    )


def _created(path: Path) -> Any:
    try:
        return path.open("xb", buffering=0)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb", buffering=0)


def _write_all(file: Any, view: memoryview) -> int:
    # A single write takes at most 2 GiB, and may take less.
    done = 0
    while done < len(view):
        done += file.write(view[done : done + (1 << 30)])
    return done


def _mapped(descriptor: int, size: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY))


def _aligned(at: int) -> int:
    return -(-at // _ALIGN) * _ALIGN


def _damaged(key: str, name: str, how: str) -> ValueUnavailableError:
    return ValueUnavailableError(
        f"the stored value of {key!r} is damaged: {how}",
        where=f"file objects/{name}",
        remedy=f"materialize {key!r} again",
    )


@cache
def _version_of(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _libraries(codec: str) -> dict[str, str]:
    """Return the versions of the libraries that wrote a value: what is imported of those whose pickles change form."""
    if codec.startswith("arrow-"):
        names: tuple[str, ...] = ("pyarrow",)
    elif codec.startswith("polars-"):
        names = ("polars",)
    elif codec == PICKLE:
        names = tuple(name for name in ("numpy", "pandas", "pyarrow") if name in sys.modules)
    else:
        names = ()
    return {name: _version_of(name) for name in names}

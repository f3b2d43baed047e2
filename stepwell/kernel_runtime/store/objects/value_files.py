"""Value files: content-addressed, written once in few system calls, mapped copy-on-write.

A file is named ``objects/ab/<digest>.<codec>`` and contains a header (`header`), the executable stream and the buffers. The digest covers
the codec, the stream and the buffers, so two equal stored forms share one file. A file is written below ``tmp/`` while its digest is
computed; the header is written last, and the file is renamed. So a file below ``objects/`` is complete unless the machine crashed. The
signature covers the header, which contains the digest of the stream; every load checks both. All other bytes are checked at the first load
after each boot (`checked`).

A store can come from another person. So a name is checked before the file is opened, no links are followed (`Folder`), and the stream is
copied before it is checked, so that nobody else can change the executed bytes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from stepwell.kernel_runtime.errors import (
    SignatureDamagedError,
    StoreError,
    UntrustedValueError,
    ValueDamagedError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import StoredValue
from stepwell.kernel_runtime.records.runs import Snapshot
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects import header as object_header
from stepwell.kernel_runtime.store.objects.checked import AT_ONCE, Witnesses
from stepwell.kernel_runtime.store.objects.digests import Digesting, blake
from stepwell.kernel_runtime.store.objects.header import (
    MAGIC,
    PREFIX,
    VERSION,
    Header,
    HeaderError,
    OtherFormError,
    aligned,
    is_name,
)
from stepwell.kernel_runtime.store.processes import Unrecorded
from stepwell.kernel_runtime.store.signing import Signer, fingerprint, key_name
from stepwell.kernel_runtime.store.trouble import trouble, unusable_directory
from stepwell.kernel_runtime.store.values.codecs import PICKLE, Encoded, Parts

MAP_FROM = 1 << 20
"""Size in bytes from which a file is mapped. Reading a smaller file is as fast, and keeps no descriptor open."""
_PIECE_WRITTEN = 64 << 20
"""Maximum number of bytes that one call writes, so that an interrupt can be handled between two calls."""
_BATCH = 512
"""Maximum number of parts that one call writes, which every system accepts."""


def write_parts(descriptor: int, parts: Sequence[bytes | memoryview], position: int) -> None:
    """Write parts consecutively, each at the next aligned position; raise `OSError` if writing fails."""
    batch: list[bytes | memoryview] = []
    waiting = 0
    for part in parts:
        padding = aligned(position) - position
        if padding:
            batch.append(b"\0" * padding)
        view = memoryview(part)
        position += padding + len(view)
        for start in range(0, len(view), _PIECE_WRITTEN):
            batch.append(view[start : start + _PIECE_WRITTEN])
            waiting += len(batch[-1])
            if waiting >= _PIECE_WRITTEN or len(batch) >= _BATCH:
                _write_all(descriptor, batch)
                batch, waiting = [], 0
    _write_all(descriptor, batch)


def _write_all(descriptor: int, batch: list[bytes | memoryview]) -> None:
    if not hasattr(os, "writev"):  # pragma: no cover - Windows
        batch = [b"".join(batch)] if len(batch) > 1 else batch
    while batch:
        written_bytes = os.writev(descriptor, batch) if hasattr(os, "writev") else os.write(descriptor, batch[0])
        # A full disk, a limit or an interrupt can end a write early.
        while batch and written_bytes >= len(batch[0]):
            written_bytes -= len(batch.pop(0))
        if batch and written_bytes:
            batch[0] = memoryview(batch[0])[written_bytes:]


def contents(descriptor: int) -> memoryview:
    """Return the whole contents of a file, mapped copy-on-write if it is large."""
    size = os.fstat(descriptor).st_size
    return _mapped(descriptor, size) if size >= MAP_FROM else _read_whole(descriptor, size)


def _read_whole(descriptor: int, size: int) -> memoryview:
    data = bytearray(size)
    view, position = memoryview(data), 0
    while position < size:
        read_bytes = (
            os.readv(descriptor, [view[position:]]) if hasattr(os, "readv") else _read_into(descriptor, view[position:])
        )
        if not read_bytes:
            return view[:position]
        position += read_bytes
    return view


def _read_into(descriptor: int, view: memoryview) -> int:  # pragma: no cover - Windows
    data = os.read(descriptor, len(view))
    view[: len(data)] = data
    return len(data)


def _mapped(descriptor: int, size: int) -> memoryview:
    if sys.version_info >= (3, 13):
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY, trackfd=False))
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY))


_SIGNED = b"stepwell object"
"""The prefix of the signed bytes of a header, so that the signature is valid only for headers."""
_PIECE_COPIED = 4 << 20


class Objects:
    """The files below ``objects/`` of one store.

    Parameters
    ----------
    folder
        The store directory.
    signer
        Signs and verifies files that execute code when they are loaded.
    unrecorded
        The list of files without a row yet, to which a file is added before it is placed.
    """

    def __init__(self, folder: Folder, signer: Signer, unrecorded: Unrecorded | None = None) -> None:
        self.folder = folder
        self._signer = signer
        self._unrecorded = unrecorded or Unrecorded(folder)
        self.witnesses = Witnesses(signer)
        self._own_files: set[str] = set()
        """Names of files that are known to be signed with this user's key."""

    def write(
        self, encoded: Encoded, *, key: str, memo_key: str, about: Mapping[str, Any] | None = None
    ) -> tuple[str, str]:
        """Write the file of a value; return the digest and the file's name below ``objects/``.

        An existing file is replaced, which takes no longer than checking it, and repairs a damaged file. Nothing is flushed to the disk.
        After a power loss, a file may be truncated or filled with zeros, which its first load after the next boot detects.

        Parameters
        ----------
        about
            Further fields of the header, as JSON values.
        """
        buffers = [memoryview(buffer) for buffer in encoded.buffers]
        fields = {
            "python": ".".join(map(str, sys.version_info[:3])),
            "classes": encoded.classes,
            "key": key,
            "memo_key": memo_key,
            **(about or {}),
        }
        sizes = [(buffer.nbytes, buffer.readonly) for buffer in buffers]
        room = object_header.room_for(encoded.codec, len(encoded.stream), sizes, fields)
        parts = [memoryview(encoded.stream), *buffers]
        making = f"tmp/{new_id()}"
        digesting = Digesting(parts)
        try:
            with self._created(making) as descriptor:
                os.lseek(descriptor, room, os.SEEK_SET)
                write_parts(descriptor, parts, room)
                stream, *digests = digesting.result()
                described = tuple(
                    (size, digest_of_buffer, readonly)
                    for (size, readonly), digest_of_buffer in zip(sizes, digests, strict=True)
                )
                header = Header(encoded.codec, (len(encoded.stream), stream), described, fields)
                os.lseek(descriptor, 0, os.SEEK_SET)
                write_parts(descriptor, [self._signature(header).ljust(room, b"\0")], 0)
            digest = header.digest
            name = object_header.name_of(digest, encoded.codec)
            self.place(making, name)
            if encoded.size >= AT_ONCE:
                self.witnesses.add_file(name, self.folder.stat(f"objects/{name}"), was_written=True)
        except BaseException as error:
            digesting.stop()
            self._discard(making)
            if isinstance(error, OSError | MemoryError):
                raise unusable_directory(self.folder.path, error) from error
            raise
        if encoded.codec == PICKLE:
            self._own_files.add(name)
        return digest, name

    def place(self, making: str, name: str) -> None:
        """Add a complete file in ``tmp/`` to the list of unrecorded files, and rename it to its name below ``objects/``."""
        self._unrecorded.add(name)
        path = f"objects/{name}"
        try:
            self.folder.rename(making, path)
        except FileNotFoundError:
            self.folder.mkdir("objects")
            self.folder.mkdir(f"objects/{name[:2]}")
            self.folder.rename(making, path)
        except (
            PermissionError
        ):  # pragma: no cover - Windows: another process has it mapped, so it is there and readable
            if os.name != "nt" or not self.folder.exists(path):
                raise

    def release_recorded(self, names: Iterable[str]) -> None:
        """Stop protecting placed files from ``gc``, when rows that refer to the files are committed or will never be written."""
        self._unrecorded.remove_recorded(names)

    def read(self, name: str, digest: str, codec: str, *, key: str, full: bool = False) -> Parts:
        """Map a file copy-on-write and return its parts.

        Every byte is checked unless the file was checked before in this boot (`checked`).

        Parameters
        ----------
        full
            True to check every byte even if the file was checked before.

        Raises
        ------
        ValueUnavailableError
            If the file is missing, truncated, or does not match its name.
        UntrustedValueError
            If loading the file would execute code that is not signed with this user's key.
        """
        if name != object_header.name_of(digest, codec):
            # Not a `ValueDamagedError`: the file may be intact, and belong to another key.
            raise ValueUnavailableError(
                f"the stored value of {key!r} is damaged: its row names a file that does not match it",
                where=f"file objects/{name}",
                remedy=f"materialize {key!r} again",
            )
        try:
            file = self._read_file(name, key)
            if codec == PICKLE and not self._signer.verify(file.signature, (_SIGNED, file.header_bytes)):
                raise untrusted(key, f"file {self.folder.path / 'objects' / name}", file.signature, self._signer)
            witnessed = not full and self.witnesses.file_holds(name, file.status)
            if not witnessed:
                _check_contents(file, stream=False)
            return _parts(file, None if witnessed else file.status)
        except HeaderError as error:
            raise _unreadable_value(key, name, error) from error

    def mark_checked(self, name: str, status: os.stat_result) -> None:
        """Record that every byte and the structure of a file are correct, so that later loads in this boot need not check them."""
        self.witnesses.add_file(name, status)

    def verify(self, name: str) -> Header:
        """Check all contents of a file except the signature, and return the header.

        Raises
        ------
        ValueUnavailableError
            If the file is missing, or does not match its name.
        """
        try:
            file = self._read_file(name, name)
            _check_contents(file)
        except HeaderError as error:
            raise _unreadable_value(name, name, error) from error
        return file.header

    def adopt(self, name: str) -> None:
        """Sign a file with this user's key after checking its contents; raise the errors of `verify`."""
        header = self.verify(name)
        if header.codec != PICKLE:
            return
        packed = self._read_file(name, name).header_bytes
        prefix = self.signed_prefix(header.codec, packed)
        try:
            if self.folder.stat(f"objects/{name}").st_nlink > 1:
                raise PermissionError("it has another name, which would change, too")  # noqa: TRY301 - handled like another user's file
            descriptor = self.folder.open(f"objects/{name}", os.O_WRONLY)
        except PermissionError:
            # The file belongs to another user: replace it with a copy.
            with self.open_file(name) as source, self.making(name) as target:
                shutil.copyfileobj(source, target, _PIECE_COPIED)
                target.seek(0)
                target.write(prefix)
            self.release_recorded([name])
        else:
            try:
                os.write(descriptor, prefix)
            finally:
                os.close(descriptor)
        self._own_files.add(name)

    def is_missing(self, name: str, size: int = 0) -> bool:
        """Return True if a file is missing, or too short for a value of ``size`` bytes."""
        if not is_name(name):
            return True
        try:
            return self.folder.glance(f"objects/{name}").st_size < size
        except OSError:
            return True

    def holds(self, value: StoredValue) -> bool:
        """Return True if the stored form of a value exists, even if it cannot be loaded."""
        return value.inline is not None or (value.object_name is not None and not self.is_missing(value.object_name))

    def signer_of(self, name: str, own_key: bytes) -> bytes:
        """Return the name of the key that the signature of a file claims; empty if the file cannot be read.

        Parameters
        ----------
        own_key
            The name of this user's key. A file that is known to be signed with it is not read again.
        """
        if name in self._own_files:
            return own_key
        try:
            with self._descriptor_of(name, name) as descriptor:
                _, signature = object_header.read_prefix(os.read(descriptor, PREFIX.size))
        except (ValueUnavailableError, HeaderError, OSError):
            return b""
        signer = key_name(signature)
        if signer == own_key:
            self._own_files.add(name)
        return signer

    @contextlib.contextmanager
    def open_file(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading; raise `ValueUnavailableError` if it is missing."""
        with self._descriptor_of(name, name) as descriptor, os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
            yield file

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file below ``tmp/`` for writing, and place it below ``objects/`` if the block ends without an error."""
        making = f"tmp/{new_id()}"
        try:
            with self._created(making) as descriptor, os.fdopen(os.dup(descriptor), "wb", buffering=0) as file:
                yield file
            self.place(making, name)
        except BaseException as error:
            self._discard(making)
            if isinstance(error, OSError | MemoryError):
                raise unusable_directory(self.folder.path, error) from error
            raise

    def signed_prefix(self, codec: str, packed: bytes) -> bytes:
        """Return the bytes before the header, with this user's signature if the codec needs one."""
        signature = self._signer.sign((_SIGNED, packed)) if codec == PICKLE else b""
        return PREFIX.pack(MAGIC, VERSION, len(packed), signature)

    def usage(self) -> tuple[int, int]:
        """Return the number of files and their bytes."""
        files = total = 0
        # Folders that this user may not list are not counted.
        with contextlib.suppress(PermissionError):
            for _, status in value_files(self.folder):
                total += status.st_size
                files += 1
        return files, total

    def _signature(self, header: Header) -> bytes:
        packed = header.pack()
        return self.signed_prefix(header.codec, packed) + packed

    @contextlib.contextmanager
    def _descriptor_of(self, name: str, key: str) -> Iterator[int]:
        try:
            descriptor = self.folder.open(f"objects/{name}")
        except OSError as error:
            failure = trouble(error, f"the stored value of {key!r} cannot be read")
            if failure is not None:
                raise failure from error
            raise ValueUnavailableError(
                f"the stored value of {key!r} is missing",
                where=f"there is no file {self.folder.path / 'objects' / name}",
                remedy=f"materialize {key!r} again",
            ) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _created(self, making: str) -> Iterator[int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = self.folder.open(making, flags)
        except FileNotFoundError:
            # Another process removed the folder, or the whole store.
            self.folder.examine(create=True)
            descriptor = self.folder.open(making, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _discard(self, making: str) -> None:
        with contextlib.suppress(OSError):
            self.folder.unlink(making)

    def _read_file(self, name: str, key: str) -> _ValueFile:
        if not is_name(name):
            raise HeaderError("its name is not that of a value file")
        with self._descriptor_of(name, key) as descriptor:
            status = os.fstat(descriptor)
            if status.st_size >= MAP_FROM:
                # A sparse file can be larger than memory, so the file's size is compared with its header before the file is mapped.
                length, _ = object_header.read_prefix(os.read(descriptor, PREFIX.size))
                _check_size(object_header.read_header(os.read(descriptor, length)), length, status.st_size)
            data = contents(descriptor)
        length, signature = object_header.read_prefix(data)
        packed = bytes(data[PREFIX.size : PREFIX.size + length])
        header = object_header.read_header(packed)
        if header.name != name:
            raise HeaderError("it contains another value than its name says")
        _check_size(header, length, len(data))
        return _ValueFile(data, signature, packed, header, status)


def _check_size(header: Header, length: int, size: int) -> None:
    """Check that the size of a file matches its header; raise `HeaderError` if not."""
    *_, (_, end) = header.places(length)
    if end != size:
        raise HeaderError("it is cut short" if end > size else "it is longer than its header says")


@dataclass(frozen=True, slots=True)
class _ValueFile:
    """An opened file whose header matches its name."""

    data: memoryview
    signature: bytes
    header_bytes: bytes
    header: Header
    status: os.stat_result
    """The status that was obtained before the file was read."""


def _parts(file: _ValueFile, unchecked: os.stat_result | None) -> Parts:
    """Return the parts of a file whose header is trusted; raise `HeaderError` if the stream does not match."""
    data, header = file.data, file.header
    (start, end), *places = header.places(len(file.header_bytes))
    # The stream is copied before it is checked, so that nobody can change the executed bytes after the check.
    stream = bytes(data[start:end])
    if stream and blake(stream) != header.stream[1]:
        raise HeaderError("its contents changed")
    buffers = [
        data[start:end].toreadonly() if readonly else data[start:end]
        for (start, end), (_, _, readonly) in zip(places, header.buffers, strict=True)
    ]
    return Parts(stream, buffers, unchecked)


def _check_contents(file: _ValueFile, *, stream: bool = True) -> None:
    """Check the digest of every part; raise `HeaderError` if one does not match.

    Parameters
    ----------
    stream
        False to omit the stream, whose digest `_parts` checks.
    """
    header = file.header
    digests = (header.stream[1], *[digest for _, digest, _ in header.buffers])
    for index, ((start, end), digest) in enumerate(zip(header.places(len(file.header_bytes)), digests, strict=True)):
        if (index or stream) and blake(file.data[start:end]) != digest:
            raise HeaderError("its contents changed")


def untrusted(key: str, where: str, signature: bytes | None, own_signer: Signer) -> UntrustedValueError:
    """Return the error for a stored value that is not signed with this user's key."""
    signer = key_name(signature)
    if signer == own_signer.name:
        return SignatureDamagedError(
            f"the stored value of {key!r} is damaged: it is not what you signed",
            where=where,
            remedy=f"materialize {key!r} again",
        )
    by = f" (it was signed with the key {fingerprint(signer)})" if signer.strip(b"\0") else ""
    return UntrustedValueError(
        f"the stored value of {key!r} was not written by you{by}, and loading it could run any code",
        where=where,
        remedy=f"materialize {key!r} again; or, if you trust its author, run stepwell trust {key}, "
        "or set STEPWELL_KEY_FILE to the key that you share",
    )


def _unreadable_value(key: str, name: str, error: HeaderError) -> ValueUnavailableError:
    if isinstance(error, OtherFormError):
        return ValueUnavailableError(
            f"the stored value of {key!r} cannot be read: {error}",
            where=f"file objects/{name}",
            remedy=f"upgrade: pip install -U stepwell; or materialize {key!r} again",
        )
    return _damaged(key, name, str(error))


def _damaged(key: str, name: str, problem: str) -> ValueDamagedError:
    return ValueDamagedError(
        f"the stored value of {key!r} is damaged: {problem}",
        where=f"file objects/{name}",
        remedy=f"materialize {key!r} again",
    )


def value_files(folder: Folder) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name below ``objects/`` and the status of every value file."""
    for above, above_status in folder.entries("objects"):
        if stat.S_ISDIR(above_status.st_mode):
            for name, status in folder.entries(f"objects/{above}"):
                if stat.S_ISREG(status.st_mode):
                    yield f"{above}/{name}", status


def lacking(snapshot: Snapshot, objects: Objects, signer: Signer) -> tuple[frozenset[str], dict[str, str]]:
    """Return the names of missing files, and a dict that maps the ids of materializations to foreign signing keys.

    This runs for every row of a snapshot, so it only reads the key that a signature claims. Loading verifies the signature.
    """
    missing: dict[str, bool] = {}
    foreign: dict[str, str] = {}
    own_key: bytes | None = None
    for item in snapshot.materializations():
        value = item.value
        if value is None:
            continue
        name = value.object_name
        if name is not None:
            if name not in missing:
                missing[name] = objects.is_missing(name, value.size)
            if missing[name]:
                continue
        if value.codec != PICKLE:
            continue
        if own_key is None:
            own_key = _own_name(signer)
        signer_name = key_name(value.signature) if name is None else objects.signer_of(name, own_key)
        if signer_name != own_key:
            foreign[item.id] = fingerprint(signer_name) or "none"
    return frozenset(name for name, gone in missing.items() if gone), foreign


def _own_name(signer: Signer) -> bytes:
    try:
        return signer.name
    except StoreError:
        # Without a key every value is foreign; the operation that needs the key raises the error.
        return b""

"""Value files: files below ``objects/`` that are named after their contents, written once, and mapped into memory by a load.

The file of a value is named ``objects/ab/<digest>.<codec>`` and contains a header (`header`), the stream and the buffers. The digest covers
the codec, the stream and the buffers, so equal stored values share one file.

A new file is first written below ``tmp/``. While the stream and the buffers are written, their digests are computed. So the header, which contains
the digests, is written last. Then the file is renamed to its name below ``objects/``. So every file below ``objects/`` is complete, unless the
machine crashed. A load maps large files copy-on-write: a change of the loaded value does not change the file.

Every load checks the digest of the stream and, for a pickle, the signature of the header, which contains this digest. The buffers are checked
at the first load after each boot (`checked`).

A store may come from another person. So a file name is checked before the file is opened, and links are not followed (`Folder`). The stream is
copied before its digest is checked. So the bytes that a load executes are those that were checked, even if the file is changed meanwhile.
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
"""Minimum size in bytes of a file that is mapped into memory. A smaller file is read, which takes no longer and keeps no
descriptor open."""
_PIECE_WRITTEN = 64 << 20
"""Parts are gathered until they have this number of bytes; then they are written. Longer parts are split, so that Ctrl-C takes effect between two
system calls."""
_BATCH = 512
"""Gathered parts are also written when there are this many byte strings. ``os.writev`` accepts this number, and one more for padding, on every
operating system."""


def write_parts(descriptor: int, parts: Sequence[bytes | memoryview], position: int) -> None:
    """Write parts to a file one after the other, so that each begins at a multiple of 64 bytes; raise `OSError` if writing fails.

    Parameters
    ----------
    descriptor
        The open file.
    parts
        The parts, such as a stream and its buffers.
    position
        The position in the file at which ``descriptor`` is now. The first part begins there or at the next multiple of 64 bytes.
    """
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
    """Return the contents of an open file. A file of at least `MAP_FROM` bytes is mapped copy-on-write; a smaller file is read into memory."""
    size = os.fstat(descriptor).st_size
    return _mapped(descriptor, size) if size >= MAP_FROM else _read_whole(descriptor, size)


def _read_whole(descriptor: int, size: int) -> memoryview:
    data = bytearray(size)
    view, position = memoryview(data), 0
    while position < size:
        read_bytes = os.readv(descriptor, [view[position:]]) if hasattr(os, "readv") else _read_into(descriptor, view[position:])
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
"""Bytes that are signed together with each header. So a signature that was made for other data is never valid for a header."""
_PIECE_COPIED = 4 << 20
"""Number of bytes that are read and written at once when a file is copied."""


class Objects:
    """The value files of one store.

    Parameters
    ----------
    folder
        The store directory.
    signer
        Signs and verifies the headers of pickles, which execute code when they are loaded.
    unrecorded
        The list of new files whose catalog rows are not committed yet, which protects these files from ``gc``. None to create a separate list for
        this object.
    """

    def __init__(self, folder: Folder, signer: Signer, unrecorded: Unrecorded | None = None) -> None:
        self.folder = folder
        self._signer = signer
        self._unrecorded = unrecorded or Unrecorded(folder)
        self.witnesses = Witnesses(signer)
        self._own_files: set[str] = set()
        """Names of the files that this process has signed with this user's key, or whose signature names this key."""

    def write(self, encoded: Encoded, *, key: str, memo_key: str, about: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Write the file of a value, and protect it from ``gc`` until `release_recorded` is called.

        If the file exists, it is replaced. This takes no longer than a check of the existing file, and repairs the file if it is damaged. The
        new file is not flushed to the disk. After a power loss, it may be truncated or filled with zeros; its first load after the next boot
        detects this.

        Parameters
        ----------
        encoded
            The stored form of the value.
        key, memo_key
            The key of the value and the memo key of its step, for the header.
        about
            Further fields of the header by name, such as ``about`` (see `Header.metadata`), as JSON values; None for no further fields.

        Returns
        -------
        digest
            The digest of the stored value.
        name
            The name of the file below ``objects/``.

        Raises
        ------
        StoreError
            If the file cannot be written.
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
                    (size, digest_of_buffer, readonly) for (size, readonly), digest_of_buffer in zip(sizes, digests, strict=True)
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
        """Move the completed file ``making`` from ``tmp/`` to ``objects/``, and protect it from ``gc`` until `release_recorded` is called.

        Parameters
        ----------
        making
            The path of the file relative to the store directory, such as ``tmp/0f3a``.
        name
            The name of the file below ``objects/``.
        """
        self._unrecorded.add(name)
        path = f"objects/{name}"
        try:
            self.folder.rename(making, path)
        except FileNotFoundError:
            self.folder.mkdir("objects")
            self.folder.mkdir(f"objects/{name[:2]}")
            self.folder.rename(making, path)
        except PermissionError:  # pragma: no cover - Windows: another process has mapped the file, so it exists
            if os.name != "nt" or not self.folder.exists(path):
                raise

    def release_recorded(self, names: Iterable[str]) -> None:
        """Stop protecting files from ``gc``. Call this when their catalog rows are committed or will never be written.

        Parameters
        ----------
        names
            The names of the files below ``objects/``.
        """
        self._unrecorded.remove_recorded(names)

    def read(self, name: str, digest: str, codec: str, *, key: str, full: bool = False) -> Parts:
        """Read the file of a value and return its stream and buffers.

        The stream and, for a pickle, the signature are always checked. The buffers are checked unless the file was checked since the machine
        booted.

        Parameters
        ----------
        name
            The name of the file below ``objects/``, from the catalog row.
        digest, codec
            The digest and the codec of the value, from the same row.
        key
            The asset's key, for messages.
        full
            True to check the buffers even if the file was checked since the machine booted.

        Raises
        ------
        ValueUnavailableError
            If the file is missing or cannot be read, or if ``name`` does not belong to ``digest`` and ``codec``. If the file is damaged, the
            error is a `ValueDamagedError`.
        UntrustedValueError
            If the file is a pickle that is not signed with this user's key.
        """
        if name != object_header.name_of(digest, codec):
            # Not a `ValueDamagedError`, because the row is damaged. The file may be intact and belong to another value.
            raise ValueUnavailableError(
                f"the stored value of {key!r} is damaged: the file name in its catalog row does not match the digest and the codec in the row",
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
        """Record that every byte of a file and the structure of its data were checked, so that loads skip these checks until the next boot.

        A file that was changed just before the check is not recorded.

        Parameters
        ----------
        name
            The name of the file below ``objects/``.
        status
            The status of the file, obtained before the file was read.
        """
        self.witnesses.add_file(name, status)

    def verify(self, name: str) -> Header:
        """Check every byte of a file, but not its signature; return its header.

        Raises
        ------
        ValueUnavailableError
            If the file is missing or cannot be read. If it is damaged, the error is a `ValueDamagedError`.
        """
        try:
            file = self._read_file(name, name)
            _check_contents(file)
        except HeaderError as error:
            raise _unreadable_value(name, name, error) from error
        return file.header

    def adopt(self, name: str) -> None:
        """Check every byte of a file and, if the file is a pickle, sign it with this user's key.

        A pickle that belongs to another user or has a second hard link is replaced with a signed copy. If the check fails, the errors are those of
        `verify`.
        """
        header = self.verify(name)
        if header.codec != PICKLE:
            return
        packed = self._read_file(name, name).header_bytes
        prefix = self.signed_prefix(header.codec, packed)
        try:
            if self.folder.stat(f"objects/{name}").st_nlink > 1:
                raise PermissionError("the file has a second hard link")  # noqa: TRY301 - like another user's file, it must not be changed
            descriptor = self.folder.open(f"objects/{name}", os.O_WRONLY)
        except PermissionError:
            # The file belongs to another user or has another hard link: replace it with a signed copy instead of changing it.
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
        """Return True if the file ``name`` below ``objects/`` does not exist or has fewer than ``size`` bytes, or if ``name`` is invalid."""
        if not is_name(name):
            return True
        try:
            return self.folder.glance(f"objects/{name}").st_size < size
        except OSError:
            return True

    def holds(self, value: StoredValue) -> bool:
        """Return True if the value is inline, or if its file exists. This does not mean that the value can be loaded."""
        return value.inline is not None or (value.object_name is not None and not self.is_missing(value.object_name))

    def signer_of(self, name: str, own_key: bytes) -> bytes:
        """Return the name of the key with which a file claims to be signed. The signature is not verified.

        The result is empty if the file cannot be read or has no signature.

        Parameters
        ----------
        name
            The name of the file below ``objects/``.
        own_key
            The name of this user's key. If this process has signed the file, or has found this key in the file's signature before, ``own_key`` is
            returned without reading the file.
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
        """Open the file ``name`` below ``objects/`` for reading; raise `ValueUnavailableError` if it does not exist."""
        with self._descriptor_of(name, name) as descriptor, os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
            yield file

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file below ``tmp/`` for writing. When the ``with`` block ends, the file is moved to ``name`` below ``objects/``.

        If the block raises an error, the file is deleted instead.

        Raises
        ------
        StoreError
            If the file cannot be written.
        """
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
        """Return the 64 bytes that precede the header in a file.

        They contain a signature by this user's key if the codec is ``pickle``; otherwise the bytes of the signature are zero.

        Parameters
        ----------
        codec
            The codec of the value.
        packed
            The bytes of the header, which are signed.
        """
        signature = self._signer.sign((_SIGNED, packed)) if codec == PICKLE else b""
        return PREFIX.pack(MAGIC, VERSION, len(packed), signature)

    def usage(self) -> tuple[int, int]:
        """Return the number of value files and their total size in bytes.

        If this user may not list one of the folders, the files in this folder and in all later folders are not counted.
        """
        files = total = 0
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
            # Another process has removed the folder ``tmp``, or the whole store.
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
            raise HeaderError("the name of the file is not a valid name of a value file")
        with self._descriptor_of(name, key) as descriptor:
            status = os.fstat(descriptor)
            if status.st_size >= MAP_FROM:
                # The size is compared with the header before the file is mapped, because a sparse file may be larger than the memory.
                length, _ = object_header.read_prefix(os.read(descriptor, PREFIX.size))
                _check_size(object_header.read_header(os.read(descriptor, length)), length, status.st_size)
            data = contents(descriptor)
        length, signature = object_header.read_prefix(data)
        packed = bytes(data[PREFIX.size : PREFIX.size + length])
        header = object_header.read_header(packed)
        if header.name != name:
            raise HeaderError("the file contains another value, which does not match the file's name")
        _check_size(header, length, len(data))
        return _ValueFile(data, signature, packed, header, status)


def _check_size(header: Header, length: int, size: int) -> None:
    """Raise `HeaderError` if the size of a file differs from the size that its header implies.

    Parameters
    ----------
    header, length
        The header, and its length in bytes.
    size
        The size of the file in bytes.
    """
    *_, (_, end) = header.places(length)
    if end != size:
        raise HeaderError(f"the file is {'truncated: it is shorter' if end > size else 'longer'} than its header says")


@dataclass(frozen=True, slots=True)
class _ValueFile:
    """A value file that was read, and whose header matches the file's name and size. The contents are not checked yet."""

    data: memoryview
    signature: bytes
    header_bytes: bytes
    header: Header
    status: os.stat_result
    """The status of the file, obtained before the file was read."""


def _parts(file: _ValueFile, unchecked: os.stat_result | None) -> Parts:
    """Return the stream and the buffers of a file; raise `HeaderError` if the stream does not match the digest in the header.

    Parameters
    ----------
    file
        The file. If it is a pickle, the caller must have verified the signature of its header.
    unchecked
        The value for `Parts.unchecked` in the result.
    """
    data, header = file.data, file.header
    (start, end), *places = header.places(len(file.header_bytes))
    # The stream is copied before it is checked. So the bytes that a load executes are the checked ones, even if the file is changed meanwhile.
    stream = bytes(data[start:end])
    if stream and blake(stream) != header.stream[1]:
        raise HeaderError("the file's contents changed after the file was written")
    buffers = [
        data[start:end].toreadonly() if readonly else data[start:end]
        for (start, end), (_, _, readonly) in zip(places, header.buffers, strict=True)
    ]
    return Parts(stream, buffers, unchecked)


def _check_contents(file: _ValueFile, *, stream: bool = True) -> None:
    """Raise `HeaderError` if the stream or a buffer of a file does not match the digest of this part in the header.

    Parameters
    ----------
    file
        The file.
    stream
        False to check only the buffers. A caller that calls `_parts` afterwards passes False, because `_parts` checks the stream.
    """
    header = file.header
    digests = (header.stream[1], *[digest for _, digest, _ in header.buffers])
    for index, ((start, end), digest) in enumerate(zip(header.places(len(file.header_bytes)), digests, strict=True)):
        if (index or stream) and blake(file.data[start:end]) != digest:
            raise HeaderError("the file's contents changed after the file was written")


def untrusted(key: str, where: str, signature: bytes | None, own_signer: Signer) -> UntrustedValueError:
    """Return the error for a stored pickle without a valid signature by this user's key.

    Parameters
    ----------
    key
        The asset's key, for the message.
    where
        The place of the value in the store, for the message.
    signature
        The signature that was found with the value; None if there is none.
    own_signer
        The signer with this user's key.

    Returns
    -------
    UntrustedValueError
        The error. If the signature claims to be by this user's key, but does not match the value, this is a `SignatureDamagedError`.
    """
    signer = key_name(signature)
    if signer == own_signer.name:
        return SignatureDamagedError(
            f"the stored value of {key!r} is damaged: it differs from the value that you signed",
            where=where,
            remedy=f"materialize {key!r} again",
        )
    by = f" (it was signed with the key {fingerprint(signer)})" if signer else ""
    return UntrustedValueError(
        f"the stored value of {key!r} was not written by you{by}, and loading it could run any code",
        where=where,
        remedy=f"materialize {key!r} again; or, if you trust the author of the value, run stepwell trust {key}, "
        "or set STEPWELL_KEY_FILE to the key file that you share with the author",
    )


def _unreadable_value(key: str, name: str, error: HeaderError) -> ValueUnavailableError:
    if isinstance(error, OtherFormError):
        return ValueUnavailableError(
            f"the stored value of {key!r} cannot be loaded: {error}",
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
    """Yield the name and the status of every value file of a store. Names are relative to ``objects/``, such as ``ab/abcd.pickle``."""
    for above, above_status in folder.entries("objects"):
        if stat.S_ISDIR(above_status.st_mode):
            for name, status in folder.entries(f"objects/{above}"):
                if stat.S_ISREG(status.st_mode):
                    yield f"{above}/{name}", status


def lacking(snapshot: Snapshot, objects: Objects, signer: Signer) -> tuple[frozenset[str], dict[str, str]]:
    """Find the value files of a snapshot that are missing, and the materializations with a pickle that this user's key did not sign.

    Signatures are not verified, because this would take too long for a whole snapshot; only the names of their keys are compared. A load verifies
    the signature of the loaded value.

    Returns
    -------
    missing
        The names of the value files that do not exist or are shorter than the value.
    foreign
        The materializations with a pickle that this user's key did not sign. The keys of the dict are their ids; the value is the fingerprint of
        the key that the signature names. It is empty if there is no signature, or if the file cannot be read.
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
        if not signer_name or signer_name != own_key:
            foreign[item.id] = fingerprint(signer_name)
    return frozenset(name for name, gone in missing.items() if gone), foreign


def _own_name(signer: Signer) -> bytes:
    try:
        return signer.name
    except StoreError:
        # Without a key, no value counts as signed with this user's key. The operation that needs the key raises the error.
        return b""

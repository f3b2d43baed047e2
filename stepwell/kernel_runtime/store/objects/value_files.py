"""Value files: content-addressed, written once in few calls, mapped copy-on-write.

A file is ``objects/ab/<digest>.<codec>``: a header (`header`), the executable stream, the buffers. The digest is that of
the stream and of the buffers, with the codec; the same value stored twice is one file. It is written below ``tmp/``,
digested meanwhile, given its header last, and renamed, so a file below ``objects/`` is whole unless the machine went
down. The signature is over the header, which names the stream's digest; every load checks both. Every other byte is checked at
the first load in each boot (`checked`).

A store can come from somebody else. So a name is looked at before it is opened, the file is opened through no link (`Folder`), and what is checked
is a copy that nobody else can change.
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
from stepwell.kernel_runtime.store.trouble import refused, trouble
from stepwell.kernel_runtime.store.values.codecs import PICKLE, Encoded, Parts

MAP_FROM = 1 << 20
"""Bytes from which a file is mapped; below, reading is as quick and keeps no descriptor."""
_PIECE_HASHED = 64 << 20
"""Bytes that one call writes at most: between two calls an interrupt can come through."""
_BATCH = 512
"""Parts that one call writes at most; every system takes so many."""


def write_parts(descriptor: int, parts: Sequence[bytes | memoryview], at: int) -> None:
    """Write parts one behind the other, each at the next aligned place; an `OSError` where that is not possible."""
    batch: list[bytes | memoryview] = []
    waiting = 0
    for part in parts:
        padding = aligned(at) - at
        if padding:
            batch.append(b"\0" * padding)
        view = memoryview(part)
        at += padding + len(view)
        for start in range(0, len(view), _PIECE_HASHED):
            batch.append(view[start : start + _PIECE_HASHED])
            waiting += len(batch[-1])
            if waiting >= _PIECE_HASHED or len(batch) >= _BATCH:
                _write_all(descriptor, batch)
                batch, waiting = [], 0
    _write_all(descriptor, batch)


def _write_all(descriptor: int, batch: list[bytes | memoryview]) -> None:
    if not hasattr(os, "writev"):  # pragma: no cover - Windows
        batch = [b"".join(batch)] if len(batch) > 1 else batch
    while batch:
        done = os.writev(descriptor, batch) if hasattr(os, "writev") else os.write(descriptor, batch[0])
        # A full disk, a limit or an interrupt can end a write early.
        while batch and done >= len(batch[0]):
            done -= len(batch.pop(0))
        if batch and done:
            batch[0] = memoryview(batch[0])[done:]


def contents(descriptor: int) -> memoryview:
    """Return all of a file, mapped copy-on-write where it is large."""
    size = os.fstat(descriptor).st_size
    return _mapped(descriptor, size) if size >= MAP_FROM else _whole(descriptor, size)


def _whole(descriptor: int, size: int) -> memoryview:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        done = os.readv(descriptor, [view[at:]]) if hasattr(os, "readv") else _read_into(descriptor, view[at:])
        if not done:
            return view[:at]
        at += done
    return view


def _read_into(descriptor: int, view: memoryview) -> int:  # pragma: no cover - Windows
    found = os.read(descriptor, len(view))
    view[: len(found)] = found
    return len(found)


def _mapped(descriptor: int, size: int) -> memoryview:
    if sys.version_info >= (3, 13):
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY, trackfd=False))
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY))


_SIGNED = b"stepwell object"
"""The beginning of what a signature over a header covers, so that it fits nothing else."""
_PIECE_COPIED = 4 << 20


class Objects:
    """The files below ``objects/`` of one store.

    Parameters
    ----------
    folder
        The store directory.
    signer
        Signs and checks what executes code when loaded.
    unrecorded
        The list of what has no row yet: a file is named there before it is put in its place.
    """

    def __init__(self, folder: Folder, signer: Signer, unrecorded: Unrecorded | None = None) -> None:
        self.folder = folder
        self._signer = signer
        self._unrecorded = unrecorded or Unrecorded(folder)
        self.witnesses = Witnesses(signer)
        self._own: set[str] = set()
        """Names of files that are known to carry our own signature."""

    def write(
        self, encoded: Encoded, *, key: str, memo_key: str, about: Mapping[str, Any] | None = None
    ) -> tuple[str, str]:
        """Write a value's file; return its digest and its name below ``objects/``.

        A file that is there already is replaced: that costs no more than checking it, and repairs a damaged one. Nothing is synced to the disk: after a power loss a file may be short or hold zeros, which its first load in the
        next boot sees.

        Parameters
        ----------
        about
            What else its header is to say of it; JSON values.
        """
        buffers = [memoryview(buffer) for buffer in encoded.buffers]
        told = {
            "python": ".".join(map(str, sys.version_info[:3])),
            "classes": encoded.classes,
            "key": key,
            "memo_key": memo_key,
            **(about or {}),
        }
        sizes = [(buffer.nbytes, buffer.readonly) for buffer in buffers]
        room = object_header.room_for(encoded.codec, len(encoded.stream), sizes, told)
        parts = [memoryview(encoded.stream), *buffers]
        making = f"tmp/{new_id()}"
        digesting = Digesting(parts)
        try:
            with self._created(making) as descriptor:
                os.lseek(descriptor, room, os.SEEK_SET)
                write_parts(descriptor, parts, room)
                stream, *digests = digesting.result()
                described = tuple((size, of, readonly) for (size, readonly), of in zip(sizes, digests, strict=True))
                header = Header(encoded.codec, (len(encoded.stream), stream), described, told)
                os.lseek(descriptor, 0, os.SEEK_SET)
                write_parts(descriptor, [self._signed(header).ljust(room, b"\0")], 0)
            found = header.digest
            name = object_header.name_of(found, encoded.codec)
            self.place(making, name)
            if encoded.size >= AT_ONCE:
                self.witnesses.add_file(name, self.folder.stat(f"objects/{name}"), written=True)
        except BaseException as error:
            digesting.stop()
            self._discard(making)
            if isinstance(error, OSError | MemoryError):
                raise refused(self.folder.path, error) from error
            raise
        if encoded.codec == PICKLE:
            self._own.add(name)
        return found, name

    def place(self, making: str, name: str) -> None:
        """Rename a whole file of ``tmp/`` to its name below ``objects/``; an `OSError` where that is not possible."""
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

    def recorded(self, names: Iterable[str]) -> None:
        """Say that rows refer to some files that were placed, or that none will."""
        self._unrecorded.recorded(names)

    def read(self, name: str, found: str, codec: str, *, key: str, full: bool = False) -> Parts:
        """Map a file copy-on-write and return its parts.

        Every byte is checked unless the file was checked in this boot (`checked`).

        Parameters
        ----------
        full
            Whether every byte is checked in any case.

        Raises
        ------
        ValueUnavailableError
            If the file is gone, cut short, or not what its name says.
        UntrustedValueError
            If it would execute code and this user's key did not sign it.
        """
        if name != object_header.name_of(found, codec):
            # No `ValueDamagedError`: the file may well be whole, and the value of another key.
            raise ValueUnavailableError(
                f"the stored value of {key!r} is damaged: its row names a file that can be no stored value",
                where=f"file objects/{name}",
                remedy=f"materialize {key!r} again",
            )
        try:
            seen = self._seen(name, key)
            if codec == PICKLE and not self._signer.verify(seen.signature, (_SIGNED, seen.packed)):
                raise untrusted(key, f"file {self.folder.path / 'objects' / name}", seen.signature, self._signer)
            witnessed = not full and self.witnesses.file_holds(name, seen.found)
            if not witnessed:
                _check_contents(seen, stream=False)
            return _parts(seen, None if witnessed else seen.found)
        except HeaderError as error:
            raise _refused(key, name, error) from error

    def checked(self, name: str, found: os.stat_result) -> None:
        """Note that every byte of a file and its structure were found right, for the loads that follow in this boot."""
        self.witnesses.add_file(name, found)

    def verify(self, name: str) -> Header:
        """Check everything in a file but who signed it, and return its header.

        Raises
        ------
        ValueUnavailableError
            If the file is gone, or anything in it is not what its name says.
        """
        try:
            seen = self._seen(name, name)
            _check_contents(seen)
        except HeaderError as error:
            raise _refused(name, name, error) from error
        return seen.header

    def adopt(self, name: str) -> None:
        """Sign a file with this user's key after checking everything in it; errors as of `verify`."""
        header = self.verify(name)
        if header.codec != PICKLE:
            return
        packed = self._seen(name, name).packed
        prefix = self.signed_prefix(header.codec, packed)
        try:
            if self.folder.stat(f"objects/{name}").st_nlink > 1:
                raise PermissionError("it has another name, which would change too")  # noqa: TRY301 - as for another user's file
            descriptor = self.folder.open(f"objects/{name}", os.O_WRONLY)
        except PermissionError:
            # Another user's file: it is replaced by one of one's own.
            with self.opened(name) as source, self.making(name) as target:
                shutil.copyfileobj(source, target, _PIECE_COPIED)
                target.seek(0)
                target.write(prefix)
            self.recorded([name])
        else:
            try:
                os.write(descriptor, prefix)
            finally:
                os.close(descriptor)
        self._own.add(name)

    def missing(self, name: str, size: int = 0) -> bool:
        """Return whether a file is gone, or so short that it cannot hold a value of some bytes."""
        if not is_name(name):
            return True
        try:
            return self.folder.glance(f"objects/{name}").st_size < size
        except OSError:
            return True

    def holds(self, value: StoredValue) -> bool:
        """Return True if the stored form of a value is there; it may fail to load even so."""
        return value.inline is not None or (value.object_name is not None and not self.missing(value.object_name))

    def signer_of(self, name: str, own: bytes) -> bytes:
        """Return the name of the key that signed a file, by its own word; empty where it cannot be read.

        Parameters
        ----------
        own
            The name of this user's key: what has it is not looked at again.
        """
        if name in self._own:
            return own
        try:
            with self._opened(name, name) as descriptor:
                _, signature = object_header.read_prefix(os.read(descriptor, PREFIX.size))
        except (ValueUnavailableError, HeaderError, OSError):
            return b""
        found = key_name(signature)
        if found == own:
            self._own.add(name)
        return found

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading; a `ValueUnavailableError` where it is gone."""
        with self._opened(name, name) as descriptor, os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
            yield file

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file below ``tmp/`` for writing; it gets its name when the block ends without an error."""
        making = f"tmp/{new_id()}"
        try:
            with self._created(making) as descriptor, os.fdopen(os.dup(descriptor), "wb", buffering=0) as file:
                yield file
            self.place(making, name)
        except BaseException as error:
            self._discard(making)
            if isinstance(error, OSError | MemoryError):
                raise refused(self.folder.path, error) from error
            raise

    def signed_prefix(self, codec: str, packed: bytes) -> bytes:
        """Return what goes before a header, with this user's signature where the codec needs one."""
        signature = self._signer.sign((_SIGNED, packed)) if codec == PICKLE else b""
        return PREFIX.pack(MAGIC, VERSION, len(packed), signature)

    def usage(self) -> tuple[int, int]:
        """Return the number of files and their bytes."""
        files = total = 0
        # What may not be listed is not counted.
        with contextlib.suppress(PermissionError):
            for _, found in value_files(self.folder):
                total += found.st_size
                files += 1
        return files, total

    def _signed(self, header: Header) -> bytes:
        packed = header.packed()
        return self.signed_prefix(header.codec, packed) + packed

    @contextlib.contextmanager
    def _opened(self, name: str, key: str) -> Iterator[int]:
        try:
            descriptor = self.folder.open(f"objects/{name}")
        except OSError as error:
            found = trouble(error, f"the stored value of {key!r} cannot be read")
            if found is not None:
                raise found from error
            raise ValueUnavailableError(
                f"the stored value of {key!r} is gone",
                where=f"no file {self.folder.path / 'objects' / name}",
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

    def _seen(self, name: str, key: str) -> _Seen:
        if not is_name(name):
            raise HeaderError("its name can be no stored value's")
        with self._opened(name, key) as descriptor:
            found = os.fstat(descriptor)
            if found.st_size >= MAP_FROM:
                # A hole can make a file larger than all memory: it is mapped once its header is known to say the same size.
                length, _ = object_header.read_prefix(os.read(descriptor, PREFIX.size))
                _check_size(object_header.read_header(os.read(descriptor, length)), length, found.st_size)
            data = contents(descriptor)
        length, signature = object_header.read_prefix(data)
        packed = bytes(data[PREFIX.size : PREFIX.size + length])
        header = object_header.read_header(packed)
        if header.name != name:
            raise HeaderError("it holds another value than its name says")
        _check_size(header, length, len(data))
        return _Seen(data, signature, packed, header, found)


def _check_size(header: Header, length: int, size: int) -> None:
    """Check that a file is as large as its header says; a `HeaderError` if not."""
    *_, (_, end) = header.places(length)
    if end != size:
        raise HeaderError("it is cut short" if end > size else "it is longer than its header says")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file that holds what its name says, by its header."""

    data: memoryview
    signature: bytes
    packed: bytes
    header: Header
    found: os.stat_result
    """From before it was read."""


def _parts(seen: _Seen, unchecked: os.stat_result | None) -> Parts:
    """Return the parts of a file whose header is trusted; a `HeaderError` where the stream is another."""
    data, header = seen.data, seen.header
    (start, end), *places = header.places(len(seen.packed))
    # Copied before it is checked: who can write the file cannot change what is executed after that.
    stream = bytes(data[start:end])
    if stream and blake(stream) != header.stream[1]:
        raise HeaderError("its contents changed")
    buffers = [
        data[start:end].toreadonly() if readonly else data[start:end]
        for (start, end), (_, _, readonly) in zip(places, header.buffers, strict=True)
    ]
    return Parts(stream, buffers, unchecked)


def _check_contents(seen: _Seen, *, stream: bool = True) -> None:
    """Check the digest of every part; a `HeaderError` where one is another.

    Parameters
    ----------
    stream
        Whether the digest of the stream is among them; `_parts` checks it too.
    """
    header = seen.header
    digests = (header.stream[1], *[of for _, of, _ in header.buffers])
    for at, ((start, end), of) in enumerate(zip(header.places(len(seen.packed)), digests, strict=True)):
        if (at or stream) and blake(seen.data[start:end]) != of:
            raise HeaderError("its contents changed")


def untrusted(key: str, where: str, signature: bytes | None, own: Signer) -> UntrustedValueError:
    """Return the error of a stored value whose signature is not this user's."""
    signer = key_name(signature)
    if signer == own.name:
        return SignatureDamagedError(
            f"the stored value of {key!r} is damaged: it is not what you signed",
            where=where,
            remedy=f"materialize {key!r} again",
        )
    by = f" (it was signed with the key {fingerprint(signer)})" if signer.strip(b"\0") else ""
    return UntrustedValueError(
        f"the stored value of {key!r} was not written by you{by}, and loading it could run any code",
        where=where,
        remedy=f"materialize {key!r} again; if you trust who wrote it: stepwell trust {key}, "
        "or let STEPWELL_KEY_FILE name the key that you share",
    )


def _refused(key: str, name: str, error: HeaderError) -> ValueUnavailableError:
    if isinstance(error, OtherFormError):
        return ValueUnavailableError(
            f"the stored value of {key!r} cannot be read: {error}",
            where=f"file objects/{name}",
            remedy=f"upgrade: pip install -U stepwell; or materialize {key!r} again",
        )
    return _damaged(key, name, str(error))


def _damaged(key: str, name: str, how: str) -> ValueDamagedError:
    return ValueDamagedError(
        f"the stored value of {key!r} is damaged: {how}",
        where=f"file objects/{name}",
        remedy=f"materialize {key!r} again",
    )


def value_files(folder: Folder) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name below ``objects/`` and the status of every value file."""
    for above, found in folder.entries("objects"):
        if stat.S_ISDIR(found.st_mode):
            for name, status in folder.entries(f"objects/{above}"):
                if stat.S_ISREG(status.st_mode):
                    yield f"{above}/{name}", status


def lacking(snapshot: Snapshot, objects: Objects, signer: Signer) -> tuple[frozenset[str], dict[str, str]]:
    """Return the names of files that are missing, and by id of a materialization the other key that signed its value.

    It runs for every row of a snapshot, so it trusts a signature's own word about its key: loading verifies the signature.
    """
    missing: dict[str, bool] = {}
    foreign: dict[str, str] = {}
    own: bytes | None = None
    for item in snapshot.materializations():
        value = item.value
        if value is None:
            continue
        name = value.object_name
        if name is not None:
            if name not in missing:
                missing[name] = objects.missing(name, value.size)
            if missing[name]:
                continue
        if value.codec != PICKLE:
            continue
        if own is None:
            own = _own_name(signer)
        by = key_name(value.signature) if name is None else objects.signer_of(name, own)
        if by != own:
            foreign[item.id] = fingerprint(by) or "none"
    return frozenset(name for name, gone in missing.items() if gone), foreign


def _own_name(signer: Signer) -> bytes:
    try:
        return signer.name
    except StoreError:
        # Without a key nothing is one's own; what needs the key says why there is none.
        return b""

"""Import of another person's values, which are checked as data, listed to the user, and only then signed with the user's key.

No value is loaded. Every name, size and digest in a pack is checked before anything is written, and again while files are copied. A pack
with one error is refused as a whole. Rows are added in one transaction after the files are placed.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import PackError, StepwellError, UnknownKeyError, unknown_key
from stepwell.kernel_runtime.records.maintenance import Offer, OfferedValue
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.store import packs
from stepwell.kernel_runtime.store.objects.header import PREFIX, Header, HeaderError, is_name, read_header, read_prefix
from stepwell.kernel_runtime.store.packs import offered
from stepwell.kernel_runtime.store.signing import SIGNATURE_SIZE, Signer, fingerprint, key_name
from stepwell.kernel_runtime.store.trouble import with_store_errors
from stepwell.kernel_runtime.store.values.codecs import PICKLE

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_PIECE = 4 << 20


@dataclass(slots=True)
class _Contents:
    """The checked contents of a pack."""

    signer: bytes = b""
    is_own: bool = False
    materializations: dict[str, Materialization] = field(default_factory=dict)
    current: list[tuple[str, str, str, str]] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)
    signers: dict[str, bytes] = field(default_factory=dict)
    """Maps the name of a value file to the name of the key that the file's signature claims."""

    def values(self) -> tuple[OfferedValue, ...]:
        offers = []
        for item in self.materializations.values():
            value = item.value
            if value is None:
                continue
            executes = value.codec == PICKLE
            key = self.signers.get(value.object_name or "", self.signer) if executes else b""
            offers.append(offered(item, fingerprint(key)))
        return tuple(offers)


# -- a pack ------------------------------------------------------------------------------------------------------------


def inspect_pack(path: Path, signer: Signer) -> Offer:
    """Check the whole contents of a pack and list them without importing anything.

    Raises
    ------
    PackError
        If the file is not a pack, or is damaged.
    """
    with _archive(path) as archive:
        contents = _check_pack(archive, str(path), signer)
    return Offer(str(path), fingerprint(contents.signer), contents.is_own, contents.values())


@with_store_errors
def import_pack(store: ValueStore, path: Path) -> Offer:
    """Import a pack and sign its values with this user's key.

    A value becomes current if the store has no current value for its notebook and key. Any other value only becomes available for reuse.

    Raises
    ------
    PackError
        If the file is not a pack, or is damaged. Nothing is imported in these cases.
    """
    label = str(path)
    placed: list[str] = []
    try:
        with _archive(path) as archive:
            contents = _check_pack(archive, label, store.signer)
            for name in sorted(contents.signers):
                with store.objects.making(name) as making:
                    with archive.open(packs.OBJECTS + name) as source:
                        size = archive.getinfo(packs.OBJECTS + name).file_size
                        header, packed, _ = _copy_value_file(source, size, making, label)
                    if header.name != name:
                        raise packs.damaged(label, "it changed while it was read")
                    making.seek(0)
                    making.write(store.objects.signed_prefix(header.codec, packed))
                placed.append(name)
        items = [_sign_item(item, store.signer) for item in contents.materializations.values()]
        store.catalog.change(packs.add, items, contents.codes, contents.current)
    finally:
        store.objects.release_recorded(placed)
    return Offer(label, fingerprint(contents.signer), contents.is_own, contents.values())


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise PackError(f"there is no pack {path}", remedy="name a file that stepwell pack wrote") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise packs.damaged(str(path), str(error) or type(error).__name__) from error


def _check_pack(archive: zipfile.ZipFile, label: str, signer: Signer) -> _Contents:
    members = _members(archive, label)
    contents = _Contents()
    if not {packs.ROWS, packs.SIGNATURE} <= set(members):
        raise packs.damaged(label, "it was not made by stepwell pack")
    digest = _read_rows(archive, label, contents)
    if members[packs.SIGNATURE].file_size != SIGNATURE_SIZE:
        raise packs.damaged(label, "its signature cannot be read")
    signature = archive.read(packs.SIGNATURE)
    contents.signer = key_name(signature)
    contents.is_own = signer.verify(signature, (packs.SIGNED, digest))
    for name, member in members.items():
        if name.startswith(packs.OBJECTS):
            with archive.open(member) as source:
                header, _, key = _copy_value_file(source, member.file_size, None, label)
            if header.name != name.removeprefix(packs.OBJECTS):
                raise packs.damaged(label, f"{name} contains another value than its name says")
            contents.signers[header.name] = key
            contents.is_own = contents.is_own and (header.codec != PICKLE or key == contents.signer)
    needed = {m.value.object_name for m in contents.materializations.values() if m.value and m.value.object_name}
    if needed != set(contents.signers):
        raise packs.damaged(label, "its rows and its files do not belong together")
    if not all(row[3] in contents.materializations for row in contents.current):
        raise packs.damaged(label, "its rows do not belong together")
    return contents


def _members(archive: zipfile.ZipFile, label: str) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        known = name in (packs.ROWS, packs.SIGNATURE) or (
            name.startswith(packs.OBJECTS) and is_name(name.removeprefix(packs.OBJECTS))
        )
        if not known or name in members or name != member.orig_filename:
            raise packs.damaged(label, f"it contains {name[:100]!r}")
        if (
            member.compress_type != zipfile.ZIP_STORED
            or member.flag_bits & 1
            or member.file_size != member.compress_size
        ):
            raise packs.damaged(label, f"{name} is compressed or encrypted")
        members[name] = member
    size = os.path.getsize(label)  # noqa: PTH202 - `label` is the path as text
    if sum(member.file_size for member in members.values()) > size:
        raise packs.damaged(label, "its parts overlap")
    return members


def _read_rows(archive: zipfile.ZipFile, label: str, contents: _Contents) -> bytes:
    with archive.open(packs.ROWS) as file:
        reader = _Digested(file)
        for index, row in enumerate(packs.read_lines(reader, label)):  # type: ignore[arg-type]  # `read_lines` only calls readline
            kind = row["is"]
            if (kind == "pack") != (index == 0):
                raise packs.damaged(label, "it was not made by stepwell pack")
            if kind == "pack" and row.get("format") != packs.FORMAT:
                raise packs.damaged(label, f"another version of Stepwell wrote it (format {row.get('format')!r})")
            if kind == "materialization":
                item = packs.read_materialization(row, label)
                contents.materializations[item.id] = item
            elif kind == "current":
                contents.current.append(tuple(_text(row, column, label) for column in _POINTER))  # type: ignore[arg-type]  # four texts
            elif kind == "code":
                contents.codes[_text(row, "digest", label)] = _text(row, "parts", label)
    return reader.digest()


_POINTER = ("notebook", "key", "partition", "materialization")


def _text(row: dict[str, Any], name: str, label: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise packs.damaged(label, "a row cannot be read")
    return value


class _Digested:
    """A wrapper of a file that computes the digest of the lines that are read."""

    def __init__(self, file: IO[bytes]) -> None:
        import blake3

        self._file = file
        self._digest = blake3.blake3()

    def readline(self, limit: int) -> bytes:
        text = self._file.readline(limit)
        self._digest.update(text)
        return text

    def digest(self) -> bytes:
        result: bytes = self._digest.digest()
        return result


def _copy_value_file(source: IO[bytes], size: int, target: IO[bytes] | None, label: str) -> tuple[Header, bytes, bytes]:
    """Read a whole value file, check every digest, and copy it to ``target`` unless this is None.

    Return the header, the bytes of the header, and the name of the key that the signature claims.
    """
    import blake3

    def take(length: int) -> Iterator[bytes]:
        while length:
            piece = source.read(min(_PIECE, length))
            if not piece:
                raise packs.damaged(label, "a file in it is cut short")
            length -= len(piece)
            if target is not None:
                target.write(piece)
            yield piece

    try:
        length, signature = read_prefix(b"".join(take(min(PREFIX.size, size))))
        if PREFIX.size + length > size:
            raise HeaderError("it is cut short")  # noqa: TRY301 - reported like an error of the header
        packed = b"".join(take(length))
        header = read_header(packed)
        *_, (_, end) = places = list(header.places(length))
        if end != size:
            raise HeaderError("its size differs from its header")  # noqa: TRY301 - likewise
        position = PREFIX.size + length
        for (start, end), expected_digest in zip(
            places, (header.stream[1], *[expected_digest for _, expected_digest, _ in header.buffers]), strict=True
        ):
            for _ in take(start - position):
                pass
            digest = blake3.blake3()
            for piece in take(end - start):
                digest.update(piece)
            if digest.hexdigest() != expected_digest:
                raise HeaderError("its contents changed")  # noqa: TRY301 - likewise
            position = end
        # `zipfile` compares the checksum of the member when its end is read.
        source.read(1)
    except HeaderError as error:
        raise packs.damaged(label, f"a file in it is damaged: {error}") from error
    return header, packed, key_name(signature)


def _sign_item(item: Materialization, signer: Signer) -> Materialization:
    value = item.value
    if value is None or value.inline is None or value.codec != PICKLE:
        return item
    return replace(item, value=replace(value, signature=signer.sign((value.codec.encode(), value.inline))))


# -- values in the store ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A materialization in the store whose value is signed with another key, and the name of this key."""

    item: Materialization
    signer: bytes


@dataclass(frozen=True, slots=True)
class ForeignValues:
    """The values in a store that are signed with other keys. `adopt` signs exactly these values."""

    items: tuple[_Foreign, ...]
    offer: Offer


@with_store_errors
def foreign_values(store: ValueStore, keys: Sequence[str] | None) -> ForeignValues:
    """Return the values that are signed with other users' keys.

    Parameters
    ----------
    store
        The store.
    keys
        Keys of assets, which include the steps inside them; None for the whole store.

    Raises
    ------
    UnknownKeyError
        If nothing is stored under one of the keys.
    """
    objects, own_key = store.objects, store.signer.name
    rows = store.catalog.ask(packs.read_pickles, keys)
    for key in keys or ():
        if not any(row.key == key or row.key.startswith((f"{key}.", f"{key}:")) for row in rows):
            known = store.keys()
            if key not in known:
                error: UnknownKeyError = unknown_key("key", key, known)
                raise error
    foreign = []
    for item in rows:
        value = item.value
        if value is None:
            continue
        signer = (
            key_name(value.signature) if value.object_name is None else objects.signer_of(value.object_name, own_key)
        )
        if signer != own_key and (value.object_name is None or not objects.is_missing(value.object_name)):
            foreign.append(_Foreign(item, signer))
    values = tuple(offered(foreign_value.item, fingerprint(foreign_value.signer)) for foreign_value in foreign)
    offer = Offer(str(objects.folder.path), values[0].signer if values else "", own=not values, values=values)
    return ForeignValues(tuple(foreign), offer)


@with_store_errors
def adopt(store: ValueStore, values: ForeignValues) -> list[str]:
    """Sign values of the store with this user's key; return the keys of damaged values, which are not signed."""
    signatures: dict[str, bytes] = {}
    damaged_keys = []
    for foreign in values.items:
        value = foreign.item.value
        try:
            if value is None:
                continue
            if value.object_name is not None:
                store.objects.adopt(value.object_name)
            else:
                # As in a pack, the value in the row must match its digest.
                packs.read_materialization({"row": packs.row_of(foreign.item)}, foreign.item.key)
                signature = _sign_item(foreign.item, store.signer).value
                if signature is not None and signature.signature is not None:
                    signatures[foreign.item.id] = signature.signature
        except StepwellError:
            damaged_keys.append(foreign.item.key)
    if signatures:
        store.catalog.change(packs.replace_signatures, signatures)
    return damaged_keys

"""Taking over values of another person: they are checked as data, listed to the user, and only then signed with the user's own key.

Nothing is loaded here. Of a pack every name, size and digest is checked before anything is written, and again of what is
copied; a pack in which one thing is wrong is refused whole. Rows are added in one transaction after the files are there.
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
from stepwell.kernel_runtime.store.trouble import named
from stepwell.kernel_runtime.store.values.codecs import PICKLE

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore

_PIECE = 4 << 20


@dataclass(slots=True)
class _Contents:
    """The contents of a pack that was checked in full."""

    signer: bytes = b""
    own: bool = False
    materializations: dict[str, Materialization] = field(default_factory=dict)
    current: list[tuple[str, str, str, str]] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)
    signers: dict[str, bytes] = field(default_factory=dict)
    """By name of an object, the key that signed it, by its own word."""

    def values(self) -> tuple[OfferedValue, ...]:
        found = []
        for item in self.materializations.values():
            value = item.value
            if value is None:
                continue
            executes = value.codec == PICKLE
            by = self.signers.get(value.object_name or "", self.signer) if executes else b""
            found.append(offered(item, fingerprint(by)))
        return tuple(found)


# -- a pack ------------------------------------------------------------------------------------------------------------


def inspect_pack(path: Path, signer: Signer) -> Offer:
    """Check everything in a pack and return what it holds; nothing is imported.

    Raises
    ------
    PackError
        If it is no pack, or anything in it is not what it says.
    """
    with _archive(path) as archive:
        found = _checked(archive, str(path), signer)
    return Offer(str(path), fingerprint(found.signer), found.own, found.values())


@named
def import_pack(store: ValueStore, path: Path) -> Offer:
    """Import a pack and sign what is in it with this user's key.

    A value becomes current where the store has nothing for its notebook and key; else it is one more result that is reused
    where it fits.

    Raises
    ------
    PackError
        If anything in it is not what it says; nothing is imported then.
    """
    what = str(path)
    placed: list[str] = []
    try:
        with _archive(path) as archive:
            found = _checked(archive, what, store.signer)
            for name in sorted(found.signers):
                with store.objects.making(name) as making:
                    with archive.open(packs.OBJECTS + name) as source:
                        size = archive.getinfo(packs.OBJECTS + name).file_size
                        header, packed, _ = _copied(source, size, making, what)
                    if header.name != name:
                        raise packs.damaged(what, "it changed while it was read")
                    making.seek(0)
                    making.write(store.objects.signed_prefix(header.codec, packed))
                placed.append(name)
        items = [_signed(item, store.signer) for item in found.materializations.values()]
        store.catalog.change(packs.add, items, found.codes, found.current)
    finally:
        store.objects.recorded(placed)
    return Offer(what, fingerprint(found.signer), found.own, found.values())


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise PackError(f"there is no pack {path}", remedy="name the file that stepwell pack wrote") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise packs.damaged(str(path), str(error) or type(error).__name__) from error


def _checked(archive: zipfile.ZipFile, what: str, signer: Signer) -> _Contents:
    members = _members(archive, what)
    found = _Contents()
    if not {packs.ROWS, packs.SIGNATURE} <= set(members):
        raise packs.damaged(what, "it was not made by stepwell pack")
    digest = _read_rows(archive, what, found)
    if members[packs.SIGNATURE].file_size != SIGNATURE_SIZE:
        raise packs.damaged(what, "its signature cannot be read")
    signature = archive.read(packs.SIGNATURE)
    found.signer = key_name(signature)
    found.own = signer.verify(signature, (packs.SIGNED, digest))
    for name, member in members.items():
        if name.startswith(packs.OBJECTS):
            with archive.open(member) as source:
                header, _, by = _copied(source, member.file_size, None, what)
            if header.name != name.removeprefix(packs.OBJECTS):
                raise packs.damaged(what, f"{name} holds another value than its name says")
            found.signers[header.name] = by
            found.own = found.own and (header.codec != PICKLE or by == found.signer)
    needed = {m.value.object_name for m in found.materializations.values() if m.value and m.value.object_name}
    if needed != set(found.signers):
        raise packs.damaged(what, "its rows and its files do not belong together")
    if not all(row[3] in found.materializations for row in found.current):
        raise packs.damaged(what, "its rows do not belong together")
    return found


def _members(archive: zipfile.ZipFile, what: str) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        known = name in (packs.ROWS, packs.SIGNATURE) or (
            name.startswith(packs.OBJECTS) and is_name(name.removeprefix(packs.OBJECTS))
        )
        if not known or name in found or name != member.orig_filename:
            raise packs.damaged(what, f"it holds {name[:100]!r}")
        if (
            member.compress_type != zipfile.ZIP_STORED
            or member.flag_bits & 1
            or member.file_size != member.compress_size
        ):
            raise packs.damaged(what, f"{name} is compressed or encrypted")
        found[name] = member
    size = os.path.getsize(what)  # noqa: PTH202 - `what` is how messages call it, and the path
    if sum(member.file_size for member in found.values()) > size:
        raise packs.damaged(what, "its parts overlap")
    return found


def _read_rows(archive: zipfile.ZipFile, what: str, found: _Contents) -> bytes:
    with archive.open(packs.ROWS) as file:
        reader = _Digested(file)
        for at, row in enumerate(packs.read_lines(reader, what)):  # type: ignore[arg-type]  # it reads lines, and no more is asked
            kind = row["is"]
            if (kind == "pack") != (at == 0):
                raise packs.damaged(what, "it was not made by stepwell pack")
            if kind == "pack" and row.get("format") != packs.FORMAT:
                raise packs.damaged(what, f"it has the form {row.get('format')!r} of another Stepwell")
            if kind == "materialization":
                item = packs.read_materialization(row, what)
                found.materializations[item.id] = item
            elif kind == "current":
                found.current.append(tuple(_text(row, of, what) for of in _POINTER))  # type: ignore[arg-type]  # four texts
            elif kind == "code":
                found.codes[_text(row, "digest", what)] = _text(row, "parts", what)
    return reader.digest()


_POINTER = ("notebook", "key", "partition", "materialization")


def _text(row: dict[str, Any], name: str, what: str) -> str:
    found = row.get(name)
    if not isinstance(found, str):
        raise packs.damaged(what, "a row cannot be read")
    return found


class _Digested:
    """A file whose lines are digested as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        import blake3

        self._file = file
        self._digest = blake3.blake3()

    def readline(self, most: int) -> bytes:
        text = self._file.readline(most)
        self._digest.update(text)
        return text

    def digest(self) -> bytes:
        found: bytes = self._digest.digest()
        return found


def _copied(source: IO[bytes], size: int, target: IO[bytes] | None, what: str) -> tuple[Header, bytes, bytes]:
    """Read a value file to its end, checking every digest, and copy it; return header, its bytes, and the key that signed it."""
    import blake3

    def take(length: int) -> Iterator[bytes]:
        while length:
            piece = source.read(min(_PIECE, length))
            if not piece:
                raise packs.damaged(what, "a file in it is cut short")
            length -= len(piece)
            if target is not None:
                target.write(piece)
            yield piece

    try:
        length, signature = read_prefix(b"".join(take(min(PREFIX.size, size))))
        if PREFIX.size + length > size:
            raise HeaderError("it is cut short")  # noqa: TRY301 - told like what is wrong in the header
        packed = b"".join(take(length))
        header = read_header(packed)
        *_, (_, end) = places = list(header.places(length))
        if end != size:
            raise HeaderError("its size is another")  # noqa: TRY301 - likewise
        at = PREFIX.size + length
        for (start, end), of in zip(places, (header.stream[1], *[of for _, of, _ in header.buffers]), strict=True):
            for _ in take(start - at):
                pass
            digest = blake3.blake3()
            for piece in take(end - start):
                digest.update(piece)
            if digest.hexdigest() != of:
                raise HeaderError("its contents changed")  # noqa: TRY301 - likewise
            at = end
        # The archive's own checksum is looked at when its end is read.
        source.read(1)
    except HeaderError as error:
        raise packs.damaged(what, f"a file in it is damaged: {error}") from error
    return header, packed, key_name(signature)


def _signed(item: Materialization, signer: Signer) -> Materialization:
    value = item.value
    if value is None or value.inline is None or value.codec != PICKLE:
        return item
    return replace(item, value=replace(value, signature=signer.sign((value.codec.encode(), value.inline))))


# -- what is in the store ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A materialization of the store whose value another key signed."""

    item: Materialization
    signer: bytes


@dataclass(frozen=True, slots=True)
class ForeignValues:
    """The values of a store that another key signed; `adopt` signs exactly these."""

    found: tuple[_Foreign, ...]
    offer: Offer


@named
def foreign_values(store: ValueStore, keys: Sequence[str] | None) -> ForeignValues:
    """Return the materializations whose values another key signed: of some keys and the steps inside them, or all.

    Raises
    ------
    UnknownKeyError
        If nothing is stored under one of the keys.
    """
    objects, own = store.objects, store.signer.name
    rows = store.catalog.ask(packs.read_pickles, keys)
    for key in keys or ():
        if not any(row.key == key or row.key.startswith((f"{key}.", f"{key}:")) for row in rows):
            known = store.keys()
            if key not in known:
                error: UnknownKeyError = unknown_key("key", key, known)
                raise error
    found = []
    for item in rows:
        value = item.value
        if value is None:
            continue
        by = key_name(value.signature) if value.object_name is None else objects.signer_of(value.object_name, own)
        if by != own and (value.object_name is None or not objects.missing(value.object_name)):
            found.append(_Foreign(item, by))
    values = tuple(offered(each.item, fingerprint(each.signer)) for each in found)
    offer = Offer(str(objects.folder.path), values[0].signer if values else "", own=not values, values=values)
    return ForeignValues(tuple(found), offer)


@named
def adopt(store: ValueStore, given: ForeignValues) -> list[str]:
    """Sign values of the store with this user's key; return the keys of those that are damaged and were left alone."""
    signatures: dict[str, bytes] = {}
    left = []
    for each in given.found:
        value = each.item.value
        try:
            if value is None:
                continue
            if value.object_name is not None:
                store.objects.adopt(value.object_name)
            else:
                # As for a pack: the row must be what its digest says.
                packs.read_materialization({"row": packs.row_of(each.item)}, each.item.key)
                signature = _signed(each.item, store.signer).value
                if signature is not None and signature.signature is not None:
                    signatures[each.item.id] = signature.signature
        except StepwellError:
            left.append(each.item.key)
    if signatures:
        store.catalog.change(packs.sign, signatures)
    return left

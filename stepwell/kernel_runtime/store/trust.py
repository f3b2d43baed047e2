"""Taking over values of another person, from a pack or in the store itself. The user confirms them; then the user's key signs them.

No value is loaded during an import. All names, sizes and digests in a pack are checked before anything is written, and again while the
value files are copied. If one of them is wrong, the whole pack is refused. The rows of a pack are added to the catalog in one transaction,
after its value files are placed.
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
    """The contents of a pack, after all checks."""

    signer: bytes = b""
    """The name of the key with which the pack claims to be signed."""
    is_own: bool = False
    """True if the pack is signed with this user's key, and the signatures of all its pickles name this key."""
    materializations: dict[str, Materialization] = field(default_factory=dict)
    """Maps the id of each materialization to the materialization."""
    current: list[tuple[str, str, str, str]] = field(default_factory=list)
    """The pointers to the current materializations: tuples of a notebook, a key, a partition and the id of the materialization."""
    codes: dict[str, str] = field(default_factory=dict)
    """Maps the digest of each code version to its parts as JSON."""
    signers: dict[str, bytes] = field(default_factory=dict)
    """Maps the name of each value file to the name of the key with which the file claims to be signed."""

    def values(self) -> tuple[OfferedValue, ...]:
        """Return descriptions of the values for the user."""
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
    """Check the contents of a pack completely, and return descriptions of its values. Nothing is imported.

    Parameters
    ----------
    path
        The path of the pack.
    signer
        Tells whether this user's key signed the pack.

    Raises
    ------
    PackError
        If ``path`` is missing, is not a pack, or is damaged.
    """
    with _archive(path) as archive:
        contents = _check_pack(archive, str(path), signer)
    return Offer(str(path), fingerprint(contents.signer), contents.is_own, contents.values())


@with_store_errors
def import_pack(store: ValueStore, path: Path) -> Offer:
    """Import the values of a pack into a store, and sign them with this user's key. Return descriptions of the values.

    An imported value that was current in the author's store becomes current in this store if this store has no current value for the same
    notebook, key and partition. Every other imported value is only available for reuse.

    Raises
    ------
    PackError
        If ``path`` is missing, is not a pack, or is damaged. Nothing is imported in these cases.
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
                        raise packs.damaged(label, "the file changed while it was read")
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
    """Open a pack. Convert every error of the file or of its zip format to `PackError`, including errors inside the ``with`` block."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise PackError(f"there is no pack {path}", remedy="check the path: name a file that stepwell pack wrote") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise packs.damaged(str(path), str(error) or type(error).__name__) from error


def _check_pack(archive: zipfile.ZipFile, label: str, signer: Signer) -> _Contents:
    """Check a whole pack and return its contents. If anything in it is wrong, raise `PackError` with ``label`` as the name of the pack."""
    members = _members(archive, label)
    contents = _Contents()
    if not {packs.ROWS, packs.SIGNATURE} <= set(members):
        raise packs.damaged(label, "the file was not made by stepwell pack")
    digest = _read_rows(archive, label, contents)
    if members[packs.SIGNATURE].file_size != SIGNATURE_SIZE:
        raise packs.damaged(label, "the signature of the pack cannot be read")
    signature = archive.read(packs.SIGNATURE)
    contents.signer = key_name(signature)
    contents.is_own = signer.verify(signature, (packs.SIGNED, digest))
    for name, member in members.items():
        if name.startswith(packs.OBJECTS):
            with archive.open(member) as source:
                header, _, key = _copy_value_file(source, member.file_size, None, label)
            if header.name != name.removeprefix(packs.OBJECTS):
                raise packs.damaged(label, f"the value in {name} does not match the digest in this name")
            contents.signers[header.name] = key
            contents.is_own = contents.is_own and (header.codec != PICKLE or key == contents.signer)
    needed = {m.value.object_name for m in contents.materializations.values() if m.value and m.value.object_name}
    if needed != set(contents.signers):
        raise packs.damaged(label, "the value files in the pack are not those that its pack.jsonl lists")
    if not all(row[3] in contents.materializations for row in contents.current):
        raise packs.damaged(label, "its pack.jsonl refers to a value that is not in the pack")
    return contents


def _members(archive: zipfile.ZipFile, label: str) -> dict[str, zipfile.ZipInfo]:
    """Return the files in a pack by name. Raise `PackError` if a name is not allowed, or if files are compressed, encrypted or overlap."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        known = name in (packs.ROWS, packs.SIGNATURE) or (
            name.startswith(packs.OBJECTS) and is_name(name.removeprefix(packs.OBJECTS))
        )
        if not known or name in members or name != member.orig_filename:
            raise packs.damaged(label, f"it contains {name[:100]!r}, which stepwell pack never writes")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.file_size != member.compress_size:
            raise packs.damaged(label, f"{name} in it is compressed or encrypted")
        members[name] = member
    size = os.path.getsize(label)  # noqa: PTH202 - `label` is the path as text
    if sum(member.file_size for member in members.values()) > size:
        raise packs.damaged(label, "the files in it overlap")
    return members


def _read_rows(archive: zipfile.ZipFile, label: str, contents: _Contents) -> bytes:
    """Read ``pack.jsonl`` into ``contents``; return the digest of its bytes."""
    with archive.open(packs.ROWS) as file:
        reader = _Digested(file)
        for index, row in enumerate(packs.read_lines(reader, label)):  # type: ignore[arg-type]  # `read_lines` only calls readline
            kind = row["is"]
            if (kind == "pack") != (index == 0):
                raise packs.damaged(label, "the file was not made by stepwell pack")
            if kind == "pack" and row.get("format") != packs.FORMAT:
                raise packs.damaged(label, f"the pack was made by another version of Stepwell (format {row.get('format')!r})")
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
    """Return the string ``row[name]``. If it is missing or not a string, raise `PackError` with ``label`` as the name of the pack."""
    value = row.get(name)
    if not isinstance(value, str):
        raise packs.damaged(label, "a line of its pack.jsonl cannot be read")
    return value


class _Digested:
    """Wraps an open file, and computes the digest of the bytes that `readline` returns."""

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
    """Read a value file from a pack, check all its digests, and write its bytes to ``target`` unless ``target`` is None.

    Parameters
    ----------
    source, size
        The value file, and its size in bytes.
    target
        The file to which the bytes are written, or None.
    label
        The name of the pack for messages.

    Returns
    -------
    tuple of Header, bytes and bytes
        The header, the bytes of the header, and the name of the key with which the file claims to be signed.
    """
    import blake3

    def take(length: int) -> Iterator[bytes]:
        while length:
            piece = source.read(min(_PIECE, length))
            if not piece:
                raise packs.damaged(label, "a value file in it is incomplete")
            length -= len(piece)
            if target is not None:
                target.write(piece)
            yield piece

    try:
        length, signature = read_prefix(b"".join(take(min(PREFIX.size, size))))
        if PREFIX.size + length > size:
            raise HeaderError("the file is shorter than its header says")  # noqa: TRY301 - reported like an error of the header
        packed = b"".join(take(length))
        header = read_header(packed)
        *_, (_, end) = places = list(header.places(length))
        if end != size:
            raise HeaderError("the size of the file differs from the size in its header")  # noqa: TRY301 - likewise
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
                raise HeaderError("its contents do not match the digests in its header")  # noqa: TRY301 - likewise
            position = end
        # `zipfile` checks the checksum of a file in the archive when the end of the file is read.
        source.read(1)
    except HeaderError as error:
        raise packs.damaged(label, f"a value file in it is damaged: {error}") from error
    return header, packed, key_name(signature)


def _sign_item(item: Materialization, signer: Signer) -> Materialization:
    """Return a materialization with its inline value signed with this user's key; unchanged if it has no inline pickle."""
    value = item.value
    if value is None or value.inline is None or value.codec != PICKLE:
        return item
    return replace(item, value=replace(value, signature=signer.sign((value.codec.encode(), value.inline))))


# -- values in the store ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A materialization whose value is a pickle that this user's key has not signed."""

    item: Materialization
    signer: bytes
    """The name of the key with which the pickle claims to be signed; empty if it has no signature, or if its file cannot be read."""


@dataclass(frozen=True, slots=True)
class ForeignValues:
    """The pickles in a store that this user's key has not signed, as `foreign_values` returns them.

    The user confirms `offer`; then `adopt` signs exactly these values.
    """

    items: tuple[_Foreign, ...]
    offer: Offer
    """Descriptions of the values for the user."""


@with_store_errors
def foreign_values(store: ValueStore, keys: Sequence[str] | None) -> ForeignValues:
    """Return the pickles in a store that this user's key has not signed. A pickle whose file is missing is omitted.

    Parameters
    ----------
    store
        The store.
    keys
        Keys of assets. Only the values of these keys, and of the steps inside them, are returned. None for the whole store.

    Raises
    ------
    UnknownKeyError
        If the store has neither a pickle nor a current value for one of the keys.
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
        signer = key_name(value.signature) if value.object_name is None else objects.signer_of(value.object_name, own_key)
        if signer != own_key and (value.object_name is None or not objects.is_missing(value.object_name)):
            foreign.append(_Foreign(item, signer))
    values = tuple(offered(foreign_value.item, fingerprint(foreign_value.signer)) for foreign_value in foreign)
    offer = Offer(str(objects.folder.path), values[0].signer if values else "", own=not values, values=values)
    return ForeignValues(tuple(foreign), offer)


@with_store_errors
def adopt(store: ValueStore, values: ForeignValues) -> list[str]:
    """Sign, with this user's key, the values that `foreign_values` returned. Return the keys of damaged values, which are not signed."""
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
                # This raises an error if the value in the row does not match its digest.
                packs.read_materialization({"row": packs.row_of(foreign.item)}, foreign.item.key)
                signature = _sign_item(foreign.item, store.signer).value
                if signature is not None and signature.signature is not None:
                    signatures[foreign.item.id] = signature.signature
        except StepwellError:
            damaged_keys.append(foreign.item.key)
    if signatures:
        store.catalog.change(packs.replace_signatures, signatures)
    return damaged_keys

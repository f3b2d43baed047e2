"""Packs: zip files with values and their catalog rows, to be imported into another person's store.

::

    pack.jsonl                   one JSON object per line: a header, materializations, pointers to current materializations, code versions
    objects/ab/<digest>.<codec>  copies of the value files, sorted by name
    signature                    the signature of pack.jsonl, made with the signing key of the person who made the pack

The files in the zip file are not compressed, so unpacking a pack needs no more space than the pack. A pack contains no signing key, run
history, printed output or description of the environment. A pack is written in portions: the rows of at most `_GROUP` keys at a time, and pieces
of files. So memory does not grow with the size of the pack, and other processes can write to the catalog in between. If a user packs the same
values twice, the two packs are identical files.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stepwell.kernel_runtime.errors import PackError, UntrustedValueError, ValueUnavailableError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.maintenance import Offer, OfferedValue
from stepwell.kernel_runtime.records.materializations import NOTEBOOK, Current, Materialization
from stepwell.kernel_runtime.store.catalog import tables
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.schema import (
    MATERIALIZATION_COLUMNS,
    code_row,
    materialization,
    materialization_row,
)
from stepwell.kernel_runtime.store.catalog.tables import append, known_codes, rows_of
from stepwell.kernel_runtime.store.objects.header import is_name, name_of
from stepwell.kernel_runtime.store.signing import fingerprint, key_name
from stepwell.kernel_runtime.store.trouble import with_store_errors
from stepwell.kernel_runtime.store.values.codecs import PICKLE, inline_digest, unpack

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


def read_pickles(connection: Connection, name: str, keys: Sequence[str] | None) -> list[Materialization]:
    """Read the materializations whose stored values are pickles, oldest first.

    Parameters
    ----------
    connection, name
        The connection, and the name of the attached catalog.
    keys
        Keys of assets. The pickles of these assets, and of the steps inside them, are read. None reads all pickles.
    """
    text = f"SELECT {MATERIALIZATION_COLUMNS} FROM @materializations WHERE codec = ?"  # noqa: S608 - constants of our own
    values: list[object] = [PICKLE]
    if keys is not None:
        text += (
            " AND EXISTS (SELECT 1 FROM (SELECT unnest(?::VARCHAR[]) AS asked) "
            "WHERE key = asked OR starts_with(key, asked || '.') OR starts_with(key, asked || ':'))"
        )
        values.append(list(keys))
    return [materialization(row) for row in rows_of(connection, name, text + " ORDER BY rowid", values)]


def add(
    connection: Connection,
    name: str,
    items: Sequence[Materialization],
    codes: Mapping[str, str],
    current: Collection[tuple[str, str, str, str]],
) -> None:
    """Add those rows of a pack that the catalog does not contain yet. The caller has begun a transaction.

    If the catalog already contains a materialization, only the signature of its inline value is taken from ``items``.

    Parameters
    ----------
    connection, name
        The connection, and the name of the attached catalog.
    items
        The materializations of the pack.
    codes
        Maps the digest of a code version to its parts as JSON.
    current
        The pointers of the pack: tuples of notebook, key, partition and materialization id. A pointer is added only if the catalog has no
        pointer for the same notebook, key and partition.
    """
    ids = [item.id for item in items]
    known = {row[0] for row in rows_of(connection, name, _KNOWN, [ids])}
    append(connection, f"{name}.materializations", [materialization_row(m) for m in items if m.id not in known])
    replace_signatures(
        connection,
        name,
        {m.id: m.value.signature for m in items if m.id in known and m.value is not None and m.value.signature is not None},
    )
    known_versions = known_codes(connection, name, codes)
    append(
        connection,
        f"{name}.code_versions",
        [(digest, parts) for digest, parts in codes.items() if digest not in known_versions],
    )
    text = "SELECT DISTINCT notebook, key, partition FROM @current WHERE key IN (SELECT unnest(?::VARCHAR[]))"
    taken = set(rows_of(connection, name, text, [[row[1] for row in current]]))
    now = time.time()
    append(connection, f"{name}.current", [(*row, now) for row in current if row[:3] not in taken])


def replace_signatures(connection: Connection, name: str, signatures: Mapping[str, bytes]) -> None:
    """Replace the signatures of inline values; ``signatures`` maps the ids of their materializations to the new signatures."""
    if signatures:
        rows_of(connection, name, _SIGN, [list(signatures), list(signatures.values())])


_KNOWN = "SELECT id FROM @materializations WHERE id IN (SELECT unnest(?::VARCHAR[]))"
_SIGN = (
    "UPDATE @materializations SET signature = given.signature "
    "FROM (SELECT unnest(?::VARCHAR[]) AS id, unnest(?::BLOB[]) AS signature) AS given WHERE given.id = @materializations.id"
)


FORMAT = 1
ROWS, SIGNATURE, OBJECTS = "pack.jsonl", "signature", "objects/"
SIGNED = b"stepwell pack"
"""The signature of a pack covers these bytes and the digest of ``pack.jsonl``. So a signature that was made for something else is not valid
for a pack."""
LONGEST_LINE = 64 << 20
"""Maximum length in bytes of a line of ``pack.jsonl``. This is ample, because an inline value has at most 64 KiB."""
_BYTES = "base64"


def line(kind: str, **fields: Any) -> bytes:
    """Return a line of ``pack.jsonl``: a JSON object in which the member ``is`` has the value ``kind``, and ``fields`` are the other members."""
    return json.dumps({"is": kind, **fields}, separators=(",", ":"), default=_marked_json).encode() + b"\n"


def materialization_line(item: Materialization) -> bytes:
    """Return the line of ``pack.jsonl`` for a materialization."""
    return line("materialization", row=materialization_row(item))


def row_of(item: Materialization) -> list[Any]:
    """Return the columns of a materialization's row as a list. `read_materialization` accepts ``{"row": LIST}`` with this list."""
    return list(materialization_row(item))


def read_lines(file: IO[bytes], label: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each line of ``pack.jsonl``.

    Parameters
    ----------
    file
        The open file ``pack.jsonl``.
    label
        The name of the pack for messages.

    Raises
    ------
    PackError
        If a line is not a JSON object of a pack.
    """
    while True:
        text = file.readline(LONGEST_LINE + 1)
        if not text:
            return
        try:
            if len(text) > LONGEST_LINE:
                raise ValueError("a line of pack.jsonl is too long")  # noqa: TRY301 - reported like any other bad line
            fields = json.loads(text, object_hook=_unmarked)
            if not isinstance(fields["is"], str):
                raise TypeError(fields["is"])  # noqa: TRY301 - likewise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(label, "a line of its pack.jsonl cannot be read") from error
        yield fields


def read_materialization(fields: dict[str, Any], label: str) -> Materialization:
    """Return the materialization in a line of ``pack.jsonl``. Its columns, and the digest of an inline value, are checked first.

    The result does not contain the signature of the value, because this signature was made with the key of the pack's author. If the value is
    imported, it is signed with this user's key.

    Parameters
    ----------
    fields
        The JSON object of the line.
    label
        The name of the pack for messages.

    Raises
    ------
    PackError
        If the line is not a valid materialization.
    """
    try:
        row = fields["row"]
        # A row with the effects of a cell may have no value, for example if the cell only contains imports: a reuse executes the imports again.
        has_no_value = row[9] is None and row[4] == NOTEBOOK
        without = _OF_THE_VALUE if has_no_value else ()
        if len(row) != _COLUMNS or not all(isinstance(row[column], str) for column in _TEXTS if column not in without):
            raise TypeError("a column is missing or is not a string")  # noqa: TRY301 - reported like any other bad row
        if not all(isinstance(row[column], float | int) for column in _NUMBERS if column not in without):
            raise TypeError("a column is not a number")  # noqa: TRY301 - likewise
        if not isinstance(row[26], bytes | None):
            raise TypeError("the signature of the record is not bytes")  # noqa: TRY301 - likewise
        item = materialization(tuple(row))
        value = item.value
        if value is None and has_no_value:
            return item
        if value is None or not isinstance(value.digest, str) or value.size < 0:
            raise TypeError("the value is missing")  # noqa: TRY301 - likewise
        if value.inline is not None:
            parts = unpack(value.inline)
            digest = inline_digest(value.codec, parts.stream, parts.buffers)
            if digest != value.digest or value.object_name is not None:
                raise ValueError("the inline value does not match its digest")  # noqa: TRY301 - likewise
        elif value.object_name != name_of(value.digest, value.codec) or not is_name(value.object_name):
            raise ValueError("the file name is not the name of a value file")  # noqa: TRY301 - likewise
    except Exception as error:
        raise damaged(label, "the record of a value in it is damaged") from error
    return replace(item, value=replace(value, signature=None))


_COLUMNS = 27
_TEXTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 20, 21, 22, 23, 24, 25)
_NUMBERS = (11, 18, 19)
_OF_THE_VALUE = range(9, 18)


def damaged(label: str, reason: str) -> PackError:
    """Return the error with the message ``the pack LABEL cannot be imported: REASON``."""
    return PackError(
        f"the pack {label} cannot be imported: {reason}",
        where="nothing was imported",
        remedy="ask the author of the pack to make it again with: stepwell pack SELECTION out.zip",
    )


def _marked_json(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {_BYTES: b64encode(value).decode("ascii")}
    return repr(value)


def _unmarked(fields: dict[str, Any]) -> Any:
    return b64decode(fields[_BYTES]) if set(fields) == {_BYTES} else fields


_GROUP = 100
"""Number of keys whose rows are read at once. With inline values of 64 KiB, these rows take some megabytes of memory."""
_PIECE = 4 << 20
_WHEN = (1980, 1, 1, 0, 0, 0)
"""The date of every file in a pack. It is constant, so that packs of the same values are identical."""


@with_store_errors
def write_pack(store: ValueStore, keys: Sequence[str], path: Path) -> Offer:
    """Write a pack with the current materializations of ``keys`` to the file ``path``; return descriptions of its values.

    Raises
    ------
    ValueUnavailableError
        If the file of a value is missing or damaged.
    UntrustedValueError
        If a value that needs a signature was not signed with this user's key.
    PackError
        If the file cannot be written, or none of the keys has a stored value.
    """
    making = path.with_name(f".{path.name}.{new_id()}")
    try:
        with zipfile.ZipFile(making, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            writer = _Writer(store)
            with _member(archive, ROWS) as rows:
                digest = writer.rows(rows, keys)
            for name in sorted(writer.names):
                store.objects.verify(name)
                with store.objects.open_file(name) as source, _member(archive, OBJECTS + name) as target:
                    shutil.copyfileobj(source, target, _PIECE)
            with _member(archive, SIGNATURE) as target:
                target.write(store.signer.sign((SIGNED, digest)))
        making.replace(path)
    except OSError as error:
        raise PackError(
            f"the pack {path} cannot be written", where=str(error), remedy="name a file in a folder that you can write"
        ) from error
    finally:
        making.unlink(missing_ok=True)
    return Offer(str(path), fingerprint(store.signer.name), own=True, values=tuple(writer.values))


class _Writer:
    """Writes ``pack.jsonl``.

    Attributes
    ----------
    names
        The names of the value files to which the written rows refer.
    values
        Descriptions of the values in the written rows.
    """

    def __init__(self, store: ValueStore) -> None:
        self.names: set[str] = set()
        self.values: list[OfferedValue] = []
        self._store = store

    def rows(self, file: IO[bytes], keys: Sequence[str]) -> bytes:
        """Write ``pack.jsonl`` for the current values of ``keys`` to ``file``; return the BLAKE3 digest of the written bytes."""
        import blake3

        digest = blake3.blake3()

        def write(text: bytes) -> None:
            digest.update(text)
            file.write(text)

        write(line("pack", format=FORMAT, key=fingerprint(self._store.signer.name)))
        codes: set[str] = set()
        seen: set[str] = set()
        for group in _groups(sorted(set(keys))):
            for row in self._store.catalog.ask(_read_current, group):
                item = row.materialization
                if item.value is None and item.output != NOTEBOOK:
                    continue
                if item.id not in seen:
                    seen.add(item.id)
                    if item.value is not None:
                        self._check(item)
                        item = replace(item, value=replace(item.value, signature=None))
                    write(materialization_line(item))
                write(
                    line(
                        "current",
                        notebook=row.notebook,
                        key=row.key,
                        partition=row.partition,
                        materialization=item.id,
                    )
                )
                codes.add(item.code_version)
        if not self.values:
            raise PackError(
                "there is nothing to pack, because none of the selected keys has a stored value",
                remedy="materialize the selected assets first; stepwell status lists the assets with a stored value",
            )
        for group in _groups(sorted(codes)):
            for digest_of_code, code in sorted(self._store.catalog.ask(tables.read_codes, group).items()):
                write(line("code", digest=digest_of_code, parts=code_row(code)[1]))
        return digest.digest()

    def _check(self, item: Materialization) -> None:
        value = item.value
        assert value is not None
        own_key = self._store.signer.name
        name = value.object_name
        if name is not None:
            if self._store.objects.is_missing(name):
                raise ValueUnavailableError(
                    f"the stored value of {item.key!r} is missing", remedy=f"materialize {item.key!r} again"
                )
            self.names.add(name)
        signer = b""
        if value.codec == PICKLE:
            signer = key_name(value.signature) if name is None else self._store.objects.signer_of(name, own_key)
            if signer != own_key:
                raise UntrustedValueError(
                    f"the stored value of {item.key!r} was not signed with your key, so it cannot be put into a pack that you sign",
                    remedy=f"if you trust the author of the value, run stepwell trust {item.key}, then make the pack again",
                )
        self.values.append(offered(item, fingerprint(signer)))


def offered(item: Materialization, signer: str) -> OfferedValue:
    """Return a description of a materialization's value for the user.

    ``signer`` is the fingerprint of the key that signed the value; empty if the value needs no signature.
    """
    value = item.value
    assert value is not None
    executes = value.codec == PICKLE
    return OfferedValue(item.key, item.notebook, item.created, value.type_name, value.summary, value.size, executes, signer)


def _read_current(connection: Any, name: str, keys: Sequence[str]) -> list[Current]:
    rows = [row for key in keys for row in tables.read_current(connection, name, key)]
    return sorted(rows, key=lambda row: (row.key, row.notebook, row.partition))


def _groups(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _GROUP):
        yield keys[start : start + _GROUP]


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    info = zipfile.ZipInfo(name, _WHEN)
    info.external_attr = 0o600 << 16
    return archive.open(info, "w", force_zip64=True)

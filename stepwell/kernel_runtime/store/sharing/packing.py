"""Writing a pack: what is current for some keys, with its code, to share with somebody else.

Rows are read in groups and files copied in pieces, so memory does not grow with what is packed; the catalog is asked in
between, never held, so that others go on writing. The same values make the same file.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from stepwell.kernel_runtime.errors import PackError, UntrustedValueError, ValueUnavailableError
from stepwell.kernel_runtime.records.effects import NOTEBOOK
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.packs import Offer, OfferedValue
from stepwell.kernel_runtime.store.catalog import reading
from stepwell.kernel_runtime.store.catalog.schema import code_row
from stepwell.kernel_runtime.store.objects.files import Objects
from stepwell.kernel_runtime.store.sharing import packs
from stepwell.kernel_runtime.store.signing import Signer, fingerprint, key_name
from stepwell.kernel_runtime.store.values.codecs import PICKLE

Ask = Callable[[Callable[[Any, str], Any]], Any]
_GROUP = 100
"""Keys that are read at once: with 64 KiB inline each, some megabytes."""
_PIECE = 4 << 20
_WHEN = (1980, 1, 1, 0, 0, 0)
"""The date of every member: a pack of the same values is the same file."""


def write_pack(keys: Sequence[str], path: Path, ask: Ask, objects: Objects, signer: Signer) -> Offer:
    """Write what is current for some keys into a pack, and return what is in it.

    Parameters
    ----------
    ask
        Answers questions to the catalog: called with a function of a connection and the catalog's name.

    Raises
    ------
    ValueUnavailableError
        If a value's file is gone or damaged.
    UntrustedValueError
        If a value was not signed with this user's key.
    PackError
        If the file cannot be written, or nothing that was asked for has a stored value.
    """
    making = path.with_name(f".{path.name}.{new_id()}")
    try:
        with zipfile.ZipFile(making, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            writer = _Writer(objects, signer)
            with _member(archive, packs.ROWS) as rows:
                digest = writer.rows(rows, keys, ask)
            for name in sorted(writer.names):
                objects.verify(name)
                with objects.opened(name) as source, _member(archive, packs.OBJECTS + name) as target:
                    shutil.copyfileobj(source, target, _PIECE)
            with _member(archive, packs.SIGNATURE) as target:
                target.write(signer.sign((packs.SIGNED, digest)))
        making.replace(path)
    except OSError as error:
        raise PackError(
            f"the pack {path} cannot be written", where=str(error), remedy="name a file in a folder that you can write"
        ) from error
    finally:
        making.unlink(missing_ok=True)
    return Offer(str(path), fingerprint(signer.name), own=True, values=tuple(writer.values))


class _Writer:
    """Writes the rows and remembers which files they need."""

    def __init__(self, objects: Objects, signer: Signer) -> None:
        self.names: set[str] = set()
        self.values: list[OfferedValue] = []
        self._objects = objects
        self._signer = signer

    def rows(self, file: IO[bytes], keys: Sequence[str], ask: Ask) -> bytes:
        """Write every row, and return the digest of what was written."""
        import blake3

        digest = blake3.blake3()

        def write(text: bytes) -> None:
            digest.update(text)
            file.write(text)

        write(packs.line("pack", format=packs.FORMAT, key=fingerprint(self._signer.name)))
        codes: set[str] = set()
        seen: set[str] = set()
        for group in _groups(sorted(set(keys))):
            for row in ask(partial(_read, keys=group)):
                item = row.materialization
                if item.value is None and item.output != NOTEBOOK:
                    continue
                if item.id not in seen:
                    seen.add(item.id)
                    if item.value is not None:
                        self._check(item)
                        item = replace(item, value=replace(item.value, signature=None))
                    write(packs.materialization_line(item))
                write(
                    packs.line(
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
                "there is nothing to pack: nothing that was named has a stored value",
                remedy="stepwell status lists what is stored",
            )
        for some in _groups(sorted(codes)):
            for digest_of_code, code in sorted(ask(partial(reading.read_codes, digests=some)).items()):
                write(packs.line("code", digest=digest_of_code, parts=code_row(code)[1]))
        return digest.digest()

    def _check(self, item: Materialization) -> None:
        value = item.value
        assert value is not None
        own = self._signer.name
        name = value.object_name
        if name is not None:
            if self._objects.missing(name):
                raise ValueUnavailableError(
                    f"the stored value of {item.key!r} is gone", remedy=f"materialize {item.key!r} again"
                )
            self.names.add(name)
        by = b""
        if value.codec == PICKLE:
            by = key_name(value.signature) if name is None else self._objects.signer_of(name, own)
            if by != own:
                raise UntrustedValueError(
                    f"the stored value of {item.key!r} was not written by you, so you cannot vouch for it",
                    remedy=f"if you trust who wrote it: stepwell trust {item.key}; then pack again",
                )
        self.values.append(offered(item, fingerprint(by)))


def offered(item: Materialization, signer: str) -> OfferedValue:
    """Return what is told of a materialization's value."""
    value = item.value
    assert value is not None
    executes = value.codec == PICKLE
    return OfferedValue(
        item.key, item.notebook, item.created, value.type_name, value.summary, value.size, executes, signer
    )


def _read(connection: Any, name: str, keys: Sequence[str]) -> list[Current]:
    found = [row for key in keys for row in reading.read_current(connection, name, key)]
    return sorted(found, key=lambda row: (row.key, row.notebook, row.partition))


def _groups(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(keys), _GROUP):
        yield keys[at : at + _GROUP]


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    told = zipfile.ZipInfo(name, _WHEN)
    told.external_attr = 0o600 << 16
    return archive.open(told, "w", force_zip64=True)

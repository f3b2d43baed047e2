"""The form of a pack: a zip of value files and their rows, for somebody else's store.

::

    pack.jsonl                   one JSON object a line: the pack itself, code versions, materializations, what is current
    objects/ab/<digest>.<codec>  value files as they are in the store, in the order of their names
    signature                    over pack.jsonl, by the key of who packed it

Nothing in it is compressed, so it cannot unpack to more than it is. It holds no key, no run history, no printed output and nothing
of the environment.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

from stepwell.kernel_runtime.errors import PackError
from stepwell.kernel_runtime.records.effects import NOTEBOOK
from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.store.catalog.schema import materialization, materialization_row
from stepwell.kernel_runtime.store.objects.files import is_name
from stepwell.kernel_runtime.store.objects.header import name_of
from stepwell.kernel_runtime.store.objects.inline_form import inline_digest, unpack

FORMAT = 1
ROWS, SIGNATURE, OBJECTS = "pack.jsonl", "signature", "objects/"
SIGNED = b"stepwell pack"
"""What the signature of a pack begins with, so that it is none over anything else."""
LONGEST_LINE = 64 << 20
"""Bytes of the longest line of ``pack.jsonl``; an inline value has at most 64 KiB."""
_BYTES = "base64"


def line(kind: str, **found: Any) -> bytes:
    """Return one line of ``pack.jsonl``."""
    return json.dumps({"is": kind, **found}, separators=(",", ":"), default=_marked).encode() + b"\n"


def materialization_line(item: Materialization) -> bytes:
    """Return the line of a materialization; an inline value's signature is left out, that of the pack counts."""
    return line("materialization", row=materialization_row(item))


def row_of(item: Materialization) -> list[Any]:
    """Return a materialization as `read_materialization` takes it."""
    return list(materialization_row(item))


def read_lines(file: IO[bytes], what: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of ``pack.jsonl``.

    Raises
    ------
    PackError
        If one is no line of a pack.
    """
    while True:
        text = file.readline(LONGEST_LINE + 1)
        if not text:
            return
        try:
            if len(text) > LONGEST_LINE:
                raise ValueError("a line is too long")  # noqa: TRY301 - told like every other way of being no line
            found = json.loads(text, object_hook=_unmarked)
            if not isinstance(found["is"], str):
                raise TypeError(found["is"])  # noqa: TRY301 - likewise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(what, "a row cannot be read") from error
        yield found


def read_materialization(found: dict[str, Any], what: str) -> Materialization:
    """Return the materialization of a line after checking that its value is what its digest says, where it is inline.

    Raises
    ------
    PackError
        If it is none.
    """
    try:
        row = found["row"]
        # What a cell left in the notebook need not be a value: imports and functions are executed again.
        alone = row[9] is None and row[4] == NOTEBOOK
        without = _OF_THE_VALUE if alone else ()
        if len(row) != _COLUMNS or not all(isinstance(row[at], str) for at in _TEXTS if at not in without):
            raise TypeError("a column is missing or no text")  # noqa: TRY301 - told like every other way of being no row
        if not all(isinstance(row[at], float | int) for at in _NUMBERS if at not in without):
            raise TypeError("a column is no number")  # noqa: TRY301 - likewise
        if not isinstance(row[26], bytes | None):
            raise TypeError("its signature is none")  # noqa: TRY301 - likewise
        item = materialization(tuple(row))
        value = item.value
        if value is None and alone:
            return item
        if value is None or not isinstance(value.digest, str) or value.size < 0:
            raise TypeError("it has no value")  # noqa: TRY301 - likewise
        if value.inline is not None:
            parts = unpack(value.inline)
            again = inline_digest(value.codec, parts.stream, parts.buffers)
            if again != value.digest or value.object_name is not None:
                raise ValueError("its digest is another")  # noqa: TRY301 - likewise
        elif value.object_name != name_of(value.digest, value.codec) or not is_name(value.object_name):
            raise ValueError("its file is no value's")  # noqa: TRY301 - likewise
    except Exception as error:
        raise damaged(what, "a materialization in it is damaged") from error
    return replace(item, value=replace(value, signature=None))


_COLUMNS = 27
_TEXTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 20, 21, 22, 23, 24, 25)
_NUMBERS = (11, 18, 19)
_OF_THE_VALUE = range(9, 18)


def damaged(what: str, how: str) -> PackError:
    """Return the error of a pack that is refused whole."""
    return PackError(
        f"{what} is no pack that can be trusted: {how}",
        where="nothing of it was imported",
        remedy="have it packed again: stepwell pack SELECTION out.zip",
    )


def _marked(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {_BYTES: b64encode(value).decode("ascii")}
    return repr(value)


def _unmarked(found: dict[str, Any]) -> Any:
    return b64decode(found[_BYTES]) if set(found) == {_BYTES} else found

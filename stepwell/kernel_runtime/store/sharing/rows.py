"""The rows of values that are taken over from somebody else: found, added, signed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from stepwell.kernel_runtime.records.materializations import Materialization
from stepwell.kernel_runtime.store.catalog.instance import Connection
from stepwell.kernel_runtime.store.catalog.reading import known_codes, rows_of
from stepwell.kernel_runtime.store.catalog.schema import MATERIALIZATION_COLUMNS, materialization, materialization_row
from stepwell.kernel_runtime.store.catalog.writing import append
from stepwell.kernel_runtime.store.values.codecs import PICKLE


def read_pickles(connection: Connection, name: str, keys: Sequence[str] | None) -> list[Materialization]:
    """Read the materializations whose values are pickles: of some keys and the steps inside them, or of all, oldest first."""
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
    """Add what is not there yet; something becomes current only where its notebook has nothing for the key.

    Parameters
    ----------
    codes
        By code version, the column with its parts.
    current
        Notebook, key, partition, id of the materialization.
    """
    ids = [item.id for item in items]
    known = {row[0] for row in rows_of(connection, name, _KNOWN, [ids])}
    append(connection, f"{name}.materializations", [materialization_row(m) for m in items if m.id not in known])
    sign(
        connection,
        name,
        {
            m.id: m.value.signature
            for m in items
            if m.id in known and m.value is not None and m.value.signature is not None
        },
    )
    there = known_codes(connection, name, codes)
    append(connection, f"{name}.code_versions", [(of, parts) for of, parts in codes.items() if of not in there])
    text = "SELECT DISTINCT notebook, key, partition FROM @current WHERE key IN (SELECT unnest(?::VARCHAR[]))"
    taken = set(rows_of(connection, name, text, [[row[1] for row in current]]))
    now = time.time()
    append(connection, f"{name}.current", [(*row, now) for row in current if row[:3] not in taken])


def sign(connection: Connection, name: str, signatures: Mapping[str, bytes]) -> None:
    """Give rows other signatures, by the id of the materialization."""
    if signatures:
        rows_of(connection, name, _SIGN, [list(signatures), list(signatures.values())])


_KNOWN = "SELECT id FROM @materializations WHERE id IN (SELECT unnest(?::VARCHAR[]))"
_SIGN = (
    "UPDATE @materializations SET signature = given.signature "
    "FROM (SELECT unnest(?::VARCHAR[]) AS id, unnest(?::BLOB[]) AS signature) AS given WHERE given.id = @materializations.id"
)

"""What a value file says of the step that made it: enough for ``stepwell doctor --rebuild`` to make its row again.

It is the materialization's own row without the value's columns, as one object of the file's header. What the step had read is part of it, so a
row that is made from it is reused under the same conditions as the lost one was. The header is written before the row is, and also
for what a step produced before it failed: that has no memo key, here as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stepwell.kernel_runtime.errors import StoreDamagedError
from stepwell.kernel_runtime.records.materializations import Materialization, StoredValue
from stepwell.kernel_runtime.store.catalog.schema import (
    LATEST,
    MATERIALIZATION_COLUMNS,
    materialization,
    materialization_row,
)

REBUILT = "stepwell:rebuilt"
"""In the metadata of a materialization whose row was made from a file's header."""
_COLUMNS = tuple(MATERIALIZATION_COLUMNS.split(", "))
_OF_THE_VALUE = frozenset(
    ("codec", "digest", "size", "inline", "object_name", "signature", "type_name", "summary", "classes")
)
_TOLD = frozenset(_COLUMNS) - _OF_THE_VALUE - {"record_signature"}


def about(made: Materialization) -> dict[str, Any]:
    """Return what a value file says of its materialization; JSON values."""
    row = materialization_row(replace(made, value=None))
    return {name: value for name, value in zip(_COLUMNS, row, strict=True) if name not in _OF_THE_VALUE and value}


def _row(told: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple([(told.get(name, "") if name in _TOLD else None) for name in _COLUMNS])


def _is_possible(name: str, value: object) -> bool:
    if name in {"created", "seconds"}:
        return isinstance(value, float | int) and 0 <= value < LATEST
    return isinstance(value, str)


def rebuilt(told: Mapping[str, Any], value: StoredValue, *, key: str, id_: str, created: float) -> Materialization:
    """Return a materialization from what a file says of it.

    A file that does not say what its step had read gives a value that can be loaded and is never reused.

    Parameters
    ----------
    told
        What `about` gave; may be empty.
    created
        When the file was written, where it does not say so itself.
    """
    empty: dict[str, Any] = {"inputs": "[]", "reads": "[]", "unverifiable": "[]", "metadata": "{}"}
    empty |= {"created": created, "seconds": 0.0}
    # Whoever wrote the header may have said anything. A record that is made of it has a new name, so no signature is over it.
    if not all(_is_possible(name, told[name]) for name in _TOLD if name in told):
        told = {}
    try:
        found = materialization(_row({**empty, **told}))
    except StoreDamagedError:
        told = {}
        found = materialization(_row(empty))
    return replace(
        found,
        id=id_,
        key=found.key or key,
        step_key=found.step_key or key,
        output=found.output or "result",
        memo_key=found.memo_key if told else "",
        data_version=found.data_version or value.digest,
        value=value,
        metadata={**found.metadata, REBUILT: True},
    )

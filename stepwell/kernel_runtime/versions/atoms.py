"""The encoding of atoms, and the digest over encodings.

Atoms are written by ``marshal`` in its version 2: typed (1, 1.0, True and "1" differ, -0.0 differs from 0.0), self-delimiting,
without references and interning, and quick. It is used for exact atom types only: of anything else marshal would silently write
the buffer. NaN has many bit patterns and one encoding.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from types import CodeType, EllipsisType, NoneType
from typing import Any

from blake3 import blake3

PLAIN: frozenset[type] = frozenset({int, str, bytes, bool, NoneType, EllipsisType})
"""Types that marshal writes canonically whatever the value."""
ATOMS: frozenset[type] = PLAIN | {float, complex}
NAN = b"\xc2"


def atom(value: Any) -> bytes:
    """Return the encoding of an atom, or of a constant tuple or frozenset of such."""
    kind = type(value)
    if kind in PLAIN:
        return marshal.dumps(value, 2)
    if kind is float:
        return marshal.dumps(value, 2) if value == value else NAN  # noqa: PLR0124 - NaN differs from itself
    if kind is complex:
        return marshal.dumps(value, 2) if value == value else b"\xc3" + atom(value.real) + atom(value.imag)  # noqa: PLR0124 - as above
    if kind is tuple:
        return (
            marshal.dumps(value, 2)
            if atoms_only(value)
            else b"(" + len(value).to_bytes(4, "little") + b"".join(map(atom, value))
        )
    if kind is frozenset:
        return b"\x81>" + len(value).to_bytes(4, "little") + b"".join(sorted(map(atom, value)))
    if kind is slice:
        return b"\x82" + atom((value.start, value.stop, value.step))
    if kind is CodeType:
        raise TypeError("code objects are read by bytecode.facts")
    raise TypeError(f"{kind.__name__} is not an atom")


def atoms_only(values: Iterable[Any]) -> bool:
    """Whether marshal writes all of the values canonically."""
    kinds = set(map(type, values))
    if kinds <= PLAIN:
        return True
    if not kinds <= ATOMS or complex in kinds:
        return False
    total = sum([value for value in values if type(value) is float])
    return bool(total == total)  # noqa: PLR0124 - a NaN among them makes the sum NaN


def digest(data: bytes) -> bytes:
    """Return 16 bytes."""
    found: bytes = blake3(data).digest(16)
    return found


def hexdigest(data: bytes) -> str:
    """Return 32 hexadecimal digits."""
    found: str = blake3(data).hexdigest(16)
    return found

"""Encoding of atoms, the digest of encodings, and how a path to an object is written: ``target -> helper -> CONN``.

Atoms are written by ``marshal`` in its version 2. It is typed (1, 1.0, True and "1" differ, -0.0 differs from 0.0), self-delimiting,
quick, and free of references and interning. It is used for exact atom types only: for any other type marshal would silently write
the buffer. NaN has many bit patterns and one encoding.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from types import CodeType, EllipsisType, NoneType
from typing import Any

from blake3 import blake3

from stepwell.kernel_runtime.versions.secrets import hidden_text

ARROW = " -> "
IGNORED = "(ignore)"
"""Ends the path of the part that lists the names which do not count."""
_MOST_STEPS = 12


def reached(path: str, label: str) -> str:
    """Return the path of what is called `label` in the thing at `path`.

    A name is a step of its own; an attribute, an item or a default belongs to the thing that has it. The middle of a
    long path is left out.
    """
    if not label:
        return path
    if label[0] in ".[(":
        # A key of a mapping may be anything, a token too.
        return path + (hidden_text(label) if label[0] == "[" else label)
    if path.count(ARROW) >= _MOST_STEPS:
        steps = path.split(ARROW)
        path = ARROW.join([*steps[:4], "..", *steps[-5:]])
    return path + ARROW + label


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

"""Bytecode without its NOPs.

The compiler leaves a NOP where a line would otherwise have no instruction to trace: ``pass`` on a line of its own, a ``while
True:``. They mean nothing, so that a formatter that moves a line break must not change what code means. Taking them out moves
the targets of jumps and the ranges of the exception table.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator

EXTENDED = dis.opmap["EXTENDED_ARG"]
NOP = dis.opmap["NOP"]
JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


def without_nops(raw: bytes, table: bytes) -> tuple[bytes, bytes]:
    """Return the instructions without NOPs, which the compiler adds only so that a line can be traced."""
    count = len(raw) // 2
    new_at = []
    kept = 0
    for at in range(count):
        new_at.append(kept)
        if raw[2 * at] != NOP:
            kept += 1
    new_at.append(kept)
    out = bytearray()
    argument = 0
    extended = 0
    for at in range(count):
        operation = raw[2 * at]
        if operation == NOP:
            continue
        argument = argument << 8 | raw[2 * at + 1]
        if operation == EXTENDED:
            extended += 1
        else:
            if operation in JUMPS:
                # Relative to the next instruction, behind the jump's own caches.
                following = at + 1 + _caches(raw, at)
                backward = "BACKWARD" in dis.opname[operation]
                target = following - argument if backward else following + argument
                here = new_at[following]
                argument = here - new_at[target] if backward else new_at[target] - here
                for place in range(1, extended + 1):
                    out[-2 * place + 1] = argument >> 8 * place & 0xFF
            extended = 0
        out += bytes((operation, argument & 0xFF))
        if operation != EXTENDED:
            argument = 0
    entries: list[int] = []
    for start, length, target, depth in _entries(table):
        entries += (new_at[start], new_at[start + length] - new_at[start], new_at[target], depth)
    return bytes(out), _varints(entries)


def _caches(raw: bytes, at: int) -> int:
    count = 0
    while 2 * (at + 1 + count) < len(raw) and raw[2 * (at + 1 + count)] == 0:
        count += 1
    return count


def _entries(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Read an exception table: start, length, target, depth and lasti, in code units."""
    numbers = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 0x3F
        if not byte & 0x40:
            numbers.append(value)
            value = 0
    for at in range(0, len(numbers) - 3, 4):
        yield numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]


def _varints(numbers: list[int]) -> bytes:
    """Write numbers as an exception table does: six bits a byte, 0x40 for more, 0x80 at the first of an entry."""
    out = bytearray()
    for place, number in enumerate(numbers):
        digits = [number & 0x3F]
        rest = number >> 6
        while rest:
            digits.append(rest & 0x3F | 0x40)
            rest >>= 6
        digits.reverse()
        if place % 4 == 0:
            digits[0] |= 0x80
        out += bytes(digits)
    return bytes(out)

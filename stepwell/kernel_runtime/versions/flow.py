"""The flow of control of a code object, in one form for all layouts of its source.

Where a line breaks, the compiler makes other bytecode for the same source: it follows a jump to a jump, copies the end of a
function, turns a condition around and swaps instructions only where their lines allow it. So the instructions are taken as a graph
of blocks, and the graph is reduced: empty blocks and chains are joined, equal blocks are one, and the order is that in which a walk
from the first block meets them. What remains says what happens, in which order, and where an exception goes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from types import CodeType
from typing import TypeAlias

from stepwell.kernel_runtime.versions.opcodes import (
    GOTO,
    JUMPS,
    NO_VALUE,
    POP_TOP,
    QUIET,
    STOPS,
    STORE_FAST,
    SWAP,
    TESTS,
    Decoded,
    Instruction,
)

Write: TypeAlias = Callable[[list[Instruction]], bytes]
"""Encodes instructions without jumps; equal bytes mean the same."""
Cover: TypeAlias = tuple[int, int]
"""The block that handles an exception, -1 for none; with the depth of the stack there and whether the place of the exception is pushed."""
_STOP, _GOTO, _TEST, _BRANCH = range(4)
_TRUTH = 0


class Block:
    """Instructions that run one after another."""

    __slots__ = ("code", "content", "covers", "end", "steps", "targets")

    def __init__(self, steps: list[Instruction]) -> None:
        self.steps = _settled(steps)
        self.covers: list[Cover] = []
        """Of each instruction that can raise, the block that handles the exception. Empty where there are none."""
        self.content = b""
        """The steps, encoded."""
        self.end = _STOP
        """How it ends: in a stop, in a goto, in a test or in another instruction that may jump."""
        self.code = 0
        """What is tested (truth or None), or which instruction may jump."""
        self.targets: list[tuple[int, bool]] = []
        """The blocks that follow, each with whether a tested value is kept: of a test, those for no and yes."""


def ordered(code: CodeType, decoded: Decoded, write: Write) -> tuple[list[Block], tuple[int, ...]]:
    """Return the blocks of a code object in their one order, and how they follow each other.

    Parameters
    ----------
    decoded
        The code object's instructions.
    write
        Encodes what a block does.
    """
    table = code.co_exceptiontable
    if not decoded.jumps and not table:
        only = Block(decoded.instructions)
        only.content = write(only.steps)
        return [only], ()
    blocks = _split(decoded, code.co_code, table)
    _thread(blocks)
    for block in blocks:
        block.content = write(block.steps)
    start = _merge_equal(blocks, 0)
    _join(blocks, start, write)
    start = _merge_equal(blocks, start)
    return _number(blocks, start)


# -- from instructions to blocks


def _split(decoded: Decoded, raw: bytes, table: bytes) -> list[Block]:
    """Return the blocks in the order of the bytecode."""
    instructions, places = decoded[:2]
    count = len(instructions)
    covered = [(-1, 0)] * count
    starts = {0}
    for begin, length, target, depth in _handlers(table):
        first, last, handler = (bisect_left(places, place) for place in (begin, begin + length, target))
        covered[first:last] = [(handler, depth)] * (last - first)
        starts.add(handler)
    for at, (op, _, value) in enumerate(instructions):
        if op in JUMPS:
            starts |= {at + 1, bisect_left(places, value)}
        elif op in STOPS:
            starts.add(at + 1)
    starts.discard(count)
    order = sorted(starts)
    number = {start: at for at, start in enumerate(order)}
    number[-1] = -1
    blocks = []
    for start, stop in pairwise((*order, count)):
        steps = instructions[start:stop]
        op, _, place = steps[-1]
        if op in JUMPS:
            del steps[-1]
        block = Block(steps)
        blocks.append(block)
        if table:
            block.covers = [
                (number[handler], depth)
                for (handler, depth), at in zip(covered[start:stop], places[start:stop], strict=True)
                if raw[2 * at] not in QUIET
            ]
        following = number.get(stop, -1)
        if op in JUMPS:
            target = number[bisect_left(places, place)]
            if op in GOTO:
                block.end, block.targets = _GOTO, [(target, False)]
            elif op in TESTS:
                block.end = _TEST
                block.code, outcome, keeps = TESTS[op]
                block.targets = (
                    [(following, False), (target, keeps)] if outcome else [(target, keeps), (following, False)]
                )
            else:
                block.end, block.code, block.targets = _BRANCH, op, [(following, False), (target, False)]
        elif op not in STOPS:
            block.end, block.targets = _GOTO, [(following, False)]
    return blocks


def _settled(steps: list[Instruction]) -> list[Instruction]:
    """Return instructions with swaps of what is stored at once resolved: the compiler does so only within a line."""
    operations = [step[0] for step in steps]
    if SWAP not in operations and operations.count(STORE_FAST) < 2:
        return steps
    found: list[Instruction] = []
    run: list[Instruction] = []
    for step in steps:
        if step[0] in {STORE_FAST, POP_TOP, SWAP}:
            run.append(step)
            continue
        if run:
            found += _stored(run) if len(run) > 1 else run
            run = []
        found.append(step)
    return found + (_stored(run) if len(run) > 1 else run)


def _stored(run: list[Instruction]) -> list[Instruction]:
    """Return stores and swaps as what each value on the stack ends up in, from the top; the last of two stores to a local counts."""
    stack = list(range(len(run) + max((argument for op, argument, _ in run if op == SWAP), default=0)))
    variables: dict[int, int] = {}
    taken = 0
    for op, argument, _ in run:
        if op == SWAP:
            stack[0], stack[argument - 1] = stack[argument - 1], stack[0]
            continue
        value = stack.pop(0)
        taken += 1
        if op == STORE_FAST:
            variables[argument] = value
    if stack != list(range(taken, taken + len(stack))):
        # Something is swapped that stays on the stack.
        return run
    stored = {value: local for local, value in variables.items()}
    return [
        (STORE_FAST, stored[value], NO_VALUE) if value in stored else (POP_TOP, 0, NO_VALUE) for value in range(taken)
    ]


def _handlers(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Read an exception table: start, length and target in code units, then depth and lasti."""
    numbers = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 0x3F
        if not byte & 0x40:
            numbers.append(value)
            value = 0
    for at in range(0, len(numbers) - 3, 4):
        yield numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]


# -- from any graph to the reduced one


def _thread(blocks: list[Block]) -> None:
    """Let every jump go where it ends up: through blocks that do nothing, and through tests of which the outcome is known."""

    def end(target: tuple[int, bool], outcome: int) -> tuple[int, bool]:
        seen = set()
        while target not in seen:
            seen.add(target)
            number, kept = target
            block = blocks[number]
            if block.steps:
                break
            if block.end == _GOTO:
                target = (block.targets[0][0], kept)
            elif kept and block.end == _TEST and block.code == _TRUTH:
                target = block.targets[outcome]
            else:
                break
        return target

    for block in blocks:
        block.targets = [end(target, outcome) for outcome, target in enumerate(block.targets)]
        block.covers = [(end((handler, False), 0)[0] if handler >= 0 else -1, depth) for handler, depth in block.covers]


def _reached(blocks: list[Block], start: int) -> list[int]:
    """Return the numbers of the blocks that can run, in the order in which a walk meets them."""
    found = [start]
    seen = {start}
    for number in found:
        block = blocks[number]
        for following, _ in (*block.targets, *block.covers):
            if following >= 0 and following not in seen:
                seen.add(following)
                found.append(following)
    return found


def _merge_equal(blocks: list[Block], start: int) -> int:
    """Let blocks that do the same and go on to the same be one; return the number of the first block."""
    order = _reached(blocks, start)
    first: dict[tuple[object, ...], int] = {}
    # Begin with what blocks do, then part those that go on to different blocks, until none are parted.
    parts = {-1: -1}
    for number in order:
        block = blocks[number]
        does = (block.content, block.end, block.code, *[how for _, how in (*block.targets, *block.covers)])
        parts[number] = first.setdefault(does, number)
    count = len(first)
    while count < len(order):
        first = {}
        parted = {-1: -1}
        for number in order:
            block = blocks[number]
            goes = (parts[number], *[parts[target] for target, _ in (*block.targets, *block.covers)])
            parted[number] = first.setdefault(goes, number)
        parts = parted
        if len(first) == count:
            break
        count = len(first)
    if count < len(order):
        for number in order:
            block = blocks[number]
            block.targets = [(parts[target], kept) for target, kept in block.targets]
            block.covers = [(parts[handler], depth) for handler, depth in block.covers]
    return parts[start]


def _join(blocks: list[Block], start: int, write: Write) -> None:
    """Append to a block what always follows it: a block that only it goes to, or an end, which the compiler may have copied."""
    order = _reached(blocks, start)
    entries = dict.fromkeys([-1, *order], 0)
    entries[start] = 1
    for number in order:
        block = blocks[number]
        for target, _ in {*block.targets, *block.covers}:
            entries[target] += 1
    # From the end, so that what is appended is complete.
    for number in reversed(order):
        block = blocks[number]
        joined = False
        while block.end == _GOTO:
            target = block.targets[0][0]
            following = blocks[target]
            if target == number or (entries[target] > 1 and following.end != _STOP):
                break
            joined = True
            block.steps = block.steps + following.steps
            block.covers = block.covers + following.covers
            block.end, block.code, block.targets = following.end, following.code, following.targets
        if joined:
            block.content = write(block.steps)


def _number(blocks: list[Block], start: int) -> tuple[list[Block], tuple[int, ...]]:
    """Return the blocks in the order in which a walk meets them, and the numbers of those that follow each."""
    order = _reached(blocks, start)
    number = {old: new for new, old in enumerate(order)}
    number[-1] = -1
    shape: list[int] = []
    for old in order:
        block = blocks[old]
        shape += (block.end, block.code)
        for target, kept in block.targets:
            shape += (number[target], kept)
        for (handler, depth), same in groupby(block.covers):
            shape += (number[handler], depth, len(list(same)))
    return [blocks[old] for old in order], tuple(shape)

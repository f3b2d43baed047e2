"""The instructions of each CPython version, and a form of the control flow that does not depend on the source's layout.

Only this module names opcodes.

Every minor version has different instructions. `decode` translates the bytecode of the running version into a smaller set of instructions,
without details of the compiler or the interpreter:

- inline caches, NOPs and marks for tracing are left out, and so is EXTENDED_ARG;
- a fused instruction is split in two, because CPython fuses only instructions of one line, and a formatter's line break must not count;
- variants that differ only in reference counting or in checks become one instruction;
- the preparation of a call is left out: ``np.exp(x)`` loads a method, or an attribute and a NULL, depending on the place where ``np`` is
  imported, and moving the import to another cell must not count;
- a constant is replaced by its value, which minor versions keep in ``co_consts``, in the argument, or in a table of the interpreter.

The bytecode of a minor version that is not in `TESTED` is not read, because an instruction may have another meaning.

The compiler's optimizations depend on line breaks: it shortens a jump to a jump, copies the end of a function, inverts a condition and
swaps instructions only if the line numbers allow it. So the instructions are split into a graph of blocks, and the graph is reduced: empty
blocks are skipped, chains are joined, equal blocks are merged, and the blocks are put in the order of a walk from the first block. The
result contains the operations, their order, and the handlers of exceptions.
"""

from __future__ import annotations

import dis
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from types import CodeType
from typing import Any, NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Packing:
    """The encoding of instruction arguments in a minor version: bits in addition to an index, and constants."""

    attribute: int
    """Number of bits below the name's index in the argument of LOAD_ATTR; they select the load of a method."""
    imported: int = 0
    """Number of bits below the name's index in the argument of IMPORT_NAME; they select a lazy import."""
    common: Mapping[int, object] = field(default_factory=dict)
    """The arguments of LOAD_COMMON_CONSTANT that mean values, with these values; all others mean builtins."""


_PACKING = {
    (3, 11): Packing(attribute=0),
    (3, 12): Packing(attribute=1),
    (3, 13): Packing(attribute=1),
    (3, 14): Packing(attribute=1),
    (3, 15): Packing(attribute=1, imported=2, common={7: None, 8: "", 9: True, 10: False, 11: -1}),
}
TESTED = frozenset(_PACKING)
"""Minor versions of CPython on which all tests of edits pass."""
THIS = sys.version_info[:2]


def untested() -> str:
    """Return the reason why bytecode cannot be read on this version of Python; empty if it can be read."""
    if THIS in TESTED and sys.implementation.name == "cpython":
        return ""
    name = "Python" if sys.implementation.name == "cpython" else sys.implementation.name
    return f"this version of stepwell cannot read the code of {name} {THIS[0]}.{THIS[1]}"


_FUSED = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
}
"""Fused pairs of instructions on local variables; the argument holds both indices, four bits each."""
_VARIANTS = {"LOAD_FAST_BORROW": "LOAD_FAST", "LOAD_FAST_CHECK": "LOAD_FAST", "LOAD_METHOD": "LOAD_ATTR"}
_MEANINGLESS = ("CACHE", "NOP", "NOT_TAKEN")
_GOTO = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")
_TESTS = {
    f"POP_JUMP_{way}IF_{what}": (kind, outcome, False)
    for way in ("", "FORWARD_", "BACKWARD_")
    for what, kind, outcome in (("TRUE", 0, True), ("FALSE", 0, False), ("NONE", 1, True), ("NOT_NONE", 1, False))
} | {"JUMP_IF_TRUE_OR_POP": (0, True, True), "JUMP_IF_FALSE_OR_POP": (0, False, True)}
"""Conditional jumps: the test (truth or None), the outcome that causes the jump, and True if the value then stays on the stack."""
_STOPS = ("RETURN_VALUE", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT")
# The argument of this instruction is the beginning of the loop, but the instruction does not jump.
_NO_JUMPS = ("END_ASYNC_FOR",)

_OP = {name: number for name, number in dis.opmap.items() if number < 256}


def _numbers(names: Iterable[str]) -> frozenset[int]:
    return frozenset(_OP[name] for name in names if name in _OP)


def _number(name: str) -> int:
    """Return the number of an operation; -1 if this minor version does not have it."""
    return _OP.get(name, -1)


CONSTANTS = frozenset(op for op in dis.hasconst if op < 256)
LOAD_CONST = _number("LOAD_CONST")
LOAD_FAST, STORE_FAST = _number("LOAD_FAST"), _number("STORE_FAST")
LOAD_GLOBAL, STORE_NAME = _number("LOAD_GLOBAL"), _number("STORE_NAME")
POP_TOP, SWAP = _number("POP_TOP"), _number("SWAP")
IMPORT_NAME, IMPORT_FROM = _number("IMPORT_NAME"), _number("IMPORT_FROM")
GLOBAL_STORES = _numbers(("STORE_GLOBAL", "DELETE_GLOBAL"))
GLOBAL_NAMES = _numbers(("LOAD_GLOBAL",)) | GLOBAL_STORES
"""Operations that name a global."""
MODULE_NAMES = GLOBAL_NAMES | _numbers(("LOAD_NAME", "STORE_NAME", "DELETE_NAME"))
"""Operations that name a global in the code of a module or cell."""
NAME_LOADS = _numbers(("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
ATTRIBUTE_LOADS = _numbers(("LOAD_ATTR", "LOAD_METHOD"))
ATTRIBUTE_STORES = _numbers(("STORE_ATTR", "DELETE_ATTR"))
SUPER_LOADS = _numbers(("LOAD_SUPER_ATTR",))
CALLS = _numbers(("PRECALL", "CALL"))
FORMATS = _numbers(("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE"))
BINARY_OP = _number("BINARY_OP")
REMAINDERS = frozenset((6, 19))
"""Arguments of BINARY_OP for ``%`` and ``%=``, which format text."""
CLOSURE_LOADS = _numbers(("LOAD_FAST", "LOAD_CLOSURE"))
"""Loads of local variables, and loads of the closure cells that nested functions share."""
_CELL_LOADS = _numbers(("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"))
LOADS = _numbers(("LOAD_GLOBAL",)) | NAME_LOADS | CLOSURE_LOADS | _CELL_LOADS
"""Operations that read a variable."""
_VARIABLE_STORES = _numbers(("STORE_FAST", "STORE_DEREF"))
STORES = _numbers(("STORE_NAME", "STORE_GLOBAL")) | _VARIABLE_STORES
"""Operations that bind a variable."""
VARIABLES = CLOSURE_LOADS | _CELL_LOADS | _VARIABLE_STORES
"""Operations that read or bind a variable of the function, with the index of the variable as their argument."""
GOTO = _numbers(_GOTO)
TESTS = {_OP[name]: test for name, test in _TESTS.items() if name in _OP}
STOPS = _numbers(_STOPS)
JUMPS = frozenset(op for op in (*dis.hasjrel, *dis.hasjabs) if op < 256) - _numbers(_NO_JUMPS)

_SKIPPED, _PLAIN, _EXTENDED, _CONSTANT, _NAME, _SPLIT, _RETURNS, _NUMBER, _COMMON, _JUMP, _BARE, _NULL = range(12)


def _kinds() -> bytes:
    kinds = bytearray([_PLAIN]) * 256
    special = {
        _CONSTANT: frozenset(dis.hasconst),
        _NAME: frozenset(dis.hasname),
        _SPLIT: _numbers(_FUSED),
        _JUMP: JUMPS,
        _BARE: _numbers(_NO_JUMPS),
        _SKIPPED: _numbers(_MEANINGLESS),
        _EXTENDED: _numbers(("EXTENDED_ARG",)),
        _RETURNS: _numbers(("RETURN_CONST",)),
        _NUMBER: _numbers(("LOAD_SMALL_INT",)),
        _COMMON: _numbers(("LOAD_COMMON_CONSTANT",)),
        _NULL: _numbers(("PUSH_NULL",)),
    }
    for kind, operations in special.items():
        for op in operations:
            if op < 256:
                kinds[op] = kind
    return bytes(kinds)


_PACKED = _PACKING.get(THIS, Packing(attribute=1))
_KINDS = _kinds()
_SHIFTS = dict.fromkeys(range(256), 0) | {
    LOAD_GLOBAL: 1,
    _number("LOAD_ATTR"): _PACKED.attribute,
    _number("LOAD_SUPER_ATTR"): 2,
    IMPORT_NAME: _PACKED.imported,
}
"""Number of bits below the name's index in the argument of each operation."""
_BITS = [(1 << _SHIFTS[op]) - 1 for op in range(256)]
"""For each operation, the mask of the bits below the name's index that count. Bits that only prepare a call do not count."""
_BITS[LOAD_GLOBAL] = _BITS[_number("LOAD_ATTR")] = 0
_CALL_FUNCTION_EX = _number("CALL_FUNCTION_EX")
_PAIRS = {_OP[name]: (_OP[first], _OP[second]) for name, (first, second) in _FUSED.items() if name in _OP}
_SAME = bytes(_OP.get(_VARIANTS.get(dis.opname[op], ""), op) for op in range(256))
_RETURN_VALUE = _number("RETURN_VALUE")
QUIET = (_numbers(("LOAD_FAST",)) if "LOAD_FAST_CHECK" in _OP else frozenset()) | _numbers(
    ("LOAD_FAST_BORROW", "STORE_FAST", "POP_TOP", "SWAP", *_FUSED, *_GOTO)
)
"""Instructions that cannot raise. An exception table may cover them, because CPython fuses instructions across the limits of a ``try``.
In versions without LOAD_FAST_CHECK, LOAD_FAST raises for an unbound variable."""
_BACKWARD = frozenset(op for op in JUMPS if "BACKWARD" in dis.opname[op])


class NoValue:
    """The type of `NO_VALUE`."""


NO_VALUE: Any = NoValue()
"""The value of an instruction that has neither a name nor a constant."""

Instruction: TypeAlias = tuple[int, int, Any]
"""The operation, the argument, and the value: a constant, a name, or the target's place of a jump."""


class Decoded(NamedTuple):
    """The instructions of a code object."""

    instructions: list[Instruction]
    places: list[int]
    """The place of each instruction in the bytecode, in code units, as in jumps and exception tables."""
    jumps: bool
    """True if any of the instructions is a jump."""
    operations: bytes
    """All operations of the bytecode, including inline caches."""


def decode(code: CodeType) -> Decoded:  # noqa: PLR0915 - every kind of instruction, in one loop
    """Return the instructions of a code object in the smaller set."""
    raw = code.co_code
    operations = raw[::2]
    constants = code.co_consts
    names = code.co_names
    instructions: list[Instruction] = []
    places: list[int] = []
    add, place = instructions.append, places.append
    jumps = False
    extended = 0
    for index, kind in enumerate(operations.translate(_KINDS)):
        if not kind:
            continue
        op = operations[index]
        argument = raw[2 * index + 1]
        if extended:
            argument |= extended
            extended = 0
        if kind == _EXTENDED:
            extended = argument << 8
            continue
        place(index)
        if kind == _PLAIN:
            add((_SAME[op], argument, NO_VALUE))
        elif kind == _NAME:
            name = names[argument >> _SHIFTS[op]]
            # The bit that prepares a call counts only for `vars`, because `vars()` reads all variables.
            add((_SAME[op], argument & (1 if name == "vars" and op == LOAD_GLOBAL else _BITS[op]), name))
        elif kind == _CONSTANT:
            add((op, 0, constants[argument]))
        elif kind == _NUMBER:
            add((LOAD_CONST, 0, argument))
        elif kind == _SPLIT:
            first, second = _PAIRS[op]
            add((first, argument >> 4, NO_VALUE))
            add((second, argument & 15, NO_VALUE))
            place(index)
        elif kind == _JUMP:
            jumps = True
            following = index + 1
            while operations[following : following + 1] == b"\0":  # skip its inline caches
                following += 1
            add((op, 0, following - argument if op in _BACKWARD else following + argument))
        elif kind == _RETURNS:
            add((LOAD_CONST, 0, constants[argument]))
            add((_RETURN_VALUE, 0, NO_VALUE))
            place(index)
        elif kind == _COMMON and argument in _PACKED.common:
            add((LOAD_CONST, 0, _PACKED.common[argument]))
        elif kind == _NULL and operations[index + 1] != _CALL_FUNCTION_EX:
            # Before CALL_FUNCTION_EX, this NULL is an argument (no keywords); elsewhere it prepares a call.
            places.pop()
        else:
            add((op, argument if kind == _COMMON else 0, NO_VALUE))
    return Decoded(instructions, places, jumps, operations)


def chain(steps: list[Instruction], position: int) -> tuple[str, ...]:
    """Return the chain of attributes that are read directly from the value that an instruction loads."""
    stop = position + 1
    while stop < len(steps) and steps[stop][0] in ATTRIBUTE_LOADS:
        stop += 1
    return tuple([value for _, _, value in steps[position + 1 : stop]])


Write: TypeAlias = Callable[[list[Instruction]], bytes]
"""Encodes instructions without jumps; the bytes are equal for equal instructions only."""
Cover: TypeAlias = tuple[int, int]
"""The block that handles an exception (-1 for none), and a number for the stack depth in the handler and the flag that pushes the place of
the exception."""
_STOP, _GOES_ON, _TEST, _BRANCH = range(4)
_TRUTH = 0


class Block:
    """Instructions that run one after another."""

    __slots__ = ("code", "content", "covers", "end", "steps", "targets")

    def __init__(self, steps: list[Instruction]) -> None:
        self.steps = _without_swaps(steps)
        self.covers: list[Cover] = []
        """For each instruction that can raise, the handler of the exception. Empty without an exception table."""
        self.content = b""
        """The encoded instructions."""
        self.end = _STOP
        """The kind of the block's end: a stop, a goto, a test or another instruction that may jump."""
        self.code = 0
        """The test (truth or None) or the instruction at the end of the block."""
        self.targets: list[tuple[int, bool]] = []
        """The successors, each with True if a tested value stays on the stack; after a test, first the block for False, then the block for
        True."""


def ordered(code: CodeType, decoded: Decoded, write: Write) -> tuple[list[Block], tuple[int, ...]]:
    """Return the blocks of a code object in canonical order, and numbers that describe the edges between the blocks.

    Parameters
    ----------
    decoded
        The code object's instructions.
    write
        Encodes the instructions of a block.
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
    return _in_order(blocks, start)


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
    for index, (op, _, value) in enumerate(instructions):
        if op in JUMPS:
            starts |= {index + 1, bisect_left(places, value)}
        elif op in STOPS:
            starts.add(index + 1)
    starts.discard(count)
    order = sorted(starts)
    number = {start: index for index, start in enumerate(order)}
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
                for (handler, depth), index in zip(covered[start:stop], places[start:stop], strict=True)
                if raw[2 * index] not in QUIET
            ]
        following = number.get(stop, -1)
        if op in JUMPS:
            target = number[bisect_left(places, place)]
            if op in GOTO:
                block.end, block.targets = _GOES_ON, [(target, False)]
            elif op in TESTS:
                block.end = _TEST
                block.code, outcome, keeps = TESTS[op]
                block.targets = (
                    [(following, False), (target, keeps)] if outcome else [(target, keeps), (following, False)]
                )
            else:
                block.end, block.code, block.targets = _BRANCH, op, [(following, False), (target, False)]
        elif op not in STOPS:
            block.end, block.targets = _GOES_ON, [(following, False)]
    return blocks


def _without_swaps(steps: list[Instruction]) -> list[Instruction]:
    """Resolve the swaps directly before stores, because the compiler resolves them only within a line."""
    operations = [step[0] for step in steps]
    if SWAP not in operations and operations.count(STORE_FAST) < 2:
        return steps
    settled: list[Instruction] = []
    run: list[Instruction] = []
    for step in steps:
        if step[0] in {STORE_FAST, POP_TOP, SWAP}:
            run.append(step)
            continue
        if run:
            settled += _simplified_stores(run) if len(run) > 1 else run
            run = []
        settled.append(step)
    return settled + (_simplified_stores(run) if len(run) > 1 else run)


def _simplified_stores(run: list[Instruction]) -> list[Instruction]:
    """Return a run of stores and swaps as one store or pop per value, from the top of the stack. The last store to a variable counts."""
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
        # The run swaps a value that stays on the stack, so it cannot be written as stores only.
        return run
    stored = {value: local for local, value in variables.items()}
    return [
        (STORE_FAST, stored[value], NO_VALUE) if value in stored else (POP_TOP, 0, NO_VALUE) for value in range(taken)
    ]


def _handlers(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the entries of an exception table: start, length and target in code units, and a number for depth and lasti."""
    numbers = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 0x3F
        if not byte & 0x40:
            numbers.append(value)
            value = 0
    for index in range(0, len(numbers) - 3, 4):
        yield numbers[index], numbers[index + 1], numbers[index + 2], numbers[index + 3]


# -- reduction of the graph


def _thread(blocks: list[Block]) -> None:
    """Replace the target of every jump by the final target, without empty blocks and tests with a known outcome."""

    def end(target: tuple[int, bool], outcome: int) -> tuple[int, bool]:
        seen = set()
        while target not in seen:
            seen.add(target)
            number, keeps = target
            block = blocks[number]
            if block.steps:
                break
            if block.end == _GOES_ON:
                target = (block.targets[0][0], keeps)
            elif keeps and block.end == _TEST and block.code == _TRUTH:
                target = block.targets[outcome]
            else:
                break
        return target

    for block in blocks:
        block.targets = [end(target, outcome) for outcome, target in enumerate(block.targets)]
        block.covers = [(end((handler, False), 0)[0] if handler >= 0 else -1, depth) for handler, depth in block.covers]


def _reachable_blocks(blocks: list[Block], start: int) -> list[int]:
    """Return the numbers of the reachable blocks, in the order of a walk."""
    order = [start]
    seen = {start}
    for number in order:
        block = blocks[number]
        for following, _ in (*block.targets, *block.covers):
            if following >= 0 and following not in seen:
                seen.add(following)
                order.append(following)
    return order


def _merge_equal(blocks: list[Block], start: int) -> int:
    """Merge blocks with equal content and equal successors; return the number of the first block."""
    order = _reachable_blocks(blocks, start)
    first: dict[tuple[object, ...], int] = {}
    # Partition the blocks by content, then refine the partition by successors until no class is split.
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
            block.targets = [(parts[target], keeps) for target, keeps in block.targets]
            block.covers = [(parts[handler], depth) for handler, depth in block.covers]
    return parts[start]


def _join(blocks: list[Block], start: int, write: Write) -> None:
    """Join a block with its only successor if that has no other predecessor, or is an end, which the compiler may have copied."""
    order = _reachable_blocks(blocks, start)
    entries = dict.fromkeys([-1, *order], 0)
    entries[start] = 1
    for number in order:
        block = blocks[number]
        for target, _ in {*block.targets, *block.covers}:
            entries[target] += 1
    # In reverse order, so that an appended block is already complete.
    for number in reversed(order):
        block = blocks[number]
        joined = False
        while block.end == _GOES_ON:
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


def _in_order(blocks: list[Block], start: int) -> tuple[list[Block], tuple[int, ...]]:
    """Return the blocks in the order of a walk, and the numbers of their successors."""
    order = _reachable_blocks(blocks, start)
    number = {old: new for new, old in enumerate(order)}
    number[-1] = -1
    shape: list[int] = []
    for old in order:
        block = blocks[old]
        shape += (block.end, block.code)
        for target, keeps in block.targets:
            shape += (number[target], keeps)
        for (handler, depth), same in groupby(block.covers):
            shape += (number[handler], depth, len(list(same)))
    return [blocks[old] for old in order], tuple(shape)

"""The instructions of each CPython version, and a form of the control flow that does not depend on the layout of the source code.

No other module names an opcode.

Every minor version has different instructions. `decode` translates the bytecode of the running version into a smaller set of instructions,
without details of the compiler or the interpreter:

- inline caches, EXTENDED_ARG and instructions without effect (NOP, NOT_TAKEN) are left out;
- a fused instruction is split in two, because CPython fuses only instructions of one line, and a line break that a formatter inserts must
  not change the code version;
- variants that differ only in reference counting or in checks become one instruction;
- the preparation of a call is left out: for ``np.exp(x)``, the compiler loads an attribute and a NULL if the same cell imports ``np``, and else
  a method; a user who moves the import to another cell must not get another code version;
- a constant is replaced by its value, which minor versions keep in ``co_consts``, in the argument, or in a table of the interpreter.

The bytecode of a minor version that is not in `TESTED` is not read, because an instruction may have another meaning.

The compiler's optimizations depend on line breaks: only if the line numbers allow it, the compiler shortens a jump to a jump, copies the end
of a function, inverts a condition or swaps instructions. So `ordered` splits the instructions into a graph of blocks and simplifies this graph:
empty blocks are skipped, a block is joined with the only block that follows it, and equal blocks are merged. Then the blocks are numbered in
the order in which a breadth-first search from the entry block finds them. The result contains the operations, their order, and the handlers
of exceptions.
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
    """How one minor version of CPython encodes names and constants in the arguments of instructions."""

    attribute: int
    """Number of low bits in the argument of LOAD_ATTR that do not belong to the index of the name; they select the load of a method."""
    imported: int = 0
    """Number of low bits in the argument of IMPORT_NAME that do not belong to the index of the name; they select a lazy import."""
    common: Mapping[int, object] = field(default_factory=dict)
    """Maps each argument of LOAD_COMMON_CONSTANT that loads a plain value to this value. All other arguments load builtins."""


_PACKING = {
    (3, 11): Packing(attribute=0),
    (3, 12): Packing(attribute=1),
    (3, 13): Packing(attribute=1),
    (3, 14): Packing(attribute=1),
    (3, 15): Packing(attribute=1, imported=2, common={7: None, 8: "", 9: True, 10: False, 11: -1}),
}
TESTED = frozenset(_PACKING)
"""Minor versions of CPython on which all tests of code versions pass."""
THIS = sys.version_info[:2]


def untested() -> str:
    """Return the reason why bytecode cannot be read on the running version of Python; empty if it can be read."""
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
"""Maps each instruction that combines two instructions on local variables to these two. The argument of the combined instruction contains the
indices of both variables, four bits each."""
_VARIANTS = {"LOAD_FAST_BORROW": "LOAD_FAST", "LOAD_FAST_CHECK": "LOAD_FAST", "LOAD_METHOD": "LOAD_ATTR"}
_MEANINGLESS = ("CACHE", "NOP", "NOT_TAKEN")
_GOTO = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")
_TESTS = {
    f"POP_JUMP_{way}IF_{what}": (kind, outcome, False)
    for way in ("", "FORWARD_", "BACKWARD_")
    for what, kind, outcome in (("TRUE", 0, True), ("FALSE", 0, False), ("NONE", 1, True), ("NOT_NONE", 1, False))
} | {"JUMP_IF_TRUE_OR_POP": (0, True, True), "JUMP_IF_FALSE_OR_POP": (0, False, True)}
"""Maps each conditional jump to three values: the kind of its test (0: is the value true, 1: is the value None), the outcome of the test that
causes the jump, and True if the tested value stays on the stack after the jump."""
_STOPS = ("RETURN_VALUE", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT")
# The argument of END_ASYNC_FOR refers to the beginning of the loop, but the instruction does not jump.
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
IMPORTING = CONSTANTS | _numbers((
    "RESUME", "IMPORT_NAME", "IMPORT_FROM", "IMPORT_STAR", "STORE_NAME", "POP_TOP", "SWAP", "LOAD_SMALL_INT", "RETURN_VALUE",
))  # fmt: skip
"""The instructions of import statements, and of statements that bind a name to a constant."""
GLOBAL_STORES = _numbers(("STORE_GLOBAL", "DELETE_GLOBAL"))
GLOBAL_NAMES = _numbers(("LOAD_GLOBAL",)) | GLOBAL_STORES
"""Operations that read, assign or delete a global."""
MODULE_NAMES = GLOBAL_NAMES | _numbers(("LOAD_NAME", "STORE_NAME", "DELETE_NAME"))
"""Operations that read, assign or delete a global in the code of a module or cell, outside of functions and classes."""
NAME_LOADS = _numbers(("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
ATTRIBUTE_LOADS = _numbers(("LOAD_ATTR", "LOAD_METHOD"))
ATTRIBUTE_STORES = _numbers(("STORE_ATTR", "DELETE_ATTR"))
SUPER_LOADS = _numbers(("LOAD_SUPER_ATTR",))
CALLS = _numbers(("PRECALL", "CALL"))
_FORMATS = _numbers(("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE"))
_BINARY_OP = _number("BINARY_OP")
_REMAINDERS = frozenset((6, 19))
"""Arguments of BINARY_OP for the operators ``%`` and ``%=``, which may format text."""
CLOSURE_LOADS = _numbers(("LOAD_FAST", "LOAD_CLOSURE"))
"""Operations that load a local variable, or that load a closure cell to pass the cell to a nested function."""
_CELL_LOADS = _numbers(("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"))
LOADS = _numbers(("LOAD_GLOBAL",)) | NAME_LOADS | CLOSURE_LOADS | _CELL_LOADS
"""Operations that read a variable."""
_VARIABLE_STORES = _numbers(("STORE_FAST", "STORE_DEREF"))
STORES = _numbers(("STORE_NAME", "STORE_GLOBAL")) | _VARIABLE_STORES
"""Operations that bind a variable."""
VARIABLES = CLOSURE_LOADS | _CELL_LOADS | _VARIABLE_STORES
"""Operations that read or bind a variable of a function. Their argument is the index of the variable."""
GOTO = _numbers(_GOTO)
TESTS = {_OP[name]: test for name, test in _TESTS.items() if name in _OP}
STOPS = _numbers(_STOPS)
JUMPS = frozenset(op for op in (*dis.hasjrel, *dis.hasjabs) if op < 256) - _numbers(_NO_JUMPS)

_SKIPPED, _PLAIN, _EXTENDED, _CONSTANT, _NAME, _SPLIT, _RETURNS, _NUMBER, _COMMON, _JUMP, _BARE, _NULL, _FORMAT = range(13)
_UNCHANGED = frozenset((_PLAIN, _FORMAT))


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
        _FORMAT: _FORMATS | {_BINARY_OP},
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
"""Maps each operation to the number of low bits of its argument that do not belong to the index of the name."""
_BITS = [(1 << _SHIFTS[op]) - 1 for op in range(256)]
"""One mask for each operation: the low bits of its argument that become part of the instruction. The mask is 0 for LOAD_GLOBAL and LOAD_ATTR,
whose low bits only prepare a call (`decode` makes an exception for ``vars``)."""
_BITS[LOAD_GLOBAL] = _BITS[_number("LOAD_ATTR")] = 0
_CALL_FUNCTION_EX = _number("CALL_FUNCTION_EX")
_PAIRS = {_OP[name]: (_OP[first], _OP[second]) for name, (first, second) in _FUSED.items() if name in _OP}
_SAME = bytes(_OP.get(_VARIANTS.get(dis.opname[op], ""), op) for op in range(256))
_RETURN_VALUE = _number("RETURN_VALUE")
_PUSH_NULL = _number("PUSH_NULL")
_CALL_PREPARED = 1 if THIS >= (3, 13) else -1
_VARIABLE_LOADS = frozenset((LOAD_GLOBAL, *NAME_LOADS))
QUIET = (_numbers(("LOAD_FAST",)) if "LOAD_FAST_CHECK" in _OP else frozenset()) | _numbers(
    ("LOAD_FAST_BORROW", "STORE_FAST", "POP_TOP", "SWAP", *_FUSED, *_GOTO)
)
"""Operations that cannot raise an exception, so that it does not matter whether an exception table covers them. (CPython fuses instructions
across the limits of a ``try``, so the table may cover more or fewer of them.) LOAD_FAST is only included in versions with LOAD_FAST_CHECK; in
other versions, it raises for an unbound variable."""
_BACKWARD = frozenset(op for op in JUMPS if "BACKWARD" in dis.opname[op])


class NoValue:
    """The type of `NO_VALUE`, the value of instructions that have neither a name nor a constant."""


NO_VALUE: Any = NoValue()
"""The value of an instruction that has neither a name nor a constant."""

Instruction: TypeAlias = tuple[int, int, Any]
"""The operation, its argument, and its value: a constant, a name or, for a jump, the position of the target in code units."""


class Decoded(NamedTuple):
    """The instructions of a code object."""

    instructions: list[Instruction]
    places: list[int]
    """The position of each instruction in the bytecode, in code units of two bytes; jumps and exception tables use the same unit."""
    jumps: bool
    """True if any of the instructions is a jump."""
    operations: bytes
    """The operations of the whole bytecode, one byte each, including inline caches."""
    formats: bool
    """True if the code formats text with f-strings or ``%``."""


def decode(code: CodeType) -> Decoded:  # noqa: PLR0915 - every kind of instruction, in one loop
    """Return the instructions of a code object, translated into the smaller set that the module's docstring describes."""
    raw = code.co_code
    operations = raw[::2]
    constants = code.co_consts
    names = code.co_names
    instructions: list[Instruction] = []
    places: list[int] = []
    add, place = instructions.append, places.append
    jumps = formats = False
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
        if kind in _UNCHANGED:
            add((_SAME[op], argument, NO_VALUE))
            formats = formats or (kind == _FORMAT and (op != _BINARY_OP or argument in _REMAINDERS))
        elif kind == _NAME:
            name = names[argument >> _SHIFTS[op]]
            bits = argument & _BITS[op]
            if name == "vars" and op in _VARIABLE_LOADS:
                # The bit that prepares a call is kept only for `vars`, because `vars()` reads all variables. For a name in the code of a cell, another
                # instruction prepares the call: the next one, or the previous one before Python 3.13.
                bits = argument & 1 if op == LOAD_GLOBAL else int(operations[index + _CALL_PREPARED] == _PUSH_NULL)
            add((_SAME[op], bits, name))
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
            while operations[following : following + 1] == b"\0":  # skip the inline caches of the jump
                following += 1
            add((op, 0, following - argument if op in _BACKWARD else following + argument))
        elif kind == _RETURNS:
            add((LOAD_CONST, 0, constants[argument]))
            add((_RETURN_VALUE, 0, NO_VALUE))
            place(index)
        elif kind == _COMMON and argument in _PACKED.common:
            add((LOAD_CONST, 0, _PACKED.common[argument]))
        elif kind == _NULL and operations[index + 1] != _CALL_FUNCTION_EX:
            # A NULL before CALL_FUNCTION_EX means that the call has no keyword arguments. Every other NULL only prepares a call.
            places.pop()
        else:
            add((op, argument if kind == _COMMON else 0, NO_VALUE))
    return Decoded(instructions, places, jumps, operations, formats)


def chain(steps: list[Instruction], position: int) -> tuple[str, ...]:
    """Return the chain of attributes that `steps` read from the value that the instruction at `position` loads.

    For ``np.linalg.norm``, these are ``("linalg", "norm")``; the chain is empty if the next instruction reads no attribute.
    """
    stop = position + 1
    while stop < len(steps) and steps[stop][0] in ATTRIBUTE_LOADS:
        stop += 1
    return tuple([value for _, _, value in steps[position + 1 : stop]])


Write: TypeAlias = Callable[[list[Instruction]], bytes]
"""A function that encodes instructions, none of which is a jump. Different instructions have different encodings."""
Cover: TypeAlias = tuple[int, int]
"""What happens if an instruction raises an exception, as two numbers. The first is the number of the block that handles the exception (-1 for
none). The second combines the depth of the stack in this block with a flag: whether the position of the instruction is pushed on the stack."""
_STOP, _GOES_ON, _TEST, _BRANCH = range(4)
_TRUTH = 0


class Block:
    """A sequence of instructions that run one after another. Jumps lead only to its first instruction, and leave it only at its end."""

    __slots__ = ("code", "content", "covers", "end", "steps", "targets")

    def __init__(self, steps: list[Instruction]) -> None:
        self.steps = without_swaps(steps)
        self.covers: list[Cover] = []
        """For each instruction that can raise an exception, how the exception is handled. Empty if the code has no exception table."""
        self.content = b""
        """The encoding of `steps`."""
        self.end = _STOP
        """How the block ends: `_STOP` (it returns or raises), `_GOES_ON` (one block always follows), `_TEST` (a conditional jump) or `_BRANCH`
        (another instruction that may jump)."""
        self.code = 0
        """The kind of the test if the block ends with `_TEST` (0: is the value true, 1: is the value None), or the operation if it ends with
        `_BRANCH`; else 0."""
        self.targets: list[tuple[int, bool]] = []
        """The numbers of the blocks that may follow, each with True if the tested value stays on the stack. After a test, the first is the
        block for the outcome False, the second the block for True."""


def ordered(code: CodeType, decoded: Decoded, write: Write) -> tuple[list[Block], tuple[int, ...]]:
    """Return the simplified blocks of a code object in canonical order, and numbers that describe how each block ends and what follows it.

    The code object must have jumps or exception handlers; other code is one block.

    Parameters
    ----------
    decoded
        The instructions of `code`, from `decode`.
    write
        Encodes the instructions of a block for `Block.content`.
    """
    blocks = _split(decoded, code.co_code, code.co_exceptiontable)
    _thread(blocks)
    for block in blocks:
        block.content = write(block.steps)
    start = _merge_equal(blocks, 0)
    _join(blocks, start, write)
    start = _merge_equal(blocks, start)
    return _in_order(blocks, start)


# -- from instructions to blocks


def _split(decoded: Decoded, raw: bytes, table: bytes) -> list[Block]:
    """Split instructions into blocks, in the order of the bytecode.

    Parameters
    ----------
    raw
        The bytecode (``co_code``), before decoding.
    table
        The exception table (``co_exceptiontable``).
    """
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
                block.targets = [(following, False), (target, keeps)] if outcome else [(target, keeps), (following, False)]
            else:
                block.end, block.code, block.targets = _BRANCH, op, [(following, False), (target, False)]
        elif op not in STOPS:
            block.end, block.targets = _GOES_ON, [(following, False)]
    return blocks


def without_swaps(steps: list[Instruction]) -> list[Instruction]:
    """Return `steps` without those swaps of stack values that only reorder the assignments directly after them.

    The compiler removes such swaps only if the instructions are on one line.
    """
    operations = bytes([step[0] for step in steps])  # searched faster than a list
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
    """Replace a sequence of assignments, pops and swaps by one assignment or pop for each value, beginning at the top of the stack.

    If the sequence assigns a variable more than once, only the last assignment remains. A sequence that moves a value that stays on the stack
    is returned unchanged.
    """
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
        # The run moves a value that stays on the stack, so assignments and pops alone cannot replace the run.
        return run
    stored = {value: local for local, value in variables.items()}
    return [(STORE_FAST, stored[value], NO_VALUE) if value in stored else (POP_TOP, 0, NO_VALUE) for value in range(taken)]


def _handlers(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the entries of an exception table, each with four numbers.

    The first three are in code units: the start and the length of the covered code, and the position of the handler. The fourth is the second
    number of a `Cover`: it combines the depth of the stack in the handler with a flag.
    """
    numbers = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 0x3F
        if not byte & 0x40:
            numbers.append(value)
            value = 0
    for index in range(0, len(numbers) - 3, 4):
        yield numbers[index], numbers[index + 1], numbers[index + 2], numbers[index + 3]


# -- simplification of the graph


def _thread(blocks: list[Block]) -> None:
    """Skip empty blocks, and tests whose outcome is already known: let every block lead directly to the next block that does something."""

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
    """Return the numbers of the blocks that can be reached from block `start`, in breadth-first order."""
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
    """Replace equal blocks by one of them. Two blocks are equal if they have the same content and lead to equal blocks.

    Return the number of the block with which the code then begins: `start`, or the block that replaces it.
    """
    order = _reachable_blocks(blocks, start)
    first: dict[tuple[object, ...], int] = {}
    # Partition the blocks by content, then refine the partition by successors until no class of blocks is split.
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
    """Append to each block the instructions of the block that always follows it, if no other block leads to that following block.

    A following block that ends the function is appended even if other blocks lead to it, because the compiler itself sometimes makes such
    copies.
    """
    order = _reachable_blocks(blocks, start)
    entries = dict.fromkeys([-1, *order], 0)
    entries[start] = 1
    for number in order:
        block = blocks[number]
        for target, _ in {*block.targets, *block.covers}:
            entries[target] += 1
    # The blocks are visited in reverse order, so that a block that is appended is already complete.
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
    """Return the blocks in breadth-first order from block `start`, and numbers that describe how each block ends and what follows it."""
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

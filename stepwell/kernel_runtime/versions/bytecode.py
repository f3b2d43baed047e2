"""What a code object means and what it loads, read from its bytecode.

Two code objects have equal `CodeFacts.blob` exactly if they do the same: instructions, the constants that they use (typed),
names, flow of control, exception handlers and argument counts count; file name, lines, docstring and what the layout of the source
makes of it do not. `opcodes` reads the instructions, `flow` brings them into one order. The blob is of one minor version of
Python, and says so.

`CodeFacts.loads` has the names that are really loaded as globals, each with the chain of attributes that is read from it at once:
``np.linalg.norm(x)`` loads ``("np", ("linalg", "norm"))``. An attribute of a local, ``text.upper()``, is no global.
"""

from __future__ import annotations

import marshal
import re
import weakref
from collections.abc import Iterator
from types import CodeType
from typing import Any

from stepwell.kernel_runtime.versions import opcodes
from stepwell.kernel_runtime.versions.atoms import PLAIN, atom, digest
from stepwell.kernel_runtime.versions.flow import Block, ordered
from stepwell.kernel_runtime.versions.graph import identity
from stepwell.kernel_runtime.versions.opcodes import NO_VALUE, Instruction, chain
from stepwell.kernel_runtime.versions.spoken import READERS

# Optimized, newlocals, *args, **kwargs, generator, coroutine, iterable coroutine, asynchronous generator.
_OPTIMIZED = 0x1
_FLAGS = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200
_HASH_ABOVE = 2048
_AT_NAME = re.compile(r"@([^\W\d]\w*)")
_FROM_NAME = re.compile(r"\b(?:from|join)\s+((?:[^\W\d]\w*\s*,\s*)*[^\W\d]\w*)", re.IGNORECASE)
_FRAME_TEXT = frozenset(("query", "eval"))
_SQL_TEXT = frozenset(("sql", "query", "execute", "sql_expr", "from_query", "read_sql", "sqldf"))
_FRAME_WALKERS = {
    "__subclasses__": "__subclasses__() finds classes that are not named",
    "modules": "sys.modules finds modules, the notebook among them, by names that cannot be seen",
    "_getframe": "sys._getframe() reads the frames of callers",
    "currentframe": "inspect.currentframe() reads the frames of callers",
    "import_module": "import_module() imports what cannot be seen here",
    "getsource": "getsource() reads comments and lines, which are not digested",
}

SPOKEN = frozenset(("__doc__", "__annotations__"))
"""What is digested by itself where code reads it from something that it names."""


_NONE: frozenset[str] = frozenset()


class CodeFacts(weakref.ref[CodeType]):
    """What one code object does and loads, nested code objects included; itself a weak reference to it.

    What most code has nothing of is told by the class: a run reads code by the thousand.
    """

    __slots__ = ("__dict__", "blob", "key", "loads", "name")

    key: int
    """The identity of the code object."""
    blob: bytes
    """Equal exactly if the code does the same."""
    name: str
    loads: tuple[tuple[str, tuple[str, ...]], ...]
    """Names loaded as globals, each with the attributes read from it at once; in the order of first use."""
    imports: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """Module, level and names of each import statement inside."""
    attributes: frozenset[str] = _NONE
    """Names of all attributes that are read."""
    bare_vars: bool = False
    """Whether `vars` is used otherwise than called with an argument."""
    stores: frozenset[str] = _NONE
    """Names assigned by a ``global`` statement."""
    assigned: frozenset[str] = _NONE
    """In the code of a cell or class: names that it assigns itself."""
    suspects: tuple[str, ...] = ()
    """Attributes whose use means that names are looked up in ways that cannot be seen."""
    speaks: bool = False
    """Whether annotations or documentation of what is known only when it runs are read."""
    names_in_text: tuple[str, ...] = ()
    """Names that strings given to ``frame.query`` and ``duckdb.sql`` read."""


_known: dict[int, CodeFacts] = {}


def facts(code: CodeType) -> CodeFacts:
    """Return what is known of a code object, read once as long as it lives."""
    key = identity(code)
    found = _known.get(key)
    if found is not None and found() is code:
        return found
    found = _known[key] = _read(code, key)
    return found


def _gone(found: CodeFacts, table: dict[int, CodeFacts] = _known) -> None:
    if table.get(found.key) is found:
        del table[found.key]


def _read(code: CodeType, key: int) -> CodeFacts:
    self = CodeFacts(code, _gone)
    self.key = key
    self.name = code.co_name
    if opcodes.untested():
        self.blob = digest(_header(code) + code.co_code + code.co_exceptiontable + repr(code.co_consts).encode())
        self.loads = ()
        return self
    decoded = opcodes.decode(code)
    if not code.co_flags & _OPTIMIZED and "__firstlineno__" in code.co_names:
        _leave_out_lines(code, decoded)
    blocks, shape = ordered(code, decoded, _written)
    blob = b"".join((_header(code), *[block.content for block in blocks], marshal.dumps(shape, 2)))
    self.blob = blob if len(blob) < _HASH_ABOVE else b"\xc1" + digest(blob)
    _Reading(self, code.co_names).of(blocks)
    return self


def _header(code: CodeType) -> bytes:
    return marshal.dumps(
        (
            *opcodes.THIS,
            code.co_name,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags & _FLAGS,
            code.co_varnames,
            code.co_cellvars,
            code.co_freevars,
        ),
        2,
    )


def _written(steps: list[Instruction]) -> bytes:
    """Return the encoding of instructions without jumps."""
    arguments = [argument for _, argument, _ in steps]
    values = [value for _, _, value in steps if value is not NO_VALUE]
    parts: list[bytes] = []
    if not PLAIN.issuperset(map(type, values)):
        parts = [b"\xc0" + facts(value).blob if type(value) is CodeType else atom(value) for value in values]
    blob = marshal.dumps(
        (
            bytes([op for op, _, _ in steps]),
            bytes(arguments) if max(arguments, default=0) < 256 else tuple(arguments),
            # Plain values are written with the rest, others behind it, after their number.
            len(parts) if parts else tuple(values),
        ),
        2,
    )
    return b"".join((blob, *parts)) if parts else blob


def _leave_out_lines(code: CodeType, decoded: opcodes.Decoded) -> None:
    """Take the line that a class's body stores out of its instructions, and put the attributes of its instances in order."""
    steps, places, _, quiet = decoded
    for at in range(len(steps) - 1, 0, -1):
        if steps[at][0] != opcodes.STORE_NAME or steps[at - 1][0] != opcodes.LOAD_CONST:
            continue
        value = steps[at - 1][2]
        if steps[at][2] == "__firstlineno__" and value == code.co_firstlineno:
            both = slice(at - 1, at + 1)
            del steps[both], places[both], quiet[both]
        elif steps[at][2] == "__static_attributes__":
            steps[at - 1] = (opcodes.LOAD_CONST, 0, tuple(sorted(value)))


class _Reading:
    """Notes what code loads, block by block.

    Parameters
    ----------
    facts
        Where it is noted.
    names
        The code's names.
    """

    def __init__(self, facts: CodeFacts, names: tuple[str, ...]) -> None:
        self.facts = facts
        self.names = names
        self.loads: dict[tuple[str, tuple[str, ...]], None] = {}
        self.imports: list[tuple[str, int, tuple[str, ...]]] = []
        self.stored: set[str] = set()
        self.stored_first: set[str] = set()
        self.assigned: set[str] = set()
        self.attributes: list[str] = []
        self.constants: list[Any] = []
        self.bare_vars = False
        self.spoken = 0
        """How many attributes are documentation or annotations of what the code names, which are digested by themselves."""

    def of(self, blocks: list[Block]) -> None:
        """Note what is in blocks, and in the code nested there."""
        for block in blocks:
            self._block(block.steps, first=block is blocks[0])
        nested = [facts(value) for value in self.constants if type(value) is CodeType]
        to = self.facts
        for inner in nested:
            self.loads.update(dict.fromkeys(inner.loads))
            self.imports += inner.imports
            self.stored |= inner.stores
        to.loads = tuple(self.loads)
        # Most code has none of these: no object is kept for what is empty.
        if self.imports:
            to.imports = tuple(self.imports)
        if self.stored:
            to.stores = frozenset(self.stored)
        if self.assigned:
            to.assigned = frozenset(self.assigned)
        if self.bare_vars or "vars" in self.assigned:
            to.bare_vars = True
        if self.attributes or nested or self.imports:
            self._attributes(nested)

    def _block(self, steps: list[Instruction], *, first: bool) -> None:
        for at, (op, argument, value) in enumerate(steps):
            if value is NO_VALUE:
                continue
            if op == opcodes.LOAD_GLOBAL:
                if value not in self.stored_first:
                    self._load(value, chain(steps, at))
                if value == "vars":
                    # The argument says whether it is called.
                    self.bare_vars = self.bare_vars or not argument or _no_arguments(steps, at)
            elif op in opcodes.ATTRIBUTE_LOADS or op in opcodes.SUPER_LOADS:
                self.attributes.append(value)
            elif op in opcodes.NAME_LOADS:
                self._load(value, chain(steps, at))
            elif op in opcodes.GLOBAL_STORES:
                self.stored.add(value)
                if first and not any(value == name for name, _ in self.loads):
                    self.stored_first.add(value)
            elif op == opcodes.STORE_NAME:
                self.assigned.add(value)
            elif op == opcodes.IMPORT_NAME:
                level, wanted = steps[at - 2][2], steps[at - 1][2]
                self.imports.append((value, level, tuple(wanted or ())))
            elif op in opcodes.CONSTANTS:
                self.constants.append(value)

    def _load(self, name: str, chain: tuple[str, ...]) -> None:
        self.loads[(name, chain)] = None
        if chain and chain[-1] in SPOKEN:
            self.spoken += 1

    def _attributes(self, nested: list[CodeFacts]) -> None:
        """Note what attributes that code reads tell, what it imports, and the code nested in it."""
        to = self.facts
        attributes = self.attributes
        to.attributes = frozenset(attributes).union(*(inner.attributes for inner in nested))
        to.bare_vars = to.bare_vars or any(inner.bare_vars for inner in nested)
        read = [name for name in attributes if name in _WATCHED]
        to.speaks = (
            len([name for name in attributes if name in READERS]) > self.spoken
            or any(not READERS.isdisjoint(wanted) for _, _, wanted in self.imports)
            or any(inner.speaks for inner in nested)
        )
        if "modules" in read and "sys" not in self.names:
            # Others have an attribute of this name too: torch's modules do.
            read = [name for name in read if name != "modules"]
        if read or nested:
            seen = [_FRAME_WALKERS[name] for name in read if name in _FRAME_WALKERS]
            to.suspects = tuple(dict.fromkeys(seen + [text for inner in nested for text in inner.suspects]))
            texts = names_in_texts([value for value in self.constants if type(value) is str], read)
            to.names_in_text = tuple(
                dict.fromkeys([*texts, *(name for inner in nested for name in inner.names_in_text)])
            )


_WATCHED = _FRAME_TEXT | _SQL_TEXT | frozenset(_FRAME_WALKERS)


def _no_arguments(steps: list[Instruction], at: int) -> bool:
    """Whether what an instruction loads is called with no arguments."""
    op, argument, _ = steps[at + 1] if at + 1 < len(steps) else (-1, 0, None)
    return op in opcodes.CALLS and argument == 0


def names_in_texts(texts: list[str], read: list[str]) -> Iterator[str]:
    """Find names that strings read where code calls something known to look names up in its caller.

    Parameters
    ----------
    texts
        String constants of the code.
    read
        Names that the code reads, attributes among them: ``query``, ``sql``.
    """
    calls = set(read)
    for text in texts:
        if calls & _FRAME_TEXT:
            yield from _AT_NAME.findall(text)
        if calls & _SQL_TEXT:
            for names in _FROM_NAME.findall(text):
                yield from (name.strip() for name in names.split(","))

"""What a code object means and what it loads, read from its bytecode.

Two code objects have equal `CodeFacts.blob` exactly if they do the same: instructions, the constants that they use (typed),
names, exception table and argument counts count; file name, lines, docstring and the numbering of constants do not. The
numbering is left out because a docstring shifts it: the blob has the constants in the order of their first use.

`CodeFacts.loads` has the names that are really loaded as globals, each with the chain of attributes that is read from it at once:
``np.linalg.norm(x)`` loads ``("np", ("linalg", "norm"))``. An attribute of a local, ``text.upper()``, is no global.
"""

from __future__ import annotations

import dis
import marshal
import re
import sys
import weakref
from collections.abc import Iterator
from types import CodeType

from stepwell.kernel_runtime.versions.atoms import PLAIN, atom, digest
from stepwell.kernel_runtime.versions.graph import identity
from stepwell.kernel_runtime.versions.nops import EXTENDED, JUMPS, NOP, without_nops
from stepwell.kernel_runtime.versions.spoken import READERS

_OP = dis.opmap
_CONST = frozenset(dis.hasconst)
_LOAD_GLOBAL = _OP["LOAD_GLOBAL"]
_LOAD_NAMES = frozenset(
    _OP[name] for name in ("LOAD_NAME", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_GLOBALS") if name in _OP
)
_LOAD_NAME = _OP["LOAD_NAME"]
_STORE_GLOBAL = frozenset((_OP["STORE_GLOBAL"], _OP["DELETE_GLOBAL"]))
_STORE_NAME = frozenset((_OP["STORE_NAME"],))
_LOAD_ATTR = _OP["LOAD_ATTR"]
_LOAD_METHOD = _OP.get("LOAD_METHOD", -1)
_CALLS = frozenset(_OP[name] for name in ("PRECALL", "CALL") if name in _OP)
_IMPORT_NAME = _OP["IMPORT_NAME"]
# Since 3.12 the lowest bit of LOAD_ATTR says whether a method is loaded.
_ATTR_SHIFT = 1 if sys.version_info >= (3, 12) else 0
_OTHER, _A_CONST, _A_GLOBAL, _AN_ATTRIBUTE, _A_METHOD, _A_NAME, _SETS_GLOBAL, _SETS_NAME, _IMPORTS = range(9)
_KINDS = bytes(
    _A_CONST
    if op in _CONST
    else {_LOAD_GLOBAL: _A_GLOBAL, _LOAD_ATTR: _AN_ATTRIBUTE, _LOAD_METHOD: _A_METHOD, _IMPORT_NAME: _IMPORTS}.get(
        op,
        _A_NAME
        if op in _LOAD_NAMES
        else _SETS_GLOBAL
        if op in _STORE_GLOBAL
        else _SETS_NAME
        if op in _STORE_NAME
        else _OTHER,
    )
    for op in range(256)
)
"""What of an instruction counts here, by its operation."""
_SAMPLE = (lambda: _KINDS).__code__.co_code[::2]
_GLOBAL_LENGTH = (
    len(_SAMPLE) - len(_SAMPLE.partition(bytes((_LOAD_GLOBAL,)))[2].lstrip(b"\0")) - _SAMPLE.index(_LOAD_GLOBAL)
)
"""From the load of a global to the next instruction, behind its inline caches."""
_CHAINED = frozenset((_LOAD_ATTR, _LOAD_METHOD, EXTENDED))
# Optimized, newlocals, *args, **kwargs, generator, coroutine, iterable coroutine, asynchronous generator.
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


def _read(code: CodeType, key: int) -> CodeFacts:  # noqa: PLR0915 - one pass over the instructions, with a case for each kind
    raw = code.co_code
    table = code.co_exceptiontable
    operations = raw[::2]
    if NOP in operations:
        raw, table = without_nops(raw, table)
        operations = raw[::2]
    names = code.co_names
    constants = code.co_consts
    blanked = bytearray(raw)
    loads: dict[tuple[str, tuple[str, ...]], None] = {}
    used: dict[int, int] = {}
    order = []
    # Most code has none of these: no object is made for what stays empty.
    imports: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    stores = first_stored = _NONE
    assigned: set[str] | None = None
    attributes: list[str] = []
    straight = True
    bare_vars = False
    spoken = 0
    constant = constant_before = 0
    end = len(operations)
    extended = EXTENDED in operations
    for at, kind in enumerate(operations.translate(_KINDS)):
        if not kind:
            continue
        argument = raw[2 * at + 1]
        if extended:
            before = at - 1
            shift = 8
            while before >= 0 and operations[before] == EXTENDED:
                argument |= raw[2 * before + 1] << shift
                shift += 8
                before -= 1
        if kind == _A_CONST:
            blanked[2 * at + 1] = 0
            number = used.get(argument)
            if number is None:
                number = used[argument] = len(used)
            order.append(number)
            constant_before = constant
            constant = argument
        elif kind == _A_GLOBAL:
            # Its lowest bit says whether a NULL is pushed before.
            name = names[argument >> 1]
            if name not in first_stored:
                following = at + _GLOBAL_LENGTH
                if operations[following] in _CHAINED:
                    chain = _chain(raw, operations, names, following, end)
                    spoken += bool(chain) and chain[-1] in SPOKEN
                else:
                    chain = ()
                loads[(name, chain)] = None
            if name == "vars":
                bare_vars = bare_vars or not argument & 1 or _no_arguments(raw, at + 1)
        elif kind == _AN_ATTRIBUTE:
            attributes.append(names[argument >> _ATTR_SHIFT])
        elif kind == _A_METHOD:
            attributes.append(names[argument])
        elif kind == _A_NAME:
            if operations[at] == _LOAD_NAME or sys.version_info >= (3, 12):
                loads[(names[argument], _chain(raw, operations, names, at + 1, end))] = None
        elif kind == _SETS_GLOBAL:
            name = names[argument]
            stores |= {name}
            if straight and not any(name == loaded for loaded, _ in loads):
                straight = not any(op in JUMPS for op in operations[:at])
                if straight:
                    first_stored |= {name}
        elif kind == _SETS_NAME:
            if assigned is None:
                assigned = set()
            assigned.add(names[argument])
        else:
            imports += ((names[argument], constants[constant_before], tuple(constants[constant] or ())),)
    held = tuple(map(constants.__getitem__, used))
    nested: list[CodeFacts] = []
    parts: list[bytes] = []
    if held and not PLAIN.issuperset(map(type, held)):
        for value in held:
            if type(value) is CodeType:
                inner = facts(value)
                nested.append(inner)
                parts.append(b"\xc0" + inner.blob)
            else:
                parts.append(atom(value))
    blob = marshal.dumps(
        (
            code.co_name,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags & _FLAGS,
            code.co_varnames,
            code.co_cellvars,
            code.co_freevars,
            names,
            # Marshal writes it as it writes bytes.
            blanked,
            table,
            bytes(order) if len(used) < 256 else tuple(order),
            # Plain constants are written with the rest, others behind it, after their number.
            len(parts) if parts else held,
        ),
        2,
    )
    if parts:
        blob = b"".join((blob, *parts))
    self = CodeFacts(code, _gone)
    self.key = key
    self.blob = blob if len(blob) < _HASH_ABOVE else b"\xc1" + digest(blob)
    self.name = code.co_name
    if nested:
        for inner in nested:
            for load in inner.loads:
                loads[load] = None
            imports += inner.imports
            stores |= inner.stores
    self.loads = tuple(loads)
    if imports:
        self.imports = imports
    if stores:
        self.stores = stores
    if assigned:
        self.assigned = frozenset(assigned)
        bare_vars = bare_vars or "vars" in assigned
    if bare_vars:
        self.bare_vars = True
    if attributes or nested or imports:
        _read_attributes(self, names, attributes, nested, spoken=spoken, held=held)
    return self


def _read_attributes(
    self: CodeFacts,
    names: tuple[str, ...],
    attributes: list[str],
    nested: list[CodeFacts],
    *,
    spoken: int,
    held: tuple[object, ...],
) -> None:
    """Note what is told by attributes that code reads, by what it imports, and by the code nested in it.

    Parameters
    ----------
    spoken
        How many attributes are documentation or annotations of what the code names, which are digested by themselves.
    names, held
        The code's names, and the constants that it uses.
    """
    self.attributes = frozenset(attributes).union(*(inner.attributes for inner in nested))
    self.bare_vars = self.bare_vars or any([inner.bare_vars for inner in nested])  # noqa: C419 - mostly there is none
    read = [name for name in attributes if name in _WATCHED]
    told = [name for name in attributes if name in READERS]
    self.speaks = (
        len(told) > spoken
        or any([not READERS.isdisjoint(wanted) for _, _, wanted in self.imports])  # noqa: C419 - as above
        or any([inner.speaks for inner in nested])  # noqa: C419 - as above
    )
    if "modules" in read and "sys" not in names:
        # Others have an attribute of this name too: torch's modules do.
        read = [name for name in read if name != "modules"]
    if read or nested:
        self.suspects = tuple(
            dict.fromkeys(
                [_FRAME_WALKERS[name] for name in read if name in _FRAME_WALKERS]
                + [text for inner in nested for text in inner.suspects]
            )
        )
        self.names_in_text = tuple(
            dict.fromkeys(
                [
                    *names_in_texts([value for value in held if type(value) is str], read),
                    *(name for inner in nested for name in inner.names_in_text),
                ]
            )
        )


_WATCHED = _FRAME_TEXT | _SQL_TEXT | frozenset(_FRAME_WALKERS)


def _chain(raw: bytes, operations: bytes, names: tuple[str, ...], at: int, end: int) -> tuple[str, ...]:
    """Return the attributes that are read at once from the value just loaded."""
    chain = []
    argument = 0
    while at < end:
        operation = operations[at]
        if operation == 0:  # an inline cache
            at += 1
            continue
        if operation == EXTENDED:
            argument = (argument | raw[2 * at + 1]) << 8
            at += 1
            continue
        if operation == _LOAD_ATTR:
            chain.append(names[(argument | raw[2 * at + 1]) >> _ATTR_SHIFT])
        elif operation == _LOAD_METHOD:
            chain.append(names[argument | raw[2 * at + 1]])
        else:
            break
        argument = 0
        at += 1
    return tuple(chain)


def _no_arguments(raw: bytes, at: int) -> bool:
    """Whether what was just loaded is called with no arguments."""
    while raw[2 * at] == 0:  # inline caches
        at += 1
    return raw[2 * at] in _CALLS and raw[2 * at + 1] == 0


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

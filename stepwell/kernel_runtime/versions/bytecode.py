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
    "__doc__": "it reads __doc__, and documentation is not digested",
    "__annotations__": "it reads __annotations__, and those of functions are not digested",
    "getdoc": "getdoc() reads documentation, which is not digested",
    "getsource": "getsource() reads comments and lines, which are not digested",
    "get_type_hints": "get_type_hints() reads annotations, which are not digested",
}

SPOKEN = frozenset(("__doc__", "__annotations__"))
"""What is digested only where code reads it from something that it names."""


class CodeFacts:
    """What one code object does and loads, nested code objects included."""

    __slots__ = (
        "assigned",
        "attributes",
        "bare_vars",
        "blob",
        "imports",
        "loads",
        "name",
        "names_in_text",
        "ref",
        "stores",
        "suspects",
    )

    blob: bytes
    """Equal exactly if the code does the same."""
    name: str
    loads: tuple[tuple[str, tuple[str, ...]], ...]
    """Names loaded as globals, each with the attributes read from it at once; in the order of first use."""
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]
    """Module, level and names of each import statement inside."""
    attributes: frozenset[str]
    """Names of all attributes that are read."""
    bare_vars: bool
    """Whether `vars` is used otherwise than called with an argument."""
    stores: frozenset[str]
    """Names assigned by a ``global`` statement."""
    assigned: frozenset[str]
    """In the code of a cell or class: names that it assigns itself."""
    suspects: tuple[str, ...]
    """Attributes whose use means that names are looked up in ways that cannot be seen."""
    ref: _CodeRef
    names_in_text: tuple[str, ...]
    """Names that strings given to ``frame.query`` and ``duckdb.sql`` read."""


class _CodeRef(weakref.ref[CodeType]):
    """A weak reference that knows the identity of what it referred to."""

    __slots__ = ("key",)
    key: int


_known: dict[int, CodeFacts] = {}


def facts(code: CodeType) -> CodeFacts:
    """Return what is known of a code object, read once as long as it lives."""
    key = identity(code)
    found = _known.get(key)
    if found is not None and found.ref() is code:
        return found
    found = _read(code)
    ref = found.ref = _CodeRef(code, _gone)
    ref.key = key
    _known[key] = found
    return found


def _gone(ref: _CodeRef, table: dict[int, CodeFacts] = _known) -> None:
    found = table.get(ref.key)
    if found is not None and found.ref is ref:
        del table[ref.key]


def _read(code: CodeType) -> CodeFacts:  # noqa: PLR0915 - one pass over the instructions, with a case for each kind
    self = CodeFacts()
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
    nested: list[CodeFacts] = []
    imports: list[tuple[str, int, tuple[str, ...]]] = []
    stores: set[str] = set()
    assigned: set[str] = set()
    first_stored: set[str] = set()
    attributes: list[str] = []
    straight = True
    bare_vars = False
    spoken = 0
    last_constants: list[int] = []
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
            last_constants.append(argument)
        elif kind == _A_GLOBAL:
            # Its lowest bit says whether a NULL is pushed before.
            name = names[argument >> 1]
            if name not in first_stored:
                following = at + 1
                while not operations[following]:  # inline caches; code ends with a return
                    following += 1
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
            stores.add(name)
            if straight and not any(name == loaded for loaded, _ in loads):
                straight = not any(op in JUMPS for op in operations[:at])
                if straight:
                    first_stored.add(name)
        elif kind == _SETS_NAME:
            assigned.add(names[argument])
        else:
            level, wanted = (constants[i] for i in last_constants[-2:])
            imports.append((names[argument], level, tuple(wanted or ())))
    held = tuple([constants[index] for index in used])
    parts: list[bytes] = []
    if not PLAIN.issuperset(map(type, held)):
        for value in held:
            if type(value) is CodeType:
                inner = facts(value)
                nested.append(inner)
                parts.append(b"\xc0" + inner.blob)
            else:
                parts.append(atom(value))
    for inner in nested:
        for load in inner.loads:
            loads[load] = None
        imports.extend(inner.imports)
        stores |= inner.stores
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
            bytes(blanked),
            table,
            bytes(order) if len(used) < 256 else tuple(order),
            # Plain constants are written with the rest, others behind it, after their number.
            len(parts) if parts else held,
        ),
        2,
    )
    if parts:
        blob = b"".join((blob, *parts))
    self.blob = blob if len(blob) < _HASH_ABOVE else b"\xc1" + digest(blob)
    self.name = code.co_name
    self.loads = tuple(loads)
    self.imports = tuple(imports)
    self.stores = frozenset(stores) if stores else _NONE
    self.assigned = frozenset(assigned) if assigned else _NONE
    self.attributes = (
        frozenset(attributes).union(*(inner.attributes for inner in nested)) if attributes or nested else _NONE
    )
    self.bare_vars = bare_vars or "vars" in assigned or bool(nested and any(inner.bare_vars for inner in nested))
    read = [name for name in attributes if name in _WATCHED] if attributes else []
    if spoken and spoken == sum(name in SPOKEN for name in read):
        read = [name for name in read if name not in SPOKEN]
    self.suspects = ()
    self.names_in_text = ()
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
    return self


_NONE: frozenset[str] = frozenset()
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

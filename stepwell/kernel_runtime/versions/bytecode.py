"""Facts about code objects, read from their bytecode: an encoding of the code's behaviour, and the names that the code loads.

`CodeFacts.blob` encodes the behaviour of a code object: two code objects with equal blobs behave in the same way. The blob covers the
instructions, the values and types of the constants that they use, names, control flow, exception handlers and argument counts. The blob of a
function does not cover its name, file name, line numbers, docstring or layout. In a code version, the name is a part of the
references to the function. `opcodes` reads the instructions and puts them in canonical order. The blob contains the minor version of Python
and is valid for this version only.

In the code of an asset cell, the variable that has the asset's name is encoded without this name. So the cell keeps its results if the user
renames the asset and the variable.

`CodeFacts.loads` contains the names that the code loads as globals. With each name, it contains the chain of attributes that the code reads
directly from the global: ``np.linalg.norm(x)`` loads ``("np", ("linalg", "norm"))``. It does not contain attributes that the code reads
from local variables, as in ``text.upper()``.

``import lmod`` inside a function binds a local variable, so the name is not in `CodeFacts.loads`. `imported` returns the names that import
statements bind, each with the attributes that the code and its nested functions read from the name. `chains_read` returns the attributes
that a function reads from a module in its closure. If the code uses such a name in any other way (passes it on, assigns it), the code
depends on the whole module.

Annotations and documentation are part of a code version only if the step reaches code that reads them: ``inspect.signature(f)``,
``get_type_hints(f)``, ``f.__doc__``. It is known only at run time which function ``f`` is. So such a step depends on the annotations and
documentation of all functions and classes of the user that it reaches. A wrapper that a library created is treated as code that reads
annotations, because the library may have read the annotations of the wrapped function.
"""

from __future__ import annotations

import marshal
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from types import CodeType, FunctionType
from typing import Any, TypeAlias

from stepwell.kernel_runtime.definitions.bodies import annotations_of
from stepwell.kernel_runtime.versions import opcodes
from stepwell.kernel_runtime.versions.encode import PLAIN, Tag, atom, digest, identity
from stepwell.kernel_runtime.versions.graph import Node, digest_of
from stepwell.kernel_runtime.versions.opcodes import NO_VALUE, Instruction, chain, ordered, without_swaps
from stepwell.kernel_runtime.versions.queries import FRAME_TEXT, SQL_TEXT, names_in_texts

READERS = frozenset((
    "signature", "getfullargspec", "get_type_hints", "get_annotations", "getdoc", "__doc__", "__annotations__", "__annotate__", "__signature__",
    "run_docstring_examples", "DocTestFinder",
))  # fmt: skip
"""Names of functions and attributes that give access to annotations or documentation."""
_HOMES = frozenset(("inspect", "typing", "typing_extensions", "annotationlib", "pydoc", "doctest"))


def is_reader(value: Any) -> bool:
    """Return True for a function that reads the annotations or documentation of its argument, such as ``inspect.signature``.

    The function is also recognised if the user's code binds it to another name.
    """
    return type(value) is FunctionType and value.__name__ in READERS and value.__module__ in _HOMES


def documentation_of(item: Any) -> tuple[Any, str | None] | None:
    """Return a pair: the annotations and the docstring of a function or class.

    The first item is None if a function has no annotations. For a class, it is always None, because the node of a class contains the annotations
    anyway. The second item is empty or None if there is no docstring. If both items would be empty or None, or if `item` is not a function or
    class, return None instead of a pair.
    """
    if type(item) is FunctionType:
        annotations = annotations_of(item)
    elif issubclass(type(item), type):
        annotations = None
    else:
        return None
    doc = item.__doc__
    return (annotations, doc) if annotations or doc else None


def documentation_digest(root: Node, node_of: Callable[[Any], Node]) -> bytes:
    """Return a digest of the annotations and documentation of an object and of all functions and classes that the object reaches.

    Parameters
    ----------
    root
        The digested node of the object.
    node_of
        Takes the annotations of a function, which may refer to the user's classes; returns the digested node of the annotations.
    """
    pieces = []
    for node in _reachable_nodes(root):
        texts = documentation_of(node.ref())
        if texts is not None:
            annotations, doc = texts
            below = digest_of(node_of(annotations)) if annotations else b""
            pieces.append(digest_of(node) + below + atom(doc))
    return digest(b"".join(sorted(pieces)))


def _reachable_nodes(root: Node) -> Iterable[Node]:
    nodes = [root]
    seen = {id(root)}
    for node in nodes:
        for _, child in node.edges:
            if id(child) not in seen:
                seen.add(id(child))
                nodes.append(child)
    return nodes


_OPTIMIZED = 0x1
# The flags of a code object on which its behaviour depends: optimized, newlocals, *args, **kwargs, generator, coroutine, iterable coroutine,
# asynchronous generator.
_FLAGS = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200
_HASH_ABOVE = 2048
_FRAME_WALKERS = {
    "__subclasses__": "__subclasses__() finds classes that the code does not name",
    "modules": "sys.modules gives access to modules that the code does not name, the notebook included",
    "_getframe": "sys._getframe() reads the frames of callers",
    "currentframe": "inspect.currentframe() reads the frames of callers",
    "import_module": "import_module() imports a module that the code does not name",
    "getsource": "getsource() reads comments and line numbers, which are not digested",
    "testmod": "doctest.testmod() tests the whole notebook",
    "main": "unittest.main() runs all tests of the notebook",
    **dict.fromkeys(
        ("loadTestsFromModule", "loadTestsFromName", "loadTestsFromNames"),
        "the loader of unittest finds classes that the code does not name",
    ),
}

DOC_ATTRIBUTES = frozenset(("__doc__", "__annotations__"))
"""If code reads one of these attributes from a global that it names (``f.__doc__``), only this attribute of this object is digested.
If code reads one of them from an object that is known only at run time, the documentation of all objects that the step reaches is digested."""


_NONE: frozenset[str] = frozenset()
_NO_SHAPE = marshal.dumps((), 2)


class CodeFacts(weakref.ref[CodeType]):
    """The behaviour of one code object and the names that it loads, including the behaviour and the names of nested code objects.

    An instance is also a weak reference to the code object. Attributes that are empty for most code objects have a default in the class.
    This saves memory, because a code walk reads thousands of code objects.
    """

    __slots__ = ("__dict__", "blob", "key", "loads")

    key: int
    """The identity of the code object, from `encode.identity`."""
    blob: bytes
    """The encoding of the behaviour. Code objects with equal blobs behave in the same way."""
    variable: str = ""
    """For the code of an asset cell, the variable whose name is that of the asset; `blob` does not contain this name. Empty for other code."""
    loads: tuple[tuple[str, tuple[str, ...]], ...]
    """Names that the code loads as globals, in the order of first use, each with the chain of attributes that the code reads directly
    from the global."""
    imports: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """One tuple for each import statement: the module's name, the number of leading dots, and the names after ``import`` in
    ``from ... import ...``."""
    attributes: frozenset[str] = _NONE
    """Names of all attributes that the code reads, from globals and from any other objects."""
    bare_vars: bool = False
    """True if the code may read all its variables with ``vars``: it calls ``vars()`` without an argument, uses ``vars`` without calling it, or
    assigns a variable with the name ``vars``."""
    stores: frozenset[str] = _NONE
    """Globals that the code assigns or deletes after a ``global`` statement."""
    assigned: frozenset[str] = _NONE
    """Names that the body of a cell or class assigns; empty for the code of a function."""
    suspects: tuple[str, ...] = ()
    """Reasons why the code may read objects that it does not name; empty for most code."""
    reads_docs: bool = False
    """True if the code reads annotations or documentation, and only at run time it is known of which objects."""
    attribute_stores: tuple[tuple[str, tuple[str, ...], str], ...] = ()
    """Attributes that the code sets or deletes on any object except ``self``: ``pd.DataFrame.total = f`` gives
    ``("pd", ("DataFrame",), "total")``. The first item is empty if the object is read from a local variable."""
    formats: bool = False
    """True if the code formats text with f-strings or with ``%``."""
    names_in_text: tuple[str, ...] = ()
    """Variables that occur in string constants, if the code calls ``query``, ``sql`` or another method that looks up variables."""


_facts_by_code: dict[int, CodeFacts] = {}


def facts(code: CodeType, variable: str = "") -> CodeFacts:
    """Return the facts about a code object. They are computed once and kept as long as the code object lives.

    Parameters
    ----------
    variable
        For the code of an asset cell, the variable that has the asset's name; empty for other code.
    """
    key = identity(code)
    code_facts = _facts_by_code.get(key)
    if code_facts is not None and code_facts() is code and (not variable or code_facts.variable == variable):
        return code_facts
    code_facts = _facts_by_code[key] = _read_facts(code, key, variable)
    return code_facts


def _drop(dead: CodeFacts, table: dict[int, CodeFacts] = _facts_by_code) -> None:
    if table.get(dead.key) is dead:
        del table[dead.key]


def _read_facts(code: CodeType, key: int, variable: str = "", named: frozenset[int] = opcodes.MODULE_NAMES) -> CodeFacts:
    self = CodeFacts(code, _drop)
    self.key = key
    if variable:
        self.variable = variable
    if opcodes.untested():
        self.blob = digest(_header(code) + code.co_code + code.co_exceptiontable + repr(code.co_consts).encode())
        self.loads = ()
        return self
    decoded = opcodes.decode(code)
    if not code.co_flags & _OPTIMIZED and "__firstlineno__" in code.co_names:
        _leave_out_lines(code, decoded)
    write = partial(_encoded, variable=variable, named=named) if variable else _encoded
    if not decoded.jumps and not code.co_exceptiontable:
        # Most functions of steps consist of one block, so this case must be fast.
        blocks = [without_swaps(decoded.instructions)]
        blob = _header(code) + write(blocks[0]) + _NO_SHAPE
    else:
        in_order, shape = ordered(code, decoded, write)
        blocks = [block.steps for block in in_order]
        blob = b"".join((_header(code), *[block.content for block in in_order], marshal.dumps(shape, 2)))
    self.blob = blob if len(blob) < _HASH_ABOVE else Tag.LONG_CODE + digest(blob)
    inner = [facts(nested) for nested in code.co_consts if type(nested) is CodeType]
    if decoded.formats or (inner and any(nested.formats for nested in inner)):
        self.formats = True
    if inner or (code.co_names and not opcodes.ATTRIBUTE_STORES.isdisjoint(decoded.operations)):
        self.attribute_stores = _attribute_stores(code, decoded.instructions, inner)
    if inner or code.co_names:
        _note_names(self, code.co_names, blocks)
    else:
        self.loads = ()
    return self


def _attribute_stores(
    code: CodeType, steps: list[Instruction], inner: list[CodeFacts]
) -> tuple[tuple[str, tuple[str, ...], str], ...]:
    stores: dict[tuple[str, tuple[str, ...], str], None] = {}
    for position, (op, _, name) in enumerate(steps):
        if op not in opcodes.ATTRIBUTE_STORES:
            continue
        first = position - 1
        while first > 0 and steps[first][0] in opcodes.ATTRIBUTE_LOADS:
            first -= 1
        base, argument, value = steps[first]
        chain = tuple([attribute for _, _, attribute in steps[first + 1 : position]])
        if base == opcodes.LOAD_GLOBAL or base in opcodes.NAME_LOADS:
            stores[value, chain, name] = None
        elif base != opcodes.LOAD_FAST or code.co_varnames[argument : argument + 1] != ("self",):
            stores["", chain, name] = None
    for inner_facts in inner:
        stores.update(dict.fromkeys(inner_facts.attribute_stores))
    return tuple(stores)


def _header(code: CodeType) -> bytes:
    return marshal.dumps(
        (
            *opcodes.THIS,
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


def _encoded(steps: list[Instruction], variable: str = "", named: frozenset[int] = frozenset()) -> bytes:
    """Return the encoding of instructions, none of which is a jump.

    Parameters
    ----------
    variable
        The variable whose name is not encoded; empty to encode all names.
    named
        Numbers of operations. In these operations, a value that is equal to `variable` is the name of this variable. In any other operation, an equal
        value means something else, so it is encoded.
    """
    operations, arguments, held = zip(*steps, strict=True) if steps else ((), (), ())
    if variable:
        held = tuple(["" if op in named and value == variable else value for op, _, value in steps])
    values = [value for value in held if value is not NO_VALUE]
    parts: list[bytes] = []
    if not PLAIN.issuperset(map(type, values)):
        parts = [Tag.CODE + _inner_code(value, variable) if type(value) is CodeType else atom(value) for value in values]
    # If all values are plain, the tuple contains them. Otherwise, it contains their number, and their encodings follow.
    blob = marshal.dumps(
        (
            bytes(operations),
            bytes(arguments) if not arguments or max(arguments) < 256 else arguments,
            len(parts) if parts else tuple(values),
        ),
        2,
    )
    return b"".join((blob, *parts)) if parts else blob


def _inner_code(code: CodeType, variable: str) -> bytes:
    """Return the encoding of a nested function or class: its name and its behaviour.

    In both, the name `variable` is left out where it means the variable of the cell. An empty `variable` leaves out nothing.
    """
    name = code.co_name
    if not variable or not _contains_name(code, variable):
        return atom(name) + facts(code).blob
    # In the body of a class, an assigned name is an attribute of the class, not the cell's variable.
    return atom("" if name == variable else name) + _read_facts(code, identity(code), variable, opcodes.GLOBAL_NAMES).blob


def _contains_name(code: CodeType, name: str) -> bool:
    """Return True if `name` occurs in the code object or in code nested in it."""
    return (
        code.co_name == name
        or name in code.co_names
        or any(_contains_name(nested, name) for nested in code.co_consts if type(nested) is CodeType)
    )


def _leave_out_lines(code: CodeType, decoded: opcodes.Decoded) -> None:
    """Change the instructions of a class body in place, so that they depend neither on its line number nor on the order of attribute names.

    The two instructions that assign the line number to ``__firstlineno__`` are removed. The names of instance attributes in
    ``__static_attributes__`` are sorted.
    """
    steps, places = decoded[:2]
    for position in range(len(steps) - 1, 0, -1):
        if steps[position][0] != opcodes.STORE_NAME or steps[position - 1][0] != opcodes.LOAD_CONST:
            continue
        value = steps[position - 1][2]
        if steps[position][2] == "__firstlineno__" and value == code.co_firstlineno:
            both = slice(position - 1, position + 1)
            del steps[both], places[both]
        elif steps[position][2] == "__static_attributes__":
            steps[position - 1] = (opcodes.LOAD_CONST, 0, tuple(sorted(value)))


_LOADS, _ATTRIBUTE, _STORES_GLOBAL, _STORES_NAME, _IMPORTS, _CONSTANT = range(6)
_ROLES = (
    dict.fromkeys(opcodes.CONSTANTS, _CONSTANT)
    | dict.fromkeys(opcodes.ATTRIBUTE_LOADS | opcodes.SUPER_LOADS, _ATTRIBUTE)
    | dict.fromkeys((opcodes.LOAD_GLOBAL, *opcodes.NAME_LOADS), _LOADS)
    | dict.fromkeys(opcodes.GLOBAL_STORES, _STORES_GLOBAL)
    | {opcodes.STORE_NAME: _STORES_NAME, opcodes.IMPORT_NAME: _IMPORTS}
)
"""Maps each operation whose value is a name or constant to its role in `_note_names`."""


def _note_names(to: CodeFacts, names: tuple[str, ...], blocks: list[list[Instruction]]) -> None:
    """Set the fields of `to` that contain names which its code object or nested code uses.

    These fields are `loads`, `imports`, `stores`, `assigned`, `bare_vars` and those that `_note_attributes` sets.

    Parameters
    ----------
    names
        ``co_names`` of the code object.
    blocks
        The instructions of the code object, in blocks.
    """
    loads: dict[tuple[str, tuple[str, ...]], None] = {}
    imports: list[tuple[str, int, tuple[str, ...]]] = []
    stored: set[str] = set()
    first_stored: set[str] = set()
    assigned: set[str] = set()
    attributes: list[str] = []
    constants: list[Any] = []
    bare_vars = False
    separate = 0
    for steps in blocks:
        for position, (op, _, value) in enumerate(steps):
            if value is NO_VALUE:
                continue
            role = _ROLES.get(op)
            if role == _CONSTANT:
                constants.append(value)
            elif role == _LOADS:
                if value not in first_stored:
                    read = chain(steps, position)
                    loads[(value, read)] = None
                    separate += bool(read) and read[-1] in DOC_ATTRIBUTES
                bare_vars = bare_vars or (value == "vars" and _is_bare(steps, position))
            elif role == _ATTRIBUTE:
                attributes.append(value)
            elif role == _STORES_GLOBAL:
                stored.add(value)
                first = steps is blocks[0] and not any(value == name for name, _ in loads)
                first_stored |= {value} if first else set()
            elif role == _STORES_NAME:
                assigned.add(value)
            elif role == _IMPORTS:
                imports.append((value, steps[position - 2][2], tuple(steps[position - 1][2] or ())))
    nested = [facts(value) for value in constants if type(value) is CodeType]
    for inner in nested:
        loads.update(dict.fromkeys(inner.loads))
        imports += inner.imports
        stored |= inner.stores
    to.loads = tuple(loads)
    # Most code has none of these; then the defaults of `CodeFacts` apply.
    if stored or assigned:
        to.stores, to.assigned = frozenset(stored), frozenset(assigned)
    if bare_vars or "vars" in assigned:
        to.bare_vars = True
    if attributes or nested or imports:
        texts = [value for value in constants if type(value) is str]
        to.imports = tuple(imports)
        _note_attributes(to, names, attributes, nested, separate=separate, texts=texts)


def _note_attributes(
    to: CodeFacts,
    names: tuple[str, ...],
    attributes: list[str],
    nested: list[CodeFacts],
    *,
    separate: int,
    texts: list[str],
) -> None:
    """Set those fields of `to` that depend on the attributes that its code object reads.

    These are `attributes`, `bare_vars`, `reads_docs`, `suspects` and `names_in_text`. They also depend on `to.imports` and on nested code.

    Parameters
    ----------
    names
        ``co_names`` of the code object.
    attributes
        The attributes that the code object reads; an attribute that it reads twice is listed twice.
    nested
        The facts about the nested code objects.
    separate
        How many of `attributes` are ``__doc__`` or ``__annotations__``, read from a global that the code names. The values of these are digested
        separately, so they do not set `to.reads_docs`.
    texts
        The string constants of the code object.
    """
    to.attributes = frozenset(attributes).union(*(inner.attributes for inner in nested))
    to.bare_vars = to.bare_vars or any(inner.bare_vars for inner in nested)
    read = [name for name in attributes if name in _WATCHED]
    to.reads_docs = (
        len([name for name in attributes if name in READERS]) > separate
        or any(not READERS.isdisjoint(wanted) for _, _, wanted in to.imports)
        or any(inner.reads_docs for inner in nested)
    )
    if "modules" in read and "sys" not in names:
        # In code without the name ``sys``, ``modules`` is an attribute of another object, such as a torch model.
        read = [name for name in read if name != "modules"]
    if "main" in read and "unittest" not in names:
        read = [name for name in read if name != "main"]
    read += [
        name
        for module, _, wanted in to.imports
        for name in wanted
        if name in _FRAME_WALKERS and (name != "main" or module == "unittest")
    ]
    if read or nested:
        seen = [_FRAME_WALKERS[name] for name in read if name in _FRAME_WALKERS]
        to.suspects = tuple(dict.fromkeys(seen + [text for inner in nested for text in inner.suspects]))
        named = names_in_texts(texts, read)
        to.names_in_text = tuple(dict.fromkeys([*named, *(name for inner in nested for name in inner.names_in_text)]))


_WATCHED = FRAME_TEXT | SQL_TEXT | frozenset(_FRAME_WALKERS)


def _is_bare(steps: list[Instruction], position: int) -> bool:
    """Return True if the instruction at `position` loads ``vars`` and the code then calls it without arguments, or does not call it at once."""
    is_called = steps[position][1]
    following, arguments, _ = steps[position + 1] if position + 1 < len(steps) else (-1, 0, None)
    return not is_called or (following in opcodes.CALLS and arguments == 0)


# -- names that import statements bind

Chains: TypeAlias = tuple[tuple[str, ...], ...] | None
"""Chains of attributes that code reads from a name: ``lmod.sub.f`` and ``lmod.K`` give ``(("sub", "f"), ("K",))``. None if the code uses the
name in another way, so that it may read any attribute."""


@dataclass(frozen=True, slots=True)
class Imported:
    """One name that an import statement binds."""

    module: str
    """The module's name as written in the statement, without the leading dots of a relative import."""
    level: int
    """The number of leading dots; 0 for an absolute import."""
    item: str
    """The name after ``import`` in ``from lmod import f``: an attribute or submodule of `module`, or ``*`` for all attributes. Empty for
    ``import lmod``, which binds the module."""
    outermost: bool
    """True if the statement binds the outermost package of `module`: ``import a.b`` binds ``a``."""
    chains: Chains
    """The attributes that the code reads from the bound name; None if it may read any attribute."""


@lru_cache(maxsize=1024)
def imported(*codes: CodeType) -> tuple[Imported, ...]:
    """Return the names that import statements bind in some code objects and in the code nested in them.

    Parameters
    ----------
    codes
        Code objects that share their variables: the code of one function, or the two code objects of a cell (its statements and its last
        expression).
    """
    bound: dict[str, list[tuple[str, int, str, bool]]] = {}
    scopes = [(code, _instructions(code)) for code in _nested(codes)]
    for _, instructions in scopes:
        for name, entry in _bindings(instructions):
            bound.setdefault(name, []).append(entry)
    return tuple(Imported(*entry, _chains(scopes, name)) for name, several in bound.items() for entry in dict.fromkeys(several))


@lru_cache(maxsize=1024)
def late_imports(*codes: CodeType) -> frozenset[str]:
    """Return the modules that the code of a cell imports after other statements than imports, or in functions. Empty for the code of a function.

    Parameters
    ----------
    codes
        The code objects of a cell.
    """
    if codes[0].co_flags & _OPTIMIZED:
        return frozenset()
    late = set()
    for code in _nested(codes):
        is_late = code is not codes[0]
        for op, _, value in _instructions(code):
            if op == opcodes.IMPORT_NAME and is_late:
                late.add(str(value))
            is_late = is_late or op not in opcodes.IMPORTING
    return frozenset(late)


@lru_cache(maxsize=1024)
def chains_read(code: CodeType, name: str) -> Chains:
    """Return the chains of attributes that a function reads from the module in its closure variable `name`; None if it may read any attribute."""
    return _chains([(nested, _instructions(nested)) for nested in _nested((code,))], name)


def _chains(scopes: list[tuple[CodeType, list[Instruction]]], name: str) -> Chains:
    chains: dict[tuple[str, ...], None] = {}
    for code, instructions in scopes:
        for read, attributes in _reads(code, instructions):
            if read == name:
                if not attributes:
                    return None
                chains[attributes] = None
    return tuple(chains)


def _nested(codes: tuple[CodeType, ...]) -> list[CodeType]:
    all_codes = list(codes)
    for code in all_codes:
        all_codes.extend([constant for constant in code.co_consts if type(constant) is CodeType])
    return all_codes


def _instructions(code: CodeType) -> list[Instruction]:
    """Return the instructions of a code object. An instruction on a local or closure variable has the variable's name as its value.

    The list is empty on a version of Python whose bytecode cannot be read.
    """
    if opcodes.untested():
        return []
    inner = [name for name in code.co_cellvars if name not in code.co_varnames]
    variables = (*code.co_varnames, *inner, *code.co_freevars)
    return [
        (op, 0, variables[argument]) if op in opcodes.VARIABLES else (op, argument, value)
        for op, argument, value in opcodes.decode(code).instructions
    ]


def _bindings(steps: list[Instruction]) -> Iterator[tuple[str, tuple[str, int, str, bool]]]:
    """Yield each name that an import statement binds, with a tuple of four values.

    These are the values of the fields `module`, `level`, `item` and `outermost` of `Imported`.
    """
    for position, (op, _, module) in enumerate(steps):
        if op != opcodes.IMPORT_NAME:
            continue
        level, names = steps[position - 2][2], steps[position - 1][2]
        if names == ("*",):
            yield "*", (module, level, "*", False)
        elif names:
            following = position
            for _ in names:
                following = _next_position(steps, following + 1, opcodes.IMPORT_FROM)
                yield str(steps[following + 1][2]), (module, level, steps[following][2], False)
        else:
            # For ``import a.b as c``, the submodule is read from the package before it is stored.
            stored = position + 1
            while steps[stored][0] not in opcodes.STORES:
                stored += 1
            yield str(steps[stored][2]), (module, level, "", stored == position + 1)


def _next_position(steps: list[Instruction], position: int, opcode: int) -> int:
    while steps[position][0] != opcode:
        position += 1
    return position


def _reads(code: CodeType, steps: list[Instruction]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each variable or global that `steps` read, with the chain of attributes read directly from it; the chain may be empty."""
    shared = {*code.co_cellvars, *code.co_freevars}
    for position, (op, _, name) in enumerate(steps):
        # An instruction that loads a closure cell prepares a nested function, whose code is examined separately.
        if op in opcodes.LOADS and not (op in opcodes.CLOSURE_LOADS and name in shared):
            yield name, chain(steps, position)

"""The typed canonical encoding of values.

Two values have the same encoding exactly if they have the same types, the same content, and the same order of items except in sets. The
memory layout of arrays is not encoded.

*Atoms* (numbers, strings, bytes, None and the like) are written by ``marshal`` in its version 2. This format is typed (1, 1.0, True and "1"
differ, -0.0 differs from 0.0), self-delimiting, fast, and independent of references and interning. It is used only if the exact type of an
object is an atom type, because marshal also accepts any object with a buffer, and writes only the bytes of the buffer. Every NaN has the same
encoding, whatever its bits are.

*Containers* are written by `encode` in the format of marshal. In a container that contains itself, the inner occurrence is written as the
number of levels up to the container. If a value contains one mutable object several times (``[[0] * 3] * 3``), the later occurrences are written
as the number of that object, because a change of one of them is a change of all. *Foreign objects* (functions, classes, instances) are passed to a function of the caller: the code walk
makes a node for each, and a data version contains the state that pickle would store. `encode` has an explicit stack, so only memory limits
the depth of values.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MappingProxyType, ModuleType, NoneType
from typing import Any

from blake3 import blake3

from stepwell.kernel_runtime.versions.frames import LEAF, structure

identity: Callable[[object], int] = object.__hash__
"""Returns a number that identifies an object while the object lives. The number differs from the object's ``id``. ``id`` takes three times as
long, because it raises an audit event and the session has an audit hook."""


class Tag:
    """The bytes with which encodings begin. No other module defines such bytes, except `frames`, which defines `LEAF`.

    Atoms (except NaN), lists, tuples and dicts begin with the same bytes as in ``marshal``. A change of a tag in a new release changes all
    versions, so that no stored value is reused.
    """

    LIST, TUPLE, DICT, DICT_END = b"[", b"(", b"{", b"0"
    SET, FROZENSET, SLICE = b"\x81<", b"\x81>", b"\x82"
    ENCLOSING = b"\x83"
    """A reference to an enclosing container, given as the number of levels up."""
    SHARED = b"\x86"
    """A mutable object that the value already contains, given by its number in the order of the first occurrences."""
    FORM, LEAF = b"\x84", LEAF
    NAN, COMPLEX_WITH_NAN = b"\xc2", b"\xc3"
    FOREIGN = b"\xff"
    """A placeholder for a foreign object; the digest of the object's node is written after the encoding that contains the placeholder."""

    # Code.
    CODE, LONG_CODE = b"\xc0", b"\xc1"
    FUNCTION, DEFAULTS, KEYWORD_DEFAULTS, CLOSURE, ATTRIBUTES = b"\xd0", b"\xd1", b"\xd2", b"\xd3", b"\xd5"
    CELL, SELECT = b"\xd9", b"\xda"
    EMPTY = b"\xd4"
    """Stands for a closure cell whose content is missing or left out. In a notebook cell that has no statements or no last expression, stands for
    the missing part."""
    UNBOUND, ASSET, NO_MODULE = b"\xd6", b"\xd7", b"\xd8"
    """`UNBOUND` is for a name without a value, `ASSET` for the key of an asset, and `NO_MODULE` for a module that cannot be imported."""

    # Objects.
    CLASS, CLASS_ENTRY, MODULE = b"\xdb", b"\xdc", b"\xdd"
    DEFINITION, METHOD, PARTIAL, CACHED_FUNCTION, STATIC, PROPERTY, BUILTIN_METHOD, CELL_VARIABLE, CACHED_PROPERTY = (
        b"\xde", b"\xdf", b"\xe1", b"\xe2", b"\xe3", b"\xe4", b"\xe5", b"\xe6", b"\xe9",
    )  # fmt: skip
    VALUE, SET_OF_OBJECTS = b"\xe8", b"\xe7"
    UNDIGESTIBLE, OPAQUE, IGNORED, SECRET, KEYED = b"\xe0", b"\xea", b"\xeb", b"\xec", b"\xed"

    # Nodes.
    NAMED = b"\xc7"
    """For an object that is identified by its name and by the owner of its module."""
    GROUP, MEMBER = b"\xc5", b"\xc6"
    """`GROUP` is for a group of nodes that reach each other, and `MEMBER` for a reference from one node of a group to another."""


PLAIN: frozenset[type] = frozenset({int, str, bytes, bool, NoneType, EllipsisType})
"""Types of atoms for which marshal always writes equal values as equal bytes."""
ATOMS: frozenset[type] = PLAIN | {float, complex}
"""Types of all atoms. A float or complex number may contain NaN, which marshal does not write canonically."""


def atom(value: Any) -> bytes:
    """Return the encoding of an atom, or of a tuple, frozenset or slice that contains nothing but atoms, at any depth."""
    kind = type(value)
    if kind in PLAIN:
        return marshal.dumps(value, 2)
    if kind is float:
        return marshal.dumps(value, 2) if value == value else Tag.NAN  # noqa: PLR0124 - NaN differs from itself
    if kind is complex:
        return marshal.dumps(value, 2) if value == value else Tag.COMPLEX_WITH_NAN + atom(value.real) + atom(value.imag)  # noqa: PLR0124 - as above
    if kind is tuple:
        return (
            marshal.dumps(value, 2)
            if atoms_only(value)
            else Tag.TUPLE + len(value).to_bytes(4, "little") + b"".join(map(atom, value))
        )
    if kind is frozenset:
        return Tag.FROZENSET + len(value).to_bytes(4, "little") + b"".join(sorted(map(atom, value)))
    if kind is slice:
        return Tag.SLICE + atom((value.start, value.stop, value.step))
    if kind is CodeType:
        raise TypeError("atom() cannot encode a code object: use bytecode.facts")
    raise TypeError(f"atom() cannot encode a {kind.__name__}")


def atoms_only(values: Iterable[Any]) -> bool:
    """Return True if all `values` are atoms that marshal writes canonically.

    The result is False if `values` contain a complex number, a NaN, or both a positive and a negative infinity.
    """
    kinds = set(map(type, values))
    if kinds <= PLAIN:
        return True
    if not kinds <= ATOMS or complex in kinds:
        return False
    total = sum([value for value in values if type(value) is float])
    return bool(total == total)  # noqa: PLR0124 - a NaN among them makes the sum NaN


def digest(data: bytes) -> bytes:
    """Return the 16-byte digest of bytes."""
    result: bytes = blake3(data).digest(16)
    return result


def hexdigest(data: bytes) -> str:
    """Return the 16-byte digest of bytes as 32 hexadecimal digits."""
    result: str = blake3(data).hexdigest(16)
    return result


# -- containers

# These are globals because reading an attribute of a class takes five times as long before Python 3.12.
_LIST, _TUPLE, _DICT, _DICT_END = Tag.LIST, Tag.TUPLE, Tag.DICT, Tag.DICT_END
_SET, _FROZENSET, _FORM = Tag.SET, Tag.FROZENSET, Tag.FORM

_LIMIT = 200_000
_MOST_INSTANCES = 20_000
"""Maximum number of instances in one value. Without this limit, the encoding of a value whose `__reduce__` creates new instances each time (a
figure) would not end."""


@dataclass(frozen=True, slots=True)
class Form:
    """The structure of a value that is neither an atom nor a list, tuple, dict or set: the name of its kind, and the parts to encode."""

    name: str
    parts: tuple[Any, ...]


class Undigestible(Exception):  # noqa: N818 - a condition that callers turn into a state, not an error that users see
    """A value that has no canonical encoding.

    Parameters
    ----------
    reason
        The type of the value, and why it has no encoding.
    path
        The path from the whole value that is being encoded to the value without an encoding, for example ``['a'].lock``. Empty if the whole value
        itself has no encoding.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


Foreign = Callable[[Any, Callable[[], str]], "bytes | Form"]
"""A function that encodes foreign objects. It is called with an object and a function that returns the object's path. It returns the encoding
of the object, or a form that `encode` then encodes."""


class SetHasForeign(Exception):  # noqa: N818 - as above
    """A set contains a foreign object that has no encoding yet, so that the members cannot be sorted by their encodings."""


def refuse(item: Any, path: Callable[[], str]) -> bytes | Form:  # noqa: ARG001 - a `Foreign`
    """Raise `SetHasForeign`. Passed to `encode` as `foreign` for values that must not contain foreign objects."""
    raise SetHasForeign


def encode(value: Any, foreign: Foreign, *, sets_apart: bool = False, separate_ids: Container[int] = ()) -> bytes:  # noqa: PLR0915 - one loop, with a case for each kind
    """Return the canonical encoding of a value.

    Parameters
    ----------
    value
        Any object.
    foreign
        Called for each object that is not an atom, a container, an array or an object with a form from `builtin_form`; returns the object's
        encoding or form (`Foreign`).
    sets_apart
        True to pass a set that contains foreign objects to `foreign` as a whole. This is necessary if `foreign` returns placeholders, because
        the members of a set cannot be sorted by placeholders.
    separate_ids
        The ``id`` of each container or array that is passed to `foreign` as a whole.

    Returns
    -------
    bytes
        The encoding. Different values have different encodings, except for objects for which `foreign` returns the same bytes.

    Raises
    ------
    Undigestible
        If the value contains too many instances, or contains the same objects too many times. All exceptions of `foreign` are passed on.
    """
    out: list[bytes] = []
    # One entry per open container: the remaining items, the closing bytes, the identity, and the container.
    stack: list[tuple[Iterator[Any], bytes, int, Any]] = [(iter((value,)), b"", 0, None)]
    ancestors: dict[int, int] = {}
    # Keep temporary objects alive, so that no later object has the same identity.
    alive: dict[int, Any] = {}
    encodings: dict[int, bytes] = {}
    # The mutable objects that were already written, in this order.
    numbers: dict[int, int] = {}
    count = instances = refusals = 0
    counts = [0]
    path = partial(_path, stack, counts)
    while stack:
        items, end, opened, _ = stack[-1]
        for item in items:
            counts[-1] += 1
            kind = type(item)
            if kind in PLAIN:
                out.append(marshal.dumps(item, 2))
                continue
            if kind in ATOMS:
                out.append(atom(item))
                continue
            if separate_ids and id(item) in separate_ids:
                marked = foreign(item, path)
                assert isinstance(marked, bytes)
                out.append(marked)
                continue
            # `ancestors` contains the open containers, `encodings` the immutable leaves that were already written.
            key = identity(item)
            if key in ancestors:
                out.append(Tag.ENCLOSING + (len(stack) - ancestors[key]).to_bytes(4, "little"))
                continue
            if key in numbers:
                out.append(Tag.SHARED + numbers[key].to_bytes(4, "little"))
                continue
            if key in encodings:
                out.append(encodings[key])
                continue
            if kind in _MUTABLE:
                numbers[key] = len(numbers)
                alive[key] = item
            count += 1
            if instances > _MOST_INSTANCES or (count > _LIMIT and len(alive) < count // 8):
                excess = (
                    f"more than {_MOST_INSTANCES:,} instances"
                    if instances > _MOST_INSTANCES
                    else "the same objects too many times"
                )
                raise Undigestible(f"{type(value).__name__} contains {excess}", path())
            closing = b""
            container = item
            if kind in _TREES:
                large = len(item) >= _LARGE and not separate_ids and refusals < _MOST_REFUSALS
                if (
                    is_plain_tree(item, numbers if len(stack) > 1 else None)
                    if large
                    else atoms_only(item) and (kind is not dict or atoms_only(item.values()))
                ):
                    # `marshal` writes the same bytes as this loop in a tenth of the time.
                    alive[key] = item
                    out.append(marshal.dumps(item, 2))
                    continue
                refusals += 1 if large else 0
                if kind is dict:
                    out.append(_DICT)
                    inner: Iterator[Any] = chain.from_iterable(list(item.items()))
                    closing = _DICT_END
                else:
                    out.append((_LIST if kind is list else _TUPLE) + len(item).to_bytes(4, "little"))
                    inner = iter(item)
            elif kind is set or kind is frozenset:
                out.append(_encoded_set(item, foreign, path, sets_apart, separate_ids))
                continue
            else:
                form = builtin_form(item) or structure(item)
                if form is None:
                    if _has_identity(kind):
                        numbers[key] = len(numbers)
                        alive[key] = item
                    form = foreign(item, path)
                    instances += type(form) is Form
                elif type(form) is bytes:
                    # A leaf with a buffer may be large and may occur more than once in the value.
                    alive[key] = item
                    if kind.__name__ in _MUTABLE_LEAVES:
                        numbers[key] = len(numbers)
                    else:
                        encodings[key] = form
                if isinstance(form, bytes):
                    out.append(form)
                    continue
                container = form if isinstance(form, Form) else Form(*form)
                out.append(_FORM + marshal.dumps(container.name, 2) + len(container.parts).to_bytes(4, "little"))
                inner = iter(container.parts)
            ancestors[key] = len(stack)
            alive[key] = item
            stack.append((inner, closing, key, container))
            counts.append(0)
            break
        else:
            out.append(end)
            stack.pop()
            counts.pop()
            ancestors.pop(opened, None)
    return b"".join(out)


def _has_identity(kind: type) -> bool:
    """Return True for the type of an instance that may change in place: an instance that is hashed by its value should not."""
    hashed: Any = kind.__hash__
    return (hashed is None or hashed is object.__hash__) and not issubclass(kind, _NAMED)


def _encoded_set(item: Any, foreign: Foreign, path: Callable[[], str], sets_apart: bool, separate_ids: Container[int]) -> bytes:
    """Return the encoding of a set, with the members sorted by their encodings. The parameters are those of `encode`."""
    inner = refuse if sets_apart else foreign
    try:
        members = [
            atom(member) if type(member) in ATOMS else encode(member, inner, sets_apart=sets_apart, separate_ids=separate_ids)
            for member in item
        ]
        members.sort()
    except SetHasForeign:
        written = foreign(item, path)
        assert isinstance(written, bytes)
        return written
    except RecursionError:
        raise Undigestible(f"{type(item).__name__} is nested too deeply", path()) from None
    return (_SET if type(item) is set else _FROZENSET) + len(members).to_bytes(4, "little") + b"".join(members)


def _path(stack: list[tuple[Iterator[Any], bytes, int, Any]], counts: list[int]) -> str:
    """Return the path to the item that `encode` is encoding.

    Parameters
    ----------
    stack
        The open containers of `encode`, outermost first.
    counts
        For each open container, the position of the item that is being encoded, counted from 1.
    """
    steps = []
    of_instance = False
    for (_, _, _, container), place in zip(stack, counts, strict=False):
        steps.append(_step(container, place, of_instance=of_instance))
        of_instance = type(container) is Form
    return "".join(steps)


_TREES = frozenset((list, tuple, dict))
_MUTABLE = frozenset((list, dict, set, bytearray))
_MUTABLE_LEAVES = frozenset(("ndarray", "DataFrame", "Series"))
_NAMED = (type, FunctionType, BuiltinFunctionType, ModuleType)
"""Types of objects that are usually identified by a name. Two occurrences of one of these are not distinguished from two equal ones."""
_LARGE = 64
"""A container with at least this number of members is first passed to `is_plain_tree`; if the result is True, marshal writes it as a whole."""
_MOST_REFUSALS = 6
"""After this number of negative results of `is_plain_tree` in one value, the function is not called again for this value."""
_DEEPEST = 100
_MANY = 1_000_000
"""If the containers of one level together have more members than this, `is_plain_tree` checks whether the level repeats the same containers."""
_SAMPLE = 5_000


def is_plain_tree(value: Any, numbers: dict[int, int] | None) -> bool:
    """Return True if marshal writes a container and everything in it canonically, and without much repetition.

    The result is False for a value with sets, NaN or instances, for containers that contain themselves or are nested too deeply, and if a list or
    dict occurs several times. It is also False if a large value contains the same tuples many times, because marshal writes every occurrence
    again. Functions written in C check all values of one level of nesting at once, which is faster than a check of each value.

    Parameters
    ----------
    value
        A list, tuple or dict.
    numbers
        The identities of the mutable objects that were written before this value, with their numbers. If the result is True, the lists and dicts
        inside the value are added. None if no other value is written.
    """
    level: Collection[Any] = (value,)
    seen = set[int]()
    order: list[int] = []
    count = 0
    for _ in range(_DEEPEST):
        kinds = set(map(type, level))
        inner = kinds & _TREES
        if not kinds - inner <= _MARSHALLED:
            return False
        if float in kinds:
            total = sum([member for member in level if type(member) is float])
            if total != total:  # noqa: PLR0124 - a NaN among them makes the sum NaN
                return False
        if not inner:
            if numbers is not None:
                inside = order if type(value) is tuple else order[1:]
                if not numbers.keys().isdisjoint(inside):
                    return False
                numbers.update(zip(inside, range(len(numbers), len(numbers) + len(inside)), strict=True))
            return True
        containers = level if kinds == inner else [member for member in level if type(member) in _TREES]
        mutable = containers if tuple not in inner else [member for member in containers if type(member) is not tuple]
        identities = [*map(identity, mutable)]
        seen.update(identities)
        count += len(identities)
        if len(seen) < count:
            return False
        if numbers is not None:
            order += identities
        if tuple in inner and sum(map(len, containers)) > _MANY:
            # Marshal would write each occurrence of an object again.
            sample = [*containers][:: 1 + len(containers) // _SAMPLE]
            if len(set(map(identity, sample))) * 10 < len(sample) * 9:
                return False
        dicts = containers if inner == {dict} else [member for member in containers if type(member) is dict]
        if dicts:
            keys = set(map(type, chain.from_iterable(dicts)))
            if not keys <= PLAIN:
                return False
        others = () if inner == {dict} else [member for member in containers if type(member) is not dict]
        if len(others) == 1 and not dicts:
            (level,) = others
        else:
            level = [*chain.from_iterable(map(dict.values, dicts)), *chain.from_iterable(others)]
    return False


_MARSHALLED = PLAIN | {float}


IMMUTABLE = frozenset((date, datetime, time, timedelta, Decimal))
"""Types of the standard library that are frequent in tables of records and whose instances are immutable."""


def builtin_form(value: Any) -> Form | None:
    """Return the form of a bytearray, range, slice, mappingproxy, memoryview or plain ``object()``, or of an instance of a type in `IMMUTABLE`.

    Return None for any other value.
    """
    kind = type(value)
    if kind is bytearray:
        return Form("bytearray", (bytes(value),))
    if kind is range or kind is slice:
        return Form(kind.__name__, (value.start, value.stop, value.step))
    if kind is MappingProxyType:
        return Form("mappingproxy", (dict(value),))
    if kind is memoryview:
        return Form("memoryview", (value.format, value.shape, value.tobytes()))
    if kind in IMMUTABLE:
        return Form(kind.__name__, value.__reduce_ex__(4)[1])
    if kind is object:
        return Form("object", ())
    return None


def _step(container: Any, position: int, *, of_instance: bool) -> str:
    """Return the part of a path that leads from a container to one of its items, for example ``[0]``, ``['a']`` or ``.name``.

    Parameters
    ----------
    position
        The position of the item, counted from 1. In a dict, each key and each value is counted.
    of_instance
        True if the container is a part of an instance, so that the string keys of a dict are attributes.
    """
    if type(container) in {list, tuple}:
        return f"[{position - 1}]"
    if type(container) is dict:
        for place, key in enumerate(container):
            if place == (position - 1) // 2:
                if of_instance and type(key) is str:
                    return f".{key}"
                return f"[{key!r}]" if type(key) in ATOMS and len(repr(key)) <= 40 else "[...]"
    return ""

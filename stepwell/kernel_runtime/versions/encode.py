"""The typed canonical encoding of values.

`encode` writes a value as bytes that are equal exactly if the values are: types count, order counts except in sets, how a value
lies in memory does not. Containers that hold themselves are written with a reference to the container so many levels above. What is
no data (functions, classes, instances) goes to the caller's `foreign`: the walk makes it a node of its own graph, a data version
writes what reduces it. An explicit stack lets values be nested as deep as memory allows.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from types import MappingProxyType
from typing import Any

from stepwell.kernel_runtime.versions.atoms import ATOMS, PLAIN, atom, atoms_only
from stepwell.kernel_runtime.versions.frames import structure
from stepwell.kernel_runtime.versions.graph import identity

FOREIGN = b"\xff"
"""Stands in an encoding where the digest of a foreign object belongs."""
_LIMIT = 200_000
_MOST_INSTANCES = 20_000
"""Instances that one value may hold; some (a figure) give new objects each time they are taken apart, without end."""


@dataclass(frozen=True, slots=True)
class Form:
    """A value that is not a plain container: a name for what it is, and the parts that make it."""

    name: str
    parts: tuple[Any, ...]


class Undigestible(Exception):  # noqa: N818 - a condition that callers turn into a state, no error of the product
    """A value that has no canonical encoding.

    Parameters
    ----------
    reason
        What it is and why.
    path
        How it is reached from the value that was to be encoded: ``['a'].lock``.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


Foreign = Callable[[Any, Callable[[], str]], "bytes | Form"]
"""Given an object and a way to ask how it is reached: returns its encoding, or what to encode in its place."""


class SetHasForeign(Exception):  # noqa: N818 - as above
    """Raised by a `foreign` that cannot write inside a set, where order comes from the encodings."""


def refuse(item: Any, path: Callable[[], str]) -> bytes | Form:  # noqa: ARG001 - a `Foreign`
    """Refuse every object that is no data."""
    raise SetHasForeign


def encode(value: Any, foreign: Foreign, *, sets_apart: bool = False, apart: Container[int] = ()) -> bytes:  # noqa: PLR0915 - one loop, with a case for each container
    """Return the canonical encoding of a value.

    Parameters
    ----------
    value
        Anything.
    foreign
        Called for each object that is no data.
    sets_apart
        Whether a set that holds an object that is no data is itself given to `foreign`: where `foreign` only marks the
        place of an object, the members cannot be put in order here.
    apart
        Identities of containers and arrays that are given to `foreign` as well.

    Raises
    ------
    Undigestible
        If the value is so entangled that its encoding would not end; whatever `foreign` raises.
    """
    out: list[bytes] = []
    # One frame for each container that is open: its remaining items, what ends it, its identity, the container itself.
    stack: list[tuple[Iterator[Any], bytes, int, Any]] = [(iter((value,)), b"", 0, None)]
    above: dict[int, int] = {}
    # By identity, so that no object made on the way gives its identity to another.
    kept: dict[int, Any] = {}
    done: dict[int, bytes] = {}
    count = 0
    instances = 0
    refusals = 0
    counts = [0]

    def path() -> str:
        steps = []
        of_instance = False
        for (_, _, _, container), at in zip(stack, counts, strict=False):
            steps.append(_step(container, at, of_instance=of_instance))
            of_instance = type(container) is Form
        return "".join(steps)

    while stack:
        items, end, identity, _ = stack[-1]
        for item in items:
            counts[-1] += 1
            kind = type(item)
            if kind in PLAIN:
                out.append(marshal.dumps(item, 2))
                continue
            if kind in ATOMS:
                out.append(atom(item))
                continue
            key = id(item)
            if apart and key in apart:
                marked = foreign(item, path)
                assert isinstance(marked, bytes)
                out.append(marked)
                continue
            if key in above:
                out.append(b"\x83" + (len(stack) - above[key]).to_bytes(4, "little"))
                continue
            if key in done:
                out.append(done[key])
                continue
            count += 1
            if count > _LIMIT and len(kept) < count // 8:
                raise Undigestible(f"{type(value).__name__} holds the same objects too many times", path())
            closing = b""
            container = item
            if kind in _TREES and len(item) >= _LARGE and not apart and refusals < _MOST_REFUSALS:
                if is_plain_tree(item):
                    # Marshal writes containers as this function does, at a tenth of the time.
                    out.append(marshal.dumps(item, 2))
                    continue
                refusals += 1
            if kind is list or kind is tuple:
                if atoms_only(item):
                    out.append(marshal.dumps(item, 2))
                    continue
                out.append((b"[" if kind is list else b"(") + len(item).to_bytes(4, "little"))
                inner: Iterator[Any] = iter(item)
            elif kind is dict:
                if atoms_only(item) and atoms_only(item.values()):
                    out.append(marshal.dumps(item, 2))
                    continue
                out.append(b"{")
                inner = chain.from_iterable(list(item.items()))
                closing = b"0"
            elif kind is set or kind is frozenset:
                try:
                    inner_foreign = refuse if sets_apart else foreign
                    members = [
                        atom(member)
                        if type(member) in ATOMS
                        else encode(member, inner_foreign, sets_apart=sets_apart, apart=apart)
                        for member in item
                    ]
                except SetHasForeign:
                    written = foreign(item, path)
                    assert isinstance(written, bytes)
                    out.append(written)
                    continue
                except RecursionError:
                    raise Undigestible(f"{kind.__name__} is nested too deep", path()) from None
                members.sort()
                out.append(
                    (b"\x81<" if kind is set else b"\x81>") + len(members).to_bytes(4, "little") + b"".join(members)
                )
                continue
            else:
                form = builtin_form(item) or structure(item)
                if form is None:
                    found = foreign(item, path)
                    if isinstance(found, bytes):
                        out.append(found)
                        continue
                    parts = found
                    instances += 1
                    if instances > _MOST_INSTANCES:
                        raise Undigestible(
                            f"{type(value).__name__} holds more than {_MOST_INSTANCES:,} instances", path()
                        )
                elif isinstance(form, bytes):
                    # A leaf with a buffer: it may be large and it may come again.
                    done[key] = form
                    kept[key] = item
                    out.append(form)
                    continue
                else:
                    parts = form if isinstance(form, Form) else Form(*form)
                out.append(b"\x84" + marshal.dumps(parts.name, 2) + len(parts.parts).to_bytes(4, "little"))
                inner = iter(parts.parts)
                container = parts
            above[key] = len(stack)
            kept[key] = item
            stack.append((inner, closing, key, container))
            counts.append(0)
            break
        else:
            out.append(end)
            stack.pop()
            counts.pop()
            above.pop(identity, None)
    return b"".join(out)


_TREES = frozenset((list, tuple, dict))
_LARGE = 64
"""Members from which it pays to look at a container as a whole."""
_MOST_REFUSALS = 6
"""Looks at containers of one value that are in vain, after which none is looked at as a whole."""
_DEEPEST = 100
_MANY = 1_000_000
"""Members of a level from which it is looked whether its containers are the same ones."""
_SAMPLE = 5_000


def is_plain_tree(value: Any) -> bool:
    """Whether marshal writes a container with all that is in it canonically, and in a size that its objects account for.

    Goes level by level, so that the types of a level are looked at in C. What it refuses has an encoding all the same, made member
    by member: sets, NaN, instances, containers that hold themselves or hold the same objects many times.
    """
    level: Collection[Any] = (value,)
    for _ in range(_DEEPEST):
        kinds = set(map(type, level))
        inner = kinds & _TREES
        if not kinds - inner <= _MARSHALLED:
            return False
        if float in kinds:
            total = sum([each for each in level if type(each) is float])
            if total != total:  # noqa: PLR0124 - a NaN among them makes the sum NaN
                return False
        if not inner:
            return True
        containers = level if kinds == inner else [each for each in level if type(each) in _TREES]
        if sum(map(len, containers)) > _MANY:
            # Whether these are different objects, or few of which each would be written many times.
            sample = [*containers][:: 1 + len(containers) // _SAMPLE]
            if len(set(map(identity, sample))) * 10 < len(sample) * 9:
                return False
        dicts = containers if inner == {dict} else [each for each in containers if type(each) is dict]
        if dicts:
            keys = set(map(type, chain.from_iterable(dicts)))
            if not keys <= PLAIN:
                return False
        others = () if inner == {dict} else [each for each in containers if type(each) is not dict]
        if len(others) == 1 and not dicts:
            (level,) = others
        else:
            level = [*chain.from_iterable(map(dict.values, dicts)), *chain.from_iterable(others)]
    return False


_MARSHALLED = PLAIN | {float}


IMMUTABLE = frozenset((date, datetime, time, timedelta, Decimal))
"""Types of the standard library that records often have: their instances cannot change, and nothing but the class need be known of them."""


def builtin_form(value: Any) -> Form | None:
    """Return the form of the builtin types that are neither atoms nor containers."""
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


def _step(container: Any, at: int, *, of_instance: bool) -> str:
    """Return how the item at a place of a container is called; `at` counts from one."""
    if type(container) in {list, tuple}:
        return f"[{at - 1}]"
    if type(container) is dict:
        for place, key in enumerate(container):
            if place == (at - 1) // 2:
                if of_instance and type(key) is str:
                    return f".{key}"
                return f"[{key!r}]" if type(key) in ATOMS and len(repr(key)) <= 40 else "[...]"
    return ""

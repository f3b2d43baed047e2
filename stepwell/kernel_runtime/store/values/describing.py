"""What a reader is told about a value: the name of its type, its size in a few words, and where in it something is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_LONGEST = 60
_MOST_SEEN = 100_000
_MODULE, _QUALNAME = type.__dict__["__module__"].__get__, type.__dict__["__qualname__"].__get__


def name_parts(kind: type) -> tuple[str, str]:
    """Return module and qualified name of a type, whatever its own attributes and those of its metaclass say."""
    try:
        module = _MODULE(kind)
    except AttributeError:
        module = ""
    return module if type(module) is str else "", str(_QUALNAME(kind))


def type_name(value: Any) -> str:
    """Return the type's name as its users write it: ``pandas.DataFrame``, ``int``."""
    kind = type(value)
    module, name = name_parts(kind)
    if module == "builtins":
        return name
    root = module.partition(".")[0].lstrip("_")
    if root != module and getattr(sys.modules.get(root), name, None) is kind:
        module = root
    # A class may have any text for its name; the catalog keeps what has a UTF-8.
    return f"{module}.{name}".encode("utf-8", "backslashreplace").decode()


def summary(value: Any) -> str:
    """Return the shape of a frame or array (rows × columns), the number of items, or a short literal."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex):
        try:
            return _short(repr(value))
        except ValueError:  # an int of more digits than Python prints
            return f"{value.bit_length():,} bits"
    if kind is str or kind is bytes:
        return _short(repr(value[: _LONGEST + 1]))
    if kind in (list, tuple, set, frozenset, dict):
        return f"{len(value):,} item" + ("" if len(value) == 1 else "s")
    try:
        shape = value.shape
        if type(shape) is tuple and all(type(each) is int for each in shape):
            return " × ".join(f"{each:,}" for each in shape)
        if name_parts(kind)[0].startswith("pyarrow"):
            return f"{len(value):,}"
    except KeyboardInterrupt:
        raise
    except BaseException:
        # A property of the user's class may raise anything: a summary is no reason to fail.
        return ""
    return ""


def path_to(value: Any, is_it: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """Return where in a value the first object is that is meant, as one would write it (``[1]['a'].b``), and the object; None if it is not found."""
    queue: list[tuple[str, Any]] = [("", value)]
    seen = {id(value)}
    for path, item in queue:
        if is_it(item):
            return path, item
        if len(seen) > _MOST_SEEN:
            return None
        for label, member in _members(item):
            if id(member) not in seen:
                seen.add(id(member))
                queue.append((path + label, member))
    return None


def _members(item: Any) -> list[tuple[str, Any]]:
    kind = type(item)
    if issubclass(kind, dict):
        found = [(f"[{_literal(key)}]", member) for key, member in list(dict.items(item))[:_MOST_SEEN]]
        found += [(f"'s key {at}", key) for at, key in enumerate(list(dict.keys(item))[:_MOST_SEEN])]
    elif issubclass(kind, list | tuple):
        found = [
            (f"[{at}]", member)
            for at, member in enumerate(kind.__getitem__(item, slice(_MOST_SEEN)) if kind in {list, tuple} else ())
        ]
    elif issubclass(kind, set | frozenset):
        found = (
            [(f"'s member {at}", member) for at, member in enumerate(list(item)[:_MOST_SEEN])]
            if kind in {set, frozenset}
            else []
        )
    else:
        found = []
    if kind.__dictoffset__:
        try:
            space = object.__getattribute__(item, "__dict__")
        except Exception:
            return found
        if type(space) is dict:
            found += [(f".{name}", member) for name, member in list(space.items()) if type(name) is str]
    return found


def _literal(key: Any) -> str:
    return _short(repr(key)) if type(key) in {str, int, float, bool, bytes, type(None)} else "..."


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

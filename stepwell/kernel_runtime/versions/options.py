"""What a row of the table of options is: how options are read, set and written down, and which of them count.

A row is small and may fail: a library of another version that keeps its options elsewhere has none here, and nothing else breaks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.versions.ownership import is_local, owner

Counts: TypeAlias = Literal["value", "text", "never"]
"""Whether an option counts for whatever reaches the library, for code that renders, or not at all: it is only set again."""


def values(option: str) -> Counts:
    """Count every option of a row."""
    del option
    return "value"


def never(option: str) -> Counts:
    """Count no option of a row."""
    del option
    return "never"


UNSET: Any = object()
"""The default of an option that is not there unless it is set."""


class Unset(dict[str, Any]):
    """Defaults of a library that takes options of any name."""

    def __missing__(self, option: str) -> Any:
        return UNSET


@dataclass(frozen=True, eq=False)
class Library:
    """One row: a library, or a part of the process.

    Parameters
    ----------
    name
        How it is called in entries.
    read
        Given the module, returns all options by name.
    write
        Given the module, sets one option.
    module
        The module that holds the options; empty for the process.
    reach
        Modules whose use in code reaches the options; first parts of their names suffice.
    defaults
        Given the module, returns the options' defaults; an option that is not in it always counts as changed.
    counts
        Which options count.
    glance
        Given the module, returns what is cheap to read and equal as long as no option changes.
    lists
        Options that are lists to which cells add: what a step added and removed is written down, not the whole list.
    """

    name: str
    read: Callable[[Any], dict[str, Any]]
    write: Callable[[Any, str, Any], None]
    module: str = ""
    reach: tuple[str, ...] = ()
    defaults: Callable[[Any], Mapping[str, Any]] = lambda _: {}
    counts: Callable[[str], Counts] = values
    glance: Callable[[Any], Any] = None  # type: ignore[assignment]
    lists: frozenset[str] = frozenset()
    _found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.glance is None:
            object.__setattr__(self, "glance", self.read)

    def known_defaults(self) -> Mapping[str, Any]:
        """Return the defaults; none as long as the library is not imported."""
        module = sys.modules.get(self.module) if self.module else None
        if self.module and module is None:
            return {}
        if "defaults" not in self._found:
            self._found["defaults"] = self.defaults(module)
        found: Mapping[str, Any] = self._found["defaults"]
        return found


# -- values as text


class _NotPlainError(Exception):
    """A value that cannot be written down."""


def plain(value: Any) -> str | None:
    """Return an option's value as JSON; None if it has no such form: a function of the user's, an open file."""
    try:
        return json.dumps(_plain(value))
    except _NotPlainError:
        return None


def restored(text: str, *, imports: bool = True) -> Any:
    """Return a value from its JSON.

    Parameters
    ----------
    imports
        Whether modules of classes and functions in it are imported; else `UNSET` stands for what is not there.
    """
    return _restored(json.loads(text), imports=imports)


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in {bool, int, float, str}:
        return value
    if kind is list:
        return [_plain(each) for each in value]
    if kind in {tuple, set, frozenset}:
        members = [_plain(each) for each in value]
        return {"": [kind.__name__, members if kind is tuple else sorted(members, key=repr)]}
    if kind is dict and all(type(key) is str and key for key in value):
        return {key: _plain(each) for key, each in value.items()}
    if kind is BuiltinFunctionType and type(value.__self__) is str and value.__name__ == "format":
        # The usual value of pandas' display.float_format.
        return {"": ["format", value.__self__]}
    if kind.__name__ == "Cycler":
        # matplotlib reads what it prints.
        return repr(value)
    found = value if isinstance(value, (FunctionType, BuiltinFunctionType, type)) else None
    # The user's own count by what they do, not by their names.
    if found is not None and owner(found.__module__) and _named(found.__module__, found.__qualname__) is found:
        return {"": ["named", [found.__module__, found.__qualname__]]}
    # Members of enumerations among them: what they print is not what they are.
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise _NotPlainError


def _restored(value: Any, *, imports: bool) -> Any:
    if type(value) is list:
        return [_restored(each, imports=imports) for each in value]
    if type(value) is not dict:
        return value
    if "" not in value:
        return {key: _restored(each, imports=imports) for key, each in value.items()}
    tag, held = value[""]
    if tag == "format":
        return held.format
    if tag == "named":
        found = _named(*held, imported=imports)
        if found is None and not imports:
            return UNSET
        if found is None:
            raise LookupError(f"{'.'.join(held)} is not there")
        return found
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](_restored(each, imports=imports) for each in held)


def _named(module: str, qualname: str, *, imported: bool = False) -> Any:
    if imported:
        from importlib import import_module

        import_module(module)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def users_own(value: Any) -> bool:
    """Return True for a function or class of the user's, an instance of such a class, or a method of one."""
    if isinstance(value, (staticmethod, classmethod, MethodType, partial)):
        return users_own(value.func if isinstance(value, partial) else value.__func__)
    if isinstance(value, property):
        return any(map(users_own, (value.fget, value.fset, value.fdel)))
    found = value if isinstance(value, (FunctionType, type)) else type(value)
    module = found.__module__
    return type(module) is str and is_local(module)


# -- lists to which cells add


def list_change(before: list[Any], after: list[Any]) -> dict[str, list[Any]]:
    """Return what was removed from a list, what was inserted and where, and what was added at its end."""
    found: dict[str, list[Any]] = {"removed": [], "inserted": [], "added": []}
    for tag, first, last, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            found["removed"] += before[first:last]
            new = after[start:end]
            if last == len(before):
                found["added"] += new
            else:
                found["inserted"] += [[start + at, each] for at, each in enumerate(new)]
    return found


def with_change(now: list[Any], change: Mapping[str, list[Any]]) -> list[Any]:
    """Return a list with a change: what it already has is not put there twice."""
    left = [each for each in now if each not in change["removed"]]
    for at, each in change["inserted"]:
        if each not in left and not _is_absent(each):
            left.insert(at, each)
    return left + [each for each in change["added"] if each not in left and not _is_absent(each)]


def _is_absent(entry: Any) -> bool:
    """Whether an entry is of a library that is not imported: its import will add it."""
    return type(entry) is tuple and any(each is UNSET for each in entry)

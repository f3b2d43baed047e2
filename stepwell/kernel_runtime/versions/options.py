"""One row of the table of options: functions that read, set and serialize the options of a library.

A row may fail because another version of the library keeps its options elsewhere. Then the library has no options here, and everything else
works.
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
"""The code for which an option counts: all code that reaches the library, only code that formats text, or no code. The option is restored
in each case."""


def values(option: str) -> Counts:
    """Return ``"value"``; for rows whose options all count."""
    del option
    return "value"


def never_counts(option: str) -> Counts:
    """Return ``"never"``; for rows whose options never count."""
    del option
    return "never"


UNSET: Any = object()
"""The default of an option that exists only while it is set."""


class Unset(dict[str, Any]):
    """Defaults of a library that accepts options with any name: `UNSET` for every name."""

    def __missing__(self, option: str) -> Any:
        return UNSET


@dataclass(frozen=True, eq=False)
class Library:
    """One row: a library, or a part of the process.

    Parameters
    ----------
    name
        The name of the row in entries.
    read
        Given the module, returns all options by name.
    write
        Given the module, sets one option.
    module
        The module that holds the options; empty for the process.
    reach
        Names of modules, or the first parts of such names: code that uses one of these modules reaches the options.
    defaults
        Given the module, returns the defaults by name; an option without a default always counts as changed.
    counts
        Returns the code for which an option counts.
    glance
        Given the module, returns an object that is cheap to create and stays equal as long as no option changes.
    lists
        Options that are lists to which cells add: the additions and removals of a step are stored, not the whole list.
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
    _cache: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.glance is None:
            object.__setattr__(self, "glance", self.read)

    def known_defaults(self) -> Mapping[str, Any]:
        """Return the defaults; empty until the library is imported."""
        module = sys.modules.get(self.module) if self.module else None
        if self.module and module is None:
            return {}
        if "defaults" not in self._cache:
            self._cache["defaults"] = self.defaults(module)
        defaults: Mapping[str, Any] = self._cache["defaults"]
        return defaults


# -- values as JSON


class _NotPlainError(Exception):
    """A value cannot be represented as JSON."""


def plain_json(value: Any) -> str | None:
    """Return an option's value as JSON; None for a value without JSON, such as a function of the user or an open file."""
    try:
        return json.dumps(_json_value(value))
    except _NotPlainError:
        return None


def restored(text: str, *, imports: bool = True) -> Any:
    """Return the value that JSON represents.

    Parameters
    ----------
    imports
        True to import the modules of classes and functions; otherwise, classes and functions of modules that are not imported become
        `UNSET`.
    """
    return _restored(json.loads(text), imports=imports)


def _json_value(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in {bool, int, float, str}:
        return value
    if kind is list:
        return [_json_value(member) for member in value]
    if kind in {tuple, set, frozenset}:
        members = [_json_value(member) for member in value]
        return {"": [kind.__name__, members if kind is tuple else sorted(members, key=repr)]}
    if kind is dict and all(type(key) is str and key for key in value):
        return {key: _json_value(member) for key, member in value.items()}
    if kind is BuiltinFunctionType and type(value.__self__) is str and value.__name__ == "format":
        # This is the usual kind of value of display.float_format in pandas.
        return {"": ["format", value.__self__]}
    if kind.__name__ == "Cycler":
        # matplotlib accepts the ``repr`` as a value.
        return repr(value)
    target = value if isinstance(value, (FunctionType, BuiltinFunctionType, type)) else None
    # Functions and classes of the user count by their code, not by their names.
    if (
        target is not None
        and owner(target.__module__)
        and _object_named(target.__module__, target.__qualname__) is target
    ):
        return {"": ["named", [target.__module__, target.__qualname__]]}
    # Members of enumerations are integers, too, but their ``str`` is not their value.
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise _NotPlainError


def _restored(value: Any, *, imports: bool) -> Any:
    if type(value) is list:
        return [_restored(item, imports=imports) for item in value]
    if type(value) is not dict:
        return value
    if "" not in value:
        return {key: _restored(item, imports=imports) for key, item in value.items()}
    tag, content = value[""]
    if tag == "format":
        return content.format
    if tag == "named":
        definition = _object_named(*content, imported=imports)
        if definition is None and not imports:
            return UNSET
        if definition is None:
            raise LookupError(f"{'.'.join(content)} does not exist")
        return definition
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](
        _restored(item, imports=imports) for item in content
    )


def _object_named(module: str, qualname: str, *, imported: bool = False) -> Any:
    if imported:
        from importlib import import_module

        import_module(module)
    current: Any = sys.modules.get(module)
    for part in qualname.split("."):
        current = getattr(current, part, None)
    return current


def of_user(value: Any) -> bool:
    """Return True for a function or class of the user, and for an instance or method of such a class."""
    if isinstance(value, (staticmethod, classmethod, MethodType, partial)):
        return of_user(value.func if isinstance(value, partial) else value.__func__)
    if isinstance(value, property):
        return any(map(of_user, (value.fget, value.fset, value.fdel)))
    definition = value if isinstance(value, (FunctionType, type)) else type(value)
    module = definition.__module__
    return type(module) is str and is_local(module)


# -- lists


def list_change(before: list[Any], after: list[Any]) -> dict[str, list[Any]]:
    """Return the items that were removed from a list, inserted (with their positions), and appended."""
    change: dict[str, list[Any]] = {"removed": [], "inserted": [], "added": []}
    for tag, first, last, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            change["removed"] += before[first:last]
            new = after[start:end]
            if last == len(before):
                change["added"] += new
            else:
                change["inserted"] += [[start + offset, item] for offset, item in enumerate(new)]
    return change


def with_change(now: list[Any], change: Mapping[str, list[Any]]) -> list[Any]:
    """Apply a change to a list; an item that the list already contains is not added again."""
    result = [item for item in now if item not in change["removed"]]
    for position, item in change["inserted"]:
        if item not in result and not _is_absent(item):
            result.insert(position, item)
    return result + [item for item in change["added"] if item not in result and not _is_absent(item)]


def _is_absent(entry: Any) -> bool:
    """Return True if an entry belongs to a library that is not imported, whose import will add the entry."""
    return type(entry) is tuple and any(part is UNSET for part in entry)

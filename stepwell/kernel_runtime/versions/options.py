"""The type `Library`: one row of the table of options. It reads and sets the options of one library, and writes their values as JSON.

The functions of a row may fail, because another version of the library keeps its options elsewhere. Then the options of this library are neither
digested nor restored, and everything else works.
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
"""Which code versions contain an option. ``"value"``: those of all code that reaches the library. ``"text"``: only those of code that formats
text. ``"never"``: none. In each case, a reuse restores the option."""


def values(option: str) -> Counts:
    """Return ``"value"`` (see `Counts`) for every option. Used as `Library.counts` for libraries whose options all influence results."""
    del option
    return "value"


def never_counts(option: str) -> Counts:
    """Return ``"never"`` (see `Counts`) for every option. Used as `Library.counts` for libraries whose options are in no code version."""
    del option
    return "never"


UNSET: Any = object()
"""The default of an option that exists only while it is set, such as an entry in a registry."""


class Unset(dict[str, Any]):
    """The default values of options by name, for a library that accepts any name. A name without an entry has the default `UNSET`."""

    def __missing__(self, option: str) -> Any:
        return UNSET


@dataclass(frozen=True, eq=False)
class Library:
    """One row of the table of options: the options of a library, or of a part of the process.

    Parameters
    ----------
    name
        The name of the row. The full name of an option consists of this name, a colon and the option's name.
    read
        Called with the module that contains the options; returns the values of all options by name.
    write
        Called with the module, the name of an option and a value; sets the option to the value.
    module
        The name of the module that contains the options. Empty for options of the process; the functions of the row are then called with None.
    reach
        Names of modules (``matplotlib.pyplot``) or of top-level packages (``matplotlib``). Code that uses one of them can read the options.
    defaults
        Called with the module; returns the default values by name. An option without a default is always treated as changed.
    counts
        Called with the name of an option; returns which code versions contain it, as described at `Counts`.
    glance
        Called with the module; returns an object that is quick to create and remains equal while no option changes. By default, `read` is used.
    lists
        Options that are lists to which cells add items. What a step adds and removes is stored, not the whole list.
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
        """Return the default values by name; empty until the library is imported. They are read once."""
        module = sys.modules.get(self.module) if self.module else None
        if self.module and module is None:
            return {}
        if "defaults" not in self._cache:
            self._cache["defaults"] = self.defaults(module)
        defaults: Mapping[str, Any] = self._cache["defaults"]
        return defaults


# -- values as JSON


class _NotPlainError(Exception):
    """Raised if JSON cannot represent the value of an option."""


def plain_json(value: Any) -> str | None:
    """Return the value of an option as JSON; None if JSON cannot represent the value.

    JSON can represent a function or class of a library, by its name. It cannot represent a function of the user or an open file, for example.
    """
    try:
        return json.dumps(_json_value(value))
    except _NotPlainError:
        return None


def restored(text: str, *, imports: bool = True) -> Any:
    """Return the value of an option from its JSON, which `plain_json` has made.

    Parameters
    ----------
    imports
        True to import the modules of the classes and functions in the value. If False, a class or function becomes `UNSET` if its module is not
        imported.
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
    # The names of the user's functions and classes do not identify them, so JSON cannot represent them.
    if target is not None and owner(target.__module__) and _object_named(target.__module__, target.__qualname__) is target:
        return {"": ["named", [target.__module__, target.__qualname__]]}
    # Members of enumerations may also be numbers or strings, but their ``str`` may differ from their value.
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
            raise LookupError(f"the value of an option refers to {'.'.join(content)}, which does not exist")
        return definition
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](_restored(item, imports=imports) for item in content)


def _object_named(module: str, qualname: str, *, imported: bool = False) -> Any:
    if imported:
        from importlib import import_module

        import_module(module)
    current: Any = sys.modules.get(module)
    for part in qualname.split("."):
        current = getattr(current, part, None)
    return current


def of_user(value: Any) -> bool:
    """Return True for a function or class of the user, for an instance of such a class, and for a method or wrapper of one of these."""
    if isinstance(value, (staticmethod, classmethod, MethodType, partial)):
        return of_user(value.func if isinstance(value, partial) else value.__func__)
    if isinstance(value, property):
        return any(map(of_user, (value.fget, value.fset, value.fdel)))
    definition = value if isinstance(value, (FunctionType, type)) else type(value)
    module = definition.__module__
    return type(module) is str and is_local(module)


# -- lists


def list_change(before: list[Any], after: list[Any]) -> dict[str, list[Any]]:
    """Return the difference between two lists.

    Returns
    -------
    dict
        ``removed``: the items of `before` that `after` does not contain. ``inserted``: the new items that stand before an item of both lists, each
        as a list of its position in `after` and the item. ``added``: the new items at the end of `after`. An item that was moved is in ``removed``,
        and is also treated as new.
    """
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
    """Apply a change from `list_change` to a list, and return the new list. An item that the list already contains is not added again."""
    result = [item for item in now if item not in change["removed"]]
    for position, item in change["inserted"]:
        if item not in result and not _is_absent(item):
            result.insert(position, item)
    return result + [item for item in change["added"] if item not in result and not _is_absent(item)]


def _is_absent(entry: Any) -> bool:
    """Return True if an item of a list refers to a class whose library is not imported. The import of that library adds the item by itself."""
    return type(entry) is tuple and any(part is UNSET for part in entry)

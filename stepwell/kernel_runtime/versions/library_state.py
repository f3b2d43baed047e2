"""State of libraries and of the process on which results depend: options, error handling, styles, the working directory.

`LIBRARIES` is the table of options. Each row (a `Library`) reads the options of one library as a mapping, and sets them. The table has two uses:

- *Reading*: a code version contains the options that the code can reach (`options_of`) and that differ from their defaults. Options that only
  affect the formatting of values are only in versions of code that formats text (`RENDERING`). Options that a step can reach through its inputs
  (`reached_by`), and the working directory, are recorded reads.
- *Writing*: `snapshot` is called before and after a step. `changed` compares the two snapshots and returns the options that the step has changed,
  and `apply` sets them when the step is reused. If a library is not imported, its options are pending: they are set after its import. For code
  versions, a pending option counts as if it were set.

`changed` returns options as entries, and `apply` takes entries. An `Entry` is a pair: the full name of an option, for example
``"pandas:display.max_rows"``, and its value as JSON. Instead of JSON, the second item is ``""`` if the option has its default, and None if JSON
cannot represent the value.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeAlias

from stepwell.kernel_runtime.versions import patches, queries
from stepwell.kernel_runtime.versions.bytecode import CodeFacts, facts
from stepwell.kernel_runtime.versions.encode import ATOMS, digest
from stepwell.kernel_runtime.versions.graph import known_nodes
from stepwell.kernel_runtime.versions.library_options import LIBRARIES
from stepwell.kernel_runtime.versions.options import Counts, Library, list_change, plain_json, restored, with_change
from stepwell.kernel_runtime.versions.ownership import owner
from stepwell.kernel_runtime.versions.process_options import filters_among, watch_warnings

RENDERING = frozenset((
    "repr", "str", "format", "print", "to_string", "to_html", "to_latex", "to_markdown", "info", "style", "array2string", "array_repr",
    "array_str", "display", "latex", "pretty", "sstr", "srepr",
    "get_option", "options", "option_context", "get_options", "get_printoptions", "printoptions", "get_config", "Config", "rcParams",
))  # fmt: skip
"""Names of functions and attributes that format text or read options. Versions of code with one of these names contain options for formatting."""
PLOTTING = frozenset((
    "plot", "hist", "boxplot", "savefig", "subplots", "heatmap", "scatter", "imshow", "plot_joint", "relplot", "displot", "catplot", "pairplot",
    "from_estimator", "from_predictions", "plot_tree",
))  # fmt: skip
"""Names of methods that may draw with matplotlib although the code does not name matplotlib."""
Entry: TypeAlias = tuple[str, "str | None"]
"""The full name of an option and its value as JSON: ``("numpy:errstate.divide", '"raise"')``. Instead of JSON, the second item is ``""`` if the
option has its default, and None if JSON cannot represent the value."""

_ROWS = {row.name: row for row in LIBRARIES}
_BY_TOP: dict[str, tuple[str, ...]] = {}
for _row in LIBRARIES:
    for _top in _row.reach:
        _BY_TOP[_top] = (*_BY_TOP.get(_top, ()), _row.name)


_Counted: TypeAlias = tuple[str, tuple[tuple[str, Any], ...]]
"""Options that differ from their defaults. The first item is one string with the names of all these options, and with the values that JSON can
represent; it is empty if no option differs. The second item contains the name and the value of each option that JSON cannot represent."""
_NOTHING: _Counted = ("", ())


class _Options:
    """The options of one library, with their values at one moment."""

    __slots__ = ("_counted_options", "_texts", "glance", "row", "values")

    def __init__(self, row: Library, values: Mapping[str, Any], glance: Any) -> None:
        self.row = row
        self.values = values
        self.glance = glance
        self._texts: dict[str, str | None] | None = None
        self._counted_options: dict[str, _Counted] = {}

    def texts(self) -> dict[str, str | None]:
        """Return the options that differ from their defaults, as a dict from their names to their values as JSON.

        If JSON cannot represent the value of an option, the dict contains None instead.
        """
        if self._texts is None:
            defaults = self.row.known_defaults()
            self._texts = {
                name: plain_json(value)
                for name, value in self.values.items()
                if name not in defaults or not _equal(value, defaults[name])
            }
        return self._texts

    def counted_options(self, counts: Counts) -> _Counted:
        """Return those options that differ from their defaults and for which the function `Library.counts` returns the argument `counts`."""
        counted = self._counted_options.get(counts)
        if counted is None:
            texts = {name: text for name, text in sorted(self.texts().items()) if self.row.counts(name) == counts}
            pieces = [name if text is None else f"{name}={text}" for name, text in texts.items()]
            objects = tuple([(name, self.values[name]) for name, text in texts.items() if text is None])
            counted = self._counted_options[counts] = (
                f"{self.row.name}: {', '.join(pieces)}" if pieces else "",
                objects,
            )
        return counted


_last_options: dict[str, _Options] = {}
"""Maps the name of a row to the options of its library as they were last read. While no option of a row changes, the `_Options` remains the same
object."""
_pending: dict[str, dict[str, str]] = {}
"""The options that will be set when their library is imported. Maps the name of a row to a dict from the name of each option to its value as JSON,
which is ``""`` for the default."""


def _equal(value: Any, other: Any) -> bool:
    try:
        return type(value) is type(other) and bool(value == other)
    except Exception:
        # The comparison of an array or of an object of the user may fail. Then the option is treated as changed.
        return False


def _present_options(row: Library) -> _Options | None:
    """Return the present options of a library; if it is not imported, its pending options.

    Return None if the library is not imported and no option is pending, or if the options cannot be read.
    """
    last = _last_options.get(row.name)
    module = None
    if row.module and (module := sys.modules.get(row.module)) is None:
        waiting = _pending.get(row.name)
        if not waiting:
            return None
        if last is not None and last.glance == ("pending", waiting):
            return last
        values = {name: restored(text) for name, text in waiting.items() if text}
        values |= {name: with_change([], values[name]) for name in row.lists & values.keys()}
        options = _last_options[row.name] = _Options(row, values, ("pending", dict(waiting)))
        return options
    try:
        glance = row.glance(module)
        if last is not None and last.glance == glance:
            return last
        if last is None:
            # Read the defaults before a cell changes an option in place: an option and its default may be the same list.
            row.known_defaults()
        options = _Options(row, row.read(module), glance)
    except Exception:
        # The import has not ended, or this version of the library keeps its options elsewhere.
        return None
    if last is not None and last.texts() == options.texts() and None not in options.texts().values():
        last.glance = glance
        return last
    _last_options[row.name] = options
    return options


# -- options in code versions

state: dict[str, str] = {}
"""Maps the name of a row in `LIBRARIES` to one string with the options that differed from their defaults when they were last read. Options that
only affect the formatting of text have another key, for example ``"pandas text"``. Only libraries that code has used are contained. While the
options are unchanged, the string is the same object, so the guards of nodes compare identities only."""
_objects: dict[str, tuple[tuple[str, Any], ...]] = {}
"""Maps each key of `state` to the options that JSON cannot represent, each as its name and its value."""


def library_of(value: Any) -> tuple[str, ...]:
    """Return the names of the rows of `LIBRARIES` whose options code can reach through an object; empty if there are no such rows."""
    module = module_of(value)
    rows = _BY_TOP.get(module)
    return rows if rows is not None else _BY_TOP.get(module.partition(".")[0], ())


def module_of(value: Any) -> str:
    """Return the name of a module, of the module that defines a function or class, or of the module that defines the type of another value."""
    if type(value) is ModuleType:
        module: Any = value.__name__
    elif type(value) in _NAMED or issubclass(type(value), type):
        module = value.__module__
    else:
        module = type(value).__module__
    return module if type(module) is str else ""


_NAMED = frozenset((FunctionType, BuiltinFunctionType))


def renders(code_facts: CodeFacts) -> bool:
    """Return True if code contains a name in `RENDERING`, so that it may format text."""
    return not RENDERING.isdisjoint(code_facts.attributes) or any([name in RENDERING for name, _ in code_facts.loads])  # noqa: C419 - a list is quicker


def options_of(library: str, *, text: bool) -> list[tuple[str, str, tuple[tuple[str, Any], ...]]]:
    """Return the options of a library on which code depends.

    Parameters
    ----------
    library
        The name of the library's row in `LIBRARIES`.
    text
        True if the code formats text.

    Returns
    -------
    list of tuple
        One tuple for the options that influence values and, if `text` is True, a second tuple for the options that only affect the formatting of
        text. Options that have their defaults are left out. Each tuple has three items: the key of these options in `state`; the string in `state`
        for this key; and, for each option that JSON cannot represent, its name and its value.
    """
    names = (library, library + _TEXT_SUFFIX) if text else (library,)
    for name in names:
        if name not in state:
            state[name], _objects[name] = _counted_of(name)
    return [(name, state[name], _objects[name]) for name in names]


def refresh() -> None:
    """Bring `state` up to date: read the options of all libraries in it again.

    If a limit of the process has changed (`LIMITS`), empty `graph.known_nodes`. Also find the attributes that the user has set on classes and
    modules of libraries since the last scan (`patches.scan`).
    """
    if patches.has_scanned():
        patches.scan()
    limits, _ = _counted_of(LIMITS)
    if state.setdefault(LIMITS, "") != limits:
        # Most code can reach these options. So nodes have no guards for them, and all nodes are dropped.
        known_nodes.clear()
    for name, before in state.items():
        now, _objects[name] = _counted_of(name)
        if now != before:
            state[name] = now


def reached_by(values: Collection[Any], codes: Iterable[CodeType | None] = ()) -> tuple[str, ...]:
    """Return the names of the groups of options that a step can read because the types of its inputs belong to libraries.

    A group contains the options of one row of `LIBRARIES`, except those that only affect the formatting of text, which are a group of their own
    (``"pandas text"``). `state_digest` returns the digest of a group.

    Parameters
    ----------
    values
        The values of the inputs. The first members of containers are examined, too.
    codes
        The code of the step. If it formats text, the groups of options that only affect the formatting of text are included.
    """
    names: dict[str, None] = {}
    if not ATOMS.issuperset(map(type, values)):
        _reach(values, names, 2)
    if names and any(renders(facts(code)) for code in codes if code is not None):
        return (*names, *[name + _TEXT_SUFFIX for name in names])
    return tuple(names)


_MOST_LOOKED_AT = 20


def _reach(values: Iterable[Any], names: dict[str, None], deeper: int) -> None:
    for value, _ in zip(values, range(_MOST_LOOKED_AT), strict=False):
        kind = type(value)
        if kind in ATOMS:
            continue
        if kind in _CONTAINERS:
            if deeper:
                _reach(value.values() if kind is dict else value, names, deeper - 1)
            continue
        for name in library_of(value):
            names[name] = None
        if owner(kind.__module__) is None:
            # Operators of a user's class may run any code.
            names[LIMITS] = None


def is_plain(value: Any, deeper: int = 2) -> bool:
    """Return True if operators on a value call no code of the user: for numbers, strings, and containers whose first members are such values.

    Parameters
    ----------
    deeper
        How many levels of containers are examined; a container at a deeper level gives False.
    """
    kind = type(value)
    if kind in ATOMS:
        return True
    if kind not in _CONTAINERS or not deeper:
        return False
    members = value.values() if kind is dict else value
    return all(is_plain(member, deeper - 1) for member, _ in zip(members, range(_MOST_LOOKED_AT), strict=False))


_CONTAINERS = frozenset((list, tuple, set, frozenset, dict))


def state_digest(name: str, data_version: Callable[[Any], str | None]) -> str:
    """Return the digest of the present state of a group of options, for a recorded read; empty if all options have their defaults.

    `name` may also stand for the working directory or for an object in DuckDB's default connection. The digest of a missing object is empty.

    Parameters
    ----------
    name
        The name of the group, from `reached_by`; `FOLDER` for the path of the working directory; or, for an object in DuckDB's default
        connection, `queries.IN_CONNECTION` followed by the name of the object.
    data_version
        Returns the digest of a value that JSON cannot represent. If it returns None, the name of the value's type is used.
    """
    if name == FOLDER:
        # The digest covers the absolute path, because another process may have started in another folder.
        return digest(_current_folder()).hex()
    if name.startswith(queries.IN_CONNECTION):
        return queries.object_digest(name)
    row = _ROWS.get(name.removesuffix(_TEXT_SUFFIX))
    if row is None:
        return ""
    text, objects = _counted_of(name)
    if row.reach and patches.present():
        objects = (*objects, *[(patch.option, patch.value()) for patch in patches.reached_in(row.reach)])
    return _digest(text, objects, data_version)


def _digest(text: str, objects: Iterable[tuple[str, Any]], data_version: Callable[[Any], str | None]) -> str:
    for name, value in objects:
        text += f"; {name}={data_version(value) or f'{type(value).__module__}.{type(value).__qualname__}'}"
    return digest(text.encode("utf-8", "surrogatepass")).hex() if text else ""


def warnings_watched(report: Callable[[str], None], data_version: Callable[[Any], str | None]) -> Callable[[], None]:
    """Call a function at every warning from now on; return a function that ends these calls.

    Parameters
    ----------
    report
        Called at every warning. Its argument is the digest that the warning filters had when `warnings_watched` was called.
    data_version
        As in `state_digest`.
    """
    row, now = _ROWS[WARNINGS], list(warnings.filters)
    return watch_warnings(
        lambda: report(_digest(*_Options(row, filters_among(now), None).counted_options("value"), data_version))
    )


# This is the original function. The recorder of reads later wraps `os.getcwdb`.
_current_folder = os.getcwdb
LIMITS = "limits"
"""The name of the row for limits that affect any code: the recursion limit, and the maximum number of digits of an integer as text."""
WARNINGS = "warnings"
"""The name of the row for warning filters. A read of these filters is recorded only for a step that issues a warning."""
FOLDER = "working directory"
"""The name of the row for the working directory. A read of it is recorded only for a step that resolves a relative path."""
_TEXT_SUFFIX = " text"


def _counted_of(name: str) -> _Counted:
    options = _present_options(_ROWS[name.removesuffix(_TEXT_SUFFIX)])
    return _NOTHING if options is None else options.counted_options("text" if name.endswith(_TEXT_SUFFIX) else "value")


# -- changes by a step

_NONE: Mapping[str, Any] = MappingProxyType({})
Snapshot: TypeAlias = Mapping[str, "_Options"]
"""The options of the process and of all imported libraries at one moment, for `changed` and `value_in`."""


def snapshot() -> Snapshot:
    """Return the present options of the process, of all imported libraries, and of libraries with pending options.

    If the options of a library have not changed since the last snapshot, both snapshots contain the same object for this library, so that `changed`
    is fast.
    """
    imported = sys.modules
    return {
        row.name: now
        for row in LIBRARIES
        if (not row.module or row.module in imported or row.name in _pending) and (now := _present_options(row)) is not None
    }


def changed(before: Snapshot, after: Snapshot) -> list[Entry]:
    """Return the options that differ between two snapshots, with their values in the second snapshot.

    For an option in `Library.lists`, the difference of the two lists is returned, not the whole list. ``changed(after, before)`` returns the same
    options with their values in the earlier snapshot. If a library is missing in a snapshot because it was not imported yet, its options are
    treated as having their defaults in this snapshot.
    """
    entries: list[Entry] = []
    for name, row in _ROWS.items():
        now, then = after.get(name), before.get(name)
        if now is then:
            continue
        new = now.texts() if now is not None else {}
        old = then.texts() if then is not None else {}
        for option in sorted({*old, *new}):
            text = new.get(option, "")
            if (option not in old and option not in new) or old.get(option, "") != text or _differ(option, now, then):
                if option in row.lists:
                    defaults = row.known_defaults()
                    lists = [options.values if options is not None else defaults for options in (then, now)]
                    text = plain_json(list_change(lists[0][option], lists[1][option]))
                entries.append((f"{row.name}:{option}", text))
    return entries


def value_in(taken: Snapshot, name: str) -> Any:
    """Return the value of an option in a snapshot; None if the snapshot does not contain it. Used for values that JSON cannot represent.

    Parameters
    ----------
    name
        The full name of the option.
    """
    library, _, option = name.partition(":")
    options = taken.get(library)
    return options.values.get(option) if options is not None else None


def _differ(option: str, now: _Options | None, then: _Options | None) -> bool:
    """Return True if JSON cannot represent the value of an option in `now`, and the value in `then` is another object.

    The result is False if `now` or `then` is None.
    """
    if now is None or then is None or now.texts().get(option, "") is not None:
        return False
    return now.values.get(option) is not then.values.get(option)


def apply(entries: Sequence[Entry] | Sequence[Sequence[str | None]], values: Mapping[str, Any] = _NONE) -> list[str]:
    """Set options to the values that a step gave them. If a library is not imported, its options are set after its import.

    Parameters
    ----------
    entries
        The result of `changed`; each entry may also be a list, as in JSON.
    values
        Maps the full name of each option whose value JSON cannot represent to this value. The libraries of these options are imported.

    Returns
    -------
    list of str
        The full names of the options that could not be set.
    """
    failed: list[str] = []
    by_row: dict[str, dict[str, str]] = {}
    for name, text in entries:
        library, _, option = str(name).partition(":")
        if text is not None and library in _ROWS:
            by_row.setdefault(library, {})[option] = text
        elif name not in values:
            failed.append(str(name))
    for library, row in _ROWS.items():
        texts = by_row.get(library)
        if texts is None:
            continue
        if row.module and row.module not in sys.modules:
            _pending.setdefault(library, {}).update(texts)
            _install_finder()
        else:
            failed += [f"{library}:{option}" for option in _set_options(row, texts)]
    for name, value in values.items():
        library, _, option = name.partition(":")
        try:
            row = _ROWS[library]
            row.write(import_module(row.module) if row.module else None, option, value)
        except Exception:
            failed.append(name)
    return failed


def _set_options(row: Library, texts: Mapping[str, str]) -> list[str]:
    """Set options of an imported library; return the names of the options that could not be set.

    Parameters
    ----------
    texts
        Maps the name of each option to its new value as JSON, or to an empty string if the option gets its default.
    """
    module = sys.modules.get(row.module) if row.module else None
    defaults = row.known_defaults()
    failed = []
    for option, text in texts.items():
        try:
            row.write(module, option, restored(text, imports=option not in row.lists) if text else defaults[option])
        except Exception:
            # This version of the library has no such option, or the value names a style that is not registered in this process.
            failed.append(option)
    return failed


# -- libraries that are imported later


class _Finder:
    """A finder at the beginning of ``sys.meta_path``. After a library is imported, it sets the pending options of this library.

    To find the module of the library, it calls the other finders.
    """

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        rows = [row for row in _pending if _ROWS[row].module == name]
        if not rows:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                _set_when_executed(spec, rows)
                return spec
        return None


_finder = _Finder()


def _install_finder() -> None:
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _set_when_executed(spec: ModuleSpec, rows: Iterable[str]) -> None:
    loader: Any = spec.loader
    execute: Callable[[ModuleType], None] | None = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def executed(module: ModuleType) -> None:
        execute(module)
        for name in rows:
            waiting = _pending.pop(name, None)
            if waiting:
                _set_options(_ROWS[name], waiting)
        if not _pending and _finder in sys.meta_path:
            sys.meta_path.remove(_finder)

    loader.exec_module = executed

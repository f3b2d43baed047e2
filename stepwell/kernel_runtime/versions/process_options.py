# ruff: noqa: SLF001 - modules of the standard library have no public access to this state
"""The options of the process and of the standard library: the functions that read and set them, and their rows in the table of options."""

from __future__ import annotations

import copyreg
import gc
import io
import locale
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from stepwell.kernel_runtime.records import bulk
from stepwell.kernel_runtime.versions.options import UNSET, Counts, Library, Unset, never_counts, of_user, with_change
from stepwell.kernel_runtime.versions.ownership import owner

# -- the process

_START = os.getcwd() if os.path.isdir(".") else ""  # noqa: PTH109, PTH112 - plain strings: compared at every step
_START_PATH = tuple(sys.path)
_START_ARGUMENTS = list(sys.argv)
_START_ZONE = (os.environ.get("TZ"), time.tzname, time.timezone, time.altzone)
_START_CTYPE = locale.setlocale(locale.LC_CTYPE, None)
_CATEGORIES = tuple(
    name for name in ("LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "LC_MESSAGES") if hasattr(locale, name)
)  # fmt: skip


def _folder(_: Any) -> dict[str, Any]:
    path = os.getcwd()  # noqa: PTH109 - as above
    below = path[len(_START) :].lstrip(os.sep) if _START and (path + os.sep).startswith(_START + os.sep) else path
    return {"folder": below}


def _set_folder(_: Any, __: str, value: str) -> None:
    os.chdir(os.path.join(_START, value))  # noqa: PTH118 - as above


def _search_path(_: Any) -> dict[str, Any]:
    return {"entries": [_START_PATH.index(entry) if entry in _START_PATH else entry for entry in sys.path]}


def _set_search_path(_: Any, __: str, change: Mapping[str, list[Any]]) -> None:
    now = with_change(_search_path(None)["entries"], change)
    wanted = [_START_PATH[entry] if type(entry) is int and entry < len(_START_PATH) else entry for entry in now]
    sys.path[:] = [entry for entry in wanted if type(entry) is str]


def _arguments(_: Any) -> dict[str, Any]:
    # The arguments with which the process started name a file of the kernel, and are not an option of the notebook.
    return {"argv": None if sys.argv == _START_ARGUMENTS else list(sys.argv)}


def _set_arguments(_: Any, __: str, value: list[str] | None) -> None:
    sys.argv = list(_START_ARGUMENTS if value is None else value)


def _zone(_: Any) -> dict[str, Any]:
    zone = (os.environ.get("TZ"), time.tzname, time.timezone, time.altzone)
    # The time zone of the machine is not an option of the notebook; a time zone that a cell has set is one.
    return {"TZ": [] if zone[0] is None and zone == _START_ZONE else list(zone)}


def _set_zone(_: Any, __: str, value: list[Any]) -> None:
    if value and value[0] is not None:
        os.environ["TZ"] = value[0]
    else:
        os.environ.pop("TZ", None)
    if hasattr(time, "tzset"):
        time.tzset()


def _locale(_: Any) -> dict[str, Any]:
    return {name: locale.setlocale(getattr(locale, name), None) for name in _CATEGORIES}


def _locale_glance(_: Any) -> Any:
    return locale.setlocale(locale.LC_ALL, None)


def _set_locale(_: Any, option: str, value: str) -> None:
    locale.setlocale(getattr(locale, option), value)


def _is_ours(entry: Any) -> bool:
    # These are the watcher of a running step, and the filters for modules of Stepwell in Stepwell's tests.
    return type(entry[1]) is Watcher or (entry[3] is not None and str(_pattern(entry[3])).startswith("stepwell"))


class Watcher:
    """Takes the place of the message pattern in a warning filter. It matches no warning, but calls a function at each warning.

    Parameters
    ----------
    report
        Called at each warning.
    """

    pattern = "(?!)"
    """A regular expression that matches nothing. Code that copies warning filters reads the attribute ``pattern`` of the compiled patterns in
    them, so this class needs the attribute, too."""
    flags = 0

    def __init__(self, report: Callable[[], None]) -> None:
        self._report = report

    def match(self, _: object) -> None:
        """Call the function `report`. Python's module ``warnings`` calls this method with the text of each warning."""
        self._report()

    def __reduce__(self) -> tuple[Any, ...]:
        # joblib sends filters to its workers. No step runs in a worker, so a plain pattern is enough.
        return re.compile, (self.pattern,)


def watch_warnings(report: Callable[[], None]) -> Callable[[], None]:
    """Call a function at every warning from now on; return a function that ends these calls.

    Parameters
    ----------
    report
        Called without arguments at every warning.
    """
    entry: Any = ("ignore", Watcher(report), Warning, None, 0)
    warnings.filters.insert(0, entry)  # type: ignore[attr-defined]
    # Without this call, a warning that a module has already shown would not reach the filters.
    _filters_changed()

    def end() -> None:
        filters: Any = warnings.filters
        if filters and filters[0] is entry:
            del filters[0]
        else:
            # The step has inserted filters before the watcher's filter.
            filters[:] = [other for other in filters if other is not entry]

    return end


_filters_changed: Callable[[], None] = getattr(warnings, "_filters_mutated", getattr(warnings, "_filters_mutated_lock_held", lambda: None))  # fmt: skip


def _pattern(expression: Any) -> Any:
    return getattr(expression, "pattern", expression)


_Filter = tuple[str, Any, Any, Any, int]


def _filters(_: Any) -> dict[str, Any]:
    return filters_among(warnings.filters)


def filters_among(entries: Iterable[Any]) -> dict[str, Any]:
    """Return the two options that represent a list of warning filters: ``errors`` and ``filters``.

    ``filters`` contains all filters. ``errors`` contains only those that determine which warnings become errors. The filters that Stepwell itself has
    set are left out of both.

    Parameters
    ----------
    entries
        The filters, as in ``warnings.filters``.
    """
    filters: list[_Filter] = [
        (action, _pattern(message), category, _pattern(module), line)
        for action, message, category, module, line in _without_ours(entries)
    ]
    # Filters after the last "error" filter do not affect which warnings become errors.
    last = max((index for index, item in enumerate(filters) if item[0] == "error"), default=-1)
    errors = [("error" if item[0] == "error" else "", *item[1:]) for item in filters[: last + 1]]
    return {"errors": errors, "filters": filters}


def _filters_glance(_: Any) -> list[Any]:
    return _without_ours(warnings.filters)


def _without_ours(entries: Iterable[Any]) -> list[Any]:
    return [entry for entry in entries if not _is_ours(entry)]


def _filters_count(option: str) -> Counts:
    # Other filters influence only code that reads the list of filters.
    return "value" if option == "errors" else "text"


def _set_filters(_: Any, option: str, change: Mapping[str, list[Any]]) -> None:
    if option == "errors":
        # The option "filters" contains the error filters, too.
        return
    present = dict(zip(_filters(None)["filters"], _filters_glance(None), strict=True))
    wanted = with_change([*present], change)
    ours = [entry for entry in warnings.filters if _is_ours(entry)]
    warnings.filters[:] = [*ours, *[present.get(entry) or _compiled(entry) for entry in wanted]]  # type: ignore[index]
    _filters_changed()


def _compiled(entry: _Filter) -> _Filter:
    action, message, category, module, line = entry
    return (
        action, re.compile(message, re.IGNORECASE) if message else None, category, re.compile(module) if module else None, line
    )  # fmt: skip


def _limits(_: Any) -> dict[str, Any]:
    return {"int_max_str_digits": sys.get_int_max_str_digits(), "recursionlimit": sys.getrecursionlimit()}


def _set_limit(_: Any, option: str, value: int) -> None:
    getattr(sys, f"set{'_' if option.startswith('int') else ''}{option}")(value)


# -- the standard library


def _decimal(module: Any) -> dict[str, Any]:
    _, (prec, rounding, least, most, capitals, clamp, _, traps) = module.getcontext().__reduce__()
    return {
        "prec": prec, "rounding": rounding, "Emin": least, "Emax": most, "capitals": capitals, "clamp": clamp,
        "traps": sorted(trap.__name__ for trap in traps),
    }  # fmt: skip


def _decimal_glance(module: Any) -> Any:
    return module.getcontext().__reduce__()[1]


def _set_decimal(module: Any, option: str, value: Any) -> None:
    context = module.getcontext()
    if option != "traps":
        setattr(context, option, value)
        return
    for trap in list(context.traps):
        context.traps[trap] = trap.__name__ in value


_DECIMAL = {
    "prec": 28, "rounding": "ROUND_HALF_EVEN", "Emin": -999999, "Emax": 999999, "capitals": 1, "clamp": 0,
    "traps": ["DivisionByZero", "InvalidOperation", "Overflow"],
}  # fmt: skip


_UMASK = 0o077


def _process(_: Any) -> dict[str, Any]:
    # The mask can be read only by setting it. Files created in between are private to the user.
    mask = os.umask(_UMASK)
    os.umask(mask)
    return {
        "umask": mask, "gc": bulk.collector_enabled(), "gc thresholds": gc.get_threshold(), "switch interval": sys.getswitchinterval(),
    }  # fmt: skip


def _set_process(_: Any, option: str, value: Any) -> None:
    if option == "umask":
        os.umask(value)
    elif option == "gc":
        (gc.enable if value else gc.disable)()
    elif option == "gc thresholds":
        gc.set_threshold(*value)
    else:
        sys.setswitchinterval(value)


# The kernel handles SIGINT, and code that waits for child processes handles SIGCHLD, so these signals are not options.
_SIGNALS = {each.name: each for each in sorted(signal.valid_signals()) if isinstance(each, signal.Signals)} if hasattr(signal, "valid_signals") else {}  # fmt: skip
for _kept in ("SIGINT", "SIGCHLD", "SIGKILL", "SIGSTOP"):
    _SIGNALS.pop(_kept, None)


# The public function converts its result to an enumeration, which is slower.
_getsignal: Callable[[int], Any] = import_module("_signal").getsignal
_NUMBERS = [int(each) for each in _SIGNALS.values()]


def _handlers(_: Any) -> list[Any]:
    return list(map(_getsignal, _NUMBERS))


def _signals(_: Any) -> dict[str, Any]:
    return {name: handler for name, handler in zip(_SIGNALS, _handlers(None), strict=True) if of_user(handler)}


def _set_signal(_: Any, option: str, value: Any) -> None:
    signal.signal(_SIGNALS[option], signal.SIG_DFL if value is UNSET else value)


def registry(
    entries: Callable[[Any], Any], put: Callable[[Any, Any, Any], None] | None = None, prefix: str = ""
) -> tuple[Callable[[Any], dict[str, Any]], Callable[[Any, str, Any], None]]:
    """Return the functions `Library.read` and `Library.write` for a registry: a mapping to which users add entries.

    Only entries whose key or value belongs to the user (`of_user`) are options. The value of such an option is the pair of the entry's key
    and the entry's value.

    Parameters
    ----------
    entries
        Called with the module; returns the mapping.
    put
        Called with the mapping, a key and a value; sets an entry. If None, the entry is set with ``mapping[key] = value``.
    prefix
        A text with which the names of the options begin.
    """

    def read(module: Any) -> dict[str, Any]:
        return {prefix + named_key(key): (key, value) for key, value in entries(module).items() if of_user(value) or of_user(key)}

    def write(module: Any, option: str, value: Any) -> None:
        entries_before = entries(module)
        if value is not UNSET:
            if put is None:
                entries_before[value[0]] = value[1]
            else:
                put(entries_before, *value)
            return
        for key in list(entries_before):
            if prefix + named_key(key) == option:
                del entries_before[key]

    return read, write


def named_key(key: Any) -> str:
    """Return the text that represents a key of a registry in the name of an option."""
    if isinstance(key, tuple):
        return ", ".join(map(named_key, key))
    return f"{key.__module__}.{key.__qualname__}" if isinstance(key, type) else str(key)


_copyreg, _set_copyreg = registry(lambda _: copyreg.dispatch_table)
_converters, _set_converter = registry(lambda module: module.converters, prefix="converter ")
_adapters, _set_adapter = registry(lambda module: module.adapters, prefix="adapter ")


def _sqlite_glance(module: Any) -> Any:
    return dict(module.converters), dict(module.adapters)


def _sqlite(module: Any) -> dict[str, Any]:
    return {**_converters(module), **_adapters(module)}


def _set_sqlite(module: Any, option: str, value: Any) -> None:
    (_set_converter if option.startswith("converter ") else _set_adapter)(module, option, value)


_DIALECT = ("delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting", "skipinitialspace", "strict")  # fmt: skip


def _csv(module: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"field_size_limit": module.field_size_limit()}
    for name in module.list_dialects():
        dialect = module.get_dialect(name)
        options[f"dialect {name}"] = {attribute: getattr(dialect, attribute) for attribute in _DIALECT}
    return options


def _set_csv(module: Any, option: str, value: Any) -> None:
    kind, _, name = option.partition(" ")
    if kind != "dialect":
        module.field_size_limit(value)
    elif value is UNSET:
        module.unregister_dialect(name)
    else:
        module.register_dialect(name, **value)


_EXCEL = dict(zip(_DIALECT, (",", True, None, "\r\n", '"', 0, False, False), strict=True))
_CSV = Unset({
    "field_size_limit": 131072, "dialect excel": _EXCEL, "dialect excel-tab": {**_EXCEL, "delimiter": "\t"},
    "dialect unix": {**_EXCEL, "lineterminator": "\n", "quoting": 1},
})  # fmt: skip


def _mimetypes(module: Any) -> dict[str, Any]:
    # The database of types is None until the first use of `mimetypes`.
    database = module._db
    if database is None:
        return {}
    return {
        f"{kind} {ending}": mimetype
        for kind, strict in (("common", False), ("strict", True))
        for ending, mimetype in database.types_map[strict].items()
        if _mimetypes_known.get(kind, {}).get(ending) != mimetype
    }


_mimetypes_known: dict[str, dict[str, str]] = {}


def _mimetypes_defaults(module: Any) -> Mapping[str, Any]:
    # Create a second database of types in the same way as `mimetypes` does.
    pristine = module.MimeTypes()
    for file in module.knownfiles:
        if os.path.isfile(file):  # noqa: PTH113 - as above
            pristine.read(file)
    _mimetypes_known.update({"strict": pristine.types_map[True], "common": pristine.types_map[False]})
    return Unset()


def _mimetypes_glance(module: Any) -> Any:
    database = module._db
    return () if database is None else [list(types.values()) for types in database.types_map]


def _set_mimetype(module: Any, option: str, value: Any) -> None:
    kind, _, ending = option.partition(" ")
    if value is UNSET:
        module.guess_type("a.txt")
        module._db.types_map[kind == "strict"].pop(ending, None)
    else:
        module.add_type(value, ending, strict=kind == "strict")


# -- logging: the options are restored, but are in no code version

_STREAMS = ("stdout", "stderr")


def _logging(module: Any) -> dict[str, Any]:
    root = module.root
    options: dict[str, Any] = {"disable": root.manager.disable, "root": root.level}
    parts = [(part, "root") for part in (*root.handlers, *root.filters)]
    for name, logger in list(root.manager.loggerDict.items()):
        if type(logger) is module.PlaceHolder:
            continue
        if logger.level or not logger.propagate or logger.disabled:
            options[f"logger {name}"] = [logger.level, logger.propagate, logger.disabled]
        # The handlers of a library's logger are added when the library is imported.
        if (logger.handlers or logger.filters) and owner(name) is None:
            options[f"handlers of {name}"] = [entry for handler in logger.handlers if (entry := _handler(module, handler))]
            parts += [(part, name) for part in (*logger.handlers, *logger.filters)]
    options["handlers"] = [entry for handler in root.handlers if (entry := _handler(module, handler))]
    # Each filter, and each handler that `_new_handler` cannot create, is a separate option. Most of these values cannot be stored.
    for part, name in parts:
        if not isinstance(part, module.Handler) or _handler(module, part) is None:
            options[f"{type(part).__name__} of {name}"] = part
    return options


def _logging_glance(module: Any) -> Any:
    root = module.root
    return (
        root.manager.disable, root.level, [*root.handlers, *root.filters],
        [(name, logger.level, logger.propagate, logger.disabled, *logger.handlers, *logger.filters) for name, logger in list(root.manager.loggerDict.items()) if type(logger) is not module.PlaceHolder],
    )  # fmt: skip


def _handler(module: Any, handler: Any) -> tuple[Any, ...] | None:
    """Return the arguments with which `_new_handler` creates an equal log handler.

    Return None if the class of the handler is none of ``FileHandler``, ``StreamHandler`` and ``NullHandler``, if its formatter has another class than
    ``Formatter``, if it has filters, if it empties its file, or if it writes to a stream that the user has made. Subclasses count as other classes.
    """
    form = handler.formatter
    if handler.filters or (form is not None and type(form) is not module.Formatter):
        return None
    settings = (handler.level, *((form._fmt, form.datefmt, type(form._style).__name__) if form is not None else ()))
    if type(handler) is module.NullHandler:
        return ("null", "", "", *settings)
    if type(handler) is module.FileHandler and handler.mode == "a":
        return ("file", handler.baseFilename, handler.encoding, *settings)
    if type(handler) is module.StreamHandler:
        name = next((stream for stream in _STREAMS if handler.stream in {getattr(sys, stream), getattr(sys, f"__{stream}__")}), "")  # fmt: skip
        if name or type(handler.stream) not in {io.StringIO, io.TextIOWrapper}:
            # Another stream may have been the standard stream before the front end replaced it.
            return ("stream", name or "stderr", "", *settings)
    return None


_STYLES = {"PercentStyle": "%", "StrFormatStyle": "{", "StringTemplateStyle": "$"}


def _set_logging(module: Any, option: str, value: Any) -> None:
    root = module.root
    if option == "disable":
        module.disable(value)
    elif option == "root":
        root.setLevel(value)
    elif option == "handlers":
        for handler in [entry for entry in root.handlers if _handler(module, entry) in value["removed"]]:
            root.removeHandler(handler)
        present = [_handler(module, entry) for entry in root.handlers]
        for entry in (*[entry for _, entry in value["inserted"]], *value["added"]):
            if entry not in present:
                root.addHandler(_new_handler(module, *entry))
    elif option.startswith("handlers of "):
        logger = module.getLogger(option.removeprefix("handlers of "))
        wanted = [] if value is UNSET else value
        for handler in [handler for handler in logger.handlers if _handler(module, handler) not in (None, *wanted)]:
            logger.removeHandler(handler)
        present = [_handler(module, handler) for handler in logger.handlers]
        for entry in wanted:
            if entry not in present:
                logger.addHandler(_new_handler(module, *entry))
    elif not option.startswith("logger "):
        name = option.rpartition(" of ")[2]
        logger = root if name == "root" else module.getLogger(name)
        if value is not UNSET:
            (logger.addHandler if isinstance(value, module.Handler) else logger.addFilter)(value)
    else:
        logger = module.getLogger(option.removeprefix("logger "))
        level, logger.propagate, logger.disabled = value if value is not UNSET else (0, True, False)
        logger.setLevel(level)


def _new_handler(module: Any, kind: str, where: str, encoding: str | None, level: int, *form: Any) -> Any:
    if kind == "null":
        handler = module.NullHandler()
    else:
        handler = module.FileHandler(where, encoding=encoding) if kind == "file" else module.StreamHandler(getattr(sys, where))
    handler.setLevel(level)
    if form:
        handler.setFormatter(module.Formatter(form[0], form[1], _STYLES.get(form[2], "%")))
    return handler


def _get_and_set(get: str, put: str) -> tuple[Callable[[Any], dict[str, Any]], Callable[[Any, str, Any], None]]:
    """Return the functions `Library.read` and `Library.write` for a module with one option.

    Parameters
    ----------
    get
        The name of the module's function that returns the value.
    put
        The name of the module's function that sets the value. It is also the name of the option.
    """

    def read(module: Any) -> dict[str, Any]:
        return {put: getattr(module, get)()}

    def write(module: Any, option: str, value: Any) -> None:
        getattr(module, option)(value)

    return read, write


_timeout, _set_timeout = _get_and_set("getdefaulttimeout", "setdefaulttimeout")


def _start_method(module: Any) -> dict[str, Any]:
    return {"start_method": module.get_start_method(allow_none=True)}


def _set_start_method(module: Any, _: str, value: Any) -> None:
    module.set_start_method(value, force=True)


PROCESS: tuple[Library, ...] = (
    Library("working directory", _folder, _set_folder, defaults=lambda _: {"folder": ""}, counts=never_counts),
    Library("sys.path", _search_path, _set_search_path, defaults=lambda _: {"entries": list(range(len(_START_PATH)))}, counts=never_counts,
            glance=lambda _: list(sys.path), lists=frozenset({"entries"})),
    Library("arguments", _arguments, _set_arguments, reach=("sys", "argparse", "optparse", "getopt", "absl", "click", "typer", "fire", "docopt"),
            defaults=lambda _: {"argv": None}),
    Library("time zone", _zone, _set_zone, reach=("time", "datetime", "calendar", "dateutil", "email", "pandas", "polars", "pyarrow"),
            defaults=lambda _: {"TZ": []}),
    Library("locale", _locale, _set_locale, reach=("locale", "_locale", "time", "datetime", "calendar", "pandas"),
            defaults=lambda _: dict.fromkeys(_CATEGORIES, "C") | {"LC_CTYPE": _START_CTYPE}, glance=_locale_glance),
    Library("warnings", _filters, _set_filters, defaults=lambda _: {"errors": []}, counts=_filters_count, glance=_filters_glance,
            lists=frozenset({"errors", "filters"})),
    Library("limits", _limits, _set_limit, defaults=lambda _: {"int_max_str_digits": 4300, "recursionlimit": 1000}),
    Library("process", _process, _set_process, defaults=_process, counts=never_counts),
    Library("signals", _signals, _set_signal, defaults=lambda _: Unset(), counts=never_counts, glance=_handlers),
    Library("logging", _logging, _set_logging, "logging", (), lambda _: Unset({"disable": 0, "root": 30, "handlers": []}), never_counts,
            _logging_glance, frozenset({"handlers"})),
    Library("copyreg", _copyreg, _set_copyreg, "copyreg", ("copyreg", "pickle", "copy", "joblib", "cloudpickle"), lambda _: Unset(),
            glance=lambda module: dict(module.dispatch_table)),
    Library("decimal", _decimal, _set_decimal, "decimal", ("decimal", "_decimal", "_pydecimal"), lambda _: _DECIMAL, glance=_decimal_glance),
    Library("csv", _csv, _set_csv, "csv", ("csv", "_csv"), lambda _: _CSV),
    Library("sqlite3", _sqlite, _set_sqlite, "sqlite3", ("sqlite3", "_sqlite3", "pandas"), lambda _: Unset(), glance=_sqlite_glance),
    Library("mimetypes", _mimetypes, _set_mimetype, "mimetypes", ("mimetypes", "http", "email", "urllib"), _mimetypes_defaults,
            glance=_mimetypes_glance),
    Library("socket", _timeout, _set_timeout, "socket", ("socket", "_socket"), lambda _: {"setdefaulttimeout": None}, never_counts),
    Library("multiprocessing", _start_method, _set_start_method, "multiprocessing", ("multiprocessing",),
            lambda _: {"start_method": None}, never_counts),
)  # fmt: skip
"""The first rows of the table of options (`library_options.LIBRARIES`). When a step is reused, options are set in the order of the rows."""

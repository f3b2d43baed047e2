# ruff: noqa: PTH100, PTH111, PTH110, PTH118, SLF001 - plain strings, as in the other files of this folder; who asks decides
"""The table of native readers: functions that open files in C, C++ or Rust, where no audit event is raised; and the files that SQL names.

For each module, when it is imported, `readers_of` gives the functions to wrap and how to find the files in their arguments. pandas is not
in the table: its readers open files in Python or call those of pyarrow. Functions that start processes are in it too, because reads of
those processes are not seen. Of a statement of SQL only literals are read. A literal counts if it names an existing file, or stands where
DuckDB expects a file: after FROM, JOIN or ATTACH, or inside a reading function.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from stepwell.kernel_runtime.reads.children import asker, pool_used, process_started, work_sent
from stepwell.kernel_runtime.reads.file_state import has_magic, matches
from stepwell.kernel_runtime.reads.recorder import ReadRecorder
from stepwell.kernel_runtime.reads.statuses import Aspect, status
from stepwell.kernel_runtime.versions import duckdb_state
from stepwell.kernel_runtime.versions.ownership import is_input_path
from stepwell.kernel_runtime.versions.query_names import tables_in

_PIECES = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<text>'(?:[^']|'')*')|(?P<name>\"(?:[^\"]|\"\")*\")|\$\$(?P<dollars>.*?)\$\$", re.DOTALL
)
_FILE_FUNCTION = re.compile(
    r"\b(?:read_\w+|\w+_scan|sniff_csv|parquet_(?:metadata|schema|file_metadata|kv_metadata)|glob)\s*\(", re.IGNORECASE
)
_INSIDE = re.compile(_FILE_FUNCTION.pattern + r"[^(){}]*$", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(r"\b(?:from|join)\s*$|\b(?:from|join)\b[^()]*,\s*$", re.IGNORECASE | re.DOTALL)
_ATTACHED = re.compile(r"\battach\s+(?:database\s+)?(?:if\s+not\s+exists\s+)?$", re.IGNORECASE)
_WRITTEN = re.compile(r"\bto\s*$|\bexport\s+database\s*$", re.IGNORECASE)
_OPTION = re.compile(r"(?:=>?|:=|:)\s*\[?\s*$")
_BLANK = "\0"


@dataclass(slots=True)
class Named:
    """What a statement names."""

    read: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)
    untold: bool = False
    """Whether a reading function is given no literal."""


def files_named(text: str, parameters: Any = None) -> Named:
    """Return the files that a statement reads, writes and attaches.

    Parameters
    ----------
    parameters
        Values of its parameters: those that name a file count.
    """
    found = Named()
    before = ""
    end = 0
    for piece in _PIECES.finditer(text):
        before = f"{before}{text[end : piece.start()]}"
        end = piece.end()
        literal = _literal(piece)
        if literal is None:
            continue
        if _WRITTEN.search(before):
            found.written.append(literal)
        elif _ATTACHED.search(before):
            found.attached.append(literal)
        elif _OPTION.search(before):
            pass
        elif (piece["text"] is not None and (_AFTER.search(before) or _INSIDE.search(before))) or _is_there(literal):
            found.read.append(literal)
        before += _BLANK
    given = [
        value for value in _values(parameters) if isinstance(value, (str, os.PathLike)) and _is_there(os.fspath(value))
    ]
    found.read += [os.fspath(value) for value in given]
    found.untold = not found.read and _FILE_FUNCTION.search(before + text[end:]) is not None
    return found


def _literal(piece: re.Match[str]) -> str | None:
    if piece["text"] is not None:
        return piece["text"][1:-1].replace("''", "'")
    if piece["name"] is not None:
        return piece["name"][1:-1].replace('""', '"')
    return piece["dollars"]


def _is_there(literal: str) -> bool:
    if not 0 < len(literal) < 4096 or "\n" in literal or "\0" in literal:
        return False
    if os.path.isfile(literal):  # noqa: PTH113 - quicker
        return True
    return has_magic(literal) and os.sep in literal and bool(matches(os.path.abspath(literal)))


def _values(parameters: Any) -> Iterable[Any]:
    if isinstance(parameters, dict):
        return parameters.values()
    return parameters if isinstance(parameters, (list, tuple)) else ()


Note: TypeAlias = Callable[[ReadRecorder, tuple[Any, ...], Mapping[str, Any]], None]
Entry: TypeAlias = tuple[Any, str, Note]
"""A module or class, the name in it of what is to be wrapped, and what notes the files of a call."""

_FIRST = {
    "pyarrow": ("memory_map path", "input_stream source"),
    "pyarrow.feather": ("read_table source",),
    "pyarrow.csv": ("read_csv input_file", "open_csv input_file"),
    "pyarrow.json": ("read_json input_file", "open_json input_file"),
    "pyarrow.dataset": ("dataset source", "parquet_dataset metadata_path"),
    "pyarrow.ipc": ("open_file source", "open_stream source"),
    "pyarrow.orc": ("read_table source", "ORCFile.__init__ source"),
    "pyarrow.parquet": ("read_schema where", "read_metadata where"),
    "lxml.etree": ("parse source", "iterparse source"),
    "pyarrow.parquet.core": ("ParquetFile.__init__ source", "ParquetDataset.__init__ path_or_paths"),
}
"""By module: functions and the name of their first parameter, which is the path, or several."""
_NOT_FILES = frozenset(
    {"read_clipboard", "read_database", "scan_pyarrow_dataset", "scan_external_reader", "scan_arrow_c_stream"}
)
_WRITES = {
    "pyarrow.parquet": ("write_table where", "write_metadata where"),
    "pyarrow.parquet.core": ("ParquetWriter.__init__ where",),
    "pyarrow.feather": ("write_feather dest",),
    "pyarrow.csv": ("write_csv output_file",),
    "pyarrow.orc": ("write_table where",),
    "pyarrow.ipc": ("new_file sink", "new_stream sink"),
    "pyarrow": ("output_stream source",),
}
"""By module: functions and the name of the parameter that is the path of what they write."""
_POLARS_WRITES = ("write_", "sink_")
_RELATION_WRITES = ("write_parquet", "write_csv", "to_parquet", "to_csv")
_LOOK_UPS = {
    "pandas.core.computation.scope": ("Scope", "resolve"),
    "patsy.eval": ("VarLookupDict", "__getitem__"),
    "formulaic.utils.layered_mapping": ("LayeredMapping", "__getitem__"),
}
"""By module: the class and the method that look up one name of a formula or expression."""
MODULES = frozenset(
    {
        *_FIRST,
        *_WRITES,
        *_LOOK_UPS,
        "polars",
        "duckdb",
        "h5py",
        "pyarrow.fs",
        "multiprocessing.process",
        "multiprocessing.pool",
        "concurrent.futures.process",
        "joblib.parallel",
        "random",
        "numpy.random",
        "torch",
    }
)
_WORD = re.compile(r"[^\W\d]\w*")


def readers_of(module: ModuleType) -> Iterator[Entry]:
    """Return what of a module is to be wrapped."""
    name = module.__name__
    if name == "polars":
        for each in sorted(vars(module)):
            if each.startswith(("read_", "scan_")) and each not in _NOT_FILES and callable(vars(module)[each]):
                yield module, each, _first(f"polars.{each}", "uri" if each == "read_database_uri" else "source")
        yield module, "sql", _words(0, "query")
        yield module.SQLContext, "execute", _words(1, "query")
        for kind in (module.DataFrame, module.LazyFrame):
            for each in sorted(vars(kind)):
                if each.startswith(_POLARS_WRITES) and callable(vars(kind)[each]):
                    yield kind, each, _written("file", "path", position=1)
    elif name == "duckdb":
        yield module, "connect", _database
        for place, position in ((module, 0), (module.DuckDBPyConnection, 1)):
            for each in ("sql", "query", "from_query", "execute", "executemany", "query_df"):
                if hasattr(place, each):
                    yield place, each, _statement(position, f"duckdb.{each}")
            for each in ("read_csv", "read_parquet", "read_json", "from_csv_auto", "from_parquet"):
                if hasattr(place, each):
                    yield (
                        place,
                        each,
                        _first(f"duckdb.{each}", "path_or_buffer", "file_glob", "path", position=position),
                    )
            yield from (
                (place, each, _written("file_name", position=1)) for each in _RELATION_WRITES if hasattr(place, each)
            )
        for place, position in ((module, 0), (module.DuckDBPyConnection, 1)):
            yield from (
                (place, each, _held(position))
                for each in ("table", "view", "register", "unregister", "append")
                if hasattr(place, each)
            )
        relation = getattr(module, "DuckDBPyRelation", None)
        if relation is not None:
            yield from (
                (relation, each, _written("file_name", position=1))
                for each in _RELATION_WRITES
                if hasattr(relation, each)
            )
            yield from (
                (relation, each, _words(2 if each == "query" else 1, "sql_query"))
                for each in ("query", "join", "union")
                if each == "query"
            )
            yield from (
                (relation, each, _of_relation)
                for each in ("create", "create_view", "to_table", "to_view", "insert_into", "insert")
                if hasattr(relation, each)
            )
    elif name in {"random", "numpy.random", "torch"}:
        for each in ("seed", "setstate", "set_state", "manual_seed", "set_rng_state"):
            if hasattr(module, each):
                yield module, each, seeding(name)
    elif name in _LOOK_UPS:
        owner_name, method = _LOOK_UPS[name]
        if hasattr(module, owner_name):
            yield getattr(module, owner_name), method, _one_name
    elif name == "h5py":
        yield module.File, "__init__", _hdf5
    elif name == "multiprocessing.process":
        yield module.BaseProcess, "start", process_started
    elif name == "multiprocessing.pool":
        yield from ((module.Pool, each, work_sent) for each in ("apply_async", "_map_async", "imap", "imap_unordered"))
    elif name == "concurrent.futures.process":
        yield module.ProcessPoolExecutor, "submit", work_sent
    elif name == "joblib.parallel":
        yield module.Parallel, "__call__", pool_used
    for text in (*_FIRST.get(name, ()), *_WRITES.get(name, ())):
        path, parameter = text.split()
        owner: Any = module
        *outer, last = path.split(".")
        for part in outer:
            owner = getattr(owner, part, None)
        if hasattr(owner, last):
            shown = ".".join([name.removesuffix(".core"), *(outer or [last])])
            if text in _WRITES.get(name, ()):
                yield owner, last, _written(parameter, position=len(outer) + (last in _SECOND))
            else:
                yield owner, last, _first(shown, parameter, position=len(outer))


_SECOND = frozenset({"write_table", "write_feather", "write_csv", "write_metadata"})
"""Functions whose path is the second parameter."""


def _written(*names: str, position: int) -> Note:
    """Return what notes the path that a native writer is given."""

    def note(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        target = (
            args[position] if len(args) > position else next((kwargs[name] for name in names if name in kwargs), None)
        )
        for path in _paths(target):
            if "://" not in path:
                recorder.opened(os.path.abspath(os.path.expanduser(path)), reads=False, writes=True)

    return note


def _words(position: int, parameter: str) -> Note:
    """Return what notes the variables that a statement of SQL may name."""

    def note(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        text = args[position] if len(args) > position else kwargs.get(parameter)
        if isinstance(text, str):
            tables_looked_up(recorder, text)

    return note


def tables_looked_up(recorder: ReadRecorder, text: str) -> None:
    """Note the variables of the notebook that a statement may name as tables.

    Every word counts that is bound to something a table can be made of. A frame that a function holds under the same name is found there
    first, so the word does not mean the notebook's variable.
    """
    words = dict.fromkeys(table_names(text))
    frame = sys._getframe(1)
    local: set[str] = set()
    while frame is not None:
        if frame.f_locals is not frame.f_globals and is_input_path(frame.f_code.co_filename):
            local.update(frame.f_locals)
            break
        frame = frame.f_back  # type: ignore[assignment]  # the outermost frame has none
    recorder.looked_up(word for word in words if word not in local and recorder.is_table(word))


_parser: list[Any] = []


def table_names(text: str) -> Iterable[str]:
    """Return the names that a statement reads as tables: what DuckDB's parser says, or every word if it cannot tell."""
    try:
        if not _parser:
            _parser.append(sys.modules["_duckdb"].connect(":memory:"))
        # In ``with a as (from df), df as (...)`` the parser finds no table.
        found: Iterable[str] = {*_parser[0].get_table_names(text), *tables_in(text)}
    except Exception:
        return _WORD.findall(text)
    return found


def _one_name(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    lookup, name = args[0], args[1] if len(args) > 1 else kwargs.get("key")
    if not isinstance(name, str):
        return
    # The frames of pandas, the dicts of patsy, the layers of formulaic: the first that has the name gives its value.
    layers: Any = getattr(getattr(lookup, "scope", None), "maps", None) or getattr(lookup, "_dicts", None) or ()
    for layer in layers:
        if name in layer:
            recorder.looked_up([name], layer[name])
            return
    if not layers:
        recorder.looked_up([name])


def seeding(module: str) -> Note:
    """Return what notes that the notebook has seeded a random stream; called also outside of steps."""

    def note(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:  # noqa: ARG001 - a `Note`
        stream = module.removesuffix(".random")
        seeded.add(stream)
        seedings.append(stream)

    note.always = True  # type: ignore[attr-defined]  # read by the wrapper
    return note


seedings: list[str] = []
"""The stream, each time that the user seeded one."""
seeded: set[str] = set()
"""Random streams that the user has seeded in this process: ``random``, ``numpy``, ``torch``."""


def file_system_methods() -> Mapping[str, Note]:
    """Return the methods of pyarrow's local file system that read or write, each with what notes what a call of it reads."""
    return {
        **{name: _first(f"pyarrow.fs.{name}", "path", position=1) for name in ("open_input_file", "open_input_stream")},
        **{name: _written("path", position=1) for name in ("open_output_stream", "open_append_stream")},
        "get_file_info": _file_info,
    }


def _file_info(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    given = args[1] if len(args) > 1 else kwargs["paths_or_selector"]
    base = getattr(given, "base_dir", None)
    if base is None:
        reader = asker(sys._getframe(1), frozenset({"stepwell"}))
        frame = reader.f_back if reader is not None else None
        aspect: Aspect = "stat" if frame is None or is_input_path(frame.f_code.co_filename) else "size"
        for path in map(os.path.abspath, _paths(given)):
            if is_input_path(path):
                recorder.looked_at(path, aspect, status(path, aspect))
        return
    with recorder.looks():
        folders = [folder for folder, _, _ in os.walk(base)] if given.recursive else [base]
    for folder in folders:
        recorder.listed(folder)


def _hdf5(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    path = args[1] if len(args) > 1 else kwargs["name"]
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "r")
    for each in _paths(os.fsdecode(path) if isinstance(path, bytes) else path):
        if mode == "r":
            recorder.path_read(each)
        else:
            recorder.opened(os.path.abspath(each), reads=mode in {"r+", "a"} and os.path.exists(each), writes=True)


def _first(reader: str, *names: str, position: int = 0) -> Note:
    def note(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        source = (
            args[position] if len(args) > position else next((kwargs[name] for name in names if name in kwargs), None)
        )
        if names == ("uri",):
            recorder.not_seen(reader, "a database")
            return
        _noted(recorder, reader, source, kwargs.get("filesystem"))

    return note


def _noted(recorder: ReadRecorder, reader: str, source: Any, filesystem: Any) -> None:
    base = _base(filesystem)
    for path in _paths(source):
        if base is None:
            recorder.not_seen(reader, f"{type(filesystem).__name__}")
        elif "://" in path and not path.startswith("file://"):
            parts = urlsplit(path)
            # A signed address carries a secret in what follows.
            recorder.not_seen(reader, f"{parts.scheme}://{parts.hostname or ''}")
        else:
            recorder.path_read(os.path.join(base, path.removeprefix("file://")))


def _base(filesystem: Any) -> str | None:
    """Return the folder below which a file system has its paths; None for one that is not this machine's."""
    if filesystem is None or type(filesystem).__name__ == "LocalFileSystem" or filesystem in ("file", "local"):
        return ""
    if type(filesystem).__name__ == "SubTreeFileSystem" and _base(filesystem.base_fs) == "":
        return str(filesystem.base_path)
    return None


def _paths(source: Any) -> Iterable[str]:
    if isinstance(source, str):
        return (source,)
    if isinstance(source, os.PathLike):
        return (os.fsdecode(source),)
    if isinstance(source, (list, tuple)):
        return [path for each in source for path in _paths(each)]
    return ()


def _statement(position: int, reader: str) -> Note:
    def note(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        text = args[position] if len(args) > position else kwargs.get("query")
        if not isinstance(text, str) or duckdb_state.state.busy:
            return
        connection = args[0] if position else kwargs.get("connection")
        if duckdb_state.is_own(connection):
            left = duckdb_state.noted(text, outside=recorder is None)
            if recorder is not None:
                recorder.database_used(text, left)
        if recorder is None:
            return
        given = args[position + 1] if len(args) > position + 1 else kwargs.get("parameters", kwargs.get("params"))
        tables_looked_up(recorder, text)
        with recorder.looks():
            named = files_named(text, given)
        for path in named.written:
            recorder.opened(os.path.abspath(path), reads=False, writes=True)
        for path in named.attached:
            _attached(recorder, reader, path)
        _noted(recorder, reader, named.read, None)
        if named.untold:
            recorder.not_seen(reader, "a file whose name is computed")

    # Statements outside of steps change what steps read.
    note.always = True  # type: ignore[attr-defined]  # read by the wrapper
    return note


def _held(position: int) -> Note:
    """Return what notes a name of what DuckDB's own connection holds, or is about to hold."""

    def note(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        name = args[position] if len(args) > position else next(iter(kwargs.values()), None)
        connection = args[0] if position else kwargs.get("connection")
        if not isinstance(name, str) or duckdb_state.state.busy or not duckdb_state.is_own(connection):
            return
        registers = len(args) > position + 1 or "python_object" in kwargs
        if registers:
            duckdb_state.registered(name, outside=recorder is None)
        if recorder is not None:
            recorder.database_used(name, [f"registered {name}"] if registers else [])

    note.always = True  # type: ignore[attr-defined]  # as above
    return note


def _of_relation(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    name = args[1] if len(args) > 1 else next(iter(kwargs.values()), "")
    duckdb_state.state.used = True
    duckdb_state.state.outside += recorder is None
    if recorder is not None:
        recorder.database_used(str(name), [])


_of_relation.always = True  # type: ignore[attr-defined]  # as above


def _database(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    path = args[0] if args else kwargs.get("database", ":memory:")
    if isinstance(path, (str, os.PathLike)):
        _attached(recorder, "duckdb.connect", os.fsdecode(path))


def _attached(recorder: ReadRecorder, reader: str, path: str) -> None:
    if not path or path.startswith(":"):
        return
    scheme, sign, rest = path.partition(":")
    if sign and (scheme in {"md", "motherduck", "postgres", "mysql", "ducklake"} or rest.startswith("//")):
        recorder.not_seen(reader, f"{scheme}:")
        return
    recorder.database_opened(rest if scheme == "sqlite" else path, "-wal" if scheme == "sqlite" else ".wal")

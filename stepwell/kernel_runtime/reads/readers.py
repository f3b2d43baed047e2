# ruff: noqa: PTH100, PTH111, PTH110, SLF001 - strings are quicker than paths; the frames of callers are private to `sys`
"""The table of native readers: functions that open files in C, C++ or Rust, for which Python raises no audit event.

`readers_of` returns the native readers of a module. Each comes with a function (`Note`) that finds the files in the arguments of a call and
reports them to the recorder. The table omits pandas, because the readers of pandas open files in Python or call the readers of pyarrow.
`versions.queries` parses the statements that DuckDB and polars execute.

The table includes functions that start programs and processes. The reads of a child process cannot be recorded, and a notice says so. The writes
of a child process are found by comparison: `checks.Tree` lists the project's files before the first child process starts and after the step. Two sorts
of child processes get no notice: programs with which a library inspects the machine (``lscpu``, ``fc-list``), and worker processes to which
a library sends the data of the step.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType, ModuleType
from typing import Any, TypeAlias

from stepwell.kernel_runtime.reads.checks import Aspect, status
from stepwell.kernel_runtime.reads.recorder import ReadRecorder
from stepwell.kernel_runtime.versions import queries
from stepwell.kernel_runtime.versions.ownership import is_input_path

Note: TypeAlias = Callable[[ReadRecorder, tuple[Any, ...], Mapping[str, Any]], None]
"""A function that reports to a recorder what one call reads and writes. Takes the recorder, and the positional and keyword arguments of the call."""
Entry: TypeAlias = tuple[Any, str, Note]
"""A module or class, the name of its function that must be wrapped, and the `Note` for calls of this function."""

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
"""Maps the name of a module to its functions that read files. Each string names a function and its first parameter: a path
or a list of paths."""
_NOT_FILES = frozenset({"read_clipboard", "read_database", "scan_pyarrow_dataset", "scan_external_reader", "scan_arrow_c_stream"})
_WRITES = {
    "pyarrow.parquet": ("write_table where", "write_metadata where"),
    "pyarrow.parquet.core": ("ParquetWriter.__init__ where",),
    "pyarrow.feather": ("write_feather dest",),
    "pyarrow.csv": ("write_csv output_file",),
    "pyarrow.orc": ("write_table where",),
    "pyarrow.ipc": ("new_file sink", "new_stream sink"),
    "pyarrow": ("output_stream source",),
}
"""Maps the name of a module to its functions that write a file. Each string names a function and its parameter for the path of the file."""
_POLARS_WRITES = ("write_", "sink_")
_RELATION_WRITES = ("write_parquet", "write_csv", "to_parquet", "to_csv")
_LOOK_UPS = {
    "pandas.core.computation.scope": ("Scope", "resolve"),
    "patsy.eval": ("VarLookupDict", "__getitem__"),
    "formulaic.utils.layered_mapping": ("LayeredMapping", "__getitem__"),
}
"""Maps the name of a module to the names of its class and method that look up the names of a formula or expression."""
_DUCKDB_STATEMENTS = ("sql", "query", "from_query", "execute", "executemany", "query_df")
_DUCKDB_READS = ("read_csv", "read_parquet", "read_json", "from_csv_auto", "from_parquet")
_DUCKDB_NAMES = ("table", "view", "register", "unregister", "append")
_RELATION_CREATES = ("create", "create_view", "to_table", "to_view", "insert_into", "insert")
_SECOND = frozenset({"write_table", "write_feather", "write_csv", "write_metadata"})
"""Functions of `_WRITES` whose second parameter is the path. For all other functions of `_WRITES`, the path is the first parameter."""


def _writer_note(*names: str, position: int) -> Note:
    """Return a `Note` for a function that writes a file in native code.

    The path is the argument at `position`, or the keyword argument with one of `names`.
    """

    def note(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        target = args[position] if len(args) > position else next((kwargs[name] for name in names if name in kwargs), None)
        for path in _paths(target):
            if "://" not in path:
                recorder.file_opened(os.path.abspath(os.path.expanduser(path)), reads=False, writes=True)

    return note


def _one_name(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    lookup, name = args[0], args[1] if len(args) > 1 else kwargs.get("key")
    if not isinstance(name, str):
        return
    # The value comes from the first layer that contains the name. pandas, patsy and formulaic have their layers in different attributes.
    layers: Any = getattr(getattr(lookup, "scope", None), "maps", None) or getattr(lookup, "_dicts", None) or ()
    for layer in layers:
        if name in layer:
            recorder.looked_up([name], layer[name])
            return
    if not layers:
        recorder.looked_up([name])


def _seeding(module: str) -> Note:
    """Return a `Note` for the functions that seed the random stream of `module`. The `Note` adds the stream to `seedings` and `seeded`.

    The `Note` is called outside of steps, too.
    """

    def note(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:  # noqa: ARG001 - a `Note`
        stream = module.removesuffix(".random")
        seeded.add(stream)
        seedings.append(stream)

    note.always = True  # type: ignore[attr-defined]  # the wrapper calls it even if no step runs
    return note


seedings: list[str] = []
"""The random streams that the user's code has seeded in this process: one entry for each seeding, in order."""
seeded: set[str] = set()
"""The random streams (``random``, ``numpy``, ``torch``) that the user's code or the reuse of a step has set in this process."""


def file_system_methods() -> Mapping[str, Note]:
    """Return a `Note` for the calls of each method of pyarrow's ``LocalFileSystem`` that reads or writes files. The keys of the dict are the names
    of the methods.
    """
    return {
        **{name: _single_file(f"pyarrow.fs.{name}", "path", position=1) for name in ("open_input_file", "open_input_stream")},
        **{name: _writer_note("path", position=1) for name in ("open_output_stream", "open_append_stream")},
        "get_file_info": _file_info,
    }


def _file_info(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    target = args[1] if len(args) > 1 else kwargs["paths_or_selector"]
    base = getattr(target, "base_dir", None)
    if base is None:
        reader = asker(sys._getframe(1), frozenset({"stepwell"}))
        frame = reader.f_back if reader is not None else None
        aspect: Aspect = "stat" if frame is None or is_input_path(frame.f_code.co_filename) else "size"
        for path in map(os.path.abspath, _paths(target)):
            if is_input_path(path):
                recorder.status_read(path, aspect, status(path, aspect))
        return
    with recorder.paused():
        folders = [folder for folder, _, _ in os.walk(base)] if target.recursive else [base]
    for folder in folders:
        recorder.folder_listed(folder)


def _hdf5(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    name = args[1] if len(args) > 1 else kwargs["name"]
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "r")
    for path in _paths(os.fsdecode(name) if isinstance(name, bytes) else name):
        if mode == "r":
            recorder.path_read(path)
        else:
            recorder.file_opened(os.path.abspath(path), reads=mode in {"r+", "a"} and os.path.exists(path), writes=True)


def _single_file(reader: str, *names: str, position: int = 0) -> Note:
    """Return a `Note` for a function that reads files in native code.

    The path is the argument at `position`, or the keyword argument with one of `names`. `reader` is the name of the function in notices.
    """

    def note(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        source = args[position] if len(args) > position else next((kwargs[name] for name in names if name in kwargs), None)
        if names == ("uri",):
            recorder.unseen_read(reader, "a database")
            return
        filesystem = kwargs.get("filesystem")
        folder = _base(filesystem)
        for path in _paths(source):
            if folder is None:
                recorder.unseen_read(reader, type(filesystem).__name__)
            else:
                recorder.location_read(reader, path, folder)

    return note


def _base(filesystem: Any) -> str | None:
    """Return the folder to which paths in a pyarrow file system are relative.

    Return an empty string for the plain local file system, in which paths are used unchanged. Return None if the files are not local.
    """
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
        return [path for item in source for path in _paths(item)]
    return ()


# -- SQL


def _tables_in_argument(position: int, parameter: str) -> Note:
    """Return a `Note` for a function that executes SQL. The `Note` reports the variables that the statement may name as tables.

    The statement is the argument at `position`, or the keyword argument `parameter`.
    """

    def note(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        text = args[position] if len(args) > position else kwargs.get(parameter)
        if isinstance(text, str):
            tables_looked_up(recorder, text)

    return note


def tables_looked_up(recorder: ReadRecorder, text: str) -> None:
    """Report the variables of the notebook that a SQL statement may name as tables.

    A variable is reported if SQL can read its value as a table, and if the user's function that executes the statement has no local variable of
    the same name.
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
    """Return the names of the tables that a SQL statement reads. If DuckDB cannot parse the statement, return all words of the statement."""
    try:
        if not _parser:
            _parser.append(sys.modules["_duckdb"].connect(":memory:"))
        # DuckDB's parser does not return the table `df` of ``with a as (from df), df as (...)``.
        return {*_parser[0].get_table_names(text), *queries.tables_in(text)}
    except Exception:
        return re.findall(r"[^\W\d]\w*", text)


def _statement(name: str, position: int) -> Note:
    """Return a `Note` for a function of DuckDB that executes a statement. The `Note` reports the tables, files and objects that the statement names.

    Parameters
    ----------
    name
        The name of the function, for notices.
    position
        The position of the statement among the arguments: 0 for a function of the module, 1 for a method of a connection.
    """
    reader = f"duckdb.{name}"

    def note(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        text = args[position] if len(args) > position else kwargs.get("query")
        if not isinstance(text, str) or queries.connection.busy:
            return
        connection = args[0] if position else kwargs.get("connection")
        if queries.is_own(connection):
            leftovers = queries.note_statement(text, outside=recorder is None)
            if recorder is not None:
                recorder.database_used(text, leftovers)
        if recorder is None:
            return
        parameters = args[position + 1] if len(args) > position + 1 else kwargs.get("parameters", kwargs.get("params"))
        tables_looked_up(recorder, text)
        with recorder.paused():
            named = queries.files_named(text, parameters)
        for path in named.written_files:
            recorder.file_opened(os.path.abspath(path), reads=False, writes=True)
        for path in named.attached:
            _attached(recorder, reader, path)
        for path in named.read_files:
            recorder.location_read(reader, path)
        if named.has_computed_name:
            recorder.unseen_read(reader, "a file whose name is computed")

    # Also called outside of steps, because a statement of a plain cell can change DuckDB's default connection, which steps use.
    note.always = True  # type: ignore[attr-defined]  # the wrapper calls it even if no step runs
    return note


def _registered_name(_: str, position: int) -> Note:
    """Return a `Note` for a function of DuckDB whose argument at `position` is the name of an object in DuckDB's default connection.

    The function reads the object (``table``), creates it (``register``), changes it (``append``) or removes it (``unregister``).
    """

    def note(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        name = args[position] if len(args) > position else next(iter(kwargs.values()), None)
        connection = args[0] if position else kwargs.get("connection")
        if not isinstance(name, str) or queries.connection.busy or not queries.is_own(connection):
            return
        registers = len(args) > position + 1 or "python_object" in kwargs
        if registers:
            queries.note_registered(name, outside=recorder is None)
        if recorder is not None:
            recorder.database_used(name, [f"registered {name}"] if registers else [])

    note.always = True  # type: ignore[attr-defined]  # as above
    return note


def _of_relation(recorder: ReadRecorder | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Report that a method of a DuckDB relation is about to create a table or view, or to insert rows into a table."""
    name = args[1] if len(args) > 1 else next(iter(kwargs.values()), "")
    queries.connection.used = True
    queries.connection.outside += recorder is None
    if recorder is not None:
        recorder.database_used(str(name), [])


_of_relation.always = True  # type: ignore[attr-defined]  # as above


def _connection_opened(recorder: ReadRecorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Report the database file that a call of ``duckdb.connect`` is about to open."""
    path = args[0] if args else kwargs.get("database", ":memory:")
    if isinstance(path, (str, os.PathLike)):
        _attached(recorder, "duckdb.connect", os.fsdecode(path))


def _attached(recorder: ReadRecorder, reader: str, path: str) -> None:
    if not path or path.startswith(":"):
        return
    scheme, sign, rest = path.partition(":")
    if sign and (scheme in {"md", "motherduck", "postgres", "mysql", "ducklake"} or rest.startswith("//")):
        recorder.unseen_read(reader, f"{scheme}:")
        return
    recorder.database_opened(rest if scheme == "sqlite" else path, "-wal" if scheme == "sqlite" else ".wal")


# -- programs and processes, whose reads cannot be recorded

PROCESSES = "other processes"
_THROUGH = frozenset({"subprocess", "os", "pty", "asyncio", "multiprocessing", "concurrent", "selectors", "threading", "contextlib", "stepwell"})  # fmt: skip
_MACHINE_INSPECTORS = frozenset({
    "platform", "ctypes", "uuid", "joblib", "loky", "matplotlib", "setuptools", "distutils", "sysconfig", "IPython", "ipykernel", "numba", "torch",
    "triton", "psutil", "webbrowser", "getpass",
})  # fmt: skip
_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "cmd", "cmd.exe"})


def program_started(recorder: ReadRecorder, executable: Any, arguments: Any = (), *_: Any) -> None:
    """Report that a program is about to start (``subprocess.Popen``, ``os.posix_spawn``)."""
    words = [arguments] if isinstance(arguments, (str, bytes, os.PathLike)) else list(arguments or ())
    command = [os.fsdecode(word) for word in words] or [os.fsdecode(executable)]
    name = os.path.basename(command[0])  # noqa: PTH119 - an audit hook runs inside every open()
    if name in _SHELLS and command[1:2] and command[1] in {"-c", "/c"}:
        name = _first_word(command[2] if len(command) > 2 else name)
    elif len(command) == 1:
        name = _first_word(command[0])
    _child(recorder, name)


def command_run(recorder: ReadRecorder, command: Any) -> None:
    """Report that a shell is about to run a command (``os.system``)."""
    _child(recorder, _first_word(os.fsdecode(command)))


def process_started(recorder: ReadRecorder, args: tuple[Any, ...], _: Mapping[str, Any]) -> None:
    """Report that a process of ``multiprocessing`` is about to start. Processes that joblib starts are not reported here, but by `pool_used`."""
    if type(args[0]).__module__.partition(".")[0] not in {"joblib", "loky"}:
        _child(recorder, PROCESSES)


def pool_used(recorder: ReadRecorder, args: tuple[Any, ...], _: Mapping[str, Any]) -> None:
    """Report that the user's code is about to run functions in other processes with ``joblib.Parallel``. Calls by libraries are not reported."""
    parallel = args[0]
    in_processes = not type(getattr(parallel, "_backend", None)).__name__.startswith(("Threading", "Sequential"))
    frame = asker(sys._getframe(1), _THROUGH | {"joblib"})
    if in_processes and parallel.n_jobs not in {1, None} and (frame is None or is_input_path(frame.f_code.co_filename)):
        recorder.child_started(PROCESSES)


def work_sent(recorder: ReadRecorder, args: tuple[Any, ...], _: Mapping[str, Any]) -> None:
    """Report that a function is about to be sent to a pool of processes, which may have started before the step."""
    if type(args[0]).__name__ != "ThreadPool":
        _child(recorder, PROCESSES)


def forked(recorder: ReadRecorder, *_: Any) -> None:
    """Report that this process is about to fork (``os.fork``, ``os.forkpty``)."""
    _child(recorder, PROCESSES)


def _child(recorder: ReadRecorder, name: str) -> None:
    frame = asker(sys._getframe(1), _THROUGH)
    if frame is None or _top(frame) not in _MACHINE_INSPECTORS or _is_command(frame):
        recorder.child_started(name)


def _is_command(frame: FrameType | None) -> bool:
    """Return True if a frame belongs to IPython while it runs a shell command of the user (``!make``)."""
    while frame is not None and _top(frame) in _SHELLS_OF_PYTHON:
        if frame.f_code.co_name in {"system", "getoutput", "system_piped", "system_raw"}:
            return True
        frame = frame.f_back
    return False


_SHELLS_OF_PYTHON = frozenset({"IPython", "ipykernel", "pexpect", "ptyprocess", "pty"})


def asker(frame: FrameType | None, through: Sequence[str] | frozenset[str]) -> FrameType | None:
    """Return the nearest frame, from `frame` outwards, whose module is outside the packages `through`; None if there is no such frame."""
    while frame is not None and _top(frame) in through:
        frame = frame.f_back
    return frame


def _top(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _first_word(command: str) -> str:
    return os.path.basename(command.split(maxsplit=1)[0]) if command.split() else "a shell"  # noqa: PTH119 - as above


# -- the table


def readers_of(module: ModuleType) -> Iterator[Entry]:
    """Yield an `Entry` for each function of an imported module that must be wrapped."""
    name = module.__name__
    special = _SPECIAL.get(name)
    if special is not None:
        yield from special(module)
    for writes, texts in ((False, _FIRST.get(name, ())), (True, _WRITES.get(name, ()))):
        for text in texts:
            path, parameter = text.split()
            *outer, last = path.split(".")
            owner: Any = module
            for part in outer:
                owner = getattr(owner, part, None)
            if not hasattr(owner, last):
                continue
            if writes:
                yield owner, last, _writer_note(parameter, position=len(outer) + (last in _SECOND))
            else:
                shown = ".".join([name.removesuffix(".core"), *(outer or [last])])
                yield owner, last, _single_file(shown, parameter, position=len(outer))


def _entries(place: Any, names: Iterable[str], note: Callable[[str, int], Note], position: int = 0) -> Iterator[Entry]:
    """Yield an `Entry` for each name in `names` that exists in `place`, a module or class.

    Parameters
    ----------
    note
        Takes the name of a function and `position`; returns the `Note` for calls of the function.
    position
        The position of the first argument that is not ``self``: 0 for functions of a module, 1 for methods.
    """
    return ((place, name, note(name, position)) for name in names if hasattr(place, name))


def _polars(module: Any) -> Iterator[Entry]:
    for name in sorted(vars(module)):
        if name.startswith(("read_", "scan_")) and name not in _NOT_FILES and callable(vars(module)[name]):
            yield module, name, _single_file(f"polars.{name}", "uri" if name == "read_database_uri" else "source")
    yield module, "sql", _tables_in_argument(0, "query")
    yield module.SQLContext, "execute", _tables_in_argument(1, "query")
    for kind in (module.DataFrame, module.LazyFrame):
        for name in sorted(vars(kind)):
            if name.startswith(_POLARS_WRITES) and callable(vars(kind)[name]):
                yield kind, name, _writer_note("file", "path", position=1)


def _duckdb(module: Any) -> Iterator[Entry]:
    def reads(name: str, position: int) -> Note:
        return _single_file(f"duckdb.{name}", "path_or_buffer", "file_glob", "path", position=position)

    def writes(_: str, __: int) -> Note:
        return _writer_note("file_name", position=1)

    yield module, "connect", _connection_opened
    for place, position in ((module, 0), (module.DuckDBPyConnection, 1)):
        yield from _entries(place, _DUCKDB_STATEMENTS, _statement, position)
        yield from _entries(place, _DUCKDB_READS, reads, position)
        yield from _entries(place, _RELATION_WRITES, writes)
        yield from _entries(place, _DUCKDB_NAMES, _registered_name, position)
    relation = getattr(module, "DuckDBPyRelation", None)
    if relation is not None:
        yield from _entries(relation, _RELATION_WRITES, writes)
        yield relation, "query", _tables_in_argument(2, "sql_query")
        yield from _entries(relation, _RELATION_CREATES, lambda _, __: _of_relation)


def _seeded(module: ModuleType) -> Iterator[Entry]:
    names = ("seed", "setstate", "set_state", "manual_seed", "set_rng_state")
    return _entries(module, names, lambda _, __: _seeding(module.__name__))


def _looks_up(module: ModuleType) -> Iterator[Entry]:
    owner_name, method = _LOOK_UPS[module.__name__]
    if hasattr(module, owner_name):
        yield getattr(module, owner_name), method, _one_name


def _pool(module: Any) -> Iterator[Entry]:
    return _entries(module.Pool, ("apply_async", "_map_async", "imap", "imap_unordered"), lambda _, __: work_sent)


_SPECIAL: Mapping[str, Callable[[Any], Iterable[Entry]]] = {
    "polars": _polars,
    "duckdb": _duckdb,
    "h5py": lambda module: ((module.File, "__init__", _hdf5),),
    "multiprocessing.process": lambda module: ((module.BaseProcess, "start", process_started),),
    "multiprocessing.pool": _pool,
    "concurrent.futures.process": lambda module: ((module.ProcessPoolExecutor, "submit", work_sent),),
    "joblib.parallel": lambda module: ((module.Parallel, "__call__", pool_used),),
    **dict.fromkeys(("random", "numpy.random", "torch"), _seeded),
    **dict.fromkeys(_LOOK_UPS, _looks_up),
}
"""Maps the name of a module to a function that returns those entries of the module which `_FIRST` and `_WRITES` cannot express."""
MODULES = frozenset({*_FIRST, *_WRITES, *_SPECIAL, "pyarrow.fs"})
"""The names of all modules in the table."""
